"""How well a language model predicts.

Perplexity and bits per byte take sums: a batch costs one pair of numbers, however many tokens it has.

    metric.add_batch(negative_log_likelihood=loss_sum, tokens=count)
"""

import math
from typing import ClassVar

import numpy as np

from toolkit.metrics.base import OfflineMetric, State, ratio

IGNORED = -100
"""The label of a position that is not scored, in transformers and in `torch.nn.CrossEntropyLoss`."""


class MaskedAccuracy(OfflineMetric):
    """Share of scored tokens predicted right; labels of -100 are not scored.

    Inputs: predictions, references: token ids of any one shape, such as (rows, length).
    Result: {"masked_accuracy": float in [0, 1], None when no token is scored, "count": int, scored tokens}.
    """

    dimensions = None
    keeps = ("right", "scored")

    def _statistics(self, predictions, references) -> State:
        scored = references != IGNORED
        return {"right": int(np.sum((references == predictions) & scored)), "scored": int(scored.sum())}

    def _result(self, state: State, **_) -> dict[str, float | int | None]:
        return {"masked_accuracy": ratio(state["right"], state["scored"]), "count": int(state["scored"])}


class Perplexity(OfflineMetric):
    """exp of the mean negative log-likelihood per token (Jelinek et al. 1977), for use within one tokenizer.

    Inputs, one number per batch or (n,): negative_log_likelihood: sum over its predicted tokens, in nats;
    tokens: how many they are. Result: {"perplexity": float ≥ 1, or None when there are no tokens}.
    Not the hub's module of this name, which downloads a model and reads texts.
    """

    inputs: ClassVar = {"negative_log_likelihood": float, "tokens": int}
    keeps = ("nats", "tokens")

    def _statistics(self, negative_log_likelihood, tokens) -> State:
        return _sums(self.name, "tokens", negative_log_likelihood, tokens)

    def _result(self, state: State, **_) -> dict[str, float | None]:
        mean = _nats_per(self.name, "tokens", state)
        if mean is not None and mean > 700:  # exp overflows at 709.8
            raise ValueError(f"perplexity was given {mean:.6g} nats per token; expected less than 700. "
                             "Check that tokens counts every token in the sum.")
        return {"perplexity": None if mean is None else math.exp(mean)}


class BitsPerByte(OfflineMetric):
    """Bits per byte of UTF-8 text, comparable between tokenizers (Gao et al. 2020, *The Pile*, section 3.1).

    Inputs, one number per batch or (n,): negative_log_likelihood: sum over its predicted tokens, in nats;
    bytes: UTF-8 length of their text. Result: {"bits_per_byte": float, or None when there are no bytes}.
    """

    inputs: ClassVar = {"negative_log_likelihood": float, "bytes": int}
    keeps = ("nats", "bytes")

    def _statistics(self, negative_log_likelihood, bytes) -> State:
        return _sums(self.name, "bytes", negative_log_likelihood, bytes)

    def _result(self, state: State, **_) -> dict[str, float | None]:
        mean = _nats_per(self.name, "bytes", state)
        return {"bits_per_byte": None if mean is None else mean / math.log(2)}


def _sums(metric: str, unit: str, nats: np.ndarray, counts: np.ndarray) -> State:
    if counts.min() < 0:
        raise ValueError(f"{metric} was given {unit}={counts.min()}; expected counts of 0 or more. "
                         "Count the predicted positions, not their labels.")
    return {"nats": math.fsum(nats.ravel()), unit: int(counts.sum())}


def _nats_per(metric: str, unit: str, state: State) -> float | None:
    """Mean over all units, so that batches of unequal size weigh by their counts. None for no units."""
    nats, total = float(state["nats"]), int(state[unit])
    if total == 0:
        return None
    if nats / total < -1e-6:  # below what rounding in a loss can do
        raise ValueError(f"{metric} was given {nats:.6g} nats over {total} {unit}; expected a sum of 0 or "
                         "more. Pass the negative log-likelihood, -log p, not log p.")
    return max(nats, 0.0) / total
