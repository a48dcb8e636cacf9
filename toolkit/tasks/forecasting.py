"""Forecasting as a task of the loop; test errors and intervals of whatever forecasts, trained or not."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from toolkit.data.series.windows import ForecastData, Split, WindowBatches
from toolkit.errors import UserError
from toolkit.metrics.forecast_sums import ForecastScores, calibration_stride, known_quantiles, residual_quantiles
from toolkit.models.small.linear import carried_forward
from toolkit.pretrained import save_model
from toolkit.run.directory import Run
from toolkit.run.files import write_atomic
from toolkit.tasks.base import Description, ViewedTask, fit, write_arrays
from toolkit.tasks.settings import ForecastConfig
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.impl.precision import ImplConfig, Precision, choose
from toolkit.training.observers.base import LossShown

Forecaster = Callable[..., torch.Tensor]
"""values and observed (b, channels, context) and, by name, covariates (b, features, context + horizon) where something
is known ahead → prediction (b, channels, horizon). One with `inputs` names what of a batch it takes, `series` (b,), the
number of each window's series, among it."""
INTERVALS = "intervals.json"
"""Beside a model: what to add to its forecasts for their quantiles."""

INPUTS = ("values", "observed", "covariates")
"""Of a batch: what a forecaster sees."""
EXAMPLES = 4
"""Test windows, evenly spread from the first to the last, of which whole forecasts are kept for plots."""
BANDS = (0.5, 0.8, 0.95)
"""Shares of values that the intervals of these hold, as far as validation has residuals enough."""


DESCRIPTIONS = (Description(
    "forecast", lambda name, module, values: bool(values.get("horizon")), "time-series-forecasting",
    lambda inside, size, start, figures: f"A model of {size} that forecasts time series.",
    "the error of the forecast", unit="values"),)


class ForecastingTask(ViewedTask):
    """Squared error on `train`; evaluated, and the best model chosen, on `validation`. The test set is not in here."""

    best_metric = "mse"

    def __init__(self, model: PreTrainedModel, train: WindowBatches, validation: WindowBatches):
        self.model, self.validation, self.batch = model, validation, train.batch
        model.config.update(train.data.model_input())
        self.loss_shown = LossShown("mse", validation="eval_mse", guessing=_error_of_repeating(validation),
                                    guess="repeat last")

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        observed = batch.get("future_observed")
        return {"forecast": int(batch["future"].size if observed is None else observed.sum())}

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        prediction = model(**inputs).prediction
        errors = torch.square(prediction.float() - batch["future"])
        if "future_observed" in batch:
            errors = errors * batch["future_observed"]
        return {"forecast": errors.sum()}

    def evaluate(self, model: PreTrainedModel, accelerator: Accelerator, precision: Precision) -> dict[str, float]:
        scores = errors(as_forecaster(model), self.validation, accelerator, precision).result()
        return {name: scores[name] for name in ("mse", "mae")}

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        save_model(model, directory)


def _error_of_repeating(windows: WindowBatches) -> float:
    """The mean squared error of the last value again and again, on some windows from all over the split."""
    batch = as_tensors(windows.rows(np.unique(np.linspace(0, len(windows) - 1, 32).round().astype(int))))
    errors = (carried_forward(batch["values"], batch.get("observed"))[..., -1:] - batch["future"]) ** 2
    return float(errors[batch["future_observed"]].mean() if "future_observed" in batch else errors.mean())


def as_forecaster(model: PreTrainedModel) -> Forecaster:
    return lambda values, observed, **known: model(values=values, observed=observed, **known).prediction


def predicted(forecast: Forecaster, batch: dict[str, np.ndarray], device: torch.device, precision: Precision
              ) -> np.ndarray:
    """float32 (b, channels, horizon): what is scored, and what is predicted after a table's end."""
    wanted = getattr(forecast, "inputs", INPUTS)
    inputs = to_device(as_tensors({name: batch[name] for name in wanted if name in batch}), device)
    with torch.inference_mode(), precision.autocast(), precision.uncompiled():
        prediction = forecast(inputs.pop("values"), inputs.pop("observed", None), **inputs)
    return prediction.float().cpu().numpy()


def forecasts(forecast: Forecaster, windows: WindowBatches, accelerator: Accelerator, precision: Precision,
              batch_size: int = 256) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]]:
    """(index, batch, prediction) of this rank's share of all windows; over all ranks each is there once."""
    for index, batch in windows.in_order(batch_size, accelerator.process_index, accelerator.num_processes):
        batch = {**batch, "series": windows.series_of(index)}
        yield index, batch, predicted(forecast, batch, accelerator.device, precision)


def errors(forecast: Forecaster, windows: WindowBatches, accelerator: Accelerator, precision: Precision,
           quantiles: list[float] | None = None, offsets: np.ndarray | None = None) -> ForecastScores:
    """Over all windows of the split, the same on every rank."""
    quantiles, units = quantiles or [], windows.data.naive_error()
    scores = ForecastScores(units.shape[1], windows.horizon, quantiles)
    for index, batch, prediction in forecasts(forecast, windows, accelerator, precision):
        scores.add(prediction, batch["future"], batch.get("future_observed"), units[windows.series_of(index)], offsets)
    if accelerator.num_processes > 1:
        states = gather_object([scores.state()])
        scores = ForecastScores(units.shape[1], windows.horizon, quantiles).merge(states)
    return scores


def residuals_of(forecast: Forecaster, validation: WindowBatches, accelerator: Accelerator, precision: Precision
                 ) -> np.ndarray:
    """(n, channels, horizon) true − predicted values on validation, NaN where not observed: all, or evenly chosen."""
    stride = calibration_stride(len(validation), len(validation.data.columns), validation.horizon)
    kept = []
    for index, batch, prediction in forecasts(forecast, validation, accelerator, precision):
        chosen = index % stride == 0
        residuals = (batch["future"] - prediction)[chosen]
        if "future_observed" in batch:
            residuals = np.where(batch["future_observed"][chosen], residuals, np.nan)
        kept.append(residuals)
    if accelerator.num_processes > 1:
        kept = gather_object(kept)
    return np.concatenate(kept)


def held_out(forecast: Forecaster, windows: Mapping[Split, WindowBatches], config: ForecastConfig,
             accelerator: Accelerator, precision: Precision) -> tuple[dict, dict[str, np.ndarray], np.ndarray]:
    """What a run's result.json holds of a forecaster that is chosen and will not change: intervals from validation,
    errors on every test window; a few whole forecasts; and the intervals' offsets (channels, horizon, quantiles).
    """
    quantiles = config.quantiles
    if not quantiles or any(b <= a for a, b in zip([0, *quantiles], [*quantiles, 1], strict=True)):
        raise UserError(f"training.quantiles is {quantiles}; expected numbers between 0 and 1 in rising order.")
    residuals = residuals_of(forecast, windows["validation"], accelerator, precision)
    around = residual_quantiles(residuals, [*quantiles, *(drawn := bands_of(residuals, quantiles))])
    offsets, of_bands = around[..., :len(quantiles)], around[..., len(quantiles):]
    on_validation = errors(forecast, windows["validation"], accelerator, precision).result()
    test = windows["test"]
    scores = errors(forecast, test, accelerator, precision, quantiles, offsets).result()
    result = {**scores, "nominal_coverage": quantiles[-1] - quantiles[0],
              "mase_left_out": _without_unit(test.data),
              "test_windows": len(test), "validation_windows": len(windows["validation"]),
              "validation": {name: on_validation[name] for name in ("mse", "mae")}}
    index = np.unique(np.linspace(0, len(test) - 1, EXAMPLES).round().astype(int))
    batch = {**test.rows(index), "series": test.series_of(index)}
    prediction = predicted(forecast, batch, accelerator.device, precision)
    times = test.times(index)
    return result, {"index": index, **batch, **({} if times is None else {"times": times}), "prediction": prediction,
                    "quantiles": with_offsets(prediction, offsets), "band_quantiles": np.asarray(drawn),
                    "bands": with_offsets(prediction, of_bands)}, offsets


def bands_of(residuals: np.ndarray, quantiles: list[float]) -> list[float]:
    """The quantiles, rising, that the intervals of `BANDS` end at, with the outermost of those that are scored."""
    ends = [round(0.5 + side * share / 2, 6) for share in BANDS for side in (-1, 1)]
    return sorted({*known_quantiles(residuals, ends), quantiles[0], quantiles[-1]})


def with_offsets(prediction: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(b, channels, horizon), (channels, horizon, quantiles) → float32 (b, channels, horizon, quantiles)."""
    return (prediction[..., None] + offsets).astype(np.float32)


def _without_unit(data: ForecastData) -> list[str]:
    """The columns that MASE leaves out, since the seasonal naive error on train is 0 or not known."""
    units = data.naive_error()
    counts = len(units) - (units > 0).sum(0)
    return [name + f" (of {count:,} of {len(units):,} series)" * (len(units) > 1)
            for name, count in zip(data.columns, counts, strict=True) if count]


def score_forecaster(forecast: Forecaster, windows: Mapping[Split, WindowBatches], config: ForecastConfig,
                     impl: ImplConfig, run: Run, accelerator: Accelerator) -> dict:
    """As `fit_forecaster`, of what needs no training. A finished run is not repeated."""
    if run.result():
        return run.result()
    result, examples, _ = held_out(forecast, windows, config, accelerator, choose(impl, accelerator.device))
    _save_examples(run, examples)
    return run.finish({**result, "parameters": 0, "trained_parameters": 0})


def fit_forecaster(make_model: Callable[[], PreTrainedModel], windows: Mapping[Split, WindowBatches],
                   config: ForecastConfig, impl: ImplConfig, run: Run, accelerator: Accelerator, seed: int, name: str,
                   keep_model: bool = False) -> dict:
    """One model on one seed: train, take what was best on validation, and touch the test set once.

    Returns, and leaves in the run's result.json, errors on every test window, on standardised values: mse, mae, mase
    (in units of the seasonal naive error on train), quantile loss, coverage, all of them also by step; forecasts.npz
    holds a few whole forecasts. A finished run is not repeated.
    """
    def tested(learning: ForecastingTask, best: PreTrainedModel, spent: dict[str, float], precision: Precision) -> dict:
        parameters = list(learning.model.parameters())
        result, examples, offsets = held_out(as_forecaster(best.eval()), windows, config, accelerator, precision)
        _save_examples(run, examples)
        if run.is_main:
            write_atomic(run.model_dir / INTERVALS, json.dumps({"quantiles": config.quantiles,
                                                                "offsets": offsets.tolist()}))
        return {**result, "parameters": sum(p.numel() for p in parameters),
                "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
                **{name: spent[name] for name in ("steps", "seconds")}}

    return fit(lambda: ForecastingTask(make_model(), windows["train"], windows["validation"]), config, impl, run,
               accelerator, seed, name, tested, keep_model)


def _save_examples(run: Run, examples: dict[str, np.ndarray]) -> None:
    if run.is_main:
        write_arrays(run.directory / "forecasts.npz", examples)
