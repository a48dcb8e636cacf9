"""Scores and probabilities: areas, Brier score, log loss, calibration."""

import itertools
import math

import numpy as np
import pytest
import sklearn.metrics as reference

from toolkit import metrics

AREAS = {"roc_auc": reference.roc_auc_score, "pr_auc": reference.average_precision_score}
PROBABILITIES = ["brier_score", "log_loss", "expected_calibration_error"]


def area(name, scores, references, **options):
    return metrics.load(name).compute(prediction_scores=scores, references=references, **options)[name]


def compute(name, predictions, references, **options):
    return metrics.load(name).compute(predictions=predictions, references=references, **options)[name]


def close(value):
    return pytest.approx(value, rel=1e-12)


@pytest.fixture(params=range(5))
def rng(request):
    return np.random.default_rng(request.param)


def wins(scores, positive):
    """ROC-AUC as it is defined: pairs."""
    pairs = list(itertools.product(scores[positive], scores[~positive]))
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


def steps(scores, positive):
    """Average precision as it is defined: at every threshold, the gain in recall times the precision."""
    total, found = 0.0, 0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        above = scores >= threshold
        hits = int((above & positive).sum())
        total += (hits - found) / positive.sum() * hits / above.sum()
        found = hits
    return total


# --- areas ------------------------------------------------------------------------------------------------


def test_areas_by_hand():
    # In descending order + - + -, or with the middle two tied.
    assert area("roc_auc", [4, 3, 2, 1], [1, 0, 1, 0]) == 0.75
    assert area("pr_auc", [4, 3, 2, 1], [1, 0, 1, 0]) == close((1 + 2 / 3) / 2)
    assert area("roc_auc", [4, 2, 2, 1], [1, 0, 1, 0]) == 0.875
    assert area("roc_auc", [7, 7, 7, 7], [1, 0, 1, 0]) == 0.5
    assert area("pr_auc", [7, 7, 7, 7], [1, 0, 0, 0]) == 0.25  # one threshold: the share of positives
    # The hub's own examples.
    assert area("roc_auc", [0.5, 0.2, 0.99, 0.3, 0.1, 0.7], [1, 0, 1, 1, 0, 0]) == close(7 / 9)
    rows = [[0.3, 0.5, 0.2], [0.7, 0.2, 0.1], [0.005, 0.99, 0.005], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.1, 0.7, 0.2]]
    assert round(area("roc_auc", rows, [1, 0, 1, 2, 2, 0], multi_class="ovr"), 2) == 0.85
    many = [[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1]]
    assert [round(value, 2) for value in area("roc_auc", rows, many, average=None)] == [0.83, 0.38, 0.94]


@pytest.mark.parametrize("decimals", [0, 1, 15])
@pytest.mark.parametrize(("name", "definition"), [("roc_auc", wins), ("pr_auc", steps)])
def test_binary_areas(rng, name, definition, decimals):
    truth = rng.random(80) < 0.3
    scores = np.round(rng.normal(truth, 1), decimals)
    assert area(name, scores, truth) == close(definition(scores, truth)) == close(AREAS[name](truth, scores))
    assert area(name, -scores, truth, pos_label=0) == close(AREAS[name](~truth, -scores))
    shuffled = rng.permutation(80)
    assert area(name, scores[shuffled], truth[shuffled]) == area(name, scores, truth)


@pytest.mark.parametrize("average", ["macro", "weighted", "micro", None])
@pytest.mark.parametrize("name", AREAS)
def test_areas_of_classes(rng, name, average):
    truth = rng.choice(4, size=90, p=[0.5, 0.3, 0.1, 0.1])
    rows = np.round(rng.dirichlet([1, 1, 1, 1], size=90), 1)
    rows[:, 3] = 1 - rows[:, :3].sum(axis=1)
    options = {"average": average} | ({"multi_class": "ovr"} if name == "roc_auc" else {})
    assert area(name, rows, truth, average=average) == close(AREAS[name](truth, rows, **options))
    assert area(name, rows[:, ::-1], truth + 5, average=average, labels=[8, 7, 6, 5]) == close(
        AREAS[name](truth, rows, **options)[::-1] if average is None else AREAS[name](truth, rows, **options))


@pytest.mark.parametrize("average", ["macro", "weighted", "micro", None])
@pytest.mark.parametrize("name", AREAS)
def test_areas_of_several_labels(rng, name, average):
    truth = (rng.random((70, 3)) < [0.5, 0.1, 0.8]).astype(int)
    scores = np.round(rng.normal(truth, 2), 1)
    assert area(name, scores, truth, average=average) == close(AREAS[name](truth, scores, average=average))


def test_undefined_areas():
    assert area("roc_auc", [0.2, 0.7], [1, 1]) is None
    assert area("roc_auc", [0.2, 0.7], [0, 0]) is None
    assert area("roc_auc", [0.2, 0.7], [1, 0]) == 0.0
    assert area("pr_auc", [0.2, 0.7], [0, 0]) is None
    assert area("pr_auc", [0.2, 0.7], [1, 1]) == 1.0  # every threshold has precision 1
    scores, truth = [[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]], [1, 0]
    assert area("roc_auc", scores, truth, average=None) == [1.0, 1.0, None]  # class 2 does not occur
    assert area("roc_auc", scores, truth) == area("pr_auc", scores, truth, average="weighted") == 1.0
    assert area("roc_auc", [[0.2, 0.7]], [[1, 1]]) is None


def test_scores_in_any_units_and_class_ids_of_any_size():
    scores = np.array([-1e300, 5.0, np.nextafter(5.0, 6), 1e300])
    assert area("roc_auc", scores, [-7, 70_000, -7, 70_000], pos_label=70_000) == 0.75
    rows = [[0.2, 0.8], [0.7, 0.3]]
    assert area("roc_auc", rows, [300, 2], labels=[2, 300], average=None) == [1.0, 1.0]


@pytest.mark.parametrize(("scores", "references", "options", "message"), [
    ([0.1, 0.2, 0.3], [0, 1, 2], {}, r"3 classes.*\(n, classes\)"),
    ([0.1, 0.2], [0, 2], {}, r"classes \[0, 2\] and pos_label=1"),
    ([[0.1, 0.8], [0.5, 0.5]], [0, 1], {}, "sum to 0.9 in row 0"),
    ([[0.2, 0.8], [0.5, 0.5]], [0, 2], {}, "class 2 and columns for.*labels"),
    ([[0.2, 0.8], [0.5, 0.5]], [0, 1], {"labels": [0, 1, 2]}, "2 columns"),
    ([[0.2, 0.8], [0.5, 0.5]], [0, 1], {"labels": [1, 1]}, "different class id"),
    ([[0.2, 0.8], [0.5, 0.5]], [0, 1], {"multi_class": "ovo"}, "'ovr'"),
    ([[0.2, 0.8], [0.5, 0.5]], [0, 1], {"average": "samples"}, "'samples'.*'micro'"),
    ([[0.2, 0.8], [0.5, 0.5]], [[0, 1], [1, 3]], {}, "3 in row 1; expected 0 or 1"),
    ([[0.2, 0.8], [0.5, 0.5]], [0, 1, 1], {}, r"\(2, 2\), references \(3,\)"),
    ([0.2, 0.8], [[0, 1]], {}, r"\(2,\), references \(1, 2\)"),
    ([0.2, math.nan], [0, 1], {}, "first in row 1"),
    ([0.2, 0.8], [0, 1], {"max_fpr": 0.1}, "max_fpr"),
])
def test_bad_scores(scores, references, options, message):
    with pytest.raises(ValueError, match=message):
        area("roc_auc", scores, references, **options)


# --- probabilities ----------------------------------------------------------------------------------------


def test_probabilities_by_hand():
    assert compute("brier_score", [0.1, 0.9, 0.8, 0.3], [0, 0, 1, 1]) == close(0.3375)  # the hub's own example
    assert compute("brier_score", [[0.8, 0.1, 0.1], [0.2, 0.2, 0.6]], [0, 1]) == close((0.06 + 1.04) / 2)
    assert compute("log_loss", [0.5, 0.25], [1, 0]) == close((math.log(2) + math.log(4 / 3)) / 2)
    assert compute("log_loss", [[0.5, 0.25, 0.25]] * 2, [0, 2]) == close(1.5 * math.log(2))
    assert str(compute("log_loss", [1.0, 0.0], [1, 0])) == "0.0"
    assert compute("log_loss", [0.0], [1]) == close(52 * math.log(2))  # 36 nats and not infinitely many


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_brier_score_and_log_loss_as_in_scikit_learn(rng, classes):
    rows = rng.dirichlet(np.full(classes, 0.3), size=60)
    truth = rng.integers(0, classes - (classes == 7), 60)  # of seven classes the last does not occur
    everything = {"labels": np.arange(classes)}
    assert compute("brier_score", rows, truth) == close(reference.brier_score_loss(truth, rows, **everything))
    assert compute("log_loss", rows, truth) == close(reference.log_loss(truth, rows, **everything))
    if classes == 2:
        assert compute("brier_score", rows[:, 1], truth) == close(reference.brier_score_loss(truth, rows[:, 1]))
        assert compute("log_loss", rows[:, 1], truth) == close(reference.log_loss(truth, rows[:, 1]))


def test_one_class_only():
    assert compute("brier_score", [0.9, 0.6], [1, 1]) == close((0.01 + 0.16) / 2)
    assert compute("log_loss", [[0.9, 0.1], [0.6, 0.4]], [0, 0]) == close(-(math.log(0.9) + math.log(0.6)) / 2)
    assert compute("expected_calibration_error", [0.9, 0.6], [1, 1]) == close((0.1 + 0.4) / 2)


def calibration(probabilities, outcomes, bins):
    """Guo et al. (2017), equations 2 and 3, word for word."""
    error = 0.0
    for m in range(1, bins + 1):
        members = [i for i, p in enumerate(probabilities) if (m - 1) / bins < p <= m / bins or (m == 1 and p == 0)]
        if members:
            accuracy = sum(outcomes[i] for i in members) / len(members)
            confidence = sum(probabilities[i] for i in members) / len(members)
            error += len(members) / len(probabilities) * abs(accuracy - confidence)
    return error


@pytest.mark.parametrize("bins", [1, 2, 10, 15, 100])
def test_calibration_as_defined(rng, bins):
    probabilities = np.round(rng.random(200), 1)  # on the edges of ten bins, 0 and 1 included
    truth = (rng.random(200) < probabilities**2).astype(int)
    assert compute("expected_calibration_error", probabilities, truth, bins=bins) == close(
        calibration(probabilities, truth, bins))
    rows = rng.dirichlet([1, 1, 1], size=200)
    truth = rng.integers(0, 3, 200)
    assert compute("expected_calibration_error", rows, truth, bins=bins) == close(
        calibration(rows.max(axis=1), rows.argmax(axis=1) == truth, bins))


def test_calibration_by_hand():
    assert compute("expected_calibration_error", [0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1], bins=2) == 0.25
    assert compute("expected_calibration_error", [0.75] * 4, [1, 1, 1, 0]) == 0.0
    assert compute("expected_calibration_error", [0.5, 0.75], [1, 0], bins=2) == (0.5 + 0.75) / 2  # not in one bin
    assert compute("expected_calibration_error", [0.5] * 4 + [1.0], [1, 1, 0, 0, 0]) == close(0.2)
    # As class 1 they happen as often as said; as the top class they are wrong as often as not.
    assert compute("expected_calibration_error", [0.4] * 5, [1, 1, 0, 0, 0]) == close(0.0)
    assert compute("expected_calibration_error", [[0.6, 0.4]] * 4, [1, 1, 1, 0]) == close(0.35)


def test_bins_are_known_before_the_first_batch():
    probabilities, truth = [0.1, 0.3, 0.3, 0.9], [0, 1, 1, 0]
    default, two = (calibration(probabilities, truth, bins) for bins in (15, 2))
    assert abs(default - two) > 0.01
    metric = metrics.load("expected_calibration_error", bins=2)
    metric.add_batch(predictions=probabilities, references=truth)
    with pytest.raises(ValueError, match="bins=3 after.*2 bins.*Load it with bins=3"):
        metric.compute(bins=3)
    assert metric.compute(bins=2) == metric.compute(predictions=probabilities, references=truth) == {
        "expected_calibration_error": close(two)}
    metric.add_batch(predictions=probabilities, references=truth)
    other = metrics.load("expected_calibration_error")
    other.add_batch(predictions=probabilities, references=truth)
    with pytest.raises(ValueError, match="bins = 2 and with bins = 15"):
        metric.merge([other.state()])
    assert other.compute(bins=15) == {"expected_calibration_error": close(default)}
    with pytest.raises(ValueError, match="bins=0"):
        metrics.load("expected_calibration_error", bins=0)


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize(("predictions", "references", "message"), [
    ([0.2, 0.3, 1.5], [0, 1, 1], "1.5 in row 2; expected probabilities"),
    ([0.2, -0.1, 1.5], [0, 1, 1], "-0.1 in row 1"),
    ([[0.2, 0.8], [0.4, 0.5]], [0, 1], "sum to 0.9 in row 1"),
    ([[0.2, 0.8], [-0.5, 1.5]], [0, 1], "-0.5 in row 1"),
    ([[0.2, 0.8], [0.4, math.nan]], [0, 1], "1 of 4 values NaN.*row 1"),
    ([0.2, 0.3], [0, 2], "class 2 in row 1 of references; expected 0 to 1"),
    ([0.2, 0.3], [-1, 1], "class -1 in row 0"),
    ([[0.2, 0.8], [0.5, 0.5]], [2, 0], "class 2 in row 0 of references; expected 0 to 1"),
    ([[0.2, 0.8], [0.5, 0.5]], [[0, 1], [1, 0]], "class ids"),
    ([0.2, 0.3], [0.0, 1.0], "expected integers"),
])
def test_bad_probabilities(name, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        compute(name, predictions, references)


def test_rows_sum_to_1_within_float32():
    logits = np.random.default_rng(0).normal(0, 5, size=(100, 50)).astype(np.float32)
    rows = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert rows.dtype == np.float32 and np.any(rows.sum(axis=1, dtype=np.float64) != 1)
    truth = np.arange(100) % 50
    assert compute("log_loss", rows, truth) == pytest.approx(-np.log(rows[np.arange(100), truth]).mean(), rel=1e-6)
    with pytest.raises(ValueError, match="float32"):
        compute("log_loss", rows.astype(np.float64) * (1 + 2e-4), truth)
