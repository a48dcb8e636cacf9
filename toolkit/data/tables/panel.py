"""Which rows of a long table belong to which series, also where nobody has said so."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from toolkit.errors import UserError

Cells = Sequence | np.ndarray


def rows_of_series(column: str, cells: Cells, places: Sequence[str]) -> dict[str, np.ndarray]:
    """Name → its rows, in their order; names in alphabetical order, whatever that of the rows. UserError for a cell
    without a name.

    places: of every row, such as `my.csv, line 3`.
    """
    names = _names(cells)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    if "" in rows:
        raise UserError(f"{places[rows[''][0]]}, column '{column}': is empty. Say which series the row belongs to.")
    return {name: np.asarray(own) for name, own in sorted(rows.items())}


def series_column_of(path, times: Cells, others: Mapping[str, Cells]) -> str:
    """The column that tells several series of one table apart, where its times repeat; "" where none does.

    Most rows share their time with another. The column holds text, or whole numbers of which there are no more than
    rows of one time; within its series no time repeats. UserError where several columns would do, and mean different
    series.
    """
    import pandas

    counts = pandas.Series(times).value_counts().to_numpy()
    if 2 * counts[counts > 1].sum() < len(times):  # a doubled row, or the hour that autumn has twice
        return ""
    most, stamps = counts.max(), _names(times)
    found: dict[str, list[str]] = {}
    for name, cells in others.items():
        own = _names(cells)
        count = len(set(own))
        if "" in own or count < 2 or 2 * count > len(own) or len(set(zip(own, stamps, strict=True))) < len(own):
            continue
        if not _is_text(cells) and not (_is_whole(cells) and count == most):
            continue
        found[name] = own
    names = list(found)
    for name, other in pairwise(names):
        together = len(set(zip(found[name], found[other], strict=True)))
        if not together == len(set(found[name])) == len(set(found[other])):
            raise UserError(f"{path}: its times repeat, and columns {', '.join(names)} could each tell series apart. "
                            f"Name the one that does in data.series_column.")
    return names[0] if names else ""


def _names(cells: Cells) -> list[str]:
    """As text; whole numbers without a point."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind == "f":
        return ["" if np.isnan(cell) else f"{cell:.0f}" if cell == round(cell) else repr(float(cell)) for cell in cells]
    return [str(cell).strip() for cell in cells]


def _is_text(cells: Cells) -> bool:
    if isinstance(cells, np.ndarray):
        return False
    try:
        np.asarray(cells, np.float64)
    except ValueError:
        return True
    return False


def _is_whole(cells: Cells) -> bool:
    try:
        numbers = np.asarray(cells, np.float64)
    except (TypeError, ValueError):  # dates
        return False
    return bool((numbers == np.round(numbers)).all())
