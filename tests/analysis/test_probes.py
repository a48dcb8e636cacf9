"""Frozen probes against scikit-learn, heads that start from them, and transfer measured while a model is pretrained."""

import json

import numpy as np
import pytest
import small
import torch
from reading import reads_alike_without_rows
from sklearn.linear_model import LogisticRegression
from small import run_recipe, write_config

from toolkit.analysis.probes import ProbeConfig, Probes, fit_head, fit_number_head, frozen_states, start_from_probe
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText, draw
from toolkit.models.text.classifier import TextConfig, TextForClassification
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, choose

CPU = choose(ImplConfig(dtype="fp32"), torch.device("cpu"))


@pytest.mark.parametrize("classes", [2, 5])
def test_a_head_is_logistic_regression_on_standardised_states(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=200)
    states = rng.normal(size=(200, 7)) * rng.uniform(0.1, 10, 7) + 3 + labels[:, None] * rng.normal(size=7)
    head = fit_head(states, labels, classes)
    scaled = (states - states.mean(0)) / states.std(0)
    expected = LogisticRegression(C=0.1, max_iter=300).fit(scaled, labels)
    logits = states @ head.weight.T + head.bias
    probability = np.exp(logits - logits.max(1, keepdims=True))
    probability /= probability.sum(1, keepdims=True)
    np.testing.assert_allclose(probability, expected.predict_proba(scaled), atol=1e-4)
    assert (head.predict(states) == expected.predict(scaled)).all()


def test_classes_without_examples_are_never_predicted():
    states = np.random.default_rng(0).normal(size=(30, 4))
    assert set(fit_head(states, np.repeat([1, 3], 15), 5).predict(states)) <= {1, 3}
    assert set(fit_head(states, np.full(30, 2), 5).predict(states)) == {2}


def test_draws_are_nested_and_differ_by_seed():
    data = LabelledText(["a"] * 100, np.zeros(100, int), ("a",))
    few, more = draw(data, 10, 0), draw(data, 40, 0)
    assert np.array_equal(few, more[:10]) and len(set(more.tolist())) == 40
    assert not np.array_equal(few, draw(data, 10, 1)) and sorted(draw(data, 500, 0)) == list(range(100))


@pytest.fixture(scope="module")
def labelled(wordpiece):
    """Texts told apart by one word."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["river", "garden", "window"], 5)) + [" winter", " summer"][row % 2]
             for row in range(60)]
    return LabelledText(texts, np.arange(60) % 2, ("cold", "warm"))


def test_training_starts_where_the_probe_ends(labelled, wordpiece):
    torch.manual_seed(0)
    model = TextForClassification(TextConfig(backbone_config=small.bert_config(len(wordpiece))))
    batches, accelerator = TextBatches(labelled, wordpiece, 32, 8, 0), make_accelerator()
    states = frozen_states(model.backbone, "layers", batches, accelerator, CPU)
    assert states.shape == (60, 3 * 32) and model.training
    start_from_probe(model, batches, accelerator, CPU)
    rows = {key: torch.from_numpy(value) for key, value in batches.rows(np.arange(60)).items()}
    with torch.inference_mode():
        logits = model.eval()(**rows).logits.numpy()
    assert (logits.argmax(1) == fit_head(states, labelled.labels, 2).predict(states)).all()
    assert (logits.argmax(1) == labelled.labels).mean() > 0.9


def write_table(path, labelled: LabelledText) -> str:
    path.write_text("\n".join(["text\tlabel"] + [f"{text}\t{labelled.label_names[label]}" for text, label in
                                                 zip(labelled.texts, labelled.labels, strict=True)]) + "\n")
    return str(path)


def test_probes_are_part_of_every_evaluation(labelled, wordpiece, tmp_path):
    table = write_table(tmp_path / "table.tsv", labelled)
    probes = Probes(ProbeConfig(sets={"seasons": {"train": table, "test": table}}, labels=40, draws=2), wordpiece)
    model = small.BertForPreTraining(small.bert_config(len(wordpiece)))
    found = probes(model, make_accelerator(), CPU)
    assert set(found) == {"probe_seasons", "probe"} and 0.5 < found["probe"] <= 1
    assert Probes(ProbeConfig(), wordpiece)(model, make_accelerator(), CPU) == {}
    config = write_config(tmp_path / "bert.yaml", {
        "output_dir": str(tmp_path / "run"), "data_dir": str(tmp_path / "data"),
        "tokenizer": small.write_spec(tmp_path, "wordpiece"),
        "corpus": {"sources": [str(small.write_corpus(tmp_path / "corpus"))], "validation_share": 0.2,
                   "min_characters": 20}, "masking": {"max_seq_length": 32}, "eval_rows": 8,
        "training": {"max_steps": 4, "batch_size": 8, "eval_steps": 2, "save_steps": 0},
        "probes": {"sets": {"seasons": {"train": table, "test": table}}, "labels": 20}})
    done = run_recipe("pretrain_bert", ["--config", str(config)], tmp_path / "out")
    assert done.code == 0, done.err
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum("eval_probe_seasons" in record for record in records) == 2
    assert "probe" in json.loads((tmp_path / "run/result.json").read_text())


def test_transfer_measures_every_arm_and_goes_on(labelled, wordpiece, tmp_path):
    torch.manual_seed(0)
    model = small.BertForPreTraining(small.bert_config(len(wordpiece)))
    model.save_pretrained(tmp_path / "model")
    wordpiece.save_pretrained(tmp_path / "model")
    table = write_table(tmp_path / "table.tsv", labelled)
    values = {"output_dir": str(tmp_path / "run"), "models": {"bert": str(tmp_path / "model")},
              "sets": {"seasons": {"train": table, "test": table}}, "labels": [10, 1000, "all"], "seeds": 2,
              "training": {"max_steps": 3, "batch_size": 8}}
    config = write_config(tmp_path / "transfer.yaml", values)
    done = run_recipe("transfer", ["--config", str(config)], tmp_path / "out")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "run/transfer.json").read_text())
    assert set(found) == {"seasons", "mean of all sets"} and list(found["seasons"]) == ["10", "all"], "1000 is too many"
    arms = {"majority class", "TF-IDF", *(f"bert, {start}: {kind}" for start in ("pretrained", "random")
                                          for kind in ("probe", "tuned"))}
    for entries in found["seasons"].values():
        assert set(entries) == arms
        assert all(len(entry["values"]) == 2 and entry["mean"] == pytest.approx(np.mean(entry["values"]))
                   for entry in entries.values())
    assert found["seasons"]["all"]["TF-IDF"]["mean"] == 1
    gain = found["seasons"]["10"]["bert, pretrained: probe"]
    random = found["seasons"]["10"]["bert, random: probe"]
    assert gain["gain_points"]["mean"] == pytest.approx(100 * (gain["mean"] - random["mean"]))
    assert (tmp_path / "run/transfer.png").stat().st_size > 5000 and "seasons, test accuracy" in done.out
    reads_alike_without_rows(tmp_path / "run")
    dry = run_recipe("transfer", ["--config", str(config), "--dry_run"], tmp_path / "out")
    assert dry.code == 0 and "every fit is finished" in dry.out, dry.err
    dry = run_recipe("transfer", ["--config", str(config), "--dry_run", "--output_dir", str(tmp_path / "dry")],
                     tmp_path / "out")
    assert "\nseasons, bert, random: tuned, all labels, 2 fits, each of them:" in dry.out, dry.err
    assert not (tmp_path / "dry").exists()
    # Broken off: what is finished is not trained again.
    fits = sorted((tmp_path / "run/fits").rglob("result.json"))
    assert len(fits) == 8
    fits[0].write_text(json.dumps(json.loads(fits[0].read_text()) | {"accuracy": 0.123}))
    (tmp_path / "run/transfer.json").unlink()
    assert run_recipe("transfer", ["--config", str(config)], tmp_path / "again").code == 0
    again = json.loads((tmp_path / "run/transfer.json").read_text())
    assert 0.123 in [value for by_count in again["seasons"].values() for entry in by_count.values()
                     for value in entry["values"]]
    quick = run_recipe("transfer", ["--config", str(config), "--quick", "true", "--output_dir",
                                    str(tmp_path / "quick")], tmp_path / "out")
    assert quick.code == 0 and "tuned" not in quick.out
    empty = run_recipe("transfer", ["--config", str(config), "--models", "{}", "--output_dir", str(tmp_path / "empty")],
                       tmp_path / "out")
    assert empty.code == 2 and "at least one entry under each of models, sets and labels" in empty.err


def test_a_head_of_numbers_knows_of_the_dropout_before_it():
    """States that hardly vary around a large mean, as those of a small BERT do."""
    # Once wrong: the head had weights of hundreds there, and its first steps a loss of 44 variances.
    generator, drop = np.random.default_rng(0), 0.3
    hidden = generator.normal(size=(200, 4))
    states = 3 + 0.02 * (hidden @ generator.normal(size=(4, 64))) + 1e-4 * generator.normal(size=(200, 64))
    numbers = 1e5 + 3e4 * (hidden[:, 0] + 0.1 * generator.normal(size=200))
    truth = (numbers - numbers.mean()) / numbers.std()

    def losses(head) -> tuple[float, float]:
        kept = generator.random((200, 200, 64)) > drop
        return tuple(float(np.square(each @ head.weight[0] + head.bias[0] - truth).mean())
                     for each in (kept * states / (1 - drop), states))

    noisy, plain = losses(fit_number_head(states, numbers, drop))
    assert noisy < 1.02, "worse than the mean"
    assert losses(fit_number_head(states, numbers))[0] > 10, "the example is none"
    assert losses(fit_number_head(states, numbers))[1] < 0.1 and plain <= 1
