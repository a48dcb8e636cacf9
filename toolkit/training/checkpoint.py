"""Checkpoints: written whole or not at all, with checksums; the newest valid one is resumed, the last few are kept."""

import hashlib
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model

from toolkit.errors import UserError
from toolkit.run import read_json, write_directory, write_json


def save(directory: Path, step: int, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], state: dict,
         keep: int) -> Path:
    """Write `directory/step-…` (call on one rank) and remove all but the newest `keep`."""
    path = directory / f"step-{step:08d}"

    def fill(temporary: Path) -> None:
        save_model(model, str(temporary / "model.safetensors"))
        torch.save([optimizer.state_dict() for optimizer in optimizers], temporary / "optimizer.pt")
        write_json(temporary / "state.json", {"step": step, **state})
        write_json(temporary / "manifest.json",
                   {file.name: _sha256(file) for file in sorted(temporary.iterdir())})

    write_directory(path, fill)
    older = [other for other in _newest_first(directory) if other.name < path.name]
    passed_over = [other for other in _newest_first(directory) if other.name > path.name]  # or this step were done
    unfinished = directory.glob(".step-*")  # of processes killed while writing; only one run writes here
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
    """Restore model and optimisers in place; returns the saved state (`step` and whatever the loop added)."""
    load_model(model, str(path / "model.safetensors"))
    states = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    if len(states) != len(optimizers):
        raise UserError(f"{path}: was saved with {len(states)} optimisers, this run has {len(optimizers)}.")
    for optimizer, state in zip(optimizers, states, strict=True):
        try:
            optimizer.load_state_dict(state)
        except ValueError as error:
            raise UserError(f"{path}: was saved by an optimiser of another make-up ({error}). Delete the run's "
                            f"checkpoints to start over.") from None
    return read_json(path / "state.json")


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*"), reverse=True) if directory.exists() else []


def _problem(path: Path) -> str | None:
    try:
        manifest = read_json(path / "manifest.json")
        if absent := {"model.safetensors", "optimizer.pt", "state.json"} - set(manifest):
            return f"its manifest.json does not list {min(absent)}"
        for name, checksum in manifest.items():
            if not (path / name).exists():
                return f"{name} is missing"
            if _sha256(path / name) != checksum:
                return f"{name} does not match its checksum"
    except (UserError, AttributeError, TypeError):
        return "its manifest.json cannot be read"
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
