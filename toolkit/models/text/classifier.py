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
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from toolkit.models.cross_entropy import classification_loss
from toolkit.models.families import BackboneModel, backbone_config, family, new_backbone
from toolkit.models.load import load_backbone, pretrained_config
from toolkit.models.settings import Pooling

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


def pooled_states(backbone: PreTrainedModel, pooling: Pooling, input_ids: torch.Tensor,
                  attention_mask: torch.Tensor | None = None, token_type_ids: torch.Tensor | None = None
                  ) -> torch.Tensor:
    """input_ids, attention_mask, token_type_ids (B, T) → one vector a text, (B, features) in fp32.

    `layers`: the means over tokens of every layer's states, embeddings included, side by side; `mean`: of the last
    layer's alone; `max`: their largest values. A text longer than the backbone has positions is read in windows of
    that many tokens, and pooled over all of them.
    """
    return _read(backbone, pooling, {"input_ids": input_ids}, attention_mask, token_type_ids)[0]


def _read(backbone: PreTrainedModel, pooling: Pooling, tokens: dict[str, torch.Tensor],
          attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None, **asked: Any
          ) -> tuple[torch.Tensor, BaseModelOutput]:
    """Pooled states, and what the backbone gave: of windows, (W, positions, …), where texts are longer than that.

    tokens: `input_ids` (B, T) or `inputs_embeds` (B, T, width), by that name.
    """
    value = next(iter(tokens.values()))
    rows, length = value.shape[:2]
    inside = torch.ones(rows, length, dtype=torch.long, device=value.device) if attention_mask is None \
        else _never_nothing(attention_mask)
    if token_type_ids is not None and family(backbone.config).has_segments:
        tokens["token_type_ids"] = token_type_ids
    positions = backbone.config.max_position_embeddings
    seen = inside
    text = None  # which text each window belongs to; None where every text has as many
    if length > positions:
        windows = (length + positions - 1) // positions

        def windowed(tensor):
            padding = (0, 0) * (tensor.ndim - 2) + (0, windows * positions - length)
            return F.pad(tensor, padding).view(rows * windows, positions, *tensor.shape[2:])

        inside, tokens = windowed(inside), {key: windowed(kept) for key, kept in tokens.items()}
        filled = inside.any(1)
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # a graph chooses no rows: all windows are read
            seen = torch.where(filled[:, None], inside, torch.ones_like(inside))
        else:
            text = torch.arange(rows, device=value.device).repeat_interleave(windows)[filled]
            inside, tokens = inside[filled], {key: kept[filled] for key, kept in tokens.items()}
            seen = inside
    by_layer = pooling == "layers"
    asked["output_hidden_states"] = by_layer or asked.get("output_hidden_states")
    encoded = backbone(**tokens, attention_mask=seen, **asked)
    if pooling == "max":
        largest = encoded.last_hidden_state.float().masked_fill(inside[:, :, None] == 0, -torch.inf).amax(1)
        if text is None:
            return largest.view(rows, -1, largest.shape[1]).amax(1), encoded
        return largest.new_full((rows, largest.shape[1]), -torch.inf).scatter_reduce(
            0, text[:, None].expand_as(largest), largest, "amax"), encoded
    states = encoded.hidden_states if by_layer else [encoded.last_hidden_state]
    sums = torch.cat([(state.float() * inside[:, :, None]).sum(1) for state in states], -1)
    counts = inside.sum(1).float()
    if text is None:
        counts, sums = counts.view(rows, -1).sum(1), sums.view(rows, -1, sums.shape[1]).sum(1)
    else:
        counts = sums.new_zeros(rows).index_add(0, text, counts)
        sums = sums.new_zeros(rows, sums.shape[1]).index_add(0, text, sums)
    return sums / counts[:, None], encoded


def _never_nothing(attention_mask: torch.Tensor) -> torch.Tensor:
    """Of a text without a token its first padding is read, for nothing has no mean."""
    first = torch.arange(attention_mask.shape[1], device=attention_mask.device) == 0
    empty = attention_mask.sum(1, keepdim=True) == 0
    return torch.where(empty & first, torch.ones_like(attention_mask), attention_mask)


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

    @property
    def hidden_size(self) -> int:
        return self.backbone_config.hidden_size


class TextForClassification(BackboneModel):
    """A text classifier around transformers' BertModel (without pooler) or GPT2Model; dropout before the head only.

    For low-rank adapters name the backbone's maps, for `peft` knows them only for models of transformers':
    `LoraConfig(target_modules=list(family(model.config).lora_targets), modules_to_save=["classifier"])`, with `family`
    of toolkit.models.families. They are query and value of BERT, c_attn of GPT-2.
    """

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
    def forward(self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None,
                token_type_ids: torch.Tensor | None = None, labels: torch.Tensor | None = None,
                inputs_embeds: torch.Tensor | None = None, output_hidden_states: bool | None = None, **kwargs: Any
                ) -> SequenceClassifierOutput:
        """input_ids, attention_mask, token_type_ids (B, T), of any length → logits (B, num_labels) and, given labels,
        the loss (`classification_loss`). inputs_embeds (B, T, width): in place of input_ids.

        Further arguments, such as output_attentions, go to the backbone. Its hidden states and attentions are those of
        the texts or, where T is more than it has positions, of their windows of that many tokens, text by text.
        ValueError unless one of input_ids and inputs_embeds is given.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if input_ids is not None and not input_ids.shape[1]:  # what a tokenizer without [CLS] makes of an empty text
            input_ids = input_ids.new_full((len(input_ids), 1), self.config.pad_token_id, dtype=torch.long)
            attention_mask = token_type_ids = None
        tokens = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        pooled, encoded = _read(self.backbone, self.config.pooling, tokens, attention_mask, token_type_ids,
                                output_hidden_states=output_hidden_states, **kwargs)
        logits = self.classifier(self.dropout(pooled).to(self.classifier.weight.dtype))
        loss = None if labels is None else classification_loss(self.config, logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits, attentions=encoded.attentions,
                                        hidden_states=encoded.hidden_states if output_hidden_states else None)


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
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
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
