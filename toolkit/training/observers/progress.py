"""What is told while a model learns: one line that changes on a terminal, a line every half minute in a log."""

import sys
import time

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from toolkit.shown import on_one_line
from toolkit.training.observers.base import Observer, Training
from toolkit.training.observers.throughput import duration, efficiency

WIDTH = 78
SHORTEST_NAME = 12
EVERY_SECONDS = {"terminal": 0.5, "log": 30.0}
LONG_SECONDS = 60.0
"""A training that took less is not asked how well it used the machine."""


class Learning:
    """What a training has come to so far, in one line of at most so many columns."""

    def __init__(self, training: Training):
        self.training, self.began, self.used = training, time.monotonic(), min(1.0, training.used)
        self.record: dict = {}
        self.validation: float | None = None
        self.speeds: list[dict] = []

    def log(self, record: dict) -> None:
        if self.training.loss.validation in record:
            self.validation = record[self.training.loss.validation]
        if self.training.loss.training in record:
            self.record = record
            self.speeds.append(record)

    def line(self, width: int = WIDTH) -> str:
        """Name, share done, step, losses, speed, time left; where there is no room for all, the speed goes first, then
        the step, then the end of the name.
        """
        losses = self._losses(self.record.get(self.training.loss.training), self.validation)
        done, left, unit = f"{100 * self.used:.0f} %", self._left(), self.training.unit
        step = f"step {self.record['step']:,}" if self.record else ""
        speed = self.record.get("tokens_per_second", 0)
        exact = f"{speed:,.0f} {unit}/s" * bool(speed)
        rough = f"{_rounded(speed)} {unit.replace('tokens', 'tok')}/s" * bool(speed)
        name = on_one_line(self.training.name)
        for parts in ((name, done, step, losses, exact, left), (name, done, step, losses, rough, left),
                      (name, done, step, losses, left), (name, done, losses, left)):
            if cell_len(line := _joined(parts)) <= width:
                return line
        room = width - cell_len(_joined((done, losses, left))) - 2
        if room < min(SHORTEST_NAME, cell_len(name)):
            return set_cell_size(_joined((done, losses, left)), width).rstrip()
        return _joined((_cut(name, room), done, losses, left))

    def summary(self, kept: dict) -> str:
        """Once, at the end: what was learned; then, of a longer one, how well the machine was used."""
        loss, seconds = self.training.loss, time.monotonic() - self.began
        steps = self.record["step"] - self.training.step
        best = kept.get(loss.validation.removeprefix("eval_"))
        losses = self._losses(self.record[loss.training], best)
        ends = (f"{steps:,} steps in {duration(seconds)}", losses,
                f"kept: step {kept['best_step']:,}" if kept.get("best_step", 0) not in (0, self.record["step"]) else "")
        name = on_one_line(self.training.name)
        ends = ends if cell_len(_joined((name, *ends))) <= WIDTH else ends[:2]
        line = _joined((_cut(name, WIDTH - cell_len(_joined(ends)) - 2), *ends))
        if seconds < LONG_SECONDS:
            return line
        return f"{line}\n  {efficiency(self.speeds, self.training.unit)}"

    def _losses(self, training: float | None, validation: float | None) -> str:
        loss = self.training.loss
        named = ((loss.name, training), ("val", validation), (loss.guess, loss.guessing))
        return "  ".join(f"{name} {_digits(value)}" for name, value in named if value is not None)

    def _left(self) -> str:
        share = self.used - self.training.used
        if share <= 0:
            return ""
        return f"{duration((time.monotonic() - self.began) / share * (1 - self.used))} left"


class InLog(Observer):
    """A line every half minute, and one at the end."""

    every = EVERY_SECONDS["log"]

    def __init__(self, training: Training):
        self.learning = Learning(training)
        self.shown = time.monotonic()

    def log(self, record: dict) -> None:
        self.learning.log(record)

    def update(self, used: float) -> None:
        self.learning.used = min(1.0, used)
        if (now := time.monotonic()) - self.shown >= self.every:
            self.shown = now
            self.show()

    def show(self) -> None:
        if self.learning.record:
            print(self.learning.line(), flush=True)

    def ended(self, kept: dict) -> None:
        self.close()
        if self.learning.record:  # else it had ended before
            print(self.learning.summary(kept), flush=True)


class OnTerminal(InLog):
    """One line in its place, below what is printed meanwhile; nothing of it stays."""

    every = EVERY_SECONDS["terminal"]

    def __init__(self, training: Training):
        super().__init__(training)
        console = _Console(stderr=True, color_system=None, highlight=False, markup=False, emoji=False)
        # Without a thread of its own: it is drawn between steps. What is printed to a file stays there.
        self.live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=sys.stdout.isatty())
        self.live.start()
        self.show()

    def show(self) -> None:
        line = self.learning.line(min(WIDTH, self.live.console.width - 1))
        self.live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        self.live.stop()


class _Console(Console):
    def show_cursor(self, show: bool = True) -> bool:
        """It stays: a process that is killed would leave a terminal without one."""
        return False


def _joined(parts) -> str:
    return "  ".join(filter(None, parts))


def _cut(name: str, width: int) -> str:
    """Out of the middle: that begins with what is compared, and ends with which of its fits this is."""
    if cell_len(name) <= width:
        return name
    end = set_cell_size(name[::-1], (width - 1) // 2)[::-1].lstrip()
    return set_cell_size(name, width - 1 - cell_len(end)).rstrip() + "…" + end


def _digits(value: float) -> str:
    """Three that count, so that lines do not jump."""
    size = abs(value)
    if not size < 1e5 or 0 < size < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if size >= 100 else f"{value:.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def _rounded(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.{0 if value >= 10 * size else 1}f}{letter}"
    return f"{value:.0f}"
