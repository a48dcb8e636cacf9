"""Runs held beside each other: their figures with the best of each, their curves, and in what they differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

import numpy as np

from toolkit import config as configuration
from toolkit.metrics.tabulate import table
from toolkit.report.figures.gains import LESS_IS_BETTER, SHARES
from toolkit.report.runs import RunFacts

_NO_CURVE = ("step", "tokens", "seconds", "bytes", "bad_step", "criterion", "mfu", "data_wait", "peak_memory_mb",
             "perplexity")
_HOW = ("learning_rate", "grad_norm", "tokens_per_second")  # curves of how it was trained, which come last
_MORE_IS_BETTER = ("r2", "auc", "balanced_accuracy", "matthews_correlation", *SHARES)
_MINUS = "\u2212"


@dataclass(frozen=True)
class Line:
    """A figure and its value in every run."""

    name: str
    values: tuple[float | str | None, ...]
    """None where a run has none."""
    best: frozenset[int] = frozenset()
    """Which runs have the best value; none where that is no question, or all have the same."""

    @property
    def shown(self) -> list[str]:
        """As a person reads them: numbers with as many decimals as their neighbours."""
        return [value if isinstance(value, str) else _number(value, self._decimals) for value in self.values]

    @property
    def deltas(self) -> list[str]:
        """How much more than the first run each has; "" for the first, and where either has none."""
        first = self.values[0]
        if not _is_number(first) or not (self.best or self._is_score):
            return [""] * len(self.values)
        return ["", *("" if not _is_number(value) else "0" if value == first
                      else _number(value - first, self._decimals, signed=True) for value in self.values[1:])]

    @property
    def _is_score(self) -> bool:
        return any(isinstance(value, float) for value in self.values)

    @property
    def _decimals(self) -> int:
        """So many that the largest has four digits; none where all are whole numbers."""
        numbers = [value for value in self.values if _is_number(value)]
        if not any(isinstance(value, float) for value in numbers):
            return 0
        largest = max((abs(value) for value in numbers), default=0.0)
        return max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 3


def compared(runs: Sequence[RunFacts]) -> list[Line]:
    """State, steps and parameters, then every figure that a run has."""
    lines = [Line("state", tuple(run.state for run in runs)), Line("steps", tuple(run.steps for run in runs)),
             Line("parameters", tuple(_one_number(run.manifest.get("parameters")) for run in runs))]
    for name in dict.fromkeys(name for run in runs for name in run.figures):
        values = tuple(run.figures.get(name) for run in runs)
        lines.append(Line(name, values, _best(name, values, {run.metric for run in runs if name in run.figures})))
    return lines


def in_words(runs: Sequence[RunFacts]) -> str:
    """For a terminal: the runs by number, so that a table of several fits; the best of a line starred; what differs."""
    heads = [str(number) for number in range(1, len(runs) + 1)]
    lines = compared(runs)
    columns = {"": [line.name for line in lines]}
    for place, head in enumerate(heads):
        columns[head] = [f"{line.shown[place]}{'*' if place in line.best else ' '}" for line in lines]
        if place:
            columns[f"Δ{head}"] = [line.deltas[place] for line in lines]
    told = [*(f"{head}  {run.name}  ({run.kind})" for head, run in zip(heads, runs, strict=True)), "",
            _to_the_right(columns), "", "*: the best of its line; Δ: how much more than 1"]
    if differing := differences(runs):
        rows = [dict(zip(["", *heads], [key, *map(_setting, values)], strict=True)) for key, values in differing]
        told += ["", "set differently", table(rows)]
    return "\n".join(told)


def _to_the_right(columns: dict[str, list[str]]) -> str:
    """A table of texts, all but the first column to the right."""
    widths = {head: max(len(cell) for cell in (head, *cells)) if head else 0 for head, cells in columns.items()}
    rows = zip(*([cell.rjust(widths[head]) for cell in cells] for head, cells in columns.items()), strict=True)
    return table([dict(zip([head.rjust(widths[head]) for head in columns], row, strict=True)) for row in rows])


def _setting(value: object) -> str:
    return "–" if value is None else str(value)


def _best(name: str, values: Sequence[float | None], metrics: set[str]) -> frozenset[int]:
    """metrics: of the experiments among the runs; their figures are called as arms are."""
    metric = next(iter(metrics)) if len(metrics) == 1 and metrics != {""} else name
    known = {place: value for place, value in enumerate(values) if _is_number(value)}
    less, more = _is_one_of(metric, LESS_IS_BETTER), _is_one_of(metric, _MORE_IS_BETTER)
    if len(set(known.values())) < 2 or less == more:
        return frozenset()
    best = (min if less else max)(known.values())
    return frozenset(place for place, value in known.items() if value == best)


def _is_one_of(metric: str, names: Sequence[str]) -> bool:
    """`mlm_loss` is a loss, `mlm_accuracy` an accuracy."""
    return any(metric == name or metric.endswith((f"_{name}", f" {name}")) for name in names)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _one_number(value: object) -> int | None:
    """None for those of several arms, too."""
    return value if _is_number(value) else None


def _number(value: float | None, decimals: int, signed: bool = False) -> str:
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    sign = "+" if signed else ""
    written = f"{value:{sign},.{decimals}f}" if decimals < 8 else f"{value:{sign}.3e}"
    return written.replace("-", _MINUS)


def differences(runs: Sequence[RunFacts], part: Literal["config", "manifest"] = "config") -> list[tuple[str, list]]:
    """Dotted keys of which the runs have different values, with the value of each; None where one has none. The
    manifest holds commit, versions, machine and data; the command is told by `commands`.
    """
    by_run = [configuration.flat(getattr(run, part)) for run in runs]
    rows = [(key, [values.get(key) for values in by_run])
            for key in dict.fromkeys(key for values in by_run for key in values)
            if part == "config" or key != "command"]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values[1:])]


def commands(runs: Sequence[RunFacts]) -> list[list[tuple[str, bool]]]:
    """How each run was started: its words, and whether a word is not in the first run's command; of the first,
    whether it is missing in another's. [] for a run that does not say.
    """
    words = [str(run.manifest.get("command") or "").split() for run in runs]
    marked = [[False] * len(each) for each in words]
    for number in range(1, len(runs)):
        for kind, a, b, c, d in SequenceMatcher(None, words[0], words[number], autojunk=False).get_opcodes():
            if kind != "equal" and words[0] and words[number]:
                marked[0][a:b] = [True] * (b - a)
                marked[number][c:d] = [True] * (d - c)
    return [list(zip(each, marks, strict=True)) for each, marks in zip(words, marked, strict=True)]


def curve(run: RunFacts, key: str, by_tokens: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(n,) steps, or tokens seen, and the (n,) values of `key` that were logged there."""
    points = [(record["step"], record[key]) for record in run.metrics
              if "step" in record and isinstance(record.get(key), (int, float))]
    x, y = np.asarray(points, float).reshape(-1, 2).T
    if by_tokens:  # which evaluations do not log
        known = [(record["step"], record["tokens"]) for record in run.metrics if "tokens" in record]
        x = np.interp(x, *np.asarray([(0, 0), *known], float).T)
    return x, y


def panels(runs: Sequence[RunFacts]) -> list[str]:
    """Metrics with a curve: losses, then scores, then how it was trained; one that is another's copy is left out."""
    logged = dict.fromkeys(key.removeprefix("eval_") for run in runs for record in run.metrics for key in record)
    names = [name for name in logged if name not in _NO_CURVE and not name.endswith("_count") and name != "count"
             and any(len(curve(run, key)[0]) > 1 for run in runs for key in (name, f"eval_{name}"))]

    def says_no_more(name: str, than: str) -> bool:
        both = ((curve(run, f"{prefix}{name}")[1], curve(run, f"{prefix}{than}")[1])
                for run in runs for prefix in ("", "eval_"))
        return all(not len(mine) or np.array_equal(mine, theirs) for mine, theirs in both)

    kept: list[str] = []
    for name in sorted(names, key=lambda name: (name in _HOW, "loss" not in name)):
        if not any(says_no_more(name, other) for other in kept):
            kept.append(name)
    return kept


def tells_how(panel: str) -> bool:
    """Whether a curve is of how a run was trained, and not of what it learned."""
    return panel in _HOW


def steps_differ(runs: Sequence[RunFacts]) -> bool:
    """Whether a step of one run has more tokens than one of another; False where one does not count them."""
    sizes = set()
    for run in runs:
        steps, tokens = curve(run, "tokens")
        if not len(steps):
            return False
        sizes.add(round(tokens[-1] / steps[-1]))
    return len(sizes) > 1


def limits(runs: Sequence[RunFacts], panel: str) -> tuple[float, float] | None:
    """What the vertical axis shows. Of a loss without the first fall, which would press everything else together."""
    values = [y for run in runs for key in (panel, f"eval_{panel}") for x, y in zip(*curve(run, key), strict=True)
              if np.isfinite(y) and ("loss" not in panel or x > 0.05 * (run.steps or 0))]
    if len(set(values)) < 2:
        return None
    margin = 0.05 * (max(values) - min(values))
    return min(values) - margin, max(values) + margin
