"""How fast a run is, and how fast it could be: tokens a second, share of the matmul peak, waiting, memory."""

import functools
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode


class Meter:
    """Adds up steps; `record` says what they came to since the last one."""

    def __init__(self, device: torch.device, flops_per_token: float, peak: float, unit: str = "tokens"):
        """flops_per_token: of matrix products, forward and backward, what gradient checkpointing repeats included;
        peak: operations a second of all processes; unit: what is counted, tokens or values.
        """
        self.device, self.flops_per_token, self.peak, self.unit = device, flops_per_token, peak, unit
        self.tokens, self.seconds, self.waited = 0, 0.0, 0.0

    def step(self, tokens: int, seconds: float, waited: float) -> None:
        """One step of all processes took `seconds`; for `waited` of them its batch was not there yet."""
        self.tokens += tokens
        self.seconds += seconds
        self.waited += waited

    def record(self) -> dict[str, float]:
        speed, share = self.tokens / self.seconds, self.waited / self.seconds
        self.peak = max(self.peak, speed * self.flops_per_token)  # it can do what it has just done
        self.tokens, self.seconds, self.waited = 0, 0.0, 0.0
        return {"tokens_per_second": round(speed, 1), "mfu": round(speed * self.flops_per_token / self.peak, 4),
                "data_wait": round(share, 4), "peak_memory_mb": round(peak_memory_mb(self.device), 1)}


def efficiency(records: Sequence[dict[str, float]], unit: str = "tokens") -> str:
    """Several of `Meter.record`, for people: their means, and the most memory. unit: what is counted."""
    speed, share, waiting = (sum(record[key] for record in records) / len(records)
                             for key in ("tokens_per_second", "mfu", "data_wait"))
    memory = max(record["peak_memory_mb"] for record in records)
    return (f"{speed:,.0f} {unit}/s, {100 * share:.0f} % of the matmul peak, {100 * waiting:.1f} % waiting, "
            f"{memory:,.0f} MB")


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def matmul_flops(work: Callable[[], None]) -> int:
    """Floating-point operations of the matrix products in `work()`, forward and backward; two for a multiply-add."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@functools.cache
def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the best of a few large square products: what this machine can do, not what is printed
    on its box. Takes about 0.2 s, where a format is emulated a few seconds.
    """
    size = 8192 if device.type == "cuda" else 2048
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    best, started = float("inf"), time.perf_counter()
    for _ in range(8):
        if time.perf_counter() - started > 1:
            break
        synchronize(device)
        began = time.perf_counter()
        left @ right
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def peak_memory_mb(device: torch.device) -> float:
    """On a GPU what tensors took at most, on a CPU what the whole process took; 10^6 bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would begin with the peak of the process that started this one
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def synchronize(device: torch.device) -> None:
    """Wait for what was asked of a GPU, before a time is taken."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
