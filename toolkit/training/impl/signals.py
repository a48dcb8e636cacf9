"""Signals that ask a run to stop: noted, and obeyed after the step at hand, with a checkpoint."""

import os
import signal
import threading

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""From clusters; Ctrl-C; from SLURM ahead of the time limit (`sbatch --signal`); where a connection is lost."""


def leave_to_the_run(*_) -> None:
    """In a process that draws batches: whole groups are signalled, and the run still needs it to save."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def can_be_noted() -> bool:
    """Whether signals reach this thread: Python gives them to the main one."""
    return threading.current_thread() is threading.main_thread()


class Signals:
    """Notes them instead of dying of them; a second Ctrl-C is obeyed at once. On a thread that is not the main one,
    which alone can be asked for them, they are left to whoever has that.
    """

    def __enter__(self) -> "Signals":
        self.number = 0
        self.earlier = {}
        for number in STOPPING if can_be_noted() else ():
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
