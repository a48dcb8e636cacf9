"""Labelled time series in memory: values and what of them was observed, z-normalisation, batches."""

from dataclasses import dataclass, field, replace

import numpy as np

from toolkit.data import counter
from toolkit.data.parts import class_counts
from toolkit.data.series.learned import Learned
from toolkit.views import View, Viewed, counted


@dataclass(frozen=True, repr=False)
class SeriesDataset(Viewed):
    """Series with one class each. Those of unequal length are padded on the right, and the padding is not observed."""

    values: np.ndarray
    """float32 (n, channels, length), finite; 0 where nothing was observed."""
    labels: np.ndarray
    """int64 (n,), indices into label_names."""
    label_names: tuple[str, ...]
    observed: np.ndarray | None = None
    """bool (n, channels, length): where there is a value; None: everywhere."""
    sampling_rate: float | None = None
    """Values a second (Hz), as the user said: nothing in the values tells it."""
    learned: Learned = field(default_factory=Learned)
    """What a model that learns these keeps, so that others mean the same to it."""

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.dtype != np.float32:
            raise ValueError(f"values must be float32 (n, channels, length), not {self.values.dtype} "
                             f"{self.values.shape}")
        if not np.isfinite(self.values).all():
            raise ValueError(f"{(~np.isfinite(self.values)).sum():,} of {self.values.size:,} values are not finite")
        if self.labels.shape != (len(self.values),) or self.labels.dtype != np.int64:
            raise ValueError(f"labels must be int64 ({len(self.values)},), not {self.labels.dtype} "
                             f"{self.labels.shape}")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.label_names):
            raise ValueError(f"labels run from {self.labels.min()} to {self.labels.max()}, but there are "
                             f"{len(self.label_names)} label names")
        if self.observed is not None:
            if self.observed.shape != self.values.shape or self.observed.dtype != bool:
                raise ValueError(f"observed must be bool {self.values.shape} as the values are, not "
                                 f"{self.observed.dtype} {self.observed.shape}")
            if self.values[~self.observed].any():
                raise ValueError("values that were not observed must be 0")
        if self.sampling_rate is not None and not 0 < self.sampling_rate < float("inf"):
            raise ValueError(f"sampling_rate must be a positive number of Hz, not {self.sampling_rate}")

    def __len__(self) -> int:
        return len(self.values)

    def _shown(self) -> View:
        n, channels, length = self.values.shape
        lengths = self.lengths if n else np.asarray([length])
        facts = {"values": f"{lengths.min():,}" + f" to {lengths.max():,}" * bool(lengths.min() < lengths.max())
                 + f" in {counted(channels, 'channel')}", "of each": class_counts(self)}
        if self.observed is not None:
            facts["observed"] = f"{100 * self.observed.mean():.1f} % of the values, padding counted"
        if self.sampling_rate is not None:
            facts["sampling rate"] = f"{self.sampling_rate:g} Hz"
        return View(f"{counted(n, 'labelled series', 'labelled series')}", facts)

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64: each series up to the last value observed in any of its channels."""
        n, _, length = self.values.shape
        if self.observed is None:
            return np.full(n, length, np.int64)
        anywhere = self.observed.any(1)
        return np.where(anywhere.any(1), length - anywhere[:, ::-1].argmax(1), 0)

    def select(self, index: np.ndarray) -> "SeriesDataset":
        """The series at `index`, integers or bool (n,)."""
        return replace(self, values=self.values[index], labels=self.labels[index],
                       observed=None if self.observed is None else self.observed[index])

    def of_length(self, length: int) -> "SeriesDataset":
        """Cut on the right to `length`, or padded with what is not observed."""
        more = length - self.values.shape[2]
        if more <= 0:
            return replace(self, values=self.values[..., :length],
                           observed=None if self.observed is None else self.observed[..., :length])
        observed = np.ones(self.values.shape, bool) if self.observed is None else self.observed
        return replace(self, **{name: np.pad(part, ((0, 0), (0, 0), (0, more)))
                                for name, part in (("values", self.values), ("observed", observed))})

    def normalised(self) -> "SeriesDataset":
        """Scaled as `learned` says."""
        return replace(self, values=scaled(self.values, self.observed, self.learned))


def learned_from(train: SeriesDataset, normalisation: str) -> Learned:
    """What a model that learns these series, not yet scaled, is to keep of them."""
    learned = replace(train.learned, sampling_rate=train.sampling_rate, normalisation=normalisation,
                      series_length=train.values.shape[2])
    if normalisation != "train":
        return learned
    observed = np.ones(train.values.shape, bool) if train.observed is None else train.observed
    mean, deviation = (statistic(train.values, axis=(0, 2), where=observed, dtype=np.float64)
                       for statistic in (np.mean, np.std))
    return replace(learned, channel_means=tuple(mean.tolist()), channel_deviations=tuple(deviation.tolist()))


def scaled(values: np.ndarray, observed: np.ndarray | None, learned: Learned) -> np.ndarray:
    """float32 (n, channels, length) as a model reads them; 0 where nothing was observed."""
    if learned.normalisation == "none":
        return values
    if learned.normalisation == "series":
        return z_normalise(values, observed)
    mean, deviation = (np.asarray(each)[:, None] for each in (learned.channel_means, learned.channel_deviations))
    values = (values - mean) / np.where(deviation > 0, deviation, 1)
    return np.where(True if observed is None else observed, values, 0).astype(np.float32)


def z_normalise(values: np.ndarray, observed: np.ndarray | None = None) -> np.ndarray:
    """Each series and channel, (..., length), to mean 0 and standard deviation 1, float32.

    Each is scaled by its own observed statistics alone, so nothing leaks between splits. A constant one becomes zeros,
    and so does what was not observed (`observed`: bool of the values' shape; None: everything was).
    The deviation is the sample's (n − 1), as in the UCR archive's CBF, which this leaves as it is.
    """
    values = np.asarray(values, np.float64)
    seen = np.ones(values.shape, bool) if observed is None else observed
    # Not "deviation is 0": the mean of equal numbers can differ from them in the last bit, which would be
    # blown up to a signal.
    highest = np.max(values, -1, keepdims=True, where=seen, initial=-np.inf)
    constant = highest <= np.min(values, -1, keepdims=True, where=seen, initial=np.inf)  # or nothing was observed
    count = seen.sum(-1, keepdims=True)
    mean = np.sum(values, -1, keepdims=True, where=seen) / np.maximum(count, 1)
    centred = np.where(constant | ~seen, 0.0, values - mean)
    deviation = np.sqrt(np.square(centred).sum(-1, keepdims=True) / np.maximum(count - 1, 1))
    return (centred / np.where(constant, 1.0, deviation)).astype(np.float32)


class SeriesBatches(Viewed):
    """`batch(step, rows)` draws rows of a global batch, each epoch in a fresh order; `rows(index)` gives those asked.

    Either is values (b, C, L) and labels (b,) and, unless everything was observed, observed (b, C, L).
    """

    def __init__(self, data: SeriesDataset, batch_size: int, seed: int):
        self.data, self.labels, self.batch_size, self.seed = data, data.labels, batch_size, seed

    def _shown(self) -> View:
        return View(f"batches of {self.batch_size} of {len(self.labels):,} series, drawn by seed {self.seed}")

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        return self.rows(counter.epoch_order(self.seed, index, len(self.labels))[1])

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        batch = {"values": self.data.values[index], "labels": self.labels[index]}
        if self.data.observed is not None:
            batch["observed"] = self.data.observed[index]
        return batch
