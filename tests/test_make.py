"""What a person gives to make arrives at the recipe letter by letter: really by make, and a Python that says its words.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import small

SAYS = """#!/bin/sh
for word in "$@"; do printf '%s\\0' "$word" >> said; done
"""
HOSTILE = ["it costs $5 at $HOME", "my file.csv", "it's \"plain\"", "a; touch RAN", "x $(shell touch RAN) y",
           "`touch RAN` && touch RAN | touch RAN > RAN", "C:\\new\\table\\", "100 % # no comment", "$$ ${HOME} $(HOME)",
           "two  blanks, one behind ", "a,b)c(d", "*.csv ?", "--text", "é ∑ 文"]

# Target → what it takes, with the words that come before it.
TAKES = {
    "train-tokenizer": {"CONFIG": ["--config"]}, "evaluate-tokenizers": {"CONFIG": ["--config"]},
    "show-batch": {"CONFIG": ["--pretraining"], "STEP": ["--step"]},
    "pretrain-bert": {"CONFIG": ["--config"]}, "pretrain-gpt": {"CONFIG": ["--config"]},
    "sample-forecasts": {"CONFIG": ["--config"]}, "finetune-text": {"CONFIG": ["--config"]},
    "finetune-seq2seq": {"CONFIG": ["--config"]}, "compare-seq2seq": {"CONFIG": ["--config"]},
    "compare-text": {"CONFIG": ["--config"]}, "transfer": {"CONFIG": ["--config"]},
    "word-vectors": {"CONFIG": ["--config"]}, "finetune-series": {"CONFIG": ["--config"]},
    "forda-lab": {"CONFIG": ["--config"], "FORDA": ["--forda"]}, "fibonacci": {"CONFIG": ["--config"]},
    "compare-series": {"CONFIG": ["--config"], "MODEL": ["--text_model"]}, "forecast": {"CONFIG": ["--config"]},
    "nano-gpt": {"CONFIG": ["--config"]}, "shakespeare-char": {"CONFIG": ["--config"]},
    "sweep": {"CONFIG": ["--config"]}, "bench": {"CONFIG": ["--config"]},
    "bench-gpu": {"CONFIG": ["--config"], "NANOGPT": ["--nanogpt"]}, "bench-text": {"CONFIG": ["--config"]},
    "bench-seq2seq": {"CONFIG": ["--config"]}, "bench-series": {"CONFIG": ["--config"]},
    "bench-data": {"CONFIG": ["--config"]},
    "card": {"RUN": ["recipes/card.py"]}, "report": {"RUN": ["recipes/report.py"]},
    "push": {"RUN": ["--run"], "REPO": ["--repo"]},
    "predict": {"MODEL": ["recipes/predict.py"], "FILE": ["m"]}, "chat": {"MODEL": ["recipes/chat.py"]},
    "app": {"MODEL": ["recipes/app.py"]},
    "attention": {"MODEL": ["recipes/attention.py"], "SERIES": ["--series"], "ROW": ["--row"]},
    "probe-bias": {"MODEL": ["recipes/probe_bias.py"], "PAIRS": ["--pairs"]},
    "runs": {"DIR": ["recipes/list_runs.py"]}, "test-same": {"BASE": ["--base"]},
}


@pytest.fixture
def checkout(tmp_path):
    shutil.copy(small.ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = tmp_path / ".venv/bin/python"
    python.write_text(SAYS)
    python.chmod(0o755)
    return tmp_path


def made(checkout: Path, target: str, *given: str, **environment: str) -> list[str]:
    """The words that the recipe of a target is started with."""
    (checkout / "said").unlink(missing_ok=True)
    done = subprocess.run(["make", "--no-print-directory", "--old-file=.venv/installed", target, *given], cwd=checkout,
                          env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not (checkout / "RAN").exists()
    return (checkout / "said").read_bytes().decode().split("\0")[:-1]


@pytest.mark.parametrize(("target", "name"), [(target, name) for target, names in TAKES.items() for name in names])
def test_every_value_arrives_letter_by_letter(checkout, target, name):
    more = ["MODEL=m"] if name == "FILE" else []
    for value in (HOSTILE if target in ("predict", "finetune-text") else HOSTILE[:5]):
        words = made(checkout, target, *more, f"{name}={value}")
        before = TAKES[target][name]
        assert any(words[place:place + len(before) + 1] == [*before, value] for place in range(len(words))), words


@pytest.mark.parametrize("value", HOSTILE)
def test_a_text_arrives_whatever_it_begins_with(checkout, value):
    assert f"--text={value}" in made(checkout, "attention", "MODEL=m", f"TEXT={value}")
    assert f"--text={value}" in made(checkout, "attention", "MODEL=m", TEXT=value), "of the environment"
    assert f"--target={value}" in made(checkout, "attention", "MODEL=m", "TEXT=a", f"TARGET={value}")


def test_what_is_not_given_is_no_word(checkout):
    assert made(checkout, "predict") == ["recipes/predict.py"]
    assert made(checkout, "pretrain-bert") == ["recipes/pretrain_bert.py"]
    assert made(checkout, "transfer") == ["recipes/transfer.py", "--config", "recipes/configs/transfer.yaml"]


def test_arguments_are_words_of_the_shell(checkout):
    assert made(checkout, "chat", "MODEL=m", "ARGS=--temperature 0 --stop 'a b'") == [
        "recipes/chat.py", "m", "--temperature", "0", "--stop", "a b"]
    assert made(checkout, "compare-runs", "RUNS='my run' b") == ["recipes/compare_runs.py", "my run", "b"]


def shown(*arguments: str) -> list[str]:
    done = subprocess.run(["make", "--no-print-directory", *arguments], cwd=small.ROOT, capture_output=True, text=True,
                          check=True)
    return done.stdout.splitlines()


def test_make_alone_fits_a_small_terminal_and_begins_with_the_demo():
    """24 lines of 80 columns, of which the shell's prompt takes one."""
    text = (small.ROOT / "Makefile").read_text(encoding="utf-8")
    lines = shown()
    assert len(lines) <= 23 and max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["start", "here", "demo"]
    groups = [line[:17].strip() for line in lines[:-2]]
    assert [group for group in groups if group] == ["start here", "your text", "your signals", "look", "publish",
                                                    "measure"]
    for line in lines[:-2]:
        assert f"\n{line[17:].split()[0]}: install" in text, line
    for config in re.findall(r"CONFIG=(\S+)", "\n".join(lines)):
        assert (small.ROOT / config).exists()


def test_make_has_nothing_to_warn_of():
    """Of a target with two recipes it would say so before everything else, whatever it is asked for."""
    done = subprocess.run(["make", "help"], cwd=small.ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_help_all_lists_every_target():
    lines = shown("help-all")
    text = (small.ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*?[^\\])$", text, re.MULTILINE | re.DOTALL)[1].replace("\\", "").split())
    assert {line.split()[0] for line in lines if not line.startswith(" ")} == targets
    assert max(map(len, lines)) <= 80


def test_a_line_break_is_refused(checkout):
    done = subprocess.run(["make", "attention", "MODEL=m", "TEXT=a\ntouch RAN"], cwd=checkout, capture_output=True,
                          text=True)
    assert done.returncode and "TEXT has a line break in it" in done.stderr and not (checkout / "RAN").exists()


def test_no_target_is_forgotten():
    """Every variable that the Makefile takes as it is stands in the table, with every target that names it."""
    text = (small.ROOT / "Makefile").read_text(encoding="utf-8")
    literal = set(re.search(r"^LITERAL := (.*)", text, re.MULTILINE)[1].split())
    rules = re.findall(r"^([a-z0-9-]+):.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    used = {target: {name for name in literal if re.search(rf"\$\({name}\)", body)} | (
        {"CONFIG"} if "RECIPE_ARGS" in body or "SERIES_CONFIG" in body else set()) for target, body in rules}
    assert {target: names - {"TEXT", "TARGET"} for target, names in used.items() if names} == {
        target: set(names) for target, names in TAKES.items()}
