"""What rows say: means over seeds with their intervals, gains over a reference, cells of tables."""

from collections.abc import Sequence

import numpy as np

from toolkit.metrics.intervals import Interval, mcnemar, mean_interval, paired_bootstrap, paired_difference
from toolkit.run.results import Row


def values(rows: Sequence[Row], metric: str = "accuracy") -> list[float]:
    """One a seed."""
    return [row.metrics[metric] for row in rows]


def by(rows: Sequence[Row], *keys: str) -> dict:
    """Nested dictionaries by fields of the rows, in the order in which they first occur; at the bottom lists."""
    if not keys:
        return list(rows)
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(getattr(row, keys[0]), []).append(row)
    return {value: by(those, *keys[1:]) for value, those in found.items()}


def summary(of: Sequence[float]) -> dict:
    """mean, ci95, n, sd and the values themselves, for JSON."""
    return {**mean_interval(of).as_dict(), "values": list(of)}


def gain(rows: Sequence[Row], reference: Sequence[Row], metric: str = "accuracy") -> Interval:
    """In points, over the seeds that both have, in their order."""
    return paired_difference(*([100 * value for value in values(those, metric)] for those in (rows, reference)))


def over_test_examples(rows: Sequence[Row], reference: Sequence[Row]) -> list[float]:
    """Gain in points over the test examples that all seeds share: mean, and how far another test set would move it."""
    return [100 * value for value in paired_bootstrap(*(np.mean([row.right for row in those], 0)
                                                        for those in (rows, reference)))]


def mcnemar_p(rows: Sequence[Row], reference: Sequence[Row]) -> float:
    """Of the first seed's answers."""
    return mcnemar(rows[0].right, reference[0].right)


def percent(value: float | None, digits: int = 1) -> str | None:
    """A share as a table shows it."""
    return None if value is None else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def cell(entry: dict) -> str:
    """A mean share in percent with its interval over seeds."""
    return percent(entry["mean"]) + (f" ± {percent(entry['ci95'])}" if entry["ci95"] else "")
