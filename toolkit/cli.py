"""How a recipe starts and ends: mistakes as one line, signals as exit codes, process groups taken down in order."""

import sys
from collections.abc import Callable

from toolkit.errors import Interrupted, UserError


def run(main: Callable[[list[str]], object]) -> None:
    """Call `main(argv)` and exit: 0 done, 2 wrong input, 130 or 143 stopped by Ctrl-C or SIGTERM after saving."""
    code = 0
    if "transformers" in sys.modules:  # its bars and load reports would bury ours; missing weights are our errors
        logging = sys.modules["transformers"].logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        code = stop.exit_code
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, the same command continues", file=sys.stderr)
        code = 130
    if code != 2:
        _end_process_group()
    sys.stdout.flush()
    sys.exit(code)


def _end_process_group() -> None:
    # Leaving without this ended about one two-process run in five in SIGABRT, after training had succeeded.
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
