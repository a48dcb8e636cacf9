"""Users' files, spoiled at random: read, or refused in a line; never a traceback or a hang."""

import io
import random

import mutation
import numpy as np
import pandas as pd
import pytest

from toolkit.data.pairs.pair_files import PairsSection, load_pairs
from toolkit.data.series.readers import read_series, read_values
from toolkit.data.series.tables import SeriesTable
from toolkit.data.series.windows import ForecastDataSection, load_forecast_data
from toolkit.data.tables.sources import Reading, list_parts
from toolkit.data.tables.time_table import read_panel
from toolkit.data.text.documents import read_part
from toolkit.data.text.labelled import TextDataSection, read_labelled, text_rows
from toolkit.errors import UserError
from toolkit.experiments.published import published_accuracies, published_errors

DAILY, LONG, LONG_OF_SLOW = 30, 10_000, 4000
"""Tries daily, and under the marker `hostile`; fewer where a try takes several milliseconds."""
SLOW = ("series.ts", "series.arff", "series.tsv", "series.parquet", "values.npy", "times.csv", "times.tsv",
        "times.parquet", "documents.txt", "documents.md")

TEXTS = pd.DataFrame({"text": ["the cat sat", "a \"quoted\", text", "und noch einer", "vier"],
                      "label": ["a", "b", "a", "b"], "score": [0.5, 1.25, 3.0, -2.0]})
SERIES = pd.DataFrame({"label": ["a", "b", "a"], "v0": [1.5, 2.0, 3.0], "v1": [0.1, 0.2, 0.3], "v2": [5.0, 6.0, 7.5]})
LONG_SERIES = pd.DataFrame({"series": [1, 1, 1, 2, 2, 2], "t": [0, 1, 2] * 2, "x": np.arange(6) / 4,
                            "y": np.arange(6.0), "label": ["a"] * 3 + ["b"] * 3})
TIMES = pd.DataFrame({"date": pd.date_range("2024-01-01", periods=40, freq="h").strftime("%Y-%m-%d %H:%M"),
                      "load": np.sin(np.arange(40.0)) + 2, "heat": np.cos(np.arange(40.0)), "place": ["here"] * 40})
TS = (b"@problemName x\n@timeStamps false\n@univariate false\n@dimensions 2\n@equalLength true\n@seriesLength 3\n"
      b"@classLabel true a b\n@data\n1,2,3:4,5,6:a\n2,?,4:5,6,7.5:b\n1,1,1:0,0,0:a\n")
ARFF = (b"@relation x\n@attribute t1 numeric\n@attribute t2 numeric\n@attribute c {a,b}\n"
        b"@data\n1,2.5,a\n2,3,b\n-1,1e3,a\n")
UCR = b"1\t0.5\t1.5\t2.5\n2\t1.0\tNaN\t3.0\n1\t0.0\t0.0\t1e3\n"


def csv(table: pd.DataFrame, separator: str = ",", **options) -> bytes:
    return table.to_csv(index=False, sep=separator, **options).encode()


def jsonl(table: pd.DataFrame) -> bytes:
    return table.to_json(orient="records", lines=True).encode()


def parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def arrays(name: str) -> bytes:
    buffer = io.BytesIO()
    values, labels = np.arange(24.0).reshape(4, 2, 3), np.asarray(["a", "b", "a", "b"])
    np.savez(buffer, values=values, labels=labels) if name == "npz" else np.save(buffer, values)
    return buffer.getvalue()


def lines_spoiled(data: bytes, draw) -> bytes:
    """Of .jsonl: the values of a line, or bytes."""
    lines = data.splitlines(keepends=True)
    number = draw.randrange(len(lines))
    lines[number] = mutation.json_spoiled(lines[number], draw) + b"\n"
    return b"".join(lines)


def labelled(path):
    found = read_labelled(str(path), TextDataSection(train=str(path)))
    assert len(found.texts) == len(found.labels)
    list(text_rows(str(path)))


def documents(path):
    for part in list_parts(str(path)):
        for document in read_part(part, Reading(text_column="text")):
            document.text.encode()


def series(path):
    read_values(path, "mask")
    read_series(path, missing="mask")


def long_series(path):
    read_series(path, missing="mask", table=SeriesTable(series_column="series", time_column="t"))


def times(path):
    panel = read_panel(path, missing="mask")
    assert all(np.isfinite(table.values).all() for table in panel.tables.values())
    load_forecast_data(ForecastDataSection(path=str(path), missing="mask"), note=lambda line: None)


def pairs(path):
    parts = load_pairs(PairsSection(train=[str(path)], validation_share=0.2))
    assert len(parts) == 3 and all(len(part) for part in parts)


READERS = {
    "texts.csv": (csv(TEXTS), mutation.bytes_spoiled, labelled),
    "texts.tsv": (csv(TEXTS, "\t"), mutation.bytes_spoiled, labelled),
    "texts-semicolon.csv": (csv(TEXTS, ";", decimal=","), mutation.bytes_spoiled, labelled),
    "texts.jsonl": (jsonl(TEXTS), lines_spoiled, labelled),
    "texts.parquet": (parquet(TEXTS), mutation.bytes_spoiled, labelled),
    "documents.txt": (b"One paragraph\nof two lines.\n\nAnother: caf\xc3\xa9.\n", mutation.bytes_spoiled, documents),
    "documents.md": (b"# A\n\nText *here*.\n\n```\ncode\n```\n\n## B\n\nmore\n", mutation.bytes_spoiled, documents),
    "documents.jsonl": (jsonl(TEXTS), lines_spoiled, documents),
    "documents.parquet": (parquet(TEXTS), mutation.bytes_spoiled, documents),
    "series.csv": (csv(SERIES), mutation.bytes_spoiled, series),
    "series.parquet": (parquet(SERIES), mutation.bytes_spoiled, series),
    "long.csv": (csv(LONG_SERIES), mutation.bytes_spoiled, long_series),
    "series.tsv": (UCR, mutation.bytes_spoiled, series),
    "series.ts": (TS, mutation.bytes_spoiled, series),
    "series.arff": (ARFF, mutation.bytes_spoiled, series),
    "series.npz": (arrays("npz"), mutation.bytes_spoiled, series),
    "values.npy": (arrays("npy"), mutation.bytes_spoiled, lambda path: read_values(path, "mask")),
    "times.csv": (csv(TIMES), mutation.bytes_spoiled, times),
    "times.tsv": (csv(TIMES, "\t"), mutation.bytes_spoiled, times),
    "times.parquet": (parquet(TIMES), mutation.bytes_spoiled, times),
    "pairs.txt": (b"".join(b"%d sch\xc3\xb6n\t%d nice\n" % (i, i) for i in range(9)), mutation.bytes_spoiled, pairs),
    "pairs.csv": (csv(pd.DataFrame({"source": list("abcdefghi"), "target": list("ABCDEFGHI")})), mutation.bytes_spoiled,
                  pairs),
    "published.csv": (b"dataset,classes,ROCKET\na,2,50.5\nb,3,75\n", mutation.bytes_spoiled,
                      lambda path: published_accuracies(str(path), ["a", "b"])),
    "published-errors.csv": (b"horizon,DLinear_mse,DLinear_mae\n96,0.5,0.4\n192,0.6,0.5\n", mutation.bytes_spoiled,
                             lambda path: published_errors(str(path))),
}


@pytest.mark.parametrize(("name", "tries"), [(name, DAILY) for name in READERS] + [
    mutation.at_length(LONG_OF_SLOW if name in SLOW else LONG, name) for name in READERS])
def test_users_files(tmp_path, name, tries):
    sample, spoil, read = READERS[name]
    path = tmp_path / name

    def write(data: bytes):
        path.write_bytes(data)
        return path

    read(write(sample))
    assert mutation.try_reader(sample, spoil, write, read, tries)


def test_a_damaged_column_does_not_end_the_process(tmp_path):
    """Of the 10,000 tries those after which pyarrow calls abort() where it is asked for a column's size."""
    path = tmp_path / "texts.parquet"
    for number in (2856, 2938, 3562, 6306):
        path.write_bytes(mutation.bytes_spoiled(parquet(TEXTS), random.Random(f"22 {number}")))
        with pytest.raises(UserError, match="cannot be read as parquet"):
            labelled(path)
