"""Files and folders that a configuration names: one that is spelled otherwise, or was moved, is the same one."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WHOLE = 256 * 2**20
"""Bytes that are read at most of files as a whole; of those after them, in a fixed order, name, size and both ends."""
_ENDS = 2**16
_MOST_FILES = 10_000
"""Of a larger folder nothing is known: it takes too long to look."""


def same(earlier: Any, now: Any) -> bool:
    """Whether two values of a configuration are equal, or are paths to one place; lists and mappings by entry."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        return earlier.keys() == now.keys() and all(same(earlier[key], now[key]) for key in now)
    if isinstance(earlier, list) and isinstance(now, list):
        return len(earlier) == len(now) and all(map(same, earlier, now))
    if earlier == now:
        return True
    if not (isinstance(earlier, str) and isinstance(now, str) and earlier and now):
        return False
    are_paths = os.sep in earlier + now or is_path(earlier) and is_path(now)
    return are_paths and _resolved(earlier) == _resolved(now)


def moved(earlier: Any, now: Any, recorded: Any) -> bool:
    """Whether what lies at the places of `now` is what was `recorded` (by `contents`) of those of `earlier`."""
    if isinstance(now, dict):
        return (isinstance(earlier, dict) and isinstance(recorded, dict) and earlier.keys() == now.keys()
                and all(same(earlier[key], now[key]) or moved(earlier[key], now[key], recorded.get(key))
                        for key in now))
    if isinstance(now, list):
        return (isinstance(earlier, list) and isinstance(recorded, list)
                and len(earlier) == len(now) == len(recorded)
                and all(same(*pair) or moved(*pair, found)
                        for *pair, found in zip(earlier, now, recorded, strict=True)))
    return (is_path(now) and (os.sep in f"{earlier}{now}" or _expanded(now).is_file())
            and recorded is not None and recorded == contents(now))


def agree(earlier: Any, now: Any) -> bool:
    """Whether two manifests tell of the same data, wherever it lies: keys that both have, but for names of sources."""
    if isinstance(earlier, dict) and isinstance(now, dict):
        return all(agree(earlier[key], now[key]) for key in earlier.keys() & now.keys() if not _names_places(key, now))
    if isinstance(earlier, list) and isinstance(now, list):
        return len(earlier) == len(now) and all(map(agree, earlier, now))
    return earlier == now


def _names_places(key: str, facts: dict) -> bool:
    value = facts[key]
    return key in ("source", "sources", "validation_sources") and (
        isinstance(value, str) or isinstance(value, list) and all(isinstance(entry, str) for entry in value))


def is_path(value: Any) -> bool:
    """Whether a value, or one in it, names something that lies on this machine."""
    if isinstance(value, (dict, list)):
        return any(map(is_path, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and bool(value) and os.path.exists(_expanded(value))


def contents(value: Any) -> Any:
    """What lies at each place that a value names, told in a line that holds no path; None for what is no place."""
    if isinstance(value, dict):
        return {key: contents(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [contents(entry) for entry in value]
    return _described(_expanded(value)) if is_path(value) else None


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))


def _resolved(path: str) -> Path:
    try:
        return _expanded(path).resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links; no path at all
        return _expanded(path).absolute()


def _described(path: Path) -> str | None:
    digest, count, total = hashlib.sha256(), 0, 0
    if path.resolve() == Path(path.anchor or "/"):  # a separator in a configuration, rather than the whole disk
        return None
    try:
        for name, file in _files(path):
            size = file.stat().st_size
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
            count, total = count + 1, total + size
            if count > _MOST_FILES:
                return None
            with open(file, "rb") as opened:
                if total <= _WHOLE:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
                else:
                    digest.update(opened.read(_ENDS))
                    opened.seek(max(0, size - _ENDS))
                    digest.update(opened.read(_ENDS))
    except OSError:  # what cannot be read now is named where it is to be read
        return None
    return f"{count:,} file{'s' * (count != 1)}, {total:,} bytes, {digest.hexdigest()[:16]}" if count else None


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """A file itself, under no name; of a folder, in a fixed order, all that are not hidden, by their paths in it."""
    if path.is_file():
        yield "", path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(folder, name)
            if not name.startswith(".") and file.is_file():
                yield os.path.relpath(file, path), file
