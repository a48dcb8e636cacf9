"""Before the first step: its first micro-batch is computed for what it tells, and nothing is learned of it.

Operations are counted, the compiler is done before the clock of a budget starts, what it made is held against the
uncompiled computation, and a micro-batch that is too large for a GPU is found before anything depends on it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from toolkit.errors import UserError
from toolkit.training.feed import StepDataset, num_tokens, seed_everything, to_device, unit
from toolkit.training.impl.distributed import reduce_sums
from toolkit.training.impl.precision import ImplConfig, Precision
from toolkit.training.impl.signals import can_be_noted
from toolkit.training.observers.throughput import Meter, duration, matmul_flops, matmul_peak

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
"""Of loss and gradient norm, relative, compiled against uncompiled."""
TOLERANCE_WITH_DROPOUT = 0.5
"""The compiler draws other random numbers; of a small micro-batch they can change the norm by a third."""


@dataclass
class Computed:
    """What one micro-batch came to."""

    loss: float
    gradient_norm: float
    without_gradient: list[str]
    """Parameters whose gradient is zero throughout."""

    def differs(self, compiled: "Computed", tolerance: float) -> str:
        """In words, where `compiled` is not the same; empty where it is."""
        for what, mine, theirs in (("loss", self.loss, compiled.loss),
                                   ("gradient norm", self.gradient_norm, compiled.gradient_norm)):
            if not abs(theirs - mine) <= tolerance * abs(mine):
                return f"its {what} is {theirs:.6g}, uncompiled {mine:.6g}"
        if lost := sorted(set(compiled.without_gradient) - set(self.without_gradient)):
            return f"{lost[0]} has no gradient, nor have {len(lost) - 1} others, which uncompiled have one"
        return ""


def warm_up(task, model: torch.nn.Module, dataset: StepDataset, step: int, precision: Precision,
            accelerator: Accelerator, name: str = "training") -> Meter:
    """Compute the first micro-batch of `step`, also compiled where that is asked for; the meter of the run.

    Where compiled is not the same as uncompiled, the run says so and goes on uncompiled: `model` is what it was.
    UserError where a GPU's memory does not hold the micro-batch.
    """
    micro_batches, counts = dataset[step]
    micro = micro_batches[0]
    model.train()
    with _untouched(model), memory_told(task, model, micro, counts, precision, accelerator.num_processes):
        found: list[Computed] = []
        with precision.uncompiled():
            flops = matmul_flops(lambda: found.append(computed(task, model, micro, counts, precision)))
        if precision.compile:
            _prove(task, model, micro_batches, counts, precision, accelerator, name, found[0])
    return Meter(precision.device, flops / num_tokens([micro]),
                 accelerator.num_processes * matmul_peak(precision.device, precision.dtype), unit(micro))


def _prove(task, model: torch.nn.Module, micro_batches: list[dict[str, torch.Tensor]], counts: dict[str, float],
           precision: Precision, accelerator: Accelerator, name: str, uncompiled: Computed) -> None:
    """Compile for the first micro-batch, which is held against the uncompiled one, and for the last if it is shorter.
    """
    began = time.perf_counter()
    drops = any(isinstance(module, torch.nn.Dropout) and module.p for module in model.modules())
    tolerance = TOLERANCE_WITH_DROPOUT if drops else TOLERANCE[precision.dtype]
    try:
        difference = uncompiled.differs(computed(task, model, micro_batches[0], counts, precision), tolerance)
        if num_tokens(micro_batches[-1:]) != num_tokens(micro_batches[:1]):
            computed(task, model, micro_batches[-1], counts, precision)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # the compiler's own, or of what it wrote
        model.zero_grad()
        said = " ".join(str(error).split())[:300]
        difference = f"it ends in {type(error).__name__}: {said}"
    if reduce_sums(accelerator, {"different": float(bool(difference))})["different"]:
        model._compiled_call_impl = None  # what model.compile() set
        accelerator.print(
            f"{name}: compiled, the first micro-batch is not the same ({difference or 'on another process'}; torch "
            f"{torch.__version__}, {precision.device.type}). The run goes on uncompiled. Please report these words "
            f"with your configuration as a bug of this toolkit; --impl.compile false avoids the attempt.")
        return
    accelerator.print(f"{name}: compiled and held against the uncompiled micro-batch in "
                      f"{duration(time.perf_counter() - began)}, which no budget counts; loss and gradient norm agree "
                      f"to {100 * tolerance:g} %")


def computed(task, model: torch.nn.Module, micro: dict[str, torch.Tensor], counts: dict[str, float],
             precision: Precision) -> Computed:
    """Forward and backward of a micro-batch, from random numbers that are always the same; leaves no gradients."""
    seed_everything(0)
    loss = sum(mean_losses(task, model, to_device(micro, precision.device), counts, precision).values())
    loss.backward()
    norms = {name: torch.linalg.vector_norm(parameter.grad) for name, parameter in model.named_parameters()
             if parameter.grad is not None}
    sizes = torch.stack(list(norms.values())).tolist() if norms else []
    model.zero_grad()
    return Computed(float(loss.detach()), sum(size**2 for size in sizes) ** 0.5,
                    [name for name, size in zip(norms, sizes, strict=True) if size == 0])


def mean_losses(task, model: torch.nn.Module, micro: dict[str, torch.Tensor], counts: dict[str, float],
                precision: Precision) -> dict[str, torch.Tensor]:
    """This micro-batch's part of each objective's mean over the global batch."""
    with precision.autocast():
        sums = task.losses(model, micro)
    return {key: value / max(1, counts[key]) for key, value in sums.items()}


def forward_backward(task, model: torch.nn.Module, micro: dict[str, torch.Tensor], counts: dict[str, float],
                     precision: Precision) -> None:
    """The work of a micro-batch, for those who want to measure it; leaves no gradients."""
    sum(mean_losses(task, model, to_device(micro, precision.device), counts, precision).values()).backward()
    model.zero_grad()


@contextmanager
def memory_told(task, model: torch.nn.Module, micro: dict[str, torch.Tensor], counts: dict[str, float],
                precision: Precision, world: int, save: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A GPU's full memory within the block becomes a UserError that names the micro-batch which fits, tried by halving.

    Of one process, whose state `save` keeps first; several cannot try while the others wait.
    """
    try:
        yield
        return
    except torch.OutOfMemoryError:
        model.zero_grad()
    rows = len(next(iter(micro.values())))
    fits, tried = rows // 2, "may fit"
    if world == 1:
        save()
        tried = "was tried and fits"
        while fits and not _fits(task, model, {key: value[:fits] for key, value in micro.items()}, counts, precision):
            fits //= 2
    if not fits:
        raise UserError(f"impl.micro_batch_size: the memory of the {precision.device.type} device does not hold one "
                        f"row. Take a smaller model, shorter rows, or --impl.gradient_checkpointing true.")
    raise UserError(f"impl.micro_batch_size: the memory of the {precision.device.type} device does not hold a "
                    f"micro-batch of {rows} rows; one of {fits} {tried}. Give the same command with "
                    f"--impl.micro_batch_size {fits}, which changes nothing that is learned.")


def _fits(task, model, micro, counts, precision: Precision) -> bool:
    if precision.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        with precision.uncompiled():
            forward_backward(task, model, micro, counts, precision)
    except torch.OutOfMemoryError:
        model.zero_grad()
        return False
    return True


def compiled_graphs() -> int:
    """How many graphs this process has compiled so far."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def remarks(impl: ImplConfig, precision: Precision) -> Iterator[str]:
    """Where the machine or the caller lacks something that a user would expect, or has asked for."""
    device = precision.device
    if not can_be_noted():
        yield ("this is not the main thread: signals do not stop the training, and what asks the process to end ends "
               "it without a checkpoint. Those of every training.save_steps are written as ever")
    if precision.dtype == torch.bfloat16 and precision.optimizer_dtype != torch.bfloat16:
        slower = matmul_peak(device, torch.float32) / matmul_peak(device, torch.bfloat16)
        yield (f"impl.dtype is bf16, which this processor emulates: its products take {slower:.1f} times as long as in "
               f"fp32. --impl.dtype auto takes what is native.")
    if device.type == "cpu" and precision.compile:
        yield ("impl.compile is true on a CPU: kernels of torch 2.13 were seen to abort the process (AVX512 with one "
               "thread, AVX2 with several). Should it end so, leave impl.compile at auto")
    if device.type == "cuda" and impl.dtype == "auto" and precision.dtype == torch.float32:
        yield "this GPU has no bf16 of its own: products are in fp32"
    if device.type == "cuda" and impl.compile == "auto" and not precision.compile:
        yield ("nothing is compiled: that takes triton and a GPU of compute capability 7.0 or newer; this one has "
               "{}.{}".format(*torch.cuda.get_device_capability(device)))


@contextmanager
def _untouched(model: torch.nn.Module) -> Iterator[None]:
    """Running statistics, as BatchNorm's, are afterwards what they were."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    yield
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in before:
                buffer.copy_(before[name])
