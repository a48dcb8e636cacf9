"""What a model must know of the series it learned, so that others mean the same to it."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from toolkit.data.tables.columns import shown
from toolkit.data.tables.labels import Note
from toolkit.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Learned:
    """Which channels there were, in which order, and how their values were scaled: plain values in a model's
    config.json. Models of old lack most of them.
    """

    channel_names: tuple[str, ...] | None = None
    """Of tables with a row a time; None: the file named no channels."""
    value_columns: tuple[str, ...] | None = None
    """Of tables with a row a series: the columns of its values, in order of time."""
    sampling_rate: float | None = None
    """Values a second (Hz), where it was told."""
    normalisation: str = "series"
    """As in `toolkit.data.series.splits.SeriesDataSection`."""
    channel_means: tuple[float, ...] | None = None
    """With normalisation `train`: of each channel of the training series, and the deviations likewise."""
    channel_deviations: tuple[float, ...] | None = None
    series_length: int | None = None
    """Values of the longest series; the others were padded to it."""

    @classmethod
    def of(cls, config: object, model: str | Path) -> "Learned":
        """What the configuration of the model by that name says."""
        found = {field.name: getattr(config, field.name, field.default) for field in fields(cls)}
        if found["normalisation"] == "train" and found["channel_means"] is None:
            raise UserError(f"{model}: learned series normalised by statistics of its training file "
                            f"(data.normalisation: train), which it does not hold. Train it again, and it will.")
        channels = getattr(config, "num_channels", 1)
        for name in ("channel_means", "channel_deviations"):
            if found["normalisation"] == "train" and not _are_finite(found[name], channels):
                raise UserError(f"{model}: {name} in its config.json should be {channels:,} finite numbers, one a "
                                f"channel. Fetch the model again.")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})

    def as_config(self) -> dict:
        """What a model's configuration is to say."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
                if value is not None}


def _are_finite(values: object, count: int) -> bool:
    try:
        numbers = np.asarray(values, np.float64)
    except (OverflowError, TypeError, ValueError):
        return False
    return numbers.shape == (count,) and bool(np.isfinite(numbers).all())


def as_channels(path: Path, columns: Sequence[str], learned: Sequence[str], note: Note) -> list[str]:
    """The columns of a table with a row a time that are the channels learned, in their order: matched by name.

    UserError where one is absent; a single one may have another name.
    """
    absent = [name for name in learned if name not in columns]
    if not absent:
        if [name for name in columns if name in learned] != list(learned):
            note(f"{path}: channels come as {shown(columns)}; matched by name to those learned, {shown(learned)}")
        return list(learned)
    if len(learned) == len(columns) == 1:
        note(f"{path}: its only channel, {columns[0]}, is taken for the only one that was learned, {learned[0]}")
        return list(columns)
    raise other_columns(path, absent, columns, learned)


def as_times(path: Path, columns: Sequence[str], learned: Sequence[str], note: Note) -> list[str]:
    """The columns of a table with a row a series that are its values in order of time: matched by name to those
    learned, though a series may end sooner, or go on with columns that are named alike (t24 after t23).

    A table that shares no name is taken in its order where its length is the same. UserError for others.
    """
    stems = {_stem(name) for name in learned if _stem(name) != name}
    absent = [name for name in learned if name not in columns]
    longer = [name for name in columns if name not in learned and _stem(name) in stems]
    if len(absent) == len(learned) == len(columns):
        note(f"{path}: its columns {shown(columns)} are taken in their order for those learned, {shown(learned)}")
        return list(columns)
    present = list(learned[:len(learned) - len(absent)])
    if set(present) & set(absent) or not present or (absent and longer):
        raise other_columns(path, absent, columns, learned)
    if [name for name in columns if name in present] != present:
        note(f"{path}: columns come in another order; matched by name to those learned, {shown(learned)}")
    return present + longer


def _stem(name: str) -> str:
    return re.sub(r"\d+", "", name)


def other_columns(path: Path, absent: list[str], columns: Sequence[str], learned: Sequence[str]) -> UserError:
    """For a table whose columns are not those learned: `absent` of them, or more than them."""
    further = next((name for name in columns if name not in learned), "")
    asked = f"has no column '{absent[0]}'" if absent else f"has a column '{further}' more than was learned"
    hint = did_you_mean(absent[0], columns) if absent else ""
    hint = hint if "mean" in hint else ""  # what there is has been said
    return UserError(f"{path}: {asked}; learned were {shown(learned)}, and it has {shown(columns)}.{hint} Rename "
                     f"them, or name the columns of values in data.value_columns.")
