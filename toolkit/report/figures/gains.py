"""Did it help? A row a model: its seeds as dots, hollow without and filled with, joined in pairs; the gain beside it.

    panels = panels_of(read_results("runs/demo/text").rows)
    save_figure(gain_figure(panels), "gains.png")
    gain_table(panels)      # the same as rows of a table
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from toolkit.metrics.intervals import FEWEST, Interval, judgement, mean_interval, paired_difference, signed
from toolkit.report.figures.canvas import (
    BASELINE,
    INK,
    LINES,
    PAPER,
    PRETRAINED,
    RANDOM,
    SOFT,
    entitle,
    new_figure,
    wrapped,
)
from toolkit.run.results import Row
from toolkit.shown import in_picture

SHARES = ("accuracy", "f1", "f1_macro", "precision", "recall", "roc_auc", "pr_auc", "coverage", "r2", "exact_match")
"""In percent, and gains in points; all but R² are between 0 and 1."""
POINTS = {"bleu": "BLEU", "chrf": "chrF"}
"""Between 0 and 100 by their own scale, and gains in points of it."""
LESS_IS_BETTER = ("mse", "mae", "rmse", "mase", "loss", "quantile_loss", "perplexity", "bits_per_byte", "brier_score")
PROPER = {"mse": "MSE", "mae": "MAE", "f1": "F1", "r2": "R²", "mase": "MASE", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC",
          "bleu": "BLEU", "chrf": "chrF"}


@dataclass(frozen=True)
class Gain:
    """One model with and without what is asked about; a value a seed, the same seeds in the same order."""

    name: str
    random: Sequence[float]
    """From a random start; empty where there is nothing to compare with."""
    pretrained: Sequence[float]


@dataclass(frozen=True)
class GainPanel:
    """What was measured on one test set."""

    title: str
    rows: list[Gain]
    baselines: dict[str, float] = field(default_factory=dict)
    """Name → mean over seeds."""
    metric: str = "accuracy"
    share: bool = True
    """Between 0 and 1; shown in percent, and gains in points. Otherwise gains are in percent of the random start's."""
    higher_is_better: bool = True
    hollow: str = "random start"
    """What `Gain.random` are values of."""
    filled: str = "pretrained"
    axis: str = ""
    """What the axis of values is called; default: the metric, on test."""
    dot: str = "seed"
    """What there is a value of; or "set"."""
    sign: str = "%"
    """Behind a share; "" of `POINTS`, whose values are given here as shares."""


def proper(metric: str) -> str:
    """A metric's name as it is written."""
    return PROPER.get(metric, metric.replace("_", " "))


def gain_of(row: Gain, panel: GainPanel) -> Interval | None:
    """Positive where pretraining is better: points of a share; of other metrics percent of the random start's value.
    None without pairs, or where that is 0.
    """
    if not len(row.random) or not len(row.pretrained):
        return None
    pretrained, random = (np.asarray(values, float) for values in (row.pretrained, row.random))
    if panel.share:
        pretrained, random = 100 * pretrained, 100 * random
    elif not random.all():
        return None  # of nothing there is no percent
    else:
        pretrained, random = 100 * pretrained / np.abs(random), 100 * np.sign(random)
    return paired_difference(pretrained, random) if panel.higher_is_better else paired_difference(random, pretrained)


def said(gain: Interval, dot: str = "seed") -> str:
    """A gain and the verdict on it, or how many seeds it lacks."""
    if gain.n < FEWEST:
        return f"{gain.mean:+.1f}  {_too_few(gain.n, dot)}"
    return f"{signed(gain)}  {judgement(gain)}"


def gain_table(panels: Sequence[GainPanel]) -> list[dict]:
    """A row a model: means in the panel's unit, the gain, half the width of its interval (None below three seeds), and
    the verdict in words.
    """
    found = []
    for panel in panels:
        for row in panel.rows:
            gain, scale = gain_of(row, panel), 100 if panel.share else 1
            entry = {"panel": panel.title, "name": row.name, "metric": panel.metric,
                     "seeds": max(len(row.random), len(row.pretrained)),
                     "random": scale * float(np.mean(row.random)) if len(row.random) else None,
                     "pretrained": scale * float(np.mean(row.pretrained)) if len(row.pretrained) else None,
                     "gain": None, "half_width": None, "unit": "points" if panel.share else "%", "verdict": ""}
            if gain:
                known = gain.n >= FEWEST
                entry |= {"gain": gain.mean, "half_width": gain.ci95 if known else None, "verdict": judgement(gain)
                          if known else _too_few(gain.n, panel.dot)}
            found.append(entry)
    return found


def panels_of(rows: Sequence[Row], metric: str = "accuracy", sizes: str = "") -> list[GainPanel]:
    """A panel for every set and size among an experiment's rows; sizes: what a size is a number of (`Results.sizes`).

    An arm with a reference is a row beside it, what needs no training a baseline, every other arm a row of its own.
    """
    panels: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        if row.metrics.get(metric) is not None:
            if metric in POINTS:
                row = replace(row, metrics={metric: row.metrics[metric] / 100})
            panels.setdefault((row.set, row.size), {}).setdefault(row.arm, []).append(row)
    found = []
    for (name, size), arms in panels.items():
        of_size = f"{size} labels" if sizes == "labels" else f"{sizes} {size}".strip()
        gains, baselines = _split(arms, metric)
        found.append(GainPanel(", ".join(filter(None, [name, of_size if size else ""])), gains, baselines,
                               POINTS.get(metric, metric.replace("_", " ")), metric in SHARES or metric in POINTS,
                               metric not in LESS_IS_BETTER, *_starts(arms), sign="" if metric in POINTS else "%"))
    return found


def _split(arms: dict[str, list[Row]], metric: str) -> tuple[list[Gain], dict[str, float]]:
    values = {arm: {row.seed: row.metrics[metric] for row in rows} for arm, rows in arms.items()}
    references = {arm: rows[0].reference for arm, rows in arms.items() if rows[0].reference in arms}
    gains, baselines = [], {}
    for arm, rows in arms.items():
        reference = values[references[arm]] if arm in references else {}
        if shared := sorted(reference.keys() & values[arm].keys()):
            gains.append(Gain(_name(rows[0], references[arm]), [reference[seed] for seed in shared],
                              [values[arm][seed] for seed in shared]))
        elif arm in references.values():
            continue  # stands beside what is held against it
        elif rows[0].model or rows[0].parameters or any(arm.startswith(f"{other}, ") for other in arms):
            gains.append(Gain(arm, [], list(values[arm].values())))
        else:
            baselines[arm] = float(np.mean(list(values[arm].values())))
    return gains, baselines


def _starts(arms: dict[str, list[Row]]) -> tuple[str, str]:
    """What hollow dots are, and filled ones: random starts and pretrained, where all references are random starts."""
    references = {rows[0].reference for rows in arms.values() if rows[0].reference in arms}
    if all(arms[reference][0].start.startswith("random") and not arms[reference][0].reference
           for reference in references):
        return "random start", "pretrained"
    return (references.pop() if len(references) == 1 else "its reference"), "the arm named at the left"


def _name(row: Row, reference: str) -> str:
    """The arm's without its start, where that is all in which it differs from its reference."""
    if row.start == "pretrained" and row.arm.replace("pretrained", "random", 1) == reference:
        return row.arm.replace(", pretrained", "", 1)
    return row.arm


def _count(number: int, dot: str) -> str:
    return f"{number} {dot}{'s' * (number != 1)}"


def _too_few(number: int, dot: str) -> str:
    return f"{_count(number, dot)}: run {FEWEST} or more"


# --- drawn ---------------------------------------------------------------------------------------------------------

WIDTH, ROW, BASELINE_ROW, FRAME = 9.2, 0.42, 0.27, 0.72  # inches
RING, DOT = 56, 32
"""A filled dot that covers a hollow one leaves its rim to be seen."""


def gain_figure(panels: Sequence[GainPanel], title: str = "") -> Figure:
    """One band a panel: the seeds on the left, the gain on the right; baselines are marked lines with their names at
    the edge. title: else the question that the panels answer.
    """
    paired = any(gain_of(row, panel) for panel in panels for row in panel.rows)
    if not title:
        title = ("Test results" if not paired else "Did pretraining help?" if all(
            panel.hollow == "random start" for panel in panels) else "How far ahead of its reference?")
    heights = [FRAME + ROW * sum(map(_size, panel.rows)) + BASELINE_ROW * len(panel.baselines) for panel in panels]
    names = [name for panel in panels for name in (*(row.name for row in panel.rows), *panel.baselines)]
    width = WIDTH + 0.07 * max(0, min(40, max(map(len, names))) - 16)  # long names take nothing away from the axes
    figure, all_axes = new_figure(width, sum(heights) + 0.75, len(panels), 2 if paired else 1, height_ratios=heights,
                                  **({"width_ratios": (5, 2.6)} if paired else {}))
    figure.get_layout_engine().set(w_pad=0.12)
    entitle(figure, title)
    reach = {share: reach_of([gain_of(row, panel) for panel in panels if panel.share == share for row in panel.rows])
             for share in (True, False)}
    for panel, axes in zip(panels, all_axes, strict=True):
        places = _places(panel)
        _draw_values(axes[0], panel, places)
        if paired:
            _draw_gains(axes[1], panel, places, reach[panel.share])
        _tell(axes[-1], panel, places)
    _legend(figure, panels)
    return figure


def _size(row: Gain) -> float:
    """Height of a row, as of rows of six dots or fewer: more need more room, or they cover each other."""
    return max(1.0, max(len(row.random), len(row.pretrained)) / 6)


def _places(panel: GainPanel) -> tuple[list[float], list[float]]:
    """Heights of rows and of baselines, from the top down; baselines stand closer."""
    ends = np.cumsum([_size(row) for row in panel.rows]) - 0.5
    rows = [float(end) - _size(row) / 2 for end, row in zip(ends, panel.rows, strict=True)]
    first = (float(ends[-1]) if rows else -0.5) + BASELINE_ROW / ROW / 2
    return rows, [first + number * BASELINE_ROW / ROW for number in range(len(panel.baselines))]


def _ends(places: tuple[list[float], list[float]]) -> tuple[float, float]:
    return (places[1][-1] + 0.35 if places[1] else places[0][-1] + (places[0][0] + 0.6)), -0.6


def _draw_values(axes: Axes, panel: GainPanel, places: tuple[list[float], list[float]]) -> None:
    scale = 100 if panel.share else 1
    for row, place in zip(panel.rows, places[0], strict=True):
        pairs = max(len(row.random), len(row.pretrained))
        room = _size(row) - 0.6
        heights = place + (np.linspace(-room / 2, room / 2, pairs) if pairs > 1 else np.zeros(pairs))
        if not len(row.random) or not len(row.pretrained):
            values = scale * np.asarray([*row.random, *row.pretrained])
            axes.scatter(values, heights, s=DOT, zorder=3, color=SOFT, clip_on=False)
            axes.vlines(values.mean(), place - room / 2 - 0.16, place + room / 2 + 0.16, color=INK, linewidth=1.6,
                        zorder=4)
        else:
            axes.hlines(heights, *(scale * np.asarray(values) for values in (row.random, row.pretrained)), color=SOFT,
                        linewidth=0.9, zorder=2)
            for values, colour, inside, size in ((row.random, RANDOM, PAPER, RING),
                                                 (row.pretrained, PRETRAINED, PRETRAINED, DOT)):
                axes.scatter(scale * np.asarray(values, float), heights, s=size, zorder=3, linewidths=1.4,
                             facecolor=inside, edgecolor=colour, clip_on=False)
    _limit(axes, panel)
    low, high = axes.get_xlim()
    for number, ((_, value), place) in enumerate(zip(panel.baselines.items(), places[1], strict=True)):
        shown = min(max(scale * value, low), high)
        if shown == scale * value:
            axes.vlines(shown, -0.6, place, color=BASELINE, linewidth=1, linestyle=LINES[1 + number % 3], zorder=1)
        axes.plot([shown], [place], marker="D" if shown == scale * value else ">" if shown == high else "<",
                  markersize=5, color=BASELINE, clip_on=False, zorder=3)
    names = [row.name for row in panel.rows] + list(panel.baselines)
    axes.set_yticks([*places[0], *places[1]], [wrapped(in_picture(name, 120), 42) for name in names])
    for label in axes.get_yticklabels()[len(places[0]):]:
        label.set(color=SOFT, fontsize=8)
    axes.set_ylim(*_ends(places))
    axes.tick_params(axis="y", length=0, pad=9)  # a dot at the very end covers no name
    axes.set_title(wrapped(panel.title, 60), loc="left", fontsize=10)
    unit = " (%)" if panel.share and panel.sign else ""
    axes.set_xlabel(panel.axis or f"test {proper(panel.metric)}{unit}")
    axes.grid(axis="x", color=SOFT, alpha=0.2, linewidth=0.6)


def _limit(axes: Axes, panel: GainPanel) -> None:
    """A share is between 0 and 100; of other metrics the rows say how far the axis reaches, baselines at most half as
    far again.
    """
    values = [value for row in panel.rows for value in (*row.random, *row.pretrained)] or list(panel.baselines.values())
    low, high = min(values), max(values)
    if panel.share and not panel.sign:
        axes.set_xlim(0, min(100, 115 * max([high, *panel.baselines.values()]) or 1))
        return
    if panel.share:
        axes.set_xlim(min(0, 105 * low), 100)  # below 0 are only figures such as R²
        return
    room = (high - low) or abs(high) or 1.0
    inside = [value for value in panel.baselines.values() if low - room / 2 <= value <= high + room / 2]
    low, high = min([low, *inside]), max([high, *inside])
    axes.set_xlim(low - 0.05 * room, high + 0.05 * room)


def reach_of(gains: Sequence[Interval | None]) -> float:
    """How far the axis of gains goes to either side: every mean, and every interval that leaves out zero, is whole."""
    means = [abs(gain.mean) for gain in gains if gain]
    ends = [abs(gain.mean) + gain.ci95 for gain in gains if gain and gain.n >= FEWEST]
    most = max(means, default=0.0)
    whole = [end for end in ends if end <= 4 * most or not most]  # of what is longer, an arrow says so
    return 1.08 * max([most, *whole]) or 1.0


def _draw_gains(axes: Axes, panel: GainPanel, places: tuple[list[float], list[float]], reach: float) -> None:
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
    axes.set_xlim(-reach, reach)
    for row, place in zip(panel.rows, places[0], strict=True):
        gain = gain_of(row, panel)
        if gain is None:
            continue
        known = gain.n >= FEWEST
        if known:
            for end, marker in ((gain.mean - gain.ci95, "<"), (gain.mean + gain.ci95, ">")):
                cut = abs(end) > reach
                shown = max(-reach, min(reach, end))
                axes.plot([gain.mean, shown], [place, place], color=PRETRAINED, linewidth=1.8, zorder=2)
                axes.plot([shown], [place], marker=marker if cut else "|", markersize=6 if cut else 8, clip_on=False,
                          color=PRETRAINED, markeredgewidth=1.6 if not cut else 0.5, zorder=2)
        axes.scatter([gain.mean], [place], s=DOT, facecolor=PRETRAINED if known else PAPER, edgecolor=PRETRAINED,
                     linewidths=1.4, zorder=3)
    axes.set_ylim(*_ends(places))
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("gain (points)" if panel.share else f"gain (% of the {panel.hollow}'s {proper(panel.metric)})")
    axes.grid(axis="x", color=SOFT, alpha=0.2, linewidth=0.6)


def _tell(axes: Axes, panel: GainPanel, places: tuple[list[float], list[float]]) -> None:
    """In words, to the right: the verdict on each row, and what baselines reach."""
    texts = [(place, _row_in_words(row, panel), INK, 9) for place, row in zip(places[0], panel.rows, strict=True)]
    texts += [(place, _number(value, panel), SOFT, 8)
              for place, value in zip(places[1], panel.baselines.values(), strict=True)]
    for place, text, colour, size in texts:
        axes.annotate(text.replace("-", "\u2212"), (1.07, place), xycoords=("axes fraction", "data"), va="center",
                      fontsize=size, color=colour)


def _row_in_words(row: Gain, panel: GainPanel) -> str:
    if gain := gain_of(row, panel):
        return said(gain, panel.dot)
    values = mean_interval([(100 if panel.share else 1) * value for value in (*row.pretrained, *row.random)])
    if values.n < FEWEST:
        return f"{_number(np.mean([*row.pretrained, *row.random]), panel)}, {_count(values.n, panel.dot)}"
    return f"{values} {panel.sign}".strip() if panel.share else str(values)


def _number(value: float, panel: GainPanel) -> str:
    return f"{100 * value:.1f} {panel.sign}".strip() if panel.share else f"{value:.4g}"


def _legend(figure: Figure, panels: Sequence[GainPanel]) -> None:
    dots = {"marker": "o", "linestyle": "", "markersize": 6.5, "markeredgewidth": 1.4}
    entries, gains = {}, [gain_of(row, panel) for panel in panels for row in panel.rows]
    for panel in panels:
        if any(gain_of(row, panel) for row in panel.rows):
            entries[panel.hollow] = Line2D([], [], markerfacecolor=PAPER, markeredgecolor=RANDOM, **dots)
            entries[f"{panel.filled}; a dot a {panel.dot}"] = Line2D([], [], color=PRETRAINED, **dots)
    if not all(gains):
        entries["without a pair; a dot a seed" if any(gains) else "a dot a seed"] = Line2D([], [], color=SOFT, **dots)
        entries["mean"] = Line2D([], [], color=INK, marker="|", linestyle="", markersize=11, markeredgewidth=1.6)
    if any(panel.baselines for panel in panels):
        entries["baseline"] = Line2D([], [], color=BASELINE, linestyle=LINES[1], marker="D", markersize=4.5)
    if any(gain and gain.n >= FEWEST for gain in gains):
        interval = Line2D([], [], color=PRETRAINED, linewidth=1.8, marker="|", markersize=8)
        entries[f"gain, 95 % interval over {panels[0].dot}s"] = interval
    figure.legend(entries.values(), [in_picture(name) for name in entries], loc="outside lower left", ncols=6,
                  frameon=False, fontsize=8, labelcolor=INK, columnspacing=1.4)
