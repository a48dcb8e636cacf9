"""Pictures of losses, settings, vocabularies and series: what stands in them, and in which unit."""

import math
from dataclasses import replace

import numpy as np
import pytest
import small
from matplotlib.text import Text
from test_lettering import NAMES

from toolkit.data.series.dataset import SeriesDataset
from toolkit.report.figures.canvas import as_svg
from toolkit.report.figures.series import (
    MOST_CLASSES,
    examples_figure,
    next_values_figure,
    shuffle_figure,
    spectra_figure,
)
from toolkit.report.figures.sweeps import sweep_figure, sweep_panels
from toolkit.report.figures.training import Curve, curves_of, fits_figure, loss_figure
from toolkit.report.figures.vocabularies import vocabularies_figure
from toolkit.run.directory import read_metrics
from toolkit.run.results import Results, Row

OLD = small.ROOT / "tests/fixtures/old"


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def falling(keys: dict[str, float], count: int = 30, every: int = 10) -> list[dict]:
    return [{"step": every * (n + 1), **{key: end + 5 / (n + 1) ** 2 for key, end in keys.items()}}
            for n in range(count)]


# --- losses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "units"), [
    ("bert", ["loss (nats a masked token)", "loss (nats a pair)"]), ("gpt", ["loss (nats a token)"]),
    ("forecast/chaos/nlinear/8/seed-0", ["MSE (standardised values)"]),
    ("forecast/chaos/small-masked-patches/pretraining/seed-0", ["MSE (standardised values)"]),
    ("text/bert-random/seed-0", ["loss (nats a label)", "accuracy (%)", "F1 (%)"])])
def test_losses_have_the_name_and_the_unit_of_their_task(run, units):
    records = read_metrics(OLD / run / "metrics.jsonl")
    assert [curve.unit for curve in curves_of(records)] == units
    figure = loss_figure(records)
    assert [axes.get_ylabel() for axes in figure.axes] == units
    for axes, curve in zip(figure.axes, curves_of(records), strict=True):
        drawn = [len(line.get_xdata()) for line in axes.lines[:2]]
        assert drawn == [sum(key in record for record in records) if key else 0
                         for key in (curve.train, curve.validation)]


def test_numbers_are_no_classes():
    records = [{"step": 5, "loss": 0.9}, {"step": 5, "eval_loss": 0.8, "eval_mse": 3.0, "eval_r2": 0.2}]
    first, second = curves_of(records)
    assert first.unit == "MSE (labels of variance 1)" and first.references == {"always the mean": 1.0}
    assert second.validation == "eval_r2" and not second.share


def test_references_are_lines_with_their_names_and_values():
    result = small.read_json(OLD / "bert/result.json")
    figure = loss_figure(read_metrics(OLD / "bert/metrics.jsonl"), result=result, title="a $ title")
    found = texts(figure)
    for text in ("unigram entropy 3.45", "guessing 0.693", "training", "validation", "the model that is kept"):
        assert text in found, text
    words, pairs = figure.axes
    assert result["unigram_entropy"] in [line.get_ydata()[0] for line in words.lines]
    assert math.log(2) in [line.get_ydata()[0] for line in pairs.lines]
    ring = next(line for line in words.lines if line.get_markersize() == 9)
    assert list(ring.get_ydata()) == [result["mlm_loss"]]


def test_a_reference_far_off_is_told_and_does_not_squash_the_curves():
    records = [{"step": step, "eval_mse": value} for step, value in ((1, 2.0), (2, 1.0))]
    figure = loss_figure(records, curves_of(records, references={"near": 2.5, "far": 40.0, "farther": 50.0}))
    assert {"near 2.5", "above: far 40, farther 50"} <= {*texts(figure)} and figure.axes[0].get_ylim()[1] < 3


@pytest.mark.parametrize(("losses", "side"), [((0.72, 0.694), "left"), ((0.694, 0.4), "right")])
def test_the_name_of_a_reference_covers_no_dot(losses, side):
    records = [{"step": step, "loss": 0.69 + 0.03 * (step % 20 == 0)} for step in range(5, 125, 5)]
    records += [{"step": step, "eval_loss": loss} for step, loss in zip((10, 120), losses, strict=True)]
    figure = loss_figure(records, [Curve("a loss", "nats", "loss", "eval_loss", {"guessing": 0.693})])
    (name,) = [text for text in figure.findobj(Text) if text.get_text().startswith("guessing")]
    assert name.get_ha() == side


def test_bits_per_byte_stand_at_the_right_of_a_gpt():
    records = read_metrics(OLD / "gpt/metrics.jsonl")
    figure = loss_figure(records)
    (right,) = [axes for axes in figure.axes[0].child_axes]
    last = next(record for record in reversed(records) if "eval_loss" in record)
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    assert right.get_ylim()[1] / high == pytest.approx(last["eval_bits_per_byte"] / last["eval_loss"])
    assert right.get_ylabel() == "bits per byte of validation"


def test_axes_are_logarithmic_where_that_shows_more():
    fell_at_once = loss_figure(falling({"loss": 2.0}, 60)).axes[0]
    assert fell_at_once.get_xscale() == "log" and fell_at_once.get_yscale() == "linear"
    evenly = loss_figure([{"step": 10 * n, "loss": 3 - n / 50} for n in range(1, 60)]).axes[0]
    assert evenly.get_xscale() == "linear"
    far = loss_figure([{"step": n, "eval_mse": 10.0 ** -n} for n in range(1, 6)]).axes[0]
    assert far.get_yscale() == "log"


def test_shares_end_at_0_and_100_and_nothing_logged_is_no_picture():
    records = [{"step": n, "eval_loss": 1.0, "eval_accuracy": 0.9, "eval_f1": 0.9} for n in (1, 2)]
    assert [axes.get_ylim() for axes in loss_figure(records).axes[1:]] == [(0, 100)] * 2
    assert loss_figure([]) is None and loss_figure([{"step": 1, "loss": math.nan}]) is None
    assert fits_figure({"a": [[]]}, curves_of(records)) is None


def test_fits_are_a_thin_line_a_seed_and_a_thick_one_for_their_mean():
    records = [[{"step": step, "eval_mse": value + seed} for step, value in ((1, 4.0), (2, 2.0))] for seed in (0, 1)]
    figure = fits_figure({"mine-random": records, "mine": records[:1]}, curves_of(records[0]), "a title")
    lines = figure.axes[0].lines
    assert [line.get_linewidth() for line in lines] == [0.6, 0.6, 1.8, 1.8]
    np.testing.assert_array_equal(lines[2].get_ydata(), [4.5, 2.5])
    assert lines[2].get_linestyle() == "--" and lines[3].get_linestyle() == "-"
    assert figure.axes[0].get_ylabel() == "validation MSE (standardised values)"


# --- settings ------------------------------------------------------------------------------------------------------


def swept(seeds: int, **more) -> Results:
    values = {"as it is": 4.0, "optimizer adamw": 5.0, "learning_rate 0.1": 3.0}
    return Results("sweep", "mlm_loss", [
        Row("sweep", name, seed, {"mlm_loss": value + 0.01 * seed * value, **more}, reference="" if name == "as it is"
            else "as it is") for name, value in values.items() for seed in range(seeds)])


def test_settings_stand_beside_the_default_the_best_first():
    (panel,) = sweep_panels(swept(3))
    assert [row.name for row in panel.rows] == ["learning_rate 0.1", "optimizer adamw"]
    assert all(list(row.random) == [4.0, 4.04, 4.08] for row in panel.rows)
    found = texts(sweep_figure(swept(3), "a title"))
    assert "validation loss (nats a token)" in found and "masked LM loss; default: as it is" in found
    assert any(text.startswith("+25.0") and text.endswith("real") for text in found)
    assert any(text.startswith("−25.0") and text.endswith("hurts") for text in found)


def test_probes_are_a_panel_of_their_own():
    panels = sweep_panels(swept(3, probe=0.5))
    assert [(panel.metric, panel.share) for panel in panels] == [("loss", False), ("probe", True)]
    assert sweep_figure(swept(3, probe=0.5), "").axes[2].get_xlim() == (0, 100)


def test_a_sweep_of_an_earlier_version_is_held_against_its_first_setting():
    rows = [Row("sweep", name, 0, {"loss": value}) for name, value in (("b", 2.0), ("a", 1.0))]
    (panel,) = sweep_panels(Results("sweep", "loss", rows))
    assert [(row.name, list(row.random)) for row in panel.rows] == [("a", [2.0])]


# --- vocabularies, series ------------------------------------------------------------------------------------------


def labelled(classes: int = 3, names=None) -> SeriesDataset:
    labels = np.arange(4 * classes) % classes
    values = np.sin(np.arange(32) * (1 + labels[:, None])) + labels[:, None]
    return SeriesDataset(values[:, None].astype(np.float32), labels, tuple(names or map(str, range(classes))))


def test_vocabularies_are_a_line_a_tokenizer():
    rows = [{"text": text, "tokenizer": name, "vocab_size": size, "bytes_per_token": 3.0}
            for text in ("held-out", "second") for name, sizes in (("bpe", (1024, 4096)), ("bytes", (257,)))
            for size in sizes]
    figure = vocabularies_figure(rows, "a title")
    assert [[len(line.get_xdata()) for line in axes.lines] for axes in figure.axes] == [[2, 1], [2, 1]]
    assert {"held-out text", "second text", "bpe", "bytes", "4,096", "vocabulary (tokens, logarithmic)"} <= {*texts(
        figure)} and figure.axes[0].get_ylim()[0] == 0


def test_examples_are_a_row_a_class_with_their_mean():
    figure = examples_figure(labelled(), "a title")
    assert len(figure.axes) == 12 and "2: 4 series" in texts(figure)
    np.testing.assert_allclose(figure.axes[3].lines[0].get_ydata(), labelled().values[::3, 0].mean(0), rtol=1e-6)
    many = examples_figure(labelled(30), "many", 1)
    assert len(many.axes) == 2 * MOST_CLASSES and f"many; the largest {MOST_CLASSES} of 30 classes" in texts(many)


def test_what_was_not_observed_is_not_drawn():
    seen = np.ones(labelled().values.shape, bool)
    seen[0, 0, :5] = False
    line = examples_figure(replace(labelled(), values=labelled().values * seen, observed=seen)).axes[0].lines[0]
    assert np.isnan(line.get_ydata()[:5]).all() and np.isfinite(line.get_ydata()[5:]).all()


def test_spectra_peak_where_the_series_do():
    axes = spectra_figure(labelled()).axes[0]
    peaks = [line.get_xdata()[np.argmax(line.get_ydata())] for line in axes.lines]
    np.testing.assert_allclose(peaks, [1 / (2 * np.pi), 2 / (2 * np.pi), 3 / (2 * np.pi)], atol=0.04)
    assert axes.get_yscale() == "log" and axes.get_xlabel() == "frequency (cycles a sample)"


def test_shuffled_patches_are_told_before_and_after():
    found = {"full": {"shuffle": {"accuracy": 0.97, "shuffled_accuracy": 0.5}}, "mlp": {}}
    figure = shuffle_figure(found)
    assert "97.0 → 50.0 %" in texts(figure) and figure.axes[0].get_xlim() == (0, 100)
    assert "0.100 → 0.900" in texts(shuffle_figure({"a": {"shuffle": {"mse": 0.1, "shuffled_mse": 0.9}}}))
    assert shuffle_figure({"mlp": {}}) is None


def test_next_values_show_errors_that_are_only_rounding_at_the_edge():
    result = {"test_values": [1.0, 2.0], "test_predictions": {"rnn": [1.0, 1.0]},
              "arms": {"rnn": {"values": [0.1, 0.4, 0.3]}}, "references": {"least squares": 4e-31}}
    figure = next_values_figure(result, "ln F")
    found = texts(figure)
    assert {"ln F", "test MSE (logarithmic)", "0.3", "4e−31", "what came", "rnn"} <= {*found}
    assert figure.axes[1].get_xlim()[0] == 1e-10


def test_names_are_drawn_as_they_are_written():
    rows = [{"text": "<i>", "tokenizer": name, "vocab_size": 1024, "bytes_per_token": 3.0} for name in NAMES]
    swept = Results("s", "loss", [Row("s", name, 0, {"loss": 1.0 + n}) for n, name in enumerate(NAMES)])
    records = [{"step": 1, "eval_mse": 1.0}]
    fib = {"test_values": [1.0], "test_predictions": {name: [1.0] for name in NAMES},
           "arms": {name: {"values": [0.1]} for name in NAMES}, "references": {}}
    shuffled = {name: {"shuffle": {"mse": 0.1, "shuffled_mse": 0.9}} for name in NAMES}
    for figure in (
            vocabularies_figure(rows, NAMES[2]), sweep_figure(swept, NAMES[2]),
            fits_figure({name: [records] for name in NAMES}, curves_of(records), NAMES[2]),
            examples_figure(labelled(len(NAMES), NAMES), NAMES[2], 1),
            spectra_figure(labelled(len(NAMES), NAMES), NAMES[2]), next_values_figure(fib, NAMES[2]),
            shuffle_figure(shuffled, NAMES[2])):
        svg = as_svg(figure)
        assert "\x1b" not in svg and "costs $5 to $10" in svg


def test_a_single_evaluation_is_seen():
    figure = fits_figure({"bert": [[{"step": 3, "eval_loss": 0.5}]]}, [Curve("label", "loss", "loss", "eval_loss")])
    lines = figure.axes[0].get_lines()
    assert [list(line.get_xdata()) for line in lines] == [[3]] and lines[0].get_marker() == "o"
