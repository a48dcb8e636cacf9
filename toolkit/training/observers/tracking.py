"""Where the figures go: `metrics.jsonl` always; wandb, tensorboard and trackio when asked for, best effort.

wandb and trackio are started through accelerate's trackers, each on a thread of its own: a tracker that is slow, hangs
or breaks costs training a bounded wait at the start and at the end, and one line that says so. (`Accelerator.log` calls
all trackers in turn, waits for each, and fails with the first.) They are told nothing that names the machine.
"""

import json
import netrc
import os
import queue
import secrets
import shlex
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path

import yaml
from accelerate.tracking import GeneralTracker, TrackioTracker, WandBTracker

from toolkit.config import read_yaml
from toolkit.errors import UserError
from toolkit.run.directory import home, name_of, read_metrics
from toolkit.run.files import read_json, write_atomic, write_json
from toolkit.run.provenance import without_machine_paths
from toolkit.run.schema import Manifest, Tracking
from toolkit.training.observers.base import Observer

PROJECT = "pretraining-toolkit"
REACH_SECONDS = 3.0  # for the wandb server to answer anything at all
INIT_SECONDS = 10.0  # for it to accept the run
START_SECONDS = 30.0  # that training waits for a tracker to start
FINISH_SECONDS = 30.0  # that the end of a run waits for the last figures to go out


class Tracker(Observer):
    """Appends records to metrics.jsonl, and passes them on. Resuming at `step` drops what a lost stretch had logged
    beyond it; that stretch is computed again to the same numbers, so that trackers that were told of it are not told
    twice. One that is asked for later than the run began is told all that metrics.jsonl has.
    """

    def __init__(self, directory: Path, resume_step: int, report_to: list[str], evaluation_due: bool = False):
        """evaluation_due: the evaluation at `resume_step` will be made again."""
        self.path = directory / "metrics.jsonl"
        earlier = read_metrics(self.path)
        kept = [record for record in earlier if resume_step and record["step"] <= resume_step
                and not (evaluation_due and record["step"] == resume_step and _evaluates(record))]
        write_atomic(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self.file = open(self.path, "a", encoding="utf-8")
        self.services = []
        if report_to:
            memory = directory / "tracking.json"
            known = read_json(memory, Tracking) if memory.exists() else {"id": secrets.token_hex(4), "trackers": []}
            write_json(memory, {**known, "trackers": sorted({*known["trackers"], *report_to})})
            facts = recorded(directory)
            for name in dict.fromkeys(report_to):
                told = earlier if name in known["trackers"] else []
                service = _Service(name, lambda name=name: _STARTS[name](directory, known["id"], facts), told)
                self.services.append(service)
                for record in kept:
                    service.log(record)
            for service in self.services:
                service.wait_for_start(self.path)

    def log(self, record: dict) -> None:
        """One line now; `record` holds `step` and numbers."""
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        for service in self.services:
            service.log(record)
            service.complain(self.path)

    def sync(self) -> None:
        """Make sure everything logged is on disk; called before a checkpoint, or a kept model, claims it."""
        self.file.flush()
        os.fsync(self.file.fileno())
        if not self.path.exists() or not os.path.samestat(os.fstat(self.file.fileno()), self.path.stat()):
            raise UserError(f"{self.path}: was removed or replaced while this run was writing into it. Put it back and "
                            f"give the same command to go on from the last checkpoint.")

    def close(self) -> None:
        """Once or more."""
        self.file.close()
        for service in self.services:
            service.finish(self.path)
        self.services = []


def _evaluates(record: dict) -> bool:
    return any(key.startswith("eval_") for key in record)


def _kind(record: dict) -> tuple:
    return record["step"], frozenset(record)


def recorded(directory: Path) -> dict:
    """What a run knows of itself, for others to read: its configuration; under `run` versions, commit, machine, and
    fingerprints of data and tokenizer. No token is in there, and no path of this machine.
    """
    place = home(directory)
    facts = {}
    if place is not None:
        manifest = place / "manifest.json"
        facts = read_yaml(place / "config.yaml") | {"run": read_json(manifest, Manifest) if manifest.exists() else {}}
    return without_machine_paths(facts)


class _Service(threading.Thread):
    """One tracker, from its start to its end, on a thread; `log` only puts a record in its queue."""

    def __init__(self, name: str, start: Callable[[], tuple[GeneralTracker, str]], told: list[dict]):
        super().__init__(name=name, daemon=True)
        self.start_tracker, self.records, self.told = start, queue.SimpleQueue(), {_kind(record) for record in told}
        self.started, self.error, self.farewell = threading.Event(), None, ""
        self.start()

    def run(self) -> None:
        try:
            tracker, self.farewell = self.start_tracker()
            self.started.set()
            while (record := self.records.get()) is not None:
                tracker.log({key: value for key, value in record.items() if key != "step"}, step=record["step"])
            tracker.finish()
        except BaseException as error:  # noqa: BLE001 - an outage of a tracker must never stop training
            self.error = error
            self.started.set()

    def log(self, record: dict) -> None:
        if self.error is None and _kind(record) not in self.told:
            self.records.put(record)

    def wait_for_start(self, path: Path) -> None:
        if not self.started.wait(START_SECONDS):
            warnings.warn(f"{self.name} has not started in {START_SECONDS:.0f} s; training goes on, and tells it all "
                          f"should it come. Everything is in {path}.", stacklevel=3)
        self.complain(path)

    def complain(self, path: Path) -> None:
        """Say once that it failed."""
        if self.error is not None and not isinstance(self.error, _Told):
            warnings.warn(f"{self.name} failed and is left out from here on: {_first_line(self.error)} Everything is "
                          f"in {path}.", stacklevel=3)
            self.error = _Told()

    def finish(self, path: Path) -> None:
        self.records.put(None)
        self.join(FINISH_SECONDS if self.started.is_set() else 0.1)
        self.complain(path)
        if self.error is None:
            if self.is_alive():
                warnings.warn(f"{self.name} has not taken the last figures in {FINISH_SECONDS:.0f} s and is left "
                              f"behind. Everything is in {path}.", stacklevel=3)
            if self.farewell:
                print(self.farewell, flush=True)


class _Told(Exception):
    """In place of an error that was reported."""


# --- wandb ---------------------------------------------------------------------------------------------------------


def _start_wandb(directory: Path, identity: str, facts: dict) -> tuple[GeneralTracker, str]:
    """A run that goes on under the same id whenever the directory's run goes on. Online where someone is logged in and
    the server answers; else offline, and the farewell is the command that sends everything later.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it reports on itself, offline too
    import wandb

    _writable(directory / "wandb")
    settings = wandb.setup().settings  # of files, too: a server of one's own
    quiet = {"silent": True, "console": "off", "host": "", "program": "", "init_timeout": INIT_SECONDS,
             "finish_timeout": FINISH_SECONDS, "disable_git": True, "disable_code": True, "x_disable_meta": True,
             "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False}
    known = getattr(type(settings), "model_fields", quiet)  # settings come and go with versions

    def begin(mode: str) -> GeneralTracker:
        tracker = WandBTracker(
            os.environ.get("WANDB_PROJECT", PROJECT), name=name_of(directory), group=_group(directory), id=identity,
            resume="allow", config=facts, dir=str(directory), mode=mode,
            settings=wandb.Settings(**{key: value for key, value in quiet.items() if key in known}))
        tracker.start()
        return tracker

    mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in(settings.base_url) else "offline")
    if mode == "online":
        try:
            _reach(settings.base_url)
            return begin("online"), ""
        except Exception as error:  # noqa: BLE001 - of whatever kind, it goes offline
            wandb.teardown()  # it would take the run for still open
            print(f"wandb: the server cannot be used ({_first_line(error)}); going on offline", flush=True)
        mode = "offline"
    runs = f"{shlex.quote(str(directory))}/wandb/offline-run-*-{identity}"
    return begin(mode), f"wandb: to send this run to the server: wandb sync {runs}" if mode == "offline" else ""


def _writable(directory: Path) -> None:
    """OSError unless files can be made in it; wandb itself would go on in a temporary folder, without a word."""
    directory.mkdir(exist_ok=True)
    probe = directory / f".{secrets.token_hex(4)}"
    probe.touch()
    probe.unlink()


def _logged_in(base_url: str) -> bool:
    """Whether wandb would find a key without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators(urllib.parse.urlparse(base_url).hostname)
    except (OSError, netrc.NetrcParseError):
        return False
    return entry is not None


def _reach(base_url: str) -> None:
    """OSError unless the server answers, anything, in time; wandb itself would wait for minutes."""
    failure: list[OSError] = [TimeoutError(f"no answer from {base_url} in {REACH_SECONDS:.0f} s")]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(base_url, method="HEAD"), timeout=REACH_SECONDS).close()
            failure.clear()
        except urllib.error.HTTPError:  # an answer
            failure.clear()
        except OSError as error:
            failure[:] = [error]

    asking = threading.Thread(target=ask, daemon=True)  # looking a name up obeys no timeout
    asking.start()
    asking.join(REACH_SECONDS)
    if failure:
        raise failure[0]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# --- tensorboard, trackio ------------------------------------------------------------------------------------------


class TensorBoardFile(GeneralTracker):
    """An event file as TensorBoard reads it. (torch's and accelerate's writer put the host's name into the file's.)"""

    name, requires_logging_directory = "tensorboard", True

    def __init__(self, directory: Path, facts: dict):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.summary.writer.record_writer import RecordWriter

        super().__init__()
        directory.mkdir(exist_ok=True)
        self.event, self.summary = Event, Summary
        self.writer = RecordWriter(open(directory / f"events.out.tfevents.{time.time_ns()}.{PROJECT}", "xb"))
        self._write(Event(file_version="brain.Event:2"))
        text = "    " + yaml.safe_dump(facts, sort_keys=False, allow_unicode=True).replace("\n", "\n    ")
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()],
                             tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]))
        self._write(Event(summary=Summary(value=[Summary.Value(tag="config", tensor=tensor, metadata=metadata)])))

    @property
    def tracker(self):
        return self.writer

    def _write(self, event) -> None:
        event.wall_time = time.time()
        self.writer.write(event.SerializeToString())
        self.writer.flush()

    def log(self, values: dict, step: int | None = None, **_) -> None:
        self._write(self.event(step=step, summary=self.summary(value=[
            self.summary.Value(tag=key, simple_value=value) for key, value in values.items()])))

    def finish(self) -> None:
        self.writer.close()


def _start_tensorboard(directory: Path, identity: str, facts: dict) -> tuple[GeneralTracker, str]:
    _installed("tensorboard")
    tracker = TensorBoardFile(directory / "tensorboard", facts)
    return tracker, f"tensorboard: tensorboard --logdir {shlex.quote(str(directory))}"


def _start_trackio(directory: Path, identity: str, facts: dict) -> tuple[GeneralTracker, str]:
    """A local database that runs beside each other share; no server is started, nothing goes over a network."""
    os.environ.setdefault("TRACKIO_DIR", os.path.relpath((home(directory) or directory).parent / "trackio"))
    _installed("trackio")
    import trackio.run
    import trackio.utils

    trackio.run._get_default_namespace = lambda: None  # it would ask the hub who is logged in
    tracker = TrackioTracker(PROJECT, name=f"{name_of(directory)}-{identity}", config=facts, resume="allow",
                             group=_group(directory), embed=False, auto_log_gpu=False, auto_log_cpu=False)
    tracker.start()
    where = shlex.quote(str(trackio.utils.TRACKIO_DIR))  # of the first run of this process
    return tracker, f"trackio: TRACKIO_DIR={where} trackio show --project {PROJECT}"


def _group(directory: Path) -> str:
    """The fits of an experiment belong together."""
    return name_of(home(directory) or directory)


def _installed(package: str) -> None:
    try:
        __import__(package)
    except ModuleNotFoundError:
        raise UserError("it is not installed; pip install 'pretraining-toolkit[tracking]'.") from None


_STARTS = {"wandb": _start_wandb, "tensorboard": _start_tensorboard, "trackio": _start_trackio}
