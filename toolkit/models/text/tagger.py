"""A tag a word on a BERT or GPT-2: transformers' own classes, with a checkpoint's weights or random ones."""

from collections.abc import Sequence

from transformers import AutoModelForTokenClassification, PreTrainedModel, PreTrainedTokenizerBase

from toolkit.models.families import backbone_config
from toolkit.models.load import load_backbone, pretrained_config


def token_classifier(path: str, tags: Sequence[str], tokenizer: PreTrainedTokenizerBase, pretrained: bool,
                     dropout: float = 0.1) -> PreTrainedModel:
    """`BertForTokenClassification` or `GPT2ForTokenClassification` with the checkpoint's weights and a new head, or of
    the same shape from random values. dropout: in the layers and before the head.
    """
    shape = pretrained_config(path)
    config = backbone_config(shape, dropout)
    config.update({"id2label": dict(enumerate(tags)), "label2id": {tag: number for number, tag in enumerate(tags)},
                   "pad_token_id": tokenizer.pad_token_id, "classifier_dropout": dropout})
    model = AutoModelForTokenClassification.from_config(config, trust_remote_code=False)
    if pretrained:
        model.base_model.load_state_dict(load_backbone(path, shape.model_type).state_dict())
    return model
