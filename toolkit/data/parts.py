"""Train, validation and test of labelled examples, as one."""

from collections import Counter, namedtuple

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
