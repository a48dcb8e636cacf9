"""Documents, from the built-in Python documentation or from files and folders, cleaned, deduplicated and split once.

The outcome is two files that a person can open, `train.jsonl` and `validation.jsonl` (one document a line: name,
source, text), and a manifest. Paragraphs are parted by a blank line; `sentences` cuts a text without losing a
character.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from toolkit.errors import UserError, did_you_mean
from toolkit.run import read_json, write_directory, write_json

BUILT_IN = "python-docs"
TEXT_SUFFIXES = (".txt", ".md")


@dataclass
class CorpusConfig:
    sources: list[str] = field(default_factory=lambda: [BUILT_IN])
    """`python-docs` (documentation of Python and the installed packages), or files and folders of .txt and .md;
    a file is a document, blank lines part its paragraphs."""
    validation_sources: list[str] = field(default_factory=list)
    """Files or folders for validation; when empty, documents are held out of `sources` by their hash."""
    validation_share: float = 0.05
    """Share of the documents held out; which ones depends on their text alone, so adding others moves none."""
    min_characters: int = 200
    """Shorter documents are dropped."""
    language: str = "en"
    """ISO 639-1 code, for the sentence splitter."""


@dataclass(frozen=True)
class Document:
    name: str
    source: str
    text: str


def normalise(text: str) -> str:
    """Unix line ends, Unicode NFC, no byte-order mark, no trailing blanks, paragraphs parted by one blank line."""
    text = unicodedata.normalize("NFC", text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r"[ \t\f\v]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def sentences(text: str, language: str = "en") -> list[str]:
    """Cut a text into sentences whose concatenation is the text; the white space between two goes to the second.

    The cutting is sentencex's (Wikimedia), which knows the abbreviations and full stops of some 240 languages.
    """
    import sentencex

    units, end = [], 0  # each unit runs from the end of the one before, so nothing can be lost
    for paragraph in text.split("\n\n"):
        for segment in sentencex.segment(language, paragraph):
            segment = segment.strip()
            if segment:
                start, end = end, text.index(segment, end) + len(segment)
                units.append(text[start:end])
    if units:
        units[-1] += text[end:]
    return units


def read_text(path: Path) -> str:
    """A UTF-8 text file; what is not one is refused with the byte at which it stops being one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if not data.strip():
        raise UserError(f"{path}: is empty. Remove it from the sources or give it text.")
    if b"\0" in data:
        raise UserError(f"{path}: looks binary (a NUL byte at offset {data.index(bytes(1))}). Give plain UTF-8 text.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 at byte {error.start}. Convert it first, for instance with "
                        f"`iconv -f latin1 -t utf-8`.") from None


def iterate_source(source: str, progress: bool = False, key: str = "corpus.sources") -> Iterator[Document]:
    """The documents of one source, in a fixed order."""
    if source == BUILT_IN:
        from toolkit.data.python_docs import iterate_python_documentation

        for module in iterate_python_documentation(progress=progress):
            yield Document(module.module, module.package, "\n\n".join(module.docstrings))
        return
    path = Path(source)
    if not path.exists():
        hint = did_you_mean(source, [BUILT_IN]) if "/" not in source and "python" in source else ""
        raise UserError(f"{source}: no such file or folder ({key}).{hint}")
    if path.is_file():
        files = [path]
    else:
        files = sorted(file for file in path.rglob("*") if file.suffix in TEXT_SUFFIXES and file.is_file())
        if not files:
            raise UserError(f"{source}: holds no {' or '.join(TEXT_SUFFIXES)} file.")
    for file in tqdm(files, desc=f"reading {path.name}", unit="file", disable=not progress, leave=False):
        text = normalise(read_text(file))
        if file.suffix == ".md":
            text = re.sub(r"^#{1,6} +", "", text, flags=re.MULTILINE)
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        yield Document(name, path.name, text)


def prepare_corpus(config: CorpusConfig, directory: Path, progress: bool = True) -> dict:
    """Read, clean, deduplicate and split the sources into `directory`; returns the manifest.

    A directory prepared earlier with the same settings is kept as it is; with others, it is refused.
    """
    manifest_path = directory / "manifest.json"
    if manifest_path.exists():
        manifest = read_json(manifest_path)
        if manifest["config"] != asdict(config):
            changed = [key for key, value in asdict(config).items() if manifest["config"].get(key) != value]
            raise UserError(f"{directory}: was prepared with another corpus.{changed[0]} "
                            f"({manifest['config'].get(changed[0])!r}). Choose another data_dir, or delete it.")
        return manifest
    if not 0 < config.validation_share < 1:
        raise UserError(f"corpus.validation_share is {config.validation_share}; it must lie between 0 and 1.")
    manifest: dict = {}

    def fill(temporary: Path) -> None:
        manifest.update(_write_split(config, temporary, progress))
        write_json(temporary / "manifest.json", manifest)

    write_directory(directory, fill)
    return manifest


def _write_split(config: CorpusConfig, directory: Path, progress: bool) -> dict:
    seen: set[bytes] = set()
    counts = {"read": 0, "too_short": 0, "duplicates": 0}
    splits = {name: {"documents": 0, "characters": 0, "bytes": 0, "sha256": hashlib.sha256()}
              for name in ("train", "validation")}
    per_source: dict[str, int] = {}
    named = [(source, "validation", "corpus.validation_sources") for source in config.validation_sources]
    named += [(source, "train" if named else None, "corpus.sources") for source in config.sources]
    with open(directory / "train.jsonl", "wb") as train, open(directory / "validation.jsonl", "wb") as validation:
        files = {"train": train, "validation": validation}
        for source, split_of_source, key in named:
            for document in iterate_source(source, progress, key):
                counts["read"] += 1
                digest = hashlib.sha256(document.text.encode()).digest()
                if len(document.text) < config.min_characters:
                    counts["too_short"] += 1
                    continue
                if digest in seen:
                    counts["duplicates"] += 1
                    continue
                seen.add(digest)
                held_out = int.from_bytes(digest[:8], "big") < config.validation_share * 2**64
                split = split_of_source or ("validation" if held_out else "train")
                line = json.dumps(asdict(document), ensure_ascii=False).encode() + b"\n"
                files[split].write(line)
                summary = splits[split]
                summary["sha256"].update(line)
                summary["documents"] += 1
                summary["characters"] += len(document.text)
                summary["bytes"] += len(document.text.encode())
                per_source[document.source] = per_source.get(document.source, 0) + len(document.text)
    for split, summary in splits.items():
        summary["sha256"] = summary["sha256"].hexdigest()
        if not summary["documents"]:
            total = sum(part["documents"] for part in splits.values())
            raise UserError(f"{', '.join(config.sources)}: no document is left for {split} out of {total} kept "
                            f"({counts['too_short']} under corpus.min_characters = {config.min_characters}). Give more "
                            f"documents, change corpus.validation_share, or name corpus.validation_sources.")
    return {"config": asdict(config), **counts, "splits": splits, "characters_by_source": per_source}


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a prepared `train.jsonl` or `validation.jsonl`."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield Document(**json.loads(line))


def unit_batches(documents: Iterable[Document], language: str, characters: int = 1_000_000
                 ) -> Iterator[list[list[str]]]:
    """Documents as lists of sentences, grouped until a group holds about `characters`."""
    group, size = [], 0
    for document in documents:
        group.append(sentences(document.text, language))
        size += len(document.text)
        if size >= characters:
            yield group
            group, size = [], 0
    if group:
        yield group
