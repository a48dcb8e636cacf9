"""Arms on tables over time: models from random and pretrained starts, beside the linear and the naive ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from transformers import BertConfig, PreTrainedModel

from toolkit import config as configuration
from toolkit.baselines.local_linear import LocalLinear
from toolkit.baselines.naive import repeat_last, seasonal_naive
from toolkit.data.series.windows import ForecastData, Split, WindowBatches
from toolkit.errors import UserError, did_you_mean
from toolkit.experiments.settings import STARTS, ForecastRecipeConfig
from toolkit.metrics.intervals import mean_interval, verdict
from toolkit.models.covariates import least_squares
from toolkit.models.series.patches import SeriesForForecasting, SeriesForMaskedPatches
from toolkit.models.small.linear import DLinear, DLinearConfig, NLinear, NLinearConfig
from toolkit.run.directory import Run
from toolkit.run.results import Verdict
from toolkit.tasks.forecasting import ForecastConfig, Forecaster
from toolkit.tasks.masked_patches import pretrain_on_series

LINEAR = {"nlinear": (NLinear, NLinearConfig), "dlinear": (DLinear, DLinearConfig)}
REFERENCE = {"pretrained": "random", "pretrained-frozen": "random-frozen", "masked-patches": "random"}
"""Start → the same model without pretraining, which it is held against where both are run."""
MEANS = ("mse", "mae", "mase", "quantile_loss", "coverage", "seconds")


def check(settings: ForecastRecipeConfig) -> None:
    if not settings.horizons or settings.seeds < 1:
        raise UserError("forecast needs at least one of horizons, and seeds of at least 1.")
    if settings.data.season > settings.context_length:
        raise UserError(f"data.season is {settings.data.season} rows, but context_length {settings.context_length}: "
                        f"the seasonal naive forecast needs a whole season of context.")
    known = [*LINEAR, *(f"{name}-{start}" for name in (*settings.models, "text") for start in STARTS)]
    if unknown := sorted(settings.arm_training.keys() - set(known)):
        raise UserError(f"arm_training: there is no arm '{unknown[0]}'.{did_you_mean(unknown[0], known)}")


# --- arms ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """A forecaster that is trained: one of `LINEAR`, or a model with a start."""

    name: str
    model: str = ""
    start: str = ""
    source: BertConfig | str = ""
    """Shape or checkpoint of the model."""


def arms(settings: ForecastRecipeConfig) -> dict[str, Arm]:
    """Name → arm, the linear ones first; UserError for a shape that a BertConfig does not know."""
    found = {name: Arm(name) for name in settings.linear}
    for model, source in (settings.models | ({"text": settings.text_model} if settings.text_model else {})).items():
        shape = str(source)
        if isinstance(source, dict):
            known = BertConfig().to_dict()
            if unknown := [key for key in source if key not in known]:
                raise UserError(f"models.{model}: '{unknown[0]}' is no field of a BertConfig."
                                f"{did_you_mean(str(unknown[0]), known)}")
            shape = BertConfig(**source)
        for start in settings.starts:
            if not (isinstance(source, dict) and start in ("pretrained", "pretrained-frozen")):
                found[f"{model}-{start}"] = Arm(f"{model}-{start}", model, start, shape)
    return found


def reference_of(arm: Arm, among: dict[str, Arm]) -> str:
    """The arm it must beat, where that is run, too."""
    name = f"{arm.model}-{REFERENCE.get(arm.start)}"
    return name if arm.start in REFERENCE and name in among else ""


def new_model(arm: Arm, source: BertConfig | str | Path, settings: ForecastRecipeConfig, data: ForecastData,
              horizon: int) -> PreTrainedModel:
    """source: the arm's, or a model pretrained on series."""
    model = _plain_model(arm, source, settings, data, horizon)
    if data.covariates is not None:
        ends = [end for end, _, _ in data.borders]
        model.effect.start_from(least_squares(*([part[:, :end] for part, end in zip(parts, ends, strict=True)]
                                                for parts in (data.values, data.covariates))))
    return model


def _plain_model(arm: Arm, source: BertConfig | str | Path, settings: ForecastRecipeConfig, data: ForecastData,
                 horizon: int) -> PreTrainedModel:
    channels, known = len(data.columns), 0 if data.covariates is None else len(data.covariates[0])
    if arm.name in LINEAR:
        model, model_config = LINEAR[arm.name]
        return model(model_config(context_length=settings.context_length, horizon=horizon, num_covariates=known,
                                  num_channels=channels))
    random = arm.start.startswith("random") or source == arm.source and arm.start == "masked-patches"
    model = SeriesForForecasting.from_backbone(
        source, pretrained=not random, num_channels=channels, context_length=settings.context_length, horizon=horizon,
        num_covariates=known, **configuration.to_dict(settings.series))
    if arm.start.endswith("-frozen"):
        model.freeze_all_but_norms_and_positions()
    return model


def training_of(arm: str, settings: ForecastRecipeConfig) -> ForecastConfig:
    return configuration.from_dict(ForecastConfig, configuration.with_values(
        configuration.to_dict(settings.training), settings.arm_training.get(arm) or {}), "config",
        f"arm_training.{arm}.")


def pretrained_on_series(arm: Arm, settings: ForecastRecipeConfig, data: ForecastData, run: Run,
                         accelerator: Accelerator, seed: int) -> Path:
    """A model pretrained by hidden patches of the train rows, chosen by those of validation; once for all horizons."""
    make = partial(SeriesForMaskedPatches.from_backbone, arm.source, pretrained=False, num_channels=len(data.columns),
                   **configuration.to_dict(settings.series))
    parts = []
    for split in ("train", "validation"):
        windows = WindowBatches(data, split, settings.context_length, 1)
        # Windows that begin within the same patch hold the same patches but for their place.
        parts.append(windows.rows(np.arange(0, len(windows), settings.series.patch_length)))
    train, validation = parts
    pretrain_on_series(make, train["values"], validation["values"], settings.pretraining, settings.impl, run,
                       accelerator, seed, f"{arm.name}, pretraining, seed {seed}", train.get("observed"),
                       validation.get("observed"))
    return run.model_dir


def untrained(windows: Mapping[Split, WindowBatches], horizon: int, season: int) -> dict[str, Forecaster]:
    """The naive rules and, for several series, a linear map for each by itself."""
    local = {"local-linear": LocalLinear(windows)} if len(windows["train"].data.names) > 1 else {}
    return {"repeat-last": lambda values, observed, **known: repeat_last(values, horizon, observed),
            "seasonal-naive": lambda values, observed, **known: seasonal_naive(values, horizon, season, observed),
            **local}


# --- what forecast reports -----------------------------------------------------------------------------------------


def summarise(fits: dict[str, dict[int, list[dict]]], references: dict[str, str]) -> dict:
    """Arm → horizon → means over seeds, with intervals; where it has a reference, the gain over that in percent."""
    summary: dict = {}
    for arm, by_horizon in fits.items():
        for horizon, of_seed in by_horizon.items():
            entry: dict = {"seeds": len(of_seed), **{key: of_seed[0][key] for key in (
                "test_windows", "parameters", "trained_parameters")}}
            for key in MEANS:
                values = [fit[key] for fit in of_seed if fit.get(key) is not None]
                if values:
                    interval = mean_interval(values).as_dict()
                    entry |= {key: interval["mean"], f"{key}_ci95": interval["ci95"], f"{key}_values": values}
            entry["validation_mse"] = mean_interval([fit["validation"]["mse"] for fit in of_seed]).mean
            entry["nominal_coverage"] = of_seed[0]["nominal_coverage"]
            entry["mase_left_out"] = of_seed[0].get("mase_left_out", [])  # of earlier versions: not known
            for key in ("mse_by_step", "mae_by_step", "quantile_loss_by_step", "coverage_by_step"):
                entry[key] = np.mean([fit[key] for fit in of_seed], 0).tolist()
            if "dead_branches" in of_seed[0]:
                entry["dead_branches"] = of_seed[0]["dead_branches"]
            if reference := references.get(arm):
                gain = mean_interval([100 * (1 - fit["mse"] / other["mse"])
                                      for fit, other in zip(of_seed, fits[reference][horizon], strict=True)])
                entry |= {"reference": reference, "gain_percent": gain.as_dict(),
                          "verdict": verdict(gain, f"{arm} over {reference}, horizon {horizon}:", "% of its MSE")}
            summary.setdefault(arm, {})[str(horizon)] = entry
    return summary


def verdicts(summary: dict) -> list[Verdict]:
    return [Verdict(arm, entry["verdict"], size=horizon) for arm, by_horizon in summary.items()
            for horizon, entry in by_horizon.items() if "verdict" in entry]
