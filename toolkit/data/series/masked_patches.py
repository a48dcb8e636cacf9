"""Hidden stretches of series, for pretraining on series alone (Nie et al. 2023, section 3.2)."""

import math

import numpy as np

from toolkit.data import counter


class MaskedPatchBatches:
    """(seed, step) → values (b, C, L) and masked (b, C, L) bool: `mask_ratio` of each series' stretches of
    `patch_length` values, the same number in every series, hidden in all channels at once.
    """

    def __init__(self, values: np.ndarray, observed: np.ndarray | None, patch_length: int, mask_ratio: float,
                 batch_size: int, seed: int):
        """values: float32 (n, C, L); observed: bool of the same shape, or None."""
        self.values, self.observed = values, observed
        self.patch_length, self.batch_size, self.seed = patch_length, batch_size, seed
        self.patches = -(-values.shape[-1] // patch_length)
        if self.patches < 2:
            raise ValueError(f"series of {values.shape[-1]} values are one patch of {patch_length}; hiding it would "
                             f"leave nothing to tell it from")
        self.hidden = min(self.patches - 1, max(1, math.floor(mask_ratio * self.patches + 0.5)))

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        return self.rows(counter.epoch_order(self.seed, index, len(self.values))[1], index)

    def rows(self, chosen: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
        """The series `chosen`, their masks drawn for the sample indices `index`."""
        draws = counter.uniform(counter.key(self.seed, 0x3A5C), index, self.patches)
        hidden = draws.argsort(1).argsort(1) < self.hidden  # the lowest draws of each row
        length = self.values.shape[-1]
        masked = np.repeat(hidden, self.patch_length, 1)[:, None, :length]
        batch = {"values": self.values[chosen],
                 "masked": np.broadcast_to(masked, (len(chosen), *self.values.shape[1:])).copy()}
        if self.observed is not None:
            batch["observed"] = self.observed[chosen]
        return batch
