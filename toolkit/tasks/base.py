"""What tasks share: the life of a fit, answers in order, and what a card says of a task."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from toolkit.data.batches import LabelledBatches
from toolkit.pretrained import saved_model
from toolkit.run.directory import Run
from toolkit.run.files import write_atomic
from toolkit.training.feed import as_tensors, seed_everything, to_device
from toolkit.training.impl.precision import ImplConfig, Precision, exact
from toolkit.training.task import Task, TrainingConfig
from toolkit.training.trainer import train
from toolkit.views import View, Viewed

Test = Callable[[Task, PreTrainedModel, dict[str, float], Precision], dict]
"""(task, the model that was best on validation, what training gave, precision) → what result.json holds."""
Evaluation = Callable[[PreTrainedModel, Accelerator, Precision], dict[str, float]]
"""More figures of a model, measured at each evaluation."""


@dataclass(frozen=True)
class Description:
    """What a card says of the models of a task."""

    kind: str
    """The tag of its models on the hub; what the rest of the card is chosen by."""
    is_of: Callable[[str, str | None, dict], bool]
    """(class, module of ours that has it or None, config.json) → whether a model is of this task."""
    pipeline_tag: str
    """As the hub has it."""
    sentence: Callable[[str, str, str, dict], str]
    """(family, size, what it was fine-tuned from or "", figures of its evaluation) → one sentence on what it is."""
    objective: str
    """What was minimised."""
    is_pretraining: bool = False
    unit: str = "tokens"
    """What is counted of its batches: tokens, or values of series."""
    is_classifier: bool = False


class ViewedTask(Viewed):
    """Base of tasks, for what a notebook shows of them."""

    model: PreTrainedModel
    best_metric: str

    def _shown(self) -> View:
        about = (type(self).__doc__ or "").strip().split("\n")[0]
        model = f"{type(self.model).__name__} of {self.model.num_parameters():,} parameters"
        return View(f"task {type(self).__name__}: {model}",
                    {"learns": about, "keeps": f"the model with the lowest {self.best_metric} on validation"})


def fit(make_task: Callable[[], Task], config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator,
        seed: int, name: str, test: Test | None = None, keep_model: bool = True) -> dict:
    """One model on one seed: seed, build, train, take what was best on validation, test once, in fp32, finish.

    Returns, and leaves in the run's result.json, what `test` gives, or what training gave where there is none. A
    finished run is not repeated. Killed at any moment, the same call goes on: the result is written before a model that
    is not kept is removed.
    """
    if finished := run.result():
        return finished
    seed_everything(seed)
    task = make_task()
    result = train(task, config, impl, run, accelerator, seed, name)
    accelerator.wait_for_everyone()
    if test is not None:
        best = saved_model(type(task.model), run.model_dir).to(accelerator.device)
        precision = exact(accelerator.device)
        precision.prepare(best)
        result = test(task, best, result, precision)
        accelerator.wait_for_everyone()
    return run.finish(result, keep_model)


def for_all(compute: Callable[..., torch.Tensor], model: PreTrainedModel, data: LabelledBatches,
            accelerator: Accelerator, precision: Precision, batch_size: int = 64) -> np.ndarray:
    """(n, …) float32 `compute(**inputs)` of every example, once each and in order, on every rank."""
    # Texts of like length together: hardly any padding. A rank takes every k-th, so that all have as much to do.
    order = getattr(data, "by_length", np.arange(len(data.labels)))
    mine = order[accelerator.process_index::accelerator.num_processes]
    training = model.training
    model.eval()
    parts = []
    with torch.inference_mode(), precision.autocast(), precision.uncompiled():
        for start in range(0, len(mine), batch_size):
            index = mine[start:start + batch_size]
            batch = to_device(as_tensors(data.rows(index)), accelerator.device)
            inputs = {key: value for key, value in batch.items() if key != "labels"}
            parts.append((index, compute(**inputs).float().cpu().numpy()))
    model.train(training)
    parts = gather_object(parts) if accelerator.num_processes > 1 else parts
    values = np.empty((len(order), *parts[0][1].shape[1:]), np.float32)
    for index, part in parts:
        values[index] = part
    return values


def write_arrays(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """`write_atomic` of an .npz, compressed."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())
