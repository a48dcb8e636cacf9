"""Arrays and weights that a run or a model left, checked when they are read."""

import math
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from toolkit.errors import UserError
from toolkit.regular import refuse_bomb, regular
from toolkit.run.files import parsed_json
from toolkit.run.schema import checked

LARGEST_HEADER = 100 << 20
"""Bytes of a safetensors header, as the library itself bounds it."""


def saved_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, or that of an .npy as `values`; nothing is unpickled. ValueError for what is damaged, or
    holds Python objects; UserError for an .npz that is small and unpacks to very much.

    What a header says of an array is held against the bytes that are there before memory is taken for it.
    """
    path = regular(path)
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                _check_header(file, path.stat().st_size)
                file.seek(0)
                return {"values": np.lib.format.read_array(file, allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            refuse_bomb(path, sum(member.file_size for member in members), "Save it unpacked: np.savez.")
            for member in members:
                with archive.open(member) as file:
                    _check_header(file, member.file_size)
        with np.load(path, allow_pickle=False) as file:
            return {member.filename.removesuffix(".npy"): file[member.filename] for member in members}
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy, zipfile and Python's tokenizer each have their own
        raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from None


def _check_header(file: BinaryIO, size: int) -> None:
    """ValueError unless the array that an .npy tells of is as long as what follows."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("Object arrays are not read")
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(f"an array of {' x '.join(map(str, shape))} {dtype} does not fit the "
                         f"{size - file.tell():,} bytes that are there")


def read_npz(path: str | Path, *names: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz that a run wrote, `names` among them. Nothing is unpickled."""
    try:
        arrays = saved_arrays(path)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as arrays ({error}). Delete it, and result.json beside it, to have "
                        f"them made again.") from None
    if absent := [name for name in names if name not in arrays]:
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
