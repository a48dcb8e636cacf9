"""A run of forecasts as its files tell it: which forecasters are shown, their answers to test windows, its pictures.

    for name, figure in forecast_figures("runs/forecast/etth1").items():
        save_figure(figure, f"etth1-{name}.png")        # gain, by-step, forecasts-96, training-96, shuffled
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from toolkit.config import read_yaml
from toolkit.errors import UserError
from toolkit.report.figures.forecasts import (
    WINDOWS,
    Forecaster,
    Forecasts,
    SkillPanel,
    Window,
    forecasts_figure,
    skill_figure,
)
from toolkit.report.figures.gains import gain_figure, panels_of
from toolkit.report.figures.series import shuffle_figure
from toolkit.report.figures.training import Curve, curves_of, fits_figure
from toolkit.run.binary import read_npz
from toolkit.run.directory import Run, read_metrics
from toolkit.run.files import read_json
from toolkit.run.results import Results, Row, read_results
from toolkit.run.schema import ForecastEntry, Manifest

NAIVE = ("repeat-last", "seasonal-naive")
"""The rules that stand beside every forecast."""
ROWS = "rows, the forecast from 0"
"""What the axis is called where rows have no times."""
_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def forecast_figures(directory: str | Path) -> dict[str, Figure]:
    """All pictures of a comparison that has ended, by what they show: gain, by-step, forecasts and training of each
    horizon and, where the dead-branch check ran, what shuffled patches cost.
    """
    results, entries = _measured(directory)
    name = results.experiment
    horizons = list(dict.fromkeys(row.size for row in results.rows))
    found = {"gain": gain_figure([replace(panel, metric="MSE", axis="test MSE (standardised)")
                                  for panel in panels_of(results.rows, "mse", results.sizes)],
                                 f"{name}: did pretraining help?")}
    panels, shown = [], {horizon: read_forecasts(directory, horizon) for horizon in horizons}
    for horizon in horizons:
        roles = {forecaster.name: forecaster.role for forecaster in shown[horizon].forecasters}
        naive = next(arm for arm, role in roles.items() if role == "naive")
        panels.append(SkillPanel(f"horizon {horizon}", naive, {
            arm: by_horizon[horizon]["mse_by_step"] for arm, by_horizon in entries.items() if horizon in by_horizon},
            roles))
    found["by-step"] = skill_figure(panels, f"{name}: skill by step, over the naive rule",
                                    "test MSE", f"{_apart(shown[horizons[0]].windows[0].times) or 'rows'} ahead")
    for horizon in horizons:
        found[f"forecasts-{horizon}"] = forecasts_figure(shown[horizon],
                                                         f"{name}: test windows, horizon {horizon}, first seed")
        if figure := fits_figure(*_fits(directory, results, entries, horizon), f"{name}: training, horizon {horizon}"):
            found[f"training-{horizon}"] = figure
    checked = {f"{arm}, horizon {horizon}": entry["dead_branches"] for arm, by_horizon in entries.items()
               for horizon, entry in by_horizon.items() if "dead_branches" in entry}
    if figure := shuffle_figure(checked, f"{name}: what the order of patches is worth"):
        found["shuffled"] = figure
    return found


def _fits(directory: str | Path, results: Results, entries: dict[str, dict[str, ForecastEntry]], horizon: str
          ) -> tuple[dict[str, list[list[dict]]], list[Curve]]:
    """Arm → the records of each seed; the curve of their loss, with what the naive rules give on validation."""
    run, fits = Run(directory, False), {}
    for row in results.rows:
        if row.size == horizon and row.parameters:
            place = run.part(f"{row.arm}/{horizon}/seed-{row.seed}")
            fits.setdefault(row.arm, []).append(read_metrics(place.metrics_path))
    every = [record for seeds in fits.values() for records in seeds for record in records]
    return fits, curves_of(every, references={rule: entries[rule][horizon]["validation_mse"] for rule in NAIVE
                                              if horizon in entries.get(rule, {})})


def read_forecasts(directory: str | Path, horizon: int | str) -> Forecasts:
    """The user's pretrained and random model, the best baseline and the naive rule on a few test windows, the last
    channel of each, in the table's units.

    UserError where the run has not ended, or a file of it cannot be read.
    """
    results, entries = _measured(directory)
    horizon, run = str(horizon), Run(directory, False)
    data = read_json(run.directory / "manifest.json", Manifest).get("data") or {}
    windows, forecasters = [], []
    for arm, role in _chosen(results, entries, horizon).items():
        row = next(row for row in results.rows if (row.arm, row.size) == (arm, horizon))
        place = run.part(f"{arm}/{horizon}" + ("/seed-0" if row.parameters else "")).directory / "forecasts.npz"
        saved = _in_units(place, data)
        windows = windows or _windows(saved, data)
        around = banded(saved["band_quantiles"], saved["bands"]) if "bands" in saved else []
        entry = entries[arm][horizon]
        mase = entry.get("mase")
        forecasters.append(Forecaster(arm, role, list(saved["prediction"]), around, ", ".join(
            [f"test MSE {entry['mse']:.3g}", *([] if mase is None else [f"MASE {mase:.3g}"])])))
    column = (data.get("columns") or [""])[-1]
    table = read_yaml(run.directory / "config.yaml").get("data") or {}
    time = str(table.get("time_column") or "") if "times" in saved else ROWS
    return Forecasts(windows, forecasters, column, "(the table's unit)" if table.get("path") else "", time)


def _measured(directory: str | Path) -> tuple[Results, dict[str, dict[str, ForecastEntry]]]:
    directory = Path(directory)
    results = read_results(directory)
    if results is None or results.metric != "mse" or results.sizes != "horizon":
        raise UserError(f"{directory}: is no comparison of forecasts that has ended. Make one: make forecast.")
    entries = read_json(directory / "result.json", dict[str, dict[str, ForecastEntry]])
    rows = [row if row.reference else replace(row, reference=entries.get(row.arm, {}).get(row.size, {}).get(
        "reference", "")) for row in results.rows]  # in runs of earlier versions only the entry names it
    return replace(results, rows=rows), entries


def _chosen(results: Results, entries: dict[str, dict[str, ForecastEntry]], horizon: str) -> dict[str, str]:
    """Forecaster → what it is shown as: of the models the pair that is best on validation, and its random start; the
    best baseline; the better of the naive rules.
    """
    rows = {row.arm: row for row in results.rows if row.size == horizon and horizon in entries.get(row.arm, {})}

    def best(arms: list[Row]) -> Row | None:
        return min(arms, key=lambda row: entries[row.arm][horizon]["validation_mse"], default=None)

    models = [row for row in rows.values() if row.model]
    shown = {}
    if model := best([row for row in models if row.reference in rows]):
        shown = {model.arm: "pretrained", model.reference: "random start"}
    elif model := best(models):
        shown = {model.arm: "random start" if model.start.startswith("random") else "model"}
    others = [row for row in rows.values() if not row.model]
    if baseline := best([row for row in others if row.arm not in NAIVE]):
        shown[baseline.arm] = "best baseline"
    naive = best([row for row in others if row.arm in NAIVE])
    if naive is None:
        raise UserError(f"{results.experiment}: neither of {', '.join(NAIVE)} is among its arms.")
    return {**shown, naive.arm: "naive"}


def _in_units(path: Path, data: dict) -> dict[str, np.ndarray]:
    """The arrays of a forecasts.npz, of its last channel and of a few windows, in the table's units; NaN where nothing
    was observed.
    """
    saved = read_npz(path, "index", "values", "future", "prediction", "quantiles")
    count, channels, horizon = saved["future"].shape if saved["future"].ndim == 3 else (0, 0, 0)
    context = saved["values"].shape[-1] if saved["values"].ndim else 0
    shapes = {"index": (count,), "series": (count,), "values": (count, channels, context),
              "observed": (count, channels, context), "future_observed": (count, channels, horizon),
              "prediction": (count, channels, horizon), "times": (count, context + horizon)}
    means, deviations = (np.asarray(data.get(key) or [], float) for key in ("mean", "deviation"))
    known = len(saved.get("band_quantiles", ()))
    if (not count or any(saved[name].shape != shape for name, shape in shapes.items() if name in saved)
            or "bands" in saved and saved["bands"].shape != (count, channels, horizon, known)
            or means.shape != deviations.shape or means.shape[-1:] != (channels,)):
        raise UserError(f"{path}: its arrays do not fit each other and manifest.json. Delete it, and result.json "
                        f"beside it, to have it made again.")
    some = np.unique(np.linspace(0, count - 1, WINDOWS).round().astype(int))
    series = saved["series"][some] if means.ndim == 2 and "series" in saved else None
    mean, deviation = ((part[-1] if series is None else part[series, -1]) for part in (means, deviations))
    found = {name: array[some] for name, array in saved.items() if name in ("index", "series", "times")}
    for name in ("values", "future", "prediction", "bands"):
        if name in saved:
            found[name] = (saved[name][some, -1].astype(float).T * deviation + mean).T
    for name, of in (("observed", "values"), ("future_observed", "future")):
        if name in saved:
            found[of] = np.where(saved[name][some, -1], found[of], np.nan)
    return found | {name: saved[name] for name in ("band_quantiles",) if name in saved}


def _windows(saved: dict[str, np.ndarray], data: dict) -> list[Window]:
    names, horizon = data.get("series") or [""], saved["future"].shape[1]
    known = min(saved["values"].shape[1], max(24, horizon))  # so that the forecast fills half of the picture
    found = []
    for number, index in enumerate(saved["index"]):
        series = names[int(saved["series"][number])] if "series" in saved and len(names) > 1 else ""
        times = saved["times"][number][-known - horizon:] if "times" in saved else np.arange(-known, horizon)
        found.append(Window(f"{series} test window {index + 1:,}".strip(), saved["values"][number][-known:],
                            saved["future"][number], times))
    return found


def banded(quantiles: np.ndarray, around: np.ndarray) -> list[dict[float, tuple[np.ndarray, np.ndarray]]]:
    """quantiles (k,) and their values (windows, horizon, k) → of each window, by the share that they hold, the ends of
    bands, the widest first; only such as leave out as much on either side.
    """
    levels = [round(float(level), 6) for level in quantiles]
    pairs = {round(1 - 2 * level, 6): (place, levels.index(round(1 - level, 6))) for place, level in enumerate(levels)
             if level < 0.5 and round(1 - level, 6) in levels}
    return [{share: (ends[:, low], ends[:, high]) for share, (low, high) in sorted(pairs.items(), reverse=True)}
            for ends in around]


def _apart(times: np.ndarray) -> str:
    """How far apart the rows of a window are, in words."""
    steps = np.diff(times)
    if times.dtype.kind != "M" or not len(steps):
        return ""
    if (steps != steps[0]).any():
        day = np.timedelta64(1, "D")
        return "months" if steps.min() >= 28 * day and steps.max() <= 31 * day else ""
    seconds = steps[0] / np.timedelta64(1, "s")
    unit, size = next((found for found in _UNITS if seconds % found[1] == 0), _UNITS[-1])
    return f"{unit}s" if seconds == size else f"steps of {seconds / size:g} {unit}s"
