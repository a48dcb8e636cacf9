"""What `predict` says of texts: its columns, what it refuses, texts that hold control tokens or nothing."""

import dataclasses
import json

import numpy as np
import pandas as pd
import predict as recipe
import pytest
import torch
import transformers
from checkpoints import checkpoints  # noqa: F401 - a fixture

from toolkit import answer_texts
from toolkit.data.series.tables import SeriesTable
from toolkit.data.text.text_input import TextInput, save_with_input
from toolkit.errors import UserError
from toolkit.inference.predict import PredictConfig, predict
from toolkit.models.load import load_checkpoint_tokenizer
from toolkit.models.text.classifier import TextConfig, TextForClassification, text_classifier
from toolkit.run.files import read_json

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def model(checkpoints, tmp_path_factory):  # noqa: F811
    """`model("bert")`: a classifier whose answers differ, saved as fine-tuning saves it."""
    place = tmp_path_factory.mktemp("classifiers")

    def saved(backbone, pooling="layers", pairs=False, names=NAMES, kind="single_label_classification"):
        path = place / "-".join((backbone, pooling, str(pairs), kind))
        if not path.exists():
            torch.manual_seed(0)
            tokenizer = load_checkpoint_tokenizer(checkpoints[backbone])
            made = text_classifier(checkpoints[backbone], names, tokenizer, True, pooling, problem_type=kind)
            for name, weight in made.named_parameters():
                if name.startswith(("classifier.weight", "score.weight")):
                    torch.nn.init.normal_(weight, std=3.0)
            reading = TextInput.new(tokenizer, 32, "head", 64, pairs)
            made.config.text_input = dataclasses.asdict(reading)
            made.save_pretrained(path)
            save_with_input(tokenizer, reading, path)
        return str(path)

    return saved


def numbers(table):
    return table[[name for name in table if name.startswith("p(")]].to_numpy(float)


def piped(path, texts, **options):
    ask = transformers.pipeline("text-classification", model=path, device="cpu")
    return np.array([[{answer["label"]: answer["score"] for answer in each}[name] for name in NAMES]
                     for each in ask(texts, top_k=None, truncation=True, **options)])


def test_every_column_is_kept_and_none_is_overwritten(model, tmp_path, capsys):
    file = tmp_path / "in.csv"
    file.write_text("id,label,input_label,text\n007,x,y,the river\n8,,z,a garden\n", encoding="utf-8")
    table = predict(PredictConfig(model("bert"), str(file)))
    assert list(table) == ["label", "p(a)", "p(b)", "p(c)", "id", "input_input_label", "input_label", "text"]
    assert list(table["id"]) == ["007", "8"] and list(table["input_input_label"]) == ["x", ""]
    assert list(table["input_label"]) == ["y", "z"]
    assert "the input's column 'label' is called 'input_input_label' here" in capsys.readouterr().err
    assert [NAMES[i] for i in numbers(table).argmax(1)] == list(table["label"])


def test_a_table_written_elsewhere_is_answered_alike_and_kept_as_it_stands(model, tmp_path, capsys):
    (tmp_path / "a.csv").write_text('id,text,price\n1,"the river, or a café","1,5"\n2,a garden,2\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text("id;text;price\n1;the river, or a café;1,5\n2;a garden;2\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"b\.csv: not valid UTF-8 .* \(data\.encoding, for instance latin-1\)"):
        predict(PredictConfig(model("bert"), str(tmp_path / "b.csv")))
    found = [predict(PredictConfig(model("bert"), str(tmp_path / name), data=SeriesTable(encoding=encoding)))
             for name, encoding in (("a.csv", ""), ("b.csv", "latin-1"))]
    pd.testing.assert_frame_equal(*found)
    assert found[1].price.tolist() == ["1,5", "2"]
    assert "b.csv: cells are parted by semicolons" in capsys.readouterr().err


def test_sets_of_labels_are_written_as_they_are_read(model, tmp_path):
    path = model("bert", kind="multi_label_classification")
    table = predict(PredictConfig(path, str(texts_file(tmp_path, ["the river", "winter garden", "of of of window"]))))
    assert list(table["labels"]) == [[NAMES[i] for i in np.flatnonzero(row >= 0.5)] for row in numbers(table)]
    for name in ("out.csv", "out.tsv", "out.jsonl", "out.parquet"):
        recipe.main([path, str(tmp_path / "in.jsonl"), "--output", str(tmp_path / name)])
    assert list(pd.read_csv(tmp_path / "out.csv", keep_default_na=False)["labels"]) == [
        "|".join(labels) for labels in table["labels"]]
    assert [json.loads(line)["labels"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == list(
        table["labels"])
    assert [list(labels) for labels in pd.read_parquet(tmp_path / "out.parquet")["labels"]] == list(table["labels"])
    with pytest.raises(UserError, match=r"output is a\.xlsx; its name must end in \.parquet, \.csv"):
        recipe.main([path, str(tmp_path / "in.jsonl"), "--output", "a.xlsx"])


def texts_file(folder, texts):
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_what_a_model_did_not_learn_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="learned pairs of texts. Name the column .* with --text_pair_column"):
        predict(PredictConfig(model("bert", pairs=True), str(texts_file(tmp_path, ["one"]))))
    with pytest.raises(UserError, match="text 1: there are two texts, but .* learned single texts"):
        answer_texts(model("bert"), ["one"], ["two"])
    with pytest.raises(UserError, match="text 1: there is one text, but .* learned pairs of texts"):
        answer_texts(model("bert", pairs=True), ["one"])
    with pytest.raises(UserError, match="no text to ask it about"):
        answer_texts(model("bert"), [])
    (tmp_path / "in.jsonl").write_text('{"text": "one"}\n{"words": "two"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"in\.jsonl, line 2: has no column 'text'"):
        predict(PredictConfig(model("bert"), str(tmp_path / "in.jsonl")))


@pytest.mark.parametrize(("backbone", "token"), [("bert", "[SEP]"), ("bert", "[MASK]"), ("gpt", "<|endoftext|>")])
def test_a_control_token_in_a_text_is_text(model, backbone, token):
    path, texts = model(backbone), [f"the river {token} winter", f"the river {token[0]} {token[1:]} winter"]
    tokenizer = load_checkpoint_tokenizer(path)
    control = tokenizer.convert_tokens_to_ids(token)
    plain = tokenizer(texts[0], add_special_tokens=False)["input_ids"]
    assert control not in plain, "the saved tokenizer, and so transformers' pipeline, takes it for the control token"
    found = numbers(answer_texts(path, texts))
    loaded = TextForClassification.from_pretrained(path).eval()
    with torch.inference_mode():
        ids = torch.tensor([tokenizer(texts[0], split_special_tokens=True)["input_ids"]])
        expected = loaded(ids).logits.softmax(-1)
    assert np.allclose(found[:1], expected, atol=1e-5) and np.allclose(piped(path, texts), found, atol=1e-5)


def test_a_model_from_before_reads_as_it_did(model, tmp_path):
    """Without `text_input`: as transformers' pipeline, the control token in a text for what it is."""
    path = tmp_path / "old"
    tokenizer = load_checkpoint_tokenizer(model("bert"))
    tokenizer.split_special_tokens = False
    old = TextForClassification.from_pretrained(model("bert"))
    del old.config.text_input
    old.save_pretrained(path), tokenizer.save_pretrained(path)
    assert "text_input" not in read_json(path / "config.json")
    texts = ["the river [SEP] winter", "of the " * 60]
    assert np.allclose(piped(str(path), texts), numbers(answer_texts(path, texts)), atol=1e-5)
    assert not np.allclose(numbers(answer_texts(path, texts))[0], numbers(answer_texts(model("bert"), texts))[0])


@pytest.mark.parametrize("pooling", ["layers", "mean", "max", "cls"])
@pytest.mark.parametrize("backbone", ["bert", "gpt"])
def test_an_empty_text_has_an_answer_of_its_own(model, backbone, pooling, capsys):
    path, texts = model(backbone, pooling), ["", "the river in winter, and the garden", ""]
    found = numbers(answer_texts(path, texts))
    assert np.isfinite(found).all() and np.allclose(found.sum(1), 1)
    assert np.allclose(found[[0, 2]], numbers(answer_texts(path, [""])), atol=1e-5)
    assert "2 texts are empty (text 1, text 3)" in capsys.readouterr().err
    if (backbone, pooling) != ("gpt", "cls"):  # transformers' own class reads the last token, and there is none
        assert np.allclose(piped(path, texts, batch_size=2), found, atol=1e-5)
        assert np.allclose(piped(path, [""]), found[:1], atol=1e-5)


@pytest.mark.parametrize("pooling", ["layers", "mean", "max"])
@pytest.mark.parametrize("length", [6, 40])  # of one window, and of three
def test_a_mask_of_nothing_gives_no_nan(checkpoints, pooling, length):  # noqa: F811
    shape = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    model = TextForClassification(TextConfig(backbone_config=shape, pooling=pooling, num_labels=2)).eval()
    ids, mask = torch.randint(1, 50, (3, length)), torch.ones(3, length, dtype=torch.long)
    mask[1] = 0
    with torch.inference_mode():
        logits = model(ids, attention_mask=mask).logits
        alone = model(ids[1:2, :1]).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[1:2], alone, rtol=1e-4, atol=1e-5)
