"""Sources → parts → lines and rows, each with its place: plain, compressed, in folders, globs and on the hub."""

import codecs
import csv
import glob
import gzip
import io
import itertools
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from toolkit.data.tables.dialect import SEPARATORS, as_float_reads, find_dialect, without_hint
from toolkit.errors import UserError, did_you_mean
from toolkit.regular import regular

BUILT_IN = ("python-docs", "python-source")

KINDS = (".txt", ".md", ".jsonl", ".csv", ".tsv", ".parquet")

COMPRESSIONS = (".gz", ".zst")

_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16",
          codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: ""}
"""What a file begins with → its encoding, whatever it is said to be. That of UTF-8 is taken off line by line."""

LONGEST = 64 * 2**20
"""Bytes of the longest line, and of the longest document: what bounds the memory of every step."""

MOST_PARTS = 4 * 2**20
"""Cells of a row, or values in a line of JSON: as Python's objects, small ones take thirty times what they are in text.
"""

_OFFLINE = ("To work offline, fetch it once where there is a network (`hf download --repo-type dataset {name} "
            "--local-dir DIR`) and name its files as the source, for instance 'DIR/**/*.parquet'.")


@dataclass(frozen=True)
class Reading:
    """How files are read; `CorpusConfig` documents these for users. `counts` tells what was met on the way."""

    txt_documents: str = "file"
    md_documents: str = "file"
    text_column: str = "text"
    hub_split: str = "train"
    errors: str = "strict"
    encoding: str = ""
    """Of text without a byte-order mark; empty: UTF-8."""
    decimal: str = ""
    """What decimals of tables begin with, a comma or a point; empty: found where it can be one alone."""
    options: str = field(default="", compare=False)
    """What `encoding` and `decimal` begin with in the caller's options, for messages, such as "data."; empty where it
    has none of these."""
    section: str = field(default="", compare=False)
    """What the caller's options begin with, for messages: "corpus."; empty where it has none of these."""
    counts: Counter = field(default_factory=Counter, compare=False)
    note: Callable[[str], None] = field(default=lambda line: None, compare=False)
    """Is told how tables are written, where that is not the usual: once, however many files are written so."""
    told: set[str] = field(default_factory=set, compare=False)

    def tell(self, path: Path, what: str) -> None:
        if what not in self.told:
            self.told.add(what)
            self.note(f"{path}: {what}")

    def or_replace(self, encoding: str = "") -> str:
        """The remedies beside repairing the file, in the caller's words; encoding: what the file's could be."""
        named = f", or name its encoding ({self.options}encoding, for instance {encoding})"
        return (named if self.options and encoding else "") + (
            f", or set {self.section}errors to replace" if self.section else "")


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
    if not regular(path).is_dir():
        return [_file_part(source, path.name, path.name, path)]
    files = sorted(file for file in path.rglob("*") if file_kind(file) in KINDS and file.is_file()
                   and not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not files:
        raise UserError(f"{source}: holds no {', '.join(KINDS[:-1])} or {KINDS[-1]} file, plain or "
                        f"{' or '.join(COMPRESSIONS)} ({key}).")
    return [_file_part(source, path.name, str(file.relative_to(path)), file) for file in files]


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


def _open(path: Path) -> BinaryIO:
    regular(path)
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(open(path, "rb"), "zstd"))  # which has no lines itself
    return open(path, "rb")


def read_lines(path: Path, reading: Reading) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends. Bytes are counted in the uncompressed text, as it would be in UTF-8."""
    offset = 0
    try:
        with _open(path) as file:
            mark = file.peek(4)[:4]
            encoding = next((name for start, name in _MARKS.items() if mark.startswith(start)), reading.encoding)
            if encoding:
                file = _text_file(path, file, encoding, reading)
            for number in itertools.count(1):
                line = _next_line(path, file, number, encoding, reading)
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


def _text_file(path: Path, file: BinaryIO, encoding: str, reading: Reading) -> io.TextIOWrapper:
    try:  # newline: as in UTF-8, a line ends with a line feed and with nothing else
        return io.TextIOWrapper(file, encoding, errors=reading.errors, newline="\n")
    except LookupError:
        raise UserError(f"{path}: '{encoding}' is no encoding of text ({reading.options}encoding). Write for instance "
                        f"latin-1, cp1252, gb18030, shift_jis or utf-16.") from None


def _next_line(path: Path, file: BinaryIO | io.TextIOWrapper, number: int, encoding: str, reading: Reading) -> bytes:
    """In UTF-8, where it is another encoding; at the file's end, none."""
    try:
        line = file.readline(LONGEST + 1)
    except UnicodeError as error:
        raise UserError(f"{path}: not valid {encoding} at or below line {number} "
                        f"({getattr(error, 'reason', error)}). Convert it{reading.or_replace('cp1252')}.") from None
    if isinstance(line, bytes):
        return line
    if reading.errors == "replace" and "\ufffd" in line:
        reading.counts["replaced_characters"] += line.count("\ufffd")
    return line.encode(errors="surrogatepass")


def _damaged(path: Path, offset: int, error: Exception) -> str:
    return (f"{path}: is damaged or cut short after {offset:,} bytes of text ({str(error).rstrip('.')}). Fetch or "
            f"compress it again.")


def _decode(line: bytes, path: Path, number: int, offset: int, reading: Reading) -> str:
    if number == 1:
        if line[:3] == b"\xef\xbb\xbf":
            reading.counts["byte_order_marks"] += 1
            line, offset = line[3:], offset + 3
    if line[-2:] == b"\r\n":
        reading.counts["windows_line_ends"] += 1
    replace = reading.errors == "replace"
    if b"\0" in line:
        if not replace:
            wide = "utf-16-le" if 3 * line.count(0) > len(line) else ""
            raise UserError(f"{path}: looks binary (a NUL byte at offset {offset + line.index(0)}). Give plain UTF-8 "
                            f"text{reading.or_replace(wide)}.")
        reading.counts["replaced_characters"] += line.count(0)
        line = line.replace(b"\0", "\ufffd".encode())
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        if not replace:
            raise UserError(f"{path}: not valid UTF-8 at byte {offset + error.start} (line {number}). Convert it, for "
                            f"instance with `iconv -f latin1 -t utf-8`{reading.or_replace('latin-1')}.") from None
        return replaced(line, reading)


def replaced(data: bytes, reading: Reading) -> str:
    text = data.decode(errors="replace")
    reading.counts["replaced_characters"] += text.count("\ufffd") - data.count("\ufffd".encode())
    return text


def read_table_rows(path: Path, reading: Reading, names: Collection[str] = (),
                    is_number: Callable[[str], bool] = lambda name: False) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a .csv or .tsv, plain or compressed, the header first; every row as long as the header.

    names: the columns that the caller will look for, by which the separator is recognised.
    is_number: whether a column is asked for as numbers. Its cells are then given as `float` reads them, whatever their
    decimal comma and thousands separators; others stay as they stand.
    """
    csv.field_size_limit(LONGEST)
    once = replace(reading, counts=Counter())  # what is met is counted when the rows are read
    try:
        dialect = find_dialect(lambda: _of_few_cells(path, once),
                               "\t" if file_kind(path) == ".tsv" else ",", names, is_number, reading.decimal)
    except UserError as error:
        option = f", or set {reading.options}decimal to ',' or '.'" if reading.options else ""
        raise UserError(f"{path}, {error}{option}.") from None
    for told in dialect.notes:
        reading.tell(path, told)
    reader = dialect.reader(without_hint(_of_few_cells(path, reading)))
    header, converted, start = None, [], 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            what = str(error).split(" - ")[0]
            if what.startswith("new-line"):
                raise UserError(f"{path}, line {start}: lines end with a carriage return alone, or one stands within a "
                                f"cell that is not quoted. Convert it: `tr '\\r' '\\n'`.") from None
            raise UserError(f"{path}, line {start}: cannot be read as a table ({what}). Quote the cell, or take out "
                            f"what does not belong into it.") from None
        if row:
            if header is None:
                header = row
                refuse_repeated(header, f"{path}, line {start}")
                converted = [(number, name, dialect.spellings[name]) for number, name in enumerate(header)
                             if name in dialect.spellings]
            elif len(row) != len(header):
                raise UserError(f"{path}, line {start}: {len(row)} columns, the header has {len(header)}. Quote or "
                                f"remove extra separators, fill in missing cells.")
            elif converted:
                row = as_float_reads(row, converted, f"{path}, line {start}")
            yield start, row
        start = reader.line_num + 1
    if header is None:
        raise UserError(f"{path}: is empty; a header was expected.")


def _of_few_cells(path: Path, reading: Reading) -> Iterator[str]:
    for number, line in read_lines(path, reading):
        if len(line) > MOST_PARTS and max(map(line.count, SEPARATORS)) > MOST_PARTS:
            raise UserError(f"{path}, line {number}: holds more than {MOST_PARTS:,} cells. Split the row into several; "
                            f"if they are a text, give it as .jsonl.")
        yield line


def column_names(header: list[str]) -> list[str]:
    """A header's names; columns without one are called as pandas calls them, `Unnamed: 0`, by their number."""
    names = []
    for number, name in enumerate(header):
        own = name or f"Unnamed: {number}"
        while not name and own in header:  # a table that was written with its index twice
            own += ".1"
        names.append(own)
    return names


def refuse_repeated(names: Collection[str], place: str) -> None:
    """UserError where two columns have one name: which of them is meant, nobody can know. Several may have none."""
    repeated = next((name for name, count in Counter(names).items() if count > 1 and name), None)
    if repeated is not None:
        raise UserError(f"{place}: column '{repeated}' stands there twice. Rename or remove one.")


def json_object(line: str, place: str) -> object:
    """What a line of .jsonl says. UserError where it is not valid JSON, or gives one name of the object two values."""
    if len(line) > MOST_PARTS and sum(map(line.count, ",[{")) > MOST_PARTS and _count_parts(line) > MOST_PARTS:
        raise UserError(f"{place}: holds more than {MOST_PARTS:,} values. Leave out what is not the text, or split it "
                        f"into several lines.")
    repeated = None

    def record(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeated
        known = dict(pairs)
        repeated = None if len(known) == len(pairs) else [name for name, _ in pairs]
        return known

    try:
        found = json.loads(line, object_pairs_hook=record)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not valid JSON ({error}). One object a line was expected.") from None
    if repeated and isinstance(found, dict):  # the object of the line itself is the last that is met
        refuse_repeated(repeated, place)
    return found


def _count_parts(line: str) -> int:
    """Of JSON, what stands within strings left out."""
    return sum(bool(found[1]) for found in re.finditer(r'"(?:[^"\\]|\\.)*+"|([,[{])', line))


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
