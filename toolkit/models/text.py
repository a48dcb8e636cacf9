"""Text classifiers from pretrained checkpoints: transformers' own `…ForSequenceClassification`."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from toolkit.errors import UserError
from toolkit.tokenization import load_tokenizer


def load_checkpoint_tokenizer(path: str, max_length: int) -> PreTrainedTokenizerBase:
    """The tokenizer beside a checkpoint, checked against the model; GPT's pads with its end token."""
    # Checked first: transformers would take a mistyped path for a hub id and go looking.
    if not (Path(path) / "config.json").is_file() and (Path(path).exists() or path.count("/") != 1):
        raise UserError(f"{path}: no checkpoint here (config.json is missing). Give the model/ directory of a run, or "
                        f"a hub id while online.")
    tokenizer, config = load_tokenizer(path), AutoConfig.from_pretrained(path)
    if len(tokenizer) > config.vocab_size:
        raise UserError(f"{path}: its tokenizer has {len(tokenizer)} tokens, its model embeds {config.vocab_size}. "
                        f"They do not belong together; use the tokenizer the model was trained with.")
    if max_length > config.max_position_embeddings:
        raise UserError(f"{path}: max_length is {max_length}, but the model has {config.max_position_embeddings} "
                        f"positions. Lower max_length.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def text_classifier(path: str, label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase, pretrained: bool,
                    dropout: float = 0.1) -> PreTrainedModel:
    """A classifier with the checkpoint's weights and a new head, or of the same shape from random values."""
    fields = ("hidden_dropout_prob", "attention_probs_dropout_prob", "resid_pdrop", "embd_pdrop", "attn_pdrop")
    config = AutoConfig.from_pretrained(path)
    for field in fields:
        if hasattr(config, field):
            setattr(config, field, dropout)
    config.pad_token_id = tokenizer.pad_token_id
    config.use_cache = False  # nothing is generated
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    if not pretrained:
        return AutoModelForSequenceClassification.from_config(config)
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # the heads left behind are no news; missing weights are checked below
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(path, config=config, dtype=torch.float32,
                                                                           output_loading_info=True)
    finally:
        transformers.logging.set_verbosity(verbosity)
    absent = sorted(key for key in report["missing_keys"] if not key.startswith(("classifier", "score", "bert.pooler")))
    if absent:
        raise UserError(f"{path}: the checkpoint lacks {len(absent)} of the model's weights, such as {absent[0]}. "
                        f"Give a directory written by save_pretrained.")
    return model
