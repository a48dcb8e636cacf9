"""Series out of files: every kind against what is known of it, and every mistake named by file, line and column."""

import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from toolkit.data.series.dataset import z_normalise
from toolkit.data.series.readers import read_series, read_values
from toolkit.data.series.tables import SeriesTable
from toolkit.data.tables.time_table import read_time_table
from toolkit.errors import UserError

ARCHIVE = Path(__file__).parents[2] / "../shared/data/ucr"
TS = "# a comment\n@problemName Small\n@timeStamps false\n@univariate {0}\n@equalLength {1}\n" \
     "@classLabel true A banana\n@data\n"
ARFF = "@relation small\n@attribute a numeric\n@attribute b numeric\n@attribute c numeric\n" \
       "@attribute target {1,2}\n@data\n"
LONG = SeriesTable(series_column="series", time_column="time")


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def series_of(data):
    """The observed values of each series, (channels, its length)."""
    seen = np.ones(data.values.shape, bool) if data.observed is None else data.observed
    return [np.where(row[:, :n], one[:, :n], np.nan).tolist() for one, row, n in
            zip(data.values, seen, data.lengths, strict=True)]


# ---- every kind, read


def test_tsv(tmp_path):
    data = read_series(write(tmp_path, "x.tsv", "2\t1.5\t-2e-1\n-1\t0\t3\n10\t1\t1\n\n"))
    np.testing.assert_array_equal(data.values, np.asarray([[[1.5, -0.2]], [[0, 3]], [[1, 1]]], np.float32))
    assert data.label_names == ("-1", "2", "10"), "numeric order"
    assert data.labels.tolist() == [1, 0, 2] and data.labels.dtype == np.int64 and data.observed is None


@pytest.mark.parametrize(("cells", "names", "labels"), [
    ((" 1", "2.0", "1.0", "+2"), ("1", "2"), [0, 1, 0, 1]),
    (("-1", "1", "-1.0", "1e0"), ("-1", "1"), [0, 1, 0, 1]),
    (("walk", "Run", "walk", "sit"), ("Run", "sit", "walk"), [2, 0, 2, 1]),
    (("10", "9", "1", "nine"), ("1", "10", "9", "nine"), [1, 2, 0, 3])])
def test_any_label_coding(tmp_path, cells, names, labels):
    lines = "".join(f"{cell}\t1\t2\n" for cell in cells)
    data = read_series(write(tmp_path, "x.tsv", lines))
    assert (data.label_names, data.labels.tolist()) == (names, labels)
    table = pandas.DataFrame({"label": list(cells), "a": 1.0, "b": 2.0})
    table.to_csv(tmp_path / "x.csv", index=False)
    again = read_series(tmp_path / "x.csv")
    assert (again.label_names, again.labels.tolist()) == (names, labels)


def test_a_test_file_is_numbered_like_its_training_file(tmp_path):
    data = read_series(write(tmp_path, "x.tsv", "3.0\t1\t2\n"), label_names=("1", "2", "3"))
    assert data.labels.tolist() == [2] and data.label_names == ("1", "2", "3")


def test_ts_with_channels_of_unequal_length(tmp_path):
    path = write(tmp_path, "x.ts", TS.format("false", "false") + "1,2,3:4,5,6:banana\n-1.5,2e1:0,?:A\n")
    notes = []
    data = read_series(path, missing="mask", note=notes.append, sampling_rate=50)
    assert data.label_names == ("A", "banana") and data.labels.tolist() == [1, 0], "capitals, and no NaN in banana"
    assert data.values.shape == (2, 2, 3) and data.lengths.tolist() == [3, 2] and data.sampling_rate == 50
    np.testing.assert_array_equal(data.values[1], [[-1.5, 20, 0], [0, 0, 0]])
    np.testing.assert_array_equal(data.observed[1], [[1, 1, 0], [1, 0, 0]])
    assert "1 of 10 values are missing, in 1 of 2 series; masked" in notes[0]
    assert "series of 2 to 3 values, padded on the right" in notes[1]
    scaled = z_normalise(data.values, data.observed)
    np.testing.assert_allclose(scaled[1, 0], [-np.sqrt(0.5), np.sqrt(0.5), 0], rtol=1e-6)


def test_arff_with_one_channel_and_several(tmp_path):
    data = read_series(write(tmp_path, "x.arff", ARFF + "1,2,3,2\n\n4,?,6,1\n"), missing="mask")
    assert data.label_names == ("1", "2") and series_of(data)[0] == [[1, 2, 3]]
    np.testing.assert_array_equal(data.observed[1, 0], [True, False, True])
    header = "@relation r\n@attribute b relational\n@attribute x0 numeric\n@end b\n@attribute c {a,b}\n@data\n"
    data = read_series(write(tmp_path, "y.arff", header + "'1,2\\n3,4',b\n'5,6\\n7,8',a\n"))
    assert series_of(data) == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]] and data.labels.tolist() == [1, 0]


def test_a_table_with_a_row_a_series(tmp_path):
    table = pandas.DataFrame({"id": ["p", "q"], "b": [1.5, 2.0], "label": ["x", "y"], "a": [3.0, np.nan]})
    table.to_csv(tmp_path / "x.csv", index=False)
    table.to_csv(tmp_path / "x.csv.gz", index=False)
    table.to_parquet(tmp_path / "x.parquet")
    for name in ("x.csv", "x.csv.gz", "x.parquet"):
        data = read_series(tmp_path / name, missing="mask", table=SeriesTable(value_columns=["b", "a"]))
        assert data.values.tolist() == [[[1.5, 3.0]], [[2.0, 0.0]]] and data.observed.tolist() == [
            [[True, True]], [[True, False]]]
        with pytest.raises(UserError, match=rf"{name}, (line 2|row 1), column 'id': expected a number, found 'p'"):
            read_series(tmp_path / name)
        with pytest.raises(UserError, match=r"has no column 'lable' \(data.label_column\). Did you mean 'label'"):
            read_series(tmp_path / name, table=SeriesTable(label_column="lable"))


def long_table(times):
    return pandas.DataFrame({"series": ["b", "a", "b", "a", "a"], "time": times, "ecg": [1.0, 2.0, 3.0, 4.0, 5.0],
                             "label": ["y", "x", "y", "x", "x"], "flow": [0.0, -1.0, -2.0, np.nan, -4.0]})


@pytest.mark.parametrize("times", [
    [0, 5, 0.5, 5.5, 6], ["2020-01-01", "2020-01-01T00:30", "2020-01-02 00:00:00", "2020-01-02", "2021-01-01"]])
def test_a_table_with_a_row_a_time(tmp_path, times):
    long_table(times).to_csv(tmp_path / "x.csv", index=False)
    long_table(times).to_parquet(tmp_path / "x.parquet")
    for name in ("x.csv", "x.parquet"):
        data = read_series(tmp_path / name, missing="mask", table=LONG)
        assert data.values.shape == (2, 2, 3) and data.lengths.tolist() == [2, 3]
        assert data.values.tolist() == [[[1, 3, 0], [0, -2, 0]], [[2, 4, 5], [-1, 0, -4]]]
        assert data.observed[1].tolist() == [[True] * 3, [True, False, True]]
        assert [data.label_names[label] for label in data.labels] == ["y", "x"]


def test_times_of_parquet_and_uneven_steps(tmp_path):
    table = long_table(pandas.to_datetime(["2020-01-01", "2020-01-01", "2020-01-02", "2020-01-02", "2020-01-05"]))
    table.to_parquet(tmp_path / "x.parquet")
    notes = []
    read_series(tmp_path / "x.parquet", missing="mask", table=LONG, note=notes.append)
    assert ("1 of 3 steps of 'time' are not the usual 1 days 00:00:00, the first of them 3 days 00:00:00 before row 5"
            in notes[0])


def test_the_times_of_series_and_of_tables_are_held_to_the_same(tmp_path):
    """One series with a row a time, and the same rows as a table over time: the same is refused, and told."""
    def said(text):
        path, told = write(tmp_path, "x.csv", "time,v,series,label\n" + text), []
        for read in (lambda: told.append(read_series(path, table=LONG, note=lambda line: told.append(line))),
                     lambda: told.extend(read_time_table(path, "time", ["v"]).notes)):
            try:
                read()
            except UserError as error:
                told.append(str(error))
        return [line.removeprefix(f"{path}: ") for line in told if isinstance(line, str)]

    for rows, message in (("1 2 2", "twice"), ("1 3 2", "goes back from '3' to '2'"), ("1 2 x", "found 'x'"),
                          ("2020-01-01 5 2020-01-03", "found '5'"), ("1 nan 3", "found"), ("1 2 4 5", "1 of 3 steps")):
        ours, theirs = said("".join(f"{time},1,a,b\n" for time in rows.split()))
        assert message in ours and ours.replace("series 'a'", "the table").replace("the rows of each series", "its rows"
                                                                                   ) == theirs


def test_series_without_labels(tmp_path):
    wide, long = write(tmp_path, "w.csv", "a,b\n1,2\n3,\n"), write(tmp_path, "l.csv", "series,v\np,1\np,2\nq,3\n")
    for path, series in ((wide, ""), (long, "series")):
        table = SeriesTable(label_column="", series_column=series)
        data, beside = read_values(path, "mask", table)
        assert data.values.tolist() == [[[1, 2]], [[3, 0]]] and data.observed[1, 0].tolist() == [True, False]
        assert beside == ({"series": ["p", "q"]} if series else {})
        with pytest.raises(UserError, match="the label is missing"):
            read_series(path, missing="mask", table=table)
    np.testing.assert_array_equal(read_values(write(tmp_path, "x.tsv", "?\t1\t2\n"))[0].values, [[[1, 2]]])


def test_ts_without_labels_is_for_predicting(tmp_path):
    header = TS.format("false", "true")
    none = write(tmp_path, "none.ts", header.replace("@classLabel true A banana", "@classLabel false")
                 + "1,2:3,4\n5,6:7,?\n")
    unknown = write(tmp_path, "unknown.ts", header + "1,2:3,4:?\n5,6:7,?:?\n")
    known = write(tmp_path, "known.ts", header + "1,2:3,4:A\n5,6:7,?:banana\n")
    for path, beside in ((none, {}), (unknown, {}), (known, {"label": ["A", "banana"]})):
        data, found = read_values(path, "mask")
        assert data.values.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 0]]] and found == beside
    with pytest.raises(UserError, match="none.ts, line 8, column 2: expected a number, found 'x'"):
        read_values(write(tmp_path, "none.ts", none.read_text().replace("1,2", "1,x")))


# ---- every mistake, named


def fails(tmp_path, name, text, message, **arguments):
    with pytest.raises(UserError, match=message) as error:
        read_series(write(tmp_path, name, text), **arguments)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "message"), [
    ("1\t2\t3\n1\t2\tx\n", r"x.tsv, line 2, column 3: expected a number, found 'x'"),
    ("1\t2\tNaN\n1\tnan\t?\n", r"line 1, column 3: expected a finite number, found nan: it is missing \(3 such values "
                               r"in 2 series\).*data.missing to mask"),
    ("1\t2\t3\n1\t2\t-inf\n", r"line 2, column 3: expected a finite number, found -inf: it is infinite"),
    ("1\t2\t3\n1\t1e39\t2\n", r"line 2, column 2: .* 1e\+39: it is infinite, or too large for float32"),
    ("1\t2\t3\n1\t2\n", r"line 2, column 3: expected 2 values as in the lines above, found 1"),
    ("1\t2\t3\n1\t2\t3\t4\n", r"line 2, column 4: expected 2 values as in the lines above, found 3"),
    ("1.5\t2\t3\n", r"line 1, column 1: expected a label, an integer or a name, found '1.5'"),
    ("1\tt0\t1\n1\t2\t3\n", r"line 1, column 2: expected a number, found 't0'"),
    ("1,2,3\n", r"line 1, column 2: expected tabs and values after the label"),
    ("\t2\t3\n", r"line 1, column 1: the label is missing"),
    ("1\t2\t3\n9\t2\t3\n", r"line 2, column 1: label '9' does not occur in the training data, which has 1, 2"),
    ("", r"x.tsv: no series"),
])
def test_tsv_errors(tmp_path, text, message):
    fails(tmp_path, "x.tsv", text, message, label_names=("1", "2"))


@pytest.mark.parametrize(("rows", "message"), [
    ("1,2,3:4,5,6:A\n1,2,3:4,x5,6:A\n", r"line 9, column 5: expected a number, found 'x5'"),
    ("1,2,3:4,5,6:A\n1,2,3:4,,6:A\n", r"line 9, column 5: expected a number, found ''"),
    ("1,2,3:4,5,?:A\n", r"line 8, column 6 \(value 3 of channel 2\): .* missing \(1 such values"),
    ("1,2,3:4,inf,6:A\n", r"line 8, column 5 \(value 2 of channel 2\): expected a finite number, found inf"),
    ("1,2,3:4,5,6:A\n1,2,3:A\n", r"line 9: 1 channels, but line 8 has 2"),
    ("1,2,3:4,5,6:A\n1,2:4,5,6:A\n", r"line 9: its channels have 2, 3 values"),
    ("1,2,3:4,5,6:A\n1,2:4,5:A\n", r"line 9, column 3: 2 values, but line 8 has 3. .*@equalLength false"),
    ("1,2,3:4,5,6:A\n\n1,2,3:4,5,6:A\n", r"line 9: is empty. Remove it"),
    ("1,2,3:4,5,6:A\n\n", r"line 9: is empty. Remove it"),
    ("1,2,3:4,5,6\n", r"line 8: expected a label after a colon"),
    ("1,2,3\n", r"line 8: expected a label after a colon"),
    ("1,2,3:4,5,6:?\n", r"line 8: expected a label"),
    ("", r"no series in the file"),
])
def test_ts_errors(tmp_path, rows, message):
    fails(tmp_path, "x.ts", TS.format("false", "true") + rows, message)


@pytest.mark.parametrize(("text", "message"), [
    ("1,2,3:A\n", r"x.ts: has no line @data"),
    (TS.replace("@timeStamps false", "@timeStamps true").format("true", "true") + "(0,-1),(1,2):A\n",
     r"line 3: series with time stamps are not read from .ts files. Write them as .csv"),
    (TS.replace("@classLabel true A banana", "@classLabel false").format("true", "true") + "1,2\n",
     r"line 6: the series have no class labels"),
    (TS.format("true", "true") + "1,2:3,4:A\n1,2:3,4:A\n", r"x.ts: aeon cannot read it \(.*univariate"),
])
def test_ts_headers(tmp_path, text, message):
    fails(tmp_path, "x.ts", text, message)


@pytest.mark.parametrize(("rows", "message"), [
    ("1,2,3,1\n4,?,6,1\n?,8,9,2\n", r"line 8, column 2: .* it is missing \(2 such values in 2 series\). .*mask"),
    ("1,2,3,1\n4,five,6,1\n", r"line 8, column 2: expected a number, found 'five'"),
    ("1,2,3,1\n4,5,1\n", r"line 8, column 3: 2 values, but line 7 has 3. Fill it up with \?"),
    ("1,2,3,1\n4,1\n", r"line 8, column 2: 1 values, but line 7 has 3"),
    ("1,2,3,1\n4,5,6,?\n", r"line 8: expected a label after the last comma"),
    ("1,2,3,1\n4,-Infinity,6,1\n", r"line 8, column 2: expected a finite number, found -inf"),
])
def test_arff_errors(tmp_path, rows, message):
    fails(tmp_path, "x.arff", ARFF + rows, message)


HEADER = "series,time,v,label\n"


@pytest.mark.parametrize(("text", "message"), [
    ("a,1,2.0,x\na,1,3.0,x\n", r"line 3, column 'time': series 'a' has '1' twice"),
    ("a,2,2.0,x\nb,1,1,y\na,1,3.0,x\n", r"line 4, column 'time': series 'a' goes back from '2' to '1'. Sort"),
    ("a,2020-01-01,2.0,x\na,2020-13-01,3.0,x\n", r"line 3, column 'time': expected a number or a date .*'2020-13-01'"),
    ("a,1,2.0,x\na,,3.0,x\n", r"line 3, column 'time': .*found nothing"),
    ("a,1,2.0,x\na,2,3.0,y\n", r"line 3, column 'label': series 'a' has the label 'y' here and 'x' in line 2"),
    ("a,1,2.0,x\n,2,3.0,x\n", r"line 3, column 'series': is empty"),
    ("a,1,2.0,x\na,2,high,x\n", r"line 3, column 'v': expected a number, found 'high'"),
    ("a,1,2.0,x\nb,1,3.0,x\na,2,,x\n", r"line 4, column 'v': .* it is missing \(1 such values in 1 series\)"),
    ("a,1,2.0,x\na,2,inf,x\n", r"line 3, column 'v': expected a finite number, found inf"),
    ("a,1,2.0,\na,2,3,\n", r"line 2, column 'label': the label is missing"),
    ("a,1,2.0,x,9\n", r"line 2: 5 columns, the header has 4"),
])
def test_errors_of_tables_with_a_row_a_time(tmp_path, text, message):
    fails(tmp_path, "x.csv", HEADER + text, message, table=LONG)


def test_errors_of_columns(tmp_path):
    text = HEADER + "a,1,2.0,x\n"
    fails(tmp_path, "x.csv", text, r"has no column 'tme' \(data.time_column\). Did you mean 'time'",
          table=SeriesTable(series_column="series", time_column="tme"))
    fails(tmp_path, "x.csv", text, r"column 'label' is there, or named, twice",
          table=SeriesTable(series_column="series", value_columns=["v", "label"]))
    fails(tmp_path, "x.csv", text.replace("v,", "time,"), "column 'time' stands there twice", table=LONG)
    fails(tmp_path, "x.csv", "label\nx\n", "x.csv: has no column of values beside label")
    with pytest.raises(UserError, match="data.time_column is 'time', but data.series_column is empty"):
        read_series(write(tmp_path, "x.csv", text), table=SeriesTable(time_column="time"))
    fails(tmp_path, "x.parquet", "no parquet", "x.parquet: cannot be read as parquet")


def test_infinity_is_refused_where_missing_values_are_masked(tmp_path):
    for name, text in (("x.tsv", "1\t2\tinf\n"), ("x.csv", "label,a\nx,inf\n"), ("x.arff", ARFF + "1,?,inf,1\n")):
        fails(tmp_path, name, text, "expected a finite number, found inf: it is infinite", missing="mask")
    fails(tmp_path, "x.tsv", "1\t2\t3\n1\tNaN\t?\n",
          r"line 2, column 1: the series has no value at all \(1 such series", missing="mask")


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(UserError, match="nowhere.tsv: no such file"):
        read_series(tmp_path / "nowhere.tsv")
    fails(tmp_path, "x.json", "{}", "series are read from .ts, .tsv, .arff, .csv")
    (tmp_path / "y.tsv").write_bytes(b"1\t\xff2\n")
    with pytest.raises(UserError, match="y.tsv: not a text file in UTF-8"):
        read_series(tmp_path / "y.tsv")


def test_without_aeon_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    fails(tmp_path, "x.ts", TS.format("true", "true") + "1,2:A\n", r"pip install 'pretraining-toolkit\[series\]'")
    assert len(read_series(write(tmp_path, "x.tsv", "1\t2\t3\n"))) == 1  # needs no extra


# ---- the archives' own files


@pytest.mark.real_data
@pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive's files are not here")
def test_real_files():
    from aeon.datasets import load_from_tsv_file

    arff, tsv = (read_series(ARCHIVE / f"GunPoint/GunPoint_TRAIN{kind}") for kind in (".arff", ".tsv"))
    assert arff.label_names == tsv.label_names == ("1", "2") and arff.values.shape == (50, 1, 150)
    np.testing.assert_array_equal(arff.labels, tsv.labels)
    np.testing.assert_allclose(arff.values, tsv.values, atol=1e-6)
    theirs, labels = load_from_tsv_file(str(ARCHIVE / "GunPoint/GunPoint_TRAIN.tsv"))
    np.testing.assert_array_equal(theirs.astype(np.float32), tsv.values)
    np.testing.assert_array_equal(labels - 1, tsv.labels)
    motions = read_series(ARCHIVE / "BasicMotions/BasicMotions_TRAIN.ts")
    assert motions.values.shape == (40, 6, 100) and motions.observed is None
    assert motions.label_names == ("Badminton", "Running", "Standing", "Walking")
    vowels = read_series(ARCHIVE / "JapaneseVowels/JapaneseVowels_TEST.ts", tuple("123456789"))
    assert vowels.values.shape == (370, 12, 29) and (vowels.lengths.min(), vowels.lengths.max()) == (7, 29)
    assert (vowels.observed.all(1) == (np.arange(29) < vowels.lengths[:, None])).all(), "padded on the right alone"
