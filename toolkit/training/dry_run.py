"""What a run would be, without making it: inputs checked, a few micro-batches computed, nothing written or learned."""

import os
import shutil
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from toolkit.errors import UserError
from toolkit.run.directory import Run
from toolkit.training.budget import Budget
from toolkit.training.feed import StepDataset, num_tokens, unit
from toolkit.training.impl.distributed import reduce_sums
from toolkit.training.impl.precision import ImplConfig, choose
from toolkit.training.impl.sharding import is_asked_for as sharding_is_asked_for
from toolkit.training.observers.throughput import duration, peak_memory_mb, synchronize
from toolkit.training.optim import make_optimizers
from toolkit.training.task import Task, TrainingConfig, check
from toolkit.training.warm_up import forward_backward

_TIMED = 3  # micro-batches, after one that warms up


def dry_run(task: Task, config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator,
            train_tokens: int | None = None) -> dict[str, float]:
    """Print and return parameters, budget, memory, disk and time. UserError where the disk has no room.

    train_tokens: of the corpus, to say how often the run passes over it.
    """
    Budget(config)
    check(config, impl, accelerator)
    world, device = accelerator.num_processes, accelerator.device
    precision = choose(impl, device)
    model = task.model.to(device)
    precision.prepare(model)
    optimizers = make_optimizers(model, config, precision.optimizer_dtype)
    dataset = StepDataset(task, config.batch_size, accelerator, impl)
    micro_batches, counts = dataset[0]
    tokens = int(reduce_sums(accelerator, {"tokens": num_tokens(micro_batches)})["tokens"])
    model.train()
    seconds = []
    for _ in range(1 + _TIMED):
        began = time.perf_counter()
        for micro in micro_batches[:1]:
            forward_backward(task, model, micro, counts, precision)
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    step_seconds = len(micro_batches) * min(seconds[1:])
    parameters = list(model.parameters())
    size = sum(parameter.nbytes for parameter in parameters)
    moments = sum(parameter.nbytes * (2 if isinstance(optimizer, torch.optim.AdamW) else 1)
                  for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"])
    steps = config.max_steps if config.max_tokens is None else -(-config.max_tokens // tokens)
    by_clock = False
    if config.max_minutes is not None:
        in_time = max(1, int(60 * config.max_minutes / step_seconds))
        by_clock = steps is None or in_time < steps
        steps = in_time if by_clock else steps
    spared = (size + moments) * (1 - 1 / world) if sharding_is_asked_for() else 0
    facts = {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        "processes": world, "micro_batches": len(micro_batches), "batch_size": config.batch_size,
        "steps": steps, "tokens": steps * tokens, "step_seconds": step_seconds,
        "minutes": config.max_minutes if by_clock else steps * step_seconds / 60,
        "memory_mb": peak_memory_mb(device) + (moments - spared) / 1e6,
        "disk_mb": ((config.save_total_limit + 1) * (size + moments) * bool(config.save_steps) + 2 * size) / 1e6,
        "free_mb": shutil.disk_usage(_existing(run.directory)).free / 1e6,
    }
    what = unit(micro_batches[0])
    passes = f", {facts['tokens'] / train_tokens:.2f} times the corpus" if train_tokens else ""
    rows = f"{config.batch_size} rows: {world} × {len(micro_batches)} × {min(dataset.micro, len(dataset.rows))}"
    for title, text in (
            ("computed", f"{precision.describe()}; processes: {world}"),
            ("parameters", f"{facts['parameters']:,}; trained by {config.optimizer}: {facts['trained']:,}"),
            ("batch", f"{rows} (processes × micro-batches × rows); {tokens:,} {what}"),
            ("budget", f"{'about ' * by_clock}{steps:,} steps, {facts['tokens']:,} {what}{passes}"),
            ("time", f"about {duration(60 * facts['minutes'])}; {1000 * step_seconds:.0f} ms a step, without the "
                     f"optimiser's and evaluations"),
            ("memory", f"about {facts['memory_mb']:,.0f} MB a process, optimiser included"),
            ("disk", f"{facts['disk_mb']:,.0f} MB for checkpoints and model; free: {facts['free_mb']:,.0f} MB")):
        accelerator.print(f"{title:12}{text}")
    accelerator.print(f"a dry run: nothing was written to {run.directory}")
    place = _existing(run.directory)
    if facts["disk_mb"] > facts["free_mb"]:
        raise UserError(f"{place}: the run needs {facts['disk_mb']:,.0f} MB, but only {facts['free_mb']:,.0f} MB are "
                        f"free. Lower training.save_total_limit, free some space, or choose another output_dir.")
    if not os.access(place, os.W_OK):
        raise UserError(f"{place}: may not be written. Choose another output_dir.")
    return facts


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.absolute().parent)
