"""What the files of a run look like: JSON is held against the types of these shapes when it is read.

A shape is a type: str, int, Count, float (any number), bool, dict, list, None, Any, list[…], dict[str, …], Literal, a
union or a TypedDict, beside whose keys there may be others.
"""

import types
from typing import Any, Literal, NotRequired, Required, TypedDict, Union, get_args, get_origin, get_type_hints

from toolkit.errors import UserError


class Count(int):
    """In a shape: a whole number from 0 on."""


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


class WrittenAnswer(TypedDict):
    """Of a test pair, in predictions.json of an encoder–decoder."""

    source: str
    target: str
    prediction: str


class SavedAlignment(TypedDict):
    """In alignments.json: where an encoder–decoder looked, as the mean of its heads and layers."""

    source: str
    target: str
    read: list[str]
    written: list[str]
    weights: list[list[float]]
    """A row a written word or character, a column one that was read."""


class LengthGroup(TypedDict):
    """Test pairs of like source length, and the score on them."""

    shortest: int
    longest: int
    pairs: int
    value: float
    low: float
    """The ends of its 95 % interval over test pairs."""
    high: float


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
    by_length: list[LengthGroup]


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


class SavedTextInput(TypedDict, total=False):
    """`TextInput` in a classifier's config.json."""

    max_length: Required[Count]
    long_texts: Literal["head", "head+tail", "windows"]
    pairs: bool | None
    joint: Count | None
    empty: Count | None
    split_special_tokens: bool


class SavedThreshold(TypedDict):
    """`decision_threshold` in a classifier's config.json."""

    label: str
    probability: float


class Sizes(TypedDict, total=False):
    """Of a BERT or GPT-2."""

    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count
    type_vocab_size: Count
    n_embd: Count
    n_layer: Count
    n_head: Count
    n_inner: Count | None
    n_positions: Count


class ModelConfig(Sizes, total=False):
    """config.json of a model; its class checks what else is in it."""

    model_type: str
    architectures: list[str] | None
    problem_type: str | None
    backbone_config: Sizes
    id2label: dict[str, str] | None
    text_input: SavedTextInput
    decision_threshold: SavedThreshold
    num_channels: Count
    num_covariates: Count
    context_length: Count | None
    horizon: Count | None
    # of the series it learned
    channel_names: list[str] | None
    value_columns: list[str] | None
    sampling_rate: float | None
    normalisation: Literal["series", "train", "none"]
    channel_means: list[float] | None
    channel_deviations: list[float] | None
    series_length: Count | None
    # of the tables that it forecasts
    scale_means: list[float | list[float]]
    scale_deviations: list[float | list[float]]
    series_names: list[str]
    time_column: str
    series_column: str
    missing: Literal["refuse", "mask"]
    frequency: str | float | None
    future_columns: list[str]
    calendar_columns: list[str]
    future_means: list[float]
    future_deviations: list[float]


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


class Fill(TypedDict):
    """A text with a blank, and what the model puts there."""

    text: str
    answers: list[list[Any]]
    """[token, probability], the likeliest first"""
    truth: NotRequired[str]
    """What stood there."""


class Continued(TypedDict):
    """A beginning, and how the model goes on."""

    prompt: str
    text: str
    """Without the beginning."""
    came: NotRequired[str]
    """How it went on where it was taken from."""


class Samples(TypedDict, total=False):
    """samples.json of a pretraining."""

    fills: list[Fill]
    continuations: list[Continued]


class SampledForecasts(TypedDict):
    """Of one source in result.json of sampled forecasts."""

    windows: int
    arms: dict[str, dict[str, float]]
    nominal_coverage: float
    mae_saved: dict[str, dict[str, float]]
    paths: NotRequired[int]
    file: NotRequired[str]
    """The name, without its ending, of its .npz and .png."""


class DemoBert(TypedDict, total=False):
    mlm_loss: Required[float]
    mlm_accuracy: Required[float]
    nsp_accuracy: Required[float]
    unigram_entropy: Required[float]
    nsp_ci95: float | None
    fill_mask: dict[str, list[list[Any]]]


class DemoGpt(TypedDict, total=False):
    bits_per_byte: Required[float]
    gzip_bits_per_byte: Required[float]
    xz_bits_per_byte: Required[float]
    primed_xz_bits_per_byte: Required[float]
    samples: list[str]


class DemoSummary(TypedDict, total=False):
    """summary.json of the demo."""

    bert: Required[DemoBert]
    gpt: Required[DemoGpt]
    seconds: dict[str, float]


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
    if shape not in (str, int, Count, float, bool, dict, list):
        return False
    if isinstance(value, int) and not isinstance(value, bool):
        return shape in (int, float) and abs(value) < 2**63 or shape is Count and 0 <= value < 2**63
    return type(value) is shape


def _name(shape: Any) -> str:
    if isinstance(shape, type) and hasattr(shape, "__required_keys__"):
        return "a mapping"
    origin, parts = get_origin(shape), get_args(shape)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_name(part) for part in parts))
    if origin is Literal:
        return " or ".join(map(repr, parts))
    return {list: "a list", dict: "a mapping", str: "text", int: "a whole number",
            Count: "a whole number from 0 on", float: "a number",
            bool: "true or false"}.get(origin or shape, "nothing")


def _brief(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number beyond all bounds"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
