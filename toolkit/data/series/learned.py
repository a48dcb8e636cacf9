"""What a model must know of the series it learned, so that others mean the same to it."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

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
    def of(cls, config: object) -> "Learned":
        """What a model's configuration says."""
        found = {field.name: getattr(config, field.name, None) for field in fields(cls)}
        found["normalisation"] = found["normalisation"] or "series"
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in found.items()})

    def as_config(self) -> dict:
        """What a model's configuration is to say."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
                if value is not None}


def as_channels(path: Path, columns: Sequence[str], learned: Sequence[str], others: bool, note: Note) -> list[str]:
    """The columns of a table with a row a time that are the channels learned, in their order: matched by name.

    others: whether there may be further columns, which are told and left out. UserError for other channels; a single
    one may have another name.
    """
    absent = [name for name in learned if name not in columns]
    further = [name for name in columns if name not in learned]
    if not absent and (others or not further):
        if further:
            note(f"{path}: {shown(further)} {_is_none(further)} of the channels that were learned: left out")
        elif list(columns) != list(learned):
            note(f"{path}: channels come as {shown(columns)}; matched by name to those learned, {shown(learned)}")
        return list(learned)
    if len(learned) == len(columns) == 1:
        note(f"{path}: its only channel, {columns[0]}, is taken for the only one that was learned, {learned[0]}")
        return list(columns)
    raise _other(path, "channel", absent, further, columns, learned)


def as_times(path: Path, columns: Sequence[str], learned: Sequence[str], others: bool, note: Note) -> list[str]:
    """The columns of a table with a row a series that are its values in order of time: matched by name to those
    learned, though a series may end sooner, or go on with columns that are named alike (t24 after t23).

    others, UserError: as `as_channels`. A table that shares no name is taken in its order where its length is the
    same.
    """
    known, stems = set(learned), {_stem(name) for name in learned if _stem(name) != name}
    absent = [name for name in learned if name not in columns]
    further = [name for name in columns if name not in known]
    longer = [name for name in further if _stem(name) in stems]
    foreign = [name for name in further if _stem(name) not in stems]
    if len(absent) == len(learned):
        if len(columns) != len(learned):
            raise _other(path, "column", absent, further, columns, learned)
        note(f"{path}: its columns {shown(columns)} are taken in their order for those learned, {shown(learned)}")
        return list(columns)
    present = [name for name in learned if name not in absent]
    if present != list(learned[:len(present)]) or (absent and longer) or (foreign and not others):
        raise _other(path, "column", absent, foreign or further, columns, learned)
    if foreign:
        note(f"{path}: {shown(foreign)} {_is_none(foreign)} of the columns that were learned: left out")
    if [name for name in columns if name in known] != present:
        note(f"{path}: columns come in another order; matched by name to those learned, {shown(learned)}")
    return present + longer


def _stem(name: str) -> str:
    return re.sub(r"\d+", "", name)


def _is_none(names: Sequence[str]) -> str:
    return "is none" if len(names) == 1 else "are none"


def _other(path: Path, what: str, absent: list[str], further: list[str], columns: Sequence[str],
           learned: Sequence[str]) -> UserError:
    asked = f"has no {what} '{absent[0]}'" if absent else f"has a {what} '{further[0]}' that was not learned"
    hint = did_you_mean(absent[0], columns) if absent else ""
    hint = hint if "mean" in hint else ""  # what there is has been said
    return UserError(f"{path}: {asked}; learned were {shown(learned)}, and it has {shown(columns)}.{hint} Rename "
                     f"them, or name the columns of values in data.value_columns.")
