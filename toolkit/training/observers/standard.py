"""The observers that every run has."""

import sys

from toolkit.bars import in_notebook
from toolkit.training.observers.base import Observer, Observers, Training
from toolkit.training.observers.emissions import EnergyMeter
from toolkit.training.observers.notebook import InNotebook
from toolkit.training.observers.progress import InLog, OnTerminal
from toolkit.training.observers.tracking import Tracker


def of_every_run(training: Training, report_to: list[str], emissions: bool, country: str,
                 evaluation_due: bool = False) -> list[Observer]:
    """metrics.jsonl with the trackers asked for, progress, and, where it is asked for, the energy.

    evaluation_due: the evaluation at the step it begins with will be made again.
    """
    watching: list[Observer] = [Tracker(training.directory, training.step, report_to, evaluation_due)]
    try:
        if emissions:
            watching.append(EnergyMeter(training.directory / "emissions.json", country))
    except BaseException:
        Observers(watching).close()
        raise
    return [*watching, progress(training)]


def progress(training: Training) -> Observer:
    """Shown where people look: in a notebook, on a terminal, else in a log."""
    if in_notebook():
        return InNotebook(training)
    return OnTerminal(training) if sys.stderr.isatty() else InLog(training)
