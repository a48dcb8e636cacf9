"""What may be opened to be read: files that end. A pipe waits for a writer for ever, a device may never end."""

import os
import stat
from pathlib import Path

from toolkit.errors import UserError

_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"))


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
