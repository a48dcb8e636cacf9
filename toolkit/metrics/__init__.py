"""`evaluate` metrics that are part of this package: never a download, with or without `HF_EVALUATE_OFFLINE`.

    metric = load("f1")
    metric.add_batch(predictions=..., references=...)
    metric.compute(average="macro")        # {"f1": 0.83}

Names, inputs and result keys are those of the hub's modules where one exists. Results are plain Python
numbers and lists; an undefined value (0/0) is `None`: valid JSON, and neither mistaken for 0 nor averaged.
A metric keeps counts and sums, not examples (ROC-AUC and PR-AUC keep the scores). On several processes:

    states = accelerate.utils.gather_object([metric.state()])     # every process, also one without examples
    load("f1").merge(states).compute(average="macro")             # as if one process had seen everything

`evaluate` takes seconds to import, so it is imported with the first metric and not with this package. Give
`evaluate.combine` instances from `load`: it looks for plain names on the hub.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from toolkit.metrics.base import OfflineMetric
    from toolkit.metrics.classification import (
        F1,
        Accuracy,
        BalancedAccuracy,
        ConfusionMatrix,
        Fbeta,
        MatthewsCorrelation,
        Precision,
        Recall,
        Specificity,
    )
    from toolkit.metrics.forecasting import MAE, MASE, MSE, MSLE, SMAPE, Coverage, QuantileLoss, seasonal_naive_error
    from toolkit.metrics.language_modelling import BitsPerByte, MaskedAccuracy, Perplexity
    from toolkit.metrics.probability import BrierScore, ExpectedCalibrationError, LogLoss
    from toolkit.metrics.ranking import PrAuc, RocAuc
    from toolkit.metrics.translation import Bleu, CharacterErrorRate, Chrf, ExactMatch

_METRICS = {
    "accuracy": ("classification", "Accuracy"),
    "balanced_accuracy": ("classification", "BalancedAccuracy"),
    "precision": ("classification", "Precision"),
    "recall": ("classification", "Recall"),
    "specificity": ("classification", "Specificity"),
    "f1": ("classification", "F1"),
    "fbeta": ("classification", "Fbeta"),
    "matthews_correlation": ("classification", "MatthewsCorrelation"),
    "confusion_matrix": ("classification", "ConfusionMatrix"),
    "roc_auc": ("ranking", "RocAuc"),
    "pr_auc": ("ranking", "PrAuc"),
    "brier_score": ("probability", "BrierScore"),
    "log_loss": ("probability", "LogLoss"),
    "expected_calibration_error": ("probability", "ExpectedCalibrationError"),
    "masked_accuracy": ("language_modelling", "MaskedAccuracy"),
    "perplexity": ("language_modelling", "Perplexity"),
    "bits_per_byte": ("language_modelling", "BitsPerByte"),
    "bleu": ("translation", "Bleu"),
    "chrf": ("translation", "Chrf"),
    "exact_match": ("translation", "ExactMatch"),
    "character_error_rate": ("translation", "CharacterErrorRate"),
    "span_f1": ("tagging", "SpanF1"),
    "mse": ("forecasting", "MSE"),
    "mae": ("forecasting", "MAE"),
    "msle": ("forecasting", "MSLE"),
    "smape": ("forecasting", "SMAPE"),
    "mase": ("forecasting", "MASE"),
    "quantile_loss": ("forecasting", "QuantileLoss"),
    "coverage": ("forecasting", "Coverage"),
}
_MODULES = {"OfflineMetric": "base", "seasonal_naive_error": "forecasting"} | {
    cls: module for module, cls in _METRICS.values()}

__all__ = ["F1", "MAE", "MASE", "MSE", "MSLE", "SMAPE", "Accuracy", "BalancedAccuracy", "BitsPerByte", "Bleu",
           "BrierScore", "CharacterErrorRate", "Chrf", "ConfusionMatrix", "Coverage", "ExactMatch",
           "ExpectedCalibrationError", "Fbeta", "LogLoss", "MaskedAccuracy", "MatthewsCorrelation", "OfflineMetric",
           "Perplexity", "PrAuc", "Precision", "QuantileLoss", "Recall", "RocAuc", "SpanF1", "Specificity", "load",
           "seasonal_naive_error"]


def load(name: str, **settings: Any) -> "OfflineMetric":
    """A fresh metric by its name: `evaluate.load` without the network. `UserError` for an unknown name.

    `settings` are what must be known before the first batch: `bins` of expected_calibration_error. All other
    options go to `compute`.
    """
    if name not in _METRICS:
        raise UserError(f"There is no metric '{name}'.{did_you_mean(str(name), _METRICS)}")
    return __getattr__(_METRICS[name][1])(**settings)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
