"""Class predictions against references."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.errors import did_you_mean
from toolkit.metrics.base import OfflineMetric


class Accuracy(OfflineMetric):
    """Share of predictions equal to their references.

    Inputs: predictions, references: (n,) class ids. Result: {"accuracy": float in [0, 1]}.
    """

    def _compute(self, predictions, references, **_) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.equal(predictions, references)))}


class F1(OfflineMetric):
    """F1 = 2·TP / (2·TP + FP + FN) of van Rijsbergen, *Information Retrieval* (1979), chapter 7.

    Inputs: predictions, references: (n,) class ids. Options of `compute`:

    - average: "binary" (the class `pos_label`, of at most two), "micro" (counts summed over classes), "macro"
      (mean over classes), "weighted" (mean weighted by references per class), or None (a list by class).
    - labels: the classes to average over, in this order; default all that occur, sorted. "binary" ignores it.

    Result: {"f1": float, None, or list of them}. The F1 of a class that is neither predicted nor among the
    references is undefined: it is None, and is left out of averages. (scikit-learn: `zero_division=nan`.)
    """

    AVERAGES = ("binary", "micro", "macro", "weighted")

    def _compute(self, predictions, references, average: str | None = "binary", pos_label: int = 1,
                 labels: Sequence[int] | None = None, **_) -> dict[str, Any]:
        if average is not None and average not in self.AVERAGES:
            raise ValueError(f"f1 was given average={average!r}; expected None or one of {self.AVERAGES}."
                             + did_you_mean(str(average), self.AVERAGES))
        predictions, references = np.asarray(predictions), np.asarray(references)
        if average == "binary":
            labels = _binary_labels(np.union1d(predictions, references), pos_label)
        else:
            labels = _labels(labels, predictions, references)
        predicted, actual = _positions(predictions, labels), _positions(references, labels)
        hits = np.bincount(actual[(actual == predicted) & (actual >= 0)], minlength=len(labels))
        support = np.bincount(actual[actual >= 0], minlength=len(labels))
        total = support + np.bincount(predicted[predicted >= 0], minlength=len(labels))  # 2·TP + FP + FN
        if average == "micro":
            return {"f1": _ratio(2 * hits.sum(), total.sum())}
        defined = total > 0
        scores = np.divide(2 * hits, total, out=np.zeros(len(labels)), where=defined)
        if average == "macro":
            return {"f1": _ratio(scores.sum(), defined.sum())}
        if average == "weighted":
            return {"f1": _ratio(scores @ support, support.sum())}
        per_class = [float(score) if known else None for score, known in zip(scores, defined, strict=True)]
        return {"f1": per_class[0] if average == "binary" else per_class}


class ConfusionMatrix(OfflineMetric):
    """Counts by class: rows are references, columns predictions.

    Inputs: predictions, references: (n,) class ids. Options of `compute`:

    - labels: classes of the rows and columns, in this order; default all that occur, sorted. Examples with
      another class on either side are left out.
    - normalize: None (counts), "true" (shares of a row), "pred" (of a column) or "all".

    Result: {"confusion_matrix": list of rows of int; of float where normalised, None where the sum is 0}.
    """

    def _compute(self, predictions, references, labels: Sequence[int] | None = None,
                 normalize: str | None = None, **_) -> dict[str, list]:
        axes = {"true": 1, "pred": 0, "all": None}
        if normalize is not None and normalize not in axes:
            raise ValueError(f"confusion_matrix was given normalize={normalize!r}; expected None or one of "
                             f"{tuple(axes)}." + did_you_mean(str(normalize), axes))
        labels = _labels(labels, predictions, references)
        size = len(labels)
        rows, columns = _positions(references, labels), _positions(predictions, labels)
        inside = (rows >= 0) & (columns >= 0)
        counts = np.bincount(rows[inside] * size + columns[inside], minlength=size * size).reshape(size, size)
        if normalize is None:
            return {"confusion_matrix": counts.tolist()}
        sums = np.broadcast_to(counts.sum(axis=axes[normalize], keepdims=True), counts.shape)
        shares = [[_ratio(count, total) for count, total in zip(*row, strict=True)]
                  for row in zip(counts, sums, strict=True)]
        return {"confusion_matrix": shares}


def _ratio(part: float, whole: float) -> float | None:
    """part / whole as a Python float, None for 0/0."""
    return float(part / whole) if whole else None


def _binary_labels(present: np.ndarray, pos_label: int) -> np.ndarray:
    if len(present) > 2:
        raise ValueError(f"f1 was given {len(present)} classes; expected at most two for average='binary'. "
                         "Pass average='macro', 'micro', 'weighted' or None.")
    if len(present) == 2 and pos_label not in present:
        raise ValueError(f"f1 was given classes {present.tolist()} and pos_label={pos_label!r}; expected one "
                         "of the classes. Pass the id of the positive class as pos_label.")
    return np.asarray([pos_label])


def _labels(labels: Sequence[int] | None, predictions, references) -> np.ndarray:
    if labels is None:
        return np.union1d(predictions, references)
    if len(labels) == 0 or len(set(labels)) < len(labels):
        raise ValueError(f"labels was given as {list(labels)}; expected one or more different class ids. "
                         "Name each class once, or leave labels out to use all that occur.")
    return np.asarray(labels)


def _positions(values, labels: np.ndarray) -> np.ndarray:
    """(n,) class ids → (n,) their positions in `labels`, -1 for a class that is not there."""
    order = np.argsort(labels)
    slots = np.minimum(np.searchsorted(labels, values, sorter=order), len(labels) - 1)
    return np.where(labels[order[slots]] == values, order[slots], -1)
