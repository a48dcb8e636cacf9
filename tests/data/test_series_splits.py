"""Training, validation and test series: what is split off, what is refused, what is told."""

import numpy as np
import pytest

from toolkit.data.series.dataset import SeriesDataset, z_normalise
from toolkit.data.series.splits import SeriesDataSection, check_patches, hold_out, load_splits
from toolkit.errors import UserError


@pytest.fixture
def write(tmp_path):
    """(name, rows of (label, values …)) → the path of a UCR .tsv."""
    def file(name, rows):
        path = tmp_path / name
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return file


def drawn(labels, length=20, seed=0):
    random = np.random.default_rng(seed)
    return [(label, *random.normal(5 * seed, 2, length).round(4)) for label in labels]


def test_a_fifth_of_each_class_is_held_out_and_a_class_of_one_stays(write):
    train = write("train.tsv", drawn("1" * 10 + "2" * 5 + "3"))
    notes = []
    parts = load_splits(SeriesDataSection(train=train, test=write("test.tsv", drawn("123", seed=1)),
                                          sampling_rate=360), 0, notes.append)
    assert [np.bincount(part.labels, minlength=3).tolist() for part in parts] == [[8, 4, 1], [2, 1, 0], [1, 1, 1]]
    assert all(part.label_names == ("1", "2", "3") and part.sampling_rate == 360 for part in parts)
    rows = [{series.tobytes() for series in part.values} for part in parts]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])
    assert any("1 classes of one example keep it in training: 3" in line for line in notes)
    assert any("validation: 3 of 16 training series, a fifth of each class" in line for line in notes)
    assert any(line == "validation: has no example of 1 classes: 3" for line in notes)


def test_files_give_the_same_splits_whatever_the_seed(write):
    data = SeriesDataSection(train=write("a.tsv", drawn("1122")), validation=write("b.tsv", drawn("12", seed=1)),
                             test=write("c.tsv", drawn("21", seed=2)))
    first, other = load_splits(data, 0), load_splits(data, 7)
    assert [len(part) for part in first] == [4, 2, 2]
    for a, b in zip(first, other, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
    np.testing.assert_allclose(first[2].values, z_normalise(first[2].values), atol=1e-6)


@pytest.mark.parametrize("generator", [None, "cylinder-bell-funnel", "synthetic-control", "noisy-sines"])
def test_generated_series_are_drawn_anew(generator):
    data = SeriesDataSection(generator=generator, train_per_class=4, test_per_class=6)
    first, again, other = (load_splits(data, seed) for seed in (0, 0, 1))
    rows = [{series.tobytes() for part in parts for series in part.values} for parts in (first, again, other)]
    assert rows[0] == rows[1] and not rows[0] & rows[2]
    classes = len(first[0].label_names)
    assert [len(part) for part in first] == [4 * classes, 4 * classes, 6 * classes]
    assert len(rows[0]) == 14 * classes, "no series is in two splits"


def test_statistics_are_those_of_training_alone(write):
    """`train` scales by the training series that are left, whatever validation and test hold."""
    train, quiet, loud = drawn("12" * 10), drawn("12", seed=1), drawn("12", seed=200)
    sections = [SeriesDataSection(train=write("train.tsv", train), test=write(f"{i}.tsv", test), normalisation="train")
                for i, test in enumerate((quiet, loud))]
    first, other = (load_splits(section, 0) for section in sections)
    np.testing.assert_array_equal(first[0].values, other[0].values)
    kept = np.asarray([row[1:] for row in train])
    kept = np.delete(kept, [0, 1, 10, 11], axis=0)  # every fifth of each class is validation
    np.testing.assert_allclose(first[0].values[:, 0], (kept - kept.mean()) / kept.std(), atol=1e-5)
    loudly = np.asarray([row[1:] for row in loud])
    np.testing.assert_allclose(other[2].values[:, 0], (loudly - kept.mean()) / kept.std(), rtol=1e-5)
    raw = load_splits(SeriesDataSection(train=sections[0].train, test=sections[0].test, normalisation="none"), 0)
    np.testing.assert_allclose(raw[0].values[:, 0], kept, rtol=1e-6)


def test_masked_values_stay_out_of_the_statistics(write):
    rows = [("1", 1, "NaN", 3), ("2", 5, 7, "NaN"), ("1", 9, 2, 4), ("2", 0, 1, 1)]
    paths = {"train": write("a.tsv", rows), "test": write("b.tsv", [("1", 1, 2, 3)]),
             "validation": write("c.tsv", [("2", 1, 5, "?")])}
    with pytest.raises(UserError, match="a.tsv, line 1, column 3: .*2 such values in 2 series.*data.missing to mask"):
        load_splits(SeriesDataSection(**paths), 0)
    train, validation, test = load_splits(SeriesDataSection(**paths, missing="mask", normalisation="train"), 0)
    seen = np.asarray([1, 3, 5, 7, 9, 2, 4, 0, 1, 1])
    np.testing.assert_allclose(train.values[0, 0], [(1 - seen.mean()) / seen.std(), 0, (3 - seen.mean()) / seen.std()],
                               rtol=1e-6)
    assert validation.observed.tolist() == [[[True, True, False]]] and test.observed is None


def test_splits_of_other_lengths_are_padded_to_one(write):
    notes = []
    parts = load_splits(SeriesDataSection(train=write("a.tsv", drawn("1122", 12)),
                                          test=write("b.tsv", drawn("12", 15, seed=1))), 0, notes.append)
    assert {part.values.shape[2] for part in parts} == {15}
    assert parts[0].lengths.tolist() == [12, 12] and parts[2].lengths.tolist() == [15, 15]
    assert any("train 12, validation 12, test 15 values" in line for line in notes)


def test_what_is_odd_is_told(write):
    train = [*drawn("1122"), ("1", *[3.3] * 20), drawn("1")[0]]
    notes = []
    load_splits(SeriesDataSection(train=write("a.tsv", train), test=write("b.tsv", drawn("11")),
                                  validation=write("c.tsv", drawn("12", seed=1))), 0, notes.append)
    assert any("train: 1 of 6 series are constant; normalised by themselves they are zeros" in line for line in notes)
    assert any("train: 1 of 6 series repeat an earlier one" in line for line in notes)
    assert any("test: 2 of 2 series are in train, too" in line for line in notes)
    assert any("test: has no example of 1 classes: 2" in line for line in notes)
    notes.clear()
    load_splits(SeriesDataSection(train=write("a.tsv", drawn("112")), test=write("b.tsv", drawn("1", seed=1)),
                                  validation=write("c.tsv", drawn("1", seed=2))), 0, notes.append)
    assert any("train: 1 classes have a single example: 2" in line for line in notes)


def test_what_cannot_be_is_refused(write, tmp_path):
    train = write("a.tsv", drawn("1122"))

    def refused(message, seed=0, **section):
        with pytest.raises(UserError, match=message):
            load_splits(SeriesDataSection(**section), seed)

    refused("b.tsv, line 2, column 1: label '3' does not occur in the training data, which has 1, 2", train=train,
            test=write("b.tsv", drawn("13")))
    refused("give both data.train and data.test", train=train)
    refused("give both data.train and data.test", validation=train)
    refused("data.generator is noisy-sines, and data.train is .*a.tsv. Leave one", train=train, test=train,
            generator="noisy-sines")
    refused("e.tsv: all 3 series have the label '1', so there is nothing to learn", train=write("e.tsv", drawn("111")),
            test=train)
    refused("f.tsv: no class has two series.*Give data.validation", train=write("f.tsv", drawn("123")), test=train)
    refused("data.sampling_rate is -5", sampling_rate=-5)
    refused("data.train_per_class is 0", train_per_class=0)
    table = tmp_path / "long.csv"
    table.write_text("id,t,x,y,label\n" + "".join(f"{i},{t},{i + t},{i * t},{1 + i % 2}\n" for i in range(4)
                                                   for t in range(5)))
    refused("a.tsv: series of 1 channels, but .*long.csv has 2. Give files with the same channels", train=str(table),
            test=train, series_column="id", time_column="t")


def test_patches_must_fit():
    observed = np.arange(30) < np.asarray([7, 30, 30, 12])[:, None, None]
    values = np.where(observed, 1, 0).astype(np.float32)
    part = SeriesDataset(values, np.asarray([0, 1, 0, 1]), ("a", "b"), observed)
    notes = []
    check_patches((part, part.select([1, 2]), part.select([0])), 8, 4, 20, notes.append)
    assert len(notes) == 2 and notes[1].startswith("test: 1 of 1")
    assert "train: 1 of 4 series are shorter than one patch of 8 values, the shortest has 7" in notes[0]
    assert "set patch_length to 7 or less" in notes[0]
    with pytest.raises(UserError, match="all 12 series are shorter than one patch of 31 values; the longest has 30. "
                                        "Set patch_length to 30 or less"):
        check_patches((part, part, part), 31, 16, 20)
    with pytest.raises(UserError, match="30 values make 14 patches of 4, but the model has 8 positions. Set "
                                        "patch_length to 7 or more"):
        check_patches((part, part, part), 4, 2, 8)
    check_patches((part, part, part), 7, 4, 8)


def test_hold_out_keeps_what_was_observed():
    observed = np.arange(10)[None, None] < np.arange(1, 11)[:, None, None]
    data = SeriesDataset(observed.astype(np.float32), np.arange(10) % 2, ("a", "b"), observed, 2.0)
    kept, held = hold_out(data)
    assert held.labels.tolist() == [0, 1] and held.lengths.tolist() == [1, 2] and len(kept) == 8
    assert kept.sampling_rate == held.sampling_rate == 2
