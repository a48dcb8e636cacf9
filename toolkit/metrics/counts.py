"""TP, FP, FN and TN of every class: what precision, recall, F1 and their like are read from.

Four numbers a class, however many examples. All metrics here keep the same state, so one may be merged into another.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from toolkit.metrics.base import OfflineMetric, State, averaged, check_average, ratio


class Counts(NamedTuple):
    """(classes,) examples by class, each as what they are predicted to be: of the class (p), or not (n)."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray


class CountMetric(OfflineMetric):
    """Class ids (n,), of which each example has one, or 0/1 (n, classes), of which it may have any."""

    dimensions = 2
    keeps = ("classes", "columns", "tp", "fp", "fn")
    fixed = ("classes", "columns")

    def _statistics(self, predictions, references) -> State:
        if references.ndim == 2:
            check_zero_one(self.name, predictions=predictions, references=references)
            classes = np.arange(references.shape[1])
            tp = np.sum(predictions & references, axis=0)
            predicted, actual = predictions.sum(axis=0), references.sum(axis=0)
        else:
            classes, found = np.unique(np.concatenate([predictions, references]), return_inverse=True)
            guess, truth = found[:len(predictions)], found[len(predictions):]
            tp, predicted, actual = (np.bincount(of, minlength=len(classes))
                                     for of in (truth[truth == guess], guess, truth))
        columns = references.shape[1] if references.ndim == 2 else 0
        return {"classes": classes, "columns": columns, "tp": tp, "fp": predicted - tp, "fn": actual - tp}

    def _added(self, one: State, other: State) -> State:
        if one and other:
            classes = np.union1d(one["classes"], other["classes"])
            one, other = _spread(one, classes), _spread(other, classes)
        return super()._added(one, other)

    @staticmethod
    def _counts(state: State, classes: np.ndarray) -> Counts:
        """Of `classes`, in their order; of one that never occurs, everything is a true negative."""
        found = positions(classes, state["classes"])
        tp, fp, fn = (np.where(found >= 0, state[name][found], 0) for name in ("tp", "fp", "fn"))
        rows = state["examples"] // (state["columns"] or 1)
        return Counts(tp, fp, fn, rows - tp - fp - fn)


class RateMetric(CountMetric):
    """One count divided by another. A subclass implements `_parts`, their numerators and denominators.

    Options of `compute`:

    - average: "binary" (the class `pos_label`, of at most two), "micro" (counts summed over classes), "macro"
      (mean over classes), "weighted" (mean weighted by references per class), or None (a list by class).
    - labels: the classes to average over, in this order; default all that occur, sorted, and with (n, classes)
      inputs all columns. "binary" ignores it.
    """

    AVERAGES = ("binary", "micro", "macro", "weighted")
    unsupported: ClassVar = ("sample_weight", "zero_division")

    def _parts(self, counts: Counts, **options) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _result(self, state: State, *, average: str | None = "binary", pos_label: int = 1,
                labels: Sequence[int] | None = None, **options) -> dict[str, Any]:
        check_average(self.name, average, self.AVERAGES)
        classes = (binary_class(self.name, state, pos_label) if average == "binary"
                   else chosen_classes(labels, state["classes"], whole=bool(state["columns"])))
        counts = self._counts(state, classes)
        parts, wholes = self._parts(counts, **options)
        if average == "micro":
            return {self.name: ratio(parts.sum(), wholes.sum())}
        values = [ratio(part, whole) for part, whole in zip(parts, wholes, strict=True)]
        support = (counts.tp + counts.fn).tolist()
        return {self.name: values[0] if average == "binary" else averaged(values, support, average)}


def binary_class(metric: str, state: State, pos_label: int) -> np.ndarray:
    """The positive class alone; `ValueError` where it is not clear which that is."""
    present = state["classes"]
    if state["columns"]:
        raise ValueError(f"{metric} was given {state['columns']} columns of labels; expected class ids (n,) for "
                         "average='binary'. Pass average='macro', 'micro', 'weighted' or None.")
    if len(present) > 2:
        raise ValueError(f"{metric} was given {len(present)} classes; expected at most two for average='binary'. "
                         "Pass average='macro', 'micro', 'weighted' or None.")
    if len(present) == 2 and pos_label not in present:
        raise ValueError(f"{metric} was given classes {present.tolist()} and pos_label={pos_label!r}; expected one "
                         "of the classes. Pass the id of the positive class as pos_label.")
    return np.asarray([pos_label])


def chosen_classes(labels: Sequence[int] | None, present: np.ndarray, whole: bool = False) -> np.ndarray:
    """`labels`, which must be different class ids, or all that are present; where that is the `whole`, no other."""
    if labels is None:
        return present
    if whole and len(np.setdiff1d(labels, present)):
        raise ValueError(f"labels was given as {list(labels)} for {len(present)} columns; expected numbers of columns, "
                         f"0 to {len(present) - 1}. Leave labels out to use them all.")
    if len(labels) == 0 or len(set(labels)) < len(labels):
        raise ValueError(f"labels was given as {list(labels)}; expected one or more different class ids. "
                         "Name each class once, or leave labels out to use all that occur.")
    return np.asarray(labels)


def positions(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(n,) class ids → (n,) their positions in the sorted `classes`, -1 for a class that is not there."""
    slots = np.minimum(np.searchsorted(classes, values), len(classes) - 1)
    return np.where(classes[slots] == values, slots, -1)


def _spread(state: State, classes: np.ndarray) -> State:
    """The same counts, over more classes."""
    if len(classes) == len(state["classes"]):
        return state
    slots = np.searchsorted(classes, state["classes"])
    spread = {**state, "classes": classes}
    for name in ("tp", "fp", "fn"):
        spread[name] = np.zeros(len(classes), np.int64)
        spread[name][slots] = state[name]
    return spread


def check_zero_one(metric: str, **matrices: np.ndarray) -> None:
    for name, matrix in matrices.items():
        wrong = np.argwhere((matrix != 0) & (matrix != 1))
        if len(wrong):
            raise ValueError(f"{metric} was given {name} of shape {matrix.shape} with {matrix[tuple(wrong[0])]} in row "
                             f"{wrong[0][0]}; expected 0 or 1 in every column. Pass class ids as (n,): argmax(-1).")
