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

Of an encoder–decoder (finetune-seq2seq) `prediction` is what it writes for each text. For a forecaster FILE is a table
as in forecast, and the answer is what comes after its end: a row a series, step and channel, with the time, the value
and the quantiles `q(0.1)` … of its interval.
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
from toolkit.report.ending import command, ending
from toolkit.run.files import disk_errors
from toolkit.shown import quoted

WRITTEN = (".parquet", ".csv", ".tsv", ".jsonl")
MOST_LABELS = 4


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


def answer_of(table: pd.DataFrame) -> str:
    """All answers in a line."""
    what, count = table.columns[0], f"{len(table):,} answer{'s' * (len(table) != 1)}"
    if what in ("label", "labels"):
        named = table["decision" if "decision" in table.columns[:2] else what].explode().fillna("no label")
        often = named.value_counts()
        shown = [f"{quoted(name)} {number:,}" for name, number in often.head(MOST_LABELS).items()]
        return f"{count}: {', '.join(shown)}" + f" and {len(often) - MOST_LABELS} other classes" * (
            len(often) > MOST_LABELS)
    if what == "value" and len(table):
        return f"{count}: from {table[what].min():.4g} to {table[what].max():.4g}, mean {table[what].mean():.4g}"
    if what == "prediction":
        return f"{count} written"
    return f"{table['step'].max():,} steps ahead, {len(table):,} values"


def main(argv: list[str]) -> None:
    settings = config.parse(PredictConfig, argv, __doc__, ["model", "file"])
    if settings.output and Path(settings.output).suffix not in WRITTEN:
        raise UserError(f"output is {settings.output}; its name must end in {', '.join(WRITTEN)}.")
    table = predict(settings)
    asked = {"MODEL": settings.model, "FILE": settings.file}
    if settings.output:
        write(table, settings.output)
        following = command("make compare-seq2seq") if "prediction" in table.columns[:1] else (
            command("make app", {"MODEL": settings.model}))
        print(ending(None, following, answer_of(table), answers=settings.output))
    else:
        in_cells(table).to_csv(sys.stdout, sep="\t", index=False, float_format="%.6g")
        sys.stdout.flush()
        told = ending(None, command("make predict", asked, output="answers.csv"), answer_of(table))
        print(told, file=sys.stderr)  # standard output holds the answers alone


if __name__ == "__main__":
    cli.run(main)
