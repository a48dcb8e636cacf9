"""What every metric here shares: inputs are checked as they arrive, and only their counts and sums are kept."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np

from toolkit.errors import did_you_mean

State = dict[str, Any]
"""What is kept of all examples so far: name → number or array. `{}`: no examples."""


class OfflineMetric(evaluate.Metric):
    """An `evaluate.Metric` that needs neither network nor cache folder, and stores no examples.

    A subclass states its `inputs` and what it `keeps`, and implements `_statistics`, one batch → what is kept of
    it, and `_result`, what is kept → result. Adding a batch, and merging another process's state, are the same
    addition, so how examples are split into batches and processes does not matter: counts are exact, sums are of
    float64 and agree to about 1e-12 of their size.
    """

    inputs: ClassVar[dict[str, type]] = {"predictions": int, "references": int}
    """Name of each input → int or float."""
    optional: ClassVar[dict[str, type]] = {}
    """Inputs that may be left out."""
    dimensions: ClassVar[int | None] = 1
    """Inputs have one shape: of at most so many axes, or of any number (None)."""
    keeps: ClassVar[tuple[str, ...]] = ()
    """What the state holds beside `examples`, the number of references."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """Those of `keeps` that are not added up, but are the same in every batch."""
    unsupported: ClassVar[tuple[str, ...]] = ("sample_weight",)
    """Options of the hub's module that are refused: to ignore them would be wrong."""

    def __init__(self, config_name: str | None = None, **kwargs):
        if kwargs.get("num_process", 1) != 1:
            raise ValueError(f"{type(self).__name__} was given num_process={kwargs['num_process']}; expected 1. Make "
                             "one metric a process, gather their state(), and merge() them into a fresh one.")
        super().__init__(config_name, **{"keep_in_memory": True, **kwargs})
        unknown = sorted(set(kwargs) - set(inspect.signature(evaluate.Metric.__init__).parameters))
        if unknown:
            raise ValueError(f"{self.name} was given {unknown} before any example; expected no options. "
                             "Pass them to compute.")
        self._state: State = {}

    def _info(self) -> evaluate.MetricInfo:
        types = {name: {int: "int64", float: "float64"}[kind] for name, kind in self.inputs.items()}
        return evaluate.MetricInfo(
            description=inspect.getdoc(type(self)),
            citation="",
            inputs_description="Inputs: " + ", ".join(f"{name} ({dtype})" for name, dtype in types.items()),
            features=datasets.Features({name: datasets.Value(dtype) for name, dtype in types.items()}),
        )

    def __len__(self) -> int:
        """How many references were added since the last result."""
        return int(self._state.get("examples", 0))

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs) -> None:
        """Add one example. """
        example = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: [value] for name, value in example.items() if value is not None})

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs) -> None:
        """Add lists, arrays or tensors, else `ValueError`. An empty batch adds nothing. """
        known = {**self.inputs, **self.optional}
        unknown = sorted(set(kwargs) - set(known))
        if unknown:
            raise ValueError(f"{self.name} was given {unknown}; expected {list(known)}. Rename or drop them.")
        given = {"predictions": predictions, "references": references, **kwargs}
        self._state = self._added(self._state, self._batch(given))

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs) -> dict[str, Any]:
        """The result over all that was added and what is given here, and start afresh.

        `ValueError` when that is nothing, and for options that are wrong: what was added is then kept. """
        for option in self.unsupported:
            if kwargs.get(option) is not None:
                raise ValueError(f"{self.name} was given {option}, which is not supported. Leave it out.")
        given = {"predictions": predictions, "references": references, **kwargs}
        state, options = self._state, {name: value for name, value in given.items() if name not in self.inputs}
        if any(given.get(name) is not None for name in self.inputs):
            state = self._added(state, self._batch(given))
            options = {name: value for name, value in options.items() if name not in self.optional}
        if not state:
            raise ValueError(f"{self.name} was given no examples; expected at least one. "
                             "Call add_batch before compute, and check that the data set is not empty.")
        result = self._result(state, **options)
        self._state = {}
        return result

    def state(self) -> State:
        """What is kept of the examples so far, a flat dict of numbers and arrays: for `merge` elsewhere. """
        return dict(self._state)

    def merge(self, states: Iterable[Mapping[str, Any]]) -> "OfflineMetric":
        """Add what metrics of this name elsewhere have kept, as returned by their `state`; returns this metric.

        A metric that is merged with its own state counts its examples twice: merge what was gathered from all
        processes into a fresh one. `ValueError` for the state of another kind of metric. """
        merged, expected = self._state, {"examples", *self.keeps}
        for state in states:
            if not isinstance(state, Mapping) or (state and set(state) != expected):
                what = f"a state of {sorted(state)}" if isinstance(state, Mapping) else f"a {type(state).__name__}"
                raise ValueError(f"{self.name} was given {what}; expected states of {sorted(expected)}. "
                                 "Pass a list of what state() returned on each process.")
            merged = self._added(merged, {name: _from_torch(value) for name, value in state.items()})
        self._state = merged
        return self

    def _statistics(self, **inputs: np.ndarray) -> State:
        """What is kept of one batch: a value for each of `keeps`."""
        raise NotImplementedError

    def _result(self, state: State, **options) -> dict[str, Any]:
        """The result from what is kept. Takes `**_`: `evaluate.combine` hands every module the options of all."""
        raise NotImplementedError

    def _added(self, one: State, other: State) -> State:
        if not one or not other:
            return one or other
        total = {"examples": one["examples"] + other["examples"]}
        for name in self.keeps:
            if name not in self.fixed:
                total[name] = one[name] + other[name]
            elif np.array_equal(one[name], other[name]):
                total[name] = one[name]
            else:
                raise ValueError(f"{self.name} was given examples with {name} = {one[name]} and with {name} = "
                                 f"{other[name]} (0: inputs of shape (n,)); expected the same for all. "
                                 "Use a metric for each.")
        return total

    def _batch(self, given: Mapping[str, Any]) -> State:
        """Inputs as they were given → what is kept of them, {} for an empty batch."""
        kinds = {**self.inputs, **{name: kind for name, kind in self.optional.items() if given.get(name) is not None}}
        batch = {name: self._array(name, given.get(name)) for name in kinds}
        self._check_shapes(**batch)
        if any(array.size == 0 for array in batch.values()):
            return {}
        batch = {name: self._typed(name, array, kinds[name]) for name, array in batch.items()}
        examples = batch.get("references", next(iter(batch.values()))).size
        return {"examples": examples, **self._statistics(**batch)}

    def _check_shapes(self, **batch: np.ndarray) -> None:
        if self.dimensions is not None:
            for name, array in batch.items():
                if array.ndim > self.dimensions:
                    raise ValueError(f"{self.name} was given {name} of shape {array.shape}; expected "
                                     f"{['(n,)', '(n,) or (n, classes)'][self.dimensions - 1]}. "
                                     "Reduce it first: argmax(-1) for class scores, a sum for counts.")
        shapes = {name: array.shape for name, array in batch.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"{self.name} was given inputs of different shapes: {shapes}; expected one "
                             "shape for all. Check that every input comes from the same examples, and is no scores.")

    def _array(self, name: str, values: Any) -> np.ndarray:
        if values is None:
            raise ValueError(f"{self.name} was given no {name}; expected all of {list(self.inputs)}. "
                             f"Pass {name}=...")
        if isinstance(values, (list, tuple)):
            values = [_from_torch(value) for value in values]
        try:
            return np.atleast_1d(np.asarray(_from_torch(values)))
        except ValueError:
            raise ValueError(f"{self.name} was given {name} with rows of different lengths; expected equal "
                             "lengths. Pad the rows, or pass a flat list.") from None

    def _typed(self, name: str, array: np.ndarray, kind: type) -> np.ndarray:
        if kind is int:
            if array.dtype.kind not in "biu":
                raise ValueError(f"{self.name} was given {name} of type {array.dtype}; expected integers. "
                                 "Pass class or token ids: argmax(-1) of scores, or .astype(int).")
            return array.astype(np.int64)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{self.name} was given {name} of type {array.dtype}; expected numbers. "
                             "Convert them with .astype(float).")
        array = array.astype(np.float64)
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            raise ValueError(f"{self.name} was given {name} with {len(bad)} of {array.size} values NaN or "
                             f"infinite, the first in row {bad[0][0]}; expected finite numbers. Leave missing "
                             "values out of every input; if a model made them, it has diverged.")
        return array

    def _build_data_dir(self) -> str:
        return self._data_dir_root  # evaluate makes a folder in ~/.cache here, which fails on a read-only home


def ratio(part: float, whole: float) -> float | None:
    """part / whole as a Python float, None for 0/0."""
    return float(part / whole) if whole else None


def averaged(values: Sequence[float | None], weights: Sequence[float], average: str | None) -> Any:
    """Values by class → the list itself (None), their mean ("macro"), or a mean by weight ("weighted").

    Undefined values are left out of both; a mean of none, or without weight, is itself undefined.
    """
    if average is None:
        return list(values)
    weights = weights if average == "weighted" else [1] * len(values)
    pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    return ratio(sum(value * weight for value, weight in pairs), sum(weight for _, weight in pairs))


def check_average(metric: str, average: str | None, choices: Sequence[str]) -> None:
    """`ValueError` unless `average` is None or one of `choices`."""
    if average is not None and average not in choices:
        raise ValueError(f"{metric} was given average={average!r}; expected None or one of {tuple(choices)}."
                         + did_you_mean(str(average), choices))


def _from_torch(values: Any) -> Any:
    """A tensor on any device as a NumPy array, without importing torch; anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()  # NumPy has no bfloat16
