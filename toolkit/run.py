"""The run directory: `runs/<name>/` holds everything a run was and is, and needs no process to be understood.

    config.yaml      the resolved configuration            metrics.jsonl   one line per logged step
    manifest.json    versions, commit, machine, data       checkpoints/    step-00000100/ …
    model/           the best model and its tokenizer      result.json     what the finished run reported
    README.md        the model's card, with curves.png

Whatever is written appears whole or not at all (temporary name, fsync, rename).
"""

import errno
import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from toolkit import config as configuration
from toolkit.errors import UserError

_LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "evaluate", "numpy", "scikit-learn")

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
            _sync(file)
        os.chmod(temporary, 0o755)
        _sync(temporary)
        if path.exists():
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
    with disk_errors(path):
        partial.mkdir(parents=True, exist_ok=True)
        name = partial / LOCK_FILE
        lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
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
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            problem, remedy = "the disk is full", "Free some space"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
            problem = "the disk is read-only" if error.errno == errno.EROFS else "cannot be written"
            remedy = "Mend that"
        else:
            raise
        raise UserError(f"{path}: {problem} ({error.strerror}). {remedy} or choose another {option}; what is finished "
                        f"is kept, the same command continues.") from None


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


def read_json(path: str | Path) -> Any:
    """JSON from a file, with an error that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}). Delete it to have it made again.") from None


HOW_IT_IS_RUN = ("impl", "dry_run", "card", "training.on_bad_step", "training.report_to", "training.emissions",
                 "training.country")
"""Keys of a configuration that may change between a run's interruptions."""

_claimed: dict[Path, int] = {}
"""Directory → file descriptor of its lock: closing any descriptor of that file would give the lock back."""


def _claim(directory: Path) -> None:
    directory = directory.resolve()
    if directory in _claimed and (directory / LOCK_FILE).exists():
        return
    lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise UserError(f"{directory}: another process is running in this directory at this moment. Wait for it to "
                        f"end, or choose another --output_dir.") from None
    _claimed[directory] = lock


def _state(file: Path) -> tuple | None:
    """What changes when a file is written to, replaced or removed."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


class Run:
    """One run directory. Rank 0 alone writes (`is_main`); other ranks see the same paths."""

    def __init__(self, directory: str | Path, is_main: bool = True):
        self.directory = Path(directory)
        self.is_main = is_main
        self.model_dir = self.directory / "model"
        self.checkpoint_dir = self.directory / "checkpoints"
        self.metrics_path = self.directory / "metrics.jsonl"
        self.result_path = self.directory / "result.json"
        self.inputs: dict[Path, tuple] = {}

    def part(self, name: str) -> "Run":
        """The run of a fit within this one, in the folder `name`."""
        return Run(self.directory / name, self.is_main)

    def open(self, config: Any, ignore: tuple[str, ...] = HOW_IT_IS_RUN) -> "Run":
        """Claim the directory for `config`: a new one is made; one that holds results of another is refused.

        Sections or dotted keys in `ignore` say how a run is run, not what it is, and may differ. Until this process
        ends no other may claim the directory; the kernel sees to that, so that one that died leaves nothing behind.
        """
        path = self.directory / "config.yaml"
        if hasattr(config, "card"):
            config.card.check()
        if self.directory.exists() and not self.directory.is_dir():
            raise UserError(f"{self.directory}: is a file; output_dir must be a directory.")
        if self.is_main:
            with disk_errors(self.directory, "output_dir"):
                self.directory.mkdir(parents=True, exist_ok=True)
                _claim(self.directory)
        differing = []
        if path.exists():
            earlier, now = _flatten(configuration.read_yaml(path)), _flatten(configuration.to_dict(config))
            # A key that a later version brought is at its default in the runs of earlier ones.
            earlier = {key: value for key, value in configuration.default_values(type(config)).items()
                       if key in now and key not in earlier} | earlier
            differing = [key for key in now | earlier if now.get(key) != earlier.get(key)
                         and not any(key == name or key.startswith(name + ".") for name in ignore)]
            # Until something is computed, a mistake in the configuration may simply be corrected.
            computed = {part.name for part in self.directory.iterdir()} - {"config.yaml", "manifest.json", LOCK_FILE}
            if differing and computed:
                key = differing[0]
                more = f" (and {len(differing) - 1} more keys)" if len(differing) > 1 else ""
                raise UserError(f"{path}: this run was made with {key} = {earlier.get(key)!r}, now it is "
                                f"{now.get(key)!r}{more}. Choose another --output_dir, or delete {self.directory} to "
                                f"start over.")
        if self.is_main:
            with disk_errors(self.directory, "output_dir"):
                if differing or not path.exists():
                    write_atomic(path, configuration.dump(config))
                elif "card" in (values := configuration.to_dict(config)):
                    restate(self.directory, values["card"])
        return self

    def write_manifest(self, inputs: Sequence[Path] = (), **facts: Any) -> None:
        """Versions, commit and machine, with whatever else the recipe knows (data fingerprints, parameters).

        A run with checkpoints goes on with the data they come from: another `data` is refused. `inputs` are files that
        must not change from now on (`check_inputs`).
        """
        path = self.directory / "manifest.json"
        manifest = read_json(path) if path.exists() else {}
        earlier = manifest.get("data") if any(self.checkpoint_dir.glob("step-*")) else None
        now = json.loads(json.dumps(facts.get("data")))  # as it would be read again
        if earlier is not None and now is not None and earlier != now:
            changed = [key for key in now if earlier.get(key) != now[key]]
            raise UserError(f"{path}: the checkpoints of this run saw other data than there is now (differing: "
                            f"{', '.join(changed)}). Restore the data, or choose another --output_dir.")
        self.inputs = {Path(file): _state(file) for file in inputs}
        if self.is_main:
            started = manifest.get("started") or datetime.now(UTC).isoformat(timespec="seconds")
            write_json(path, {"started": started, "command": command_line(), **environment(), **facts})

    def check_inputs(self) -> None:
        """UserError when a file that this run reads was changed or removed under it."""
        for file, state in self.inputs.items():
            if _state(file) != state:
                raise UserError(f"{file}: was changed while this run was reading it. The last checkpoint is from "
                                f"before; restore the file (or delete its folder to have it built again) and give the "
                                f"same command.")

    def result(self) -> dict | None:
        """What the finished run reported, or None while it is unfinished."""
        return read_json(self.result_path) if self.result_path.exists() else None

    def finish(self, result: dict) -> dict:
        """Write the result, whose presence marks the run as complete, and the card that tells of it."""
        if self.is_main:
            write_json(self.result_path, result)
            _write_card(self.directory)
        return result


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a metrics.jsonl; a last line cut short by a crash is left out."""
    records = []
    if Path(path).exists():
        for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                records.append(json.loads(line))
            except ValueError:
                break
    return records


def home(directory: str | Path) -> Path | None:
    """The run that a directory is, or is a part of: the nearest with what `Run.open` leaves, at most three above it."""
    directory = Path(os.path.abspath(directory))
    return next((place for place in (directory, *directory.parents[:3]) if (place / "config.yaml").exists()
                 and ((place / LOCK_FILE).exists() or (place / "manifest.json").exists())), None)


def name_of(directory: str | Path) -> str:
    """What to call a run, or a part of one, elsewhere: its path below runs/, for instance `demo/bert`."""
    directory = Path(os.path.abspath(directory))
    if directory.is_relative_to(Path.cwd()):
        return str(directory.relative_to(Path.cwd())).removeprefix("runs/")
    return str(directory.relative_to((home(directory) or directory).parent))


def restate(directory: str | Path, card: dict) -> None:
    """Replace what a run's configuration says for its card, on which nothing that was computed depends; that of a
    finished run is written anew, or for the first time.
    """
    directory = Path(directory)
    path = directory / "config.yaml"
    values = configuration.read_yaml(path)
    changed = values.get("card") != card and ("card" in values or any(card.values()))
    if changed:
        write_atomic(path, yaml.safe_dump({**values, "card": card}, sort_keys=False, allow_unicode=True))
    if (directory / "result.json").exists() and (changed or not (directory / "README.md").exists()):
        _write_card(directory)


def _write_card(directory: Path) -> None:
    from toolkit.publishing.card import refresh  # reads what is written here

    refresh(directory)


def without_machine_paths(value: Any) -> Any:
    """A copy of nested dictionaries and lists in which no text is an absolute path: what lies under the working
    directory is relative to it, of the rest the last name is left.
    """
    if isinstance(value, dict):
        return {without_machine_paths(key): without_machine_paths(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_machine_paths(entry) for entry in value]
    if not isinstance(value, str) or not value.startswith(("/", "~", "file:")):
        return value
    path = Path(value.removeprefix("file:")).expanduser()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def command_line() -> str:
    """How this process was started, for another machine to repeat."""
    words = [separator.join(map(without_machine_paths, (key, value)) if separator else [without_machine_paths(key)])
             for key, separator, value in (word.partition("=") for word in sys.argv)]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    launcher = ["accelerate", "launch", "--multi_gpu", "--num_processes", str(processes)]
    return shlex.join((launcher if processes > 1 else ["python"]) + words)


def environment() -> dict:
    """What a reader needs to know of the machine and the software; no host name, user or path."""
    import torch

    try:
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10,
                                cwd=Path(__file__).parent, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        "commit": commit,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
        "machine": {
            "processor": platform.machine(),
            "model": _processor_name(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _processor_name() -> str:
    """What the processor is sold as."""
    information = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", information.read_text()) if information.exists() else None
    return found[1].strip() if found else platform.processor()


def _flatten(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
