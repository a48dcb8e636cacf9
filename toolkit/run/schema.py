"""What the files of a run look like: JSON is held against the types of these shapes when it is read.

A shape is a type: str, int, float (any number), bool, dict, list, None, Any, list[…], dict[str, …], Literal, a union
or a TypedDict, beside whose keys there may be others.
"""

import types
from typing import Any, Literal, NotRequired, Required, TypedDict, Union, get_args, get_origin, get_type_hints

from toolkit.errors import UserError


class RunConfig(TypedDict, total=False):
    """config.yaml of a run, as the card reads it; the recipe that made it checks all of it."""

    training: dict[str, Any] | None
    pretraining: dict[str, Any] | None
    arm_training: dict[str, dict[str, Any]] | None
    models: dict[str, Any] | None
    data: dict[str, Any] | None
    series: dict[str, Any] | None
    corpus: dict[str, Any] | None
    card: dict[str, Any] | None
    init_from: str | None


class Manifest(TypedDict, total=False):
    """manifest.json of a run."""

    started: str
    commit: str | None
    inputs: dict[str, Any]
    data: dict[str, Any] | None
    parameters: int | dict[str, Any] | None
    """Of its model, or of each arm."""


class Intervals(TypedDict):
    """intervals.json beside a forecaster."""

    quantiles: list[float]
    offsets: list[list[list[float]]]
    """(channels, horizon, quantiles)"""


class ForecastEntry(TypedDict, total=False):
    """Of an arm at a horizon, in the result.json of a comparison of forecasts."""

    seeds: Required[int]
    mse: Required[float]
    validation_mse: Required[float]
    mse_by_step: Required[list[float]]
    mase: float | None
    reference: str
    dead_branches: dict[str, Any]


class Emissions(TypedDict, total=False):
    """emissions.json."""

    seconds: Required[float]
    energy_kwh: Required[float]
    ram_kwh: Required[float]
    cpu_kwh: float
    gpu_kwh: float
    emissions_kg: float


class Tracking(TypedDict):
    """tracking.json: by what name trackers know the run."""

    id: str
    trackers: list[str]


class SavedRow(TypedDict, total=False):
    """`Row` in rows.json."""

    arm: Required[str]
    seed: Required[int]
    metrics: Required[dict[str, float | None]]
    set: str
    size: str
    model: str
    start: str
    reference: str
    parameters: int | None
    trained_parameters: int | None
    seconds: float | None
    test_examples: int | None
    run: str


class SavedVerdict(TypedDict):
    """`Verdict` in rows.json."""

    arm: str
    text: str
    set: NotRequired[str]
    size: NotRequired[str]


class SavedResults(TypedDict):
    """rows.json."""

    schema: int
    experiment: str
    metric: str
    sizes: Literal["", "labels", "horizon"]
    rows: list[SavedRow]
    verdicts: list[SavedVerdict]


class ModelConfig(TypedDict, total=False):
    """config.json of a model; its class checks what else is in it."""

    model_type: str
    architectures: list[str] | None
    backbone_config: dict[str, Any]
    text_input: dict[str, Any]


class TokenizerModel(TypedDict, total=False):
    """`model` in tokenizer.json."""

    type: str | None
    vocab: dict | list | None


class TokenizerFile(TypedDict, total=False):
    """tokenizer.json, as the card reads it; the library of tokenizers checks all of it."""

    model: TokenizerModel


class WeightIndex(TypedDict):
    """model.safetensors.index.json."""

    weight_map: dict[str, str]


class StoreManifest(TypedDict, total=False):
    """manifest.json of a token store."""

    dtype: Required[Literal["uint16", "uint32"]]
    tokens: Required[int]
    sentences: Required[int]
    documents: Required[int]
    fingerprints: dict[str, Any]
    sources: list[int]


class SeriesManifest(TypedDict, total=False):
    """manifest.json of prepared series."""

    series: Required[dict[str, Any]]
    tokenizer: Required[dict[str, Any]]


class CorpusManifest(TypedDict, total=False):
    """manifest.json of a prepared corpus."""

    config: Required[dict[str, Any]]
    splits: Required[dict[str, dict]]
    inputs: dict[str, Any]


class Record(TypedDict, total=False):
    """A line of metrics.jsonl."""

    step: Required[int]
    tokens: float


class SavedState(TypedDict, total=False):
    """state.json of a checkpoint; those of earlier versions lack some keys."""

    step: Required[int]
    tokens: int
    seconds: float
    best: float | None
    no_better: int
    kept: dict[str, Any] | None
    running: list[dict[str, float]]
    running_steps: int
    limit: int | None
    guard: list[float] | None
    began: list[float | bool | None] | None
    evaluation_due: bool


def checked(value: Any, shape: Any, where: str, key: str = "") -> Any:
    """The value, if it has that shape; UserError that names the key which has not."""
    if shape is Any:
        return value
    if shape is float:
        shape = float | int
    origin = get_origin(shape)
    if origin in (Required, NotRequired):
        return checked(value, get_args(shape)[0], where, key)
    if origin in (Union, types.UnionType):
        if any(_is(value, part) for part in get_args(shape)):
            return value
        for part in get_args(shape):
            if get_origin(part) and isinstance(value, get_origin(part)):
                return checked(value, part, where, key)
    elif origin is Literal:
        if isinstance(value, str) and value in get_args(shape):
            return value
    elif origin is list and isinstance(value, list):
        for number, entry in enumerate(value):
            checked(entry, get_args(shape)[0], where, f"{key}[{number}]")
        return value
    elif origin is dict and isinstance(value, dict):
        for name, entry in value.items():
            checked(entry, get_args(shape)[1], where, f"{key}.{name}")
        return value
    elif isinstance(shape, type) and hasattr(shape, "__required_keys__") and isinstance(value, dict):
        hints = get_type_hints(shape)
        if absent := sorted(shape.__required_keys__ - value.keys()):
            raise UserError(f"{where}: '{f'{key}.{absent[0]}'.lstrip('.')}' is missing.")
        for name in hints.keys() & value.keys():
            checked(value[name], hints[name], where, f"{key}.{name}")
        return value
    elif _is(value, shape):
        return value
    raise UserError(f"{where}: {repr(key.lstrip('.')) if key else 'it'} should be {_name(shape)}, found "
                    f"{_brief(value)}.")


def _is(value: Any, shape: Any) -> bool:
    """Whether it is of a plain type; True and False are no numbers, and 10**400 is none that can be computed with."""
    if shape in (None, type(None)):
        return value is None
    if shape not in (str, int, float, bool, dict, list):
        return False
    if isinstance(value, int) and not isinstance(value, bool):
        return shape in (int, float) and abs(value) < 2**63
    return type(value) is shape


def _name(shape: Any) -> str:
    if isinstance(shape, type) and hasattr(shape, "__required_keys__"):
        return "a mapping"
    origin, parts = get_origin(shape), get_args(shape)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_name(part) for part in parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    return {list: "a list", dict: "a mapping", str: "text", int: "a whole number", float: "a number",
            bool: "true or false"}.get(origin or shape, "nothing")


def _brief(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number beyond all bounds"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
