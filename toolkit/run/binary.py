"""Arrays and weights that a run or a model left, checked when they are read."""

import math
from pathlib import Path

import numpy as np

from toolkit.errors import UserError
from toolkit.run.files import parsed_json
from toolkit.run.schema import checked

LARGEST_HEADER = 100 << 20
"""Bytes of a safetensors header, as the library itself bounds it."""


def read_npz(path: str | Path, *names: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz that a run wrote, `names` among them. Nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}  # of a member that is no array, its bytes
    except Exception as error:  # noqa: BLE001 - numpy, zipfile and Python's tokenizer each have their own
        raise UserError(f"{path}: cannot be read as arrays ({' '.join(str(error).split())[:120]}). Delete it, and "
                        f"result.json beside it, to have them made again.") from None
    if absent := [name for name in names if not isinstance(arrays.get(name), np.ndarray)]:
        raise UserError(f"{path}: has no array '{absent[0]}'. Delete it, and result.json beside it, to have it made "
                        f"again.")
    return arrays


def tensor_shapes(path: str | Path) -> dict[str, list[int]]:
    """Name → shape of the weights in a safetensors file, out of its header: 8 bytes for the header's length, header,
    tensors. UserError where it is damaged, or the file not as long as the header says.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if 0 < length <= min(size - 8, LARGEST_HEADER) else b""
        entries = checked(parsed_json(header), dict[str, dict], "header")
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            checked(entry, dict, name)
            checked(entry.get("shape"), list[int], name)
            checked(entry.get("data_offsets"), list[int], name)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: has no header of weights ({str(error)[:120]}). Fetch or save it again.") from None
    ends = [entry["data_offsets"][-1] for entry in entries.values() if entry["data_offsets"]]
    if (told := 8 + length + max(ends, default=0)) != size:
        raise UserError(f"{path}: is {'cut short' if told > size else 'longer than its header says'}. Fetch or save it "
                        f"again.")
    return {name: entry["shape"] for name, entry in entries.items()}


def count_weights(path: str | Path) -> int:
    """The numbers in a safetensors file."""
    return sum(math.prod(shape) for shape in tensor_shapes(path).values())
