"""Labelled time series out of files."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.data.series import SeriesDataset
from toolkit.errors import UserError


def read_ucr_tsv(path: str | Path, label_names: Sequence[str] | None = None) -> SeriesDataset:
    """A .tsv of the UCR archive (Dau et al. 2018): a line is a series, an integer label and then its values.

    Values come as they are in the file. Labels are numbered in numeric order; for a test file, pass the
    training set's `label_names` so that both number them alike even if one lacks a class. UserError names
    file, line and column of what is not a number, missing (NaN), of another length, or a label not in
    `label_names`.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error.reason} at byte {error.start})") from None
    labels: list[int] = []
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = line.rstrip().split("\t")
        where = f"{path}, line {number}"
        row = [_number(cell, f"{where}, column {column}") for column, cell in enumerate(cells, 1)]
        if not row[0].is_integer():
            raise UserError(f"{where}, column 1: expected an integer label, found {cells[0]!r}")
        if len(row) < 2:
            raise UserError(f"{where}, column 2: expected tabs and values after the label, found none")
        if rows and len(row) - 1 != len(rows[0]):
            column = min(len(row), len(rows[0]) + 1) + 1
            raise UserError(f"{where}, column {column}: expected {len(rows[0])} values as in the lines "
                            f"above, found {len(row) - 1}")
        name = str(int(row[0]))
        if label_names is not None and name not in label_names:
            raise UserError(f"{where}, column 1: label {name} is not among {', '.join(label_names)}")
        labels.append(int(row[0]))
        rows.append(row[1:])
    if not rows:
        raise UserError(f"{path}: no series in the file")
    names = tuple(label_names) if label_names is not None else tuple(map(str, sorted(set(labels))))
    index = {name: i for i, name in enumerate(names)}
    return SeriesDataset(np.asarray(rows, np.float32)[:, None, :],
                         np.asarray([index[str(label)] for label in labels], np.int64), names)


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise UserError(f"{where}: expected a number, found {cell!r}") from None
    if not math.isfinite(value):
        raise UserError(f"{where}: expected a finite number, found {cell!r}; fill in or leave out missing "
                        "values")
    return value
