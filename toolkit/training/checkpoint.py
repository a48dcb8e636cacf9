"""Checkpoints: written whole or not at all, with checksums; the newest valid one is resumed, the last few are kept."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from toolkit.errors import UserError
from toolkit.run.files import read_json, room_for, write_directory, write_json
from toolkit.training.impl.sharding import like, whole

Snapshot = tuple[dict[str, torch.Tensor], list[dict]]


def snapshot(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> Snapshot:
    """Weights by name, each once, and the optimisers' states; whole where they are sharded. Every rank must call it."""
    weights = {name: whole(tensor).detach().cpu().contiguous() for name, tensor in _tensors(model).items()}
    return weights, [_map(whole, optimizer.state_dict()) for optimizer in optimizers]


def save(directory: Path, step: int, saved: Snapshot, state: dict, keep: int) -> Path:
    """Write `directory/step-…` (call on one rank) and remove all but the newest `keep`."""
    path = directory / f"step-{step:08d}"
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
    older = [other for other in _newest_first(directory) if other.name < path.name]
    passed_over = [other for other in _newest_first(directory) if other.name > path.name]  # or this step were done
    # Of processes killed while writing; only one run writes here.
    unfinished = [path for path in directory.glob(".step-*") if not path.is_symlink()]
    for other in [*older[keep - 1:], *passed_over, *unfinished]:
        shutil.rmtree(other)
    return path


def newest_valid(directory: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files match their checksums, and why newer ones were passed over."""
    passed_over = []
    for path in _newest_first(directory):
        problem = _problem(path)
        if problem is None:
            return path, passed_over
        passed_over.append(f"{path}: {problem}")
    return None, passed_over


def load(path: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict:
    """Restore model and optimisers in place, sharded or not; returns the saved state (`step` and what was added)."""
    weights = load_file(path / "model.safetensors")
    tensors = _tensors(model)
    if differing := sorted(weights.keys() ^ tensors.keys()):
        raise UserError(f"{path}: is of another model; only one of the two has {differing[0]}. Delete the run's "
                        f"checkpoints to start over.")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(like(weights[name], tensor))
    states = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    if len(states) != len(optimizers):
        raise UserError(f"{path}: was saved with {len(states)} optimisers, this run has {len(optimizers)}.")
    for optimizer, state in zip(optimizers, states, strict=True):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, values in state["state"].items():
            if index < len(parameters):
                state["state"][index] = {key: like(value, parameters[index]) if torch.is_tensor(value) else value
                                         for key, value in values.items()}
        try:
            optimizer.load_state_dict(state)
        except ValueError as error:
            raise UserError(f"{path}: was saved by an optimiser of another make-up ({error}). Delete the run's "
                            f"checkpoints to start over.") from None
    return read_state(path)


def read_state(path: Path) -> dict:
    """`step` and what else was saved beside the tensors."""
    return read_json(path / "state.json")


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
    """Links are none of them: what they lead to is another's."""
    return sorted((path for path in directory.glob("step-*") if not path.is_symlink()), reverse=True)


def _problem(path: Path) -> str | None:
    try:
        manifest = read_json(path / "manifest.json")
        if absent := {"model.safetensors", "optimizer.pt", "state.json"} - set(manifest):
            return f"its manifest.json does not list {min(absent)}"
        for name, checksum in manifest.items():
            if not (path / name).exists():
                return f"{name} is missing"
            if not (path / name).is_file():
                return f"{name} is no file"
            if _sha256(path / name) != checksum:
                return f"{name} does not match its checksum"
    except (UserError, AttributeError, TypeError):
        return "its manifest.json cannot be read"
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
