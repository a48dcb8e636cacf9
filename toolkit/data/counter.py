"""Random numbers as a pure function of (key, index): no state, so any batch can be drawn again by its step.

A counter-based generator in the sense of Salmon et al. (2011), *Parallel random numbers: as easy as 1, 2, 3*; the
mixing function is SplitMix64's finaliser (Steele, Lea & Flood 2014), applied to whole NumPy arrays at once.
"""

import functools
import math

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection on uint64 in which every input bit reaches every output bit."""
    values = values ^ (values >> np.uint64(30))
    values = values * np.uint64(0xBF58476D1CE4E5B9)
    values = values ^ (values >> np.uint64(27))
    values = values * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@functools.lru_cache(maxsize=4096)
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


def bits32(stream: np.uint64, index: np.ndarray, count: int) -> np.ndarray:
    """(n,) sample indices → (n, count) independent uint32 draws, at a third of the cost of `bits`.

    The row's key is mixed in 64 bits; along the row runs a Weyl sequence through MurmurHash3's 32-bit finaliser
    (Appleby 2011), a bijection with full avalanche.
    """
    rows = (bits(stream, index, 1)[:, 0] >> np.uint64(32)).astype(np.uint32)
    values = rows[:, None] + np.arange(1, count + 1, dtype=np.uint32) * np.uint32(0x9E3779B9)
    shifted = np.empty_like(values)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        np.right_shift(values, np.uint32(shift), out=shifted)
        values ^= shifted
        if factor != 1:
            values *= np.uint32(factor)
    return values


def uniform(stream: np.uint64, index: np.ndarray, count: int) -> np.ndarray:
    """(n,) sample indices → (n, count) float64 draws in [0, 1)."""
    return (bits(stream, index, count) >> np.uint64(11)) * 2.0**-53


def permute(stream: np.uint64, index: np.ndarray, size: int) -> np.ndarray:
    """Where each `index` (0 ≤ index < size) goes under a pseudo-random permutation of range(size), without a table.

    A Feistel network on the smallest rectangle that holds `size`, walked until it lands inside (Black & Rogaway 2002,
    *Ciphers with arbitrary finite domains*), so that the shuffle of an epoch needs no memory and no state.
    """
    height = math.isqrt(max(size - 1, 0)) + 1
    width = -(-size // height)
    rounds = [key(int(stream), number) for number in range(8)]

    def encrypt(values: np.ndarray) -> np.ndarray:
        halves, sizes = list(np.divmod(values, np.uint64(width))), np.asarray([height, width], np.uint64)
        for number, round_key in enumerate(rounds):
            changed, other, limit = number % 2, 1 - number % 2, sizes[number % 2]
            shift = (mix(halves[other] + round_key) >> np.uint64(32)) * limit >> np.uint64(32)  # 0 … limit − 1
            moved = halves[changed] + shift
            halves[changed] = np.minimum(moved, moved - limit)  # modulo limit: below it, moved − limit wraps around
        return halves[0] * np.uint64(width) + halves[1]

    out = encrypt(np.array(index, np.uint64, ndmin=1))
    while (outside := out >= np.uint64(size)).any():
        out[outside] = encrypt(out[outside])
    return out.astype(np.int64)


def epoch_order(seed: int, index: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Global sample indices → (epoch, position within a fresh permutation of `size` examples for each epoch)."""
    index = np.asarray(index, np.int64)
    epochs, within = np.divmod(index, size)
    if len(index) and epochs.min() == epochs.max():
        return epochs, permute(key(seed, 0x0EDE2, int(epochs[0])), within, size)
    position = np.empty_like(index)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        position[chosen] = permute(key(seed, 0x0EDE2, int(epoch)), within[chosen], size)
    return epochs, position
