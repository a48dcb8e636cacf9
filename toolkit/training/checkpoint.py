"""Checkpoints: written whole or not at all, with checksums; the newest valid one is resumed, the last few are kept."""

import hashlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from toolkit.errors import UserError
from toolkit.run.files import read_json, room_for, write_directory, write_json
from toolkit.run.schema import SavedState
from toolkit.training.impl.sharding import like, whole

_FILES = {"model.safetensors", "optimizer.pt", "state.json"}
"""What a manifest lists, and nothing else."""
_STATES = {"AdamW": {"step", "exp_avg", "exp_avg_sq"}, "Muon": {"momentum_buffer"}, "WeightAverage": {"step", "mean"}}
"""Optimiser → what it keeps of a parameter, once it has made a step."""
_NEWER = ("maps",)
"""Of groups: what checkpoints of earlier versions lack."""

Snapshot = tuple[dict[str, torch.Tensor], list[dict]]


def snapshot(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> Snapshot:
    """Weights by name, each once, and the optimisers' states; whole where they are sharded. Every rank must call it."""
    weights = {name: whole(tensor).detach().cpu().contiguous() for name, tensor in _tensors(model).items()}
    return weights, [_map(whole, optimizer.state_dict()) for optimizer in optimizers]


def save(directory: Path, step: int, saved: Snapshot, state: dict, keep: int) -> Path:
    """Write `directory/step-…` (call on one rank) and remove all but the newest `keep`."""
    path = directory / _name(step)
    weights, optimizer_states = saved

    def fill(temporary: Path) -> None:
        room_for(3 * sum(tensor.nbytes for tensor in weights.values()), temporary)  # with AdamW's two moments
        save_file(weights, str(temporary / "model.safetensors"))
        with open(temporary / "optimizer.pt", "wb") as file:  # by its name, torch would not say why it cannot
            torch.save(optimizer_states, file)
        write_json(temporary / "state.json", {"step": step, **state})
        write_json(temporary / "manifest.json",
                   {file.name: _sha256(file) for file in sorted(temporary.iterdir())})

    write_directory(path, fill)
    for other in _newest_first(directory):
        if other.name > path.name:  # passed over, or this step were done
            shutil.rmtree(other)
    tidy(path, keep)
    return path


def tidy(path: Path, keep: int) -> None:
    """Remove what is older than a checkpoint, but for the newest `keep` with it, and what processes left that were
    killed while they wrote: only one run writes here.
    """
    older = [other for other in _newest_first(path.parent) if other.name < path.name]
    unfinished = [other for other in path.parent.glob(".step-*") if not other.is_symlink()]
    for other in [*older[keep - 1:], *unfinished]:
        shutil.rmtree(other)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def newest_valid(directory: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files match their checksums and whose state is one, and why newer ones were passed
    over.
    """
    passed_over = []
    for path in sorted(directory.glob("step-*"), reverse=True):
        problem = _problem(path)
        if problem is None:
            return path, passed_over
        passed_over.append(f"{path}: {problem}")
    return None, passed_over


def load(path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict:
    """Restore model and optimisers in place, sharded or not; returns the saved state (`step` and what was added)."""
    tensors = _tensors(model)
    weights, states, saved = _weights(path, tensors), _optimizer_states(path, optimizers), read_state(path)
    with torch.no_grad():  # nothing of the model is changed before all that was saved is known to fit
        for name, tensor in tensors.items():
            tensor.copy_(like(weights[name], tensor))
    for optimizer, state in zip(optimizers, states, strict=True):
        parameters = _parameters(optimizer)
        for index, values in state["state"].items():
            state["state"][index] = {key: like(value, parameters[index]) if torch.is_tensor(value) else value
                                     for key, value in values.items()}
        optimizer.load_state_dict(state)
    return saved


def read_state(path: Path) -> dict:
    """`step` and what else was saved beside the tensors."""
    try:
        saved = read_json(path / "state.json", SavedState, remedy="")
    except UserError as error:
        raise _spoiled(str(error)) from None
    if path.name != _name(saved["step"]):
        raise _spoiled(f"{path / 'state.json'}: is of step {saved['step']}.")
    if any(math.isnan(saved.get(key, 0)) or saved.get(key, 0) < 0 for key in ("tokens", "seconds", "no_better",
                                                                              "running_steps")):
        raise _spoiled(f"{path / 'state.json'}: counts what cannot be less than zero.")
    return saved


def _spoiled(what: str) -> UserError:
    return UserError(f"{what} Delete this checkpoint to go on from the one before it, or all to start over.")


def _weights(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those saved, which are of the model's names and shapes."""
    file = path / "model.safetensors"
    try:
        weights = load_file(file)
    except Exception as error:  # noqa: BLE001 - safetensors and torch each have their own
        raise _spoiled(f"{file}: cannot be read as safetensors ({_brief(error)}).") from None
    if differing := sorted(weights.keys() ^ tensors.keys()):
        raise UserError(f"{path}: is of another model; only one of the two has {differing[0]}. Delete the run's "
                        f"checkpoints to start over.")
    for name, tensor in tensors.items():
        saved = weights[name]
        if saved.shape != tensor.shape or saved.is_floating_point() != tensor.is_floating_point():
            raise UserError(f"{path}: is of another model; {name} is {_kind(saved)} there, and {_kind(tensor)} in this "
                            f"run. Delete the run's checkpoints to start over.")
    return weights


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _optimizer_states(path: Path, optimizers: list[torch.optim.Optimizer]) -> list[dict]:
    """Those saved, which are of the make-up of the run's."""
    file = path / "optimizer.pt"
    try:
        states = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - whatever pickle and zip say of junk
        raise _spoiled(f"{file}: cannot be read as the state of optimisers ({_brief(error)}).") from None
    if not (isinstance(states, list) and all(isinstance(state, dict) for state in states)):
        raise _spoiled(f"{file}: should be a list of optimisers' states.")
    if len(states) != len(optimizers):
        raise UserError(f"{path}: was saved with {len(states)} optimisers, this run has {len(optimizers)}.")
    for optimizer, state in zip(optimizers, states, strict=True):
        if problem := _misfit(optimizer, state):
            raise UserError(f"{path}: was saved by an optimiser of another make-up ({problem}). Delete the run's "
                            f"checkpoints to start over.")
    return states


def _misfit(optimizer: torch.optim.Optimizer, state: dict) -> str | None:
    """What of a saved state the optimiser could not go on with."""
    groups, entries = state.get("param_groups"), state.get("state")
    now, parameters = optimizer.state_dict()["param_groups"], _parameters(optimizer)
    if not (isinstance(groups, list) and isinstance(entries, dict)
            and all(isinstance(group, dict) for group in groups)):
        return "it has no groups and states"
    if [group.get("params") for group in groups] != [group["params"] for group in now]:
        return "its groups are of other parameters"
    for group, own in zip(groups, now, strict=True):
        for key in own:  # switches that a later torch brought are open in what an earlier one saved
            if not _alike(group.get(key, own[key] if key in _NEWER else None), own[key]):
                return f"{key} is {str(group.get(key))[:40]}"
    names = _STATES.get(type(optimizer).__name__)
    for index, values in entries.items():
        if type(index) is not int or not 0 <= index < len(parameters) or not isinstance(values, dict):
            return f"it has a state of parameter {str(index)[:40]}"
        if names and values and values.keys() != names:
            return f"the state of parameter {index} has {', '.join(map(str, values))}, not {', '.join(sorted(names))}"
        for key, value in values.items():
            if not isinstance(value, (torch.Tensor, int, float)):
                return f"{key} of parameter {index} is a {type(value).__name__}"
            if key == "step":
                fits = not torch.is_tensor(value) or value.ndim == 0
            else:
                fits = torch.is_tensor(value) and value.shape == parameters[index].shape
            if not fits:
                return f"{str(key)[:40]} of parameter {index} does not have its shape"
    return None


def _alike(saved: Any, own: Any) -> bool:
    """Whether both are switches (which may be open: None), finite numbers, as many of these, the same count, or of one
    type.
    """
    if own is None or isinstance(own, bool):
        return saved is None or isinstance(saved, bool)
    if isinstance(own, (list, tuple)):
        return isinstance(saved, (list, tuple)) and len(saved) == len(own) and all(map(_alike, saved, own))
    if isinstance(own, int):
        return type(saved) is int and saved == own
    if isinstance(own, (float, torch.Tensor)):
        if torch.is_tensor(saved):
            return saved.numel() == 1 and not saved.is_complex() and bool(torch.isfinite(saved).all())
        return type(saved) in (int, float) and abs(saved) < 1e30  # False for NaN
    return isinstance(saved, type(own))


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and what else is part of a model's state; tied ones once, by their first name."""
    kept = model.state_dict().keys()
    return {**dict(model.named_parameters()),
            **{name: buffer for name, buffer in model.named_buffers() if name in kept}}


def _map(change: Callable, value):
    """`change` of every tensor in nested dictionaries and lists."""
    if isinstance(value, dict):
        return {key: _map(change, part) for key, part in value.items()}
    if isinstance(value, list):
        return [_map(change, part) for part in value]
    return change(value) if torch.is_tensor(value) else value


def _newest_first(directory: Path) -> list[Path]:
    """Those that may be removed. Links are none of them: what they lead to is another's."""
    return sorted((path for path in directory.glob("step-*") if not path.is_symlink()), reverse=True)


def _problem(path: Path) -> str | None:
    if path.is_symlink():
        return "it is a link, and may be another run's; put the folder itself there to go on from it"
    try:
        manifest = read_json(path / "manifest.json", dict[str, str])
        if absent := _FILES - set(manifest):
            return f"its manifest.json does not list {min(absent)}"
        if others := set(manifest) - _FILES:
            return f"its manifest.json names {min(others)[:60]!r}, which is no file of a checkpoint"
        for name, checksum in manifest.items():
            if not (path / name).exists():
                return f"{name} is missing"
            if not (path / name).is_file():
                return f"{name} is no file"
            if _sha256(path / name) != checksum:
                return f"{name} does not match its checksum"
    except UserError:
        return "its manifest.json cannot be read"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    try:
        read_state(path)
    except UserError as error:
        return str(error).removeprefix(f"{path}/").split(" Delete this checkpoint")[0].rstrip(".")
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
