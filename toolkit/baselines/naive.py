"""Forecasts that need no training: the last value, or the last season, again."""

import torch

from toolkit.models.small.linear import carried_forward


def repeat_last(values: torch.Tensor, horizon: int, observed: torch.Tensor | None = None) -> torch.Tensor:
    """(B, C, L) → (B, C, horizon): the last observed value, again and again."""
    return carried_forward(values, observed)[..., -1:].expand(*values.shape[:-1], horizon)


def seasonal_naive(values: torch.Tensor, horizon: int, season: int, observed: torch.Tensor | None = None
                   ) -> torch.Tensor:
    """(B, C, L) → (B, C, horizon): the last season, again and again. ValueError where the context is shorter."""
    if not 1 <= season <= values.shape[-1]:
        raise ValueError(f"season must be from 1 to the context's {values.shape[-1]} rows, not {season}")
    last = carried_forward(values, observed)[..., -season:]
    return last.repeat(1, 1, -(-horizon // season))[..., :horizon]
