"""Hold runs beside each other: figures, curves over each other, and in what they differ; as a page and a picture.

    make compare-runs RUNS="runs/bert-5min runs/bert-15min"
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from toolkit import cli, config
from toolkit.errors import UserError
from toolkit.run.files import disk_errors


@dataclass
class CompareRunsConfig:
    runs: list[str] = field(default_factory=list)
    """Run directories, two or more."""
    output: str = ""
    """The page, an .html file, its picture beside it as .png. Default: named by the runs, below runs/compare-runs."""


def main(argv: list[str]) -> None:
    settings = config.parse(CompareRunsConfig, argv, __doc__, ["runs"])
    paths = [os.path.normpath(path) for path in settings.runs]
    if len(set(paths)) < 2:
        raise UserError('Name two or more runs: make compare-runs RUNS="runs/a runs/b". make runs lists them.')
    if settings.output and not settings.output.endswith(".html"):
        raise UserError(f"output is {settings.output}; its name must end in .html.")
    from toolkit.report.comparison_page import write_runs_page  # only now: --help waits for no library
    from toolkit.report.ending import command, ending
    from toolkit.report.run_comparison import in_words
    from toolkit.report.runs import read_run

    shared = os.path.commonpath([os.path.dirname(path) for path in paths]) if len(paths) > 1 else ""
    runs = [read_run(path, os.path.relpath(path, shared or ".")) for path in dict.fromkeys(paths)]
    slug = re.sub(r"[^\w.-]+", "-", "-and-".join(run.name for run in runs))[:120]
    output = Path(settings.output or f"runs/compare-runs/{slug}.html")
    with disk_errors(output, "output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_runs_page(runs, output)
    print(in_words(runs))
    print(ending(None, command("make report", {"RUN": paths[0]}), page=output, picture=output.with_suffix(".png")))


if __name__ == "__main__":
    cli.run(main)
