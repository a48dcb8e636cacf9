"""Logistic regression on frozen states: what a checkpoint knows, and where fine-tuning had better start.

Full fine-tuning from a random head bends pretrained states before the head has learned to read them; started from the
probe's weights it keeps what they know (Kumar et al. 2022, section 3).
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit.config import from_dict
from toolkit.data.batches import LabelledBatches
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import draw
from toolkit.data.text.labelled import TextDataSection, load_data
from toolkit.models.losses import PROBLEM_TYPES, Task, scale_of
from toolkit.models.text.classifier import Pooling, TextForClassification, pooled_states, text_classifier
from toolkit.tasks.base import for_all
from toolkit.tasks.settings import ProbeConfig
from toolkit.training.impl.precision import ImplConfig, Precision, choose

_C = 0.1  # scikit-learn's inverse penalty, on standardised states; chosen on validation for 100 labels and for all
_ABSENT = -20.0  # logit of a class without training examples


def frozen_states(backbone: PreTrainedModel, pooling: Pooling, data: LabelledBatches, accelerator: Accelerator,
                  precision: Precision) -> np.ndarray:
    """(n, features) pooled states of every example."""
    return for_all(lambda **batch: pooled_states(backbone, pooling, **batch), backbone, data, accelerator, precision)


@dataclass(frozen=True)
class Head:
    """A linear classifier of states: logits = states · weightᵀ + bias."""

    weight: np.ndarray
    bias: np.ndarray

    def predict(self, states: np.ndarray) -> np.ndarray:
        return (states @ self.weight.T + self.bias).argmax(1)


def fit_head(states: np.ndarray, labels: np.ndarray, classes: int) -> Head:
    """Logistic regression on standardised states, written as a head on the states as they are."""
    mean, deviation = states.mean(0), states.std(0) + 1e-6
    weight, bias = np.zeros((classes, states.shape[1])), np.full(classes, _ABSENT)
    present = np.unique(labels)
    if len(present) == 1:
        bias[present] = 0.0
        return Head(weight, bias)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a probe decide nothing
        fitted = LogisticRegression(C=_C, max_iter=300).fit((states - mean) / deviation, labels)
    slopes, offsets = fitted.coef_, fitted.intercept_
    if len(present) == 2:  # scikit-learn gives one row, the log-odds of the second
        slopes, offsets = np.concatenate([-slopes, slopes]) / 2, np.concatenate([-offsets, offsets]) / 2
    weight[present] = slopes / deviation
    bias[present] = offsets - weight[present] @ mean
    return Head(weight, bias)


def fit_number_head(states: np.ndarray, numbers: np.ndarray, dropout: float = 0.0) -> Head:
    """Ridge regression on states, its penalty chosen by leaving one out; of numbers in standard deviations from their
    mean, as heads learn them (`Objective`).

    Dropout before the head costs, on the mean, n · p / (1 − p) · Σ w² E[x²] (Wager et al. 2013, section 3): so much
    the penalty is at least. A head that knows nothing of it has huge weights where states hardly vary, and its first
    steps are noise.
    """
    mean, deviation = states.mean(0), states.std(0) + 1e-6
    centre, unit = scale_of(numbers)
    size, alphas = deviation, np.logspace(0, 5, 11)
    if dropout:
        size = np.sqrt(dropout / (1 - dropout) * np.square(states, dtype=np.float64).mean(0)) + 1e-6
        alphas = len(states) * np.logspace(0, 4, 9)
    fitted = RidgeCV(alphas=alphas).fit((states - mean) / size, (numbers - centre) / unit)
    weight = fitted.coef_[None] / size
    return Head(weight, fitted.intercept_ - weight @ mean)


def start_from_probe(model: TextForClassification, train: LabelledBatches, accelerator: Accelerator,
                     precision: Precision, task: Task = "classification") -> None:
    """Set the head to logistic regression, or ridge regression of numbers, on the states of its untouched backbone."""
    model.to(accelerator.device)
    states = frozen_states(model.backbone, model.config.pooling, train, accelerator, precision)
    head = (fit_number_head(states, train.labels, model.config.dropout) if task == "regression" else
            fit_head(states, train.labels, model.config.num_labels))
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(head.weight))
        model.classifier.bias.copy_(torch.from_numpy(head.bias))


def new_text_classifier(path: str, label_names: Sequence[str], tokenizer: PreTrainedTokenizerBase,
                        train: LabelledBatches, accelerator: Accelerator, impl: ImplConfig, pretrained: bool,
                        pooling: Pooling = "layers", dropout: float = 0.3, task: Task = "classification"
                        ) -> PreTrainedModel:
    """`text_classifier`, its head started from the probe where there is one: for classes and numbers, on pooled states.
    """
    model = text_classifier(path, label_names, tokenizer, pretrained, pooling, dropout, PROBLEM_TYPES[task])
    if task in ("classification", "regression") and pooling != "cls":
        start_from_probe(model, train, accelerator, choose(impl, accelerator.device), task)
    return model


class Probes:
    """Transfer while it is being learned: accuracy of frozen probes on labelled sets, on their validation examples."""

    def __init__(self, config: ProbeConfig, tokenizer: PreTrainedTokenizerBase):
        self.sets = {}
        if tokenizer.pad_token is None:  # GPT's; a copy, since this tokenizer is saved with the model
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.pad_token = tokenizer.eos_token
        for name, values in config.sets.items():
            section = from_dict(TextDataSection, values or {}, "probes", f"probes.sets.{name}.")
            train, validation, _ = load_data(section)
            draws = [draw(train, config.labels, seed) for seed in range(config.draws)]
            used, place = np.unique(np.concatenate(draws), return_inverse=True)
            batches = [TextBatches(part, tokenizer, section.max_length, 0, 0)
                       for part in (train.select(used), validation)]
            self.sets[name] = (batches, np.split(place, np.cumsum([len(chosen) for chosen in draws])[:-1]),
                               len(train.label_names))

    def __call__(self, model: PreTrainedModel, accelerator: Accelerator, precision: Precision) -> dict[str, float]:
        """`probe_<set>`: mean accuracy over the draws; `probe`: the mean of the sets."""
        result = {}
        for name, ((train, validation), draws, classes) in self.sets.items():
            states = [frozen_states(model.base_model, "layers", part, accelerator, precision)
                      for part in (train, validation)]
            heads = [fit_head(states[0][chosen], train.labels[chosen], classes) for chosen in draws]
            result[f"probe_{name}"] = float(np.mean([head.predict(states[1]) == validation.labels for head in heads]))
        return {**result, "probe": float(np.mean(list(result.values())))} if result else {}
