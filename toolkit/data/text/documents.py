"""What a corpus is read from: built-in documentation, files, folders, globs, data sets on the hub.

Everything is streamed: no more than one document is held at a time (of parquet, up to 64 that together are no longer
than one may be), and none may be longer than LONGEST. A source is a list of parts (files, or one stream), and a part
is a stream of documents, so that reading can go on at (part, document) after an interruption.
"""

import gc
import io
import itertools
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.tables.sources import (
    BUILT_IN,
    COMPRESSIONS,
    LONGEST,
    Part,
    Reading,
    file_kind,
    json_object,
    read_lines,
    read_table_rows,
    refuse_repeated,
    replaced,
)
from toolkit.errors import UserError, did_you_mean
from toolkit.regular import regular

_HEADING = re.compile(r"#{1,6}[ \t]+")
_ARTICLE = re.compile(r"(?:= )+")


@dataclass(frozen=True)
class Document:
    name: str
    source: str
    text: str


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


def _built_in(source: str, progress: bool) -> Iterator[Document]:
    from toolkit.data.text.python_docs import iterate_python_documentation, iterate_python_source

    if source == "python-source":
        yield from (Document(name, source, text) for name, text in iterate_python_source())
        return
    for module in iterate_python_documentation(progress=progress):
        yield Document(module.module, module.package, "\n\n".join(module.docstrings))


# --- lines → documents --------------------------------------------------------------------------------------------


def _all_lines(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    """Numbered lines, which also a lone carriage return ends, as in files of old Macs."""
    number = itertools.count(1)
    for _, line in read_lines(path, reading):
        if "\r" not in line:
            yield next(number), line
            continue
        for part in re.finditer(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", line):
            yield next(number), part[0]


def _gather(path: Path, lines: Iterable[tuple[int, str, bool]], remedy: str) -> Iterator[tuple[int, str]]:
    """(line number, text, whether a document starts here) → documents, each with the number of its first line."""
    first, document, size, blank = 1, io.StringIO(), 0, True
    for number, text, starts in lines:
        if starts:
            whole, document = document.getvalue(), io.StringIO()
            if not blank:  # blank lines above the first document are none
                yield first, whole
            first, size, blank = number, 0, True
        document.write(text)  # a list of short lines would take many times what they hold
        size += len(text)
        blank = blank and not text.strip()
        if size > LONGEST:
            raise UserError(f"{path}, line {first}: a document of more than {LONGEST >> 20} MB. {remedy}")
    if size:
        yield first, document.getvalue()


def _text_documents(path: Path, reading: Reading) -> Iterator[tuple[int | None, str]]:
    rule = reading.txt_documents

    def lines() -> Iterator[tuple[int, str, bool]]:
        blank = False
        for number, line in _all_lines(path, reading):
            starts = rule == "line" or rule == "blank-line" and blank and bool(line.strip())
            if rule == "wikitext" and (heading := _wikitext_heading(line)):
                title, starts = heading
                line = f"\n{title}\n\n"
            blank = not line.strip()
            yield number, line, starts

    documents = _gather(path, lines(), "If each line is a document, or blank lines part them, set corpus.txt_documents "
                        "to line or blank-line; otherwise split the file.")
    if rule == "file":
        return ((None, text) for _, text in documents)
    return documents


def _wikitext_heading(line: str) -> tuple[str, bool] | None:
    """Of `= Title =` and the like what it says, and whether it is an article's; None for other lines. No pattern looks
    for it from both ends: of a line of megabytes it would try every place with every other.
    """
    text = line.strip()
    opening, closing = _ARTICLE.match(text), _ARTICLE.match(text[::-1]) if text[-2:] == " =" else None
    if not opening or not closing or opening.end() + closing.end() > len(text):
        return None
    return text[opening.end():len(text) - closing.end()], opening.end() == closing.end() == 2


def _markdown_heading(line: str) -> str | None:
    """What stands between the marks of `## A heading ##`; None for another line."""
    opening = _HEADING.match(line)
    if not opening:
        return None
    text = line[opening.end():].removesuffix("\n").removesuffix("\r").rstrip(" \t")
    bare = text.rstrip("#")
    return bare.rstrip(" \t") if bare[-1:] in (" ", "\t") else text


def _markdown_documents(path: Path, reading: Reading) -> Iterator[tuple[int | None, str]]:
    split = reading.md_documents == "heading"

    def lines() -> Iterator[tuple[int, str, bool]]:
        fence = None
        for number, line in _all_lines(path, reading):
            mark = re.match(r" {0,3}(`{3,}+(?!.*`)|~{3,})(.*)", line) if "```" in line or "~~~" in line else None
            if mark and fence is None:  # inside, "# …" is a comment
                fence = mark[1]
            elif mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = None
            heading = None if fence or line[:1] != "#" else _markdown_heading(line)
            yield (number, line, False) if heading is None else (number, f"\n{heading}\n\n", split)

    documents = _gather(path, lines(), "Set corpus.md_documents to heading, or split the file.")
    return documents if split else ((None, text) for _, text in documents)


def _json_documents(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    for number, line in _all_lines(path, reading):
        if not line.strip():
            continue
        record = json_object(line, f"{path}, line {number}")
        if not isinstance(record, dict) or reading.text_column not in record:
            known = record if isinstance(record, dict) else ()
            raise UserError(_no_column(f"{path}, line {number}", reading.text_column, known))
        text = _checked_text(record[reading.text_column], f"{path}, line {number}", reading)
        yield number, text


def _table_documents(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    rows = read_table_rows(path, reading, [reading.text_column])
    _, header = next(rows)
    if reading.text_column not in header:
        raise UserError(_no_column(str(path), reading.text_column, header))
    column = header.index(reading.text_column)
    for line, row in rows:
        yield line, row[column]


def _parquet_documents(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    import pyarrow
    from pyarrow import parquet

    from toolkit.data.tables.parquet_batches import parquet_batches, unreadable

    if path.suffix in COMPRESSIONS:
        raise UserError(f"{path}: parquet compresses by itself and is read from any place in the file; unpack it.")
    try:
        names = parquet.read_schema(regular(path)).names
        refuse_repeated(names, str(path))
        if reading.text_column not in names:
            raise UserError(_no_column(str(path), reading.text_column, names))
        number = itertools.count(1)
        for batch in parquet_batches(path, [reading.text_column]):
            for value in batch.column(0):
                row = next(number)
                try:
                    text = value.as_py()
                except UnicodeDecodeError as error:  # nothing in the format rules it out
                    text = _decode_text(value.as_buffer().to_pybytes(), error, f"{path}, row {row}", reading)
                yield row, _checked_text(text, f"{path}, row {row}", reading)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if getattr(error, "errno", None):
            raise UserError(f"{path}: cannot be read ({os.strerror(error.errno)}).") from None
        raise unreadable(path, error) from None


def _decode_text(value: bytes, error: UnicodeDecodeError, where: str, reading: Reading) -> str:
    if reading.errors == "strict":
        raise UserError(f"{where}: '{reading.text_column}' is not valid UTF-8 at byte {error.start}. Convert it"
                        f"{reading.or_replace()}.") from None
    return replaced(value, reading)


def _checked_text(value: object, where: str, reading: Reading) -> str:
    if value is None:
        reading.counts["without_text"] += 1
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: '{reading.text_column}' is {type(value).__name__}, not text. Name another column "
                        f"with {reading.section}text_column, or convert it.")
    if len(value) > LONGEST:
        raise UserError(f"{where}: a document of more than {LONGEST >> 20} MB. Split it into several.")
    if "\0" in value or not value.isascii():
        text, broken = re.subn("[\0\ud800-\udfff]", "\ufffd", value)  # JSON can spell what UTF-8 cannot
        if broken and reading.errors == "strict":
            raise UserError(f"{where}: holds NUL or half of a surrogate pair, which are no text. Repair "
                            f"it{reading.or_replace()}.")
        if broken:
            reading.counts["replaced_characters"] += broken
        return text
    return value


def _no_column(where: str, column: str, columns: Iterable[str]) -> str:
    hint = did_you_mean(column, columns) if (columns := list(columns)) else " An object with columns was expected."
    return f"{where}: has no column '{column}' (corpus.text_column).{hint}"


# --- the hub ------------------------------------------------------------------------------------------------------


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
