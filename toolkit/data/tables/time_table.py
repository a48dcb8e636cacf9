"""Tables of numbers over time, out of .csv, .tsv and .parquet files: one row a time, one column a channel.

What is wrong is refused by file, line and column; what is odd is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit.data.tables.sources import Reading
from toolkit.data.tables.table_files import Column, column_numbers, read_columns, refuse_unread
from toolkit.errors import UserError, did_you_mean

Missing = Literal["refuse", "mask"]


@dataclass(frozen=True)
class TimeTable:
    """What a file holds, in its own units and in order of time."""

    values: np.ndarray
    """float64 (channels, rows); 0 where nothing was observed."""
    columns: tuple[str, ...]
    observed: np.ndarray | None = None
    """bool (channels, rows); None: everything is."""
    notes: tuple[str, ...] = ()
    """What a user should know: columns left out, values missing, steps that vary."""


def read_time_table(path: str | Path, time_column: str = "date", target_columns: Sequence[str] = (),
                    missing: Missing = "refuse", reading: Reading | None = None) -> TimeTable:
    """A .csv, .tsv (plain, .gz or .zst) or .parquet file with a header.

    time_column: ISO 8601 dates or numbers, each later than the one before; "" where the rows are evenly spaced.
    target_columns: the channels, in this order; empty: every column that holds numbers.
    missing: what becomes of empty cells, NaN and infinity: refused, or 0 and not observed.
    reading: encoding and decimal mark of a .csv or .tsv; how it is written is told in the table's notes.

    UserError for text among numbers, for missing values unless masked, for times that are not increasing.
    """
    path = Path(path)
    notes = []
    reading = replace(reading or Reading(), note=lambda line: notes.append(line.removeprefix(f"{path}: ")))
    named = [*filter(None, [time_column]), *target_columns]
    columns, places = read_columns(path, named, named if target_columns else (), reading)
    for name, key in [*((name, "target_columns") for name in target_columns),
                      *([(time_column, "time_column")] if time_column else [])]:
        if name not in columns:
            raise UserError(f"{path}: has no column '{name}' (data.{key}).{did_you_mean(name, columns)}")
    if time_column:
        notes += check_times(time_column, columns[time_column], [f"{path}, {place}" for place in places],
                             {"": np.arange(len(places))})
    names = list(target_columns) or [name for name in columns if name != time_column]
    numbers = {name: column_numbers(path, name, columns[name], places) for name in names}
    if not target_columns:
        left_out = [name for name, values in numbers.items() if values is None]
        for name in left_out:
            refuse_unread(path, name, columns[name], places)
        numbers = {name: values for name, values in numbers.items() if values is not None}
        if left_out:
            notes.append(f"left out, for they hold no numbers: {', '.join(left_out)}")
        if not numbers:
            raise UserError(f"{path}: has no column of numbers beside '{time_column}'. Name them in "
                            f"data.target_columns.")
    for name, values in numbers.items():
        if values is None:
            raise UserError(f"{path}, {places[0]}, column '{name}': expected numbers, the column holds none. Take it "
                            f"out of data.target_columns.")
    values = np.stack(list(numbers.values()))
    observed = np.isfinite(values)
    if observed.all():
        return TimeTable(values, tuple(numbers), None, tuple(notes))
    counts = f"{int((~observed).sum()):,} of {values.size:,} values are missing or infinite"
    if missing == "refuse":
        row, channel = np.argwhere(~observed.T)[0]
        raise UserError(f"{path}, {places[row]}, column '{list(numbers)[channel]}': no finite number; {counts}. Fill "
                        f"them in, or set data.missing to mask.")
    return TimeTable(np.where(observed, values, 0.0), tuple(numbers), observed, (*notes, f"{counts}: masked"))


def check_times(column: str, cells: Column | Sequence, places: Sequence[str],
                series: Mapping[str, Sequence[int] | np.ndarray]) -> list[str]:
    """UserError unless the times of each series rise from row to row; what is to be told about the steps between them.

    cells: of every row, numbers or ISO 8601 dates, as text or as they are.
    places: of every row, such as `my.csv, line 3`.
    series: each one's rows, in their order, by its name; "" where the whole table is one.
    """
    import pandas

    times = _times(cells)
    bad = np.isnat(times) if times.dtype.kind == "M" else ~np.isfinite(times)
    if bad.any():
        row = int(bad.argmax())
        nothing = cells[row] is None or cells[row] != cells[row] or cells[row] == ""
        raise UserError(f"{places[row]}, column '{column}': expected a number or a date such as 2016-07-01 00:00:00, "
                        f"found {'nothing' if nothing else repr(str(cells[row])[:60])}. Mend it, or leave "
                        f"data.time_column empty where rows are in order.")
    steps, later = [], []
    for name, rows in series.items():
        own = np.diff(times[rows])
        late = np.flatnonzero(own <= own.dtype.type(0))
        if len(late):
            row, before = rows[late[0] + 1], rows[late[0]]
            what = (f"has '{cells[row]}' twice" if times[row] == times[before] else
                    f"goes back from '{cells[before]}' to '{cells[row]}'")
            whole, rows_of = (f"series '{name}'", "the rows of each series") if name else ("the table", "its rows")
            raise UserError(f"{places[row]}, column '{column}': {whole} {what}. Sort {rows_of} by time, and "
                            f"keep one a time.")
        steps.append(own)
        later.append(rows[1:])
    every, later = np.concatenate(steps), np.concatenate(later)
    if not len(every):
        return []
    sizes = every / np.timedelta64(1, "s") if every.dtype.kind == "m" else every
    usual = np.argsort(sizes, kind="stable")[len(sizes) // 2]
    other = np.flatnonzero(~np.isclose(sizes, sizes[usual], rtol=1e-6, atol=0))  # 0.1 + 0.2 is not 0.3
    if not len(other):
        return []
    usual, first = (str(pandas.Timedelta(every[step])) if every.dtype.kind == "m" else f"{every[step]:g}"
                    for step in (usual, other[0]))
    return [f"{len(other):,} of {len(every):,} steps of '{column}' are not the usual {usual}, the first of them "
            f"{first} before {places[int(later[other[0]])].rpartition(', ')[2]}; values are taken as evenly spaced all "
            f"the same"]


def _times(cells: Column | Sequence) -> np.ndarray:
    """float64 or datetime64, whichever more of the cells are; NaN and NaT for those that are not."""
    import pandas

    if isinstance(cells, np.ndarray):
        return cells
    cells = pandas.Series(cells, dtype=object)
    times = pandas.to_numeric(cells, errors="coerce")
    if times.isna().any():
        dates = pandas.to_datetime(cells, format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)
        if dates.notna().sum() >= times.notna().sum():
            return dates.to_numpy()
    return times.to_numpy(np.float64)
