"""How good predicted probabilities are."""

from typing import Any, ClassVar

import numpy as np

from toolkit.metrics.base import OfflineMetric, State

TOLERANCE = 1e-4
"""How far from 1 the probabilities of an example may sum to: rounding in float32, not in half precision."""


class ProbabilityMetric(OfflineMetric):
    """(n,) probabilities of class 1 with references of 0 and 1, or (n, classes) with class ids (n,)."""

    inputs: ClassVar = {"predictions": float, "references": int}
    fixed = ("columns",)
    unsupported: ClassVar = ("sample_weight", "pos_label")

    def _check_shapes(self, predictions, references) -> None:
        if predictions.ndim > 2 or references.shape != predictions.shape[:1]:
            raise ValueError(f"{self.name} was given inputs of different shapes: predictions {predictions.shape}, "
                             f"references {references.shape}; expected (n,) and (n,), or (n, classes) and (n,). "
                             "Check that both come from the same examples, and that references are class ids.")

    def _statistics(self, predictions, references) -> State:
        outside = np.argwhere((predictions < 0) | (predictions > 1))
        if len(outside):
            raise ValueError(f"{self.name} was given predictions with {predictions[tuple(outside[0])]:.6g} in row "
                             f"{outside[0][0]}; expected probabilities, from 0 to 1. "
                             "Apply a softmax (classes) or a sigmoid (class 1) to scores.")
        columns = predictions.shape[1] if predictions.ndim == 2 else 0
        if columns:
            check_sums(self.name, "predictions", predictions)
        unknown = np.flatnonzero((references < 0) | (references >= (columns or 2)))
        if len(unknown):
            raise ValueError(f"{self.name} was given class {references[unknown[0]]} in row {unknown[0]} of references; "
                             f"expected 0 to {(columns or 2) - 1} for predictions of shape {predictions.shape}. "
                             "Number the classes as the columns, or the positive class 1.")
        return {"columns": columns, **self._sums(predictions, references)}

    def _sums(self, predictions: np.ndarray, references: np.ndarray) -> State:
        raise NotImplementedError


class BrierScore(ProbabilityMetric):
    """Mean squared difference of probabilities and what happened: Brier (1950), *Verification of forecasts*.

    Inputs: predictions, (n,) probabilities of class 1, with references (n,) of 0 and 1; or (n, classes) whose rows
    sum to 1, with references (n,) of column numbers. Result: {"brier_score": float}: from 0 to 1 for two classes,
    the same in either form; for more, summed over classes as by Brier, from 0 to 2. (scikit-learn: "auto".)
    """

    keeps = ("columns", "total")

    def _sums(self, predictions, references) -> State:
        if predictions.ndim == 1:
            return {"total": float(np.sum((predictions - references) ** 2))}
        squares = float(np.sum((predictions - np.eye(predictions.shape[1])[references]) ** 2))
        return {"total": squares / 2 if predictions.shape[1] == 2 else squares}

    def _result(self, state: State, **_) -> dict[str, float]:
        return {"brier_score": float(state["total"] / state["examples"])}


class LogLoss(ProbabilityMetric):
    """Mean -log p of what happened, in nats: Good (1952), *Rational decisions*. Also called cross-entropy.

    Inputs: predictions, (n,) probabilities of class 1, with references (n,) of 0 and 1; or (n, classes) whose rows
    sum to 1, with references (n,) of column numbers. Result: {"log_loss": float ≥ 0}. A probability below 2.2e-16 is
    taken for that, as in scikit-learn: being certain and wrong costs 36 nats instead of infinitely many.
    """

    keeps = ("columns", "total")

    def _sums(self, predictions, references) -> State:
        if predictions.ndim == 1:
            given = np.where(references == 1, predictions, 1 - predictions)
        else:
            given = predictions[np.arange(len(references)), references]
        return {"total": float(-np.log(np.maximum(given, np.finfo(np.float64).eps)).sum())}

    def _result(self, state: State, **_) -> dict[str, float]:
        return {"log_loss": abs(float(state["total"] / state["examples"]))}  # -log 1 is -0.0


class ExpectedCalibrationError(ProbabilityMetric):
    """How far probabilities are from frequencies: over bins of equal width, the mean of |frequency - probability|.

    Guo et al. (2017), *On calibration of modern neural networks*, after Naeini et al. (2015). Bin m of M holds
    probabilities above (m - 1) / M, up to and with m / M.

    Inputs: predictions, (n,) probabilities of class 1, with references (n,) of 0 and 1: how often an example is of
    class 1, by its probability. Or (n, classes) whose rows sum to 1, with references (n,) of column numbers: how
    often the class with the highest probability is right, by that probability. For two classes these are different
    questions. Option: bins, default 15, to be known before the first batch: `load(name, bins=10)`, or to a `compute`
    that is given all examples. Result: {"expected_calibration_error": float in [0, 1]}.
    """

    keeps = ("columns", "bins", "probabilities", "outcomes")
    fixed = ("columns", "bins")

    def __init__(self, *args, bins: int = 15, **kwargs):
        if not isinstance(bins, (int, np.integer)) or bins < 1:
            raise ValueError(f"expected_calibration_error was given bins={bins!r}; expected an integer of 1 or more. "
                             "10 to 20 are usual.")
        super().__init__(*args, **kwargs)
        self.bins = bins

    def compute(self, *, bins: int | None = None, **kwargs) -> dict[str, Any]:
        """The result over all that was added and what is given here, and start afresh. """
        if bins is not None and bins != self.bins and not self._state:
            return type(self)(bins=bins).compute(**kwargs)
        return super().compute(bins=bins, **kwargs)

    def _sums(self, predictions, references) -> State:
        if predictions.ndim == 1:
            outcomes, probabilities = references, predictions
        else:
            outcomes, probabilities = predictions.argmax(axis=1) == references, predictions.max(axis=1)
        found = np.searchsorted(np.arange(1, self.bins) / self.bins, probabilities)
        sums = [np.bincount(found, weights=of, minlength=self.bins) for of in (probabilities, outcomes)]
        return {"bins": self.bins, "probabilities": sums[0], "outcomes": sums[1]}

    def _result(self, state: State, *, bins: int | None = None, **_) -> dict[str, float]:
        if bins not in (None, state["bins"]):
            raise ValueError(f"{self.name} was given bins={bins} after examples were added to {state['bins']} bins; "
                             f"expected the same. Load it with bins={bins}.")
        return {self.name: float(np.abs(state["outcomes"] - state["probabilities"]).sum() / state["examples"])}


def check_sums(metric: str, name: str, rows: np.ndarray) -> None:
    """`ValueError` unless every row sums to 1."""
    sums = rows.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > TOLERANCE)
    if len(wrong):
        raise ValueError(f"{metric} was given {name} that sum to {sums[wrong[0]]:.6g} in row {wrong[0]}; expected "
                         "probabilities that sum to 1. Apply softmax(-1) in float32; for two classes, (n,) "
                         "probabilities of class 1 will do.")
