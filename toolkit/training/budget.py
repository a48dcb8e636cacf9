"""How long to train: in steps, tokens or minutes. The schedule's clock is the share of the budget that is used."""

import statistics

from toolkit.training.observers.throughput import duration
from toolkit.training.settings import BudgetConfig

TIMED_STEPS = 40
"""Where steps are to be made in so many minutes: the later half of so many tell the speed; the first are slow."""


class Budget:
    """What is used of a `BudgetConfig`; UserError unless it names one positive limit, or steps with their minutes."""

    def __init__(self, config: BudgetConfig):
        config.check_budget()
        given = {name: limit for name in ("max_steps", "max_tokens", "max_minutes")
                 if (limit := getattr(config, name)) is not None}
        self.minutes = given.pop("max_minutes") if given.keys() == {"max_steps", "max_minutes"} else None
        (self.name, self.limit), = given.items()

    def used(self, steps: int, tokens: int, seconds: float) -> float:
        """The share of the budget, 1 or more when it is used up."""
        return {"max_steps": steps, "max_tokens": tokens, "max_minutes": seconds / 60}[self.name] / self.limit

    def filled(self, seconds: float) -> float:
        """The clock at the end: the last step of so many minutes may take less than was expected of it."""
        return max(seconds, 60 * self.limit) if self.name == "max_minutes" else seconds

    def steps_in_time(self, steps: int, seconds: float, durations: list[float]) -> int | None:
        """How many steps this machine is to make, of which `steps` took `seconds`; None where, or while, that is not
        asked. durations: of single steps; their median is what the others will take.
        """
        if self.minutes is None or len(durations) < TIMED_STEPS:
            return None
        left = (60 * self.minutes - seconds) / statistics.median(durations[-TIMED_STEPS // 2:])
        return max(steps + 1, min(self.limit, steps + int(left)))

    def told(self, max_steps: int) -> str:
        """What was chosen, for the log."""
        if self.limit == max_steps:
            return f"{max_steps:,} steps, which this machine makes in the {self.minutes:g} minutes there are"
        return (f"{self.limit:,} steps instead of {max_steps:,}, which would take about "
                f"{duration(60 * self.minutes * max_steps / self.limit)} on this machine (training.max_minutes is "
                f"{self.minutes:g})")
