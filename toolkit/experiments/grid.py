"""Arms × sets × sizes × seeds: each cell is a run of its own within the experiment's, and what is finished is kept.

    grid = Grid("etth1", run, accelerator, metric="mse", sizes="horizon", dry_run=settings.dry_run)
    for cell, training in …:
        grid.fit(cell, training)            # a dry run notes what would be trained
    if settings.dry_run:
        return grid.tell()                  # and tells it here
    grid.rows                               # one a fit
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit.data.batches import LabelledBatches
from toolkit.data.series.windows import Split, WindowBatches
from toolkit.models.losses import Task
from toolkit.run.directory import Run
from toolkit.run.results import Results, Row, Sizes, Verdict, write_results
from toolkit.tasks.classification import FineTuning, FineTuningConfig, class_scores, fine_tune
from toolkit.tasks.forecasting import ForecastConfig, ForecastingTask, fit_forecaster
from toolkit.tasks.threshold import ThresholdConfig
from toolkit.training.dry_run import dry_run
from toolkit.training.impl.precision import ImplConfig

_NOT_METRICS = ("parameters", "trained_parameters", "seconds", "steps", "best_step", "test_windows",
                "validation_windows", "test_examples")


@dataclass(frozen=True)
class Cell:
    """Where a fit belongs; the fields are those of `toolkit.run.results.Row`."""

    arm: str
    seed: int = 0
    run: str = ""
    """The folder of its run within the experiment's."""
    set: str = ""
    size: str = ""
    model: str = ""
    start: str = ""
    reference: str = ""


class Fit(Protocol):
    """What is trained in a cell."""

    def __call__(self, run: Run, accelerator: Accelerator, seed: int, title: str) -> dict:
        """Train and test, or give what the finished run reported."""
        ...

    def tell(self, run: Run, accelerator: Accelerator) -> None:
        """Print what would be trained; write nothing."""
        ...


@dataclass(frozen=True)
class Classifying:
    """A classifier, or a model of whatever kind of label: `fine_tune`."""

    make_model: Callable[[], PreTrainedModel]
    batches: tuple[LabelledBatches, LabelledBatches, LabelledBatches]
    """Train, validation, test."""
    config: FineTuningConfig
    impl: ImplConfig
    tokenizer: PreTrainedTokenizerBase | None = None
    keep_model: bool = False
    task: Task = "classification"
    threshold: ThresholdConfig | None = None

    def __call__(self, run: Run, accelerator: Accelerator, seed: int, title: str) -> dict:
        return fine_tune(self.make_model, *self.batches, self.config, self.impl, run, accelerator, seed, title,
                         self.tokenizer, self.keep_model, self.task, self.threshold)

    def tell(self, run: Run, accelerator: Accelerator) -> None:
        learning = FineTuning(self.make_model(), *self.batches[:2], self.config, self.tokenizer, self.task)
        dry_run(learning, self.config, self.impl, run, accelerator)


@dataclass(frozen=True)
class Forecasting:
    """A forecaster: `fit_forecaster`."""

    make_model: Callable[[], PreTrainedModel]
    windows: Mapping[Split, WindowBatches]
    config: ForecastConfig
    impl: ImplConfig
    keep_model: bool = False

    def __call__(self, run: Run, accelerator: Accelerator, seed: int, title: str) -> dict:
        return fit_forecaster(self.make_model, self.windows, self.config, self.impl, run, accelerator, seed, title,
                              self.keep_model)

    def tell(self, run: Run, accelerator: Accelerator) -> None:
        learning = ForecastingTask(self.make_model(), self.windows["train"], self.windows["validation"])
        dry_run(learning, self.config, self.impl, run, accelerator)


@dataclass(frozen=True)
class Pretraining:
    """A pretraining recipe's function, for one configuration."""

    pretrain: Callable[[Any, Accelerator], dict]
    settings: Any
    """With output_dir, seed and dry_run."""

    def __call__(self, run: Run, accelerator: Accelerator, seed: int, title: str) -> dict:
        return self.pretrain(dataclasses.replace(self.settings, output_dir=str(run.directory), seed=seed), accelerator)

    def tell(self, run: Run, accelerator: Accelerator) -> None:
        self.pretrain(dataclasses.replace(self.settings, output_dir=str(run.directory), dry_run=True), accelerator)


@dataclass
class Grid:
    """The cells of an experiment, in the run that it is."""

    experiment: str
    run: Run
    accelerator: Accelerator
    metric: str = "accuracy"
    """By which arms are compared."""
    sizes: Sizes = ""
    """What a cell's size is a number of."""
    dry_run: bool = False
    """Nothing is trained, measured or written."""
    rows: list[Row] = field(default_factory=list)
    pending: dict[str, list[tuple[Cell, Fit]]] = field(default_factory=dict)
    """Of a dry run: arm → its fits that are not finished."""

    def fit(self, cell: Cell, fit: Fit, labels: np.ndarray | None = None, **more: Any) -> dict | None:
        """Train the cell, unless it is finished, and note its row; None in a dry run.

        labels (test examples,): then accuracy is counted from the fit's predictions. more: as of `note`.
        """
        run = self.run.part(cell.run)
        if self.dry_run:
            if run.result() is None:
                self.pending.setdefault(self.title(cell), []).append((cell, fit))
            return None
        result = fit(run, self.accelerator, cell.seed, f"{self.title(cell)}, seed {cell.seed}")
        self.note(cell, result, None if labels is None else np.asarray(result["predictions"]) == labels, **more)
        return result

    def measure(self, cell: Cell, measure: Callable[[], dict], right_of: np.ndarray | None = None) -> dict | None:
        """Note what needs no training; None in a dry run. right_of: labels (test examples,), as in `fit`."""
        if self.dry_run:
            return None
        result = measure()
        self.note(cell, result, None if right_of is None else np.asarray(result["predictions"]) == right_of)
        return result

    def note(self, cell: Cell, result: dict, right: np.ndarray | None = None, **more: Any) -> None:
        """A row for what a fit reported; right (test examples,) bool, of which accuracy is the mean; more: fields of
        the row, in place of the result's.
        """
        metrics = {key: value for key, value in result.items() if key not in _NOT_METRICS
                   and (value is None or isinstance(value, (int, float)) and not isinstance(value, bool))}
        if right is not None:
            metrics["accuracy"] = float(right.mean())
        known = {key: result[key] for key in ("parameters", "trained_parameters", "by_length") if key in result}
        known["seconds"] = result.get("seconds", (result.get("validation") or {}).get("seconds"))
        known["test_examples"] = result.get("test_windows", result.get("test_examples")) or len(
            result.get("predictions", ())) or None
        self.rows.append(Row(self.experiment, metrics=metrics, right=right, **vars(cell), **{**known, **more}))

    def title(self, cell: Cell) -> str:
        size = f"{cell.size} labels" if self.sizes == "labels" else f"{self.sizes} {cell.size}"
        return ", ".join(filter(None, [cell.set, cell.arm, size if cell.size else ""]))

    def tell(self) -> None:
        """What a dry run found left to train, arm by arm; UserError where one of them cannot be."""
        for title, cells in self.pending.items():
            cell, fit = cells[0]
            self.accelerator.print(f"\n{title}, {len(cells)} fits, each of them:")
            fit.tell(self.run.part(cell.run), self.accelerator)
        if not self.pending:
            self.accelerator.print(f"{self.run.directory}: every fit is finished; the same command without --dry_run "
                                   f"writes the tables anew")

    def write(self, verdicts: list[Verdict] | None = None) -> None:
        """The rows as the run's `rows.json`."""
        if self.run.is_main:
            write_results(self.run.directory, Results(self.experiment, self.metric, self.rows, verdicts or [],
                                                      self.sizes))


def classified(run: Run, predict: Callable[[], np.ndarray], labels: np.ndarray) -> dict:
    """Scores and answers of a classifier that our loop does not train, kept in a run of their own once computed."""
    if run.result():
        return run.result()
    predictions = predict()
    return run.finish({**class_scores(predictions, labels), "predictions": predictions.tolist()})
