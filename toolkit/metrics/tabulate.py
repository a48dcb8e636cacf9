"""Rows → a table, in plain text or Markdown."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len, set_cell_size

from toolkit.shown import on_one_line, terminal_width

LONGEST_NAME = 24
"""Of what a row is called, where a terminal has no room for all columns: longer ones are cut."""


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None, markdown: bool = False, *,
          missing: str = "–", width: int | None = None, narrowest: Mapping[str, int] | None = None) -> str:
    """Rows as an aligned plain-text table, or as markdown.

    `columns` are the keys to show, in order; default all keys in the order they first appear. Cells are text,
    integers, floats (four digits) or Intervals, each on one line; in markdown they may hold markup, so that what people
    wrote goes through `toolkit.shown.in_markdown` first. A missing key, None or nan is shown as `missing`. Columns of
    numbers are aligned right. width: of the terminal; where lines would be longer, the columns of `narrowest` are cut,
    the widest first, each to no fewer than so many. `ValueError` when no row has one of the columns, or there are no
    columns.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = keys if columns is None else list(columns)
    unknown = [column for column in columns if rows and column not in keys]
    if unknown or not columns:
        advice = f"Remove {unknown}." if unknown else "Name the columns."
        raise ValueError(f"Given columns {columns} for {len(rows)} rows with the keys {keys}; "
                         f"expected at least one column, each a key of some row. {advice}")
    values = [[row.get(column) for column in columns] for row in rows]
    right = [all(not isinstance(row[i], str) for row in values) for i in range(len(columns))]
    cells = [[on_one_line(cell) for cell in row] for row in [columns, *([_cell(value, missing) for value in row]
                                                                        for row in values)]]
    if markdown:
        cells = [[re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in row] for row in cells]
    widths = [max(3, *(cell_len(row[i]) for row in cells)) for i in range(len(columns))]
    if width is not None:
        widths = _fitted(widths, [(narrowest or {}).get(column) for column in columns], width)
        cells = [[cut(cell, wide) for cell, wide in zip(row, widths, strict=True)] for row in cells]
    padded = [[" " * (wide - cell_len(cell)) + cell if to_right else cell + " " * (wide - cell_len(cell))
               for cell, wide, to_right in zip(row, widths, right, strict=True)] for row in cells]
    if markdown:
        rule = ["-" * (wide - 1) + ":" if to_right else "-" * wide
                for wide, to_right in zip(widths, right, strict=True)]
        return "\n".join(f"| {' | '.join(row)} |" for row in [padded[0], rule, *padded[1:]])
    rule = ["-" * wide for wide in widths]
    return "\n".join("  ".join(row).rstrip() for row in [padded[0], rule, *padded[1:]])


def on_screen(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None, *, missing: str = "–",
              width: int | None = None) -> str:
    """`table` for a terminal: columns that find no room beside the others stand in further tables below, each of which
    begins with the first column. width: of the terminal, by default the one at hand; where there is none, one table.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row)) if columns is None else list(columns)
    width = terminal_width() if width is None else width
    if width is None or len(columns) < 2:
        return table(rows, columns, missing=missing)
    first = columns[0]
    fits = {"missing": missing, "width": width, "narrowest": {first: LONGEST_NAME}}
    blocks = [[first, columns[1]]]
    for column in columns[2:]:
        if max(map(cell_len, table(rows, [*blocks[-1], column], **fits).splitlines())) <= width:
            blocks[-1].append(column)
        else:
            blocks.append([first, column])
    return "\n\n".join(table(rows, block, **fits) for block in blocks)


def cut(text: str, columns: int) -> str:
    """At most so many columns of a terminal; what was cut ends in …"""
    return text if cell_len(text) <= columns else set_cell_size(text, columns - 1).rstrip() + "…"


def _fitted(widths: Sequence[int], narrowest: Sequence[int | None], width: int) -> list[int]:
    """Of those that may be narrower, the widest are taken from until all fit, or none is left."""
    widths = list(widths)
    for _ in range(sum(widths) + 2 * (len(widths) - 1) - width):
        able = [i for i, least in enumerate(narrowest) if least is not None and widths[i] > least]
        if not able:
            break
        widths[max(able, key=lambda i: widths[i])] -= 1
    return widths


def _cell(value: Any, missing: str) -> str:
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return missing
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
