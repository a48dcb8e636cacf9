"""Errors of real-valued predictions."""

from typing import ClassVar

import numpy as np

from toolkit.metrics.base import OfflineMetric


class MSE(OfflineMetric):
    """Mean squared error over all elements, in squared units of the references.

    Inputs: predictions, references: finite numbers of any one shape, such as (windows, horizon, channels).
    Result: {"mse": float}.
    """

    inputs: ClassVar = {"predictions": float, "references": float}
    any_shape = True

    def _compute(self, predictions, references, **_) -> dict[str, float]:
        return {"mse": float(np.mean(np.subtract(predictions, references) ** 2))}


class MAE(OfflineMetric):
    """Mean absolute error over all elements, in units of the references.

    Inputs: predictions, references: finite numbers of any one shape, such as (windows, horizon, channels).
    Result: {"mae": float}.
    """

    inputs: ClassVar = {"predictions": float, "references": float}
    any_shape = True

    def _compute(self, predictions, references, **_) -> dict[str, float]:
        return {"mae": float(np.mean(np.abs(np.subtract(predictions, references))))}
