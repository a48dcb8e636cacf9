"""What may watch a training: the protocol, several as one, and what they know of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class LossShown:
    """How people are told of a task's loss. Its keys in metrics.jsonl are the objective's, and stay what they are."""

    name: str = "loss"
    """In a few letters: mse, mlm."""
    training: str = "loss"
    """Its key in what is logged of training …"""
    validation: str = "eval_loss"
    """… and of an evaluation."""
    guessing: float | None = None
    """What it is, on validation, without a look at the input. A task may learn it at its first evaluation."""
    guess: str = "guess"
    """How that is called."""


@dataclass(frozen=True)
class Training:
    """A training that begins, or goes on."""

    directory: Path
    """Its run's."""
    name: str
    step: int = 0
    used: float = 0.0
    """The share of its budget."""
    unit: str = "tokens"
    """What is counted, tokens or values."""
    loss: LossShown = field(default_factory=LossShown)


class Observer:
    """Told of a training by its loop, on rank 0 alone. Whoever watches overrides what concerns him."""

    def log(self, record: dict) -> None:
        """A line of metrics.jsonl: `step`, and numbers."""

    def update(self, used: float) -> None:
        """After each step; used: the share of the budget."""

    def evaluated(self) -> None:
        """An evaluation was made and logged."""

    def sync(self) -> None:
        """A checkpoint, or a model that is kept, is about to claim all that was logged."""

    def ended(self, kept: dict) -> None:
        """The budget is used, or it stopped early; kept: the evaluation of the model that is kept."""

    def close(self) -> None:
        """The training ended, well or not. Once or more."""


class Observers(Observer):
    """Several as one; closed last first."""

    def __init__(self, observers: Iterable[Observer] = ()):
        self.observers = list(observers)

    def log(self, record: dict) -> None:
        for observer in self.observers:
            observer.log(record)

    def update(self, used: float) -> None:
        for observer in self.observers:
            observer.update(used)

    def evaluated(self) -> None:
        for observer in self.observers:
            observer.evaluated()

    def sync(self) -> None:
        for observer in self.observers:
            observer.sync()

    def ended(self, kept: dict) -> None:
        for observer in self.observers:
            observer.ended(kept)

    def close(self) -> None:
        for observer in reversed(self.observers):
            observer.close()
