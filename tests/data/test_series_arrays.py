"""Series out of .npz and .npy: what is read by which name, and what is refused."""

import numpy as np
import pytest

from toolkit.data.series.readers import read_series, read_values
from toolkit.data.series.splits import SeriesDataSection, load_splits
from toolkit.errors import UserError

VALUES = np.random.default_rng(0).normal(size=(6, 2, 9))
NAMES = np.array(["walk", "run"] * 3)


@pytest.mark.parametrize("names", [("values", "labels"), ("X", "y")])
def test_values_and_labels_by_name(tmp_path, names):
    told = []
    np.savez(tmp_path / "x.npz", **dict(zip(names, (VALUES, NAMES), strict=True)))
    data = read_series(tmp_path / "x.npz", note=told.append)
    np.testing.assert_array_equal(data.values, VALUES.astype(np.float32))
    assert data.label_names == ("run", "walk") and data.labels.tolist() == [1, 0] * 3
    assert f"values are '{names[0]}', labels '{names[1]}'" in told[0]


def test_one_channel_integers_and_gaps(tmp_path):
    values = np.array([[1, 2, 3], [4, 5, 6]], np.int16)
    np.savez(tmp_path / "x.npz", X=values, y=[[2], [1]])
    data = read_series(tmp_path / "x.npz")
    assert data.values.tolist() == [[[1, 2, 3]], [[4, 5, 6]]] and data.label_names == ("1", "2")
    np.savez(tmp_path / "x.npz", X=np.where(values == 3, np.nan, values), y=[2, 1])
    assert read_series(tmp_path / "x.npz", missing="mask").lengths.tolist() == [2, 3]
    with pytest.raises(UserError, match=r"x.npz, array 'X', index \[0, 0, 2\]: expected a finite number, found nan"):
        read_series(tmp_path / "x.npz")


def test_values_alone_are_for_predicting(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    data, beside = read_values(tmp_path / "x.npy")
    np.testing.assert_array_equal(data.values, VALUES.astype(np.float32))
    assert beside == {}
    with pytest.raises(UserError, match=r"x.npy: has values, but no labels \(labels or y\). Save both: np.savez"):
        read_series(tmp_path / "x.npy")


def test_arrays_beside_the_values_are_kept(tmp_path):
    np.savez(tmp_path / "x.npz", values=VALUES, labels=NAMES, age=np.arange(40, 46), sampling=np.float64(50))
    _, beside = read_values(tmp_path / "x.npz")
    assert beside == {"label": NAMES.tolist(), "age": list(range(40, 46))}


@pytest.mark.parametrize(("arrays", "message"), [
    ({"data": VALUES, "y": NAMES}, r"has no array of values \(values or X\); it has data, y. Save it so"),
    ({"X": VALUES[0, 0], "y": NAMES}, r"array 'X': expected \(series, length\) or \(series, channels, length\), found "
                                      r"\(9,\)"),
    ({"X": VALUES, "y": NAMES[:4]}, r"array 'y': expected 6 labels, one a series, found \(4,\)"),
    ({"X": NAMES[:, None], "y": NAMES}, "array 'X': expected numbers, found <U4"),
    ({"X": VALUES, "y": NAMES.astype(object)}, "holds Python objects, which are not read.*labels.astype"),
])
def test_what_is_wrong_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        read_series(tmp_path / "x.npz")
    assert "x.npz" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_a_file_that_is_none(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK no archive, no array")
    with pytest.raises(UserError, match=f"{name}: cannot be read as numpy's {name[1:]}"):
        read_values(tmp_path / name)


def test_axes_in_another_order_are_told(tmp_path):
    np.save(tmp_path / "x.npy", VALUES.swapaxes(1, 2))
    told = []
    read_values(tmp_path / "x.npy", note=told.append)
    assert any("9 channels of 2 values each" in line and "swapaxes(1, 2)" in line for line in told)


def test_splits_of_arrays_and_of_tables_go_together(tmp_path):
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", values=VALUES[:, :1] + (split == "test"), labels=NAMES)
    parts = load_splits(SeriesDataSection(train=str(tmp_path / "train.npz"), test=str(tmp_path / "test.npz")), 0)
    assert [len(part) for part in parts] == [4, 2, 6] and parts[0].learned.series_length == 9
