"""Pictures of forecasts: who is shown, in which units, with which bands; skill that one bad forecast cannot squash."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
from matplotlib.colors import same_color
from matplotlib.dates import ConciseDateFormatter
from matplotlib.text import Text

from toolkit.errors import UserError
from toolkit.report.figures.canvas import PRETRAINED, RANDOM, as_svg, save_figure
from toolkit.report.figures.forecasts import (
    Forecaster,
    Forecasts,
    SkillPanel,
    Window,
    forecasts_figure,
    skill,
    skill_figure,
)
from toolkit.report.forecast_run import forecast_figures, read_forecasts

OLD = small.ROOT / "tests/fixtures/old/forecast/chaos"
HOUR = np.timedelta64(1, "h")


def texts(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def shown(band: float = 1.0) -> Forecasts:
    """Two windows of 6 and 4 hours; two models with bands of 50 and 95 %, a naive rule without."""
    windows, around = [], []
    for start in ("2020-01-31T20", "2021-06-01T00"):
        line = np.arange(10.0)
        windows.append(Window(f"from {start}", line[:6], line[6:], np.datetime64(start, "ns") + HOUR * np.arange(10)))
        around.append({0.95: (line[6:] - band, line[6:] + band), 0.5: (line[6:] - 0.1, line[6:] + 0.1)})
    answers = [np.full(4, 7.0)] * 2
    return Forecasts(windows, [Forecaster("<b>mine</b> $5", "pretrained", answers, around, "test MSE 0.3"),
                               Forecaster("mine-random", "random start", answers, around),
                               Forecaster("seasonal-naive", "naive", answers)], "load_$", time="date")


def test_every_forecaster_is_a_row_with_what_came_its_bands_and_dates(tmp_path):
    figure = forecasts_figure(shown(), "a title")
    assert len(figure.axes) == 6
    for row, bands in ((0, 2), (1, 2), (2, 0)):
        for axes in figure.axes[2 * row:2 * row + 2]:
            assert len(axes.collections) == bands and len(axes.lines) == 3  # what came, the forecast, where it begins
            np.testing.assert_array_equal(axes.lines[0].get_ydata(), np.arange(10.0))
            assert isinstance(axes.xaxis.get_major_formatter(), ConciseDateFormatter)
    for row, colour in ((0, PRETRAINED), (1, RANDOM)):
        assert same_color(figure.axes[2 * row].lines[1].get_color(), colour)
    save_figure(figure, tmp_path / "a.png")
    found = texts(figure)
    for text in ("<b>mine</b> $5 (pretrained), test MSE 0.3", "mine-random (random start)", "seasonal-naive (naive)",
                 "50 %", "95 % band, by residuals on validation", "from 2020-01-31T20 · date", "2020-Feb-01",
                 "load_$\n(the table's unit)"):
        assert text in found, text
    assert "<b>" not in as_svg(figure)


def test_a_band_that_goes_astray_does_not_squash_the_lines():
    axes = forecasts_figure(shown(1000.0)).axes[0]
    low, high = axes.get_ylim()
    assert -10 <= low < 0 and 9 < high <= 19
    low, high = forecasts_figure(shown(3.0)).axes[0].get_ylim()
    assert low < 3 and high > 12


def test_skill_is_what_is_saved_of_the_naive_error():
    np.testing.assert_allclose(skill([0.5, 4.0, 1.0], [1.0, 2.0, 0.0]), [50, -100, np.nan])


def test_one_bad_forecast_does_not_squash_the_others():
    panel = SkillPanel("horizon 3", "seasonal-naive", {
        "seasonal-naive": [1.0, 1.0, 1.0], "repeat-last": [0.5, 50.0, 2.0], "mine": [0.6, 0.7, 0.8],
        "mine-random": [0.7, 0.75, 0.8], "other": [0.9, 0.9, 0.9]},
        {"mine": "pretrained", "mine-random": "random start", "seasonal-naive": "naive"})
    (axes,) = skill_figure([panel]).axes
    low, high = axes.get_ylim()
    assert low > -30 and 40 < high < 103
    found = {text.get_text(): text for text in axes.texts}
    assert found.keys() == {"seasonal-naive = 0", "repeat-last, down to −4,900 %", "mine", "mine-random", "other"}
    places = sorted(text.xy[1] for text in found.values())
    assert np.diff(places).min() > 0.05 * (high - low), "names lie on each other"
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in axes.lines if len(line.get_ydata()) == 3}
    assert (40.0, 30.0, 20.0) in drawn and len(drawn) == 4


def test_skill_goes_down_to_minus_100_for_those_that_have_a_role():
    panel = SkillPanel("", "naive", {"naive": [1.0, 1.0], "mine": [9.0, 3.0]}, {"mine": "pretrained"})
    (axes,) = skill_figure([panel]).axes
    assert axes.get_ylim()[0] == pytest.approx(-106) and "mine, down to −800 %" in [t.get_text() for t in axes.texts]


# --- a run's files -------------------------------------------------------------------------------------------------


def test_a_run_of_an_earlier_version_is_drawn_from_its_files():
    found = forecast_figures(OLD)
    assert list(found) == ["gain", "by-step", "forecasts-8", "training-8", "shuffled"]
    assert re.findall(r"(\S+) \(([\w ]+)\), test MSE", texts(found["forecasts-8"])) == [
        ("small-masked-patches", "pretrained"), ("small-random", "random start"), ("dlinear", "best baseline"),
        ("repeat-last", "naive")]
    rules = small.read_json(OLD / "result.json")
    for rule, where in (("repeat-last", ""), ("seasonal-naive", "above: ")):
        assert f"{where}{rule} {rules[rule]['8']['validation_mse']:.3g}" in texts(found["training-8"]).split("\n")
    before = rules["small-random"]["8"]["dead_branches"]["shuffle"]
    assert f"{before['mse']:#.3g} → {before['shuffled_mse']:#.3g}" in texts(found["shuffled"])
    assert "chaos: did pretraining help?" in texts(found["gain"]) and "repeat-last = 0" in texts(found["by-step"])


def test_forecasts_are_read_in_the_units_of_the_table():
    read = read_forecasts(OLD, 8)
    data = small.read_json(OLD / "manifest.json")["data"]
    with np.load(OLD / "repeat-last/8/forecasts.npz") as saved:
        expected = saved["prediction"][0, -1] * data["deviation"][-1] + data["mean"][-1]
    np.testing.assert_allclose(read.forecasters[-1].predictions[0], expected)
    window = read.windows[0]
    np.testing.assert_allclose(window.context[-1], expected, rtol=1e-6)  # it repeats the last value
    assert len(window.times) == len(window.context) + len(window.truth) and window.times[len(window.context)] == 0


def test_arrays_that_do_not_fit_are_refused_by_their_file(tmp_path):
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    path = run / "small-random/8/seed-0/forecasts.npz"
    with np.load(path) as saved:
        arrays = dict(saved)
    np.savez(path, **{**arrays, "prediction": arrays["prediction"][:, :, :5]})
    with pytest.raises(UserError, match="small-random/8/seed-0/forecasts.npz: its arrays do not fit"):
        read_forecasts(run, 8)


def test_another_kind_of_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no comparison of forecasts that has ended"):
        forecast_figures(small.ROOT / "tests/fixtures/old/gpt")
