"""Generated series against their equations, and against the archive's own files."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from toolkit.data.series.dataset import z_normalise
from toolkit.data.series.generators import (
    LABELLED,
    _events,
    cylinder_bell_funnel,
    fibonacci,
    mackey_glass,
    noisy_sines,
    synthetic_control,
)
from toolkit.data.series.readers import read_series

ARCHIVE = Path(__file__).parents[2] / "../shared/data/ucr"
real_data = [pytest.mark.real_data, pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive's files are not here")]


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_sets_are_a_function_of_their_seed(name):
    first, again, other = (LABELLED[name](3, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)
    assert np.bincount(first.labels).tolist() == [3] * len(first.label_names)


# ---- Cylinder-Bell-Funnel


def test_cylinder_bell_funnel_follows_its_equations():
    data = cylinder_bell_funnel(4_000, seed=1)
    assert data.values.shape == (12_000, 1, 128) and data.label_names == ("cylinder", "bell", "funnel")
    assert np.bincount(data.labels).tolist() == [4_000] * 3
    t = np.arange(1, 129)
    # The expectation at each t over all (a, b), by enumeration; amplitudes average 6.
    expected = np.zeros((3, 128))
    for a in range(16, 32):
        for length in range(32, 96):
            inside = (a <= t) & (t <= a + length)
            rising = (t - a) / length
            expected += 6 / (16 * 64) * inside * np.stack([np.ones(128), rising, 1 - rising])
    for label in range(3):
        series = data.values[data.labels == label, 0]
        np.testing.assert_allclose(series.mean(0), expected[label], atol=0.25)  # 5 standard errors
        np.testing.assert_allclose(series[:, :15].std(), 1, atol=0.02)  # before any a: noise alone
        np.testing.assert_allclose(series[:, 127:].std(), 1, atol=0.06)  # after every b
    plateau = data.values[data.labels == 0, 0, 31:48].mean(1)  # 31 ≤ t − 1 < 48 lies inside every [a, b]
    np.testing.assert_allclose(plateau.std(), np.sqrt(1 + 1 / 17), atol=0.05)  # η, and the mean of 17 ε


# ---- Synthetic Control


def test_synthetic_control_follows_its_equations():
    data = synthetic_control(2_000, seed=1)
    assert data.values.shape == (12_000, 1, 60)
    normal, cyclic, increasing, decreasing, upward, downward = (
        data.values[data.labels == label, 0].astype(float) - 30 for label in range(6))
    assert np.abs(normal).max() <= 6 and normal.std() == pytest.approx(6 / math.sqrt(3), rel=0.01)  # uniform on ± 6
    t = np.arange(60)
    # The mean over a and T; E a = 12.5. And 5 standard errors of noise and amplitude.
    period = np.linspace(10, 15, 2_001)[:, None]
    np.testing.assert_allclose(cyclic.mean(0), 12.5 * np.sin(2 * np.pi * t / period).mean(0), atol=1.2)
    for sign, series in ((1, increasing), (-1, decreasing)):
        slope = sign * np.polyfit(t, series.T, 1)[0]
        assert slope.mean() == pytest.approx(0.35, abs=0.01) and 0.1 < slope.min() < slope.max() < 0.6
        noise = 12 / (60 * (60 ** 2 - 1)) * 12  # the variance of a fitted slope, with noise of variance 12
        assert slope.std() == pytest.approx(math.sqrt(0.3 ** 2 / 12 + noise), rel=0.1)
    for sign, series in ((1, upward), (-1, downward)):
        size = sign * (series[:, 40:].mean(1) - series[:, :20].mean(1))  # after every start, before any
        assert size.mean() == pytest.approx(13.75, abs=0.5) and 4 < size.min() < size.max() < 24
        share = sign * series.mean(0)[20:40] / size.mean()
        np.testing.assert_allclose(share, np.arange(1, 21) / 20, atol=0.06)  # starts are uniform on 20 … 39


# ---- the archive


def _archive(name):
    train = read_series(ARCHIVE / f"{name}/{name}_TRAIN.tsv")
    return train, read_series(ARCHIVE / f"{name}/{name}_TEST.tsv", train.label_names)


def _misfit(ours, theirs):
    """Squared differences of the means at each time, in units of their sampling variance: 1 for one distribution."""
    variance = ours.var(0) / len(ours) + theirs.var(0) / len(theirs)
    return np.mean(np.square(ours.mean(0) - theirs.mean(0)) / variance)


class TestArchive:
    pytestmark = real_data

    def test_cylinder_bell_funnel_agrees_with_the_archive(self):
        train, test = _archive("CBF")
        assert train.values.shape == (30, 1, 128) and test.values.shape == (900, 1, 128)
        np.testing.assert_allclose(z_normalise(test.values), test.values, atol=2e-6)
        assert train.label_names == test.label_names == ("1", "2", "3")
        random, labels = np.random.default_rng(0), np.arange(9_000) % 3
        start = random.integers(16, 32, len(labels))
        misfit = {}
        for ends, end in (("archive", random.integers(65, 129, len(labels))),
                          ("published", start + random.integers(32, 96, len(labels)))):
            ours = z_normalise(_events(labels, start, end, random))
            for label in range(3):
                a, b = ours[labels == label, 0], test.values[test.labels == label, 0]
                misfit[ends, label] = _misfit(a, b)
                if ends == "archive":
                    np.testing.assert_allclose(a.var(0).mean(), b.var(0).mean(), rtol=0.06)
        # The archive draws the end without regard to the start. With that, nothing else differs; and that it
        # shows so clearly says that this comparison would find another mistake.
        assert max(misfit["archive", label] for label in range(3)) < 1.6, misfit
        assert min(misfit["published", label] for label in range(3)) > 4, misfit

    def test_synthetic_control_agrees_with_the_archive(self):
        train, test = _archive("SyntheticControl")
        assert train.label_names == ("1", "2", "3", "4", "5", "6") and len(train) == len(test) == 300
        theirs, labels = np.concatenate([train.values, test.values])[:, 0], np.concatenate([train.labels, test.labels])
        np.testing.assert_allclose(z_normalise(theirs), theirs, atol=2e-6)
        ours = synthetic_control(3_000, seed=0)
        values = z_normalise(ours.values)[:, 0]
        for label in range(6):
            a, b = values[ours.labels == label], theirs[labels == label]
            assert _misfit(a, b) < 1.6, label
            np.testing.assert_allclose(a.var(0).mean(), b.var(0).mean(), rtol=0.06)
            # How uneven noise is within a series, and how rough: what the class means do not show.
            for statistic in (lambda x: (x ** 4).mean(1), lambda x: np.square(np.diff(x)).mean(1)):
                error = statistic(b).std() / math.sqrt(len(b))
                assert abs(statistic(a).mean() - statistic(b).mean()) < 3.5 * error, label
        # Sines begin at 0 in the first value: a step later would show.
        later = z_normalise(np.roll(ours.values[ours.labels == 1], 1, axis=-1))[:, 0]
        assert _misfit(later[:, 1:], theirs[labels == 1][:, 1:]) > 5

    @pytest.mark.parametrize("classifier", [LogisticRegression(max_iter=1000), KNeighborsClassifier(1)])
    def test_training_on_generated_series_serves_the_archive(self, classifier):
        train, test = _archive("CBF")

        def accuracy(values, labels):
            return classifier.fit(values[:, 0], labels).score(test.values[:, 0], test.labels)

        draws = [cylinder_bell_funnel(10, seed) for seed in range(10)]
        ours = np.mean([accuracy(z_normalise(draw.values), draw.labels) for draw in draws])
        assert ours == pytest.approx(accuracy(train.values, train.labels), abs=0.05)  # 30 series each


# ---- noisy sines


def _spectra(data, length=16):
    """Power by frequency of patches side by side, (n, patches, length // 2 + 1)."""
    patches = data.values[:, 0].reshape(len(data), -1, length)
    return np.log1p(np.square(np.abs(np.fft.rfft(patches))))


def test_noisy_sines_need_frequency_and_order():
    train, test = noisy_sines(250, seed=0), noisy_sines(250, seed=1)

    def accuracy(features):
        return LogisticRegression(max_iter=3000).fit(features(train), train.labels).score(features(test), test.labels)

    assert accuracy(lambda data: data.values[:, 0]) < 0.32, "the values themselves: chance is 0.25"
    assert accuracy(lambda data: np.stack([data.values.mean((1, 2)), data.values.std((1, 2)),
                                           np.abs(data.values).max((1, 2))], 1)) < 0.32
    bag = accuracy(lambda data: np.concatenate([_spectra(data).mean(1), _spectra(data).std(1)], 1))
    assert 0.44 < bag < 0.56, "which frequencies, not which comes first"
    # When each frequency sounds, on average: frequency and order.
    time = np.arange(16)[:, None]
    assert accuracy(lambda data: np.concatenate([
        _spectra(data).mean(1), (time * _spectra(data)).mean(1) / _spectra(data).mean(1)], 1)) > 0.97


# ---- Mackey-Glass, Fibonacci


def test_mackey_glass_solves_its_equation():
    x = mackey_glass(400)
    assert x.shape == (400,) and x[0] == 1.2
    # Up to τ the delayed value is the constant before 0, so the equation is linear and has a closed solution.
    t, gain = np.arange(18), 0.2 * 1.2 / (1 + 1.2 ** 10)
    np.testing.assert_allclose(x[:18], gain / 0.1 + (1.2 - gain / 0.1) * np.exp(-0.1 * t), atol=1e-8)
    # Fourth order: half the step, a sixteenth of the error, over several delays.
    fine = mackey_glass(100, steps=160)
    coarse, half = (np.abs(mackey_glass(100, steps=steps) - fine).max() for steps in (10, 20))
    assert half < 1e-8 and 10 < coarse / half < 25
    assert abs(mackey_glass(500, tau=1.7)[-1] - 1) < 1e-9, "with so short a delay it comes to rest at 1"
    np.testing.assert_array_equal(mackey_glass(50, start=1.0), 1.0)
    with pytest.raises(ValueError, match="multiple of the step 1/10, not 0.25"):
        mackey_glass(10, tau=0.25)


def test_mackey_glass_is_chaotic_at_17_and_bounded():
    x, moved = mackey_glass(3_000), mackey_glass(3_000, start=1.2 + 1e-6)
    assert 0.2 < x[200:].min() < 0.5 and 1.2 < x[200:].max() < 1.4
    assert np.abs(x - moved)[:100].max() < 1e-4 and np.abs(x - moved)[2_000:].max() > 0.1


def test_fibonacci_as_logs_and_ratios():
    golden = (1 + math.sqrt(5)) / 2
    logs, ratios = fibonacci(2_000), fibonacci(2_000, "ratio")
    assert logs.shape == ratios.shape == (2_000,) and np.isfinite(logs).all() and np.isfinite(ratios).all()
    np.testing.assert_allclose(np.exp(logs[:20]), [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597,
                                                   2584, 4181, 6765], rtol=1e-14)
    assert ratios[:5].tolist() == [1, 2, 1.5, 5 / 3, 1.6] and ratios[-1] == golden
    np.testing.assert_allclose(logs[-1], 2_000 * math.log(golden) - math.log(5) / 2, rtol=1e-15)  # Binet
    numbers = [1, 1]
    for _ in range(100):
        numbers.append(numbers[-1] + numbers[-2])
    assert ratios[90] == float(Fraction(numbers[91], numbers[90]))
    assert numbers[78] > 2 ** 53 >= numbers[77], "integers that float64 cannot hold begin at n = 79"
