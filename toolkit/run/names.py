"""Names that become names of files and folders, and folders of a run that may not lead out of it."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toolkit.errors import UserError

KEYS = ("name", "models", "sets")
"""Of configurations: what stands there, or is a key there, becomes part of a path."""
LONGEST = 200  # bytes, of the 255 that file systems take: endings are added
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_OWN = ("checkpoints", "model", "plots", "hub-staging", "wandb", "tensorboard", ".lock")
"""What a run writes to without replacing it as a whole."""


def check_names(config: Any) -> None:
    """UserError for the first of a configuration's names that cannot be a folder's; it names the key."""
    for key in KEYS:
        value = getattr(config, key, None)
        for name in [value] if isinstance(value, str) else value or ():
            check_name(str(name), key)


def check_name(name: str, key: str) -> None:
    """UserError, which says that the name stands at `key`, unless every file system takes it as one folder's name."""
    if problem := _problem(name):
        raise UserError(f"{key}: {name[:100]!r} is to name files and folders, and {problem}. Choose a name such as "
                        f"'bert' or 'gpt-small'.")


def _problem(name: str) -> str:
    if not name.strip():
        return "is empty"
    if found := re.search(r"[/\\]", name):
        return f"holds the separator of folders {found[0]!r}"
    if name.startswith(".") or name.endswith((".", " ")):
        return "begins with a dot, or ends in one or in a blank"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        return "holds control characters or halves of characters"
    if _DEVICES.fullmatch(name):
        return "Windows keeps it for a device"
    if len(name.encode()) > LONGEST:
        return f"has {len(name.encode())} bytes, where {LONGEST} are the most"
    return ""


def refuse_links(run: Path, parts: Iterable[str] = ()) -> None:
    """UserError where a folder that a run writes into, or one of its `parts`, is a link: what is written there would
    be written elsewhere. The run's own directory may be one.
    """
    for place in (*(run / name for name in _OWN), *(run / part for part in parts)):
        if place.is_symlink():
            raise UserError(f"{place}: is a link, and what a run writes stays in its own directory. Put a folder of "
                            f"its own there, or remove the link; output_dir itself may be a link.")
