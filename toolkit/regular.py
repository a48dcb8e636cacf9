"""What may be opened to be read: files that end. A pipe waits for a writer for ever, a device may never end, and a
small packed file may unpack to more than memory holds.
"""

import os
import stat
from pathlib import Path

from toolkit.errors import UserError

_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"))


LARGEST_UNPACKED, TIMES = 1 << 30, 50
"""Bytes to which any packed file may unpack that is read as a whole, and how many times its own size beyond them: of
measured values hardly any take a tenth of their size when they are packed."""


def refuse_bomb(path: str | Path, unpacked: int, remedy: str) -> None:
    """UserError where a file says that it unpacks to more than it may."""
    packed = os.path.getsize(path)
    if unpacked > max(LARGEST_UNPACKED, TIMES * packed):
        raise UserError(f"{path}: has {packed / 1e6:,.1f} MB and unpacks to {unpacked / 1e9:,.1f} GB, more than "
                        f"{LARGEST_UNPACKED >> 30} GB and {TIMES} times its size. {remedy}")


def regular(path: str | Path) -> Path:
    """The path itself. UserError where a pipe, a socket or a device lies there, or where a link there leads to one.

    Links to files are files. What is missing, may not be read, or is a folder, whoever opens it says in his own words.
    """
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return path
    for is_kind, name in _KINDS:
        if is_kind(mode):
            raise UserError(f"{path}: is {name}, not a file, and may never end. Write what it gives into a file, and "
                            f"name that.")
    return path


def regular_folder(folder: str | Path) -> Path:
    """The folder itself, each of whose entries is `regular`: for libraries that open what they find in it."""
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        regular(Path(folder, name))
    return Path(folder)
