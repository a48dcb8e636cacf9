"""Labelled texts: every kind of file and of label, how mistakes read, what is counted; splits, few-shot draws."""

import gzip
import json
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pyarrow
import pytest
from hub import Hub
from pyarrow import parquet

from toolkit.config import from_dict
from toolkit.data.text.documentation_task import documentation_passages
from toolkit.data.text.examples import LabelledText, few_shot, split_off
from toolkit.data.text.labelled import TextDataSection, load_data, read_labelled, read_table, text_rows
from toolkit.data.text.python_docs import PACKAGES
from toolkit.errors import UserError


def table(tmp_path, text: str | bytes, name: str = "train.tsv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


def lines(tmp_path, records: list[dict], name: str = "train.jsonl"):
    return table(tmp_path, "".join(json.dumps(record) + "\n" for record in records), name)


def parquet_file(tmp_path, name: str = "train.parquet", **columns):
    parquet.write_table(pyarrow.table(columns), tmp_path / name)
    return tmp_path / name


def loaded(train, test=None, **section) -> tuple[LabelledText, LabelledText, LabelledText, list[str]]:
    """All parts and what was told; the test file is the training file unless given."""
    told = []
    parts = load_data(TextDataSection(train=str(train), test=str(test or train), **section), told.append)
    return *parts, told


# --- files --------------------------------------------------------------------------------------------------------


def test_tables_are_read_and_labels_numbered_by_name(tmp_path):
    data = read_table(table(tmp_path, 'text\tlabel\nIt is "good\tpos\nbad, NA\tneg\nnan\tpos\n'))
    assert data.texts == ['It is "good', "bad, NA", "nan"]  # a lone quotation mark and "NA" are text
    assert data.label_names == ("neg", "pos")
    assert data.labels.tolist() == [1, 0, 1]
    assert data.labels.dtype == np.int64
    comma = read_table(table(tmp_path, 'id,kind,words\n1,b,"x, y\nz"\n2,a,w\n', "t.csv"), "words", "kind")
    assert comma.texts == ["x, y\nz", "w"]
    assert comma.labels.tolist() == [1, 0]
    marked = read_table(table(tmp_path, b"\xef\xbb\xbftext\tlabel\r\ncaf\xc3\xa9\t1\r\n"))
    assert (marked.texts, marked.label_names) == (["café"], ("1",))


def test_every_kind_of_file_gives_the_same(tmp_path):
    texts, labels = ["one", "two, or 2", "drei 😀"], ["b", "a", "b"]
    comma = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in zip(texts, labels, strict=True))
    tab = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in zip(texts, labels, strict=True))
    records = "".join(json.dumps({"label": label, "more": [1], "text": text}) + "\n" for text, label
                      in zip(texts, labels, strict=True))
    files = [table(tmp_path, comma, "a.csv"), table(tmp_path, tab, "a.tsv"), table(tmp_path, records, "a.jsonl"),
             parquet_file(tmp_path, text=texts, label=labels, more=[1, 2, 3]),
             table(tmp_path, gzip.compress(comma.encode()), "b.csv.gz"),
             table(tmp_path, pyarrow.compress(tab.encode(), "zstd", asbytes=True), "b.tsv.zst"),
             table(tmp_path, gzip.compress(records.encode()), "b.jsonl.gz")]
    for file in files:
        data = read_table(file)
        assert (data.texts, data.labels.tolist(), data.label_names) == (texts, [1, 0, 1], ("a", "b")), file
    whole = read_table(f"{tmp_path}/a.*")
    assert whole.texts == texts * 3 and whole.labels.tolist() == [1, 0, 1] * 3
    (tmp_path / "folder").mkdir()
    files[0].rename(tmp_path / "folder/0.csv")
    files[3].rename(tmp_path / "folder/1.parquet")
    assert len(read_table(tmp_path / "folder")) == 6


def test_numbers_and_truth_values_are_labels_too(tmp_path):
    for column, names in (([2, 10, 2], ("2", "10")), ([1.0, 0.0, 1.0], ("0", "1")),
                          ([True, False, True], ("False", "True")), ([0.5, 2.0, 0.5], ("0.5", "2"))):
        records = [{"text": f"t{row}", "label": label} for row, label in enumerate(column)]
        for file in (lines(tmp_path, records), parquet_file(tmp_path, text=["a", "b", "c"], label=column)):
            assert read_table(file).label_names == names
    categories = pyarrow.array(["x", "y", "x"]).dictionary_encode()
    assert read_table(parquet_file(tmp_path, text=["a", "b", "c"], label=categories)).labels.tolist() == [0, 1, 0]


def test_a_test_table_is_numbered_as_the_training_table(tmp_path):
    train = read_table(table(tmp_path, "text\tlabel\na\tx\nb\ty\nc\tz\n"))
    test = read_table(table(tmp_path, "text\tlabel\nd\tz\n", "test.tsv"), label_names=train.label_names)
    assert test.labels.tolist() == [2]
    assert test.label_names == ("x", "y", "z")
    with pytest.raises(UserError, match=r"bad\.tsv, line 3: label 'w' does not occur in the training data.*x, y, z"):
        read_table(table(tmp_path, "text\tlabel\nd\tz\ne\tw\n", "bad.tsv"), label_names=train.label_names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.tsv", "txt\tlabel\na\tb\n", r"has no column 'text' \(data\.text_column\)\. Did you mean 'txt'"),
     ("a.tsv", "text\tkind\na\tb\n", r"no column 'label' \(data\.label_column\)\. Choose from: kind, text"),
     ("a.csv", "text label\na b\n", r"has no column 'text' .*text label"),
     ("a.tsv", "", r"a.tsv: is empty"),
     ("a.tsv", "text\tlabel\n", r"has no rows"),
     ("a.tsv", "text\tlabel\na\tb\n \tc\n", r", line 3: 'text' is empty \(1 such rows\)"),
     ("a.tsv", "text\tlabel\na\t\nb\tx\nc\t\n", r", line 2: 'label' is empty \(2 such rows\)"),
     ("a.tsv", "text\tlabel\na\tb\n\n\n \tc\n", r", line 5: 'text' is empty"),
     ("a.csv", 'text,label\n"a\nb",c\n,d\n', r", line 4: 'text' is empty"),
     ("a.tsv", "text\tlabel\na\tb\nc\n", r", line 3: 1 columns, the header has 2"),
     ("a.tsv", b"text\tlabel\ncaf\xe9\tb\n", r"not valid UTF-8 at byte 14.*iconv"),
     ("a.tsv", b"text\tlabel\n" + b"a\tb\n" * 100_000 + b"\xe9\tb\n", r"not valid UTF-8 at byte 400011.*iconv"),
     ("a.tsv", "text\tlabel\na\tb\tc\n", r"line 2.*3"),
     ("a.tsv", "text\tlabel\na\tb\nc\td\te\n", r"line 3.*3"),
     ("a.tsv", "text\tlabel\na\t1\nb\tNaN\n", r", line 3: 'label' is 'NaN' among numbers \(1 such rows\)"),
     ("a.json", "{}", r"read from \.tsv, \.csv, \.jsonl or \.parquet files and from .* the hub \(data\.train\)"),
     ("gone.tsv", None, r"no such file or folder \(data\.train\)"),
     ("a.jsonl", "\n", "has no rows"),
     ("a.jsonl", '{"text": "a"', r", line 1: not valid JSON"),
     ("a.jsonl", '["a"]', r", line 1: is list\. One object a line was expected"),
     ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}', r", line 2: has no column 'label' \(data\.label_column\)"),
     ("a.jsonl", '{"text": "a", "label": null}', r", line 1: 'label' is empty"),
     ("a.jsonl", '{"text": "a", "label": NaN}', r", line 1: 'label' is nan \(1 such rows\)"),
     ("a.jsonl", '{"text": "a", "label": [1]}', r", line 1: 'label' is \[1\], where one label was.*multi-label"),
     ("a.jsonl", '{"text": null, "label": 1}', r", line 1: 'text' is empty"),
     ("a.jsonl", '{"text": 5, "label": 1}', r", line 1: 'text' is int, not text.*data\.text_column"),
     ("a.jsonl", '{"text": "\\ud83d", "label": 1}', r", line 1: 'text' holds half of a surrogate pair"),
     ("a.jsonl.gz", gzip.compress(b'{"text": "a", "label": 1}\n' * 999)[:-20], r"is damaged or cut short"),
     ("a.parquet", b"PAR1 no", r"cannot be read as parquet"),
     ("a.parquet.gz", b"", r"parquet compresses by itself")],
)
def test_a_wrong_file_is_refused_by_file_and_line(tmp_path, name, content, message):
    path = tmp_path / name if content is None else table(tmp_path, content, name)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_wrong_parquet_file_is_refused_by_row(tmp_path):
    with pytest.raises(UserError, match=r"train\.parquet, row 2: 'label' is empty \(1 such rows\)"):
        read_table(parquet_file(tmp_path, text=["a", "b", "c"], label=[1, None, 2]))
    with pytest.raises(UserError, match=r"train\.parquet: has no column 'label' \(data\.label_column\)\. Did you mean"):
        read_table(parquet_file(tmp_path, text=["a"], labels=[1]))
    offsets = pyarrow.array([0, 1, 2], pyarrow.int32()).buffers()[1]
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 2, [None, offsets, pyarrow.py_buffer(b"a\xff")])
    with pytest.raises(UserError, match=r"train\.parquet, row 2: not valid UTF-8 at byte 0"):
        read_table(parquet_file(tmp_path, text=broken, label=[1, 2]))


# --- labels -------------------------------------------------------------------------------------------------------


def test_noise_in_labels_is_taken_away_and_counted(tmp_path):
    train = table(tmp_path, "text,label\na, 1\nb,1.0\nc,0\nd,01\ne,0\nf,1\n", "train.csv")
    test = table(tmp_path, "text,label\ng,0.0\nh,1 \n", "test.csv")
    data, held, tested, told = loaded(train, test, validation_share=0.4)
    assert data.label_names == ("0", "1") and tested.labels.tolist() == [0, 1]
    assert data.labels.tolist() == [1, 1, 0] and held.labels.tolist() == [1, 0, 1]
    assert told[0] == "train: 1 labels were stripped of the blanks around them, for instance ' 1'"
    assert told[1] == "train: 2 labels were spelled otherwise, for instance '1.0' for '1'"
    assert "test: 1 labels were stripped of the blanks around them, for instance '1 '" in told
    assert "test: 1 labels were spelled otherwise, for instance '0.0' for '0'" in told
    # Where one label is no number, '1' and '1.0' are names like any other.
    named = read_table(table(tmp_path, "text,label\na,1\nb,1.0\nc,v2\n", "named.csv"))
    assert named.label_names == ("1", "1.0", "v2")
    ids = read_table(table(tmp_path, f"text,label\na,1{'0' * 40}1\nb,1{'0' * 40}2\nc,-0\n", "ids.csv"))
    assert ids.label_names == ("0", f"1{'0' * 40}1", f"1{'0' * 40}2")
    told = []
    languages = read_labelled(str(table(tmp_path, "text,label\na,nan\nb,deu\n", "l.csv")), TextDataSection(),
                              note=told.append)
    assert languages.label_names == ("deu", "nan")
    assert told == ["train: 1 labels are 'nan', taken for a name as the others"]


def test_several_labels_come_as_columns_as_lists_or_in_one_cell(tmp_path):
    expected, names = [[1, 0, 1], [0, 0, 0], [0, 1, 1]], ("0", "2", "10")
    columns = table(tmp_path, "text,0,2,10\na,1,0,1\nb,0,0.0,0\nc,0,1,true\n", "columns.csv")
    data = read_labelled(str(columns), TextDataSection(task="multi-label", label_columns=["0", "2", "10"]))
    assert data.labels.tolist() == expected and data.label_names == names and data.classes == 3
    cells, listed = ["10| 0", "", "10|2"], [[10, 0], [], [2, 10, 2]]
    in_cell = table(tmp_path, "text\tlabel\n" + "".join(map("{}\t{}\n".format, "abc", cells)))
    for file, separator in ((in_cell, "|"), (parquet_file(tmp_path, text=list("abc"), label=listed), ""),
                            (lines(tmp_path, [{"text": text, "label": label} for text, label
                                              in zip("abc", listed, strict=True)]), "")):
        told = []
        section = TextDataSection(task="multi-label", label_separator=separator)
        data = read_labelled(str(file), section, note=told.append)
        assert data.labels.tolist() == expected and data.label_names == names and data.labels.dtype == np.float32
        assert data.task == "multi-label" and told[-1] == "train: 1 rows have no label at all"
        again = read_labelled(str(file), section, label_names=names)
        assert again.labels.tolist() == expected
    with pytest.raises(UserError, match=r"train\.tsv, line 2: label '10' does not occur in the training data.*0, 2"):
        read_labelled(str(in_cell), TextDataSection(task="multi-label", label_separator="|"), label_names=("0", "2"))


def test_soft_labels_are_probabilities_of_every_class(tmp_path):
    columns = table(tmp_path, "text,yes,no\na,0.25,0.75\nb,0.333,0.667\nc,0.33,0.66\n", "soft.csv")
    told = []
    data = read_labelled(str(columns), TextDataSection(task="distribution", label_columns=["yes", "no"]),
                         note=told.append)
    assert data.label_names == ("yes", "no") and data.labels.dtype == np.float32
    np.testing.assert_allclose(data.labels, [[0.25, 0.75], [0.333, 0.667], [1 / 3, 2 / 3]], rtol=1e-6)
    assert told == ["train: 1 rows of probabilities, rounded, were divided by their sums (of 0.98 to 1.02)"]
    listed = lines(tmp_path, [{"text": "a", "label": [0.5, 0.5, 0]}, {"text": "b", "label": [0, 0, 1]}])
    data = read_labelled(str(listed), TextDataSection(task="distribution"))
    assert data.label_names == ("0", "1", "2") and data.labels.tolist() == [[0.5, 0.5, 0], [0, 0, 1]]


def test_numbers_to_be_predicted(tmp_path):
    data = read_labelled(str(table(tmp_path, "text,label\na,1\nb,-2.5e-1\nc, .5\n", "n.csv")),
                         TextDataSection(task="regression"))
    assert data.labels.tolist() == [1, -0.25, 0.5] and data.labels.dtype == np.float32
    assert data.label_names == ("value",) and data.task == "regression"
    prices = pyarrow.array([1, 2], pyarrow.decimal128(9, 2))
    assert read_labelled(str(parquet_file(tmp_path, text=["a", "b"], label=prices)),
                         TextDataSection(task="regression")).labels.tolist() == [1, 2]


def test_pairs_are_read_and_selected_together(tmp_path):
    path = table(tmp_path, "q,a,label\none,1,x\ntwo,2,y\nthree,3,x\n", "pairs.csv")
    data = read_labelled(str(path), TextDataSection(text_column="q", text_pair_column="a"))
    assert data.texts == ["one", "two", "three"] and data.pairs == ["1", "2", "3"]
    chosen = data.select([2, 0])
    assert (chosen.texts, chosen.pairs, chosen.labels.tolist()) == (["three", "one"], ["3", "1"], [0, 0])
    with pytest.raises(UserError, match=r"line 3: 'a' is empty \(1 such rows\)"):
        read_labelled(str(table(tmp_path, "q,a,label\none,1,x\ntwo,,y\n", "gap.csv")),
                      TextDataSection(text_column="q", text_pair_column="a"))


@pytest.mark.parametrize(("section", "content", "message"), [
    ({"task": "regression"}, "text,label\na,1\nb,\n", r"line 3: 'label' is empty, where a number was expected \(1"),
    ({"task": "regression"}, "text,label\na,1\nb,high\n", r"line 3: 'label' is 'high', where a number was expected"),
    ({"task": "regression"}, 'text,label\na,1.5\nb,"2,5"\n', r"line 3: 'label' is '2,5'.*decimals take a point"),
    ({"task": "regression"}, "text,label\na,1\nb,nan\nc,inf\n", r"line 3: 'label' is 'nan'.*\(2 such rows\)"),
    ({"task": "regression"}, "text,label\na,1\nb,1e39\n", r"line 3: 'label' is '1e39'"),
    ({"task": "multi-label", "label_columns": ["x", "y"]}, "text,x,y\na,0,1\nb,0,0.5\n",
     r"line 3: 'y' is 0\.5, where 0 or 1 was expected \(1 such rows\).*distribution"),
    ({"task": "multi-label", "label_columns": ["x", "y"]}, "text,x,y\na,0,1\nb,,1\n", r"line 3: 'x' is empty"),
    ({"task": "multi-label", "label_columns": ["x", "z"]}, "text,x,y\na,0,1\n",
     r"has no column 'z' \(data\.label_columns\)"),
    ({"task": "multi-label"}, "text,label\na,x|y\n", r"line 2: 'label' is 'x\|y', where a .*data\.label_separator"),
    ({"task": "distribution", "label_columns": ["x", "y"]}, "text,x,y\na,0.4,0.6\nb,0.4,0.4\n",
     r"line 3: the probabilities are 0\.4, 0\.4 and sum to 0\.8, .*\(1 such rows\)\. Divide each row by its sum"),
    ({"task": "distribution", "label_columns": ["x", "y"]}, "text,x,y\na,-0.5,1.5\n", r"are -0\.5, 1\.5 and sum to 1"),
    ({"task": "distribution"}, "text,label\na,0.4\n", r"line 2: 'label' is '0\.4', where a list of"),
])
def test_wrong_labels_of_a_task_are_refused_by_line(tmp_path, section, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read_labelled(str(table(tmp_path, content, "a.csv")), TextDataSection(**section))
    assert str(caught.value).startswith(f"{tmp_path}/a.csv") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("records", "message"), [
    ([{"text": "a", "label": []}], "'label' is [], where a list of as many probabilities was expected"),
    ([{"text": "a", "label": [1]}, {"text": "b", "label": [0.5, 0.5]}], "where a list of 1 probabilities was expected"),
    ([{"text": "a", "label": [0.5, None]}], "'label[1]' is empty, where a probability was expected"),
])
def test_wrong_lists_of_probabilities(tmp_path, records, message):
    with pytest.raises(UserError) as caught:
        read_labelled(str(lines(tmp_path, records)), TextDataSection(task="distribution"))
    assert message in str(caught.value)
    with pytest.raises(UserError, match="'label' is "):
        read_labelled(str(lines(tmp_path, [{"text": "a", "label": ["x", None]}])), TextDataSection(task="multi-label"))


# --- train, validation, test --------------------------------------------------------------------------------------


def test_a_missing_validation_set_is_the_last_of_each_class(tmp_path):
    rows = [f"text {row}\t{'abc'[row % 3] if row < 30 else 'rare'}" for row in range(31)]
    path = table(tmp_path, "text\tlabel\n" + "\n".join(rows) + "\n")
    train, validation, _, told = loaded(path, validation_share=0.2)
    assert np.bincount(validation.labels, minlength=4).tolist() == [2, 2, 2, 0]
    assert validation.texts == [f"text {row}" for row in range(24, 30)]
    assert "text 30" in train.texts
    assert told[:3] == [
        "validation: 6 of 31 training rows, the last of each class, since data.validation is empty",
        "validation: 1 classes of one example keep it in training: rare",
        "validation: has no example of 1 classes: rare"]
    again = loaded(path, validation_share=0.2)
    assert again[1].texts == validation.texts
    given = loaded(path, validation=str(table(tmp_path, "text\tlabel\nnew\tb\n", "v.tsv")))
    assert given[1].texts == ["new"] and given[1].labels.tolist() == [1] and len(given[0]) == 31


def test_without_classes_validation_is_evenly_spread():
    numbers = np.arange(95, dtype=np.float32)
    data = LabelledText([str(row) for row in range(95)], numbers, ("value",), None, "regression")
    kept, held = split_off(data, 0.1)
    assert held.labels.tolist() == list(range(9, 95, 10)) and len(kept) == 86
    assert held.task == "regression"
    assert [len(part) for part in split_off(data, 0.5)] == [48, 47]


def test_duplicates_are_found_and_told(tmp_path):
    train = table(tmp_path, "text\tlabel\none\ta\ntwo\tb\none \ta\n  one\tb\nthree\ta\nfour\tb\n")
    validation = table(tmp_path, "text\tlabel\nfive\ta\n", "validation.tsv")
    test = table(tmp_path, "text\tlabel\none\tb\ntwo\tb\nfive\ta\nsix\ta\n", "test.tsv")
    *_, told = loaded(train, test, validation=str(validation))
    assert told == [
        "validation: has no example of 1 classes: b",
        "train: 2 of 6 rows repeat the text of an earlier one, 1 of them with another label",
        "test: 2 of 4 rows have a text of train, 1 of them with another label; taken out of train, they would no "
        "longer flatter the model",
        "test: 1 of 4 rows have a text of validation, 0 of them with another label; taken out of validation, they "
        "would no longer flatter the model"]
    pairs = table(tmp_path, "text,pair,label\na,x,0\na,y,1\na,x,1\n", "pairs.csv")
    *_, told = loaded(pairs, validation=str(pairs), text_pair_column="pair")
    assert told[0] == "train: 1 of 3 rows repeat the text of an earlier one, 1 of them with another label"


def test_a_cell_of_ten_megabytes_costs_what_the_model_reads(tmp_path):
    long = ("word " * 2_000_000).strip()
    path = table(tmp_path, f"text\tlabel\nshort\ta\n{' ' * 20_000}first {long} last\tb\nother\ta\n{long}\tb\n")
    del long
    began = time.monotonic()
    tracemalloc.start()
    train, *_, told = loaded(path, max_length=32)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1e5 and peak < 1.4e8 and time.monotonic() - began < 10  # one cell at a time, as csv reads it
    assert sorted(map(len, train.texts)) == [5, 2048] and max(train.texts, key=len).startswith("first word")
    assert told[0] == ("train: 2 texts of more than 2,048 characters were cut to that before tokenising; "
                       "data.max_length is 32 tokens")
    train, *_ = loaded(path, max_length=32, long_texts="head+tail")
    text = max(train.texts, key=len)
    assert len(text) == 2049 and text.startswith("first word") and text.endswith("word last")


@pytest.mark.parametrize(("section", "content", "message"), [
    ({}, "text\tlabel\na\tx\nb\tx\n", r"train\.tsv: all 2 rows have the label 'x' \(data\.label_column\)"),
    ({"task": "regression"}, "text\tlabel\na\t3\nb\t3\n", r"all 2 rows have the label 3 "),
    ({"task": "multi-label", "label_separator": "|"}, "text\tlabel\na\tx\nb\tx\n", r"every label is on all rows or on"),
    ({"task": "multi-label", "label_separator": "|"}, "text\tlabel\na\t\nb\t\n", r"every label is on all rows or on"),
    ({"task": "distribution", "label_columns": ["label"]}, "text\tlabel\na\t1\n", r"there is one class only"),
    ({}, "text\tlabel\na\tx\nb\ty\n", r"train\.tsv: too few rows \(2\) to split a validation set off"),
])
def test_a_training_set_that_teaches_nothing_is_refused(tmp_path, section, content, message):
    with pytest.raises(UserError, match=message):
        loaded(table(tmp_path, content), **section)


def test_a_label_that_cannot_be_learned_is_told(tmp_path):
    rows = "".join(f"text {row}\t{'never' if row < 0 else 'all'}{'|some' * (row % 2)}\n" for row in range(20))
    *_, told = loaded(table(tmp_path, "text\tlabel\n" + rows), task="multi-label", label_separator="|")
    assert told[0] == "train: 1 labels are on all rows or on none, and cannot be learned: all"
    assert told[1] == "validation: 2 of 20 training rows, evenly spread, since data.validation is empty"


def test_labels_outside_training_are_refused_in_the_file_that_has_them(tmp_path):
    train = table(tmp_path, "text\tlabel\na\t1\nb\t2\nc\t1\nd\t2\n")
    test = table(tmp_path, "text\tlabel\ne\t1\nf\t3\ng\tx\n", "test.tsv")
    with pytest.raises(UserError, match=r"test\.tsv, line 3: label '3' does not occur in the training data, which has "
                                        r"1, 2 \(2 such rows\)\..*set data\.task to regression"):
        loaded(train, test)


@pytest.mark.parametrize(("section", "message"), [
    ({}, r"give data\.train and data\.test, or data\.corpus_dir"),
    ({"train": "a.tsv"}, r"give data\.train and data\.test, or data\.corpus_dir"),
    ({"corpus_dir": "x", "task": "regression"}, r"the built-in task of data\.corpus_dir is classification"),
    ({"train": "a", "text_column": "label"}, r"column 'label' is named twice"),
    ({"train": "a", "validation_share": 1}, r"data\.validation_share is 1; it must lie between 0 and 1"),
    ({"train": "a", "max_length": 0}, r"data\.max_length is 0"),
    ({"train": "a", "label_columns": ["x"]}, r"data\.label_columns is given, but data\.task is classification"),
    ({"train": "a", "label_separator": ","}, r"data\.label_separator is given, but data\.task is classification"),
    ({"train": "a", "shots": 0}, r"data\.shots is 0"),
    ({"train": "a", "shots": 9, "task": "regression"}, r"data\.shots counts the examples of each class"),
    ({"train": "python-docs", "test": "b"}, r"python-docs: rows are read from"),
])
def test_wrong_settings_are_named(section, message):
    with pytest.raises(UserError, match=message):
        load_data(TextDataSection(**section))


def test_settings_come_from_yaml_as_they_are_documented():
    section = from_dict(TextDataSection, {"task": "multi-label", "label_columns": ["a", "b"],
                                          "long_texts": "head+tail"})
    assert section.label_columns == ["a", "b"] and section.long_texts == "head+tail"
    with pytest.raises(UserError, match=r"'task' is 'multilabel'\. Did you mean 'multi-label'"):
        from_dict(TextDataSection, {"task": "multilabel"})


# --- the hub ------------------------------------------------------------------------------------------------------

READ_HUB = """
import json, sys
from toolkit.data.text.labelled import TextDataSection, load_data
from toolkit.errors import UserError

for values in json.load(sys.stdin):
    told = []
    try:
        parts = load_data(TextDataSection(**values), told.append)
        result = [[part.texts, part.labels.tolist(), part.label_names] for part in parts]
    except UserError as error:
        result = str(error)
    print(json.dumps([result, told]), flush=True)
"""

FEATURES = b"""---
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': bad
          '1': good
---
"""


def hub_rows(prefix: str, labels: list) -> bytes:
    return "".join(json.dumps({"text": f"{prefix} {row}", "label": label}) + "\n"
                   for row, label in enumerate(labels)).encode()


@pytest.fixture(scope="module")
def hub_answers(repository) -> list:
    two = [0, 1, 0, 1]
    with Hub() as hub:
        hub.add_dataset("own/whole", {"README.md": FEATURES, "train.jsonl": hub_rows("train", two),
                                      "validation.jsonl": hub_rows("dev", [1, 0]), "test.jsonl": hub_rows("test", two)})
        hub.add_dataset("own/withheld", {"README.md": FEATURES, "train.jsonl": hub_rows("train", two * 5),
                                         "validation.jsonl": hub_rows("dev", [1, 0]),
                                         "test.jsonl": hub_rows("test", [-1, -1])})
        hub.add_dataset("own/train-only", {"train.jsonl": hub_rows("train", ["x", "y"] * 10)})
        listed = pyarrow.table({"text": ["a", "b", "c"], "label": [["x"], ["y", "x"], []]})
        buffer = pyarrow.BufferOutputStream()
        parquet.write_table(listed, buffer)
        hub.add_dataset("own/lists", {"train.parquet": buffer.getvalue().to_pybytes()})
        older = hub.add_dataset("own/moved", {"train.csv": b"text,label\nold,1\nolder,2\n"})
        hub.add_dataset("own/moved", {"train.csv": b"text,label\nnew,1\nnewer,2\n"})
        asked = [
            {"train": "hub:own/whole"},
            {"train": "hub:own/withheld"},
            {"train": "hub:own/withheld", "test": "hub:own/withheld#validation"},
            {"train": "hub:own/train-only"},
            {"train": "hub:own/train-only", "test": "hub:own/train-only"},
            {"train": "hub:own/lists", "test": "hub:own/lists#train", "validation": "hub:own/lists#train",
             "task": "multi-label"},
            {"train": f"hub:own/moved@{older}", "test": "hub:own/moved#train",
             "validation": f"hub:own/moved@{older}#train"},
            {"train": "hub:own/whole", "text_column": "txt"},
            {"train": "hub:own/missing"},
        ]
        done = subprocess.run([sys.executable, "-c", READ_HUB], input=json.dumps(asked), cwd=repository,
                              env=hub.environment(), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_data_set_on_the_hub_brings_its_splits_and_names(hub_answers):
    (train, validation, test), told = hub_answers[0]
    assert train == [[f"train {row}" for row in range(4)], [0, 1, 0, 1], ["bad", "good"]]
    assert validation == [["dev 0", "dev 1"], [1, 0], ["bad", "good"]] and len(test[0]) == 4
    assert told[:2] == ["test: hub:own/whole#test, since data.test is empty",
                        "validation: hub:own/whole#validation, since data.validation is empty"]


def test_splits_of_the_hub_can_be_named(hub_answers):
    assert hub_answers[1][0] == ("hub:own/withheld#test, row 1: 'label' is empty (2 such rows). Fill or remove them.")
    (train, validation, test), told = hub_answers[2]
    assert test[0] == ["dev 0", "dev 1"]  # and is not the validation set as well
    assert validation[0] == ["train 18", "train 19"] and len(train[0]) == 18 and "training rows" in told[0]
    assert hub_answers[3][0] == ("data.test is empty, and hub:own/train-only has no test split. Give data.test, for "
                                 "instance one of its splits: hub:own/train-only#train.")
    assert hub_answers[4][0] == ("hub:own/train-only: has no split 'test' (data.test). Name one of its splits: "
                                 "hub:own/train-only#train.")


def test_the_hub_gives_lists_revisions_and_errors(hub_answers):
    assert hub_answers[5][0][0] == [["a", "b", "c"], [[1, 0], [1, 1], [0, 0]], ["x", "y"]]
    (train, validation, test), _ = hub_answers[6]
    assert train[0] == validation[0] == ["old", "older"] and test[0] == ["new", "newer"]
    assert hub_answers[7][0] == ("hub:own/whole#train, row 1: has no column 'txt' (data.text_column). Did you mean "
                                 "'text'?")
    assert hub_answers[8][0] == ("hub:own/missing: no such data set on the hub, or it is private and no token is set "
                                 "(data).")


# --- draws, and the built-in task ---------------------------------------------------------------------------------


@pytest.fixture
def data() -> LabelledText:
    labels = np.asarray([0] * 30 + [1] * 12 + [2] * 20, np.int64)
    return LabelledText([f"text {number}" for number in range(62)], labels, ("a", "b", "c"))


def test_few_shot_is_balanced_deterministic_and_nested(data):
    few, more = few_shot(data, 5, seed=1), few_shot(data, 12, seed=1)
    assert np.bincount(few.labels).tolist() == [5, 5, 5]
    assert np.bincount(more.labels).tolist() == [12, 12, 12]
    assert set(few.texts) < set(more.texts)
    assert len(set(more.texts)) == 36
    for text, label in zip(more.texts, more.labels, strict=True):
        assert data.labels[data.texts.index(text)] == label
    again = few_shot(data, 5, seed=1)
    assert (few.texts, few.labels.tolist()) == (again.texts, again.labels.tolist())
    assert few_shot(data, 5, seed=2).texts != few.texts
    assert few.labels.tolist() != sorted(few.labels.tolist())
    assert few.label_names == data.label_names


def test_few_shot_asks_no_more_than_there_is(data):
    with pytest.raises(UserError, match=r"test\.tsv has 12 examples of class 'b', fewer than data\.shots = 13\. Lower"):
        few_shot(data, 13, 0, "test.tsv")


def test_documentation_passages_are_masked_whole_paragraphs(tmp_path):
    paragraph = "Paragraph {} says that numpy and torch.nn make {} of {} numbers, at some length so that it counts."
    lines = [{"name": f"module{number}", "source": source, "text": "\n\n".join(
        paragraph.format(i, source, number) for i in range(paragraphs))}
        for number, (source, paragraphs) in enumerate([("numpy", 60), ("torch", 4), ("elsewhere", 9), ("python", 1)])]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = documentation_passages(path, passage=250, per_document=8)
    assert data.label_names == PACKAGES
    # 60 paragraphs of about 100 characters are 20 passages, of which 8; 4 give one; other sources give none.
    assert data.labels.tolist() == [PACKAGES.index("numpy")] * 8 + [PACKAGES.index("torch")]
    for text, label in zip(data.texts, data.labels, strict=True):
        assert text.startswith("Paragraph ")
        assert text.endswith("it counts.")
        assert 250 <= len(text) <= 500
        assert PACKAGES[label] not in text
        assert "package" in text
    numbers = [int(text.split()[1]) for text in data.texts[:8]]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert numbers[-1] == 57


def test_messages_name_the_options_that_the_caller_has(tmp_path):
    # Once wrong: corpus.errors was advised for labelled files, and data.text_column by predict, which has text_column.
    binary = tmp_path / "binary.tsv"
    binary.write_bytes(b"text\tlabel\nthe \0 sea\tlow\n")
    with pytest.raises(UserError, match=r"looks binary \(a NUL byte at offset 15\)\. Give plain UTF-8 text\.$"):
        read_table(binary)
    (tmp_path / "texts.csv").write_text("text,label\nsea,a\n")
    with pytest.raises(UserError, match=r"has no column 'words' \(text_column\)"):
        list(text_rows(str(tmp_path / "texts.csv"), "words"))
    with pytest.raises(UserError, match=r"\(prompts\)"):
        list(text_rows(str(tmp_path / "absent.csv"), option="prompts"))
    section = from_dict(TextDataSection, {"train": "a.csv", "test": "b.csv", "max_length": 0}, "config", "sets.trec.")
    with pytest.raises(UserError, match=r"sets\.trec: sets\.trec\.max_length is 0"):
        load_data(section)
    with pytest.raises(UserError, match=r"data: data\.max_length is 0"):
        load_data(TextDataSection(train="a.csv", test="b.csv", max_length=0))
