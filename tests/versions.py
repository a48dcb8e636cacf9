"""`make test-versions`: the toolkit under every torch and transformers that setup.cfg admits, in fresh environments.

Gradients, a short pretraining, a fine-tuning and a resume are run with the lowest of everything, with every minor of
torch beside the newest transformers, and with every minor of transformers beside the torch of constraints.txt.
setup.cfg's range is what passed; a version beyond it is tried by its name: `ARGS="--only torch-2.16"`. The index's
wheels of torch are for CUDA and take 5 GB, one at a time; UV_TORCH_BACKEND=cpu takes small ones from PyTorch's own
index.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from configparser import ConfigParser
from dataclasses import asdict, dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv-versions"  # environments, the wheels they are made of and what was compiled in them
RESULTS = ROOT / "runs/versions"
QUICK = ["tests/test_compiled_gradients.py", "tests/test_presets.py",
         "tests/test_models.py::test_checkpoints_load_where_the_toolkit_is_not",
         "tests/test_precision.py::test_gradient_checkpointing_changes_nothing",
         "tests/test_trainer.py::test_resumed_is_unbroken",
         "tests/test_recipes_pretrain.py::test_killed_once_from_outside_and_continued",
         "tests/test_recipes_finetune.py::test_finetune_text_gives_every_arm_on_every_seed",
         "tests/test_recipes_finetune.py::test_finetune_series_gives_every_arm"]
WHOLE = ["-n", "2", "--dist", "loadfile"]
BOUNDS = {"lowest": "lowest-direct", "newest": "highest"}
TOLD = ("torch", "transformers", "accelerate", "datasets", "numpy")


@dataclass
class Check:
    """One environment and what is run in it; `error` says why nothing was."""

    name: str
    tests: list[str]
    pins: list[str] = field(default_factory=list)
    resolution: str = "highest"
    versions: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def directory(self) -> Path:
        return FOLDER / self.name

    @property
    def python(self) -> str:
        return str(self.directory / "bin/python")


def requirements(extra: str | None = None) -> list[str]:
    """What setup.cfg asks for, with those of an extra."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = parser["options"]["install_requires"] + (parser["options.extras_require"][extra] if extra else "")
    return [line for line in listed.splitlines() if line]


def minors(package: str) -> list[str]:
    """The minors that setup.cfg admits: `torch>=2.9,<2.12` → 2.9, 2.10, 2.11. Both bounds are of one major."""
    (wanted,) = (Requirement(line) for line in requirements() if Requirement(line).name == package)
    bounds = {part.operator: Version(part.version) for part in wanted.specifier}
    lowest, beyond = bounds[">="], bounds["<"]
    return [f"{lowest.major}.{minor}" for minor in range(lowest.minor, beyond.minor)]


def constrained(package: str) -> str:
    """Its version in constraints.txt."""
    return re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)[1]


def called(name: str, tests: list[str]) -> Check:
    """The check of that name: `lowest` and `newest` of everything, or a minor such as `torch-2.9`."""
    if name in BOUNDS:
        return Check(name, tests, resolution=BOUNDS[name])
    package, _, minor = name.rpartition("-")
    pins = [f"{package}=={minor}.*"]
    return Check(name, tests, pins if package == "torch" else [*pins, f"torch=={constrained('torch')}"])


def checks(only: list[str], suite: bool) -> list[Check]:
    minor = [f"{package}-{minor}" for package in ("torch", "transformers") for minor in minors(package)]
    names = only or (list(BOUNDS) if suite else ["lowest", *minor])
    return [called(name, WHOLE if suite else QUICK) for name in names]


def uv(*arguments: str) -> subprocess.CompletedProcess:
    """uv with a cache of ours. What pip is told about wheels at hand holds for it, too."""
    at_hand = ",".join(os.environ.get("PIP_FIND_LINKS", "").split())
    env = {"UV_LINK_MODE": "hardlink", **({"UV_FIND_LINKS": at_hand} if at_hand else {}), **os.environ,
           "UV_CACHE_DIR": str(FOLDER / "cache")}
    return subprocess.run(["uv", *arguments], env=env, capture_output=True, text=True, check=False)


def set_up(check: Check) -> None:
    """The environment, and which versions it holds."""
    uv("venv", "--clear", "--python", sys.executable, str(check.directory))
    wanted = requirements("test") if check.tests is WHOLE else [*requirements(), "pytest"]
    beyond = {Requirement(pin).name for pin in check.pins}  # a pin may lie beyond the range
    wanted = [line for line in wanted if Requirement(line).name not in beyond] + check.pins
    done = uv("pip", "install", "--python", check.python, "--resolution", check.resolution, *wanted)
    if done.returncode:
        check.error = done.stderr.strip()
        return
    listed = json.loads(uv("pip", "list", "--python", check.python, "--format", "json").stdout)
    check.versions = {package["name"]: package["version"] for package in listed}


def run(check: Check) -> None:
    """pytest in the environment; the toolkit is the checkout's."""
    report = RESULTS / f"{check.name}.xml"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "",
           "TORCHINDUCTOR_CACHE_DIR": str(FOLDER / "compiled"),
           "PYTHONDONTWRITEBYTECODE": "",  # else every process of a test compiles the libraries anew
           "PATH": f"{check.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    started = time.perf_counter()
    with open(RESULTS / f"{check.name}.log", "w", encoding="utf-8") as log:
        subprocess.run([check.python, "-m", "pytest", "-p", "no:cacheprovider", "--show-capture=no",
                        f"--junitxml={report}", *check.tests],
                       cwd=ROOT, env=env, stdout=log, stderr=log, check=False)
    check.seconds = round(time.perf_counter() - started, 1)
    if not report.exists():
        check.error = f"pytest did not run: see {log.name}"
        return
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            check.failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in kinds:
            check.skipped += 1
        else:
            check.passed += 1
    report.unlink()


def remove(check: Check) -> None:
    """The environment, and of the cache what no other one needs: a torch that is not constraints.txt's."""
    shutil.rmtree(check.directory, ignore_errors=True)
    large = [name for name in check.versions if re.match(r"(torch|triton|nvidia-.*|cuda-.*)$", name)]
    if large and Version(check.versions["torch"]).public != constrained("torch"):
        uv("cache", "clean", *large)


def write(check: Check) -> None:
    """Into versions.json, beside what others found."""
    path = RESULTS / "versions.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found[check.name] = {key: value for key, value in asdict(check).items() if key not in ("name", "tests", "pins")}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def tell(check: Check) -> None:
    """One row of the table, and what failed."""
    versions = [check.versions.get(name, "-").split("+")[0] for name in TOLD]
    row = [check.name, *versions, str(check.passed), str(len(check.failed)), f"{check.seconds:.0f}"]
    print("".join(cell.ljust(width) for cell, width in zip(row, WIDTHS, strict=True)), flush=True)
    for line in [*check.failed, *check.error.splitlines()[-6:]]:
        print(f"    {line}", flush=True)


WIDTHS = (20, *(max(9, len(name) + 2) for name in TOLD), 8, 8, 8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME",
                        help="such as lowest torch-2.9 transformers-5.8")
    parser.add_argument("--suite", action="store_true",
                        help="all tests; alone: at the lowest and at the newest of everything")
    parser.add_argument("--keep", action="store_true", help="keep the environments, 1 to 6 GB each")
    options = parser.parse_args()
    if shutil.which("uv") is None:
        parser.error("uv is not there: python -m pip install uv")
    RESULTS.mkdir(parents=True, exist_ok=True)
    found = checks(options.only, options.suite)
    print("".join(cell.ljust(width) for cell, width in zip(
        ("", *TOLD, "passed", "failed", "seconds"), WIDTHS, strict=True)), flush=True)
    for check in found:
        try:
            set_up(check)
            if not check.error:
                run(check)
        finally:
            if not options.keep:
                remove(check)
        write(check)
        tell(check)
    return int(any(check.failed or check.error for check in found))


if __name__ == "__main__":
    sys.exit(main())
