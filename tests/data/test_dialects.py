"""How tables are written: separators, quotes, decimal commas, thousands, encodings; what pandas writes is read back."""

import csv
import gzip

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.data.series.readers import read_series
from toolkit.data.series.tables import SeriesTable
from toolkit.data.series.windows import ForecastDataSection, load_forecast_data
from toolkit.data.tables import dialect
from toolkit.data.tables.rows import read_rows, whole_rows
from toolkit.data.tables.sources import Reading
from toolkit.data.tables.table_files import read_columns
from toolkit.data.tables.time_table import read_time_table
from toolkit.data.text.documents import read_part
from toolkit.data.text.labelled import TextDataSection, read_labelled, text_rows
from toolkit.errors import UserError

HOURS = [f"2016-07-01 {hour:02}:00:00" for hour in range(4)]


def write(path, content: str | bytes):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def cells(path, *names: str, **arguments) -> tuple[list[list], list[str]]:
    """The columns' cells by row, and what was told."""
    told = []
    rows = read_rows(str(path), "train", dict.fromkeys(names, ""), "data.", Reading(note=told.append), **arguments)
    return [row for _, row in rows], [line.removeprefix(f"{path}: ") for line in told]


# --- separators ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_the_separator_is_found_by_the_names_asked_for_and_told(tmp_path, separator, name, suffix):
    text = "".join(mark for mark in "so, it; is | so" if mark != separator)
    path = write(tmp_path / f"a{suffix}", "\n".join(map(separator.join, [["id", "text", "label"], ["1", text, "b"]])))
    found, told = cells(path, "text", "label")
    assert found == [[text, "b"]]
    usual = "," if suffix == ".csv" else "\t"
    assert told == ([] if separator == usual else [f"cells are parted by {name}"])


def test_separators_within_texts_part_nothing(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\na; b,x\nc; d,y\n")
    assert cells(path, "text", "label") == ([["a; b", "x"], ["c; d", "y"]], [])
    path = write(tmp_path / "b.csv", "text;label\na, b;x\nc, d;y\n")
    assert cells(path, "text", "label")[0] == [["a, b", "x"], ["c, d", "y"]]
    path = write(tmp_path / "c.csv", "text\na;b\nc;d\n")
    assert cells(path, "text") == ([["a;b"], ["c;d"]], [])
    with pytest.raises(UserError, match=r"d\.csv, line 3: 3 columns, the header has 2"):  # and not one column of a|b
        cells(write(tmp_path / "d.csv", "text,label\na|b,x\nc,d,y\n"), "text")


def test_without_names_the_separator_is_what_parts_all_rows_alike(tmp_path):
    path = write(tmp_path / "a.csv", "a;b\n1,5;2,5\n3,0;4,25\n")
    table = read_time_table(path, "")
    assert table.columns == ("a", "b") and table.values.tolist() == [[1.5, 3], [2.5, 4.25]]
    path = write(tmp_path / "b.csv", "a,b\n1;2,3\n")
    assert cells(path, "a") == ([["1;2"]], [])


def test_a_first_line_that_names_the_separator_is_heeded(tmp_path):
    path = write(tmp_path / "a.csv", "sep=;\r\na;b\r\n1,5;2\r\n3;x\r\n")
    assert cells(path, "a") == ([["1,5"], ["3"]], ["cells are parted by semicolons"])
    with pytest.raises(UserError, match="line 4, column 'b': expected a number, found 'x'"):
        read_time_table(path, "")


def test_carriage_returns_alone_are_no_line_ends(tmp_path):
    with pytest.raises(UserError, match=r"a\.csv, line 1: lines end with a carriage return alone.*tr '\\r' '\\n'"):
        cells(write(tmp_path / "a.csv", "text,label\ra,b\r"), "text")


def test_a_missing_column_is_looked_for_among_the_real_ones(tmp_path):
    path = write(tmp_path / "a.csv", "text;kind\na;b\nc, d;e\n")
    with pytest.raises(UserError, match=r"has no column 'label' .*Choose from: kind, text"):
        read_labelled(str(path), TextDataSection())


def test_of_many_files_written_alike_it_is_told_once(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.csv", "text;label\na;b\nc;d\n")
    told = []
    read_labelled(str(tmp_path / "*.csv"), TextDataSection(), note=told.append)
    assert [line for line in told if "parted" in line] == [f"{tmp_path}/0.csv: cells are parted by semicolons"]


# --- quotes between tabs ------------------------------------------------------------------------------------------


PLAIN = {
    "lone": 'text\tlabel\n"Hello, he said\ta\nand she\tb\n',
    "two lone": 'text\tlabel\n"Hello\ta\nhe said"\tb\n',
    "whole": 'text\tlabel\n"Hello"\ta\n"Bye"\tb\n',
    "inch": 'text\tlabel\n5" long\ta\n"7"" wide\tb\n',
    "mixed": 'text\tlabel\n"one ""two"""\ta\n"lone\tb\n"more\tb\n',
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_lone_quotation_mark_swallows_no_lines(tmp_path, name):
    path = write(tmp_path / "a.tsv", PLAIN[name])
    found, told = cells(path, "text", "label")
    assert found == [line.split("\t") for line in PLAIN[name].splitlines()[1:]]
    assert len(told) == (name != "whole")
    assert all("quotation marks are read as text" in line for line in told)


QUOTED = {
    "doubled": ('text\tlabel\n"he said ""no"" twice"\ta\nfine\tb\n', [['he said "no" twice', "a"], ["fine", "b"]]),
    "line break": ('label\ttext\na\t"one\n\ntwo"\nb\tfine\n', [["one\n\ntwo", "a"], ["fine", "b"]]),
    "tab": ('text\tlabel\n"one\ttwo"\ta\nfine\tb\n', [["one\ttwo", "a"], ["fine", "b"]]),
    "all": ('"text"\t"label"\n"one"\t"a"\n', [["one", "a"]]),
}


@pytest.mark.parametrize("name", QUOTED)
def test_tabs_with_quotes_are_read_as_pandas_writes_them(tmp_path, name):
    content, expected = QUOTED[name]
    found, told = cells(write(tmp_path / "a.tsv", content), "text", "label")
    assert found == expected and told == ["cells are quoted; a quotation mark within one is written twice"]


def test_a_cell_that_is_quoted_otherwise_than_the_others_is_refused_by_line(tmp_path):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"a ""b"""\tx\n"c ""d"""\tx\n"lone\ty\nfine\ty\n')
    with pytest.raises(UserError, match=r"a\.tsv, line 4: cannot be read as a table"):
        cells(path, "text")


# --- numbers ------------------------------------------------------------------------------------------------------


def numbers(tmp_path, *columns: list[str]):
    """Columns of a table called a, b, … as they are read, and what is told."""
    path, told = tmp_path / "n.csv", []
    with open(path, "w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([[chr(97 + i) for i in range(len(columns))],
                                                          *zip(*columns, strict=True)])
    found, _ = read_columns(path, reading=Reading(note=told.append))
    return list(found.values()), told


@pytest.mark.parametrize(("column", "expected"), [
    (["1,5", "-2,25", "3"], ["1.5", "-2.25", "3"]), (["0,123", "0,5"], ["0.123", "0.5"]),
    (["1.234,5", "7"], ["1234.5", "7"]), (["1,234.5", "7"], ["1234.5", "7"]), (["1.234.567", "7"], ["1234567", "7"]),
    (["1 234,5", "7"], ["1234.5", "7"]), (["1 234", "7"], ["1234", "7"]), (["1'234.5", "7"], ["1234.5", "7"]),
    (["1,5e-3", "2"], ["1.5e-3", "2"]), (["1,5", "", "NA", "?"], ["1.5", "", "NA", "?"]),
    (["1.5", "2"], ["1.5", "2"]), (["1.234", "5.678"], ["1.234", "5.678"]), (["a,b", "1,5"], ["a,b", "1,5"]),
    (["2016-07-01", "2016-07-02"], ["2016-07-01", "2016-07-02"]), (["01.02.2021", "1,5"], ["01.02.2021", "1,5"])])
def test_numbers_are_given_as_python_reads_them(tmp_path, column, expected):
    (found,), told = numbers(tmp_path, column)
    assert found == expected
    assert len(told) == (column != expected)


def test_what_can_be_meant_in_two_ways_is_decided_by_other_columns_or_refused(tmp_path):
    with pytest.raises(UserError, match=r"n\.csv, line 2, column 'a': '1,234' is 1\.234 or 1234, and no number"):
        numbers(tmp_path, ["1,234", "5,678"])
    assert numbers(tmp_path, ["1,234", "5,678"], ["0,5", "1"])[0][0] == ["1.234", "5.678"]
    assert numbers(tmp_path, ["1,234", "5,678"], ["0.5", "1"])[0][0] == ["1234", "5678"]
    found, told = numbers(tmp_path, ["1.234", "567"], ["0,5", "1"])  # thousands, since decimals take a comma
    assert found[0] == ["1234", "567"] and "'1.234' is 1234" in " ".join(told) or "'0,5' is 0.5" in told[0]
    with pytest.raises(UserError, match="no number of the table tells which"):
        numbers(tmp_path, ["1,234", "5,678"], ["0.5", "1"], ["0,5", "1"])


def test_the_decimal_mark_can_be_named(tmp_path):
    path = write(tmp_path / "v.csv", "date;volts;watts\n2021-01-01;230,123;1.500\n2021-01-02;229,871;1.250\n")
    section = ForecastDataSection(path=str(path), borders=[0.5, 0.5, 1])
    with pytest.raises(UserError, match=r"v\.csv, line 2, column 'volts': '230,123' is 230\.123 or 230123,.* or set "
                                        r"data\.decimal to ',' or '\.'\.$"):
        load_forecast_data(section)
    read = {mark: read_time_table(path, reading=Reading(decimal=mark)).values.tolist() for mark in ",."}
    assert read == {",": [[230.123, 229.871], [1500, 1250]], ".": [[230123, 229871], [1.5, 1.25]]}
    with pytest.raises(UserError, match=r"n\.csv, line 2, column 'a': '0,5' looks like a number and cannot be read"):
        numbers(tmp_path, ["0,5", "1,5"], ["1.5", "2"])
        read_time_table(tmp_path / "n.csv", "", reading=Reading(decimal="."))
    path = write(tmp_path / "s.csv", "label;0;1\nx;1,234;2,345\ny;3,456;4,567\n")
    with pytest.raises(UserError, match=r"s\.csv, line 2, column '0': .*data\.decimal"):
        read_series(path)
    np.testing.assert_allclose(read_series(path, table=SeriesTable(decimal=",")).values[0], [[1.234, 2.345]], rtol=1e-6)
    path = write(tmp_path / "t.csv", "text;label\na;1,234\nb;2,345\n")
    with pytest.raises(UserError, match=r"t\.csv, line 2, column 'label': .*data\.decimal"):
        read_labelled(str(path), TextDataSection(task="regression"))
    assert read_labelled(str(path), TextDataSection(task="regression", decimal=".")).labels.tolist() == [1234, 2345]


def test_a_number_otherwise_spelled_below_the_first_rows_is_refused_by_line(tmp_path, monkeypatch):
    monkeypatch.setattr(dialect, "SAMPLE", 20)
    with pytest.raises(UserError, match=r"n\.csv, line 12, column 'a': expected a number with a decimal comma.*'2\.5'"):
        numbers(tmp_path, ["1,5"] * 10 + ["2.5"])
    with pytest.raises(UserError, match=r"n\.csv, line 12, column 'a': expected a number, found '1,5'"):
        numbers(tmp_path, ["1"] * 10 + ["1,5"])
        read_time_table(tmp_path / "n.csv", "")


@pytest.mark.parametrize("column", [["12 kW", "13 kW"], ["$5.00", "$6.50"], ["50%", "60%"], ["1,5", "1 234.5"],
                                    ["5,000.5", "closed", "6,000.5"], ["3 °C", "4 °C"]])
def test_numbers_that_cannot_be_read_are_never_left_out(tmp_path, column):
    path = tmp_path / "a.csv"
    pandas.DataFrame({"date": HOURS[:len(column)], "load": column, "b": 1.5}).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"a\.csv, line 2, column 'load': .* cannot be read as one.*target_columns"):
        read_time_table(path)
    assert read_time_table(path, target_columns=["b"]).columns == ("b",)


@pytest.mark.parametrize("column", [["north", "south"], ["1st", "2nd"], ["2021-01-01", "2021-01-02"], ["A1", "A2"],
                                    ["10:30", "10:40"]])
def test_columns_of_text_are_left_out_and_told(tmp_path, column):
    path = tmp_path / "a.csv"
    pandas.DataFrame({"date": HOURS[:2], "place": column, "b": 1.5}).to_csv(path, index=False)
    table = read_time_table(path)
    assert table.columns == ("b",) and table.notes == ("left out, for they hold no numbers: place",)


def test_labels_that_are_numbers_take_a_comma_and_names_stay_as_they_are(tmp_path):
    path = write(tmp_path / "a.csv", "text;label;p;q\na;1,5;0,25;0,75\nb;2;1;0\nc;0,25;0,5;0,5\n")
    assert read_labelled(str(path), TextDataSection(task="regression")).labels.tolist() == [1.5, 2, 0.25]
    soft = read_labelled(str(path), TextDataSection(task="distribution", label_columns=["p", "q"]))
    assert soft.labels.tolist() == [[0.25, 0.75], [1, 0], [0.5, 0.5]]
    assert read_labelled(str(path), TextDataSection()).label_names == ("0,25", "1,5", "2")
    assert [row.columns["label"] for row in text_rows(str(path))] == ["1,5", "2", "0,25"]


def test_series_take_a_comma_too(tmp_path):
    wide = write(tmp_path / "w.csv", "label;0;1;2\nx;1,5;2,5;3\ny;0;0,25;1\n")
    told = []
    assert read_series(wide, note=told.append).values.tolist() == [[[1.5, 2.5, 3]], [[0, 0.25, 1]]]
    assert "cells are parted by semicolons" in told[0] and "decimal commas in 0, 1" in told[1]
    long = write(tmp_path / "l.csv", "s;t;v;label\n1,5;0,5;1,5;x\n1,5;1,0;2,5;x\n2;0,5;3;y\n2;1,0;4,5;y\n")
    table = SeriesTable(series_column="s", time_column="t")
    assert read_series(long, table=table).values.tolist() == [[[1.5, 2.5]], [[3, 4.5]]]


# --- encodings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding, pack):
    name = "a.csv.gz" if pack is gzip.compress else "a.csv"
    path = write(tmp_path / name, pack("text,label\r\n\"caf\u00e9, \u2028 \u0a0a\nso\",a\r\n".encode(encoding)))
    assert cells(path, "text", "label")[0] == [["café, \u2028 \u0a0a\nso", "a"]]
    assert next(text_rows(str(write(tmp_path / "a.txt", "café\n".encode(encoding))))).text == "café"


def test_an_encoding_can_be_named_and_is_advised_by_the_callers_own_option(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\ncafé,a\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"not valid UTF-8 at byte 14 \(line 2\).*data\.encoding, for instance latin-1"):
        read_labelled(str(path), TextDataSection())
    assert read_labelled(str(path), TextDataSection(encoding="latin-1")).texts == ["café"]
    with pytest.raises(UserError, match=r"'klingon' is no encoding of text \(data\.encoding\)"):
        read_labelled(str(path), TextDataSection(encoding="klingon"))
    with pytest.raises(UserError, match=r"not valid ascii at or below line 1.*data\.encoding"):
        read_labelled(str(path), TextDataSection(encoding="ascii"))
    with pytest.raises(UserError) as caught:
        list(text_rows(str(path)))
    assert "name its encoding" not in str(caught.value) and "iconv" in str(caught.value)
    german = write(tmp_path / "g.csv", "date;Größe\n2021-01-01;1,5\n2021-01-02;2\n".encode("cp1252"))
    assert read_time_table(german, reading=Reading(encoding="cp1252")).columns == ("Größe",)
    with pytest.raises(UserError, match=r"data\.encoding"):
        read_time_table(german, reading=Reading(options="data."))
    series = write(tmp_path / "s.csv", "label,0,1\nä,1,2\nb,1,3\n".encode("cp1252"))
    assert read_series(series, table=SeriesTable(encoding="cp1252")).label_names == ("b", "ä")


# --- names that stand twice ---------------------------------------------------------------------------------------


def test_a_name_that_stands_twice_is_refused(tmp_path):
    from pyarrow import parquet, table

    files = [write(tmp_path / "a.csv", "text,label,label\na,x,y\n"), write(tmp_path / "a.tsv", "text\tid\tlabel\tid\n"),
             write(tmp_path / "a.jsonl", '{"text": "a", "label": "x", "label": "y"}\n'), tmp_path / "a.parquet"]
    parquet.write_table(table([["a"], ["x"], ["y"]], names=["text", "label", "label"]), files[3])
    for path in files:
        for read in (lambda: read_labelled(str(path), TextDataSection()), lambda: list(text_rows(str(path)))):  # noqa: B023
            with pytest.raises(UserError, match=rf"{path.name}.*column '(label|id)' stands there twice\. Rename"):
                read()
    for path in files[0], files[3]:
        with pytest.raises(UserError, match="column 'label' stands there twice"):
            read_time_table(path)
    nested = write(tmp_path / "b.jsonl", '{"text": "a", "more": {"x": 1, "x": 2}}\n')
    assert next(text_rows(str(nested))).text == "a"  # what lies within a cell is nobody's column


# --- what pandas writes -------------------------------------------------------------------------------------------


TEXT = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"])
               | st.sampled_from(' "\t\n;,|\'.0123456789'), max_size=12)
SEPARATORS = st.sampled_from([",", ";", "\t", "|"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6), SEPARATORS, st.sampled_from([".csv", ".tsv"]),
       st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
def test_texts_that_pandas_wrote_come_back_or_it_is_told(tmp_path_factory, rows, separator, suffix, quoting):
    path = tmp_path_factory.mktemp("texts") / f"a{suffix}"
    frame = pandas.DataFrame(rows, columns=["text", "label"])
    frame.insert(0, "id", range(len(rows)))
    frame.to_csv(path, sep=separator, quoting=quoting, index=False, lineterminator="\n")
    told = []
    found = whole_rows(str(path), "train", {"text": "text_column"}, reading=Reading(note=told.append))
    found = [(row["text"], row["label"]) for _, row in found]
    assert found == rows or any("quotation marks are read as text" in line for line in told)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(*[st.floats(allow_infinity=False, width=32) | st.integers(-10**9, 10**9).map(float)] * 3),
                min_size=1, max_size=6), SEPARATORS, st.sampled_from(".,"), st.sampled_from([".csv", ".tsv"]),
       st.sampled_from([None, "%.3f", "%.1f", "%.0f"]), st.booleans())
def test_numbers_that_pandas_wrote_come_back_or_are_refused(tmp_path_factory, rows, separator, decimal, suffix,
                                                            spelling, grouped):
    path = tmp_path_factory.mktemp("numbers") / f"a{suffix}"
    frame = pandas.DataFrame(rows, columns=list("abc"))
    if spelling:
        frame = frame.map(lambda value: float(spelling % value))
    written = frame
    if grouped:  # as 1,234.5 or 1.234,5
        written = frame.map(lambda value: "" if np.isnan(value) else f"{value:,}".translate(
            {ord(","): "." if decimal == "," else ",", ord("."): decimal}))
    written.to_csv(path, sep=separator, decimal=decimal, float_format=spelling if not grouped else None, index=False)
    try:
        found, _ = read_columns(path)
    except UserError as error:
        assert "no number of the table tells which" in str(error)
        return
    table = np.array([[float(cell or "nan") for cell in column] for column in found.values()]).T
    np.testing.assert_array_equal(table, frame.to_numpy())


def test_a_corpus_of_tables_is_read_the_same_way(tmp_path):
    from toolkit.data.tables.sources import list_parts

    path, told = write(tmp_path / "a.csv", "id;text\n1;\"one; or\n\"\"two\"\"\"\n"), []
    (part,) = list_parts(str(path))
    assert [document.text for document in read_part(part, Reading(note=told.append))] == ['one; or\n"two"']
    assert told == [f"{path}: cells are parted by semicolons"]
