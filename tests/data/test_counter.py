"""Random numbers by (key, index): bijective, uniform, independent, and the same for ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from toolkit.data import counter


def splitmix64(state: int) -> int:
    """Steele, Lea & Flood (2014) in Python's own integers."""
    mask = 2**64 - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    return state ^ (state >> 31)


@given(st.integers(0, 2**64 - 1))
def test_mix_is_splitmix64(value):
    assert int(counter.mix(np.asarray([value], np.uint64))[0]) == splitmix64(value)


def test_mix_gives_the_published_sequence():
    """The first outputs of SplitMix64 from seed 1234567, as in the reference implementation's test vectors."""
    golden = 0x9E3779B97F4A7C15
    states = np.asarray([(1234567 + golden * i) % 2**64 for i in (1, 2, 3)], np.uint64)
    assert counter.mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(size, stream):
    assert np.array_equal(np.sort(counter.permute(np.uint64(stream), np.arange(size), size)), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 255, 256, 257, 4096, 4097, 65_537])
def test_permute_is_a_bijection_about_powers_of_two(size):
    assert np.array_equal(np.sort(counter.permute(counter.key(7), np.arange(size), size)), np.arange(size))


def test_permute_needs_no_table_and_does_not_depend_on_what_is_asked_with_it():
    size = 10**12
    index = np.asarray([0, 1, 999_999_999_999, 123_456_789_012])
    together = counter.permute(counter.key(1), index, size)
    assert ((0 <= together) & (together < size)).all()
    assert len(set(together.tolist())) == 4
    assert [counter.permute(counter.key(1), np.asarray([i]), size)[0] for i in index] == together.tolist()


@pytest.mark.parametrize("size", [5, 12, 40])
def test_permute_shuffles_small_sets_too(size):
    """Over many keys every example comes to every place equally often, and neighbours are parted as by chance."""
    trials = 2500
    shuffles = np.stack([counter.permute(counter.key(3, trial), np.arange(size), size) for trial in range(trials)])
    counts = np.stack([np.bincount(place, minlength=size) for place in shuffles.T])
    square, freedom = np.square(counts - trials / size).sum() / (trials / size), (size - 1) ** 2
    assert (square - freedom) / np.sqrt(2 * freedom) < 4.5
    neighbours = (np.diff(shuffles, axis=1) == 1).sum(1)  # size − 1 pairs, each followed on 1 / size of the time
    assert abs(neighbours.mean() - (size - 1) / size) < 4.5 / np.sqrt(trials)


def test_uniform_is_uniform():
    draws = counter.uniform(counter.key(0, 1), np.arange(50_000), 4)
    assert 0 <= draws.min()
    assert draws.max() < 1
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    across = counter.uniform(counter.key(0, 1), np.arange(4), 50_000)
    assert all(stats.kstest(row, "uniform").pvalue > 1e-4 for row in across)


def test_every_bit_is_fair():
    drawn = counter.bits(counter.key(5), np.arange(20_000), 2).ravel()
    ones = np.asarray([((drawn >> np.uint64(bit)) & np.uint64(1)).sum() for bit in range(64)])
    assert (np.abs(ones - len(drawn) / 2) < 4.5 * np.sqrt(len(drawn)) / 2).all()


def test_every_bit_of_the_short_draws_is_fair_and_rows_and_columns_are_independent():
    drawn = counter.bits32(counter.key(5), np.arange(20_000), 3)
    for column in (drawn[:, 0], drawn[0:2000].ravel()):
        ones = np.asarray([((column >> np.uint32(bit)) & np.uint32(1)).sum() for bit in range(32)])
        assert (np.abs(ones - len(column) / 2) < 4.5 * np.sqrt(len(column)) / 2).all()
    draws = drawn * 2.0**-32
    bound = 4.5 / np.sqrt(len(draws))
    for one, other in ((draws[:, 0], draws[:, 1]), (draws[:, 1], draws[:, 2]), (draws[1:, 0], draws[:-1, 0])):
        assert abs(np.corrcoef(one, other)[0, 1]) < bound
        assert abs(np.corrcoef(one, np.sqrt(other))[0, 1]) < bound
    across = counter.bits32(counter.key(6), np.arange(4), 50_000) * 2.0**-32
    assert all(stats.kstest(row, "uniform").pvalue > 1e-4 for row in across)
    assert np.array_equal(counter.bits32(counter.key(5), np.arange(7, 9), 2), drawn[7:9, :2])


def test_streams_indices_and_columns_are_independent():
    index, bound = np.arange(40_000), 4.5 / np.sqrt(40_000)
    first, second = (counter.uniform(counter.key(0, stream), index, 3) for stream in (0, 1))
    other_seed = counter.uniform(counter.key(1, 0), index, 3)
    pairs = {"streams": (first[:, 0], second[:, 0]), "seeds": (first[:, 0], other_seed[:, 0]),
             "columns": (first[:, 0], first[:, 1]), "rows": (first[1:, 0], first[:-1, 0]),
             "shifted columns": (first[1:, 0], first[:-1, 1])}
    correlations = {name: abs(np.corrcoef(a, b)[0, 1]) for name, (a, b) in pairs.items()}
    assert max(correlations.values()) < bound, correlations
    keys = {int(counter.key(*parts)) for parts in [(0,), (1,), (0, 0), (0, 1), (1, 0), (-1,), (0, -1), (2**63,)]}
    assert len(keys) == 8


def test_a_draw_depends_on_its_index_alone():
    stream = counter.key(11)
    assert np.array_equal(counter.bits(stream, np.arange(100), 5)[40:60], counter.bits(stream, np.arange(40, 60), 5))
    assert np.array_equal(counter.bits(stream, np.arange(10), 9)[:, :5], counter.bits(stream, np.arange(10), 5))


def test_draws_never_change():
    """Frozen values: another generator would silently change every data order there ever was."""
    assert int(counter.key(0, 1)) == 3069472533636442495
    assert counter.bits(counter.key(0, 1), np.asarray([0, 10**12]), 2).tolist() == [
        [17550942333368682090, 12074169886457468132],
        [4450453321375589735, 5498058227065906212],
    ]
    assert counter.bits32(counter.key(0, 1), np.asarray([0, 10**12]), 2).tolist() == [
        [1148795683, 907441805], [2368889306, 186975164]]
    assert counter.permute(counter.key(0, 1), np.arange(8), 8).tolist() == [4, 7, 2, 0, 5, 6, 3, 1]


def test_epoch_order_visits_everything_once_an_epoch_in_a_fresh_order():
    epochs, position = counter.epoch_order(3, np.arange(300), 100)
    assert np.array_equal(epochs, np.repeat([0, 1, 2], 100))
    for epoch in range(3):
        assert np.array_equal(np.sort(position[epochs == epoch]), np.arange(100))
    assert not np.array_equal(position[:100], position[100:200])
    assert not np.array_equal(position[:100], counter.epoch_order(4, np.arange(100), 100)[1])
    shuffled = np.random.default_rng(0).permutation(300)
    assert np.array_equal(counter.epoch_order(3, shuffled, 100)[1], position[shuffled])
