"""Dataclasses ⇄ YAML ⇄ command line: what is accepted, and how mistakes read."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from toolkit import config
from toolkit.errors import UserError


@dataclass
class Optimiser:
    COMMON = ("name",)

    name: Literal["adamw", "muon"] = "adamw"
    """Which one."""
    learning_rate: float = 1e-3
    """The peak,
    after warm-up."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    steps: int | None = None


@dataclass
class Settings:
    output_dir: str
    """Where to."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    sources: list[str] = field(default_factory=list)
    title: str | None = None
    dropout: float = 0.0
    compiled: bool = False
    seed: int = 0


def parsed(tmp_path: Path, text: str, *arguments: str) -> Settings:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return config.parse(Settings, ["--config", str(path), *arguments], "Test.")


def test_defaults_then_file_then_command_line(tmp_path):
    text = "output_dir: here\noptimiser:\n  learning_rate: 0.5\n  name: muon\nseed: 3\n"
    assert parsed(tmp_path, text, "--optimiser.learning_rate", "1e-2", "--seed=7") == Settings(
        "here", Optimiser("muon", 0.01), seed=7)


def test_the_command_line_alone_is_enough():
    settings = config.parse(Settings, ["--output_dir", "runs/a", "--optimiser.name=muon"], "Test.")
    assert settings == Settings("runs/a", Optimiser("muon"))


@pytest.mark.parametrize("section", ["optimiser:\n", "optimiser: {}\n", ""])
def test_an_empty_section_takes_its_defaults_and_overrides(tmp_path, section):
    assert parsed(tmp_path, "output_dir: a\n" + section) == Settings("a")
    assert parsed(tmp_path, "output_dir: a\n" + section, "--optimiser.steps", "5").optimiser.steps == 5


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [("optimiser.learning_rate", "1e-3", 1e-3), ("optimiser.learning_rate", "2", 2.0), ("dropout", "5E-2", 0.05),
     ("seed", "12", 12), ("seed", "-1", -1), ("seed", "3.0", 3), ("compiled", "true", True), ("compiled", "no", False),
     ("optimiser.betas", "[0.8, 1e-1]", [0.8, 0.1]), ("optimiser.betas", "0.5", [0.5]),
     ("optimiser.steps", "10", 10), ("optimiser.steps", "null", None), ("optimiser.steps", "none", None),
     ("optimiser.steps", "None", None),
     ("sources", "[a.txt, b/c]", ["a.txt", "b/c"]), ("sources", "a.txt", ["a.txt"]), ("sources", "2024", ["2024"]),
     ("output_dir", "2024", "2024"), ("output_dir", "runs/a=b", "runs/a=b"), ("output_dir", "no", "no"),
     ("title", "A: b", "A: b"), ("title", "2024", "2024"), ("title", "null", None)],
)
@pytest.mark.parametrize("joined", [True, False])
def test_values_on_the_command_line(tmp_path, option, text, expected, joined):
    arguments = [f"--{option}={text}"] if joined else [f"--{option}", text]
    value = parsed(tmp_path, "output_dir: a\n", *arguments)
    for name in option.split("."):
        value = getattr(value, name)
    assert value == expected
    assert type(value) is type(expected)


def test_what_is_dumped_reads_back_the_same(tmp_path):
    settings = Settings("ä: #", Optimiser("muon", 1e-5, [1e-8], 3), ["x"], "no", 1e-30, True, 2)
    assert config.from_dict(Settings, yaml.safe_load(config.dump(settings))) == settings
    (tmp_path / "dumped.yaml").write_text(config.dump(settings), encoding="utf-8")
    assert config.parse(Settings, ["--config", str(tmp_path / "dumped.yaml")], "") == settings
    assert list(yaml.safe_load(config.dump(settings))) == [
        "output_dir", "optimiser", "sources", "title", "dropout", "compiled", "seed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("output_dir: a\nsede: 1", "unknown key 'sede'. Did you mean 'seed'?"),
     ("output_dir: a\noptimizer:\n  steps: 1", "unknown key 'optimizer'. Did you mean 'optimiser'?"),
     ("output_dir: a\noptimiser:\n  learning_rat: 1", "'optimiser.learning_rat'. Did you mean 'learning_rate'?"),
     ("output_dir: a\noptimiser:\n  zzz: 1", "'optimiser.zzz'. Choose from: betas, learning_rate, name, steps."),
     ("output_dir: a\noptimiser:\n  name: adamv", "'optimiser.name' is 'adamv'. Did you mean 'adamw'?"),
     ("output_dir: a\noptimiser: 3", "'optimiser' must be a mapping"),
     ("output_dir: a\nseed: many", "'seed' should be a whole number, got 'many'"),
     ("output_dir: a\nseed: 1.5", "'seed' should be a whole number, got 1.5"),
     ("output_dir: a\nseed: true", "'seed' should be a whole number, got True"),
     ("output_dir: a\ndropout: high", "'dropout' should be a number, got 'high'"),
     ("output_dir: a\ncompiled: 1", "'compiled' should be true or false, got 1"),
     ("output_dir: [a]", "'output_dir' should be text, got ['a']"),
     ("output_dir: a\noptimiser:\n  betas: [0.9, x]", "'optimiser.betas[1]' should be a number, got 'x'"),
     ("- a\n- b", "expected a mapping"),
     ("output_dir: [a", "not valid YAML"),
     ("just text", "expected a mapping")],
)
def test_a_mistake_in_the_file_names_the_file_and_the_key(tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        parsed(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'run.yaml'}: "), caught.value
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--sede", "1"], "unknown option --sede. Did you mean 'seed'?"),
     (["--optimizer.name", "muon"], "no section 'optimizer'. Did you mean 'optimiser'?"),
     (["--optimiser.nam", "muon"], "unknown option --optimiser.nam. Did you mean 'optimiser.name'?"),
     (["--learning_rate", "1"], "Did you mean 'optimiser.learning_rate'?"),
     (["--qqq", "1"], "unknown option --qqq. The nearest are --"),
     (["--seed", "x"], "'seed' should be a whole number, got 'x'"),
     (["--optimiser.name", "sgd"], "'optimiser.name' is 'sgd'"),
     (["--seed"], "--seed needs a value"),
     (["seed=3"], "unexpected 'seed=3'")],
)
def test_a_mistake_on_the_command_line_says_so(tmp_path, arguments, message):
    with pytest.raises(UserError, match="^command line: ") as caught:
        parsed(tmp_path, "output_dir: a\n", *arguments)
    assert message in str(caught.value)


def test_a_missing_required_key_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(UserError, match=r"output_dir is missing\. Give a config, or --output_dir\.$"):
        config.parse(Settings, [], "")
    with pytest.raises(UserError, match=r"--output_dir\. For example: make it CONFIG=a\.yaml$"):
        config.parse(Settings, [], "What it does.\n\n    make it CONFIG=a.yaml    # so\n    make it\n")
    (tmp_path / "asked.yaml").write_text("file: f\n")
    with pytest.raises(UserError, match=r"asked\.yaml: 'model' is missing. Set it in the YAML file or with --model"):
        config.parse(Asked, ["--config", str(tmp_path / "asked.yaml")], "")
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such config file"):
        config.parse(Settings, ["--config", str(tmp_path / "nowhere.yaml")], "")
    (tmp_path / "latin.yaml").write_bytes(b"output_dir: caf\xe9\n")
    with pytest.raises(UserError, match=r"latin\.yaml: cannot be read as a UTF-8 YAML file"):
        config.read_yaml(tmp_path / "latin.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert config.read_yaml(tmp_path / "empty.yaml") == {}


def help_of(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        config.parse(Settings, list(arguments), "What it does.")
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_all_lists_every_key_with_type_default_and_doc(capsys, flag):
    text = help_of(capsys, "--seed", "1", flag, "all")
    assert text.startswith("What it does.")
    for key in config.all_keys(Settings):
        assert f"--{key}  " in text
    assert "--output_dir  text; default runs/‹the config's name›\n      Where to." in text
    assert "--optimiser.name  adamw|muon; default adamw\n      Which one." in text
    assert "--optimiser.betas  a list of numbers; default [0.9, 0.999]" in text
    assert "--optimiser.steps  a whole number or none; default none" in text
    assert "--sources  a list of texts; default []" in text and "--compiled  true or false; default false" in text
    assert "The peak, after warm-up." in text and "other" not in text
    assert config.all_keys(Settings)[:3] == ["output_dir", "optimiser.name", "optimiser.learning_rate"]


def test_help_shows_what_is_common_first_and_says_how_many_others_there_are(capsys):
    text = help_of(capsys, "--help")
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    assert shown == ["--config", "--output_dir", "--sources", "--title", "--dropout", "--compiled", "--seed",
                     "--optimiser.name"]
    assert text.endswith("--help all lists the other 3 options as well.\n")
    assert max(map(len, text.splitlines())) <= 80


def test_an_option_that_is_like_none_gets_the_three_nearest(tmp_path):
    with pytest.raises(UserError) as caught:
        parsed(tmp_path, "output_dir: a\n", "--rate", "1")
    assert re.fullmatch(r"command line: unknown option --rate\. The nearest are (--[\w.]+), (--[\w.]+), (--[\w.]+); "
                        r"--help all lists every one\.", str(caught.value))
    assert "--optimiser.learning_rate" in str(caught.value)


@dataclass
class Budget:
    steps: int | None = config.rival()
    minutes: float | None = config.rival()
    rate: float = 0.1


@dataclass
class Longer(Budget):
    steps: int | None = 300


@dataclass
class Trained:
    training: Longer = field(default_factory=Longer)


@pytest.mark.parametrize(("text", "arguments", "expected"), [
    ("", [], (300, None)),
    ("", ["--training.minutes", "5"], (None, 5.0)),
    ("training: {steps: 7}", ["--training.minutes", "5"], (None, 5.0)),
    ("training: {minutes: 5}", ["--training.steps", "9"], (9, None)),
    ("training: {steps: 7, minutes: 5}", ["--training.steps", "9"], (9, None)),
    ("training: {steps: 7, minutes: 5}", ["--training.rate", "1"], (7, 5.0)),
    ("training: {minutes: 5}", ["--training.steps", "none"], (None, 5.0)),
    ("training: {minutes: 5}", [], (300, 5.0)),
    ("", ["--training.steps", "9", "--training.minutes", "5"], (9, 5.0)),
])
def test_of_rivals_the_one_on_the_command_line_takes_the_place_of_the_others(tmp_path, text, arguments, expected):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    training = config.parse(Trained, ["--config", str(path), *arguments], "").training
    assert (training.steps, training.minutes) == expected


@dataclass
class Placed:
    output_dir: str
    data_dir: str


@pytest.mark.parametrize(("text", "arguments", "expected"), [
    ("", [], ("runs/mine", "runs/mine/data")), ("data_dir: d", [], ("runs/mine", "d")),
    ("output_dir: o", [], ("o", "o/data")), ("", ["--output_dir", "p", "--data_dir", "e"], ("p", "e"))])
def test_a_run_is_named_by_its_config(tmp_path, text, arguments, expected):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert config.parse(Placed, ["--config", str(path), *arguments], "") == Placed(*expected)
    with pytest.raises(UserError, match=r"command line: output_dir is missing\."):
        config.parse(Placed, [], "")


@dataclass
class Checked:
    steps: int = 1

    def check_values(self, section: str) -> None:
        if self.steps < 1:
            raise UserError(f"{section}steps is {self.steps}.")


@dataclass
class Outer:
    training: Checked = field(default_factory=Checked)


def test_values_are_checked_when_options_are_read():
    assert config.parse(Outer, ["--training.steps", "2"], "").training.steps == 2
    with pytest.raises(UserError, match=r"^training\.steps is 0\.$"):
        config.parse(Outer, ["--training.steps", "0"], "")


@dataclass
class Asked:
    model: str
    """A directory."""
    file: str
    top_k: int = 5
    quick: bool = False


@dataclass
class Compared:
    folder: str = "runs"
    runs: list[str] = field(default_factory=list)


def asked(*arguments: str) -> Asked:
    return config.parse(Asked, list(arguments), "Test.", ["model", "file"])


@pytest.mark.parametrize("arguments", [
    ["a b", "2024", "--top_k", "3"], ["--top_k=3", "a b", "2024"], ["a b", "--top_k", "3", "2024"],
    ["a b", "--file", "2024", "--top_k", "3"], ["--model", "a b", "--file=2024", "--top_k=3"]])
def test_values_may_stand_without_their_names(arguments):
    assert asked(*arguments) == Asked("a b", "2024", 3)


def test_a_value_without_its_name_is_ahead_of_the_file(tmp_path):
    path = tmp_path / "asked.yaml"
    path.write_text("model: there\nfile: f\n", encoding="utf-8")
    assert asked("--config", str(path)) == Asked("there", "f")
    assert asked("here", "--config", str(path), "--quick") == Asked("here", "f", quick=True)


@pytest.mark.parametrize("names", [["a"], ["a", "b: c"], ["[a", "ä😀", "--folder", "x"]])
def test_a_list_takes_all_that_are_left(names):
    runs = [name for name in names if name not in ("--folder", "x")]
    assert config.parse(Compared, names, "", ["runs"]).runs == runs
    assert config.parse(Compared, ["x", *runs], "", ["folder", "runs"]) == Compared("x", runs)
    assert config.parse(Compared, [], "", ["runs"]) == Compared()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["m", "f", "g"], "unexpected 'g'. Expected is MODEL FILE, and options like --section.key value; a value with "
                       "blanks needs quotes."),
     (["m", "f", "--model", "n"], "model is given twice, as m and with --model. Leave one out."),
     (["--file", "f"], "MODEL is missing. Expected is MODEL FILE"),
     (["m"], "FILE is missing. Expected is MODEL FILE"),
     ([], "MODEL is missing."),
     (["m", "f", "-k"], "unexpected '-k'"),
     (["--modle", "m"], "unknown option --modle. Did you mean 'model'?")],
)
def test_a_mistake_in_values_without_names_says_so(arguments, message):
    with pytest.raises(UserError, match="^command line: ") as caught:
        asked(*arguments)
    assert message in str(caught.value)


def test_help_says_what_may_stand_without_its_name(capsys):
    with pytest.raises(SystemExit):
        asked("--help")
    assert "Without their names may stand: MODEL FILE.\n" in capsys.readouterr().out


# --- paths ---------------------------------------------------------------------------------------------------------


@dataclass
class Paths:
    output_dir: str
    sources: list[str] = field(default_factory=list)
    models: dict = field(default_factory=dict)
    separator: str = ","
    text: str = config.text()


def test_a_home_directory_is_meant_by_its_sign_in_files_and_options(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    path = tmp_path / "a.yaml"
    path.write_text("output_dir: ~/runs/x\nsources: [~/a.txt, b~/c, d.txt]\nmodels: {bert: ~/m, gpt: n}\n"
                    "separator: '~'\ntext: ~/ is my home\n")
    read = config.parse(Paths, ["--config", str(path)], "Test.")
    assert read == Paths("/home/ada/runs/x", ["/home/ada/a.txt", "b~/c", "d.txt"], {"bert": "/home/ada/m", "gpt": "n"},
                         "~", "~/ is my home")
    given = config.parse(Paths, ["--config", str(path), "--output_dir", "~/y", "--sources", "~/z", "--text", "~/"], "")
    assert (given.output_dir, given.sources, given.text) == ("/home/ada/y", ["/home/ada/z"], "~/")
    assert config.parse(Paths, ["~/p"], "Test.", ["output_dir"]).output_dir == "/home/ada/p"


def test_the_config_itself_may_lie_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my conf.yaml").write_text("output_dir: a\n")
    assert config.parse(Paths, ["--config", "~/my conf.yaml"], "Test.").output_dir == "a"


def test_what_ships_is_found_from_everywhere_unless_something_else_lies_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.read_yaml("tokenizers/wordpiece-8k.yaml")["algorithm"] == "wordpiece"
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers/wordpiece-8k.yaml").write_text("algorithm: mine\n")
    assert config.read_yaml("tokenizers/wordpiece-8k.yaml")["algorithm"] == "mine"
    with pytest.raises(UserError, match="no such config file"):
        config.read_yaml("tests/nothing.yaml")


@pytest.mark.parametrize(("asked", "meant"), [("bert-5min.yaml", "recipes/configs/bert-5min.yaml"),
                                              ("configs/bert-5min", "recipes/configs/bert-5min.yaml"),
                                              ("wordpiece-8k.yaml", "tokenizers/wordpiece-8k.yaml")])
def test_a_config_that_lies_elsewhere_is_named(tmp_path, monkeypatch, asked, meant):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"{asked}: no such config file\. Did you mean {meant}\?"):
        config.read_yaml(asked)
