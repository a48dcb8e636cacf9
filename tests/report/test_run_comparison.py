"""Runs beside each other: figures with the best of each, what differs, curves; on a terminal and on a page."""

import json

import compare_runs as recipe
import numpy as np
import planted
import pytest
from made_runs import make_run

from toolkit.errors import UserError
from toolkit.report.comparison_page import runs_figure, write_runs_page
from toolkit.report.run_comparison import commands, compared, curve, differences, in_words
from toolkit.report.runs import read_run
from toolkit.report.thinning import kept_points
from toolkit.run.files import read_json, write_json
from toolkit.run.results import Results, Row, write_results


@pytest.fixture
def root(tmp_path):
    make_run(tmp_path / "done")
    make_run(tmp_path / "faster", lr=3e-3)
    return tmp_path


def pair(root, *names):
    return [read_run(root / name, name) for name in names or ("done", "faster")]


def test_differences_of_settings_and_of_manifests(tmp_path):
    make_run(tmp_path / "done")
    make_run(tmp_path / "faster", lr=3e-3, masking={"mlm_probability": 0.3, "whole_word_mask": True})
    write_json(tmp_path / "faster/manifest.json", {"commit": "def", "parameters": 1_503_746, "command": "python a.py"})
    runs = pair(tmp_path)
    assert dict(differences(runs)) == {"masking.mlm_probability": [0.15, 0.3], "masking.whole_word_mask": [None, True],
                                       "training.learning_rate": [1e-3, 3e-3]}
    assert dict(differences(runs, "manifest")) == {"commit": ["abc1234", "def"], "versions.torch": ["2", None],
                                                   "data.tokenizer": ["f" * 64, None]}
    assert differences([runs[0], runs[0]]) == []


def test_the_words_of_commands_that_differ_are_marked(root):
    for name, command in (("done", "python a.py x.yaml --lr 1 --seed 0"), ("faster", "python a.py y.yaml --lr 1")):
        write_json(root / name / "manifest.json", read_json(root / name / "manifest.json") | {"command": command})
    make_run(root / "third")
    first, second, none = commands(pair(root, "done", "faster", "third"))
    assert " ".join(word for word, _ in first) == "python a.py x.yaml --lr 1 --seed 0" and none == []
    assert [word for word, differs in first if differs] == ["x.yaml", "--seed", "0"]
    assert [word for word, differs in second if differs] == ["y.yaml"]


def test_the_best_of_each_figure_and_how_much_more(root):
    figures = {"loss": 2.3, "accuracy": 0.5, "perplexity": 1200.0, "seconds": 20.0, "f1": 0.4}
    write_json(root / "done/result.json", figures)
    write_json(root / "faster/result.json", figures | {"loss": 2.31, "accuracy": 0.625, "perplexity": 900.5})
    make_run(root / "third")
    write_json(root / "third/result.json", {"loss": 2.3, "tokens": 5})
    lines = {line.name: line for line in compared(pair(root, "done", "faster", "third"))}
    assert {name: sorted(line.best) for name, line in lines.items() if line.best} == {
        "loss": [0, 2], "accuracy": [1], "perplexity": [1]}, "f1 is the same; seconds are no question"
    assert lines["loss"].shown == ["2.300", "2.310", "2.300"] and lines["loss"].deltas == ["", "+0.010", "0"]
    assert lines["accuracy"].shown == ["0.5000", "0.6250", ""] and lines["accuracy"].deltas == ["", "+0.1250", ""]
    assert lines["perplexity"].shown == ["1,200", "900", ""] and lines["perplexity"].deltas[1] == "\u2212300"
    assert lines["parameters"].shown[0] == "1,503,746" and lines["parameters"].deltas == ["", "", ""]


@pytest.mark.parametrize(("metric", "best"), [("accuracy", [1]), ("mse", [0]), ("anything", [])])
def test_arms_of_experiments_are_judged_by_their_metric(tmp_path, metric, best):
    for name, value in (("a", 0.25), ("b", 0.75)):
        make_run(tmp_path / name, result=False)
        write_results(tmp_path / name, Results("text", metric, [Row("text", "bert, pretrained", 0, {metric: value})]))
    line = compared(pair(tmp_path, "a", "b"))[-1]
    assert line.name == "bert, pretrained" and sorted(line.best) == best and line.deltas == ["", "+0.5000"]


def test_figures_that_are_no_finite_numbers_are_no_best(root):
    (root / "faster/result.json").write_text('{"loss": NaN, "accuracy": Infinity}')
    lines = {line.name: line for line in compared(pair(root))}
    assert not lines["loss"].best and lines["loss"].shown[1] == "nan" and lines["loss"].deltas == ["", ""]


def test_curves_over_steps_and_over_tokens(root):
    run = read_run(root / "done")
    x, y = curve(run, "eval_loss")
    assert x.tolist() == [10, 20, 30, 40] and y[0] == pytest.approx(2.9)
    assert np.array_equal(curve(run, "loss", by_tokens=True)[0], 512 * x)
    assert np.array_equal(curve(run, "eval_loss", by_tokens=True)[0], 512 * x), "evaluations do not log tokens"
    assert curve(run, "nothing")[0].shape == (0,)


def test_a_long_curve_keeps_its_peaks():
    values = np.sin(np.linspace(0, 9, 10_001))
    values[1234], values[7000] = 40, -40
    kept = kept_points(values, 200)
    assert len(kept) <= 200 and (np.diff(kept) > 0).all() and {1234, 7000} <= set(kept.tolist())
    assert kept_points(values[:150], 200).tolist() == list(range(150))


def test_panels_are_drawn_once_each_and_over_tokens_where_steps_differ(root):
    make_run(root / "wide", tokens=2048, lr=2e-3)
    drawn = {axes.get_title(): axes for axes in runs_figure(pair(root, "done", "wide")).axes if axes.get_visible()}
    assert list(drawn) == ["loss", "mlm accuracy", "learning rate", "tokens per second"], "mlm_loss is loss here"
    lines = drawn["loss"].lines
    assert drawn["loss"].get_xlabel() == "tokens" and len(lines) == 4 and lines[3].get_xydata()[-1][0] == 40 * 2048
    assert lines[1].get_marker() != lines[3].get_marker() and lines[1].get_color() != lines[3].get_color()
    assert runs_figure(pair(root)).axes[0].get_xlabel() == "step"
    (root / "done/metrics.jsonl").write_text("")
    assert runs_figure(pair(root, "done")) is None


def test_the_page_holds_every_value_and_fetches_nothing(root):
    make_run(root / planted.PLANTED[0].replace("/", "_"), lr=2e-3)
    runs = pair(root, "done", planted.PLANTED[0].replace("/", "_"))
    write_runs_page(runs, root / "page.html")
    page = (root / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert (root / "page.png").read_bytes().startswith(b"\x89PNG")
    assert "<td dir=\"auto\">0.001</td>" in page and "<mark>0.002</mark>" in page
    assert "<b>2.300</b>" in page and "+0.200" in page
    assert page.split('class="lead"')[1].split("</p>")[0].endswith("By loss the best is done: 2.300.")
    data = json.loads(page.split('<script id="data" type="application/json">')[1].split("</script>")[0])
    assert data["panels"][0]["curves"][1][1] == {
        "step": [10, 20, 30, 40], "tokens": [5120, 10240, 15360, 20480], "value": [
            float(f"{value:.6g}") for value in curve(runs[1], "eval_loss")[1]]}


def test_on_a_terminal_the_best_is_starred(root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    recipe.main(["done", "faster/"])
    out = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["loss"] == ["2.300*", "2.700", "+0.400"] and rows["training.learning_rate"] == ["0.001", "0.003"]
    kind = "(BERT pretraining, bert-tiny)"
    assert out.splitlines()[:2] == [f"1  done  {kind}", f"2  faster  {kind}"]
    assert "runs/compare-runs/done-and-faster.html" in out
    assert (root / "runs/compare-runs/done-and-faster.png").is_file()
    assert max(map(len, out.splitlines())) <= 80
    assert in_words(pair(root)) in out
    for arguments, said in ((["done"], "two or more"), (["done", "done/"], "two or more"),
                            (["done", "nowhere"], "nowhere: is no run"),
                            (["done", "faster", "--output", "x.pdf"], "must end in .html")):
        with pytest.raises(UserError, match=said):
            recipe.main(arguments)
