"""What a fine-tuned model says of texts or of series: the very answers by which it was scored.

    make predict MODEL=runs/demo/text/bert-pretrained/seed-0 FILE=new.txt       # a table: answers, then the input
    make predict MODEL=runs/gunpoint/bert-pretrained/seed-0 FILE=new.csv ARGS="--data.label_column ''"
    python recipes/predict.py MODEL FILE --output answers.parquet

MODEL is a directory or a hub id; FILE has a text a line (.txt), or a text column (.csv .tsv .jsonl .parquet, plain or
compressed). For a model of series FILE is .ts .tsv .arff .csv .parquet .npz or .npy, as in finetune-series; labels are
not looked at; series are normalised as those that the model learned. `label` is the likeliest class, `labels` those of
0.5 or more where there may be several (parted by | but in .jsonl and .parquet, where they are lists), `value` a number,
`p(NAME)` the probability of a class. Where the model's configuration holds a threshold chosen on validation, `decision`
goes by it. All columns of FILE follow; one that is called as an answer becomes `input_…`.

For a forecaster FILE is a table as in forecast, and the answer is what comes after its end: a row a series, step and
channel, with the time, the value and the quantiles `q(0.1)` … of its interval.
"""

from toolkit import cli, config
from toolkit.inference.settings import PredictConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(PredictConfig, __doc__, ["model", "file"])

import sys
from pathlib import Path

import pandas as pd
from pyarrow import ArrowException

from toolkit.errors import UserError
from toolkit.inference.predict import predict
from toolkit.run.files import disk_errors

WRITTEN = (".parquet", ".csv", ".tsv", ".jsonl")


def in_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Lists of labels as one cell each, as `data.label_separator: '|'` reads them."""
    return table.assign(labels=table["labels"].map("|".join)) if "labels" in table else table


def write(table: pd.DataFrame, output: str) -> None:
    writers = {".parquet": lambda: table.to_parquet(output, index=False),
               ".csv": lambda: in_cells(table).to_csv(output, index=False),
               ".tsv": lambda: in_cells(table).to_csv(output, sep="\t", index=False),
               ".jsonl": lambda: table.to_json(output, orient="records", lines=True, force_ascii=False)}
    with disk_errors(output, "output"):
        try:
            writers[Path(output).suffix]()
        except ArrowException as error:  # rows of .jsonl may hold a number here and a text there
            raise UserError(f"{output}: a column of the input cannot be written so ({str(error).splitlines()[0]}). "
                            f"Write .jsonl or .csv.") from None


def main(argv: list[str]) -> None:
    settings = config.parse(PredictConfig, argv, __doc__, ["model", "file"])
    if settings.output and Path(settings.output).suffix not in WRITTEN:
        raise UserError(f"output is {settings.output}; its name must end in {', '.join(WRITTEN)}.")
    table = predict(settings)
    if settings.output:
        write(table, settings.output)
        print(f"{len(table):,} answers: {settings.output}")
    else:
        in_cells(table).to_csv(sys.stdout, sep="\t", index=False, float_format="%.6g")


if __name__ == "__main__":
    cli.run(main)
