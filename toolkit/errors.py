"""The exceptions that recipes turn into one line and an exit status instead of a traceback."""

import difflib
import signal
from collections.abc import Iterable

LONGEST_MESSAGE = 2000
"""Characters."""


class OneLine(Exception):
    """Base of what is said in one line, in a notebook too."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        said = "".join(character if character.isprintable() else " " for character in str(self))
        return [f"{type(self).__name__}: {said}"]


class UserError(OneLine, ValueError):
    """Bad input: one line that names the file, line or key, what was expected and what to do.

    Recipes print it without a traceback and exit with status 2. What a file holds may be named in it, but cannot make
    it longer than a person reads.
    """

    def __init__(self, message: object = ""):
        text = str(message)
        super().__init__(text if len(text) <= LONGEST_MESSAGE else
                         f"{text[:LONGEST_MESSAGE - 500]} … {text[-480:]}")


class Interrupted(OneLine):
    """A signal asked the run to stop; a checkpoint of `step` is on disk. Recipes exit with 128 + its number."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}, which is saved; the same "
                         f"command continues from there")
        self.exit_code = 128 + signal_number


class Diverged(OneLine):
    """The loss is no number, or leapt; a checkpoint of the last good state is on disk. Recipes exit with 3."""


class PeerLost(OneLine):
    """Another process of the group ended or does not answer; what ails it, it says itself. Recipes exit with 4."""

    def __init__(self, rank: int, reason: object):
        super().__init__(f"rank {rank}: another process of the group is gone ({str(reason).splitlines()[0]}); this one "
                         f"ends too. Its own message says why; the same command goes on from the last checkpoint")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the closest choice, or the list of choices when none is close."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Choose from: {', '.join(choices)}."


def nearest(option: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for an option that is close, by its whole name or its last part; else the three nearest.
    """
    def likeness(choice: str) -> float:
        return max(difflib.SequenceMatcher(None, option, choice).ratio(),
                   difflib.SequenceMatcher(None, option.rpartition(".")[2], choice.rpartition(".")[2]).ratio())

    first, *others = sorted(choices, key=likeness, reverse=True)[:3]
    if likeness(first) >= 0.6:
        return f" Did you mean '{first}'?"
    return f" The nearest are {', '.join(f'--{choice}' for choice in [first, *others])}; --help all lists every one."
