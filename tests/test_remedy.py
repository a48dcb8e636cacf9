"""An error about what is missing ends in the command that makes it."""

import shlex
import subprocess
from dataclasses import dataclass

import pytest
import small

from toolkit.options.option_help import help_text
from toolkit.remedy import command_apart, command_in, remedy

BERT = "recipes/configs/bert-5min.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("path", "command"), [
    ("runs/bert-5min/model", f"make pretrain-bert CONFIG={BERT}"),
    ("runs/bert-5min", f"make pretrain-bert CONFIG={BERT}"),
    ("runs/demo/bert/model", "make demo"), ("runs/demo/data", "make demo"), ("runs", "make demo"),
    ("runs/word-vectors-books/skip-gram.txt",
     "make word-vectors CONFIG=recipes/configs/word-vectors-books.yaml")])
def test_what_a_config_that_ships_makes(path, command):
    assert remedy(f"{path}: is not there.", []) == f" Make it first: {command}"


@pytest.mark.parametrize("error", ["runs/mine/model: is not there.", "/runs/bert-5min: is not there.", "No path.",
                                   "runs/bert-5min: no run. Make one: make pretrain-bert CONFIG=mine.yaml"])
def test_of_others_nothing_is_said(error):
    assert remedy(error, []) == ""


def test_what_is_there_is_not_made_again(tmp_path):
    (tmp_path / "runs/bert-5min/model").mkdir(parents=True)
    assert remedy("runs/bert-5min/model: was started with another configuration.", []) == ""
    (tmp_path / "runs/bert-5min/result.json").write_text("{}")
    assert remedy("runs/bert-5min/other: is not there.", []) == ""


@pytest.mark.parametrize("words", [["--config", BERT], [f"--config={BERT}", "--seed", "1"]])
def test_example_data_are_to_be_replaced(words):
    text = remedy("../shared/data/books: no such file or folder.", words)
    assert text == (f" It is example data; name your own: make pretrain-bert CONFIG={BERT} "
                    """ARGS="--corpus.sources … --probes.sets '{}'\"""")
    assert remedy("my/books: no such file or folder.", words) == ""


def test_a_file_beside_its_config_is_found(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.yaml").write_text("seed: 0\n")
    (tmp_path / "configs/b.csv").write_text("")
    assert remedy("b.csv: is not there.", ["--config", "configs/a.yaml"]).startswith(" There is configs/b.csv: paths")
    assert remedy("b.csv: is not there.", ["--config"]) == ""


@pytest.mark.parametrize("config", sorted((small.ROOT / "recipes/configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_says_what_it_is_for(config):
    assert command_in(config).endswith(f" CONFIG=recipes/configs/{config.name}")


@dataclass
class Nothing:
    pass


COMMAND = 'make attention MODEL=runs/bert-5min TEXT="the captain went back to the river"'


def test_a_command_that_the_terminal_has_no_room_for_can_be_copied():
    line = f"error: MODEL is missing. For example: {COMMAND}"
    assert command_apart(line, 200) == line
    first, *copied = command_apart(line, 60).splitlines()
    assert first == "error: MODEL is missing. For example:" and max(map(len, copied)) <= 60 and len(copied) == 2
    words = subprocess.run(["bash", "-c", "\n".join(copied).replace("make ", "printf '%s\\n' ")], capture_output=True,
                           text=True, check=True).stdout.splitlines()
    assert words == shlex.split(COMMAND)[1:]


def test_examples_of_help_are_commands_at_any_width(monkeypatch):
    """What is said of one stands before it where there is no room behind."""
    monkeypatch.setenv("COLUMNS", "62")
    lines = help_text(Nothing, f"A recipe.\n\n    {COMMAND}   # the maps", [], False).splitlines()
    command, _, text = COMMAND.partition(" TEXT")
    assert lines[2:5] == ["    # the maps", f"    {command} \\", f"    TEXT{text}"]
    assert max(map(len, lines)) <= 60
