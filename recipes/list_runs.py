"""List runs, one line each: name, state, kind, the figure it is judged by, age; as wide as the terminal.

    make runs                     # below runs/, the last first
    make runs ARGS=--wide         # steps, parameters, size, commit and more figures, too, uncut
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
    wide: bool = False
    """All that is known of each, and all runs within others; lines are as long as that takes."""


def main(argv: list[str]) -> None:
    settings = config.parse(ListRunsConfig, argv, __doc__, ["directory"])
    from toolkit.report.ending import command  # only now: --help waits for no library
    from toolkit.report.run_list import list_runs
    from toolkit.report.runs import find_runs
    from toolkit.shown import terminal_width

    runs = find_runs(settings.directory)
    shown = [run for run in runs if settings.state in ("all", run.state)]
    if shown:
        print(list_runs(shown, terminal_width(), settings.wide))
    states = Counter(run.state for run in runs)
    print(f"\n{len(runs)} run{'s' * (len(runs) > 1)} in {settings.directory}: "
          + ", ".join(f"{count} {state}" for state, count in states.items()))
    if newest := max((run for run in shown if run.state == "finished"), key=lambda run: run.changed, default=None):
        print(f"next: {command('make report', {'RUN': f'{settings.directory}/{newest.name}'})}")


if __name__ == "__main__":
    cli.run(main)
