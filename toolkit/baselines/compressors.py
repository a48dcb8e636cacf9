"""Reference points for a language model: what general-purpose compressors make of the same bytes."""

import gzip
import lzma
from concurrent.futures import ThreadPoolExecutor


def compressor_bits_per_byte(text: bytes) -> dict[str, float]:
    """Bits per byte of gzip −9 and xz −9e on `text`.

    Neither has read any other text, which a language model has: see `primed_xz_bits_per_byte` for one that has.
    """
    return {"gzip": 8 * len(gzip.compress(text, 9)) / len(text),
            "xz": 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)}


def primed_xz_bits_per_byte(text: bytes, read_before: bytes) -> float:
    """Bits per byte that `text` adds to an xz file of `read_before`: a compressor that has seen the training text.

    The dictionary reaches back 64 MB, so up to there nothing read before is forgotten.
    """
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26}]

    def size(data: bytes) -> int:
        return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))

    with ThreadPoolExecutor(2) as pool:  # the compressor works outside the interpreter's lock
        with_text, without = pool.map(size, (read_before + text, read_before))
    return 8 * (with_text - without) / len(text)
