"""Pictures of many models on many sets."""

import numpy as np
import pytest
from pictures import outside, overlapping, words

from toolkit.metrics.intervals import paired_difference, signed
from toolkit.report.comparison_run import ahead_panel, many_sets_figures
from toolkit.report.figures.canvas import PRETRAINED
from toolkit.report.figures.many_sets import critical_difference_figure, differences_figure, pairs_figure


def scores_of(models: int = 17, sets: int = 12) -> dict[str, dict[str, float]]:
    """Most are near 95, two far behind."""
    generator = np.random.default_rng(0)
    hard = generator.uniform(0.8, 0.99, sets)
    behind = {models - 1: 0.5, models - 2: 0.12}
    return {f"model number {number}": {f"Set{place}": float(np.clip(value - behind.get(number, 0) + generator.normal(
        0, 0.01), 0, 1)) for place, value in enumerate(hard)} for number in range(models)}


def test_texts_of_every_picture_stand_apart():
    scores = scores_of()
    names = list(scores)
    for figure in (critical_difference_figure(scores), differences_figure(scores, names[:2], "How far?"),
                   pairs_figure(scores, [(names[number + 1], names[number]) for number in range(4)])):
        assert not overlapping(figure) and not outside(figure)


def test_differences_are_sorted_from_the_best_baseline_with_intervals_over_sets():
    scores = scores_of(5)
    names = list(scores)
    figure = differences_figure(scores, names[1:3], "How far?")
    best = max(names[1:3], key=lambda name: np.mean(list(scores[name].values())))
    gains = {name: paired_difference(*(100 * np.asarray(list(scores[one].values())) for one in (name, best)))
             for name in names if name != best}
    (axes,) = figure.axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == sorted(gains, key=lambda name: -gains[name].mean)
    assert all(any(signed(gain).replace("-", "\u2212") in text for text in words(figure)) for gain in gains.values())
    assert any(f"best baseline, {best}" in text for text in words(figure))


def test_a_model_that_is_far_behind_squashes_no_other():
    (axes,) = differences_figure(scores_of(), ["model number 0"], "How far?").axes
    low, high = axes.get_xlim()
    assert low > -8 and high < 8
    arrows = [line for line in axes.lines if line.get_marker() == "<" and line.get_color() == PRETRAINED]
    assert len(arrows) == 2


def test_ranks_are_those_of_the_scores_and_bars_join_what_is_not_told_apart():
    figure = critical_difference_figure({"a": dict(zip("123456789", np.linspace(0.7, 0.9, 9), strict=True)),
                                         "b": dict(zip("123456789", np.linspace(0.6, 0.8, 9), strict=True)),
                                         "c": dict(zip("123456789", np.linspace(0.601, 0.799, 9), strict=True))})
    (axes,) = figure.axes
    bars = [line for line in axes.lines if line.get_linewidth() > 3]
    assert len(bars) == 1 and bars[0].get_xdata()[0] == pytest.approx(2.5, abs=0.5)
    assert "a  1.00" in words(figure)


def test_so_few_sets_are_told():
    figure = critical_difference_figure(scores_of(3, 4))
    assert any("4 sets cannot tell 3 models apart: p is 0.38 at best" in text for text in words(figure))


def results_of(sets: int, seeds: int = 3) -> dict:
    generator = np.random.default_rng(0)
    values = {arm: generator.uniform(0.5, 0.9, (sets, seeds)) for arm in ("text", "random", "lstm", "minirocket",
                                                                          "majority")}
    return {arm: {f"Set{place}": {"values": of_set.tolist(), "mean": of_set.mean()}
                  for place, of_set in enumerate(by_set)} for arm, by_set in values.items()}


@pytest.mark.parametrize("sets, names", [(1, {"gains", "arms"}), (2, {"gains", "arms"}),
                                         (3, {"gains", "arms", "ranks", "pairs"})])
def test_what_is_drawn_depends_on_how_many_sets_there_are(sets, names):
    figures = many_sets_figures(results_of(sets), {"text": "random", "masked": "random"}, ("minirocket", "majority"),
                                "mine")
    assert figures.keys() == names
    assert "text over random" in words(figures["gains"])
    assert any(("a dot a set" if sets > 1 else "a dot a seed") in text for text in words(figures["gains"]))


def test_the_whole_model_stands_beside_each_arm_on_the_seeds_of_both():
    panel = ahead_panel({"majority": [0.5, 0.5], "whole": [0.9, 0.8], "without": [0.7]}, "whole", ["majority"], "test")
    (row,) = panel.rows
    assert (row.name, row.random, row.pretrained) == ("without", [0.7], [0.9]) and panel.baselines == {"majority": 0.5}
