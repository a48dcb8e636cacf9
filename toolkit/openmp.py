"""How long threads spin before they sleep, which must be said before torch is loaded.

OpenMP's threads wait for one another at the end of every operation. By default GNU's implementation lets them spin
300,000 times, some milliseconds, on the assumption that nobody else wants the core. Beside a browser or another job
they spin while the one that they wait for is not running. A thirtieth of that is enough for threads that do run:
measured on two cores, a small GPT keeps 0.41 of its speed beside two busy processes, where the default keeps 0.22 and
one half is fair, and alone it is within a few percent. Sleeping at once (OMP_WAIT_POLICY=PASSIVE) costs two fifths.
"""

import os
import sys

SPINS = "10000"
_said_too_late = False


def spin_briefly() -> None:
    """Unless the user has said how threads wait. Without effect where torch is loaded already."""
    global _said_too_late
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
        _said_too_late = "torch" in sys.modules


def start_again_if_busy() -> None:
    """Start this recipe anew where torch was loaded before it could be told how to wait, and others want the cores."""
    if not _said_too_late or sys.platform != "linux":
        return
    if sys.modules["torch"].get_num_threads() > 1 and os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
