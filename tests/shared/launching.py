"""Several processes, really launched."""

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import small
from safetensors.torch import load_file

STEPS = 24

SAVE_STEPS = 5

OURS = ("ACCELERATE_", "FSDP_", "TOOLKIT_", "TORCHELASTIC_", "PET_", "MASTER_", "SLURM_", "GLOO_")

FEW_SECONDS = 60
"""Nobody waits in vain; the machine may be busy, though."""


class Launch:
    """A launcher and all that it starts. Workers lead sessions of their own: a mark in the environment finds them."""

    def __init__(self, command: list, log: Path, env: dict[str, str] | None = None):
        self.mark = f"LAUNCH_OF_A_TEST={uuid.uuid4().hex}"
        clean = {key: value for key, value in os.environ.items()
                 if not key.startswith(OURS) and key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        path = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        env = {**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **(env or {}), **dict([self.mark.split("=")])}
        self.log = log
        with open(log, "wb") as out:
            self.launcher = subprocess.Popen([str(part) for part in command], stdout=out, stderr=out, env=env,
                                             cwd=small.ROOT, start_new_session=True)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def processes(self) -> dict[int, dict[str, str]]:
        """The living ones: process id → the environment it was started with, and its command line."""
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it may just have ended
                environment = (directory / "environ").read_bytes().decode(errors="replace")
                if self.mark in environment:  # empty when it has ended and nobody has asked how
                    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    pairs = (line.partition("=") for line in environment.split("\0"))
                    found[int(directory.name)] = {"command": command, **{key: value for key, _, value in pairs}}
        return found

    def worker(self, rank: int) -> int:
        """The process of that rank."""
        return min(pid for pid, process in self.processes().items()
                   if process.get("RANK") == str(rank) and ".py" in process["command"])

    def kill_all(self) -> None:
        """As a power cut would."""
        while living := self.processes():
            for pid in living:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.launcher.wait(FEW_SECONDS)

    def wait_for(self, condition: Callable[[], bool], what: str, within: float = 120) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert self.launcher.poll() is None, f"ended before {what}:\n{self.said}"
            assert time.monotonic() < deadline, f"no {what} within {within} s:\n{self.said}"
            time.sleep(0.005)

    def wait_for_step(self, run: Path, step: int, within: float = 120) -> None:
        """Until the checkpoint of that step is there."""
        self.wait_for(lambda: (run / f"checkpoints/step-{step:08}").exists(), f"checkpoint of step {step} in {run}",
                      within)

    def ends(self, within: float = FEW_SECONDS) -> int:
        """The launcher's status; nothing that it started may outlive it."""
        try:
            code = self.launcher.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"has not ended within {within} s:\n{self.said}") from None
        deadline = time.monotonic() + 15
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self.processes(), f"outlived the launcher:\n{self.said}"
        return code


ACCUMULATED = {"impl": {"micro_batch_size": 3, "dtype": "fp32"}}
"""In uneven parts, whatever the number of processes."""


def pretraining(root: Path, name: str, family: str = "bert", **changes) -> Path:
    """A configuration of a few seconds, without dropout: what is drawn for it depends on the rank."""
    values = {
        "output_dir": str(root / name), "data_dir": str(root / "data"), "seed": 3,
        "corpus": {"sources": [str(root / "corpus")], "validation_share": 0.2, "min_characters": 20},
        "tokenizer": small.write_spec(root / "specs", "wordpiece" if family == "bert" else "bytes"),
        "model": {"preset": f"{family}-tiny", "max_position_embeddings": 64, "dropout": 0.0},
        "training": {"max_steps": STEPS, "batch_size": 16, "logging_steps": 4, "save_steps": SAVE_STEPS,
                     "eval_steps": 10, "optimizer": "adamw"},
        "impl": {"dtype": "fp32"},
    }
    values |= {"masking": {"max_seq_length": 48}, "eval_rows": 15} if family == "bert" else {"block_size": 48}
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return small.write_config(root / f"{name}.yaml", values)


def assert_same_course(found: Path, expected: Path, tolerance: float = 1e-4) -> None:
    """The same lines in metrics.jsonl, none missing and none twice, and the same result, within rounding."""
    one, other = small.records(found), small.records(expected)
    assert [(record["step"], sorted(record)) for record in one] == [(record["step"], sorted(record))
                                                                    for record in other]
    for line, expectation in zip(one, other, strict=True):
        assert line == pytest.approx(expectation, rel=tolerance)
    results = [{key: value for key, value in small.read_json(directory / "result.json").items()
                if key not in small.TIMING} for directory in (found, expected)]
    assert results[0] == pytest.approx(results[1], rel=tolerance)


def difference(found: Path, expected: Path) -> float:
    """Largest over the tensors of |found − expected| / |expected|, keys' biases left out: no loss depends on them, so
    that their gradients are rounding, which AdamW makes as large as any.
    """
    one, other = load_file(found), load_file(expected)
    assert one.keys() == other.keys()
    differences = {}
    for name, tensor in other.items():
        if name.endswith(("key.bias", "k_proj.bias")):
            continue
        ours = one[name]
        if name.endswith("c_attn.bias"):  # queries, keys and values side by side
            ours, tensor = (part.reshape(3, -1)[[0, 2]] for part in (ours, tensor))
        differences[name] = float((ours - tensor).norm() / tensor.norm().clamp(min=1e-2))
    return max(differences.values())


def group(script: Path, arguments: list[str], directory: Path, hooks: Sequence[tuple | None] = (None, None),
          within: float = 120, env: dict[str, str] | None = None) -> list[small.Finished]:
    """Processes that share a training, one for each hook of `small.run_recipe`, without a launcher: of a launch each
    imports everything for itself, four to six seconds.
    """
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(len(hooks)),
              "LOCAL_WORLD_SIZE": str(len(hooks)), "TOOLKIT_NPROC": str(len(hooks)), "ACCELERATE_USE_CPU": "true",
              **(env or {})}
    begun = [small.Program(script, arguments, directory / f"rank-{rank}",
                           {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, hook)
             for rank, hook in enumerate(hooks)]
    return [program.ends(within) for program in begun]


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
