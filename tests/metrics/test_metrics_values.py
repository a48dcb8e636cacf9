"""Language modelling and forecasting: by hand, scikit-learn, the hub's own examples."""

import math

import numpy as np
import pytest
import sklearn.metrics as reference

from toolkit import metrics
from toolkit.metrics import seasonal_naive_error


def compute(name, predictions, references, **options):
    return metrics.load(name).compute(predictions=predictions, references=references, **options)[name]


# --- language modelling -----------------------------------------------------------------------------------


def test_masked_accuracy_scores_labels_other_than_minus_100():
    metric = metrics.load("masked_accuracy")
    metric.add_batch(predictions=[[5, 6, 7], [8, -100, 9]], references=[[5, -100, 1], [8, -100, -100]])
    metric.add_batch(predictions=[[4]], references=[[4]])
    assert metric.compute() == {"masked_accuracy": 0.75, "count": 4}
    nothing = metric.compute(predictions=[3, 4], references=[-100, -100])
    assert nothing == {"masked_accuracy": None, "count": 0}


def test_perplexity_and_bits_per_byte_by_hand():
    # Uniform over 8: 3 bits a token. Two tokens of one byte each, then six of two bytes: 24 bits in 14 bytes.
    both = [metrics.load("perplexity"), metrics.load("bits_per_byte")]
    for tokens, size in [(2, 2), (6, 12)]:
        both[0].add_batch(negative_log_likelihood=tokens * math.log(8), tokens=tokens)
        both[1].add_batch(negative_log_likelihood=tokens * math.log(8), bytes=size)
    assert both[0].compute() == {"perplexity": pytest.approx(8)}
    assert both[1].compute() == {"bits_per_byte": pytest.approx(24 / 14)}


def test_perplexity_weighs_batches_by_their_tokens():
    metric = metrics.load("perplexity")
    metric.add_batch(negative_log_likelihood=[1.0, 9.0], tokens=[1, 3])
    assert metric.compute()["perplexity"] == pytest.approx(math.exp(10 / 4))
    assert metric.compute(negative_log_likelihood=0.0, tokens=0) == {"perplexity": None}


@pytest.mark.parametrize(("nats", "tokens", "message"), [
    (-5.0, 2, "not log p"), (5.0, -2, "tokens=-2"), (math.nan, 2, "diverged"), (5000.0, 2, "nats per token"),
    (5.0, 2.5, "expected integers"), (5.0, None, "no tokens"), ([1.0, 2.0], [3], "different shapes"),
])
def test_bad_sums(nats, tokens, message):
    with pytest.raises(ValueError, match=message):
        metrics.load("perplexity").compute(negative_log_likelihood=nats, tokens=tokens)


# --- forecasting ------------------------------------------------------------------------------------------


def test_errors_of_forecasts_over_all_elements():
    assert compute("mse", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [3.0, 7.0]]) == pytest.approx((4 + 9) / 4)
    assert compute("mae", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [3.0, 7.0]]) == pytest.approx((2 + 3) / 4)
    assert compute("mse", [1.0, 5.0], [1.0, 2.0], squared=False) == pytest.approx(math.sqrt(9 / 2))
    assert compute("msle", [0.0, math.e - 1], [0.0, math.e**3 - 1]) == pytest.approx((1 - 3) ** 2 / 2)
    rng = np.random.default_rng(1)
    guess, truth = rng.gamma(2, 3, size=(2, 5, 12, 3))
    flat = truth.ravel(), guess.ravel()
    assert compute("mse", guess, truth) == pytest.approx(reference.mean_squared_error(*flat))
    assert compute("mse", guess, truth, squared=False) == pytest.approx(reference.root_mean_squared_error(*flat))
    assert compute("mae", guess, truth) == pytest.approx(reference.mean_absolute_error(*flat))
    assert compute("msle", guess, truth) == pytest.approx(reference.mean_squared_log_error(*flat))


def test_smape():
    assert compute("smape", [2.5, 0.0, 2, 8], [3, -0.5, 2, 7]) == pytest.approx(0.5787878787878785)  # the hub's example
    assert compute("smape", [0.0, 3.0], [0.0, -3.0]) == 1.0  # no error, and the greatest there is: 2
    rng = np.random.default_rng(1)
    guess, truth = rng.normal(size=(2, 40))
    terms = [2 * abs(g - t) / (abs(g) + abs(t)) for g, t in zip(guess, truth, strict=True)]
    assert compute("smape", guess.reshape(8, 5), truth.reshape(8, 5)) == pytest.approx(sum(terms) / 40)


def test_seasonal_naive_error():
    assert seasonal_naive_error([5, 0.5, 4, 6, 3, 5, 2]) == pytest.approx((4.5 + 3.5 + 2 + 3 + 2 + 3) / 6)
    assert seasonal_naive_error([1, 2, 4, 3, 9], season=2) == pytest.approx((3 + 1 + 5) / 3)
    assert seasonal_naive_error([[1, 2, 4], [3, 3, 3]]).tolist() == [1.5, 0.0]
    for series, season in (([1.0, 2.0], 2), ([1.0, 2.0], 0), ([1.0, 2.0, 3.0], 1.5), (3.0, 1)):
        with pytest.raises(ValueError, match="more values than that"):
            seasonal_naive_error(series, season)
    with pytest.raises(ValueError, match="NaN"):
        seasonal_naive_error([1.0, math.nan, 2.0])


def test_mase_of_one_series():
    guess, truth, training = [2.5, 0.0, 2, 8, 1.25], [3, -0.5, 2, 7, 2], [5, 0.5, 4, 6, 3, 5, 2]
    hub = pytest.approx(0.18333333333333335)  # the hub's own example
    assert compute("mase", guess, truth, training=training) == hub
    assert compute("mase", guess, truth, scale=[seasonal_naive_error(training)]) == hub
    assert compute("mase", guess, truth, scale=seasonal_naive_error(training)) == hub
    by_season = pytest.approx(0.55 / np.mean([1, 5.5, 1, 1, 1]))
    assert compute("mase", guess, truth, training=training, season=2) == by_season
    assert compute("mase", guess, truth, training=training, periodicity=2) == by_season
    metric = metrics.load("mase")
    metric.add_batch(predictions=guess, references=truth)
    with pytest.raises(ValueError, match="no scale"):
        metric.compute()
    assert metric.compute(scale=3.0)["mase"] == hub
    assert compute("mase", guess, truth, training=[4, 4, 4]) is None  # nothing to compare with


def test_mase_of_many_series_averages_each_in_its_own_units():
    rng = np.random.default_rng(0)
    guess, truth = rng.normal(size=(2, 3, 4, 2)) * [[[1]], [[100]], [[10]]]
    scale = np.array([1.0, 100.0, 0.0])
    alone = [np.abs(guess[series] - truth[series]).mean() / scale[series] for series in (0, 1)]
    assert compute("mase", guess, truth, scale=scale) == pytest.approx(np.mean(alone))  # the constant one is left out
    each = np.abs(rng.normal(size=guess.shape)) + 1
    assert compute("mase", guess, truth, scale=each) == pytest.approx(np.mean(np.abs(guess - truth) / each))
    assert compute("mase", guess, truth, scale=each[:, :1]) == pytest.approx(
        np.mean(np.abs(guess - truth) / each[:, :1]))
    assert compute("mase", guess, truth, scale=np.zeros(3)) is None


@pytest.mark.parametrize(("given", "options", "message"), [
    ([{"scale": [1.0, 2.0]}, {}], {}, "4 of 8 elements without scale"),
    ([{"scale": [1.0, 2.0]}], {"training": [1, 2]}, "more than one scale"),
    ([{}], {"training": [1, 2], "scale": 1.0}, "more than one scale"),
    ([{}], {"scale": [1.0, 2.0]}, "one number"),
    ([{}], {"scale": -1.0}, "scale=-1"),
    ([{"scale": [1.0, 2.0, 3.0]}], {}, r"\(3,\) for references of \(2, 2\)"),
    ([{"scale": np.ones((2, 2, 1))}], {}, r"\(2, 2, 1\) for references"),
    ([{"scale": [1.0, -2.0]}], {}, "scale=-2"),
    ([{"scale": [1.0, math.nan]}], {}, "scale with 1 of 2 values NaN"),
])
def test_scales_that_do_not_fit(given, options, message):
    metric = metrics.load("mase")
    with pytest.raises(ValueError, match=message):
        for extra in given:
            metric.add_batch(predictions=np.ones((2, 2)), references=np.zeros((2, 2)), **extra)
        metric.compute(**options)


def test_quantile_loss():
    assert compute("quantile_loss", [1.0, 5.0], [3.0, 2.0], quantile=0.9) == pytest.approx((0.9 * 2 + 0.1 * 3) / 2)
    rng = np.random.default_rng(0)
    guess, truth = rng.normal(size=(2, 6, 5))
    assert compute("quantile_loss", guess, truth) == pytest.approx(compute("mae", guess, truth) / 2)
    quantiles = [0.1, 0.5, 0.95]
    several = rng.normal(size=(6, 5, 3))
    theirs = [reference.mean_pinball_loss(truth.ravel(), several[..., place].ravel(), alpha=quantile)
              for place, quantile in enumerate(quantiles)]
    ours = compute("quantile_loss", several, truth, quantile=quantiles, multioutput="raw_values")
    assert ours == pytest.approx(theirs)
    assert compute("quantile_loss", several, truth, quantile=quantiles) == pytest.approx(np.mean(theirs))


@pytest.mark.parametrize(("predictions", "options", "message"), [
    (np.zeros((4, 2)), {"quantile": 1.0}, "between 0 and 1"),
    (np.zeros((4, 2)), {"quantile": [0.1, 0.9]}, "expected 1 between"),
    (np.zeros((4, 2, 3)), {"quantile": [0.1, 0.9]}, "expected 3 between"),
    (np.zeros((4, 2, 3)), {}, "expected 3 between"),
    (np.zeros((4, 2)), {"multioutput": "raw"}, "'raw_values'"),
    (np.zeros((2, 4)), {}, "different shapes"),
    (np.zeros(4), {}, "different shapes"),
])
def test_quantiles_that_do_not_fit(predictions, options, message):
    with pytest.raises(ValueError, match=message):
        compute("quantile_loss", predictions, np.zeros((4, 2)), **options)


def test_coverage_holds_both_ends():
    ends = [[1.0, 2.0, 3.0]] * 4 + [[0.0, 0.0, 0.0]]  # of the last the interval is a single number
    assert compute("coverage", ends, [1.0, 3.0, 0.999, 3.001, 0.0]) == 3 / 5
    with pytest.raises(ValueError, match="predictions .5, 3. for references .4,.; expected one more, last, axis"):
        compute("coverage", ends, [1.0] * 4)
    with pytest.raises(ValueError, match="expected one more, last, axis"):
        compute("coverage", [[1.0], [2.0]], [1.0, 2.0])
    with pytest.raises(ValueError, match="1 of 2 intervals whose first end is above their last"):
        compute("coverage", [[1.0, 2.0], [2.0, 1.0]], [1.0, 2.0])


@pytest.mark.parametrize("name", ["mse", "mae", "msle", "smape", "mase"])
def test_a_broadcastable_shape_is_not_broadcast(name):
    with pytest.raises(ValueError, match="different shapes"):
        compute(name, np.zeros((4, 1)), np.zeros((4, 4)), training=[1, 2])


@pytest.mark.parametrize("name", ["mse", "mae", "msle", "smape", "mase", "quantile_loss"])
def test_missing_values_are_refused(name):
    with pytest.raises(ValueError, match="references with 1 of 4 values NaN or infinite, the first in row 1"):
        compute(name, np.zeros((2, 2)), [[1.0, 2.0], [3.0, math.inf]], training=[1, 2])


def test_numbers_without_a_logarithm_and_outputs_one_by_one_are_refused():
    with pytest.raises(ValueError, match="references with -1 in row 1; expected numbers above -1"):
        compute("msle", [0.0, 0.0], [2.0, -1.0])
    with pytest.raises(ValueError, match="multioutput"):
        compute("mse", [0.0, 0.0], [2.0, -1.0], multioutput="raw_values")
