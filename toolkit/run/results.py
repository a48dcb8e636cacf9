"""What an experiment measured, one row a fit: `rows.json` in the folder of its run.

    results = read_results("runs/forecast/etth1")
    for (set_name, size, arm), rows in results.arms().items():
        print(arm, size, mean_interval([row.metrics[results.metric] for row in rows]))

Experiments that ended before there was such a file are read from what they left (`read_results`).
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from toolkit.config import read_yaml
from toolkit.errors import UserError
from toolkit.run.files import read_json, write_json
from toolkit.run.schema import LengthGroup, SavedResults, SavedRow, SavedVerdict, checked
from toolkit.views import View, Viewed, counted

FILE = "rows.json"
SCHEMA = 1
MEAN = "mean of all sets"
SHARES = ("accuracy", "f1", "mlm_accuracy", "nsp_accuracy", "exact_match")
"""Metrics that are shares, and shown in percent."""

Sizes = Literal["", "labels", "horizon"]


@dataclass(frozen=True)
class Row:
    """One fit, or one answer of a baseline, on the test set."""

    experiment: str
    arm: str
    """As tables name it."""
    seed: int
    metrics: dict[str, float | None]
    """Name → value on test."""
    set: str = ""
    """The data set, where there are several."""
    size: str = ""
    """The number of labels, or the horizon; see `Results.sizes`."""
    model: str = ""
    """The name under `models` of what the arm is made from; "" of a baseline."""
    start: str = ""
    """What its model starts from, or what of it is trained: pretrained, random, frozen, masked-patches …"""
    reference: str = ""
    """The arm that it must beat."""
    parameters: int | None = None
    trained_parameters: int | None = None
    seconds: float | None = None
    test_examples: int | None = None
    run: str = ""
    """Its folder within the experiment's; "" where it has none."""
    by_length: list[LengthGroup] = field(default_factory=list)
    """Of sequence to sequence: the experiment's metric on test pairs of like source length."""
    right: np.ndarray | None = field(default=None, compare=False, repr=False)
    """(test examples,) bool: those it answered rightly. Known while the experiment runs; not in the file."""


@dataclass(frozen=True)
class Verdict:
    """One sentence on an arm beside its reference, over seeds."""

    arm: str
    text: str
    set: str = ""
    size: str = ""


@dataclass(frozen=True, repr=False)
class Results(Viewed):
    experiment: str
    metric: str
    """The one of `Row.metrics` by which arms are compared."""
    rows: list[Row]
    verdicts: list[Verdict] = field(default_factory=list)
    sizes: Sizes = ""
    """What `Row.size` is a number of."""

    def _shown(self) -> View:
        """An arm a row: mean over its seeds with the interval, and what was concluded."""
        from toolkit.metrics.intervals import mean_interval  # here: whoever only lists runs waits for no scipy

        arms, verdicts = self.arms(), {(each.set, each.size, each.arm): each.text for each in self.verdicts}
        scale = 100 if self.metric in SHARES else 1
        rows = []
        for (set_name, size, arm), of_seeds in arms.items():
            found = mean_interval([scale * row.metrics[self.metric] for row in of_seeds])
            verdict = verdicts.get((set_name, size, arm), "").removeprefix(f"{of_seeds[0].model}: ")
            rows.append((set_name, size, arm, found, len(of_seeds), verdict))
        unit = " in percent" if scale == 100 else ""
        heads = ("set", self.sizes or "size", "arm", f"{self.metric}{unit}", "seeds", "verdict")
        used = [place for place in range(len(heads)) if any(row[place] != "" for row in rows)]
        return View(f"{self.experiment}: {counted(len(arms), 'arm')}, mean ± 95 % interval over seeds", {},
                    [heads[place] for place in used], [[row[place] for place in used] for row in rows])

    def arms(self) -> dict[tuple[str, str, str], list[Row]]:
        """(set, size, arm) → its rows, one a seed; in the order in which they were measured."""
        found: dict[tuple[str, str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.set, row.size, row.arm), []).append(row)
        return found


def over_sets(rows: Sequence[Row], metric: str) -> list[Row]:
    """Rows of the set `MEAN`: by seed the mean of all sets, at the sizes and of the arms that all of them have."""
    values: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        values.setdefault((row.size, row.arm), {}).setdefault(row.set, []).append(row)
    sets = list(dict.fromkeys(row.set for row in rows))
    found = []
    for by_set in values.values():
        if all(name in by_set for name in sets):
            means = np.mean([[row.metrics[metric] for row in by_set[name]] for name in sets], axis=0).tolist()
            found += [dataclasses.replace(row, set=MEAN, metrics={metric: mean}, run="", right=None)
                      for row, mean in zip(by_set[sets[0]], means, strict=True)]
    return found


def model_and_start(arm: str, models: Sequence[str]) -> tuple[str, str]:
    """The model that an arm, or the folder of its fits, is named after, and the rest: "bert", "pretrained-frozen" of
    `bert-pretrained-frozen`. ("", "") where it is none of `models`.
    """
    for model in sorted(models, key=len, reverse=True):
        for mark in ("-", ", "):
            if arm.startswith(f"{model}{mark}"):
                return model, arm.removeprefix(f"{model}{mark}")
    return "", ""


def models_of(directory: str | Path) -> list[str]:
    """The names that an experiment's configuration has for the models it compares."""
    path = Path(directory) / "config.yaml"
    values = read_yaml(path) if path.exists() else {}
    return [*(values.get("models") or {}), *(["text"] if "models" in values and values.get("text_model") else [])]


def write_results(directory: str | Path, results: Results) -> None:
    """The experiment's rows as `rows.json`, whole or not at all."""
    rows = [{key: value for key, value in vars(row).items()
             if key not in ("experiment", "right") and value not in ("", None, [])} for row in results.rows]
    write_json(Path(directory) / FILE, {
        "schema": SCHEMA, "experiment": results.experiment, "metric": results.metric, "sizes": results.sizes,
        "rows": rows, "verdicts": [vars(verdict) for verdict in results.verdicts]})


def read_results(directory: str | Path) -> Results | None:
    """What the experiment in a run's folder measured; None where it has not ended, or the run is no experiment.

    UserError for a file that this version cannot read.
    """
    directory = Path(directory)
    path = directory / FILE
    if not path.exists():
        return _checked_old(directory)
    values = read_json(path)
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise _is_old(path)
    try:
        checked(values, SavedResults, "it")
        rows = [Row(experiment=values["experiment"], **row) for row in values["rows"]]
        if not all(values["metric"] in row.metrics for row in rows):
            raise UserError(f"'{values['metric'][:40]}' is not among the metrics of every row")
        return Results(values["experiment"], values["metric"], rows,
                       [Verdict(**verdict) for verdict in values["verdicts"]], values["sizes"])
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as the rows of an experiment ({error}). Delete it and run the recipe "
                        f"again; finished fits are not repeated.") from None


def kept_evaluation(records: Sequence[dict]) -> dict[str, Any]:
    """Of the lines of a metrics.jsonl, the evaluation of the model that is kept: its figures and its `step`; {} before
    there is one. What the best is chosen by: the criterion of fine-tuning, else the loss, of forecasts the MSE.
    """
    for key in ("eval_criterion", "eval_loss", "eval_mse"):
        found = [record for record in records if isinstance(record.get(key), (int, float))]
        if found:
            best = min((record for record in found if math.isfinite(record[key])), key=lambda record: record[key],
                       default={})
            return {name.removeprefix("eval_"): value for name, value in best.items()}
    return {}


def of_kept_model(result: dict, records: Sequence[dict]) -> dict:
    """A result.json as it is; of a pretraining by an earlier version, which told the last evaluation, with the kept
    model's figures from its metrics.jsonl in their place.
    """
    if "tokens_per_second" not in result or "best_step" in result:
        return result
    kept = kept_evaluation(records)
    return result | {name: value for name, value in kept.items() if name in result} | (
        {"best_step": kept["step"]} if kept else {})


def result_file(directory: str | Path) -> Path | None:
    """Where a finished run left what it reported: in its folder, or, of a comparison, beside it as <name>.json."""
    directory = Path(directory)
    places = (directory / "result.json", directory / "transfer.json", directory / "sweep.json",
              directory.with_name(f"{directory.name}.json"))
    return next((path for path in places if path.is_file()), None)


# --- before there were rows ----------------------------------------------------------------------------------------


def _is_old(path: Path) -> UserError:
    return UserError(f"{path}: is a result of another version, which this one cannot read. Run its recipe again: it is "
                     f"written anew, and finished fits are not repeated.")


def _checked_old(directory: Path) -> Results | None:
    """Each comparison had a shape of its own, which its reader takes for granted; what comes of it is checked."""
    try:
        found = _read_old(directory)
        for row in found.rows if found else ():
            checked({key: value for key, value in vars(row).items() if key != "right"}, SavedRow, "its row")
        for verdict in found.verdicts if found else ():
            checked(vars(verdict), SavedVerdict, "its verdict")
    except (UserError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = str(error).rstrip(".")[:200] or type(error).__name__
        raise UserError(f"{result_file(directory) or directory}: cannot be read as the result of an experiment "
                        f"({reason}). Delete it and run the recipe again; finished fits are not repeated.") from None
    return found


def _read_old(directory: Path) -> Results | None:
    """Of each comparison the shape of the file it left, whose entries hold a value a seed."""
    path = result_file(directory)
    if path is None:
        path = Path(f"{directory.parent}.json")
        if not path.is_file():
            return None
        # arm → set → entry: one file for the folders of all sets, which lie beside it
        found = read_json(path)
        result = {arm: sets[directory.name] for arm, sets in found.items()
                  if isinstance(sets, dict) and directory.name in sets} if isinstance(found, dict) else {}
    else:
        result = read_json(path)
    if not isinstance(result, dict):
        return None
    name, metric, sizes = directory.name, "accuracy", ""
    if "learning_curve" in result:
        entries = [("", size, arm, entry) for (size, arm), entry in _entries(result["learning_curve"])]
        sizes = "labels"
    elif isinstance(result.get("settings"), list):
        entries = [("", "", entry["setting"], entry) for entry in result["settings"]]
        metric = result.get("metric", "loss")
    elif isinstance(result.get("arms"), dict):
        entries = [("", "", arm, entry) for (arm,), entry in _entries(result["arms"])]
        entries += [("", "", arm, {"values": [value]}) for arm, value in result.get("references", {}).items()]
        metric = "mse" if "references" in result else metric
    else:
        found = list(_entries(result))
        depth = max((len(keys) for keys, _ in found), default=0)
        if depth == 2 and all("test_windows" in entry for _, entry in found):
            entries, metric, sizes = [("", size, arm, entry) for (arm, size), entry in found], "mse", "horizon"
        elif depth == 3:
            entries, sizes = [(*keys, entry) for keys, entry in found], "labels"
        else:  # model → start → entry, baseline → entry
            entries = [("", "", ", ".join(keys), entry) for keys, entry in found]
    if not entries:
        return None
    rows, verdicts, models = [], [], models_of(directory)
    examples = result.get("test_examples")
    for set_name, size, arm, entry in entries:
        if "values" not in entry and "mse_values" not in entry:
            raise _is_old(path)
        if set_name != MEAN:  # which follows from the others
            place = {"experiment": name, "set": set_name, "size": str(size), "arm": arm}
            rows += _old_rows(entry, place, metric, examples, models)
        if "verdict" in entry:
            verdicts.append(Verdict(arm, entry["verdict"], set_name, str(size)))
    verdicts += [Verdict(f"{model}, pretrained", f"{model}: {entry['verdict']}") for model, entry in result.items()
                 if isinstance(entry, dict) and "pretrained" in entry and "verdict" in entry]
    return Results(name, metric, rows, verdicts, sizes)


def _old_rows(entry: dict, place: dict[str, str], metric: str, examples: int | None, models: Sequence[str]
              ) -> Iterator[Row]:
    """A row for each of an entry's values."""
    of_seed = {key.removesuffix("_values"): values for key, values in entry.items() if key.endswith("_values")}
    of_seed = of_seed or {metric: entry["values"]}
    model, start = model_and_start(place["arm"], models)
    for seed, _ in enumerate(next(iter(of_seed.values()))):
        yield Row(**place, seed=seed, metrics={key: values[seed] for key, values in of_seed.items()
                                               if seed < len(values)},
                  model=model, start=start, parameters=entry.get("parameters"),
                  test_examples=entry.get("test_windows", examples))


def _entries(values: dict[str, Any], keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict]]:
    """(keys on the way, entry) for every mean over seeds within nested dictionaries."""
    for key, value in values.items():
        if isinstance(value, dict) and key not in ("gain_points", "gain_percent", "ahead_points", "dead_branches"):
            if "ci95" in value or "test_windows" in value:
                yield (*keys, key), value
            else:
                yield from _entries(value, (*keys, key))
