"""How long to train: in steps, tokens or minutes. The schedule's clock is the share of the budget that is used."""

import math
from dataclasses import dataclass

from toolkit.errors import UserError


@dataclass
class BudgetConfig:
    max_steps: int | None = None
    """The budget in optimiser steps, …"""
    max_tokens: int | None = None
    """… or in tokens, padding included, …"""
    max_minutes: float | None = None
    """… or in minutes of training, evaluations and checkpoints not counted, as in Geiping & Goldstein (2022). Give
    exactly one. Two runs of so many minutes are never the same to the digit, as two of so many steps are."""


class Budget:
    """What is used of a `BudgetConfig`; UserError unless it names exactly one positive limit."""

    def __init__(self, config: BudgetConfig):
        limits = {name: getattr(config, name) for name in ("max_steps", "max_tokens", "max_minutes")}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        if len(given) != 1:
            found = "none of them" if not given else " and ".join(f"{name} = {limit}" for name, limit in given.items())
            raise UserError(f"training needs exactly one budget: training.max_steps, training.max_tokens or "
                            f"training.max_minutes; this run gives {found}.")
        (self.name, self.limit), = given.items()
        if not 0 < self.limit < math.inf:
            raise UserError(f"training.{self.name} is {self.limit}; it must be a number above 0.")

    def used(self, steps: int, tokens: int, seconds: float) -> float:
        """The share of the budget, 1 or more when it is used up."""
        return {"max_steps": steps, "max_tokens": tokens, "max_minutes": seconds / 60}[self.name] / self.limit

    def filled(self, seconds: float) -> float:
        """The clock at the end: the last step of so many minutes may take less than was expected of it."""
        return max(seconds, 60 * self.limit) if self.name == "max_minutes" else seconds
