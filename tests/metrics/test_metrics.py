"""What all metrics share: no network, batches, processes, memory, evaluate's machinery. Values: test_metrics_*.py."""

import json
import math
import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from toolkit import metrics

NAMES = ["accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "fbeta", "matthews_correlation",
         "confusion_matrix", "roc_auc", "pr_auc", "brier_score", "log_loss", "expected_calibration_error",
         "masked_accuracy", "perplexity", "bits_per_byte", "mse", "mae", "msle", "smape", "mase", "quantile_loss",
         "coverage"]
ROWS = 211


def inputs_and_options():
    """Every metric in each of its forms: (name, inputs with ROWS rows, options of compute, whether exact)."""
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 3, 7, 9], size=ROWS, p=[0.6, 0.3, 0.09, 0.01])  # 9: in few of the parts
    guess = np.where(rng.random(ROWS) < 0.6, truth, rng.choice([0, 3, 7, 9], size=ROWS))
    many = {"predictions": rng.integers(0, 2, (ROWS, 3)), "references": rng.integers(0, 2, (ROWS, 3))}
    binary = rng.integers(0, 2, ROWS)
    scores = np.round(rng.random(ROWS), 1)  # with ties
    rows = rng.dirichlet([1, 1, 1], size=ROWS)
    classes = rng.integers(0, 3, ROWS)
    values, forecasts = rng.gamma(2, 3, (2, ROWS, 4))
    ids = {"predictions": guess, "references": truth}
    yield "accuracy", ids, {}, True
    yield "balanced_accuracy", ids, {}, True
    yield "confusion_matrix", ids, {"labels": [9, 0, 5]}, True
    yield "matthews_correlation", ids, {}, True
    yield "matthews_correlation", many, {"average": None}, True
    for name in ("precision", "recall", "specificity", "f1", "fbeta"):
        for average in ("micro", "macro", "weighted", None):
            yield name, ids, {"average": average, "beta": 0.7}, True
            yield name, many, {"average": average, "beta": 0.7}, True
        yield name, {"predictions": guess > 0, "references": truth > 0}, {}, True
    for name in ("roc_auc", "pr_auc"):
        yield name, {"prediction_scores": scores, "references": binary}, {}, True
        yield name, {"prediction_scores": rows, "references": classes}, {"average": None}, True
        yield name, {"prediction_scores": rows, "references": many["references"]}, {"average": "micro"}, True
    for name in ("brier_score", "log_loss", "expected_calibration_error"):
        yield name, {"predictions": scores, "references": binary}, {}, False
        yield name, {"predictions": rows, "references": classes}, {}, False
    yield "masked_accuracy", {"predictions": guess, "references": np.where(truth > 3, -100, truth)}, {}, True
    for name, unit in (("perplexity", "tokens"), ("bits_per_byte", "bytes")):
        yield name, {"negative_log_likelihood": scores * 9, unit: classes}, {}, False
    for name in ("mse", "mae", "msle", "smape"):
        yield name, {"predictions": forecasts, "references": values}, {}, False
    yield "mase", {"predictions": forecasts, "references": values, "scale": classes}, {}, False
    yield "mase", {"predictions": forecasts, "references": values}, {"training": [1, 2, 4, 3], "season": 2}, False
    yield "quantile_loss", {"predictions": forecasts, "references": values}, {"quantile": 0.9}, False
    yield ("quantile_loss", {"predictions": forecasts, "references": values[:, 0]},
           {"quantile": [0.1, 0.3, 0.6, 0.9], "multioutput": "raw_values"}, False)
    yield "coverage", {"predictions": np.sort(forecasts), "references": values[:, 0]}, {}, True


CASES = [pytest.param(*case, id=f"{case[0]}-{case[2]}-{len(next(iter(case[1].values())).shape)}")
         for case in inputs_and_options()]


def same(result, expected, exact):
    assert list(result) == list(expected)
    for key, value in result.items():
        assert value == (expected[key] if exact else pytest.approx(expected[key], rel=1e-12)), key


def cut(inputs, places):
    """The rows before, between and after `places`; the same place twice makes an empty part."""
    edges = [0, *places, ROWS]
    return [{name: values[start:stop] for name, values in inputs.items()}
            for start, stop in zip(edges, edges[1:], strict=False)]


def test_every_metric_is_among_the_cases():
    assert {case.values[0] for case in CASES} == set(NAMES)


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
    intervals = {"predictions": [[0, 1], [0, 1]]} if name == "coverage" else {}
    metric.add_batch(**{key: [1, 0] for key in metric.inputs} | intervals)
    results[name] = metric.compute(training=[1, 2, 3])
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
    assert "Result: {" in metric.description and f'"{name}"' in metric.description
    assert metrics.load(name) is not metric


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"no metric 'acuracy'\. Did you mean 'accuracy'"):
        metrics.load("acuracy")


def test_everything_exported_exists():
    for name in metrics.__all__:
        assert getattr(metrics, name) is not None
    with pytest.raises(AttributeError, match="Rouge"):
        metrics.Rouge  # noqa: B018


def test_options_that_come_too_early_and_evaluates_own_processes_are_refused():
    with pytest.raises(ValueError, match="'average'.*Pass them to compute"):
        metrics.load("f1", average="macro")
    with pytest.raises(ValueError, match="num_process=2.*state"):
        metrics.load("f1", num_process=2)


# --- batches and processes --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "inputs", "options", "exact"), CASES)
def test_batches_add_up_to_the_whole(name, inputs, options, exact):
    whole = metrics.load(name).compute(**inputs, **options)
    metric = metrics.load(name)
    for places in ([1, 1, 50], range(0, ROWS, 3)):
        for part in cut(inputs, places):
            metric.add_batch(**part)
        same(metric.compute(**options), whole, exact)
        assert len(metric) == 0


@pytest.mark.parametrize(("name", "inputs", "options", "exact"), CASES)
def test_processes_add_up_to_the_whole(name, inputs, options, exact):
    whole = metrics.load(name).compute(**inputs, **options)
    for processes in (1, 2, 3, 7):
        for places in (np.linspace(0, ROWS, processes + 1, dtype=int)[1:-1], [40] * (processes - 1)):  # with empty ones
            states = []
            for part in cut(inputs, places):
                metric = metrics.load(name)
                for half in (slice(0, 13), slice(13, None)):
                    metric.add_batch(**{key: values[half] for key, values in part.items()})
                states.append(pickle.loads(pickle.dumps(metric.state())))  # as gather_object sends it
            assert all(isinstance(value, (int, float, np.ndarray)) for state in states for value in state.values())
            same(metrics.load(name).merge(states).compute(**options), whole, exact)
            same(metrics.load(name).merge(states[::-1]).compute(**options), whole, exact)


def test_what_is_merged_can_be_added_to():
    metric, other = metrics.load("roc_auc"), metrics.load("roc_auc")
    metric.add_batch(prediction_scores=[0.1, 0.4], references=[0, 1])
    other.add_batch(prediction_scores=[0.3], references=[0])
    assert metric.merge([other.state(), {}]) is metric
    metric.add_batch(prediction_scores=[0.2], references=[1])
    assert len(metric) == 4
    assert metric.compute() == {"roc_auc": 0.75}
    assert len(other) == 1  # state() took nothing away


@pytest.mark.parametrize(("name", "states", "message"), [
    ("f1", [{"examples": 3, "right": 2}], "right.*expected states of.*'tp'"),
    ("f1", {"examples": 3, "right": 2}, "was given a str"),
])
def test_states_of_other_metrics_are_refused(name, states, message):
    metric = metrics.load(name)
    with pytest.raises(ValueError, match=message):
        metric.merge(states)
    assert len(metric) == 0


@pytest.mark.parametrize(("name", "first", "second", "message"), [
    ("f1", {"predictions": [1], "references": [1]}, {"predictions": [[1, 0]], "references": [[1, 0]]}, "columns = 2"),
    ("brier_score", {"predictions": [0.4], "references": [1]},
     {"predictions": [[0.2, 0.8]], "references": [1]}, "columns = 2"),
    ("roc_auc", {"prediction_scores": [[0.2, 0.8]], "references": [1]},
     {"prediction_scores": [[0.2, 0.8]], "references": [[1, 0]]}, "multilabel = 1"),
])
def test_inputs_of_another_form_are_refused_and_not_added(name, first, second, message):
    metric = metrics.load(name)
    metric.add_batch(**first)
    with pytest.raises(ValueError, match=message):
        metric.add_batch(**second)
    assert len(metric) == 1


# --- memory -----------------------------------------------------------------------------------------------


def grown(name, inputs, batches):
    """Bytes that `batches` batches more leave behind, anywhere."""
    metric = metrics.load(name, cache_dir="/nonexistent/never/written", keep_in_memory=False)
    for _ in range(5):
        metric.add_batch(**inputs)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        size = len(pickle.dumps(metric.state()))
        for _ in range(batches):
            metric.add_batch(**inputs)
        state_growth = len(pickle.dumps(metric.state())) - size
        growth = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert metric.writer is None and metric.buf_writer is None and metric.data is None
    return growth, state_growth


@pytest.mark.parametrize(("name", "inputs", "options", "exact"),
                         [case for case in CASES if case.values[0] not in ("roc_auc", "pr_auc")])
def test_memory_does_not_grow_with_the_examples(name, inputs, options, exact):
    growth, state_growth = grown(name, inputs, 200)  # 42,200 rows, at least 337,600 bytes
    assert state_growth < 100  # longer integers
    assert growth < 10_000


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc"])
def test_areas_keep_nine_bytes_an_example(name):
    inputs = {"prediction_scores": np.linspace(0, 1, 500), "references": np.arange(500) % 2}
    growth, state_growth = grown(name, inputs, 251)  # with the first five 256 batches, which become one chunk
    assert state_growth == pytest.approx(9 * 500 * 251, rel=0.01)
    assert growth == pytest.approx(9 * 500 * 256, rel=0.01)


def test_chunks_of_scores_are_few_and_in_order():
    metric = metrics.load("roc_auc")
    scores = np.random.default_rng(0).random(1000)
    for score in scores:
        metric.add(prediction_scores=score, reference=1)
    assert len(metric._state["scores"]) <= 10
    assert np.array_equal(metric.state()["scores"], scores)


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
        metrics.load("accuracy").compute(predictions=predictions, references=references)


def test_computing_twice_does_not_return_the_old_result():
    metric = metrics.load("accuracy")
    metric.compute(predictions=[1], references=[1])
    with pytest.raises(ValueError, match="no examples"):
        metric.compute()


def test_a_wrong_option_costs_no_examples():
    metric = metrics.load("f1")
    metric.add_batch(predictions=[1, 1], references=[1, 0])
    for more in ({}, {"predictions": [0], "references": [1]}):
        with pytest.raises(ValueError, match="Did you mean 'macro'"):
            metric.compute(average="marco", **more)
    assert len(metric) == 2
    assert metric.compute(predictions=[0], references=[1]) == {"f1": 0.5}  # TP 1, FP 1, FN 1


def test_unknown_inputs_are_refused():
    with pytest.raises(ValueError, match="expected \\['negative_log_likelihood', 'tokens'\\]"):
        metrics.load("perplexity").add_batch(negative_log_likelihood=1.0, token=3)


def test_examples_one_at_a_time():
    metric = metrics.load("accuracy")
    for guess, truth in [(1, 1), (0, 1), (2, 2), (3, 3)]:
        metric.add(prediction=guess, reference=truth)
    assert metric.compute() == {"accuracy": 0.75}
    loss = metrics.load("log_loss")
    loss.add(prediction=[0.5, 0.25, 0.25], reference=0)
    assert loss.compute() == {"log_loss": pytest.approx(math.log(2))}


def test_tensors():
    torch = pytest.importorskip("torch")
    guess, truth = torch.tensor([1, 0, 1]), torch.tensor([1, 1, 1])
    assert metrics.load("accuracy").compute(predictions=guess, references=truth) == {"accuracy": pytest.approx(2 / 3)}
    loss = torch.tensor(2.0, dtype=torch.bfloat16, requires_grad=True)
    result = metrics.load("perplexity").compute(negative_log_likelihood=[loss], tokens=[torch.tensor(2)])
    assert result == {"perplexity": pytest.approx(math.e)}
    metric = metrics.load("f1")
    metric.add_batch(predictions=guess, references=truth)
    sent = {name: torch.as_tensor(value) for name, value in metric.state().items()}  # as a gather of tensors returns
    assert metrics.load("f1").merge([sent, sent]).compute() == {"f1": pytest.approx(0.8)}


def test_combined_metrics_share_inputs_and_options():
    import evaluate

    rng = np.random.default_rng(0)
    truth = rng.choice([0, 3, 7, 9], size=300, p=[0.6, 0.25, 0.1, 0.05])
    guess = np.where(rng.random(300) < 0.6, truth, rng.choice([0, 3, 7, 9], size=300))
    others = {"roc_auc", "pr_auc", "brier_score", "log_loss", "expected_calibration_error",  # take probabilities
              "coverage"}  # takes intervals
    names = [name for name in NAMES if name not in others]
    combined = evaluate.combine([metrics.load(name) for name in names])
    for part in (slice(0, 100), slice(100, 300)):
        sums = {"negative_log_likelihood": 3.0, "tokens": 2, "bytes": 4}
        combined.add_batch(predictions=guess[part], references=truth[part], **sums)
    result = combined.compute(average="macro", normalize="true", beta=2, scale=3.0)
    alone = {name: metrics.load(name).compute(predictions=guess, references=truth, average="macro", beta=2, scale=3.0)
             for name in names if name not in ("perplexity", "bits_per_byte", "confusion_matrix")}
    assert set(result) == {*names, "count"}
    for name, expected in alone.items():
        assert result[name] == pytest.approx(expected[name], rel=1e-12)
    assert result["f1"] == metrics.load("f1").compute(predictions=guess, references=truth, average="macro")["f1"]
    assert result["fbeta"] != result["f1"]  # beta is for it alone
    assert result["mase"] == pytest.approx(result["mae"] / 3)
    assert result["perplexity"] == pytest.approx(math.exp(1.5))
    one_call = evaluate.combine([metrics.load("accuracy"), metrics.load("f1")])
    assert one_call.compute(predictions=guess, references=truth, average="micro")["f1"] == result["accuracy"]
    ranked = evaluate.combine([metrics.load("roc_auc"), metrics.load("f1")])
    assert ranked.compute(prediction_scores=[0.2, 0.7], predictions=[0, 0], references=[0, 1]) == {
        "roc_auc": 1.0, "f1": 0.0}


@pytest.mark.parametrize(("name", "inputs", "options", "exact"), CASES)
def test_results_are_plain_python(name, inputs, options, exact):
    def types(value):
        if isinstance(value, (list, dict)):
            return set().union(*map(types, value.values() if isinstance(value, dict) else value))
        return {type(value)}

    result = metrics.load(name).compute(**inputs, **options)
    assert types(result) <= {int, float, type(None)}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_refused(name):
    with pytest.raises(ValueError, match="sample_weight, which is not supported"):
        metrics.load(name).compute(predictions=[1, 0], references=[1, 0], sample_weight=[1, 2])
