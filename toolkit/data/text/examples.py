"""Labelled texts in memory, and how some of them are chosen: held out, few of each class, drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.data import counter
from toolkit.data.parts import class_counts
from toolkit.data.tables.labels import Task
from toolkit.errors import UserError
from toolkit.views import View, Viewed, counted


@dataclass(frozen=True, repr=False)
class LabelledText(Viewed):
    """`texts` (and the second ones of `pairs`) with their `labels`: indices into `label_names`, (n,) int64; for the
    other tasks float32: (n, classes) of 0 and 1, or of probabilities; (n,) numbers, whose one name is "value".
    """

    texts: list[str]
    labels: np.ndarray
    label_names: tuple[str, ...]
    pairs: list[str] | None = None
    task: Task = "classification"

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def classes(self) -> int:
        return len(self.label_names)

    def _shown(self) -> View:
        rows = []
        for place in range(min(5, len(self))):
            label = self.labels[place]
            if self.task == "classification":
                label = self.label_names[label]
            elif self.task == "multi-label":
                label = ", ".join(name for name, has in zip(self.label_names, label, strict=True) if has)
            text = self.texts[place] if self.pairs is None else f"{self.texts[place]} | {self.pairs[place]}"
            rows.append((label, text))
        return View(f"{counted(len(self), 'labelled text')} ({self.task})", {"of each": class_counts(self)},
                    ("label", "text"), rows, "the first of them" if len(self) > 5 else "")

    def select(self, index: Sequence[int]) -> "LabelledText":
        return LabelledText([self.texts[i] for i in index], self.labels[np.asarray(index, int)], self.label_names,
                            None if self.pairs is None else [self.pairs[i] for i in index], self.task)


def split_off(data: LabelledText, share: float) -> tuple[LabelledText, LabelledText]:
    """The last `share` of each class, in the order of the file, becomes validation, and at least one of two examples;
    without classes, every so manyth row.
    """
    if data.task == "classification":
        held_out = np.zeros(len(data), bool)
        for label in range(data.classes):
            members = np.flatnonzero(data.labels == label)
            if len(members) > 1:
                held_out[members[len(members) - max(1, round(share * len(members))):]] = True
    else:
        held_out = np.diff(np.floor(np.arange(len(data) + 1) * share + 1e-9)) > 0
    return data.select(np.flatnonzero(~held_out)), data.select(np.flatnonzero(held_out))


def few_shot(data: LabelledText, shots: int, seed: int, what: str = "the training set") -> LabelledText:
    """`shots` examples of each class, drawn by `seed`, in a shuffled order."""
    chosen = []
    for label, name in enumerate(data.label_names):
        members = np.flatnonzero(data.labels == label)
        if len(members) < shots:
            raise UserError(f"{what} has {len(members)} examples of class '{name}', fewer than data.shots = {shots}. "
                            f"Lower shots, or leave it out to use all labels.")
        order = counter.permute(counter.key(seed, label), np.arange(shots), len(members))
        chosen.append(members[order])
    chosen = np.concatenate(chosen)
    return data.select(chosen[counter.permute(counter.key(seed, -1), np.arange(len(chosen)), len(chosen))])


def label_counts(asked: Sequence[int | str], available: int) -> dict[str, int]:
    """Column of a learning curve → labelled examples. A count that cannot be had is left out; "all" stands for it."""
    return {str(count): available if count == "all" else count for count in asked
            if count == "all" or count < available}


def spread(data: LabelledText, count: int) -> list[str]:
    """The texts, and second texts, of about `count` examples from everywhere in the file."""
    step = max(1, len(data) // count)
    return [*data.texts[::step], *(data.pairs or [])[::step]]


def draw(data: LabelledText, count: int, seed: int) -> np.ndarray:
    """Indices of `count` examples whatever their class; a larger count of the same seed holds the smaller one's."""
    return counter.permute(counter.key(seed, -2), np.arange(min(count, len(data))), len(data))
