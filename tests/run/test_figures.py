"""Every figure that is shown is what anybody finds who asks the saved files again: once a task, from plain
`from_pretrained`, the user's files and what a run left, with numpy and scikit-learn, and nothing of our metrics.
"""

import contextlib
import json
import math
import re
from pathlib import Path

import compare_runs
import finetune_series
import finetune_text
import forecast
import numpy as np
import pandas as pd
import pretrain_bert
import pretrain_gpt
import pytest
import sample_forecasts
import small
import sweep
import torch
import transformers
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, f1_score, mean_pinball_loss, r2_score

import toolkit.models.text  # noqa: F401 - registers the class of pooled classifiers
from toolkit.config import from_dict
from toolkit.data.stores.bert_batches import BertBatches, MaskingConfig
from toolkit.data.stores.gpt_batches import document_positions
from toolkit.data.stores.store import TokenStore
from toolkit.models.series.patches import SeriesForClassification, SeriesForMaskedPatches
from toolkit.models.small.linear import NLinear
from toolkit.run.files import read_json, write_json
from toolkit.run.results import read_results
from toolkit.tasks.pretraining import EVALUATION_SEED
from toolkit.training.impl.distributed import make_accelerator

# A warm-up to a rate so high that later models are worse: the last one is not the best.
OVERDONE = {"max_steps": 12, "batch_size": 16, "eval_steps": 1, "logging_steps": 1, "save_steps": 0,
            "optimizer": "adamw", "learning_rate": 0.3, "lr_scheduler_type": "constant", "warmup_ratio": 0.5,
            "max_grad_norm": 0.0}
FP32 = {"dtype": "fp32"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the made-up corpus and its tokenizers' specifications."""
    place = tmp_path_factory.mktemp("figures")
    small.write_corpus(place / "corpus")
    for kind in small.SPECS:
        small.write_spec(place, kind)
    return place


def pretraining(place, family, **changes):
    kind, spec = {"bert": (pretrain_bert.PretrainBertConfig, "wordpiece"),
                  "gpt": (pretrain_gpt.PretrainGptConfig, "bytes")}[family]
    return from_dict(kind, {
        "output_dir": str(place / family), "data_dir": str(place / "data"), "tokenizer": str(place / f"{spec}.yaml"),
        "corpus": {"sources": [str(place / "corpus")], "validation_share": 0.2, "min_characters": 20},
        "training": OVERDONE, "impl": FP32, **changes})


def card(run) -> str:
    return (Path(run) / "README.md").read_text(encoding="utf-8")


def shown(text: str, measure: str) -> str:
    """What a card's table, or a recipe's, has in the cell behind `measure`."""
    return re.search(rf"^\|? *{re.escape(measure)}[^|\n]*\| +([^|\n]+?) *\|", text, re.MULTILINE)[1]


def is_of_the_kept_model(run: Path, recomputed: dict[str, float], rel: float = 1e-5) -> dict:
    """The run's result is what its saved model gives, which is not the last one."""
    result = read_json(run / "result.json")
    assert {key: result[key] for key in recomputed} == pytest.approx(recomputed, rel=rel)
    evaluations = [record for record in small.records(run) if "eval_loss" in record]
    assert result["best_step"] < result["steps"] == evaluations[-1]["step"]
    assert evaluations[-1]["eval_loss"] > 1.01 * result["loss"], "the last model is the best: this shows nothing"
    return result


def token_entropy(validation: np.ndarray, train: np.ndarray, size: int) -> float:
    """Cross-entropy under the frequencies of train, half a token added to each."""
    counts = np.bincount(train, minlength=size) + 0.5
    return float(-np.log(counts / counts.sum())[validation].mean())


# --- pretraining ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(place):
    settings = pretraining(place, "bert", masking={"max_seq_length": 40}, eval_rows=24)
    pretrain_bert.pretrain_bert(settings, make_accelerator())
    return place / "bert"


def test_bert_pretraining(bert, place, capsys):
    model = transformers.BertForPreTraining.from_pretrained(bert / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert / "model")
    stores = {split: TokenStore.open(next((place / "data/wordpiece").rglob(f"store/{split}")))
              for split in ("train", "validation")}
    batch = BertBatches(stores["validation"], tokenizer, MaskingConfig(max_seq_length=40, mlm_probability=0.15), 24,
                        EVALUATION_SEED).batch(0, range(24))
    with torch.no_grad():
        answer = model(**{key: torch.from_numpy(batch[key].astype(np.int64))
                          for key in ("input_ids", "token_type_ids", "attention_mask")})
    scored = batch["masked_labels"] != -100
    rows, slots = np.nonzero(scored)
    logits = answer.prediction_logits.numpy()[rows, batch["masked_positions"][rows, slots]].astype(np.float64)
    labels = batch["masked_labels"][scored]
    pairs = answer.seq_relationship_logits.numpy().astype(np.float64)
    truth = batch["next_sentence_label"]
    recomputed = {"mlm_loss": -log_softmax(logits, 1)[np.arange(len(labels)), labels].mean(),
                  "mlm_accuracy": accuracy_score(labels, logits.argmax(1)), "mlm_count": len(labels),
                  "nsp_loss": -log_softmax(pairs, 1)[np.arange(24), truth].mean(),
                  "nsp_accuracy": accuracy_score(truth, pairs.argmax(1)), "nsp_count": 24,
                  "unigram_entropy": token_entropy(np.asarray(stores["validation"].ids),
                                                   np.asarray(stores["train"].ids), len(tokenizer))}
    recomputed["loss"] = recomputed["mlm_loss"] + recomputed["nsp_loss"]
    result = is_of_the_kept_model(bert, recomputed)
    told = card(bert)
    assert shown(told, "masked-word loss") == f"{recomputed['mlm_loss']:.3f} nats"
    assert shown(told, "masked words filled in right").startswith(f"{100 * recomputed['mlm_accuracy']:.1f} %")
    assert shown(told, "next sentence or not").startswith(f"{100 * recomputed['nsp_accuracy']:.1f} %")
    assert f"that of step {result['best_step']}, best on validation" in told
    pretrain_bert.main(["--config", str(bert / "config.yaml")])
    assert f"masked LM {recomputed['mlm_loss']:.3f} nats (unigram entropy {recomputed['unigram_entropy']:.3f})" in (
        capsys.readouterr().out)


def gpt_figures(run: Path, place: Path, block: int) -> dict[str, float]:
    """Each token of the validation text once, in blocks, the first one after an end token."""
    model = transformers.GPT2LMHeadModel.from_pretrained(run / "model").eval()
    store = next((place / "data/bytes").rglob("store/validation"))
    ids = np.asarray(TokenStore.open(store).ids, np.int64)
    nats, right = 0.0, 0
    for start in range(0, len(ids), block):
        given = np.concatenate([[model.config.eos_token_id], ids])[start:start + block][:len(ids) - start]
        with torch.no_grad():
            logits = model(torch.from_numpy(given)[None]).logits[0].double().numpy()
        labels = ids[start:start + block]
        nats -= log_softmax(logits, 1)[np.arange(len(labels)), labels].sum()
        right += (logits.argmax(1) == labels).sum()
    texts = next((place / "data").rglob("validation.jsonl")).read_text(encoding="utf-8").splitlines()
    size = sum(len(json.loads(line)["text"].encode()) for line in texts)
    return {"loss": nats / len(ids), "perplexity": math.exp(nats / len(ids)), "accuracy": right / len(ids),
            "count": len(ids), "bytes": size, "bits_per_byte": nats / math.log(2) / size}


SETTINGS = [{"training.learning_rate": 1e-5}, {"training.learning_rate": 0.5}]
"""Of the second the kept models are better than those of the first, and the last ones worse."""


@pytest.fixture(scope="module")
def swept(place):
    """A sweep over GPTs: its folder, and what it printed."""
    values = {"data_dir": str(place / "data"), "tokenizer": str(place / "bytes.yaml"), "output_dir": "unused",
              "corpus": {"sources": [str(place / "corpus")], "validation_share": 0.2, "min_characters": 20},
              "model": {"preset": "gpt-nano", "max_position_embeddings": 16, "embeddings": "random"},
              "block_size": 16, "training": OVERDONE, "impl": FP32}
    write_json(place / "gpt.yaml", values)  # which is YAML, too
    write_json(place / "sweep.yaml", {"output_dir": str(place / "sweep"), "pretraining": str(place / "gpt.yaml"),
                                      "settings": SETTINGS, "seeds": 2})
    sweep.main(["--config", str(place / "sweep.yaml")])
    return place / "sweep"


def test_gpt_pretraining(swept, place, capsys):
    run = swept / "learning_rate-0.5/seed-0"
    recomputed = gpt_figures(run, place, 16)
    is_of_the_kept_model(run, recomputed)
    told = card(run)
    assert shown(told, "loss") == f"{recomputed['loss']:.3f} nats a token"
    assert shown(told, "perplexity") == f"{recomputed['perplexity']:.1f}"
    assert shown(told, "bits per byte") == f"{recomputed['bits_per_byte']:.3f}"
    assert shown(told, "next token right").startswith(f"{100 * recomputed['accuracy']:.1f} %")
    pretrain_gpt.main(["--config", str(run / "config.yaml")])
    assert (f"loss {recomputed['loss']:.3f} nats a token, perplexity {recomputed['perplexity']:.1f}, "
            f"{recomputed['bits_per_byte']:.3f} bits per byte") in capsys.readouterr().out


def test_a_sweeps_ranking(swept, place):
    found = read_json(swept / "sweep.json")
    losses = {}
    for entry in found["settings"]:
        name = re.sub(r"[^\w.+-]+", "-", entry["setting"])
        losses[entry["setting"]] = [gpt_figures(swept / f"{name}/seed-{seed}", place, 16)["loss"] for seed in (0, 1)]
        assert entry["values"] == pytest.approx(losses[entry["setting"]], rel=1e-5)
        assert entry["mean"] == pytest.approx(np.mean(entry["values"])) and entry["n"] == 2
        half = 12.7062 * np.std(entry["values"], ddof=1) / math.sqrt(2)  # t at 0.975 for one degree of freedom
        assert entry["ci95"] == pytest.approx(half, rel=1e-4)
    assert [entry["setting"] for entry in found["settings"]] == sorted(losses, key=lambda name: np.mean(losses[name]))
    last = {entry["setting"]: small.records(swept / entry["setting"].replace(" ", "-") / "seed-0")[-1]
            for entry in found["settings"]}
    assert sorted(last, key=lambda name: last[name]["eval_loss"]) != list(last), "the last models rank them alike"
    assert {arm: [row.metrics["loss"] for row in rows] for (_, _, arm), rows in
            read_results(swept).arms().items()} == {name: pytest.approx(of, rel=1e-5) for name, of in losses.items()}


def test_compare_runs(bert, swept, place, capsys):
    runs = [bert, swept / "learning_rate-0.5/seed-0", swept / "learning_rate-1e-05/seed-0"]
    compare_runs.main([*map(str, runs), "--output", str(place / "page.html")])
    told = capsys.readouterr().out
    recomputed = [None, *(gpt_figures(run, place, 16) for run in runs[1:])]
    rows = {line.split()[0]: line.split()[1:] for line in told.splitlines() if len(line.split()) > 1}
    for name in ("perplexity", "bits_per_byte"):
        assert rows[name] == [f"{figures[name]:,.4g}" for figures in recomputed[1:]], "of the two GPTs alone"
    assert rows["loss"] == [f"{read_json(bert / 'result.json')['loss']:.4g}",
                            *(f"{figures['loss']:.4g}" for figures in recomputed[1:])]
    assert rows["best_step"] == [str(read_json(run / "result.json")["best_step"]) for run in runs]
    page = (place / "page.html").read_text(encoding="utf-8")
    for figures in recomputed[1:]:
        assert f"<td>{figures['bits_per_byte']:.4g}</td>" in page


# --- fine-tuning ----------------------------------------------------------------------------------------------------

WORDS = ["river", "garden", "window"]
QUICK = {"max_steps": 12, "batch_size": 8, "learning_rate": 5e-3, "eval_steps": 4, "logging_steps": 10,
         "save_steps": 0}


@pytest.fixture(scope="module")
def texts_told(tmp_path_factory):
    """Files of texts of six words; which of them occur, and how often, is what the labels tell."""
    folder, random = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    for name, rows in (("train", 90), ("validation", 45), ("test", 50)):
        texts = [" ".join(random.choice([*WORDS, "winter", "summer"], 6)) for _ in range(rows)]
        pd.DataFrame({"text": texts, "kind": [max(WORDS, key=text.count) for text in texts],
                      "several": ["|".join(word for word in WORDS if word in text) for text in texts],
                      "price": [1000 + 250 * text.count("river") for text in texts]}
                     ).to_csv(folder / f"{name}.csv", index=False)
    return folder


def fine_tuned(folder, checkpoint, output, **data) -> Path:
    """The run; its kept fit is bert-pretrained/seed-0."""
    settings = from_dict(finetune_text.FinetuneTextConfig, {
        "output_dir": str(output), "models": {"bert": checkpoint}, "seeds": 2, "training": QUICK, "impl": FP32,
        "data": {"max_length": 32, **{split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")},
                 **data}})
    finetune_text.finetune_text(settings, make_accelerator())
    return Path(output)


def asked_of_texts(kept: Path, folder: Path, split: str) -> np.ndarray:
    """(n, classes) logits of the saved model, one text at a time."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(kept / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(kept / "model")
    with torch.no_grad():
        return np.concatenate([model(**tokenizer(text, return_tensors="pt", truncation=True)).logits.double().numpy()
                               for text in pd.read_csv(folder / f"{split}.csv").text])


def is_of_all_seeds(run: Path, score: str) -> dict:
    """The run's entry of an arm holds what its fits scored, and their mean and interval follow from it."""
    result = read_json(run / "result.json")
    for start in ("pretrained", "random"):
        entry = result["bert"][start]
        values = [read_json(run / f"bert-{start}/seed-{seed}/result.json")[score] for seed in (0, 1)]
        assert entry["values"] == values and entry["n"] == 2 and entry["mean"] == pytest.approx(np.mean(values))
        assert entry["ci95"] == pytest.approx(12.7062 * np.std(values, ddof=1) / math.sqrt(2), rel=1e-4, abs=1e-12)
    gain = [100 * (one - other) for one, other in zip(result["bert"]["pretrained"]["values"],
                                                     result["bert"]["random"]["values"], strict=True)]
    assert result["bert"]["gain_points"]["mean"] == pytest.approx(np.mean(gain))
    rows = read_results(run).arms()
    assert [row.metrics[score] for row in rows["", "", "bert, pretrained"]] == result["bert"]["pretrained"]["values"]
    return result


def class_figures(labels, probabilities) -> dict[str, float]:
    answers = probabilities.argmax(1)
    return {"accuracy": accuracy_score(labels, answers), "f1": f1_score(labels, answers, average="macro")}


def best_on_validation(kept: Path, validation: dict, key: str) -> None:
    """`validation` is told of the model that is kept: the best of the evaluations by `key`, the first of its kind."""
    lines = [record for record in small.records(kept) if "eval_loss" in record]
    best = min(lines, key=lambda record: record["eval_criterion"])
    assert validation[key] == pytest.approx(best[f"eval_{key}"], rel=1e-4, abs=1e-6)


def test_text_classification(texts_told, checkpoints, tmp_path):
    run = fine_tuned(texts_told, checkpoints["bert"], tmp_path / "run", label_column="kind")
    kept = run / "bert-pretrained/seed-0"
    result, names = read_json(kept / "result.json"), sorted(WORDS)
    outputs = np.load(kept / "outputs.npz")
    for split in ("validation", "test"):
        labels = [names.index(kind) for kind in pd.read_csv(texts_told / f"{split}.csv").kind]
        probabilities = softmax(asked_of_texts(kept, texts_told, split), axis=1)
        np.testing.assert_allclose(outputs[split], probabilities, atol=1e-5)
        figures = class_figures(labels, probabilities)
        told = result["validation"] if split == "validation" else result
        assert {key: told[key] for key in figures} == pytest.approx(figures)
    assert result["predictions"] == probabilities.argmax(1).tolist()
    best_on_validation(kept, result["validation"], "accuracy")
    shared = is_of_all_seeds(run, "accuracy")
    assert shared["references"] == labels and shared["test_examples"] == 50
    assert shared["majority"]["values"] == [np.mean(np.asarray(labels) == np.bincount([
        names.index(kind) for kind in pd.read_csv(texts_told / "train.csv").kind]).argmax())] * 2
    assert shown(card(kept), "accuracy on test").startswith(f"{100 * figures['accuracy']:.1f} %")
    assert shown(card(kept), "F1 on test") == f"{figures['f1']:.3f}"


def test_several_labels(texts_told, checkpoints, tmp_path):
    run = fine_tuned(texts_told, checkpoints["bert"], tmp_path / "run", task="multi-label", label_column="several",
                     label_separator="|")
    kept = run / "bert-pretrained/seed-0"
    result, names = read_json(kept / "result.json"), sorted(WORDS)
    outputs = np.load(kept / "outputs.npz")
    for split in ("validation", "test"):
        labels = np.array([[word in str(cell).split("|") for word in names]
                           for cell in pd.read_csv(texts_told / f"{split}.csv").several.fillna("")]).astype(int)
        probabilities = 1 / (1 + np.exp(-asked_of_texts(kept, texts_told, split)))
        np.testing.assert_allclose(outputs[split], probabilities, atol=1e-5)
        answers = (probabilities >= 0.5).astype(int)
        figures = {"accuracy": accuracy_score(labels, answers), "f1": f1_score(labels, answers, average="micro")}
        told = result["validation"] if split == "validation" else result
        assert {key: told[key] for key in figures} == pytest.approx(figures)
    assert result["predictions"] == answers.tolist()
    best_on_validation(kept, result["validation"], "f1")
    is_of_all_seeds(run, "f1")


def test_numbers(texts_told, checkpoints, tmp_path):
    run = fine_tuned(texts_told, checkpoints["bert"], tmp_path / "run", task="regression", label_column="price")
    kept = run / "bert-pretrained/seed-0"
    result, outputs = read_json(kept / "result.json"), np.load(kept / "outputs.npz")
    for split in ("validation", "test"):
        labels = pd.read_csv(texts_told / f"{split}.csv").price.to_numpy(float)
        answers = outputs[split].ravel().astype(float)
        np.testing.assert_allclose(asked_of_texts(kept, texts_told, split).ravel(), answers, rtol=1e-4)
        figures = {"mse": np.mean((answers - labels) ** 2), "mae": np.mean(np.abs(answers - labels)),
                   "r2": r2_score(labels, answers)}
        told = result["validation"] if split == "validation" else result
        assert {key: told[key] for key in figures} == pytest.approx(figures, rel=1e-4)
    np.testing.assert_allclose(np.ravel(result["predictions"]), answers, rtol=1e-5)
    best_on_validation(kept, result["validation"], "mse")
    is_of_all_seeds(run, "r2")
    assert shown(card(kept), "mae") == f"{figures['mae']:.4g}" and shown(card(kept), "r2") == f"{figures['r2']:.4g}"


@pytest.fixture(scope="module")
def series_told(tmp_path_factory):
    """UCR files of sines, squares and saws in noise."""
    folder, random, t = tmp_path_factory.mktemp("series"), np.random.default_rng(0), np.arange(48)
    for name, rows in (("train", 60), ("validation", 30), ("test", 36)):
        lines = []
        for row in range(rows):
            wave = np.sin(0.4 * t + random.uniform(0, 6.3))
            wave = [wave, np.sign(wave), np.cumsum(wave) / 3][row % 3] + 0.3 * random.standard_normal(48)
            lines.append("\t".join([str(row % 3 + 1), *map(str, 5 + 2 * wave)]))
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_series_classification(series_told, checkpoints, tmp_path):
    settings = from_dict(finetune_series.FinetuneSeriesConfig, {
        "output_dir": str(tmp_path / "run"), "models": {"bert": checkpoints["bert"]}, "seeds": 2, "patch_length": 8,
        "training": QUICK, "impl": FP32, "baselines": [], "check_dead_branches": False,
        "data": {split: str(series_told / f"{split}.tsv") for split in ("train", "validation", "test")}})
    finetune_series.finetune_series(settings, make_accelerator())
    kept = tmp_path / "run/bert-pretrained/seed-0"
    result, outputs = read_json(kept / "result.json"), np.load(kept / "outputs.npz")
    model = SeriesForClassification.from_pretrained(kept / "model").eval()
    for split in ("validation", "test"):
        table = pd.read_csv(series_told / f"{split}.tsv", sep="\t", header=None).to_numpy()
        values = table[:, 1:] - table[:, 1:].mean(1, keepdims=True)
        values /= table[:, 1:].std(1, ddof=1, keepdims=True)
        with torch.no_grad():
            logits = model(torch.from_numpy(values[:, None].astype(np.float32))).logits.double().numpy()
        np.testing.assert_allclose(outputs[split], softmax(logits, axis=1), atol=1e-5)
        figures = class_figures((table[:, 0] - 1).astype(int), logits)
        told = result["validation"] if split == "validation" else result
        assert {key: told[key] for key in figures} == pytest.approx(figures)
    best_on_validation(kept, result["validation"], "accuracy")
    is_of_all_seeds(tmp_path / "run", "accuracy")
    assert shown(card(kept), "accuracy on test").startswith(f"{100 * figures['accuracy']:.1f} %")


