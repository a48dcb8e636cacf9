"""Of several series each by itself: one linear map from context to horizon a series, found in closed form.

What a global model is held against: it learns from all series, this from one (Montero-Manso & Hyndman 2021, *Principles
and algorithms for forecasting groups of time series: locality and globality*).
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch

from toolkit.data.series.windows import Split, WindowBatches
from toolkit.models.small.linear import carried_forward

_RIDGES = (1e-3, 1e-1, 10.0)  # of the mean sum of squares of a context row; chosen on validation, by series
_WINDOWS = 2048  # of each series and split, evenly spread: neighbouring ones are nearly the same


class LocalLinear:
    """NLinear's map (Zeng et al. 2023), shared by the channels of a series, by ridge regression. A series without a
    train window repeats its last value.
    """

    inputs = ("values", "observed", "series")

    def __init__(self, windows: Mapping[Split, WindowBatches]):
        self.windows = windows

    @cached_property
    def weights(self) -> torch.Tensor:
        """float32 (series, context_length, horizon)."""
        train, validation = self.windows["train"], self.windows["validation"]
        found = []
        for number in range(len(train.data.values)):
            x, y = _differences(train, number)
            held_x, held_y = _differences(validation, number)
            gram, product = x.T @ x, x.T @ y
            size = max(float(gram.diagonal().mean()), 1e-12)
            tried = [torch.linalg.solve(gram + ridge * size * torch.eye(len(gram), dtype=gram.dtype), product)
                     for ridge in _RIDGES]
            errors = [float((held_x @ weight - held_y).square().sum()) for weight in tried]
            found.append(tried[int(np.argmin(errors))].float())
        return torch.stack(found)

    def __call__(self, values: torch.Tensor, observed: torch.Tensor | None, series: torch.Tensor) -> torch.Tensor:
        """(b, channels, context), series (b,) → (b, channels, horizon)."""
        values = carried_forward(values.float(), observed)
        last = values[..., -1:]
        with torch.autocast(values.device.type, enabled=False):
            return (values - last) @ self.weights.to(values.device)[series] + last


def _differences(windows: WindowBatches, series: int) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 (windows × channels, context) and (…, horizon), less the last value; windows with a gap in their horizon
    are left out.
    """
    span = windows.span_of(series)
    index = np.unique(np.linspace(span.start, span.stop - 1, min(_WINDOWS, len(span))).astype(int)) if span else \
        np.arange(0)
    batch = {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in windows.rows(index).items()}
    values = carried_forward(batch["values"].double(), batch.get("observed"))
    last = values[..., -1:]
    x, y = (part.flatten(0, 1) for part in (values - last, batch["future"].double() - last))
    if "future_observed" in batch:
        whole = batch["future_observed"].all(-1).flatten()
        x, y = x[whole], y[whole]
    return x, y
