"""What the loop asks of a task."""

from typing import Protocol

import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from toolkit.errors import UserError
from toolkit.training.impl.precision import ImplConfig, Precision
from toolkit.training.impl.sharding import is_asked_for as sharding_is_asked_for
from toolkit.training.observers.base import LossShown
from toolkit.training.settings import TrainingConfig


class Task(Protocol):
    """What the loop needs to know of an objective. One may also say how people are told of its loss, by an attribute
    `loss_shown`, a `toolkit.training.observers.base.LossShown`.
    """

    model: PreTrainedModel
    best_metric: str
    """Key of `evaluate`'s result that is minimised; the model with the best value is kept."""

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """Rows of the global batch at `step`: a pure function of its arguments."""

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        """How many items each objective predicts in a batch; the keys are the objectives."""

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Each objective's loss, summed over its items; the objectives' means are added up."""

    def evaluate(self, model: torch.nn.Module, accelerator: Accelerator, precision: Precision) -> dict[str, float]:
        """Metrics on held-out data, the same on every rank."""

    def save(self, model: PreTrainedModel, directory) -> None:
        """Write the model, and what it needs to be used, in Hugging Face's format."""


def loss_of(task: Task) -> LossShown:
    """How people are told of the task's loss."""
    return getattr(task, "loss_shown", None) or LossShown()


def check(config: TrainingConfig, impl: ImplConfig, accelerator: Accelerator) -> None:
    """UserError for a value that makes no sense."""
    config.check_values()
    impl.check_values()
    if config.batch_size < accelerator.num_processes:
        raise UserError(f"training.batch_size is {config.batch_size}, fewer rows than the {accelerator.num_processes} "
                        f"processes. Use fewer processes or a larger batch.")
    if sharding_is_asked_for() and config.optimizer == "muon":
        raise UserError("training.optimizer is muon, which needs whole matrices; the launch asks for sharded ones. Use "
                        "--training.optimizer adamw, or launch without FSDP.")
