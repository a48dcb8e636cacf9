"""Which columns of a table are signals."""

import numpy as np
import pytest

from toolkit.data.tables.columns import shown, signals

LOAD = [3.0, 1.0, 2.0, 5.0, 3.0, 1.0, 2.0, 5.0]


@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__", "level_0"])
def test_a_column_without_a_name_is_left_out_and_told(name):
    kept, notes = signals({name: list("73915264"), "load": LOAD}, "data.value_columns")
    assert kept == ["load"]
    assert len(notes) == 1 and f"'{name}'" in notes[0] and "data.value_columns" in notes[0]


@pytest.mark.parametrize("cells", [list("01234567"), list(range(1, 9)), np.arange(8.0),
                                   [f"{row}.0" for row in range(8)]])
def test_a_column_that_counts_the_rows_is_left_out(cells):
    assert signals({"row": cells, "load": LOAD}, "data.target_columns")[0] == ["load"]


@pytest.mark.parametrize("cells", [list("01345678"), list(range(2, 10)), list("abcdefgh"), [0, None, *range(2, 8)],
                                   np.arange("2020-01-01", "2020-01-09", dtype="M8[D]").astype("M8[ns]")])
def test_other_columns_stay(cells):
    assert signals({"other": cells, "load": LOAD}, "data.target_columns") == (["other", "load"], [])


def test_a_few_rows_count_nothing():
    assert signals({"a": [0, 1, 2], "b": [5, 5, 5]}, "")[0] == ["a", "b"]


def test_a_column_that_counts_within_each_series():
    columns = {"step": [*range(8), *range(9)], "load": [3, 1, 2, 5, 4] * 3 + [1, 1]}
    assert signals(columns, "", [range(8), range(8, 17)])[0] == ["load"]
    assert signals(columns, "")[0] == ["step", "load"]


def test_the_only_column_is_a_signal():
    assert signals({"": list(range(9))}, "") == ([""], [])


def test_many_names_are_shortened():
    assert shown(["a", "b"]) == "a, b"
    assert shown([f"t{k}" for k in range(24)]) == "t0, t1, t2, t3, t4, … (24)"
