"""Runs of every kind that an earlier commit left, in fixtures/old."""

import lzma
import shutil
from pathlib import Path

OLD = Path(__file__).parents[1] / "fixtures/old"


def unpacked(directory: Path) -> Path:
    """A copy of all fixtures, as the runs were when they were made."""
    shutil.copytree(OLD, directory)
    for path in directory.rglob("*.xz"):
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()
    return directory
