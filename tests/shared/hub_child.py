"""A process that knows one hub only, started once: HF_ENDPOINT is read when huggingface_hub is imported.

It reads orders from its standard input, a line of JSON each, and answers each by one. Waiting between attempts is
noted, not done.
"""

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import time
import traceback
import types
from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass
class Reply:
    answer: object
    """A recipe's exit status; what a program left in `answer`."""
    out: str
    err: str
    waits: list[float]
    """Seconds it would have waited between attempts."""
    seconds: float


class Child:
    """The process, its working directory being `directory`; what libraries log is in `directory/log.txt`."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.log = directory / "log.txt"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())], env=environment, cwd=directory, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=open(self.log, "w"), text=True)

    def ask(self, **order) -> Reply:
        """recipe and argv, or program; env: for this order alone; seconds: (connect, answer) limits of requests."""
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        assert reply, self.log.read_text()
        return Reply(**json.loads(reply))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def run_recipe(recipe: str, argv: list[str]) -> int:
    from toolkit import cli

    sys.argv = [recipe, *argv]
    spec = importlib.util.spec_from_file_location(recipe, RECIPES / f"{recipe}.py")
    sys.modules[recipe] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        cli.run(module.main)
    except SystemExit as stop:
        return stop.code
    raise AssertionError("cli.run exits")


def run_program(program: str) -> object:
    names: dict = {}
    exec(program, names)
    return names["answer"]


def serve() -> None:
    import huggingface_hub.utils._http as http

    from toolkit import hub
    from toolkit.publishing import push

    waits: list[float] = []
    http.time = push.time = types.SimpleNamespace(sleep=waits.append, monotonic=time.monotonic)
    replies = os.fdopen(os.dup(1), "w")
    own, limits = dict(os.environ), (hub.CONNECT_SECONDS, hub.ANSWER_SECONDS)
    for line in sys.stdin:
        order = json.loads(line)
        waits.clear()
        hub._fetched.cache_clear()
        hub.CONNECT_SECONDS, hub.ANSWER_SECONDS = order.get("seconds", limits)
        os.environ.clear()
        os.environ.update(own | order.get("env", {}))
        out, err, answer = io.StringIO(), io.StringIO(), None
        began = time.monotonic()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                answer = (run_recipe(order["recipe"], order["argv"]) if "recipe" in order
                          else run_program(order["program"]))
            except BaseException:  # noqa: BLE001 - told to the test
                traceback.print_exc()
        replies.write(json.dumps({"answer": answer, "out": out.getvalue(), "err": err.getvalue(), "waits": waits,
                                  "seconds": time.monotonic() - began}) + "\n")
        replies.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(RECIPES))  # recipes import each other
    serve()
