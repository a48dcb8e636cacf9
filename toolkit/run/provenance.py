"""Where a run comes from: versions, machine, command; no path, user or host of it."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from toolkit.bars import in_notebook

_LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "evaluate", "numpy", "scikit-learn")


def without_machine_paths(value: Any) -> Any:
    """A copy of nested dictionaries and lists in which no text is an absolute path: what lies under the working
    directory is relative to it, of the rest the last name is left.
    """
    if isinstance(value, dict):
        return {without_machine_paths(key): without_machine_paths(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_machine_paths(entry) for entry in value]
    if not isinstance(value, str) or not value.startswith(("/", "~", "file:")):
        return value
    path = Path(value.removeprefix("file:")).expanduser()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def command_line() -> str:
    """How this process was started, for another machine to repeat."""
    if in_notebook():
        return "# from a notebook; config.yaml, beside this, has every setting"
    words = [separator.join(map(without_machine_paths, (key, value)) if separator else [without_machine_paths(key)])
             for key, separator, value in (word.partition("=") for word in sys.argv)]
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    launcher = ["accelerate", "launch", "--multi_gpu", "--num_processes", str(processes)]
    return shlex.join((launcher if processes > 1 else ["python"]) + words)


def environment() -> dict:
    """What a reader needs to know of the machine and the software; no host name, user or path."""
    import torch

    try:
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10,
                                cwd=Path(__file__).parent, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        "commit": commit,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
        "machine": {
            "processor": platform.machine(),
            "model": processor_name(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def processor_name() -> str:
    """What the processor is sold as."""
    information = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", information.read_text()) if information.exists() else None
    return found[1].strip() if found else platform.processor()
