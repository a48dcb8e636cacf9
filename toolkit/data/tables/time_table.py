"""Tables of numbers over time, out of .csv, .tsv and .parquet files: one row a time, one column a channel.

Several series in one long table, a panel, have a row a series and time. What is wrong is refused by file, line and
column; what is odd is told.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit.data.tables.columns import signals
from toolkit.data.tables.frequency import Frequency, frequency_of, in_words, next_times, positions
from toolkit.data.tables.panel import rows_of_series, series_column_of
from toolkit.data.tables.sources import Reading
from toolkit.data.tables.table_files import Column, column_numbers, read_columns, refuse_unread
from toolkit.errors import UserError, did_you_mean

Missing = Literal["refuse", "mask"]


@dataclass(frozen=True)
class TimeTable:
    """One series, in its own units and in order of time."""

    values: np.ndarray
    """float64 (channels, rows); 0 where nothing was observed."""
    columns: tuple[str, ...]
    observed: np.ndarray | None = None
    """bool (channels, rows); None: everything is."""
    notes: tuple[str, ...] = ()
    """What a user should know: columns left out, values missing, steps that vary."""
    times: np.ndarray | None = None
    """datetime64[ns] (UTC, where the file has zones) or float64, of all rows and those after the last value that
    `future` has; None without a time column."""
    future: np.ndarray | None = None
    """float64 (future columns, rows and those after the last value): what is known ahead."""
    places: tuple[str, ...] = ()
    """Where each row of `times` stands in the file, such as `line 3`; empty for a row that is absent there."""


@dataclass(frozen=True)
class Panel:
    """Several series of the same channels; where there is no series column, one."""

    tables: dict[str, TimeTable]
    """Name → series, in alphabetical order; "" where the table is one series."""
    notes: tuple[str, ...]
    series_column: str = ""
    """That was named, or found."""
    frequency: Frequency | None = None
    """Steps between the times of the longest series; None where they are uneven, or there are no times."""
    zone: str | None = None
    """In which the file has its times."""


def read_time_table(path: str | Path, time_column: str = "date", target_columns: Sequence[str] = (),
                    missing: Missing = "refuse", reading: Reading | None = None) -> TimeTable:
    """A .csv, .tsv (plain, .gz or .zst) or .parquet file with a header, which holds one series; as `read_panel`.

    UserError for a table of several.
    """
    panel = read_panel(path, time_column, "", target_columns, missing, (), reading)
    if len(panel.tables) > 1:
        raise UserError(f"{path}: holds {len(panel.tables):,} series, told apart by column '{panel.series_column}'; "
                        f"one is read here. Write each to a file of its own.")
    return next(iter(panel.tables.values()))


def read_panel(path: str | Path, time_column: str = "date", series_column: str = "",
               target_columns: Sequence[str] = (), missing: Missing = "refuse", future_columns: Sequence[str] = (),
               reading: Reading | None = None) -> Panel:
    """The series of a file with a header: .csv, .tsv (plain, .gz or .zst) or .parquet.

    time_column: ISO 8601 dates or numbers, within a series each later than the one before; "" where the rows are evenly
        spaced.
    series_column: which series a row belongs to; "": one series, or, where times repeat, the column of text or whole
        numbers that tells series apart, which is told.
    target_columns: the channels, in this order; empty: every column that holds numbers and is no index.
    missing: what becomes of empty cells, NaN and infinity: refused, or 0 and not observed. Masked, rows that are
        absent from an otherwise even table are put in as not observed; else they are told.
    future_columns: numbers that are known ahead. Rows at the end that have them, and no value, are the future.
    reading: encoding and decimal mark of a .csv or .tsv; how it is written is told in the panel's notes.

    UserError for text among numbers, for missing values unless masked, for times that are not increasing.
    """
    table = read_table_columns(path, time_column, series_column, target_columns, future_columns, reading)
    return panel_of(table, time_column, series_column, target_columns, missing, future_columns)


@dataclass(frozen=True)
class TableColumns:
    """A file as it stands, before anything is made of it."""

    path: Path
    columns: dict[str, Column]
    places: Sequence[str]
    """Of each row, such as `line 3`."""
    notes: tuple[str, ...]
    """How it is written, where that is odd."""


def read_table_columns(path: str | Path, time_column: str = "date", series_column: str = "",
                       target_columns: Sequence[str] = (), future_columns: Sequence[str] = (),
                       reading: Reading | None = None) -> TableColumns:
    """Arguments as of `read_panel`; columns that are not there are no error yet."""
    notes: list[str] = []
    reading = replace(reading or Reading(), note=lambda line: notes.append(line.removeprefix(f"{path}: ")))
    numbers = [*filter(None, [time_column]), *target_columns, *future_columns]
    columns, places = read_columns(path, [*filter(None, [series_column]), *numbers], numbers if target_columns else (),
                                   reading)
    return TableColumns(Path(path), columns, places, tuple(notes))


def panel_of(table: TableColumns, time_column: str = "date", series_column: str = "",
             target_columns: Sequence[str] = (), missing: Missing = "refuse", future_columns: Sequence[str] = ()
             ) -> Panel:
    """`read_panel` of what `read_table_columns` gave."""
    path, columns, places = table.path, table.columns, table.places
    for name, key in [*((name, "target_columns") for name in target_columns),
                      *((name, "future_columns") for name in future_columns),
                      *([(series_column, "series_column")] if series_column else []),
                      *([(time_column, "time_column")] if time_column else [])]:
        if name not in columns:
            raise UserError(f"{path}: has no column '{name}' (data.{key}).{did_you_mean(name, columns)}")
    notes, full_places = list(table.notes), [f"{path}, {place}" for place in places]
    named = {time_column, *target_columns, *future_columns}
    if time_column and not series_column:
        series_column = series_column_of(path, columns[time_column], {
            name: cells for name, cells in columns.items() if name not in named})
        if series_column:
            notes.append(f"times repeat: read as several series, told apart by column '{series_column}' "
                         f"(data.series_column)")
    rows = {"": np.arange(len(places))}
    if series_column:
        rows = rows_of_series(series_column, columns[series_column], full_places)
    uneven = check_times(time_column, columns[time_column], full_places, rows) if time_column else []
    ahead = _known_ahead(path, columns, future_columns, places)
    candidates = {name: cells for name, cells in columns.items()
                  if name not in (time_column, series_column, *future_columns)}
    numbers, left_out = _channels(path, candidates, places, target_columns, time_column, rows if series_column else {})
    notes += left_out
    values = np.stack(list(numbers.values()))
    times = _times(columns[time_column]) if time_column else None
    frequency = None if times is None else frequency_of(times[max(rows.values(), key=len)])
    if frequency is not None and all(_is_even(times[own], frequency) for own in rows.values()):
        uneven = []  # months differ in length, and are even all the same
    fill = missing == "mask" and bool(uneven) and frequency is not None
    tables, absent = {}, 0
    for name, own in rows.items():
        table = _series(values[:, own], list(numbers), None if times is None else times[own],
                        None if ahead is None else ahead[:, own], tuple(places[row] for row in own))
        filled = _with_absent_rows(table, frequency) if fill else table
        absent += filled.values.shape[1] - table.values.shape[1]
        tables[name] = filled
    ahead_only = 0 if ahead is None else sum(table.future.shape[1] - table.values.shape[1] for table in tables.values())
    if ahead_only:
        notes.append(f"{ahead_only:,} rows at the end hold only what is known ahead: they are what is to come")
    if absent:
        uneven = [f"{absent:,} rows are absent from the steps of {in_words(frequency)}: read as missing"]
    _check_missing(path, tables, missing, notes)
    notes += uneven
    if series_column:
        return Panel(tables, tuple(notes), series_column, frequency, _zone(path, time_column, columns))
    (table,) = tables.values()
    return Panel({"": TimeTable(**{**vars(table), "notes": tuple(notes)})}, tuple(notes), "", frequency,
                 _zone(path, time_column, columns))


def _channels(path: Path, columns: dict[str, Column], places: Sequence[str], chosen: Sequence[str], time_column: str,
              series: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Name → numbers of the chosen columns, or of all that hold some and are no index; what is to be told."""
    names, notes = list(chosen), []
    if not chosen:
        names, notes = signals(columns, "data.target_columns", series.values())
    numbers = {name: column_numbers(path, name, columns[name], places) for name in names}
    if not chosen:
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
    return numbers, notes


def _known_ahead(path: Path, columns: dict[str, Column], names: Sequence[str], places: Sequence[str]
                 ) -> np.ndarray | None:
    """float64 (names, rows); UserError where a value is missing."""
    if not names:
        return None
    found = []
    for name in names:
        values = column_numbers(path, name, columns[name], places)
        if values is None or not np.isfinite(values).all():
            row = 0 if values is None else int((~np.isfinite(values)).argmax())
            raise UserError(f"{path}, {places[row]}, column '{name}': no finite number, but a column of "
                            f"data.future_columns is known at every time. Fill it in, or take it out.")
        found.append(values)
    return np.stack(found)


def _series(values: np.ndarray, names: list[str], times: np.ndarray | None, ahead: np.ndarray | None,
            places: tuple[str, ...]) -> TimeTable:
    """The rows of one series; at the end those that only what is known ahead has are no values."""
    observed = np.isfinite(values)
    count = values.shape[1]
    if ahead is not None and observed.any():
        count = int(np.flatnonzero(observed.any(0))[-1]) + 1
    values, observed = values[:, :count], observed[:, :count]
    return TimeTable(np.where(observed, values, 0.0), tuple(names), None if observed.all() else observed, (), times,
                     ahead, places)


def _is_even(times: np.ndarray, frequency: Frequency) -> bool:
    places = positions(times, frequency)
    return places is not None and places[-1] == len(times) - 1


def _with_absent_rows(table: TimeTable, frequency: Frequency) -> TimeTable:
    """The even table, rows that are absent as not observed; as it is where it fits no even steps, or most are absent,
    or where what is known ahead would be absent, too.
    """
    place = positions(table.times, frequency)
    if place is None or table.future is not None or place[-1] + 1 > 2 * len(place):
        return table
    shape = (len(table.values), int(place[-1]) + 1)
    values, observed = np.zeros(shape), np.zeros(shape, bool)
    values[:, place] = table.values
    observed[:, place] = True if table.observed is None else table.observed
    times = np.full(shape[1], table.times[0])
    places = [""] * shape[1]
    times[1:] = next_times(table.times[0], frequency, shape[1] - 1)
    for number, where in zip(place, table.places, strict=True):
        places[number] = where
    return TimeTable(values, table.columns, None if observed.all() else observed, (), times, None, tuple(places))


def _check_missing(path: Path, tables: dict[str, TimeTable], missing: Missing, notes: list[str]) -> None:
    """UserError for the first missing value unless they are masked, which is noted."""
    lacking = [table for table in tables.values() if table.observed is not None]
    if not lacking:
        return
    size = sum(table.values.size for table in tables.values())
    counts = f"{sum(int((~table.observed).sum()) for table in lacking):,} of {size:,} values are missing or infinite"
    if missing == "refuse":
        row, channel = np.argwhere(~lacking[0].observed.T)[0]
        raise UserError(f"{path}, {lacking[0].places[row]}, column '{lacking[0].columns[channel]}': no finite number; "
                        f"{counts}. Fill them in, or set data.missing to mask.")
    notes.append(f"{counts}: masked")


def _is_zoned(cell: str) -> bool:
    return bool(re.search(r"\d[T ]\d", cell) and re.search(r"(Z|[+-]\d\d(:?\d\d)?)$", cell[-6:]))


def _zone(path: Path, time_column: str, columns: dict[str, Column]) -> str | None:
    """Of the file's times: that of a parquet column, UTC where cells have an offset, None where they have none."""
    if not time_column:
        return None
    cells = columns[time_column]
    if isinstance(cells, list):
        return "UTC" if cells and _is_zoned(cells[-1]) else None
    if cells.dtype.kind != "M":
        return None
    from pyarrow import parquet

    return getattr(parquet.read_schema(path).field(time_column).type, "tz", None)


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
