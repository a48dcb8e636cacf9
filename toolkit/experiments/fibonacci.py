"""The lecture's lab: windows of the Fibonacci numbers' logarithms, and a recurrent network of 11 or 33 parameters."""

import math

import numpy as np

from toolkit.data import counter
from toolkit.data.series.generators import fibonacci as fibonacci_numbers
from toolkit.data.series.learned import Learned
from toolkit.errors import UserError
from toolkit.experiments.settings import FibonacciConfig
from toolkit.metrics.intervals import Interval, paired_difference, verdict
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification

ARMS = {"rnn": None, "rnn-attention": "positional", "rnn-mean": "uniform"}
"""Name → how the RNN's states are pooled: the last, the tutorial's attention layer, the mean of all."""


class Windows:
    """Every `window` values in a row of a series (length,), with the value that follows as their label."""

    def __init__(self, series: np.ndarray, window: int, batch_size: int, seed: int):
        cut = np.lib.stride_tricks.sliding_window_view(series, window + 1)
        self.values, self.labels, self.batch_size, self.seed = cut[:, :-1], cut[:, -1].copy(), batch_size, seed

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        return self.rows(counter.epoch_order(self.seed, index, len(self.labels))[1])

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return {"values": self.values[index][:, None].astype(np.float32),
                "labels": self.labels[index].astype(np.float32)}


def split_series(settings: FibonacciConfig) -> list[np.ndarray]:
    """Training, validation and test, one after the other, on the scale on which training fills [0, 1]; float64."""
    ends = [round(0.6 * settings.numbers), round(0.7 * settings.numbers)]
    if settings.window < 1 or min(ends[1] - ends[0], settings.numbers - ends[1]) <= settings.window:
        raise UserError(f"window is {settings.window}; of {settings.numbers} numbers the {ends[1] - ends[0]} for "
                        f"validation must be more than a window, and a window at least 1. Give more numbers.")
    series = fibonacci_numbers(settings.numbers)
    low, high = series[:ends[0]].min(), series[:ends[0]].max()
    return np.split((series - low) / (high - low), ends)


def make_model(window: int, attention: str | None) -> RecurrentForClassification:
    """An RNN of 2 units (8 parameters) and a linear head (3); the tutorial's attention layer has 2 + window."""
    model = RecurrentForClassification(RecurrentConfig(
        cell="rnn", hidden_size=2, attention=attention, series_length=window, num_labels=1, problem_type="regression"))
    model.config.update(Learned(normalisation="none", series_length=window).as_config())
    return model


def least_squares(train: Windows, test: Windows) -> np.ndarray:
    """(n,) predictions for test, linear in a window's values, float64."""
    inputs, test_inputs = (np.c_[part.values, np.ones(len(part.labels))] for part in (train, test))
    return test_inputs @ np.linalg.lstsq(inputs, train.labels, rcond=None)[0]


def entropy_of_uniform(weights: np.ndarray) -> float:
    """(n, T) attention weights → their mean entropy over log T: 1 where attention is nothing but a mean."""
    entropy = -(weights * np.log(np.maximum(weights, 1e-30))).sum(1)
    return float(entropy.mean() / math.log(weights.shape[1]))


def compare(errors: dict[str, list[float]], name: str, reference: str) -> str:
    """In powers of ten: the errors of an arm may lie orders of magnitude apart, their mean being the worst seed's."""
    gain: Interval = paired_difference(np.log10(errors[reference]), np.log10(errors[name]))
    return verdict(gain, f"{name} over {reference}:", "powers of ten of MSE")
