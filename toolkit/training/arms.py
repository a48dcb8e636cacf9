"""Arms × seeds: every model pretrained and from a random start, beside the baselines of the same seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit.data.batches import LabelledBatches
from toolkit.errors import UserError
from toolkit.metrics.intervals import mean_interval, paired_difference, verdict
from toolkit.metrics.tabulate import table
from toolkit.models.objectives import Task
from toolkit.run.directory import Run
from toolkit.tasks.classification import MAIN_SCORE, FineTuning, FineTuningConfig, fine_tune
from toolkit.tasks.threshold import ThresholdConfig
from toolkit.training.dry_run import dry_run
from toolkit.training.impl.precision import ImplConfig


@dataclass(frozen=True)
class Arm:
    """A model to compare with itself: `make_model(pretrained=…)`, and its (train, validation, test) batches."""

    make_model: Callable[..., PreTrainedModel]
    batches: tuple[LabelledBatches, LabelledBatches, LabelledBatches]
    tokenizer: PreTrainedTokenizerBase | None = None
    task: Task = "classification"
    threshold: ThresholdConfig | None = None


def fine_tune_arms(on_seed: Callable[[int], tuple[dict[str, Arm], dict[str, float]]], seeds: int,
                   config: FineTuningConfig, impl: ImplConfig, run: Run, accelerator: Accelerator, title: str) -> dict:
    """Every model, pretrained and from a random start, on every seed, beside the baselines of that seed.

    `on_seed` gives the arms by model and the baselines' accuracies. Each fit is a run of its own under `run`; the
    first seed's pretrained models are kept. Returns what a result.json holds: `compare_arms`, and the last seed's
    test labels and predictions.
    """
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; give at least 1, and 3 or more for an interval worth having.")
    scores: dict[str, dict[str, list[float]]] = {}
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
                    run.part(f"{name}-{start}/seed-{seed}"), accelerator, seed,
                    f"{title} {number}/{2 * len(arms) * seeds}: {name} {start}, seed {seed}", arm.tokenizer,
                    start == "pretrained" and seed == 0, arm.task, arm.threshold)
                scores.setdefault(name, {}).setdefault(start, []).append(result[MAIN_SCORE[arm.task]])
                predictions[f"{name}-{start}"] = result["predictions"]
    test_labels = next(iter(arms.values())).batches[2].labels
    return {**compare_arms(scores, baselines), "test_examples": len(test_labels),
            "references": test_labels.tolist(), "predictions": predictions}


def dry_run_arms(on_seed: Callable[[int], tuple[dict[str, Arm], dict[str, float]]], seeds: int,
                 config: FineTuningConfig, impl: ImplConfig, run: Run, accelerator: Accelerator) -> None:
    """What `fine_tune_arms` would train: the first fit of each model, none of them made."""
    arms, _ = on_seed(0)
    for name, arm in arms.items():
        accelerator.print(f"\n{name}, {2 * seeds} fits, each of them:")
        task = FineTuning(arm.make_model(pretrained=True), *arm.batches[:2], config, arm.tokenizer, arm.task)
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
