"""How a recipe starts and ends: mistakes as one line, signals as exit codes, process groups taken down in order."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence

from toolkit import config, openmp
from toolkit.errors import Diverged, Interrupted, PeerLost, UserError
from toolkit.remedy import command_apart, remedy
from toolkit.run.refused import forget_runs
from toolkit.shown import guard_terminal, on_terminal


def options_first(settings: type, description: str, positional: Sequence[str] = ()) -> None:
    """Where a recipe is started: `--help`, and mistakes in its options, are told before it imports what takes seconds.

    The arguments are those of `config.parse`.
    """
    guard_terminal()
    try:
        config.parse(settings, sys.argv[1:], description, positional)
    except UserError as error:  # which every process of a group finds
        sys.exit(_refused(error) if _speaks() else 2)


def _speaks() -> bool:
    """Whether this process says what all of its group have to say."""
    return os.environ.get("RANK", "0") == "0"


def _refused(error: UserError) -> int:
    """Tell what is wrong with the input, of which no run is left; the exit code."""
    forget_runs()
    told = on_terminal(f"error: {error}{remedy(str(error), sys.argv[1:])}")
    print(command_apart(told, shutil.get_terminal_size().columns) if sys.stderr.isatty() else told, file=sys.stderr)
    return 2


def run(main: Callable[[list[str]], object]) -> None:
    """Call `main(argv)` and exit:

    0 done; 2 wrong input; 3 the loss is no number; 4 another process of the group is gone; 128 + n stopped by signal
    n after saving: 129 SIGHUP, 130 Ctrl-C, 138 SIGUSR1, 143 SIGTERM. After 4 and 128 + n the same command continues.
    """
    openmp.start_again_if_busy()
    guard_terminal()
    code, together = 0, True
    if "transformers" in sys.modules:  # its bars and load reports would bury ours; missing weights are our errors
        logging = sys.modules["transformers"].logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        main(sys.argv[1:])
    except Interrupted as stop:  # on every rank at the same step
        if _speaks():
            print(f"\n{stop}", file=sys.stderr)
        code = stop.exit_code
    except UserError as error:
        code, together = _refused(error), False
    except Diverged as error:
        print(f"error: {on_terminal(error)}", file=sys.stderr)
        code, together = 3, False
    except KeyboardInterrupt:
        if _speaks():
            print("\nstopped; what was finished is kept, the same command continues", file=sys.stderr)
        code, together = 130, False
    except _out_of_memory() as error:
        print(f"error: the GPU's memory is full ({str(error).splitlines()[0]}). Evaluations take training.batch_size "
              f"rows at once: lower it, or give the card to this run alone. What was saved is kept.", file=sys.stderr)
        code, together = 2, False
    except (PeerLost, RuntimeError) as error:
        lost = error if isinstance(error, PeerLost) else _lost_peer(error)
        if lost is None:
            raise
        print(f"error: {lost}", file=sys.stderr)
        code, together = 4, False
    sys.stdout.flush()
    if _in_process_group():
        if not together:
            sys.stderr.flush()
            os._exit(code)  # taking the group down would wait for the others, who are told by its going
        # Leaving without this ended about one two-process run in five in SIGABRT, after training had succeeded.
        torch = sys.modules["torch"]
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    sys.exit(code)


def _out_of_memory() -> tuple:
    """The exception for `except`, where torch is loaded at all."""
    torch = sys.modules.get("torch")
    return (torch.OutOfMemoryError,) if torch is not None else ()


def _lost_peer(error: RuntimeError) -> PeerLost | None:
    distributed = sys.modules.get("toolkit.training.impl.distributed")
    if distributed is None or not _in_process_group() or not distributed.is_lost_peer(error):
        return None
    return PeerLost(int(os.environ.get("RANK", "0")), error)


def _in_process_group() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized()
