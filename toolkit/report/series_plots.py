"""Pictures of labelled series and of what learns them: examples, spectra, learning curves of arms."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from toolkit.data.series.dataset import SeriesDataset
from toolkit.report.plots import COLOURS, INK, SOFT, new_axes, save_figure
from toolkit.shown import in_picture


def plot_examples(data: SeriesDataset, path: str | Path, title: str, per_class: int = 3) -> None:
    """A row a class: its first `per_class` series, first channel, as far as they were observed."""
    classes = range(len(data.label_names))
    figure, all_axes = plt.subplots(len(classes), per_class, squeeze=False, layout="constrained", sharex=True,
                                    figsize=(3.2 * per_class, 0.8 + 1.35 * len(classes)))
    figure.suptitle(title, color=INK, fontsize=11)
    for label in classes:
        rows = np.flatnonzero(data.labels == label)[:per_class]
        for column, axes in enumerate(all_axes[label]):
            if column < len(rows):
                values = data.values[rows[column], 0].astype(float)
                if data.observed is not None:
                    values[~data.observed[rows[column], 0]] = np.nan
                axes.plot(values, color=COLOURS[label % len(COLOURS)], linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7)
        all_axes[label, 0].set_ylabel(data.label_names[label], fontsize=8, color=INK)
    for axes in all_axes[-1]:
        axes.set_xlabel("sample", fontsize=8)
    save_figure(figure, path)


def plot_spectra(data: SeriesDataset, path: str | Path, title: str) -> None:
    """A line a class: the mean power of its series (first channel) by frequency, its middle half of series as a band.

    Of a periodogram with a Hann window, each series' mean taken out; in Hz where the sampling rate is known. What was
    not observed counts as 0, the mean of normalised series.
    """
    figure, axes = new_axes(title, (7, 4))
    length = data.values.shape[-1]
    centred = data.values[:, 0] - data.values[:, 0].mean(-1, keepdims=True)
    power = np.square(np.abs(np.fft.rfft(centred * np.hanning(length), axis=-1)))[:, 1:] / length
    frequency = np.fft.rfftfreq(length, 1 / (data.sampling_rate or 1))[1:]
    floor = 1e-4 * power.max()  # of what is no signal, a line of zeros would stretch the axis without end
    for label, name in enumerate(data.label_names):
        own = np.maximum(power[data.labels == label], floor)
        if len(own):
            colour = COLOURS[label % len(COLOURS)]
            style = "-" if label < len(COLOURS) else "--"
            axes.plot(frequency, own.mean(0), color=colour, linestyle=style, linewidth=1.2, label=in_picture(name))
            axes.fill_between(frequency, *np.quantile(own, [0.25, 0.75], axis=0), color=colour, alpha=0.15, linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel("frequency (Hz)" if data.sampling_rate else "frequency (cycles a sample)")
    axes.set_ylabel("power")
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def plot_fits(fits: dict[str, Sequence[Sequence[dict]]], path: str | Path, title: str) -> None:
    """Arm → one metrics.jsonl's records a seed: training loss and validation accuracy by step, the mean over seeds as a
    line and their range as a band.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    figure.suptitle(title, color=INK, fontsize=11)
    colours = dict(zip(fits, plt.cm.tab10.colors * (1 + len(fits) // 10), strict=False))
    for axes, key, factor, label in ((left, "loss", 1, "training loss (nats)"),
                                     (right, "eval_accuracy", 100, "validation accuracy (%)")):
        for arm, seeds in fits.items():
            curves = [{record["step"]: factor * record[key] for record in records if key in record}
                      for records in seeds]
            steps = sorted(set.intersection(*(set(curve) for curve in curves)))
            values = np.asarray([[curve[step] for step in steps] for curve in curves])
            axes.plot(steps, values.mean(0), color=colours[arm], marker="o", markersize=3, linewidth=1.2,
                      label=in_picture(arm))
            axes.fill_between(steps, values.min(0), values.max(0), color=colours[arm], alpha=0.12, linewidth=0)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=SOFT, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save_figure(figure, path)
