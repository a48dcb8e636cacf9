"""Rows of experiments: written and read, those of before read as well, and what is no experiment is none."""

import json

import numpy as np
import pytest
import yaml
from reading import means

from toolkit.errors import UserError
from toolkit.run.files import write_json
from toolkit.run.results import (
    FILE,
    MEAN,
    Results,
    Row,
    Verdict,
    kept_evaluation,
    model_and_start,
    of_kept_model,
    over_sets,
    read_results,
    write_results,
)


def entry(*values: float, **more) -> dict:
    return {"mean": float(np.mean(values)), "ci95": None, "n": len(values), "sd": None, "values": list(values), **more}


def test_rows_come_back_as_they_were(tmp_path):
    rows = [Row("e", "bert, tuned", 0, {"accuracy": 0.5, "r2": None}, set="a", size="40", model="bert", start="tuned",
                reference="bert, random", parameters=7, seconds=1.5, test_examples=4, run="bert-tuned/40/seed-0",
                right=np.asarray([True, False])), Row("e", "TF-IDF", 0, {"accuracy": 1.0}, set="a", size="40")]
    written = Results("e", "accuracy", rows, [Verdict("bert, tuned", "it helps", "a", "40")], "labels")
    write_results(tmp_path, written)
    assert read_results(tmp_path) == written
    assert "right" not in (tmp_path / FILE).read_text()


@pytest.mark.parametrize(("change", "said"), [
    ({"schema": 99}, "is a result of another version.*Run its recipe again"),
    ({"rows": [{"arm": "x"}]}, "cannot be read as the rows of an experiment .*metrics.*Delete it"),
    ({"rows": [{"arm": "x", "seed": "0", "metrics": {}}]}, "cannot be read .*seed' should be a whole number"),
    ({"rows": [{"arm": "x", "seed": 0, "metrics": {}}]}, "cannot be read .*'accuracy' is not among the metrics"),
    ({"rows": [{"arm": "x", "seed": 0, "metrics": {"accuracy": 1}, "weight": 1}]},
     "cannot be read as the rows of an experiment .*weight.*Delete it"),
    ({"rows": None}, "cannot be read as the rows")])
def test_rows_of_another_kind_are_refused(tmp_path, change, said):
    write_results(tmp_path, Results("e", "accuracy", []))
    values = json.loads((tmp_path / FILE).read_text())
    write_json(tmp_path / FILE, values | change)
    with pytest.raises(UserError, match=f"{tmp_path / FILE}: {said}"):
        read_results(tmp_path)


OLD = {
    "fine-tuning": ("result.json", {
        "bert": {"pretrained": entry(0.7, 0.8), "random": entry(0.5, 0.5), "gain_points": {"mean": 25, "ci95": 3},
                 "verdict": "pretraining +25: real"}, "tfidf": entry(0.6, 0.6), "test_examples": 50,
        "predictions": {"bert-pretrained": [1, 0]}, "dead_branches": {"bert": {"a": {"mean": 1, "ci95": 1}}}},
        "accuracy", {("", "", "bert, pretrained"): [0.7, 0.8], ("", "", "bert, random"): [0.5, 0.5],
                     ("", "", "tfidf"): [0.6, 0.6]}),
    "by labels": ("../home.json", {
        "bert, tuned": entry(0.9), "labels": "all", "test_examples": 50,
        "learning_curve": {"40": {"bert, tuned": entry(0.7)}, "all": {"bert, tuned": entry(0.9)}}},
        "accuracy", {("", "40", "bert, tuned"): [0.7], ("", "all", "bert, tuned"): [0.9]}),
    "transfer": ("transfer.json", {
        "a": {"10": {"TF-IDF": entry(0.5)}}, "b": {"10": {"TF-IDF": entry(0.7)}}, MEAN: {"10": {"TF-IDF": entry(0.6)}}},
        "accuracy", {("a", "10", "TF-IDF"): [0.5], ("b", "10", "TF-IDF"): [0.7]}),
    "forecasts": ("result.json", {
        "nlinear": {"96": {"mse": 0.5, "mse_values": [0.4, 0.6], "mae_values": [1, 2], "test_windows": 9}}},
        "mse", {("", "96", "nlinear"): [0.4, 0.6]}),
    "a set of several": ("../../parent.json", {"mlp": {"home": entry(0.5, 0.7)}}, "accuracy",
                         {("", "", "mlp"): [0.5, 0.7]}),
    "the lab": ("result.json", {"parameters": 5, "arms": {"full": entry(0.5)}, "dead_branches": {}}, "accuracy",
                {("", "", "full"): [0.5]}),
    "fibonacci": ("result.json", {"arms": {"rnn": entry(0.1, 0.2)}, "references": {"last": 0.3}}, "mse",
                  {("", "", "rnn"): [0.1, 0.2], ("", "", "last"): [0.3]}),
    "sweep": ("sweep.json", {"metric": "mlm_loss", "settings": [{"setting": "muon", **entry(2.0, 2.1)}]}, "mlm_loss",
              {("", "", "muon"): [2.0, 2.1]})}


@pytest.mark.parametrize("kind", OLD)
def test_results_from_before_there_were_rows_are_read(tmp_path, kind):
    file, values, metric, expected = OLD[kind]
    home = tmp_path / "parent/home"
    home.mkdir(parents=True)
    (home / "config.yaml").write_text(yaml.safe_dump({"models": {"bert": "runs/bert/model"}}))
    write_json(home / file, values)
    found = read_results(home)
    assert found.metric == metric and means(found) == expected
    if kind == "fine-tuning":
        assert [(row.model, row.start) for row in found.rows] == 2 * [("bert", "pretrained")] + 2 * [
            ("bert", "random")] + 2 * [("", "")]
        assert found.verdicts == [Verdict("bert, pretrained", "bert: pretraining +25: real")]


def test_a_result_without_a_value_a_seed_is_told_to_be_old(tmp_path):
    write_json(tmp_path / "result.json", {"tfidf": {"mean": 0.5, "ci95": 0.1}})
    with pytest.raises(UserError, match="result.json: is a result of another version.*Run its recipe again"):
        read_results(tmp_path)


@pytest.mark.parametrize("result", [None, {"loss": 2.0, "steps": 7}, {"a.csv": {"gains": {"mase": {"mean": 1, "low": 0,
                                                                                                    "high": 2}}}}])
def test_a_run_that_compares_nothing_has_no_rows(tmp_path, result):
    if result is not None:
        write_json(tmp_path / "result.json", result)
    assert read_results(tmp_path) is None


def test_the_mean_of_all_sets_is_by_seed_and_of_what_all_have():
    rows = [Row("e", arm, seed, {"accuracy": value}, set=name, size=size) for name, arm, size, seed, value in (
        ("a", "x", "10", 0, 0.2), ("a", "x", "10", 1, 0.4), ("b", "x", "10", 0, 0.6), ("b", "x", "10", 1, 0.6),
        ("a", "x", "99", 0, 1.0))]
    assert [(row.set, row.size, row.seed, row.metrics["accuracy"]) for row in over_sets(rows, "accuracy")] == [
        (MEAN, "10", 0, 0.4), (MEAN, "10", 1, 0.5)]


@pytest.mark.parametrize(("arm", "expected"), [
    ("bert-pretrained", ("bert", "pretrained")), ("bert-pretrained-frozen", ("bert", "pretrained-frozen")),
    ("bert-large-random", ("bert-large", "random")), ("bert, tuned", ("bert", "tuned")), ("nlinear", ("", "")),
    ("bertha-random", ("", ""))])
def test_an_arm_is_split_at_its_models_name(arm, expected):
    assert model_and_start(arm, ["bert", "bert-large"]) == expected


@pytest.mark.parametrize(("lines", "kept"), [
    ([{"step": 1, "loss": 5.0}], {}),
    ([{"step": 2, "eval_loss": 3.0}, {"step": 4, "eval_loss": 1.0}, {"step": 6, "eval_loss": 1.0}],
     {"step": 4, "loss": 1.0}),
    # Once wrong: of fine-tuning the least loss was told, though another model is kept.
    ([{"step": 2, "eval_loss": 1.0, "eval_criterion": 0.5}, {"step": 4, "eval_loss": 3.0, "eval_criterion": 0.25}],
     {"step": 4, "loss": 3.0, "criterion": 0.25}),
    ([{"step": 2, "eval_mse": float("nan")}, {"step": 4, "eval_mse": 2.0, "eval_mae": 1.0}, {"step": 6, "loss": 0.1}],
     {"step": 4, "mse": 2.0, "mae": 1.0}),
    ([{"step": 2, "eval_loss": float("nan")}], {})])
def test_the_kept_models_evaluation_is_the_best_one(lines, kept):
    assert kept_evaluation(lines) == kept


def test_results_of_before_the_kept_model_was_told_are_mended():
    lines = [{"step": 2, "eval_loss": 1.0, "eval_accuracy": 0.5}, {"step": 4, "eval_loss": 2.0, "eval_accuracy": 0.4}]
    old = {"loss": 2.0, "accuracy": 0.4, "steps": 4, "tokens_per_second": 9.0}
    assert of_kept_model(old, lines) == {**old, "loss": 1.0, "accuracy": 0.5, "best_step": 2}
    assert of_kept_model(old, []) == old
    for other in ({**old, "best_step": 4}, {"accuracy": 0.9, "predictions": [1]}):  # a new one, and one on test
        assert of_kept_model(other, lines) == other
