"""How threads wait is said in time, and a run beside other work keeps its share."""

import os
import subprocess
import sys
import time

import pytest
import small

from toolkit import openmp

RECIPE = """
import os, sys
import {first}
from toolkit import cli
os.getloadavg = lambda: ({load}, 0.0, 0.0)

def main(argv):
    print(os.getpid(), os.environ.get("GOMP_SPINCOUNT"), *argv)

if __name__ == "__main__":
    print("started")
    cli.run(main)
"""


def told(tmp_path, first: str, load: float, **environment: str) -> list[str]:
    """What a recipe prints that imports `first` before the toolkit, on a machine of such a load with two threads."""
    script = tmp_path / "recipe.py"
    script.write_text(RECIPE.format(first=first, load=load))
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-u", str(script), "--seed", "a b"], check=True, capture_output=True,
                          env={**clean, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(small.ROOT), **environment},
                          text=True)
    return done.stdout.split("\n")


@pytest.mark.parametrize(("first", "load", "starts"), [("json", 9e9, 1), ("torch", 9e9, 2), ("torch", 0.0, 1)])
def test_threads_spin_briefly(tmp_path, first, load, starts):
    """Where torch comes first, a busy machine is worth a second start: with the same words, by the same process."""
    *started, last, _ = told(tmp_path, first, load)
    assert started == ["started"] * starts
    assert last.split()[1:] == [openmp.SPINS, "--seed", "a", "b"]


def test_what_the_user_said_stays(tmp_path):
    assert told(tmp_path, "torch", 9e9, GOMP_SPINCOUNT="7")[1].split()[1] == "7"
    assert told(tmp_path, "torch", 9e9, OMP_WAIT_POLICY="PASSIVE")[1].split()[1] == "None"


def test_make_says_it_before_python_starts():
    assert f"export GOMP_SPINCOUNT ?= {openmp.SPINS}\n" in (small.ROOT / "Makefile").read_text()


STEPS = """
import sys, time, torch
left, right, bias = torch.randn(768, 128), torch.randn(128, 128), torch.randn(128)
def work(seconds):
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        torch.addmm(bias, left, right).relu_().add_(1.0)
        count += 1
    return count / seconds
work(0.5)
print("ready", flush=True)
for line in sys.stdin:
    print(work(2.0), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_beside_busy_processes_a_run_keeps_its_share():
    """As many busy processes as there are cores, and as many threads: the fair share is one half. By default it is a
    fifth and less, and varies.
    """
    clean = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    speeds = {}
    run = subprocess.Popen([sys.executable, "-c", STEPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                           env={**clean, "OMP_NUM_THREADS": str(os.cpu_count()), "GOMP_SPINCOUNT": openmp.SPINS})
    assert run.stdout.readline() == "ready\n"
    for others in (0, os.cpu_count()):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
        time.sleep(0.5)
        found = []
        for _ in range(3):
            run.stdin.write("\n")
            run.stdin.flush()
            found.append(float(run.stdout.readline()))
        speeds[others] = max(found)
        for process in busy:
            process.kill()
            process.wait()
    run.kill()
    run.wait()
    assert speeds[os.cpu_count()] > 0.3 * speeds[0], speeds
