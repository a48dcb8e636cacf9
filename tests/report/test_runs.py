"""Runs in every state are listed as what they are."""

import subprocess
import sys

import list_runs as runs_recipe
import pytest
import small
from made_runs import make_run

from toolkit.errors import UserError
from toolkit.report.runs import find_runs, read_run
from toolkit.run.directory import Run
from toolkit.run.files import write_json


@pytest.fixture
def root(tmp_path):
    make_run(tmp_path / "done")
    make_run(tmp_path / "stopped/seed-0", result=False)
    make_run(tmp_path / "stopped/checkpoints/step-00000010/no-run")
    return tmp_path


def test_runs_are_found_with_their_state_and_figures(root):
    found = {run.name: run for run in find_runs(root)}
    assert set(found) == {"done", "stopped/seed-0"}
    done, stopped = found["done"], found["stopped/seed-0"]
    assert (done.state, stopped.state) == ("finished", "unfinished") and done.steps == stopped.steps == 40
    assert done.kind == "BERT pretraining, bert-tiny"
    assert list(done.figures)[:2] == ["loss", "mlm_accuracy"] and done.figures["loss"] == pytest.approx(2.3)
    assert stopped.figures == {"loss": pytest.approx(2.3), "mlm_accuracy": pytest.approx(0.14), "best_step": 40}
    assert done.size == sum(path.stat().st_size for path in done.directory.rglob("*") if path.is_file())


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda run: (run / "model/model.safetensors").write_bytes((run / "model/model.safetensors").read_bytes()[:-9]),
     "model.safetensors is cut short"),
    (lambda run: (run / "model/model.safetensors").write_bytes(b"\0" * 20), "model.safetensors has no header"),
    (lambda run: (run / "result.json").write_text('{"loss": 3'), "result.json cannot be read"),
    (lambda run: (run / "manifest.json").write_text(""), "manifest.json cannot be read"),
    (lambda run: (run / "config.yaml").write_text("a: [1"), "config.yaml cannot be read"),
    (lambda run: (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2}\n{"st\n{"step": 3, "loss": 1}\n'),
     "metrics.jsonl, line 2 is broken"),
    (lambda run: write_json(run / "result.json", {"loss": float("nan")}), "no finite numbers")],
    ids=["weights", "header", "result", "manifest", "config", "metrics", "nan"])
def test_a_damaged_run_is_listed_with_what_is_damaged(root, spoil, said):
    spoil(root / "done")
    damaged, other = sorted(find_runs(root), key=lambda run: run.name)
    assert damaged.state == "damaged" and said in damaged.problem and other.state == "unfinished"


def test_half_a_last_line_is_no_damage(root):
    path = root / "stopped/seed-0/metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 50, "lo')
    assert read_run(root / "stopped/seed-0").state == "unfinished"


def test_a_run_before_its_first_evaluation_and_one_of_several_arms(tmp_path):
    early = make_run(tmp_path / "early", result=False)
    (early / "metrics.jsonl").write_text('{"step": 10, "loss": 7.5}\n')
    assert read_run(early).figures == {"training loss": 7.5}
    arms = make_run(tmp_path / "arms", models={}, data={}, pooling="mean")
    write_json(arms / "result.json", {
        "bert": {"pretrained": {"mean": 0.7, "ci95": 0.1, "values": [0.75, 0.65]},
                 "random": {"mean": 0.5, "ci95": None, "values": [0.5]}, "gain_points": {"mean": 20, "ci95": 2}},
        "tfidf": {"mean": 0.6, "ci95": 0, "values": [0.6]}, "test_examples": 100})
    assert list(read_run(arms).figures.items())[:3] == [("bert, pretrained", 0.7), ("bert, random", 0.5),
                                                        ("tfidf", 0.6)]


def test_results_that_lie_beside_their_runs_are_found(tmp_path):
    for name in ("ucr/CBF", "ucr/Trace", "trec"):
        make_run(tmp_path / name, result=False)
    write_json(tmp_path / "trec.json", {"tuned": {"mean": 0.8, "ci95": 0.1, "values": [0.9, 0.7]}})
    write_json(tmp_path / "ucr.json", {arm: {"CBF": {"mean": mean, "ci95": None, "values": [mean]}}
                                       for arm, mean in (("bert", 0.9), ("mlp", 0.7))})
    found = {run.name: run for run in find_runs(tmp_path)}
    assert found["trec"].figures == {"tuned": 0.8}
    assert found["ucr/CBF"].figures == {"bert": 0.9, "mlp": 0.7}
    assert {name: run.state for name, run in found.items()} == {"trec": "finished", "ucr/CBF": "finished",
                                                                "ucr/Trace": "unfinished"}


@pytest.mark.skipif(sys.platform != "linux", reason="locks are listed on Linux alone")
def test_a_run_that_a_process_holds_is_running_and_stays_held(root):
    run = root / "stopped/seed-0"
    code = ("import sys; from dataclasses import dataclass; from toolkit.run.directory import Run\n"
            "@dataclass\nclass C:\n    output_dir: str = 'x'\n"
            f"Run({str(root / 'held')!r}).open(C()); print('held', flush=True); sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          cwd=small.ROOT) as process:
        assert process.stdout.readline() == "held\n"
        try:
            assert {found.name: found.state for found in find_runs(root)}["held"] == "running"
            with pytest.raises(UserError, match="another process is running"):
                Run(root / "held").open(small_config())
        finally:
            process.stdin.close()
    assert read_run(root / "held").state == read_run(run).state == "unfinished"


def small_config():
    from dataclasses import make_dataclass

    return make_dataclass("C", [("output_dir", str, "x")])()


def test_nothing_to_list_is_said(tmp_path):
    for place, said in ((tmp_path / "none", "no such directory"), (tmp_path, "holds no runs")):
        with pytest.raises(UserError, match=said):
            find_runs(place)
    with pytest.raises(UserError, match="is no run"):
        read_run(tmp_path)


def test_the_recipe_lists(root, capsys):
    runs_recipe.main([str(root)])
    out = capsys.readouterr().out
    assert "finished" in out and "2 runs in" in out and "1 unfinished" in out
    runs_recipe.main([str(root), "--state", "finished"])
    assert "stopped/seed-0" not in capsys.readouterr().out
