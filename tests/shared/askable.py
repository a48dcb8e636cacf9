"""A small model of every kind that the page in the browser asks, and tables for them; labels of strangers."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import planted
import torch

from toolkit.data.pairs.batches import PairBatches, TokenIds
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.data.series.windows import ForecastDataSection, load_forecast_data, window_splits
from toolkit.data.text.text_input import TextInput, save_with_input
from toolkit.experiments.forecasts import Arm, new_model
from toolkit.experiments.settings import ForecastRecipeConfig
from toolkit.models.seq2seq.recurrent import RecurrentForSeq2Seq, RecurrentSeq2SeqConfig
from toolkit.models.seq2seq.transformer import new_transformer, transformer_config
from toolkit.models.series.patches import SeriesForClassification
from toolkit.models.text.classifier import text_classifier
from toolkit.run.directory import Run
from toolkit.tasks.forecasting import fit_forecaster
from toolkit.tasks.seq2seq import Seq2Seq
from toolkit.tasks.settings import DecodingConfig, ForecastConfig, Seq2SeqTrainingConfig
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.settings import ImplConfig

LABELS = [*planted.PLANTED[:2], "{{value}} ${value}"]


def classifier(place: Path, bert: str, tokenizer, pairs: bool = False) -> str:
    """A classifier of texts, whose answers differ."""
    torch.manual_seed(0)
    made = text_classifier(bert, LABELS, tokenizer, True, "cls")
    for name, weight in made.named_parameters():
        if name.startswith(("classifier.weight", "score.weight")):
            torch.nn.init.normal_(weight, std=3.0)
    reading = TextInput.new(tokenizer, 32, "head", 64, pairs)
    made.config.text_input = dataclasses.asdict(reading)
    made.save_pretrained(place)
    save_with_input(tokenizer, reading, place)
    return str(place)


def series_classifier(place: Path, bert: str) -> str:
    torch.manual_seed(1)
    SeriesForClassification.from_backbone(bert, LABELS[:2], pretrained=True, patch_length=8).save_pretrained(place)
    return str(place)


def waves(rows: int = 240) -> pd.DataFrame:
    t = np.arange(rows)
    return pd.DataFrame({"date": pd.date_range("2021-01-01", periods=rows, freq="h"),
                         "load": 500 + 100 * np.sin(t / 4), planted.PLANTED[0]: 10 + np.cos(t / 4)})


def forecaster(place: Path) -> str:
    """That learned `waves`: 24 rows, 6 ahead."""
    place.mkdir()
    waves().to_csv(place / "train.csv", index=False)
    data = load_forecast_data(ForecastDataSection(str(place / "train.csv"), season=12), lambda line: None)
    settings, arm = ForecastRecipeConfig(context_length=24), Arm("nlinear")
    fit_forecaster(lambda: new_model(arm, arm.source, settings, data, 6), window_splits(data, 24, 6, 16, 0),
                   ForecastConfig(max_steps=20, eval_steps=0, batch_size=16), ImplConfig(dtype="fp32"),
                   Run(place / "run"), make_accelerator(), 0, "nlinear", keep_model=True)
    return str(place / "run/model")


def writer(place: Path, tokenizer, attention: str | None = "additive", cell: str = "", own_target: bool = False,
           num_beams: int = 1) -> str:
    """An encoder–decoder, saved as finetune-seq2seq saves it: a Transformer, or recurrent where a cell is named."""
    torch.manual_seed(2)
    ids = TokenIds.of(tokenizer, "tokenizer")
    tokens = {"pad_token_id": ids.pad, "eos_token_id": ids.end, "decoder_start_token_id": ids.start}
    sizes = {"vocab_size": len(tokenizer), "decoder_vocab_size": len(tokenizer) if own_target else None,
             "max_position_embeddings": 40}
    model = RecurrentForSeq2Seq(RecurrentSeq2SeqConfig(
        embedding_size=16, hidden_size=12, cell=cell, attention=attention, bidirectional=True, **sizes, **tokens)
    ) if cell else new_transformer(transformer_config("transformer-tiny", **sizes, **tokens))
    decoding = DecodingConfig(max_new_tokens=12, num_beams=num_beams)
    batches = PairBatches(TextPairs(["the sea"], ["a sea"], [""]), tokenizer, tokenizer, (ids, ids), (40, 40), 1, 0)
    target = copy.copy(tokenizer) if own_target else tokenizer
    Seq2Seq(model, batches, batches, Seq2SeqTrainingConfig(decoding=decoding), (tokenizer, target)).save(model, place)
    return str(place)


def series_table(path: Path, count: int = 3) -> str:
    values = np.random.default_rng(0).normal(size=(count, 40)).round(3)
    pd.DataFrame(values, columns=[f"v{place}" for place in range(40)]).to_csv(path, index=False)
    return str(path)
