"""What is told while training: a bar where there is a terminal, a line every half minute where there is a log."""

import sys
import time

from tqdm.auto import tqdm

from toolkit.training.observers.base import Observer
from toolkit.training.observers.throughput import throughput_line


class Progress(Observer):
    """Of one training, by the share of its budget that is used."""

    def __init__(self, name: str, used: float, unit: str = "tokens"):
        """unit: what is counted, tokens or values."""
        self.unit, self.name, self.began, self.used_before, self.used = unit, name, time.monotonic(), used, used
        self.printed, self.lines = self.began, not sys.stderr.isatty()
        self.bar = tqdm(total=100, initial=100 * used, desc=name, disable=self.lines, leave=False,
                        mininterval=0.5,
                        bar_format="{desc} {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining}{postfix}")

    def update(self, used: float) -> None:
        self.bar.update(100 * (min(1.0, used) - self.used))
        self.used = min(1.0, used)

    def report(self, step: int, losses: dict[str, float], speed: dict[str, float]) -> None:
        losses_text = ", ".join(f"{key} {value:.3f}" for key, value in losses.items())
        line = throughput_line(speed, unit=self.unit)
        self.bar.set_postfix_str(f"step {step:,}, {losses_text}, {line}", refresh=False)
        now = time.monotonic()
        if self.lines and (now - self.printed > 30 or self.used >= 1):
            self.printed = now
            share = max(1e-9, self.used - self.used_before)
            left = (now - self.began) / share * (1 - self.used)
            print(f"{self.name}: step {step:,}, {losses_text}, {throughput_line(speed, left, self.unit)}", flush=True)

    def close(self) -> None:
        self.bar.close()
