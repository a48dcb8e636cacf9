"""What every metric here shares: inputs are checked as they arrive and kept in memory."""

import inspect
from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np


class OfflineMetric(evaluate.Metric):
    """An `evaluate.Metric` that needs neither network nor cache folder.

    A subclass states its `inputs` and implements `_compute`, which receives one list per input. `_compute`
    takes `**_` because `evaluate.combine` hands every module the options of all.
    """

    inputs: ClassVar[dict[str, type]] = {"predictions": int, "references": int}
    """Name of each input → int or float."""
    any_shape: ClassVar[bool] = False
    """Whether inputs of any common shape are taken, element by element, or only (n,)."""

    def __init__(self, config_name: str | None = None, keep_in_memory: bool = True, **kwargs):
        super().__init__(config_name, keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        types = {name: {int: "int64", float: "float64"}[kind] for name, kind in self.inputs.items()}
        return evaluate.MetricInfo(
            description=inspect.getdoc(type(self)),
            citation="",
            inputs_description="Inputs: " + ", ".join(f"{name} ({dtype})" for name, dtype in types.items()),
            features=datasets.Features({name: datasets.Value(dtype) for name, dtype in types.items()}),
        )

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs) -> None:
        """Add one example. """
        example = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: [value] for name, value in example.items() if value is not None})

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs) -> None:
        """Add lists, arrays or tensors of one shape, else `ValueError`. An empty batch adds nothing. """
        unknown = sorted(set(kwargs) - set(self.inputs))
        if unknown:
            raise ValueError(f"{self.name} was given {unknown}; expected {list(self.inputs)}. "
                             "Rename or drop them.")
        given = {"predictions": predictions, "references": references, **kwargs}
        batch = {name: self._array(name, given.get(name)) for name in self.inputs}
        shapes = {name: array.shape for name, array in batch.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"{self.name} was given inputs of different shapes: {shapes}; expected one "
                             "shape for all. Check that every input comes from the same examples.")
        if any(array.size == 0 for array in batch.values()):
            return
        batch = {name: self._typed(name, array) for name, array in batch.items()}
        # Straight to the writer: evaluate's own add_batch would encode each number in Python, 6 times slower.
        if self.writer is None:
            self.selected_feature_format = self.features
            self._init_writer()
        self.writer.write_batch(batch)

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs) -> dict[str, Any] | None:
        """The result over all that was added and what is given here; `ValueError` when that is nothing. """
        if kwargs.get("sample_weight") is not None:  # the hub's modules take it: to ignore it would be wrong
            raise ValueError(f"{self.name} was given sample_weight, which is not supported. Leave it out.")
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _array(self, name: str, values: Any) -> np.ndarray:
        if values is None:
            raise ValueError(f"{self.name} was given no {name}; expected all of {list(self.inputs)}. "
                             f"Pass {name}=...")
        if isinstance(values, (list, tuple)):
            values = [_from_torch(value) for value in values]
        try:
            array = np.atleast_1d(np.asarray(_from_torch(values)))
        except ValueError:
            raise ValueError(f"{self.name} was given {name} with rows of different lengths; expected equal "
                             "lengths. Pad the rows, or pass a flat list.") from None
        if array.ndim > 1 and not self.any_shape:
            raise ValueError(f"{self.name} was given {name} of shape {array.shape}; expected (n,). "
                             "Reduce it first: argmax(-1) for class scores, a sum for counts.")
        return array

    def _typed(self, name: str, array: np.ndarray) -> np.ndarray:
        if self.inputs[name] is int:
            if array.dtype.kind not in "biu":
                raise ValueError(f"{self.name} was given {name} of type {array.dtype}; expected integers. "
                                 "Pass class or token ids: argmax(-1) of scores, or .astype(int).")
            return array.ravel().astype(np.int64)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{self.name} was given {name} of type {array.dtype}; expected numbers. "
                             "Convert them with .astype(float).")
        array = array.ravel().astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            raise ValueError(f"{self.name} was given {name} with {len(bad)} of {len(array)} values NaN or "
                             f"infinite, the first at {bad[0]}; expected finite numbers. Leave missing "
                             "values out of every input; if a model made them, it has diverged.")
        return array

    def _build_data_dir(self) -> str:
        # evaluate makes a folder in ~/.cache even when it will write nothing: that fails on a read-only home.
        return self._data_dir_root if self.keep_in_memory else super()._build_data_dir()

    def _finalize(self) -> None:
        if self.keep_in_memory and self.buf_writer is None:
            raise ValueError(f"{self.name} was given no examples; expected at least one. "
                             "Call add_batch before compute, and check that the data set is not empty.")
        super()._finalize()


def _from_torch(values: Any) -> Any:
    """A tensor on any device as a NumPy array, without importing torch; anything else as it is."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()  # NumPy has no bfloat16
