"""Arms × seeds → numbers with intervals and a verdict.

    gain = paired_difference(pretrained, scratch)   # one value per seed, the same seeds in the same order
    print(table([{"arm": "scratch", "accuracy": mean_interval(scratch)},
                 {"arm": "pretrained", "accuracy": mean_interval(pretrained)}]))
    print(verdict(gain))                            # pretraining +4.1 ± 0.9 points: real

Intervals over seeds say how far another set of seeds would move the mean: not how far another test set would
(`proportion_interval`), and not what the best of several arms is worth.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval, in the units of the values. Prints as `81.3 ± 0.9`."""

    mean: float
    ci95: float
    """Half the width; nan for one value, which says nothing about the spread."""
    n: int
    sd: float
    """Sample standard deviation (n - 1); nan for one value."""

    def as_dict(self) -> dict[str, float | int | None]:
        """Ready for JSON: nan becomes None."""
        fields = dataclasses.asdict(self)
        return {name: None if math.isnan(value) else value for name, value in fields.items()}

    def __str__(self) -> str:
        if math.isnan(self.ci95):
            return f"{self.mean:.4g} (n={self.n})"
        digits = _decimals(self)
        return f"{self.mean:.{digits}f} ± {self.ci95:.{digits}f}"


def mean_interval(values: Sequence[float]) -> Interval:
    """(n,) results of n seeds → their mean with Student's t interval.

    Student (1908), *The probable error of a mean*. With one value `ci95` and `sd` are nan. `ValueError` for
    no values, or values that are not finite.
    """
    values = _vector("values", values)
    n = len(values)
    if n == 1:
        return Interval(float(values[0]), math.nan, 1, math.nan)
    sd = float(np.std(values, ddof=1))
    return Interval(float(np.mean(values)), float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n), n, sd)


def proportion_interval(successes: int, n: int) -> tuple[float, float, float]:
    """95 % interval of a share, such as accuracy on n test examples: (low, high, half the width), in [0, 1].

    Wilson (1927), *Probable inference, the law of succession, and statistical inference*. Unlike p ± 1.96·sd
    it holds for few examples and for shares near 0 and 1; it is not centred on successes / n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"Given {successes} successes of {n}; expected 0 <= successes <= n and n >= 1. "
                         "Pass counts, not shares, and check that the test set is not empty.")
    z = float(stats.norm.ppf(0.975))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half  # exact at both ends, where rounding would leave 1e-17
    high = 1.0 if successes == n else centre + half
    return low, high, half


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Interval:
    """(n,) and (n,) results of the same seeds in the same order → mean of values - reference, t interval.

    Pairing takes out what a seed does to both arms alike (split, order), so fewer seeds suffice. For a loss,
    where less is better, swap the arguments, so that positive still means better. `ValueError` when
    the lengths differ.
    """
    values, reference = _vector("values", values), _vector("reference", reference)
    if len(values) != len(reference):
        raise ValueError(f"Given {len(values)} values and {len(reference)} reference values; expected one of "
                         "each per seed. Run both arms on the same seeds, or compare the seeds they share.")
    differences = values - reference
    # Rounding of the subtraction must not become a tiny, perfectly reproducible "effect".
    differences[np.abs(differences) <= 1e-12 * np.maximum(np.abs(values), np.abs(reference))] = 0.0
    return mean_interval(differences)


def mcnemar(right: Sequence[bool], reference_right: Sequence[bool]) -> float:
    """Two models' right and wrong answers on the same examples → p-value of the exact test that neither is better.

    McNemar (1947), exact by the binomial distribution: only examples that one of the two answers right count.
    1.0 when there are none.
    """
    right, reference_right = _answers(right, reference_right)
    gained, lost = int((right & ~reference_right).sum()), int((~right & reference_right).sum())
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def paired_bootstrap(values: Sequence[float], reference: Sequence[float], draws: int = 10_000, seed: int = 0
                     ) -> tuple[float, float, float]:
    """(n,) and (n,) scores of the same test examples → mean of values - reference, and its 95 % interval (low, high).

    Efron & Tibshirani (1993), chapter 13, percentiles: how far another test set of this size would move the
    difference. (`paired_difference` says how far other seeds would.)
    """
    values, reference = _vector("values", values), _vector("reference", reference)
    if len(values) != len(reference):
        raise ValueError(f"Given {len(values)} values and {len(reference)} reference values; expected one of each per "
                         "test example. Compare answers to the same test set.")
    difference = values - reference
    # Only how often each distinct difference is drawn matters, and that is multinomial: no n × draws indices.
    levels, counts = np.unique(difference, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(difference), counts / len(difference), size=draws)
    low, high = np.percentile(drawn @ levels / len(difference), [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)


FEWEST = 3
"""Values that an interval takes: that of two is known so badly that it says nothing."""


def verdict(difference: Interval, what: str = "pretraining", unit: str = "points", of: str = "seed") -> str:
    """One sentence: does `what` help? `difference` is in `unit`, positive when `what` is better.

    "real" and "hurts" mean that zero lies outside the 95 % interval. Of fewer than three values there is no verdict.
    of: what there is a value of.
    """
    if difference.n < FEWEST:
        several = f"one {of}" if difference.n == 1 else f"{difference.n} {of}s"
        return f"{what} {difference.mean:+.4g} {unit} on {several}: no verdict, run more {of}s"
    return f"{what} {signed(difference)} {unit}: {judgement(difference)}"


def judgement(difference: Interval) -> str:
    """The last words of a verdict, on a difference of so many values that there is one."""
    if not _excludes_zero(difference):
        return "not distinguishable from zero"
    return "real" if difference.mean > 0 else "hurts"


def signed(difference: Interval) -> str:
    """`+4.1 ± 0.9`; so many decimals that rounding does not contradict the judgement."""
    digits = _decimals(difference)
    return f"{difference.mean:+.{digits}f} ± {difference.ci95:.{digits}f}"


def _vector(name: str, values: Sequence[float]) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or len(vector) == 0 or not np.isfinite(vector).all():
        raise ValueError(f"Given {name} {vector.tolist()}; expected a flat list of finite numbers, one per "
                         "seed. Leave out runs that failed, and say that they did.")
    return vector


def _answers(right: Sequence[bool], reference: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    right, reference = np.asarray(right), np.asarray(reference)
    if right.shape != reference.shape or right.ndim != 1 or not (right.dtype == reference.dtype == bool):
        raise ValueError(f"Given answers of shapes {right.shape} and {reference.shape}; expected two flat lists of "
                         "True and False, of the same test examples.")
    return right, reference


def _excludes_zero(interval: Interval) -> bool:
    return abs(interval.mean) > interval.ci95


def _decimals(interval: Interval) -> int:
    """One significant digit of the half width; more where rounding would hide whether zero is excluded."""
    # Seeds that agree to the last bit have a half width near 1e-17, which must not ask for 17 digits.
    scale = max(interval.ci95, 1e-3 * abs(interval.mean)) or 1.0
    digits = max(1, -math.floor(math.log10(scale)))
    while digits < 12:
        if (abs(round(interval.mean, digits)) > round(interval.ci95, digits)) == _excludes_zero(interval):
            break
        digits += 1
    return digits


