"""Time series defined by equations: labelled sets to learn from without any file, and single series to forecast.

A labelled set is a function of (per_class, seed), its classes taking turns, in its own units.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from toolkit.data.series.dataset import SeriesDataset


def cylinder_bell_funnel(per_class: int, seed: int) -> SeriesDataset:
    """Cylinder-Bell-Funnel (Saito 1994): noise with a plateau, a rising or a falling ramp; length 128.

    With t = 1 … 128, a ~ U{16 … 31}, b − a ~ U{32 … 95}, and η and every ε(t) from N(0, 1), on a ≤ t ≤ b

        cylinder (6 + η) + ε(t),   bell (6 + η)(t − a)/(b − a) + ε(t),   funnel (6 + η)(b − t)/(b − a) + ε(t),

    and ε(t) elsewhere. Returns 3 · per_class series (the archive's are z-normalised) with the classes in the archive's
    order: its labels 1, 2, 3 are these 0, 1, 2.

    The archive's own file agrees with all of this but the ends: there, b is uniform on 65 … 128 whatever a
    is, so that events last 73 steps on average instead of 63.5
    (`test_cylinder_bell_funnel_agrees_with_the_archive`).
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


def synthetic_control(per_class: int, seed: int) -> SeriesDataset:
    """Synthetic Control (Alcock & Manolopoulos 1999): noise, cycles, trends and shifts in control charts; length 60.

    With t = 0 … 59, m = 30, s = 2 and every r(t) ~ U[−3, 3], y(t) = m + r(t) s and in addition

        normal nothing,                                      cyclic a sin(2π t / T), a and T ~ U[10, 15],
        increasing or decreasing trend ± g t, g ~ U[0.2, 0.5],
        upward or downward shift ± x from t₀ on, x ~ U[7.5, 20], t₀ ~ U{20 … 39}.

    Returns 6 · per_class series (the archive's are z-normalised); the archive's labels 1 … 6 are these 0 … 5. Its files
    agree with all of this (`test_synthetic_control_agrees_with_the_archive`).
    """
    random = np.random.default_rng(seed)
    names = ("normal", "cyclic", "increasing trend", "decreasing trend", "upward shift", "downward shift")
    labels = np.arange(6 * per_class, dtype=np.int64) % 6
    n, t = len(labels), np.arange(60)
    noise = 2 * random.uniform(-3, 3, (n, 60))
    amplitude, period = random.uniform(10, 15, (2, n, 1))
    slope, size = random.uniform(0.2, 0.5, (n, 1)), random.uniform(7.5, 20, (n, 1))
    start = random.integers(20, 40, (n, 1))
    trend, shift = slope * t, size * (t >= start)
    shapes = [np.zeros((n, 60)), amplitude * np.sin(2 * np.pi * t / period), trend, -trend, shift, -shift]
    values = 30 + noise + np.choose(labels[:, None], shapes)
    return SeriesDataset(values[:, None, :].astype(np.float32), labels, names)


def noisy_sines(per_class: int, seed: int) -> SeriesDataset:
    """Two bursts of sines in noise, told apart by which frequencies occur and which comes first; length 256.

    A burst is 64 values of √2 sin(2π f t + φ), φ ~ U[0, 2π), with f = 1/4 (high), 1/8 (middle) or 1/16 (low) times
    U[0.95, 1.05]. One is middle; the class says whether the other is high or low, and whether it comes before or after.
    At least 16 values of nothing stand before, 32 between and 16 after the bursts, the other 64 are dealt out at
    random, and N(0, ½²) is added everywhere.

    So mean, power and the values at any one time say nothing, and of patches of up to 32 values in a bag, each class
    has the same as the one with the other order: answers from those are at most half right
    (`test_noisy_sines_need_frequency_and_order`). The construction is ours; no publication is behind it.
    """
    random = np.random.default_rng(seed)
    names = ("low, middle", "middle, low", "high, middle", "middle, high")
    low, middle, high = 1 / 16, 1 / 8, 1 / 4
    pairs = np.asarray([(low, middle), (middle, low), (high, middle), (middle, high)])
    labels = np.arange(4 * per_class, dtype=np.int64) % 4
    n, t = len(labels), np.arange(256)
    cuts = np.sort(random.integers(0, 65, (n, 2)), axis=1)
    starts = np.stack([16 + cuts[:, 0], 16 + 64 + 32 + cuts[:, 1]], axis=1)  # of the first and the second burst
    frequency = pairs[labels] * random.uniform(0.95, 1.05, (n, 2))
    phase = random.uniform(0, 2 * np.pi, (n, 2))
    values = 0.5 * random.standard_normal((n, 256))
    for burst in range(2):
        since = t - starts[:, burst, None]
        wave = math.sqrt(2) * np.sin(2 * np.pi * frequency[:, burst, None] * since + phase[:, burst, None])
        values += wave * ((since >= 0) & (since < 64))
    return SeriesDataset(values[:, None, :].astype(np.float32), labels, names)


LABELLED: dict[str, Callable[[int, int], SeriesDataset]] = {
    "cylinder-bell-funnel": cylinder_bell_funnel, "synthetic-control": synthetic_control, "noisy-sines": noisy_sines}
"""Name → (per_class, seed) → a labelled set."""


def mackey_glass(length: int, tau: float = 17.0, start: float = 1.2, steps: int = 10) -> np.ndarray:
    """Mackey-Glass (Mackey & Glass 1977, Science 197:287): dx/dt = 0.2 x(t − τ) / (1 + x(t − τ)¹⁰) − 0.1 x(t).

    x(0), x(1), … x(length − 1), float64, with x(t) = start for t ≤ 0. From τ of about 16.8 on it is chaotic (Farmer
    1982); around x = 1 it rests. Runge-Kutta of fourth order with `steps` steps a unit of time; between them, where the
    delayed value is wanted, x is Hermite's cubic. ValueError unless τ is a positive multiple of the step.
    """
    delay = round(tau * steps)
    if delay < 1 or not math.isclose(delay, tau * steps):
        raise ValueError(f"tau must be a positive multiple of the step 1/{steps}, not {tau}")

    def gain(delayed: float) -> float:
        return 0.2 * delayed / (1 + delayed ** 10)

    h = 1 / steps
    x = [start] * (delay + 1)  # x[i + delay] is x at step i
    middle = [start] * delay  # middle[i + delay] is x half a step after step i
    for i in range((length - 1) * steps):
        now, at_once, halfway, at_end = x[-1], gain(x[i]), gain(middle[i]), gain(x[i + 1])
        k1 = at_once - 0.1 * now
        k2 = halfway - 0.1 * (now + h / 2 * k1)
        k3 = halfway - 0.1 * (now + h / 2 * k2)
        k4 = at_end - 0.1 * (now + h * k3)
        after = now + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        x.append(after)
        middle.append((now + after) / 2 + h / 8 * (k1 - (at_end - 0.1 * after)))
    return np.asarray(x[delay::steps][:length])


def fibonacci(length: int, scale: Literal["log", "ratio"] = "log") -> np.ndarray:
    """Fibonacci's numbers F(1) = F(2) = 1, F(n) = F(n − 1) + F(n − 2) (Liber Abaci, 1202): float64 (length,).

    They outgrow float64 at n = 1,477 and its integers at n = 79. So: log, ln F(n), n = 1 … length; or ratio,
    F(n + 1) / F(n), which tends to the golden ratio. Both come from exact integers.
    """
    numbers = [1, 1]
    while len(numbers) <= length:
        numbers.append(numbers[-1] + numbers[-2])
    if scale == "ratio":
        return np.asarray([numbers[n + 1] / numbers[n] for n in range(length)])
    return np.asarray([math.log(numbers[n]) for n in range(length)])
