"""Files that are whole or not there: atomic writes, folders built under another name, locks, full disks in words."""

import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.regular import regular
from toolkit.run.schema import checked

LARGEST_JSON = 256 << 20
"""Bytes."""
LOCK_FILE = ".lock"
"""What `building` keeps in a directory while it is built; not part of what is built."""


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Replace `path` by `content` so that a reader, or a crash, sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_directory(path: str | Path, fill: Callable[[Path], Any]) -> None:
    """Make directory `path` by letting `fill` write into a temporary one beside it; an older `path` is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        fill(temporary)
        for file in temporary.rglob("*"):
            os.chmod(file, 0o755 if file.is_dir() else 0o644)  # safetensors makes files that their owner alone reads
            _sync(file)
        os.chmod(temporary, 0o755)
        _sync(temporary)
        if os.path.lexists(path):  # a link is replaced itself, not what it leads to
            discarded = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.replace(path, discarded / "old")
            try:
                os.replace(temporary, path)
            except BaseException:
                os.replace(discarded / "old", path)
                raise
            finally:
                shutil.rmtree(discarded, ignore_errors=True)
        else:
            os.replace(temporary, path)
        _sync(path.parent)  # the names, too, outlive a power cut
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def building(path: str | Path) -> Iterator[Path]:
    """A directory to build `path` in, little by little: it becomes `path` at the end of a block that succeeds.

    Until then it is `<path>.building`; what a failed or killed build left there is found again by the next one. One
    process at a time: a second is refused, and nothing needs cleaning up after one that died (the lock is the
    kernel's).
    """
    path = Path(path)
    partial = path.with_name(path.name + ".building")
    busy = UserError(f"{path}: another process is making it at this moment. Wait for it to finish, or choose another "
                     f"data_dir.")
    for place in (partial, partial / LOCK_FILE, *([] if path.exists() else [path])):
        if place.is_symlink():
            raise UserError(f"{place}: is a link, where a folder is to be made. Remove it, or choose another data_dir.")
    with disk_errors(path):
        partial.mkdir(parents=True, exist_ok=True)
        name = partial / LOCK_FILE
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock's: children would inherit it
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise busy from None
                raise
            if path.exists() or not name.exists() or not os.path.samestat(os.fstat(lock), name.stat()):
                raise busy  # another one finished between our looking and our locking
            try:
                yield partial
                for file in partial.rglob("*"):
                    _sync(file)
                name.unlink()
                os.replace(partial, path)
                _sync(path.parent)
            finally:
                if partial.exists() and {file.name for file in partial.iterdir()} <= {LOCK_FILE}:
                    shutil.rmtree(partial)  # nothing to go on from
        finally:
            os.close(lock)


@contextmanager
def disk_errors(path: str | Path, option: str = "data_dir") -> Iterator[None]:
    """A disk that is full, read-only or broken as a message that says what to do."""
    try:
        yield
    except Exception as raised:  # noqa: BLE001 - what is no disk's error goes on as it is
        error = None if isinstance(raised, UserError) else _of_the_disk(raised)
        if error is None:
            raise
        if error.errno == errno.EFBIG:
            problem, remedy = "a file may not become as large as it must", "Raise the limit (`ulimit -f`)"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem, remedy = "the disk is full", "Free some space"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
            problem = "the disk is read-only" if error.errno == errno.EROFS else "cannot be written"
            remedy = "Mend that"
        else:
            raise
        raise UserError(f"{path}: {problem} ({error.strerror}). {remedy} or choose another {option}; what is finished "
                        f"is kept, the same command continues.") from None


def _of_the_disk(error: BaseException) -> OSError | None:
    """The error itself; or what a library that writes by itself (safetensors, tokenizers, torch) made of one."""
    seen = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            return seen
        if number := re.search(r"\(os error (\d+)\)", str(seen)):  # as Rust ends them
            return OSError(int(number[1]), os.strerror(int(number[1])))
        seen = seen.__cause__ or seen.__context__
    return None


def room_for(size: int, directory: Path) -> None:
    """OSError (ENOSPC) unless `size` bytes fit: libraries that write files say all kinds of things when they do not."""
    if shutil.disk_usage(directory).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, value: Any) -> None:
    """`write_atomic` of indented JSON."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, shape: Any = Any, remedy: str = " Delete it to have it made again.") -> Any:
    """JSON from a file, of that shape (`toolkit.run.schema`); UserError that names the file and what is wrong in it,
    and ends in `remedy`.
    """
    path = regular(path)
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_JSON + 1)
        if len(data) > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON >> 20} MB")
        return checked(parsed_json(data), shape, str(path))
    except UserError as error:
        raise UserError(f"{error}{remedy}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}).{remedy}") from None


def parsed_json(data: bytes) -> Any:
    """What it says; ValueError for what is no JSON, nests too deep, or could not be written again."""
    try:
        value = json.loads(data, parse_int=_bounded)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    if b"\\ud" in data.lower():  # half a character, which no file can hold
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _bounded(digits: str) -> int:
    if len(digits) > 100:
        raise ValueError("a number in it has more than 100 digits")
    return int(digits)
