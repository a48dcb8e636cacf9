"""On one GPU: our training loop against transformers' Trainer and nanoGPT, with the same shapes, batches and tokens.

    make bench-gpu                                          # under eight minutes; one line where there is no GPU
    make bench-gpu NANOGPT=../nanoGPT                       # a checkout of github.com/karpathy/nanoGPT
    make bench-gpu ARGS="--models gpt2 --minutes 4"

Before anything is timed, the gradients of a small GPT and a small BERT, compiled, are held against those of the same
model uncompiled: a difference ends the benchmark. Then GPT-2 (124 M) learns from batches of 16 × 1,024, BERT-Small from
512 × 128 and 128 × 128, BERT-Base from 64 × 512, in masked LM and next sentence; models, rows, AdamW and Trainer are
those of `make bench`. Contestants: ours as it comes, and uncompiled; Trainer as it comes (fp32), with bf16 and fused
AdamW, and that compiled.

Every run is a process of its own and begins with the same weights; its first third, with all compilation, is not
counted, and the GPU is waited for whenever a time is taken. A run that fails or takes too long is named below its
table, and the others go on. What decides is run first, for every shape; what no longer fits into the minutes is left
out.

nanoGPT's figure is that of its own bench.py, started within the checkout with `--batch_size=16 --block_size=1024
--real_data=False --compile=True`: GPT-2's shape without biases, 50,304 columns, bf16, the same random tokens again and
again; of 30 iterations it times the last 20, and prints milliseconds.

Writes runs/bench-gpu/bench.json after each run: tokens a second, share of the matmul peak (counting, for all, the
operations that ours takes for these tokens), peak memory, the loss at the end, seconds beside steps and in all; GPU and
versions; ratios. One round each: a few per cent are noise.
"""

from dataclasses import dataclass, field
from typing import Literal

from toolkit import cli, config


@dataclass
class BenchGpuConfig:
    output_dir: str = "runs/bench-gpu"
    models: list[Literal["gpt2", "bert-small-512", "bert-small-128", "bert-base"]] = field(
        default_factory=lambda: ["gpt2", "bert-small-512", "bert-small-128", "bert-base"])
    nanogpt: str = ""
    """A checkout of github.com/karpathy/nanoGPT, whose bench.py is run in turn. Empty: it is not measured."""
    minutes: float = 7.5
    """Of the whole. Runs that are not done by then are left out, and the table says which."""
    job: str = ""
    """For the processes that the benchmark starts."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(BenchGpuConfig, __doc__)

import copy
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from bench import (
    MarkovRows,
    MarkovTask,
    Shape,
    contest_rows,
    device,
    fastest,
    in_own_process,
    our_model,
    output_of,
    run_contestant,
    setting,
)

from toolkit.errors import UserError
from toolkit.metrics.tabulate import on_screen
from toolkit.report.ending import command, ending
from toolkit.run.files import write_json
from toolkit.run.provenance import environment
from toolkit.training.feed import as_tensors, seed_everything, to_device
from toolkit.training.impl.precision import choose
from toolkit.training.impl.settings import ImplConfig

SHAPES = {"gpt2": Shape("gpt2", 16, 1024, 36, 3e-4, windows=3),
          "bert-small-512": Shape("bert-small", 512, 128, 60, 3e-4, windows=3),
          "bert-small-128": Shape("bert-small", 128, 128, 120, 3e-4, windows=3),
          "bert-base": Shape("bert-base", 64, 512, 36, 1e-4, windows=3)}
DECISIVE, FURTHER = ("ours", "hf_bf16_compiled", "nanogpt"), ("ours_uncompiled", "hf_bf16", "hf_default")
LONGEST = 90
"""Seconds of a run, most of which a compiler may take."""
SHORTEST = 20
"""Seconds without which a run is not begun."""


def bench(settings: BenchGpuConfig) -> dict:
    """Gradients, then every contestant once; writes what is known after each, prints the tables at the end."""
    ends = time.monotonic() + 60 * settings.minutes
    if settings.nanogpt and not (Path(settings.nanogpt) / "bench.py").is_file():
        raise UserError(f"{settings.nanogpt}: has no bench.py; nanogpt is to name a checkout of "
                        f"github.com/karpathy/nanoGPT.")
    result = in_own_process(__file__, "gradients", len(SMALL) * LONGEST)
    write_json(Path(settings.output_dir) / "bench.json", result)
    refuse_wrong_gradients(result["gradients"])
    print(headline(result), flush=True)
    result |= {name: {"runs": {}, "left_out": {}} for name in settings.models}
    for name, contestant in in_turn(settings):
        result[name] = entry = compared(with_run(result[name], name, contestant, settings, ends - time.monotonic()))
        write_json(Path(settings.output_dir) / "bench.json", result)
        print(f"{name}, {contestant}: {told(entry, contestant)}", flush=True)
    for name in settings.models:
        print(f"\n{name}\n{contest_table(result[name])}")
    return result


def in_turn(settings: BenchGpuConfig) -> Iterator[tuple[str, str]]:
    for contestants in (DECISIVE, FURTHER):
        for name in settings.models:
            for contestant in contestants:
                if contestant != "nanogpt" or SHAPES[name].preset == "gpt2":
                    yield name, contestant


def with_run(entry: dict, name: str, contestant: str, settings: BenchGpuConfig, seconds_left: float) -> dict:
    """`entry` with one run more, or with the reason why there is none."""
    began, limit = time.monotonic(), min(LONGEST, seconds_left)
    try:
        if contestant == "nanogpt" and not settings.nanogpt:
            raise UserError("not measured: no checkout was named (make bench-gpu NANOGPT=…)")
        if limit < SHORTEST:
            raise UserError(f"left out: the {settings.minutes:g} minutes were used up")
        run = (run_nanogpt(Path(settings.nanogpt), SHAPES[name], limit) if contestant == "nanogpt" else
               in_own_process(__file__, f"{name}:{contestant}", limit))
    except UserError as error:
        return {**entry, "left_out": {**entry["left_out"], contestant: str(error).strip().splitlines()[-1][:200]}}
    return {**entry, "runs": {**entry["runs"], contestant: {**run, "seconds": time.monotonic() - began}}}


def compared(entry: dict) -> dict:
    """`entry` with everybody's share of the peak, and how many times the others' speed ours, as it comes, has."""
    runs = entry["runs"]
    counted = [run["mfu"] / run["tokens_per_second"] for run in runs.values() if run.get("mfu")]
    if counted:
        runs = {name: {**run, "mfu": run["tokens_per_second"] * counted[0]} for name, run in runs.items()}

    def over(other: str | None) -> float | None:
        present = {"ours", other} <= set(runs)
        return runs["ours"]["tokens_per_second"] / runs[other]["tokens_per_second"] if present else None

    best = fastest(runs, "hf")
    return {**entry, "runs": runs, "best": {"hf": best}, "over_hf_best": over(best), "over_nanogpt": over("nanogpt")}


def contest_table(entry: dict) -> str:
    """The runs, what ours comes to, and who is missing."""
    runs = {name: entry["runs"][name] for name in DECISIVE + FURTHER if name in entry["runs"]}
    lines = []
    if runs:
        lines = [on_screen([{**row, "in all, s": f"{run['seconds']:.0f}"}
                        for row, run in zip(contest_rows(runs), runs.values(), strict=True)])]
    if entry["over_nanogpt"]:
        lines.append(f"ours, as it comes: {entry['over_nanogpt']:.2f} × nanoGPT")
    if entry["over_hf_best"]:
        lines.append(f"ours, as it comes: {entry['over_hf_best']:.2f} × Trainer's best ({entry['best']['hf']})")
    if runs.get("ours", {}).get("compiled") is False:
        lines.append("ours, as it comes, was not compiled")
    return "\n".join(lines + [f"{name}: {reason}" for name, reason in entry["left_out"].items()])


def answer_of(result: dict, settings: BenchGpuConfig) -> str:
    """Ours, as it comes, beside the others, of each shape."""
    told = []
    for name in settings.models:
        beside = [f"{entry[key]:.2f} × {other}" for key, other in (("over_hf_best", "Trainer's best"),
                                                                  ("over_nanogpt", "nanoGPT"))
                  if (entry := result[name])[key]]
        told.append(f"{name}: ours {', '.join(beside) or 'was compared with nothing'}")
    return "; ".join(told)


def told(entry: dict, contestant: str) -> str:
    if contestant in entry["left_out"]:
        return entry["left_out"][contestant]
    run = entry["runs"][contestant]
    return f"{run['tokens_per_second']:,.0f} tokens/s, in {run['seconds']:.0f} s all in all"


# --- one run ------------------------------------------------------------------------------------------------------


def run_job(job: str) -> dict:
    if job == "gradients":
        return {"environment": environment(), "gpu": gpu(),
                "gradients": {name: largest_error(shape) for name, shape in SMALL.items()}}
    name, contestant = job.split(":")
    return run_contestant(SHAPES[name], contestant, SHAPES[name].steps)


def gpu() -> dict | None:
    if device().type != "cuda":
        return None
    found = torch.cuda.get_device_properties(0)
    return {"name": found.name, "memory_gb": round(found.total_memory / 1e9, 1),
            "capability": f"{found.major}.{found.minor}", "cuda": torch.version.cuda}


def headline(result: dict) -> str:
    name = result["gpu"]["name"] if result["gpu"] else result["environment"]["machine"]["model"]
    errors = ", ".join(f"{name} {100 * found['error']:.2g} %" for name, found in result["gradients"].items())
    return (f"{name}, torch {torch.__version__}, transformers {transformers.__version__}. Gradients, compiled against "
            f"uncompiled, differ by at most: {errors}.")


def run_nanogpt(directory: Path, shape: Shape, limit: float) -> dict:
    """Tokens a second from the time an iteration that nanoGPT's bench.py prints."""
    printed = output_of([sys.executable, "bench.py", f"--batch_size={shape.batch_size}", f"--block_size={shape.length}",
                         "--real_data=False", "--compile=True"], "nanogpt", limit, directory)
    times = re.findall(r"time per iteration: ([\d.]+) ?ms", printed)
    if not times:
        raise UserError("nanogpt: its bench.py printed no 'time per iteration'")
    return {"tokens_per_second": 1000 * shape.batch_size * shape.length / float(times[-1]), "commit": commit(directory)}


def commit(directory: Path) -> str | None:
    """Which nanoGPT it was."""
    try:
        return subprocess.run(["git", "describe", "--always", "--dirty"], cwd=directory, capture_output=True, text=True,
                              timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


# --- gradients ----------------------------------------------------------------------------------------------------

SMALL = {"gpt": Shape("gpt-tiny", 32, 128, 1, 1e-3), "bert": Shape("bert-tiny", 32, 128, 1, 1e-3)}
"""Of BERT's vocabulary, which is no multiple of 64."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02}
LEAST = 1e-3
"""Of the largest norm. A key's bias has no gradient but rounding, since softmax does not see it."""


def largest_error(shape: Shape) -> dict:
    """Of the gradients of all parameters, compiled against uncompiled, in the number format that is timed."""
    configuration, data = setting(shape, 1)
    seed_everything(0)
    model = our_model(configuration)
    with torch.no_grad():  # away from initial values, whose gradients would be tiny
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    right = gradients(copy.deepcopy(model), data, shape, compile=False)
    found = gradients(model, data, shape, compile=True)
    least = LEAST * max(float(gradient.norm()) for gradient in right.values())
    errors = {name: float((found.get(name, torch.zeros_like(gradient)) - gradient).norm() / (gradient.norm() + least))
              for name, gradient in right.items()}
    worst = max(errors, key=lambda name: (math.isnan(errors[name]), errors[name]))
    dtype = choose(ImplConfig(), device()).dtype
    return {"parameters": len(errors), "worst": worst, "error": errors[worst], "tolerance": TOLERANCE[dtype],
            "dtype": str(dtype).removeprefix("torch.")}


def gradients(model: transformers.PreTrainedModel, data: MarkovRows, shape: Shape, compile: bool
              ) -> dict[str, torch.Tensor]:
    """By parameter, of the first batch's loss."""
    precision = choose(ImplConfig(compile=compile), device())
    model.to(device()).train()
    precision.prepare(model)
    task = MarkovTask(model, data, shape.batch_size)
    batch = task.batch(0, range(shape.batch_size))
    counts = task.counts(batch)
    with precision.autocast():
        sums = task.losses(model, to_device(as_tensors(batch), device()))
    sum(value / counts[key] for key, value in sums.items()).backward()
    return {name: parameter.grad.float() for name, parameter in model.named_parameters() if parameter.grad is not None}


def refuse_wrong_gradients(found: dict[str, dict]) -> None:
    for name, case in found.items():
        if not case["error"] <= case["tolerance"]:
            raise UserError(f"{name}: compiled, the gradient of {case['worst']} is {100 * case['error']:.3g} % off the "
                            f"uncompiled one, more than {100 * case['tolerance']:g} % ({case['dtype']}, torch "
                            f"{torch.__version__}). Nothing was timed. Please report these words as a bug of this "
                            f"toolkit; --impl.compile false trains without the compiler.")


def main(argv: list[str]) -> None:
    settings = config.parse(BenchGpuConfig, argv, __doc__)
    if settings.job:
        print(json.dumps(run_job(settings.job)))
        return
    if not torch.cuda.is_available():
        print("bench-gpu: no GPU here, nothing to measure; make bench compares on the processor.")
        return
    print(ending(settings.output_dir, command("make pretrain-gpt", {"CONFIG": "recipes/configs/gpt-5min.yaml"}),
                 answer_of(bench(settings), settings), results=f"{settings.output_dir}/bench.json"))


if __name__ == "__main__":
    cli.run(main)
