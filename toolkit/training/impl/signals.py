"""Signals that ask a run to stop: noted, and obeyed after the step at hand, with a checkpoint."""

import os
import signal

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""From clusters; Ctrl-C; from SLURM ahead of the time limit (`sbatch --signal`); where a connection is lost."""


def leave_to_the_run(*_) -> None:
    """In a process that draws batches: whole groups are signalled, and the run still needs it to save."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


class Signals:
    """Notes them instead of dying of them; a second Ctrl-C is obeyed at once."""

    def __enter__(self) -> "Signals":
        self.number = 0
        self.earlier = {}
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish
                self.earlier[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame) -> None:
        launched = "TORCHELASTIC_RUN_ID" in os.environ  # a launcher passes Ctrl-C on to those who have it already
        if self.number == signal.SIGINT == number and not launched:
            raise KeyboardInterrupt
        self.number = number

    @property
    def received(self) -> int:
        return int(bool(self.number))

    def __exit__(self, *_) -> None:
        for number, handler in self.earlier.items():
            signal.signal(number, handler)
