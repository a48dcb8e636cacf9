"""A classifier's answers on the test set: which classes are taken for which, how well they are ranked, and whether a
probability of 80 % means right in 80 % of cases; of numbers, predicted beside true.
"""

import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from toolkit import metrics
from toolkit.metrics.intervals import proportion_interval
from toolkit.report.figures.canvas import INK, LINES, OKABE_ITO, PRETRAINED, SOFT, new_figure, style_of
from toolkit.run.files import write_atomic
from toolkit.shown import in_picture

MOST_CLASSES = 30
"""In a confusion picture, and among the curves of a ranking: what can be told apart, and held in memory."""
MOST_PREVALENCES = 4
"""Curves up to which each has its line of prevalence; of more, the legend says the numbers."""
_SHADES = LinearSegmentedColormap.from_list("share", [(*to_rgb(PRETRAINED), 0.0), (*to_rgb(PRETRAINED), 0.6)])
"""Of a colour that lets the paper through, so that ink is read on it, light or dark."""


def confusion_counts(references: Sequence[int], predictions: Sequence[int], classes: int) -> np.ndarray:
    """(true classes, predicted classes)."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (np.asarray(references), np.asarray(predictions)), 1)
    return counts


def confusion_figure(counts: np.ndarray, label_names: Sequence[str], title: str, whole: str = "") -> Figure:
    """Counts, shaded by their share of the true class, which stands below them. Of more than MOST_CLASSES those that
    are mixed up most; whole: the file that has all of them (`write_counts`).
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    if len(label_names) > MOST_CLASSES:
        wrong = counts - np.diag(np.diag(counts))
        most = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CLASSES])
        title += f"; the {MOST_CLASSES} classes of {len(label_names):,} that are mixed up most"
        title += f", all in {whole}" if whole else ""
        counts, shares = counts[np.ix_(most, most)], shares[np.ix_(most, most)]
        label_names = [label_names[label] for label in most]
    size = len(label_names)
    margin = 0.07 * max(min(len(name), 28) for name in label_names)
    figure, ((axes,),) = new_figure(1.8 + margin + 0.85 * size, 1.5 + margin + 0.7 * size)
    axes.pcolormesh(shares, cmap=_SHADES, vmin=0, vmax=1, edgecolors="none")
    for row, column in zip(*np.nonzero(counts), strict=True):
        axes.annotate(f"{counts[row, column]:,}\n{100 * shares[row, column]:.0f} %", (column + 0.5, row + 0.5),
                      ha="center", va="center", fontsize=8, color=INK)
    shown = [in_picture(name, 28) for name in label_names]
    middles = np.arange(size) + 0.5
    axes.set_xticks(middles, shown, rotation=40, ha="right")
    axes.set_yticks(middles, shown)
    axes.set(xlim=(0, size), ylim=(size, 0))
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (% of its row)")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(textwrap.fill(title, max(30, 9 * size)), fontsize=11)
    return figure


def write_counts(counts: np.ndarray, label_names: Sequence[str], path: str | Path) -> None:
    """(true classes, predicted classes) as a .csv table."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["true \\ predicted", *label_names])
    writer.writerows([name, *row] for name, row in zip(label_names, counts.tolist(), strict=True))
    write_atomic(path, file.getvalue())


def ranking_figure(probabilities: np.ndarray, references: np.ndarray, label_names: Sequence[str],
                   threshold: dict | None = None) -> Figure:
    """ROC and precision-recall curves, of the threshold's class or of every class against the rest, with the area
    under each; the threshold is a dot. What is guessed is on the diagonal, or has the precision of the class's share.
    """
    classes = np.arange(len(label_names))
    if len(classes) > MOST_CLASSES:  # the largest
        classes = np.sort(np.argsort(-np.bincount(references, minlength=len(classes)), kind="stable")[:MOST_CLASSES])
    if len(label_names) == 2:
        classes = np.asarray([label_names.index(threshold["label"]) if threshold else 1])
    classes = [label for label in classes if 0 < (references == label).sum() < len(references)]  # others have no rank
    below = 0.2 * len(classes)
    figure, ((roc, recall),) = new_figure(9.2, 4.6 + below, 1, 2)
    for number, label in enumerate(classes):
        marked = threshold if threshold and label_names[label] == threshold["label"] else None
        _rank(roc, recall, probabilities[:, label], references == label, in_picture(label_names[label], 28), number,
              len(classes), marked)
    roc.plot([0, 1], [0, 1], color=SOFT, linestyle=LINES[1], linewidth=1, label="guessing: area 0.5")
    for axes, x, y, title in ((roc, "false positive rate", "true positive rate (recall)", "ROC"),
                              (recall, "recall", "precision", "Precision and recall")):
        axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1))
        axes.set_title(title, loc="left", fontsize=10)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.15), labelcolor=INK)
    return figure


def _rank(roc: Axes, recall: Axes, ranked: np.ndarray, positive: np.ndarray, name: str, number: int, of: int,
          threshold: dict | None) -> None:
    style = {key: value for key, value in style_of(number).items() if key != "marker"}
    areas = {kind: metrics.load(kind).compute(prediction_scores=ranked, references=positive.astype(int))[kind]
             for kind in ("roc_auc", "pr_auc")}
    false_rate, true_rate, _ = roc_curve(positive, ranked)
    precision, found, _ = precision_recall_curve(positive, ranked)
    share = float(positive.mean())
    roc.plot(false_rate, true_rate, label=f"{name}: area {areas['roc_auc']:.3f}", clip_on=False, **style)
    recall.plot(found, precision, clip_on=False, drawstyle="steps-post", label=f"{name}: area {areas['pr_auc']:.3f}" + (
        f", guessing {share:.3f}" if of > MOST_PREVALENCES else ""), **style)
    if of <= MOST_PREVALENCES:
        recall.axhline(share, color=style["color"], linestyle=LINES[2], linewidth=1,
                       label=f"guessing: the share of {name}, {share:.3f}")
    if threshold:
        called = ranked >= threshold["probability"]
        dot = {"marker": "o", "color": INK, "linestyle": "", "markersize": 6, "clip_on": False, "zorder": 5}
        roc.plot([(called & ~positive).sum() / (~positive).sum()], [(called & positive).sum() / positive.sum()],
                 label=f"answered from {threshold['probability']:.3f} on", **dot)
        if called.any():
            recall.plot([(called & positive).sum() / positive.sum()], [(called & positive).sum() / called.sum()],
                        label=f"answered from {threshold['probability']:.3f} on", **dot)


def calibration_figure(probabilities: np.ndarray, references: np.ndarray, bins: int = 10) -> Figure:
    """Share of right answers by the probability they were given with, its 95 % interval (Wilson), and how many there
    are (Guo et al. 2017).
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == references
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges[1:-1]), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = np.flatnonzero(counts)
    hits = np.bincount(place, weights=right, minlength=bins).astype(int)
    means = np.bincount(place, weights=confidence, minlength=bins)[filled] / counts[filled]
    figure, all_axes = new_figure(5.6, 6.1, 2, 1, sharex=True, height_ratios=(3, 1))
    axes, below = all_axes[:, 0]
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle=LINES[1], linewidth=1, label="calibrated")
    low, high = np.asarray([proportion_interval(int(hits[bin_]), int(counts[bin_]))[:2] for bin_ in filled]).T
    axes.vlines(means, low, high, color=PRETRAINED, linewidth=1.4, label="95 % interval over test examples")
    axes.plot(means, hits[filled] / counts[filled], "o", color=PRETRAINED, markersize=5, clip_on=False, zorder=3,
              label="answers of about this probability")
    axes.set(ylabel="share that is right", ylim=(0, 1))
    axes.set_title("Calibration on the test set", loc="left", fontsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", frameon=False, fontsize=8,
                  labelcolor=INK)
    below.bar((edges[:-1] + edges[1:]) / 2, counts, width=0.9 / bins, color=SOFT)
    below.set(xlabel="probability of the answer", ylabel="examples", xlim=(0, 1))
    return figure


def numbers_figure(references: np.ndarray, predictions: np.ndarray) -> Figure:
    """Predicted beside true numbers; on the line they are equal."""
    figure, ((axes,),) = new_figure(5.2, 5.2)
    ends = [min(references.min(), predictions.min()), max(references.max(), predictions.max())]
    axes.plot(ends, ends, color=SOFT, linestyle=LINES[1], linewidth=1, label="equal")
    axes.plot(references, predictions, "o", color=OKABE_ITO[0], markersize=4, alpha=0.6, markeredgewidth=0)
    axes.set(xlabel="true", ylabel="predicted", aspect="equal")
    axes.set_title("Numbers of the test set", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8, loc="upper left", labelcolor=INK)
    return figure
