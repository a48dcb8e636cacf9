"""Pictures of encoder–decoders: where one looks in the source while it writes, and what length of the source costs.

    save_figure(alignment_figure(maps.labels, maps.readers, maps.weights.mean((0, 1))), "alignment.png")
    save_figure(by_length_figure(read_results("runs/compare-seq2seq")), "by-length.png")
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from toolkit.metrics.intervals import FEWEST, Interval, mean_interval, paired_difference
from toolkit.report.figures.canvas import INK, PAPER, SOFT, entitle, new_figure, style_of, wrapped
from toolkit.run.results import Results, Row
from toolkit.run.schema import LengthGroup
from toolkit.shown import in_picture

_CELL = 0.27  # inches
_LONGEST_LABEL = 18
_INTENSE = LinearSegmentedColormap.from_list("weights", [(0.0, 0.447, 0.698, 0.0), (0.0, 0.447, 0.698, 1.0)])
"""From nothing, through which the paper is seen, to the first of our colours: so it is read on light and on dark."""
NAMES = {"bleu": "BLEU", "exact_match": "Exact match (%)"}
"""Metrics as an axis calls them."""


def alignment_figure(source: Sequence[str], target: Sequence[str], weights: np.ndarray, title: str = "") -> Figure:
    """weights (T, S): a row a word of the target, a column a word of the source; the more was looked at, the
    stronger the colour. A dot marks the largest weight of a row.
    """
    weights = np.asarray(weights, float)
    if weights.shape != (len(target), len(source)):
        raise ValueError(f"weights are {weights.shape}, of {len(target)} target and {len(source)} source words")
    across, down = (max(min(_LONGEST_LABEL, len(label)) for label in side) * 0.085 for side in (target, source))
    least = 1.6 + 0.075 * min(60, len(title))
    figure, all_axes = new_figure(max(least, 0.7 + across + _CELL * len(source)),
                                  0.7 + down + _CELL * len(target) + 0.35 * bool(title))
    axes = all_axes[0, 0]
    if title:
        entitle(figure, title)
    top = float(weights.max()) or 1.0
    axes.pcolormesh(np.arange(len(source) + 1) - 0.5, np.arange(len(target) + 1) - 0.5, np.sqrt(weights / top),
                    cmap=_INTENSE, vmin=0, vmax=1, edgecolors="none", rasterized=False)
    for row, column in enumerate(weights.argmax(1)):
        dark = weights[row, column] > 0.35 * top
        axes.plot([column], [row], "o", markersize=3.2, color=PAPER if dark else INK)
    axes.set_xlim(-0.5, len(source) - 0.5)
    axes.set_ylim(len(target) - 0.5, -0.5)
    axes.set_aspect("equal", anchor="W")
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(source)), [in_picture(label, _LONGEST_LABEL) for label in source], rotation=90)
    axes.set_yticks(range(len(target)), [in_picture(label, _LONGEST_LABEL) for label in target])
    axes.tick_params(length=0)
    axes.set_xlabel("read", color=SOFT)
    axes.set_ylabel("written", color=SOFT)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.grid(False)
    return figure


# --- by the length of the source -----------------------------------------------------------------------------------


def by_length_figure(results: Results, title: str = "") -> Figure | None:
    """Scores by the length of the source, a line an arm: the mean of its seeds with its interval over them, or of fewer
    than three seeds the first with its interval over test pairs. Under it the gains of arms over their references. None
    where nothing was measured by length.
    """
    sets: dict[str, dict[str, list[Row]]] = {}
    for (name, _, arm), rows in results.arms().items():
        if rows[0].by_length:
            sets.setdefault(name, {})[arm] = rows
    if not sets:
        return None
    has_gains = any(rows[0].reference in arms for arms in sets.values() for rows in arms.values())
    figure, all_axes = new_figure(8.4 if len(sets) == 1 else 5.2 * len(sets), 5.6 if has_gains else 3.9, 1 + has_gains,
                                  len(sets), **({"height_ratios": (3, 1.9)} if has_gains else {}))
    entitle(figure, title or f"{NAMES[results.metric].removesuffix(' (%)')} by length of the source")
    names = list(dict.fromkeys(arm for arms in sets.values() for arm in arms))
    for column, (name, arms) in enumerate(sets.items()):
        _draw(all_axes[:, column], arms, names, results.metric)
        _dress(all_axes[:, column], results, next(iter(arms.values()))[0], has_gains)
        all_axes[0, column].set_title(in_picture(name, 50), loc="left", fontsize=10)
    handles = [Line2D([], [], label=in_picture(arm, 50), markersize=5, linewidth=1.4, **style_of(number))
               for number, arm in enumerate(names)]
    figure.legend(handles=handles, loc="outside lower left", ncols=2 if max(map(len, names)) > 24 else 3, frameon=False,
                  fontsize=8, labelcolor=INK, title=_legend(results), title_fontsize=8, alignment="left")
    return figure


def _draw(all_axes: Sequence[Axes], arms: Mapping[str, list[Row]], names: Sequence[str], metric: str) -> None:
    """Scores of one set, and below them gains; names: all arms', of which each has a colour."""
    scale = 1 if metric == "bleu" else 100
    for arm, rows in arms.items():
        place, groups = names.index(arm), range(len(rows[0].by_length))
        _line(all_axes[0], [_score(rows, group, scale) for group in groups], place, len(names))
        if rows[0].reference in arms:
            found = [_gain(rows, arms[rows[0].reference], group, scale) for group in groups]
            _line(all_axes[1], [(each.mean, *_ends(each)) for each in found], place, len(names))


def _legend(results: Results) -> str:
    seeds = {len(rows) for rows in results.arms().values() if rows[0].by_length}
    if min(seeds) >= FEWEST:
        return f"mean of {min(seeds)} seeds, 95 % interval over seeds"
    return "the first seed, 95 % interval over test pairs"


def _score(rows: Sequence[Row], group: int, scale: float) -> tuple[float, float, float]:
    """Mean and both ends of its interval."""
    found = [row.by_length[group] for row in rows]
    if len(found) < FEWEST:
        return tuple(scale * found[0][key] for key in ("value", "low", "high"))
    interval = mean_interval([scale * each["value"] for each in found])
    return interval.mean, max(0, interval.mean - interval.ci95), min(100, interval.mean + interval.ci95)


def _gain(rows: Sequence[Row], reference: Sequence[Row], group: int, scale: float) -> Interval:
    return paired_difference(*([scale * row.by_length[group]["value"] for row in those] for those in (rows, reference)))


def _ends(gain: Interval) -> tuple[float, float]:
    return (gain.mean - gain.ci95, gain.mean + gain.ci95) if gain.n >= FEWEST else (gain.mean, gain.mean)


def _line(axes: Axes, points: Sequence[tuple[float, float, float]], number: int, count: int) -> None:
    """Points of one arm beside those of the others, so that intervals do not cover each other."""
    at = np.arange(len(points)) + 0.36 * ((number + 0.5) / count - 0.5)
    means, lows, highs = (np.asarray(part) for part in zip(*points, strict=True))
    style = style_of(number)
    axes.vlines(at, lows, highs, color=style["color"], linewidth=1.3, alpha=0.8)
    axes.plot(at, means, linewidth=1.4, markersize=5, **style)


def _dress(all_axes: Sequence[Axes], results: Results, row: Row, has_gains: bool) -> None:
    for axes in all_axes:
        axes.grid(axis="y", color=SOFT, alpha=0.2, linewidth=0.6)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    all_axes[0].set_ylabel(f"{NAMES[results.metric]}, test")
    all_axes[0].set_ylim(*((-2, 102) if results.metric != "bleu" else (-1, None)))
    if has_gains:
        all_axes[1].axhline(0, color=INK, linewidth=0.9)
        all_axes[1].set_ylabel(wrapped("gain over its reference (points)", 18))
    unit = "words" if results.metric == "bleu" else "characters"
    all_axes[-1].set_xlabel(f"{unit} of the source; below, test pairs")
    for axes in all_axes:
        told = [f"{span(group)}\n({group['pairs']:,})" for group in row.by_length] if axes is all_axes[-1] else []
        axes.set_xticks(range(len(row.by_length)), told or [""] * len(row.by_length))
        axes.set_xlim(-0.4, len(row.by_length) - 0.6)


def span(group: LengthGroup) -> str:
    """The lengths of a group, in words."""
    return str(group["shortest"]) if group["shortest"] == group["longest"] else (
        f"{group['shortest']}–{group['longest']}")
