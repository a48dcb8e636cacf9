"""How a run is computed: number format, attention kernel, micro-batches. None of it may change what is learned."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from toolkit.errors import UserError


@dataclass
class ImplConfig:
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Format of the matrix products; weights and optimiser states stay fp32. `auto`: bf16 where the hardware has it."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """`auto`: plain matmul-softmax on CPU, where it is faster at these lengths; fused attention on GPU."""
    micro_batch_size: int | None = None
    """Rows a process takes through the model at once; smaller ones are accumulated. Default: all of its share."""
    num_workers: int = 0
    """Processes that draw batches ahead; drawing one costs about a millisecond, so none is needed."""
    preprocessing_num_workers: int | None = None
    """Processes that tokenise the corpus. Default: one a core."""


@dataclass(frozen=True)
class Precision:
    device: torch.device
    dtype: torch.dtype
    attention: str

    def autocast(self) -> AbstractContextManager:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def describe(self) -> str:
        return f"{self.device.type}, {str(self.dtype).removeprefix('torch.')}, {self.attention} attention"


def choose(impl: ImplConfig, device: torch.device) -> Precision:
    """What `auto` means on this device. bf16 is chosen only where it is native: emulated, it is slower than fp32."""
    native = _has_native_bf16(device)
    if impl.dtype == "bf16" and device.type == "cuda" and not native:
        raise UserError("impl.dtype is bf16, which this GPU does not have. Use fp32 or auto.")
    dtype = torch.bfloat16 if impl.dtype == "bf16" or (impl.dtype == "auto" and native) else torch.float32
    attention = impl.attention
    if attention == "auto":
        attention = "eager" if device.type == "cpu" else "sdpa"
    return Precision(device, dtype, attention)


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return False
