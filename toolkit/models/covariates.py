"""What is known ahead, in forecasters: its effect is taken from the context, and added to the forecast."""

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig

_RIDGE = 1e-3  # of a feature's own sum of squares: hours of a day add up to one, and no unique weights would be found


class CovariateEffect(nn.Module):
    """Regression with errors that are forecast (Hyndman & Athanasopoulos 2021, *Forecasting: principles and practice*,
    chapter 10): each channel is a weighted sum of the covariates, and a series that the model forecasts.
    """

    def __init__(self, features: int, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, features))

    def forward(self, covariates: torch.Tensor) -> torch.Tensor:
        """(B, features, L) → what they add to each channel, (B, C, L)."""
        with torch.autocast(covariates.device.type, enabled=False):
            return torch.einsum("cf,bft->bct", self.weight, covariates.to(self.weight.dtype))

    @torch.no_grad()
    def start_from(self, weight: np.ndarray) -> None:
        """weight (channels, features), such as `least_squares` gives."""
        self.weight.copy_(torch.from_numpy(weight))


def effect_of(config: PreTrainedConfig) -> CovariateEffect | None:
    """Of a forecaster's configuration; None where nothing is known ahead."""
    return CovariateEffect(config.num_covariates, config.num_channels) if config.num_covariates else None


def without_effect(effect: CovariateEffect | None, values: torch.Tensor, covariates: torch.Tensor | None, horizon: int
                   ) -> tuple[torch.Tensor, torch.Tensor | int]:
    """values (B, C, L), covariates (B, features, L + horizon) → values without their effect, and what they add to the
    horizon (B, C, horizon). ValueError for covariates of another shape, or none.
    """
    if effect is None:
        return values, 0
    expected = (effect.weight.shape[1], values.shape[-1] + horizon)
    if covariates is None or covariates.shape[1:] != expected:
        raise ValueError(f"expected covariates of shape (batch, {expected[0]}, {expected[1]}), not "
                         f"{None if covariates is None else tuple(covariates.shape)}")
    added = effect(covariates)
    return values - added[..., :-horizon], added[..., -horizon:]


def least_squares(values: list[np.ndarray], covariates: list[np.ndarray]) -> np.ndarray:
    """Of series (channels, rows) on covariates (features, rows), both as steps from row to row, which a change of level
    does not mislead → float32 (channels, features).
    """
    y = np.concatenate([np.diff(part.astype(np.float64)) for part in values], 1)
    x = np.concatenate([np.diff(part.astype(np.float64)) for part in covariates], 1)
    gram = x @ x.T
    gram[np.diag_indices_from(gram)] += _RIDGE * (gram.diagonal().mean() + 1e-12)
    return np.linalg.solve(gram, x @ y.T).T.astype(np.float32)
