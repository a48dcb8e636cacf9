"""Classification as a task of the loop, for texts and for series alike."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit import metrics
from toolkit.compare import mean_interval, paired_difference, table, verdict
from toolkit.errors import UserError
from toolkit.run import Run
from toolkit.training.distributed import share
from toolkit.training.dry_run import dry_run
from toolkit.training.loop import TrainingConfig, as_tensors, seed_everything, to_device, train
from toolkit.training.precision import ImplConfig, Precision, choose


@dataclass
class FineTuningConfig(TrainingConfig):
    max_steps: int | None = 300
    """The budget in optimiser steps, however many labels there are. For another kind of budget set this to null."""
    weight_decay: float = 0.05
    warmup_ratio: float = 0.1
    eval_steps: int = 30
    """Evaluate every so many steps, and keep the model with the best validation accuracy; 0: only at the end."""
    save_steps: int = 0
    """Checkpoint every so many steps; 0: only when interrupted."""


class LabelledBatches(Protocol):
    """Examples of known class: `TextBatches` and `SeriesBatches`."""

    labels: np.ndarray

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]: ...

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]: ...


class Classification:
    """Cross-entropy on `train`; evaluated, and the best model chosen, on `validation`. The test set is not in here."""

    best_metric = "error"  # a few examples answered wrongly with confidence move the loss, and say little

    def __init__(self, model: PreTrainedModel, train: LabelledBatches, validation: LabelledBatches,
                 eval_batch: int = 64, tokenizer: PreTrainedTokenizerBase | None = None):
        self.model, self.validation, self.eval_batch, self.tokenizer = model, validation, eval_batch, tokenizer
        self.batch = train.batch

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        return {"classification": len(batch["labels"])}

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return {"classification": F.cross_entropy(model(**inputs).logits.float(), batch["labels"], reduction="sum")}

    def evaluate(self, model: PreTrainedModel, accelerator: Accelerator, precision: Precision) -> dict[str, float]:
        logits = predict(model, self.validation, accelerator, precision, self.eval_batch)
        loss = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(self.validation.labels))
        scores = score(logits.argmax(1), self.validation.labels)
        return {"loss": float(loss), "error": 1 - scores["accuracy"], **scores}

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        model.save_pretrained(directory)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(directory)


def predict(model: PreTrainedModel, data: LabelledBatches, accelerator: Accelerator, precision: Precision,
            batch_size: int = 64) -> np.ndarray:
    """(n, classes) float32 logits of every example, once each and in order, on every rank."""
    return for_all(lambda **batch: model(**batch).logits, model, data, accelerator, precision, batch_size)


def for_all(compute: Callable[..., torch.Tensor], model: PreTrainedModel, data: LabelledBatches,
            accelerator: Accelerator, precision: Precision, batch_size: int = 64) -> np.ndarray:
    """(n, …) float32 `compute(**inputs)` of every example, once each and in order, on every rank."""
    mine = share(len(data.labels), accelerator.process_index, accelerator.num_processes)
    training = model.training
    model.eval()
    parts = []
    with torch.inference_mode(), precision.autocast(), precision.uncompiled():
        for start in range(mine.start, mine.stop, batch_size):
            rows = data.rows(np.arange(start, min(start + batch_size, mine.stop)))
            batch = to_device(as_tensors(rows), accelerator.device)
            inputs = {key: value for key, value in batch.items() if key != "labels"}
            parts.append(compute(**inputs).float().cpu().numpy())
    model.train(training)
    return np.concatenate(gather_object(parts) if accelerator.num_processes > 1 else parts)


def score(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Accuracy and macro F1."""
    return {**metrics.load("accuracy").compute(predictions=predictions, references=references),
            **metrics.load("f1").compute(predictions=predictions, references=references, average="macro")}


def fine_tune(make_model: Callable[[], PreTrainedModel], train_data: LabelledBatches, validation: LabelledBatches,
              test: LabelledBatches, config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator,
              seed: int, name: str, tokenizer: PreTrainedTokenizerBase | None = None, keep_model: bool = False) -> dict:
    """One arm on one seed: train, take the model that was best on validation, and touch the test set once.

    Returns, and leaves in the run's result.json, the test scores and predictions; a finished run is not repeated.
    """
    if run.result():
        return run.result()
    seed_everything(seed)
    task = Classification(make_model(), train_data, validation, tokenizer=tokenizer)
    metrics_on_validation = train(task, config, impl, run, accelerator, seed, name)
    accelerator.wait_for_everyone()
    best = type(task.model).from_pretrained(run.model_dir).to(accelerator.device)
    precision = choose(impl, accelerator.device)
    precision.prepare(best)
    logits = predict(best, test, accelerator, precision)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and not keep_model:
        shutil.rmtree(run.model_dir)
    return run.finish({**score(logits.argmax(1), test.labels), "predictions": logits.argmax(1).tolist(),
                       "validation": metrics_on_validation})


@dataclass(frozen=True)
class Arm:
    """A model to compare with itself: `make_model(pretrained=…)`, and its (train, validation, test) batches."""

    make_model: Callable[..., PreTrainedModel]
    batches: tuple[LabelledBatches, LabelledBatches, LabelledBatches]
    tokenizer: PreTrainedTokenizerBase | None = None


def fine_tune_arms(on_seed: Callable[[int], tuple[dict[str, Arm], dict[str, float]]], seeds: int,
                   config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator, title: str) -> dict:
    """Every model, pretrained and from a random start, on every seed, beside the baselines of that seed.

    `on_seed` gives the arms by model and the baselines' accuracies. Each fit is a run of its own under `run`; the
    first seed's pretrained models are kept. Returns what a result.json holds: `compare_arms`, and the last seed's
    test labels and predictions.
    """
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; give at least 1, and 3 or more for an interval worth having.")
    accuracies: dict[str, dict[str, list[float]]] = {}
    baselines: dict[str, list[float]] = {}
    predictions, number = {}, 0
    for seed in range(seeds):
        arms, references = on_seed(seed)
        for name, accuracy in references.items():
            baselines.setdefault(name, []).append(accuracy)
        for name, arm in arms.items():
            for start in ("pretrained", "random"):
                number += 1
                result = fine_tune(
                    partial(arm.make_model, pretrained=start == "pretrained"), *arm.batches, config, impl,
                    Run(run.directory / f"{name}-{start}/seed-{seed}", accelerator.is_main_process), accelerator, seed,
                    f"{title} {number}/{2 * len(arms) * seeds}: {name} {start}, seed {seed}", arm.tokenizer,
                    keep_model=start == "pretrained" and seed == 0)
                accuracies.setdefault(name, {}).setdefault(start, []).append(result["accuracy"])
                predictions[f"{name}-{start}"] = result["predictions"]
    test_labels = next(iter(arms.values())).batches[2].labels
    return {**compare_arms(accuracies, baselines), "test_examples": len(test_labels),
            "references": test_labels.tolist(), "predictions": predictions}


def dry_run_arms(on_seed: Callable[[int], tuple[dict[str, Arm], dict[str, float]]], seeds: int,
                 config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator) -> None:
    """What `fine_tune_arms` would train: the first fit of each model, none of them made."""
    arms, _ = on_seed(0)
    for name, arm in arms.items():
        accelerator.print(f"\n{name}, {2 * seeds} fits, each of them:")
        task = Classification(arm.make_model(pretrained=True), *arm.batches[:2], tokenizer=arm.tokenizer)
        dry_run(task, config, impl, run, accelerator)


def compare_arms(result: dict[str, dict[str, list[float]]], baselines: dict[str, list[float]]) -> dict:
    """Accuracies by model → arm → seeds, and by baseline → seeds, as what a result.json holds.

    Each model gets `pretrained` and `random` with their intervals, their paired difference and a verdict on it.
    """
    summary: dict = {}
    for model, arms in result.items():
        gain = paired_difference([100 * value for value in arms["pretrained"]],
                                 [100 * value for value in arms["random"]])
        summary[model] = {arm: {**mean_interval(values).as_dict(), "values": values} for arm, values in arms.items()}
        summary[model]["gain_points"] = gain.as_dict()
        summary[model]["verdict"] = verdict(gain)
    for name, values in baselines.items():
        summary[name] = {**mean_interval(values).as_dict(), "values": values}
    return summary


def arms_table(summary: dict, models: Sequence[str], markdown: bool = False) -> str:
    """The rows of `compare_arms`, best read beside each other: accuracy in percent with its interval over seeds."""
    def cell(entry: dict) -> str:
        spread = "" if not entry["ci95"] else f" ± {100 * entry['ci95']:.1f}"
        return f"{100 * entry['mean']:.1f}{spread}"

    rows = [{"model": model, "pretrained": cell(summary[model]["pretrained"]), "random start":
             cell(summary[model]["random"]), "verdict": summary[model]["verdict"]} for model in models]
    rows += [{"model": name, "accuracy": cell(entry)} for name, entry in summary.items()
             if isinstance(entry, dict) and "mean" in entry]
    return table(rows, ["model", "pretrained", "random start", "accuracy", "verdict"], markdown)
