"""A model's configuration, spoiled at random, and the model then asked: it answers, or is refused in a line."""

import json
from dataclasses import asdict

import mutation
import numpy as np
import pandas as pd
import pytest
import small
import torch

from toolkit.data.text.text_input import TextInput
from toolkit.errors import UserError
from toolkit.inference.predict import PredictConfig, predict
from toolkit.models.series.patches import SeriesConfig, SeriesForClassification
from toolkit.models.small.linear import NLinear, NLinearConfig
from toolkit.models.text.classifier import TextConfig, TextForClassification
from toolkit.tokenization.train import TokenizerSpec, train_tokenizer

DAILY, LONG = 20, 1000
LABELS = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1},
          "decision_threshold": {"label": "b", "probability": 0.3, "aim": "f1"}}


def texts(place):
    spec = TokenizerSpec("wordpiece", 50, normalizer="bert", pre_tokenizer="bert", special_tokens="bert")
    tokenizer = train_tokenizer(spec, ["the cat sat on the mat and looked at other cats"] * 9, progress=False)
    reading = TextInput.new(tokenizer, 16, "head+tail", 64, False)
    config = TextConfig(backbone_config=small.bert_config(50), text_input=asdict(reading), **LABELS)
    TextForClassification(config).save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    pd.DataFrame({"text": ["the cat", "other cats looked"]}).to_csv(place / "asked.csv", index=False)


def series(place):
    columns = [f"t{number}" for number in range(12)]
    config = SeriesConfig(backbone_config=small.bert_config(50), patch_length=4, value_columns=columns,
                          sampling_rate=50.0, normalisation="train", channel_means=[1.0], channel_deviations=[2.0],
                          series_length=12, **LABELS)
    SeriesForClassification(config).save_pretrained(place / "model")
    values = np.random.default_rng(0).normal(size=(3, 12))
    pd.DataFrame(values, columns=columns).to_csv(place / "asked.csv", index=False)


def forecasts(place):
    config = NLinearConfig(context_length=8, horizon=3, num_channels=2, num_covariates=25)
    config.update({"channel_names": ["load", "heat"], "scale_means": [1.0, 2.0], "scale_deviations": [1.0, 3.0],
                   "time_column": "date", "frequency": "h", "missing": "mask", "series_column": "",
                   "future_columns": ["ahead"], "calendar_columns": ["hour"], "future_means": [0.5],
                   "future_deviations": [1.0]})
    NLinear(config).save_pretrained(place / "model")
    offsets = np.zeros((2, 3, 2)).tolist()
    (place / "model/intervals.json").write_text(json.dumps({"quantiles": [0.1, 0.9], "offsets": offsets}))
    table = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=15, freq="h"), "load": np.arange(15.0),
                          "heat": np.arange(15.0) % 3, "ahead": np.arange(15.0) % 2})
    table.loc[12:, ["load", "heat"]] = np.nan
    table.to_csv(place / "asked.csv", index=False)


KINDS = {"texts": texts, "series": series, "forecasts": forecasts}


@pytest.fixture(scope="module", params=KINDS)
def asked(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    KINDS[request.param](place)
    return place


def answers(place) -> pd.DataFrame:
    return predict(PredictConfig(str(place / "model"), str(place / "asked.csv")))


@pytest.mark.parametrize("tries", [DAILY, mutation.at_length(LONG)])
def test_a_models_configuration(asked, tries):
    path = asked / "model/config.json"
    sample = path.read_bytes()
    assert len(answers(asked))

    def write(data: bytes):
        path.write_bytes(data)
        return path

    try:
        assert mutation.try_reader(sample, mutation.json_spoiled, write, lambda path: answers(asked), tries)
    finally:
        write(sample)


@pytest.mark.parametrize(("change", "said"), [
    ({"max_lenght": 3}, "unknown key 'max_lenght'. Did you mean 'max_length'"), ({"max_length": "x"}, "max_length"),
    ({"max_length": 0}, "max_length"), ({"pairs": 1}, "pairs"), ({"joint": 5000}, "joint"), ({"empty": -1}, "empty"),
    ({"long_texts": "tail"}, "long_texts")])
def test_how_a_classifier_reads_texts(tmp_path, change, said):
    texts(tmp_path)
    path = tmp_path / "model/config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"text_input": values["text_input"] | change}))
    with pytest.raises(UserError, match=said) as caught:
        answers(tmp_path)
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value", "said"), [
    ("chunk_size_feed_forward", {"a": 1}, "chunk_size_feed_forward in its config.json is .* not a whole number"),
    ("chunk_size_feed_forward", 10**30, "Set it to 0, which computes the same"),
    ("dropout", float("nan"), "dropout in its config.json is no finite number")])
def test_what_no_class_checks_itself(tmp_path, key, value, said):
    texts(tmp_path)
    path = tmp_path / "model/config.json"
    values = json.loads(path.read_text())
    (values["backbone_config"] if key in values["backbone_config"] else values)[key] = value
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=said) as caught:
        answers(tmp_path)
    assert "\n" not in str(caught.value)
