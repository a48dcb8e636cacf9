"""Series that were taken for another class, between what is usual in theirs and in the other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from toolkit.report.figures.canvas import INK, OKABE_ITO, SOFT, new_figure
from toolkit.shown import in_picture

COLUMNS = 3


@dataclass(frozen=True)
class Mistake:
    """Of one series, its first channel; NaN where nothing was observed."""

    title: str
    values: np.ndarray
    """(length,)"""
    own_mean: np.ndarray
    """(length,) the mean training series of its class."""
    other_mean: np.ndarray
    """That of the class it was taken for."""


def mistakes_figure(mistakes: Sequence[Mistake]) -> Figure:
    """A panel a mistake."""
    columns = min(COLUMNS, len(mistakes))
    rows = -(-len(mistakes) // columns)
    figure, all_axes = new_figure(0.4 + 3 * columns, 0.7 + 1.9 * rows, rows, columns, sharex=True, sharey=True)
    for axes in list(all_axes.flat)[len(mistakes):]:
        axes.remove()
    for axes, mistake in zip(all_axes.flat, mistakes, strict=False):
        axes.plot(mistake.own_mean, color=OKABE_ITO[0], linewidth=1.1)
        axes.plot(mistake.other_mean, color=OKABE_ITO[1], linewidth=1.1, linestyle=(0, (5, 2)))
        axes.plot(mistake.values, color=INK, linewidth=1.3)
        axes.set_title(in_picture(mistake.title, 48), loc="left", fontsize=9)
        axes.grid(axis="y", color=SOFT, alpha=0.2, linewidth=0.6)
    for axes in list(all_axes.flat)[max(0, len(mistakes) - columns):len(mistakes)]:
        axes.set_xlabel("sample")
    for axes in all_axes[:, 0]:
        axes.set_ylabel("value as the model reads it", fontsize=8)
    figure.legend(handles=[Line2D([], [], color=INK, label="the series"),
                           Line2D([], [], color=OKABE_ITO[0], label="mean of its class"),
                           Line2D([], [], color=OKABE_ITO[1], linestyle=(0, (5, 2)),
                                  label="mean of the class it was taken for")],
                  loc="outside lower left", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    return figure
