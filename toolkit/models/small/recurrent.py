"""Series classifiers without a transformer: RNN, LSTM or GRU, in one direction or both, with or without attention.

    series (B, C, L) → steps of patch_length samples (B, T, C·P) → RNN → last states, or attention over all → logits

Importing this module registers both classes with transformers, after which
`AutoModelForSequenceClassification.from_pretrained` loads what `save_pretrained` wrote.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from toolkit.models.cross_entropy import classification_loss
from toolkit.models.small.attention_scores import SCORES, Score, attention_weights
from toolkit.models.small.recurrent_layer import CELLS, initialise_cell, new_cell, pick


class RecurrentConfig(PreTrainedConfig):
    """A recurrent classifier's shape. Labels come as `id2label`; `problem_type: regression` and one label for numbers.

    cell: rnn (Elman 1990, tanh), lstm (Hochreiter & Schmidhuber 1997, with forget gates) or gru (Cho et al. 2014).
    hidden_size: of each direction.
    attention: None for the last states alone, or how states are scored against them: additive, dot, scaled-dot,
        general, location, content, positional, or uniform, for their plain mean
        (toolkit.models.small.attention_scores).
    patch_length: samples a step. 1 is the textbook's RNN; its time grows with the number of steps.
    series_length: samples of the longest series; `location` and `positional`, which have weights for every step, need
        it, nothing else does.
    dropout: before the head.
    """

    model_type = "toolkit-recurrent"

    cell: str = "gru"
    hidden_size: int = 64
    bidirectional: bool = False
    attention: str | None = None
    num_channels: int = 1
    patch_length: int = 1
    series_length: int | None = None
    dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("hidden_size", "num_channels", "patch_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, known in (("cell", CELLS), ("attention", SCORES)):
            if getattr(self, name) not in (known if name == "cell" else (None, *known)):
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.attention and SCORES[self.attention].needs_steps and not self.series_length:
            raise ValueError(f"attention {self.attention} has weights for every step: give series_length")
        super().__post_init__(**kwargs)


class RecurrentForClassification(PreTrainedModel):
    """A recurrent series classifier, or regressor.

    Cells have one bias vector a gate and start as Keras's do (toolkit.models.small.recurrent_layer).

    All is computed in the format of its weights, fp32 whatever the run's is: rounding would add up over hundreds of
    steps.
    """

    config_class = RecurrentConfig
    main_input_name = "values"

    def __init__(self, config: RecurrentConfig):
        super().__init__(config)
        # Two networks instead of torch's bidirectional one: that needs packed sequences for padding, which took an
        # LSTM nearly five times, a GRU and an RNN about twice as long on a CPU (200 steps, 64 units each way).
        self.forwards, self.backwards = (
            new_cell(config.cell, config.num_channels * config.patch_length, config.hidden_size)
            if used else None for used in (True, config.bidirectional))
        width = (1 + config.bidirectional) * config.hidden_size
        self.score = None
        if config.attention:
            steps = config.series_length and -(-config.series_length // config.patch_length)
            self.score = SCORES[config.attention](width, steps)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(width, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.RNNBase):
            initialise_cell(module, self.config.cell)
        elif isinstance(module, Score):
            module.initialise()

    @can_return_tuple
    def forward(self, values: torch.Tensor, observed: torch.Tensor | None = None, labels: torch.Tensor | None = None
                ) -> SequenceClassifierOutput:
        """values (B, C, L) float, observed (B, C, L) true or 1 where there is a value, labels (B,) → logits
        (B, num_labels) and, given labels, the loss (`classification_loss`).

        With attention, `attentions` is a tuple of one (B, T) tensor of weights. Steps after the last observed one
        change nothing; steps before it at which nothing was observed are read as zeros and get no weight. ValueError
        for other channels than the configuration's, or a series longer than its series_length where that is given.
        """
        with torch.autocast(values.device.type, enabled=False):
            steps, seen = self._steps(values.to(self.classifier.weight.dtype), observed)
            states, ends = self._states(steps, seen)
            weights = None
            pooled = ends
            if self.score is not None:
                weights = attention_weights(self.score(states, ends[:, None]), seen)[:, 0]
                pooled = torch.einsum("bt,btd->bd", weights, states)
            logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else classification_loss(self.config, logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits, attentions=None if weights is None else (weights,))

    def _steps(self, values: torch.Tensor, observed: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, C, L) → steps (B, T, C · patch_length + 1), T = ⌈L / patch_length⌉, the last filled up with zeros and
        each ending in a 1, and at which of them anything was observed (B, T): None for all.
        """
        config: RecurrentConfig = self.config
        if values.ndim != 3 or values.shape[1] != config.num_channels:
            raise ValueError(f"expected values of shape (batch, {config.num_channels}, length), "
                             f"not {tuple(values.shape)}")
        if config.series_length and values.shape[-1] > config.series_length:
            raise ValueError(f"series of length {values.shape[-1]} are longer than series_length = "
                             f"{config.series_length}")
        seen = None
        if observed is not None:
            observed = observed.bool()
            values = values.masked_fill(~observed, 0.0)
            seen = self._cut(observed).any(-1)
            seen = torch.cat([seen[:, :1] | ~seen.any(1, keepdim=True), seen[:, 1:]], 1)  # of nothing, the first step
        return F.pad(self._cut(values), (0, 1), value=1.0), seen

    def _cut(self, values: torch.Tensor) -> torch.Tensor:
        """(B, C, L) → (B, T, C · patch_length)."""
        size = self.config.patch_length
        return F.pad(values, (0, -values.shape[-1] % size)).unfold(-1, size, size).transpose(1, 2).flatten(2)

    def _states(self, steps: torch.Tensor, seen: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """steps (B, T, features) → states (B, T, D), the directions' beside one another, and the ends (B, D): the
        states in which each direction has read everything.
        """
        place = torch.arange(steps.shape[1], device=steps.device)
        last = (torch.full_like(steps[:, 0, 0], len(place) - 1, dtype=torch.long) if seen is None
                else (seen * place).amax(1))
        states = self.forwards(steps)[0]
        ends = pick(states, last[:, None])[:, 0]
        if self.backwards is not None:
            # Each series reversed in itself; its padding stays behind it.
            order = torch.where(place <= last[:, None], last[:, None] - place, place)
            reverse = self.backwards(pick(steps, order))[0]
            states = torch.cat([states, pick(reverse, order)], -1)
            ends = torch.cat([ends, pick(reverse, last[:, None])[:, 0]], -1)
        return states, ends


AutoConfig.register(RecurrentConfig.model_type, RecurrentConfig, exist_ok=True)
AutoModelForSequenceClassification.register(RecurrentConfig, RecurrentForClassification, exist_ok=True)
