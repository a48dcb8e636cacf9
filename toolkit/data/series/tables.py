"""Labelled series out of tables, .csv, .tsv and .parquet: a row a series, or a row a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit.data.series.archives import FileSeries, numbers
from toolkit.data.series.learned import Learned, as_channels, as_times, other_columns
from toolkit.data.tables.columns import shown, signals
from toolkit.data.tables.labels import Note
from toolkit.data.tables.rows import read_rows
from toolkit.data.tables.sources import COMPRESSIONS, Reading, file_kind, read_table_rows
from toolkit.data.tables.time_table import check_times
from toolkit.errors import UserError, did_you_mean


@dataclass
class SeriesTable:
    """Which columns of a .csv or .parquet file hold what."""

    COMMON = ("label_column", "series_column", "time_column", "value_columns")

    label_column: str = "label"
    """Empty: there are no labels, as in series that are to be classified; there the column may also be absent."""
    series_column: str = ""
    """Of a table with a row a time: which series the row belongs to. Empty: a row is a whole series."""
    time_column: str = ""
    """Of a table with a row a time: numbers or ISO 8601 dates, rising within each series. Empty: rows are in order."""
    value_columns: list[str] = field(default_factory=list)
    """Values in order of time or, of a table with a row a time, one column a channel. Empty: all other columns, but
    for such as have no name of their own or count the rows; of a test or new file, those that were learned."""
    encoding: str = ""
    """Of .csv and .tsv files that are not UTF-8 and have no byte-order mark: latin-1, cp1252, shift_jis, …"""
    decimal: Literal["", ",", "."] = ""
    """Decimal comma or point of numbers in them; empty: found, and refused where it could be either."""

    def reading(self, note: Note = lambda line: None) -> Reading:
        return Reading(encoding=self.encoding, decimal=self.decimal, options="data.", note=note)


def read_table(path: Path, table: SeriesTable, learned: Learned | None, labelled: bool, note: Note) -> FileSeries:
    """A .csv, .tsv (plain, .gz or .zst) or .parquet file with a header.

    learned: of a test or new file: the columns of its values are those that were learned, matched by name.
    labelled: whether there must be labels; else there may be none, and further columns are kept beside the series.
    note: is told what a user should know about columns and times.
    """
    header = _header(path, table)
    if not labelled and table.label_column and table.label_column not in header:
        note(f"{path}: has no column '{table.label_column}' (data.label_column); its series are taken as unlabelled")
        table = replace(table, label_column="")
    named = {table.label_column: "label_column", table.series_column: "series_column", table.time_column: "time_column"}
    named.pop("", None)
    columns = table.value_columns or [name for name in header if name not in named]
    keys = {**named, **dict.fromkeys(table.value_columns, "value_columns")}
    for name, key in keys.items():
        if name not in header:
            raise UserError(f"{path}: has no column '{name}' (data.{key}).{did_you_mean(name, header)}")
    if table.time_column and not table.series_column:
        raise UserError(f"data.time_column is '{table.time_column}', but data.series_column is empty. Name the "
                        f"column that says which series a row belongs to.")
    names = _learned_names(path, table, columns, learned) if learned else None
    named_at_all, told = signals({name: () for name in columns if name not in (names or ())}, "data.value_columns")
    if names:
        columns = [name for name in columns if name in names or name in named_at_all]
        columns = (as_channels if table.series_column else as_times)(path, columns, names, note)
    elif not table.value_columns:
        columns = named_at_all
        for line in told:
            note(f"{path}: {line}")
    twice = [name for name in (*named, *columns) if header.count(name) > 1 or (name in named and name in columns)]
    if twice:
        raise UserError(f"{path}: column '{twice[0]}' is there, or named, twice. Rename it, or name it once.")
    if not columns:
        raise UserError(f"{path}: has no column of values beside {', '.join(named)}.")
    guessed = not (table.value_columns or names)
    others = [] if labelled and (guessed or table.value_columns) else [
        name for name in dict.fromkeys(header) if name not in columns and name not in named]
    rows = _Rows(path, table, columns, others, guessed, labelled, note)
    return rows.long() if table.series_column else rows.wide()


def _learned_names(path: Path, table: SeriesTable, columns: list[str], learned: Learned) -> tuple[str, ...] | None:
    """What the columns of values were called in the file that was learned; None where it was of another kind."""
    if table.series_column:
        return learned.channel_names
    if learned.channel_names and set(learned.channel_names) <= set(columns):
        raise UserError(f"{path}: {shown(learned.channel_names)} were learned as channels of a table with a row a "
                        f"time. Name the column that says which series a row belongs to (data.series_column).")
    return learned.value_columns


def _header(path: Path, table: SeriesTable) -> list[str]:
    if file_kind(path) in (".csv", ".tsv"):
        named = [*filter(None, [table.label_column, table.series_column, table.time_column]), *table.value_columns]
        return next(read_table_rows(path, table.reading(), named))[1]
    import pyarrow
    from pyarrow import parquet

    from toolkit.data.tables.parquet_batches import unreadable

    if path.suffix in COMPRESSIONS:
        raise UserError(f"{path}: parquet compresses by itself and is read from any place in the file; unpack it.")
    try:
        return parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None


@dataclass(frozen=True)
class _Rows:
    """A table's rows, and which of their cells are read."""

    path: Path
    table: SeriesTable
    columns: list[str]
    """Of values."""
    others: list[str]
    guessed: bool
    """Whether nobody named the columns of values."""
    labelled: bool
    """Of examples there may be no others but an index; else the others are kept beside the series."""
    note: Note

    def cells(self, *further: str) -> Iterator[tuple[str, object, list, list]]:
        """Where a row stands, its label (None without a column of labels), its cells in `others`, and those in
        `further` and `columns`.
        """
        labels = [self.table.label_column] if self.table.label_column else []
        first, second = len(labels), len(labels) + len(self.others)
        asked = [*labels, *self.others, *further, *self.columns]
        numbers = {*self.columns, *filter(None, [self.table.time_column])}
        for where, cells in read_rows(str(self.path), "train", dict.fromkeys(asked, ""), "data.",
                                      self.table.reading(self.note), numbers):
            yield where, cells[0] if labels else None, cells[first:second], cells[second:]

    def values(self, where: str, cells: list) -> np.ndarray:
        return numbers(cells, lambda number: f"{where}, column '{self.columns[number]}'",
                       " Or name the columns of values in data.value_columns." * self.guessed)

    def chosen(self, values: list[np.ndarray], others: list[list], series: Iterable[Sequence[int]] = ()
               ) -> tuple[np.ndarray, list[str]]:
        """float64 (rows, columns), and the columns' names: without those that only count the rows."""
        table, columns = np.stack(values) if values else np.empty((0, len(self.columns))), self.columns
        if self.guessed:
            columns, told = signals(dict(zip(columns, table.T, strict=True)), "data.value_columns", series)
            table = table[:, [self.columns.index(name) for name in columns]]
        elif self.labelled:
            beside = {name: [row[number] for row in others] for number, name in enumerate(self.others)}
            kept, told = signals({**beside, **dict.fromkeys(columns, ())}, "data.value_columns", series)
            if strange := [name for name in kept if name in beside]:
                raise other_columns(self.path, [], [*strange, *columns], columns)
        else:
            told = [f"{shown(self.others)} {'are' if len(self.others) > 1 else 'is'} no value that was learned: left "
                    f"out; what is the same all through a series is kept beside its answer"] * bool(self.others)
        for line in told:
            self.note(f"{self.path}: {line}")
        return table, columns

    def beside(self, labels: list, others: list[list]) -> dict[str, list]:
        """Columns kept beside the series, from a row a series; not those that say nothing of any."""
        found = {self.table.label_column: labels} if self.table.label_column else {}
        columns = zip(self.others, map(list, zip(*others, strict=True)), strict=False)
        return found | {name: cells for name, cells in columns if any(cell is not None for cell in cells)}

    def wide(self) -> FileSeries:
        values, labels, places, others = [], [], [], []
        for where, label, beside, cells in self.cells():
            values.append(self.values(where, cells))
            labels.append(label)
            places.append(where)
            others.append(beside)
        values, columns = self.chosen(values, others)
        return FileSeries(list(values[:, None]), labels,
                          [f"{where}, column '{self.table.label_column}'" for where in places],
                          lambda i, channel, t: f"{places[i]}, column '{columns[t]}'",
                          value_columns=tuple(columns), beside=self.beside(labels, others))

    def long(self) -> FileSeries:
        table = self.table
        rows: dict[str, list[int]] = {}  # series → its rows
        places, labels, times, values, others = [], [], [], [], []
        for where, label, beside, (name, *cells) in self.cells(table.series_column, *filter(None, [table.time_column])):
            name = "" if name is None else str(name).strip()
            if not name:
                raise UserError(f"{where}, column '{table.series_column}': is empty. Say which series the row belongs "
                                f"to.")
            if table.time_column:
                times.append(cells.pop(0))
            own = rows.setdefault(name, [])
            if own and labels[own[0]] != label:
                raise UserError(f"{where}, column '{table.label_column}': series '{name}' has the label {str(label)!r} "
                                f"here and {str(labels[own[0]])!r} in {places[own[0]].rpartition(', ')[2]}. Give it "
                                f"one.")
            own.append(len(places))
            places.append(where)
            labels.append(label)
            others.append(beside)
            values.append(self.values(where, cells))
        if not places:
            raise UserError(f"{self.path}: has a header and no rows.")
        if table.time_column:
            for line in check_times(table.time_column, times, places, rows):
                self.note(f"{self.path}: {line}")
        members = list(rows.values())
        # Where a column of times is named, another that counts so is a ramp; where none is, it is the times.
        values, columns = self.chosen(values, others, [] if table.time_column else members)
        labels = [labels[own[0]] for own in members]
        return FileSeries([values[own].T for own in members], labels,
                          [f"{places[own[0]]}, column '{table.label_column}'" for own in members],
                          lambda i, channel, t: f"{places[members[i][t]]}, column '{columns[channel]}'",
                          channel_names=tuple(columns), beside={table.series_column: list(rows), **self.beside(
                              labels, [self._of_series(others, own) for own in members])})

    def _of_series(self, others: list[list], rows: list[int]) -> list:
        """Of the cells beside the values those that are the same in all rows of a series; else None."""
        return [cells[0] if all(cell == cells[0] for cell in cells) else None
                for cells in zip(*(others[row] for row in rows), strict=True)]
