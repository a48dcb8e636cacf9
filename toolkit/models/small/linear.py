"""What every forecast is held against: repeat-last, seasonal naive, and the linear models NLinear and DLinear.

Zeng et al. (2023), *Are Transformers Effective for Time Series Forecasting?*: one linear map from context to horizon,
shared by all channels, was ahead of every transformer of its time. Importing this module registers both models with
transformers: `AutoModelForTimeSeriesPrediction.from_pretrained` loads what `save_pretrained` wrote.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.models.auto.modeling_auto import AutoModelForTimeSeriesPrediction

from toolkit.models.covariates import effect_of, without_effect
from toolkit.models.forecast_output import ForecastOutput


class NLinearConfig(PreTrainedConfig):
    """context_length, horizon: rows read and rows forecast.

    num_covariates: features that are known ahead; only their effect is a channel's own, and asks for num_channels.
    """

    model_type = "toolkit-nlinear"

    context_length: int = 336
    horizon: int = 96
    num_covariates: int = 0
    num_channels: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("context_length", "horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        super().__post_init__(**kwargs)


class DLinearConfig(NLinearConfig):
    """moving_average: rows, an odd number, whose mean is the trend; 25 in the paper."""

    model_type = "toolkit-dlinear"

    moving_average: int = 25

    def __post_init__(self, **kwargs: Any) -> None:
        if self.moving_average < 1 or not self.moving_average % 2:
            raise ValueError(f"moving_average must be odd and at least 1, not {self.moving_average}")
        super().__post_init__(**kwargs)


class _LinearForecaster(PreTrainedModel):
    """A subclass implements `predict`."""

    main_input_name = "values"

    def __init__(self, config: NLinearConfig):
        super().__init__(config)
        self.effect = effect_of(config)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):  # torch's own, as the paper's code leaves it
            bound = 1 / math.sqrt(module.in_features)
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)

    def predict(self, values: torch.Tensor) -> torch.Tensor:
        """(B, C, context_length) → (B, C, horizon)"""
        raise NotImplementedError

    def forward(self, values: torch.Tensor, observed: torch.Tensor | None = None, future: torch.Tensor | None = None,
                covariates: torch.Tensor | None = None, return_dict: bool | None = None, **kwargs: Any
                ) -> ForecastOutput | tuple:
        """values (B, C, context_length) float, observed of the same shape → prediction (B, C, horizon) and, given
        future (B, C, horizon), the loss: its mean squared error. covariates (B, num_covariates, context_length +
        horizon): of a model that has some.

        Values that were not observed are replaced by the last one before that was.
        """
        if values.ndim != 3 or values.shape[-1] != self.config.context_length:
            raise ValueError(f"expected values of shape (batch, channels, {self.config.context_length}), not "
                             f"{tuple(values.shape)}")
        # The work is small; in bf16 the 336 products of a forecast would be rounded to 3 digits.
        with torch.autocast(values.device.type, enabled=False):
            values, ahead = without_effect(self.effect, values.to(self.dtype), covariates, self.config.horizon)
            prediction = (self.predict(carried_forward(values, observed)) + ahead).float()
            loss = None if future is None else F.mse_loss(prediction, future.float())
        output = ForecastOutput(loss=loss, prediction=prediction)
        return output.to_tuple() if return_dict is False else output


class NLinear(_LinearForecaster):
    """The last value is subtracted, and added to the forecast: a change of level between train and test is no matter.

    (context_length + 1) · horizon parameters, whatever the number of channels.
    """

    config_class = NLinearConfig

    def __init__(self, config: NLinearConfig):
        super().__init__(config)
        self.linear = nn.Linear(config.context_length, config.horizon)
        self.post_init()

    def predict(self, values: torch.Tensor) -> torch.Tensor:
        last = values[..., -1:]
        return self.linear(values - last) + last


class DLinear(_LinearForecaster):
    """Trend, a centred moving average over ends that are repeated, and what is left: a linear map each, added up."""

    config_class = DLinearConfig

    def __init__(self, config: DLinearConfig):
        super().__init__(config)
        self.trend = nn.Linear(config.context_length, config.horizon)
        self.remainder = nn.Linear(config.context_length, config.horizon)
        self.post_init()

    def predict(self, values: torch.Tensor) -> torch.Tensor:
        # trend(A x) + remainder(x − A x) is one linear map. Averaging the weights in place of every series takes a
        # third of the time of a step of 256 windows.
        average = moving_average(self.config.context_length, self.config.moving_average, values.device).to(values.dtype)
        weight = self.remainder.weight + (self.trend.weight - self.remainder.weight) @ average
        return F.linear(values, weight, self.trend.bias + self.remainder.bias)


def moving_average(length: int, width: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """(length, length) matrix A: A x is the mean of `width` values around each of x, its first and last repeated."""
    places = torch.arange(length, device=device)[:, None] + torch.arange(-(width // 2), width // 2 + 1, device=device)
    places = places.clamp(0, length - 1)
    matrix = torch.zeros(length, length, device=device)
    return matrix.scatter_add_(1, places, torch.full(places.shape, 1 / width, device=device))


def carried_forward(values: torch.Tensor, observed: torch.Tensor | None) -> torch.Tensor:
    """Values, those not observed replaced by the last observed before them, else by the first one after; 0 where the
    channel has none.
    """
    if observed is None:
        return values
    seen = observed.bool()
    place = torch.where(seen, torch.arange(values.shape[-1], device=values.device), -1).cummax(-1).values
    first = seen.int().argmax(-1, keepdim=True)  # 0 where none was seen
    filled = values.gather(-1, torch.where(place < 0, first, place))
    return torch.where(seen.any(-1, keepdim=True), filled, 0)


for _config, _model in ((NLinearConfig, NLinear), (DLinearConfig, DLinear)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForTimeSeriesPrediction.register(_config, _model, exist_ok=True)
