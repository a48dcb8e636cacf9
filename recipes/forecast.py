"""Forecasts of a table over time: models from random and pretrained starts, beside the linear and the naive ones.

    make forecast                                            # Mackey-Glass, no file needed
    make forecast CONFIG=recipes/configs/etth1.yaml
    python recipes/forecast.py --config recipes/configs/etth1.yaml --horizons 96 --seeds 1

The table is one series or several, each cut by time by itself; what is known ahead (data.future_columns) every trained
arm is told alike. Arms × horizons × seeds. Models are chosen on validation; the test windows are counted once each, at
the end; intervals are from residuals on validation, for every arm alike. A first seed's model is kept with all that
predict needs to say what comes after a table's end. Writes <output_dir>/<name>.json: arm → horizon → mse, mae, …,
and what the dead-branch check found. Pictures: <name>-gain.png (did pretraining help?), <name>-by-step.png (skill over
the naive rule), <name>-forecasts-<horizon>.png (test windows with bands), -training-<horizon>.png and -shuffled.png.
"""

from toolkit import cli, config
from toolkit.experiments.settings import ForecastRecipeConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(ForecastRecipeConfig, __doc__)

from functools import partial
from pathlib import Path

from toolkit.analysis.dead_branches import report_dead_branches
from toolkit.data.series.windows import load_forecast_data, window_splits
from toolkit.data.tables.columns import shown
from toolkit.experiments import forecasts
from toolkit.experiments.grid import Cell, Forecasting, Grid
from toolkit.experiments.published import published_errors
from toolkit.metrics.tabulate import on_screen
from toolkit.models.series.patches import SeriesForForecasting
from toolkit.pretrained import saved_model
from toolkit.publishing.card import LiveCard
from toolkit.report.ending import command, ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.forecast_run import forecast_figures
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.tasks.forecasting import score_forecaster
from toolkit.training.impl.distributed import make_accelerator


def forecast(settings: ForecastRecipeConfig, accelerator) -> dict | None:
    """Every arm on every horizon and seed; returns what the JSON file holds, a dry run nothing."""
    forecasts.check(settings)
    published = published_errors(settings.published)
    stem = Path(settings.output_dir) / settings.name
    run = Run(stem, accelerator.is_main_process and not settings.dry_run, [LiveCard()]).open(settings)
    data = load_forecast_data(settings.data, accelerator.print)
    trained = forecasts.arms(settings)
    references = {name: forecasts.reference_of(arm, trained) for name, arm in trained.items()}
    run.write_manifest(data={"columns": list(data.columns), "series": list(data.names),
                             "rows": [values.shape[1] for values in data.values],
                             "borders": [list(ends) for ends in data.borders], "mean": data.mean.tolist(),
                             "deviation": data.deviation.tolist()})

    # Fit: horizons × (what needs no loop, then seeds × arms).
    grid = Grid(settings.name, run, accelerator, "mse", "horizon", settings.dry_run)
    fits: dict[str, dict[int, list[dict]]] = {}
    for horizon in settings.horizons:
        windows = window_splits(data, settings.context_length, horizon, settings.training.batch_size, 0)
        for split, of_split in windows.items():
            if short := of_split.without_window:
                accelerator.print(f"horizon {horizon}: {len(short):,} of {len(data.names):,} series are too short for "
                                  f"a {split} window: {shown(short)}")
        for rule, forecaster in forecasts.untrained(windows, horizon, settings.data.season).items():
            cell = Cell(rule, run=f"{rule}/{horizon}", size=str(horizon))
            found = grid.measure(cell, partial(score_forecaster, forecaster, windows, settings.training, settings.impl,
                                               run.part(cell.run), accelerator))
            fits.setdefault(rule, {}).setdefault(horizon, []).append(found)
        for seed in range(settings.seeds):
            for name, arm in trained.items():
                training = forecasts.training_of(name, settings)
                windows = window_splits(data, settings.context_length, horizon, training.batch_size, seed)
                source = arm.source
                if arm.start == "masked-patches" and not settings.dry_run:
                    own = run.part(f"{name}/pretraining/seed-{seed}")
                    source = forecasts.pretrained_on_series(arm, settings, data, own, accelerator, seed)
                make = partial(forecasts.new_model, arm, source, settings, data, horizon)
                cell = Cell(name, seed, f"{name}/{horizon}/seed-{seed}", size=str(horizon), model=arm.model,
                            start=arm.start, reference=references[name])
                found = grid.fit(cell, Forecasting(make, windows, training, settings.impl, keep_model=seed == 0))
                if found and seed == 0 and arm.model and settings.check_dead_branches:
                    best = saved_model(SeriesForForecasting, run.part(cell.run).model_dir)
                    found = {**found, "dead_branches": report_dead_branches(
                        best, windows["validation"], accelerator, f"{name}, horizon {horizon}, seed {seed}",
                        run.part(cell.run).directory)}
                fits.setdefault(name, {}).setdefault(horizon, []).append(found)
    if settings.dry_run:
        return grid.tell()

    # Summarise.
    summary = forecasts.summarise(fits, references)
    grid.write(forecasts.verdicts(summary))
    if accelerator.is_main_process:
        write_json(stem.with_name(f"{settings.name}.json"), summary)
        run.finish(summary)  # which nothing above asks for: a later command may bring more, and writes it anew
        for name, figure in forecast_figures(run.directory).items():
            save_figure(figure, stem.with_name(f"{settings.name}-{name}.png"))
    accelerator.print(show(summary, published))
    return summary


def show(summary: dict, published: dict) -> str:
    """Test MSE and MAE by horizon, ours and published; then intervals; then verdicts."""
    horizons = list(next(iter(summary.values())))

    def cell(entry: dict, key: str) -> str:
        half = entry.get(f"{key}_ci95")
        return f"{entry[key]:.3f}" + (f" ± {half:.3f}" if half else "")

    rows = [{"arm": arm} | {f"{key} {horizon}": cell(by_horizon[horizon], key) for horizon in horizons
                            for key in ("mse", "mae")} for arm, by_horizon in summary.items()]
    rows += [{"arm": f"published {model}"} | {f"{key} {horizon}": f"{by_horizon[horizon][key]:.3f}"
                                              for horizon in horizons if horizon in by_horizon
                                              for key in ("mse", "mae") if key in by_horizon[horizon]}
             for model, by_horizon in published.items()]
    details = [{"arm": arm, "horizon": horizon, "MASE": entry.get("mase"), "quantile": entry["quantile_loss"],
                "covered %": f"{100 * entry['coverage']:.1f}", "val MSE": entry["validation_mse"],
                "trained": f"{entry['trained_parameters']:,}",
                "seconds": None if "seconds" not in entry else f"{entry['seconds']:.0f}"}
               for arm, by_horizon in summary.items() for horizon, entry in by_horizon.items()]
    first = next(iter(summary.values()))
    windows = ", ".join(f"{entry['test_windows']:,} at {horizon}" for horizon, entry in first.items())
    entry = next(iter(first.values()))
    nominal, left_out = entry["nominal_coverage"], ", ".join(entry["mase_left_out"])
    said = "\n".join(verdict.text for verdict in forecasts.verdicts(summary))
    left = f", which is 0 or unknown for {left_out}: left out of it" * bool(left_out)
    return "\n\n".join([
        f"test errors on standardised values, mean ± 95 % interval over seeds; windows: {windows}\n"
        f"{on_screen(rows)}",
        f"MASE: 1 is the seasonal naive error on train{left}; quantile: the quantile loss; covered: by intervals of "
        f"nominally {100 * nominal:.0f} %, ends included\n{on_screen(details)}", *([said] if said else [])])


def main(argv: list[str]) -> None:
    settings = config.parse(ForecastRecipeConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    if forecast(settings, accelerator) is not None:
        stem = Path(settings.output_dir) / settings.name
        arm = next(iter(forecasts.arms(settings)))
        kept = f"{stem}/{arm}/{settings.horizons[0]}/seed-0"
        if accelerator.is_main_process:
            write_report(stem)
        accelerator.print(ending(stem, command("make predict", {"MODEL": kept, "FILE": "table.csv"}),
                                 model=f"{kept}/model", results=f"{stem}.json"))


if __name__ == "__main__":
    cli.run(main)
