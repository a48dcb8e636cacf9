"""transformers' `from_pretrained`, and the only way to it: no code that lies beside a model is run, nothing is asked,
and no pickle is read. Directories come from strangers, too; a model that needs code of its own is refused.
"""

import json
import re
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from toolkit.bars import libraries_silent
from toolkit.errors import UserError

_NO_CODE = {"trust_remote_code": False}
_CONFIG, _TOKENIZER, _INDEX = "config.json", "tokenizer_config.json", "model.safetensors.index.json"
_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")


def saved_config(directory: str | Path) -> PreTrainedConfig:
    """The configuration in a directory, of a class that transformers knows by now; UserError for one that needs code.
    What else is wrong with it is raised as transformers raises it.
    """
    _refuse_code_of_layers(Path(directory))
    return _without_code(AutoConfig, Path(directory), _CONFIG)


def saved_tokenizer(directory: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a directory; UserError for one that needs code. What else is wrong is raised as transformers
    raises it.
    """
    return _without_code(AutoTokenizer, Path(directory), _TOKENIZER)


def saved_model(loader: Any, directory: str | Path, name: str | Path = "", **options: Any) -> PreTrainedModel:
    """The model in a directory, as `loader`, a class or an Auto class, makes it; with output_loading_info=True, that
    and the report. UserError for one that needs code, and for weights that are no safetensors; `name` is what it calls
    the model, where that is another than its directory.
    """
    directory = Path(directory)
    _refuse_code_of_layers(directory)
    _check_weights(directory, str(name or directory))
    return _without_code(loader, directory, _CONFIG, use_safetensors=True, **options)


def save_model(model: PreTrainedModel, directory: str | Path) -> None:
    """As `model.save_pretrained`, without its bar."""
    with libraries_silent():
        model.save_pretrained(directory)


def _without_code(loader: Any, directory: Path, file: str, **options: Any) -> Any:
    try:
        with libraries_silent():
            return loader.from_pretrained(str(directory), **_NO_CODE, **options)
    except ValueError as error:
        if isinstance(error, UserError) or "custom code" not in str(error):
            raise
    raise UserError(f"{directory / file}: needs Python code of its own (auto_map), which is never run here; no class "
                    f"of transformers or this toolkit fits it. Use a model of such a class.")


def _refuse_code_of_layers(directory: Path) -> None:
    """An implementation of a layer may be the name of a repository, whose code would be fetched and run."""
    pending = [_values(directory / _CONFIG)]
    while pending:
        values = pending.pop()
        pending += [value for value in values.values() if isinstance(value, dict)]
        for key, value in values.items():
            if key.strip("_").removesuffix("_internal") in _IMPLEMENTATIONS and "/" in str(value):
                raise UserError(f"{directory / _CONFIG}: {key} names code of another repository, which is never run "
                                f"here. Take the line out.")


def _check_weights(directory: Path, shown: str) -> None:
    """UserError unless there are safetensors, and nothing that leads to other files."""
    if (directory / "adapter_config.json").exists():
        raise UserError(f"{directory / 'adapter_config.json'}: this is an adapter, or a model with one; adapters are "
                        f"not read. Save the model with it merged in (peft's merge_and_unload).")
    listed = _values(directory / _INDEX).get("weight_map") or {}
    for name in listed.values() if isinstance(listed, dict) else ["weight_map"]:
        if not re.fullmatch(r"[\w.-]+\.safetensors", str(name)):
            raise UserError(f"{directory / _INDEX}: must map weights to names of .safetensors files beside it, and "
                            f"names {str(name)[:80]!r}. Save or fetch the model again.")
    other = _values(directory / _CONFIG).get("transformers_weights")
    if other is not None and not re.fullmatch(r"[\w.-]+\.safetensors(\.index\.json)?", str(other)):
        raise UserError(f"{directory / _CONFIG}: transformers_weights must name a .safetensors file beside it, not "
                        f"{str(other)[:80]!r}. Take the line out.")
    if not any(directory.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt")
                         for path in directory.glob(pattern))
        found = f" {pickles[0]} is such a one." if pickles else ""
        raise UserError(f"{shown}: no weights could be loaded: they are read as safetensors only, never out of a "
                        f"pickle (.bin), which can run code.{found} Save them anew with save_pretrained, or on the hub "
                        f"see huggingface.co/spaces/safetensors/convert.")


def _values(path: Path) -> dict:
    """A JSON object; empty where there is none, or it cannot be read, of which transformers says more."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
