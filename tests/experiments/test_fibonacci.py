"""`make fibonacci`: the lecture's parameter counts and layer, the cuts in time, what solves the task."""

import json
import math

import fibonacci
import numpy as np
import pytest
import torch
from reading import reads_alike_without_rows

from toolkit.errors import UserError
from toolkit.experiments import fibonacci as lab
from toolkit.inference.predict import PredictConfig, predict
from toolkit.run.directory import Run
from toolkit.run.results import read_results
from toolkit.tasks import base
from toolkit.tasks.classification import FineTuningConfig
from toolkit.training.impl.distributed import make_accelerator


def settings(directory, **changes) -> lab.FibonacciConfig:
    training = FineTuningConfig(max_steps=30, batch_size=32, learning_rate=3e-2, logging_steps=30, eval_steps=10)
    return lab.FibonacciConfig(**{"output_dir": str(directory), "numbers": 300, "seeds": 2, "training": training,
                                  **changes})


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, accelerator):
    """A short run of every arm: its settings and its result."""
    chosen = settings(tmp_path_factory.mktemp("fibonacci"))
    return chosen, fibonacci.fibonacci(chosen, accelerator)


def test_parameters_are_as_many_as_in_the_lecture():
    assert {name: lab.make_model(20, attention).num_parameters()
            for name, attention in lab.ARMS.items()} == {"rnn": 11, "rnn-attention": 33, "rnn-mean": 11}


def test_the_models_are_those_of_the_tutorial():
    """Keras's SimpleRNN(2), the attention layer of the tutorial, Dense(1): step by step, in numpy."""
    for name in ("rnn", "rnn-attention"):
        model = lab.make_model(20, lab.ARMS[name])
        random = np.random.default_rng(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.from_numpy(random.normal(size=parameter.shape)))
        p = {key: value.detach().double().numpy() for key, value in model.named_parameters()}
        kernel, bias = p["forwards.weight_ih_l0"].T[:1], p["forwards.weight_ih_l0"].T[1]
        x, state, states = random.random((3, 20)).astype(np.float32), np.zeros((3, 2)), []
        for step in range(20):
            state = np.tanh(x[:, step:step + 1] @ kernel + bias + state @ p["forwards.weight_hh_l0"].T)
            states.append(state)
        states = np.stack(states, 1)
        if name == "rnn-attention":
            e = np.tanh(states @ p["score.of_state.weight"].T + p["score.bias"][:, None])[..., 0]
            weights = np.exp(e) / np.exp(e).sum(1, keepdims=True)
            state = (states * weights[..., None]).sum(1)
        expected = state @ p["classifier.weight"].T + p["classifier.bias"]
        found = model(torch.from_numpy(x)[:, None]).logits.detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_series_is_cut_in_time_and_scaled_by_its_first_part(tmp_path):
    parts = lab.split_series(lab.FibonacciConfig(output_dir=str(tmp_path)))
    assert [len(part) for part in parts] == [720, 120, 360]
    assert parts[0].min() == 0 and parts[0].max() == 1 < parts[1].min() < parts[1].max() < parts[2].min()
    numbers = [1, 1]
    while len(numbers) < 1200:
        numbers.append(numbers[-1] + numbers[-2])
    series = np.concatenate(parts)
    np.testing.assert_allclose(series * math.log(numbers[719]), [math.log(number) for number in numbers], atol=1e-9)
    windows = lab.Windows(parts[1], 20, 8, seed=0)
    assert len(windows.labels) == 100
    rows = windows.rows(np.asarray([0, 99]))
    np.testing.assert_allclose(rows["values"][:, 0], [parts[1][:20], parts[1][99:119]], rtol=1e-6)
    np.testing.assert_allclose(rows["labels"], parts[1][[20, 119]], rtol=1e-6)
    epoch = np.concatenate([windows.batch(step, range(10))["labels"] for step in range(10)])  # 10 rows of 8: overlaps
    assert set(epoch) <= set(windows.labels.astype(np.float32))


def test_least_squares_solves_it(tmp_path):
    train, _, test = (lab.Windows(part, 20, 8, 0)
                      for part in lab.split_series(lab.FibonacciConfig(output_dir=str(tmp_path))))
    assert np.abs(lab.least_squares(train, test) - test.labels).max() < 1e-12
    np.testing.assert_allclose(2 * test.values[:, -1] - test.values[:, -2], test.labels, atol=1e-12)


def test_entropy_is_a_share_of_that_of_equal_weights():
    assert lab.entropy_of_uniform(np.full((3, 20), 0.05)) == pytest.approx(1)
    assert lab.entropy_of_uniform(np.eye(20)) == 0
    assert lab.entropy_of_uniform(np.asarray([[0.5, 0.5, 0, 0]])) == pytest.approx(0.5)


def test_a_run_leaves_its_result_and_a_picture(finished, accelerator, monkeypatch):
    chosen, result = finished
    directory = Run(chosen.output_dir).directory
    assert json.loads((directory / "result.json").read_text()) == result
    assert (directory / "plots/fibonacci.png").stat().st_size > 10_000
    for name, parameters in (("rnn", 11), ("rnn-attention", 33), ("rnn-mean", 11)):
        arm = result["arms"][name]
        assert arm["parameters"] == parameters and len(arm["values"]) == 2
        assert arm["mean"] == pytest.approx(np.mean(arm["values"])) and arm["ci95"] > 0
        predicted, actual = result["test_predictions"][name], result["test_values"]
        assert arm["values"][0] == pytest.approx(np.square(np.subtract(predicted, actual)).mean(), rel=1e-3)
    assert result["references"]["least squares"] < 1e-25 < result["references"]["repeat the last"]
    shares = result["attention"]["entropy_of_uniform"]
    assert len(shares) == 2 and all(0.5 < share <= 1 for share in shares)
    assert sum(result["attention"]["mean_weights"]) == pytest.approx(1)
    text = fibonacci.report(result)
    assert "11" in text and "33" in text and "is linear" in text and "of that of equal weights" in text
    gain = np.log10(np.divide(result["arms"]["rnn"]["values"], result["arms"]["rnn-attention"]["values"])).mean()
    assert result["verdicts"][0].startswith(f"rnn-attention over rnn: {'+' if gain > 0 else '-'}")

    monkeypatch.setattr(base, "train", None)
    assert fibonacci.fibonacci(chosen, accelerator) == result  # finished: nothing is trained again


def test_rows_say_what_the_result_says_and_a_dry_run_tells(finished, accelerator, tmp_path, capsys):
    chosen, result = finished
    reads_alike_without_rows(chosen.output_dir)
    assert [verdict.text for verdict in read_results(chosen.output_dir).verdicts] == result["verdicts"]
    assert fibonacci.fibonacci(settings(tmp_path / "dry", dry_run=True), accelerator) is None
    assert "\nrnn-attention, 2 fits, each of them:" in capsys.readouterr().out and not (tmp_path / "dry").exists()


def test_the_test_part_changes_no_model(finished, accelerator, tmp_path, monkeypatch):
    chosen, _ = finished
    split = lab.split_series

    def spoiled(of):
        train, validation, test = split(of)
        return [train, validation, 5 - 3 * test]

    monkeypatch.setattr(lab, "split_series", spoiled)
    fibonacci.fibonacci(settings(tmp_path, seeds=1), accelerator)
    for name in lab.ARMS:
        weights = f"{name}/seed-0/model/model.safetensors"
        before = (Run(chosen.output_dir).directory / weights).read_bytes()
        assert (tmp_path / weights).read_bytes() == before


def test_what_cannot_be_is_refused(tmp_path, accelerator):
    with pytest.raises(UserError, match="window is 30; of 300 numbers the 30 for validation must be more"):
        fibonacci.fibonacci(settings(tmp_path, window=30), accelerator)
    with pytest.raises(UserError, match="seeds is 0; give at least 1"):
        fibonacci.fibonacci(settings(tmp_path, seeds=0), accelerator)


def test_predict_answers_windows_with_the_numbers_that_were_scored(finished, tmp_path):
    chosen, _ = finished
    test = lab.Windows(lab.split_series(chosen)[2], chosen.window, 8, 0)
    np.savez(tmp_path / "new.npz", values=test.values.astype(np.float32))
    fit = Run(chosen.output_dir).part("rnn/seed-0")
    found = predict(PredictConfig(str(fit.model_dir), str(tmp_path / "new.npz"), batch_size=5))
    with np.load(fit.directory / "outputs.npz") as outputs:
        np.testing.assert_allclose(found["value"], outputs["test"], atol=1e-5)
