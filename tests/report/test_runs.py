"""Runs in every state are listed as what they are; runs are compared by figures, curves and settings."""

import base64
import json
import re
import subprocess
import sys

import compare_runs as compare_recipe
import list_runs as runs_recipe
import numpy as np
import pytest
import small
import torch
import yaml
from safetensors.torch import save_file

from toolkit.errors import UserError
from toolkit.report.runs import curve, differences, find_runs, plot_runs, read_run, write_runs_page
from toolkit.run.directory import Run
from toolkit.run.files import write_json


def make_run(directory, steps=40, tokens=512, lr=1e-3, result=True, **changes):
    """A run directory as the pretraining recipes leave it; losses fall towards 2 / learning rate-dependent."""
    directory.mkdir(parents=True)
    config = {"output_dir": "x", "masking": {"mlm_probability": 0.15}, "model": {"preset": "bert-tiny"},
              "training": {"learning_rate": lr, "max_steps": steps}, **changes}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(directory / "manifest.json", {"commit": "abc1234", "parameters": 1_503_746, "versions": {"torch": "2"},
                                             "data": {"tokenizer": "f" * 64}})
    lines = []
    for step in range(10, steps + 1, 10):
        loss = 8 * 1000 * lr / step + 2
        lines.append({"step": step, "loss": loss, "mlm_loss": loss, "learning_rate": lr, "tokens": step * tokens,
                      "tokens_per_second": 1e4})
        lines.append({"step": step, "eval_loss": loss + 0.1, "eval_mlm_accuracy": 0.1 + step / 1000})
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "model").mkdir()
    save_file({"a": torch.zeros(10, 10)}, directory / "model/model.safetensors")
    if result:
        write_json(directory / "result.json", {"mlm_accuracy": 0.14, "loss": loss + 0.1, "steps": steps,
                                               "tokens": steps * tokens})
    return directory


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


def test_differences_of_settings_and_of_manifests(root):
    make_run(root / "faster", lr=3e-3, masking={"mlm_probability": 0.3, "whole_word_mask": True})
    write_json(root / "faster/manifest.json", {"commit": "def", "parameters": 1_503_746})
    pair = [read_run(root / name) for name in ("done", "faster")]
    assert dict(differences(pair)) == {"masking.mlm_probability": [0.15, 0.3], "masking.whole_word_mask": [None, True],
                                       "training.learning_rate": [1e-3, 3e-3]}
    assert dict(differences(pair, "manifest")) == {"commit": ["abc1234", "def"], "versions.torch": ["2", None],
                                                   "data.tokenizer": ["f" * 64, None]}
    assert differences([pair[0], pair[0]]) == []


def test_curves_over_steps_and_over_tokens(root):
    run = read_run(root / "done")
    x, y = curve(run, "eval_loss")
    assert x.tolist() == [10, 20, 30, 40] and y[0] == pytest.approx(2.9)
    assert np.array_equal(curve(run, "loss", by_tokens=True)[0], 512 * x)
    assert np.array_equal(curve(run, "eval_loss", by_tokens=True)[0], 512 * x), "evaluations do not log tokens"
    assert curve(run, "nothing")[0].shape == (0,)


def test_panels_are_drawn_once_each_and_over_tokens_where_steps_differ(root, monkeypatch):
    from toolkit.report import plots as report

    drawn = {}
    monkeypatch.setattr(report, "save_figure", lambda figure, path: drawn.update(
        {axes.get_title(): (axes.get_xlabel(), [line.get_xydata() for line in axes.lines])
         for axes in figure.axes if axes.get_visible()}))
    make_run(root / "wide", tokens=2048, lr=2e-3)
    assert plot_runs([read_run(root / name) for name in ("done", "wide")], root / "x.png")
    assert list(drawn) == ["loss", "mlm accuracy", "learning rate", "tokens per second"], "mlm_loss is loss here"
    label, lines = drawn["loss"]
    assert label == "tokens" and len(lines) == 4 and lines[3][-1][0] == 40 * 2048
    drawn.clear()
    plot_runs([read_run(root / name) for name in ("done", "stopped/seed-0")], root / "x.png")
    assert drawn["loss"][0] == "step"
    (root / "done/metrics.jsonl").write_text("")
    assert not plot_runs([read_run(root / "done")], root / "x.png")


def test_the_page_holds_picture_and_tables_and_fetches_nothing(root):
    make_run(root / "<b>", lr=2e-3)
    write_runs_page([read_run(root / name, name) for name in ("done", "<b>")], root / "page.html")
    page = (root / "page.html").read_text(encoding="utf-8")
    assert "http" not in page and "<b>" not in page and "&lt;b&gt;" in page
    picture = re.search(r'src="data:image/png;base64,([^"]+)"', page)[1]
    assert base64.b64decode(picture) == (root / "page.png").read_bytes()
    assert re.search(r"<td>training.learning_rate</td><td>0.001</td><td>0.002</td>", page)
    assert "<td>loss</td><td>2.3</td><td>2.5</td>" in page


def test_the_recipes_list_and_compare(root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    runs_recipe.main([str(root)])
    out = capsys.readouterr().out
    assert "finished" in out and "2 runs in" in out and "1 unfinished" in out
    runs_recipe.main([".", "--state", "finished"])
    assert "stopped/seed-0" not in capsys.readouterr().out
    make_run(root / "faster", lr=3e-3)
    compare_recipe.main(["done", "faster/"])
    out = capsys.readouterr().out
    assert "training.learning_rate  0.001  0.003" in out and "runs/compare-runs/done-and-faster.html" in out
    assert (root / "runs/compare-runs/done-and-faster.png").is_file()
    for arguments, said in ((["done"], "two or more"), (["done", "done/"], "two or more"),
                            (["done", "nowhere"], "nowhere: is no run"),
                            (["done", "faster", "--output", "x.pdf"], "must end in .html")):
        with pytest.raises(UserError, match=said):
            compare_recipe.main(arguments)
