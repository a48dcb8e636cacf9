"""List runs with their key figures: kind, state, best scores, steps, parameters, size, age, commit.

    make runs                     # below runs/, the last first
    python recipes/list_runs.py runs/demo --state unfinished

A run is a directory with a config.yaml. Finished: its result is there; running: a process holds it (told on Linux);
unfinished: the command that made it continues it; damaged: what is wrong is said.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from toolkit import cli, config


@dataclass
class ListRunsConfig:
    directory: str = "runs"
    state: Literal["all", "finished", "running", "unfinished", "damaged"] = "all"
    """Only those in this state."""


def main(argv: list[str]) -> None:
    settings = config.parse(ListRunsConfig, argv, __doc__, ["directory"])
    from toolkit.metrics.tabulate import table  # only now: --help waits for no library
    from toolkit.report.runs import find_runs, runs_rows

    runs = find_runs(settings.directory)
    shown = [run for run in runs if settings.state in ("all", run.state)]
    if shown:
        print(table(runs_rows(shown)))
    states = Counter(run.state for run in runs)
    print(f"\n{len(runs)} runs in {settings.directory}: " + ", ".join(f"{n} {state}" for state, n in states.items()))


if __name__ == "__main__":
    cli.run(main)
