"""Forecasts of a table over time: models from random and pretrained starts, beside the linear and the naive ones.

    make forecast                                            # Mackey-Glass, no file needed
    make forecast CONFIG=recipes/configs/etth1.yaml
    python recipes/forecast.py --config recipes/configs/etth1.yaml --horizons 96 --seeds 1

Arms × horizons × seeds. Models are chosen on validation; the test windows are counted once each, at the end; intervals
are from residuals on validation, for every arm alike. Writes <output_dir>/<name>.json: arm → horizon → mse, mae, …,
and what the dead-branch check found.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from transformers import BertConfig, PreTrainedModel

from toolkit import cli, config
from toolkit.analysis.dead_branches import report_dead_branches
from toolkit.baselines.naive import repeat_last, seasonal_naive
from toolkit.data.series.windows import (
    ForecastData,
    ForecastDataSection,
    WindowBatches,
    load_forecast_data,
    window_splits,
)
from toolkit.errors import UserError, did_you_mean
from toolkit.metrics.intervals import mean_interval, verdict
from toolkit.metrics.tabulate import table
from toolkit.models.series.patches import SeriesForForecasting, SeriesForMaskedPatches
from toolkit.models.small.linear import DLinear, DLinearConfig, NLinear, NLinearConfig
from toolkit.publishing.card import LiveCard
from toolkit.report.plots import plot_by_step, plot_forecasts
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.tasks.forecasting import ForecastConfig, Forecaster, ForecastingTask, fit_forecaster, score_forecaster
from toolkit.tasks.masked_patches import MaskedPatchesConfig, pretrain_on_series
from toolkit.training.dry_run import dry_run
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig

LINEAR = {"nlinear": (NLinear, NLinearConfig), "dlinear": (DLinear, DLinearConfig)}
Start = Literal["random", "masked-patches", "pretrained", "pretrained-frozen", "random-frozen"]
STARTS: tuple[Start, ...] = get_args(Start)
REFERENCE = {"pretrained": "random", "pretrained-frozen": "random-frozen", "masked-patches": "random"}
"""Start → the same model without pretraining, which it is held against where both are run."""
MEANS = ("mse", "mae", "mase", "quantile_loss", "coverage", "seconds")


@dataclass
class SeriesModelSection:
    """Fields of SeriesConfig, for all models."""

    patch_length: int = 16
    patch_stride: int = 8
    channels: Literal["independent", "mixed"] = "independent"
    instance_norm: bool = True
    dropout: float = 0.0
    """In the backbone."""
    head_dropout: float = 0.5
    """Before the map from all patches to all of the horizon, which holds most parameters."""


@dataclass
class ForecastRecipeConfig:
    name: str = "mackey-glass"
    """Of the data set, and of the files that are written."""
    output_dir: str = "runs/forecast"
    data: ForecastDataSection = field(default_factory=ForecastDataSection)
    context_length: int = 336
    """Rows a forecast is made from."""
    horizons: list[int] = config.free(default_factory=lambda: [96])
    """Rows that are forecast; each is a comparison of its own."""
    linear: list[Literal["nlinear", "dlinear"]] = config.free(default_factory=lambda: ["nlinear", "dlinear"])
    models: dict = field(default_factory=dict)
    """Name → checkpoint directory or hub id of a pretrained BERT or GPT, or the fields of a BertConfig."""
    text_model: str = config.free("")
    """A checkpoint: one more of models, by the name of `text`."""
    starts: list[Start] = config.free(default_factory=lambda: list(STARTS))
    """Of each model: random values; pretrained on the train rows by hidden patches (Nie et al. 2023); the checkpoint,
    where it is one. Frozen: all but norms and positions (Zhou et al. 2023)."""
    series: SeriesModelSection = field(default_factory=SeriesModelSection)
    seeds: int = config.free(3)
    training: ForecastConfig = field(default_factory=ForecastConfig)
    pretraining: MaskedPatchesConfig = field(default_factory=MaskedPatchesConfig)
    """Of masked-patches."""
    arm_training: dict = field(default_factory=dict)
    """Arm → the keys of `training` that differ for it: {nlinear: {learning_rate: 0.02}}."""
    published: str = config.free("")
    """A csv of published errors to show beside: horizon, then columns named <model>_mse and <model>_mae."""
    check_dead_branches: bool = config.free(True)
    """Examine the first seed's transformers of each horizon on validation windows."""
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = config.free(False)
    """Check every input, tell what would be trained, how long and in how much memory, and end."""


def transformers(settings: ForecastRecipeConfig) -> dict[str, tuple[BertConfig | str, str]]:
    """Arm → shape or checkpoint of its model, and its start."""
    arms: dict = {}
    models = settings.models | ({"text": settings.text_model} if settings.text_model else {})
    for name, source in models.items():
        shape = str(source)
        if isinstance(source, dict):
            known = BertConfig().to_dict()
            if unknown := [key for key in source if key not in known]:
                raise UserError(f"models.{name}: '{unknown[0]}' is no field of a BertConfig."
                                f"{did_you_mean(str(unknown[0]), known)}")
            shape = BertConfig(**source)
        for start in settings.starts:
            if not (isinstance(source, dict) and start in ("pretrained", "pretrained-frozen")):
                arms[f"{name}-{start}"] = (shape, start)
    return arms


def new_linear(name: str, settings: ForecastRecipeConfig, horizon: int) -> PreTrainedModel:
    model, model_config = LINEAR[name]
    return model(model_config(context_length=settings.context_length, horizon=horizon))


def new_transformer(source: BertConfig | str | Path, start: str, settings: ForecastRecipeConfig, channels: int,
                    horizon: int) -> PreTrainedModel:
    model = SeriesForForecasting.from_backbone(
        source, pretrained=not start.startswith("random"), num_channels=channels,
        context_length=settings.context_length, horizon=horizon, **config.to_dict(settings.series))
    if start.endswith("-frozen"):
        model.freeze_all_but_norms_and_positions()
    return model


def pretrained_on_series(arm: str, shape: BertConfig | str, settings: ForecastRecipeConfig, data: ForecastData,
                         run: Run, accelerator, seed: int) -> Path:
    """A model pretrained by hidden patches of the train rows, chosen by those of validation; once for all horizons."""
    make = partial(SeriesForMaskedPatches.from_backbone, shape, pretrained=False, num_channels=len(data.columns),
                   **config.to_dict(settings.series))
    parts = []
    for split in ("train", "validation"):
        windows = WindowBatches(data, split, settings.context_length, 1)
        # Windows that begin within the same patch hold the same patches but for their place.
        parts.append(windows.rows(np.arange(0, len(windows), settings.series.patch_length)))
    train, validation = parts
    own = run.part(f"{arm}/pretraining/seed-{seed}")
    pretrain_on_series(make, train["values"], validation["values"], settings.pretraining, settings.impl, own,
                       accelerator, seed, f"{arm}, pretraining, seed {seed}", train.get("observed"),
                       validation.get("observed"))
    return own.model_dir


def naive_rules(horizon: int, season: int) -> dict[str, Forecaster]:
    return {"repeat-last": lambda values, observed: repeat_last(values, horizon, observed),
            "seasonal-naive": lambda values, observed: seasonal_naive(values, horizon, season, observed)}


def arm_config(settings: ForecastRecipeConfig, arm: str) -> ForecastConfig:
    return config.from_dict(ForecastConfig, config.with_values(config.to_dict(settings.training),
                                                               settings.arm_training.get(arm) or {}),
                            "config", f"arm_training.{arm}.")


def forecast(settings: ForecastRecipeConfig, accelerator) -> dict | None:
    """Every arm on every horizon and seed; returns what the JSON file holds, a dry run nothing."""
    if not settings.horizons or settings.seeds < 1:
        raise UserError("forecast needs at least one of horizons, and seeds of at least 1.")
    if settings.data.season > settings.context_length:
        raise UserError(f"data.season is {settings.data.season} rows, but context_length {settings.context_length}: "
                        f"the seasonal naive forecast needs a whole season of context.")
    published = read_published(settings.published)
    run = Run(Path(settings.output_dir) / settings.name, accelerator.is_main_process and not settings.dry_run,
              [LiveCard()])
    run.open(settings)
    data = load_forecast_data(settings.data, accelerator.print)
    shapes = transformers(settings)
    names = [*settings.linear, *shapes]
    known = [*LINEAR, *(f"{name}-{start}" for name in (*settings.models, "text") for start in STARTS)]
    if unknown := sorted(settings.arm_training.keys() - set(known)):
        raise UserError(f"arm_training: there is no arm '{unknown[0]}'.{did_you_mean(unknown[0], known)}")
    run.write_manifest(data={"columns": list(data.columns), "rows": [values.shape[1] for values in data.values],
                             "borders": [list(ends) for ends in data.borders], "mean": data.mean.tolist(),
                             "deviation": data.deviation.tolist()})

    results: dict[str, dict[int, list[dict]]] = {}
    for horizon in settings.horizons:
        def note(arm: str, result: dict, horizon: int = horizon) -> None:
            results.setdefault(arm, {}).setdefault(horizon, []).append(result)

        def maker(arm: str, seed: int, horizon: int = horizon) -> Callable[[], PreTrainedModel]:
            if arm in LINEAR:
                return partial(new_linear, arm, settings, horizon)
            source, start = shapes[arm]
            if start == "masked-patches" and not settings.dry_run:
                source = pretrained_on_series(arm, source, settings, data, run, accelerator, seed)
            elif start == "masked-patches":
                start = "random"
            return partial(new_transformer, source, start, settings, len(data.columns), horizon)

        windows = window_splits(data, settings.context_length, horizon, settings.training.batch_size, 0)
        if settings.dry_run:
            for arm in names:
                accelerator.print(f"\n{arm}, horizon {horizon}, {settings.seeds} fits, each of them:")
                dry_run(ForecastingTask(maker(arm, 0)(), windows["train"], windows["validation"]),
                        arm_config(settings, arm), settings.impl, run, accelerator)
            continue
        for arm, rule in naive_rules(horizon, settings.data.season).items():
            note(arm, score_forecaster(rule, windows, settings.training, settings.impl,
                                       run.part(f"{arm}/{horizon}"),
                                       accelerator))
        for seed in range(settings.seeds):
            for arm in names:
                training = arm_config(settings, arm)
                windows = window_splits(data, settings.context_length, horizon, training.batch_size, seed)
                place = run.part(f"{arm}/{horizon}/seed-{seed}")
                name = f"{arm}, horizon {horizon}, seed {seed}"
                found = fit_forecaster(maker(arm, seed), windows, training, settings.impl, place, accelerator, seed,
                                       name, keep_model=seed == 0)
                if seed == 0 and arm in shapes and settings.check_dead_branches:
                    best = SeriesForForecasting.from_pretrained(place.model_dir)
                    found = {**found, "dead_branches": report_dead_branches(best, windows["validation"], accelerator,
                                                                            name)}
                note(arm, found)
    if settings.dry_run:
        return None
    summary = summarise(results)
    if accelerator.is_main_process:
        stem = Path(settings.output_dir) / settings.name
        write_json(stem.with_name(f"{settings.name}.json"), summary)
        run.finish(summary)  # which nothing above asks for: a later command may bring more, and writes it anew
        panels = {f"horizon {horizon}": {arm: np.mean([one["mse_by_step"] for one in by_horizon[horizon]], 0)
                                         for arm, by_horizon in results.items()} for horizon in settings.horizons}
        plot_by_step(panels, stem.with_name(f"{settings.name}-by-step.png"), f"{settings.name}: error by step",
                     "test MSE, standardised")
        for horizon in settings.horizons:
            draw_forecasts(run.directory, results, horizon, data, settings.training.quantiles,
                           stem.with_name(f"{settings.name}-forecasts-{horizon}.png"), settings.name)
    accelerator.print(show(summary, published))
    return summary


def summarise(results: dict[str, dict[int, list[dict]]]) -> dict:
    """Arm → horizon → means over seeds, with intervals; for pretrained arms the gain over the same without."""
    summary: dict = {}
    for arm, by_horizon in results.items():
        for horizon, fits in by_horizon.items():
            entry: dict = {"seeds": len(fits), "test_windows": fits[0]["test_windows"],
                           "parameters": fits[0]["parameters"], "trained_parameters": fits[0]["trained_parameters"]}
            for key in MEANS:
                values = [fit[key] for fit in fits if fit.get(key) is not None]
                if values:
                    interval = mean_interval(values).as_dict()
                    entry |= {key: interval["mean"], f"{key}_ci95": interval["ci95"], f"{key}_values": values}
            entry["validation_mse"] = mean_interval([fit["validation"]["mse"] for fit in fits]).mean
            entry["nominal_coverage"] = fits[0]["nominal_coverage"]
            for key in ("mse_by_step", "mae_by_step", "quantile_loss_by_step", "coverage_by_step"):
                entry[key] = np.mean([fit[key] for fit in fits], 0).tolist()
            if "dead_branches" in fits[0]:
                entry["dead_branches"] = fits[0]["dead_branches"]
            start = next((start for start in sorted(REFERENCE, key=len, reverse=True) if arm.endswith(f"-{start}")), "")
            reference = arm.removesuffix(start) + REFERENCE.get(start, "")
            if start and reference in results:
                gain = mean_interval([100 * (1 - fit["mse"] / other["mse"])
                                      for fit, other in zip(fits, results[reference][horizon], strict=True)])
                entry |= {"reference": reference, "gain_percent": gain.as_dict(),
                          "verdict": verdict(gain, f"{arm} over {reference}, horizon {horizon}:", "% of its MSE")}
            summary.setdefault(arm, {})[str(horizon)] = entry
    return summary


def draw_forecasts(directory: Path, results: dict, horizon: int, data: ForecastData, quantiles: list[float], path: Path,
                   name: str) -> None:
    """The last channel of a few test windows, in its own units: by the two arms that were best on validation, and by
    the seasonal naive one.
    """
    channel = len(data.columns) - 1
    trained = sorted((arm for arm in results if arm not in ("repeat-last", "seasonal-naive")),
                     key=lambda arm: np.mean([fit["validation"]["mse"] for fit in results[arm][horizon]]))
    rows = {}
    for arm in [*trained[:2], "seasonal-naive"]:
        place = directory / arm / str(horizon)
        with np.load((place if arm == "seasonal-naive" else place / "seed-0") / "forecasts.npz") as saved:
            parts = {key: saved[key][:, channel] * data.deviation[channel] + data.mean[channel]
                     for key in ("values", "future", "prediction", "quantiles")}
            index = saved["index"]
        rows[arm] = [{"title": f"test window {number + 1:,}", "context": parts["values"][place][-2 * horizon:],
                      "truth": parts["future"][place], "prediction": parts["prediction"][place],
                      "low": parts["quantiles"][place][:, 0], "high": parts["quantiles"][place][:, -1]}
                     for place, number in enumerate(index)]
    share = round(100 * (quantiles[-1] - quantiles[0]))
    plot_forecasts(rows, path, f"{name}, column {data.columns[channel]}, horizon {horizon}, {share} % intervals")


def read_published(path: str) -> dict[str, dict[str, dict[str, float]]]:
    """Model → horizon → {mse, mae}."""
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found: dict = {}
        for row in rows:
            for column, value in row.items():
                model, _, error = column.rpartition("_")
                if model:
                    found.setdefault(model, {}).setdefault(str(int(row["horizon"])), {})[error] = float(value)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as published errors ({error}). Expected a csv with horizon and "
                        f"columns such as DLinear_mse (key published).") from None
    return found


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
    details = [{"arm": arm, "horizon": horizon, "MASE": entry.get("mase"), "quantile loss": entry["quantile_loss"],
                "coverage %": f"{100 * entry['coverage']:.1f}", "validation MSE": entry["validation_mse"],
                "trained": f"{entry['trained_parameters']:,}", "parameters": f"{entry['parameters']:,}",
                "seconds": None if "seconds" not in entry else f"{entry['seconds']:.0f}"}
               for arm, by_horizon in summary.items() for horizon, entry in by_horizon.items()]
    windows = ", ".join(f"{entry['test_windows']:,} at {horizon}"
                        for horizon, entry in next(iter(summary.values())).items())
    nominal = next(iter(next(iter(summary.values())).values()))["nominal_coverage"]
    verdicts = [entry["verdict"] for by_horizon in summary.values() for entry in by_horizon.values()
                if "verdict" in entry]
    return "\n\n".join(["test errors on standardised values, mean ± 95 % interval over seeds; windows: " + windows
                        + "\n" + table(rows), f"MASE: 1 is the seasonal naive error on train; intervals of nominally "
                        f"{100 * nominal:.0f} %\n" + table(details), *(["\n".join(verdicts)] if verdicts else [])])


def main(argv: list[str]) -> None:
    settings = config.parse(ForecastRecipeConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    if forecast(settings, accelerator) is not None:
        accelerator.print(f"\n{Path(settings.output_dir) / settings.name}.json")


if __name__ == "__main__":
    cli.run(main)
