"""A run on one page, out of the files in its directory: what came out, how it learned, what it gets wrong, what next.

    make report RUN=runs/demo
    python recipes/report.py runs/bert-5min

Recipes write it at their end, as report.html in the run's directory. It holds all it needs, and fetches nothing.
"""

from dataclasses import dataclass

from toolkit import cli, config


@dataclass
class ReportConfig:
    run: str
    """The run directory."""


def main(argv: list[str]) -> None:
    settings = config.parse(ReportConfig, argv, __doc__, ["run"])
    from toolkit.report.ending import command, ending
    from toolkit.report.run_report import write_report  # --help waits for no pictures

    page = write_report(settings.run)
    print(ending(settings.run, command("make card", {"RUN": settings.run}), page=page))


if __name__ == "__main__":
    cli.run(main)
