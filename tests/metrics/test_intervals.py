"""Intervals against published numbers and scipy; verdicts and tables by eye."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from toolkit.metrics.intervals import Interval, mean_interval, paired_difference, proportion_interval, verdict
from toolkit.metrics.tabulate import on_screen, table

# Hours of extra sleep of ten patients under two drugs: Student (1908), R's `sleep`.
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_students_own_data():
    gain = paired_difference(DRUG_2, DRUG_1)  # R: t.test(paired = TRUE) gives 1.58, (0.7001142, 2.4598858)
    assert gain.mean == pytest.approx(1.58)
    assert (gain.mean - gain.ci95, gain.mean + gain.ci95) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert gain.n == 10
    assert gain.sd == pytest.approx(1.2300, abs=1e-4)


def test_three_seeds_by_the_table_of_t():
    interval = mean_interval([80.0, 82.0, 84.0])  # t(0.975, 2) = 4.303, not the normal's 1.96
    assert (interval.mean, interval.sd, interval.n) == (82.0, 2.0, 3)
    assert interval.ci95 == pytest.approx(4.303 * 2 / math.sqrt(3), rel=1e-4)


def test_as_in_scipy():
    values = np.random.default_rng(0).normal(3, 2, size=7)
    interval = mean_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.mean - interval.ci95, interval.mean + interval.ci95) == pytest.approx((low, high))


def test_the_interval_covers_the_truth_19_times_in_20():
    draws = np.random.default_rng(1).normal(1.0, 3.0, size=(2000, 4))
    covered = [abs(interval.mean - 1.0) <= interval.ci95 for interval in map(mean_interval, draws)]
    assert 0.935 < np.mean(covered) < 0.965


def test_pairing_takes_out_what_the_seeds_share():
    reference = np.array([60.0, 70.0, 80.0])
    gain = paired_difference(reference + np.array([1.0, 1.1, 0.9]), reference)
    assert gain.ci95 < 0.3 < mean_interval(reference).ci95


def test_one_seed_has_a_mean_and_no_interval():
    interval = mean_interval([81.5])
    assert (interval.mean, interval.n) == (81.5, 1)
    assert math.isnan(interval.ci95)
    assert math.isnan(interval.sd)
    assert interval.as_dict() == {"mean": 81.5, "ci95": None, "n": 1, "sd": None}
    json.dumps(interval.as_dict(), allow_nan=False)
    assert verdict(interval) == "pretraining +81.5 points on one seed: no verdict, run more seeds"
    assert mean_interval([1, 2, 3]).as_dict()["sd"] == 1.0


def test_two_values_get_no_verdict_however_far_from_zero():
    told = verdict(mean_interval([81.5, 81.6]), of="set")
    assert told == "pretraining +81.55 points on 2 sets: no verdict, run more sets"
    assert verdict(mean_interval([81.5, 81.6, 81.5])).endswith(": real")


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]], 3.0])
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match="finite numbers, one per seed"):
        mean_interval(values)


def test_unpaired_seeds_are_refused():
    with pytest.raises(ValueError, match="Given 3 values and 2 reference"):
        paired_difference([1, 2, 3], [1, 2])


# Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
@pytest.mark.parametrize(("successes", "n", "low", "high"), [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
])
def test_wilson_as_published(successes, n, low, high):
    interval = proportion_interval(successes, n)
    assert interval == pytest.approx((low, high, (high - low) / 2), abs=6e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (1, 1), (480, 500), (3, 10)])
def test_wilson_as_in_scipy(successes, n):
    low, high, half = proportion_interval(successes, n)
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert half == pytest.approx((high - low) / 2)
    assert 0 <= low <= high <= 1
    if successes == 0:
        assert low == 0
    if successes == n:
        assert high == 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="Pass counts"):
        proportion_interval(successes, n)


@pytest.mark.parametrize(("mean", "ci95", "expected"), [
    (4.1, 0.9, "pretraining +4.1 ± 0.9 points: real"),
    (0.4, 0.9, "pretraining +0.4 ± 0.9 points: not distinguishable from zero"),
    (-0.4, 0.9, "pretraining -0.4 ± 0.9 points: not distinguishable from zero"),
    (-2.0, 0.5, "pretraining -2.0 ± 0.5 points: hurts"),
    (0.9, 0.9, "pretraining +0.9 ± 0.9 points: not distinguishable from zero"),
    (0.94, 0.92, "pretraining +0.94 ± 0.92 points: real"),  # one digit would print 0.9 ± 0.9
    (0.0, 0.0, "pretraining +0.0 ± 0.0 points: not distinguishable from zero"),
    (0.1, 1e-17, "pretraining +0.1000 ± 0.0000 points: real"),
])
def test_verdicts(mean, ci95, expected):
    assert verdict(Interval(mean, ci95, 5, 1.0)) == expected


def test_a_verdict_names_what_and_in_which_unit():
    text = verdict(Interval(0.031, 0.004, 3, 0.002), what="a warm start", unit="bits per byte")
    assert text == "a warm start +0.031 ± 0.004 bits per byte: real"


def test_rounding_of_equal_arms_is_not_an_effect():
    totals = [0.1 + 0.2, 0.7 + 0.1, 0.3 + 0.6]
    assert totals != [0.3, 0.8, 0.9]
    assert paired_difference(totals, [0.3, 0.8, 0.9]) == Interval(0.0, 0.0, 3, 0.0)
    constant = paired_difference([0.3] * 3, [0.3] * 3)
    assert "not distinguishable" in verdict(constant)


ROWS = [{"arm": "scratch", "accuracy": Interval(77.2, 0.85, 5, 0.7), "seeds": 5},
        {"arm": "pre|trained", "accuracy": Interval(81.3, math.nan, 1, math.nan), "loss": 0.123456}]


def test_a_table_for_the_terminal():
    assert table(ROWS).splitlines() == [
        "arm            accuracy  seeds    loss",
        "-----------  ----------  -----  ------",
        "scratch      77.2 ± 0.8      5       –",
        "pre|trained  81.3 (n=1)      –  0.1235",
    ]


def test_a_table_in_markdown():
    assert table(ROWS, ["accuracy", "arm"], markdown=True).splitlines() == [
        "|   accuracy | arm          |",
        "| ---------: | ------------ |",
        "| 77.2 ± 0.8 | scratch      |",
        "| 81.3 (n=1) | pre\\|trained |",
    ]


def test_cells_that_are_not_numbers():
    lines = table([{"a": None, "b": math.nan, "c": np.float32(0.1), "d": "text"}]).splitlines()
    assert lines[-1].split() == ["–", "–", "0.1", "text"]
    assert table([], ["arm"]).splitlines() == ["arm", "---"]


def test_columns_that_no_row_has_are_refused():
    with pytest.raises(ValueError, match=r"Remove \['acuracy'\]"):
        table(ROWS, ["arm", "acuracy"])
    with pytest.raises(ValueError, match="at least one column"):
        table([])


def test_comparing_does_not_import_torch():
    code = "import sys, toolkit; before = 'torch' in sys.modules; import toolkit.metrics.intervals; " \
           "sys.exit('torch' in sys.modules and not before)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_on_a_screen_columns_without_room_stand_below():
    rows = [{"arm": f"arm {number} of a name that is long", **{f"set {place}": f"{number}{place}" * 3
                                                              for place in range(9)}} for number in range(2)]
    lines = on_screen(rows, width=50).splitlines()
    assert max(map(len, lines)) <= 50
    heads = [line.split() for line in lines if " set " in line]
    assert len(heads) > 1 and [word for head in heads for word in head if word.isdigit()] == list("012345678")
    assert all(line.startswith(("arm", "---")) for line in lines if line), "each begins with the names"
    assert on_screen(rows, width=200) == on_screen(rows) == table(rows), "with room, and in a file: one table"
