"""Losses of fine-tuning: what each kind of label calls for, summed over examples, on raw outputs of the head."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from toolkit.data.tables.labels import Task
from toolkit.errors import UserError

Loss = Literal["auto", "cross-entropy", "focal", "binary-cross-entropy", "kl-divergence", "mse", "mae", "msle"]
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


@dataclass
class ObjectiveConfig:
    loss: Loss = "auto"
    """auto: cross-entropy for classes, binary cross-entropy for several labels at once, the KL divergence for soft
    labels, MSE for numbers. focal (Lin et al. 2017) gives examples that are answered already less to say; mae counts
    errors as they are, msle those of log(1 + y)."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: every class (multi-label: present and absent) weighs the same in all, however rare."""
    label_smoothing_factor: float = 0.0
    """Share of each label that is spread over all classes (Szegedy et al. 2016, section 7); with cross-entropy."""
    focal_gamma: float = 2.0


class Objective:
    """`loss(logits, labels)` → sum over examples, and `probabilities(logits)`, for one kind of labels.

    Labels: (n,) class ids, or (n, classes) their shares, as mixup makes them; (n, classes) of 0 and 1, or of
    probabilities; (n,) numbers. Logits: (n, classes) or (n, 1).
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
        self.weights = None
        if config.class_weights == "balanced":
            self.weights = torch.from_numpy(self._balanced(train_labels, classes))

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
        else:
            found, labels = logits[:, 0], labels.float()
            losses = {"mse": lambda: (found - labels) ** 2, "mae": lambda: (found - labels).abs(),
                      "msle": lambda: (_log1p(found) - labels.log1p()) ** 2}[self.loss_name]()
        return losses.sum()

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(n, classes) logits → probabilities; of each label by itself for multi-label; numbers as they are."""
        tensor = torch.from_numpy(logits).double()
        if self.task == "regression":
            return tensor[:, 0].numpy()
        return (tensor.sigmoid() if self.task == "multi-label" else tensor.softmax(-1)).numpy()

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


def _log1p(values: torch.Tensor) -> torch.Tensor:
    """log(1 + x), and x itself below 0, where it joins smoothly: an output of the head may be anything."""
    return torch.where(values > 0, values.clamp(min=0).log1p(), values)
