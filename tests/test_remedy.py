"""An error about what is missing ends in the command that makes it."""

import pytest
import small

from toolkit.remedy import command_in, remedy

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
