"""Forecasting runs: errors, intervals, selection on validation alone, several processes, and the recipe."""

import copy
import dataclasses
import json
import multiprocessing
import re
import socket
from pathlib import Path
from types import SimpleNamespace

import forecast
import numpy as np
import pytest
import small
import torch
from reading import reads_alike_without_rows

from toolkit import config, metrics
from toolkit.baselines.naive import repeat_last
from toolkit.data.series.windows import standardised, window_splits
from toolkit.errors import UserError
from toolkit.experiments import forecasts
from toolkit.experiments.published import published_errors
from toolkit.metrics.forecast_sums import ForecastScores, calibration_stride, known_quantiles, residual_quantiles
from toolkit.models.small.linear import NLinear, NLinearConfig
from toolkit.publishing import card_pictures
from toolkit.publishing.card_samples import Samples
from toolkit.report.forecast_run import read_forecasts
from toolkit.report.sections.pieces import with_minus
from toolkit.run.directory import Run, read_metrics
from toolkit.run.files import read_json
from toolkit.run.results import read_results
from toolkit.tasks import base, forecasting
from toolkit.tasks.forecasting import ForecastConfig, ForecastingTask, errors, fit_forecaster, score_forecaster
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, choose

CONTEXT, HORIZON, QUANTILES = 20, 5, [0.1, 0.5, 0.9]
IMPL = ImplConfig(dtype="fp32")
TRAINING = ForecastConfig(max_steps=30, eval_steps=10, batch_size=16, learning_rate=1e-2, logging_steps=10)


def waves(rows=400, test=None):
    """Two channels of noisy sines; `test` is added to the last quarter, the test split."""
    random, t = np.random.default_rng(0), np.arange(rows)
    values = np.sin(t * np.asarray([[0.3], [0.5]])) + 0.3 * random.standard_normal((2, rows))
    if test is not None:
        values[:, 3 * rows // 4:] += test * random.standard_normal((2, rows // 4))
    return values


def cut(values, observed=None, season=12):
    data = standardised([values], ("a", "b"), [0.5, 0.75, 1.0], season, None if observed is None else [observed])
    return window_splits(data, CONTEXT, HORIZON, 16, 0)


def nlinear():
    return NLinear(NLinearConfig(context_length=CONTEXT, horizon=HORIZON))


def fit(directory, windows, **options):
    return fit_forecaster(nlinear, windows, TRAINING, IMPL, Run(directory), make_accelerator(), 3, "test", **options)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run's directory and what it returned."""
    directory = tmp_path_factory.mktemp("forecasting") / "run"
    return directory, fit(directory, cut(waves()), keep_model=True)


# ---- errors and intervals


@pytest.mark.parametrize("masked", [False, True])
def test_errors_are_those_of_the_metrics(masked):
    random = np.random.default_rng(0)
    future, prediction = random.normal(size=(2, 11, 3, 4))
    seen = random.random(future.shape) < 0.8 if masked else np.ones(future.shape, bool)
    scale, offsets = random.uniform(1, 2, (11, 3)), np.sort(random.normal(size=(3, 4, 2)))
    scale[:, 1] = 0  # a channel that was constant in training
    parts = [ForecastScores(3, 4, [0.2, 0.7]) for _ in range(2)]
    for part, rows in zip(parts, (slice(0, 7), slice(7, 11)), strict=True):
        part.add(prediction[rows], future[rows], seen[rows] if masked else None, scale[rows], offsets)
    result = ForecastScores(3, 4, [0.2, 0.7]).merge(part.state() for part in parts).result()

    def expected(name, predictions=prediction, **options):
        metric = metrics.load(name)
        given = {"scale": np.broadcast_to(scale[..., None], seen.shape)[seen]} if name == "mase" else {}
        metric.add_batch(predictions=predictions[seen], references=future[seen], **given)
        return metric.compute(**options)[name]

    quantiles = prediction[..., None] + offsets
    for name in ("mse", "mae", "mase"):
        assert result[name] == pytest.approx(expected(name), rel=1e-12)
    assert result["quantile_losses"] == pytest.approx(
        expected("quantile_loss", quantiles, quantile=[0.2, 0.7], multioutput="raw_values"), rel=1e-12)
    assert result["quantile_loss"] == pytest.approx(np.mean(result["quantile_losses"]), rel=1e-12)
    within = (quantiles[..., 0] <= future) & (future <= quantiles[..., -1])
    assert result["coverage"] == pytest.approx(expected("coverage", quantiles)) == within[seen].mean()
    assert result["coverage_by_step"][1] == pytest.approx(within[..., 1][seen[..., 1]].mean())
    step = seen[..., 2]
    assert result["mae_by_step"][2] == pytest.approx(np.abs(future - prediction)[..., 2][step].mean(), rel=1e-12)
    assert result["share_below"] == pytest.approx([(future <= quantiles[..., q])[seen].mean() for q in range(2)])
    assert result["share_below_by_step"][1][2] == pytest.approx((future <= quantiles[..., 1])[..., 2][step].mean())


def test_what_was_never_observed_has_no_error():
    scores = ForecastScores(1, 2)
    scores.add(np.zeros((3, 1, 2)), np.ones((3, 1, 2)), np.broadcast_to([True, False], (3, 1, 2)))
    assert scores.result()["mse_by_step"] == [1.0, None] and scores.result()["mse"] == 1.0
    with pytest.raises(UserError, match="the forecast is no finite number"):
        scores.add(np.full((3, 1, 2), np.nan), np.ones((3, 1, 2)))


def test_residual_quantiles_are_order_statistics():
    residuals = np.random.default_rng(0).permuted(np.arange(1.0, 20).repeat(6).reshape(19, 2, 3), axis=0)
    # Of 19, the ⌊0.1 · 20⌋ = 2nd, the 10th, and the ⌈0.9 · 20⌉ = 18th.
    np.testing.assert_array_equal(residual_quantiles(residuals, QUANTILES), np.broadcast_to([2.0, 10, 18], (2, 3, 3)))
    with_gaps = np.concatenate([residuals, np.full((4, 2, 3), np.nan)])
    np.testing.assert_array_equal(residual_quantiles(with_gaps, QUANTILES)[0, 0], [2, 10, 18])
    with pytest.raises(UserError, match="validation has 8 observed residuals .* need at least 9"):
        residual_quantiles(residuals[:8], QUANTILES)
    assert residual_quantiles(residuals[:9], QUANTILES).shape == (2, 3, 3)
    for count, known in ((8, [0.5]), (9, [0.1, 0.5]), (38, [0.1, 0.5]), (39, [0.025, 0.1, 0.5])):
        assert known_quantiles(np.arange(count, dtype=float)[:, None, None], [0.025, 0.1, 0.5]) == known


def test_intervals_hold_what_they_promise_where_windows_are_alike():
    random = np.random.default_rng(0)
    offsets = residual_quantiles(random.gumbel(size=(4000, 1, 3)) * [1, 2, 3], QUANTILES)
    scores = ForecastScores(1, 3, QUANTILES)
    scores.add(np.zeros((4000, 1, 3)), random.gumbel(size=(4000, 1, 3)) * [1, 2, 3], None, None, offsets)
    np.testing.assert_allclose(np.asarray(scores.result()["share_below_by_step"]).T, [QUANTILES] * 3, atol=0.02)


def test_residuals_are_thinned_out_evenly_where_there_are_too_many():
    assert calibration_stride(2161, 7, 720) == 1
    assert calibration_stride(5000, 321, 720) == 35  # 5,000 windows of Electricity would take 4.6 GB


# ---- runs


def test_a_run_leaves_its_errors_and_forecasts(fitted):
    directory, result = fitted
    assert result == read_json(directory / "result.json")
    assert result["test_windows"] == 100 - HORIZON + 1 and result["parameters"] == 21 * HORIZON
    assert len(result["mse_by_step"]) == len(result["quantile_loss_by_step"]) == HORIZON
    assert result["mse"] == pytest.approx(np.mean(result["mse_by_step"]))
    assert 0.6 < result["coverage"] < 0.95 and result["nominal_coverage"] == 0.8
    with np.load(directory / "forecasts.npz") as saved:
        assert saved["index"].tolist() == [0, 32, 63, 95] and saved["values"].shape == (4, 2, CONTEXT)
        assert saved["quantiles"].shape == (4, 2, HORIZON, 3) and (np.diff(saved["quantiles"]) >= 0).all()


def test_every_test_window_is_counted_once_whatever_the_batch(fitted):
    directory, result = fitted
    windows = cut(waves())["test"]
    batch = windows.rows(np.arange(len(windows)))
    with torch.no_grad():
        prediction = NLinear.from_pretrained(directory / "model")(torch.from_numpy(batch["values"])).prediction.numpy()
    residual = (batch["future"] - prediction).astype(np.float64)
    assert result["mse"] == pytest.approx(np.square(residual).mean(), rel=1e-6)
    scale = windows.data.naive_error()[0][:, None]
    assert result["mase"] == pytest.approx((np.abs(residual) / scale).mean(), rel=1e-6)
    accelerator = make_accelerator()
    model = forecasting.as_forecaster(NLinear.from_pretrained(directory / "model"))
    for size in (7, 95, 1000):
        scores = ForecastScores(2, HORIZON)
        for _, part, predicted in forecasting.forecasts(model, windows, accelerator, choose(IMPL, accelerator.device),
                                                        size):
            scores.add(predicted, part["future"])
        assert scores.result()["mse"] == pytest.approx(result["mse"], rel=1e-6)


def test_nothing_of_the_test_split_reaches_training_or_selection(fitted, tmp_path):
    """The test part is made another: the same losses, the same evaluations, the same model to the last bit."""
    directory, result = fitted
    other = fit(tmp_path / "other", cut(waves(test=50.0)), keep_model=True)
    weights = small.digest(directory / "model/model.safetensors")
    assert weights == small.digest(tmp_path / "other/model/model.safetensors")
    assert small.records(directory) == small.records(tmp_path / "other")
    assert other["validation"] == result["validation"] and other["steps"] == result["steps"]
    assert other["mse"] > 100 * result["mse"]
    spoilt = cut(waves())
    spoilt["test"].data.values[0][:, 300:] = np.nan  # a test split that breaks whatever touches it
    with pytest.raises(UserError, match="no finite number"):
        fit(tmp_path / "spoilt", spoilt, keep_model=True)
    assert weights == small.digest(tmp_path / "spoilt/model/model.safetensors")
    with pytest.raises(TypeError):  # there is no way to hand it over
        ForecastingTask(nlinear(), spoilt["train"], spoilt["validation"], spoilt["test"])


def test_the_best_model_on_validation_is_the_one_that_is_tested(fitted):
    directory, result = fitted
    evaluations = [record["eval_mse"] for record in read_metrics(directory / "metrics.jsonl") if "eval_mse" in record]
    assert len(evaluations) == 3
    assert result["validation"]["mse"] == pytest.approx(min(evaluations), rel=1e-6)


def test_a_finished_run_is_not_repeated(fitted, monkeypatch):
    directory, result = fitted
    monkeypatch.setattr(base, "train", None)
    assert fit(directory, None) == result


def test_masked_values_are_neither_learned_nor_scored(tmp_path):
    values, seen = waves(), np.random.default_rng(1).random((2, 400)) < 0.9
    results = []
    for number, filling in enumerate((0.0, 1e4)):
        windows = cut(np.where(seen, values, filling), seen)
        results.append(fit(tmp_path / str(number), windows))
    assert results[0].keys() == results[1].keys()
    for name in ("mse", "mae", "mase", "quantile_loss", "coverage", "validation"):
        assert results[0][name] == results[1][name]
    assert results[0]["mse"] < 2
    task = ForecastingTask(nlinear(), windows["train"], windows["validation"])
    batch = task.batch(0, range(16))
    assert task.counts(batch) == {"forecast": int(batch["future_observed"].sum())}


def spare_parts(days=1000):
    """Sold one day in 25, beside a sensor that is dead, one that died before validation, and one that lives."""
    random, t = np.random.default_rng(0), np.arange(days)
    return np.stack([np.where(t % 25 == 7, 3.0, 0), np.full(days, 20.5), np.where(t < 200, np.sin(t), 1.25),
                     random.standard_normal(days)])


@pytest.mark.parametrize("trained", [False, True])
def test_intervals_hold_what_stands_still(tmp_path, trained):
    """Once wrong: an interval left out its lower end, and so all values that are equal: 0 % where all are foretold."""
    data = standardised([spare_parts()], ("parts", "dead", "died", "alive"), [0.5, 0.75, 1.0], 24, note=lambda _: None)
    windows = window_splits(data, CONTEXT, HORIZON, 16, 0)
    if trained:
        result = fit(tmp_path, windows, keep_model=True)
        forecast = forecasting.as_forecaster(NLinear.from_pretrained(tmp_path / "model"))
    else:
        forecast = lambda values, observed: repeat_last(values, HORIZON, observed)  # noqa: E731
        result = score_forecaster(forecast, windows, TRAINING, IMPL, Run(tmp_path), make_accelerator())
    parts = {}
    for split in ("validation", "test"):
        batch = windows[split].rows(np.arange(len(windows[split])))
        with torch.no_grad():
            prediction = forecast(torch.from_numpy(batch["values"]), None).numpy().astype(np.float64)
        parts[split] = prediction, batch["future"]
    offsets = residual_quantiles(parts["validation"][1] - parts["validation"][0], QUANTILES)
    prediction, future = parts["test"]
    low, high = prediction + offsets[..., 0] - 1e-6, prediction + offsets[..., -1] + 1e-6
    by_channel = ((low <= future) & (future <= high)).mean((0, 2))
    assert result["coverage"] == pytest.approx(by_channel.mean())
    assert by_channel[1] == by_channel[2] == 1.0 and 0.7 < by_channel[3] < 0.9
    if not trained:
        assert by_channel[0] == pytest.approx(23 / 25, abs=0.02)  # after a sale, too, the last value is no forecast
    assert result["mase_left_out"] == ["dead"]
    alive = [0, 2, 3]
    scaled = np.abs(future - prediction)[:, alive] / data.naive_error()[0][alive, None]
    assert result["mase"] == pytest.approx(scaled.mean(), rel=1e-6)


def test_a_rule_is_scored_as_a_model_is(tmp_path):
    windows = cut(waves())
    rule = score_forecaster(lambda values, observed: repeat_last(values, HORIZON, observed), windows, TRAINING, IMPL,
                            Run(tmp_path), make_accelerator())
    batch = windows["test"].rows(np.arange(len(windows["test"])))
    assert rule["mse"] == pytest.approx(np.square(batch["future"] - batch["values"][..., -1:]).mean(), rel=1e-5)
    assert read_json(tmp_path / "result.json") == rule and (tmp_path / "forecasts.npz").exists()
    with pytest.raises(UserError, match="training.quantiles is .0.9, 0.1."):
        score_forecaster(None, windows, ForecastConfig(quantiles=[0.9, 0.1]), IMPL, Run(tmp_path / "other"),
                         make_accelerator())


# ---- several processes


def _on_one_of_two(rank: int, port: int, directory: str) -> None:
    import os

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
    accelerator = make_accelerator()
    run = Run(directory, accelerator.is_main_process)
    result = fit_forecaster(nlinear, cut(waves()), TRAINING, IMPL, run, accelerator, 3, "test")
    with open(f"{directory}/rank-{rank}.json", "w", encoding="utf-8") as file:
        json.dump(result, file)
    accelerator.wait_for_everyone()
    torch.distributed.destroy_process_group()


def test_two_processes_train_and_score_as_one(fitted, tmp_path):
    context: multiprocessing.context.BaseContext = small.start_server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=_on_one_of_two, args=(rank, port, str(tmp_path))) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    one, two = (read_json(tmp_path / f"rank-{rank}.json") for rank in range(2))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    for name in ("mse", "mae", "mase", "quantile_loss", "coverage", "mse_by_step", "test_windows"):
        assert one[name] == pytest.approx(fitted[1][name], rel=1e-4)


def test_shares_of_the_windows_add_up_to_all_of_them(fitted):
    windows, model = cut(waves())["test"], forecasting.as_forecaster(NLinear.from_pretrained(fitted[0] / "model"))
    precision, cpu = choose(IMPL, torch.device("cpu")), torch.device("cpu")
    parts = []
    for rank in range(3):
        parts.append(ForecastScores(2, HORIZON))
        process = SimpleNamespace(process_index=rank, num_processes=3, device=cpu)
        for _, batch, prediction in forecasting.forecasts(model, windows, process, precision, 10):
            parts[-1].add(prediction, batch["future"])
    merged = ForecastScores(2, HORIZON).merge(part.state() for part in parts)
    assert merged.result()["mse"] == pytest.approx(
        errors(model, windows, make_accelerator(), precision).result()["mse"], rel=1e-9)


# ---- the recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Settings of a small comparison, what it returned, and what it printed."""
    root = tmp_path_factory.mktemp("recipe")
    table = root / "waves.csv"
    rows = [f"2020-01-{1 + n // 24:02} {n % 24:02}:00:00,{a},{b}" for n, (a, b) in enumerate(waves(400).T)]
    table.write_text("\n".join(["date,a,b", *rows]), encoding="utf-8")
    published = root / "published.csv"
    published.write_text("horizon,Other_mse,Other_mae\n4,.5,.6\n", encoding="utf-8")
    settings = config.from_dict(forecast.ForecastRecipeConfig, {
        "name": "waves", "output_dir": str(root / "runs"), "context_length": 32, "horizons": [4, 8], "seeds": 2,
        "data": {"path": str(table), "season": 12}, "linear": ["nlinear"],
        "models": {"tiny": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                            "intermediate_size": 16}},
        "starts": ["random", "masked-patches"], "pretraining": {"max_steps": 4},
        "series": {"patch_length": 8, "patch_stride": 8}, "training": {"max_steps": 6, "eval_steps": 3},
        "arm_training": {"nlinear": {"max_steps": 20, "learning_rate": 0.01}}, "published": str(published)})
    return settings, forecast.forecast(settings, make_accelerator())


def test_the_recipe_compares_arms_by_horizon(recipe):
    settings, summary = recipe
    stem = settings.output_dir + "/waves"
    assert summary == read_json(stem + ".json")
    assert list(summary) == ["repeat-last", "seasonal-naive", "nlinear", "tiny-random", "tiny-masked-patches"]
    for arm, by_horizon in summary.items():
        assert list(by_horizon) == ["4", "8"]
        for horizon, entry in by_horizon.items():
            assert entry["seeds"] == (1 if arm in ("repeat-last", "seasonal-naive") else 2)
            assert len(entry["mse_by_step"]) == int(horizon) and entry["mse"] == np.mean(entry["mse_values"])
            assert {"mae", "mae_ci95", "mase", "quantile_loss", "coverage", "validation_mse"} <= entry.keys()
    assert read_json(f"{stem}/nlinear/4/seed-1/result.json")["steps"] == 20
    assert read_json(f"{stem}/tiny-masked-patches/pretraining/seed-1/result.json")["steps"] == 4
    entry = summary["tiny-masked-patches"]["8"]
    assert entry["reference"] == "tiny-random" and "% of its MSE" in entry["verdict"]
    assert settings.check_dead_branches and "dead_branches" not in summary["nlinear"]["8"], "it has no branch"
    for start in ("random", "masked-patches"):
        found = summary[f"tiny-{start}"]["8"]["dead_branches"]
        assert found["states"].keys() == {"block 1 attention", "block 1 feed-forward"}
        assert found["shuffle"]["patch_length"] == 8 and found["shuffle"]["shuffled_mse"] > 0
    for picture in ("gain", "by-step", "forecasts-4", "forecasts-8"):
        with open(f"{stem}-{picture}.png", "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_what_is_drawn_has_dates_and_bands_and_is_in_the_tables_units(recipe):
    settings, summary = recipe
    shown = read_forecasts(Path(settings.output_dir, "waves"), 8)
    assert [(one.name, one.role) for one in shown.forecasters[:3]] == [
        ("tiny-masked-patches", "pretrained"), ("tiny-random", "random start"), ("nlinear", "best baseline")]
    assert shown.quantity == "b" and shown.time == "date"
    hours, values = np.datetime64("2020-01-01", "ns") + np.arange(400) * np.timedelta64(1, "h"), waves(400)[1]
    for window in shown.windows:
        rows = np.searchsorted(hours, window.times)
        np.testing.assert_array_equal(hours[rows], window.times)
        np.testing.assert_allclose(np.concatenate([window.context, window.truth]), values[rows], atol=1e-5)
    for one in shown.forecasters:
        for prediction, bands in zip(one.predictions, one.bands, strict=True):
            assert list(bands) == [0.8, 0.5], "33 residuals are too few for 95 %"
            (low, high), (inner_low, inner_high) = bands.values()
            assert (low <= inner_low).all() and (inner_high <= high).all() and (prediction > low - 9).all()


def card_of(settings, part=""):
    return Path(settings.output_dir, "waves", part, "README.md").read_text(encoding="utf-8")


def test_the_cards_of_a_comparison_know_that_it_has_ended(recipe):
    for part in ("", "nlinear/8/seed-0", "tiny-random/8/seed-0"):
        assert "has not ended" not in card_of(recipe[0], part)


def test_the_cards_of_a_comparison_show_errors_by_arm_and_horizon(recipe):
    settings, summary = recipe
    for part in ("", "tiny-random/8/seed-0"):
        card = card_of(settings, part)
        for arm, by_horizon in summary.items():
            cells = [f"{entry['mse']:.3f}" + (f" ± {entry['mse_ci95']:.3f}" if entry["seeds"] > 2 else "")
                     for entry in by_horizon.values()]
            row = " +[|] ".join(map(re.escape, [arm, *cells, str(by_horizon["4"]["seeds"])]))
            assert re.search(f"[|] {row} +[|]", card), (part, arm)
        windows = [f"{summary['nlinear'][horizon]['test_windows']} at {horizon}" for horizon in ("4", "8")]
        assert f"windows: {', '.join(windows)}:" in card
        for horizon in ("4", "8"):
            verdict = with_minus(summary["tiny-masked-patches"][horizon]["verdict"])
            assert verdict.endswith("on 2 seeds: no verdict, run more seeds") and f"* {verdict}\n" in card
    assert "beside what it must beat" not in card_of(settings)


def test_the_card_of_a_forecaster_shows_its_errors_beside_the_naive_ones(recipe):
    settings, summary = recipe
    for arm, horizon in (("nlinear", "4"), ("tiny-random", "8")):
        card = card_of(settings, f"{arm}/{horizon}/seed-0")
        for name in ("mse", "mae"):
            own = summary[arm][horizon][f"{name}_values"][0]
            beside = ", ".join(f"{summary[rule][horizon][name]:.4g} {rule}" for rule in ("repeat-last",
                                                                                         "seasonal-naive"))
            assert re.search(rf"\| {name.upper()} on test +\| {own:.4g} +\| {beside} +\|", card), (arm, name)


def test_the_cards_of_a_comparison_say_how_each_arm_was_trained(recipe):
    settings = recipe[0]
    for part, budget, rate in (("nlinear/4/seed-0", 20, 0.01),
                               ("tiny-random/4/seed-0", 6, settings.training.learning_rate),
                               ("tiny-masked-patches/pretraining/seed-0", 4, settings.pretraining.learning_rate)):
        card = card_of(settings, part)
        assert f"budget: {budget} steps" in card and f"learning rate {rate}," in card, part
        assert "* path: `" in card and "waves.csv.\n" not in card and "generated rows: `" not in card


def test_the_table_holds_ours_and_the_published(recipe):
    settings, summary = recipe
    shown = forecast.show(summary, published_errors(settings.published))
    (row,) = [line.split() for line in shown.splitlines() if line.startswith("published Other")]
    assert row == ["published", "Other", "0.500", "0.600", "–", "–"]
    assert "tiny-random" in shown and "intervals of nominally 80 %" in shown
    assert f"{summary['nlinear']['8']['mse']:.3f} ± " in shown


def test_the_recipe_resumes_without_training(recipe, monkeypatch):
    monkeypatch.setattr(base, "train", None)
    monkeypatch.setattr(forecast, "forecast_figures", lambda _: {})
    monkeypatch.setattr(card_pictures, "draw", lambda *_: None)  # they are there, and take longer than all the rest
    monkeypatch.setattr(Samples, "figure", lambda _: None)
    settings, summary = recipe
    fewer = forecast.forecast(dataclasses.replace(settings, horizons=[8], seeds=1, linear=[]), make_accelerator())
    result = Path(settings.output_dir, "waves/result.json")
    assert list(fewer) == [arm for arm in summary if arm != "nlinear"] and read_json(result) == fewer
    shown = card_of(settings)
    assert "horizon 4" not in shown.split("## Results")[1].split("## Limits")[0] and "on one seed: no verdict" in shown
    assert forecast.forecast(settings, make_accelerator()) == summary == read_json(result)
    assert "| horizon 4 " in card_of(settings)


def test_gains_are_in_percent_of_the_random_start():
    def fit_of(mse):
        steps = dict.fromkeys(("mse_by_step", "mae_by_step", "quantile_loss_by_step", "coverage_by_step"), [1.0])
        return {"mse": mse, "mae": 1.0, "test_windows": 1, "parameters": 1, "trained_parameters": 1,
                "nominal_coverage": 0.8, "validation": {"mse": 1.0}, "seconds": 1.0, **steps}

    results = {"bert-random": {8: [fit_of(mse) for mse in (1.0, 2.0, 4.0)]},
               "bert-random-frozen": {8: [fit_of(mse) for mse in (1.0, 2.0, 4.0)]},
               "bert-pretrained": {8: [fit_of(mse) for mse in (0.9, 1.79, 3.6)]},
               "bert-pretrained-frozen": {8: [fit_of(mse) for mse in (1.1, 2.0, 3.6)]}}
    arms = {arm: forecasts.Arm(arm, *arm.split("-", 1)) for arm in results}
    summary = forecasts.summarise(results, {name: forecasts.reference_of(arm, arms) for name, arm in arms.items()})
    assert summary["bert-pretrained"]["8"]["gain_percent"]["mean"] == pytest.approx((10 + 10.5 + 10) / 3)
    assert summary["bert-pretrained"]["8"]["verdict"].endswith("% of its MSE: real")
    assert summary["bert-pretrained-frozen"]["8"]["verdict"].endswith("not distinguishable from zero")
    assert [summary[arm]["8"].get("reference") for arm in results] == [None, None, "bert-random", "bert-random-frozen"]


@pytest.mark.parametrize(("changes", "found"), [
    ({"data.season": 40}, "data.season is 40 rows, but context_length 32"),
    ({"arm_training": {"tiny-ramdom": {}}}, "arm_training: there is no arm 'tiny-ramdom'. Did you mean 'tiny-random'"),
    ({"arm_training": {"nlinear": {"steps": 3}}}, "unknown key 'arm_training.nlinear.steps'"),
    ({"models": {"tiny": {"hiden_size": 8}}}, "models.tiny: 'hiden_size' is no field .* Did you mean 'hidden_size'"),
    ({"horizons": [500]}, "too few for .* a horizon of 500"),
    ({"horizons": []}, "at least one of horizons"),
    ({"published": "absent.csv"}, "absent.csv: cannot be read as published errors")])
def test_mistakes_are_named(recipe, tmp_path, changes, found):
    values = config.with_values(config.to_dict(recipe[0]), {"output_dir": str(tmp_path), **changes})
    with pytest.raises(UserError, match=found):
        forecast.forecast(config.from_dict(forecast.ForecastRecipeConfig, values), make_accelerator())


def test_rows_say_what_the_result_says(recipe):
    settings, summary = recipe
    home = Path(settings.output_dir, "waves")
    reads_alike_without_rows(home)
    rows = read_results(home).arms()["", "8", "tiny-masked-patches"]
    assert [row.metrics["mse"] for row in rows] == summary["tiny-masked-patches"]["8"]["mse_values"]
    assert (rows[1].model, rows[1].start, rows[1].reference, rows[1].run) == (
        "tiny", "masked-patches", "tiny-random", "tiny-masked-patches/8/seed-1")


@pytest.mark.parametrize("section", ["training", "pretraining"])
def test_a_key_that_says_how_it_is_run_may_change(recipe, section):
    """What the loop's message on a loss that is no number advises."""
    settings = copy.deepcopy(recipe[0])
    getattr(settings, section).on_bad_step = "skip"
    assert forecast.forecast(dataclasses.replace(settings, dry_run=True), make_accelerator()) is None


def test_a_dry_run_tells_of_nothing_that_is_finished(recipe, capsys):
    assert forecast.forecast(dataclasses.replace(recipe[0], dry_run=True), make_accelerator()) is None
    out = capsys.readouterr().out
    assert "every fit is finished" in out and "each of them" not in out


def test_a_dry_run_makes_nothing(recipe, tmp_path, capsys):
    values = config.with_values(config.to_dict(recipe[0]), {"output_dir": str(tmp_path / "dry"), "dry_run": True})
    assert forecast.forecast(config.from_dict(forecast.ForecastRecipeConfig, values), make_accelerator()) is None
    assert not (tmp_path / "dry/waves/nlinear").exists()
    assert "nlinear, horizon 4, 2 fits, each of them:" in capsys.readouterr().out
