"""What is reached with how many labels, and under it what pretraining bought at each number.

    save_figure(learning_curves_figure(read_results("runs/transfer").rows), "transfer.png")
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from toolkit.metrics.intervals import FEWEST, Interval, mean_interval, paired_difference
from toolkit.report.figures.canvas import INK, LINES, MARKERS, OKABE_ITO, PAPER, SOFT, entitle, new_figure
from toolkit.report.figures.gains import reach_of
from toolkit.run.results import Row, over_sets
from toolkit.shown import in_picture

SOLID, DASHED, DOTTED = LINES[0], LINES[1], LINES[2]


@dataclass(frozen=True)
class _Style:
    """Of an arm: a colour a model, a marker for what is done with it, dashed from a random start."""

    color: str
    marker: str
    linestyle: object
    hollow: bool


def learning_curves_figure(rows: Sequence[Row], title: str = "Test accuracy by number of labels",
                           metric: str = "accuracy", all_labels: Mapping[str, int] | None = None) -> Figure:
    """A pair of panels a data set: means by number of labels, and the gains of arms over their references.

    rows: with `size`, a number or "all"; all_labels: set → how many "all" is. Where there are several sets, one more
    pair for their mean.
    """
    sets = list(dict.fromkeys(row.set for row in rows))
    if len(sets) > 1:
        rows = [*rows, *over_sets(rows, metric)]
        sets = list(dict.fromkeys(row.set for row in rows))
    arms = list(dict.fromkeys(row.arm for row in rows))
    styles = _styles(rows)
    columns = min(2, len(sets))
    bands = -(-len(sets) // columns)
    tall = max(3.2, 0.8 + 0.17 * len(arms))
    gained = {name: _gains([row for row in rows if row.set == name], metric) for name in sets}
    deep = 1 + any(gained.values())  # panels a band
    figure, all_axes = new_figure(8.4 if columns == 1 else 13, bands * (tall + (2.1 if deep == 2 else 0.6)) + 0.9,
                                  deep * bands, columns, height_ratios=(tall, 1.9)[:deep] * bands)
    figure.get_layout_engine().set(h_pad=0.11)
    entitle(figure, title)
    for axes in all_axes.flat:
        axes.set_visible(False)
    reach = _reach([gain for arms in gained.values() for by_size in arms.values() for gain in by_size.values()])
    for number, name in enumerate(sets):
        band, column = divmod(number, columns)
        of_set = [row for row in rows if row.set == name]
        places = _places(of_set, (all_labels or {}).get(name))
        above = all_axes[deep * band, column]
        _draw_curves(above, of_set, metric, places, styles)
        above.set_title(in_picture(name), loc="left", fontsize=10)
        lowest = above
        if gained[name]:
            lowest = all_axes[deep * band + 1, column]
            _draw_gains(lowest, gained[name], places, styles, reach)
            _label_axis(above, places, None)
            above.tick_params(labelbottom=False)
            above.set_xlabel("")
        _label_axis(lowest, places, (all_labels or {}).get(name))
    _legend(figure, rows, metric)
    return figure


def _styles(rows: Sequence[Row]) -> dict[str, _Style]:
    models = list(dict.fromkeys(row.model for row in rows if row.model))
    kinds: dict[str, str] = {}
    found, without = {}, 0
    references = {row.reference for row in rows}
    for row in rows:
        if row.arm in found:
            continue
        if not row.model:
            found[row.arm] = _Style(SOFT, ("D", "v", "P", "X")[without % 4], DOTTED, False)
            without += 1
            continue
        random = row.start.startswith("random") or row.arm in references
        kind = row.arm.removeprefix(row.model).replace(row.start, "", 1)  # what else its name says: tuned, or a probe
        kind = kind if random or row.start == "pretrained" else row.start
        marker = kinds.setdefault(kind, MARKERS[len(kinds) % len(MARKERS)])
        found[row.arm] = _Style(OKABE_ITO[models.index(row.model) % len(OKABE_ITO)], marker,
                                DASHED if random else SOLID, random)
    return found


def _places(rows: Sequence[Row], everything: int | None) -> dict[str, float]:
    """Size → where it stands on the axis; "all", where it is not known how many that is, a step further on."""
    sizes = list(dict.fromkeys(row.size for row in rows))
    places = {size: float(size) for size in sizes if size.isdecimal()}
    if "all" in sizes:
        last = max(places.values(), default=1.0)
        places["all"] = float(everything) if everything and everything > last else 4 * last
    return places


def _draw_curves(axes: Axes, rows: Sequence[Row], metric: str, places: Mapping[str, float],
                 styles: Mapping[str, _Style]) -> None:
    axes.set_visible(True)
    ends, arms = {}, list(dict.fromkeys(row.arm for row in rows))
    for number, arm in enumerate(arms):
        values = {size: [100 * row.metrics[metric] for row in rows if row.arm == arm and row.size == size]
                  for size in places}
        by_size = {size: mean_interval(of_seeds) for size, of_seeds in values.items() if of_seeds}
        moved = _beside(number, len(arms), places)
        _dots(axes, {moved * places[size]: found for size, found in by_size.items()}, styles[arm], joined=True)
        last = max(by_size, key=lambda size: places[size])
        ends[arm] = (moved * places[last], by_size[last].mean)
    axes.set_ylim(0, 100)
    axes.set_xscale("log")
    axes.set_ylabel(f"test {metric} (%)")
    axes.grid(axis="y", color=SOFT, alpha=0.2, linewidth=0.6)
    _names(axes, ends, styles)


def _beside(number: int, of: int, places: Mapping[str, float]) -> float:
    """By what an arm's places are multiplied, so that bars stand beside each other, within a third of the way to the
    next number of labels.
    """
    order = sorted(places.values())
    gap = min((above / below for below, above in zip(order, order[1:], strict=False)), default=4.0)
    return gap ** ((number - (of - 1) / 2) / max(of, 6) / 3)


def _dots(axes: Axes, points: Mapping[float, Interval], style: _Style, joined: bool) -> None:
    places, means = list(points), [found.mean for found in points.values()]
    axes.plot(places, means, color=style.color, linestyle=style.linestyle if joined else "", linewidth=1.3,
              marker=style.marker, markersize=5.5, markerfacecolor=PAPER if style.hollow else style.color, zorder=3)
    known = [(place, found) for place, found in points.items() if found.n >= FEWEST]
    for place, found in known:
        axes.plot([place, place], [found.mean - found.ci95, found.mean + found.ci95], color=style.color, linewidth=0.9,
                  zorder=2)


def _names(axes: Axes, ends: Mapping[str, tuple[float, float]], styles: Mapping[str, _Style]) -> None:
    """Beside the end of its curve the name of each arm, moved so far that none covers another."""
    low, high = axes.get_ylim()
    step = (high - low) * 0.052
    order = sorted(ends, key=lambda arm: ends[arm][1])
    heights = _spread([ends[arm][1] for arm in order], step, low, high)
    for arm, height in zip(order, heights, strict=True):
        axes.annotate(in_picture(arm, 34), ends[arm], xytext=(1.03, height),
                      textcoords=("axes fraction", "data"), va="center", fontsize=8, color=INK, annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": styles[arm].color, "linewidth": 0.7,
                                  "alpha": 0.6, "shrinkA": 1, "shrinkB": 4, "relpos": (0, 0.5)})


def _spread(heights: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Ascending heights, moved as little as keeps them `step` apart: neighbours that touch become one block, centred
    on what it holds.
    """
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _top(blocks[-2], step) + step > _bottom(blocks[-1], step):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    found = [_bottom(block, step) + step * number for block in blocks for number in range(len(block))]
    over = max(0.0, (found[-1] if found else 0) - high)
    return [max(height - over, low) for height in found]


def _bottom(block: Sequence[float], step: float) -> float:
    return float(np.mean(block)) - step * (len(block) - 1) / 2


def _top(block: Sequence[float], step: float) -> float:
    return float(np.mean(block)) + step * (len(block) - 1) / 2


def _gains(rows: Sequence[Row], metric: str) -> dict[str, dict[str, Interval]]:
    """Arm → size → gain in points over its reference, over the seeds that both have."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        values.setdefault((row.arm, row.size), {})[row.seed] = 100 * row.metrics[metric]
    found: dict[str, dict[str, Interval]] = {}
    for row in rows:
        own, other = values[row.arm, row.size], values.get((row.reference, row.size), {})
        shared = sorted(own.keys() & other.keys())
        if shared and row.size not in found.get(row.arm, {}):
            found.setdefault(row.arm, {})[row.size] = paired_difference([own[seed] for seed in shared],
                                                                        [other[seed] for seed in shared])
    return found


def _reach(gains: Sequence[Interval]) -> tuple[float, float]:
    """As far as in the gain picture, but no further down than there is anything."""
    most = reach_of(gains)
    ends = [end for gain in gains for end in ((gain.mean - gain.ci95, gain.mean + gain.ci95)
                                              if gain.n >= FEWEST else (gain.mean,))]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.08 * (high - low or 1)
    return max(-most, low - room), min(most, high + room)


def _draw_gains(axes: Axes, gains: Mapping[str, Mapping[str, Interval]], places: Mapping[str, float],
                styles: Mapping[str, _Style], reach: tuple[float, float]) -> None:
    axes.set_visible(True)
    axes.axhline(0, color=INK, linewidth=0.9, zorder=1)
    axes.set_ylim(*reach)
    for number, (arm, by_size) in enumerate(gains.items()):
        moved = _beside(number, len(gains), places)
        points = {moved * places[size]: gain for size, gain in by_size.items()}
        _dots(axes, points, styles[arm], joined=False)
        for place, gain in points.items():
            for end, marker in ((gain.mean - gain.ci95, "v"), (gain.mean + gain.ci95, "^")):
                if gain.n >= FEWEST and not reach[0] <= end <= reach[1]:
                    axes.plot([place], [min(max(end, reach[0]), reach[1])], marker=marker, markersize=4.5,
                              color=styles[arm].color, clip_on=False)
    axes.set_xscale("log")
    axes.set_ylabel("gain (points)")
    axes.grid(axis="y", color=SOFT, alpha=0.2, linewidth=0.6)


def _label_axis(axes: Axes, places: Mapping[str, float], everything: int | None) -> None:
    named = {"all": f"all, {everything:,}"} if everything else {}
    low, high = min(places.values()), max(places.values())
    axes.set_xlim(low / 1.35, high * 1.35)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(places.values()), [f"{int(size):,}" if size.isdecimal() else named.get(size, size)
                                            for size in places])
    axes.set_xlabel("labels (logarithmic)" if len(places) > 1 else "labels")


def _legend(figure: Figure, rows: Sequence[Row], metric: str) -> None:
    seeds = min(sum(other.arm == row.arm and other.size == row.size and other.set == row.set for other in rows)
                for row in rows if row.model) if any(row.model for row in rows) else 0
    line = {"color": INK, "linewidth": 1.3, "marker": "o", "markersize": 5}
    entries = {"pretrained": Line2D([], [], linestyle=SOLID, **line),
               "random start": Line2D([], [], linestyle=DASHED, markerfacecolor=PAPER, **line),
               "needs no pretraining": Line2D([], [], linestyle=DOTTED, color=SOFT, marker="D", markersize=4.5)}
    told = ("bars: 95 % interval over seeds" if seeds >= FEWEST else
            f"{seeds} seed{'s' * (seeds != 1)}: run {FEWEST} or more for intervals")
    entries[told] = Line2D([], [], color=INK, linestyle="", marker="|", markersize=9) if seeds >= FEWEST else \
        Line2D([], [], linestyle="")
    figure.legend(entries.values(), list(entries), loc="outside lower left", ncols=4, frameon=False, fontsize=8,
                  labelcolor=INK)
