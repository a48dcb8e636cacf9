"""The list of runs on a terminal: one line each, name first, cut to its width; plain text elsewhere."""

import time
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np

from toolkit.metrics.tabulate import table
from toolkit.report.runs import RunFacts
from toolkit.run.results import Results, Row

MOST_INSIDE = 3
"""Runs of one experiment that are listed by name; of more than these they are counted."""
ROOMY = 100
NARROWEST = {"run": 13, "kind": 9, "figure": 14}
"""Columns that are cut where the terminal is narrow, and to how many columns at least."""

_SHARES = ("accuracy", "f1", "auc", "exact_match")
_FIRST = (("bits_per_byte", "bits per byte"), ("mlm_loss", "mlm"), ("accuracy", "accuracy"), ("r2", "r2"),
          ("mse", "mse"), ("loss", "loss"), ("training loss", "training loss"))
"""Figures of one model, the one that says most first, and what they are called."""


def list_runs(runs: Sequence[RunFacts], width: int | None = None, wide: bool = False, now: float | None = None) -> str:
    """One line a run: the groups that changed last first, a run before those within it. width: of the terminal, None
    for no limit; wide: all that is known, uncut; now: seconds since 1970, from which ages are counted.
    """
    now = time.time() if now is None else now
    narrow = width is not None and width < ROOMY and not wide
    rows = [_row(of, name, wide, narrow, now) if isinstance(of, RunFacts) else {"run": name, "kind": of}
            for name, of in _grouped(runs, wide)]
    text = table(rows, missing="", width=None if wide else width, narrowest=NARROWEST)
    damaged = [f"damaged: {run.name}: {run.problem}" for run in runs if run.problem]
    return "\n".join([text, *([""] if damaged else []), *damaged])


def _row(run: RunFacts, name: str, wide: bool, narrow: bool, now: float) -> dict:
    kind = run.kind.split(", ")[-1] if narrow else run.kind  # a preset says which family it is of
    row = {"run": name, "state": run.state, "kind": kind, "figure": main_figure(run), "age": age(now - run.changed)}
    if not wide:
        return row
    figures = list(run.figures.items())[:6]
    return {**row, "steps": "" if run.steps is None else f"{run.steps:,}",
            "parameters": _parameters(run.manifest.get("parameters")), "size": f"{run.size / 1e6:,.1f} MB",
            "commit": str(run.manifest.get("commit") or ""),
            "figures": ", ".join(f"{name} {value:.4g}" for name, value in figures)}


def _grouped(runs: Sequence[RunFacts], wide: bool) -> Iterator[tuple[str, RunFacts | str]]:
    """Names as they are listed, with their runs; of a line that counts runs instead, how many are not finished."""
    def first(run: RunFacts) -> str:
        return run.name.split("/")[0]

    by_name = {run.name: run for run in runs}
    inside: dict[str, list[RunFacts]] = {}
    for run in runs:
        home = next((str(place) for place in PurePosixPath(run.name).parents if str(place) in by_name), "")
        inside.setdefault(home, []).append(run)
    newest: dict[str, float] = {}
    for run in runs:
        newest[first(run)] = max(newest.get(first(run), 0.0), run.changed)

    def lines(home: str, depth: int) -> Iterator[tuple[str, RunFacts | str]]:
        found = inside.get(home, [])
        if home and len(found) > MOST_INSIDE and not wide:
            yield f"{'  ' * depth}… {len(found)} inside", _unfinished(found)
            return
        for run in sorted(found, key=lambda run: (-newest[first(run)], first(run), -run.changed)):
            yield "  " * depth + (run.name.removeprefix(f"{home}/") if home else run.name), run
            yield from lines(run.name, depth + 1)

    yield from lines("", 0)


def _unfinished(runs: Sequence[RunFacts]) -> str:
    others = [run.state for run in runs if run.state != "finished"]
    return ", ".join(f"{others.count(state)} {state}" for state in dict.fromkeys(others))


def main_figure(run: RunFacts) -> str:
    """The one that the run is judged by: of a comparison its first pretrained arm beside the random start."""
    if run.measured is not None:
        return _of_arms(run.measured)
    for key, name in _FIRST:
        if key in run.figures:
            return f"{name} {figure_text(key, run.figures[key])}"
    return ""


def _of_arms(results: Results) -> str:
    arm, reference, rows = judged_arm(results)
    mean, beside = (mean_of(rows, name, results.metric) for name in (arm, reference))
    if mean is None:
        return ""
    said = figure_text(results.metric, mean)
    said = said if results.metric == "accuracy" else f"{results.metric.replace('_', ' ')} {said}"
    how = "random" if "random" in reference else "beside"
    return said if beside is None else f"{said}, {how} {figure_text(results.metric, beside).removesuffix(' %')}"


def judged_arm(results: Results) -> tuple[str, str, list[Row]]:
    """The arm that an experiment is about: the first that starts pretrained, or else that must beat another, or is
    trained; its reference, "" for none; and the rows at the last of its sizes: of labels the most.
    """
    arms = [[row.arm for row in results.rows if row.start == "pretrained"],
            [row.arm for row in results.rows if row.reference],
            [row.arm for row in results.rows if row.start or row.run], [row.arm for row in results.rows]]
    arm = next((names[0] for names in arms if names), "")
    sizes = [row.size for row in results.rows if row.arm == arm]
    rows = [row for row in results.rows if row.size == sizes[-1]] if sizes else []
    return arm, next((row.reference for row in rows if row.arm == arm), ""), rows


def mean_of(rows: Sequence[Row], arm: str, metric: str) -> float | None:
    """Over sets and seeds."""
    values = [value for row in rows if row.arm == arm and (value := row.metrics.get(metric)) is not None]
    return float(np.mean(values)) if values else None


def figure_text(metric: str, value: float) -> str:
    """Shares in percent."""
    return f"{100 * value:.1f} %" if metric in _SHARES else f"{value:.3g}"


def _parameters(counted: object) -> str:
    """Of several arms from the smallest to the largest."""
    counts = [count for count in (counted.values() if isinstance(counted, dict) else [counted])
              if isinstance(count, int)]
    return " … ".join(dict.fromkeys(f"{end(counts):,}" for end in (min, max))) if counts else ""


def age(seconds: float) -> str:
    """Since then, in a few letters."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return "now"
