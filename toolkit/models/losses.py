"""Losses of fine-tuning: what each kind of label calls for, summed over examples, on raw outputs of the head."""


import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from toolkit.data.tables.labels import Task
from toolkit.errors import UserError
from toolkit.models.settings import ObjectiveConfig

LOSSES: dict[str, tuple[str, ...]] = {
    "classification": ("cross-entropy", "focal"),
    "multi-label": ("binary-cross-entropy", "focal"),
    "distribution": ("kl-divergence",),
    "regression": ("mse", "mae", "msle"),
}
"""Task → its losses, the default first."""
PROBLEM_TYPES = {"classification": "single_label_classification", "multi-label": "multi_label_classification",
                 "distribution": "single_label_classification", "regression": "regression"}
"""Task → how transformers calls it, and its pipelines treat it."""


class Objective:
    """`loss(logits, labels)` → sum over examples, for one kind of labels.

    Labels: (n,) class ids, or (n, classes) their shares, as mixup makes them; (n, classes) of 0 and 1, or of
    probabilities; (n,) numbers. Logits: (n, classes) or (n, 1). For numbers of whatever unit the head learns how many
    standard deviations they lie from the mean of training, `scale` (mean, deviation); `in_units` gives the numbers.
    """

    def __init__(self, task: Task, config: ObjectiveConfig, train_labels: np.ndarray, classes: int):
        """train_labels: those of the training set, whose classes are counted for `balanced`."""
        self.task = task
        self.loss_name = LOSSES[task][0] if config.loss == "auto" else config.loss
        self.smoothing, self.gamma = config.label_smoothing_factor, config.focal_gamma
        if self.loss_name not in LOSSES[task]:
            raise UserError(f"training.objective.loss is {config.loss}, which is not for labels of kind {task}. Use "
                            f"auto, or one of: {', '.join(LOSSES[task])}.")
        if not 0 <= self.smoothing < 1 or (self.smoothing and self.loss_name != "cross-entropy"):
            raise UserError(f"training.objective.label_smoothing_factor is {self.smoothing}; it must lie in [0, 1), "
                            f"and goes with cross-entropy.")
        if self.loss_name == "msle" and train_labels.min() < 0:
            raise UserError(f"training.objective.loss is msle, which takes numbers of 0 or more; labels go down to "
                            f"{train_labels.min():g}. Use mse or mae.")
        self.scale = (0.0, 1.0)
        if task == "regression":
            self.scale = scale_of(train_labels)
        self.weights = None
        if config.class_weights == "balanced":
            self.weights = torch.from_numpy(self._balanced(train_labels, classes))
        self.constant = self._constant(train_labels, classes)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """() the summed loss."""
        logits, weights = logits.float(), None if self.weights is None else self.weights.to(logits.device)
        if self.loss_name == "cross-entropy":
            losses = F.cross_entropy(logits, labels, weight=weights, label_smoothing=self.smoothing, reduction="none")
        elif self.task == "classification":
            log_p = logits.log_softmax(-1)
            if labels.is_floating_point():  # of mixed series: each class's loss by its share of the label
                losses = -log_p * (1 - log_p.exp()) ** self.gamma * labels
                losses = (losses if weights is None else losses * weights).sum(1)
            else:
                log_p = log_p.gather(1, labels[:, None])[:, 0]
                losses = -log_p * (1 - log_p.exp()) ** self.gamma
                losses = losses if weights is None else losses * weights[labels]
        elif self.task == "multi-label":
            labels = labels.float()
            losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            if self.loss_name == "focal":
                losses = losses * (1 - torch.exp(-losses)) ** self.gamma
            if weights is not None:
                losses = losses * torch.where(labels > 0, weights[1], weights[0])
            losses = losses.mean(1)
        elif self.task == "distribution":
            losses = F.kl_div(logits.log_softmax(-1), labels.float(), reduction="none").sum(1)
        elif self.loss_name == "msle":
            mean, deviation = self.scale
            losses = (_log1p(logits[:, 0] * deviation + mean) - labels.float().log1p()) ** 2
        else:
            mean, deviation = self.scale
            errors = logits[:, 0] - (labels.float() - mean) / deviation
            losses = errors**2 if self.loss_name == "mse" else errors.abs()
        return losses.sum()

    def in_units(self, logits: np.ndarray) -> np.ndarray:
        """What the head gives while it learns → what the saved model gives: of numbers those in the labels' unit."""
        mean, deviation = self.scale
        return logits * deviation + mean if self.task == "regression" else logits

    def of_saved(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """The mean loss of what the saved model gives."""
        mean, deviation = self.scale
        if self.task == "regression":
            logits = (logits.astype(np.float64) - mean) / deviation
        return float(self(torch.from_numpy(logits), torch.from_numpy(labels))) / len(labels)

    def of_guessing(self, labels: np.ndarray) -> float:
        """The mean loss of one answer to all: the shares of the training labels, or their mean."""
        logits = np.tile(self.constant, (len(labels), 1)).astype(np.float32)
        return float(self(torch.from_numpy(logits), torch.from_numpy(labels))) / len(labels)

    def _constant(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """(classes,) logits of that answer; half an example more of everything, so that none is impossible."""
        if self.task == "regression":
            return np.zeros(1)
        counts = np.bincount(labels, minlength=classes) if self.task == "classification" else labels.sum(0)
        if self.task == "multi-label":
            return np.log(counts + 0.5) - np.log(len(labels) - counts + 0.5)
        return np.log(counts + 0.5)

    def _balanced(self, labels: np.ndarray, classes: int) -> np.ndarray:
        if self.task == "classification":
            counts = np.bincount(labels, minlength=classes)
            return (counts.sum() / np.maximum(counts, 1) / max(1, (counts > 0).sum())).astype(np.float32)
        if self.task == "multi-label":  # (absent, present) by label
            present = labels.sum(0)
            counts = np.stack([len(labels) - present, present])
            return (len(labels) / 2 / np.maximum(counts, 1)).astype(np.float32)
        raise UserError(f"training.objective.class_weights is balanced, which is for classes, not for labels of kind "
                        f"{self.task}. Leave it out.")


def scale_of(numbers: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; 1 for the latter where all are equal."""
    numbers = numbers.astype(np.float64)
    return float(numbers.mean()), float(numbers.std()) or 1.0


def probabilities(task: Task, logits: np.ndarray) -> np.ndarray:
    """(n, classes) logits of a saved model → probabilities; of each label by itself for multi-label; (n,) numbers."""
    tensor = torch.from_numpy(logits).double()
    if task == "regression":
        return tensor[:, 0].numpy()
    return (tensor.sigmoid() if task == "multi-label" else tensor.softmax(-1)).numpy()


def task_of(config: PreTrainedConfig) -> Task:
    """The kind of label that a saved classifier gives, by transformers' rule; soft labels are classes."""
    if config.problem_type == "regression":
        return "regression"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "multi-label"
    return "classification"


@torch.no_grad()
def fold_scale(model: PreTrainedModel, mean: float, deviation: float) -> None:
    """Let a model of one output y give deviation · y + mean, in place, by the weights of its head.

    GPT-2's head in transformers' own class has no bias; there the offset goes into that of the norm below it, in the
    direction of the head's weights.
    """
    head = [part for part in model.modules() if isinstance(part, nn.Linear) and part.out_features == 1][-1]
    head.weight.mul_(deviation)
    if head.bias is not None:
        head.bias.mul_(deviation).add_(mean)
        return
    norm = [part for part in model.base_model.modules() if isinstance(part, nn.LayerNorm)][-1]
    weight = head.weight[0].cpu().double()
    norm.bias.add_((mean * weight / weight.square().sum()).to(norm.bias))


def _log1p(values: torch.Tensor) -> torch.Tensor:
    """log(1 + x), and x itself below 0, where it joins smoothly: an output of the head may be anything."""
    return torch.where(values > 0, values.clamp(min=0).log1p(), values)
