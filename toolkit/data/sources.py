"""What a corpus is read from: built-in documentation, files, folders, globs, data sets on the hub.

Everything is streamed: no more than one document is held at a time (of parquet, 64), and none may be longer than
LONGEST. A source is a list of parts (files, or one stream), and a part is a stream of documents, so that reading can
go on at (part, document) after an interruption.
"""

import csv
import gc
import glob
import gzip
import io
import itertools
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import UserError, did_you_mean

BUILT_IN = ("python-docs", "python-source")
KINDS = (".txt", ".md", ".jsonl", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".zst")
LONGEST = 64 * 2**20
"""Bytes of the longest line, and of the longest document: what bounds the memory of every step."""

_HEADING = re.compile(r"#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*\r?\n?$")
_OFFLINE = ("To work offline, fetch it once where there is a network (`hf download --repo-type dataset {name} "
            "--local-dir DIR`) and name its files as the source, for instance 'DIR/**/*.parquet'.")


@dataclass(frozen=True)
class Document:
    name: str
    source: str
    text: str


@dataclass(frozen=True)
class Reading:
    """How files are read; `CorpusConfig` documents these for users. `counts` tells what was met on the way."""

    txt_documents: str = "file"
    md_documents: str = "file"
    text_column: str = "text"
    hub_split: str = "train"
    errors: str = "strict"
    counts: Counter = field(default_factory=Counter, compare=False)


@dataclass(frozen=True)
class Part:
    """A file, a built-in corpus or a hub data set. `identity` changes when its content does."""

    source: str
    label: str
    """What its documents give as their source."""
    name: str
    identity: str
    path: Path | None = None
    size: int | None = None
    """Bytes on disk, where they are the bytes that will be read."""


def list_parts(source: str, key: str = "corpus.sources") -> list[Part]:
    """The parts of a source in a fixed order; `key` is the configuration key that errors name."""
    if source in BUILT_IN:
        return [Part(source, source, source, source)]
    if source.startswith("hub:"):
        return [_hub_part(source, key)]
    if any(character in source for character in "*?[") and not os.path.exists(source):
        files = sorted(Path(name) for name in glob.glob(source, recursive=True) if Path(name).is_file())
        if not files:
            raise UserError(f"{source}: no file matches ({key}).")
        return [_file_part(source, source, str(file), file) for file in files]
    path = Path(source)
    if not os.path.exists(source):
        raise UserError(f"{source}: no such file or folder ({key}).{_missing_hint(source)}")
    if path.is_file():
        return [_file_part(source, path.name, path.name, path)]
    files = sorted(file for file in path.rglob("*") if file_kind(file) in KINDS and file.is_file()
                   and not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not files:
        raise UserError(f"{source}: holds no {', '.join(KINDS[:-1])} or {KINDS[-1]} file, plain or "
                        f"{' or '.join(COMPRESSIONS)} ({key}).")
    return [_file_part(source, path.name, str(file.relative_to(path)), file) for file in files]


def read_part(part: Part, reading: Reading, skip: int = 0, progress: bool = False) -> Iterator[Document]:
    """The documents of a part as they are, from number `skip` on; bad input is a `UserError` with file and line."""
    if part.source in BUILT_IN:
        documents = itertools.islice(_built_in(part.source, progress), skip, None)
    elif part.path is None:
        documents = _hub_documents(part, reading, skip)
    else:
        reader = {".txt": _text_documents, ".md": _markdown_documents, ".jsonl": _json_documents,
                  ".csv": _table_documents, ".tsv": _table_documents, ".parquet": _parquet_documents}
        # A file of another kind that was named outright is read as text.
        texts = reader.get(file_kind(part.path), _text_documents)(part.path, reading)
        documents = (Document(f"{part.name}:{place}" if place else part.name, part.label, text)
                     for place, text in itertools.islice(texts, skip, None))
    yield from documents


def file_kind(path: Path) -> str:
    """The suffix that says how a file is read, without that of its compression."""
    return (Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix).lower()


def _file_part(source: str, label: str, name: str, path: Path) -> Part:
    try:
        facts = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    plain = path.suffix not in COMPRESSIONS and path.suffix != ".parquet"
    # A name on disk need not be UTF-8; what we write must be.
    label, name, where = (os.fsencode(text).decode(errors="replace") for text in (label, name, str(path)))
    return Part(source, label, name, f"{where} {facts.st_size} {facts.st_mtime_ns}", path,
                facts.st_size if plain else None)


def _missing_hint(source: str) -> str:
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and file_kind(Path(source)) not in KINDS:
        return f" For a data set on the hub write 'hub:{source}'."
    return did_you_mean(source, BUILT_IN) if "/" not in source and "python" in source else ""


def _built_in(source: str, progress: bool) -> Iterator[Document]:
    from toolkit.data.python_docs import iterate_python_documentation, iterate_python_source

    if source == "python-source":
        yield from (Document(name, source, text) for name, text in iterate_python_source())
        return
    for module in iterate_python_documentation(progress=progress):
        yield Document(module.module, module.package, "\n\n".join(module.docstrings))


# --- bytes → lines ------------------------------------------------------------------------------------------------


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(open(path, "rb"), "zstd"))  # which has no lines itself
    return open(path, "rb")


def read_lines(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends. Bytes are counted in the uncompressed text."""
    offset = 0
    try:
        with _open(path) as file:
            for number in itertools.count(1):
                line = file.readline(LONGEST + 1)
                if not line:
                    break
                if len(line) > LONGEST:
                    raise UserError(f"{path}, line {number}: is longer than {LONGEST >> 20} MB. Put line breaks into "
                                    f"it, or split it into several documents.")
                yield number, _decode(line, path, number, offset, reading)
                offset += len(line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(_damaged(path, offset, error)) from None
    except OSError as error:
        if path.suffix == ".zst" and error.errno is None:  # pyarrow's way of saying the same
            raise UserError(_damaged(path, offset, error)) from None
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if not offset:
        raise UserError(f"{path}: is empty. Give it text, or leave it out.")


def _damaged(path: Path, offset: int, error: Exception) -> str:
    return (f"{path}: is damaged or cut short after {offset:,} bytes of text ({str(error).rstrip('.')}). Fetch or "
            f"compress it again.")


def _decode(line: bytes, path: Path, number: int, offset: int, reading: Reading) -> str:
    if number == 1:
        if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UserError(f"{path}: is UTF-16. Convert it first: `iconv -f utf-16 -t utf-8`.")
        if line[:3] == b"\xef\xbb\xbf":
            reading.counts["byte_order_marks"] += 1
            line, offset = line[3:], offset + 3
    if line[-2:] == b"\r\n":
        reading.counts["windows_line_ends"] += 1
    replace = reading.errors == "replace"
    if b"\0" in line:
        if not replace:
            raise UserError(f"{path}: looks binary (a NUL byte at offset {offset + line.index(0)}). Give plain UTF-8 "
                            f"text, or set corpus.errors to replace.")
        reading.counts["replaced_characters"] += line.count(0)
        line = line.replace(b"\0", "\ufffd".encode())
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        if not replace:
            raise UserError(f"{path}: not valid UTF-8 at byte {offset + error.start} (line {number}). Convert it, for "
                            f"instance with `iconv -f latin1 -t utf-8`, or set corpus.errors to replace.") from None
        return _replaced(line, reading)


def _replaced(data: bytes, reading: Reading) -> str:
    text = data.decode(errors="replace")
    reading.counts["replaced_characters"] += text.count("\ufffd") - data.count("\ufffd".encode())
    return text


# --- lines → documents --------------------------------------------------------------------------------------------


def _gather(path: Path, lines: Iterable[tuple[int, str, bool]], remedy: str) -> Iterator[tuple[int, str]]:
    """(line number, text, whether a document starts here) → documents, each with the number of its first line."""
    first, document, size = 1, [], 0
    for number, text, starts in lines:
        if starts:
            if any(map(str.strip, document)):  # blank lines above the first document are none
                yield first, "".join(document)
            first, document, size = number, [], 0
        document.append(text)
        size += len(text)
        if size > LONGEST:
            raise UserError(f"{path}, line {first}: a document of more than {LONGEST >> 20} MB. {remedy}")
    if document:
        yield first, "".join(document)


def _text_documents(path: Path, reading: Reading) -> Iterator[tuple[int | None, str]]:
    rule = reading.txt_documents

    def lines() -> Iterator[tuple[int, str, bool]]:
        blank = False
        for number, line in read_lines(path, reading):
            starts = blank and bool(line.strip()) if rule == "blank-line" else False
            if rule == "wikitext" and (heading := re.fullmatch(r"\s*((?:= )+)(.*?)((?: =)+)\s*", line)):
                starts = len(heading[1]) == len(heading[3]) == 2
                line = f"\n{heading[2]}\n\n"
            blank = not line.strip()
            yield number, line, starts

    documents = _gather(path, lines(), "If blank lines part its documents, set corpus.txt_documents to blank-line; "
                        "otherwise split the file.")
    if rule == "file":
        return ((None, text) for _, text in documents)
    return documents


def _markdown_documents(path: Path, reading: Reading) -> Iterator[tuple[int | None, str]]:
    split = reading.md_documents == "heading"

    def lines() -> Iterator[tuple[int, str, bool]]:
        fence = None
        for number, line in read_lines(path, reading):
            mark = re.match(r" {0,3}(`{3,}(?!.*`)|~{3,})(.*)", line) if "```" in line or "~~~" in line else None
            if mark and fence is None:  # inside, "# …" is a comment
                fence = mark[1]
            elif mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = None
            heading = None if fence or line[:1] != "#" else _HEADING.match(line)
            yield (number, f"\n{heading[1]}\n\n", split) if heading else (number, line, False)

    documents = _gather(path, lines(), "Set corpus.md_documents to heading, or split the file.")
    return documents if split else ((None, text) for _, text in documents)


def _json_documents(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    for number, line in read_lines(path, reading):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error}). One object a line was "
                            f"expected.") from None
        if not isinstance(record, dict) or reading.text_column not in record:
            known = record if isinstance(record, dict) else ()
            raise UserError(_no_column(f"{path}, line {number}", reading.text_column, known))
        text = _checked_text(record[reading.text_column], f"{path}, line {number}", reading)
        yield number, text


def _table_documents(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    rows = read_table_rows(path, reading)
    _, header = next(rows)
    if reading.text_column not in header:
        raise UserError(_no_column(str(path), reading.text_column, header))
    column = header.index(reading.text_column)
    for line, row in rows:
        yield line, row[column]


def read_table_rows(path: Path, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a .csv or .tsv, plain or compressed, the header first; every row as long as the header."""
    tab = file_kind(path) == ".tsv"
    csv.field_size_limit(LONGEST)
    lines = (line for _, line in read_lines(path, reading))
    # Tab-separated text is seldom quoted, and a lone quotation mark must not swallow the lines after it.
    reader = csv.reader(lines, delimiter="\t" if tab else ",", quoting=csv.QUOTE_NONE if tab else csv.QUOTE_MINIMAL,
                        strict=True)
    columns, start = None, 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise UserError(f"{path}, line {start}: cannot be read as a table ({str(error).split(' - ')[0]}). Quote "
                            f"the cell, or take out what does not belong into it.") from None
        if row:
            columns = columns or len(row)
            if len(row) != columns:
                raise UserError(f"{path}, line {start}: {len(row)} columns, the header has {columns}. Quote or remove "
                                f"extra separators, fill in missing cells.")
            yield start, row
        start = reader.line_num + 1
    if columns is None:
        raise UserError(f"{path}: is empty; a header was expected.")


def _parquet_documents(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    import pyarrow
    from pyarrow import parquet

    if path.suffix in COMPRESSIONS:
        raise UserError(f"{path}: parquet compresses by itself and is read from any place in the file; unpack it.")
    try:
        file = parquet.ParquetFile(path)
        if reading.text_column not in file.schema_arrow.names:
            raise UserError(_no_column(str(path), reading.text_column, file.schema_arrow.names))
        number = itertools.count(1)
        for batch in file.iter_batches(batch_size=64, columns=[reading.text_column]):
            for value in batch.column(0):
                row = next(number)
                try:
                    text = value.as_py()
                except UnicodeDecodeError as error:  # nothing in the format rules it out
                    text = _decode_text(value.as_buffer().to_pybytes(), error, f"{path}, row {row}", reading)
                yield row, _checked_text(text, f"{path}, row {row}", reading)
    except (pyarrow.ArrowException, OSError) as error:
        if getattr(error, "errno", None):
            raise UserError(f"{path}: cannot be read ({os.strerror(error.errno)}).") from None
        raise UserError(f"{path}: cannot be read as parquet, perhaps cut short ({str(error).splitlines()[0]}). Fetch "
                        f"it again.") from None


def _decode_text(value: bytes, error: UnicodeDecodeError, where: str, reading: Reading) -> str:
    if reading.errors == "strict":
        raise UserError(f"{where}: '{reading.text_column}' is not valid UTF-8 at byte {error.start}. Convert it, or "
                        f"set corpus.errors to replace.") from None
    return _replaced(value, reading)


def _checked_text(value: object, where: str, reading: Reading) -> str:
    if value is None:
        reading.counts["without_text"] += 1
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: '{reading.text_column}' is {type(value).__name__}, not text. Name another column "
                        f"with corpus.text_column, or convert it.")
    if len(value) > LONGEST:
        raise UserError(f"{where}: a document of more than {LONGEST >> 20} MB. Split it into several.")
    if "\0" in value or not value.isascii():
        text, broken = re.subn("[\0\ud800-\udfff]", "\ufffd", value)  # JSON can spell what UTF-8 cannot
        if broken and reading.errors == "strict":
            raise UserError(f"{where}: holds NUL or half of a surrogate pair, which are no text. Repair it, or set "
                            f"corpus.errors to replace.")
        if broken:
            reading.counts["replaced_characters"] += broken
        return text
    return value


def _no_column(where: str, column: str, columns: Iterable[str]) -> str:
    hint = did_you_mean(column, columns) if (columns := list(columns)) else " An object with columns was expected."
    return f"{where}: has no column '{column}' (corpus.text_column).{hint}"


# --- the hub ------------------------------------------------------------------------------------------------------


def _hub_part(source: str, key: str) -> Part:
    """`hub:owner/name[:configuration][@revision]`, its revision resolved to a commit."""
    match = re.fullmatch(r"hub:([\w.-]+(?:/[\w.-]+)?)(?::([\w.-]+))?(?:@([\w./-]+))?", source)
    if not match:
        raise UserError(f"{source}: is not of the form hub:owner/name[:configuration][@revision] ({key}).")
    name, configuration, revision = match.groups()
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:  # one request that does not retry; loading would, for half a minute
        commit = HfApi().dataset_info(name, revision=revision, timeout=10).sha
    except HFValidationError as error:
        raise UserError(f"{source}: no data set can be called so ({str(error).rstrip('.')}) ({key}).") from None
    except RevisionNotFoundError:
        raise UserError(f"{source}: the data set has no revision '{revision}' ({key}).") from None
    except RepositoryNotFoundError:
        raise UserError(f"{source}: no such data set on the hub, or it is private and no token is set "
                        f"({key}).") from None
    except (HTTPError, OSError, ValueError) as error:
        raise UserError(f"{source}: the hub cannot be reached ({type(error).__name__}). "
                        f"{_OFFLINE.format(name=name)}") from None
    return Part(source, name, f"{name}:{configuration}" if configuration else name, f"{source} {commit}")


def _hub_documents(part: Part, reading: Reading, skip: int) -> Iterator[Document]:
    import datasets
    import pyarrow
    from huggingface_hub.errors import HTTPError

    name, _, configuration = part.name.partition(":")
    commit = part.identity.rsplit(" ", 1)[1]
    rows = None
    try:
        builder = datasets.load_dataset_builder(name, configuration or None, revision=commit)
        if builder.hash != commit:  # without a network, datasets gives whatever revision it has
            raise ConnectionError(f"revision {builder.hash} is at hand, not {commit}")
        rows = iter(builder.as_streaming_dataset(split=reading.hub_split))
        for number, record in enumerate(rows, 1):
            if reading.text_column not in record:
                raise UserError(_no_column(part.source, reading.text_column, record))
            text = _checked_text(record[reading.text_column], f"{part.source}, row {number}", reading)
            if number > skip:
                yield Document(f"{part.name}:{number}", part.label, text)
    except UserError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError, EOFError, zlib.error, pyarrow.ArrowException,
            datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{part.source}: cannot be streamed ({' '.join(str(error).split())}). Check the configuration, "
                        f"corpus.hub_split and the connection; the same command continues.") from None
    finally:  # pyarrow's reader, left open, can hang Python at its exit (apache/arrow#45214)
        if rows is not None:
            rows.close()
        del rows
        gc.collect()
