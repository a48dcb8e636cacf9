"""The script that compares two trees finds what is planted, leaves out what varies, and knows which runs lie."""

import json

import numpy as np
import pytest
import same_results
from safetensors.numpy import save_file


@pytest.fixture
def left(tmp_path):
    """A folder as a job leaves it."""
    (tmp_path / "model").mkdir()
    save_file({"one": np.arange(4, dtype=np.float32), "two": np.ones((2, 2), np.float32)},
              tmp_path / "model/model.safetensors")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5, "tokens_per_second": 10.0}\n'
                                            '{"step": 2, "loss": 0.25, "tokens_per_second": 12.0}\n')
    (tmp_path / "result.json").write_text(json.dumps({
        "accuracy": 0.1, "seconds": 3.0, "seconds_ci95": 1.0, "where": f"{tmp_path}/model", "arms": {"a": [1, 2]},
        "none": float("nan"), "predictions": list(range(100))}))
    (tmp_path / "manifest.json").write_text('{"commit": "abc", "parameters": 8, "started": "now"}')
    (tmp_path / "emissions.json").write_text('{"energy_kwh": 1}')
    (tmp_path / "checkpoints/step-1").mkdir(parents=True)
    (tmp_path / "checkpoints/step-1/state.json").write_text('{"seconds": 2}')
    return tmp_path


def measure(folder):
    return {"job": same_results.figures(folder, {str(folder): "OUT"})}


def test_what_varies_is_left_out_and_the_rest_is_noted(left):
    found = measure(left)["job"]
    keys = [key for key in found if not key.startswith("model/")]
    assert keys == ["manifest.json: parameters", "metrics.jsonl, line 1: step", "metrics.jsonl, line 1: loss",
                    "metrics.jsonl, line 2: step", "metrics.jsonl, line 2: loss", "result.json: accuracy",
                    "result.json: where", "result.json: arms.a.length", "result.json: arms.a.0",
                    "result.json: arms.a.1", "result.json: none", "result.json: predictions"]
    assert found["result.json: where"] == "OUT/model" and found["result.json: predictions"].startswith("100 entries")
    again = json.loads(json.dumps({"job": found}))  # as --write and --against have it
    assert same_results.differences({"job": found}, again) == []


@pytest.mark.parametrize("file, old, new, told", [
    ("metrics.jsonl", "0.25", "0.25000000000000006", ["job, metrics.jsonl, line 2: loss: 0.25, 0.25000000000000006"]),
    ("result.json", "[1, 2]", "[1, 2, 3]", ["job, result.json: arms.a.length: 2, 3",
                                            "job, result.json: arms.a.2: 3, only in the second"]),
    ("result.json", "0.1", "1", ["job, result.json: accuracy: 0.1, 1"]),
    ("result.json", ", 57,", ", 75,", None),
])
def test_a_planted_difference_is_named_with_both_values(left, file, old, new, told):
    before = measure(left)
    text = (left / file).read_text()
    assert old in text
    (left / file).write_text(text.replace(old, new))
    found = same_results.differences(before, measure(left))
    assert found == told if told else len(found) == 1 and found[0].startswith("job, result.json: predictions: ")


def test_one_bit_of_one_weight_is_a_difference_and_the_order_of_names_is_none(left):
    before, path = measure(left), left / "model/model.safetensors"
    weights = {"two": np.ones((2, 2), np.float32), "one": np.arange(4, dtype=np.float32)}
    save_file(weights, path, {"format": "pt"})
    assert same_results.differences(before, measure(left)) == []
    weights["one"][2] = np.nextafter(weights["one"][2], np.float32(9))
    save_file(weights, path)
    line, = same_results.differences(before, measure(left))
    assert line.startswith("job, model/model.safetensors: SHA-256: ")


def test_a_job_or_a_file_that_one_tree_lacks_is_told(left):
    before = measure(left)
    (left / "manifest.json").unlink()
    assert same_results.differences(before, measure(left)) == ["job, manifest.json: parameters: 8, only in the first"]
    assert same_results.differences(before, {}) == ["job: only in the first"]


def test_a_resumed_run_is_held_against_the_unbroken_one():
    whole, other = {"result.json: loss": 1.0}, {"result.json: loss": 1.5}
    assert same_results.unlike_unbroken({"unbroken": whole, "resumed": dict(whole), "two-resumed": other}) == []
    assert same_results.unlike_unbroken({"unbroken": whole, "resumed": other}) == [
        "resumed against unbroken: result.json: loss: 1.0, 1.5"]


def test_a_job_for_bad_steps_that_met_none_is_told():
    assert same_results.without_bad_steps({"bad-steps-skip": {"metrics.jsonl, line 3: bad_step": 4}}) == []
    assert len(same_results.without_bad_steps({"bad-steps-skip": {}, "nano-gpt-1": {}})) == 1


def test_jobs_bring_what_they_need_and_their_commands_exist():
    assert same_results.with_needs(["demo-text"]) == ["demo-bert", "demo-gpt", "demo-text"]
    for name, work in same_results.JOBS.items():
        assert list(work.needs) == [need for need in same_results.JOBS if need in work.needs], name
        for line in work.commands:
            words = same_results.command_of(line, work, {"out": "OUT", "own": "OWN"})
            recipe = next(word for word in words if word.startswith("recipes/") and word.endswith(".py"))
            assert (same_results.HERE / recipe).exists() and any("OWN" in word for word in words), name


def test_a_command_that_fails_ends_everything_with_what_it_said(tmp_path, monkeypatch):
    monkeypatch.setitem(same_results.JOBS, "broken", same_results.job("recipes/none_such.py --output_dir {own}"))
    with pytest.raises(SystemExit, match="(?s)broken on .*ended with 2.*none_such"):
        same_results.run_job("broken", same_results.HERE, tmp_path)
