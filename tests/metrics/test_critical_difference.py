"""Ranks and cliques over many sets, held against aeon's and against what follows by hand."""

import numpy as np
import pytest

from toolkit.metrics.critical_difference import cliques, holm, mean_ranks, pairwise_p_values, smallest_p_value

aeon_stats = pytest.importorskip("aeon.benchmarking.stats")


def scores_of(seed: int, sets: int = 30, models: int = 6) -> np.ndarray:
    """Sets differ more than models do; models 0 and 1, and 3 and 4, hardly differ."""
    generator = np.random.default_rng(seed)
    ahead = np.asarray([0.0, 0.002, 0.03, 0.06, 0.061, 0.1])[:models]
    return generator.uniform(0.5, 0.9, (sets, 1)) + ahead + generator.normal(0, 0.02, (sets, models))


def test_holm_is_holms():
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])


@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_aeons_before_correction(seed):
    scores = scores_of(seed, models=2)
    one_sided = [aeon_stats.wilcoxon_test(scores[:, order], ["a", "b"])[0, 1] for order in ([0, 1], [1, 0])]
    assert pairwise_p_values(scores)[0, 1] == pytest.approx(2 * min(one_sided), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_cliques_are_aeons(seed):
    from aeon.visualisation.results._critical_difference import _build_cliques
    scores = scores_of(seed)
    ranks, p_values = mean_ranks(scores), pairwise_p_values(scores)
    order = np.argsort(ranks, kind="stable")
    theirs = _build_cliques((p_values[np.ix_(order, order)] > 0.05).astype(int) * np.triu(np.ones((6, 6), int)))
    assert [sorted(found) for found in cliques(ranks, p_values)] == [
        sorted(order[row.astype(bool)].tolist()) for row in theirs]


def test_what_never_differs_is_one_clique_and_what_always_does_is_none():
    same = np.repeat(np.linspace(0.5, 0.9, 12)[:, None], 3, axis=1)
    assert cliques(mean_ranks(same), pairwise_p_values(same)) == [[0, 1, 2]]
    apart = same + [0.0, 0.1, 0.2]
    assert mean_ranks(apart).tolist() == [3, 2, 1] and cliques(mean_ranks(apart), pairwise_p_values(apart)) == []


def test_so_few_sets_can_tell_nothing_apart():
    apart = np.linspace(0.5, 0.7, 5)[:, None] + [0.0, 0.1, 0.2]
    assert pairwise_p_values(apart).min() == pytest.approx(smallest_p_value(5, 3)) and smallest_p_value(5, 3) > 0.05
    assert cliques(mean_ranks(apart), pairwise_p_values(apart)) == [[2, 1, 0]]
