"""Rows that keep every column as it stands, from every kind of file, each with its place."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from toolkit.data.text.labelled import text_rows
from toolkit.errors import UserError

COLUMNS = {"id": ["007", "8"], "text": ["one", "two, 2"], "more": ["1,5", ""]}


def written(folder, name):
    path, rows = folder / name, [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    if ".parquet" in name:
        parquet.write_table(pyarrow.table(COLUMNS), path)
        return path
    separator = "\t" if ".tsv" in name else ","
    lines = [json.dumps(row) for row in rows] if ".jsonl" in name else [
        separator.join(f'"{cell}"' if "," in cell and separator == "," else cell for cell in row)
        for row in [list(COLUMNS), *(list(row.values()) for row in rows)]]
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz"])
def test_every_column_is_handed_over_as_it_stands(tmp_path, name):
    path = written(tmp_path, name)
    rows = list(text_rows(str(path)))
    assert [row.columns for row in rows] == [dict(zip(COLUMNS, row, strict=True))
                                             for row in zip(*COLUMNS.values(), strict=True)]
    assert [list(row.columns) for row in rows] == [list(COLUMNS)] * 2
    assert [row.text for row in rows] == COLUMNS["text"] and [row.pair for row in rows] == [None, None]
    first = {"a.parquet": "row 1", "a.jsonl": "line 1"}.get(name, "line 2")
    assert rows[0].place == f"{path}, {first}"
    assert [row.pair for row in text_rows(str(path), "text", "more")] == COLUMNS["more"]


def test_lines_of_a_txt_file_are_rows_of_one_column(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    assert [(row.place, row.text, row.columns) for row in text_rows(str(tmp_path / "a.txt"))] == [
        (f"{tmp_path}/a.txt, line 1", "one", {"text": "one"}), (f"{tmp_path}/a.txt, line 3", "two", {"text": "two"})]


def test_columns_without_a_name_are_called_by_their_number(tmp_path):
    (tmp_path / "a.csv").write_text(",text,\n0,one,x\n")
    (row,) = text_rows(str(tmp_path / "a.csv"))
    assert row.columns == {"Unnamed: 0": "0", "text": "one", "Unnamed: 2": "x"}
    (tmp_path / "b.csv").write_text(",Unnamed: 0,text\n0,5,one\n")  # written with its index twice
    (row,) = text_rows(str(tmp_path / "b.csv"))
    assert row.columns == {"Unnamed: 0.1": "0", "Unnamed: 0": "5", "text": "one"}
    with pytest.raises(UserError, match=r"a\.csv: has no column 'words' \(text_column\)"):
        list(text_rows(str(tmp_path / "a.csv"), "words"))
