"""The last lines of a recipe: what came out beside guessing, what is there, a command that can be typed."""

import shlex
import subprocess

import pandas
import predict
import pytest
import small

from toolkit.report.ending import answer_of, command, ending
from toolkit.run.results import Results, Row

OLD = small.ROOT / "tests/fixtures/old"


def rows(metric: str, **values: float) -> list[Row]:
    names = {"pretrained": ("bert, pretrained", "bert, random", "pretrained"), "random": ("bert, random", "", "random")}
    return [Row("e", *[names.get(name, (name,))[0]], 0, {metric: value}, start=names.get(name, ("", "", ""))[2],
                reference=names.get(name, ("", ""))[1]) for name, value in values.items()]


@pytest.mark.parametrize("results, said", [
    (Results("e", "accuracy", rows("accuracy", majority=0.125, random=0.4, pretrained=0.5)),
     "test accuracy: bert, pretrained 50.0 %; bert, random 40.0 %; majority 12.5 %"),
    (Results("e", "mse", rows("mse", random=0.0123)), "test mse: bert, random 0.0123")])
def test_the_arm_it_is_about_beside_guessing(results, said):
    assert answer_of(results) == said


def test_what_is_there_is_named_and_nothing_else(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "a.json").touch()
    said = ending(tmp_path, "make runs", "loss 1.2; 2.3 by guessing", results=tmp_path / "a.json", page=tmp_path / "no")
    assert said.splitlines() == ["", "loss 1.2; 2.3 by guessing", f"model:    {tmp_path}/model",
                                 f"results:  {tmp_path}/a.json", "next:     make runs"]


def test_a_long_command_is_of_several_lines_and_is_still_one(tmp_path):
    following = command("make finetune-text", models="{bert: runs/a-long-name/model}", output_dir="runs/a-long-text")
    lines = ending(tmp_path, following, "loss 1").splitlines()
    assert len(lines) == 4 and all(len(line) <= 78 for line in lines) and lines[2].endswith(" \\")
    typed = "\n".join(lines[2:]).removeprefix("next:")
    said = subprocess.run(["bash", "-c", f"printf '%s|' {typed}"], capture_output=True, text=True, check=True).stdout
    assert [word.split() for word in said.split("|")] == [word.split() for word in [*shlex.split(following), ""]]
    single = command("make predict", {"MODEL": "runs/" + "it is " * 20})
    *_, first, second = ending(tmp_path, single, "loss 1").splitlines()
    assert [first, second.strip()] == ["next:  make predict \\", single.removeprefix("make predict ")], "nor in quotes"


@pytest.mark.parametrize("run", ["text", "series", "forecast/chaos", "compare-text/words", "transfer"])
def test_of_what_earlier_versions_left(run):
    answer = ending(OLD / run, "make runs").splitlines()[1]
    assert answer.startswith("test ") and all(len(part.split()) > 1 for part in answer.split("; "))


def test_commands_arrive_as_they_are_meant():
    """Whatever a path has in it."""
    for path in ("runs/a", "runs/it's mine", 'a "b"', "$HOME `x`"):
        words = shlex.split(command("make predict", {"MODEL": path}, output_dir=path))
        assert words[:3] == ["make", "predict", f"MODEL={path}"]
        assert shlex.split(words[3].removeprefix("ARGS=")) == ["--output_dir", path]
    assert command("make finetune-text", models="{bert: runs/b/model}") == (
        """make finetune-text ARGS="--models '{bert: runs/b/model}'\"""")


def test_what_is_of_no_run_names_what_was_written_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("somebody else's")
    (tmp_path / "a.csv").touch()
    assert ending(None, "make runs", "2 answers", answers="a.csv").splitlines() == [
        "", "2 answers", "answers:  a.csv", "next:     make runs"]


@pytest.mark.parametrize("table, said", [
    ({"label": list("aab"), "p(a)": [0.9, 0.8, 0.1]}, "3 answers: “a” 2, “b” 1"),
    ({"label": list("abc"), "decision": list("bbb"), "p(a)": [0.9, 0.8, 0.1]}, "3 answers: “b” 3"),
    ({"label": list("abcdef")}, "6 answers: “a” 1, “b” 1, “c” 1, “d” 1 and 2 other classes"),
    ({"labels": [["a", "b"], [], ["a"]], "p(a)": [1, 0, 1]}, "3 answers: “a” 2, “b” 1, “no label” 1"),
    ({"value": [1.0, 2.0, 6.0], "text": list("abc")}, "3 answers: from 1 to 6, mean 3"),
    ({"prediction": ["x"], "text": ["y"]}, "1 answer written"),
    ({"step": [1, 2], "channel": ["a", "a"], "value": [0.1, 0.2]}, "2 steps ahead, 2 values")])
def test_the_answers_of_a_model_in_a_line(table, said):
    assert predict.answer_of(pandas.DataFrame(table)) == said
