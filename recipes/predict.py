"""What a fine-tuned classifier says of texts, through transformers' own pipeline.

    python recipes/predict.py MODEL FILE                    # a tab-separated table: label, probabilities, text
    python recipes/predict.py MODEL FILE --output answers.parquet

MODEL is a directory or a hub id; FILE has a text a line (.txt), or a text column (.csv .tsv .jsonl .parquet, plain or
compressed). Where the model's configuration holds a threshold chosen on validation, `decision` goes by it; `label` is
the likeliest class, as the pipeline gives it.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import transformers

import toolkit.models.text  # noqa: F401  (registers the class of pooled classifiers)
from toolkit import cli, config
from toolkit.data.labelled import read_texts
from toolkit.errors import UserError
from toolkit.hub import checkpoint_directory
from toolkit.models.backbone import checkpoint_config
from toolkit.models.text import load_checkpoint_tokenizer
from toolkit.run import disk_errors


@dataclass
class PredictConfig:
    model: str
    file: str
    text_column: str = "text"
    text_pair_column: str = ""
    batch_size: int = 32
    output: str = ""
    """A .parquet, .csv, .tsv or .jsonl file; empty: to the screen."""


def predict(settings: PredictConfig) -> pd.DataFrame:
    """A row a text: label, decision where there is a threshold, the probability of every class, the text."""
    shape = checkpoint_config(settings.model)
    if not any("Classification" in name for name in shape.architectures or ()):
        raise UserError(f"{settings.model}: is a {', '.join(shape.architectures or ['model'])}, not a classifier. "
                        f"Fine-tune it first: make finetune-text.")
    texts = read_texts(settings.file, settings.text_column, settings.text_pair_column)
    classify = transformers.pipeline("text-classification", model=str(checkpoint_directory(settings.model)),
                                     tokenizer=load_checkpoint_tokenizer(settings.model))
    inputs = [{"text": text, "text_pair": pair} if pair is not None else text for text, pair in texts]
    rows = []
    answers = classify(inputs, top_k=None, truncation=True, batch_size=settings.batch_size)
    for (text, _), scores in zip(texts, answers, strict=True):
        by_label = {answer["label"]: answer["score"] for answer in scores}
        row = {"label": max(by_label, key=by_label.get)}
        if threshold := getattr(shape, "decision_threshold", None):
            positive = threshold["label"]
            others = {label: score for label, score in by_label.items() if label != positive}
            called = by_label[positive] >= threshold["probability"]
            row["decision"] = positive if called else max(others, key=others.get)
        rows.append(row | {f"p({name})": by_label[name] for name in shape.id2label.values()} | {"text": text})
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, output: str) -> None:
    writers = {".parquet": lambda: table.to_parquet(output, index=False),
               ".csv": lambda: table.to_csv(output, index=False),
               ".tsv": lambda: table.to_csv(output, sep="\t", index=False),
               ".jsonl": lambda: table.to_json(output, orient="records", lines=True, force_ascii=False)}
    if Path(output).suffix not in writers:
        raise UserError(f"output is {output}; its name must end in {', '.join(writers)}.")
    with disk_errors(output, "output"):
        writers[Path(output).suffix]()


def main(argv: list[str]) -> None:
    named = [f"--{name}={value}" for name, value in zip(("model", "file"), argv, strict=False)
             if not value.startswith("-")]
    settings = config.parse(PredictConfig, named + argv[len(named):], __doc__)
    table = predict(settings)
    if settings.output:
        write(table, settings.output)
        print(f"{len(table):,} answers: {settings.output}")
    else:
        table.to_csv(sys.stdout, sep="\t", index=False, float_format="%.4f")


if __name__ == "__main__":
    cli.run(main)
