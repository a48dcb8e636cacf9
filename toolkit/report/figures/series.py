"""Labelled series: examples and means by class, spectra, what shuffled patches cost; answers beside true numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from toolkit.data.series.dataset import SeriesDataset
from toolkit.report.figures.canvas import INK, LINES, PAPER, PRETRAINED, RANDOM, SOFT, entitle, new_figure, style_of
from toolkit.shown import in_picture

MOST_CLASSES = 12
"""The largest, of which a row each is drawn."""
LEAST_ERROR = 1e-10
"""Squared; what is less is rounding, and stands at the axis' end with its value."""


def classes_shown(labels: np.ndarray, classes: int) -> list[int]:
    """All of them, or of more than MOST_CLASSES the largest, in their order."""
    if classes <= MOST_CLASSES:
        return list(range(classes))
    return sorted(np.argsort(-np.bincount(labels, minlength=classes), kind="stable")[:MOST_CLASSES].tolist())


def observed_values(data: SeriesDataset, channel: int = 0) -> np.ndarray:
    """float64 (n, length), NaN where nothing was observed."""
    values = data.values[:, channel].astype(float)
    return values if data.observed is None else np.where(data.observed[:, channel], values, np.nan)


def examples_figure(data: SeriesDataset, title: str = "", per_class: int = 3) -> Figure:
    """A row a class: its first `per_class` series and, at the right, their mean with the middle half; first channel."""
    values, shown = observed_values(data), classes_shown(data.labels, len(data.label_names))
    place, axis = time_axis(data)
    figure, all_axes = new_figure(9.4, 0.9 + 1.25 * len(shown), len(shown), per_class + 1, sharex=True, sharey=True)
    if title:
        left_out = len(data.label_names) - len(shown)
        told = f"; the largest {len(shown)} of {len(data.label_names):,} classes" if left_out else ""
        entitle(figure, title + told)
    for row, label in enumerate(shown):
        own, colour = values[data.labels == label], style_of(row)["color"]
        for axes, series in zip(all_axes[row, :per_class], own, strict=False):
            axes.plot(place, series, color=colour, linewidth=0.9)
        draw_mean(all_axes[row, -1], place, own, colour)
        name = in_picture(data.label_names[label], 40)
        all_axes[row, 0].set_title(f"{name}: {len(own):,} series", loc="left", fontsize=9)
    all_axes[0, -1].set_title("mean, middle half", loc="left", fontsize=9)
    for axes in all_axes.flat:
        axes.tick_params(labelsize=8)
        axes.yaxis.set_major_locator(MaxNLocator(3))
    for axes in all_axes[-1]:
        axes.set_xlabel(axis, fontsize=8)
    return figure


def answers_figure(data: SeriesDataset, answers: Sequence[str], title: str = "") -> Figure:
    """A row a series, all its channels, under what a model answers to it."""
    channels, length = data.values.shape[1:]
    place, axis = time_axis(data)
    figure, all_axes = new_figure(4.4, 0.7 + 1.1 * len(data), len(data), 1, sharex=True)
    if title:
        entitle(figure, title)
    for row, (axes, answer) in enumerate(zip(all_axes[:, 0], answers, strict=True)):
        for channel in range(channels):
            axes.plot(place, observed_values(data, channel)[row], linewidth=1, **style_of(channel) | {"marker": ""})
        axes.set_title(in_picture(answer), loc="left", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_xlim(0, max(place[length - 1], 1e-9))
        axes.yaxis.set_major_locator(MaxNLocator(3))
    all_axes[-1, 0].set_xlabel(axis, fontsize=8)
    return figure


def time_axis(data: SeriesDataset) -> tuple[np.ndarray, str]:
    """Where the values stand, and what the axis is called: seconds where the sampling rate is known."""
    place = np.arange(data.values.shape[-1])
    return (place / data.sampling_rate, "seconds") if data.sampling_rate else (place, "sample")


def draw_mean(axes, place: np.ndarray, own: np.ndarray, colour: str) -> None:
    """The mean of series (n, length) with the half of them that is in the middle, where there are any."""
    seen = np.isfinite(own).any(0) if len(own) else np.zeros(len(place), bool)
    if seen.any():
        low, high = np.nanquantile(own[:, seen], [0.25, 0.75], axis=0)
        axes.fill_between(place[seen], low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(place[seen], np.nanmean(own[:, seen], 0), color=colour, linewidth=1.5)


def spectra_figure(data: SeriesDataset, title: str = "") -> Figure:
    """A line a class: the mean power of its series (first channel) by frequency, its middle half of series as a band.

    Of a periodogram with a Hann window, each series' mean taken out; in Hz where the sampling rate is known. What was
    not observed counts as 0, the mean of normalised series.
    """
    shown = classes_shown(data.labels, len(data.label_names))
    figure, ((axes,),) = new_figure(7.4, 4.2)
    if title:
        entitle(figure, title)
    length = data.values.shape[-1]
    centred = data.values[:, 0] - data.values[:, 0].mean(-1, keepdims=True)
    power = np.square(np.abs(np.fft.rfft(centred * np.hanning(length), axis=-1)))[:, 1:] / length
    frequency = np.fft.rfftfreq(length, 1 / (data.sampling_rate or 1))[1:]
    floor = 1e-4 * power.max()  # of what is no signal, a line of zeros would stretch the axis without end
    for number, label in enumerate(shown):
        own, style = np.maximum(power[data.labels == label], floor), {**style_of(number), "marker": ""}
        if len(own):
            axes.plot(frequency, own.mean(0), linewidth=1.4, label=in_picture(data.label_names[label], 40), **style)
            axes.fill_between(frequency, *np.quantile(own, [0.25, 0.75], axis=0), color=style["color"], alpha=0.15,
                              linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel("frequency (Hz)" if data.sampling_rate else "frequency (cycles a sample)")
    axes.set_ylabel("power (squared units of the series)")
    axes.grid(color=SOFT, alpha=0.2, linewidth=0.6)
    figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def shuffle_figure(found: Mapping[str, Mapping], title: str = "") -> Figure | None:
    """Model → what the dead-branch check found with its patches in random order: answers to series as they are
    (filled) and shuffled (hollow). None where none was shuffled.
    """
    shuffled = {name: entry["shuffle"] for name, entry in found.items() if entry.get("shuffle")}
    if not shuffled:
        return None
    share = all("accuracy" in entry for entry in shuffled.values())
    key, scale = ("accuracy", 100) if share else ("mse", 1)
    figure, ((axes,),) = new_figure(7.4, 1.3 + 0.42 * len(shuffled))
    if title:
        entitle(figure, title)
    for place, entry in enumerate(shuffled.values()):
        before, after = scale * entry[key], scale * entry[f"shuffled_{key}"]
        axes.annotate("", (after, place), (before, place), arrowprops={"arrowstyle": "->", "color": SOFT,
                                                                      "shrinkA": 5, "shrinkB": 5})
        axes.scatter([before], [place], s=42, color=PRETRAINED, zorder=3, clip_on=False)
        axes.scatter([after], [place], s=42, facecolor=PAPER, edgecolor=RANDOM, linewidths=1.4, zorder=3, clip_on=False)
        told = f"{before:.1f} → {after:.1f} %" if share else f"{before:#.3g} → {after:#.3g}"
        axes.annotate(told, (1.03, place), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(shuffled)), [in_picture(name, 40) for name in shuffled])
    axes.set_ylim(len(shuffled) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    if share:
        axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy on one validation batch (%)" if share else "MSE on one validation batch (standardised)")
    axes.grid(axis="x", color=SOFT, alpha=0.2, linewidth=0.6)
    dots = {"marker": "o", "linestyle": "", "markersize": 6.5, "markeredgewidth": 1.4}
    figure.legend([Line2D([], [], color=PRETRAINED, **dots),
                   Line2D([], [], markerfacecolor=PAPER, markeredgecolor=RANDOM, **dots)],
                  ["as it is", "patches shuffled"], loc="outside lower left", ncols=2, frameon=False, fontsize=8,
                  labelcolor=INK)
    return figure


def next_values_figure(result: Mapping, label: str) -> Figure:
    """Test values with each arm's answers of the first seed; errors of all seeds, and of what needs no training, on a
    logarithmic axis. `label` names the series and its unit.
    """
    figure, ((curves, dots),) = new_figure(10.4, 4.2, 1, 2, width_ratios=(5, 4))
    place = np.arange(len(result["test_values"]))
    curves.plot(place, result["test_values"], color=INK, linewidth=2.2, label="what came")
    styles = {name: style_of(number) for number, name in enumerate(result["arms"])}
    for name, values in result["test_predictions"].items():
        curves.plot(place, values, color=styles[name]["color"], linestyle=LINES[1 + list(styles).index(name) % 3],
                    linewidth=1.6, label=in_picture(name, 40))
    names = [*result["arms"], *result["references"]]
    for row, name in enumerate(names):
        if name in styles:
            values = result["arms"][name]["values"]
            heights = row + np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else [row]
            dots.scatter(values, heights, s=34, color=styles[name]["color"], marker=styles[name]["marker"], zorder=3)
            middle = float(np.median(values))
            dots.vlines(middle, row - 0.36, row + 0.36, color=INK, linewidth=1.6, zorder=4)
        else:
            middle = result["references"][name]
            below = middle < LEAST_ERROR
            dots.scatter([max(middle, LEAST_ERROR)], [row], color=SOFT, marker="<" if below else "D", s=30, zorder=3,
                         clip_on=False)
        dots.annotate(f"{middle:.2g}".replace("-", "\u2212"), (1.02, row), xycoords=("axes fraction", "data"),
                      va="center", fontsize=9, color=INK)
    curves.set_xlabel("window of the test part")
    curves.set_ylabel(in_picture(label, 60))
    curves.set_title("answers of the first seed", loc="left", fontsize=10)
    dots.set_xscale("log")
    dots.set_xlim(left=max(dots.get_xlim()[0], LEAST_ERROR))
    dots.set_xlabel("test MSE (logarithmic)")
    dots.set_title("errors: a dot a seed, a line their median", loc="left", fontsize=10)
    dots.set_yticks(range(len(names)), [in_picture(name, 40) for name in names])
    dots.set_ylim(len(names) - 0.5, -0.5)
    dots.grid(axis="x", color=SOFT, alpha=0.2, linewidth=0.6)
    figure.legend(loc="outside lower left", ncols=5, frameon=False, fontsize=8, labelcolor=INK)
    return figure
