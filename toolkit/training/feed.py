"""Step → this rank's micro-batches on the device, and the random state that goes with them."""

import itertools
import random
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Dataset

from toolkit.data import counter
from toolkit.training.impl.distributed import share
from toolkit.training.impl.precision import ImplConfig
from toolkit.training.impl.signals import leave_to_the_run


class StepDataset(Dataset):
    """Step → this rank's micro-batches as tensors, with the counts of its rows. `task` is a loop's Task."""

    def __init__(self, task, batch_size: int, accelerator: Accelerator, impl: ImplConfig):
        self.task, self.rows = task, share(batch_size, accelerator.process_index, accelerator.num_processes)
        self.micro = impl.micro_batch_size or max(1, len(self.rows))

    def __getitem__(self, step: int) -> tuple[list[dict[str, torch.Tensor]], dict[str, int]]:
        batch = self.task.batch(step, self.rows)
        counts = self.task.counts(batch)
        tensors = as_tensors(batch)
        size = len(self.rows)
        micro = [{name: tensor[start:start + self.micro] for name, tensor in tensors.items()}
                 for start in range(0, size, self.micro)]
        return micro, counts


def steps_from(dataset: StepDataset, start: int, num_workers: int, pin_memory: bool) -> Iterator:
    # A generator of its own: starting an iterator would otherwise draw from the global one and shift dropout.
    return iter(DataLoader(dataset, batch_size=None, sampler=itertools.count(start), num_workers=num_workers,
                           generator=torch.Generator().manual_seed(0), pin_memory=pin_memory,
                           worker_init_fn=leave_to_the_run, persistent_workers=False,
                           prefetch_factor=2 if num_workers else None))


def as_tensors(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}


def to_device(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Batches travel in small types; models take every whole number, and every mask, as int64."""
    tensors = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
    return {name: tensor if tensor.is_floating_point() else tensor.long() for name, tensor in tensors.items()}


_COUNTED = {"input_ids": "tokens", "values": "values"}
"""What is counted of a batch → what it is called; of other batches the first tensor, as values."""


def num_tokens(micro_batches: list[dict[str, torch.Tensor]]) -> int:
    """Tokens of texts, padding included, or values of series."""
    return sum(micro[_counted(micro)].numel() for micro in micro_batches)


def unit(micro: dict[str, torch.Tensor]) -> str:
    """What `num_tokens` counts, for people."""
    return _COUNTED.get(_counted(micro), "values")


def _counted(micro: dict[str, torch.Tensor]) -> str:
    return next((name for name in _COUNTED if name in micro), next(iter(micro)))


def seed_everything(*parts: int) -> None:
    """Seed every global generator from integers; done each step: dropout is a function of (seed, step, rank)."""
    value = int(counter.key(*parts)) % 2**63
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.default_generator.manual_seed(value)  # torch.manual_seed takes half a millisecond to think of absent devices
    if torch.cuda.is_initialized():
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(value)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(value)
