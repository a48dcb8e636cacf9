"""The exceptions that recipes turn into one line and an exit status instead of a traceback."""

import difflib
import signal
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: one line that names the file, line or key, what was expected and what to do.

    Recipes print it without a traceback and exit with status 2.
    """


class Interrupted(Exception):
    """A signal asked the run to stop; a checkpoint of `step` is on disk. Recipes exit with 128 + its number."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}, which is saved; the same "
                         f"command continues from there")
        self.exit_code = 128 + signal_number


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the closest choice, or the list of choices when none is close."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Choose from: {', '.join(choices)}."
