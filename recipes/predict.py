"""What a fine-tuned classifier says of texts, through transformers' own pipeline, or of series.

    python recipes/predict.py MODEL FILE                    # a tab-separated table: label, probabilities, input
    python recipes/predict.py MODEL FILE --output answers.parquet
    make predict MODEL=runs/gunpoint/bert-pretrained/seed-0/model FILE=new.csv ARGS="--data.label_column ''"

MODEL is a directory or a hub id; FILE has a text a line (.txt), or a text column (.csv .tsv .jsonl .parquet, plain or
compressed). For a model of series FILE is .ts .tsv .arff .csv or .parquet, as in finetune-series, whose labels are not
looked at; series are normalised as those that the model learned. Where the model's configuration holds a threshold
chosen on validation, `decision` goes by it; `label` is the likeliest class, as the pipeline gives it.
"""

import sys
from pathlib import Path

import pandas as pd

from toolkit import cli, config
from toolkit.errors import UserError
from toolkit.inference.predict import PredictConfig, predict
from toolkit.run.files import disk_errors


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
    settings = config.parse(PredictConfig, argv, __doc__, ["model", "file"])
    table = predict(settings)
    if settings.output:
        write(table, settings.output)
        print(f"{len(table):,} answers: {settings.output}")
    else:
        table.to_csv(sys.stdout, sep="\t", index=False, float_format="%.4f")


if __name__ == "__main__":
    cli.run(main)
