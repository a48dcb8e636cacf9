"""Where a training stands: all that is not weights or optimisers, and what a checkpoint's state.json holds."""

import math
from dataclasses import asdict, dataclass, field, fields

from toolkit.errors import UserError
from toolkit.training.guard import Moment


@dataclass
class State:
    step: int = 0
    """Optimiser steps made, bad ones included."""
    tokens: int = 0
    seconds: float = 0.0
    """Of steps: without evaluations, checkpoints and the compiler."""
    best: float | None = None
    """Of the task's `best_metric` so far."""
    no_better: int = 0
    """Evaluations since then."""
    kept: dict | None = None
    """What that evaluation, of the model that is saved, gave, with its `best_step`; None before the first, and in
    checkpoints of earlier versions."""
    running: dict = field(default_factory=dict)
    """Objective → its loss, this rank's part of the means, summed since the last logged line: a resumed run logs what
    an unbroken one does."""
    running_steps: int = 0
    limit: int | None = None
    """Steps that were found to fit into the minutes (`Budget.steps_in_time`)."""
    guard: list[float] | None = None
    began: list | None = None
    """What `Guard.state` and `Beginning.state` gave."""
    evaluation_due: bool = False
    """The evaluation at `step` was still to be made when this was saved."""

    @classmethod
    def read(cls, saved: dict, rank: int, world: int) -> "State":
        """From state.json, of any number of processes and of earlier versions, which lack the newer keys."""
        parts = saved.get("running") or [{}]
        if len(parts) == world:
            running = dict(parts[rank])
        else:  # the sum is what counts
            names = dict.fromkeys(key for part in parts for key in part)
            running = {key: sum(part.get(key, 0.0) for part in parts) if rank == 0 else 0.0 for key in names}
        known = {field.name for field in fields(cls)}
        if unknown := sorted(saved.keys() - known):
            raise UserError(f"checkpoints, state.json: has a key {unknown[0][:40]!r}, which this version does not "
                            f"know. Go on with the version that wrote it, or delete the run's checkpoints to start "
                            f"over.")
        return cls(**{**saved, "running": running})

    def saved(self, running: list[dict]) -> dict:
        """For state.json, but for `step`, which names the checkpoint. running: every rank's."""
        values = {**asdict(self), "running": running}
        del values["step"]
        return values

    def moment(self) -> Moment:
        """What is needed to go back to here, before the step is made."""
        return Moment(self.step, self.tokens, self.running, self.running_steps)

    def back_to(self, moment: Moment) -> None:
        self.step, self.tokens = moment.step, moment.tokens
        self.running, self.running_steps = moment.running, moment.running_steps

    def forget_running(self) -> None:
        self.running, self.running_steps = {}, 0

    def is_better(self, value: float) -> bool:
        """Whether an evaluation that gave `value` is the best so far, which is noted."""
        better = self.best is None or value < self.best or math.isnan(self.best)
        if better:
            self.best, self.no_better = value, 0
        else:
            self.no_better += 1
        return better
