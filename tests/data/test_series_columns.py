"""Channels and times of series are known by name: matched where they come in another order, refused where they differ.
"""

import numpy as np
import pandas as pd
import pytest

from toolkit.data.series.learned import Learned
from toolkit.data.series.readers import read_series, read_values
from toolkit.data.series.splits import SeriesDataSection, load_splits
from toolkit.data.series.tables import SeriesTable
from toolkit.errors import UserError

LONG = {"series_column": "id", "time_column": "time"}


def long_table(seed: int = 0, series: int = 6, length: int = 12) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    table = pd.DataFrame({"id": np.repeat([f"s{number}" for number in range(series)], length),
                          "time": np.tile(np.arange(length) / 4, series)})
    for name in ("heart", "breath"):
        table[name] = random.normal(size=len(table)).round(3)
    return table.assign(label=[f"class {int(name[1:]) % 2}" for name in table["id"]])


def wide_table(seed: int = 0, series: int = 8, length: int = 12) -> pd.DataFrame:
    values = np.random.default_rng(seed).normal(size=(series, length)).round(3)
    return pd.DataFrame(values, columns=[f"t{t}" for t in range(length)]).assign(label=["a", "b"] * (series // 2))


@pytest.fixture
def split(tmp_path):
    """(train, test, options) → the three parts, and what was told of them."""
    def read(train: pd.DataFrame, test: pd.DataFrame, index: bool = False, **options):
        for name, table in (("train", train), ("test", test)):
            table.to_csv(tmp_path / f"{name}.csv", index=index)
        told: list[str] = []
        parts = load_splits(SeriesDataSection(train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"),
                                              normalisation="none", **options), 0, told.append)
        return parts, [line.removeprefix(f"{tmp_path}/") for line in told]

    return read


def same(part, other) -> bool:
    return np.array_equal(part.values, other.values)


def test_channels_in_another_order_are_matched_by_name_and_told(split):
    train, test = long_table(), long_table(1)
    plain, told = split(train, test, **LONG)
    assert not any("matched by name" in line for line in told)
    assert "train.csv: 6 series, 2 channels, 12 values of heart, breath" in told
    swapped, told = split(train, test[["label", "breath", "time", "heart", "id"]], **LONG)
    assert same(swapped[2], plain[2])
    assert ("test.csv: channels come as breath, heart; matched by name to those learned, heart, breath") in told
    assert plain[0].learned.channel_names == ("heart", "breath") and plain[0].learned.value_columns is None


def test_named_channels_are_matched_by_name_too(split):
    train, test = long_table(), long_table(1)
    first, _ = split(train, test[["id", "time", "breath", "heart", "label"]], value_columns=["breath", "heart"], **LONG)
    assert first[0].learned.channel_names == ("breath", "heart")
    np.testing.assert_array_equal(first[2].values[0, 0], test["breath"][:12].astype(np.float32))


@pytest.mark.parametrize(("change", "message"), [
    ({"breath": "breaht"}, "has no column 'breath'; learned were heart, breath, and it has heart, breaht. Did you mean "
                           "'breaht'"),
    ({"breath": "b", "heart": "h"}, "has no column 'heart'; learned were heart, breath, and it has h, b. Rename")])
def test_other_channels_are_refused(split, change, message):
    with pytest.raises(UserError, match=f"test.csv: {message}"):
        split(long_table(), long_table(1).rename(columns=change), **LONG)


def test_a_channel_more_than_was_learned_is_refused_unless_it_is_an_index(split):
    train, test = long_table(), long_table(1)
    with pytest.raises(UserError, match="test.csv: has a column 'pulse' more than was learned"):
        split(train, test.assign(pulse=test["heart"] * 2), **LONG)
    parts, told = split(train, test.assign(row=range(len(test))), **LONG)
    assert parts[2].values.shape[1] == 2 and any("column 'row' counts the rows" in line for line in told)
    with pytest.raises(UserError, match="test.csv: has a column 'level' more than was learned"):
        split(wide_table(), wide_table(1).assign(level=1.5))


def test_an_only_channel_may_have_another_name(split):
    train, test = (long_table(seed).drop(columns="breath") for seed in (0, 1))
    plain, _ = split(train, test, **LONG)
    renamed, told = split(train, test.rename(columns={"heart": "pulse"}), index=True, **LONG)
    assert same(renamed[2], plain[2])
    assert "test.csv: its only channel, pulse, is taken for the only one that was learned, heart" in told


@pytest.mark.parametrize("parquet", [False, True])
def test_an_index_is_no_channel(tmp_path, parquet):
    table, told = wide_table(), []
    plain = table.copy()
    if parquet:
        table.index = np.arange(100, 108)
        table[table["t0"] != 9].to_parquet(tmp_path / "x.parquet", index=True)
        plain.to_parquet(tmp_path / "y.parquet", index=False)
    else:
        table.to_csv(tmp_path / "x.csv")
        plain.to_csv(tmp_path / "y.csv", index=False)
    kind = ".parquet" if parquet else ".csv"
    read = read_series(tmp_path / f"x{kind}", note=told.append)
    assert same(read, read_series(tmp_path / f"y{kind}")) and read.learned.value_columns[0] == "t0"
    assert any("has no name of its own, as an index does: left out" in line for line in told)


def test_columns_that_count_rows_are_left_out_unless_they_are_named(tmp_path):
    table, told = wide_table(), []
    table.insert(0, "row", range(1, 9))
    table.to_csv(tmp_path / "x.csv", index=False)
    read = read_series(tmp_path / "x.csv", note=told.append)
    assert read.values.shape[2] == 12 and "column 'row' counts the rows" in told[0]
    names = ["row", *(f"t{t}" for t in range(12))]
    assert read_series(tmp_path / "x.csv", table=SeriesTable(value_columns=names)).values.shape[2] == 13


def test_rows_that_are_numbered_within_each_series(tmp_path):
    long_table().assign(time=np.tile(np.arange(12), 6)).to_csv(tmp_path / "x.csv")
    told = []
    read = read_series(tmp_path / "x.csv", table=SeriesTable(series_column="id"), note=told.append)
    assert read.learned.channel_names == ("heart", "breath") and read.values.shape[1] == 2
    assert any("column 'time' counts the rows of each series" in line for line in told)


def test_both_files_with_an_index_are_read_as_without(split):
    plain, _ = split(wide_table(), wide_table(1))
    indexed, told = split(wide_table(), wide_table(1), index=True)
    assert all(same(part, other) for part, other in zip(plain, indexed, strict=True))
    assert sum("left out" in line for line in told) == 2, "once a file"


def test_times_in_another_order_are_matched_by_name(split):
    train, test = wide_table(), wide_table(1)
    plain, _ = split(train, test)
    sorted_as_text, told = split(train, test[sorted(test.columns)])
    assert same(sorted_as_text[2], plain[2]) and any("columns come in another order" in line for line in told)


def test_longer_and_shorter_series_keep_their_times(split):
    train = wide_table()
    longer, _ = split(train, wide_table(1, length=15))
    assert longer[2].lengths.tolist() == [15] * 8 and longer[0].lengths.tolist() == [12] * 6
    shorter, _ = split(train, wide_table(1, length=9))
    assert shorter[2].lengths.tolist() == [9] * 8
    with pytest.raises(UserError, match="test.csv: has no column 't3'"):
        split(train, wide_table(1).drop(columns="t3"))


def test_other_names_of_as_many_times_are_taken_in_their_order(split):
    train, test = wide_table(), wide_table(1)
    plain, _ = split(train, test)
    renamed, told = split(train, test.rename(columns=lambda name: name.replace("t", "second ")))
    assert same(renamed[2], plain[2]) and any("are taken in their order for those learned" in line for line in told)


def test_a_new_file_may_hold_more_and_says_it(tmp_path):
    table = long_table(1).assign(ward="east", age=lambda rows: [40 + int(name[1:]) for name in rows["id"]])
    table[["age", "breath", "id", "ward", "time", "heart"]].to_csv(tmp_path / "new.csv")
    told, learned = [], Learned(channel_names=("heart", "breath"))
    data, beside = read_values(tmp_path / "new.csv", "refuse", SeriesTable(**LONG), told.append, learned)
    np.testing.assert_array_equal(data.values[0, 0], table["heart"][:12].astype(np.float32))
    assert beside["id"] == [f"s{number}" for number in range(6)] and beside["ward"] == ["east"] * 6
    assert list(map(int, beside["age"])) == list(range(40, 46))
    assert any("no column 'label'" in line for line in told)
    assert any("age, ward are no value that was learned" in line for line in told)


def test_a_table_with_a_row_a_time_taken_for_another_is_refused(tmp_path):
    long_table(1).to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(UserError, match="heart, breath were learned as channels .*data.series_column"):
        read_values(tmp_path / "new.csv", learned=Learned(channel_names=("heart", "breath")))


def test_a_tsv_with_a_header_is_a_table(tmp_path):
    wide_table().to_csv(tmp_path / "x.tsv", index=False, sep="\t")
    wide_table().to_csv(tmp_path / "x.csv", index=False)
    assert same(read_series(tmp_path / "x.tsv"), read_series(tmp_path / "x.csv"))
