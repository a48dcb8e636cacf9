"""metrics.jsonl always; wandb, tensorboard and trackio beside it, and never in the way."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import small
import yaml
from accelerate import PartialState

from toolkit import config
from toolkit.errors import UserError
from toolkit.run.directory import read_metrics
from toolkit.training.observers import emissions, tracking
from toolkit.training.observers.emissions import EnergyMeter
from toolkit.training.observers.tracking import Tracker, recorded
from toolkit.training.task import TrainingConfig


@pytest.fixture(autouse=True)
def nobody_is_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "TRACKIO_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    PartialState()  # as a training has made it, before it tracks anything


@pytest.fixture
def run(tmp_path) -> Path:
    """A run directory with a configuration, a manifest and figures up to step 20."""
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "config.yaml").write_text(yaml.safe_dump({"data_dir": "/home/jane/corpus", "seed": 1}))
    (directory / "manifest.json").write_text(json.dumps({"commit": "abc1234", "versions": {"torch": "2"}}))
    return directory


def steps(*numbers: int) -> list[dict]:
    return [{"step": number, "loss": 1 / number} for number in numbers]


def track(directory: Path, resume_step: int, records: list[dict], *report_to: str) -> Tracker:
    tracker = Tracker(directory, resume_step, list(report_to))
    for record in records:
        tracker.log(record)
    tracker.close()
    return tracker


def test_resuming_drops_what_was_logged_after_the_checkpoint(tmp_path):
    track(tmp_path, 0, steps(10, 20, 30))
    track(tmp_path, 20, [{"step": 30, "loss": 0.5}])
    assert [(record["step"], record["loss"]) for record in read_metrics(tmp_path / "metrics.jsonl")] == [
        (10, 0.1), (20, 0.05), (30, 0.5)]


def test_an_unknown_tracker_is_refused():
    with pytest.raises(UserError, match=r"report_to\[0\]' is 'wandbb'\. Did you mean 'wandb'"):
        config.from_dict(TrainingConfig, {"report_to": ["wandbb"]})
    with pytest.raises(UserError, match="Choose from: tensorboard, trackio, wandb"):
        config.from_dict(TrainingConfig, {"report_to": ["mlflow"]})


def test_what_others_are_told_of_a_run_names_no_path(run):
    fit = run / "bert-pretrained/seed-0"
    fit.mkdir(parents=True)
    for directory in (run, fit):  # a fit is described by the experiment above it
        assert recorded(directory) == {"data_dir": "corpus", "seed": 1,
                                       "run": {"commit": "abc1234", "versions": {"torch": "2"}}}
    assert recorded(run.parent) == {}


# --- trackers that fail --------------------------------------------------------------------------------------------


class Broken(tracking.GeneralTracker):
    """Works until told otherwise."""

    name, requires_logging_directory, tracker = "broken", False, None

    def __init__(self, at: str = ""):
        self.at, self.seen = at, []

    def log(self, values, step=None, **_):
        if self.at == "log":
            raise ConnectionError("the service is down\nmore of it")
        self.seen.append(step)

    def finish(self):
        if self.at == "hang":
            time.sleep(60)
        if self.at == "finish":
            raise RuntimeError("it cannot end")


@pytest.mark.parametrize("at, message", [
    ("start", "wandb failed and is left out from here on: no such thing Everything is in"),
    ("log", "wandb failed and is left out from here on: the service is down Everything is in"),
    ("finish", "wandb failed and is left out from here on: it cannot end"),
    ("hang", "wandb has not taken the last figures in 0 s and is left behind"),
    ("never", "wandb has not started in 0 s; training goes on"),
])
def test_a_tracker_that_fails_is_complained_of_once_and_metrics_go_on(run, monkeypatch, at, message):
    def start(*_):
        if at == "start":
            raise ValueError("no such thing")
        if at == "never":
            time.sleep(60)
        return Broken(at), ""

    monkeypatch.setitem(tracking._STARTS, "wandb", start)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.2)
    monkeypatch.setattr(tracking, "START_SECONDS", 0.2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tracker = Tracker(run, 0, ["wandb"])
        for record in steps(1, 2, 3):
            tracker.log(record)
            time.sleep(0.02)
        tracker.close()
    said = [str(warning.message) for warning in caught]
    assert len([text for text in said if message in text]) == 1 and len(said) <= 1 + (at == "never")
    assert [record["step"] for record in read_metrics(run / "metrics.jsonl")] == [1, 2, 3]


def test_a_slow_tracker_does_not_slow_training(run, monkeypatch):
    class Slow(Broken):
        def log(self, values, step=None, **_):
            time.sleep(0.1)
            super().log(values, step)

    slow = Slow()
    monkeypatch.setitem(tracking._STARTS, "wandb", lambda *_: (slow, ""))
    tracker = Tracker(run, 0, ["wandb"])
    began = time.perf_counter()
    for record in steps(1, 2, 3, 4, 5):
        tracker.log(record)
    assert time.perf_counter() - began < 0.25
    tracker.close()
    assert slow.seen == [1, 2, 3, 4, 5]  # all the same


def test_a_lost_stretch_is_not_told_twice_and_a_late_tracker_is_told_all(run, monkeypatch):
    """Steps 30 and 40 were lost with a killed process; tensorboard is asked for from the second start on."""
    told = {"wandb": Broken(), "tensorboard": Broken()}
    identities = []

    def start(name):
        return lambda directory, identity, facts: (identities.append(identity), (told[name], ""))[1]

    for name in told:
        monkeypatch.setitem(tracking._STARTS, name, start(name))
    track(run, 0, [*steps(10, 20, 30), {"step": 30, "eval_loss": 2.0}, *steps(40)], "wandb")
    again = [*steps(30), {"step": 30, "eval_loss": 2.0}, *steps(40, 50)]
    track(run, 20, again, "wandb", "tensorboard")
    assert told["wandb"].seen == [10, 20, 30, 30, 40, 50]
    assert told["tensorboard"].seen == [10, 20, 30, 30, 40, 50]
    assert len(set(identities)) == 1 and len(identities) == 3


# --- wandb ---------------------------------------------------------------------------------------------------------


def wandb_records(path: Path) -> list:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB) after seven bytes, holding protobufs."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, offset, parts, found = path.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while offset + 7 <= len(data):
        left = 32768 - offset % 32768
        if left < 7:
            offset += left
            continue
        length, kind = int.from_bytes(data[offset + 4:offset + 6], "little"), data[offset + 6]
        parts += data[offset + 7:offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def history(records: list) -> list[dict]:
    """step → figures, as they were logged."""
    rows = [{(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            for record in records if record.WhichOneof("record_type") == "history"]
    return [{key: value for key, value in row.items() if key in ("_step", "loss")} for row in rows]


def test_wandb_offline_goes_on_under_the_same_id_and_its_own_sync_can_read_it(run, capsys):
    track(run, 0, steps(10, 20, 30), "wandb")
    time.sleep(1.1)  # its folders are named by the second
    track(run, 20, steps(30, 40), "wandb")
    import wandb

    wandb.teardown()  # as the interpreter's end does: its process writes on for a moment
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    sessions = [wandb_records(file) for file in files]
    assert [row for records in sessions for row in history(records)] == [
        {"_step": step, "loss": 1 / step} for step in (10, 20, 30, 40)]
    started = [record.run for records in sessions for record in records
               if record.WhichOneof("record_type") == "run"]
    identity = json.loads((run / "tracking.json").read_text())["id"]
    assert {entry.run_id for entry in started} == {identity}
    assert {entry.host for entry in started} == {""} and not any(entry.git.remote_url for entry in started)
    written = {item.key: json.loads(item.value_json) for item in started[0].config.update}
    assert written["seed"] == 1 and written["data_dir"] == "corpus" and written["run"]["commit"] == "abc1234"
    assert b"/home/jane" not in b"".join(file.read_bytes() for file in files)
    command = capsys.readouterr().out.split("wandb sync ")[1].split()[0]
    assert command == f"{run}/wandb/offline-run-*-{identity}"
    dry = subprocess.run([Path(sys.executable).parent / "wandb", "sync", "--dry-run", *map(str, run.glob(
        f"wandb/offline-run-*-{identity}"))], capture_output=True, text=True, timeout=100)
    assert dry.returncode == 0 and "Would sync 2 run(s)" in dry.stdout + dry.stderr


@contextmanager
def silent_server():
    """Takes connections, and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    held = []

    def accept():
        while True:
            try:
                held.append(server.accept())
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


def test_a_silent_or_absent_server_is_noticed_in_seconds(monkeypatch):
    monkeypatch.setattr(tracking, "REACH_SECONDS", 0.3)
    with silent_server() as address:
        began = time.perf_counter()
        with pytest.raises(OSError):
            tracking._reach(address)
        assert time.perf_counter() - began < 2
    with pytest.raises(OSError):
        tracking._reach(address)  # nobody is there


def test_logged_in_but_without_a_server_wandb_goes_offline(run, monkeypatch, capsys):
    began = []

    class Begun(Broken):
        def __init__(self, project, **options):
            super().__init__()
            began.append(options["mode"])

        def start(self):
            pass

    monkeypatch.setattr(tracking, "WandBTracker", Begun)
    monkeypatch.setattr(tracking, "REACH_SECONDS", 0.3)
    monkeypatch.setattr(tracking, "_logged_in", lambda base_url: True)
    for reach, expected in ((lambda base_url: None, "online"), (tracking._reach, "offline")):
        monkeypatch.setattr(tracking, "_reach", reach)
        with silent_server() as address:
            import wandb

            monkeypatch.setattr(wandb, "setup", lambda *_, address=address: type(
                "Setup", (), {"settings": wandb.Settings(base_url=address)}))
            track(run, 0, steps(1), "wandb")
        assert began[-1] == expected
    assert "going on offline" in capsys.readouterr().out


def test_a_key_is_known_from_the_environment_or_netrc(tmp_path, monkeypatch):
    assert not tracking._logged_in("https://api.wandb.ai")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai login user password x\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert tracking._logged_in("https://api.wandb.ai") and not tracking._logged_in("https://wandb.here.org")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert tracking._logged_in("https://wandb.here.org")


def test_a_wandb_directory_that_cannot_be_written_stops_nothing(run):
    (run / "wandb").write_text("in the way")
    with pytest.warns(UserWarning, match="wandb failed and is left out from here on: .*File exists"):
        track(run, 0, steps(1, 2), "wandb")
    assert [record["step"] for record in read_metrics(run / "metrics.jsonl")] == [1, 2]


# --- tensorboard, trackio ------------------------------------------------------------------------------------------


def test_tensorboard_reads_what_was_logged_and_the_file_names_no_host(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track(run, 0, steps(10, 20), "tensorboard")
    track(run, 10, steps(20, 30), "tensorboard")
    names = os.listdir(run / "tensorboard")
    assert len(names) == 2 and all(name.endswith(".pretraining-toolkit") for name in names)
    found = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [
        (10, pytest.approx(0.1)), (20, pytest.approx(0.05)), (30, pytest.approx(1 / 30))]
    text = found.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert "data_dir: corpus" in text and "commit: abc1234" in text


def test_trackio_writes_a_local_database_and_opens_no_connection(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio")
    import huggingface_hub
    import trackio.run
    import trackio.utils

    monkeypatch.setattr(trackio.run, "_get_default_namespace", trackio.run._get_default_namespace)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")  # somebody is logged in
    reached = []
    real = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: (reached.append(address), real(self, address)))
    track(run, 0, steps(10, 20), "trackio")
    track(run, 10, steps(20, 30), "trackio")
    assert not reached
    name = f"{run.name}-{json.loads((run / 'tracking.json').read_text())['id']}"
    with sqlite3.connect(Path(trackio.utils.TRACKIO_DIR) / "pretraining-toolkit.db") as database:
        rows = database.execute("select step, metrics from metrics where run_name = ? order by id", [name]).fetchall()
        ids = database.execute("select distinct run_id from metrics where run_name = ?", [name]).fetchall()
    assert [(step, json.loads(values)["loss"]) for step, values in rows] == [(10, 0.1), (20, 0.05), (30, 1 / 30)]
    assert len(ids) == 1


# --- energy --------------------------------------------------------------------------------------------------------


def test_what_watches_a_run_changes_nothing_of_it(tmp_path, monkeypatch):
    pytest.importorskip("codecarbon")
    data = small.small_data(tmp_path, "bytes")
    settings = dict(max_steps=6, batch_size=8, logging_steps=2, eval_steps=3, save_steps=0)
    small.train(small.gpt_task(data, 0.1), tmp_path / "alone", TrainingConfig(**settings))
    watched = TrainingConfig(**settings, report_to=["tensorboard"], emissions=True, country="FRA")
    small.train(small.gpt_task(data, 0.1), tmp_path / "watched", watched)
    assert small.digest(tmp_path / "alone/model/model.safetensors") == small.digest(
        tmp_path / "watched/model/model.safetensors")
    assert small.records(tmp_path / "alone") == small.records(tmp_path / "watched")
    assert json.loads((tmp_path / "watched/emissions.json").read_text())["emissions_kg"] > 0


def test_energy_adds_up_over_interruptions_and_draws_no_random_number(tmp_path, monkeypatch, capfd):
    pytest.importorskip("codecarbon")
    import random

    import numpy as np
    import torch

    monkeypatch.chdir(tmp_path)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    totals = []
    for _ in range(2):
        meter = EnergyMeter(tmp_path / "emissions.json", "FRA")
        meter.starting.join()
        time.sleep(0.2)
        meter.evaluated()
        meter.close()
        totals.append(json.loads((tmp_path / "emissions.json").read_text()))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert totals[0]["seconds"] >= 0.2 and totals[1]["seconds"] > totals[0]["seconds"] + 0.2
    assert totals[1]["energy_kwh"] > totals[0]["energy_kwh"] > 0
    grams = 1000 * totals[1]["emissions_kg"] / totals[1]["energy_kwh"]
    assert 10 < grams < 200  # France
    assert totals[1]["country"] == "France" and totals[1]["counted"] == "process"
    assert totals[1]["method"].startswith(("estimated: ", "measured: "))
    assert os.listdir(tmp_path) == ["emissions.json"]
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    assert not [thread for thread in threading.enumerate() if "codecarbon" in str(getattr(thread, "function", ""))]


def test_without_a_country_there_are_no_emissions_and_an_unknown_one_is_refused(tmp_path):
    pytest.importorskip("codecarbon")
    meter = EnergyMeter(tmp_path / "emissions.json", "")
    meter.starting.join()
    time.sleep(0.1)
    meter.close()
    assert "emissions_kg" not in json.loads((tmp_path / "emissions.json").read_text())
    with pytest.raises(UserError, match=r"training\.country is 'fr'; give the three letters of ISO 3166-1"):
        EnergyMeter(tmp_path / "emissions.json", "fr")


def test_without_codecarbon_it_says_so_and_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.warns(UserWarning, match="the energy is not measured: codecarbon is not installed"):
        meter = EnergyMeter(tmp_path / "emissions.json", "FRA")
    meter.evaluated()
    meter.close()
    assert not (tmp_path / "emissions.json").exists() and emissions.SAMPLING_SECONDS >= 15
