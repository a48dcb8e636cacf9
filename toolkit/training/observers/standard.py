"""The observers that every run has."""

from pathlib import Path

from toolkit.training.observers.base import Observer, Observers
from toolkit.training.observers.emissions import EnergyMeter
from toolkit.training.observers.progress import Progress
from toolkit.training.observers.tracking import Tracker


def of_every_run(directory: Path, name: str, step: int, used: float, report_to: list[str], emissions: bool,
                 country: str, evaluation_due: bool = False, unit: str = "tokens") -> list[Observer]:
    """metrics.jsonl with the trackers asked for, progress, and, where it is asked for, the energy.

    step, used: where the training begins or resumes, as steps and as the share of its budget; evaluation_due: the
    evaluation at `step` will be made again; unit: what is counted, tokens or values.
    """
    watching: list[Observer] = [Tracker(directory, step, report_to, evaluation_due)]
    try:
        if emissions:
            watching.append(EnergyMeter(directory / "emissions.json", country))
    except BaseException:
        Observers(watching).close()
        raise
    return [*watching, Progress(name, used, unit)]
