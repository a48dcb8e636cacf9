"""The training loop: one for BERT, GPT, text and series; on one core, several processes or a cluster.

A task says what is learned (model, batches, losses, evaluation). The loop says when. Losses are sums over the rows a
process holds, divided by the *global* number of predicted items, so that processes and accumulation change nothing.
"""

import functools
import gc
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from toolkit.data import counter
from toolkit.errors import Interrupted, UserError
from toolkit.run import Run, write_directory
from toolkit.training import checkpoint
from toolkit.training.budget import Budget, BudgetConfig
from toolkit.training.optim import OptimConfig, learning_rate_factor, make_optimizers
from toolkit.training.precision import ImplConfig, Precision, choose
from toolkit.training.throughput import Meter, matmul_flops, matmul_peak, throughput_line
from toolkit.training.tracking import Tracker


@dataclass
class TrainingConfig(OptimConfig, BudgetConfig):
    batch_size: int = 32
    """Rows of the global batch, over all processes and accumulated micro-batches."""
    logging_steps: int = 20
    eval_steps: int = 0
    """Evaluate every so many steps; 0: only at the end."""
    save_steps: int = 100
    """Checkpoint every so many steps; 0: only when interrupted."""
    save_total_limit: int = 2
    """Checkpoints kept."""
    report_to: list[Literal["wandb"]] = field(default_factory=list)
    """`wandb`, beside metrics.jsonl, which is always written."""


class Task(Protocol):
    """What the loop needs to know of an objective."""

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


def make_accelerator() -> Accelerator:
    """The process group as it was launched; refuses the launches that silently train several copies or just one."""
    if not torch.cuda.is_available() and "ACCELERATE_USE_CPU" not in os.environ:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    asked = int(os.environ.get("TOOLKIT_NPROC", os.environ.get("WORLD_SIZE", "1")))
    try:
        accelerator = Accelerator(cpu=not torch.cuda.is_available() and not torch.backends.mps.is_available())
    except ValueError as error:  # WORLD_SIZE without an address to meet at
        raise UserError(f"{asked} processes were asked for, but no process group was formed ({error}). Launch with "
                        f"`make … NPROC={asked}` or `accelerate launch --multi_gpu --num_processes {asked}`."
                        ) from None
    if asked != accelerator.num_processes:
        raise UserError(f"{asked} processes were asked for, but the process group has {accelerator.num_processes}. "
                        f"Launch with `make … NPROC={asked}` or `accelerate launch --multi_gpu --num_processes "
                        f"{asked}`; `--cpu --num_processes` starts one process only.")
    return accelerator


def share(total: int, rank: int, world: int) -> range:
    """The contiguous part of range(total) that is rank's; parts differ by at most one."""
    return range(total * rank // world, total * (rank + 1) // world)


def reduce_sums(accelerator: Accelerator, sums: dict[str, float]) -> dict[str, float]:
    """Add up each value over all processes, in float64; by the hosts, so that no GPU has to finish its work first."""
    if accelerator.num_processes == 1:
        return sums
    values = torch.tensor(list(sums.values()), dtype=torch.float64)
    torch.distributed.all_reduce(values, group=_host_group())
    return dict(zip(sums, values.tolist(), strict=True))


@functools.cache
def _host_group():
    return torch.distributed.new_group(backend="gloo")


def _check_positive(**sections) -> None:
    for section, names in (("training", ("batch_size", "logging_steps", "save_total_limit")),
                           ("impl", ("micro_batch_size",))):
        for name in names:
            value = getattr(sections[section], name)
            if value is not None and value < 1:
                raise UserError(f"{section}.{name} is {value}; it must be at least 1.")


class _StepDataset(Dataset):
    """Step → this rank's micro-batches as tensors, with the counts of its rows."""

    def __init__(self, task: Task, rows: range, micro_batch_size: int | None):
        self.task, self.rows = task, rows
        self.micro = micro_batch_size or max(1, len(rows))

    def __getitem__(self, step: int) -> tuple[list[dict[str, torch.Tensor]], dict[str, int]]:
        batch = self.task.batch(step, self.rows)
        counts = self.task.counts(batch)
        tensors = as_tensors(batch)
        size = len(self.rows)
        micro = [{name: tensor[start:start + self.micro] for name, tensor in tensors.items()}
                 for start in range(0, size, self.micro)]
        return micro, counts


def _steps(dataset: _StepDataset, start: int, num_workers: int, pin_memory: bool) -> Iterator:
    # A generator of its own: starting an iterator would otherwise draw from the global one and shift dropout.
    return iter(DataLoader(dataset, batch_size=None, sampler=itertools.count(start), num_workers=num_workers,
                           generator=torch.Generator().manual_seed(0), pin_memory=pin_memory,
                           persistent_workers=False, prefetch_factor=2 if num_workers else None))


def as_tensors(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}


def to_device(tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Batches travel in small types; models take every whole number, and every mask, as int64."""
    tensors = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
    return {name: tensor if tensor.is_floating_point() else tensor.long() for name, tensor in tensors.items()}


def seed_everything(*parts: int) -> None:
    """Seed every global generator from integers; done each step: dropout is a function of (seed, step, rank)."""
    value = int(counter.key(*parts)) % 2**63
    random.seed(value)
    np.random.seed(value % 2**32)
    if torch.cuda.is_initialized() or torch.backends.mps.is_available():
        torch.manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)  # manual_seed takes half a millisecond to think of absent devices


def train(task: Task, config: TrainingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator, seed: int,
          name: str = "training", settings: dict | None = None) -> dict[str, float]:
    """Train until the budget is used, resuming from the newest valid checkpoint; returns the final evaluation.

    The best model by `task.best_metric` is in `run.model_dir` afterwards. Raises `Interrupted` when SIGTERM or SIGINT
    arrived, after saving.
    """
    budget = Budget(config)
    _check_positive(training=config, impl=impl)
    if config.batch_size < accelerator.num_processes:
        raise UserError(f"training.batch_size is {config.batch_size}, fewer rows than the {accelerator.num_processes} "
                        f"processes. Use fewer processes or a larger batch.")
    rank, world = accelerator.process_index, accelerator.num_processes
    precision = choose(impl, accelerator.device)
    plain_model = task.model.to(accelerator.device)
    precision.prepare(plain_model)
    optimizers = make_optimizers(plain_model, config)
    start, state = 0, {"best": None, "tokens": 0, "seconds": 0.0, "running": [{}], "running_steps": 0}
    path, passed_over = checkpoint.newest_valid(run.checkpoint_dir)
    for reason in passed_over:
        accelerator.print(f"passed over {reason}")
    if path is not None:
        state = checkpoint.load(path, plain_model, optimizers)
        start = state.pop("step")
    used = budget.used(start, state["tokens"], state["seconds"])
    dataset = _StepDataset(task, share(config.batch_size, rank, world), impl.micro_batch_size)
    if used < 1:
        resuming = f", resuming at step {start:,} with {100 * used:.0f} % of {budget.name} used" if start else ""
        accelerator.print(f"{name}: {precision.describe()}{resuming}")
        meter = _meter(task, plain_model, dataset, start, precision, world)
    model = accelerator.prepare(plain_model)
    parameters = [parameter for optimizer in optimizers for group in optimizer.param_groups
                  for parameter in group["params"]]
    tracker = None
    if accelerator.is_main_process:
        run.directory.mkdir(parents=True, exist_ok=True)
        tracker = Tracker(run.metrics_path, start, config.report_to, run.directory.name, settings or {})

    def save(step: int) -> None:
        mine = {key: float(value) for key, value in running.items()}
        state["running"] = gather_object([mine]) if world > 1 else [mine]
        state["running_steps"] = running_steps
        if accelerator.is_main_process:
            tracker.sync()
            checkpoint.save(run.checkpoint_dir, step, plain_model, optimizers, state, config.save_total_limit)
        accelerator.wait_for_everyone()

    def evaluate(step: int, log: bool = True) -> dict[str, float]:
        model.eval()
        with torch.inference_mode(), precision.autocast(), precision.uncompiled():
            metrics = task.evaluate(plain_model, accelerator, precision)
        model.train()
        if tracker is not None and log:
            tracker.log({"step": step, **{f"eval_{key}": value for key, value in metrics.items()}})
        if state["best"] is None or metrics[task.best_metric] < state["best"]:
            state["best"] = metrics[task.best_metric]
            if accelerator.is_main_process:
                write_directory(run.model_dir, lambda directory: task.save(plain_model, directory))
        return metrics

    metrics: dict[str, float] = {}
    # Sums since the last logged line; part of a checkpoint, so that a resumed run logs what an unbroken one does.
    saved, running_steps = state["running"], state["running_steps"]
    if len(saved) == world:
        running = dict(saved[rank])
    else:  # saved by another number of processes: the sum is what counts
        running = {key: sum(part[key] for part in saved) if rank == 0 else 0.0 for key in saved[0]}
    progress = _Progress(name, used, accelerator.is_main_process)
    batches = _steps(dataset, start, precision.num_workers, accelerator.device.type == "cuda")
    done, last_step_seconds, finished = start, 0.0, used >= 1
    model.train()
    with _Signals() as signals, _frozen():
        while not finished:
            began = time.perf_counter()
            micro_batches, counts = next(batches)
            waited = time.perf_counter() - began
            first = int(rank == 0)  # one clock for all, or their learning rates would differ
            counts = reduce_sums(accelerator, {
                **counts, "signal": signals.received, "tokens": _tokens(micro_batches),
                "seconds": first * state["seconds"], "last": first * last_step_seconds})
            stop, tokens = int(counts.pop("signal")), int(counts.pop("tokens"))
            seconds, expected = counts.pop("seconds"), counts.pop("last")
            before = budget.used(done, state["tokens"], seconds)
            used = budget.used(done + 1, state["tokens"] + tokens, seconds + expected)
            finished = used >= 1
            factor = learning_rate_factor(config, min(1.0, (before + used) / 2))
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * factor
            for number, micro in enumerate(micro_batches):
                seed_everything(seed, done, rank, number)
                micro = to_device(micro, accelerator.device)
                last = number == len(micro_batches) - 1
                with accelerator.no_sync(model) if not last else nullcontext():
                    means = _mean_losses(task, model, micro, counts, precision)
                    (sum(means.values()) * world).backward()  # DistributedDataParallel averages over processes
                for key, value in means.items():
                    running[key] = running.get(key, 0) + value.detach()
            if config.max_grad_norm:
                gradient_norm = _clip(parameters, config.max_grad_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            done += 1
            running_steps += 1
            state["tokens"] += tokens
            logging = done % config.logging_steps == 0 or finished
            if logging:
                means = reduce_sums(accelerator, {key: float(value) / running_steps for key, value in running.items()})
            last_step_seconds = time.perf_counter() - began
            state["seconds"] += last_step_seconds
            if finished:
                state["seconds"] = budget.filled(state["seconds"])
            progress.update(used)
            meter.step(tokens, last_step_seconds, waited)
            if logging:
                speed = meter.record()
                record = {"step": done, "loss": sum(means.values()), **{f"{key}_loss": means[key] for key in means},
                          "learning_rate": config.learning_rate * factor, "tokens": state["tokens"], **speed}
                if config.max_grad_norm:
                    record["grad_norm"] = float(gradient_norm)
                if tracker is not None:
                    tracker.log(record)
                progress.report(done, means, speed)
                running, running_steps = {}, 0
            evaluated = finished or (config.eval_steps and done % config.eval_steps == 0)
            if evaluated:
                metrics = evaluate(done)
            if (config.save_steps and (done % config.save_steps == 0 or finished)) or (stop and not finished):
                save(done)
            if stop and not finished:
                progress.close()
                if tracker is not None:
                    tracker.close()
                raise Interrupted(signals.number or signal.SIGTERM, done)
    progress.close()
    if not metrics:  # resumed after the last step, whose evaluation is in metrics.jsonl already
        metrics = evaluate(done, log=False)
    if tracker is not None:
        tracker.close()
    accelerator.wait_for_everyone()
    return {**metrics, "steps": done, "tokens": state["tokens"], "seconds": round(state["seconds"], 1),
            "tokens_per_second": round(state["tokens"] / max(state["seconds"], 1e-9), 1)}


def _mean_losses(task: Task, model: torch.nn.Module, micro: dict[str, torch.Tensor], counts: dict[str, float],
                 precision: Precision) -> dict[str, torch.Tensor]:
    """This micro-batch's part of each objective's mean over the global batch."""
    with precision.autocast():
        sums = task.losses(model, micro)
    return {key: value / max(1, counts[key]) for key, value in sums.items()}


def _clip(parameters: list[torch.nn.Parameter], largest: float) -> torch.Tensor:
    """As torch.nn.utils.clip_grad_norm_, which multiplies all gradients by 1 where nothing is to be clipped."""
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if norm.device.type != "cpu" or not norm <= largest:  # looking at it costs nothing on a CPU
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm


def _meter(task: Task, model: torch.nn.Module, dataset: _StepDataset, step: int, precision: Precision,
           world: int) -> Meter:
    """Counts the operations of a micro-batch by computing it once, before anything is prepared or seeded."""
    (micro, *_), counts = dataset[step]
    model.train()

    def forward_and_backward() -> None:
        with precision.uncompiled():
            means = _mean_losses(task, model, to_device(micro, precision.device), counts, precision)
            sum(means.values()).backward()

    flops = matmul_flops(forward_and_backward)
    model.zero_grad()
    return Meter(precision.device, flops / _tokens([micro]), world * matmul_peak(precision.device, precision.dtype))


def _tokens(micro_batches: list[dict[str, torch.Tensor]]) -> int:
    return sum(next(iter(micro.values())).numel() for micro in micro_batches)


@contextmanager
def _frozen() -> Iterator[None]:
    """What exists now will stay: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Progress:
    """A bar where there is a terminal, a line every half minute where there is a log."""

    def __init__(self, name: str, used: float, is_main: bool):
        self.name, self.began, self.used_before, self.used = name, time.monotonic(), used, used
        self.printed, self.lines = self.began, is_main and not sys.stderr.isatty()
        self.bar = tqdm(total=100, initial=100 * used, desc=name, disable=not is_main or self.lines, leave=False,
                        mininterval=0.5,
                        bar_format="{desc} {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining}{postfix}")

    def update(self, used: float) -> None:
        self.bar.update(100 * (min(1.0, used) - self.used))
        self.used = min(1.0, used)

    def report(self, step: int, losses: dict[str, float], speed: dict[str, float]) -> None:
        losses_text = ", ".join(f"{key} {value:.3f}" for key, value in losses.items())
        self.bar.set_postfix_str(f"step {step:,}, {losses_text}, {throughput_line(speed)}", refresh=False)
        now = time.monotonic()
        if self.lines and (now - self.printed > 30 or self.used >= 1):
            self.printed = now
            share = max(1e-9, self.used - self.used_before)
            left = (now - self.began) / share * (1 - self.used)
            print(f"{self.name}: step {step:,}, {losses_text}, {throughput_line(speed, left)}", flush=True)

    def close(self) -> None:
        self.bar.close()


class _Signals:
    """Notes SIGTERM and SIGINT instead of dying of them; a second SIGINT is obeyed at once."""

    def __enter__(self) -> "_Signals":
        self.number = 0
        self.earlier = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            self.earlier[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame) -> None:
        if self.number == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.number = number

    @property
    def received(self) -> int:
        return int(bool(self.number))

    def __exit__(self, *_) -> None:
        for number, handler in self.earlier.items():
            signal.signal(number, handler)
