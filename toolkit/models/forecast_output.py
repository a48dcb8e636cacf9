"""What every forecasting model of this package returns."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class ForecastOutput(ModelOutput):
    """A forecast of the values that follow a context.

    loss: mean squared error over every predicted value; None where no future was given.
    prediction: (batch, channels, horizon), in the units of the values the model was given.
    hidden_states, attentions: of the backbone, where there is one and they were asked for.
    """

    loss: torch.FloatTensor | None = None
    prediction: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
