"""Models on many data sets: mean ranks, and between which of them a difference is shown.

Demšar (2006), *Statistical comparisons of classifiers over multiple data sets*, with the pairs tested as in Benavoli,
Corani & Mangili (2016), *Should we really use post-hoc tests based on mean-ranks?*: Wilcoxon's signed-rank test of each
pair on its own, Holm's correction over all pairs.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import stats


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """(sets, models) scores, more is better → (models,) mean ranks from 1, the best; ties share theirs."""
    return stats.rankdata(-np.asarray(scores, float), axis=1).mean(0)


def pairwise_p_values(scores: np.ndarray) -> np.ndarray:
    """(sets, models) → (models, models), symmetric: Wilcoxon's p, two-sided, corrected by Holm over all pairs.

    Where two models agree on every set it is 1.
    """
    scores = np.asarray(scores, float)
    pairs = list(combinations(range(scores.shape[1]), 2))
    alone = []
    for one, other in pairs:
        same = np.array_equal(scores[:, one], scores[:, other])
        alone.append(1.0 if same else float(stats.wilcoxon(scores[:, one], scores[:, other]).pvalue))
    found = np.eye(scores.shape[1])
    for (one, other), p in zip(pairs, holm(alone), strict=True):
        found[one, other] = found[other, one] = p
    return found


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm (1979): p-values that may be held against one level although they are several."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(np.arange(len(p_values), 0, -1) * p_values[order]), 1)
    return corrected


def cliques(ranks: Sequence[float], p_values: np.ndarray, level: float = 0.05) -> list[list[int]]:
    """Largest groups of models next to each other by rank of which no pair is told apart; each from its best on."""
    order = [int(model) for model in np.argsort(ranks, kind="stable")]
    found: list[list[int]] = []
    for first in range(len(order)):
        group = [order[first]]
        for model in order[first + 1:]:
            if any(p_values[model, other] <= level for other in group):
                break
            group.append(model)
        if len(group) > 1 and not (found and set(group) <= set(found[-1])):
            found.append(group)
    return found


def smallest_p_value(sets: int, models: int) -> float:
    """What the test can reach at most: all sets in favour of one of two models, corrected for the number of pairs."""
    return min(1.0, 2 * 0.5**sets * models * (models - 1) / 2)
