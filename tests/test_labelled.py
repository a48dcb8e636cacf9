"""Labelled texts: tables and how their mistakes read, few-shot draws, batches, and the built-in task."""

import json

import numpy as np
import pytest

from toolkit.data.labelled import (
    LabelledText,
    TextBatches,
    documentation_passages,
    few_shot,
    read_table,
)
from toolkit.data.python_docs import PACKAGES
from toolkit.errors import UserError


def table(tmp_path, text: str | bytes, name: str = "train.tsv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


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


def test_a_test_table_is_numbered_as_the_training_table(tmp_path):
    train = read_table(table(tmp_path, "text\tlabel\na\tx\nb\ty\nc\tz\n"))
    test = read_table(table(tmp_path, "text\tlabel\nd\tz\n", "test.tsv"), label_names=train.label_names)
    assert test.labels.tolist() == [2]
    assert test.label_names == ("x", "y", "z")
    with pytest.raises(UserError, match=r"bad\.tsv, line 3: label 'w' does not occur in the training file.*x, y, z"):
        read_table(table(tmp_path, "text\tlabel\nd\tz\ne\tw\n", "bad.tsv"), label_names=train.label_names)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.tsv", "txt\tlabel\na\tb\n", r"has no column 'text' \(data\.text_column\)\. Did you mean 'txt'"),
     ("a.tsv", "text\tkind\na\tb\n", r"no column 'label' \(data\.label_column\)\. Choose from: kind, text"),
     ("a.csv", "text;label\na;b\n", r"has no column 'text' .*text;label"),
     ("a.tsv", "", r"a.tsv: is empty"),
     ("a.tsv", "text\tlabel\n", r"has a header but no rows"),
     ("a.tsv", "text\tlabel\na\tb\n \tc\n", r", line 3: 'text' is empty \(1 such rows\)"),
     ("a.tsv", "text\tlabel\na\t\n", r", line 2: 'label' is empty"),
     ("a.tsv", "text\tlabel\na\tb\n\n\n \tc\n", r", line 5: 'text' is empty"),
     ("a.csv", 'text,label\n"a\nb",c\n,d\n', r", line 4: 'text' is empty"),
     ("a.tsv", "text\tlabel\na\tb\nc\n", r", line 3: 1 columns, the header has 2"),
     ("a.tsv", b"text\tlabel\ncaf\xe9\tb\n", r"not valid UTF-8 at byte 14.*iconv"),
     ("a.tsv", b"text\tlabel\n" + b"a\tb\n" * 100_000 + b"\xe9\tb\n", r"not valid UTF-8 at byte 400011.*iconv"),
     ("a.tsv", "text\tlabel\na\tb\tc\n", r"line 2.*3"),
     ("a.tsv", "text\tlabel\na\tb\nc\td\te\n", r"line 3.*3"),
     ("a.json", "{}", r"read from \.tsv or \.csv"),
     ("gone.tsv", None, r"no such file")],
)
def test_a_wrong_table_is_refused_by_file_and_line(tmp_path, name, content, message):
    path = tmp_path / name if content is None else table(tmp_path, content, name)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


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


def test_batches_are_padded_to_the_longest_and_hold_each_example_once_an_epoch(wordpiece, texts):
    short = [text.split(".")[0] for text in texts]
    labels = np.arange(len(short), dtype=np.int64) % 3
    batches = TextBatches(LabelledText(short, labels, ("a", "b", "c")), wordpiece, 12, batch_size=8, seed=0)
    seen = []
    for step in range(5):
        batch = batches.batch(step, range(8))
        assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
        lengths = batch["attention_mask"].sum(1)
        assert lengths.max() == batch["input_ids"].shape[1] <= 12
        for ids, attention, length in zip(batch["input_ids"], batch["attention_mask"], lengths, strict=True):
            assert np.array_equal(attention, np.arange(len(ids)) < length)
            assert ids[0] == wordpiece.cls_token_id
            assert ids[length - 1] == wordpiece.sep_token_id
            assert (ids[length:] == wordpiece.pad_token_id).all()
            seen.append(ids[:length].tolist())
    expected = wordpiece(short, truncation=True, max_length=12)["input_ids"]
    assert sorted(seen) == sorted(expected)
    assert seen != expected
    index = np.asarray([3, 0, 3])
    rows = batches.rows(index)
    assert rows["labels"].tolist() == labels[index].tolist()
    assert rows["input_ids"][1, : len(expected[0])].tolist() == expected[0]


def test_batches_are_a_pure_function_of_step_and_rows_and_pad_without_a_pad_token(byte_level_bpe, texts):
    data = LabelledText([text[:50 + number] for number, text in enumerate(texts)], np.arange(40), tuple("ab"))
    first, second = (TextBatches(data, byte_level_bpe, 32, 8, seed=4) for _ in range(2))
    whole = first.batch(9, range(8))
    assert np.array_equal(whole["labels"], second.batch(9, range(8))["labels"])
    parts = [second.batch(9, rows)["labels"] for rows in (range(3), range(3, 8))]
    assert np.array_equal(np.concatenate(parts), whole["labels"])
    assert set(whole) == {"input_ids", "attention_mask", "labels"}
    assert (whole["input_ids"][whole["attention_mask"] == 0] == byte_level_bpe.eos_token_id).all()


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
