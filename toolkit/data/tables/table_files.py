"""Whole files of .csv, .tsv and .parquet as columns, and their columns as numbers."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.data.tables.dialect import NO_VALUE
from toolkit.data.tables.sources import (
    COMPRESSIONS,
    Reading,
    column_names,
    file_kind,
    read_table_rows,
    refuse_repeated,
)
from toolkit.errors import UserError
from toolkit.regular import refuse_bomb, regular

if TYPE_CHECKING:
    import pyarrow

Column = list[str] | np.ndarray
"""As the file gives it: cells of text, float64 numbers (NaN: none), or datetime64[ns]."""

_PLACE = 64
"""Bytes that the name of a row takes."""
_QUANTITY = re.compile(r"(\W{0,3})\d+(?:[.,'’ \u00a0\u202f]\d{3})*(?:[.,]\d*)?"
                       r"(\W{0,2}[^\W\d]{0,4}(?:/[^\W\d]{1,3})?\W?)")
"""A number with what stands before and behind it: a sign, a currency, a unit."""


def read_columns(path: str | Path, names: Collection[str] = (), numbers: Collection[str] = (),
                 reading: Reading | None = None) -> tuple[dict[str, Column], Sequence[str]]:
    """Name → cells of a file with a header, and where each row stands, such as `line 3`. A column of a .csv or .tsv
    that has no name is called as pandas calls it, `Unnamed: 0`, by its number.

    names: columns that the caller will look for. numbers: those that are numbers; empty: whichever are.
    reading: the encoding of text, the decimal mark, and who is told how the table is written.
    """
    path = Path(path)
    if not regular(path).is_file():
        raise UserError(f"{path}: no such file (data.path).")
    kind = file_kind(path)
    if kind not in (".csv", ".tsv", ".parquet") or (kind == ".parquet" and path.suffix in COMPRESSIONS):
        raise UserError(f"{path}: tables over time are read from .csv, .tsv (or .gz, .zst of them) and .parquet files "
                        f"(data.path).")
    columns, places = (_read_parquet(path) if kind == ".parquet" else
                       _read_text(path, reading or Reading(), names, numbers))
    if not len(places):
        raise UserError(f"{path}: has a header and no rows.")
    return columns, places


def _read_text(path: Path, reading: Reading, names: Collection[str], numbers: Collection[str]
               ) -> tuple[dict[str, Column], list[str]]:
    rows = read_table_rows(path, reading, names, lambda name: not numbers or name in numbers)
    header = column_names(next(rows)[1])
    lines, cells = [], []
    for line, row in rows:
        lines.append(f"line {line}")
        cells.append(row)
    return {name: [row[number].strip() for row in cells] for number, name in enumerate(header)}, lines


def _read_parquet(path: Path) -> tuple[dict[str, Column], Sequence[str]]:
    import pyarrow
    from pyarrow import parquet

    from toolkit.data.tables.parquet_batches import unreadable

    try:
        metadata = parquet.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
        refuse_repeated(schema.names, str(path))
        stored = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
        refuse_bomb(path, max(stored, metadata.num_rows * (_PLACE + 8 * len(schema.names))),
                    "Leave out columns or rows.")
        # A value that all rows share, which the file holds once, is held once.
        texts = [name for name, kind in zip(schema.names, schema.types, strict=True)
                 if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)]
        table = parquet.read_table(path, read_dictionary=texts)
        table.validate(full=True)  # a place beyond the dictionary's end, or before its start
        columns = {name: _cells(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from None
    return columns, [f"row {number}" for number in range(1, table.num_rows + 1)]


def _cells(column: "pyarrow.ChunkedArray") -> Column:
    import pyarrow
    from pyarrow import types as kinds

    if kinds.is_integer(column.type) or kinds.is_floating(column.type) or kinds.is_decimal(column.type):
        return column.cast(pyarrow.float64(), safe=False).to_numpy()
    if kinds.is_timestamp(column.type) or kinds.is_date(column.type):
        return column.cast(pyarrow.timestamp("ns"), safe=False).to_numpy()
    if not kinds.is_dictionary(column.type):
        return ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]
    cells: list[str] = []
    for chunk in column.chunks:
        words = ["" if word is None else str(word).strip() for word in chunk.dictionary.to_pylist()]
        cells += ["" if place is None else words[place] for place in chunk.indices.to_pylist()]
    return cells


def column_numbers(path: Path, name: str, cells: Column, places: Sequence[str]) -> np.ndarray | None:
    """float64, NaN for no value; None for a column without any number; UserError for text among numbers."""
    if isinstance(cells, np.ndarray):
        return cells if cells.dtype == np.float64 and not np.isnan(cells).all() else None
    try:
        values = np.asarray(cells, np.float64)
    except ValueError:
        values, text = np.full(len(cells), np.nan), None
        for number, cell in enumerate(cells):
            if cell.lower() not in NO_VALUE:
                try:
                    values[number] = float(cell)
                except ValueError:
                    text = number if text is None else text
        if text is not None and not np.isnan(values).all():
            raise UserError(f"{path}, {places[text]}, column '{name}': expected a number, found '{cells[text][:80]}'. "
                            f"Mend the cell, or leave the column out of data.target_columns.") from None
    return None if np.isnan(values).all() else values


def refuse_unread(path: Path, name: str, cells: Column, places: Sequence[str]) -> None:
    """UserError for a column that nobody asked to leave out, whose cells are quantities that cannot be read."""
    if isinstance(cells, np.ndarray):
        return
    held = [row for row, cell in enumerate(cells) if cell.lower() not in NO_VALUE]
    found = {row: match.groups() for row in held if (match := _QUANTITY.fullmatch(cells[row]))}
    usual = Counter(found.values()).most_common(1)
    if usual and 2 * usual[0][1] > len(held):  # 12 kW and 13 kW are quantities, 1st and 2nd are names
        row = next(row for row in found if found[row] == usual[0][0])
        raise UserError(f"{path}, {places[row]}, column '{name}': '{cells[row][:60]}' looks like a number and cannot "
                        f"be read as one. Write it without a unit and with a decimal point, the same in all rows, or "
                        f"name the columns to read in data.target_columns.")
