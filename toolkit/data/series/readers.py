"""Labelled time series out of files of every kind, checked: what is wrong is refused by file, line and column."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.data.series.archives import FileSeries, has_header, read_through_aeon, read_tsv
from toolkit.data.series.arrays import read_arrays
from toolkit.data.series.dataset import SeriesDataset
from toolkit.data.series.learned import Learned
from toolkit.data.series.tables import SeriesTable, read_table
from toolkit.data.tables.columns import shown
from toolkit.data.tables.labels import Note, numbered
from toolkit.data.tables.sources import file_kind
from toolkit.data.tables.time_table import Missing
from toolkit.errors import UserError
from toolkit.regular import regular


def read_series(path: str | Path, label_names: Sequence[str] | None = None, missing: Missing = "refuse",
                sampling_rate: float | None = None, table: SeriesTable | None = None,
                note: Note = lambda line: None, learned: Learned | None = None) -> SeriesDataset:
    """Series with one class each, in the file's units.

    path: .ts or .arff (through aeon, an extra), .tsv as the UCR archive's, .csv (or .csv.gz, .zst), .tsv with a header
        or .parquet, .npz.
    label_names: for a test file, the training set's, so that both number classes alike; None: those of the file,
        numbers in their order (1 and 1.0 are one label), else names in theirs.
    missing: what becomes of NaN, ? and empty cells: refused, or 0 and not observed. Infinity is always refused.
    sampling_rate: Hz, passed on.
    table: which columns of .csv and .parquet files hold what.
    note: is told what was decided on the way, and how often.
    learned: for a test file, the training set's: its channels are matched by name.

    Series of unequal length are padded on the right with what is not observed.
    """
    path, table = Path(path), table or SeriesTable()
    found = _found(path, table, learned, True, note)
    values, observed = _checked(path, found, missing, note)
    labels, names = _labels(path, found, label_names, note)
    return SeriesDataset(values, labels, names, observed, sampling_rate,
                         Learned(found.channel_names, found.value_columns, sampling_rate, "none"))


def read_values(path: str | Path, missing: Missing = "refuse", table: SeriesTable | None = None,
                note: Note = lambda line: None, learned: Learned | None = None
                ) -> tuple[SeriesDataset, dict[str, list]]:
    """Series without their classes, whatever stands in the place of labels, which are all 0 here; and column → what the
    file says of each series beside its values: its name, its label, and whatever else. Otherwise as `read_series`, but
    for .npy, which is read, too.
    """
    path, table = Path(path), table or SeriesTable()
    found = _found(path, table, learned, False, note)
    values, observed = _checked(path, found, missing, note)
    names = Learned(found.channel_names, found.value_columns, normalisation="none")
    beside = {name: cells for name, cells in found.beside.items() if cells is not found.labels
              or not all(map(_is_missing, cells))}
    return SeriesDataset(values, np.zeros(len(values), np.int64), ("",), observed, learned=names), beside


def _found(path: Path, table: SeriesTable, learned: Learned | None, labelled: bool, note: Note) -> FileSeries:
    """What the file holds, by its kind."""
    if not regular(path).is_file():
        raise UserError(f"{path}: no such file. Give a .ts, .tsv, .arff, .csv, .parquet or .npz file.")
    kind, suffix = file_kind(path), path.suffix.lower()
    if kind in (".csv", ".parquet") or (kind == ".tsv" and (suffix != kind or has_header(path))):
        found = read_table(path, table, learned, labelled, note)
    elif suffix in (".ts", ".arff"):
        found = read_through_aeon(path, labelled)
    elif suffix == ".tsv":
        found = read_tsv(path)
    elif suffix in (".npz", ".npy"):
        found = read_arrays(path, labelled, note)
    else:
        raise UserError(f"{path}: series are read from .ts, .tsv, .arff, .csv (or .gz, .zst of it), .parquet, .npz and "
                        f".npy files.")
    if not found.series:
        raise UserError(f"{path}: no series in the file")
    if learned and learned.channel_names and not found.channel_names and len(learned.channel_names) > 1:
        note(f"{path}: names no channels; they are taken in the order of those learned, {shown(learned.channel_names)}")
    return found


def described(lengths: np.ndarray, channels: int, learned: Learned) -> str:
    """What was read: how many series of which channels, and how long they are."""
    shortest, longest = lengths.min(), lengths.max()
    length = f"{shortest:,} to {longest:,}" if shortest < longest else f"{longest:,}"
    names = learned.channel_names or learned.value_columns
    of = f" {'of' if learned.channel_names else 'in columns'} {shown(names)}" if names else ""
    return f"{len(lengths):,} series, {channels:,} channel{'s' * (channels > 1)}, {length} values{of}"


def _checked(path: Path, found: FileSeries, missing: Missing, note: Note) -> tuple[np.ndarray, np.ndarray | None]:
    """float32 (n, channels, length), padded on the right, and what of it was observed."""
    series = found.series
    lengths = [one.shape[1] for one in series]
    largest = np.finfo(np.float32).max
    _refuse(found, [np.abs(one) > largest for one in series], "infinite, or too large for float32",
            "Mend it, or write ? and set data.missing to mask.")
    gaps = [np.isnan(one) for one in series]
    count, touched = int(sum(gap.sum() for gap in gaps)), sum(bool(gap.any()) for gap in gaps)
    if missing == "refuse":
        _refuse(found, gaps, "missing", "Fill it in, or set data.missing to mask.")
    nothing = [i for i, gap in enumerate(gaps) if gap.all()]
    if nothing:
        raise UserError(f"{found.places[nothing[0]]}: the series has no value at all ({len(nothing):,} such series). "
                        f"Remove it.")
    values = np.zeros((len(series), len(series[0]), max(lengths)), np.float32)
    observed = np.zeros(values.shape, bool)
    for i, (one, gap) in enumerate(zip(series, gaps, strict=True)):
        values[i, :, :lengths[i]] = np.where(gap, 0, one)
        observed[i, :, :lengths[i]] = ~gap
    if count:
        total = sum(one.size for one in series)
        note(f"{path}: {count:,} of {total:,} values are missing, in {touched:,} of {len(series):,} series; masked")
    if min(lengths) < max(lengths):
        note(f"{path}: series of {min(lengths):,} to {max(lengths):,} values, padded on the right")
    return values, None if observed.all() else observed


def _refuse(found: FileSeries, wrong: list[np.ndarray], what: str, remedy: str) -> None:
    """Names the first value that is wrong, and how many there are."""
    for i, cells in enumerate(wrong):
        if cells.any():
            channel, t = np.argwhere(cells)[0]
            value = found.series[i][channel, t]
            raise UserError(f"{found.place(i, int(channel), int(t))}: expected a finite number, found {value}: it is "
                            f"{what} ({sum(int(other.sum()) for other in wrong):,} such values in "
                            f"{sum(bool(other.any()) for other in wrong):,} series). {remedy}")


def _labels(path: Path, found: FileSeries, label_names: Sequence[str] | None, note: Note
            ) -> tuple[np.ndarray, tuple[str, ...]]:
    for cell, place in zip(found.labels, found.places, strict=True):
        if _is_missing(cell):
            raise UserError(f"{place}: the label is missing. Fill it in, or remove the series.")
    known = None if label_names is None else tuple(label_names)
    return numbered(found.labels, found.places, "label", known, str(path), note)


def _is_missing(label: object) -> bool:
    return label is None or label != label or (isinstance(label, str) and label.strip() in ("", "?"))
