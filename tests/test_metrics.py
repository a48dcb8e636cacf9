"""Metrics against hand-worked tables and scikit-learn, and without any network."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics as reference

from toolkit import metrics

NAMES = ["accuracy", "f1", "confusion_matrix", "masked_accuracy", "perplexity", "bits_per_byte", "mse", "mae"]
# TP 3, FN 1, FP 2, TN 4: accuracy 0.7, F1 = 6 / (6 + 2 + 1) = 2/3.
TABLE_REFERENCES = [1] * 4 + [0] * 6
TABLE_PREDICTIONS = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]


def compute(name, predictions, references, **options):
    return metrics.load(name).compute(predictions=predictions, references=references, **options)[name]


@pytest.fixture
def classes():
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 3, 7, 9], size=300, p=[0.6, 0.25, 0.1, 0.05])
    guess = np.where(rng.random(300) < 0.6, truth, rng.choice([0, 3, 7, 9], size=300))
    return guess, truth


# --- no network -------------------------------------------------------------------------------------------

OFFLINE = """
import json, sys
asked = []
sys.addaudithook(lambda event, details: asked.append(event) if event in sys.argv[2:] else None)
import toolkit.metrics as metrics
assert "evaluate" not in sys.modules and "torch" not in sys.modules, "import toolkit.metrics must stay light"
results = {}
for name in json.loads(sys.argv[1]):
    metric = metrics.load(name)
    metric.download_and_prepare()
    metric.add_batch(**{key: [1, 0] for key in metric.inputs})
    results[name] = metric.compute()
import evaluate
combined = evaluate.combine([metrics.load("accuracy"), metrics.load("f1")])
results["combined"] = combined.compute(predictions=[1, 0], references=[1, 0])
assert not asked, asked
import socket
try:
    socket.create_connection(("localhost", 9), timeout=1)
except OSError:
    pass
assert "socket.connect" in asked, "this test would not notice a connection"
print(json.dumps(results, allow_nan=False))
"""
NETWORK = ["socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"]


def test_no_metric_asks_for_the_network_or_writes_to_the_home(tmp_path):
    """In a fresh process in which nothing says that it is offline, so that only our own restraint counts."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", OFFLINE, json.dumps(NAMES), *NETWORK], env=environment,
                          cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout)
    assert list(results) == [*NAMES, "combined"]
    assert results["combined"] == {"accuracy": 1.0, "f1": 1.0}
    assert not (tmp_path / ".cache/huggingface/metrics").exists()


# --- loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_has_the_name_it_is_loaded_by(name):
    metric = metrics.load(name)
    assert metric.name == name
    assert metric.description
    assert metrics.load(name) is not metric


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"no metric 'acuracy'\. Did you mean 'accuracy'"):
        metrics.load("acuracy")


def test_everything_exported_exists():
    for name in metrics.__all__:
        assert getattr(metrics, name) is not None
    with pytest.raises(AttributeError, match="Precision"):
        metrics.Precision  # noqa: B018


# --- classification ---------------------------------------------------------------------------------------


def test_the_table_by_hand():
    assert compute("accuracy", TABLE_PREDICTIONS, TABLE_REFERENCES) == pytest.approx(0.7)
    assert compute("f1", TABLE_PREDICTIONS, TABLE_REFERENCES) == pytest.approx(2 / 3)
    assert compute("f1", TABLE_PREDICTIONS, TABLE_REFERENCES, pos_label=0) == pytest.approx(8 / 11)
    assert compute("confusion_matrix", TABLE_PREDICTIONS, TABLE_REFERENCES) == [[4, 2], [1, 3]]


def test_a_constant_classifier_on_an_80_20_set():
    truth, guess = [0] * 80 + [1] * 20, [0] * 100
    assert compute("accuracy", guess, truth) == pytest.approx(0.8)
    assert compute("f1", guess, truth) == 0.0  # defined: there are positives, and all are missed
    assert compute("f1", guess, truth, average="micro") == pytest.approx(0.8)
    assert compute("f1", guess, truth, average="macro") == pytest.approx((160 / 180 + 0) / 2)
    assert compute("f1", guess, truth, average="weighted") == pytest.approx(0.8 * 160 / 180)
    assert compute("f1", guess, truth, average=None) == pytest.approx([160 / 180, 0.0])
    assert compute("confusion_matrix", guess, truth) == [[80, 0], [20, 0]]
    assert compute("confusion_matrix", guess, truth, normalize="true") == [[1.0, 0.0], [1.0, 0.0]]
    assert compute("confusion_matrix", guess, truth, normalize="pred") == [[0.8, None], [0.2, None]]


@pytest.mark.parametrize("labels", [None, [9, 0, 3], [7, 5], [3]])
@pytest.mark.parametrize("average", ["micro", "macro", "weighted", None])
def test_f1_as_in_scikit_learn(classes, average, labels):
    guess, truth = classes
    ours = compute("f1", guess, truth, average=average, labels=labels)
    theirs = reference.f1_score(truth, guess, average=average, labels=labels, zero_division=np.nan)
    if average is None:
        assert ours == [None if math.isnan(value) else pytest.approx(value) for value in theirs]
    else:
        assert ours == pytest.approx(theirs)


@pytest.mark.parametrize("labels", [None, [9, 0, 3]])
@pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
def test_confusion_matrix_as_in_scikit_learn(classes, normalize, labels):
    guess, truth = classes
    ours = compute("confusion_matrix", guess, truth, normalize=normalize, labels=labels)
    assert ours == pytest.approx(reference.confusion_matrix(truth, guess, normalize=normalize, labels=labels))


def test_shares_of_a_class_that_does_not_occur_are_undefined():
    shares = [compute("confusion_matrix", [0, 1], [0, 0], normalize=by) for by in ("true", "pred", "all")]
    assert shares == [[[0.5, 0.5], [None, None]], [[1.0, 1.0], [0.0, 0.0]], [[0.5, 0.5], [0.0, 0.0]]]
    assert compute("confusion_matrix", [2], [2], labels=[0], normalize="all") == [[None]]


def test_accuracy_as_in_scikit_learn(classes):
    guess, truth = classes
    assert compute("accuracy", guess, truth) == pytest.approx(reference.accuracy_score(truth, guess))


def test_undefined_f1_is_none_and_zero_is_zero():
    assert compute("f1", [0, 0], [0, 0]) is None  # no positive anywhere
    assert compute("f1", [1, 0], [0, 0]) == 0.0  # a false alarm
    assert compute("f1", [0, 0], [1, 0]) == 0.0  # a miss
    assert compute("f1", [1, 1], [1, 1]) == 1.0  # one class only, and it is the positive one
    assert compute("f1", [0, 0], [0, 0], average="macro", labels=[0, 1]) == 1.0  # 1 does not count
    assert compute("f1", [0, 0], [0, 0], average=None, labels=[0, 1]) == [1.0, None]
    assert compute("f1", [0, 0], [0, 0], average="micro", labels=[1]) is None
    assert compute("f1", [0, 0], [0, 0], average="macro", labels=[1]) is None
    assert compute("f1", [1, 0], [0, 0], average="weighted", labels=[1]) is None  # no reference to weigh by


def test_negative_ids_and_label_order():
    assert compute("confusion_matrix", [-1, 1], [1, 1], labels=[1, -1]) == [[1, 1], [0, 0]]
    assert compute("f1", [-1, 1], [-1, 1], pos_label=-1) == 1.0


@pytest.mark.parametrize(("name", "options", "message"), [
    ("f1", {}, "3 classes.*average='macro'"),
    ("f1", {"average": "marco"}, "Did you mean 'macro'"),
    ("f1", {"average": "macro", "labels": [0, 0]}, "different class ids"),
    ("f1", {"average": "macro", "sample_weight": [1, 1, 1]}, "sample_weight"),
    ("confusion_matrix", {"normalize": "rows"}, "normalize='rows'"),
    ("confusion_matrix", {"labels": []}, "one or more"),
])
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        compute(name, [0, 1, 2], [0, 1, 1], **options)


def test_a_positive_class_that_does_not_occur_is_refused_when_two_others_do():
    with pytest.raises(ValueError, match="pos_label=1"):
        compute("f1", [0, 2], [2, 2])


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


# --- regression -------------------------------------------------------------------------------------------


def test_errors_of_forecasts_over_all_elements():
    assert compute("mse", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [3.0, 7.0]]) == pytest.approx((4 + 9) / 4)
    assert compute("mae", [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [3.0, 7.0]]) == pytest.approx((2 + 3) / 4)
    rng = np.random.default_rng(1)
    guess, truth = rng.normal(size=(2, 5, 12, 3))
    flat = truth.ravel(), guess.ravel()
    assert compute("mse", guess, truth) == pytest.approx(reference.mean_squared_error(*flat))
    assert compute("mae", guess, truth) == pytest.approx(reference.mean_absolute_error(*flat))


def test_a_broadcastable_shape_is_not_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        compute("mse", np.zeros((4, 1)), np.zeros((4, 4)))


# --- inputs and evaluate's machinery ----------------------------------------------------------------------


@pytest.mark.parametrize(("predictions", "references", "message"), [
    ([0, 1, 1], [0, 1], r"\(3,\).*\(2,\)"),
    ([], [], "no examples"),
    ([0.2, 0.8], [0, 1], "float64; expected integers"),
    ([[0.2, 0.8], [0.9, 0.1]], [1, 0], "argmax"),
    ([[1, 0], [1]], [1, 0], "different lengths"),
    (["cat", "dog"], [1, 0], "expected integers"),
    ([1, 0], None, "no references"),
])
def test_bad_predictions_are_explained(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        compute("accuracy", predictions, references)


def test_computing_twice_does_not_return_the_old_result():
    metric = metrics.load("accuracy")
    metric.compute(predictions=[1], references=[1])
    with pytest.raises(ValueError, match="no examples"):
        metric.compute()


def test_unknown_inputs_are_refused():
    with pytest.raises(ValueError, match="expected \\['negative_log_likelihood', 'tokens'\\]"):
        metrics.load("perplexity").add_batch(negative_log_likelihood=1.0, token=3)


@pytest.mark.parametrize("keep_in_memory", [True, False])
def test_batches_add_up_to_the_whole(classes, keep_in_memory, tmp_path):
    guess, truth = classes
    metric = metrics.F1(keep_in_memory=keep_in_memory, cache_dir=str(tmp_path))
    for start, stop in [(0, 7), (7, 7), (7, 299)]:  # an empty batch among them
        metric.add_batch(predictions=guess[start:stop], references=truth[start:stop])
    metric.add(prediction=guess[299], reference=truth[299])
    assert metric.compute(average="macro")["f1"] == compute("f1", guess, truth, average="macro")


def test_tensors():
    torch = pytest.importorskip("torch")
    guess, truth = torch.tensor([1, 0, 1]), torch.tensor([1, 1, 1])
    assert compute("accuracy", guess, truth) == pytest.approx(2 / 3)
    loss = torch.tensor(2.0, dtype=torch.bfloat16, requires_grad=True)
    result = metrics.load("perplexity").compute(negative_log_likelihood=[loss], tokens=[torch.tensor(2)])
    assert result == {"perplexity": pytest.approx(math.e)}


def test_combined_metrics_share_inputs_and_options(classes):
    import evaluate

    guess, truth = classes
    combined = evaluate.combine([metrics.load(name) for name in NAMES])
    for part in (slice(0, 100), slice(100, 300)):
        sums = {"negative_log_likelihood": 3.0, "tokens": 2, "bytes": 4}
        combined.add_batch(predictions=guess[part], references=truth[part], **sums)
    result = combined.compute(average="macro", normalize="true")
    assert set(result) == {*NAMES, "count"}
    assert result["accuracy"] == result["masked_accuracy"] == compute("accuracy", guess, truth)
    assert result["f1"] == compute("f1", guess, truth, average="macro")
    assert result["perplexity"] == pytest.approx(math.exp(1.5))
    one_call = evaluate.combine([metrics.load("accuracy"), metrics.load("f1")])
    assert one_call.compute(predictions=guess, references=truth, average="micro")["f1"] == result["accuracy"]


def test_results_are_plain_python(classes):
    guess, truth = classes

    def types(value):
        if isinstance(value, (list, dict)):
            return set().union(*map(types, value.values() if isinstance(value, dict) else value))
        return {type(value)}

    for name, options in [("accuracy", {}), ("masked_accuracy", {}), ("mse", {}), ("mae", {}),
                          ("f1", {"average": None, "labels": [0, 3, 5]}), ("confusion_matrix", {}),
                          ("confusion_matrix", {"normalize": "true", "labels": [0, 5]})]:
        result = metrics.load(name).compute(predictions=guess, references=truth, **options)
        assert types(result) <= {int, float, type(None)}, name
        json.dumps(result, allow_nan=False)
