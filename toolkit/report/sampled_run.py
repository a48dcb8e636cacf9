"""Forecasts sampled from a GPT of series, drawn from what the run left, in the words and colours of all forecasts."""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from toolkit.errors import UserError
from toolkit.report.figures.forecasts import WINDOWS, Forecaster, Forecasts, Window, forecasts_figure
from toolkit.report.forecast_run import ROWS, banded
from toolkit.run.binary import read_npz
from toolkit.run.files import read_json
from toolkit.run.names import check_name
from toolkit.run.schema import SampledForecasts

GPT, NAIVE = "GPT, median of samples", ("repeat-last", "seasonal naive")
"""Names of forecasts in such a run."""


def sampled_figures(directory: str | Path) -> dict[str, Figure]:
    """Of each source, by the name of its file: a few windows by the GPT with the bands of its paths, by the linear map
    and by the better of the naive rules. Of runs of earlier versions, which kept no bands, none.

    UserError for files that cannot be read.
    """
    directory, found = Path(directory), {}
    for source, entry in read_json(directory / "result.json", dict[str, SampledForecasts]).items():
        if "file" in entry:
            check_name(entry["file"], "the file of a source")
            found[entry["file"]] = _figure(source, entry, directory / f"{entry['file']}.npz")
    return found


def _figure(source: str, entry: SampledForecasts, path: Path) -> Figure:
    def error(name: str) -> float:
        return entry["arms"].get(name, {}).get("mae", math.nan)

    naive = min(NAIVE, key=error)
    saved = _arrays(path, naive)
    known, horizon = saved["context"].shape[1], saved["future"].shape[1]
    bands = banded(saved["band_quantiles"], saved["bands"])
    roles = {GPT: ("pretrained", saved["quantiles"][..., saved["quantiles"].shape[-1] // 2], bands),
             "linear": ("best baseline", saved["linear"], []), naive: ("naive", saved[naive], [])}
    shown = Forecasts(_windows(saved), [Forecaster(name, role, list(answers), around, f"MAE {error(name):.3g}")
                                        for name, (role, answers, around) in roles.items()],
                      "value", "" if source.startswith("generator:") else "(the table's unit)",
                      "" if "times" in saved else ROWS, f"of {entry.get('paths', 0):,} paths")
    name = source if source.startswith("generator:") else Path(source).name
    return forecasts_figure(shown, f"{name}: {horizon} values after {known}; MAE in units of the context's mean size")


def _arrays(path: Path, naive: str) -> dict[str, np.ndarray]:
    """A few windows, evenly over all of them."""
    saved = read_npz(path, "context", "future", "quantiles", "bands", "band_quantiles", "linear", naive)
    count, known = (*saved["context"].shape, 0, 0)[:2]
    horizon = saved["future"].shape[-1] if saved["future"].ndim else 0
    shapes = {"context": (count, known), "future": (count, horizon), "linear": (count, horizon),
              naive: (count, horizon), "bands": (count, horizon, len(saved["band_quantiles"])),
              "times": (count, known + horizon), "column": (count,)}
    if not count or saved["quantiles"].shape[:2] != (count, horizon) or saved["quantiles"].ndim != 3 or any(
            saved[name].shape != shape for name, shape in shapes.items() if name in saved):
        raise UserError(f"{path}: its arrays do not fit each other. Delete it, and result.json beside it, to have them "
                        f"made again.")
    some = np.unique(np.linspace(0, count - 1, WINDOWS).round().astype(int))
    return {"number": some, "band_quantiles": saved["band_quantiles"],
            **{name: saved[name][some] for name in (*shapes, "quantiles") if name in saved}}


def _windows(saved: dict[str, np.ndarray]) -> list[Window]:
    horizon, found = saved["future"].shape[1], []
    known = min(saved["context"].shape[1], max(24, horizon))
    for place, number in enumerate(saved["number"]):
        column = str(saved["column"][place]) if "column" in saved else ""
        times = saved["times"][place][-known - horizon:] if "times" in saved else np.arange(-known, horizon)
        found.append(Window(f"{column} test window {number + 1:,}".strip(), saved["context"][place][-known:],
                            saved["future"][place], times))
    return found
