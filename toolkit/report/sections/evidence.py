"""What a page tells of a run: the files that lie in its directory, read once and checked."""

import os
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.config import read_yaml
from toolkit.errors import UserError
from toolkit.run.directory import name_of, read_metrics
from toolkit.run.files import read_json
from toolkit.run.provenance import without_machine_paths
from toolkit.run.results import Results, models_of, of_kept_model, read_results, result_file
from toolkit.run.schema import Manifest, RunConfig, checked


@dataclass(frozen=True)
class Evidence:
    """One run, or a folder of several that belong together."""

    directory: Path

    @classmethod
    def of(cls, directory: str | Path) -> "Evidence":
        """UserError where there is no run."""
        directory = Path(directory)
        found = cls(directory)
        if not any((directory / file).is_file() for file in ("config.yaml", "summary.json", "sweep.json")) and (
                not found.sets):
            raise UserError(f"{directory}: is no run directory (it has neither a config.yaml nor a summary.json). make "
                            f"runs lists those there are.")
        return found

    @property
    def sets(self) -> list[Path]:
        """Of a comparison on several sets, each a run of its own, their folders."""
        if (self.directory / "config.yaml").is_file() or not self.directory.with_suffix(".json").is_file():
            return []
        return sorted(path.parent for path in self.directory.glob("*/config.yaml"))

    @property
    def name(self) -> str:
        return name_of(self.directory)

    @property
    def place(self) -> str:
        """As a command names it."""
        return self.path("")

    def path(self, inside: str) -> str:
        """A file of the run as a command names it, below the working directory where it lies there."""
        path = Path(os.path.abspath(self.directory / inside))
        return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))

    @cached_property
    def config(self) -> dict:
        path = self.directory / "config.yaml"
        return without_machine_paths(checked(read_yaml(path), RunConfig, str(path))) if path.is_file() else {}

    @cached_property
    def manifest(self) -> dict:
        path = self.directory / "manifest.json"
        return without_machine_paths(read_json(path, Manifest)) if path.is_file() else {}

    @cached_property
    def records(self) -> list[dict]:
        return read_metrics(self.directory / "metrics.jsonl")

    @cached_property
    def result(self) -> dict:
        """What the run reported at its end; {} before that."""
        path = result_file(self.directory)
        return of_kept_model(read_json(path, dict), self.records) if path else {}

    @cached_property
    def results(self) -> Results | None:
        """Of an experiment, what it measured."""
        return read_results(self.directory) if self.result or (self.directory / "rows.json").is_file() else None

    @cached_property
    def models(self) -> list[str]:
        return models_of(self.directory)

    def read(self, name: str, shape: Any) -> Any:
        """A .json of the run, checked; None where there is none."""
        path = self.directory / name
        return read_json(path, shape) if path.is_file() else None

    def part(self, inside: str) -> "Evidence":
        """A fit of the experiment, or a run in the folder."""
        return Evidence(self.directory / inside)
