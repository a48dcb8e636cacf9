"""Training series varied a little each time they are seen: of some dozens, a model would learn every one by heart."""

from dataclasses import dataclass

import numpy as np

from toolkit.data import counter
from toolkit.data.series.dataset import SeriesBatches, SeriesDataset


@dataclass
class AugmentationConfig:
    """What each is worth was measured by cross-validation within training sets of the UCR archive, and on generated
    Cylinder-Bell-Funnel with 30 series to learn from. There noise adds 14 points and moving 4. Elsewhere moving adds 10
    points (ToeSegmentation1) and 2 (Computers, SwedishLeaf), and takes 1 (PowerCons, ECG200, Strawberry). Noise of one
    size for all sets would take 5 from smooth outlines.
    """

    scale: float = 0.1
    """Standard deviation of the factor, around 1, by which each series is multiplied."""
    shift: float = 0.1
    """Every other series is moved in time by up to this share of its length, earlier or later; its first or last value
    fills the gap. The rest stay, for where in a day something happens can matter."""
    noise: float = 3.0
    """Every other series gets noise, of a standard deviation between 0 and this many times that of the noise it has
    (estimated from second differences: Gasser et al. 1986). A smooth outline stays smooth."""
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
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        batch = self.rows(counter.epoch_order(self.seed, index, len(self.labels))[1])
        generators = [np.random.default_rng([self.seed, 0xA06, int(row)]) for row in index]
        if self.config.mixup:
            self._mix(batch, generators)
        batch["values"] = np.stack([self._varied(values, generator)
                                    for values, generator in zip(batch["values"], generators, strict=True)])
        if "observed" in batch:
            batch["values"] = np.where(batch["observed"], batch["values"], np.float32(0))
        self._move(batch, generators)
        return batch

    def _mix(self, batch: dict[str, np.ndarray], generators: list[np.random.Generator]) -> None:
        mixup, classes = self.config.mixup, np.eye(len(self.data.label_names), dtype=np.float32)
        own = np.asarray([generator.beta(mixup, mixup) for generator in generators], np.float32)
        other = self.rows(np.asarray([generator.integers(len(self.labels)) for generator in generators]))
        batch["values"] = own[:, None, None] * batch["values"] + (1 - own[:, None, None]) * other["values"]
        batch["labels"] = own[:, None] * classes[batch["labels"]] + (1 - own[:, None]) * classes[other["labels"]]
        if "observed" in batch:  # where only one of the two was observed, the mean of a gap and a value is neither
            batch["observed"] = batch["observed"] & other["observed"]

    def _varied(self, values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(C, L) → the same shape, scaled and noisy."""
        scale = 1 + self.config.scale * generator.standard_normal(dtype=np.float32)
        own = np.sqrt(np.square(np.diff(values, 2)).mean(-1, keepdims=True) / 6) if values.shape[-1] > 2 else 0
        deviation = np.float32(self.config.noise * generator.random() * (generator.random() < 0.5)) * own
        return scale * values + deviation * generator.standard_normal(values.shape, dtype=np.float32)

    def _move(self, batch: dict[str, np.ndarray], generators: list[np.random.Generator]) -> None:
        length = batch["values"].shape[-1]
        furthest = int(self.config.shift * length)
        for row, generator in enumerate(generators):
            if furthest and generator.random() < 0.5:
                taken = np.arange(length) - generator.integers(-furthest, furthest + 1)
                for name in {"values", "observed"} & batch.keys():
                    batch[name][row] = batch[name][row][:, taken.clip(0, length - 1)]
