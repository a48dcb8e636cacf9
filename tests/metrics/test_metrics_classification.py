"""Class predictions: tables by hand, scikit-learn, and what is undefined."""

import math

import numpy as np
import pytest
import sklearn.metrics as reference

from toolkit import metrics

RATES = {"precision": reference.precision_score, "recall": reference.recall_score, "f1": reference.f1_score,
         "fbeta": reference.fbeta_score}
# TP 3, FN 1, FP 2, TN 4: accuracy 0.7, F1 = 6 / (6 + 2 + 1) = 2/3.
TABLE_REFERENCES = [1] * 4 + [0] * 6
TABLE_PREDICTIONS = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]


def compute(name, predictions, references, **options):
    return metrics.load(name).compute(predictions=predictions, references=references, **options)[name]


def plain(values):
    """scikit-learn's nan is our None."""
    if np.ndim(values):
        return [plain(value) for value in values]
    return None if math.isnan(values) else pytest.approx(float(values), rel=1e-12)


@pytest.fixture(params=range(4))
def classes(request):
    """Predictions and references of four classes; class 5 is never predicted, 8 is never meant."""
    rng = np.random.default_rng(request.param)
    truth = rng.choice([0, 3, 5, 9], size=300, p=[0.6, 0.25, 0.1, 0.05])
    guess = np.where((rng.random(300) < 0.6) & (truth != 5), truth, rng.choice([0, 3, 8, 9], size=300))
    return guess, truth


@pytest.fixture(params=range(4))
def labels(request):
    """0/1 matrices; column 2 is never predicted, column 3 never meant, column 4 neither, column 5 always meant."""
    rng = np.random.default_rng(request.param)
    truth = (rng.random((120, 7)) < 0.4).astype(int)
    guess = np.where(rng.random(truth.shape) < 0.7, truth, 1 - truth)
    guess[:, [2, 4]], truth[:, [3, 4]], truth[:, 5] = 0, 0, 1
    return guess, truth


def specificity(truth, guess, average, labels=None, zero_division=None):
    """From scikit-learn's one table a class."""
    tables = reference.multilabel_confusion_matrix(truth, guess, labels=labels)
    tn, wrong, support = tables[:, 0, 0], tables[:, 0, 1], tables[:, 1].sum(axis=1)
    if average == "micro":
        return tn.sum() / (tn + wrong).sum()
    values = np.array([a / (a + b) if a + b else math.nan for a, b in zip(tn, wrong, strict=True)])
    known = ~np.isnan(values)
    return {None: values, "macro": values[known].mean(),
            "weighted": (values * support)[known].sum() / support[known].sum()}[average]


# --- by hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options", "expected"), [
    ("accuracy", {}, 0.7), ("accuracy", {"normalize": False}, 7), ("precision", {}, 3 / 5), ("recall", {}, 3 / 4),
    ("specificity", {}, 4 / 6), ("f1", {}, 2 / 3), ("f1", {"pos_label": 0}, 8 / 11),
    ("precision", {"pos_label": 0}, 4 / 5), ("recall", {"pos_label": 0}, 4 / 6),
    ("specificity", {"pos_label": 0}, 3 / 4),
    ("fbeta", {"beta": 2}, 5 * 3 / (5 * 3 + 4 * 1 + 2)), ("fbeta", {}, 2 / 3), ("fbeta", {"beta": 0}, 3 / 5),
    ("fbeta", {"beta": math.inf}, 3 / 4), ("balanced_accuracy", {}, (3 / 4 + 4 / 6) / 2),
    ("balanced_accuracy", {"adjusted": True}, 3 / 4 + 4 / 6 - 1),
    ("matthews_correlation", {}, (3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5)),
])
def test_the_table_by_hand(name, options, expected):
    assert compute(name, TABLE_PREDICTIONS, TABLE_REFERENCES, **options) == pytest.approx(expected)
    assert compute("confusion_matrix", TABLE_PREDICTIONS, TABLE_REFERENCES) == [[4, 2], [1, 3]]


def test_a_constant_classifier_on_an_80_20_set():
    truth, guess = [1] * 80 + [0] * 20, [1] * 100
    assert compute("accuracy", guess, truth) == 0.8
    assert compute("precision", guess, truth) == 0.8
    assert compute("recall", guess, truth) == 1.0
    assert compute("specificity", guess, truth) == 0.0
    assert compute("balanced_accuracy", guess, truth) == 0.5
    assert compute("balanced_accuracy", guess, truth, adjusted=True) == 0.0
    assert compute("matthews_correlation", guess, truth) is None  # predictions that do not vary
    assert compute("f1", guess, truth) == pytest.approx(160 / 180)
    # And the minority's side of it: everything missed is 0, nothing predicted is undefined.
    assert compute("recall", guess, truth, pos_label=0) == 0.0
    assert compute("precision", guess, truth, pos_label=0) is None
    assert compute("specificity", guess, truth, pos_label=0) == 1.0
    assert compute("f1", guess, truth, pos_label=0) == 0.0
    assert compute("precision", guess, truth, average=None) == [None, 0.8]
    assert compute("precision", guess, truth, average="macro") == 0.8
    assert compute("f1", guess, truth, average="micro") == pytest.approx(0.8)
    assert compute("f1", guess, truth, average="macro") == pytest.approx((160 / 180 + 0) / 2)
    assert compute("f1", guess, truth, average="weighted") == pytest.approx(0.8 * 160 / 180)
    assert compute("confusion_matrix", guess, truth) == [[0, 20], [0, 80]]
    assert compute("confusion_matrix", guess, truth, normalize="true") == [[0.0, 1.0], [0.0, 1.0]]
    assert compute("confusion_matrix", guess, truth, normalize="pred") == [[None, 0.2], [None, 0.8]]


def test_several_labels_by_hand():
    guess, truth = [[1, 0], [1, 1], [0, 0]], [[1, 0], [0, 1], [1, 0]]  # TP 1, FP 1, FN 1; TP 1, TN 2
    assert compute("precision", guess, truth, average=None) == [0.5, 1.0]
    assert compute("recall", guess, truth, average="micro") == pytest.approx(2 / 3)
    assert compute("specificity", guess, truth, average=None) == [0.0, 1.0]
    assert compute("f1", guess, truth, average=None, labels=[1]) == [1.0]
    assert compute("matthews_correlation", guess, truth) == [-0.5, 1.0]


# --- as in scikit-learn -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [None, [9, 0, 3], [8, 5, 0], [3]])
@pytest.mark.parametrize("average", ["micro", "macro", "weighted", None])
@pytest.mark.parametrize("name", [*RATES, "specificity"])
def test_rates_of_classes(classes, name, average, chosen):
    guess, truth = classes
    options = {"average": average, "labels": chosen} | ({"beta": 0.6} if name == "fbeta" else {})
    theirs = RATES.get(name, specificity)(truth, guess, zero_division=np.nan, **options)
    assert compute(name, guess, truth, **options) == plain(theirs)


@pytest.mark.parametrize("average", ["micro", "macro", "weighted", None])
@pytest.mark.parametrize("name", [*RATES, "specificity"])
def test_rates_of_several_labels(labels, name, average):
    guess, truth = labels
    options = {"average": average} | ({"beta": 3} if name == "fbeta" else {})
    theirs = RATES.get(name, specificity)(truth, guess, zero_division=np.nan, **options)
    assert compute(name, guess, truth, **options) == plain(theirs)
    assert compute(name, guess.astype(bool), truth.astype(bool), **options) == plain(theirs)


@pytest.mark.parametrize("pos_label", [0, 1])
@pytest.mark.parametrize("name", RATES)
def test_rates_of_the_positive_class(classes, name, pos_label):
    guess, truth = (values > 0 for values in classes)
    options = {"pos_label": pos_label} | ({"beta": 2} if name == "fbeta" else {})
    assert compute(name, guess, truth, **options) == plain(RATES[name](truth, guess, **options))


def test_accuracies_and_correlation(classes):
    guess, truth = classes
    assert compute("accuracy", guess, truth) == plain(reference.accuracy_score(truth, guess))
    assert compute("matthews_correlation", guess, truth) == plain(reference.matthews_corrcoef(truth, guess))
    for adjusted in (False, True):
        with pytest.warns(UserWarning, match="classes not in y_true"):  # class 8, which scikit-learn leaves out, too
            theirs = reference.balanced_accuracy_score(truth, guess, adjusted=adjusted)
        assert compute("balanced_accuracy", guess, truth, adjusted=adjusted) == plain(theirs)


def test_correlation_of_several_labels(labels):
    guess, truth = labels
    vary = [0, 1, 6]
    known = [reference.matthews_corrcoef(truth[:, column], guess[:, column]) for column in vary]
    by_column = compute("matthews_correlation", guess, truth)
    assert [by_column[column] for column in vary] == plain(known)
    assert [by_column[column] for column in (2, 3, 4, 5)] == [None] * 4
    averages = {"macro": np.mean(known), "weighted": np.average(known, weights=truth.sum(axis=0)[vary]),
                "micro": reference.matthews_corrcoef(truth.ravel(), guess.ravel())}
    for average, expected in averages.items():
        assert compute("matthews_correlation", guess, truth, average=average) == plain(expected)


def test_correlation_of_more_examples_than_products_fit_in_64_bits():
    expected = (3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5)
    for shape, result in (((10,), expected), ((10, 1), [expected])):
        metric = metrics.load("matthews_correlation")
        table = np.reshape([TABLE_PREDICTIONS, TABLE_REFERENCES], (2, *shape))
        metric.add_batch(predictions=table[0], references=table[1])
        for _ in range(34):  # doublings
            metric.merge([metric.state()])
        assert len(metric) == 10 * 2**34
        assert metric.compute()["matthews_correlation"] == pytest.approx(result)


@pytest.mark.parametrize("chosen", [None, [9, 0, 3]])
@pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
def test_confusion_matrix(classes, normalize, chosen):
    guess, truth = (np.where(np.isin(values, [5, 8]), 3, values) for values in classes)  # no empty row or column
    ours = compute("confusion_matrix", guess, truth, normalize=normalize, labels=chosen)
    assert ours == pytest.approx(reference.confusion_matrix(truth, guess, normalize=normalize, labels=chosen))


# --- undefined --------------------------------------------------------------------------------------------


def test_shares_of_a_class_that_does_not_occur_are_undefined():
    shares = [compute("confusion_matrix", [0, 1], [0, 0], normalize=by) for by in ("true", "pred", "all")]
    assert shares == [[[0.5, 0.5], [None, None]], [[1.0, 1.0], [0.0, 0.0]], [[0.5, 0.5], [0.0, 0.0]]]
    assert compute("confusion_matrix", [2], [2], labels=[0], normalize="all") == [[None]]


@pytest.mark.parametrize(("name", "nothing", "false_alarm", "miss", "hit"), [
    ("precision", None, 0.0, None, 1.0),
    ("recall", None, None, 0.0, 1.0),
    ("specificity", 1.0, 0.5, 1.0, None),
    ("f1", None, 0.0, 0.0, 1.0),
    ("fbeta", None, 0.0, 0.0, 1.0),
    ("balanced_accuracy", 1.0, 0.5, 0.5, 1.0),
    ("matthews_correlation", None, None, None, None),
])
def test_undefined_is_none_and_zero_is_zero(name, nothing, false_alarm, miss, hit):
    assert compute(name, [0, 0], [0, 0]) == nothing  # no positive anywhere
    assert compute(name, [1, 0], [0, 0]) == false_alarm
    assert compute(name, [0, 0], [1, 0]) == miss
    assert compute(name, [1, 1], [1, 1]) == hit  # one class only, and it is the positive one


def test_undefined_classes_are_left_out_of_averages():
    assert compute("f1", [0, 0], [0, 0], average="macro", labels=[0, 1]) == 1.0  # 1 does not count
    assert compute("f1", [0, 0], [0, 0], average=None, labels=[0, 1]) == [1.0, None]
    assert compute("f1", [0, 0], [0, 0], average="micro", labels=[1]) is None
    assert compute("f1", [0, 0], [0, 0], average="macro", labels=[1]) is None
    assert compute("f1", [1, 0], [0, 0], average="weighted", labels=[1]) is None  # no reference to weigh by
    assert compute("balanced_accuracy", [0, 0], [0, 0], adjusted=True) is None  # chance is 1, too


# --- classes and options ----------------------------------------------------------------------------------


def test_negative_ids_and_label_order():
    assert compute("confusion_matrix", [-1, 1], [1, 1], labels=[1, -1]) == [[1, 1], [0, 0]]
    assert compute("f1", [-1, 1], [-1, 1], pos_label=-1) == 1.0


def test_the_counts_of_one_metric_serve_another():
    metric = metrics.load("precision")
    metric.add_batch(predictions=TABLE_PREDICTIONS, references=TABLE_REFERENCES)
    assert metrics.load("specificity").merge([metric.state()]).compute() == {"specificity": pytest.approx(4 / 6)}


@pytest.mark.parametrize(("name", "options", "message"), [
    ("f1", {}, "3 classes.*average='macro'"),
    ("precision", {"average": "marco"}, "precision .*Did you mean 'macro'"),
    ("f1", {"average": "macro", "labels": [0, 0]}, "different class ids"),
    ("f1", {"average": "macro", "sample_weight": [1, 1, 1]}, "sample_weight"),
    ("recall", {"average": "macro", "zero_division": 0}, "zero_division"),
    ("fbeta", {"average": "macro", "beta": -1}, "beta=-1"),
    ("fbeta", {"average": "macro", "beta": math.nan}, "beta=nan"),
    ("confusion_matrix", {"normalize": "rows"}, "normalize='rows'"),
    ("confusion_matrix", {"labels": []}, "one or more"),
])
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        compute(name, [0, 1, 2], [0, 1, 1], **options)


@pytest.mark.parametrize(("predictions", "references", "options", "message"), [
    ([[1, 0]], [[1, 0]], {}, "2 columns.*average='macro'"),
    ([[1, 0]], [[1, 0]], {"average": None, "labels": [2]}, r"\[2\] for 2 columns"),
    ([[1, 0], [0, 2]], [[1, 0], [1, 1]], {"average": None}, "predictions.*2 in row 1; expected 0 or 1"),
    ([[1, 0]], [1], {"average": None}, "different shapes"),
    ([[[1]]], [[[1]]], {"average": None}, r"\(1, 1, 1\); expected \(n,\) or \(n, classes\)"),
])
def test_bad_labels(predictions, references, options, message):
    with pytest.raises(ValueError, match=message):
        compute("f1", predictions, references, **options)


def test_a_positive_class_that_does_not_occur_is_refused_when_two_others_do():
    with pytest.raises(ValueError, match="pos_label=1"):
        compute("f1", [0, 2], [2, 2])
