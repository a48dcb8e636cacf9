"""What batches of all tasks share: the label that counts for nothing, and the protocol of labelled batches."""

from typing import Protocol

import numpy as np

IGNORED = -100
"""Label of a position that is not predicted, as everywhere in transformers."""


class LabelledBatches(Protocol):
    """Examples of known label: `TextBatches` and `SeriesBatches`."""

    labels: np.ndarray

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]: ...

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]: ...
