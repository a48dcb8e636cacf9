"""What a run's directory says of the run: the files that were written while it ran, read for its card.

No text from here holds an absolute path.
"""

import dataclasses
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.config import read_yaml
from toolkit.errors import UserError
from toolkit.models.registry import module_of
from toolkit.regular import regular
from toolkit.run.binary import count_weights
from toolkit.run.directory import home, name_of, read_metrics
from toolkit.run.files import read_json
from toolkit.run.provenance import without_machine_paths
from toolkit.run.results import (
    Results,
    kept_evaluation,
    model_and_start,
    models_of,
    of_kept_model,
    read_results,
    result_file,
)
from toolkit.run.schema import (
    Emissions,
    Manifest,
    ModelConfig,
    RunConfig,
    Samples,
    SavedAlignment,
    TokenizerFile,
    WrittenAnswer,
    checked,
)


@dataclass(frozen=True)
class Facts:
    """One run, or one fit of an experiment of several, which has its configuration above it."""

    directory: Path
    home: Path
    """The directory with the configuration: the run's own, or the experiment's."""
    config: dict
    manifest: dict

    @classmethod
    def of(cls, directory: str | Path) -> "Facts":
        """UserError when `directory` belongs to no run."""
        directory, place = Path(directory), home(directory)
        if place is None:
            raise UserError(f"{directory}: is no run directory (neither it nor one above it has a config.yaml with the "
                            f"manifest.json of a run).")
        manifest = _json(place / "manifest.json", Manifest) or {}
        config = checked(read_yaml(place / "config.yaml"), RunConfig, str(place / "config.yaml"))
        return cls(directory, directory if place == Path(os.path.abspath(directory)) else place,
                   without_machine_paths(config), without_machine_paths(manifest))

    @property
    def name(self) -> str:
        return name_of(self.directory)

    @property
    def is_fit(self) -> bool:
        return self.home != self.directory

    @property
    def part(self) -> str:
        """The fit's path in its experiment, such as `bert-pretrained/seed-0`; of a run that is whole, nothing."""
        return os.path.relpath(self.directory, self.home) if self.is_fit else ""

    @property
    def seed(self) -> int:
        """Of the run, or of the fit."""
        last, stated = self.part.rpartition("seed-")[2], self.config.get("seed")
        return int(last) if last.isdecimal() else stated if isinstance(stated, int) else 0

    @cached_property
    def result(self) -> dict | None:
        """What the run reported at its end."""
        found = _json(self.directory / "result.json") if self.is_fit else self.home_result or None
        return of_kept_model(found, self.records) if isinstance(found, dict) else found

    @cached_property
    def home_result(self) -> dict:
        """What the whole experiment reported at its end, or the run; {} before that."""
        return _reported(self.home) or {}

    @cached_property
    def comparison(self) -> Results | None:
        """What the experiment that the run is, or is a fit of, measured."""
        return read_results(self.home)

    @cached_property
    def of_model(self) -> Results | None:
        """The same; of a fit what concerns its model, and of a forecaster its horizon."""
        if self.comparison is None or not self.is_fit:
            return self.comparison
        horizon = str((self.model or {}).get("horizon") or "") if self.comparison.sizes == "horizon" else ""
        found = restricted(self.comparison, self.model_name, horizon)
        return found if found.rows else None  # of an earlier run with more horizons

    @cached_property
    def records(self) -> list[dict]:
        return read_metrics(self.directory / "metrics.jsonl")

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """On held-out data, of the model that is kept: the best evaluation; with its `step`."""
        return kept_evaluation(self.records)

    @cached_property
    def model(self) -> dict | None:
        """config.json of the model that is kept."""
        return without_machine_paths(_json(self.directory / "model/config.json", ModelConfig))

    @property
    def architecture(self) -> str:
        return ((self.model or {}).get("architectures") or [""])[0]

    @cached_property
    def shape(self) -> dict:
        """The transformer inside: the model's configuration, or its backbone's."""
        return (self.model or {}).get("backbone_config") or self.model or {}

    @cached_property
    def parameters(self) -> int | None:
        """Counted in the headers of the weights' files, in which tied weights are once."""
        total = 0
        for path in (self.directory / "model").glob("*.safetensors"):
            total += count_weights(regular(path))
        return total or None

    @cached_property
    def tokenizer(self) -> dict | None:
        """tokenizer_config.json, with `algorithm`, `size` and `lowercase` out of tokenizer.json."""
        folder = self.directory / "model"
        values = _json(folder / "tokenizer_config.json")
        if values is None:
            return None
        detail = _json(folder / "tokenizer.json", TokenizerFile) or {}
        inside = detail.get("model") or {}
        size = len(inside.get("vocab") or ()) or None
        return {**values, "algorithm": inside.get("type"), "size": size,
                "lowercase": "lowercase" in json.dumps(detail.get("normalizer") or {}).lower()
                and '"lowercase": false' not in json.dumps(detail.get("normalizer"))}

    @property
    def training(self) -> dict:
        """How it was trained; where a comparison pretrains models of its own, how this one was; what differs for an
        arm counts.
        """
        arm, *rest = self.part.split("/")
        section = "pretraining" if "pretraining" in rest else "training"
        other = {} if section == "pretraining" else (self.config.get("arm_training") or {}).get(arm)
        return {**(self.config.get(section) or {}), **(other or {})}

    @cached_property
    def arm(self) -> tuple[str, str]:
        """What the experiment calls the model of a fit, and its start: bert, pretrained of `bert-pretrained/seed-0`."""
        folders = self.part.split("/")
        return model_and_start(folders[2 if folders[0] == "fits" and len(folders) > 2 else 0], models_of(self.home))

    @property
    def model_name(self) -> str:
        return self.arm[0]

    @property
    def base(self) -> str:
        """The checkpoint that a fit, or a pretraining, started from, or whose shape it has; "" where there is none."""
        if not self.is_fit:
            return self.config.get("init_from") or ""
        models = {**(self.config.get("models") or {}), "text": self.config.get("text_model")}
        source = models.get(self.model_name)
        return source if isinstance(source, str) else ""  # a shape alone is no checkpoint

    @property
    def is_random(self) -> bool:
        """Whether a fit started from random values, or from what such values learned of the series at hand."""
        return self.arm[1].startswith(("random", "masked-patches"))

    @cached_property
    def base_run(self) -> "Facts | None":
        """The run that the base is of, where it lies on this machine."""
        place = home(self.base) if self.base and Path(self.base).is_dir() else None
        return Facts.of(place) if place else None

    @property
    def series_sources(self) -> list[str]:
        """Of a GPT that learned series as tokens, in place of text."""
        return [str(source) for source in (self.config.get("series") or {}).get("sources") or []]

    @property
    def sorts(self) -> bool:
        """Whether it is the GPT of `make nano-gpt`, whose task has no settings, and that has told what it sorts."""
        return ("held_out_exact" in (self.result or {})
                and bool(self.config) and self.config.keys() <= {"output_dir", "training", "seed", "impl"})

    @property
    def is_text(self) -> bool:
        """Whether text is what it reads: a corpus, labelled texts, or at least through a tokenizer."""
        prepared, labelled = self.manifest.get("data") or {}, self.config.get("data") or {}
        by_set = isinstance(self.config.get("sets"), dict)  # labelled texts, each set a section of its own
        return bool("corpus" in prepared and not self.series_sources or self.is_pairs or "text_column" in labelled
                    or by_set or self.tokenizer)

    @property
    def is_pairs(self) -> bool:
        """Whether it learned to turn one text into another."""
        return "source_column" in (self.config.get("data") or {})

    @property
    def is_built_in(self) -> bool:
        """Whether all text is the documentation of Python and its packages."""
        corpus, labelled = (self.manifest.get("data") or {}).get("corpus") or {}, self.config.get("data") or {}
        return ([source["source"] for source in corpus.get("sources") or []] == ["python-docs"]
                or "text_column" in labelled and not labelled.get("train"))

    @property
    def is_public(self) -> bool:
        """Whether all it saw is built in or generated, so that no text and no series in it is anybody's own."""
        if self.series_sources:
            return all(source.startswith("generator:") for source in self.series_sources)
        data = self.config.get("data") or {}
        generated = {"generated_rows", "train_per_class", "built_in"} & data.keys()
        return self.is_built_in or bool(generated) and not any(
            data.get(key) for key in ("path", "train", "validation", "test"))

    @property
    def module(self) -> str | None:
        """The module of this package that knows the model's class; None where transformers does."""
        return module_of((self.model or {}).get("model_type"))

    @cached_property
    def energy(self) -> dict | None:
        """emissions.json; of an experiment the sum over its fits."""
        found = [_json(path, Emissions) for path in sorted(self.directory.glob("**/emissions.json"))]
        if not found:
            return None
        summed = {key: sum(part[key] for part in found) for key in ("seconds", "energy_kwh", "ram_kwh")}
        if all("emissions_kg" in part for part in found):
            summed["emissions_kg"] = sum(part["emissions_kg"] for part in found)
        return {**found[-1], **summed}

    @cached_property
    def bias(self) -> dict | None:
        """What `make probe-bias` measured."""
        return without_machine_paths(_json(self.directory / "bias.json"))

    @cached_property
    def samples(self) -> Samples:
        """What a pretrained model fills in, or how it goes on, on held-out text; {} where none were made."""
        return _json(self.directory / "samples.json", Samples) or {}

    @cached_property
    def written(self) -> list[WrittenAnswer]:
        """What an encoder–decoder wrote for its test set; [] of others."""
        return _json(self.directory / "predictions.json", list[WrittenAnswer]) or [] if self.is_pairs else []

    @cached_property
    def alignments(self) -> list[SavedAlignment]:
        """Where it looked to write some of them."""
        return _json(self.directory / "alignments.json", list[SavedAlignment]) or []

    @cached_property
    def beside(self) -> dict:
        """What a summary of several runs, beside this one, holds of it: other reference points."""
        found = (_json(self.home.parent / "summary.json") or {}).get(self.home.name)
        return found if isinstance(found, dict) and not self.is_fit else {}

    @cached_property
    def kept(self) -> list[Path]:
        """The fits of an experiment whose models are kept; what a link leads to is not its own."""
        inside = self.directory.resolve()
        return sorted(path.parent.parent for depth in (*(["*"] if self.is_pairs else []), "*/*", "*/*/*")
                      for path in self.directory.glob(f"{depth}/model/config.json")
                      if path.parent.resolve() == inside / path.parent.relative_to(self.directory))

    def comparisons(self) -> list[tuple[str, Results, str]]:
        """Finished experiments in the same folder that started from this model: (name, results, the model's name)."""
        found = []
        if self.result is None:
            return found
        for path in sorted((*self.home.parent.glob("*/config.yaml"), *self.home.parent.glob("*/*/config.yaml"))):
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            if "\nmodels:" in text and self.home.name in text and (result := read_results(path.parent)):
                models = read_yaml(path).get("models") or {}
                mine = [name for name, place in models.items() if _same(place, self.directory / "model")]
                found += [(name_of(path.parent), result, name) for name in mine]
        return found


def restricted(results: Results, model: str, size: str = "") -> Results:
    """To one of its models and the baselines, and to one size where that is given."""
    rows = [row for row in results.rows if row.model in ("", model) and size in ("", row.size)]
    arms = {row.arm for row in rows}
    return dataclasses.replace(results, rows=rows, verdicts=[
        verdict for verdict in results.verdicts if verdict.arm in arms and size in ("", verdict.size)])


def _same(place: Any, directory: Path) -> bool:
    return isinstance(place, str) and os.path.abspath(place) == os.path.abspath(directory)


def _reported(run: Path) -> dict | None:
    """What a run, or a comparison, left at its end."""
    path = result_file(run)
    return None if path is None else read_json(path, dict)


def _json(path: Path, shape: Any = dict) -> Any:
    return read_json(path, shape) if path.exists() else None
