"""How a run is computed: number format, kernels, compilation, micro-batches. None of it may change what is learned."""

import ctypes
import importlib.util
import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from toolkit.errors import UserError
from toolkit.models.cross_entropy import let_logits_fill
from toolkit.models.fast_layers import use_fused_layers
from toolkit.models.seq2seq.fast_marian import use_fused_marian_layers
from toolkit.training.impl.settings import ImplConfig


@dataclass(frozen=True)
class Precision:
    device: torch.device
    dtype: torch.dtype
    attention: str
    layers: str
    compile: bool
    gradient_checkpointing: bool
    num_workers: int

    @property
    def optimizer_dtype(self) -> torch.dtype:
        """Of products that only find a direction, as Muon's: bf16 where the run takes it and the hardware has it."""
        return torch.bfloat16 if self.dtype == torch.bfloat16 and _has_native_bf16(self.device) else torch.float32

    def autocast(self) -> AbstractContextManager:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def uncompiled(self) -> AbstractContextManager:
        """For what is computed once or in many shapes: evaluations."""
        return torch.compiler.set_stance("force_eager") if self.compile else nullcontext()

    def prepare(self, model: PreTrainedModel) -> None:
        """Let `model` be computed so; its parameters and their names stay as they are."""
        model.set_attn_implementation(self.attention)
        if self.layers == "fused":
            use_fused_layers(model)
            use_fused_marian_layers(model)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if self.compile:
            model.compile(dynamic=False)  # in place: no wrapper, no prefix in the names
        if self.device.type == "cpu":
            _keep_freed_memory()
        if self.device.type == "cuda":
            let_logits_fill(self.device)
            # What autocast leaves in fp32 may use TF32, unless fp32 was asked for.
            torch.set_float32_matmul_precision("highest" if self.dtype == torch.float32 else "high")
            torch.backends.cudnn.allow_tf32 = self.dtype != torch.float32  # convolutions have a switch of their own

    def describe(self) -> str:
        parts = [self.device.type, str(self.dtype).removeprefix("torch."), f"{self.attention} attention"]
        parts += ["fused layers"] * (self.layers == "fused") + ["compiled"] * self.compile
        return ", ".join(parts + ["gradient checkpointing"] * self.gradient_checkpointing)


def choose(impl: ImplConfig, device: torch.device) -> Precision:
    """What `auto` means on this device. bf16 is chosen only where it is native: emulated, it is slower than fp32."""
    native = _has_native_bf16(device)
    if impl.dtype == "bf16" and device.type == "cuda" and not native:
        raise UserError("impl.dtype is bf16, which this GPU does not have. Use fp32 or auto.")
    dtype = torch.bfloat16 if impl.dtype == "bf16" or (impl.dtype == "auto" and native) else torch.float32
    attention = impl.attention
    if attention == "auto":
        attention = "eager" if device.type == "cpu" else "sdpa"
    layers = _choose_layers(impl, device, dtype)
    compile = _can_compile(device) if impl.compile == "auto" else impl.compile
    if compile and device.type == "cuda" and not _can_compile(device):
        raise UserError("impl.compile is true, which takes triton and a GPU of compute capability 7.0 or more. Install "
                        "triton, or use auto.")
    workers = impl.num_workers if impl.num_workers is not None else (2 if device.type == "cuda" else 0)
    return Precision(device, dtype, attention, layers, bool(compile), impl.gradient_checkpointing, workers)


def exact(device: torch.device) -> Precision:
    """What final figures and answers are computed in: fp32 by transformers' own layers, so that an answer is the same
    to the fifth digit whatever stands beside it in a batch.
    """
    return choose(ImplConfig(dtype="fp32", layers="transformers", compile=False), device)


def _choose_layers(impl: ImplConfig, device: torch.device, dtype: torch.dtype) -> str:
    """`transformers` or `fused`."""
    if impl.layers == "bf16" and (device.type != "cpu" or dtype != torch.bfloat16):
        raise UserError(f"impl.layers is bf16, which is for CPUs with impl.dtype bf16; this run is on {device.type} in "
                        f"{str(dtype).removeprefix('torch.')}. Use auto.")
    if impl.layers == "fused" and device.type != "cpu":
        raise UserError(f"impl.layers is fused, which is for CPUs; this run is on {device.type}. Use auto.")
    if impl.layers in ("fused", "bf16") and impl.attention == "sdpa":  # transformers leaves GPT's causal mask to it
        raise UserError(f"impl.layers is {impl.layers}, which brings its own attention. Leave impl.attention at auto, "
                        f"or use impl.layers transformers.")
    if impl.layers == "auto":
        return "transformers" if device.type != "cpu" or impl.attention == "sdpa" else "fused"
    return "transformers" if impl.layers == "transformers" else "fused"


def _can_compile(device: torch.device) -> bool:
    """Whether compilation needs nothing that may be absent, and pays within minutes: on GPUs that triton writes for."""
    return (device.type == "cuda" and importlib.util.find_spec("triton") is not None
            and torch.cuda.get_device_capability(device) >= (7, 0))


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return _cpu_has_bf16()
    return False  # Apple's GPUs: fp32, until somebody has measured


def _cpu_has_bf16() -> bool:
    """Whether products in bf16 are the processor's own. oneDNN must agree: it may be held to less than the processor
    has (ONEDNN_MAX_CPU_ISA=AVX2), and takes bf16 on any AVX512, where it is emulated.
    """
    if torch.backends.mkldnn.is_available() and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _keep_freed_memory() -> None:
    """Keep freed memory for the next step. By default glibc returns every large block to the kernel as soon as it is
    freed and gets it anew, page by page: up to a fifth of the time of a step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc, trim_threshold, mmap_max = ctypes.CDLL(None), -1, -4  # from malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
