"""MiniRocket and 1-NN DTW, and with them: generated series serve as well as the archive's own."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.baselines.classical import dtw_1nn, minirocket
from toolkit.data.series.dataset import SeriesDataset, z_normalise
from toolkit.data.series.generators import cylinder_bell_funnel, synthetic_control
from toolkit.data.series.readers import read_series
from toolkit.errors import UserError

ARCHIVE = Path(__file__).parents[2] / "../shared/data/ucr"


def normalised(data):
    return SeriesDataset(z_normalise(data.values, data.observed), data.labels, data.label_names, data.observed)


def unequal(n, seed):
    """Two channels, 8 to 12 values, of which some are missing."""
    random = np.random.default_rng(seed)
    observed = (np.arange(12) < random.integers(8, 13, (n, 1, 1))) & (random.random((n, 2, 12)) < 0.9)
    values = np.where(observed, random.normal(size=(n, 2, 12)), 0).astype(np.float32)
    return SeriesDataset(values, random.integers(0, 2, n), ("a", "b"), observed)


def warped(a, b):
    """The squared cost of the best path through two series, (channels, length): the recursion as it is published."""
    cost = np.full((a.shape[1] + 1, b.shape[1] + 1), np.inf)
    cost[0, 0] = 0
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            cost[i + 1, j + 1] = np.square(a[:, i] - b[:, j]).sum() + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    return cost[-1, -1]


def test_dtw_is_the_published_recursion_on_what_was_observed():
    train, test = unequal(12, seed=0), unequal(8, seed=1)

    def seen(data, i):
        return data.values[i][:, data.observed[i].any(0)].astype(float)

    nearest = [min(range(12), key=lambda j: warped(seen(test, i), seen(train, j))) for i in range(8)]  # noqa: B023
    assert dtw_1nn(train, test, 0).tolist() == train.labels[nearest].tolist()


@pytest.fixture
def uncompiled(monkeypatch):
    """aeon as plain Python: where numba has kept nothing it compiles for half a minute, which a few series do not pay
    back. Afterwards it is imported anew.
    """
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "aeon"}
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "aeon"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_minirocket_learns_follows_its_seed_and_leaves_numpys_alone(uncompiled):
    minirocket_learns(5, 10, stride=4)


@pytest.mark.slow
def test_minirocket_compiled_learns_as_well():
    minirocket_learns(15, 40)


def minirocket_learns(train_per_class: int, test_per_class: int, stride: int = 1) -> None:
    """stride: of so many values of a series one is kept."""
    train, test = (normalised(cylinder_bell_funnel(count, seed=seed))
                   for seed, count in enumerate((train_per_class, test_per_class)))
    train, test = (SeriesDataset(part.values[:, :, ::stride], part.labels, part.label_names) for part in (train, test))
    np.random.seed(5)
    before, threads = np.random.get_state()[1].copy(), torch.get_num_threads()
    first, again = minirocket(train, test, 0), minirocket(train, test, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(first, again)
    assert (first == test.labels).mean() > (0.95 if stride == 1 else 0.8)
    short = np.random.default_rng(0).normal(size=(6, 1, 4)).astype(np.float32)
    tiny = SeriesDataset(short, np.arange(6) % 2, ("a", "b"))
    assert set(minirocket(tiny, tiny, 0)) <= {0, 1}


def test_without_aeon_it_is_said_what_to_install(monkeypatch):
    data = unequal(4, 0)
    for module, baseline, name in (("aeon.classification.convolution_based", minirocket, "MiniRocket"),
                                   ("aeon.distances", dtw_1nn, "1-NN DTW")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UserError, match=rf"{name} needs the package aeon.*pretraining-toolkit\[series\]"):
            baseline(data, data, 0)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive's files are not here")
@pytest.mark.parametrize(("name", "generate", "per_class"), [("CBF", cylinder_bell_funnel, 10),
                                                              ("SyntheticControl", synthetic_control, 50)])
def test_generated_series_serve_as_well_as_the_archives(name, generate, per_class):
    """MiniRocket on the archive's test file, trained on the archive's training file or on as many series of ours."""
    train = read_series(ARCHIVE / f"{name}/{name}_TRAIN.tsv")
    test = read_series(ARCHIVE / f"{name}/{name}_TEST.tsv", train.label_names)
    draws = [normalised(generate(per_class, seed)) for seed in range(4)]
    assert len(draws[0]) == len(train)
    theirs = np.mean([(minirocket(train, test, seed) == test.labels).mean() for seed in range(2)])
    ours = np.mean([(minirocket(draw, test, seed) == test.labels).mean() for seed, draw in enumerate(draws)])
    assert ours == pytest.approx(theirs, abs=0.01)
