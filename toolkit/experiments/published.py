"""Figures that others published, to stand beside ours: two kinds of csv files."""

import csv

from toolkit.errors import UserError
from toolkit.regular import regular


def published_accuracies(path: str, sets: list[str]) -> dict[str, dict[str, float]]:
    """Method → set → accuracy in percent, of methods that know all the sets; {} for no path."""
    if not path:
        return {}
    try:
        rows = {row["dataset"]: row for row in _read(path)}
        columns = [column for column in next(iter(rows.values())) if column not in (
            "dataset", "train", "test", "length", "classes")]
        return {column: {name: float(rows[name][column]) for name in sets} for column in columns
                if all(rows.get(name, {}).get(column) for name in sets)}
    except (OSError, KeyError, StopIteration, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as published accuracies ({error}). Expected a csv with dataset and a "
                        f"column a method (key published).") from None


def published_errors(path: str) -> dict[str, dict[str, dict[str, float]]]:
    """Model → horizon → {mse, mae}; {} for no path."""
    if not path:
        return {}
    try:
        found: dict = {}
        for row in _read(path):
            for column, value in row.items():
                model, _, error = column.rpartition("_")
                if model:
                    found.setdefault(model, {}).setdefault(str(int(row["horizon"])), {})[error] = float(value)
        return found
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as published errors ({error}). Expected a csv with horizon and "
                        f"columns such as DLinear_mse (key published).") from None


def _read(path: str) -> list[dict[str, str]]:
    with open(regular(path), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has not as many cells as the header")
    return rows
