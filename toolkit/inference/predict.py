"""What a fine-tuned classifier answers to a file: texts through transformers' own pipeline, or series."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd
import torch
import transformers
from transformers import PreTrainedConfig

from toolkit.data.series.dataset import z_normalise
from toolkit.data.series.readers import read_values
from toolkit.data.series.tables import SeriesTable
from toolkit.data.text.labelled import read_texts
from toolkit.errors import UserError
from toolkit.hub import checkpoint_directory
from toolkit.inference.table_forecasts import forecast_table, is_forecaster
from toolkit.models.load import checkpoint_config, load_checkpoint_tokenizer, load_weights
from toolkit.models.registry import is_classifier, model_class


@dataclass
class PredictConfig:
    model: str
    file: str
    text_column: str = "text"
    text_pair_column: str = ""
    data: SeriesTable = field(default_factory=SeriesTable)
    """Of a table of series: which columns hold what."""
    sampling_rate: float | None = None
    """Of series: values a second (Hz), as you know it; refused where the model learned others."""
    batch_size: int = 32
    output: str = ""
    """A .parquet, .csv, .tsv or .jsonl file; empty: to the screen."""


Answers = Iterator[tuple[dict[str, float], dict]]
"""The probability of every class, and what the row says of the input."""


def predict(settings: PredictConfig) -> pd.DataFrame:
    """A row an input: label, decision where there is a threshold, the probability of every class; the text, or the
    number of the series, counted from 0.
    """
    shape = checkpoint_config(settings.model)
    if is_forecaster(shape):
        return forecast_table(settings.model, settings.file, settings.data.time_column, settings.data.series_column,
                              settings.batch_size)
    if not is_classifier(shape):
        raise UserError(f"{settings.model}: is a {', '.join(shape.architectures or ['model'])}, not a classifier. "
                        f"Fine-tune it first: make finetune-text, make finetune-series.")
    answers = of_series if model_class(shape).main_input_name == "values" else of_texts
    rows = []
    for by_label, shown in answers(settings, shape):
        row = {"label": max(by_label, key=by_label.get)}
        if threshold := getattr(shape, "decision_threshold", None):
            positive = threshold["label"]
            others = {label: score for label, score in by_label.items() if label != positive}
            called = by_label[positive] >= threshold["probability"]
            row["decision"] = positive if called else max(others, key=others.get)
        rows.append(row | {f"p({name})": by_label[name] for name in shape.id2label.values()} | shown)
    return pd.DataFrame(rows)


def of_texts(settings: PredictConfig, shape: PreTrainedConfig) -> Answers:
    texts = read_texts(settings.file, settings.text_column, settings.text_pair_column)
    classify = transformers.pipeline("text-classification", model=str(checkpoint_directory(settings.model)),
                                     tokenizer=load_checkpoint_tokenizer(settings.model))
    inputs = [{"text": text, "text_pair": pair} if pair is not None else text for text, pair in texts]
    answers = classify(inputs, top_k=None, truncation=True, batch_size=settings.batch_size)
    for (text, _), scores in zip(texts, answers, strict=True):
        yield {answer["label"]: answer["score"] for answer in scores}, {"text": text}


def of_series(settings: PredictConfig, shape: PreTrainedConfig) -> Answers:
    if shape.problem_type == "regression":
        raise UserError(f"{settings.model}: tells numbers from series, not classes, and is asked from Python.")
    learned, told = getattr(shape, "sampling_rate", None), settings.sampling_rate
    if learned and told and told != learned:
        raise UserError(f"{settings.file}: sampling_rate is {told:g} values a second, but {settings.model} learned "
                        f"series of {learned:g}. Resample the file to {learned:g} Hz.")
    normalisation = getattr(shape, "normalisation", "series")
    if normalisation == "train":
        raise UserError(f"{settings.model}: learned series normalised by statistics of its training file "
                        f"(data.normalisation: train), which it does not hold. Train it with series or none.")
    values, observed = read_values(settings.file, "mask", settings.data,
                                   lambda line: print(line, file=sys.stderr))
    inputs = {"values": torch.from_numpy(z_normalise(values, observed) if normalisation == "series" else values)}
    if observed is not None:
        inputs["observed"] = torch.from_numpy(observed)
    model = load_weights(transformers.AutoModelForSequenceClassification, str(checkpoint_directory(settings.model)),
                         settings.model).eval()
    for start in range(0, len(values), settings.batch_size):
        batch = {name: part[start:start + settings.batch_size] for name, part in inputs.items()}
        with torch.inference_mode():
            try:
                logits = model(**batch).logits
            except ValueError as error:  # other channels or lengths than the model's
                raise UserError(f"{settings.file}: {error}.") from None
        for number, scores in enumerate(logits.softmax(-1).tolist(), start):
            yield {shape.id2label[label]: score for label, score in enumerate(scores)}, {"series": number}
