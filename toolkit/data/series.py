"""Labelled time series: the UCR archive's .tsv files, z-normalisation, sets defined by equations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.data import counter
from toolkit.errors import UserError


@dataclass(frozen=True)
class SeriesDataset:
    """Series of equal length with one class each."""

    values: np.ndarray
    """float32 (n, channels, length)."""
    labels: np.ndarray
    """int64 (n,), indices into label_names."""
    label_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.dtype != np.float32:
            raise ValueError(f"values must be float32 (n, channels, length), not {self.values.dtype} "
                             f"{self.values.shape}")
        if self.labels.shape != (len(self.values),) or self.labels.dtype != np.int64:
            raise ValueError(f"labels must be int64 ({len(self.values)},), not {self.labels.dtype} "
                             f"{self.labels.shape}")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.label_names):
            raise ValueError(f"labels run from {self.labels.min()} to {self.labels.max()}, but there are "
                             f"{len(self.label_names)} label names")

    def __len__(self) -> int:
        return len(self.values)


def z_normalise(values: np.ndarray) -> np.ndarray:
    """Each series and channel, (..., length), to mean 0 and standard deviation 1, float32.

    A constant one becomes zeros. Each is scaled by its own statistics alone, so nothing leaks between splits.
    The deviation is the sample's (n − 1), as in the UCR archive's CBF, which this leaves as it is.
    """
    values = np.asarray(values, np.float64)
    # Not "deviation is 0": the mean of equal numbers can differ from them in the last bit, which would be
    # blown up to a signal.
    constant = values.max(-1, keepdims=True) == values.min(-1, keepdims=True)
    centred = np.where(constant, 0.0, values - values.mean(-1, keepdims=True))
    deviation = np.sqrt(np.square(centred).sum(-1, keepdims=True) / max(values.shape[-1] - 1, 1))
    return (centred / np.where(constant, 1.0, deviation)).astype(np.float32)


def cylinder_bell_funnel(per_class: int, seed: int) -> SeriesDataset:
    """Cylinder-Bell-Funnel (Saito 1994): noise with a plateau, a rising or a falling ramp; length 128.

    With t = 1 … 128, a ~ U{16 … 31}, b − a ~ U{32 … 95}, and η and every ε(t) from N(0, 1), on a ≤ t ≤ b

        cylinder (6 + η) + ε(t),   bell (6 + η)(t − a)/(b − a) + ε(t),   funnel (6 + η)(b − t)/(b − a) + ε(t),

    and ε(t) elsewhere. Returns 3 · per_class series in their own units (the archive's are z-normalised), the
    classes taking turns, in the archive's order: its labels 1, 2, 3 are these 0, 1, 2.

    The archive's own file agrees with all of this but the ends: there, b is uniform on 65 … 128 whatever a
    is, so that events last 73 steps on average instead of 63.5
    (`test_generated_series_agree_with_the_archive`).
    """
    random = np.random.default_rng(seed)
    labels = np.arange(3 * per_class, dtype=np.int64) % 3
    start = random.integers(16, 32, len(labels))
    end = start + random.integers(32, 96, len(labels))
    return SeriesDataset(_events(labels, start, end, random), labels, ("cylinder", "bell", "funnel"))


def _events(labels: np.ndarray, start: np.ndarray, end: np.ndarray,
            random: np.random.Generator) -> np.ndarray:
    """Cylinders (0), bells (1) and funnels (2) from start to end, each (n,) → float32 (n, 1, 128)."""
    n = len(labels)
    t, a, b = np.arange(1, 129), start[:, None], end[:, None]
    amplitude = 6 + random.standard_normal((n, 1))
    rising = (t - a) / (b - a)
    shape = np.choose(labels[:, None], [np.ones_like(rising), rising, 1 - rising])
    values = amplitude * shape * ((a <= t) & (t <= b)) + random.standard_normal((n, 128))
    return values[:, None, :].astype(np.float32)


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


class SeriesBatches:
    """`batch(step, rows)` draws rows of a global batch, each epoch in a fresh order: values (b, C, L), labels (b,)."""

    def __init__(self, data: SeriesDataset, batch_size: int, seed: int):
        self.data, self.labels, self.batch_size, self.seed = data, data.labels, batch_size, seed

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        return self.rows(counter.epoch_order(self.seed, index, len(self.labels))[1])

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return {"values": self.data.values[index], "labels": self.labels[index]}
