"""Our training loop against transformers' Trainer: the same model, data, batch and number of tokens, run in turn.

    make bench                                          # both shapes, five rounds
    make bench ARGS="--models gpt --rounds 3"

Every run is a process of its own and starts from the same weights. Shapes: GPT-2 with 4 layers, 4 heads, width 128, a
vocabulary of 65 and batches of 12 × 64; BERT-Mini (masked LM and next sentence) with a vocabulary of 8,192 and batches
of 32 × 128. (Those for a GPU: `make bench-gpu`.) The data is made by a Markov chain, so that there is something to
learn. Trainer runs at its defaults, the same compiled, and with bf16 and fused AdamW, uncompiled and compiled; ours as
it comes, and compiled. Where the processor has no bf16 of its own but emulates it, Trainer's bf16 is left out: it takes
longer there than all the rest. The first third of each run is not counted, compilation included. Writes
runs/bench/bench.json: medians, ratios of runs of the same round, the loss at the end, versions and processor.
"""

from dataclasses import dataclass, field
from typing import Literal

from toolkit import cli, config


@dataclass
class BenchConfig:
    output_dir: str = "runs/bench"
    models: list[Literal["gpt", "bert"]] = field(default_factory=lambda: ["gpt", "bert"])
    rounds: int = 5
    """Times that everything is run, in turn; medians are reported."""
    compile: bool = True
    """Run both sides compiled as well."""
    shares: float = 1.0
    """Of the steps; less for a quick look."""
    job: str = ""
    """For the processes that the benchmark starts."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(BenchConfig, __doc__)

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers

from toolkit.data.batches import IGNORED
from toolkit.errors import UserError
from toolkit.metrics.tabulate import on_screen
from toolkit.models.presets import model_config, preset
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.report.ending import command, ending
from toolkit.run.directory import Run, read_metrics
from toolkit.run.files import write_json
from toolkit.run.provenance import environment, processor_name
from toolkit.training.feed import seed_everything
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import choose
from toolkit.training.impl.settings import ImplConfig
from toolkit.training.observers.throughput import peak_memory_mb, synchronize
from toolkit.training.settings import TrainingConfig
from toolkit.training.trainer import train


@dataclass(frozen=True)
class Shape:
    preset: str
    batch_size: int
    length: int
    steps: int
    learning_rate: float
    changes: dict = field(default_factory=dict)
    """Of the preset's configuration."""
    windows: int = 12
    """Lines that a run logs. A GPU is waited for at each; the first third of them is not counted."""


SHAPES = {"gpt": Shape("gpt-tiny", 12, 64, 480, 1e-3,
                       dict(n_layer=4, n_head=4, n_embd=128, vocab_size=65, n_positions=64)),
          "bert": Shape("bert-mini", 32, 128, 48, 5e-4, dict(vocab_size=8192))}
PREDICTED = 0.15
OURS = {"ours": "auto", "ours_compiled": True, "ours_uncompiled": False}
"""Contestant → impl.compile; every other contestant is Trainer."""


def bench(settings: BenchConfig) -> dict:
    """Every contestant in turn, `rounds` times; prints and writes the table as it grows."""
    if settings.rounds < 1:
        raise UserError(f"rounds is {settings.rounds}; it must be at least 1.")
    names, left_out = contestants(settings.compile)
    found = {name: {contestant: [] for contestant in names} for name in settings.models}
    result = {"environment": {**environment(), "cpu": processor_name()},
              "steps_measured": "the last two thirds of each run",
              "left_out": left_out}
    for number in range(settings.rounds):
        for name in settings.models:
            for contestant in list(found[name]):
                try:
                    found[name][contestant].append(in_own_process(__file__, f"{name}:{contestant}",
                                                                  shares=settings.shares))
                except UserError as error:
                    if contestant == "hf_default" or contestant in OURS:
                        raise
                    del found[name][contestant]  # Trainer compiled may crash, and need not end the rest
                    left_out.append(f"{name}: {contestant} is left out: {str(error).strip().splitlines()[-1][:200]}")
            result[name] = summary(found[name])
            write_json(Path(settings.output_dir) / "bench.json", result)
            print("\n".join([f"\n{name}, round {number + 1} of {settings.rounds}", contest_table(result[name]),
                             *left_out]), flush=True)
    return result


def contestants(compile: bool) -> tuple[list[str], list[str]]:
    """Who runs on this machine, and lines about who does not."""
    names = ["ours", "hf_default", "hf_bf16"] + ["ours_compiled", "hf_compiled", "hf_bf16_compiled"] * compile
    if choose(ImplConfig(), device()).dtype == torch.bfloat16:
        return names, []
    return ([name for name in names if "bf16" not in name],
            ["Trainer's bf16 is left out: this processor emulates bf16"])


def summary(runs: dict[str, list[dict]]) -> dict:
    """Medians of every contestant, and the medians over rounds of what is compared within a round. The best of ours
    and of Trainer's are the fastest of those that ran.
    """
    medians = {contestant: {key: statistics.median(run[key] for run in found) for key, value in found[0].items()
                            if value is not None} for contestant, found in runs.items()}
    ours, best = fastest(medians, "ours"), fastest(medians, "hf")

    def ratio(key: str, one: str, other: str) -> float:
        return statistics.median(a[key] / b[key] for a, b in zip(runs[one], runs[other], strict=True))

    return {"over_hf_default": ratio("tokens_per_second", ours, "hf_default"),
            "over_hf_best": ratio("tokens_per_second", ours, best),
            "auto_over_hf_default": ratio("tokens_per_second", "ours", "hf_default"),
            "best": {"ours": ours, "hf": best}, "mfu": medians[ours]["mfu"],
            "peak_memory_over_hf": ratio("peak_memory_mb", ours, "hf_default"), "medians": medians, "rounds": runs}


def fastest(runs: dict[str, dict], side: str) -> str | None:
    """The contestant of a side, "ours" or "hf", that makes most tokens a second; None where none ran."""
    return max((name for name in runs if name.startswith(side)), default=None,
               key=lambda name: runs[name]["tokens_per_second"])


def contest_table(entry: dict) -> str:
    return (on_screen(contest_rows(entry["medians"])) + f"\n{entry['best']['ours']}: {entry['over_hf_default']:.2f} × "
            f"hf_default in {entry['peak_memory_over_hf']:.2f} × its memory, {entry['over_hf_best']:.2f} × "
            f"{entry['best']['hf']}")


def contest_rows(runs: dict[str, dict]) -> list[dict[str, str | None]]:
    """A line a contestant, for `table`; what a run does not tell stays open."""
    def cell(run: dict, key: str, form: str) -> str | None:
        return None if run.get(key) is None else form.format(run[key])

    return [{"": contestant, "tokens/s": cell(run, "tokens_per_second", "{:,.0f}"),
             "of the matmul peak": cell(run, "mfu", "{:.0%}"), "peak MB": cell(run, "peak_memory_mb", "{:,.0f}"),
             "loss": cell(run, "loss", "{:.3f}"), "beside steps, s": cell(run, "overhead_seconds", "{:.1f}")}
            for contestant, run in runs.items()]


# --- one run ------------------------------------------------------------------------------------------------------


def in_own_process(recipe: str, job: str, limit: float | None = None, **options: float) -> dict:
    """What a benchmark's own recipe prints at its end when it is started with `--job` and further options. UserError
    when it fails, or takes more than `limit` seconds.
    """
    named = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    return json.loads(output_of([sys.executable, recipe, "--job", job, *named], job, limit).splitlines()[-1])


def output_of(command: Sequence[str], name: str, limit: float | None = None, directory: Path | None = None) -> str:
    """What a command prints when it is run in `directory`; its errors call it `name`."""
    # Into files: at the end of a pipe one would wait for every worker process that a run cut off leaves behind.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            code = subprocess.run(command, stdout=out, stderr=err, cwd=directory, timeout=limit, check=False).returncode
        except subprocess.TimeoutExpired:
            raise UserError(f"{name}: cut off after {limit:.0f} s.") from None
        out.seek(0)
        err.seek(0)
        if code:
            raise UserError(f"{name}: the run failed with status {code}:\n{err.read()[-2000:]}")
        return out.read()


def device() -> torch.device:
    """On which both sides run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class StepClock(transformers.TrainerCallback):
    """When each of Trainer's steps ended. Steps (from 1) in `exact` are waited for on a GPU; the others end when the
    host is done with them, since waiting for every one would slow them down.
    """

    def __init__(self, exact: Sequence[int] = ()):
        self.exact = exact
        self.ended: list[float] = []

    def on_step_end(self, *_, **__):
        if len(self.ended) + 1 in self.exact:
            synchronize(device())
        self.ended.append(time.perf_counter())


def run_job(job: str, shares: float) -> dict:
    name, contestant = job.split(":")
    shape = SHAPES[name]
    return run_contestant(shape, contestant, shape.windows * max(1, round(shares * shape.steps / shape.windows)))


def run_contestant(shape: Shape, contestant: str, steps: int) -> dict:
    """One run, from the weights and over the rows that all contestants have; `steps` is a multiple of its windows."""
    seed_everything(0)
    configuration, data = setting(shape, steps)
    run = run_ours if contestant in OURS else run_trainer
    return run(configuration, data, shape, steps, contestant)


def setting(shape: Shape, steps: int) -> tuple[transformers.PretrainedConfig, "MarkovRows"]:
    """The model's configuration, with transformers' own activation function and no dropout, and its rows."""
    causal = preset(shape.preset).family == "gpt"
    activation = {"activation_function": "gelu_new"} if causal else {}
    configuration = model_config(shape.preset, dropout=0.0, **{**activation, **shape.changes})
    return configuration, MarkovRows(configuration.vocab_size, shape, steps * shape.batch_size, causal)


class MarkovRows:
    """Rows of a Markov chain in which a token follows from the one before it three times in four, in both forms."""

    def __init__(self, vocab_size: int, shape: Shape, rows: int, causal: bool):
        draw = np.random.default_rng(0)
        length, count = shape.length, vocab_size - 5
        ids, follows = draw.integers(0, count, (rows, length + 1)), draw.random((rows, length + 1)) < 0.75
        for t in range(1, length + 1):
            ids[:, t] = np.where(follows[:, t], (7 * ids[:, t - 1] + 1) % min(count, 60), ids[:, t])
        ids += 5
        self.causal = causal
        if causal:
            self.ours = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
            # transformers shifts labels itself, and counts the first, which nothing predicts, unless told not to.
            unpredicted = np.full_like(ids[:, :1], IGNORED)
            self.theirs = {"input_ids": ids[:, :-1], "labels": np.concatenate([unpredicted, ids[:, 1:-1]], 1)}
            return
        ids = ids[:, :-1]
        positions = 1 + np.sort(np.argsort(draw.random((rows, length - 2)), axis=1)[:, :int(PREDICTED * length) + 1])
        masked, labels = ids.copy(), np.full_like(ids, IGNORED)
        np.put_along_axis(masked, positions, 4, 1)
        np.put_along_axis(labels, positions, np.take_along_axis(ids, positions, 1), 1)
        both = {"input_ids": masked, "token_type_ids": np.broadcast_to(np.arange(length) >= length // 2, ids.shape) * 1,
                "attention_mask": np.ones_like(ids), "next_sentence_label": np.arange(rows) % 2}
        self.ours = {**both, "masked_positions": positions, "masked_labels": np.take_along_axis(ids, positions, 1)}
        self.theirs = {**both, "labels": labels}


class MarkovTask:
    """The rows in order, as a task of our loop; nothing to evaluate or to keep."""

    best_metric = "loss"

    def __init__(self, model, data: MarkovRows, batch_size: int):
        self.model, self.data, self.batch_size = model, data, batch_size

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        first = step * self.batch_size
        return {key: values[first + rows.start:first + rows.stop] for key, values in self.data.ours.items()}

    def counts(self, batch) -> dict[str, int]:
        if self.data.causal:
            return {"lm": batch["labels"].size}
        return {"mlm": batch["masked_labels"].size, "nsp": len(batch["input_ids"])}

    def losses(self, model, batch):
        if self.data.causal:
            return model(batch["input_ids"], shifted_labels=batch["labels"])
        return model(**batch)

    def evaluate(self, model, accelerator, precision) -> dict[str, float]:
        return {"loss": 0.0}

    def save(self, model, directory) -> None:
        pass


def our_model(configuration: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    causal = isinstance(configuration, transformers.GPT2Config)
    return (GPT2LMHeadModel if causal else BertForPreTraining)(configuration)


def run_ours(configuration, data: MarkovRows, shape: Shape, steps: int, contestant: str) -> dict:
    """Our loop, as a recipe would call it."""
    model = our_model(configuration)
    settings = TrainingConfig(max_steps=steps, batch_size=shape.batch_size, learning_rate=shape.learning_rate,
                              adam_beta2=0.999, weight_decay=0.0, lr_scheduler_type="constant", warmup_ratio=0.0,
                              logging_steps=steps // shape.windows, save_steps=0)
    impl = ImplConfig(compile=OURS[contestant])
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        accelerator = make_accelerator()
        run = Run(directory)
        train(MarkovTask(model, data, shape.batch_size), settings, impl, run, accelerator, seed=0)
        records = [record for record in read_metrics(run.metrics_path) if "tokens_per_second" in record]
    late, seconds = records[len(records) // 3:], time.perf_counter() - began
    speed = len(late) / sum(1 / record["tokens_per_second"] for record in late)
    return {"tokens_per_second": speed, "mfu": late[-1]["mfu"] / late[-1]["tokens_per_second"] * speed,
            "loss": records[-1]["loss"], "peak_memory_mb": peak_memory_mb(accelerator.device),
            "overhead_seconds": seconds - records[-1]["tokens"] / speed,
            "compiled": model._compiled_call_impl is not None}


def run_trainer(configuration, data: MarkovRows, shape: Shape, steps: int, contestant: str) -> dict:
    """transformers' Trainer on transformers' class, with the same optimiser, rates and order of rows."""
    model = (transformers.GPT2LMHeadModel if data.causal else transformers.BertForPreTraining)(configuration)
    best = {"bf16": True, "optim": "adamw_torch_fused"} if "bf16" in contestant else {}
    clock = StepClock(exact=(steps // 3, steps))

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_):
            return None  # the rows as they come, as ours are

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return steps * shape.batch_size

        def __getitem__(self, index: int) -> dict[str, np.ndarray]:
            return {key: values[index] for key, values in data.theirs.items()}

    with tempfile.TemporaryDirectory() as directory:
        arguments = transformers.TrainingArguments(
            output_dir=directory, per_device_train_batch_size=shape.batch_size, max_steps=steps,
            learning_rate=shape.learning_rate, lr_scheduler_type="constant", logging_steps=steps // shape.windows,
            save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=device().type == "cpu",
            torch_compile=contestant.endswith("compiled"), **best)
        began = time.perf_counter()
        trainer = InOrder(model=model, args=arguments, train_dataset=Rows(), callbacks=[clock])
        trainer.train()
    late, tokens = clock.ended[len(clock.ended) // 3 - 1:], shape.batch_size * shape.length
    seconds = time.perf_counter() - began
    speed = tokens * (len(late) - 1) / (late[-1] - late[0])
    losses = [float(record["loss"]) for record in trainer.state.log_history if "loss" in record]
    return {"tokens_per_second": speed, "mfu": None, "loss": losses[-1],
            "peak_memory_mb": peak_memory_mb(trainer.args.device), "overhead_seconds": seconds - steps * tokens / speed}


def main(argv: list[str]) -> None:
    settings = config.parse(BenchConfig, argv, __doc__)
    if settings.job:
        print(json.dumps(run_job(settings.job, settings.shares)))
        return
    result = bench(settings)
    answer = "; ".join(f"{name}: ours {result[name]['over_hf_default']:.2f} × Trainer at its defaults, "
                       f"{result[name]['over_hf_best']:.2f} × its best" for name in settings.models)
    print(ending(settings.output_dir, command("make bench-text"), answer, results=f"{settings.output_dir}/bench.json"))


if __name__ == "__main__":
    cli.run(main)
