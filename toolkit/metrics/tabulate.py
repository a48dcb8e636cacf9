"""Rows → a table, in plain text or Markdown."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.shown import on_one_line


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str] | None = None,
          markdown: bool = False) -> str:
    """Rows as an aligned plain-text table, or as markdown.

    `columns` are the keys to show, in order; default all keys in the order they first appear. Cells are text,
    integers, floats (four digits) or Intervals, each on one line; in markdown they may hold markup, so that what people
    wrote goes through `toolkit.shown.in_markdown` first. A missing key, None or nan is shown as –. Columns of numbers
    are aligned right. `ValueError` when no row has one of the columns, or there are no columns.
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
    cells = [[on_one_line(cell) for cell in row] for row in [columns, *([_cell(value) for value in row]
                                                                        for row in values)]]
    if markdown:
        cells = [[re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in row] for row in cells]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(columns))]
    padded = [[cell.rjust(width) if to_right else cell.ljust(width)
               for cell, width, to_right in zip(row, widths, right, strict=True)] for row in cells]
    if markdown:
        rule = ["-" * (width - 1) + ":" if to_right else "-" * width
                for width, to_right in zip(widths, right, strict=True)]
        return "\n".join(f"| {' | '.join(row)} |" for row in [padded[0], rule, *padded[1:]])
    rule = ["-" * width for width in widths]
    return "\n".join("  ".join(row).rstrip() for row in [padded[0], rule, *padded[1:]])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
