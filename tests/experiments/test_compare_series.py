"""make compare-series: the table, and that no arm can be chosen, or trained, on the test series."""

import copy
import dataclasses
import json

import compare_series
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from reading import reads_alike_without_rows
from safetensors.torch import load_file
from transformers import BertConfig, BertForPreTraining, BertModel

from toolkit.data.series.dataset import SeriesDataset
from toolkit.data.series.generators import cylinder_bell_funnel
from toolkit.errors import UserError
from toolkit.experiments import series
from toolkit.experiments.published import published_accuracies
from toolkit.models.presets import model_config
from toolkit.run.results import read_results

QUICK = {"seeds": 2, "patches": 12, "sets": ["Sines"], "name": "tiny"}


def _settings(directory, archive, **changes):
    values = {**QUICK, "output_dir": str(directory), "archive": str(archive), **changes}
    settings = compare_series.CompareSeriesConfig(**values)
    settings.training.max_steps = settings.pretraining.max_steps = 6
    settings.training.batch_size = settings.pretraining.batch_size = 8
    return settings


def _write(archive, name="Sines", spoil=False):
    folder = archive / name
    folder.mkdir(parents=True)
    for part, seed in (("TRAIN", 0), ("TEST", 1)):
        data = cylinder_bell_funnel(8, seed)
        values, labels = data.values[:, 0, ::2], data.labels
        if spoil and part == "TEST":
            values, labels = values[::-1] * 50 + 3, (labels + 1) % 3
        lines = ("\t".join([str(label + 1), *(f"{value:.6f}" for value in series)])
                 for label, series in zip(labels, values, strict=True))
        (folder / f"{name}_{part}.tsv").write_text("\n".join(lines) + "\n")
    return archive


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Every kind of arm on one set; text arms from a checkpoint."""
    place = tmp_path_factory.mktemp("compare")
    text = _text_model(place / "text")
    settings = _settings(place / "runs", _write(place / "archive"), text_model=str(text), arms=[
        "random", "text", "text-frozen", "masked-patches", "no-attention", "bigru-additive", "mlp", "logistic",
        "majority"])
    return place, settings, compare_series.compare_series(settings, Accelerator(cpu=True))


def _text_model(path):
    torch.manual_seed(0)
    BertForPreTraining(model_config("bert-tiny", vocab_size=40, max_position_embeddings=64)).save_pretrained(path)
    return path


def test_the_table_holds_every_arm(finished):
    place, settings, found = finished
    saved = json.loads((place / "runs/tiny.json").read_text())
    assert set(saved) == {*settings.arms, "random, patches shuffled", *(
        f"{arm}, seeds together" for arm in ("random", "text", "masked-patches"))}
    for arm, by_set in saved.items():
        entry = by_set["Sines"]
        assert 0 <= entry["mean"] <= 1 and len(entry["values"]) in (1, 2), arm
        assert entry["mean"] == pytest.approx(np.mean(entry["values"]))
    random, text = saved["random"]["Sines"], saved["text"]["Sines"]
    assert random["parameters"] == random["trained_parameters"] == text["parameters"]
    assert saved["text-frozen"]["Sines"]["trained_parameters"] < 0.7 * text["parameters"]
    assert saved["no-attention"]["Sines"]["parameters"] == pytest.approx(random["parameters"], rel=0.02)
    assert {"f1", "roc_auc", "pr_auc", "confusion_matrix", "seconds"} <= random.keys()
    assert np.sum(random["confusion_matrix"]) == 24
    summary = json.loads((place / "runs/tiny-summary.json").read_text())
    assert summary["text"]["reference"] == "random" and summary["masked-patches"]["reference"] == "random"
    shown = compare_series.show(found["results"], found["summary"], {"Method": {"Sines": 91.0}})
    assert "published Method" in shown and "masked-patches over random" in shown
    assert (place / "runs/tiny.png").stat().st_size > 10_000
    assert "dead_branches" in random


def test_one_set_is_judged_over_its_seeds_and_several_over_sets():
    def entries(*accuracies: float) -> dict:
        return {"values": list(accuracies), "mean": sum(accuracies) / len(accuracies)}

    one = {"random": {"a": entries(0.5, 0.5, 0.6)}, "text": {"a": entries(0.7, 0.71, 0.81)}}
    assert series.summarise(one)["text"]["verdict"] == "text over random +20.7 ± 1.4 points: real"
    two = {arm: {**by_set, "b": entries(0.5, 0.5, 0.5)} for arm, by_set in one.items()}
    told = series.summarise(two)["text"]["verdict"]
    assert told == "text over random, mean of 2 sets, +10.33 points on 2 sets: no verdict, run more sets"


def test_the_card_of_a_set_knows_that_it_has_ended(finished):
    text = (finished[0] / "runs/tiny/Sines/README.md").read_text(encoding="utf-8")
    assert "has not ended" not in text


def test_a_finished_comparison_is_not_computed_again(finished, monkeypatch):
    place, settings, found = finished
    monkeypatch.setattr(series, "AugmentedBatches", lambda *args: None)  # nothing can be trained
    again = compare_series.compare_series(settings, Accelerator(cpu=True))
    assert json.dumps(again["results"]) == json.dumps(found["results"])


def test_rows_say_what_the_result_of_a_set_says(finished):
    place, settings, found = finished
    reads_alike_without_rows(place / "runs/tiny/Sines")
    results = read_results(place / "runs/tiny/Sines")
    rows = results.arms()["Sines", "", "text"]
    assert [row.metrics["accuracy"] for row in rows] == found["results"]["text"]["Sines"]["values"]
    assert rows[0].run == "text/seed-0" and rows[0].reference == "random" and rows[0].test_examples == 24
    assert rows[0].parameters == found["results"]["text"]["Sines"]["parameters"]
    assert found["summary"]["text"]["by_set"]["Sines"] in [verdict.text for verdict in results.verdicts]


def test_a_dry_run_tells_of_each_arm_and_writes_nothing(finished, tmp_path, capsys):
    place, settings, _ = finished
    dry = dataclasses.replace(settings, dry_run=True)
    assert compare_series.compare_series(dry, Accelerator(cpu=True)) is None
    assert "every fit is finished" in capsys.readouterr().out
    elsewhere = dataclasses.replace(dry, output_dir=str(tmp_path / "dry"), arms=["text", "masked-patches", "dtw"])
    assert compare_series.compare_series(elsewhere, Accelerator(cpu=True)) is None
    out = capsys.readouterr().out
    assert "Sines, text, 2 fits, each of them:" in out and "Sines, masked-patches, 2 fits" in out and "dtw" not in out
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize("section", ["training", "pretraining"])
def test_a_key_that_says_how_it_is_run_may_change(finished, section):
    """What the loop's message on a loss that is no number advises."""
    settings = copy.deepcopy(finished[1])
    getattr(settings, section).on_bad_step = "skip"
    assert compare_series.compare_series(settings, Accelerator(cpu=True))["results"] == finished[2]["results"]


def test_a_text_model_is_offered_and_not_taken(tmp_path, monkeypatch, capsys):
    settings = _settings(tmp_path / "runs", _write(tmp_path / "archive"), arms=["text", "majority"])
    said = []
    for exists in (False, True):
        monkeypatch.setattr(compare_series, "DEMO", tmp_path / "demo")
        if exists:
            (tmp_path / "demo").mkdir()
        found = compare_series.compare_series(settings, Accelerator(cpu=True))
        assert list(found["results"]) == ["majority"]
        said.append(capsys.readouterr().out.splitlines()[0])
    assert said[0] == "text_model is empty: the arms text and text-frozen are left out"
    assert said[1] == f"{said[0]}; make demo left one: --text_model {tmp_path / 'demo'}"


def test_nothing_is_chosen_on_test(finished, tmp_path):
    """Other test series, other test labels: the same weights to the bit, and the same is said while training."""
    place, _, _ = finished
    settings = _settings(tmp_path / "runs", _write(tmp_path / "archive", spoil=True), arms=["random"], seeds=1,
                         text_model=str(place / "text"))
    compare_series.compare_series(settings, Accelerator(cpu=True))
    first, second = (load_file(root / "tiny/Sines/random/seed-0/model/model.safetensors")
                     for root in (place / "runs", tmp_path / "runs"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    said = [[{key: record[key] for key in record if "loss" in key or key.startswith("eval")} for record in map(
        json.loads, (root / "tiny/Sines/random/seed-0/metrics.jsonl").read_text().splitlines())]
            for root in (place / "runs", tmp_path / "runs")]
    assert said[0] == said[1]
    results = [json.loads((root / "tiny/Sines/random/seed-0/result.json").read_text())["predictions"]
               for root in (place / "runs", tmp_path / "runs")]
    assert results[0] != results[1], "or the test would show nothing"


def test_all_training_series_are_learned_from(tmp_path):
    data = series.load_set(_settings(tmp_path, _write(tmp_path / "archive")), "Sines", Accelerator(cpu=True))
    assert isinstance(data.train, SeriesDataset) and len(data.train) == 24 and len(data.test) == 24
    assert data.patch_length == 4, "64 values in 12 patches, a multiple of 4"


def test_mistakes_are_named(tmp_path):
    archive = _write(tmp_path / "archive")
    short = BertConfig(vocab_size=10, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                       max_position_embeddings=8)
    BertModel(short).save_pretrained(tmp_path / "short")
    for changes, message in (
            ({"arms": ["randm"]}, "no arm 'randm'.*random"),
            ({"sets": ["Nowhere"]}, "expected Nowhere_TRAIN and Nowhere_TEST"),
            ({"archive": "", "sets": ["noisy-sine"]}, "no generator 'noisy-sine'.*noisy-sines"),
            ({"seeds": 0}, "seeds of at least 1"),
            ({"patches": 1}, "patches is 1"),
            ({"text_model": str(tmp_path / "short")}, "patches is 12: .* makes 16 patches of 4, but the model has 8 ")):
        with pytest.raises(UserError, match=message):
            compare_series.compare_series(_settings(tmp_path / "runs", changes.pop("archive", archive), **changes),
                                          Accelerator(cpu=True))
    (tmp_path / "published.csv").write_text("name,A\nx,1\n")
    with pytest.raises(UserError, match="published.csv: cannot be read"):
        published_accuracies(str(tmp_path / "published.csv"), ["x"])
