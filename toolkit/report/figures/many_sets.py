"""Models on many data sets: who is told apart from whom, set by set, and how far from the best baseline.

A table of scores is model → set → accuracy (a share, the mean over seeds); every model knows every set.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from toolkit.metrics.critical_difference import cliques, mean_ranks, pairwise_p_values, smallest_p_value
from toolkit.metrics.intervals import Interval, judgement, paired_difference, signed
from toolkit.report.figures.canvas import INK, PRETRAINED, SOFT, entitle, new_figure, wrapped
from toolkit.shown import in_picture

Scores = Mapping[str, Mapping[str, float]]
LEVEL = 0.05
FEWEST_SETS = 3
LINE = 0.24  # inches a model


def critical_difference_figure(scores: Scores, title: str = "Mean ranks") -> Figure:
    """Demšar's diagram: models on an axis of mean ranks, a bar under those that are not told apart (Wilcoxon, Holm)."""
    names, table = list(scores), _table(scores)
    sets, models = table.shape
    ranks, p_values = mean_ranks(table), pairwise_p_values(table)
    groups = cliques(ranks, p_values, LEVEL)
    order = np.argsort(ranks, kind="stable")
    half = -(-models // 2)
    bars = 0.16 * len(groups)
    figure, ((axes,),) = new_figure(11, 1.15 + bars + LINE * half)
    entitle(figure, title)
    _rank_axis(axes, models, -(0.2 + bars + LINE * half), 0.4)
    for number, group in enumerate(groups):
        place = -0.14 - 0.16 * number
        axes.plot([ranks[group[0]] - 0.03, ranks[group[-1]] + 0.03], [place, place], color=INK, linewidth=3.2,
                  solid_capstyle="butt")
    for position, model in enumerate(order):
        left = position < half
        line = position if left else models - 1 - position
        place = -(0.3 + bars + LINE * line)
        edge = 0.75 if left else models + 0.25
        axes.plot([ranks[model], ranks[model], edge], [0, place, place], color=SOFT, linewidth=0.9, clip_on=False)
        axes.annotate(f"{in_picture(names[model], 48)}  {ranks[model]:.2f}" if left else
                      f"{ranks[model]:.2f}  {in_picture(names[model], 48)}", (edge, place),
                      xytext=(-4 if left else 4, 0), textcoords="offset points", ha="right" if left else "left",
                      va="center", fontsize=9, color=INK)
    most = smallest_p_value(sets, models)
    told = (f"Bars join what {sets} sets do not tell apart (Wilcoxon's signed ranks, Holm, 5 %)." if most <= LEVEL else
            f"{sets} sets cannot tell {models} models apart: p is {most:.2g} at best.")
    axes.set_xlabel(f"mean rank over {sets} sets; 1 is best\n{told}", fontsize=9)
    return figure


def _rank_axis(axes: Axes, models: int, low: float, high: float) -> None:
    axes.set(xlim=(0.7, models + 0.3), ylim=(low, high), yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.plot([1, models], [0, 0], color=INK, linewidth=1.2)
    for rank in range(1, models + 1):
        axes.plot([rank, rank], [0, 0.1], color=INK, linewidth=1)
        axes.annotate(str(rank), (rank, 0.14), ha="center", va="bottom", fontsize=9, color=INK)


def pairs_figure(scores: Scores, pairs: Sequence[tuple[str, str]], title: str = "Set by set") -> Figure:
    """A panel a pair (model, what it is held against), a dot a set: above the line the model is ahead."""
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, all_axes = new_figure(3.7 * columns + 0.4, 3.9 * rows + 0.6, rows, columns)
    entitle(figure, title)
    for axes in all_axes.flat[len(pairs):]:
        axes.set_visible(False)
    for axes, (model, other) in zip(all_axes.flat, pairs, strict=False):
        y, x = (100 * np.asarray(list(scores[name].values())) for name in (model, other))
        low = max(0.0, 10 * np.floor(min(x.min(), y.min()) / 10))
        axes.plot([low, 100], [low, 100], color=SOFT, linewidth=1, linestyle="--", zorder=1)
        axes.scatter(x, y, s=30, color=PRETRAINED, zorder=3, clip_on=False)
        axes.set(xlim=(low, 100), ylim=(low, 100), aspect="equal")
        axes.set_xlabel(wrapped(f"{other}: accuracy (%)", 38), fontsize=9)
        axes.set_ylabel(wrapped(f"{model}: accuracy (%)", 38), fontsize=9)
        ahead, behind = int((y > x).sum()), int((y < x).sum())
        axes.set_title(f"ahead {ahead}, equal {len(x) - ahead - behind}, behind {behind}{_told(x, y)}", fontsize=9,
                       loc="left")
        for place in np.argsort(-np.abs(y - x), kind="stable")[:2]:  # which sets speak loudest
            if y[place] != x[place]:
                above, at_the_edge = y[place] > x[place], x[place] < low + 0.3 * (100 - low)
                axes.annotate(in_picture(list(scores[model])[place], 24), (x[place], y[place]), xytext=(
                    0 if above and at_the_edge else -6 if above else 6, 9 if above and at_the_edge else 0),
                    textcoords="offset points", ha="right" if above and not at_the_edge else "left", va="center",
                    fontsize=8, color=SOFT)
    return figure


def _told(x: np.ndarray, y: np.ndarray) -> str:
    """Of one pair on its own, where there are sets enough for 5 %."""
    if smallest_p_value(len(x), 2) > LEVEL:
        return ""
    p = 1.0 if np.array_equal(x, y) else float(stats.wilcoxon(x, y).pvalue)
    return f"; Wilcoxon p {p:.2g}"


def differences_figure(scores: Scores, baselines: Sequence[str], title: str) -> Figure:
    """Every model's distance from the best baseline, sorted: the mean over sets with its interval, and a dot a set."""
    best = max([name for name in baselines if name in scores] or scores, key=lambda name: _values(scores, name).mean())
    rows = {name: paired_difference(100 * _values(scores, name), 100 * _values(scores, best))
            for name in scores if name != best}
    names = sorted(rows, key=lambda name: -rows[name].mean)
    figure, ((axes,),) = new_figure(9.6, 1.3 + 0.31 * len(names))
    entitle(figure, title)
    axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
    known = len(_values(scores, best)) >= FEWEST_SETS
    reach = _reach(list(rows.values()), known)
    axes.set_xlim(*reach)
    for place, name in enumerate(names):
        gain = rows[name]
        each = 100 * (_values(scores, name) - _values(scores, best))
        shown = each[(each >= reach[0]) & (each <= reach[1])]
        axes.scatter(shown, np.full(len(shown), place), s=12, color=SOFT, alpha=0.55, linewidths=0, zorder=2)
        for value, marker in ((each.min(), "<"), (each.max(), ">")):  # sets beyond the axis
            if not reach[0] <= value <= reach[1]:
                axes.plot([min(max(value, reach[0]), reach[1])], [place], marker=marker, color=SOFT, markersize=4,
                          clip_on=False, zorder=2)
        if known:
            axes.errorbar(gain.mean, place, xerr=gain.ci95, color=PRETRAINED, linewidth=1.8, capsize=3, zorder=3)
        outside = not reach[0] <= gain.mean <= reach[1]
        axes.plot([min(max(gain.mean, reach[0]), reach[1])], [place], marker="<" if outside else "o",
                  markersize=7 if outside else 6, color=PRETRAINED, zorder=4, clip_on=False)
        words = (f"{signed(gain)}  {_against(judgement(gain))}" if known else f"{gain.mean:+.1f}")
        axes.annotate(f"{100 * _values(scores, name).mean():.1f} %   {words}".replace("-", "\u2212"), (1.04, place),
                      xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(names)), [wrapped(name, 42) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, pad=9)
    axes.grid(axis="x", color=SOFT, alpha=0.2, linewidth=0.6)
    sets = len(_values(scores, best))
    axes.set_xlabel(f"points of accuracy over the best baseline, {in_picture(best, 40)}: "
                    f"{100 * _values(scores, best).mean():.1f} %\na dot a set" + (
                        f", mean and 95 % interval over {sets} sets" if known else ""), fontsize=9)
    return figure


def _reach(gains: Sequence[Interval], known: bool) -> tuple[float, float]:
    """Whole are the intervals of all that are not shown to be behind, and three times as far to the left; what is
    further behind is an arrow at the edge, or it would squash all others.
    """
    ends = [(gain.mean - gain.ci95, gain.mean + gain.ci95) if known else (gain.mean, gain.mean) for gain in gains]
    near = [low for low, high in ends if high >= 0]
    low, high = min(0.0, *(low for low, _ in ends)), max(0.0, *(high for _, high in ends))
    if near and min(near) < 0:
        low = max(low, 3 * min(near))
    return low - 0.04 * (high - low or 1), high + 0.04 * (high - low or 1)


def _against(word: str) -> str:
    return {"real": "ahead", "hurts": "behind"}.get(word, word)


def _table(scores: Scores) -> np.ndarray:
    """(sets, models)."""
    sets = list(next(iter(scores.values())))
    return np.asarray([[by_set[name] for by_set in scores.values()] for name in sets], float)


def _values(scores: Scores, name: str) -> np.ndarray:
    return np.asarray(list(scores[name].values()), float)
