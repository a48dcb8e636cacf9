"""The series that a page about their classifiers shows: they lie in files of the user's, or are drawn anew."""

from collections.abc import Sequence

import numpy as np

from toolkit.data.series.dataset import SeriesDataset
from toolkit.run.directory import Run
from toolkit.tasks.base import write_arrays

FILE = "shown-series.npz"
OF_A_CLASS, WORST = 50, 6
"""Training series of each class, and mistakes of each model, that are kept; fewer of long ones (MOST_VALUES)."""
MOST_VALUES = 1_000_000


def write_shown(run: Run, train: SeriesDataset, test: SeriesDataset, outputs: Sequence[np.ndarray] = ()
                ) -> None:
    """label_names (classes,); train_values (n, channels, length) and train_labels (n,): some training series of each
    class; labels (m,) of all test series; index (k,) and values (k, channels, length) of those test series which one of
    the models, whose outputs (m, classes) these are, gets wrong with the most confidence. NaN is what was not observed.
    """
    most = max(1, MOST_VALUES // max(1, train.values[0].size))
    each = min(OF_A_CLASS, max(1, most // max(1, len(train.label_names))))
    chosen = np.sort(np.concatenate([np.flatnonzero(train.labels == label)[:each]
                                     for label in range(len(train.label_names))]))[:most]
    mistaken = [np.zeros(0, np.int64), *(_worst(probabilities, test.labels) for probabilities in outputs)]
    index = np.unique(np.concatenate(mistaken))[:most]
    some = train.select(chosen)
    write_arrays(run.directory / FILE, {
        "label_names": np.asarray(train.label_names, dtype=np.str_), "train_values": _with_gaps(some),
        "train_labels": some.labels, "labels": test.labels, "index": index, "values": _with_gaps(test.select(index))})


def _with_gaps(data: SeriesDataset) -> np.ndarray:
    """(n, channels, length) float32, NaN where nothing was observed."""
    return data.values if data.observed is None else np.where(data.observed, data.values, np.nan).astype(np.float32)


def _worst(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    predictions = probabilities.argmax(1)
    wrong = np.flatnonzero(predictions != labels)
    confidence = probabilities[wrong, predictions[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:WORST]
