"""The process group: formed as it was launched, summed over, waited in, and never left hanging."""

import datetime
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from toolkit.errors import PeerLost, UserError
from toolkit.training.impl import launch
from toolkit.training.impl.precision import ImplConfig
from toolkit.training.impl.sharding import take_over_from_accelerate

_PREPARATION_TIMEOUT = datetime.timedelta(days=7)
"""While rank 0 prepares a corpus. If it dies the others know at once; time alone says nothing."""


def make_accelerator(timeout: float = 600, impl: ImplConfig | None = None) -> Accelerator:
    """The process group as it was launched; refuses the launches that silently train several copies or just one.

    timeout: seconds after which a process that hangs, or whose cable was cut, is given up; one that died is noticed
    at once. impl: what it does already of what accelerate's configuration asks for is not told again.
    """
    launch.refuse_a_lone_process()
    launch.refuse_unusable_device()
    launch.refuse_other_state()
    wishes = launch.take_wishes()
    take_over_from_accelerate()
    asked = launch.processes_asked_for()
    accelerator = _form(asked, datetime.timedelta(seconds=timeout))
    launch.refuse_device_kind(accelerator.device.type)
    if asked != accelerator.num_processes:
        raise UserError(f"{asked} processes were asked for, but the process group has {accelerator.num_processes}. "
                        f"Launch with `make … NPROC={asked}` or `accelerate launch --multi_gpu --num_processes "
                        f"{asked}`; `--cpu --num_processes` starts one process only.")
    launch.tell(accelerator, wishes, impl)
    if accelerator.num_processes > 1 and not _groups:
        _groups.append(torch.distributed.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout)))
    return accelerator


_told: WeakKeyDictionary[Accelerator, set[str]] = WeakKeyDictionary()


def tell_once(accelerator: Accelerator, name: str, line: str, new: str = "") -> None:
    """Print `name: line`, unless a training of the same process has said so before; new: what each must say."""
    told = _told.setdefault(accelerator, set())
    if new or line not in told:
        told.add(line)
        accelerator.print(f"{name}: {line}{new}")


def _form(asked: int, timeout: datetime.timedelta) -> Accelerator:
    """The Accelerator; it wraps nothing in autocast and compiles nothing: `impl` does both."""
    cpu = launch.wants_cpu()
    try:
        _meet_anew(timeout, "gloo" if cpu else "nccl")
        return Accelerator(cpu=cpu, mixed_precision="no", dynamo_backend="no",
                           kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)])
    except ValueError as error:
        if asked == 1:
            raise UserError(f"accelerate cannot do what its configuration or environment says: {error}") from None
        raise UserError(f"{asked} processes were asked for, but no process group was formed ({error}). Launch with "
                        f"`make … NPROC={asked}` or `accelerate launch --multi_gpu --num_processes {asked}`."
                        ) from None  # WORLD_SIZE without an address to meet at
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise PeerLost(int(os.environ.get("RANK", "0")), error) from None


def _meet_anew(timeout: datetime.timedelta, backend: str) -> None:
    """After a restart by the launcher, whose store still holds the addresses of the processes that are gone."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt != "0" and not torch.distributed.is_initialized():
        store, rank, world = next(torch.distributed.rendezvous("env://", timeout=timeout))
        torch.distributed.init_process_group(
            backend, timeout=timeout, rank=rank, world_size=world,
            store=torch.distributed.PrefixStore(f"attempt-{attempt}", store))


_groups: list = []
"""The group by which hosts talk, once it is made: on GPUs the default one would wait for their work."""


def share(total: int, rank: int, world: int) -> range:
    """The contiguous part of range(total) that is rank's; parts differ by at most one."""
    return range(total * rank // world, total * (rank + 1) // world)


def reduce_sums(accelerator: Accelerator, sums: dict[str, float]) -> dict[str, float]:
    """Add up each value over all processes, in float64; by the hosts, so that no GPU has to finish its work first."""
    if accelerator.num_processes == 1:
        return sums
    values = torch.tensor(list(sums.values()), dtype=torch.float64)
    torch.distributed.all_reduce(values, group=_groups[0])
    return dict(zip(sums, values.tolist(), strict=True))


def from_main(accelerator: Accelerator, value):
    """Rank 0's `value`, on every rank."""
    if accelerator.num_processes == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0, group=_groups[0])
    return values[0]


@contextmanager
def main_process_first(accelerator: Accelerator) -> Iterator[None]:
    """Rank 0 goes through the block alone, then the others; however long it takes, and none waits for one that failed.

    A barrier would give up after the process group's timeout, and preparing a corpus may take hours.
    """
    if accelerator.num_processes == 1:
        yield
        return
    store, name = torch.distributed.distributed_c10d._get_default_store(), f"main-first-{next(_blocks)}"
    if accelerator.is_main_process:
        try:
            yield
        except BaseException:
            store.set(name, "failed")
            raise
        store.set(name, "done")
        return
    try:
        store.wait([name], _PREPARATION_TIMEOUT)
        outcome = store.get(name)
    except torch.distributed.DistError as error:
        raise PeerLost(accelerator.process_index, error) from None
    if outcome == b"failed":
        raise PeerLost(accelerator.process_index, "rank 0 could not prepare the data")
    yield


_blocks = itertools.count()


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error says no more than that another process is gone, or does not answer."""
    said = str(error)  # gloo's time-out within a backward pass does not give its name
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in said or "pair closure" in said))
