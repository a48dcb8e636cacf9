"""A forecast after a table's end is the one that was scored: in its units, by its clock, with its intervals."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, GPT2Config

from toolkit.data.series.windows import ForecastDataSection, load_forecast_data, window_splits
from toolkit.errors import UserError
from toolkit.experiments.forecasts import Arm, ForecastRecipeConfig, new_model
from toolkit.inference.predict import PredictConfig, predict
from toolkit.inference.table_forecasts import forecast_table
from toolkit.models.series.patches import SeriesForForecasting
from toolkit.run.directory import Run
from toolkit.run.files import read_json
from toolkit.tasks.forecasting import ForecastConfig, fit_forecaster
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig

CONTEXT, HORIZON, ROWS = 24, 6, 240
SHAPES = {"bert": BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16),
          "gpt": GPT2Config(n_embd=8, n_layer=1, n_head=2)}


def waves(rows=ROWS, scale=1.0, seed=0, start="2021-01-01", freq="h"):
    t, random = np.arange(rows), np.random.default_rng(seed)
    return pd.DataFrame({"date": pd.date_range(start, periods=rows, freq=freq),
                         "load": scale * (500 + 100 * np.sin(t / 4) + 10 * random.normal(size=rows)),
                         "temperature": 10 + np.cos(t / 4) + random.normal(size=rows) / 10})


def panel(rows=ROWS):
    return pd.concat([waves(rows, scale, seed).assign(store=name)
                      for seed, (name, scale) in enumerate((("north", 1), ("south", 100)))])


def fitted(folder, frame, kind="nlinear", horizon=HORIZON, steps=20, **section):
    """(model's directory, result, forecasts of test windows, data)"""
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "train.csv", index=False)
    data = load_forecast_data(ForecastDataSection(str(folder / "train.csv"), season=12, **section), lambda line: None)
    settings = ForecastRecipeConfig(context_length=CONTEXT)
    settings.series.patch_length, settings.series.patch_stride = 8, 4
    arm = Arm(kind) if kind in ("nlinear", "dlinear") else Arm("tiny-random", "tiny", "random", SHAPES[kind])
    windows = window_splits(data, CONTEXT, horizon, 16, 0)
    result = fit_forecaster(lambda: new_model(arm, arm.source, settings, data, horizon), windows,
                            ForecastConfig(max_steps=steps, eval_steps=0, batch_size=16, learning_rate=1e-2),
                            ImplConfig(dtype="fp32"), Run(folder / "run"), make_accelerator(), 0, kind, keep_model=True)
    with np.load(folder / "run/forecasts.npz") as saved:
        return str(folder / "run/model"), result, dict(saved), data


def asked(model, frame, folder, notes=None, **options):
    frame.to_csv(folder / "ask.csv", index=False)
    return forecast_table(model, str(folder / "ask.csv"), note=(notes if notes is not None else []).append, **options)


def in_units(data, series, array):
    mean, deviation = data.scale_of(series)
    return (array.astype(np.float64).T * deviation + mean).T if array.ndim == 2 else \
        array * deviation[:, None, None] + mean[:, None, None]


def assert_scored(answer, saved, data, place):
    """The forecast of a saved test window, of which `answer` is one series' part, to 1e-5 of a deviation."""
    deviation = data.scale_of(saved["series"][place])[1]
    wide = answer.pivot(index="step", columns="channel", values="value")[list(data.columns)].to_numpy().T
    expected = in_units(data, saved["series"][place], saved["prediction"][place])
    np.testing.assert_allclose(wide / deviation[:, None], expected / deviation[:, None], atol=1e-5)
    for number, quantile in enumerate((0.1, 0.5, 0.9)):
        wide = answer.pivot(index="step", columns="channel", values=f"q({quantile})")[list(data.columns)].to_numpy().T
        expected = in_units(data, saved["series"][place], saved["quantiles"][place][..., number])
        np.testing.assert_allclose(wide / deviation[:, None], expected / deviation[:, None], atol=1e-5)


@pytest.fixture(scope="module")
def hourly(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hourly")
    return folder, *fitted(folder, waves())


# ---- the very numbers that were scored


@pytest.mark.parametrize("kind", ["nlinear", "dlinear", "bert", "gpt"])
def test_the_scored_forecast(tmp_path, kind):
    frame = waves()
    model, _, saved, data = fitted(tmp_path / kind, frame, kind)
    answer = asked(model, frame[:-HORIZON], tmp_path)  # the last test window is what comes after
    assert_scored(answer, saved, data, -1)
    assert answer["time"].drop_duplicates().tolist() == frame["date"][-HORIZON:].tolist()
    assert answer["channel"][:2].tolist() == ["load", "temperature"] and len(answer) == 2 * HORIZON
    assert (answer["q(0.1)"] <= answer["q(0.9)"]).all()


def test_columns_in_another_order_and_beside_others_are_the_same_channels(hourly, tmp_path):
    _, model, _, saved, data = hourly
    frame = waves()[:-HORIZON].assign(note="x")[["temperature", "note", "date", "load"]]
    assert_scored(asked(model, frame, tmp_path), saved, data, -1)


@pytest.mark.parametrize("scale", ["all", "series"])
@pytest.mark.parametrize("kind", ["nlinear", "bert"])
def test_a_panels_scored_forecasts(tmp_path, kind, scale):
    frame = panel()
    model, _, saved, data = fitted(tmp_path / "panel", frame, kind, scale=scale)
    cut = frame.groupby("store").head(ROWS - HORIZON).sort_values(["date", "store"])
    for size in (1, 32):
        answer = asked(model, cut, tmp_path, batch_size=size)
        assert set(answer["series"]) == {"north", "south"}
        assert_scored(answer[answer["series"] == "south"], saved, data, -1)  # the last of all test windows


def test_masked_values_and_absent_rows_are_read_as_in_training(tmp_path):
    frame = waves()
    frame.loc[[100, ROWS - 10], "load"] = np.nan
    frame = frame.drop(index=[50, ROWS - 15])
    notes = []
    model, _, saved, data = fitted(tmp_path / "gaps", frame, missing="mask")
    assert data.values[0].shape[1] == ROWS  # the absent rows stand in their places
    assert_scored(asked(model, frame[:-HORIZON], tmp_path, notes), saved, data, -1)
    assert any("rows are absent" in note for note in notes)


def test_predict_dispatches_and_the_quantiles_are_of_validation(hourly, tmp_path):
    folder, model, _, saved, data = hourly
    waves()[:-HORIZON].to_csv(tmp_path / "cut.csv", index=False)
    assert_scored(predict(PredictConfig(model, str(tmp_path / "cut.csv"))), saved, data, -1)
    written = read_json(folder / "run/model/intervals.json")
    assert written["quantiles"] == [0.1, 0.5, 0.9] and np.shape(written["offsets"]) == (2, HORIZON, 3)


# ---- times to come


@pytest.mark.parametrize("freq", ["15min", "D", "W-SUN", "B", "MS", "QS-OCT"])
def test_times_continue_the_tables_steps(tmp_path, freq):
    frame = waves(freq=freq)
    model, *_ = fitted(tmp_path / "run", frame, steps=1)
    answer = asked(model, frame[:-HORIZON], tmp_path)
    assert answer["time"].drop_duplicates().tolist() == frame["date"][-HORIZON:].tolist()


def test_numbers_zones_and_tables_without_times(tmp_path):
    frame = waves().assign(date=np.arange(ROWS) * 5 + 3)
    model, *_ = fitted(tmp_path / "numbers", frame, steps=1)
    assert asked(model, frame, tmp_path)["time"].tolist()[::2] == [1203, 1208, 1213, 1218, 1223, 1228]
    zoned = waves()
    zoned["date"] = zoned["date"].dt.strftime("%Y-%m-%dT%H:%M:%S+02:00")
    model, *_ = fitted(tmp_path / "zoned", zoned, steps=1)
    assert asked(model, zoned, tmp_path)["time"][0] == pd.Timestamp("2021-01-10T22:00:00Z")
    model, *_ = fitted(tmp_path / "none", waves().drop(columns="date"), steps=1, time_column="")
    answer = asked(model, waves().drop(columns="date"), tmp_path)
    assert "time" not in answer and answer["step"].tolist()[::2] == [1, 2, 3, 4, 5, 6]


# ---- what is refused, and what is told


@pytest.mark.parametrize(("change", "found"), [
    (lambda frame: frame[:20], "has 20 rows, but .* forecasts from 24"),
    (lambda frame: frame.rename(columns={"load": "Load"}), "has no column 'load', which .* forecasts; it learned load"),
    (lambda frame: waves(freq="D"), "lie 'D' apart, but .* lie 'h' apart. Resample"),
    (lambda frame: frame.drop(index=[ROWS - 9]), r"ask.csv, line 233: rows are absent before it: 1,"),
    (lambda frame: frame.assign(load=frame["load"].where(frame.index != ROWS - 3)),
     "line 239, column 'load': no finite number")])
def test_what_cannot_be_answered_is_refused(hourly, tmp_path, change, found):
    with pytest.raises(UserError, match=found):
        asked(hourly[1], change(waves()), tmp_path)


def test_a_flat_channel_is_told(hourly, tmp_path):
    notes = []
    asked(hourly[1], waves().assign(load=7.0), tmp_path, notes)
    assert any("column 'load' is constant in the 24 rows" in note for note in notes)
    assert any("channels load, temperature" in note for note in notes)


def test_a_model_without_its_scale_is_refused(hourly, tmp_path):
    SeriesForForecasting.from_backbone(SHAPES["bert"], pretrained=False, context_length=24, horizon=2, patch_length=8
                                       ).save_pretrained(tmp_path / "old")
    with pytest.raises(UserError, match="does not hold the scale"):
        asked(str(tmp_path / "old"), waves(), tmp_path)


# ---- what is known ahead


def promotions(rows=400):
    """Noise, and 300 more where there is a promotion, which nothing but its column tells."""
    random = np.random.default_rng(0)
    promo = (random.random(rows) < 0.3).astype(float)
    return pd.DataFrame({"date": pd.date_range("2021-01-01", periods=rows, freq="h"),
                         "sales": 1000 + 300 * promo + random.normal(size=rows), "promo": promo})


@pytest.mark.parametrize("kind", ["nlinear", "dlinear", "bert"])
def test_a_future_that_is_only_in_the_covariate(tmp_path, kind):
    frame = promotions()
    without = fitted(tmp_path / "without", frame, kind, target_columns=["sales"])[1]["mse"]
    model, result, saved, data = fitted(tmp_path / "with", frame, kind, future_columns=["promo"])
    assert data.columns == ("sales",)
    assert result["mse"] < 0.01 * without
    asking = frame.assign(sales=frame["sales"].where(frame.index < len(frame) - HORIZON))
    answer = asked(model, asking, tmp_path)
    assert_scored(answer, saved, data, -1)
    assert np.abs(answer["value"].to_numpy() - frame["sales"][-HORIZON:].to_numpy()).max() < 60
    with pytest.raises(UserError, match="has 2 rows after the last value; a forecast of 6 steps needs as many, with "
                                        "promo filled in and sales empty"):
        asked(model, asking[:-4], tmp_path)
    with pytest.raises(UserError, match=r"line 401, column 'promo': no finite number.*data.future_columns"):
        asked(model, asking.assign(promo=frame["promo"].where(frame.index < 399)), tmp_path)


def test_the_calendar_is_known_ahead(tmp_path):
    """Every Sunday, and at 7 o'clock, there is more, which a day of context cannot tell."""
    frame = waves(1200)
    extra = 300 * (frame["date"].dt.weekday == 6) + 200 * (frame["date"].dt.hour == 7)
    frame = pd.DataFrame({"date": frame["date"], "load": 10 + extra + np.random.default_rng(0).normal(size=1200)})
    without = fitted(tmp_path / "without", frame)[1]["mse"]
    model, result, saved, data = fitted(tmp_path / "with", frame, future_columns=["weekday", "hour"])
    assert result["mse"] < 0.1 * without
    answer = asked(model, frame[:-HORIZON], tmp_path)
    assert_scored(answer, saved, data, -1)
    assert json.loads((tmp_path / "with/run/model/config.json").read_text())["calendar_columns"] == ["weekday", "hour"]


def test_covariates_of_another_shape_are_refused(tmp_path):
    model, *_ = fitted(tmp_path / "run", promotions(), "bert", steps=1, future_columns=["promo"])
    loaded = SeriesForForecasting.from_pretrained(model)
    with pytest.raises(ValueError, match=r"expected covariates of shape \(batch, 1, 30\), not None"):
        loaded(torch.zeros(2, 1, CONTEXT))
