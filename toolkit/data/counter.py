"""Random numbers as a pure function of (key, index): no state, so any batch can be drawn again by its step.

A counter-based generator in the sense of Salmon et al. (2011), *Parallel random numbers: as easy as 1, 2, 3*; the
mixing function is SplitMix64's finaliser (Steele, Lea & Flood 2014), applied to whole NumPy arrays at once.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection on uint64 in which every input bit reaches every output bit."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def key(*parts: int) -> np.uint64:
    """One uint64 key from integers such as (seed, stream, epoch)."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = mix(state + _GOLDEN + np.asarray([part & 0xFFFFFFFFFFFFFFFF], np.uint64))
    return state[0]


def bits(stream: np.uint64, index: np.ndarray, count: int) -> np.ndarray:
    """(n,) sample indices → (n, count) independent uint64 draws."""
    index = np.asarray(index, np.uint64)
    rows = mix(mix(index * _GOLDEN + stream) + stream)
    columns = (np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)[None, :]
    return mix(rows[:, None] + columns)


def uniform(stream: np.uint64, index: np.ndarray, count: int) -> np.ndarray:
    """(n,) sample indices → (n, count) float64 draws in [0, 1)."""
    return (bits(stream, index, count) >> np.uint64(11)) * 2.0**-53


def permute(stream: np.uint64, index: np.ndarray, size: int) -> np.ndarray:
    """Where each `index` (0 ≤ index < size) goes under a pseudo-random permutation of range(size), without a table.

    A balanced Feistel network on the next power of four, walked until it lands inside (Black & Rogaway 2002,
    *Ciphers with arbitrary finite domains*), so that the shuffle of an epoch needs no memory and no state.
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    rounds = [key(int(stream), number) for number in range(8)]
    out = np.array(index, np.uint64, ndmin=1)
    pending = np.ones(out.shape, bool)
    while pending.any():
        left, right = out[pending] >> shift, out[pending] & mask
        for round_key in rounds:
            left, right = right, left ^ (mix(right + round_key) & mask)
        out[pending] = (left << shift) | right
        pending = out >= np.uint64(size)
    return out.astype(np.int64)


def epoch_order(seed: int, index: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Global sample indices → (epoch, position within a fresh permutation of `size` examples for each epoch)."""
    index = np.asarray(index, np.int64)
    epochs, within = index // size, index % size
    position = np.empty_like(index)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        position[chosen] = permute(key(seed, 0x0EDE2, int(epoch)), within[chosen], size)
    return epochs, position
