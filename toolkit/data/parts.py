"""Train, validation and test of labelled examples, as one."""

from collections import Counter, namedtuple
from collections.abc import Hashable, Sequence

import numpy as np

from toolkit.views import View, Viewed, counted

ROLES = ("train", "validation", "test")


class Parts(Viewed, namedtuple("Parts", ROLES)):
    """A tuple of three."""

    __slots__ = ()

    def _shown(self) -> View:
        rows = [(role, len(part), class_counts(part)) for role, part in zip(ROLES, self, strict=True)]
        return View(f"train, validation and test: {type(self.train).__name__}", {}, ("part", "examples", "of each"),
                    rows)


def class_counts(part) -> str:
    """How many examples there are of each class, the most frequent first; of other labels how many there are."""
    names, labels = part.label_names, part.labels
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        counts = Counter(labels.tolist()).most_common(8)
        return ", ".join(f"{names[label]} {count:,}" for label, count in counts) + ", …" * (len(names) > 8)
    return counted(len(names), "label") if labels.ndim == 2 else "numbers"


def held_out(keys: Sequence[Hashable], share: float, before: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Places that stay, and those that are held out: a share evenly spread over `keys`, begun `before` places earlier,
    and whatever has the key of one of them.
    """
    every = max(2, round(1 / share))
    held = set(keys[every - 1 - before::every])
    out = np.asarray([place for place, key in enumerate(keys) if key in held], np.int64)
    return np.setdiff1d(np.arange(len(keys)), out), out
