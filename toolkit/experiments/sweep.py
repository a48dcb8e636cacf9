"""Settings × seeds of one pretraining."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from toolkit import config as configuration
from toolkit.errors import UserError
from toolkit.experiments.grid import Cell, Pretraining
from toolkit.experiments.results import by, summary, values
from toolkit.experiments.settings import SweepConfig
from toolkit.metrics.intervals import mean_interval, verdict
from toolkit.run.directory import read_metrics
from toolkit.run.results import Row, of_kept_model
from toolkit.tasks.causal_lm import PretrainGptConfig
from toolkit.tasks.settings import PretrainBertConfig


def name_of(changes: dict) -> str:
    """What a setting is called."""
    return ", ".join(f"{key.removeprefix('training.')} {value}" for key, value in changes.items()) or "as it is"


def default_of(settings: SweepConfig) -> str:
    """The setting that the others are held against: the one that changes nothing, or else the first."""
    return name_of({}) if {} in settings.settings else name_of(settings.settings[0])


def cells(settings: SweepConfig, pretraining: Any, pretrain: Callable) -> list[tuple[Cell, Pretraining]]:
    """Every setting on every seed; pretraining: the configuration that `pretrain` takes, from which all start."""
    if not settings.settings or settings.seeds < 1:
        raise UserError("a sweep needs at least one entry under 'settings' and seeds of at least 1.")
    base, found = configuration.to_dict(pretraining), []
    for number, changes in enumerate(settings.settings):
        name = name_of(changes)
        if name in map(name_of, settings.settings[:number]):
            raise UserError(f"settings: '{name}' is there twice. Leave one out.")
        changed = configuration.from_dict(type(pretraining), configuration.with_values(base, changes),
                                          f"{settings.pretraining} with {name}")
        for seed in range(settings.seeds):
            folder = re.sub(r"[^\w.+-]+", "-", name)
            reference = "" if name == default_of(settings) else default_of(settings)
            found.append((Cell(name, seed, f"{folder}/seed-{seed}", reference=reference),
                          Pretraining(partial(_scored, pretrain), changed)))
    return found


def _scored(pretrain: Callable, settings: Any, accelerator: Accelerator) -> dict:
    """What it reports, of the model that is kept whichever version made it."""
    result = pretrain(settings, accelerator)
    if settings.dry_run:
        return result
    return of_kept_model(result, read_metrics(Path(settings.output_dir) / "metrics.jsonl"))


def summarise(rows: list[Row], metric: str, settings: SweepConfig) -> list[dict]:
    """An entry a setting, the least loss first; with next sentences and probes where they were measured, and what is
    gained over the default in percent of its loss.
    """
    changes, fits = {name_of(changes): changes for changes in settings.settings}, by(rows, "arm")
    default, found = default_of(settings), []
    for name, own in fits.items():
        entry = {"setting": name, "changes": changes[name], **summary(values(own, metric)),
                 **{key: mean_interval(values(own, key)).as_dict() for key in ("nsp_accuracy", "probe")
                    if key in own[0].metrics}}
        if name != default:
            gain = mean_interval([100 * (1 - loss / other) for loss, other in zip(
                values(own, metric), values(fits[default], metric), strict=True)])
            entry |= {"gain_percent": gain.as_dict(), "verdict": verdict(gain, f"{name} over {default}:",
                                                                         "% of its loss")}
        found.append(entry)
    return sorted(found, key=lambda entry: entry["mean"])


def read_pretraining(path: str) -> PretrainBertConfig | PretrainGptConfig:
    """Which of the two a config is for shows in its preset, or in a key that only GPT has."""
    values = configuration.read_yaml(path)
    preset = str((values.get("model") or {}).get("preset", ""))
    is_gpt = preset.startswith("gpt") or {"block_size", "attention_within_documents"} & values.keys()
    kind = PretrainGptConfig if is_gpt else PretrainBertConfig
    return configuration.from_dict(kind, configuration.with_places(kind, values, path), path)
