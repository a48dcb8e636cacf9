"""The lecture's lab: the next Fibonacci number from the 20 before it, by an RNN of 2 units with and without attention.

    make fibonacci

11 and 33 parameters, beside what says what they are worth: the same RNN with the plain mean of its states in place of
attention, least squares on the 20 values, which solves the task, and repeating the last value.

F(1200) has 251 digits, beyond float32, so the series is ln F(n), scaled so that the part for training fills [0, 1]. It
is cut in time: the first 60 % for training, then 10 % to choose the best model, then 30 % for testing; no window
crosses a cut.
"""

import math
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import numpy as np
import torch

from toolkit import cli, config
from toolkit.data import counter
from toolkit.data.series.generators import fibonacci as fibonacci_numbers
from toolkit.errors import UserError
from toolkit.metrics.intervals import Interval, mean_interval, paired_difference, verdict
from toolkit.metrics.tabulate import table
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification
from toolkit.publishing.card import LiveCard
from toolkit.report.plots import COLOURS, INK, SOFT, save_figure
from toolkit.run.directory import Run
from toolkit.tasks.base import for_all
from toolkit.tasks.classification import FineTuningConfig, fine_tune
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, choose

ARMS = {"rnn": None, "rnn-attention": "positional", "rnn-mean": "uniform"}
"""Name → how the RNN's states are pooled: the last, the tutorial's attention layer, the mean of all."""
WHY_LINEAR = """\
x[t] = x[t-1] + x[t-2] is linear, and so it is in logarithms: they grow by ever the same step, x[t] = 2 x[t-1] - x[t-2].
Least squares on the values of a window solves the task. No network is needed for it, let alone attention; what is
compared here is by how much networks that cannot be linear miss it."""


@dataclass
class FibonacciConfig:
    output_dir: str = "runs/fibonacci"
    numbers: int = 1200
    """Length of the series, as in the lecture."""
    window: int = 20
    """Values the next one is told from."""
    training: FineTuningConfig = field(default_factory=lambda: FineTuningConfig(
        max_steps=1000, batch_size=64, learning_rate=3e-2, weight_decay=0.0, logging_steps=100, eval_steps=50))
    """Of the rates 0.01, 0.03 and 0.1, 0.03 was best on validation for each model."""
    seeds: int = 5
    impl: ImplConfig = field(default_factory=lambda: ImplConfig(dtype="fp32"))


class Windows:
    """Every `window` values in a row of a series (length,), with the value that follows as their label."""

    def __init__(self, series: np.ndarray, window: int, batch_size: int, seed: int):
        cut = np.lib.stride_tricks.sliding_window_view(series, window + 1)
        self.values, self.labels, self.batch_size, self.seed = cut[:, :-1], cut[:, -1].copy(), batch_size, seed

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        return self.rows(counter.epoch_order(self.seed, index, len(self.labels))[1])

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return {"values": self.values[index][:, None].astype(np.float32),
                "labels": self.labels[index].astype(np.float32)}


def split_series(settings: FibonacciConfig) -> list[np.ndarray]:
    """Training, validation and test, one after the other, on the scale on which training fills [0, 1]; float64."""
    ends = [round(0.6 * settings.numbers), round(0.7 * settings.numbers)]
    if settings.window < 1 or min(ends[1] - ends[0], settings.numbers - ends[1]) <= settings.window:
        raise UserError(f"window is {settings.window}; of {settings.numbers} numbers the {ends[1] - ends[0]} for "
                        f"validation must be more than a window, and a window at least 1. Give more numbers.")
    series = fibonacci_numbers(settings.numbers)
    low, high = series[:ends[0]].min(), series[:ends[0]].max()
    return np.split((series - low) / (high - low), ends)


def make_model(window: int, attention: str | None) -> RecurrentForClassification:
    """An RNN of 2 units (8 parameters) and a linear head (3); the tutorial's attention layer has 2 + window."""
    return RecurrentForClassification(RecurrentConfig(
        cell="rnn", hidden_size=2, attention=attention, series_length=window, num_labels=1, problem_type="regression"))


def least_squares(train: Windows, test: Windows) -> np.ndarray:
    """(n,) predictions for test, linear in a window's values, float64."""
    inputs, test_inputs = (np.c_[part.values, np.ones(len(part.labels))] for part in (train, test))
    return test_inputs @ np.linalg.lstsq(inputs, train.labels, rcond=None)[0]


def entropy_of_uniform(weights: np.ndarray) -> float:
    """(n, T) attention weights → their mean entropy over log T: 1 where attention is nothing but a mean."""
    entropy = -(weights * np.log(np.maximum(weights, 1e-30))).sum(1)
    return float(entropy.mean() / math.log(weights.shape[1]))


def fibonacci(settings: FibonacciConfig, accelerator) -> dict:
    """Train every arm on every seed; returns what `result.json` holds."""
    if settings.seeds < 1:
        raise UserError(f"seeds is {settings.seeds}; give at least 1, and 5 or more for an interval worth having.")
    run = Run(settings.output_dir, accelerator.is_main_process, [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    parts = split_series(settings)
    parameters = {name: make_model(settings.window, attention).num_parameters() for name, attention in ARMS.items()}
    run.write_manifest(parameters=parameters)
    accelerator.print("parameters: " + ", ".join(f"{name} {count}" for name, count in parameters.items()))

    errors: dict[str, list[float]] = {name: [] for name in ARMS}
    predictions, weights = {}, []
    for seed in range(settings.seeds):
        train, validation, test = (Windows(part, settings.window, settings.training.batch_size, seed) for part in parts)
        for name, attention in ARMS.items():
            arm = run.part(f"{name}/seed-{seed}")
            found = fine_tune(lambda attention=attention: make_model(settings.window, attention), train, validation,
                              test, settings.training, settings.impl, arm, accelerator, seed, f"{name}, seed {seed}",
                              keep_model=True, task="regression")
            errors[name].append(found["mse"])
            predictions.setdefault(name, found["predictions"])
        # On validation: the test part has been looked at once, for the errors.
        attending = RecurrentForClassification.from_pretrained(run.directory / f"rnn-attention/seed-{seed}/model")
        weights.append(for_all(lambda model=attending, **batch: model(**batch).attentions[0],
                               attending.to(accelerator.device), validation, accelerator,
                               choose(settings.impl, accelerator.device)))
    references = {"least squares": float(np.mean((least_squares(train, test) - test.labels) ** 2)),
                  "repeat the last": float(np.mean((test.values[:, -1] - test.labels) ** 2))}
    result = {
        "windows": {"train": len(train.labels), "validation": len(validation.labels), "test": len(test.labels)},
        "arms": {name: {"parameters": parameters[name], **mean_interval(values).as_dict(), "values": values}
                 for name, values in errors.items()},
        "references": references,
        "attention": {"entropy_of_uniform": [entropy_of_uniform(of_seed) for of_seed in weights],
                      "mean_weights": np.mean(np.concatenate(weights), 0).tolist()},
        "verdicts": [compare(errors, "rnn-attention", "rnn"), compare(errors, "rnn-attention", "rnn-mean")],
        "test_predictions": predictions, "test_values": test.labels.tolist()}
    if accelerator.is_main_process:
        plot(result, run.directory / "plots/fibonacci.png")
    return run.finish(result)


def compare(errors: dict[str, list[float]], name: str, reference: str) -> str:
    """In powers of ten: the errors of an arm may lie orders of magnitude apart, their mean being the worst seed's."""
    gain: Interval = paired_difference(np.log10(errors[reference]), np.log10(errors[name]))
    return verdict(gain, f"{name} over {reference}:", "powers of ten of MSE")


def plot(result: dict, path) -> None:
    """Test values with each arm's answers of the first seed; errors of all seeds on a logarithmic axis."""
    figure, (curves, dots) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    place = np.arange(len(result["test_values"]))
    curves.plot(place, result["test_values"], color=INK, linewidth=2, linestyle="--", label="ln F, scaled")
    for colour, (name, values) in zip(COLOURS, result["test_predictions"].items(), strict=False):
        curves.plot(place, values, color=colour, label=name)
        dots.scatter(result["arms"][name]["values"], [name] * result["arms"][name]["n"], color=colour, s=24)
    for name, error in result["references"].items():
        dots.scatter([error], [name], color=SOFT, marker="D", s=24)
    curves.set(xlabel="window of the test part", ylabel="next value (training: 0 to 1)")
    curves.set_title("Answers of the first seed", color=INK, fontsize=11)
    curves.legend(frameon=False, fontsize=8)
    dots.set(xscale="log", xlabel="MSE on the test part, one dot a seed")
    dots.set_title("Errors", color=INK, fontsize=11)
    dots.invert_yaxis()
    dots.grid(axis="x", color=SOFT, alpha=0.3)
    for axes in (curves, dots):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def report(result: dict) -> str:
    """The table and what it means, in plain words."""
    rows = [{"model": name, "parameters": arm["parameters"], "MSE": f"{arm['mean']:.2g}" + (
        f" ± {arm['ci95']:.1g}" if arm["ci95"] else ""), "of the middle seed": f"{np.median(arm['values']):.2g}"}
        for name, arm in result["arms"].items()]
    rows += [{"model": name, "MSE": f"{error:.2g}"} for name, error in result["references"].items()]
    share = result["attention"]["entropy_of_uniform"]
    steps = np.asarray(result["attention"]["mean_weights"])
    return "\n".join([
        table(rows), "", WHY_LINEAR, *result["verdicts"],
        f"attention: entropy {100 * np.mean(share):.1f} % of that of equal weights (seeds: "
        f"{', '.join(f'{100 * value:.1f}' for value in share)}); a step gets {100 * steps.min():.1f} to "
        f"{100 * steps.max():.1f} % on average, where equal weights are {100 / len(steps):.1f} %"])


def main(argv: list[str]) -> None:
    settings = config.parse(FibonacciConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    torch.set_num_threads(1)  # these are a handful of numbers: a second thread only waits for the first
    result = fibonacci(settings, accelerator)
    accelerator.print(f"MSE on {result['windows']['test']} test windows, mean ± 95 % interval over {settings.seeds} "
                      f"seeds")
    accelerator.print(report(result))


if __name__ == "__main__":
    cli.run(main)
