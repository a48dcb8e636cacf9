"""Training series varied a little each time they are seen: of some dozens, a model would learn every one by heart.

Noise is not among the variations: a tenth of the series' deviation cost 5 points on smooth outlines of leaves.
"""

from dataclasses import dataclass

import numpy as np

from toolkit.data import counter
from toolkit.data.series import SeriesBatches, SeriesDataset


@dataclass
class AugmentationConfig:
    scale: float = 0.1
    """Standard deviation of the factor, around 1, by which each series is multiplied."""
    mixup: float = 0.5
    """Each series is λ of itself and 1 − λ of another, and so is its label, λ from Beta(mixup, mixup) (Zhang et al.
    2018, section 2); 0: never."""


class AugmentedBatches(SeriesBatches):
    """`SeriesBatches` for training: what is drawn for a row is a function of (seed, step, row).

    Labels are (b, classes) float32 where series are mixed. `rows` gives series as they are.
    """

    def __init__(self, data: SeriesDataset, batch_size: int, seed: int, config: AugmentationConfig):
        super().__init__(data, batch_size, seed)
        self.config = config

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        config, index = self.config, step * self.batch_size + np.arange(rows.start, rows.stop)
        chosen = counter.epoch_order(self.seed, index, len(self.labels))[1]
        batch = self.rows(chosen)
        values = batch["values"].copy()
        generators = [np.random.default_rng([self.seed, 0xA06, int(row)]) for row in index]
        if config.mixup:
            own = np.asarray([generator.beta(config.mixup, config.mixup) for generator in generators], np.float32)
            partner = np.asarray([generator.integers(len(self.labels)) for generator in generators])
            other = self.rows(partner)
            values = own[:, None, None] * values + (1 - own[:, None, None]) * other["values"]
            if "observed" in batch:  # where only one of the two was observed, the mean of a gap and a value is neither
                batch["observed"] = batch["observed"] & other["observed"]
            classes = np.eye(len(self.data.label_names), dtype=np.float32)
            batch["labels"] = own[:, None] * classes[batch["labels"]] + (1 - own[:, None]) * classes[other["labels"]]
        for row, generator in enumerate(generators):
            values[row] *= 1 + config.scale * generator.standard_normal(dtype=np.float32)
        batch["values"] = values if "observed" not in batch else np.where(batch["observed"], values, np.float32(0))
        return batch
