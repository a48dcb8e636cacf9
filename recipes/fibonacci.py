"""The lecture's lab: the next Fibonacci number from the 20 before it, by an RNN of 2 units with and without attention.

    make fibonacci

11 and 33 parameters, beside what says what they are worth: the same RNN with the plain mean of its states in place of
attention, least squares on the 20 values, which solves the task, and repeating the last value.

F(1200) has 251 digits, beyond float32, so the series is ln F(n), scaled so that the part for training fills [0, 1]. It
is cut in time: the first 60 % for training, then 10 % to choose the best model, then 30 % for testing; no window
crosses a cut.
"""

from toolkit import cli, config
from toolkit.experiments.settings import FibonacciConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(FibonacciConfig, __doc__)

from functools import partial

import numpy as np
import torch

from toolkit.errors import UserError
from toolkit.experiments import fibonacci as lab
from toolkit.experiments.fibonacci import Windows
from toolkit.experiments.grid import Cell, Classifying, Grid
from toolkit.experiments.results import by, values
from toolkit.metrics.intervals import mean_interval
from toolkit.metrics.tabulate import on_screen
from toolkit.models.small.recurrent import RecurrentForClassification
from toolkit.pretrained import saved_model
from toolkit.publishing.card import LiveCard
from toolkit.report.ending import ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.figures.series import next_values_figure
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.run.results import Verdict
from toolkit.tasks.base import for_all
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import choose

WHY_LINEAR = """\
x[t] = x[t-1] + x[t-2] is linear, and so it is in logarithms: they grow by ever the same step, x[t] = 2 x[t-1] - x[t-2].
Least squares on the values of a window solves the task. No network is needed for it, let alone attention; what is
compared here is by how much networks that cannot be linear miss it."""


def fibonacci(settings: FibonacciConfig, accelerator) -> dict | None:
    """Train every arm on every seed; returns what `result.json` holds, a dry run nothing."""
    if settings.seeds < 1:
        raise UserError(f"seeds is {settings.seeds}; give at least 1, and 5 or more for an interval worth having.")
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run, [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    parts = lab.split_series(settings)
    parameters = {name: lab.make_model(settings.window, attention).num_parameters()
                  for name, attention in lab.ARMS.items()}
    run.write_manifest(parameters=parameters)
    accelerator.print("parameters: " + ", ".join(f"{name} {count}" for name, count in parameters.items()))

    # Fit: seeds × arms; what attention weighs is asked on validation: the test part is looked at once, for the errors.
    grid = Grid("fibonacci", run, accelerator, "mse", dry_run=settings.dry_run)
    predictions, weights = {}, []
    for seed in range(settings.seeds):
        batches = tuple(Windows(part, settings.window, settings.training.batch_size, seed) for part in parts)
        for name, attention in lab.ARMS.items():
            training = Classifying(partial(lab.make_model, settings.window, attention), batches, settings.training,
                                   settings.impl, keep_model=True, task="regression")
            cell = Cell(name, seed, f"{name}/seed-{seed}", reference="rnn" if name == "rnn-attention" else "")
            fit = grid.fit(cell, training, parameters=parameters[name])
            if fit:
                predictions.setdefault(name, fit["predictions"])
        if not settings.dry_run:
            attending = saved_model(RecurrentForClassification, run.part(f"rnn-attention/seed-{seed}").model_dir)
            weights.append(for_all(lambda model=attending, **batch: model(**batch).attentions[0],
                                   attending.to(accelerator.device), batches[1], accelerator,
                                   choose(settings.impl, accelerator.device)))
    if settings.dry_run:
        return grid.tell()
    train, validation, test = batches
    references = {"least squares": float(np.mean((lab.least_squares(train, test) - test.labels) ** 2)),
                  "repeat the last": float(np.mean((test.values[:, -1] - test.labels) ** 2))}

    # Summarise.
    errors = {name: values(fits, "mse") for name, fits in by(grid.rows, "arm").items()}
    for name, error in references.items():
        grid.note(Cell(name), {"mse": error})
    verdicts = [lab.compare(errors, "rnn-attention", "rnn"), lab.compare(errors, "rnn-attention", "rnn-mean")]
    grid.write([Verdict("rnn-attention", text) for text in verdicts])
    result = {
        "windows": {"train": len(train.labels), "validation": len(validation.labels), "test": len(test.labels)},
        "arms": {name: {"parameters": parameters[name], **mean_interval(of_seeds).as_dict(), "values": of_seeds}
                 for name, of_seeds in errors.items()},
        "references": references,
        "attention": {"entropy_of_uniform": [lab.entropy_of_uniform(of_seed) for of_seed in weights],
                      "mean_weights": np.mean(np.concatenate(weights), 0).tolist()},
        "verdicts": verdicts, "test_predictions": predictions, "test_values": test.labels.tolist()}
    if accelerator.is_main_process:
        save_figure(next_values_figure(result, "ln F (training: 0 to 1)"), run.directory / "plots/fibonacci.png")
    return run.finish(result)


def report(result: dict) -> str:
    """The table and what it means, in plain words."""
    rows = [{"model": name, "parameters": arm["parameters"], "MSE": f"{arm['mean']:.2g}" + (
        f" ± {arm['ci95']:.1g}" if arm["ci95"] else ""), "of the middle seed": f"{np.median(arm['values']):.2g}"}
        for name, arm in result["arms"].items()]
    rows += [{"model": name, "MSE": f"{error:.2g}"} for name, error in result["references"].items()]
    share = result["attention"]["entropy_of_uniform"]
    steps = np.asarray(result["attention"]["mean_weights"])
    return "\n".join([
        on_screen(rows), "", WHY_LINEAR, *result["verdicts"],
        f"attention: entropy {100 * np.mean(share):.1f} % of that of equal weights (seeds: "
        f"{', '.join(f'{100 * value:.1f}' for value in share)}); a step gets {100 * steps.min():.1f} to "
        f"{100 * steps.max():.1f} % on average, where equal weights are {100 / len(steps):.1f} %"])


def main(argv: list[str]) -> None:
    settings = config.parse(FibonacciConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    torch.set_num_threads(1)  # these are a handful of numbers: a second thread only waits for the first
    result = fibonacci(settings, accelerator)
    if result is not None:
        accelerator.print(f"MSE on {result['windows']['test']} test windows, mean ± 95 % interval over "
                          f"{settings.seeds} seeds")
        accelerator.print(report(result))
        if accelerator.is_main_process:
            write_report(settings.output_dir)
        best = min(result["arms"].items(), key=lambda item: item[1]["mean"])
        accelerator.print(ending(
            settings.output_dir, "make forda-lab", f"test mse: {best[0]} {best[1]['mean']:.2g}; " + "; ".join(
                f"{name} {error:.2g}" for name, error in result["references"].items())))


if __name__ == "__main__":
    cli.run(main)
