"""The list of runs: a line each, as wide as the terminal; those within others counted; plain text in a pipe."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
import small
from rich.cells import cell_len

from toolkit.report.run_list import list_runs, main_figure
from toolkit.report.runs import RunFacts
from toolkit.run.results import Results, Row

NOW = 1_000_000.0
COUNTS = {"rnn": 11, "rnn-attention": 33, "rnn-mean": 11}


def run(name: str, minutes: float = 5.0, state: str = "finished", **facts) -> RunFacts:
    facts = {"kind": "BERT pretraining, bert-tiny", "figures": {"loss": 7.1, "mlm_loss": 6.449}, **facts}
    return RunFacts(name, name, state=state, changed=NOW - 60 * minutes, size=2_500_000, **facts)


def experiment(metric: str = "accuracy", size: str = "", **values: float) -> Results:
    rows = [Row("e", f"bert, {start}", seed, {metric: value * (0.9 + 0.2 * seed)}, start=start, size=size, model="bert",
                reference="bert, random" if start == "pretrained" else "")
            for start, value in values.items() for seed in (0, 1)]
    return Results("e", metric, [Row("e", "majority", 0, {metric: 0.1}, size=size), *rows])


def some_runs() -> list[RunFacts]:
    return [
        run("demo/bert"), run("demo/text", 3, kind="text fine-tuning", figures={"a": 0.5},
                              measured=experiment(random=0.4, pretrained=0.5)),
        run("fibonacci", 1, kind="Fibonacci", manifest={"parameters": COUNTS}, figures={},
            measured=experiment("mse", random=1.25e-5)),
        run("a-sweep-of-many-settings-with-a-long-name", 2, state="running", kind="other"),
        *(run(f"a-sweep-of-many-settings-with-a-long-name/setting-{number}/seed-0", 3000,
              "finished" if number else "unfinished") for number in range(4)),
        run("two", 4000, state="damaged", problem="metrics.jsonl, line 5 is broken"), run("two/part", 4000),
        run("時系列" * 9, 90)]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_line_each_that_fits(width):
    text = list_runs(some_runs(), width, now=NOW)
    table, damaged = text.split("\n\n")
    head, rule, *lines = table.splitlines()
    assert head.split() == ["run", "state", "kind", "figure", "age"]
    assert all(cell_len(line) <= width for line in (rule, *lines))
    names = [line.split("  ")[0] if line[0] != " " else line.split()[0] for line in lines]
    assert names[0] == "fibonacci" and names[3:5] == ["demo/text", "demo/bert"], "the group that changed last is first"
    assert "… 4 inside" in lines[2] and "1 unf" in lines[2] and "seed-0" not in text
    assert names[-1] == "part" and lines[-1].startswith("  part"), "under the run that it is in"
    assert damaged == "damaged: two: metrics.jsonl, line 5 is broken"
    assert "{" not in text and "50.0 %, rando" in text and "6.45" in text
    assert ("bert-tiny pretraining" not in text) and ("BERT pretraining" in text) == (width >= 100)


def test_all_that_is_known_in_long_lines():
    text = list_runs(some_runs(), 80, wide=True, now=NOW)
    assert "11 … 33" in text and "2.5 MB" in text and "loss 7.1, mlm_loss 6.449" in text and "…  " not in text
    assert text.count("seed-0") == 4 and "{" not in text


@pytest.mark.parametrize("facts, said", [
    ({}, "mlm 6.45"), ({"figures": {"loss": 3.0, "bits_per_byte": 2.068}}, "bits per byte 2.07"),
    ({"figures": {"training loss": 7.25}}, "training loss 7.25"), ({"figures": {}}, ""),
    ({"measured": experiment("mse", "96", random=0.42, pretrained=0.401)}, "mse 0.401, random 0.42"),
    ({"measured": experiment("f1", random=0.42, pretrained=0.4)}, "f1 40.0 %, random 42.0"),
    ({"measured": Results("e", "mse", [Row("e", "naive", 0, {"mse": 2.0}, run="naive"),
                                       Row("e", "a", 0, {"mse": 1.5}, reference="naive", start="masked-patches")])},
     "mse 1.5, beside 2"),
    ({"measured": experiment(random=0.9)}, "90.0 %"), ({"measured": Results("e", "accuracy", [])}, "")])
def test_the_figure_that_a_run_is_judged_by(facts, said):
    assert main_figure(run("a", **facts)) == said


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_and_in_a_pipe(columns, tmp_path):
    """What earlier versions left, each kind of run once."""
    command = [sys.executable, str(small.ROOT / "recipes/list_runs.py"), str(small.ROOT / "tests/fixtures/old")]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    piped = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    listed, _, below = piped.partition("\n\n")
    assert below.splitlines()[-1].startswith("next: make report RUN=")
    assert "old/" not in listed and "compare-series/generated/cylinder-bell-funnel " in piped and "…" not in piped
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        said = b""
        while part := _read(master):
            said += part
    lines = said.decode().replace("\r\n", "\n").splitlines()
    assert process.returncode == 0 and "\x1b" not in said.decode()
    listing = lines[:lines.index("")]
    assert max(map(len, listing)) <= columns and len(listing) == len(listed.splitlines())


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # how Linux says that the other side has ended
        return b""
