"""Labelled series out of tables, .csv and .parquet: a row a series, or a row a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit.data.series.archives import FileSeries, numbers
from toolkit.data.tables.labels import Note
from toolkit.data.tables.rows import read_rows
from toolkit.data.tables.sources import COMPRESSIONS, Reading, file_kind, read_table_rows
from toolkit.data.tables.time_table import check_times
from toolkit.errors import UserError, did_you_mean


@dataclass
class SeriesTable:
    """Which columns of a .csv or .parquet file hold what."""

    label_column: str = "label"
    """Empty: there are no labels, as in series that are to be classified."""
    series_column: str = ""
    """Of a table with a row a time: which series the row belongs to. Empty: a row is a whole series."""
    time_column: str = ""
    """Of a table with a row a time: numbers or ISO 8601 dates, rising within each series. Empty: rows are in order."""
    value_columns: list[str] = field(default_factory=list)
    """Values in order of time or, of a table with a row a time, one column a channel. Empty: all other columns."""
    encoding: str = ""
    """Of .csv files that are not UTF-8 and have no byte-order mark: latin-1, cp1252, shift_jis, …"""
    decimal: Literal["", ",", "."] = ""
    """Decimal comma or point of numbers in them; empty: found, and refused where it could be either."""


def read_table(path: Path, table: SeriesTable, note: Note) -> FileSeries:
    """A .csv (plain, .gz or .zst) or .parquet file with a header. note: is told how it is written, and of its times."""
    header = _header(path, table)
    named = {table.label_column: "label_column", table.series_column: "series_column", table.time_column: "time_column"}
    named.pop("", None)
    columns = table.value_columns or [name for name in header if name not in named]
    keys = {**named, **dict.fromkeys(columns, "value_columns")}
    for name, key in keys.items():
        if name not in header:
            raise UserError(f"{path}: has no column '{name}' (data.{key}).{did_you_mean(name, header)}")
    twice = [name for name in keys if header.count(name) > 1 or (name in named and name in columns)]
    if twice:
        raise UserError(f"{path}: column '{twice[0]}' is there, or named, twice. Rename it, or name it once.")
    if not columns:
        raise UserError(f"{path}: has no column of values beside {', '.join(named)}.")
    if not table.series_column:
        if table.time_column:
            raise UserError(f"data.time_column is '{table.time_column}', but data.series_column is empty. Name the "
                            f"column that says which series a row belongs to.")
        return _wide(path, table, columns, note)
    return _long(path, table, columns, note)


def _header(path: Path, table: SeriesTable) -> list[str]:
    if file_kind(path) == ".csv":
        named = [*filter(None, [table.label_column, table.series_column, table.time_column]), *table.value_columns]
        reading = Reading(encoding=table.encoding, options="data.")
        return next(read_table_rows(path, reading, named))[1]
    import pyarrow
    from pyarrow import parquet

    if path.suffix in COMPRESSIONS:
        raise UserError(f"{path}: parquet compresses by itself and is read from any place in the file; unpack it.")
    try:
        return parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet, perhaps cut short ({str(error).splitlines()[0]}). Fetch "
                        f"it again.") from None


def _rows(path: Path, table: SeriesTable, columns: list[str], note: Note) -> Iterator[tuple[str, object, list]]:
    """Where a row stands, its label (None without a column of labels), and its cells in `columns`."""
    labels = [table.label_column] if table.label_column else []
    reading = Reading(encoding=table.encoding, decimal=table.decimal, options="data.", note=note)
    for where, cells in read_rows(str(path), "train", dict.fromkeys([*labels, *columns], ""), "data.", reading,
                                  [name for name in columns if name != table.series_column]):
        yield where, cells[0] if labels else None, cells[len(labels):]


def _wide(path: Path, table: SeriesTable, columns: list[str], note: Note) -> FileSeries:
    series, labels, places = [], [], []
    for where, label, cells in _rows(path, table, columns, note):
        series.append(numbers(cells, lambda t, where=where: f"{where}, column '{columns[t]}'")[None])
        labels.append(label)
        places.append(where)
    return FileSeries(series, labels, [f"{where}, column '{table.label_column}'" for where in places],
                      lambda i, channel, t: f"{places[i]}, column '{columns[t]}'")


def _long(path: Path, table: SeriesTable, columns: list[str], note: Note) -> FileSeries:
    wanted = [table.series_column, *filter(None, [table.time_column]), *columns]
    rows: dict[str, list[int]] = {}  # series → its rows
    places, labels, times, values = [], [], [], []
    for where, label, (name, *cells) in _rows(path, table, wanted, note):
        name = "" if name is None else str(name).strip()
        if not name:
            raise UserError(f"{where}, column '{table.series_column}': is empty. Say which series the row belongs to.")
        if table.time_column:
            times.append(cells.pop(0))
        own = rows.setdefault(name, [])
        if own and labels[own[0]] != label:
            raise UserError(f"{where}, column '{table.label_column}': series '{name}' has the label {str(label)!r} "
                            f"here and {str(labels[own[0]])!r} in {places[own[0]].rpartition(', ')[2]}. Give it one.")
        own.append(len(places))
        places.append(where)
        labels.append(label)
        values.append(numbers(cells, lambda c, where=where: f"{where}, column '{columns[c]}'"))
    for line in check_times(table.time_column, times, places, rows) if table.time_column else ():
        note(f"{path}: {line}")
    members = list(rows.values())
    return FileSeries([np.stack([values[row] for row in own], axis=1) for own in members],
                      [labels[own[0]] for own in members],
                      [f"{places[own[0]]}, column '{table.label_column}'" for own in members],
                      lambda i, channel, t: f"{places[members[i][t]]}, column '{columns[channel]}'")
