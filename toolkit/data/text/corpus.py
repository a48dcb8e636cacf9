"""Documents, cleaned, deduplicated and split once into files that a person can open.

`train.jsonl` and `validation.jsonl` have one document a line (name, source, text), in the order of the sources; a
manifest says what was read, dropped and changed. Preparation streams, and goes on where it was broken off.
Paragraphs are parted by a blank line; `sentences` cuts a text without losing a character.
"""

import copy
import hashlib
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import BinaryIO, Literal

from tqdm import tqdm

from toolkit.bars import bar
from toolkit.data.prepared import CorpusJournal, CorpusManifest, SavedDocument
from toolkit.data.tables.sources import Part, Reading, list_parts
from toolkit.data.text.documents import Document, read_part
from toolkit.data.text.languages import check_language
from toolkit.data.text.seen import HashSet
from toolkit.errors import UserError
from toolkit.run import places
from toolkit.run.files import building, parsed_json, read_json, write_json
from toolkit.run.schema import checked

SPLITS = ("train", "validation")
_BEFORE_STOP = re.compile(r"(?<=[A-Z])[\s./]+(?=\.)")
_AT_ONCE = 2**18  # characters, of which lines and sentences are made at once
_JOURNAL_BYTES = 64 * 2**20  # of text between two notes of how far we are


@dataclass
class CorpusConfig:
    COMMON = ("sources", "validation_share", "txt_documents", "language")

    sources: list[str] = field(default_factory=lambda: ["python-docs"])
    """`python-docs` (documentation of Python and the installed packages), files, folders, globs ('data/**/*.jsonl'),
    or `hub:owner/name[:configuration][@revision]`. Read: .txt .md .jsonl .csv .tsv .parquet, also .gz and .zst."""
    weights: list[float] = field(default_factory=list)
    """How often an epoch of pretraining passes over each source, in their order: [1, 3] reads the second three times,
    0.5 half of it, another half each epoch. Default: 1 each. May be changed without preparing anything again."""
    validation_sources: list[str] = field(default_factory=list)
    """Sources for validation; when empty, documents are held out of `sources` by their hash."""
    validation_share: float = 0.05
    """Share of the documents held out; which ones depends on their text alone, so adding others moves none."""
    txt_documents: Literal["file", "line", "blank-line", "wikitext"] = "file"
    """What is a document in .txt: the file (blank lines part paragraphs); a line; what lies between blank lines (the
    format of google-research/bert); or an article under `= Title =`."""
    md_documents: Literal["file", "heading"] = "file"
    """What is a document in .md: the file, its headings opening sections; or what stands under a heading."""
    text_column: str = "text"
    """The column that holds the text in .jsonl, .csv, .tsv, .parquet and on the hub."""
    hub_split: str = "train"
    """The split that is read of a data set on the hub."""
    errors: Literal["strict", "replace"] = "strict"
    """Bytes that are not UTF-8, and NUL: refuse the file, naming the place; or replace them by U+FFFD and count."""
    min_characters: int = 200
    """Shorter documents are dropped."""
    deduplicate: bool = True
    """Drop documents whose (cleaned) text was seen before."""
    language: str = "en"
    """ISO 639-1 code (en, de, zh), for the sentence splitter."""
    max_unknown: float = 0.05
    """The share of the corpus' characters that the tokenizer may not know, alone or as part of a word. May be changed
    without preparing anything again."""

    def reading(self) -> Reading:
        return Reading(**{item.name: getattr(self, item.name) for item in fields(Reading) if hasattr(self, item.name)},
                       section="corpus.", note=tqdm.write)


def normalise(text: str) -> str:
    """Unix line ends, Unicode NFC, no byte-order mark, no trailing blanks, paragraphs parted by one blank line."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    cleaned = io.StringIO()  # some lines at a time: a million short ones as strings take twenty times what they hold
    for block in _blocks(text):
        block = unicodedata.normalize("NFC", block)  # which joins nothing to a line end
        cleaned.write("\n".join(line.rstrip(" \t\f\v") for line in block.split("\n")))
    text = cleaned.getvalue()
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip()


def _blocks(text: str) -> Iterator[str]:
    """Whole lines, about _AT_ONCE characters of them, whose concatenation is the text."""
    start = 0
    while start < len(text):
        stop = text.find("\n", start + _AT_ONCE) + 1 or len(text)
        yield text[start:stop]
        start = stop


def sentences(text: str, language: str = "en") -> list[str]:
    """Cut a text into sentences whose concatenation is the text; the white space between two goes to the second.

    The cutting is sentencex's (Wikimedia), which knows the abbreviations and full stops of some 240 languages.
    """
    return list(iterate_sentences(text, language))


def iterate_sentences(text: str, language: str = "en") -> Iterator[str]:
    """`sentences`, one by one: in a list, many short ones take far more memory than the text."""
    held, end = "", 0  # each unit runs from the end of the one before, so nothing can be lost
    for stop in _ends_of_sentences(text, language):
        if held:
            yield held
        held, end = text[end:stop], stop
    if held:
        yield held + text[end:]


def _ends_of_sentences(text: str, language: str) -> Iterator[int]:
    """Where each ends, white space after it left out. Paragraphs are seen whole up to _AT_ONCE characters, and longer
    ones some sentences at a time.
    """
    import sentencex

    start = 0
    while start < len(text):
        stop = text.find("\n\n", start)
        stop = len(text) if stop < 0 else stop
        size = _AT_ONCE
        while start < stop:
            seen = min(start + size, stop)
            found, end = [], start
            plain = _as_sentencex_takes_it(text[start:seen])
            for segment in map(str.strip, sentencex.segment(language, plain)):
                if segment:
                    end = start + plain.index(segment, end - start) + len(segment)
                    found.append(end)
            if seen == stop:
                yield from found
                start = stop
            elif len(found) > 1:  # the last may go on beyond what was seen
                yield from found[:-1]
                start, size = found[-2], _AT_ONCE
            else:
                size *= 2
        start = stop + 2


def _as_sentencex_takes_it(text: str) -> str:
    """At "A\xa0. B" and the like it panics (1.0.32): with a plain blank there, a character for a character."""
    return _BEFORE_STOP.sub(lambda found: re.sub(r"[^\S\x00-\x7f]", " ", found[0]), text)


def iterate_documents(sources: list[str], reading: Reading | None = None, progress: bool = False) -> Iterator[Document]:
    """The cleaned documents of sources, streamed in a fixed order."""
    for source in sources:
        for part in list_parts(source):
            for document in read_part(part, reading or Reading(), progress=progress):
                yield Document(document.name, document.source, normalise(document.text))


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a prepared `train.jsonl` or `validation.jsonl`."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            yield prepared_document(line, f"{path}, line {number}")


def prepared_document(line: bytes, place: str) -> Document:
    """What a line of a prepared corpus says; UserError, which begins with its place, where it is damaged."""
    try:
        found = checked(parsed_json(line), SavedDocument, "it")
        found["text"].encode()  # JSON can spell halves of characters, which are no text
    except ValueError as error:
        reason = str(error).rstrip(".")[:200]
        raise UserError(f"{place}: is no document of a prepared corpus ({reason}). Delete the folder to have it "
                        f"prepared again, or choose another data_dir.") from None
    return Document(found["name"], found["source"], found["text"])


# --- preparing ----------------------------------------------------------------------------------------------------


def prepare_corpus(config: CorpusConfig, directory: Path, progress: bool = True) -> dict:
    """Read, clean, deduplicate and split the sources into `directory`; returns the manifest.

    A directory prepared earlier with the same settings is kept as it is; with others, it is refused. A preparation
    that was broken off goes on from its last note, to the same bytes.
    """
    directory = Path(directory)
    _check(config)
    settings = {key: value for key, value in asdict(config).items() if key not in ("weights", "max_unknown")}
    manifest_path = directory / "manifest.json"
    if manifest_path.exists():
        manifest = read_json(manifest_path, CorpusManifest)
        earlier, inputs = manifest["config"], manifest.get("inputs", {})
        changed = [key for key, value in settings.items() if not places.same(earlier.get(key), value)
                   and not places.moved(earlier.get(key), value, inputs.get(key))]
        if changed:
            remedy = "name what it was made from" if changed[0] in inputs else "delete it"
            raise UserError(f"{directory}: was prepared with another corpus.{changed[0]} ({earlier.get(changed[0])!r})."
                            f" Choose another data_dir, or {remedy}.")
        _check_sources(manifest, config, manifest_path)
        return manifest
    check_language(config.language, "corpus.language")
    if directory.exists():
        raise UserError(f"{directory}: has no manifest.json, so it is no prepared corpus. Choose another data_dir, or "
                        f"delete it.")
    named = [(source, "validation", "corpus.validation_sources") for source in config.validation_sources]
    named += [(source, "train" if named else None, "corpus.sources") for source in config.sources]
    parts = [(number, split, part) for number, (source, split, key) in enumerate(named)
             for part in list_parts(source, key)]
    with building(directory) as partial:
        manifest = _Preparation(config, settings, [source for source, *_ in named], parts, partial).run(progress)
        write_json(partial / "manifest.json", manifest)
        (partial / "journal.json").unlink(missing_ok=True)
    if progress:
        tqdm.write(describe(manifest))
    return manifest


def _check_sources(manifest: dict, config: CorpusConfig, path: Path) -> None:
    told, named = len(manifest["sources"]), len(config.validation_sources) + len(config.sources)
    if told != named:
        raise UserError(f"{path}: tells of {told:,} sources, its corpus has {named:,}. Delete the folder to have it "
                        f"prepared again, or choose another data_dir.")


def describe(manifest: dict) -> str:
    """What a preparation read, dropped and changed, in a line."""
    kept = "; ".join(f"{name} {split['documents']:,} documents, {split['bytes'] / 1e6:,.1f} MB"
                     for name, split in manifest["splits"].items())
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in manifest["counts"].items() if count)
    return f"corpus: {kept} ({counts})"


def _check(config: CorpusConfig) -> None:
    if not 0 < config.validation_share < 1:
        raise UserError(f"corpus.validation_share is {config.validation_share}; it must lie between 0 and 1.")
    if not config.sources or not all(source.strip() for source in config.sources + config.validation_sources):
        raise UserError("a source is missing or empty; name files, folders or python-docs.")
    if config.weights and (len(config.weights) != len(config.sources) or min(config.weights) < 0
                           or not any(config.weights)):
        raise UserError(f"corpus.weights is {config.weights}; give one number for each of the {len(config.sources)} "
                        f"corpus.sources, none negative, not all zero.")


class _Preparation:
    """One pass over the parts. `state` is all there is to know of how far it is; `journal.json` keeps it."""

    def __init__(self, config: CorpusConfig, settings: dict, sources: list[str],
                 parts: list[tuple[int, str | None, Part]], directory: Path):
        self.config, self.settings, self.parts, self.directory = config, settings, parts, directory
        self.reading, self.seen = config.reading(), HashSet()
        empty = {"documents": 0, "characters": 0, "bytes": 0, "size": 0}
        self.state = {
            "parts": 0, "documents": 0,  # parts finished; documents read of the next one
            "counts": {"read": 0, "too_short": 0, "duplicates": 0, "unicode_normalised": 0},
            "sources": [{"source": source, **{split: dict(empty) for split in SPLITS}} for source in sources],
        }
        self.begun = self.state  # as it was when the next part was begun
        self.journal = directory / "journal.json"

    def run(self, progress: bool) -> dict:
        self._resume()
        sizes = [part.size for *_, part in self.parts]
        known = None not in sizes
        files = {split: open(self.directory / f"{split}.jsonl", "ab") for split in SPLITS}
        with (files["train"], files["validation"],
              bar(total=sum(sizes) if known else None, desc="reading", unit="B", unit_scale=True,
                  progress=progress) as read):
            if known:
                read.update(sum(sizes[:self.state["parts"]]))
            try:
                self._read(files, read, progress)
            except UserError:
                if any(source[split]["size"] for source in self.state["sources"] for split in SPLITS):
                    self._note(files)
                else:
                    self._forget()
                raise
        splits = {split: {key: sum(source[split][key] for source in self.state["sources"])
                          for key in ("documents", "characters", "bytes")} for split in SPLITS}
        counts = self.state["counts"]
        for split, summary in splits.items():
            if not summary["documents"]:
                self._forget()
                total = sum(part["documents"] for part in splits.values())
                raise UserError(f"{', '.join(self.config.sources)}: no document is left for {split} out of {total} "
                                f"kept ({counts['too_short']} under corpus.min_characters = "
                                f"{self.config.min_characters}). Give more documents, let files hold several "
                                f"(corpus.txt_documents, corpus.md_documents), change corpus.validation_share, or name "
                                f"corpus.validation_sources.")
            with open(self.directory / f"{split}.jsonl", "rb") as file:
                summary["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        revisions = {part.source: part.identity.rsplit(" ", 1)[1] for *_, part in self.parts
                     if part.source.startswith("hub:")}
        inputs = {key: places.contents(self.settings[key]) for key in ("sources", "validation_sources")}
        return {"config": self.settings, "counts": counts, "splits": splits, "sources": self.state["sources"],
                "inputs": inputs,
                **({"revisions": revisions} if revisions else {})}

    def _read(self, files: dict[str, BinaryIO], read: tqdm, progress: bool) -> None:
        counts, config, unnoted = self.state["counts"], self.config, 0
        for number, split_of_source, part in self.parts[self.state["parts"]:]:
            source = self.state["sources"][number]
            if not self.state["documents"]:
                self.begun = copy.deepcopy(self.state)
            for document in read_part(part, self.reading, self.state["documents"], progress):
                text = normalise(document.text)
                encoded = text.encode()
                digest = hashlib.sha256(encoded).digest()
                counts["read"] += 1
                counts["unicode_normalised"] += not unicodedata.is_normalized("NFC", document.text)
                if len(text) < config.min_characters:
                    counts["too_short"] += 1
                elif config.deduplicate and not self.seen.add(digest):
                    counts["duplicates"] += 1
                else:
                    held_out = int.from_bytes(digest[:8], "big") < config.validation_share * 2**64
                    split = split_of_source or ("validation" if held_out else "train")
                    record = asdict(Document(document.name, document.source, text))
                    line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
                    files[split].write(line)
                    summary = source[split]
                    summary["documents"] += 1
                    summary["characters"] += len(text)
                    summary["bytes"] += len(encoded)
                    summary["size"] += len(line)
                    unnoted += len(line)
                self.state["documents"] += 1
                if part.size is None:
                    read.update(len(encoded))
                if unnoted > _JOURNAL_BYTES:
                    self._note(files)
                    unnoted = 0
            if part.size is not None:
                read.update(part.size)
            for name, count in self.reading.counts.items():
                counts[name] = counts.get(name, 0) + count
            self.reading.counts.clear()
            self.state["parts"] += 1
            self.state["documents"] = 0

    def _note(self, files: dict[str, BinaryIO]) -> None:
        """Keep what was done so far. (What `reading` counted in a part that was begun is counted again.)"""
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
        states = [{"read": self._identity(state), **state} for state in (self.state, self.begun)]
        write_json(self.journal, {"config": self.settings, "states": states})

    def _forget(self) -> None:
        for name in ("journal.json", *(f"{split}.jsonl" for split in SPLITS)):
            (self.directory / name).unlink(missing_ok=True)

    def _identity(self, state: dict) -> str:
        """What the finished parts, and the one that was begun, were, and what is said of them: a note that was damaged,
        or of parts that have changed, is none.
        """
        parts = [part.identity for *_, part in self.parts[:state["parts"] + bool(state["documents"])]]
        return hashlib.sha256(json.dumps([parts, state], sort_keys=True).encode()).hexdigest()

    def _could_be(self, state: dict) -> bool:
        """Whether these parts of these sources, and these counts, are what a preparation of ours can have noted."""
        return (state["parts"] <= len(self.parts) and state["counts"].keys() >= self.state["counts"].keys()
                and [source["source"] for source in state["sources"]]
                == [source["source"] for source in self.state["sources"]])

    def _resume(self) -> None:
        """Take up the journal as far as what it tells of is still what we would read; else start afresh.

        A part that was begun and has changed since, repaired perhaps, is read again from its beginning.
        """
        for leftover in self.directory.glob(".*.json.*"):  # of a `write_json` that was killed
            leftover.unlink()
        if self.journal.exists():
            journal = read_json(self.journal, CorpusJournal)
            states = journal["states"] if journal["config"] == self.settings else []
            if valid := [state for state in states if state.pop("read") == self._identity(state)
                         and self._could_be(state)]:
                self.state, self.begun = valid[0], copy.deepcopy(valid[-1])
        for split in SPLITS:
            size = sum(source[split]["size"] for source in self.state["sources"])
            path = self.directory / f"{split}.jsonl"
            path.touch()
            if path.stat().st_size < size:
                raise UserError(f"{path}: is shorter than its journal says. Delete {self.directory} and start again.")
            os.truncate(path, size)
            for document in read_documents(path) if self.config.deduplicate else ():
                self.seen.add(hashlib.sha256(document.text.encode()).digest())
