"""Which labels are one and which are two, in one file and between files."""

import pyarrow
import pytest
from pyarrow import parquet

from toolkit.data.series.readers import read_series
from toolkit.data.text.labelled import TextDataSection, load_data, read_labelled
from toolkit.errors import UserError


def write(path, labels: list, texts: list | None = None):
    texts = texts or [f"{path.stem} {number}" for number in range(len(labels))]
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)
    else:
        rows = zip(texts, labels, strict=True)
        path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


@pytest.mark.parametrize(("labels", "names"), [
    (["1.1", "1.10", "1.2"], ("1.1", "1.10", "1.2")),
    (["0.5", ".5", "5e-1"], (".5", "0.5", "5e-1")),
    (["1.50", "1.5", "1"], ("1", "1.5", "1.50")),
    (["1", "1.0", "1.1"], ("1", "1.0", "1.1")),  # sections or versions
    (["2.0", "0.5"], ("0.5", "2")),
    (["1", "1.0", "+1", "01", "1e0", "2"], ("1", "2")),
    (["10", "9", "-1"], ("-1", "9", "10")),
    (["1", "1.0", "v2"], ("1", "1.0", "v2")),
])
def test_whole_numbers_have_one_spelling_and_nothing_else_is_merged(tmp_path, labels, names):
    data = read_labelled(str(write(tmp_path / "a.csv", labels)), TextDataSection())
    assert data.label_names == names
    if len(set(labels)) == len(names):
        assert len(set(data.labels.tolist())) == len(labels)


def test_series_keep_such_classes_apart_too(tmp_path):
    (tmp_path / "a.csv").write_text("label,0,1\n1.1,1,2\n1.10,2,1\n1.2,0,1\n")
    assert read_series(tmp_path / "a.csv").label_names == ("1.1", "1.10", "1.2")


@pytest.mark.parametrize(("known", "label", "index"), [
    (("0.5", "2"), "2.0", 1), (("0.5", "2.0"), "2", 1), (("1", "2"), "+1", 0), (("1", "1.0", "1.1"), "1.0", 1),
    (("1.1", "1.10"), "1.10", 1)])
def test_whole_numbers_of_other_files_are_matched_whatever_their_spelling(tmp_path, known, label, index):
    data = read_labelled(str(write(tmp_path / "a.csv", [label])), TextDataSection(), "test", known)
    assert data.labels.tolist() == [index] and data.label_names == known


@pytest.mark.parametrize(("known", "label"), [(("1.1", "1.2"), "1.10"), (("0.5", "1.5"), ".5"),
                                              (("1", "1.0", "1.1"), "01")])
def test_fractions_of_other_files_are_not_merged_either(tmp_path, known, label):
    with pytest.raises(UserError, match=rf"a\.csv, line 2: label '{label}' does not occur in the training data"):
        read_labelled(str(write(tmp_path / "a.csv", [label])), TextDataSection(), "test", known)


def test_labels_and_texts_that_are_bytes_are_decoded_or_refused(tmp_path):
    path = write(tmp_path / "a.parquet", [b"calm", "Föhn".encode(), b"calm"], [b"one", b"two", b"three"])
    data = read_labelled(str(path), TextDataSection())
    assert data.label_names == ("Föhn", "calm") and data.texts == ["one", "two", "three"]
    listed = write(tmp_path / "l.parquet", [[b"calm"], [b"calm", b"wet"]])
    assert read_labelled(str(listed), TextDataSection(task="multi-label")).label_names == ("calm", "wet")
    with pytest.raises(UserError, match=r"b\.parquet, row 2: 'label' is bytes that are not valid UTF-8 \(at byte 1\)"):
        read_labelled(str(write(tmp_path / "b.parquet", [b"calm", b"F\xf6hn"])), TextDataSection())


def test_classes_that_a_file_has_none_of_are_told_by_name_and_count(tmp_path):
    told = []
    load_data(TextDataSection(train=str(write(tmp_path / "train.csv", list("aabbccdd"))),
                              validation=str(write(tmp_path / "v.csv", list("aab"))),
                              test=str(write(tmp_path / "test.csv", list("bcd")))), told.append)
    assert told == ["validation: has no example of 2 classes: c, d", "test: has no example of 1 classes: a"]
    told = []
    several = TextDataSection(
        task="multi-label", label_separator="|", train=str(write(tmp_path / "train.csv", ["a", "a|b", "c", "b"])),
        validation=str(write(tmp_path / "v.csv", ["a", "b|c"])), test=str(write(tmp_path / "test.csv", ["a", "a|b"])))
    load_data(several, told.append)
    assert told == ["test: has no example of 1 classes: c"]
