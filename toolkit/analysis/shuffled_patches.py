"""What the order of a series' patches is worth to a model: its answers on series as they are, and shuffled."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput


@dataclass(frozen=True)
class Shuffle:
    """Accuracy on series as they are and with their patches in random order, on one batch."""

    patch_length: int
    accuracy: float
    shuffled_accuracy: float
    answers_changed: float

    answers: ClassVar[str] = "answer"

    @property
    def change(self) -> float:
        return self.answers_changed

    def in_short(self) -> str:
        return f"patches shuffled: {100 * self.accuracy:.1f} → {100 * self.shuffled_accuracy:.1f} % right"

    def __str__(self) -> str:
        return (f"patches of {self.patch_length} shuffled: accuracy {100 * self.accuracy:.1f} % → "
                f"{100 * self.shuffled_accuracy:.1f} %; {100 * self.answers_changed:.0f} % of the answers are others")


@dataclass(frozen=True)
class ShuffledContext:
    """Mean squared error of forecasts from contexts as they are and with their patches in random order, on one batch.
    """

    patch_length: int
    mse: float
    shuffled_mse: float
    moved: float
    """How far the forecasts move, in their standard deviation across windows."""

    answers: ClassVar[str] = "forecast"

    @property
    def change(self) -> float:
        return self.moved

    def in_short(self) -> str:
        return f"patches shuffled: mse {self.mse:.3g} → {self.shuffled_mse:.3g}"

    def __str__(self) -> str:
        return (f"patches of {self.patch_length} shuffled within the context: MSE {self.mse:.3g} → "
                f"{self.shuffled_mse:.3g}; forecasts move by {100 * self.moved:.3g} % of their deviation")


def shuffled(model: PreTrainedModel, inputs: dict[str, torch.Tensor], patch_length: int,
             labels: torch.Tensor | None = None, future: torch.Tensor | None = None,
             future_observed: torch.Tensor | None = None) -> Shuffle | ShuffledContext | None:
    """What becomes of a model's answers to `inputs`, values (B, C, L) and perhaps observed, when patches are shuffled.

    labels (B,): of a model of classes, two or more; future (B, C, horizon), of which future_observed (the same shape)
    counts: of a forecaster. None for anything else.
    """
    with torch.no_grad():
        before = outputs_of(model(**inputs))
        has_classes = labels is not None and labels.ndim == 1 and before.ndim == 2 and before.shape[1] > 1
        if future is None and not has_classes:
            return None
        values, observed = shuffle_patches(
            inputs["values"].cpu().numpy(), patch_length, seed=0,
            observed=inputs["observed"].bool().cpu().numpy() if "observed" in inputs else None)
        mixed = {**inputs, "values": torch.from_numpy(values).to(inputs["values"].device)}
        if observed is not None:
            mixed["observed"] = torch.from_numpy(observed).to(inputs["observed"])
        after = outputs_of(model(**mixed))
    if future is not None:
        counted = torch.ones_like(future) if future_observed is None else future_observed.to(future.dtype)
        errors = [float(((outputs - future) ** 2 * counted).sum() / counted.sum().clamp(min=1))
                  for outputs in (before, after)]
        return ShuffledContext(patch_length, *errors, moved(before, after))
    accuracies = [float((outputs.argmax(1) == labels).float().mean()) for outputs in (before, after)]
    return Shuffle(patch_length, *accuracies, float((before.argmax(1) != after.argmax(1)).float().mean()))


def moved(before: torch.Tensor, after: torch.Tensor) -> float:
    """How far outputs (B, …) lie from what they were, in the deviation of those across inputs."""
    spread = (before - before.mean(0)).square().mean().sqrt().clamp(min=torch.finfo(before.dtype).tiny)
    return float((after - before).square().mean().sqrt() / spread)


def shuffle_patches(values: np.ndarray, patch_length: int, seed: int, observed: np.ndarray | None = None
                    ) -> tuple[np.ndarray, np.ndarray | None]:
    """Each series (n, C, L) with its whole patches in a random order of its own, the same for all its channels, and
    `observed` (n, C, L) with it. Padding on the right, and what is left of the last patch, stays where it is.
    """
    random = np.random.default_rng(seed)
    values, observed = values.copy(), None if observed is None else observed.copy()
    n, channels, length = values.shape
    lengths = np.full(n, length) if observed is None else np.where(
        observed.any((1, 2)), length - observed.any(1)[:, ::-1].argmax(1), 0)
    for row, whole in enumerate(lengths // patch_length):
        order = random.permutation(whole)
        for array in (values, observed):
            if array is not None:
                patches = array[row, :, :whole * patch_length].reshape(channels, whole, patch_length)
                array[row, :, :whole * patch_length] = patches[:, order].reshape(channels, -1)
    return values, observed


def outputs_of(output: ModelOutput) -> torch.Tensor:
    """What a model is for, (B, …): logits, a prediction or, of a bare backbone, its states."""
    for name in ("logits", "prediction", "prediction_logits", "last_hidden_state"):
        if getattr(output, name, None) is not None:
            return getattr(output, name).float()
    raise ValueError(f"{type(output).__name__} has neither logits nor a prediction")
