"""The task of bbycroft.net/llm: sort six letters A, B, C. Small enough to test a language model on every input."""

import itertools

import numpy as np

from toolkit.data import counter
from toolkit.data.batches import IGNORED

LETTERS, LENGTH = "ABC", 6


def all_inputs() -> np.ndarray:
    """(729, 6) every sequence of six letters, as ids."""
    return np.asarray(list(itertools.product(range(len(LETTERS)), repeat=LENGTH)), np.int64)


def held_out(inputs: np.ndarray) -> np.ndarray:
    """(n,) which inputs are never trained on: a quarter of all, by a hash of the letters."""
    number = inputs @ len(LETTERS) ** np.arange(LENGTH)
    return counter.bits(counter.key(0x50127), number, 1)[:, 0] % np.uint64(4) == 0


def with_answers(inputs: np.ndarray) -> dict[str, np.ndarray]:
    """(n, 6) letters → `input_ids`, `labels` (n, 11): the letters, then their order, which alone is predicted."""
    sequence = np.concatenate([inputs, np.sort(inputs, 1)], 1)
    labels = sequence[:, 1:].copy()
    labels[:, : LENGTH - 1] = IGNORED
    return {"input_ids": sequence[:, :-1], "labels": labels}


class SortingBatches:
    """`batch(step, rows)`: inputs drawn from the three quarters that are not held out."""

    def __init__(self, batch_size: int, seed: int):
        inputs = all_inputs()
        self.inputs, self.batch_size, self.seed = inputs[~held_out(inputs)], batch_size, seed

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        return with_answers(self.inputs[counter.epoch_order(self.seed, index, len(self.inputs))[1]])
