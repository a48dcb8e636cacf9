"""A run that goes on beyond the budget it was started with: where its schedule would have come this way anyway.

A rate that falls towards the end of the budget has fallen by the wrong end; one that has stayed at its peak until now
is what it would be in a longer run. So `constant` goes on from its end, `wsd` from before its decay; the others cannot.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

from toolkit.errors import UserError
from toolkit.training import checkpoint
from toolkit.training.budget import Budget, BudgetConfig
from toolkit.training.state import State
from toolkit.training.task import TrainingConfig

_KEYS = tuple(field.name for field in dataclasses.fields(BudgetConfig))


def extension(training: TrainingConfig, directory: str | Path, section: str = "training.") -> Callable[[dict], str]:
    """What `Run.open` asks of a run in `directory` whose configuration now has this `training`.

    Of what differs, key → (earlier, now): how the run goes on with a new budget; "" where more than that differs;
    UserError where it cannot go on, with what can be done.
    """
    directory = Path(directory).expanduser()

    def extend(differing: dict[str, tuple]) -> str:
        names = [key.removeprefix(section) for key in differing]
        if not all(key.startswith(section) for key in differing) or not set(names) <= set(_KEYS):
            return ""
        earlier = dataclasses.replace(training, **{name: value for name, (value, _) in
                                                   zip(names, differing.values(), strict=True)})
        return _checked(earlier, training, directory)

    return extend


def _checked(earlier: TrainingConfig, now: TrainingConfig, directory: Path) -> str:
    """UserError unless the newest checkpoint lies on the way of both."""
    before, after = Budget(earlier), Budget(now)
    has_result = (directory / "result.json").exists()
    path, damaged = checkpoint.newest_valid(directory / "checkpoints")
    if path is None and not has_result and not damaged:
        return f"{directory}: no checkpoint was made yet, it begins anew"
    asked = f"{directory}: its budget was {_told(before)}, now it is {_told(after)}"
    remedy = (f"Its weights go on with a schedule of their own in another run: --init_from {directory} and another "
              f"--output_dir")
    if path is None:
        why = f"are damaged ({damaged[0]})" if damaged else f"were not kept (training.save_steps was {now.save_steps})"
        raise UserError(f"{asked}, but the checkpoints to go on from {why}. {remedy}.")
    state = State.read(checkpoint.read_state(path), 0, 1)
    done = {"max_steps": state.step, "max_tokens": state.tokens, "max_minutes": state.seconds / 60}[before.name]
    if before.name != after.name:
        raise UserError(f"{asked}. Give the new one as training.{before.name}, too.")
    if before.minutes is not None or after.minutes is not None:
        raise UserError(f"{asked}, and steps that are counted out for some minutes cannot be more. {remedy}.")
    used, will_be = done / before.limit, done / after.limit
    if will_be >= 1:
        raise UserError(f"{asked}, but {_amount(done, after.name)} are made already. Give more, or the earlier budget.")
    if now.early_stopping_patience is not None and state.no_better >= now.early_stopping_patience:
        raise UserError(f"{asked}, but it ended early, after {state.no_better} evaluations without a better model. "
                        f"{remedy}.")
    falls_from = {"constant": math.inf, "wsd": 1 - now.decay_ratio}.get(now.lr_scheduler_type, 0.0)
    if max(used, will_be) > falls_from + 1e-9:
        when = "from its beginning" if not falls_from else f"from {falls_from:.0%} of the budget"
        raise UserError(f"{asked}. The rate of lr_scheduler_type {now.lr_scheduler_type} goes by the budget {when}, "
                        f"and its last checkpoint has used {used:.0%}. {remedy}. (A run with lr_scheduler_type "
                        f"constant can be extended at any time.)")
    if will_be < now.warmup_ratio <= used:
        raise UserError(f"{asked}: its warm-up, {now.warmup_ratio:.0%} of it, would begin again. Give at most "
                        f"{_amount(done / now.warmup_ratio, after.name)}. {remedy}.")
    return (f"{asked}: it goes on from its checkpoint at step {state.step:,}"
            + "; its result so far is in earlier-result.json until there is another" * has_result)


def _told(budget: Budget) -> str:
    in_time = "" if budget.minutes is None else f" in {budget.minutes:g} minutes"
    return _amount(budget.limit, budget.name) + in_time


def _amount(number: float, name: str) -> str:
    return (f"{number:g}" if name == "max_minutes" else f"{int(number):,}") + f" {name.removeprefix('max_')}"
