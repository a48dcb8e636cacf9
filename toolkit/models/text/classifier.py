"""Text classifiers from pretrained checkpoints: token ids → BERT or GPT-2 → pooled states → linear → logits.

Importing this module registers the class with transformers, after which
`AutoModelForSequenceClassification.from_pretrained` loads what `save_pretrained` wrote. With `pooling: cls` it is
transformers' own `…ForSequenceClassification`, which needs no import.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from toolkit.errors import UserError
from toolkit.models.backbone import (
    BackboneModel,
    backbone_config,
    checkpoint_config,
    load_backbone,
    new_backbone,
    pretrained_config,
)
from toolkit.tokenization.load import load_tokenizer

Pooling = Literal["layers", "mean", "max", "cls"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


def pooled_states(backbone: PreTrainedModel, pooling: Pooling, input_ids: torch.Tensor,
                  attention_mask: torch.Tensor | None = None, token_type_ids: torch.Tensor | None = None
                  ) -> torch.Tensor:
    """input_ids, attention_mask, token_type_ids (B, T) → one vector a text, (B, features) in fp32.

    `layers`: the means over tokens of every layer's states, embeddings included, side by side; `mean`: of the last
    layer's alone; `max`: their largest values. A text longer than the backbone has positions is read in windows of
    that many tokens, and pooled over all of them.
    """
    inside = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    extra = {}
    if token_type_ids is not None and backbone.config.model_type == "bert":
        extra["token_type_ids"] = token_type_ids
    rows, length = input_ids.shape
    positions = backbone.config.max_position_embeddings
    windows = -(-length // positions)
    text = torch.arange(rows, device=input_ids.device).repeat_interleave(windows)  # which each window belongs to
    if windows > 1:
        def cut(tokens):
            return F.pad(tokens, (0, windows * positions - length)).view(rows * windows, positions)[filled]

        filled = F.pad(inside, (0, windows * positions - length)).view(rows * windows, positions).any(1)
        input_ids, inside, extra = cut(input_ids), cut(inside), {name: cut(value) for name, value in extra.items()}
        text = text[filled]
    by_layer = pooling == "layers"
    encoded = backbone(input_ids, attention_mask=inside, output_hidden_states=by_layer, **extra)
    if pooling == "max":
        largest = encoded.last_hidden_state.float().masked_fill(inside[:, :, None] == 0, -torch.inf).amax(1)
        return largest.new_full((rows, largest.shape[1]), -torch.inf).scatter_reduce(
            0, text[:, None].expand_as(largest), largest, "amax")
    states = encoded.hidden_states if by_layer else [encoded.last_hidden_state]
    sums = torch.cat([(state.float() * inside[:, :, None]).sum(1) for state in states], -1)
    tokens = sums.new_zeros(rows).index_add(0, text, inside.sum(1).float())
    return sums.new_zeros(rows, sums.shape[1]).index_add(0, text, sums) / tokens[:, None]


class TextConfig(PreTrainedConfig):
    """A BERT or GPT-2 backbone and how its states become one vector (`pooled_states`). Labels come as `id2label`."""

    model_type = "toolkit-text"
    sub_configs: ClassVar[dict] = {"backbone_config": AutoConfig}

    backbone_config: dict | PreTrainedConfig | None = None
    pooling: str = "layers"
    dropout: float = 0.3

    def __post_init__(self, **kwargs: Any) -> None:
        if self.pooling not in ("layers", "mean", "max"):
            raise ValueError(f"pooling must be layers, mean or max, not {self.pooling!r}")
        self.backbone_config = backbone_config(self.backbone_config, dropout=0.0)
        self.pad_token_id = self.backbone_config.pad_token_id
        super().__post_init__(**kwargs)


class TextForClassification(BackboneModel):
    """A text classifier around transformers' BertModel (without pooler) or GPT2Model; dropout before the head only."""

    config_class = TextConfig

    def __init__(self, config: TextConfig):
        super().__init__(config)
        shape = config.backbone_config
        self.backbone = new_backbone(shape)
        self.dropout = nn.Dropout(config.dropout)
        layers = 1 + shape.num_hidden_layers if config.pooling == "layers" else 1
        self.classifier = nn.Linear(layers * shape.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None,
                token_type_ids: torch.Tensor | None = None, labels: torch.Tensor | None = None
                ) -> SequenceClassifierOutput:
        """input_ids, attention_mask, token_type_ids (B, T), of any length → logits (B, num_labels) and, given labels
        (B,), the loss.
        """
        pooled = pooled_states(self.backbone, self.config.pooling, input_ids, attention_mask, token_type_ids)
        logits = self.classifier(self.dropout(pooled))
        return SequenceClassifierOutput(loss=None if labels is None else F.cross_entropy(logits.float(), labels),
                                        logits=logits)


def load_checkpoint_tokenizer(path: str, longest: int | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer beside a checkpoint, checked against the model; GPT's pads with its end token.

    longest: tokens of the longest text, where texts are not read in windows.
    """
    config, tokenizer = checkpoint_config(path), load_tokenizer(path)
    config = getattr(config, "backbone_config", config)
    if len(tokenizer) > config.vocab_size:
        raise UserError(f"{path}: its tokenizer has {len(tokenizer)} tokens, its model embeds {config.vocab_size}. "
                        f"They do not belong together; use the tokenizer the model was trained with.")
    if longest and longest > config.max_position_embeddings:
        raise UserError(f"{path}: max_length is {longest}, but the model has {config.max_position_embeddings} "
                        f"positions. Lower data.max_length, or use another pooling than cls: they read windows.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def text_classifier(path: str, label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase, pretrained: bool,
                    pooling: Pooling = "layers", dropout: float = 0.3,
                    problem_type: ProblemType = "single_label_classification") -> PreTrainedModel:
    """A classifier with the checkpoint's weights and a new head, or of the same shape from random values.

    With pooling `cls`, transformers' own class: BERT's [CLS] through its pooler, GPT's last token; dropout is then
    inside the layers too. `problem_type` is transformers' word for what its pipelines make of the outputs.
    """
    labels = {"id2label": dict(enumerate(label_names)),
              "label2id": {name: index for index, name in enumerate(label_names)}, "problem_type": problem_type}
    shape = pretrained_config(path)
    if pooling == "cls":
        config = backbone_config(shape, dropout)
        config.update({**labels, "pad_token_id": tokenizer.pad_token_id})
        model = AutoModelForSequenceClassification.from_config(config)
        if pretrained:
            weights = load_backbone(path, shape.model_type, pooler=True).state_dict()
            getattr(model, model.base_model_prefix).load_state_dict(weights)
        return model
    shape.pad_token_id = tokenizer.pad_token_id
    model = TextForClassification(TextConfig(backbone_config=shape, pooling=pooling, dropout=dropout, **labels))
    if pretrained:
        model.backbone.load_state_dict(load_backbone(path, shape.model_type).state_dict())
    return model


AutoConfig.register(TextConfig.model_type, TextConfig, exist_ok=True)
AutoModelForSequenceClassification.register(TextConfig, TextForClassification, exist_ok=True)
