"""Runs found again: which there are, in what state, with which figures.

Everything is read from the run directories (`toolkit.run.directory`); nothing is written into them, or asked of a
process.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from toolkit import config as configuration
from toolkit.errors import UserError
from toolkit.run.binary import tensor_shapes
from toolkit.run.directory import read_metrics
from toolkit.run.files import LOCK_FILE, read_json
from toolkit.run.results import Results, kept_evaluation, of_kept_model, read_results, result_file
from toolkit.run.schema import Manifest
from toolkit.views import View, Viewed, shown

STATES = ("finished", "running", "unfinished", "damaged")

_KINDS = (  # a key that, of those left, only this kind of configuration has
    ("masking", "BERT pretraining"), ("train_share", "character GPT"), ("block_size", "GPT pretraining"),
    ("horizons", "forecasting"), ("keras_seeds", "FordA lab"), ("archive", "series comparison"),
    ("numbers", "Fibonacci"), ("quick", "transfer"), ("arms", "comparison"), ("methods", "word vectors"),
    ("patch_length", "series fine-tuning"), ("models", "text fine-tuning"))
_FIGURES = ("loss", "mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy", "accuracy", "perplexity", "bits_per_byte",
            "f1", "r2", "mse", "mae")


@dataclass(frozen=True, repr=False)
class RunFacts(Viewed):
    """What a run directory says of itself."""

    directory: Path
    name: str
    """Its path below the folder that was listed."""
    kind: str
    state: str
    """One of STATES."""
    problem: str = ""
    """What is damaged."""
    config: dict = field(default_factory=dict)
    manifest: dict = field(default_factory=dict)
    metrics: list[dict] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    """Of the finished run, or of the best evaluation so far; of an experiment, the means of its arms."""
    measured: Results | None = None
    """Of an experiment: what it measured."""
    changed: float = 0.0
    """Seconds since 1970."""
    size: int = 0
    """Bytes on disk, with its checkpoints."""

    @property
    def metric(self) -> str:
        """Of an experiment: what the figures of its arms are."""
        return self.measured.metric if self.measured else ""

    @property
    def steps(self) -> int | None:
        return max((record["step"] for record in self.metrics if "step" in record), default=None)

    def _shown(self) -> View:
        said = [self.kind, self.state, *(f"{name} {shown(value)}" for name, value in list(self.figures.items())[:3])]
        return View(f"{self.name}: {', '.join(said)}", {"problem": self.problem} if self.problem else {})


def find_runs(root: str | Path) -> list[RunFacts]:
    """Every directory below `root` that holds a config.yaml, the one that changed last first; UserError for none."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such directory. Runs lie where their output_dir says, most often below runs/.")
    found = []
    for folder, inside, files in os.walk(root):
        inside[:] = sorted(name for name in inside if name not in ("checkpoints", "model", "data", "hub-staging"))
        if "config.yaml" in files:
            found.append(read_run(folder, str(Path(folder).relative_to(root))))
    if not found:
        raise UserError(f"{root}: holds no runs (directories with a config.yaml). Start one: make pretrain-bert "
                        f"CONFIG=recipes/configs/bert-5min.yaml.")
    return sorted(found, key=lambda run: -run.changed)


def read_run(directory: str | Path, name: str = "") -> RunFacts:
    """One run, damaged or not; UserError where there is none."""
    directory = Path(directory)
    if not any((directory / file).is_file() for file in ("config.yaml", "metrics.jsonl", "result.json")):
        raise UserError(f"{directory}: is no run (it has no config.yaml, metrics.jsonl or result.json). make runs "
                        f"lists those there are.")
    problems: list[str] = []

    def read(reader: Callable[[Path], dict], path: Path | None) -> dict:
        if path is None or not path.is_file():
            return {}
        try:
            return reader(path)
        except UserError as error:
            problems.append(f"{path.name} cannot be read: {_reason(error, path)}")
            return {}

    values = read(configuration.read_yaml, directory / "config.yaml")
    manifest = read(lambda path: read_json(path, Manifest, remedy=""), directory / "manifest.json")
    result = read(lambda path: read_json(path, dict, remedy=""), result_file(directory))
    measured = None
    try:
        measured = read_results(directory) if not problems else None
    except UserError as error:
        problems.append(str(error).removeprefix(f"{directory}/"))
    metrics = read_metrics(directory / "metrics.jsonl")
    problems += [problem for problem in (_damage_of_metrics(directory / "metrics.jsonl", len(metrics)),
                                         _damage_of_weights(directory / "model/model.safetensors")) if problem]
    figures = (_means(measured) if measured else {}) | _figures(of_kept_model(result, metrics)) or _so_far(metrics)
    if not all(math.isfinite(value) for value in figures.values()):
        problems.append("its figures are no finite numbers")
    files = [path.stat() for path in directory.rglob("*") if path.is_file()]
    state = ("damaged" if problems else "finished" if result or measured else
             "running" if _is_locked(directory / LOCK_FILE) else "unfinished")
    kind = next((kind for key, kind in _KINDS if key in values), "other")
    if isinstance(values.get("model"), dict) and values["model"].get("preset"):
        kind += f", {values['model']['preset']}"
    return RunFacts(directory, name or str(directory), kind, state, "; ".join(problems), values, manifest, metrics,
                    figures, measured, max((each.st_mtime for each in files), default=0.0),
                    sum(each.st_size for each in files))


def _reason(error: UserError, path: Path) -> str:
    """Of a file that cannot be read, without its path, which stands there already."""
    return str(error).removeprefix(f"{path}: ")


def _means(results: Results) -> dict[str, float]:
    """Of each arm the mean over seeds of what it is compared by; at the most labels only."""
    arms = results.arms()
    if results.sizes == "labels":
        most = {name: size for name, size, _ in arms}  # the last of each set
        arms = {key: rows for key, rows in arms.items() if key[1] == most[key[0]]}
    several = len({name for name, _, _ in arms}) > 1
    means = {}
    for (name, size, arm), rows in arms.items():
        values = [value for row in rows if (value := row.metrics.get(results.metric)) is not None]
        if values:
            label = [name if several else "", size if results.sizes == "horizon" else "", arm]
            means[" ".join(filter(None, label))] = float(np.mean(values))
    return means


def _figures(result: dict) -> dict[str, float]:
    """The numbers of a result, those that runs are judged by first: scores and losses."""
    numbers = {name: value for name, value in result.items()
               if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "steps"}
    return {name: numbers[name] for name in _FIGURES if name in numbers} | numbers


def _so_far(metrics: Sequence[dict]) -> dict[str, float]:
    """What the kept model's evaluation gave; before the first one, the last training loss."""
    if kept := kept_evaluation(metrics):
        return _figures({("best_step" if name == "step" else name): value for name, value in kept.items()})
    losses = [record["loss"] for record in metrics if isinstance(record.get("loss"), (int, float))]
    return {"training loss": losses[-1]} if losses else {}


def _damage_of_metrics(path: Path, readable: int) -> str:
    """A last line may be cut short by a crash; lines after a broken one are lost to every reader."""
    if not path.is_file():
        return ""
    lines = path.read_bytes().rstrip(b"\n").count(b"\n") + 1 if path.stat().st_size else 0
    return f"metrics.jsonl, line {readable + 1} is broken" if lines > readable + 1 else ""


def _damage_of_weights(path: Path) -> str:
    """Whether a safetensors file is as long as its header says."""
    try:
        if path.is_file():
            tensor_shapes(path)
    except UserError as error:
        return f"{path.name} {_reason(error, path).removesuffix('. Fetch or save it again.')}"
    return ""


def _is_locked(path: Path) -> bool:
    """Whether a process holds the run's lock. Linux lists them; to try the lock would give back one's own."""
    locks = Path("/proc/locks")
    if not path.is_file() or not locks.is_file():
        return False
    return any(line.split()[5].endswith(f":{path.stat().st_ino}") for line in locks.read_text().splitlines()
               if "->" not in line)


def _shown(value: object) -> str:
    if value is None or isinstance(value, str):
        text = value or ""
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        text = str(value)
    else:
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text if len(text) <= 80 else text[:77] + "…"


