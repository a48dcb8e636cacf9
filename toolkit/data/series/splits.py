"""Training, validation and test series for classification, from files or generated; what is odd is refused or told."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from toolkit.data.parts import ROLES, Parts
from toolkit.data.series.dataset import SeriesDataset, learned_from
from toolkit.data.series.generators import LABELLED
from toolkit.data.series.readers import described, read_series
from toolkit.data.series.tables import SeriesTable
from toolkit.data.tables.labels import Note
from toolkit.data.tables.time_table import Missing
from toolkit.errors import UserError

Splits = tuple[SeriesDataset, SeriesDataset, SeriesDataset]


@dataclass
class SeriesDataSection(SeriesTable):
    COMMON = ("train", "validation", "test", "generator", "label_column")

    train: str = ""
    """A .ts, .tsv, .arff (UCR, UEA), .csv, .parquet or .npz (values, labels) file; empty: series generated anew for
    each seed."""
    validation: str = ""
    """Empty: a fifth of each class of training."""
    test: str = ""
    generator: Literal["cylinder-bell-funnel", "synthetic-control", "noisy-sines"] | None = None
    """Which equations make the series where there are no files. None: Cylinder-Bell-Funnel."""
    train_per_class: int = 30
    """Generated series of each class for training; as many again for validation."""
    test_per_class: int = 300
    missing: Missing = "refuse"
    """What becomes of NaN, ? and empty cells: refused, or masked: told to the model as not observed."""
    sampling_rate: float | None = None
    """Values a second (Hz), as you know it; it is passed on, and nothing is resampled."""
    normalisation: Literal["series", "train", "none"] = "series"
    """series: each series and channel by its own mean and deviation; train: each channel by those of the training
    series, where levels tell classes apart (1-NN DTW on JapaneseVowels: 0.65 by series, 0.96 by train); none: values
    as they are."""


def load_splits(data: SeriesDataSection, seed: int, note: Note = lambda line: None) -> Splits:
    """Train, validation and test, normalised and of one length. Files give the same splits whatever the seed.

    note: is told what was decided on the way, and how often.
    """
    rate = data.sampling_rate
    if rate is not None and not 0 < rate < float("inf"):
        raise UserError(f"data.sampling_rate is {rate}; give values a second (Hz), more than 0, or leave it out.")
    parts = _from_files(data, note) if data.train or data.test or data.validation else _generated(data, seed)
    _tell(parts, note)
    return Parts(*_normalised(_of_one_length(parts, note), data.normalisation))


def _generated(data: SeriesDataSection, seed: int) -> Splits:
    for key in ("train_per_class", "test_per_class"):
        if getattr(data, key) < 1:
            raise UserError(f"data.{key} is {getattr(data, key)}; give at least 1.")
    sizes = (data.train_per_class, data.train_per_class, data.test_per_class)
    generate = LABELLED[data.generator or "cylinder-bell-funnel"]
    parts = (generate(size, 3 * seed + part) for part, size in enumerate(sizes))
    return tuple(SeriesDataset(part.values, part.labels, part.label_names, None, data.sampling_rate) for part in parts)


def _from_files(data: SeriesDataSection, note: Note) -> Splits:
    if not (data.train and data.test):
        raise UserError("data: give both data.train and data.test, or neither for a generated set.")
    if data.generator:
        raise UserError(f"data.generator is {data.generator}, and data.train is {data.train}. Leave one of them out.")
    train = _read(data, data.train, None, note)
    present = np.bincount(train.labels, minlength=len(train.label_names))
    if (present > 0).sum() < 2:
        raise UserError(f"{data.train}: all {len(train):,} series have the label '{train.label_names[0]}', so there is "
                        f"nothing to learn. Name another column of labels, or add series with other labels.")
    others = [_read(data, path, train, note) for path in (data.validation, data.test) if path]
    single = [train.label_names[label] for label in np.flatnonzero(present == 1)]
    if len(others) == 2:
        if single:
            note(f"train: {len(single)} classes have a single example: {', '.join(single[:10])}")
        return train, *others
    kept, held = hold_out(train)
    if not len(held):
        raise UserError(f"{data.train}: no class has two series, so none can be held out for validation. Give "
                        f"data.validation, or more series.")
    note(f"validation: {len(held):,} of {len(train):,} training series, a fifth of each class, since data.validation "
         f"is empty")
    if single:
        note(f"validation: {len(single)} classes of one example keep it in training: {', '.join(single[:10])}")
    return kept, held, others[0]


def _read(data: SeriesDataSection, path: str, train: SeriesDataset | None, note: Note) -> SeriesDataset:
    part = read_series(path, train and train.label_names, data.missing, data.sampling_rate, data, note,
                       train and train.learned)
    note(f"{path}: {described(part.lengths, part.values.shape[1], part.learned)}")
    if train is not None and part.values.shape[1] != train.values.shape[1]:
        raise UserError(f"{path}: series of {part.values.shape[1]} channels, but {data.train} has "
                        f"{train.values.shape[1]}. Give files with the same channels, in the same order.")
    return part


def hold_out(train: SeriesDataset) -> tuple[SeriesDataset, SeriesDataset]:
    """What stays for training, and every fifth series of each class, from the first on; of classes of one, none."""
    held = np.zeros(len(train), bool)
    for label in range(len(train.label_names)):
        own = np.flatnonzero(train.labels == label)
        held[own[::5] if len(own) > 1 else []] = True
    return train.select(~held), train.select(held)


def check_patches(parts: Splits, patch_length: int, patch_stride: int, positions: int,
                  note: Note = lambda line: None) -> None:
    """UserError where no patch fits into the series, or more of them than a model has positions; tells of series that
    fill part of a patch.
    """
    longest = parts[0].values.shape[2]  # all have one
    if longest < patch_length:
        raise UserError(f"all {sum(map(len, parts)):,} series are shorter than one patch of {patch_length} values; the "
                        f"longest has {longest}. Set patch_length to {longest} or less.")
    count = _patches(longest, patch_length, patch_stride)
    if count > positions:
        fits = next(length for length in range(1, longest + 1)
                    if _patches(longest, length, (length + 1) // 2) <= positions)
        raise UserError(f"series of {longest:,} values make {count:,} patches of {patch_length}, but the model has "
                        f"{positions:,} positions. Set patch_length to {fits} or more.")
    for role, part in zip(ROLES, parts, strict=True):
        short = part.lengths < patch_length
        if short.any():
            note(f"{role}: {int(short.sum()):,} of {len(part):,} series are shorter than one patch of {patch_length} "
                 f"values, the shortest has {part.lengths.min()}; they are read as part of a patch. For whole ones set "
                 f"patch_length to {part.lengths.min()} or less")


def _patches(length: int, patch_length: int, stride: int) -> int:
    return -(-(length - patch_length) // stride) + 1


def _tell(parts: Splits, note: Note) -> None:
    """What is no mistake, but should be known: constant series, classes without examples, series that come twice."""
    seen: dict[str, set[int]] = {}  # split → its series
    for role, part in zip(ROLES, parts, strict=True):
        tell_constant(role, part.values, part.observed, note)
        absent = np.setdiff1d(np.arange(len(part.label_names)), part.labels)
        if len(absent):
            note(f"{role}: has no example of {len(absent)} classes: "
                 f"{', '.join(part.label_names[label] for label in absent[:10])}")
        rows = [hash(values[:, :length].tobytes()) for values, length in zip(part.values, part.lengths, strict=True)]
        if len(set(rows)) < len(rows):
            note(f"{role}: {len(rows) - len(set(rows)):,} of {len(rows):,} series repeat an earlier one")
        for other, known in seen.items():
            shared = sum(row in known for row in rows)
            if shared:
                note(f"{role}: {shared:,} of {len(rows):,} series are in {other}, too; taken out of {other}, they "
                     f"would no longer flatter the model")
        seen[role] = set(rows)


def tell_constant(what: str, values: np.ndarray, observed: np.ndarray | None, note: Note) -> None:
    """How many series (n, channels, length) are constant."""
    observed = np.ones(values.shape, bool) if observed is None else observed
    highest = values.max(-1, where=observed, initial=-np.inf)
    constant = int((highest <= values.min(-1, where=observed, initial=np.inf)).any(1).sum())
    if constant:
        where = " in some channel" if values.shape[1] > 1 else ""
        note(f"{what}: {constant:,} of {len(values):,} series are constant{where}; normalised by themselves they are "
             f"zeros")


def _of_one_length(parts: Splits, note: Note) -> Splits:
    """All padded on the right to the longest."""
    lengths = [part.values.shape[2] for part in parts]
    if len(set(lengths)) == 1:
        return parts
    described = ", ".join(f"{role} {length:,}" for role, length in zip(ROLES, lengths, strict=True))
    note(f"the longest series differ ({described} values); all are padded on the right to {max(lengths):,}")
    return tuple(part.of_length(max(lengths)) for part in parts)


def _normalised(parts: Splits, how: str) -> Splits:
    """Scaled, and with what a model that learns them is to keep."""
    learned = learned_from(parts[0], how)
    return tuple(replace(part, learned=learned).normalised() for part in parts)
