"""Time series defined by published equations: sets to learn from without any file."""

import numpy as np

from toolkit.data.series import SeriesDataset


def cylinder_bell_funnel(per_class: int, seed: int) -> SeriesDataset:
    """Cylinder-Bell-Funnel (Saito 1994): noise with a plateau, a rising or a falling ramp; length 128.

    With t = 1 … 128, a ~ U{16 … 31}, b − a ~ U{32 … 95}, and η and every ε(t) from N(0, 1), on a ≤ t ≤ b

        cylinder (6 + η) + ε(t),   bell (6 + η)(t − a)/(b − a) + ε(t),   funnel (6 + η)(b − t)/(b − a) + ε(t),

    and ε(t) elsewhere. Returns 3 · per_class series in their own units (the archive's are z-normalised), the
    classes taking turns, in the archive's order: its labels 1, 2, 3 are these 0, 1, 2.

    The archive's own file agrees with all of this but the ends: there, b is uniform on 65 … 128 whatever a
    is, so that events last 73 steps on average instead of 63.5
    (`test_generated_series_agree_with_the_archive`).
    """
    random = np.random.default_rng(seed)
    labels = np.arange(3 * per_class, dtype=np.int64) % 3
    start = random.integers(16, 32, len(labels))
    end = start + random.integers(32, 96, len(labels))
    return SeriesDataset(_events(labels, start, end, random), labels, ("cylinder", "bell", "funnel"))


def _events(labels: np.ndarray, start: np.ndarray, end: np.ndarray,
            random: np.random.Generator) -> np.ndarray:
    """Cylinders (0), bells (1) and funnels (2) from start to end, each (n,) → float32 (n, 1, 128)."""
    n = len(labels)
    t, a, b = np.arange(1, 129), start[:, None], end[:, None]
    amplitude = 6 + random.standard_normal((n, 1))
    rising = (t - a) / (b - a)
    shape = np.choose(labels[:, None], [np.ones_like(rising), rising, 1 - rising])
    values = amplitude * shape * ((a <= t) & (t <= b)) + random.standard_normal((n, 128))
    return values[:, None, :].astype(np.float32)
