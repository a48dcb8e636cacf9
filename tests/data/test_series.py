"""Series data: scaling, batches, shapes."""

import numpy as np
import pytest

from toolkit.data.series.dataset import SeriesBatches, SeriesDataset, z_normalise

# ---- z-normalisation


def test_z_normalise_scales_each_series_and_channel_by_itself():
    values = np.random.default_rng(0).normal(50, 9, (5, 3, 40)) * np.arange(1, 6)[:, None, None]
    scaled = z_normalise(values)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(-1, ddof=1), 1, rtol=1e-6)
    np.testing.assert_allclose(z_normalise(scaled), scaled, atol=1e-6)
    np.testing.assert_array_equal(z_normalise(values[2:3]), scaled[2:3])


@pytest.mark.parametrize("level", [0.0, 0.1, -1e30, 1 / 3])
def test_constant_series_become_zeros(level):
    # The mean of 49 thirds is not a third: dividing by the deviation would turn rounding into a signal.
    values = np.full((2, 1, 49), level, np.float32)
    np.testing.assert_array_equal(z_normalise(values), 0)
    np.testing.assert_array_equal(z_normalise(np.full((1, 1, 1), level)), 0)


def test_z_normalise_looks_at_what_was_observed_alone():
    values = np.random.default_rng(0).normal(50, 9, (4, 2, 30)).astype(np.float32)
    observed = np.random.default_rng(1).random(values.shape) < 0.7
    observed[3, 1] = False
    scaled = z_normalise(np.where(observed, values, 0), observed)
    for series, seen, before in zip(scaled.reshape(8, 30), observed.reshape(8, 30), values.reshape(8, 30), strict=True):
        np.testing.assert_array_equal(series[~seen], 0)
        if seen.any():
            np.testing.assert_allclose(series[seen], z_normalise(before[seen]), atol=1e-6)
    np.testing.assert_array_equal(z_normalise(np.where(observed, values, 1e30), observed), scaled)
    constant = np.where(observed, np.float32(1 / 3), 0)
    np.testing.assert_array_equal(z_normalise(constant, observed), 0)


# ---- the data set


def test_lengths_and_select():
    observed = np.asarray([[[1, 1, 1, 0], [0, 1, 0, 0]], [[1, 0, 0, 0], [0, 0, 0, 1]], [[0] * 4, [0] * 4]], bool)
    data = SeriesDataset(observed.astype(np.float32), np.asarray([0, 1, 0]), ("a", "b"), observed, 125.0)
    assert data.lengths.tolist() == [3, 4, 0]
    part = data.select(np.asarray([1, 0]))
    assert part.labels.tolist() == [1, 0] and part.sampling_rate == 125 and part.lengths.tolist() == [4, 3]
    full = SeriesDataset(np.ones((2, 1, 4), np.float32), np.zeros(2, np.int64), ("a",))
    assert full.lengths.tolist() == [4, 4] and full.select(np.asarray([True, False])).values.shape == (1, 1, 4)


@pytest.mark.parametrize("masked", [False, True])
def test_batches_follow_seed_and_step(masked):
    values = np.arange(10, dtype=np.float32)[:, None, None] + np.ones((10, 2, 3), np.float32)
    observed = np.ones(values.shape, bool) if masked else None
    data = SeriesDataset(values, np.arange(10), tuple("abcdefghij"), observed)
    batches = SeriesBatches(data, 5, seed=3)
    epoch = [batches.batch(step, range(5)) for step in (0, 1)]
    assert set(epoch[0]) == {"values", "labels"} | ({"observed"} if masked else set())
    assert sorted(np.concatenate([batch["labels"] for batch in epoch])) == list(range(10))
    np.testing.assert_array_equal(epoch[1]["values"][:, 0, 0], epoch[1]["labels"] + 1)
    np.testing.assert_array_equal(batches.batch(1, range(2, 4))["labels"], epoch[1]["labels"][2:4])
    if masked:
        assert epoch[0]["observed"].shape == (5, 2, 3)


def test_datasets_check_their_shapes():
    with pytest.raises(ValueError, match="float32"):
        SeriesDataset(np.zeros((2, 1, 4)), np.zeros(2, np.int64), ("a",))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        SeriesDataset(np.zeros((2, 1, 4), np.float32), np.zeros(3, np.int64), ("a",))
    with pytest.raises(ValueError, match="1 label names"):
        SeriesDataset(np.zeros((2, 1, 4), np.float32), np.ones(2, np.int64), ("a",))
    ones, labels = np.ones((2, 1, 4), np.float32), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="3 of 8 values are not finite"):
        SeriesDataset(np.where(np.arange(8).reshape(2, 1, 4) < 3, np.float32("nan"), ones), labels, ("a",))
    with pytest.raises(ValueError, match=r"observed must be bool \(2, 1, 4\)"):
        SeriesDataset(ones, labels, ("a",), ones)
    with pytest.raises(ValueError, match="not observed must be 0"):
        SeriesDataset(ones, labels, ("a",), np.zeros((2, 1, 4), bool))
    with pytest.raises(ValueError, match="positive number of Hz, not 0"):
        SeriesDataset(ones, labels, ("a",), sampling_rate=0)
