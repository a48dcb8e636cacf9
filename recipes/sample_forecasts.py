"""Forecast by sampling from a GPT that was pretrained on series as tokens, beside forecasts that cost nothing.

    make pretrain-gpt CONFIG=recipes/configs/gpt-series.yaml && make sample-forecasts
    python recipes/sample_forecasts.py --run runs/gpt-series --sources my-table.csv --output_dir runs/my-forecasts

Of each source, windows of its test part (what lies behind train and validation; of a generator, series of their own):
the context is read, paths are drawn, their quantiles are the forecast. Errors are in units of the context's mean
absolute value, so that series of any size count alike. `result.json` holds them, `<source>.png` shows some windows, the
linear and the naive forecast below, and `<source>.npz` has all: contexts, what came, quantiles, the other forecasts.
"""

from dataclasses import dataclass, field

from toolkit import cli, config


@dataclass
class SampleForecastsConfig:
    output_dir: str = "runs/gpt-series-forecasts"
    run: str = "runs/gpt-series"
    """The run directory of `make pretrain-gpt` on series: its model, its sources and where their splits lie."""
    sources: list[str] = field(default_factory=list)
    """Other tables or generators than the run's; of a table still the test part alone, whatever it was used for."""
    windows: int = 200
    """The most windows of a source, evenly over its test part."""
    num_samples: int = 20
    """Paths drawn for each window."""
    temperature: float = 1.0
    top_k: int | None = 50
    """Draw among so many likeliest bins, as Chronos does; null: among all. Few narrow the intervals, all let paths
    stray."""
    season: int | None = None
    """What the seasonal naive forecast repeats; default: of each context the lag at which it is most like itself."""
    seed: int = 0


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(SampleForecastsConfig, __doc__)

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from toolkit import metrics
from toolkit.baselines.naive import repeat_last, seasonal_naive
from toolkit.data.stores.series import series_windows, split_windows
from toolkit.data.stores.settings import SeriesCorpusConfig
from toolkit.errors import UserError
from toolkit.inference.sampling import load_series_gpt, sample_paths
from toolkit.metrics.intervals import paired_bootstrap
from toolkit.metrics.tabulate import on_screen
from toolkit.models.small.linear import carried_forward
from toolkit.publishing.card import LiveCard
from toolkit.report.ending import command, ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.run_report import write_report
from toolkit.report.sampled_run import GPT, sampled_figures
from toolkit.run.directory import Run
from toolkit.tasks.base import write_arrays
from toolkit.tasks.forecasting import BANDS
from toolkit.tasks.settings import PretrainGptConfig
from toolkit.tokenization.bins import SeriesBins

QUANTILES = (0.1, 0.5, 0.9)


def windows_to_ask(series: SeriesCorpusConfig, number: int, bins: SeriesBins, most: int
                   ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """(n, context_length) contexts and (n, horizon) futures of the test part, NaN where a value is missing; the column
    of each and, where there are any, the times of its values.
    """
    windows = series_windows(series, number, "test", bins.context_length + bins.horizon, 1)
    cut = bins.context_length
    known = np.flatnonzero(~np.isnan(windows.values[:, :cut]).all(1) & ~np.isnan(windows.values[:, cut:]).all(1))
    if not len(known):
        raise UserError(f"{series.sources[number]}: no test window has values in its context and in its horizon.")
    known = known[np.unique(np.linspace(0, len(known) - 1, most).round().astype(int))]
    values, times = windows.values[known], windows.times_of(known)
    where = {"column": windows.columns[known], **({} if times is None else {"times": times})}
    return values[:, :cut], values[:, cut:], where


def filled(values: np.ndarray) -> np.ndarray:
    """Missing values replaced by the last one before them."""
    seen = torch.from_numpy(~np.isnan(values))
    return carried_forward(torch.from_numpy(np.nan_to_num(values)), seen).numpy()


def estimated_seasons(context: np.ndarray) -> np.ndarray:
    """(n, L) → (n,) the lag up to L / 2 at which the autocorrelation is largest, once it has been below zero: at the
    first lags every smooth series is like itself.
    """
    centred = context - context.mean(1, keepdims=True)
    lags = range(2, context.shape[1] // 2 + 1)
    products = np.stack([(centred[:, lag:] * centred[:, :-lag]).sum(1) / np.sqrt(np.maximum(
        (centred[:, lag:] ** 2).sum(1) * (centred[:, :-lag] ** 2).sum(1), 1e-300)) for lag in lags], 1)
    below = np.maximum.accumulate(products < 0, axis=1)
    return np.where(below | ~below.any(1, keepdims=True), products, -1).argmax(1) + lags.start


def linear_map(series: SeriesCorpusConfig, number: int, bins: SeriesBins) -> np.ndarray:
    """(context_length + 1, horizon) least squares from scaled context to scaled future, on the train part of a source,
    with a little ridge, its values clipped as the bins clip them.
    """
    values = split_windows(series, number, "train", bins.context_length + bins.horizon, max(1, bins.horizon // 4))
    values = np.clip(filled(values) / bins.scale(values)[:, None], bins.low_limit, bins.high_limit)
    inputs = np.pad(values[:, :bins.context_length], ((0, 0), (0, 1)), constant_values=1.0)
    penalty = 1e-4 * len(inputs) * np.eye(inputs.shape[1])
    return np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ values[:, bins.context_length:])


def naive_forecasts(context: np.ndarray, horizon: int, season: int | None, weights: np.ndarray, bins: SeriesBins
                    ) -> dict[str, np.ndarray]:
    """Name → (n, horizon): repeat-last, seasonal naive, and the linear map."""
    values = filled(context)
    scale = bins.scale(context)[:, None]
    tensor = torch.from_numpy(values)[:, None]
    seasons = np.full(len(values), season) if season else estimated_seasons(values)
    seasonal = np.stack([seasonal_naive(row[None], horizon, int(lag))[0, 0].numpy()
                         for row, lag in zip(tensor, seasons, strict=True)])
    return {"repeat-last": repeat_last(tensor, horizon)[:, 0].numpy(), "seasonal naive": seasonal,
            "linear": (np.pad(values / scale, ((0, 0), (0, 1)), constant_values=1.0) @ weights) * scale}


def scores(quantiles: np.ndarray, future: np.ndarray, scale: np.ndarray, bins: SeriesBins) -> dict[str, float]:
    """quantiles (n, horizon, 3), or (n, horizon) of a forecast without intervals; in units of the (n,) scales.

    Coverage is of the bins that the values lie in: to the model all values of a bin are one, and a path holds its
    centre. Else a series that stands still would lie outside every interval of paths that foretell just that.
    """
    seen = ~np.isnan(future)
    written = (bins.decode(bins.encode(future, scale)[0], scale) / scale[:, None])[seen]
    future = (future / scale[:, None])[seen]
    scaled = quantiles / scale.reshape(-1, *[1] * (quantiles.ndim - 1))
    every = scaled[seen] if quantiles.ndim == 3 else np.repeat(scaled[seen][:, None], len(QUANTILES), 1)
    middle = every[:, QUANTILES.index(0.5)]
    result = {name: metrics.load(name).compute(predictions=middle, references=future)[name] for name in ("mse", "mae")}
    result |= metrics.load("quantile_loss").compute(predictions=every, references=future, quantile=QUANTILES)
    if quantiles.ndim == 3:
        result |= metrics.load("coverage").compute(predictions=every, references=written)
    return result


def errors_by_window(forecast: np.ndarray, future: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """(n,) mean absolute errors."""
    return np.nanmean(np.abs(forecast - future), 1) / scale


def sample_forecasts(settings: SampleForecastsConfig) -> dict:
    """Forecast, score and draw; returns what `result.json` holds."""
    trained = Path(settings.run)
    if not (trained / "config.yaml").is_file():
        raise UserError(f"{trained}: is no run directory (it has no config.yaml). Make one: make pretrain-gpt "
                        f"CONFIG=recipes/configs/gpt-series.yaml")
    pretraining = config.from_dict(PretrainGptConfig, config.read_yaml(trained / "config.yaml"),
                                   str(trained / "config.yaml"))
    if not pretraining.series.sources:
        raise UserError(f"{trained}: learned text, not series. Give a run with series.sources.")
    model, bins = load_series_gpt(trained / "model")
    if settings.windows < 1:
        raise UserError(f"windows is {settings.windows}; give at least 1.")
    if settings.season is not None and not 1 <= settings.season <= bins.context_length:
        raise UserError(f"season is {settings.season}; it must lie between 1 and the context's {bins.context_length} "
                        f"values.")
    run = Run(settings.output_dir, observers=[LiveCard()]).open(settings)
    if run.result():
        print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    asked = replace(pretraining.series, sources=settings.sources or pretraining.series.sources)
    run.write_manifest(data={"sources": asked.sources}, parameters=model.num_parameters())
    result, drawn = {}, []
    for number, source in enumerate(asked.sources):
        context, future, where = windows_to_ask(asked, number, bins, settings.windows)
        if flat := int((np.nanmax(context, 1) == np.nanmin(context, 1)).sum()):
            print(f"{source}: {flat:,} of {len(context):,} contexts are constant: they have no season, and those of "
                  f"zeros alone no scale, so that their errors are in the file's own units")
        scale = bins.scale(context)
        paths = sample_paths(model, bins, context, num_samples=settings.num_samples,
                             temperature=settings.temperature, top_k=settings.top_k, seed=settings.seed)
        # Weibull's: were truth one more path, it would lie below the q-quantile with probability q.
        quantiles = np.quantile(paths, QUANTILES, axis=1, method="weibull").transpose(1, 2, 0)
        naive = naive_forecasts(context, bins.horizon, settings.season, linear_map(asked, number, bins), bins)
        arms = {GPT: quantiles, **naive}
        median = errors_by_window(quantiles[..., 1], future, scale)
        gains = {}
        for name, forecast in naive.items():
            mean, low, high = paired_bootstrap(errors_by_window(forecast, future, scale), median)
            gains[name] = {"mean": mean, "low": low, "high": high}
        result[source] = {"windows": len(context), "clipped": bins.clipped(future, scale),
                          "arms": {name: scores(forecast, future, scale, bins) for name, forecast in arms.items()},
                          "nominal_coverage": QUANTILES[-1] - QUANTILES[0], "mae_saved": gains, "paths": paths.shape[1]}
        name = re.sub(r"[^\w-]+", "-", Path(source).name.removeprefix("generator:"))
        name += f"-{number}" * (name in drawn)  # two tables of one name
        drawn.append(name)
        result[source]["file"] = name
        ends = [end for share in BANDS for end in ((1 - share) / 2, (1 + share) / 2)
                if (1 - share) / 2 * (paths.shape[1] + 1) >= 1]
        bands = np.quantile(paths, ends, axis=1, method="weibull").transpose(1, 2, 0)
        write_arrays(run.directory / f"{name}.npz", {
            "context": context, "future": future, "quantiles": quantiles, "bands": bands,
            "band_quantiles": np.asarray(ends), **naive, **where})
    run.finish(result)
    for name, figure in sampled_figures(run.directory).items():
        save_figure(figure, run.directory / f"{name}.png")
    return result


def main(argv: list[str]) -> None:
    settings = config.parse(SampleForecastsConfig, argv, __doc__)
    result = sample_forecasts(settings)
    for source, found in result.items():
        print(f"\n{source}: {found['windows']} test windows; errors in units of the context's mean absolute value; "
              f"coverage of intervals of nominally {100 * (QUANTILES[-1] - QUANTILES[0]):.0f} %, ends included")
        print(on_screen([{"forecast": name, **row} for name, row in found["arms"].items()]))
        for name, gain in found["mae_saved"].items():
            judgement = "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "not distinguishable"
            print(f"against {name}: MAE {-gain['mean']:+.4f} (95 % of bootstraps over windows: {-gain['high']:+.4f} to "
                  f"{-gain['low']:+.4f}): {judgement}")
    write_report(settings.output_dir)
    source, found = next(iter(result.items()))
    answer = f"{source}, MAE: " + "; ".join(f"{name} {row['mae']:.3g}" for name, row in found["arms"].items())
    print(ending(settings.output_dir, command("make card", {"RUN": settings.output_dir}), answer,
                 results=f"{settings.output_dir}/result.json"))


if __name__ == "__main__":
    cli.run(main)
