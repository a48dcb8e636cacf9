"""Class predictions against references."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.errors import did_you_mean
from toolkit.metrics.base import OfflineMetric, State, averaged, check_average, ratio
from toolkit.metrics.counts import CountMetric, Counts, RateMetric, chosen_classes, positions


class Accuracy(OfflineMetric):
    """Share of predictions equal to their references.

    Inputs: predictions, references: (n,) class ids. Option: normalize=False gives their number instead.
    Result: {"accuracy": float in [0, 1]}.
    """

    keeps = ("right",)

    def _statistics(self, predictions, references) -> State:
        return {"right": int(np.sum(predictions == references))}

    def _result(self, state: State, *, normalize: Any = True, **_) -> dict[str, float]:
        # combine hands on confusion_matrix's normalize, which is a name or None.
        return {"accuracy": float(state["right"] if normalize is False else state["right"] / state["examples"])}


class Precision(RateMetric):
    """Precision = TP / (TP + FP): how much of what was predicted to be of a class is of it.

    Inputs: predictions, references: (n,) class ids, or (n, classes) of 0 and 1, where each row may have several.
    Options of `compute`: average ("binary", "micro", "macro", "weighted" or None), pos_label, labels: as of F1.
    Result: {"precision": float, None, or list of them}: None for a class that is never predicted.
    """

    def _parts(self, counts: Counts, **_):
        return counts.tp, counts.tp + counts.fp


class Recall(RateMetric):
    """Recall, also called sensitivity or true positive rate = TP / (TP + FN): how much of a class was found.

    Inputs: predictions, references: (n,) class ids, or (n, classes) of 0 and 1, where each row may have several.
    Options of `compute`: average ("binary", "micro", "macro", "weighted" or None), pos_label, labels: as of F1.
    Result: {"recall": float, None, or list of them}: None for a class that is not among the references.
    """

    def _parts(self, counts: Counts, **_):
        return counts.tp, counts.tp + counts.fn


class Specificity(RateMetric):
    """Specificity, or true negative rate = TN / (TN + FP): how much of what is not of a class was left out of it.

    Inputs: predictions, references: (n,) class ids, or (n, classes) of 0 and 1, where each row may have several.
    Options of `compute`: average ("binary", "micro", "macro", "weighted" or None), pos_label, labels: as of F1.
    Result: {"specificity": float, None, or list of them}: None for a class that all references are of.
    """

    def _parts(self, counts: Counts, **_):
        return counts.tn, counts.tn + counts.fp


class Fbeta(RateMetric):
    """F-beta = (1 + β²)·TP / ((1 + β²)·TP + β²·FN + FP): recall counts β times as much as precision.

    Van Rijsbergen, *Information Retrieval* (1979), chapter 7.

    Inputs: predictions, references: (n,) class ids, or (n, classes) of 0 and 1, where each row may have several.
    Options of `compute`: beta, 0 (precision) to infinity (recall), default 1; average, pos_label, labels: as of F1.
    Result: {"fbeta": float, None, or list of them}: None for a class neither predicted nor among the references.
    """

    def _parts(self, counts: Counts, beta: float = 1.0, **_):
        if not beta >= 0:
            raise ValueError(f"{self.name} was given beta={beta!r}; expected 0 or more. "
                             "Pass how many times as much recall counts as precision.")
        recall_share = beta * beta / (1 + beta * beta) if beta <= 1 else 1 / (1 + 1 / (beta * beta))
        return counts.tp, counts.tp + recall_share * counts.fn + (1 - recall_share) * counts.fp


class F1(Fbeta):
    """F1 = 2·TP / (2·TP + FP + FN) of van Rijsbergen, *Information Retrieval* (1979), chapter 7.

    Inputs: predictions, references: (n,) class ids, or (n, classes) of 0 and 1, where each row may have several.
    Options of `compute`:

    - average: "binary" (the class `pos_label`, of at most two), "micro" (counts summed over classes), "macro"
      (mean over classes), "weighted" (mean weighted by references per class), or None (a list by class).
    - labels: the classes to average over, in this order; default all that occur, sorted, or all columns.
      "binary" ignores it.

    Result: {"f1": float, None, or list of them}. The F1 of a class that is neither predicted nor among the
    references is undefined: it is None, and is left out of averages. (scikit-learn: `zero_division=nan`.)
    """

    def _parts(self, counts: Counts, **_):
        return super()._parts(counts)


class BalancedAccuracy(CountMetric):
    """Mean recall of the classes among the references: 1 / classes for a constant or a random classifier.

    Brodersen et al. (2010), *The balanced accuracy and its posterior distribution*. The recalls themselves are
    those of `recall` with average=None.

    Inputs: predictions, references: (n,) class ids. Option: adjusted=True moves chance to 0, and 1 stays
    (None where the references are of one class, for which chance is 1).
    Result: {"balanced_accuracy": float in [0, 1], or None}.
    """

    dimensions = 1

    def _result(self, state: State, *, adjusted: bool = False, **_) -> dict[str, float | None]:
        counts = self._counts(state, state["classes"])
        recalls = counts.tp[counts.tp + counts.fn > 0] / (counts.tp + counts.fn)[counts.tp + counts.fn > 0]
        mean, chance = float(recalls.mean()), 1 / len(recalls)
        return {"balanced_accuracy": ratio(mean - chance, 1 - chance) if adjusted else mean}


class MatthewsCorrelation(CountMetric):
    """Correlation of predictions with references, -1 to 1: Matthews (1975), of several classes Gorodkin (2004).

    Inputs: predictions, references: (n,) class ids: one number, for any number of classes. Or (n, classes) of 0
    and 1, such as one-hot rows: one for each column. Option, for those alone: average, None (a list by column),
    "macro", "micro" (of the summed counts) or "weighted".
    Result: {"matthews_correlation": float, None, or list of them}. It is None, where scikit-learn has 0, when all
    predictions, or all references, are of one class: nothing varies that could be correlated.
    """

    def _result(self, state: State, *, average: str | None = None, **_) -> dict[str, Any]:
        counts = self._counts(state, state["classes"])
        if not state["columns"]:
            tp, predicted, actual = (list(map(int, of)) for of in
                                     (counts.tp, counts.tp + counts.fp, counts.tp + counts.fn))
            return {self.name: _correlation(tp, predicted, actual, int(state["examples"]))}
        check_average(self.name, average, RateMetric.AVERAGES[1:])
        tables = np.stack(counts, axis=1).astype(object)  # Python integers: their products pass 2^63
        if average == "micro":
            return {self.name: _binary_correlation(*tables.sum(axis=0))}
        values = [_binary_correlation(*table) for table in tables]
        return {self.name: averaged(values, (counts.tp + counts.fn).tolist(), average)}


class ConfusionMatrix(OfflineMetric):
    """Counts by class: rows are references, columns predictions.

    Inputs: predictions, references: (n,) class ids. Options of `compute`:

    - labels: classes of the rows and columns, in this order; default all that occur, sorted. Examples with
      another class on either side are left out.
    - normalize: None (counts), "true" (shares of a row), "pred" (of a column) or "all".

    Result: {"confusion_matrix": list of rows of int; of float where normalised, None where the sum is 0}.
    """

    keeps = ("classes", "matrix")
    fixed = ("classes",)

    def _statistics(self, predictions, references) -> State:
        classes, found = np.unique(np.concatenate([references, predictions]), return_inverse=True)
        size, pairs = len(classes), found[:len(references)] * len(classes) + found[len(references):]
        return {"classes": classes, "matrix": np.bincount(pairs, minlength=size * size).reshape(size, size)}

    def _added(self, one: State, other: State) -> State:
        if one and other:
            classes = np.union1d(one["classes"], other["classes"])
            one, other = ({**state, "classes": classes, "matrix": _rearranged(state, classes)}
                          for state in (one, other))
        return super()._added(one, other)

    def _result(self, state: State, *, labels: Sequence[int] | None = None, normalize: str | None = None,
                **_) -> dict[str, list]:
        axes = {"true": 1, "pred": 0, "all": None}
        if normalize is not None and normalize not in axes:
            raise ValueError(f"confusion_matrix was given normalize={normalize!r}; expected None or one of "
                             f"{tuple(axes)}." + did_you_mean(str(normalize), axes))
        counts = _rearranged(state, chosen_classes(labels, state["classes"]))
        if normalize is None:
            return {"confusion_matrix": counts.tolist()}
        sums = np.broadcast_to(counts.sum(axis=axes[normalize], keepdims=True), counts.shape)
        shares = [[ratio(count, total) for count, total in zip(*row, strict=True)]
                  for row in zip(counts, sums, strict=True)]
        return {"confusion_matrix": shares}


def _rearranged(state: State, classes: np.ndarray) -> np.ndarray:
    """The matrix with rows and columns for `classes`, 0 for those that do not occur."""
    found = positions(classes, state["classes"])
    inside = np.outer(found >= 0, found >= 0)
    return np.where(inside, state["matrix"][np.ix_(found, found)], 0)


def _correlation(tp: list[int], predicted: list[int], actual: list[int], examples: int) -> float | None:
    covariance = sum(tp) * examples - sum(p * a for p, a in zip(predicted, actual, strict=True))
    spreads = [examples**2 - sum(count**2 for count in counts) for counts in (predicted, actual)]
    return ratio(covariance, math.sqrt(spreads[0] * spreads[1]))


def _binary_correlation(tp: int, fp: int, fn: int, tn: int) -> float | None:
    return ratio(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
