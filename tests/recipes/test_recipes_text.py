"""Text recipes beyond plain classes: every kind of label, parts trained, thresholds, reports, predictions, arms."""

import dataclasses
import json

import compare_text
import finetune_text
import numpy as np
import pandas as pd
import predict
import pytest
import torch
import transformers
from checkpoints import QUICK
from reading import reads_alike_without_rows
from safetensors.torch import load_file
from sklearn.metrics import recall_score

import toolkit.models.text  # noqa: F401 - registers the class of pooled classifiers
from toolkit.data.text.labelled import TextDataSection
from toolkit.errors import UserError
from toolkit.metrics.intervals import mcnemar, paired_bootstrap
from toolkit.models.losses import ObjectiveConfig
from toolkit.report.run_report import write_model_report
from toolkit.run.directory import read_metrics
from toolkit.run.results import read_results
from toolkit.tasks.classification import FineTuningConfig
from toolkit.tasks.threshold import ThresholdConfig

WORDS = ["river", "garden", "window", "letter"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Texts of six words; which of four occur, and how often, is what the labels tell."""
    folder = tmp_path_factory.mktemp("tables")
    random = np.random.default_rng(0)
    for name, rows in (("train", 120), ("validation", 60), ("test", 60)):
        texts = [" ".join(random.choice([*WORDS, "winter", "summer"], 6)) for _ in range(rows)]
        has = {word: [int(word in text) for text in texts] for word in WORDS[:2]}
        pd.DataFrame({
            "text": texts, **has, "several": ["|".join(word for word in WORDS if word in text) for text in texts],
            "many": [3e5 + 1e5 * text.count("river") for text in texts],
            "tiny": [1e-4 * text.count("river") for text in texts], "rare": ["yes" if "winter winter" in text else "no"
                                                                      for text in texts],
            "p_river": [0.9 if "river" in text else 0.2 for text in texts],
            "p_other": [0.1 if "river" in text else 0.8 for text in texts],
        }).to_csv(folder / f"{name}.csv", index=False)
    return folder


def settings(checkpoint: str, tables, output, training=None, **changes):
    data = changes.pop("data", {})
    files = {name: str(tables / f"{name}.csv") for name in ("train", "validation", "test")}
    return finetune_text.FinetuneTextConfig(
        output_dir=str(output), models={"bert": checkpoint}, seeds=1,
        data=TextDataSection(**files, max_length=32, **data),
        training=FineTuningConfig(**{**QUICK, "max_steps": 40, "learning_rate": 5e-3, "eval_steps": 20,
                                     **(training or {})}), **changes)


def kept(run):
    return run / "bert-pretrained/seed-0"


@pytest.mark.parametrize(("data", "better_than"), [
    ({"task": "multi-label", "label_column": "several", "label_separator": "|"}, 0.85),
    ({"task": "multi-label", "label_columns": ["river", "garden"]}, 0.8),
    ({"task": "regression", "label_column": "many"}, 0.3),
    ({"task": "regression", "label_column": "tiny"}, 0.3),
    ({"task": "distribution", "label_columns": ["p_river", "p_other"]}, 0.75)], ids=lambda value: str(value)[:30])
def test_every_kind_of_label_is_learned(checkpoints, tables, tmp_path, accelerator, data, better_than):  # noqa: F811
    training = {"max_steps": 150, "learning_rate": 1e-2, "eval_steps": 50}
    result = finetune_text.finetune_text(settings(checkpoints["bert"], tables, tmp_path / "run", training, data=data),
                                         accelerator)
    assert result["bert"]["pretrained"]["mean"] > better_than > result["majority"]["mean"]
    assert result["tfidf"]["mean"] > better_than
    outputs = np.load(kept(tmp_path / "run") / "outputs.npz")["test"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(kept(tmp_path / "run") / "model")
    expected = {"multi-label": "multi_label_classification", "regression": "regression"}
    assert model.config.problem_type == expected.get(data["task"], "single_label_classification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(kept(tmp_path / "run") / "model")
    answers = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)(
        pd.read_csv(tables / "test.csv").text.tolist(), top_k=None)
    found = np.array([[{answer["label"]: answer["score"] for answer in each}[model.config.id2label[i]]
                       for i in range(model.config.num_labels)] for each in answers])
    unit = {"many": 1e5, "tiny": 1e-4}.get(data.get("label_column"), 1.0)
    assert np.allclose(found.squeeze(), outputs.squeeze(), rtol=0, atol=1e-5 * unit), "the pipeline says something else"
    # The file of predictions, the page, and the figures of the model that is kept, which is not the last one.
    table = predict.predict(predict.PredictConfig(str(kept(tmp_path / "run") / "model"), str(tables / "test.csv")))
    written = pd.read_parquet(tmp_path / "run/bert-predictions.parquet")
    assert written.text.tolist() == table.text.tolist()
    answer = {"multi-label": "labels", "regression": "value"}.get(data["task"], "label")
    assert [np.asarray(each).tolist() for each in written.prediction] == pytest.approx(table[answer].tolist()) if (
        answer == "value") else [np.asarray(each).tolist() for each in written.prediction] == table[answer].tolist()
    page = write_model_report(tmp_path / "run", "bert").read_text()
    assert "Worst errors" in page and "Scores on the test set" in page and page.count("<svg") >= 2
    validation = json.loads((kept(tmp_path / "run") / "result.json").read_text())["validation"]
    evaluated = [each for each in read_metrics(kept(tmp_path / "run") / "metrics.jsonl") if "eval_criterion" in each]
    best = min(evaluated, key=lambda record: record["eval_criterion"])
    assert validation["loss"] == pytest.approx(best["eval_loss"], rel=0.05) and validation["steps"] == 150


@pytest.mark.parametrize("tuning", ["head", "lora"])
def test_what_is_not_trained_stays_as_it_was(checkpoints, tables, tmp_path, accelerator, tuning):  # noqa: F811
    data = {"label_column": "rare"}
    run = tmp_path / "run"
    finetune_text.finetune_text(settings(checkpoints["bert"], tables, run, {"tuning": tuning}, data=data), accelerator)
    before = {f"backbone.{name.removeprefix('bert.')}": tensor
              for name, tensor in load_file(f"{checkpoints['bert']}/model.safetensors").items()}
    after = load_file(kept(run) / "model/model.safetensors")
    shared = before.keys() & after.keys()
    assert len(shared) > 10 and not any("lora" in name for name in after)
    changed = {name for name in shared if not torch.equal(before[name], after[name])}
    assert changed == ({name for name in shared if ".query.weight" in name or ".value.weight" in name}
                       if tuning == "lora" else set())


def test_a_rare_class_is_found_when_asked_for(checkpoints, tables, tmp_path, accelerator):  # noqa: F811
    """A threshold for recall, chosen on validation: it is in the model's configuration, and predict.py goes by it."""
    asked = settings(checkpoints["bert"], tables, tmp_path / "run",
                     {"objective": ObjectiveConfig(class_weights="balanced"), "early_stopping_patience": 1,
                      "metric_for_best_model": "f1"},
                     data={"label_column": "rare"}, threshold=ThresholdConfig(aim="recall", at_least=0.9,
                                                                              positive_label="yes"))
    finetune_text.finetune_text(asked, accelerator)
    found = json.loads((kept(tmp_path / "run") / "result.json").read_text())["threshold"]
    assert found["validation"]["recall"] >= 0.9
    model = str(kept(tmp_path / "run") / "model")
    saved = transformers.AutoConfig.from_pretrained(model).decision_threshold
    assert saved == {"label": "yes", "probability": found["probability"], "aim": "recall"}
    table = predict.predict(predict.PredictConfig(model, str(tables / "test.csv")))
    truth = pd.read_csv(tables / "test.csv").rare
    assert recall_score(truth, table.decision, pos_label="yes") == pytest.approx(found["test"]["recall"])
    assert (table["p(yes)"] >= found["probability"]).equals(table.decision == "yes")
    # What the pipeline answers, and what was measured on test.
    written = pd.read_parquet(tmp_path / "run/bert-predictions.parquet")
    assert written.text.tolist() == table.text.tolist() and written.label.tolist() == truth.tolist()
    assert np.allclose(written["p(yes)"], table["p(yes)"], atol=1e-5)
    page = write_model_report(tmp_path / "run", "bert").read_text()
    assert page.count("<svg") >= 5 and "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert f"{found['probability']:.3f}" in page and "Worst errors" in page and "undefined" not in page
    for output in ("answers.parquet", "answers.csv", "answers.jsonl"):
        predict.write(table, str(tmp_path / output))
    assert pd.read_csv(tmp_path / "answers.csv").decision.tolist() == table.decision.tolist()


def test_training_stops_early_and_says_the_same_when_resumed(checkpoints, tables, tmp_path, accelerator):  # noqa: F811
    """A learning rate of zero never finds a better model than the first."""
    training = {"learning_rate": 0.0, "early_stopping_patience": 2, "eval_steps": 2, "save_steps": 2}
    asked = settings(checkpoints["bert"], tables, tmp_path / "run", training, data={"label_column": "rare"})
    result = finetune_text.finetune_text(asked, accelerator)
    run = kept(tmp_path / "run")
    assert json.loads((run / "result.json").read_text())["validation"]["steps"] == 6
    for file in (tmp_path / "run/result.json", run / "result.json"):
        file.unlink()
    assert finetune_text.finetune_text(asked, accelerator)["bert"] == result["bert"]
    assert json.loads((run / "result.json").read_text())["validation"]["steps"] == 6


def test_what_is_no_classifier_does_not_predict(checkpoints, tables):  # noqa: F811
    with pytest.raises(UserError, match="is a BertForPreTraining, not a classifier"):
        predict.predict(predict.PredictConfig(checkpoints["bert"], str(tables / "test.csv")))


def test_a_comparison_tells_what_pretraining_bought(checkpoints, tables, tmp_path, accelerator, capsys):  # noqa: F811
    asked = compare_text.CompareTextConfig(
        name="words", models=checkpoints, output_dir=str(tmp_path), arms=["random", "frozen", "tuned", "lora"],
        data=settings("", tables, "", data={"label_column": "rare"}).data, labels=[40, "all"], seeds=2,
        training=FineTuningConfig(**QUICK))
    result = compare_text.compare_text(asked, accelerator)
    assert json.loads((tmp_path / "words.json").read_text()) == result and (tmp_path / "words.png").exists()
    assert "McNemar p" in (tmp_path / "words.html").read_text()
    arms = {f"{model}, {arm}" for model in ("bert", "gpt") for arm in ("random", "frozen", "tuned", "lora")}
    assert set(result["learning_curve"]) == {"40", "all"}
    assert set(result["learning_curve"]["40"]) == arms | {"majority class", "TF-IDF"}
    for arm in arms:
        entry = result[arm]
        assert entry["seeds"] == 2 and np.isclose(entry["mean"], np.mean(entry["values"])) and "ci95" in entry
        assert ("verdict" in entry) == ("random" not in arm)
    tuned, random = result["bert, tuned"], result["bert, random"]
    assert tuned["gain_points"]["mean"] == pytest.approx(100 * (tuned["mean"] - random["mean"]))
    mean, low, high = tuned["test_set_points"]
    assert low <= mean <= high and mean == pytest.approx(tuned["gain_points"]["mean"])
    said = compare_text.show(result)
    assert "McNemar p" in said and "bert, tuned over random" in said
    assert compare_text.compare_text(asked, accelerator) == result  # nothing is trained again
    reads_alike_without_rows(tmp_path / "words")
    rows = read_results(tmp_path / "words").arms()["", "40", "bert, lora"]
    assert [row.metrics["accuracy"] for row in rows] == result["learning_curve"]["40"]["bert, lora"]["values"]
    assert (rows[1].model, rows[1].start, rows[1].reference, rows[1].run, rows[1].test_examples) == (
        "bert", "lora", "bert, random", "bert-lora/40/seed-1", 60)
    bad = dataclasses.replace(asked, training=dataclasses.replace(asked.training, on_bad_step="skip"))
    assert compare_text.compare_text(bad, accelerator) == result, "it says how the run is run"
    assert compare_text.compare_text(dataclasses.replace(asked, dry_run=True), accelerator) is None
    assert "every fit is finished" in capsys.readouterr().out
    dry = dataclasses.replace(asked, dry_run=True, output_dir=str(tmp_path / "dry"), arms=["tuned"], labels=[40])
    assert compare_text.compare_text(dry, accelerator) is None
    assert "\nbert, tuned, 40 labels, 2 fits, each of them:" in capsys.readouterr().out
    assert not (tmp_path / "dry").exists()


def test_mcnemar_and_the_paired_bootstrap():
    # Of 25 examples on which the two differ, 20 speak for one: 2 · P(X ≤ 5 | 25, 1/2) = 0.00408.
    one = np.array([True] * 20 + [False] * 5 + [True] * 50)
    other = np.array([False] * 20 + [True] * 5 + [True] * 50)
    assert mcnemar(one, other) == pytest.approx(0.0040773, rel=1e-4) == mcnemar(other, one)
    assert mcnemar(one, one) == 1.0
    mean, low, high = paired_bootstrap(one.astype(float), other.astype(float))
    assert mean == pytest.approx(15 / 75)
    # sd of a difference: sqrt((25 - 75 · 0.2²) / 75) = 0.5416, of their mean / sqrt(75); percentiles are 1.96 of it.
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5416 / np.sqrt(75), rel=0.08)
    with pytest.raises(ValueError, match="same test examples"):
        mcnemar(one, other[:3])
