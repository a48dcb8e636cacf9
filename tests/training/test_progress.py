"""What is told while a model learns: one line of at most 78 columns, on a terminal or in a log."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import sys
import termios
import textwrap

import numpy as np
import pytest
import small
from rich.cells import cell_len
from toy import Toy

from toolkit.experiments.fibonacci import FibonacciConfig, Windows, make_model, split_series
from toolkit.shown import Terminal
from toolkit.tasks.classification import FineTuning, FineTuningConfig
from toolkit.training import trainer as loop
from toolkit.training.observers.base import LossShown, Training
from toolkit.training.observers.progress import Learning
from toolkit.training.task import TrainingConfig


def learning(title: str = "BERT", used: float = 0.34, **loss) -> Learning:
    found = Learning(Training("", title, unit="tokens", loss=LossShown(**{"guessing": 7.3312, **loss})))
    found.log({"step": 1240, "loss": 6.4487, "tokens_per_second": 21480.3, "mfu": 0.631, "data_wait": 0.002,
               "peak_memory_mb": 812.3})
    found.log({"step": 1240, "eval_loss": 6.4021})
    found.used = used
    found.began -= 60
    return found


def test_what_is_told():
    found = learning()
    assert found.line(120) == ("BERT  34 %  step 1,240  loss 6.45  val 6.40  guess 7.33  21,480 tokens/s  "
                               "2 min left")
    assert found.line() == "BERT  34 %  step 1,240  loss 6.45  val 6.40  guess 7.33  21k tok/s  2 min left"
    whole = "small-masked-patches, horizon 24, seed 0"
    assert learning(whole).line().startswith("small-masked-…on 24, seed 0  34 %  loss 6.45")
    assert learning(name="mse").line().startswith("BERT  34 %  step 1,240  mse 6.45")
    assert found.summary({"loss": 6.3, "best_step": 1100}) == (
        "BERT  1,240 steps in 60 s  loss 6.45  val 6.30  guess 7.33  kept: step 1,100\n"
        "  21,480 tokens/s, 63 % of the matmul peak, 0.2 % waiting, 812 MB")


@pytest.mark.parametrize("name", ["B", "bert, pretrained, seed 0", "a set of a long name " * 9, "時系列" * 20,
                                  "a\nb\x1b[2J"])
@pytest.mark.parametrize("width", [24, 40, 60, 78])
def test_it_fits(name, width):
    """Whatever its name and its numbers, and however many columns a sign of it takes."""
    for value in (0.0, 3.2e-7, 0.0123, 12.3456, 98765.4, -3e9, float("nan")):
        found = learning(name, guessing=value)
        for used in (0.0, 1e-4, 0.5, 1.0):
            found.used = used
            line = found.line(width)
            assert cell_len(line) <= width and line.isprintable()
            assert all(cell_len(part) <= 78 for part in found.summary({"loss": value, "best_step": 7}).split("\n"))


def test_lines_where_there_is_no_terminal(tmp_path, monkeypatch, capfd):
    """One each half minute, and the last; a line that changes would fill a log with its pieces."""
    config = TrainingConfig(max_steps=12, batch_size=4, logging_steps=1, save_steps=0)
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    class Slow(Toy):
        def counts(self, batch):
            now[0] += 8
            return super().counts(batch)

    small.train(Slow([1.0]), tmp_path, config)
    said = capfd.readouterr()
    lines = [line for line in said.out.splitlines() if line.startswith("training  ")]
    assert [re.search("step [0-9]+", line)[0] for line in lines[:-1]] == ["step 3", "step 7", "step 11"]
    assert all(len(line) <= 78 and "tokens/s" in line and "loss " in line for line in lines[:-1])
    assert "training" not in said.err and "\r" not in said.out
    assert lines[-1].startswith("training  12 steps in ") and "val 1.00" in lines[-1]
    assert "of the matmul peak" in said.out.splitlines()[-1] and said.out.count("matmul peak") == 1


def test_a_short_run_prints_its_last_line(tmp_path, capfd):
    small.train(Toy([1.0]), tmp_path, TrainingConfig(max_steps=3, batch_size=4, logging_steps=1, save_steps=0))
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("training  ")]
    assert len(lines) == 1 and lines[0].startswith("training  3 steps in ")


def test_a_run_that_had_ended_says_nothing_again(tmp_path, capfd):
    config = TrainingConfig(max_steps=3, batch_size=4, logging_steps=1)
    small.train(Toy([1.0]), tmp_path, config)
    capfd.readouterr()
    small.train(Toy([1.0]), tmp_path, config)
    assert "training  " not in capfd.readouterr().out


def test_losses_are_named_by_their_task_and_values_are_not_called_tokens(tmp_path, capfd):
    """Nor is what comes first in a batch what is counted."""
    settings = FibonacciConfig(numbers=300)
    data = [Windows(part, settings.window, 4, 0) for part in split_series(settings)]
    task = FineTuning(make_model(settings.window, None), *data[:2], FineTuningConfig(max_steps=2, batch_size=4),
                      task="regression")
    batch = task.batch
    task.batch = lambda step, rows: {"labels": batch(step, rows)["labels"], **batch(step, rows)}
    assert small.train(task, tmp_path, task.config)["tokens"] == 2 * 4 * settings.window
    said = capfd.readouterr().out
    # In deviations of the training numbers; those of validation lie beyond them all.
    train, validation = (part.labels for part in data[:2])
    guess = np.mean((validation - train.mean()) ** 2) / train.var()
    assert re.search(rf"training  2 steps in \d s  mse [\d.]+  val [\d.]+  guess {guess:.2f}\n", said), said
    assert "classification" not in said
    assert "classification_loss" in small.records(tmp_path)[0], "the keys of metrics.jsonl are what they were"


TRAINS = """
    import sys
    sys.path[:0] = [{shared!r}, {tests!r}]
    import small
    from toy import Toy
    from toolkit import cli
    from toolkit.training.task import TrainingConfig
    from toolkit.training.observers import progress
    progress.OnTerminal.every = 0.0
    class Telling(Toy):
        def counts(self, batch):
            print("told meanwhile, on a line that is longer than any terminal of these tests is wide, "
                  "\\x1b[2Jand whose end is /a/path.json")
            return super().counts(batch)
    def main(argv):
        small.train(Telling([1.0]), {directory!r}, TrainingConfig(max_steps={steps}, batch_size=4, logging_steps=1))
        print("done")
    cli.run(main)
"""


def on_a_terminal(code: str, columns: int, interrupt_at: bytes = b"") -> tuple[int, bytes]:
    """Exit status and all that was written of a process on a terminal of so many columns; Ctrl-C when it has said
    `interrupt_at`.
    """
    pid, descriptor = pty.fork()
    if not pid:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        os.execve(sys.executable, [sys.executable, "-c", textwrap.dedent(code)], {**own, "TERM": "xterm"})
    said = b""
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # how Linux says that the other side has ended
            part = b""
        if not part:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said
        said += part
        if interrupt_at and said.count(interrupt_at) > 2:
            os.write(descriptor, b"\x03")
            interrupt_at = b""


def screen(said: bytes) -> list[str]:
    """The lines that are left on a terminal of any width: what was written, moved in and erased."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\x1b\[[\d;?]*[A-Za-z]|\r|\n)", said.decode()):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\r":
            column = 0
        elif part.startswith("\x1b["):
            assert part in ("\x1b[2K", "\x1b[1A"), f"{part!r} is more than a line needs"
            if part == "\x1b[2K":
                lines[row] = ""
            else:
                row -= 1
        else:
            assert part.isprintable(), f"{part!r}"
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part):]
            column += len(part)
    return lines


@pytest.mark.parametrize("columns", [pytest.param(50, marks=pytest.mark.slow), 80])
def test_one_line_on_a_terminal(tmp_path, columns):
    """It is drawn in its place; what is printed meanwhile stands above it, and strangers' signs steer nothing."""
    code = TRAINS.format(shared=str(small.ROOT / "tests/shared"), tests=str(small.ROOT / "tests/training"),
                         directory=str(tmp_path), steps=5)
    status, said = on_a_terminal(code, columns)
    assert status == 0, said.decode()
    drawn = re.findall(rb"training +\d+ %[^\r\x1b]*", said)
    assert len(drawn) >= 5 and all(len(line) <= min(78, columns - 1) for line in drawn)
    assert b"loss" in drawn[-1] and b"left" in drawn[-1]
    left = screen(said)
    assert sum("told meanwhile" in line for line in left) >= 5
    assert " ".join(left).count("/a/path.json") >= 5
    assert not any(re.search(r"training +\d+ %", line) for line in left), "the line that changes is gone"
    assert any(line.startswith("training  5 steps in ") for line in left) and "done" in left


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_saves_and_says_so(tmp_path):
    code = TRAINS.format(shared=str(small.ROOT / "tests/shared"), tests=str(small.ROOT / "tests/training"),
                         directory=str(tmp_path), steps=100_000)
    status, said = on_a_terminal(code, 80, interrupt_at=b"told meanwhile")
    assert status == 128 + signal.SIGINT, said[-2000:].decode()
    left = screen(said)
    assert any("same command" in line for line in left[-4:]), left[-6:]
    assert list((tmp_path / "checkpoints").glob("step-*")), "it was saved"


def test_a_file_gets_what_is_printed_while_the_terminal_shows_the_line(tmp_path, monkeypatch):
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", Terminal(shown, steered=True))
    kept = io.StringIO()
    monkeypatch.setattr(sys, "stdout", kept)

    class Telling(Toy):
        def counts(self, batch):
            print("told meanwhile")
            return super().counts(batch)

    small.train(Telling([1.0]), tmp_path, TrainingConfig(max_steps=3, batch_size=4, logging_steps=1, save_steps=0))
    assert kept.getvalue().count("told meanwhile\n") >= 3 and "\x1b" not in kept.getvalue()
    assert "told" not in shown.getvalue() and "training" in shown.getvalue()
