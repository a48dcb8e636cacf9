"""metrics.jsonl always; wandb beside it, and never in the way."""

import json

import pytest

from toolkit import config
from toolkit.errors import UserError
from toolkit.run import read_metrics
from toolkit.training.loop import TrainingConfig
from toolkit.training.tracking import Tracker


def test_resuming_drops_what_was_logged_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tracker = Tracker(path, 0, [], "run", {})
    for step in (10, 20, 30):
        tracker.log({"step": step, "loss": 1 / step})
    tracker.close()
    tracker = Tracker(path, 20, [], "run", {})
    tracker.log({"step": 30, "loss": 0.5})
    tracker.close()
    assert [(record["step"], record["loss"]) for record in read_metrics(path)] == [(10, 0.1), (20, 0.05), (30, 0.5)]


def test_wandb_runs_offline_without_a_login(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    tracker = Tracker(tmp_path / "metrics.jsonl", 0, ["wandb"], "run", {"seed": 1})
    assert tracker.wandb is not None
    tracker.log({"step": 1, "loss": 2.0})
    tracker.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 2.0}


def test_a_failing_tracker_warns_once_and_metrics_go_on(tmp_path, monkeypatch):
    class Broken:
        def log(self, *_, **__):
            raise ConnectionError("the service is down")

    tracker = Tracker(tmp_path / "metrics.jsonl", 0, [], "run", {})
    tracker.wandb = Broken()
    with pytest.warns(UserWarning, match="the service is down"):
        tracker.log({"step": 1})
    tracker.log({"step": 2})
    tracker.close()
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_an_unknown_tracker_is_refused():
    with pytest.raises(UserError, match=r"report_to\[0\]' is 'wandbb'\. Did you mean 'wandb'"):
        config.from_dict(TrainingConfig, {"report_to": ["wandbb"]})
