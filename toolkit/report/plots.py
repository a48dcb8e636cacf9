"""Pictures of a run: loss curves, confusion matrices, arms beside each other, learning curves."""

import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed, or asked for
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from sklearn.metrics import precision_recall_curve, roc_curve  # noqa: E402

from toolkit.report.figures.lettering import write_literally  # noqa: E402
from toolkit.run.files import write_atomic  # noqa: E402
from toolkit.shown import in_picture  # noqa: E402

MOST_CLASSES = 30
"""In a confusion picture, and among the curves of a ranking: what can be told apart, and held in memory."""
INK, SOFT = "#1f2937", "#9ca3af"
COLOURS = ("#2563eb", "#ea580c", "#16a34a", "#9333ea")


def plot_loss(records: Sequence[dict], path: str | Path, title: str, train: str = "loss", validation: str = "eval_loss",
              references: dict[str, float] | None = None, ylabel: str = "loss (nats)") -> None:
    """Training and validation values by step, with horizontal reference lines."""
    figure, axes = new_axes(title, (7, 4))
    for number, (key, label) in enumerate(((train, "training"), (validation, "validation"))):
        points = [(record["step"], record[key]) for record in records if key in record]
        if points:
            axes.plot(*zip(*points, strict=True), color=COLOURS[number], label=label, marker="o" if number else None,
                      markersize=4)
    for label, value in (references or {}).items():
        axes.axhline(value, color=SOFT, linestyle="--", linewidth=1)
        axes.annotate(label, (0.99, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=INK,
                      fontsize=8)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.legend(frameon=False, loc="lower left")
    save_figure(figure, path)


def plot_confusion(references: Sequence[int], predictions: Sequence[int], label_names: Sequence[str],
                   path: str | Path, title: str) -> None:
    """Counts, shaded by their share of the true class, which stands below them. Of more than MOST_CLASSES those that
    are mixed up most; all of them as a table beside the picture.
    """
    counts = np.zeros((len(label_names), len(label_names)), int)
    np.add.at(counts, (np.asarray(references), np.asarray(predictions)), 1)
    if len(label_names) > MOST_CLASSES:
        whole = Path(path).with_suffix(".csv")
        write_counts(counts, label_names, whole)
        wrong = counts - np.diag(np.diag(counts))
        most = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CLASSES])
        title += f"; the {MOST_CLASSES} classes of {len(label_names):,} that are mixed up most, all in {whole.name}"
        counts, label_names = counts[np.ix_(most, most)], [label_names[label] for label in most]
    size = len(label_names)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    margin = 0.07 * max(min(len(name), 28) for name in label_names)
    figure, axes = new_axes(textwrap.fill(title, max(30, 9 * size)), (1.8 + margin + 0.85 * size,
                                                                      1.5 + margin + 0.7 * size))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(size):
        for column in range(size):
            if counts[row, column]:
                axes.text(column, row, f"{counts[row, column]}\n{100 * share[row, column]:.0f} %", ha="center",
                          va="center", fontsize=8, color="white" if share[row, column] > 0.55 else INK)
    shown = [in_picture(name, 28) for name in label_names]
    axes.set_xticks(range(size), shown, rotation=40, ha="right")
    axes.set_yticks(range(size), shown)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for spine in axes.spines.values():
        spine.set_visible(False)
    save_figure(figure, path)


def write_counts(counts: np.ndarray, label_names: Sequence[str], path: Path) -> None:
    """(true classes, predicted classes) as a .csv table."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["true \\ predicted", *label_names])
    writer.writerows([name, *row] for name, row in zip(label_names, counts.tolist(), strict=True))
    write_atomic(path, file.getvalue())


def plot_ranking(probabilities: np.ndarray, references: np.ndarray, label_names: Sequence[str], path: str | Path,
                 threshold: dict | None = None) -> None:
    """ROC and precision-recall curves, of the threshold's class or of every class against the rest; the threshold is a
    dot.
    """
    classes = range(len(label_names))
    if len(classes) > MOST_CLASSES:  # the largest
        classes = np.sort(np.argsort(-np.bincount(references, minlength=len(classes)), kind="stable")[:MOST_CLASSES])
    if len(label_names) == 2:
        classes = [label_names.index(threshold["label"]) if threshold else 1]
    colours = plt.cm.tab10.colors
    figure, (roc, recall) = plt.subplots(1, 2, figsize=(9.5, 4.3), layout="constrained")
    for number, label in enumerate(classes):
        positive, ranked, colour = references == label, probabilities[:, label], colours[number % len(colours)]
        if positive.all() or not positive.any():
            continue  # there is nothing to rank
        false_rate, true_rate, _ = roc_curve(positive, ranked)
        precision, found, _ = precision_recall_curve(positive, ranked)
        roc.plot(false_rate, true_rate, color=colour, label=in_picture(label_names[label], 28))
        recall.plot(found, precision, color=colour)
        if threshold and label_names[label] == threshold["label"]:
            called = ranked >= threshold["probability"]
            roc.plot((called & ~positive).sum() / (~positive).sum(), (called & positive).sum() / positive.sum(), "o",
                     color=INK, label=f"from {threshold['probability']:.3f} on")
            if called.any():
                recall.plot((called & positive).sum() / positive.sum(), (called & positive).sum() / called.sum(), "o",
                            color=INK)
    roc.plot([0, 1], [0, 1], color=SOFT, linestyle="--", linewidth=1)
    for axes, x, y, title in ((roc, "false positives / negatives", "recall", "ROC"),
                              (recall, "recall", "precision", "Precision and recall")):
        axes.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axes.set_title(title, color=INK, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    roc.legend(frameon=False, fontsize=8, loc="lower right")
    save_figure(figure, path)


def plot_calibration(probabilities: np.ndarray, references: np.ndarray, path: str | Path, bins: int = 10) -> None:
    """Share of right answers by the probability they were given with, and how many there are (Guo et al. 2017)."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == references
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges[1:-1]), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = counts > 0
    figure, (axes, below) = plt.subplots(2, 1, figsize=(5.2, 5.2), layout="constrained", sharex=True,
                                         height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle="--", linewidth=1)
    means = [np.bincount(place, weights=values, minlength=bins)[filled] / counts[filled]
             for values in (confidence, right)]
    axes.plot(*means, color=COLOURS[0], marker="o", markersize=4)
    axes.set(ylabel="share that is right", ylim=(0, 1.02))
    axes.set_title("Calibration on the test set", color=INK, fontsize=11)
    below.bar((edges[:-1] + edges[1:]) / 2, counts, width=0.9 / bins, color=SOFT)
    below.set(xlabel="probability of the answer", ylabel="examples", xlim=(0, 1))
    for each in (axes, below):
        each.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def plot_numbers(references: np.ndarray, predictions: np.ndarray, path: str | Path) -> None:
    """Predicted beside true numbers; on the line they are equal."""
    figure, axes = new_axes("Numbers of the test set", (5.2, 5.2))
    ends = [min(references.min(), predictions.min()), max(references.max(), predictions.max())]
    axes.plot(ends, ends, color=SOFT, linestyle="--", linewidth=1)
    axes.plot(references, predictions, "o", color=COLOURS[0], markersize=4, alpha=0.6)
    axes.set(xlabel="true", ylabel="predicted")
    save_figure(figure, path)


def new_axes(title: str, size: tuple[float, float]):
    """A figure of `size` in inches and its only axes, in the style of all pictures."""
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.set_title(title, color=INK, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure, path: str | Path) -> None:
    """Write the picture, making its folder, and let go of the figure. Texts are drawn as they are written."""
    write_literally(figure)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=130, format=Path(path).suffix.removeprefix(".") or "png")
    write_atomic(path, picture.getvalue())
    plt.close(figure)
