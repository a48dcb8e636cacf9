"""One answer: what `predict` says of the test file is what was scored, whatever stands beside it, and never NaN.

Texts: every task × backbone × pooling × way with long texts × pairs or not. A few of these in every test run, so chosen
that every two values meet; all of them are marked slow.
"""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config

from toolkit import answer_texts
from toolkit.analysis.probes import new_text_classifier
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.labelled import TextDataSection, load_data
from toolkit.inference.predict import PredictConfig, predict
from toolkit.models.load import load_checkpoint_tokenizer
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.publishing.card_text import usage
from toolkit.run.directory import Run
from toolkit.run.files import read_json
from toolkit.tasks.classification import FineTuningConfig, fine_tune
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig

POSITIONS = 32
TASKS = {"classification": {"label_column": "name"}, "multi-label": {"label_columns": ["river", "garden", "window"]},
         "distribution": {"label_columns": ["p_a", "p_b"]}, "regression": {"label_column": "price"}}
WAYS = list(itertools.product(TASKS, ("bert", "gpt"), ("layers", "mean", "max", "cls"),
                              ("windows", "head", "head+tail"), (False, True)))
CHOSEN = [("classification", "bert", "layers", "windows", True), ("classification", "gpt", "cls", "head+tail", True),
          ("classification", "bert", "max", "head", False), ("classification", "gpt", "mean", "windows", False),
          ("multi-label", "gpt", "layers", "head", True), ("multi-label", "bert", "cls", "windows", False),
          ("multi-label", "gpt", "max", "head+tail", False), ("distribution", "bert", "mean", "head+tail", True),
          ("distribution", "gpt", "cls", "windows", True), ("distribution", "gpt", "layers", "head", False),
          ("regression", "gpt", "cls", "head", False), ("regression", "bert", "layers", "head+tail", False),
          ("regression", "bert", "cls", "head", True), ("regression", "gpt", "max", "windows", True)]


@pytest.fixture(scope="module")
def place(wordpiece, byte_level_bpe, tmp_path_factory):
    """Checkpoints whose answers are not all alike, and files of texts from one word to thrice the positions."""
    place = tmp_path_factory.mktemp("one-answer")
    torch.manual_seed(0)
    bert = BertForPreTraining(BertConfig(vocab_size=len(wordpiece), hidden_size=32, num_hidden_layers=2,
                                         num_attention_heads=2, intermediate_size=64, initializer_range=0.2,
                                         max_position_embeddings=POSITIONS))
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=len(byte_level_bpe), n_embd=32, n_layer=2, n_head=2, bos_token_id=0,
                                     n_positions=POSITIONS, initializer_range=0.2, eos_token_id=0))
    for name, model, tokenizer in (("bert", bert, wordpiece), ("gpt", gpt, byte_level_bpe)):
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    random = np.random.default_rng(0)
    words = ["river", "garden", "window", "letter", "winter", "the", "of", "[SEP]", "<|endoftext|>", "[MASK]"]
    for split, rows in (("train", 24), ("validation", 12), ("test", 16)):
        records = []
        for row in range(rows):
            text, other = (" ".join(random.choice(words, random.integers(1, size))) for size in (40, 12))
            has = {word: int(word in text) for word in ("river", "garden", "window")}
            if row < 2:  # every label is on some and off some
                text, has = [("river garden window", dict.fromkeys(has, 1)), ("of the", dict.fromkeys(has, 0))][row]
            records.append({"id": f"{split} {row}", "text": text, "other": other, **has, "name": "ab"[has["river"]],
                            "p_a": 0.9 - 0.7 * has["river"], "p_b": 0.1 + 0.7 * has["river"],
                            "price": 3e5 + 1e4 * text.count("river") + 1e3 * len(text)})
        write(place / f"{split}.jsonl", records)
    return place


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return records


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def trained(place, task, backbone, pooling, long_texts, pairs):
    """The run of a few steps, and its test labels; made once."""
    run = Run(place / "-".join((task, backbone, pooling, long_texts, str(pairs))))
    whole = pooling == "cls" and long_texts == "windows"  # which reads no windows
    section = TextDataSection(**{split: str(place / f"{split}.jsonl") for split in ("train", "validation", "test")},
                              task=task, max_length=POSITIONS if whole else 3 * POSITIONS, long_texts=long_texts,
                              text_pair_column="other" if pairs else "", **TASKS[task])
    tokenizer, accelerator = load_checkpoint_tokenizer(str(place / backbone)), make_accelerator()
    parts = load_data(section)
    batches = [TextBatches(part, tokenizer, section.max_length, 8, 0, long_texts, POSITIONS) for part in parts]
    impl = ImplConfig()
    result = fine_tune(lambda: new_text_classifier(str(place / backbone), parts[0].label_names, tokenizer, batches[0],
                                                   accelerator, impl, True, pooling, 0.1, task), *batches,
                       FineTuningConfig(max_steps=6, batch_size=8, learning_rate=3e-3, logging_steps=3, eval_steps=3),
                       impl, run, accelerator, 0, "test", tokenizer, keep_model=True, task=task)
    return run, result


def numbers(table, config) -> np.ndarray:
    """(n, classes), or (n, 1)."""
    if config["problem_type"] == "regression":
        return table[["value"]].to_numpy(float)
    return table[[f"p({name})" for name in config["id2label"].values()]].to_numpy(float)


def same(place, task, backbone, pooling, long_texts, pairs):
    run, result = trained(place, task, backbone, pooling, long_texts, pairs)
    config, test = read_json(run.model_dir / "config.json"), read(place / "test.jsonl")
    scored = np.load(run.directory / "outputs.npz")["test"].reshape(len(test), -1)
    unit = 1e4 if task == "regression" else 1.0  # about a standard deviation of the numbers
    assert np.isfinite(scored).all() and scored.std(0).max() > 1e-3 * unit, "all answers are alike: this shows nothing"

    def ask(file, size):
        return predict(PredictConfig(str(run.model_dir), str(place / file), text_pair_column="other" if pairs else "",
                                     batch_size=size))

    def equal(found, expected):
        # To 1e-5 of the unit, or of a number that is larger: float32 tells those apart to 6e-8 of themselves.
        assert np.isfinite(found).all() and (np.abs(found - expected) < 1e-5 * np.maximum(unit, np.abs(expected))).all()

    table = ask("test.jsonl", 64)
    equal(numbers(table, config), scored)
    assert list(table["id"]) == [row["id"] for row in test] and list(table["text"]) == [row["text"] for row in test]
    order = np.random.default_rng(1).permutation(len(test))
    nothing = {**test[0], "id": "nothing", "text": "", "other": ""}
    write(place / "mixed.jsonl", [nothing, *read(place / "train.jsonl")[:7], *(test[row] for row in order)])
    mixed = ask("mixed.jsonl", 5)
    equal(numbers(mixed.set_index("id").loc[[row["id"] for row in test]], config), scored)
    write(place / "nothing.jsonl", [nothing])
    equal(numbers(ask("nothing.jsonl", 1), config), numbers(mixed, config)[:1])
    texts, others = ([row[key] for row in test] for key in ("text", "other"))
    equal(numbers(answer_texts(run.model_dir, texts, others if pairs else None), config), scored)
    if long_texts != "head+tail":  # which no tokenizer cuts
        piped = transformers.pipeline("text-classification", model=str(run.model_dir), device="cpu")(
            [{"text": text, "text_pair": other} for text, other in zip(texts, others, strict=True)] if pairs else texts,
            top_k=None, truncation=True, batch_size=5)
        found = [{answer["label"]: answer["score"] for answer in each} for each in piped]
        equal(np.array([[row[name] for name in config["id2label"].values()] for row in found]), scored)
    right = [config["id2label"][str(number)] for number in result["predictions"]] if task in (
        "classification", "distribution") else None
    assert right is None or list(table["label"]) == right


@pytest.mark.parametrize(("task", "backbone", "pooling", "long_texts", "pairs"), CHOSEN, ids=str)
def test_what_was_scored_is_what_is_predicted(place, task, backbone, pooling, long_texts, pairs):
    same(place, task, backbone, pooling, long_texts, pairs)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "backbone", "pooling", "long_texts", "pairs"),
                         [way for way in WAYS if way not in CHOSEN], ids=str)
def test_and_so_for_all_of_them(place, task, backbone, pooling, long_texts, pairs):
    same(place, task, backbone, pooling, long_texts, pairs)


@pytest.mark.parametrize(("reading", "tokenizer_class", "shown"), [
    ({"long_texts": "head", "pairs": False}, "TokenizersBackend", 'print(ask("A text to classify.", truncation=True))'),
    ({"long_texts": "head", "pairs": True, "joint": 0}, "TokenizersBackend", '"text_pair": "Another."}'),
    ({"long_texts": "head", "pairs": True, "joint": 0}, "GPT2Tokenizer", '["A text to classify."], ['),
    ({"long_texts": "head+tail", "pairs": False}, "TokenizersBackend", 'answer_texts("m", ["A text to classify."])')])
def test_the_card_shows_the_lines_that_answer_as_was_scored(reading, tokenizer_class, shown):
    facts = SimpleNamespace(model={"text_input": reading, "model_type": "toolkit-text"}, shape={}, config={},
                            tokenizer={"tokenizer_class": tokenizer_class}, module="toolkit.models.text",
                            architecture="TextForClassification", is_fit=True)
    lines = usage(facts, "m")
    assert shown in lines and ("pipeline(" in lines) == ("answer_texts" not in lines)
    compile(lines, "card", "exec")
