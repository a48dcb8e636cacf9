"""The layers of a BERT or GPT-2 without its heads, from a directory or the hub: what classifiers are built around."""

import copy
import importlib
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, BertConfig, BertModel, GPT2Model, PreTrainedConfig, PreTrainedModel

from toolkit.errors import UserError
from toolkit.hub import checkpoint_directory

_DROPOUT_FIELDS = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
}


class BackboneModel(PreTrainedModel):
    """What a model around a `backbone` can do because its layers can."""

    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True


def register(model_type: str | None) -> None:
    """Make a configuration of ours, and the models it is for, known to transformers' Auto classes."""
    if str(model_type).startswith("toolkit-"):
        for module in sorted(Path(__file__).parent.rglob("*.py")):
            if f'model_type = "{model_type}"' in module.read_text(encoding="utf-8"):
                place = module.relative_to(Path(__file__).parent).with_suffix("").parts
                importlib.import_module(".".join(("toolkit.models", *place)))


def checkpoint_config(path: str | Path) -> PreTrainedConfig:
    """The configuration in a checkpoint directory, or of a model on the hub (`owner/name[@revision]`).

    Classes of ours are registered with transformers on the way. UserError when there is no checkpoint.
    """
    directory = checkpoint_directory(path)
    if not (directory / "config.json").is_file():
        raise UserError(f"{path}: no checkpoint here (config.json is missing). Give the model/ directory of a run, or "
                        f"a hub id while online.")
    try:
        values = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        register(values.get("model_type") if isinstance(values, dict) else None)
        return AutoConfig.from_pretrained(directory)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no checkpoint could be loaded ({str(error).splitlines()[0]}). Give the model/ "
                        f"directory of a run, or a hub id while online.") from None


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """The class that a checkpoint was saved from, of ours or of transformers; None when there is none of that name."""
    name = (config.architectures or [""])[0]
    if type(config).__module__.startswith("toolkit."):
        ours = [module for place, module in sorted(sys.modules.items()) if place.startswith("toolkit.models.")]
        return next((getattr(module, name) for module in ours if hasattr(module, name)), None)
    return getattr(transformers, name, None)


def is_classifier(config: PreTrainedConfig) -> bool:
    """Whether a checkpoint is what AutoModelForSequenceClassification loads, of texts or of series."""
    known = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    return type(config) in known and known[type(config)] is model_class(config)


def pretrained_config(path: str | Path) -> PreTrainedConfig:
    """The configuration of a BERT or GPT-2 to start from; UserError for a checkpoint of anything else."""
    config = checkpoint_config(path)
    if config.model_type not in _DROPOUT_FIELDS:
        raise UserError(f"{path}: is a {config.model_type}, not a BERT or GPT-2 to start from. Give the pretrained "
                        f"checkpoint, not a classifier made from it.")
    return config


def backbone_config(config: dict | PreTrainedConfig | None, dropout: float) -> PreTrainedConfig:
    """A copy of a backbone's configuration with `dropout` everywhere; ValueError when it is of another family."""
    if config is None:  # transformers builds a default configuration to see what differs from it
        config = BertConfig()
    if isinstance(config, dict):
        config = AutoConfig.for_model(**config)
    if config.model_type not in _DROPOUT_FIELDS:
        raise ValueError(f"the backbone must be one of {', '.join(_DROPOUT_FIELDS)}, not {config.model_type!r}")
    config = copy.deepcopy(config)
    config.name_or_path, config.architectures = "", None  # where it came from is no part of what it is
    config.use_cache = False  # nothing is generated
    for field in _DROPOUT_FIELDS[config.model_type]:
        setattr(config, field, dropout)
    return config


def new_backbone(config: PreTrainedConfig) -> BertModel | GPT2Model:
    """Without BERT's pooler, which reads [CLS] alone."""
    return BertModel(config, add_pooling_layer=False) if config.model_type == "bert" else GPT2Model(config)


def load_backbone(path: str | Path, model_type: str, pooler: bool = False) -> BertModel | GPT2Model:
    """The weights of a checkpoint of any BERT or GPT-2 class, in fp32; UserError when some are missing. A `pooler`
    that the checkpoint lacks is fresh.
    """
    directory = checkpoint_directory(path)
    verbosity = transformers.logging.get_verbosity()
    # Heads left behind are no news, and missing weights are raised below.
    transformers.logging.set_verbosity_error()
    try:
        options = {"dtype": torch.float32, "output_loading_info": True, "use_safetensors": True}
        if model_type == "bert":
            model, report = BertModel.from_pretrained(directory, add_pooling_layer=pooler, **options)
        else:
            model, report = GPT2Model.from_pretrained(directory, **options)
    except OSError as error:
        raise UserError(f"{path}: no weights could be loaded ({str(error).splitlines()[0]}). They are read as "
                        f"safetensors only, never out of a pickle (.bin): save them anew with save_pretrained, or on "
                        f"the hub see huggingface.co/spaces/safetensors/convert.") from None
    finally:
        transformers.logging.set_verbosity(verbosity)
    if absent := sorted(key for key in report["missing_keys"] if "pooler." not in key):
        raise UserError(f"{path}: the checkpoint lacks {len(absent)} of the backbone's weights, such as {absent[0]}. "
                        f"Give a directory written by save_pretrained.")
    return model
