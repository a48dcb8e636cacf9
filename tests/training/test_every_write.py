"""Runs that die, or find the disk full, at every call that changes the disk: resumed to the bit, or told why not.

The calls are met where Python announces them (`sys.addaudithook`), in a forked process: each opening for writing,
renaming, making and removing below the run's directory, and each fsync. After it, the same command ends the run, which
must be as if nothing had happened, with nothing left over.
"""

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import small
import torch
from toy import Toy

from toolkit.errors import UserError
from toolkit.run.directory import Run
from toolkit.tasks.base import fit
from toolkit.training import trainer as loop
from toolkit.training.task import TrainingConfig

CHANGING = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link", "os.symlink"}
CONFIG = TrainingConfig(max_steps=4, batch_size=4, logging_steps=1, save_steps=2, eval_steps=2, save_total_limit=1,
                        optimizer="muon")


class Measured(Toy):
    """Whose evaluation is of the weights, and better at the first than at the second."""

    def evaluate(self, model, accelerator, precision):
        return {"loss": float(sum(tensor.double().abs().sum() for tensor in model.state_dict().values()))}


def whole_run(directory: Path) -> None:
    run = Run(directory).open(CONFIG)
    run.write_manifest(data={"rows": 4})
    fit(lambda: Measured(), CONFIG, loop.ImplConfig(dtype="fp32"), run, small.make_accelerator(), 7, "toy")


def in_a_child(directory: Path, prepare: Callable[[], list[int] | None] = lambda: None) -> tuple[int, str]:
    """Status and what it said: 0 done, 2 a UserError, 1 anything else, below 0 a signal."""
    said = directory.with_suffix(".said")
    child = os.fork()
    if not child:
        code = 1
        try:
            output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            calls = prepare()
            whole_run(directory)
            os.write(1, f"\n{calls and calls[0]}".encode())
            code = 0
        except UserError as error:
            os.write(2, f"error: {error}".encode())
            code = 2
        except BaseException:  # noqa: BLE001 - it must not go on as the test
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.read_text(errors="replace")


def at_call(directory: Path, number: int, act: Callable[[], object]) -> Callable[[], list[int]]:
    """To be called in a child: from then on `act` at the call of that number which changes the directory. Gives what
    counts them.
    """
    def prepare() -> list[int]:
        seen, sync = [0], os.fsync

        def met(event: str, args: tuple) -> None:
            writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if not (writes or event in CHANGING or event == "toolkit.fsync"):
                return
            if event != "toolkit.fsync" and not any(str(arg).startswith(str(directory)) for arg in args):
                return
            seen[0] += 1
            if seen[0] == number:
                act()

        def synced(descriptor: int) -> None:
            sys.audit("toolkit.fsync", descriptor)
            sync(descriptor)

        os.fsync = synced
        sys.addaudithook(met)
        return seen

    return prepare


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_space() -> None:
    raise OSError(28, "No space left on device")


def state_of(directory: Path) -> dict:
    """All that a run leaves: weights, figures, and the names of everything."""
    result = {key: value for key, value in small.read_json(directory / "result.json").items()
              if key not in small.TIMING}
    last = directory / "checkpoints/step-00000004"
    states = torch.load(last / "optimizer.pt", weights_only=True)
    moments = [tensor for state in states for values in state["state"].values() for tensor in values.values()
               if torch.is_tensor(tensor)]
    return {"result": result, "records": small.records(directory), "sum": float(sum(map(torch.sum, moments))),
            "kept": small.digest(directory / "model/model.safetensors"),
            "last": small.digest(last / "model.safetensors"),
            "names": sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[dict, int]:
    """What a run leaves, and how many calls change the disk in it."""
    directory = tmp_path_factory.mktemp("unbroken") / "run"
    whole_run(directory)  # here: what a process measures and imports at its first training, no child has to do again
    other = directory.with_name("counted")
    calls = int(in_a_child(other, at_call(other, 0, die))[1].split()[-1])
    assert calls > 50, "fewer calls than one save makes"
    return state_of(directory), calls


def check(directory: Path, number: int, act: Callable[[], object], reference: dict) -> None:
    code, said = in_a_child(directory, at_call(directory, number, act))
    if act is die:
        assert code == -signal.SIGKILL, (number, said)
    else:
        assert code == 0 or code == 2 and "the disk is full" in said and "Traceback" not in said, (number, said)
    code, said = in_a_child(directory)
    assert code == 0, (number, said)
    assert state_of(directory) == reference, number


ACTS = {"killed": die, "full": no_space}


@pytest.mark.parametrize("act", ["killed", pytest.param("full", marks=pytest.mark.faults)])
def test_at_some_calls(tmp_path, unbroken, act):
    reference, calls = unbroken
    for number in [*range(3, calls + 1, calls // 6), calls - 8]:  # that one: while older checkpoints are removed
        check(tmp_path / f"run-{number}", number, ACTS[act], reference)


@pytest.mark.hostile
@pytest.mark.parametrize("act", ACTS)
def test_at_every_call(tmp_path, unbroken, act):
    reference, calls = unbroken
    for number in range(1, calls + 1):
        check(tmp_path / f"run-{number}", number, ACTS[act], reference)


@pytest.mark.parametrize("most", [1000, 100_000, 120_000])
def test_files_may_not_become_large(tmp_path, unbroken, most):
    """`ulimit -f`, at different writes: of the configuration, of the weights, of the optimisers' states."""
    reference, _ = unbroken
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    code, said = in_a_child(tmp_path / "run", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard)))
    assert code == 2 and "ulimit -f" in said and "Traceback" not in said, said
    code, said = in_a_child(tmp_path / "run")
    assert code == 0, said
    assert state_of(tmp_path / "run") == reference
