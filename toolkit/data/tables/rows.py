"""Rows of labelled data, out of .tsv, .csv, .jsonl and .parquet files and data sets on the hub, each with its place."""

import contextlib
import functools
import gc
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from toolkit.bars import libraries_silent
from toolkit.data.tables.sources import (
    COMPRESSIONS,
    Reading,
    column_names,
    file_kind,
    json_object,
    list_parts,
    read_lines,
    read_table_rows,
    refuse_repeated,
)
from toolkit.errors import UserError, did_you_mean
from toolkit.regular import regular

Section = TypeVar("Section")
SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def read_rows(source: str, role: str, keys: dict[str, str], section: str = "data.", reading: Reading | None = None,
              numbers: Collection[str] = ()) -> Iterator[tuple[str, list]]:
    """(where it stands, the cells of the columns in `keys`, in their order) of every row.

    keys: column → what names it in the caller's configuration; role: what names the source there; section: what both
    begin with. reading: the encoding of text, and who is told how tables are written.
    numbers: columns whose cells in a .csv or .tsv are given as `float` reads them (`read_table_rows`).
    """
    for place, record in _records(source, role, keys, section, reading, numbers, list(keys)):
        yield place, [_text_of(record[column], column, place) for column in keys]


def whole_rows(source: str, role: str, keys: dict[str, str], section: str = "data.", reading: Reading | None = None
               ) -> Iterator[tuple[str, dict[str, object]]]:
    """(where it stands, every column of it as it stands) of every row; those in `keys` are there. A column of a .csv
    or .tsv that has no name is called as pandas calls it, `Unnamed: 0`, by its number.
    """
    for place, record in _records(source, role, keys, section, reading, (), None):
        yield place, record | {column: _text_of(record[column], column, place) for column in keys}


def _records(source: str, role: str, keys: dict[str, str], section: str, reading: Reading | None,
             numbers: Collection[str], wanted: list[str] | None) -> Iterator[tuple[str, dict[str, object]]]:
    """wanted: the columns that are read where a kind of file can read some alone; None: all of them."""
    keys, option = {column: section + key if key else "" for column, key in keys.items()}, section + role
    reading = reading or Reading()
    if source.startswith("hub:"):
        yield from _hub_rows(source, role, keys, option, wanted)
        return
    for part in list_parts(source, option):
        kind = part.path and file_kind(part.path)
        if kind in (".tsv", ".csv"):
            yield from _table_rows(part.path, keys, reading, numbers, wanted)
        elif kind == ".jsonl":
            yield from _json_rows(part.path, keys, reading)
        elif kind == ".parquet":
            yield from _parquet_rows(part.path, keys, wanted)
        else:
            raise UserError(f"{part.path or source}: rows are read from .tsv, .csv, .jsonl or .parquet "
                            f"files and from data sets on the hub ({option}).")


def _table_rows(path: Path, keys: dict[str, str], reading: Reading, numbers: Collection[str],
                wanted: list[str] | None) -> Iterator[tuple[str, dict]]:
    rows = read_table_rows(path, reading, keys, numbers.__contains__)
    _, header = next(rows)
    if wanted is None:
        header = column_names(header)
    _need(keys, header, str(path))
    columns = [(name, header.index(name)) for name in wanted or header]
    for line, row in rows:
        yield f"{path}, line {line}", {name: row[column] for name, column in columns}


def _json_rows(path: Path, keys: dict[str, str], reading: Reading) -> Iterator[tuple[str, dict]]:
    for number, line in read_lines(path, reading):
        if line.strip():
            place = f"{path}, line {number}"
            record = json_object(line, place)
            if not isinstance(record, dict):
                raise UserError(f"{place}: is {type(record).__name__}. One object a line was expected.")
            _need(keys, record, place)
            yield place, record


def _parquet_rows(path: Path, keys: dict[str, str], wanted: list[str] | None) -> Iterator[tuple[str, dict]]:
    import pyarrow
    from pyarrow import parquet

    from toolkit.data.tables.parquet_batches import parquet_batches, unreadable

    if path.suffix in COMPRESSIONS:
        raise UserError(f"{path}: parquet compresses by itself and is read from any place in the file; unpack it.")
    number = 0
    try:
        names = parquet.read_schema(regular(path)).names
        refuse_repeated(names, str(path))
        _need(keys, names, str(path))
        for batch in parquet_batches(path, wanted):
            for row in zip(*batch.columns, strict=True):
                number += 1
                yield f"{path}, row {number}", {name: cell.as_py() for name, cell
                                                in zip(batch.schema.names, row, strict=True)}
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, row {number}: not valid UTF-8 at byte {error.start}. Convert it.") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(path, error) from None


def _text_of(cell: object, column: str, place: str) -> object:
    """Bytes, as columns of type binary hold them, are text in UTF-8; in lists of labels, too."""
    if isinstance(cell, list):
        return [_text_of(item, column, place) for item in cell]
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: '{column}' is bytes that are not valid UTF-8 (at byte {error.start}). Write text "
                        f"there.") from None


@functools.lru_cache(maxsize=8)
def hub_splits(name: str) -> dict:
    """Split → rows to stream, all at the commit at which the data set was first met."""
    import datasets

    (part,) = list_parts(name, "data")
    commit = part.identity.rsplit(" ", 1)[1]
    with _streaming(name), libraries_silent():
        repository, _, configuration = part.name.partition(":")
        builder = datasets.load_dataset_builder(repository, configuration or None, revision=commit)
        if builder.hash != commit:  # without a network, datasets gives whatever revision it has
            raise ConnectionError(f"revision {builder.hash} is at hand, not {commit}")
        return dict(builder.as_streaming_dataset())


def with_own_splits(data: Section, note: Callable[[str], None]) -> Section:
    """A data set on the hub that is named for training gives its own other splits too; data: a configuration with lists
    `train`, `validation` and `test`, and its `section`.
    """
    name = data.train[0].partition("#")[0]
    splits = hub_splits(name) if name.startswith("hub:") else {}
    for role in ("validation", "test"):
        own = next((f"{name}#{split}" for split in SPLITS[role] if split in splits), "")
        if own and not getattr(data, role) and own not in (*data.train, *data.validation, *data.test):
            data = replace(data, **{role: [own]})
            note(f"{role}: {own}, since {data.section}{role} is empty")
    return data


def _hub_rows(source: str, role: str, keys: dict[str, str], option: str, wanted: list[str] | None
              ) -> Iterator[tuple[str, dict]]:
    name, _, split = source.partition("#")
    splits = hub_splits(name)
    split = split or next((own for own in SPLITS[role] if own in splits), role)
    if split not in splits:
        raise UserError(f"{name}: has no split '{split}' ({option}). Name one of its splits: "
                        f"{', '.join(f'{name}#{known}' for known in splits)}.")
    features, rows = splits[split].features or {}, None
    try:
        with _streaming(name):
            rows = iter(splits[split])
            for number, record in enumerate(rows, 1):
                place = f"{name}#{split}, row {number}"
                _need(keys, record, place)
                yield place, {column: _named(record[column], features.get(column)) for column in wanted or record}
    finally:  # pyarrow's reader, left open, can hang Python at its exit (apache/arrow#45214)
        if rows is not None:
            rows.close()
        del rows
        gc.collect()


def _named(cell: object, feature: object) -> object:
    """The name of a class that a data set on the hub gives as a number; where labels are withheld, that is -1."""
    import datasets

    if isinstance(cell, list):
        return [_named(item, getattr(feature, "feature", None)) for item in cell]
    if not isinstance(feature, datasets.ClassLabel) or cell is None:
        return cell
    return feature.int2str(cell) if cell >= 0 else None


@contextlib.contextmanager
def _streaming(name: str) -> Iterator[None]:
    import datasets
    import pyarrow
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except UserError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError, EOFError, zlib.error, pyarrow.ArrowException,
            datasets.exceptions.DatasetsError) as error:
        raise UserError(f"{name}: cannot be streamed ({' '.join(str(error).split())}). Check the configuration and the "
                        f"connection.") from None


def _need(keys: dict[str, str], columns: Iterable[str], place: str) -> None:
    for column, key in keys.items():
        if column not in columns:
            named = f" ({key})" if key else ""
            raise UserError(f"{place}: has no column '{column}'{named}.{did_you_mean(column, columns)}")
