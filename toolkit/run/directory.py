"""The run directory: `runs/<name>/` holds everything a run was and is, and needs no process to be understood.

    config.yaml      the resolved configuration            metrics.jsonl   one line per logged step
    manifest.json    versions, commit, machine, data       checkpoints/    step-00000100/ …
    model/           the best model and its tokenizer      result.json     what the finished run reported
    README.md        the model's card, with curves.png     earlier-result.json   while a finished run is extended

Whatever is written appears whole or not at all (temporary name, fsync, rename).
"""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from toolkit import config as configuration
from toolkit.errors import UserError
from toolkit.regular import regular
from toolkit.run import places
from toolkit.run.files import LOCK_FILE, disk_errors, parsed_json, read_json, write_atomic, write_json
from toolkit.run.names import check_name, check_names, refuse_links
from toolkit.run.provenance import command_line, environment
from toolkit.run.refused import will_make
from toolkit.run.schema import Manifest, Record, checked
from toolkit.views import Reported, View, Viewed

_UNFINISHED = re.compile(r"\.(config\.yaml|manifest\.json|metrics\.jsonl|result\.json|README\.md|model)"
                         r"\.(old\.)?[a-z0-9_]{8}")
"""The temporary names of what is written whole into a run's directory: `write_atomic`, `write_directory`."""

_claimed: dict[Path, int] = {}
"""Directory → file descriptor of its lock: closing any descriptor of that file would give the lock back."""


def _claim(directory: Path) -> None:
    directory = directory.resolve()
    if directory in _claimed and (directory / LOCK_FILE).exists():
        return
    lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
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


def _place(directory: Path) -> tuple[int, int] | None:
    """What makes a directory this one, whatever others were or are called so."""
    try:
        found = os.stat(directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


Observer = Callable[[Path, bool], None]
"""Told of a run directory in which there is something new, and whether what was done there is finished."""
Extend = Callable[[dict[str, tuple]], str]
"""Asked of what differs, key → (earlier, now): how the run goes on with that, "" where it does not. UserError where it
is the budget alone, and cannot be changed."""

_LONGEST_RECORD = 1 << 20
"""Bytes of a line of metrics.jsonl."""
_DERIVED = ("output_dir", "data_dir")
"""Where results lie, and what is made of the data: no part of what is learned."""


class Run(Viewed):
    """One run directory. Rank 0 alone writes (`is_main`); other ranks see the same paths."""

    def __init__(self, directory: str | Path, is_main: bool = True, observers: Sequence[Observer] = ()):
        """observers: told, on rank 0, when there is something new in the directory."""
        self.directory = Path(directory).expanduser()
        self.is_main, self.observers = is_main, observers
        self.model_dir = self.directory / "model"
        self.checkpoint_dir = self.directory / "checkpoints"
        self.metrics_path = self.directory / "metrics.jsonl"
        self.result_path = self.directory / "result.json"
        self.inputs: dict[Path, tuple] = {}
        self.contents: dict[str, Any] = {}
        self.is_extended = False
        self.whole: Run | None = None
        self.place: tuple[int, int] | None = None
        self.kept: set[Path] = set()

    def _shown(self) -> View:
        result, records = self.result(), read_metrics(self.metrics_path)
        state = "finished" if result is not None else "begun" if records else "new"
        facts = {"state": state, **({"steps": max(record["step"] for record in records)} if records else {})}
        facts |= {key: value for key, value in (result or {}).items() if isinstance(value, (int, float))}
        kept = [part.name for part in (self.directory / "README.md", self.directory / "report.html", self.model_dir)
                if part.exists()]
        return View(f"run {self.directory}", {**dict(list(facts.items())[:12]), **({"holds": kept} if kept else {})})

    def part(self, name: str) -> "Run":
        """The run of a fit within this one, in the folder `name`, which may lie in others. UserError where that is no
        name of a folder, or a link.
        """
        pieces = name.split("/")
        for piece in pieces:
            check_name(piece, "the folder of a fit")
        refuse_links(self.directory, ["/".join(pieces[:count]) for count in range(1, len(pieces) + 1)])
        refuse_links(self.directory / name)
        part = Run(self.directory / name, self.is_main, self.observers)
        part.whole = self
        return part

    def hold(self, *names: str) -> None:
        """Make the directory; it, and these files in it, must stay there from now on (`check_place`)."""
        if self.is_main:
            if self.place is None:
                self.directory.mkdir(parents=True, exist_ok=True)
                self.place = _place(self.directory)
                self._clear_away()
            self.kept |= {self.directory / name for name in names}

    def _clear_away(self) -> None:
        """What a process that was killed had not finished writing; a model that it had put aside goes back."""
        for left in self.directory.iterdir():
            if _UNFINISHED.fullmatch(left.name):
                if (left / "old").exists() and not self.model_dir.exists():
                    os.replace(left / "old", self.model_dir)
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                else:
                    left.unlink()

    def check_place(self) -> None:
        """UserError when the directory, or what this run keeps there, was removed, moved away or replaced under it."""
        if self.whole is not None:
            self.whole.check_place()
        gone = self.place is not None and _place(self.directory) != self.place
        absent = [self.directory] if gone else sorted(path for path in self.kept if not path.exists())
        if absent:
            raise UserError(f"{absent[0]}: was removed or replaced while this run was writing into {self.directory}. "
                            f"What the run had learned since its last checkpoint is lost. Put the directory back and "
                            f"give the same command to go on, or give it without the directory to start over.")

    @contextmanager
    def staying(self) -> Iterator[None]:
        """Within, the directory must stay: whatever fails because it went is told as that."""
        self.hold()
        try:
            yield
        except Exception:
            self.check_place()
            raise

    def tell(self, finished: bool = False) -> None:
        """Let the observers know."""
        if self.is_main:
            for observer in self.observers:
                observer(self.directory, finished)

    def open(self, config: Any, extend: Extend | None = None) -> "Run":
        """Claim the directory for `config`: a new one is made; one that holds results of another is refused.

        Fields that are `config.free` may differ, and so may paths to the same files, moved or spelled otherwise, and
        what `extend` agrees to. Until this process ends no other may claim the directory; the kernel sees to that, so
        that one that died leaves nothing behind.
        """
        path = self.directory / "config.yaml"
        check_names(config)
        refuse_links(self.directory)
        if hasattr(config, "card"):
            config.card.check()
        if self.directory.exists() and not self.directory.is_dir():
            raise UserError(f"{self.directory}: is a file; output_dir must be a directory.")
        if self.is_main:
            will_make(self.directory)
            with disk_errors(self.directory, "output_dir"):
                self.directory.mkdir(parents=True, exist_ok=True)
                _claim(self.directory)
        differing, elsewhere = self._differences(config) if path.exists() else ({}, {})
        notes = [f"{key} is {now!r} now, and was {earlier!r}: it holds the same, the run goes on"
                 for key, (earlier, now) in elsewhere.items() if key not in _DERIVED]
        # Until something is computed, a mistake in the configuration may simply be corrected.
        if differing and {part.name for part in self.directory.iterdir()} - {"config.yaml", "manifest.json", LOCK_FILE}:
            how = extend(differing) if extend is not None else ""
            if not how:
                raise UserError(self._refusal(differing))
            self.is_extended = True
            notes.append(how)
        if self.is_main:
            self.contents = {key: places.contents(value) for key, value in _compared(config).items()
                             if places.is_path(value)}
            with disk_errors(self.directory, "output_dir"):
                if self.is_extended and self.result_path.exists():  # before the configuration, should we die here
                    os.replace(self.result_path, self.directory / "earlier-result.json")
                if differing or elsewhere or not path.exists():
                    write_atomic(path, configuration.dump(config))
                elif "card" in (values := configuration.to_dict(config)) and restate(self.directory, values["card"]):
                    self.tell(finished=True)
            self.hold("config.yaml")
            for note in notes:
                print(f"note: {note}")
        return self

    def _differences(self, config: Any) -> tuple[dict[str, tuple], dict[str, tuple]]:
        """Key → (earlier, now): of values that differ from those of config.yaml, and of places that do while what lies
        there is the same.
        """
        written = configuration.flat(configuration.read_yaml(self.directory / "config.yaml"))
        now = _compared(config)
        # A key that a later version brought is at its default in the runs of earlier ones.
        defaults = configuration.default_values(type(config))
        earlier = {key: value for key, value in defaults.items() if key in now and key not in written} | {
            key: value for key, value in written.items() if key not in _free(config)}
        manifest = self.directory / "manifest.json"
        recorded = read_json(manifest, Manifest).get("inputs", {}) if manifest.exists() else {}
        differing, elsewhere = {}, {}
        for key in now | earlier:
            values = earlier.get(key), now.get(key)
            if places.same(*values):
                continue
            is_elsewhere = key in _DERIVED or places.moved(*values, recorded.get(key))
            (elsewhere if is_elsewhere else differing)[key] = values
        return differing, elsewhere

    def _refusal(self, differing: dict[str, tuple]) -> str:
        """The first difference that is not of a path, or of a path where only these differ."""
        lies_elsewhere = {key for key, values in differing.items() if any(map(places.is_path, values))}
        key = next((key for key in differing if key not in lies_elsewhere), next(iter(differing)))
        earlier, now = differing[key]
        more = f" (and {len(differing) - 1} more keys)" if len(differing) > 1 else ""
        path = self.directory / "config.yaml"
        if key in lies_elsewhere:
            return (f"{path}: this run was made with {key} = {earlier!r}, now it is {now!r}{more}, and what lies there "
                    f"is not known to be the same. Give what it was made with, or choose another --output_dir.")
        return (f"{path}: this run was made with {key} = {earlier!r}, now it is {now!r}{more}. Choose another "
                f"--output_dir, or delete {self.directory} to start over.")

    def write_manifest(self, inputs: Sequence[Path] = (), **facts: Any) -> None:
        """Versions, commit and machine, with whatever else the recipe knows (data fingerprints, parameters).

        A run with checkpoints goes on with the data they come from: another `data` is refused. `inputs` are files that
        must not change from now on (`check_inputs`).
        """
        path = self.directory / "manifest.json"
        manifest = read_json(path, Manifest) if path.exists() else {}
        earlier = manifest.get("data") if any(self.checkpoint_dir.glob("step-*")) else None
        now = json.loads(json.dumps(facts.get("data")))  # as it would be read again
        if earlier is not None and now is not None and not places.agree(earlier, now):
            changed = [key for key in now if key in earlier and not places.agree(earlier[key], now[key])]
            raise UserError(f"{path}: the checkpoints of this run saw other data than there is now (differing: "
                            f"{', '.join(changed)}). Restore the data, or choose another --output_dir.")
        self.inputs = {Path(file): _state(file) for file in inputs}
        if self.is_main:
            started = manifest.get("started") or datetime.now(UTC).isoformat(timespec="seconds")
            inputs = self.contents and {"inputs": self.contents}
            self.check_place()
            self.hold(path.name)
            with disk_errors(self.directory, "output_dir"):
                write_json(path, {"started": started, "command": command_line(), **environment(), **inputs, **facts})

    def check_inputs(self) -> None:
        """UserError when a file that this run reads was changed or removed under it."""
        for file, state in self.inputs.items():
            if _state(file) != state:
                raise UserError(f"{file}: was changed while this run was reading it. The last checkpoint is from "
                                f"before; restore the file (or delete its folder to have it built again) and give the "
                                f"same command.")

    def result(self) -> dict | None:
        """What the finished run reported, or None while it is unfinished."""
        finished = self.result_path.exists() and not self.is_extended
        return Reported(read_json(self.result_path, dict)) if finished else None

    def finish(self, result: dict, keep_model: bool = True) -> dict:
        """Write the result, whose presence marks the run as complete; then remove a model that is not to be kept."""
        if self.is_main:
            self.check_place()
            with disk_errors(self.directory, "output_dir"):
                write_json(self.result_path, result)
                (self.directory / "earlier-result.json").unlink(missing_ok=True)
                self.is_extended = False
                if not keep_model:
                    shutil.rmtree(self.model_dir)
        self.tell(finished=True)
        return Reported(result)


def _free(config: Any) -> set[str]:
    """Dotted keys, those of whole mappings included, that may differ."""
    cls = type(config)
    free = set(configuration.all_keys(cls)) - set(configuration.binding_keys(cls))
    values = configuration.flat(configuration.to_dict(config))
    return free | {key for key in values if any(key.startswith(f"{name}.") for name in free)}


def _compared(config: Any) -> dict[str, Any]:
    """Dotted keys and values that decide what is learned."""
    free = _free(config)
    return {key: value for key, value in configuration.flat(configuration.to_dict(config)).items() if key not in free}


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a metrics.jsonl, up to the first that is none: the last one may be cut short by a crash."""
    records = []
    if Path(path).exists():
        with open(regular(path), "rb") as file:
            while line := file.readline(_LONGEST_RECORD):
                try:
                    records.append(checked(parsed_json(line), Record, str(path)))
                except ValueError:
                    break
    return records


def home(directory: str | Path) -> Path | None:
    """The run that a directory is, or is a part of, however deep: the nearest with what `Run.open` leaves."""
    directory = Path(os.path.abspath(directory))
    return next((place for place in (directory, *directory.parents) if (place / "config.yaml").exists()
                 and ((place / LOCK_FILE).exists() or (place / "manifest.json").exists())), None)


def name_of(directory: str | Path) -> str:
    """What to call a run, or a part of one, elsewhere: its path below runs/, for instance `demo/bert`."""
    directory = Path(os.path.abspath(directory))
    if directory.is_relative_to(Path.cwd()):
        return str(directory.relative_to(Path.cwd())).removeprefix("runs/")
    return str(directory.relative_to((home(directory) or directory).parent))


def restate(directory: str | Path, card: dict) -> bool:
    """Replace what a run's configuration says for its card, on which nothing that was computed depends. Returns whether
    the run is finished, and its card is to be written anew, or for the first time.
    """
    directory = Path(directory)
    path = directory / "config.yaml"
    values = configuration.read_yaml(path)
    changed = values.get("card") != card and ("card" in values or any(card.values()))
    if changed:
        write_atomic(path, yaml.safe_dump({**values, "card": card}, sort_keys=False, allow_unicode=True))
    return (directory / "result.json").exists() and (changed or not (directory / "README.md").exists())
