"""Labelled series as the UCR and UEA archives give them: .tsv, and .ts and .arff through aeon's loaders.

aeon says little about what is wrong in a file, so that what it refuses is looked through here for the first bad cell.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from toolkit.data.tables.dialect import NO_VALUE
from toolkit.errors import UserError


@dataclass(frozen=True)
class FileSeries:
    """What a file holds, in its order."""

    series: list[np.ndarray]
    """float64 (channels, length) each; NaN where a value is missing, infinities as they are."""
    labels: list
    """Cells as they are: texts, numbers, None."""
    places: list[str]
    """Where each label stands."""
    place: Callable[[int, int, int], str]
    """(series, channel, time) → where that value stands."""
    channel_names: tuple[str, ...] | None = None
    value_columns: tuple[str, ...] | None = None
    """These as in `Learned`."""
    beside: dict[str, list] = field(default_factory=dict)
    """Column → what the file says of each series beside its values: its name, its label, and whatever else."""


def numbers(cells: Iterable, place: Callable[[int], str], otherwise: str = "") -> np.ndarray:
    """float64; NaN for what is empty, ?, NaN, NA, null or none. UserError names the first cell that is text.

    otherwise: advice beside mending it.
    """
    cells = list(cells)
    try:
        return np.asarray(list(map(float, cells)))
    except (TypeError, ValueError):
        return np.asarray([_number(cell, place, index, otherwise) for index, cell in enumerate(cells)])


def _number(cell: object, place: Callable[[int], str], index: int, otherwise: str) -> float:
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in NO_VALUE):
        return np.nan
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise UserError(f"{place(index)}: expected a number, found {str(cell)[:60]!r}. Mend it; decimals take a point, "
                        f"a missing value is written ?.{otherwise}") from None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None


def read_tsv(path: Path) -> FileSeries:
    """A .tsv of the UCR archive (Dau et al. 2018): no header; a line is a series, its label and then its values."""
    series, labels, lines = [], [], []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        label, *cells = line.split("\t")
        if not cells:
            raise UserError(f"{where}, column 2: expected tabs and values after the label, found none")
        if _is_fraction(label):
            raise UserError(f"{where}, column 1: expected a label, an integer or a name, found {label!r}. A line is a "
                            f"label and then the values, parted by tabs.")
        series.append(numbers(cells, lambda t, where=where: f"{where}, column {t + 2}")[None])
        expected = series[0].shape[1]
        if len(cells) != expected:
            raise UserError(f"{where}, column {min(len(cells), expected) + 2}: expected {expected} values as in the "
                            f"lines above, found {len(cells)}. Fill shorter series up with NaN, and set data.missing "
                            f"to mask.")
        labels.append(label)
        lines.append(where)
    return FileSeries(series, labels, [f"{where}, column 1" for where in lines],
                      lambda i, channel, t: f"{lines[i]}, column {t + 2}", beside={"label": labels})


def has_header(path: Path) -> bool:
    """Whether a .tsv begins with names of columns, as a table does; the archive's begins with a series."""
    cells = next((line for line in _lines(path) if line.strip()), "").split("\t")[1:]
    return bool(cells) and not any(cell.strip().lower() in NO_VALUE or _is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_fraction(label: str) -> bool:
    try:
        return not float(label).is_integer()
    except ValueError:
        return False


def read_through_aeon(path: Path, labelled: bool = True) -> FileSeries:
    """A .ts or .arff file of the UCR and UEA archives, with one or several channels; .ts of unequal length, too.

    labelled: whether there must be labels; else a .ts may have none, and any may be ?.

    Labels keep their capitals, which aeon's loader drops. UserError for time stamps in .ts, of which aeon 1.6 loses
    the values' signs.
    """
    try:
        from aeon.datasets import load_from_arff_file, load_from_ts_file
    except ImportError:
        raise UserError(f"{path}: reading .ts and .arff files needs the package aeon. Install it (the extra `series`: "
                        f"pip install 'pretraining-toolkit[series]'), or convert the file to .csv.") from None
    kind, lines = path.suffix.lower(), _lines(path)
    start = next((number for number, line in enumerate(lines) if line.strip().lower().startswith("@data")), None)
    if start is None:
        raise UserError(f"{path}: has no line @data, which ends the header of a {kind} file. Is it one?")
    without = _without_labels(path, lines[:start], kind, labelled)
    rows = [(number, line.strip()) for number, line in enumerate(lines[start + 1:], start + 2)
            if kind == ".ts" or line.strip()]
    if without:
        labels, rows = [None] * len(rows), [(number, f"{line}:") for number, line in rows]
    else:
        labels = [_label(path, number, line, kind, labelled) for number, line in rows]
    widths = [line.count(",") for _, line in rows] if kind == ".arff" else []
    if len(set(widths)) > 1:  # aeon repeats a lone value to fill a row
        raise _fault(path, rows, kind, "rows of unequal length")
    try:
        values = (load_from_ts_file if kind == ".ts" else load_from_arff_file)(str(path))[0]
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise _fault(path, rows, kind, str(error)) from None
    if len(values) != len(rows):
        raise _fault(path, rows, kind, f"it finds {len(values)} series in {len(rows)} lines")

    def place(i: int, channel: int, t: int) -> str:
        what = f" (value {t + 1} of channel {channel + 1})" if len(values[i]) > 1 else ""
        return f"{path}, line {rows[i][0]}, column {channel * values[i].shape[1] + t + 1}{what}"

    return FileSeries([np.asarray(series, float) for series in values], labels,
                      [f"{path}, line {number}" for number, _ in rows], place, beside={"label": labels})


def _without_labels(path: Path, header: list[str], kind: str, labelled: bool) -> bool:
    """Whether the header says that there are no labels; UserError where there must be, and for what is not read."""
    for number, line in enumerate(header, 1):
        name, value = [*line.lower().split()[:2], "", ""][:2]
        where = f"{path}, line {number}"
        if kind == ".ts" and name == "@timestamps" and value == "true":
            raise UserError(f"{where}: series with time stamps are not read from .ts files. Write them as .csv, one "
                            f"row a time, and name data.series_column and data.time_column.")
        if not labelled and (name, value) == ("@classlabel", "false"):
            return "@targetlabel true" not in " ".join(header).lower()
        if labelled and (name, value) in (("@classlabel", "false"), ("@targetlabel", "true")):
            raise UserError(f"{where}: the series have no class labels ({line.strip()}), so there is nothing to tell "
                            f"apart. Give a file with @classLabel true.")
    return False


def _label(path: Path, number: int, line: str, kind: str, labelled: bool) -> str:
    _, separator, label = line.rpartition(":" if kind == ".ts" else ",")
    label = label.strip().strip("'\"").strip()
    if not line:
        raise UserError(f"{path}, line {number}: is empty. Remove it.")
    if not separator or "," in label or not label or (labelled and label == "?"):
        end = "after a colon" if kind == ".ts" else "after the last comma"
        raise UserError(f"{path}, line {number}: expected a label {end} at the end of the line, found "
                        f"{line[-40:]!r}. Add it, or remove the line.")
    return label


def _fault(path: Path, rows: list[tuple[int, str]], kind: str, reason: str) -> UserError:
    """What aeon stumbled over: the first cell, or line, that is not as it should be."""
    first = None
    for number, line in rows:
        body, _ = re.split(r":(?=[^:]*$)" if kind == ".ts" else r",(?=[^,]*$)", line)
        channels = [part.strip("'\"").split(",") for part in body.split(":" if kind == ".ts" else "\\n")]
        column = 0
        for channel in channels:
            for cell in channel:
                column += 1
                try:
                    float("nan" if cell.strip() == "?" else cell)
                except ValueError:
                    return UserError(f"{path}, line {number}, column {column}: expected a number, found "
                                     f"{cell.strip()[:60]!r}. Mend it; a missing value is written ?.")
        lengths = [len(channel) for channel in channels]
        if len(set(lengths)) > 1:
            return UserError(f"{path}, line {number}: its channels have {', '.join(map(str, lengths))} values, but "
                             f"must be of one length. Fill them up with ?.")
        first = first or (number, lengths)
        if len(lengths) != len(first[1]):
            return UserError(f"{path}, line {number}: {len(lengths)} channels, but line {first[0]} has "
                             f"{len(first[1])}. Every series needs the same ones.")
        if lengths != first[1]:
            remedy = "If lengths differ, say @equalLength false in the header." if kind == ".ts" else \
                "Fill it up with ?, and set data.missing to mask."
            return UserError(f"{path}, line {number}, column {min(lengths[0], first[1][0]) + 1}: {lengths[0]} values, "
                             f"but line {first[0]} has {first[1][0]}. {remedy}")
    return UserError(f"{path}: aeon cannot read it ({' '.join(reason.split())}).")
