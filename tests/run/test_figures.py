"""Every figure that is shown is what anybody finds who asks the saved files again: once a task, from plain
`from_pretrained`, the user's files and what a run left, with numpy and scikit-learn, and nothing of our metrics.
"""

import contextlib
import io
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
from toolkit.data import counter
from toolkit.data.stores.bert_batches import BertBatches, MaskingConfig
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
    assert (f"masked words: {recomputed['mlm_loss']:.3f} nats, {recomputed['unigram_entropy']:.3f} by frequencies "
            f"alone; {100 * recomputed['mlm_accuracy']:.1f} % right") in capsys.readouterr().out


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
    said = capsys.readouterr().out
    assert f"next token: {recomputed['loss']:.3f} nats, " in said
    assert f"; perplexity {recomputed['perplexity']:.1f}; {recomputed['bits_per_byte']:.3f} bits per byte" in said


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
    rows = {line.split()[0]: [cell.rstrip("*").replace(",", "") for cell in line.split()[1:]]
            for line in told.splitlines() if len(line.split()) > 1}
    for name in ("perplexity", "bits_per_byte"):
        for cell, figures in zip(rows[name], recomputed[1:], strict=True):  # of the two GPTs alone
            assert float(cell) == pytest.approx(figures[name], rel=1e-3)
    losses = [read_json(bert / "result.json")["loss"], *(figures["loss"] for figures in recomputed[1:])]
    for cell, loss in zip([rows["loss"][0], *rows["loss"][1::2]], losses, strict=True):
        assert float(cell) == pytest.approx(loss, abs=1e-3)
    assert rows["best_step"] == [str(read_json(run / "result.json")["best_step"]) for run in runs]
    page = (place / "page.html").read_text(encoding="utf-8")
    assert all(cell in page for cell in rows["bits_per_byte"])


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
    assert shown(card(kept), "F1 on test, mean of the classes") == f"{figures['f1']:.3f}"


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
    assert shown(card(kept), "accuracy on test, all labels of an example right").startswith(
        f"{100 * figures['accuracy']:.1f} %")
    assert shown(card(kept), "F1 on test, of all labels") == f"{figures['f1']:.3f}"
    mean = 100 * np.mean([read_json(run / f"bert-pretrained/seed-{seed}/result.json")["f1"] for seed in (0, 1)])
    assert "Test F1 in percent, mean over seeds" in card(run)
    assert shown(card(run), "bert, pretrained").split()[0] == f"{mean:.1f}"


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
    assert shown(card(kept), "MAE") == f"{figures['mae']:.4g}"
    assert shown(card(kept), "R²") == f"{figures['r2']:.4g}".replace("-", "\N{MINUS SIGN}")


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


# --- forecasts ------------------------------------------------------------------------------------------------------

CONTEXT, HORIZON, SEASON, ROWS = 32, 4, 12, 400


@pytest.fixture(scope="module")
def forecasted(tmp_path_factory):
    """A comparison on waves, a dead sensor and spare parts: its folder, its table, and what it printed."""
    root, random, t = tmp_path_factory.mktemp("forecasts"), np.random.default_rng(0), np.arange(ROWS)
    pd.DataFrame({"date": pd.date_range("2024-01-01", periods=ROWS, freq="h"),
                  "wave": 50 + 10 * np.sin(0.3 * t) + 3 * random.standard_normal(ROWS),
                  "dead": np.full(ROWS, 20.5), "parts": np.where(t % 25 == 7, 3.0, 0.0)}
                 ).to_csv(root / "waves.csv", index=False)
    settings = from_dict(forecast.ForecastRecipeConfig, {
        "name": "waves", "output_dir": str(root / "runs"), "context_length": CONTEXT, "horizons": [HORIZON], "seeds": 2,
        "data": {"path": str(root / "waves.csv"), "season": SEASON}, "linear": ["nlinear"], "impl": FP32,
        "models": {"tiny": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                            "intermediate_size": 16}},
        "starts": ["masked-patches"], "check_dead_branches": False, "pretraining": {**OVERDONE, "mask_ratio": 0.4},
        "series": {"patch_length": 8, "patch_stride": 8}, "training": {"max_steps": 6, "eval_steps": 3},
        "arm_training": {"nlinear": {"max_steps": 20, "eval_steps": 4, "learning_rate": 0.05}}})
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        forecast.forecast(settings, make_accelerator())
    return root / "runs/waves", root / "waves.csv", out.getvalue()


def windows_of(table: Path, split: str, horizon: int = HORIZON) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised contexts and futures (n, channels, ·) of a split, whose horizons lie within it, and the unit of
    MASE (channels,)."""
    values = pd.read_csv(table).drop(columns="date").to_numpy().T
    ends = {"train": (0, 280), "validation": (280, 320), "test": (320, 400)}  # 70, 10 and 20 % of the rows
    train = values[:, :280]
    deviation = train.std(1, keepdims=True)
    values = (values - train.mean(1, keepdims=True)) / np.where(np.ptp(train, 1)[:, None] > 0, deviation, 1)
    low, high = ends[split]
    starts = range(max(low, CONTEXT), high - horizon + 1)
    return (np.stack([values[:, start - CONTEXT:start] for start in starts]),
            np.stack([values[:, start:start + horizon] for start in starts]),
            np.abs(values[:, SEASON:280] - values[:, :280 - SEASON]).mean(1))


def forecast_figures(table: Path, ask) -> dict:
    """What any forecaster scores; intervals are order statistics of its residuals on validation."""
    context, future, unit = windows_of(table, "test")
    before, after, _ = windows_of(table, "validation")
    residuals = np.sort(after - ask(before), 0)
    n = len(residuals)
    offsets = [residuals[math.floor(0.1 * (n + 1)) - 1], residuals[math.ceil(0.5 * (n + 1)) - 1],
               residuals[math.ceil(0.9 * (n + 1)) - 1]]
    answer = ask(context)
    ends = [answer + offset for offset in offsets]
    errors = np.abs(future - answer)
    losses = [mean_pinball_loss(future.ravel(), end.ravel(), alpha=q)
              for q, end in zip((0.1, 0.5, 0.9), ends, strict=True)]
    within = (ends[0] - 1e-6 <= future) & (future <= ends[2] + 1e-6)
    return {"mse": np.mean(errors**2), "mae": np.mean(errors), "quantile_loss": np.mean(losses),
            "mase": np.mean(errors[:, unit > 0] / unit[unit > 0][:, None]), "coverage": within.mean(),
            "validation mse": np.mean((after - ask(before)) ** 2), "coverage of dead": within[:, 1].mean()}


def test_forecasts(forecasted):
    runs, table, said = forecasted
    summary = read_json(runs.with_name("waves.json"))
    for arm in ("repeat-last", "nlinear"):
        scored = []
        for place in ([f"{HORIZON}"] if arm == "repeat-last" else [f"{HORIZON}/seed-0", f"{HORIZON}/seed-1"]):
            result = read_json(runs / arm / place / "result.json")
            if place.endswith("seed-1"):  # whose model is not kept
                scored.append(result)
                continue
            model = None if arm == "repeat-last" else NLinear.from_pretrained(runs / arm / place / "model").eval()

            def ask(context, model=model):
                if model is None:
                    return np.repeat(context[..., -1:], HORIZON, 2)
                with torch.no_grad():
                    return model(torch.from_numpy(context.astype(np.float32))).prediction.double().numpy()

            figures = forecast_figures(table, ask)
            assert {key: result[key] for key in ("mse", "mae", "mase", "quantile_loss", "coverage")} == pytest.approx(
                {key: figures[key] for key in ("mse", "mae", "mase", "quantile_loss", "coverage")}, rel=1e-4)
            assert result["validation"]["mse"] == pytest.approx(figures["validation mse"], rel=1e-4)
            assert figures["coverage of dead"] == 1.0 and result["mase_left_out"] == ["dead"]
            scored.append(result)
        entry = summary[arm][str(HORIZON)]
        for key in ("mse", "mae", "mase", "coverage", "quantile_loss"):
            assert entry[f"{key}_values"] == [result[key] for result in scored]
            assert entry[key] == pytest.approx(np.mean(entry[f"{key}_values"]))
        row = re.search(rf"^{arm} +{HORIZON} +(\S+) +(\S+) +(\S+) +(\S+)", said, re.MULTILINE).groups()
        assert [float(cell) for cell in row] == pytest.approx([
            entry["mase"], entry["quantile_loss"], 100 * entry["coverage"], entry["validation_mse"]], rel=2e-3)
    assert "which is 0 or unknown for dead: left out of it" in said
    told, kept = card(runs / f"nlinear/{HORIZON}/seed-0"), read_json(runs / f"nlinear/{HORIZON}/seed-0/result.json")
    assert shown(told, "MSE on test") == f"{kept['mse']:.4g}"
    assert shown(told, "MASE on test, without dead") == f"{kept['mase']:.4g}"
    assert shown(told, "inside intervals of nominally 80 %, ends included") == f"{100 * kept['coverage']:.1f} %"


def test_hidden_patches(forecasted):
    runs, table, _ = forecasted
    run = runs / "tiny-masked-patches/pretraining/seed-0"
    model = SeriesForMaskedPatches.from_pretrained(run / "model").eval()
    # A context of each place of validation where a horizon of one row fits behind it, from every eighth row on.
    values = windows_of(table, "validation", 1)[0][::8].astype(np.float32)
    draws = counter.uniform(counter.key(0x5EED, 0x3A5C), np.arange(len(values)), CONTEXT // 8)
    hidden = draws.argsort(1).argsort(1) < round(0.4 * CONTEXT / 8)
    masked = np.broadcast_to(np.repeat(hidden, 8, 1)[:, None], values.shape)
    with torch.no_grad():
        output = model(values=torch.from_numpy(values), masked=torch.from_numpy(masked.copy()))
    seen = np.where(masked, np.nan, values).astype(float)  # each series is scaled by what of it is not hidden
    mean, deviation = np.nanmean(seen, -1, keepdims=True), np.nanstd(seen, -1, keepdims=True)
    scaled = ((values - mean) / np.where(deviation > 1e-5, deviation, 1)).reshape(-1, CONTEXT // 8, 8)
    chosen = np.repeat(hidden, values.shape[1], 0)
    truth, answer = scaled[chosen], output.prediction.double().numpy()[chosen]
    assert np.allclose(truth, output.target.numpy()[chosen], atol=1e-3)
    is_of_the_kept_model(run, {"loss": np.mean((answer - truth) ** 2),
                               "explained": 1 - ((answer - truth) ** 2).sum() / (truth**2).sum()}, rel=1e-3)


def test_sampled_forecasts(tmp_path, capsys):
    (tmp_path / "bins.yaml").write_text("algorithm: series-bins\ncontext_length: 24\nhorizon: 8\nvocab_size: 130\n"
                                        "low_limit: -8\nhigh_limit: 8\n")
    settings = from_dict(pretrain_gpt.PretrainGptConfig, {
        "output_dir": str(tmp_path / "gpt"), "data_dir": str(tmp_path / "data"), "impl": FP32, "block_size": 66,
        "tokenizer": str(tmp_path / "bins.yaml"), "series": {"sources": ["generator:noisy-sines:200"]},
        "model": {"preset": "gpt-nano", "max_position_embeddings": 66, "embeddings": "random"},
        "training": {**OVERDONE, "max_steps": 8, "learning_rate": 0.05}})
    pretrain_gpt.pretrain_gpt(settings, make_accelerator())
    t = np.arange(400)
    pd.DataFrame({"date": t, "parts": np.where(t % 25 == 7, 3.0, 0.0), "wave": 5 + np.sin(0.5 * t)}
                 ).to_csv(tmp_path / "shop.csv", index=False)
    capsys.readouterr()
    sample_forecasts.main(["--run", str(tmp_path / "gpt"), "--output_dir", str(tmp_path / "run"), "--windows", "30",
                           "--sources", f'["{tmp_path / "shop.csv"}"]'])
    said = capsys.readouterr().out
    result = read_json(tmp_path / "run/result.json")[str(tmp_path / "shop.csv")]
    saved = np.load(tmp_path / "run/shop-csv.npz")
    context, future = saved["context"], saved["future"]
    values = pd.read_csv(tmp_path / "shop.csv", float_precision="round_trip")[["parts", "wave"]].to_numpy().T
    runs = {tuple(row) for channel in values for row in np.lib.stride_tricks.sliding_window_view(channel[320:], 32)}
    assert all(tuple(row) in runs for row in np.concatenate([context, future], 1)), "no windows of the test part"
    scale = np.abs(context).mean(1, keepdims=True)
    scale[scale == 0] = 1
    truth, centres = future / scale, np.linspace(-8, 8, 128)

    def bin_of(values):  # of which each is the nearest centre, at an edge the upper one
        return np.floor((values - centres[0]) / (centres[1] - centres[0]) + 0.5 + 1e-9).clip(0, 127)

    for name, row in result["arms"].items():
        quantiles = saved["quantiles"] / scale[..., None] if name.startswith("GPT") else np.repeat(
            saved[name][..., None], 3, 2) / scale[..., None]
        assert row["mae"] == pytest.approx(np.mean(np.abs(quantiles[..., 1] - truth)))
        assert row["mse"] == pytest.approx(np.mean((quantiles[..., 1] - truth) ** 2))
        assert row["quantile_loss"] == pytest.approx(np.mean([mean_pinball_loss(
            truth.ravel(), quantiles[..., place].ravel(), alpha=q) for place, q in enumerate((0.1, 0.5, 0.9))]))
        if name.startswith("GPT"):
            written = centres[bin_of(truth).astype(int)]
            within = (quantiles[..., 0] - 1e-9 <= written) & (written <= quantiles[..., 2] + 1e-9)
            assert row["coverage"] == pytest.approx(within.mean()) and f"{row['coverage']:.3g}" in said
        else:
            saved_by = row["mae"] - result["arms"]["GPT, median of samples"]["mae"]
            assert result["mae_saved"][name]["mean"] == pytest.approx(saved_by)
    assert result["nominal_coverage"] == pytest.approx(0.8) and result["windows"] == len(context) == 30
