"""Models × seeds: each pretrained and from a random start, beside the baselines of the same seed."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit.data.batches import LabelledBatches
from toolkit.errors import UserError
from toolkit.experiments.grid import Cell, Classifying, Grid
from toolkit.experiments.results import by, cell, summary, values
from toolkit.metrics.intervals import paired_difference, verdict
from toolkit.metrics.tabulate import on_screen, table
from toolkit.models.losses import Task
from toolkit.run.directory import Run
from toolkit.run.results import Verdict
from toolkit.tasks.classification import MAIN_SCORE, FineTuningConfig
from toolkit.tasks.threshold import ThresholdConfig
from toolkit.training.impl.precision import ImplConfig


@dataclass(frozen=True)
class Arm:
    """A model to compare with itself: `make_model(pretrained=…)`, and its (train, validation, test) batches."""

    make_model: Callable[..., PreTrainedModel]
    batches: tuple[LabelledBatches, LabelledBatches, LabelledBatches]
    tokenizer: PreTrainedTokenizerBase | None = None
    task: Task = "classification"
    threshold: ThresholdConfig | None = None


OnSeed = Callable[[int], tuple[dict[str, Arm], dict[str, float]]]
"""seed → the arms by model, and the baselines' scores."""


def fine_tune_arms(on_seed: OnSeed, seeds: int, config: FineTuningConfig, impl: ImplConfig, run: Run,
                   accelerator: Accelerator, title: str) -> dict:
    """Every model, pretrained and from a random start, on every seed, beside the baselines of that seed.

    Each fit is a run of its own under `run`; the first seed's pretrained models are kept. Returns what a result.json
    holds: `compare_arms`, the last seed's test labels and predictions, and of classes `confusion`: arm → [true class,
    predicted class, how often on all seeds together].
    """
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; give at least 1, and 3 or more for an interval worth having.")
    grid, baselines, predictions, confusion = Grid(title, run, accelerator), {}, {}, {}
    for seed in range(seeds):
        arms, references = on_seed(seed)
        for name, score in references.items():
            baselines.setdefault(name, []).append(score)
        for name, arm in arms.items():
            grid.metric = MAIN_SCORE[arm.task]
            for start in ("pretrained", "random"):
                place, training = _fit(name, arm, start, seed, config, impl)
                predictions[f"{name}-{start}"] = answers = grid.fit(place, training)["predictions"]
                if arm.task == "classification":
                    confusion.setdefault(f"{name}-{start}", Counter()).update(
                        zip(arm.batches[2].labels.tolist(), answers, strict=True))
    scores = {name: {start: values(fits, grid.metric) for start, fits in by_start.items()}
              for name, by_start in by(grid.rows, "model", "start").items()}
    for name, of_seeds in baselines.items():
        for seed, score in enumerate(of_seeds):
            grid.note(Cell(name, seed), {grid.metric: score})
    compared = compare_arms(scores, baselines)
    grid.write([Verdict(f"{name}, pretrained", f"{name}: {compared[name]['verdict']}") for name in scores])
    test_labels = next(iter(arms.values())).batches[2].labels
    return {**compared, "test_examples": len(test_labels), "references": test_labels.tolist(),
            "predictions": predictions, "confusion": {
                name: [[*pair, count] for pair, count in sorted(counts.items())] for name, counts in confusion.items()}}


def dry_run_arms(on_seed: OnSeed, seeds: int, config: FineTuningConfig, impl: ImplConfig, run: Run,
                 accelerator: Accelerator) -> None:
    """What `fine_tune_arms` would train and has not yet: the first such fit of each arm, none of them made."""
    grid = Grid("", run, accelerator, dry_run=True)
    arms, _ = on_seed(0)
    for name, arm in arms.items():
        for start in ("pretrained", "random"):
            for seed in range(seeds):
                grid.fit(*_fit(name, arm, start, seed, config, impl))
    grid.tell()


def _fit(name: str, arm: Arm, start: str, seed: int, config: FineTuningConfig, impl: ImplConfig
         ) -> tuple[Cell, Classifying]:
    reference = f"{name}, random" if start == "pretrained" else ""
    place = Cell(f"{name}, {start}", seed, f"{name}-{start}/seed-{seed}", model=name, start=start, reference=reference)
    return place, Classifying(partial(arm.make_model, pretrained=start == "pretrained"), arm.batches, config, impl,
                              arm.tokenizer, start == "pretrained" and seed == 0, arm.task, arm.threshold)


def compare_arms(result: dict[str, dict[str, list[float]]], baselines: dict[str, list[float]]) -> dict:
    """Accuracies by model → arm → seeds, and by baseline → seeds, as what a result.json holds.

    Each model gets `pretrained` and `random` with their intervals, their paired difference and a verdict on it.
    """
    found: dict = {}
    for model, arms in result.items():
        gain = paired_difference([100 * value for value in arms["pretrained"]],
                                 [100 * value for value in arms["random"]])
        found[model] = {arm: summary(of_seeds) for arm, of_seeds in arms.items()}
        found[model] |= {"gain_points": gain.as_dict(), "verdict": verdict(gain)}
    return found | {name: summary(of_seeds) for name, of_seeds in baselines.items()}


def arms_table(compared: dict, models: Sequence[str], markdown: bool = False) -> str:
    """The rows of `compare_arms`, best read beside each other: accuracy in percent with its interval over seeds; then
    a verdict a line, in Markdown a column of them.
    """
    rows = [{"model": model, "pretrained": cell(compared[model]["pretrained"]), "random start":
             cell(compared[model]["random"]), "verdict": compared[model]["verdict"]} for model in models]
    rows += [{"model": name, "baseline": cell(entry)} for name, entry in compared.items()
             if isinstance(entry, dict) and "mean" in entry]
    columns = ["model", "pretrained", "random start", "baseline"]
    if markdown:
        return table(rows, [*columns, "verdict"], markdown)
    return "\n".join([on_screen(rows, columns), *(f"{model}: {compared[model]['verdict']}" for model in models)])
