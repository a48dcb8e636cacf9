"""What tasks share."""

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from toolkit.data.batches import LabelledBatches
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.precision import Precision


def for_all(compute: Callable[..., torch.Tensor], model: PreTrainedModel, data: LabelledBatches,
            accelerator: Accelerator, precision: Precision, batch_size: int = 64) -> np.ndarray:
    """(n, …) float32 `compute(**inputs)` of every example, once each and in order, on every rank."""
    # Texts of like length together: hardly any padding. Every so manyth is a rank's, so that all have as much to do.
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
