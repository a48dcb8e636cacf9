"""`evaluate` metrics that are part of this package: never a download, with or without `HF_EVALUATE_OFFLINE`.

    metric = load("f1")
    metric.add_batch(predictions=..., references=...)
    metric.compute(average="macro")        # {"f1": 0.83}

Names, inputs and result keys are those of the hub's modules where one exists. Results are plain Python
numbers and lists; an undefined value (0/0) is `None`: valid JSON, and neither mistaken for 0 nor averaged.
`evaluate` takes seconds to import, so it is imported with the first metric and not with this package. Give
`evaluate.combine` instances from `load`: it looks for plain names on the hub.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from toolkit.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from toolkit.metrics.base import OfflineMetric
    from toolkit.metrics.classification import F1, Accuracy, ConfusionMatrix
    from toolkit.metrics.forecasting import MAE, MSE
    from toolkit.metrics.language_modelling import (
        BitsPerByte,
        MaskedAccuracy,
        Perplexity,
    )

_METRICS = {
    "accuracy": ("classification", "Accuracy"),
    "f1": ("classification", "F1"),
    "confusion_matrix": ("classification", "ConfusionMatrix"),
    "masked_accuracy": ("language_modelling", "MaskedAccuracy"),
    "perplexity": ("language_modelling", "Perplexity"),
    "bits_per_byte": ("language_modelling", "BitsPerByte"),
    "mse": ("forecasting", "MSE"),
    "mae": ("forecasting", "MAE"),
}
_MODULES = {"OfflineMetric": "base"} | {cls: module for module, cls in _METRICS.values()}

__all__ = ["F1", "MAE", "MSE", "Accuracy", "BitsPerByte", "ConfusionMatrix", "MaskedAccuracy",
           "OfflineMetric", "Perplexity", "load"]


def load(name: str) -> "OfflineMetric":
    """A fresh metric by its name: `evaluate.load` without the network. `UserError` for an unknown name."""
    if name not in _METRICS:
        raise UserError(f"There is no metric '{name}'.{did_you_mean(str(name), _METRICS)}")
    return __getattr__(_METRICS[name][1])()


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
