"""Where the figures go: `metrics.jsonl` always; wandb when asked for, best effort."""

import json
import os
import warnings
from pathlib import Path

from toolkit.run import read_metrics, write_atomic


class Tracker:
    """Appends records to metrics.jsonl. Resuming at `step` drops what a lost stretch had logged beyond it."""

    def __init__(self, path: Path, resume_step: int, report_to: list[str], name: str, config: dict):
        self.path = path
        kept = [record for record in read_metrics(path) if record["step"] <= resume_step] if resume_step else []
        write_atomic(path, "".join(json.dumps(record) + "\n" for record in kept))
        self.file = open(path, "a", encoding="utf-8")
        self.wandb = self._start_wandb(name, config) if "wandb" in report_to else None

    def log(self, record: dict) -> None:
        """One line now; `record` holds `step` and numbers."""
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        if self.wandb is not None:
            try:
                self.wandb.log({key: value for key, value in record.items() if key != "step"}, step=record["step"])
            except Exception as error:  # noqa: BLE001 - an outage of a tracker must never stop training
                warnings.warn(f"wandb failed and is left out from here on: {error}", stacklevel=2)
                self.wandb = None

    def sync(self) -> None:
        """Make sure everything logged is on disk; called before a checkpoint claims it."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()
        if self.wandb is not None:
            self.wandb.finish()

    def _start_wandb(self, name: str, config: dict):
        try:
            import wandb

            # Without a key wandb would prompt or fail, without a network it would hang: offline needs neither.
            online = bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE", "online") == "online"
            return wandb.init(project="pretraining-toolkit", name=name, id=name.replace("/", "-"), resume="allow",
                              config=config, dir=str(self.path.parent), mode="online" if online else "offline")
        except Exception as error:  # noqa: BLE001
            warnings.warn(f"wandb could not be started, metrics go to {self.path} alone: {error}", stacklevel=2)
            return None
