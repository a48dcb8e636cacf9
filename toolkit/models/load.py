"""Checkpoints from a directory, a run or the hub: their configuration, their tokenizer, their weights."""

import math
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from toolkit.errors import UserError
from toolkit.hub import checkpoint_directory
from toolkit.models.families import FAMILIES
from toolkit.models.registry import register
from toolkit.pretrained import saved_config, saved_model
from toolkit.run.files import read_json
from toolkit.run.schema import ModelConfig
from toolkit.tokenization.load import load_tokenizer


def model_directory(name: str | Path) -> str:
    """The directory of a checkpoint: `name` itself, the model of the run that it is, or what a hub id is fetched to.

    UserError for a run without a model; where its parts have one, they are named.
    """
    path = checkpoint_directory(name)
    if (path / "config.json").is_file() or not path.is_dir():
        return str(path)
    if (path / "model/config.json").is_file():
        return str(path / "model")
    if parts := sorted(str(found.parent) for found in path.glob("*/**/model/config.json")):
        if len(parts) == 1:
            return parts[0]
        more = f" and {len(parts) - 8} more" * (len(parts) > 8)
        raise UserError(f"{name}: holds {len(parts)} models; name one: {', '.join(parts[:8])}{more}.")
    if (path / "config.yaml").is_file() or (path / "metrics.jsonl").is_file():
        raise UserError(f"{name}: this run has no model yet; its first evaluation writes one. Give its command again "
                        f"to let it go on, or name another run.")
    return str(path)


def checkpoint_config(path: str | Path) -> PreTrainedConfig:
    """The configuration in a checkpoint directory, or of a model on the hub (`owner/name[@revision]`).

    Classes of ours are registered with transformers on the way. UserError when there is no checkpoint.
    """
    register(_read_config(path).get("model_type"))
    return _known_config(path)


def pretrained_config(path: str | Path, *also: type[PreTrainedConfig]) -> PreTrainedConfig:
    """The configuration of a BERT or GPT-2 to start from, or of one of the classes `also`; UserError for others."""
    known = (*FAMILIES, *(config.model_type for config in also))
    kind = _read_config(path).get("model_type")
    if kind is None or kind in known:  # a class that is not known yet is not looked for
        config = _known_config(path)
        kind = config.model_type
    if kind not in known:
        raise UserError(f"{path}: is a {kind}, not a BERT or GPT-2 to start from. Give the pretrained checkpoint, not "
                        f"a classifier made from it.")
    return config


def _read_config(path: str | Path) -> dict[str, Any]:
    """config.json; UserError when there is none, or it is no JSON object."""
    directory = checkpoint_directory(path)
    if not (directory / "config.json").is_file():
        raise UserError(f"{path}: no checkpoint here (config.json is missing). Give the model/ directory of a run, or "
                        f"a hub id while online.")
    try:
        values = read_json(directory / "config.json", ModelConfig, remedy="")
    except UserError as error:
        raise _unloadable(path, error) from None
    return values


def _known_config(path: str | Path) -> PreTrainedConfig:
    """Of a class that transformers knows by now."""
    try:
        config = saved_config(checkpoint_directory(path))
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - of wrong types in it each class says what it likes
        raise _unloadable(path, error) from None
    for part in (config, getattr(config, "backbone_config", None)):
        _check_what_all_have(path, part)
    return config


def _check_what_all_have(path: str | Path, config: object) -> None:
    """Each class checks its own fields; those of their common base nobody does, until a layer fails at one."""
    for key, default in vars(PreTrainedConfig()).items():
        value = getattr(config, key, default)
        if isinstance(default, (bool, int)) and type(value) is not type(default):
            raise UserError(f"{path}: {key} in its config.json is {str(value)[:100]!r}, not "
                            f"{'true or false' if isinstance(default, bool) else 'a whole number'}. Fetch the model "
                            f"again.")
    if broken := [key for key, value in getattr(config, "__dict__", {}).items()
                  if isinstance(value, float) and not math.isfinite(value)]:
        raise UserError(f"{path}: {broken[0]} in its config.json is no finite number. Fetch the model again.")
    if (chunk := getattr(config, "chunk_size_feed_forward", 0)) not in (0, 1):
        raise UserError(f"{path}: chunk_size_feed_forward in its config.json is {str(chunk)[:100]}: only lengths that "
                        f"it divides could be read. Set it to 0, which computes the same.")


def _unloadable(path: str | Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return UserError(f"{path}: no checkpoint could be loaded ({reason or type(error).__name__}). Give the model/ "
                     f"directory of a run, or a hub id while online.")


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


def load_weights(loader, directory: str, name: str | Path, may_lack: tuple[str, ...] = (),
                 **options) -> PreTrainedModel:
    """`saved_model` in fp32, with UserErrors for weights that are missing, damaged or not finite. may_lack:
    how the names of those begin that are fresh where they are missing.
    """
    verbosity, shows_bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # a head left behind is no news, and what is missing is raised below
    transformers.logging.disable_progress_bar()
    try:
        model, report = saved_model(loader, directory, name, dtype=torch.float32, output_loading_info=True, **options)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - safetensors, the hub and transformers each have their own
        raise UserError(f"{name}: its weights cannot be loaded ({' '.join(str(error).split())[:200]}). Save or fetch "
                        f"the model again.") from None
    finally:
        transformers.logging.set_verbosity(verbosity)
        if shows_bars:
            transformers.logging.enable_progress_bar()
    if absent := sorted(key for key in report["missing_keys"] if not key.startswith(may_lack)):
        raise UserError(f"{name}: lacks {len(absent)} weights of a {type(model).__name__}, such as {absent[0]}. Save "
                        f"or fetch the model again.")
    for key, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise UserError(f"{name}: the weights of {key} are no finite numbers: its training went wrong. Use an "
                            f"earlier checkpoint, or train again at a lower learning rate.")
    return model


def load_backbone(path: str | Path, model_type: str, pooler: bool = False) -> PreTrainedModel:
    """The weights of a checkpoint of any BERT or GPT-2 class, in fp32; UserError when some are missing. A `pooler`
    that the checkpoint lacks is fresh.
    """
    directory = checkpoint_directory(path)
    verbosity = transformers.logging.get_verbosity()
    # Heads left behind are no news, and missing weights are raised below.
    transformers.logging.set_verbosity_error()
    try:
        known = FAMILIES[model_type]
        bare = dict.fromkeys(known.bare, True) if pooler else known.bare
        model, report = saved_model(known.model, directory, path, dtype=torch.float32, output_loading_info=True, **bare)
    except UserError:
        raise
    except (SafetensorError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{path}: its weights cannot be loaded ({' '.join(str(error).split())[:200]}). Save or fetch "
                        f"the model again.") from None
    except OSError as error:
        raise UserError(f"{path}: no weights could be loaded ({str(error).splitlines()[0]}). Save or fetch the model "
                        f"again.") from None
    finally:
        transformers.logging.set_verbosity(verbosity)
    if absent := sorted(key for key in report["missing_keys"] if "pooler." not in key):
        raise UserError(f"{path}: the checkpoint lacks {len(absent)} of the backbone's weights, such as {absent[0]}. "
                        f"Give a directory written by save_pretrained.")
    return model
