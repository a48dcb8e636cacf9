"""A lab on a transformer for time series: look at the data, look at the loss, remove the attention, compare.

    make forda-lab                # noisy sines, generated: the answer needs frequencies and their order
    make forda-lab FORDA=dir      # FordA, from your own copy of the archive's files

The subject is the Keras example "Timeseries classification with a Transformer model". Its architecture is rebuilt
exactly, trained, and examined for dead branches. Beside it, at its number of parameters ± 2 %, stands a transformer on
patches and what is left of it when a part is taken out: attention that sees nothing but the patch itself, attention
that is a mean, an MLP over positions in the place of attention, no positions, no transformer (an MLP on the values).
MiniRocket says what is possible. Models are chosen on validation; the test set is touched once by each.
"""

from toolkit import cli, config
from toolkit.experiments.settings import FordaLabConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(FordaLabConfig, __doc__)

from functools import partial
from pathlib import Path

import numpy as np

from toolkit.baselines.classical import minirocket
from toolkit.data.series.splits import check_patches, load_splits
from toolkit.errors import UserError
from toolkit.experiments import forda
from toolkit.experiments.forda import NAMES
from toolkit.experiments.grid import Cell, Grid, classified
from toolkit.experiments.results import percent, points
from toolkit.experiments.shown_series import write_shown
from toolkit.metrics.tabulate import on_screen, table
from toolkit.models.series.patches import SeriesConfig
from toolkit.publishing.card import LiveCard
from toolkit.report.comparison_run import ahead_panel
from toolkit.report.ending import command, ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.figures.gains import gain_figure
from toolkit.report.figures.series import examples_figure, spectra_figure
from toolkit.report.figures.training import Curve, fits_figure
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run, read_metrics
from toolkit.run.files import write_atomic
from toolkit.run.results import Verdict
from toolkit.training.impl.distributed import make_accelerator


def forda_lab(settings: FordaLabConfig, accelerator) -> dict | None:
    """Every arm on every seed; returns what `result.json` holds, a dry run nothing."""
    if settings.seeds < 1 or not settings.arms:
        raise UserError("forda-lab needs seeds of at least 1, 5 or more for an interval worth having, and arms.")
    data = forda.data_section(settings)
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run, [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()

    # Look at the data.
    first = train, validation, test = load_splits(data, 0, accelerator.print)
    if train.values.shape[1] != 1:
        raise UserError(f"{data.train}: series of {train.values.shape[1]} channels; the Keras example, which this lab "
                        f"is about, takes one. Compare other models with make finetune-series.")
    patches = SeriesConfig(patch_length=settings.patch_length)
    check_patches(first, patches.patch_length, patches.patch_stride, patches.num_patches(train.values.shape[2]),
                  accelerator.print)
    title = data.generator or Path(data.train).stem.removesuffix("_TRAIN")
    plots = run.directory / "plots"
    if run.is_main:
        save_figure(examples_figure(train, f"{title}: training series by class"), plots / "examples.png")
        save_figure(spectra_figure(train, f"{title}: mean spectra of training series by class"), plots / "spectra.png")
    shapes, sizes, parameters = forda.shapes_at_budget(settings, train)
    run.write_manifest(parameters=sizes, examples={"train": len(train), "validation": len(validation),
                                                   "test": len(test)})
    accelerator.print(f"{title}: {len(train):,} series to train on, {len(validation):,} to choose by, {len(test):,} to "
                      f"test on; {parameters:,} parameters an arm ± 2 %")

    # Fit: seeds × arms.
    grid, findings = Grid(title, run, accelerator, dry_run=settings.dry_run), {}
    for seed in range(settings.seeds):
        splits = first if seed == 0 else load_splits(data, seed)
        labels = splits[2].labels
        majority = np.full(len(labels), np.bincount(splits[0].labels).argmax())
        grid.measure(Cell("majority", seed), partial(dict, predictions=majority), labels)
        for arm in [*settings.arms, *(["keras"] if seed < settings.keras_seeds else [])]:
            cell = Cell(arm, seed, f"{arm}/seed-{seed}", reference="" if arm == "full" else "full")
            if arm == "minirocket":
                grid.measure(cell, partial(classified, run.part(cell.run), partial(
                    minirocket, splits[0], splits[2], seed), labels), labels)
                continue
            training = forda.training_of(shapes[arm], splits, settings, seed)
            fit = grid.fit(cell, training, labels, parameters=sizes[arm])
            if fit and seed == 0 and settings.check_dead_branches:
                findings[arm] = forda.examine(arm, run.part(cell.run), splits[1], accelerator)
    if settings.dry_run:
        return grid.tell()

    # Summarise.
    result = {"data": title, "parameters": parameters, "test_examples": len(test),
              "arms": forda.summarise(grid.rows, same_test=bool(data.train)), "dead_branches": findings}
    result["verdict"] = forda.conclusions(result)
    grid.write([Verdict(arm, entry["verdict"]) for arm, entry in result["arms"].items() if "verdict" in entry])
    if accelerator.is_main_process:
        fits = {NAMES[arm]: [read_metrics(run.part(f"{arm}/seed-{seed}").metrics_path)
                             for seed in range(result["arms"][arm]["n"])] for arm in [*settings.arms, "keras"]
                if arm in shapes}
        curves = [Curve("loss", "loss (nats a label)", train="loss"),
                  Curve("accuracy", "accuracy (%)", validation="eval_accuracy", share=True)]
        if figure := fits_figure(fits, curves, f"{title}: learning curves"):
            save_figure(figure, plots / "learning-curves.png")
        panel = ahead_panel({NAMES[arm]: entry["values"] for arm, entry in result["arms"].items()}, NAMES["full"],
                            [NAMES["majority"]], f"{len(test):,} test series, {parameters:,} parameters an arm ± 2 %")
        save_figure(gain_figure([panel], f"{title}: is the whole transformer ahead?"), plots / "arms.png")
        write_shown(run, train, test)
        write_atomic(run.directory / "table.md", show(result, markdown=True) + "\n")
    return run.finish(result)


def show(result: dict, markdown: bool = False) -> str:
    """The table, and the conclusions below it."""
    across = any("test_set_points" in entry for entry in result["arms"].values())
    rows = []
    for arm, entry in result["arms"].items():
        ahead, low_high = entry.get("ahead_points", {}), entry.get("test_set_points")
        rows.append({
            "arm": NAMES[arm], "parameters": f"{entry['parameters']:,}" if entry["parameters"] else None,
            "accuracy %": percent(entry["mean"]), "± 95 %": percent(entry["ci95"]), "seeds": entry["n"],
            "transformer ahead": points(ahead.get("mean")), "± seeds": points(ahead.get("ci95")),
            **({"test set": f"{low_high[1]:.1f} … {low_high[2]:.1f}" if low_high else None} if across else {}),
            "seconds a fit": points(entry["seconds"])})
    lines = [f"- {line}" for line in result["verdict"]] if markdown else result["verdict"]
    return f"{table(rows, markdown=True) if markdown else on_screen(rows)}\n\n" + "\n".join(lines)


def main(argv: list[str]) -> None:
    settings = config.parse(FordaLabConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = forda_lab(settings, accelerator)
    if result is not None:
        accelerator.print(f"\n{result['data']}: test accuracy of models chosen on validation, mean ± 95 % interval "
                          f"over seeds, {result['test_examples']:,} test series\n{show(result)}")
        if accelerator.is_main_process:
            write_report(settings.output_dir)
        accelerator.print(ending(settings.output_dir, command("make card", {"RUN": settings.output_dir}),
                                 results=f"{settings.output_dir}/result.json"))


if __name__ == "__main__":
    cli.run(main)
