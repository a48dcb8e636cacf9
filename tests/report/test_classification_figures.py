"""Pictures of a classifier's answers."""

import numpy as np
import pytest
from pictures import outside, overlapping, words
from sklearn.metrics import average_precision_score, roc_auc_score

from toolkit.metrics.intervals import proportion_interval
from toolkit.report.figures.canvas import PRETRAINED
from toolkit.report.figures.classification import (
    calibration_figure,
    confusion_counts,
    confusion_figure,
    numbers_figure,
    ranking_figure,
)


def answers(classes: int, examples: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(classes)
    labels, probabilities = generator.integers(0, classes, examples), generator.dirichlet(np.ones(classes), examples)
    probabilities[np.arange(examples), labels] += generator.uniform(0, 1.5, examples)
    return labels, probabilities / probabilities.sum(1, keepdims=True)


def test_confusion_counts_stand_with_their_share_of_the_true_class():
    counts = confusion_counts([0, 0, 0, 1], [0, 0, 1, 1], 2)
    assert counts.tolist() == [[2, 1], [0, 1]]
    figure = confusion_figure(counts, ["no", "yes"], "test")
    assert {"2\n67 %", "1\n33 %", "1\n100 %"} <= set(words(figure)) and not overlapping(figure)


@pytest.mark.parametrize("classes", [2, 7])
def test_ranking_tells_the_areas_and_what_guessing_reaches(classes):
    labels, probabilities = answers(classes)
    names = [f"class {number}" for number in range(classes)]
    figure = ranking_figure(probabilities, labels, names, {"label": "class 1", "probability": 0.4})
    shown, positive = words(figure), labels == 1
    assert f"class 1: area {roc_auc_score(positive, probabilities[:, 1]):.3f}" in shown
    area, share = average_precision_score(positive, probabilities[:, 1]), positive.mean()
    if classes == 2:
        assert f"class 1: area {area:.3f}" in shown and f"guessing: the share of class 1, {share:.3f}" in shown
        assert any(np.allclose(line.get_ydata(), share) for line in figure.axes[1].lines)
    else:
        assert f"class 1: area {area:.3f}, guessing {share:.3f}" in shown
    assert not overlapping(figure) and not outside(figure)


def test_calibration_has_wilsons_intervals():
    labels, probabilities = answers(3)
    axes, below = calibration_figure(probabilities, labels).axes
    counts = np.asarray([bar.get_height() for bar in below.patches])
    assert counts.sum() == 300
    (intervals,) = [found for found in axes.collections if found.get_colors().size]
    (dots,) = [line for line in axes.lines if line.get_color() == PRETRAINED]
    for (low, high), share, count in zip([segment[:, 1] for segment in intervals.get_segments()], dots.get_ydata(),
                                         counts[counts > 0], strict=True):
        assert (low, high) == pytest.approx(proportion_interval(round(share * count), int(count))[:2])


def test_numbers_stand_beside_the_true_ones():
    (axes,) = numbers_figure(np.asarray([1.0, 2.0]), np.asarray([1.5, 1.5])).axes
    assert axes.lines[1].get_xydata().tolist() == [[1, 1.5], [2, 1.5]]
