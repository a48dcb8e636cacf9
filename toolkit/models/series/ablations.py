"""Series classifiers with a part taken out, at the parameter count of the whole: is it the attention, or the rest?

    AblatedSeriesConfig(attention="identity")    a patch sees itself alone: value and output maps, no query, no key
    AblatedSeriesConfig(attention="uniform")     a patch sees the mean over the observed patches (GPT-2: so far)
    AblatedSeriesConfig(attention="mixer")       an MLP over patch positions, as MLP-Mixer's (Tolstikhin et al. 2021)
    AblatedSeriesConfig(positions=False)         nothing says where a patch stood

`at_budget` widens the feed-forward layers until the parameters that an ablation frees are back; a perceptron, too, so
that it can stand beside them.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.gpt2.modeling_gpt2 import GPT2Block
from transformers.pytorch_utils import Conv1D

from toolkit.models.families import family
from toolkit.models.series.patches import SeriesConfig, SeriesForClassification
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification

ATTENTIONS = ("full", "identity", "uniform", "mixer")


class AblatedSeriesConfig(SeriesConfig):
    """A series classifier's configuration, and what of it is taken out.

    attention: one of ATTENTIONS; see the module's head.
    positions: whether patches get the backbone's position embeddings. Without, the model has none at all.
    """

    model_type = "toolkit-series-ablated"

    attention: str = "full"
    positions: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if self.attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, not {self.attention!r}")
        super().__post_init__(**kwargs)


class AblatedBertLayer(BertLayer):
    """Computed as a BertLayer; the faster layers for CPUs leave it alone, for they know none but BERT's attention."""


class AblatedGPT2Block(GPT2Block):
    """Likewise."""


Sized = TypeVar("Sized", AblatedSeriesConfig, PerceptronConfig)


class FixedMixing(nn.Module):
    """In the place of BERT's or GPT-2's attention: its value (and GPT-2's output) maps, and weights that nobody learns.

    hidden_states (B, N, width) → (B, N, width) and the weights (B, 1, N, N).
    """

    def __init__(self, kind: str, value: nn.Module, output: nn.Module, causal: bool):
        super().__init__()
        self.kind, self.value, self.output, self.causal = kind, value, output, causal

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
                ) -> tuple[torch.Tensor, torch.Tensor]:
        batch, length, _ = hidden_states.shape
        values = self.value(hidden_states)
        if self.kind == "identity":
            weights = torch.eye(length, device=values.device, dtype=values.dtype).expand(batch, length, length)
            mixed = values
        else:
            visible = _visible(attention_mask, batch, length, self.causal, values.device).to(values.dtype)
            weights = visible / visible.sum(-1, keepdim=True).clamp(min=1)
            mixed = weights @ values
        return self.output(mixed), weights[:, None]


class PatchMixer(nn.Module):
    """In the place of attention: N values of a feature → hidden → N, for every feature alike; (B, N, width) in and out.

    It is not causal: it knows patches by their positions, all at once. `hidden` is such that it has as many parameters
    as the attention of `width` that it replaces. ValueError where no whole `hidden` comes within 2 % of that.
    """

    def __init__(self, positions: int, width: int, dropout: float):
        super().__init__()
        budget = 4 * width * (width + 1)
        hidden = round(budget / (2 * positions + 1))
        if hidden < 1 or abs(hidden * (2 * positions + 1) - budget) > 0.02 * budget:
            raise ValueError(f"no MLP over {positions} positions has {budget:,} ± 2 % parameters, as the attention of "
                             f"width {width} has. Use longer patches or a wider model.")
        self.positions = positions
        self.up = nn.Linear(positions, hidden)
        self.down = nn.Linear(hidden, positions, bias=False)  # one for all features: the norm would take it out again
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
                ) -> tuple[torch.Tensor, None]:
        batch, length, _ = hidden_states.shape
        visible = _visible(attention_mask, batch, length, False, hidden_states.device)
        observed = visible.any(1)[..., None]  # (B, N, 1): whether any patch may look at it
        by_feature = (hidden_states * observed).transpose(1, 2)
        mixed = self.down(F.gelu(self.up(F.pad(by_feature, (0, self.positions - length)))))
        return self.dropout(mixed[..., :length].transpose(1, 2)), None


def _visible(attention_mask: torch.Tensor | None, batch: int, length: int, causal: bool, device: torch.device
             ) -> torch.Tensor:
    """(B, N, N) bool, what each patch may look at, from any mask that transformers hands to an attention: none, the
    observed patches (B, N), or (B, 1, N or 1, N), bool or added to the scores.
    """
    visible = torch.ones(batch, length, length, dtype=torch.bool, device=device)
    if attention_mask is not None:
        mask = attention_mask if attention_mask.ndim == 4 else attention_mask[:, None, None].bool()
        visible = visible & (mask if mask.dtype == torch.bool else mask == 0)[:, 0]
    return visible.tril() if causal else visible


class NoPositions(nn.Module):
    """In the place of position embeddings: adds nothing."""

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros((), device=position_ids.device)  # no dimensions: it takes on the type it is added to


class AblatedSeriesForClassification(SeriesForClassification):
    """`SeriesForClassification` with the parts its configuration names replaced; saved and loaded like it.

    ValueError for pretrained weights: what is left of a trained model without its attention says nothing.
    """

    config_class = AblatedSeriesConfig

    def __init__(self, config: AblatedSeriesConfig):
        super().__init__(config)
        if config.attention != "full":
            for layer in self.backbone.get_submodule(family(config).layers):
                _ABLATED[type(layer)](layer, config)
        if not config.positions:
            self.backbone.set_submodule(family(config).positions, NoPositions())

    @classmethod
    def new(cls, config: AblatedSeriesConfig) -> "AblatedSeriesForClassification":
        """Random weights, and what positions there are start as they do in `SeriesForClassification.from_backbone`."""
        return cls._random(config) if config.positions else cls(config)

    @classmethod
    def from_backbone(cls, *args: Any, **kwargs: Any) -> "AblatedSeriesForClassification":
        raise ValueError("ablated models start from random weights: AblatedSeriesForClassification.new(config)")


def _ablate_bert(layer: BertLayer, config: AblatedSeriesConfig) -> None:
    shape = config.backbone_config
    layer.__class__ = AblatedBertLayer
    own = layer.attention
    if config.attention == "mixer":  # dropout, residual connection and norm stay in `output`
        own.self = PatchMixer(shape.max_position_embeddings, shape.hidden_size, 0.0)
        own.output.dense = nn.Identity()
    else:
        own.self = FixedMixing(config.attention, own.self.value, nn.Identity(), causal=False)


def _ablate_gpt2(layer: GPT2Block, config: AblatedSeriesConfig) -> None:
    shape = config.backbone_config
    layer.__class__ = AblatedGPT2Block
    own = layer.attn
    if config.attention == "mixer":
        layer.attn = PatchMixer(shape.max_position_embeddings, shape.hidden_size, config.dropout)
        return
    value = Conv1D(shape.hidden_size, shape.hidden_size)
    with torch.no_grad():  # of query, key and value side by side, the last
        value.weight.copy_(own.c_attn.weight[:, -shape.hidden_size:])
        value.bias.copy_(own.c_attn.bias[-shape.hidden_size:])
    layer.attn = FixedMixing(config.attention, value, nn.Sequential(own.c_proj, own.resid_dropout), causal=True)


_ABLATED = {BertLayer: _ablate_bert, GPT2Block: _ablate_gpt2}
"""Layer → what takes its attention out, in place."""


def at_budget(config: Sized, parameters: int) -> Sized:
    """A copy whose model has `parameters`, as nearly as whole widths allow: of the feed-forward layers, or of a
    perceptron's hidden layers, which then are equally wide.

    ValueError when even the narrowest has more, or the nearest is further than 2 % away.
    """
    low, high = 1, 2
    while count_parameters(_with_width(config, high)) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count_parameters(_with_width(config, middle)) < parameters else (low, middle)
    sized = min((_with_width(config, width) for width in (low, high)),
                key=lambda sized: abs(count_parameters(sized) - parameters))
    count = count_parameters(sized)
    if abs(count - parameters) > 0.02 * parameters:
        raise ValueError(f"no width gives {parameters:,} parameters ± 2 %; the nearest has {count:,}")
    return sized


def _with_width(config: Sized, width: int) -> Sized:
    config = copy.deepcopy(config)
    if isinstance(config, PerceptronConfig):
        config.hidden_sizes = [width] * len(config.hidden_sizes)
    else:
        setattr(config.backbone_config, family(config).feed_forward_size, width)
    return config


def count_parameters(config: Sized) -> int:
    """Of the model that `config` describes, without making it."""
    with torch.device("meta"):
        return (PerceptronForClassification if isinstance(config, PerceptronConfig)
                else AblatedSeriesForClassification)(config).num_parameters()


AutoConfig.register(AblatedSeriesConfig.model_type, AblatedSeriesConfig, exist_ok=True)
AutoModelForSequenceClassification.register(AblatedSeriesConfig, AblatedSeriesForClassification, exist_ok=True)
