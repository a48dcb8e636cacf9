"""The baseline that knows nothing of time: a multilayer perceptron on the raw values of a series.

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


class PerceptronConfig(PreTrainedConfig):
    """Defaults are the MLP of Wang et al. (2017), *Time series classification from scratch with deep neural networks*,
    section II.A: three layers of 500 ReLUs, dropout 0.1 on the input, 0.2 between layers, 0.3 before the head.

    series_length: samples of the longest series; shorter ones are filled up with zeros.
    Labels come as `id2label`; `problem_type: regression` and one label for numbers.
    """

    model_type = "toolkit-perceptron"

    num_channels: int = 1
    series_length: int = 128
    hidden_sizes: list[int] | tuple[int, ...] = (500, 500, 500)
    input_dropout: float = 0.1
    hidden_dropout: float = 0.2
    head_dropout: float = 0.3

    def __post_init__(self, **kwargs: Any) -> None:
        self.hidden_sizes = list(self.hidden_sizes)
        for name, size in (("num_channels", self.num_channels), ("series_length", self.series_length),
                           *(("each of hidden_sizes", size) for size in self.hidden_sizes)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        super().__post_init__(**kwargs)


class PerceptronForClassification(PreTrainedModel):
    """values (B, C, L) → flattened → hidden layers → logits. Weights start Glorot-uniform, biases 0, as in Keras."""

    config_class = PerceptronConfig
    main_input_name = "values"

    def __init__(self, config: PerceptronConfig):
        super().__init__(config)
        sizes = [config.num_channels * config.series_length, *config.hidden_sizes]
        rates = [config.input_dropout] + [config.hidden_dropout] * len(config.hidden_sizes)
        layers: list[nn.Module] = []
        for rate, size, out in zip(rates, sizes, sizes[1:], strict=False):
            layers += [nn.Dropout(rate), nn.Linear(size, out), nn.ReLU()]
        self.hidden = nn.Sequential(*layers, nn.Dropout(config.head_dropout))
        self.classifier = nn.Linear(sizes[-1], config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)

    @can_return_tuple
    def forward(self, values: torch.Tensor, observed: torch.Tensor | None = None, labels: torch.Tensor | None = None
                ) -> SequenceClassifierOutput:
        """values (B, C, L) float, observed (B, C, L) true or 1 where there is a value (the rest is read as zeros),
        labels (B,) → logits (B, num_labels) and, given labels, the loss (`classification_loss`).
        ValueError for other channels than the configuration's, or longer series.
        """
        config: PerceptronConfig = self.config
        if values.ndim != 3 or values.shape[1] != config.num_channels or values.shape[2] > config.series_length:
            raise ValueError(f"expected values of shape (batch, {config.num_channels}, {config.series_length} or "
                             f"less), not {tuple(values.shape)}")
        if observed is not None:
            values = values.masked_fill(~observed.bool(), 0.0)
        filled = F.pad(values, (0, config.series_length - values.shape[-1]))
        logits = self.classifier(self.hidden(filled.flatten(1).to(self.classifier.weight.dtype)))
        loss = None if labels is None else classification_loss(config, logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(PerceptronConfig.model_type, PerceptronConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PerceptronConfig, PerceptronForClassification, exist_ok=True)
