"""What may watch a training: the protocol, and several as one."""

from collections.abc import Iterable


class Observer:
    """Told of a training by its loop, on rank 0 alone. Whoever watches overrides what concerns him."""

    def log(self, record: dict) -> None:
        """A line of metrics.jsonl: `step`, and numbers."""

    def update(self, used: float) -> None:
        """After each step; used: the share of the budget."""

    def report(self, step: int, losses: dict[str, float], speed: dict[str, float]) -> None:
        """After each logged step: mean losses since the last one, and what `Meter.record` gives."""

    def evaluated(self) -> None:
        """An evaluation was made and logged."""

    def sync(self) -> None:
        """A checkpoint, or a model that is kept, is about to claim all that was logged."""

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

    def report(self, step: int, losses: dict[str, float], speed: dict[str, float]) -> None:
        for observer in self.observers:
            observer.report(step, losses, speed)

    def evaluated(self) -> None:
        for observer in self.observers:
            observer.evaluated()

    def sync(self) -> None:
        for observer in self.observers:
            observer.sync()

    def close(self) -> None:
        for observer in reversed(self.observers):
            observer.close()
