"""Errors of real-valued predictions, over all elements of inputs of any one shape: (windows, horizon, channels)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from toolkit.metrics.base import OfflineMetric, State, ratio
from toolkit.metrics.forecast_sums import inside


class _MeanError(OfflineMetric):
    """A mean over elements. A subclass implements `_errors`."""

    inputs: ClassVar = {"predictions": float, "references": float}
    dimensions = None
    keeps = ("total",)
    unsupported: ClassVar = ("sample_weight", "multioutput")

    def _errors(self, predictions: np.ndarray, references: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _statistics(self, predictions, references) -> State:
        return {"total": float(np.sum(self._errors(predictions, references)))}

    def _result(self, state: State, **_) -> dict[str, float]:
        return {self.name: float(state["total"] / state["examples"])}


class MSE(_MeanError):
    """Mean squared error over all elements, in squared units of the references.

    Inputs: predictions, references: finite numbers of any one shape, such as (windows, horizon, channels).
    Option: squared=False gives its square root, in units of the references. Result: {"mse": float}.
    """

    def _errors(self, predictions, references):
        return (predictions - references) ** 2

    def _result(self, state: State, *, squared: bool = True, **_) -> dict[str, float]:
        mse = super()._result(state)["mse"]
        return {"mse": mse if squared else mse**0.5}


class MAE(_MeanError):
    """Mean absolute error over all elements, in units of the references.

    Inputs: predictions, references: finite numbers of any one shape, such as (windows, horizon, channels).
    Result: {"mae": float}.
    """

    def _errors(self, predictions, references):
        return np.abs(predictions - references)


class MSLE(_MeanError):
    """Mean squared difference of log(1 + value): of ratios, for positive numbers of very different size.

    Inputs: predictions, references: numbers above -1, of any one shape. Result: {"msle": float}.
    (scikit-learn: `mean_squared_log_error`.)
    """

    def _errors(self, predictions, references):
        for name, values in (("predictions", predictions), ("references", references)):
            low = np.argwhere(values <= -1)
            if len(low):
                raise ValueError(f"msle was given {name} with {values[tuple(low[0])]:.6g} in row {low[0][0]}; expected "
                                 "numbers above -1. Clip predictions at 0; for negative references use mse.")
        return (np.log1p(predictions) - np.log1p(references)) ** 2


class SMAPE(_MeanError):
    """Symmetric mean absolute percentage error: mean of 2·|y - ŷ| / (|y| + |ŷ|), from 0 to 2.

    Makridakis (1993), *Accuracy measures*; as a share, not in per cent, like the hub's. An element that is 0 and was
    predicted to be 0 has no error.

    Inputs: predictions, references: finite numbers of any one shape. Result: {"smape": float}.
    """

    def _errors(self, predictions, references):
        sizes = np.abs(predictions) + np.abs(references)
        return np.divide(2 * np.abs(predictions - references), sizes, out=np.zeros_like(sizes), where=sizes > 0)


class MASE(OfflineMetric):
    """Mean absolute error in units of the naive forecast's: below 1 is better than "as a season ago" was in training.

    Hyndman & Koehler (2006), *Another look at measures of forecast accuracy*.

    Inputs: predictions, references: finite numbers of any one shape. And the naive forecast's mean absolute error on
    the training part of each series, which `seasonal_naive_error` gives, in one of two ways:

    - scale: an input beside the others, one number for each series, where the first axis of references is the
      series (or of a shape that broadcasts to theirs). Many series are averaged each in its own units.
    - to `compute`, for examples added without scale: scale, one number; or, as with the hub's module, training, the
      (length,) values of the one training series, and season (the hub's name: periodicity), default 1.

    Result: {"mase": float or None}. A series that was constant in training has scale 0, so its error in these units
    is undefined: it is left out, and the result is None where no other is left.
    """

    inputs: ClassVar = {"predictions": float, "references": float}
    optional: ClassVar = {"scale": float}
    dimensions = None
    keeps = ("total", "defined", "unscaled")
    unsupported: ClassVar = ("sample_weight", "multioutput")

    def _check_shapes(self, predictions, references, scale=None) -> None:
        super()._check_shapes(predictions=predictions, references=references)
        if scale is not None:
            try:
                np.broadcast_to(_with_axes(scale, references.ndim), references.shape)
            except ValueError:
                raise ValueError(f"mase was given scale of shape {scale.shape} for references of {references.shape}; "
                                 "expected one number for each series. Pass an array of the length of their first "
                                 "axis.") from None

    def _statistics(self, predictions, references, scale=None) -> State:
        errors = np.abs(predictions - references)
        if scale is None:
            return {"total": float(errors.sum()), "defined": errors.size, "unscaled": errors.size}
        if scale.min() < 0:
            raise ValueError(f"mase was given scale={scale.min():.6g}; expected mean absolute errors, 0 or more. "
                             "seasonal_naive_error(training, season) gives them.")
        scale = np.broadcast_to(_with_axes(scale, errors.ndim), errors.shape)
        scaled = errors[scale > 0] / scale[scale > 0]
        return {"total": float(scaled.sum()), "defined": scaled.size, "unscaled": 0}

    def _result(self, state: State, *, scale: float | None = None, training: Sequence[float] | None = None,
                season: int = 1, periodicity: int | None = None, **_) -> dict[str, float | None]:
        if state["unscaled"] not in (0, state["examples"]):
            raise ValueError(f"mase was given {state['unscaled']} of {state['examples']} elements without scale; "
                             "expected it for all or for none. Pass it to every add_batch.")
        ways = int(state["unscaled"] == 0) + (scale is not None) + (training is not None)
        if ways != 1:
            raise ValueError(f"mase was given {'no' if ways == 0 else 'more than one'} scale; expected one: the naive "
                             "forecast's error in training. Pass scale beside the references, or scale=... or "
                             "training=... to compute.")
        if training is not None:
            scale = seasonal_naive_error(training, periodicity or season)
        if scale is not None and (np.ndim(scale) or not 0 <= scale < np.inf):
            raise ValueError(f"mase was given scale={scale!r} for all elements; expected one number, 0 or more. "
                             "For several series pass scale beside the references.")
        unit = state["defined"] * (1.0 if scale is None else scale)
        return {"mase": ratio(state["total"], unit)}


class QuantileLoss(OfflineMetric):
    """Pinball loss of predicted quantiles: q·(y - ŷ) where the prediction is too low, (1 - q)·(ŷ - y) where too high.

    Koenker & Bassett (1978), *Regression quantiles*: least in the mean for the q-quantile itself. At q = 0.5 it is
    half the absolute error. (scikit-learn: `mean_pinball_loss`.)

    Inputs: references: finite numbers of any shape; predictions: of the same shape, or with one more, last, axis for
    several quantiles. Options of `compute`: quantile, default 0.5, or with that axis one for each place on it;
    multioutput: "uniform_average", the mean over quantiles, or "raw_values", a list by quantile.
    Result: {"quantile_loss": float or list of them}.
    """

    inputs: ClassVar = {"predictions": float, "references": float}
    keeps = ("columns", "under", "over")
    fixed = ("columns",)

    def _check_shapes(self, predictions, references) -> None:
        if references.shape not in (predictions.shape, predictions.shape[:-1]):
            raise ValueError(f"{self.name} was given inputs of different shapes: predictions {predictions.shape}, "
                             f"references {references.shape}; expected one shape, or one more axis, of quantiles, in "
                             "predictions. Check that both come from the same examples.")

    def _statistics(self, predictions, references) -> State:
        columns = predictions.shape[-1] if predictions.ndim > references.ndim else 0
        missing = (references[..., None] - predictions if columns else references - predictions).reshape(
            -1, columns or 1)
        return {"columns": columns, "under": np.maximum(missing, 0).sum(axis=0),
                "over": np.maximum(-missing, 0).sum(axis=0)}

    def _result(self, state: State, *, quantile: float | Sequence[float] = 0.5,
                multioutput: str = "uniform_average", **_) -> dict[str, Any]:
        quantiles = np.atleast_1d(np.asarray(quantile, dtype=np.float64))
        if quantiles.shape != state["under"].shape or not np.all((quantiles > 0) & (quantiles < 1)):
            raise ValueError(f"{self.name} was given quantile={quantile!r}; expected {len(state['under'])} between 0 "
                             "and 1. Name them in the order of the last axis of predictions.")
        if multioutput not in ("uniform_average", "raw_values"):
            raise ValueError(f"{self.name} was given multioutput={multioutput!r}; expected 'uniform_average' or "
                             "'raw_values'. Choose one.")
        losses = (quantiles * state["under"] + (1 - quantiles) * state["over"]) / state["examples"]
        return {self.name: losses.tolist() if multioutput == "raw_values" else float(losses.mean())}


class Coverage(OfflineMetric):
    """Share of the references inside their predicted intervals, both ends included.

    Inputs: references: finite numbers of any shape; predictions: of the same shape with one more, last, axis of two or
    more quantiles in rising order, of which the first and the last are the ends. Result: {"coverage": float}.
    """

    inputs: ClassVar = {"predictions": float, "references": float}
    keeps = ("inside",)

    def _check_shapes(self, predictions, references) -> None:
        if references.shape != predictions.shape[:-1] or predictions.shape[-1] < 2:
            raise ValueError(f"{self.name} was given predictions {predictions.shape} for references "
                             f"{references.shape}; expected one more, last, axis: the ends of an interval. Stack them: "
                             "np.stack([low, high], -1).")
        if crossed := int((predictions[..., 0] > predictions[..., -1]).sum()):
            raise ValueError(f"{self.name} was given {crossed} of {references.size} intervals whose first end is above "
                             "their last; expected quantiles in rising order. Sort them.")

    def _statistics(self, predictions, references) -> State:
        return {"inside": int(inside(predictions[..., 0], predictions[..., -1], references).sum())}

    def _result(self, state: State, **_) -> dict[str, float | None]:
        return {self.name: ratio(state["inside"], state["examples"])}


def seasonal_naive_error(training: Sequence, season: int = 1) -> float | np.ndarray:
    """Mean |y_t - y_t-season| along the last axis: (length,) → a float, (series, length) → (series,).

    What a forecast of "as a season ago" is off by on the training data, the unit of MASE.
    """
    values = np.asarray(training, dtype=np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError("training was given with values that are NaN or infinite; expected finite numbers. "
                         "Fill or leave out missing values first.")
    if not isinstance(season, (int, np.integer)) or season < 1 or values.ndim == 0 or values.shape[-1] <= season:
        raise ValueError(f"training was given with shape {values.shape} and season={season!r}; expected an integer of "
                         "1 or more, and more values than that. Give more history, or season=1.")
    errors = np.abs(values[..., season:] - values[..., :-season]).mean(axis=-1)
    return float(errors) if values.ndim == 1 else errors


def _with_axes(scale: np.ndarray, dimensions: int) -> np.ndarray:
    return scale.reshape(scale.shape + (1,) * (dimensions - scale.ndim))
