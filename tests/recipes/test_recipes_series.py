"""The benchmark of training on series."""

import json

import bench_series
import pytest
from accelerate.state import AcceleratorState
from small import run_recipe

from toolkit.errors import UserError

STEPS = 6


@pytest.fixture(scope="module")
def jobs() -> dict[str, dict]:
    """A few steps of every contestant, on the two tasks on which nothing is left to chance."""
    found = {}
    for job in (f"{task}:{name}" for task in ("classification", "forecasting") for name in bench_series.CONTESTANTS):
        found[job] = bench_series.run_job(job, STEPS)
        forget_trainer()
    return found


def forget_trainer() -> None:
    """Its Accelerator would decide on number formats in this process; the benchmark gives each job one of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("task", ["classification", "forecasting"])
def test_all_start_alike_and_learn_alike(jobs, task):
    """The same weights, rows and optimiser: after as many steps the same loss, but for the rounding of bf16."""
    ours, default, bf16 = (jobs[f"{task}:{name}"] for name in bench_series.CONTESTANTS)
    assert ours["loss"] == pytest.approx(default["loss"], rel=0.02)
    assert bf16["loss"] == pytest.approx(default["loss"], rel=0.02)
    assert all(1 < job["series_per_second"] < 1e6 for job in (ours, default, bf16))


def test_every_step_is_clocked_once():
    learning, rows = bench_series.forecasting(STEPS)
    assert len(rows) == STEPS * bench_series.BATCH
    for times, loss in (bench_series.run_ours(learning, STEPS),
                        bench_series.run_trainer(learning.model, rows, STEPS, bf16=False)):
        assert len(times) == STEPS and times == sorted(times) and 0 < loss < 5


def test_rows_are_those_of_our_batches_in_order():
    for make, target in ((bench_series.classification, "labels"), (bench_series.forecasting, "future")):
        learning, rows = make(2)
        batch, size = learning.batch(1, range(3, 5)), bench_series.BATCH
        for place, row in enumerate((rows[size + 3], rows[size + 4])):
            assert row.keys() == batch.keys() == {"values", target}
            assert all((row[key].numpy() == batch[key][place]).all() for key in row)


def test_dropout_is_in_the_model():
    model = bench_series.TASKS["forecasting-dropout"](1)[0].model
    assert model.config.dropout == model.config.backbone_config.attention_probs_dropout_prob == 0.3
    assert bench_series.TASKS["forecasting"](1)[0].model.config.dropout == 0


def test_series_ratios_are_of_the_same_round():
    """The machine may be twice as slow in another round."""
    found = bench_series.summary({"ours": [60.0, 30.0, 66.0], "hf_default": [20.0, 10.0, 20.0],
                                  "hf_bf16": [30.0, 12.0, 33.0]})
    assert found["ours_over"] == {"hf_default": {"median": 3.0, "lowest": 3.0, "highest": 3.3},
                                  "hf_bf16": {"median": 2.0, "lowest": 2.0, "highest": 2.5}}
    lines = bench_series.contest_table(found).splitlines()
    assert lines[-1].split() == ["hf_bf16", "30", "2.00", "2.00", "–", "2.50"]


def test_everything_is_run_in_turn(tmp_path, monkeypatch, capsys):
    asked = []

    def answered(recipe: str, job: str, steps: int) -> dict:
        assert recipe == bench_series.__file__
        asked.append((job, steps))
        return {"series_per_second": 100.0 * len(asked)}

    monkeypatch.setattr(bench_series, "in_own_process", answered)
    bench_series.bench(bench_series.BenchSeriesConfig(str(tmp_path), ["forecasting"], rounds=2, steps=7))
    assert asked == [(f"forecasting:{name}", 7) for name in bench_series.CONTESTANTS] * 2
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["forecasting"]["series_per_second"] == {"ours": [100, 400], "hf_default": [200, 500],
                                                         "hf_bf16": [300, 600]}
    assert found["forecasting"]["ours_over"]["hf_default"] == {"median": 0.65, "lowest": 0.5, "highest": 0.8}
    assert found["environment"]["versions"]["torch"] and "classification" not in found
    assert capsys.readouterr().out.count("forecasting, round") == 2


def test_a_job_answers_in_json(tmp_path):
    done = run_recipe("bench_series", ["--job", "forecasting-dropout:ours", "--steps", str(STEPS)], tmp_path)
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["series_per_second"] > 1


def test_what_cannot_be_run_is_told(tmp_path):
    for settings, told in (({"rounds": 0}, "rounds is 0"), ({"steps": 5}, "steps 5")):
        with pytest.raises(UserError, match=told):
            bench_series.bench(bench_series.BenchSeriesConfig(str(tmp_path), **settings))
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no such processor')")
    with pytest.raises(UserError, match="forecasting:ours: the run failed with status 1:\nno such processor"):
        bench_series.in_own_process(str(broken), "forecasting:ours", steps=6)
