"""What a launcher, a user's accelerate configuration or the machine asks for and a run does not do: refused, or told.

`impl` says how a run is computed, a launcher only by how many processes. So what accelerate's configuration says about
number formats, compilation and accumulation is taken out of the environment, where Trainer or a child would find it.
"""

import argparse
import functools
import io
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from toolkit.errors import UserError
from toolkit.training.impl.precision import ImplConfig, choose

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun and the kinds of MPI say how many processes there are, in accelerate's order."""
_MODULES = ("accelerate.commands.launch", "accelerate.commands.accelerate_cli")
_NOT_USED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed, which is not used here. For its stage 2 launch with --config_file "
                                "recipes/accelerate/deepspeed_zero2.yaml, for its stage 3 with fsdp.yaml.",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM, which is not used here. Parameters are spread over processes with "
                                  "--config_file recipes/accelerate/fsdp.yaml.",
}
_SPLIT = {"TP_SIZE": "layers", "CP_SIZE": "sequences", "SP_SIZE": "sequences"}
_WISHES = {  # where it is asked for: its name in a configuration, values that ask for nothing, what does it here
    "ACCELERATE_MIXED_PRECISION": ("mixed_precision", ("no",), "--impl.dtype bf16"),
    "ACCELERATE_DYNAMO_BACKEND": ("dynamo_backend", ("no",), "--impl.compile true"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("gradient_accumulation_steps", ("1",), "--impl.micro_batch_size ROWS"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("fsdp_activation_checkpointing", ("false",),
                                      "--impl.gradient_checkpointing true"),
    "FSDP_SHARDING_STRATEGY": ("fsdp_sharding_strategy", ("full_shard", "1"), "fsdp_reshard_after_forward: false"),
    "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": ("parallelism_config_dp_replicate_size", ("1",),
                                             "--config_file recipes/accelerate/multi_gpu.yaml for whole copies"),
}
_told: set[str] = set()


# What is asked for.

def take_wishes() -> dict[str, str]:
    """Out of the environment, those of _WISHES that ask for something. Refuses what is not done in another way."""
    for name, instead in _NOT_USED.items():
        if _is_true(name):
            raise UserError(f"The launch asks for {instead}")
    if _take("ACCELERATE_USE_PARALLELISM_CONFIG") == "true":
        for part, what in _SPLIT.items():
            size = os.environ.get(f"PARALLELISM_CONFIG_{part}", "1")
            if size != "1":
                raise UserError(f"parallelism_config_{part.lower()} is {size} in accelerate's configuration; {what} "
                                f"are not split over processes here. Set it to 1. Parameters are split with "
                                f"--config_file recipes/accelerate/fsdp.yaml.")
    sharded = _is_true("ACCELERATE_USE_FSDP")
    asked = {name: _take(name) for name in _WISHES if sharded or name.startswith("ACCELERATE_")}
    return {name: value for name, value in asked.items() if value and value not in _WISHES[name][1]}


def unmet(wishes: dict[str, str], impl: ImplConfig | None, device: torch.device) -> str | None:
    """One line about those that `impl` does not do anyway; all where it is not given."""
    left = {name: value for name, value in wishes.items() if impl is None or not _is_done(name, value, impl, device)}
    if not left:
        return None
    asked = ", ".join(f"{_WISHES[name][0]} {value}" for name, value in left.items())
    return (f"accelerate's configuration or environment asks for {asked}; it is not looked at, impl says how a run is "
            f"computed. What does it here: {', '.join(_WISHES[name][2] for name in left)}")


def _is_done(name: str, value: str, impl: ImplConfig, device: torch.device) -> bool:
    chosen = choose(impl, device)
    return {
        "ACCELERATE_MIXED_PRECISION": value == "bf16" and chosen.dtype == torch.bfloat16,
        "ACCELERATE_DYNAMO_BACKEND": chosen.compile,
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": impl.micro_batch_size is not None,
        "FSDP_ACTIVATION_CHECKPOINTING": impl.gradient_checkpointing,
    }.get(name, False)


def _take(name: str) -> str:
    return os.environ.pop(name, "").strip().lower()


def _is_true(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1", "yes", "y", "t", "on")


# Processes.

def processes_asked_for() -> int:
    """By make or a batch script (TOOLKIT_NPROC), torchrun or MPI."""
    return next((int(os.environ[name]) for name in ("TOOLKIT_NPROC", *_SIZES) if os.environ.get(name)), 1)


@dataclass(frozen=True)
class Launcher:
    """The `accelerate launch` that started this process."""
    command: list[str]
    """`accelerate launch` as it was called."""
    words: list[str]
    """What followed: its options, the script, the script's."""
    options: argparse.Namespace
    environment: dict[str, str]
    """Its own, before it added anything."""


def find_launcher() -> Launcher | None:
    """The parent's command line says it; nothing in the environment is certain."""
    with suppress(psutil.Error, OSError):
        parent = psutil.Process(os.getppid())
        words, environment = parent.cmdline(), parent.environ()
        end = _end_of_launcher(words)
        if end and (options := _parse(tuple(words[end:]))):
            script = next(index for index, word in enumerate(words) if index and not word.startswith("-"))
            return Launcher(words[0 if "-m" in words[:script] else script:end], words[end:], options, environment)
    return None


def _end_of_launcher(words: list[str]) -> int | None:
    """How many words of a command line say `accelerate launch`, in one of its spellings; None: another program."""
    for index, word in enumerate(words):
        name = Path(word).name.removesuffix(".exe")
        if name == "accelerate-launch" or word == _MODULES[0]:
            return index + 1
        if (name == "accelerate" or word == _MODULES[1]) and words[index + 1:index + 2] == ["launch"]:
            return index + 2
        if index and not word.startswith("-"):
            return None
    return None


@functools.cache
def _parse(words: tuple[str, ...]) -> argparse.Namespace | None:
    from accelerate.commands.launch import launch_command_parser  # a third of a second

    with suppress(SystemExit), redirect_stderr(io.StringIO()):
        return launch_command_parser().parse_args(list(words))
    return None


def refuse_a_lone_process() -> None:
    """On CPUs `accelerate launch` starts a single process, however many a configuration asks for, and is silent."""
    if any(os.environ.get(name) for name in ("LOCAL_RANK", *_SIZES)) or not (launcher := find_launcher()):
        return
    options = launcher.options
    asked, where = options.num_processes, "--num_processes"
    if asked is None and (path := _configuration(options)):
        from accelerate.commands.config import load_config_from_file

        found = load_config_from_file(path)
        asked, where = found.num_processes, f"{path}, distributed_type {str(found.distributed_type).split('.')[-1]}"
    if (asked or 1) > 1:
        script = launcher.words.index(options.training_script)
        own = [word for word in launcher.words[:script] if word not in ("--cpu", "--use_cpu")]
        command = shlex.join([*launcher.command, "--multi_gpu", *own, *launcher.words[script:]])
        raise UserError(f"{asked} processes were asked for ({where}), but accelerate started one. What starts them, on "
                        f"CPUs too: {command}")


def _configuration(options: argparse.Namespace) -> str | None:
    """The file that `accelerate launch` takes for what its options do not say."""
    if options.config_file is not None or options.cpu:
        return options.config_file
    from accelerate.commands.config import default_config_file

    return default_config_file if os.path.isfile(default_config_file) else None


# Devices.

def wants_cpu() -> bool:
    """Whether this process computes on a CPU. An Apple GPU must be asked for, however the process was started."""
    asked = os.environ.get("ACCELERATE_TORCH_DEVICE")
    if asked is not None:
        return torch.device(asked).type == "cpu"
    return _is_true("ACCELERATE_USE_CPU") or not torch.cuda.is_available()


def refuse_unusable_device() -> None:
    name = os.environ.get("ACCELERATE_TORCH_DEVICE")
    if name is None:
        return
    try:
        kind = torch.empty(0, device=name).device.type
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:
        raise UserError(f"ACCELERATE_TORCH_DEVICE is {name}, which cannot be used ({_first_line(error)}). Without it a "
                        f"GPU is taken that torch can use, else the CPU.") from None
    refuse_device_kind(kind)


def refuse_device_kind(kind: str) -> None:
    if kind not in ("cpu", "cuda", "mps"):
        raise UserError(f"accelerate chose the device {kind}; used are cpu, cuda and mps. With "
                        f"ACCELERATE_TORCH_DEVICE=cpu it is the CPU; with USE_TORCH_XLA=0 torch_xla is left alone.")


def refuse_other_state() -> None:
    """accelerate keeps one state a process: an Accelerator made before decides for all that follow."""
    precision = AcceleratorState._shared_state.get("_mixed_precision", "no")
    plugin = AcceleratorState._shared_state.get("dynamo_plugin")
    if precision != "no" or (plugin is not None and plugin.backend.value != "NO"):
        raise UserError(f"This process has an Accelerator with mixed_precision {precision} and dynamo_backend "
                        f"{plugin.backend.value.lower() if plugin else 'no'}, which would change all models after it. "
                        f"Call make_accelerator first; impl.dtype and impl.compile do what these would.")


def idle_devices(device: torch.device, processes: int) -> Iterator[str]:
    """A line for each GPU, or kind of GPU, that the machine has and this run leaves alone."""
    settings = {name: os.environ.get(name, "false") for name in ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE")}
    asked = [f"{name}={value}" for name, value in settings.items() if value.lower() != "false"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        if device.type == "cpu" and asked:
            yield f"a GPU is left idle, since accelerate's configuration or the environment says {', '.join(asked)}"
        elif device.type == "cuda" and count > 1 and processes == 1:
            yield (f"{count} GPUs are here, and one process uses one of them. What uses all: make … NPROC={count}, or "
                   f"accelerate launch --multi_gpu --num_processes {count} {shlex.join(sys.argv)}. With "
                   f"CUDA_VISIBLE_DEVICES=0 nothing is said")
    elif device.type == "cpu" and not asked and has_nvidia_gpu():
        if torch.version.cuda is not None:
            yield (f"an NVIDIA GPU or driver is here, and torch {torch.__version__} cannot use it: {why_no_cuda()}; "
                   f"the run goes on on the CPU")
        elif torch.version.hip is None:
            yield (f"an NVIDIA GPU is here, and torch {torch.__version__} was built without CUDA; the run goes on on "
                   f"the CPU. https://pytorch.org/get-started/locally says how to install one that uses it")
    elif device.type == "cpu" and not asked and torch.backends.mps.is_available():
        yield ("Apple's GPU is left idle, since nothing here was ever measured on one; ACCELERATE_TORCH_DEVICE=mps "
               "takes it")


def idle_cores(device: torch.device, processes: int) -> Iterator[str]:
    """accelerate's launcher gives a process a single thread, unless told to take the CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type != "cpu" or processes > 1 or cores == 1 or torch.get_num_threads() > 1:
        return
    launcher = find_launcher()
    if launcher and "OMP_NUM_THREADS" not in launcher.environment \
            and launcher.options.num_cpu_threads_per_process is None:
        yield (f"accelerate's launcher lets this process use one of {cores} cores. What uses all: accelerate launch "
               f"--num_cpu_threads_per_process {cores} …, or no launcher")


def has_nvidia_gpu() -> bool:
    """A device or its driver, not hidden on purpose."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    return Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia").exists()


def why_no_cuda() -> str:
    """torch's own reason."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return _first_line(error)
    return "it finds none"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def tell(accelerator: Accelerator, wishes: dict[str, str], impl: ImplConfig | None) -> None:
    """What is asked for or here, and not done or used: each once, by rank 0."""
    device, processes = accelerator.device, accelerator.num_processes
    for line in (unmet(wishes, impl, device), *idle_devices(device, processes), *idle_cores(device, processes)):
        if line and line not in _told and accelerator.is_main_process:
            _told.add(line)
            print(f"note: {line}", file=sys.stderr, flush=True)
