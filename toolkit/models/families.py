"""The architectures that models are built around, and all that differs between them: one `Family` each.

    family(model.config).is_causal

Everything else reads what it needs from here, so that another architecture is another entry in `FAMILIES`. How texts
are padded and pairs are joined is no part of it: that the tokenizer says (`toolkit.data.text.batches`).
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedConfig, PreTrainedModel
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from toolkit.errors import UserError


@dataclass(frozen=True)
class Family:
    """One architecture. Paths are dotted: within the bare model, or within one of its layers where that is said."""

    title: str
    """As people call it."""
    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    """The layers without a head."""
    layer: type[nn.Module]
    """One layer: attention and feed-forward."""
    layers: str
    """Path of the list of layers."""
    attention: str
    """Path in a layer: what returns the attention's weights (B, heads, queries, keys) second."""
    branches: tuple[tuple[str, str, str], ...]
    """Of a layer: what a branch is called, and the paths in the layer of what adds it to the stream and of what reads
    that stream."""
    projections: tuple[str, ...]
    """Paths in the attention: query, key and value; or the one map that gives all three side by side."""
    weights_are_inputs_first: bool
    """Whether a map's weight is (inputs, outputs), as Conv1D's, and not (outputs, inputs), as nn.Linear's."""
    lora_targets: tuple[str, ...]
    """Maps that get low-rank changes: query and value (Hu et al. 2021, section 4.2)."""
    embeddings: tuple[str, ...]
    """How the names of embeddings' parameters begin."""
    positions: str
    """Path of the learned position embeddings."""
    norms: tuple[str, ...]
    """What norms are called."""
    feed_forward_size: str
    """Field of the configuration: width of the feed-forward layers."""
    dropouts: tuple[str, ...]
    """Fields of the configuration: every dropout rate."""
    is_causal: bool
    """Whether a position reads itself and those before it alone."""
    has_segments: bool
    """Whether `token_type_ids` tell the two texts of a pair apart."""
    bare: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that make `model` without what reads a single token, as BERT's pooler does."""

    @property
    def model_type(self) -> str:
        return self.config.model_type

    def query_and_key(self, layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of two of a layer's weights, each (outputs, inputs)."""
        attention = layer.get_submodule(self.attention)
        maps = [attention.get_submodule(path).weight for path in self.projections]
        if self.weights_are_inputs_first:
            maps = [weight.T for weight in maps]
        query, key, _ = maps[0].chunk(3) if len(maps) == 1 else maps
        return query, key

    def is_norm_or_position(self, parameter: str) -> bool:
        """Whether a parameter of the bare model, given by name, is of a norm or of the position embeddings."""
        return parameter.startswith(f"{self.positions}.") or any(part in self.norms for part in parameter.split("."))


FAMILIES: dict[str, Family] = {known.model_type: known for known in (
    Family(
        title="BERT", config=BertConfig, model=BertModel, layer=BertLayer, layers="encoder.layer",
        attention="attention.self",
        branches=(("attention", "attention.output.dense", "attention"),
                  ("feed-forward", "output.dense", "intermediate")),
        projections=("query", "key", "value"), weights_are_inputs_first=False, lora_targets=("query", "value"),
        embeddings=("embeddings.",), positions="embeddings.position_embeddings", norms=("LayerNorm",),
        feed_forward_size="intermediate_size", dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
        is_causal=False, has_segments=True, bare={"add_pooling_layer": False}),
    Family(
        title="GPT", config=GPT2Config, model=GPT2Model, layer=GPT2Block, layers="h", attention="attn",
        branches=(("attention", "attn", "ln_1"), ("feed-forward", "mlp", "ln_2")),
        projections=("c_attn",), weights_are_inputs_first=True, lora_targets=("c_attn",),
        embeddings=("wte.", "wpe."), positions="wpe", norms=("ln_1", "ln_2", "ln_f"),
        feed_forward_size="n_inner", dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        is_causal=True, has_segments=False),
)}
"""transformers' `model_type` → the family."""

LAYERS = tuple(known.layer for known in FAMILIES.values())
_LISTS = "|".join(known.layers.rpartition(".")[2] for known in FAMILIES.values())
_LAYER_NUMBER = re.compile(rf"\.(?:{_LISTS}|(?:encoder|decoder)\.layers)\.(\d+)\.")  # the latter: Marian's
_EMBEDDINGS = tuple(f".{start}" for known in FAMILIES.values() for start in known.embeddings)
_JOINT = tuple(f".{known.projections[0]}." for known in FAMILIES.values() if len(known.projections) == 1)


def family(config: PreTrainedConfig) -> Family:
    """The family of a model's configuration, or of what lies inside it as `backbone_config`; UserError for others."""
    config = getattr(config, "backbone_config", None) or config
    if config.model_type not in FAMILIES:
        raise UserError(f"the model is a {config.model_type}; expected one of {', '.join(FAMILIES)}, or a model around "
                        f"one. Use such a model.")
    return FAMILIES[config.model_type]


def layer_number(parameter: str) -> int | None:
    """The layer that a parameter of any family is in, by its full name, counted from 0; None outside of layers."""
    found = _LAYER_NUMBER.search(parameter)
    return int(found[1]) if found else None


def is_embedding(parameter: str) -> bool:
    """Whether a parameter, by its full name, is of the embeddings below the layers."""
    return any(part in f".{parameter}" for part in _EMBEDDINGS)


def maps_side_by_side(parameter: str) -> int:
    """How many linear maps a parameter holds: 3 where queries, keys and values are one matrix, 2 where keys and values
    of another model's states are, else 1.
    """
    if not any(part in parameter for part in _JOINT):
        return 1
    return 2 if ".crossattention." in parameter else 3


class BackboneModel(PreTrainedModel):
    """What a model around a `backbone` can do because its layers can."""

    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over its batch: transformers' Trainer has to weigh batches itself
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True


def backbone_config(config: dict | PreTrainedConfig | None, dropout: float) -> PreTrainedConfig:
    """A copy of a backbone's configuration with `dropout` everywhere; ValueError when it is of no family."""
    if config is None:  # transformers builds a default configuration to see what differs from it
        config = BertConfig()
    if isinstance(config, dict):
        config = AutoConfig.for_model(**config)
    if config.model_type not in FAMILIES:
        raise ValueError(f"the backbone must be one of {', '.join(FAMILIES)}, not {config.model_type!r}")
    config = copy.deepcopy(config)
    config.name_or_path, config.architectures = "", None  # where it came from is no part of what it is
    config.use_cache = False  # nothing is generated
    for name in family(config).dropouts:
        setattr(config, name, dropout)
    return config


def new_backbone(config: PreTrainedConfig) -> PreTrainedModel:
    """The family's bare model with random weights."""
    known = family(config)
    return known.model(config, **known.bare)
