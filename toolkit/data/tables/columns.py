"""Which columns of a table are signals: an index that was written with it is none."""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_NO_NAME = re.compile(r"\s*|Unnamed: \d+(\.\d+)?|__index_level_\d+__|level_\d+")
"""As a csv has its index, as pandas calls a column without a name, writes an index to parquet, and resets one."""
_FEWEST = 8
"""Rows from which on a count is no signal: a few values may rise so by themselves."""


def signals(columns: Mapping[str, Sequence], option: str, series: Iterable[Sequence[int]] = ()
            ) -> tuple[list[str], list[str]]:
    """The columns that may be signals, in their order, and what is to be told of those that are left out: those without
    a name, and those that count the rows, from 0 or from 1.

    columns: name → its cells, text or numbers; none where the name alone is to be judged.
    option: where a caller names the columns that are signals all the same, such as `data.value_columns`.
    series: of a table of several series each one's rows; a column may count the rows of each.

    Where nothing would remain all columns are signals.
    """
    members, why = [list(rows) for rows in series], {}
    for name, cells in columns.items():
        if _NO_NAME.fullmatch(name):
            why[name] = "has no name of its own"
        elif _counts(cells):
            why[name] = "counts the rows"
        elif len(cells) and members and all(_counts([cells[row] for row in rows]) for rows in members):
            why[name] = "counts the rows of each series"
    kept = [name for name in columns if name not in why]
    if not kept:
        return list(columns), []
    return kept, [f"column '{name}' {reason}, as an index does: left out; to read it, name the columns of values in "
                  f"{option}" for name, reason in why.items()]


def _counts(cells: Sequence) -> bool:
    """Whether they are 0, 1, 2, … or 1, 2, 3, …"""
    if len(cells) < _FEWEST:
        return False
    try:
        if float(cells[0]) not in (0, 1):
            return False
        return bool((np.diff(np.asarray(cells, np.float64)) == 1).all())
    except (TypeError, ValueError):  # text, dates, missing values
        return False


def shown(names: Sequence[str], most: int = 6) -> str:
    """The first of them, and how many there are."""
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most - 1])}, … ({len(names):,})"
