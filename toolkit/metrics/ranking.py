"""How well scores put examples of a class before all others.

An area depends on the order of all scores, so no fixed number of sums gives it exactly: the scores are kept, in 8
bytes each, and the references in 1 each (up to 255 classes). A hundred million examples take 0.9 GB.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from toolkit.metrics.base import OfflineMetric, State, averaged, check_average
from toolkit.metrics.counts import check_zero_one
from toolkit.metrics.probability import check_sums


class RankingMetric(OfflineMetric):
    """Binary, multi-class (each class against the rest) or multi-label, by the shapes of the inputs."""

    AVERAGES = ("micro", "macro", "weighted")
    inputs: ClassVar = {"prediction_scores": float, "references": int}
    keeps = ("columns", "multilabel", "scores", "references")
    fixed = ("columns", "multilabel")

    def _check_shapes(self, prediction_scores, references) -> None:
        if prediction_scores.ndim > 2 or references.shape not in (prediction_scores.shape, prediction_scores.shape[:1]):
            raise ValueError(f"{self.name} was given inputs of different shapes: prediction_scores "
                             f"{prediction_scores.shape}, references {references.shape}; expected (n,) and (n,), "
                             "(n, classes) and (n,), or (n, classes) and (n, classes). "
                             "Check that both come from the same examples.")

    def _statistics(self, prediction_scores, references) -> State:
        multilabel = references.ndim == 2
        if multilabel:
            check_zero_one(self.name, references=references)
        elif prediction_scores.ndim == 2:
            check_sums(self.name, "prediction_scores", prediction_scores)
        kind = np.result_type(np.min_scalar_type(references.min()), np.min_scalar_type(references.max()))
        return {"columns": prediction_scores.shape[1] if prediction_scores.ndim == 2 else 0,
                "multilabel": int(multilabel), "scores": [prediction_scores], "references": [references.astype(kind)]}

    def _added(self, one: State, other: State) -> State:
        one, other = ({**state, **{name: _chunks(state[name]) for name in ("scores", "references") if state}}
                      for state in (one, other))
        total = super()._added(one, other)
        return {**total, **{name: _joined(total[name]) for name in ("scores", "references") if total}}

    def state(self) -> State:
        """All scores and references so far, as arrays. """
        return {name: np.concatenate(value) if isinstance(value, list) else value
                for name, value in self._state.items()}

    def _result(self, state: State, *, average: str | None = "macro", multi_class: str = "ovr", pos_label: int = 1,
                labels: Sequence[int] | None = None, **_) -> dict[str, Any]:
        scores, references = np.concatenate(state["scores"]), np.concatenate(state["references"])
        if not state["columns"]:
            self._check_binary(references, pos_label)
            return {self.name: self._area(scores, references == pos_label)}
        check_average(self.name, average, self.AVERAGES)
        truth = references.astype(bool)
        if not state["multilabel"]:
            if multi_class != "ovr":
                raise ValueError(f"{self.name} was given multi_class={multi_class!r}; expected 'ovr', each class "
                                 "against the rest. Leave it out.")
            truth = references[:, None] == self._classes(references, labels, state["columns"])
        if average == "micro":
            return {self.name: self._area(scores.ravel(), truth.ravel())}
        areas = [self._area(column, of_class) for column, of_class in zip(scores.T, truth.T, strict=True)]
        return {self.name: averaged(areas, truth.sum(axis=0).tolist(), average)}

    def _area(self, scores: np.ndarray, positive: np.ndarray) -> float | None:
        raise NotImplementedError

    def _check_binary(self, references: np.ndarray, pos_label: int) -> None:
        present = np.unique(references).tolist()
        if len(present) > 2:
            raise ValueError(f"{self.name} was given one score an example and {len(present)} classes; expected two "
                             "classes. Pass scores of shape (n, classes).")
        if len(present) == 2 and pos_label not in present:
            raise ValueError(f"{self.name} was given classes {present} and pos_label={pos_label!r}; expected one of "
                             "the classes. Pass the id of the class with the high scores as pos_label.")

    def _classes(self, references: np.ndarray, labels: Sequence[int] | None, columns: int) -> np.ndarray:
        classes = np.arange(columns) if labels is None else np.asarray(labels)
        if len(classes) != columns or len(set(classes.tolist())) < columns:
            raise ValueError(f"{self.name} was given labels={classes.tolist()} and {columns} columns of scores; "
                             "expected a different class id for each. Name the classes in the order of the columns.")
        unknown = np.setdiff1d(references, classes)
        if len(unknown):
            raise ValueError(f"{self.name} was given references to class {unknown[0]} and columns for "
                             f"{classes.tolist()}; expected no other class. Pass the columns' class ids as labels.")
        return classes


class RocAuc(RankingMetric):
    """Area under the ROC curve: how often a positive example scores above a negative one, a tie counting half.

    Hanley & McNeil (1982), *The meaning and use of the area under a ROC curve*. Computed in integers: ties and
    the order of the examples change nothing.

    Inputs, prediction_scores and references:

    - (n,) scores of the positive class and (n,) class ids, of at most two classes;
    - (n, classes) probabilities and (n,) class ids: each class against the rest;
    - (n, classes) scores and (n, classes) of 0 and 1, where each row may have several.

    Options of `compute`: pos_label, for (n,) scores, default 1; for columns, average: "macro" (the default),
    "weighted" (by references), "micro" (of all elements at once) or None (a list by class), and labels: the class
    ids of the columns, default 0, 1, 2, ... multi_class is "ovr", the hub's name for each class against the rest.
    Result: {"roc_auc": float, None, or list of them}: None without a positive or without a negative example.
    """

    unsupported: ClassVar = ("sample_weight", "max_fpr")

    def _area(self, scores: np.ndarray, positive: np.ndarray) -> float | None:
        tp, fp = _curve(scores, positive)
        if not tp[-1] or not fp[-1]:
            return None
        twice = np.sum(np.diff(fp, prepend=0) * (tp + np.concatenate([[0], tp[:-1]])))  # trapezoids
        return int(twice) / (2 * int(tp[-1]) * int(fp[-1]))


class PrAuc(RankingMetric):
    """Average precision: the area under the precision-recall curve as steps, sum of (R_k - R_k-1)·P_k.

    Not by trapezoids, which flatter: Davis & Goadrich (2006), *The relationship between precision-recall and ROC
    curves*. A random classifier's is the share of positives. scikit-learn: `average_precision_score`.

    Inputs, prediction_scores and references, and options of `compute`: as of roc_auc.
    Result: {"pr_auc": float, None, or list of them}: None without a positive example, where scikit-learn has 0.
    """

    def _area(self, scores: np.ndarray, positive: np.ndarray) -> float | None:
        tp, fp = _curve(scores, positive)
        return float(np.sum(np.diff(tp, prepend=0) * (tp / (tp + fp))) / tp[-1]) if tp[-1] else None


def _curve(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives with the threshold at each different score, the highest first."""
    order = np.argsort(scores)[::-1]
    scores = scores[order]
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)  # of each group of equal scores
    tp = np.cumsum(positive[order], dtype=np.int64)[last]
    return tp, last + 1 - tp


def _chunks(value: list | np.ndarray) -> list[np.ndarray]:
    return value if isinstance(value, list) else [np.asarray(value)]


def _joined(chunks: list[np.ndarray]) -> list[np.ndarray]:
    """The same rows in chunks each longer than the next: few of them, and few copies, whatever the batch size."""
    chunks = list(chunks)
    while len(chunks) > 1 and len(chunks[-2]) <= len(chunks[-1]):
        chunks[-2:] = [np.concatenate(chunks[-2:])]
    return chunks
