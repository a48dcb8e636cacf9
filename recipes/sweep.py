"""Pretrain the same model with several settings, and see which learns most, and most of use, from the same budget.

    make sweep CONFIG=recipes/configs/sweep-gpt-tiny.yaml
    make sweep CONFIG=… ARGS="--seeds 3"

Each setting is a run of the recipe with some keys changed, kept under output_dir; a sweep that was broken off goes on,
and settings may be added to a finished one. Each is held against the default: the setting that changes nothing ({}), or
else the first. Writes sweep.json and sweep.png. Where the pretraining config has `probes`, they are in the table and
the picture, too.
"""

from toolkit import cli, config
from toolkit.experiments.settings import SweepConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(SweepConfig, __doc__)

from pathlib import Path

from pretrain_bert import pretrain_bert
from pretrain_gpt import pretrain_gpt

from toolkit.experiments.grid import Grid
from toolkit.experiments.sweep import cells, read_pretraining, summarise
from toolkit.metrics.tabulate import on_screen
from toolkit.models.presets import preset
from toolkit.report.ending import command, ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.figures.sweeps import sweep_figure
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.run.provenance import environment
from toolkit.run.results import Results, Verdict
from toolkit.training.budget import Budget
from toolkit.training.impl.distributed import make_accelerator

PRETRAIN = {"bert": (pretrain_bert, "mlm_loss"), "gpt": (pretrain_gpt, "loss")}
"""Family → its recipe, and what settings are compared by."""


def sweep(settings: SweepConfig, accelerator) -> dict | None:
    """Run every setting on every seed; returns what sweep.json holds, best first, a dry run nothing."""
    pretraining = read_pretraining(settings.pretraining)
    pretrain, metric = PRETRAIN[preset(pretraining.model.preset).family]
    budget = Budget(pretraining.training)

    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run)
    grid = Grid(Path(settings.output_dir).name, run, accelerator, metric, dry_run=settings.dry_run)
    for cell, training in cells(settings, pretraining, pretrain):
        found = grid.fit(cell, training)
        if found:
            accelerator.print(f"{cell.arm}, seed {cell.seed}: {metric} {found[metric]:.3f}")
    if settings.dry_run:
        return grid.tell()

    rows = summarise(grid.rows, metric, settings)
    base = config.to_dict(pretraining)
    result = {"metric": metric, "pretraining": base, "settings": rows, "environment": environment()}
    grid.write([Verdict(row["setting"], row["verdict"]) for row in rows if "verdict" in row])
    if accelerator.is_main_process:
        write_json(run.directory / "sweep.json", result)
        budgeted = f"{budget.limit:,} {budget.name.removeprefix('max_')}"
        save_figure(sweep_figure(Results(grid.experiment, metric, grid.rows),
                                 f"{base['model']['preset']}, {budgeted} each: what does a setting change?"),
                    run.directory / "sweep.png")
    return result


def show(result: dict) -> str:
    """A row a setting, the least loss first; then the verdicts."""
    rows = [{"setting": row["setting"], result["metric"]: f"{row['mean']:.3f}",
             **{key: f"{row[key]['mean']:.3f}" for key in ("nsp_accuracy", "probe") if key in row}}
            for row in result["settings"]]
    return "\n".join([on_screen(rows), *(row["verdict"] for row in result["settings"] if "verdict" in row)])


def main(argv: list[str]) -> None:
    settings = config.parse(SweepConfig, argv, __doc__)
    accelerator = make_accelerator()
    result = sweep(settings, accelerator)
    if result is not None:
        accelerator.print(show(result))
        if accelerator.is_main_process:
            write_report(settings.output_dir)
        best, metric = result["settings"][0], result["metric"]
        runs = [f"{settings.output_dir}/{cell.run}" for cell, _ in cells(
            settings, read_pretraining(settings.pretraining), None)][:2]
        accelerator.print(ending(settings.output_dir, command("make compare-runs", {"RUNS": " ".join(runs)}),
                                 f"best of {len(result['settings'])}: {best['setting']}, {metric} {best['mean']:.3f}",
                                 results=f"{settings.output_dir}/sweep.json",
                                 picture=f"{settings.output_dir}/sweep.png"))


if __name__ == "__main__":
    cli.run(main)
