"""Pretraining on series alone, as a task of the loop: hidden patches are told from the rest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from toolkit.data.series.masked_patches import MaskedPatchBatches
from toolkit.errors import UserError
from toolkit.models.series.patches import SeriesForMaskedPatches
from toolkit.pretrained import save_model
from toolkit.run.directory import Run
from toolkit.tasks.base import ViewedTask, fit
from toolkit.tasks.settings import MaskedPatchesConfig
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.impl.distributed import reduce_sums
from toolkit.training.impl.precision import ImplConfig, Precision
from toolkit.training.observers.base import LossShown

_EVALUATION_SEED = 0x5EED  # one fixed draw of masks for every evaluation


class MaskedPatches(ViewedTask):
    """Mean squared error of hidden values, on the scale the model works in. Evaluated on `validation` series."""

    best_metric = "loss"

    def __init__(self, model: SeriesForMaskedPatches, train: MaskedPatchBatches, validation: MaskedPatchBatches):
        self.model, self.batch, self.validation = model, train.batch, validation
        self.channels = train.values.shape[1]
        self.loss_shown = LossShown("mse")

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        hidden = batch["masked"] if "observed" not in batch else batch["masked"] & batch["observed"]
        return {"masked_patches": int(hidden.sum())}

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"masked_patches": self._sum(model, batch)[0]}

    def _sum(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed so that every hidden value counts once, however many patches it lies in; and of the mean alone."""
        observed = batch.get("observed")
        masked = batch["masked"].bool()
        output = model(values=batch["values"], masked=masked, observed=observed)
        hidden = masked if observed is None else masked & observed.bool()
        once = hidden.sum() / output.hidden.sum().clamp(min=1)
        error = ((output.prediction - output.target) ** 2 * output.hidden).sum() * once
        return error, (output.target**2 * output.hidden).sum() * once

    def evaluate(self, model: torch.nn.Module, accelerator: Accelerator, precision: Precision) -> dict[str, float]:
        """`loss`, and `explained`: the share of the hidden values' squares that the prediction takes away."""
        size, sums = self.validation.batch_size, {"error": 0.0, "squares": 0.0, "count": 0.0}
        rows = np.arange(len(self.validation.values))
        for start in range(accelerator.process_index * size, len(rows), accelerator.num_processes * size):
            batch = self.validation.rows(rows[start:start + size], rows[start:start + size])
            error, squares = self._sum(model, to_device(as_tensors(batch), accelerator.device))
            for key, value in (("error", error), ("squares", squares), ("count", self.counts(batch)["masked_patches"])):
                sums[key] += float(value)
        sums = reduce_sums(accelerator, sums)
        self.loss_shown.guessing = sums["squares"] / max(1.0, sums["count"])
        return {"loss": sums["error"] / max(1.0, sums["count"]),
                "explained": 1 - sums["error"] / max(1e-12, sums["squares"])}

    def save(self, model: SeriesForMaskedPatches, directory: Path) -> None:
        save_model(model, directory)


def pretrain_on_series(make_model: Callable[[], SeriesForMaskedPatches], train_values: np.ndarray,
                       validation_values: np.ndarray, config: MaskedPatchesConfig, impl: ImplConfig, run: Run,
                       accelerator: Accelerator, seed: int, name: str, observed: np.ndarray | None = None,
                       validation_observed: np.ndarray | None = None) -> dict:
    """Train on values (n, C, L), no labels; the best model is in `run.model_dir`. A finished run is not repeated."""
    if not 0 < config.mask_ratio < 1:
        raise UserError(f"pretraining.mask_ratio is {config.mask_ratio}; give a share of the patches between 0 and 1, "
                        f"such as 0.4.")

    def task() -> MaskedPatches:
        model = make_model()
        length = model.config.patch_length
        return MaskedPatches(model, *(
            MaskedPatchBatches(values, seen, length, config.mask_ratio, config.batch_size, number)
            for values, seen, number in ((train_values, observed, seed),
                                         (validation_values, validation_observed, _EVALUATION_SEED))))

    return fit(task, config, impl, run, accelerator, seed, name)
