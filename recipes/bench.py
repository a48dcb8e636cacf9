"""Our training loop against transformers' Trainer: the same model, data, batch and number of tokens, run in turn.

    make bench                                          # both shapes, five rounds; about 25 minutes on two cores
    make bench ARGS="--models gpt --rounds 3"

Every run is a process of its own and starts from the same weights. Shapes: GPT-2 with 4 layers, 4 heads, width 128, a
vocabulary of 65 and batches of 12 × 64; BERT-Mini (masked LM and next sentence) with a vocabulary of 8,192 and batches
of 32 × 128. The data is made by a Markov chain, so that there is something to learn. Trainer runs at its defaults, and
at its best simple setting: bf16, fused AdamW, and torch.compile where that was faster; ours as it comes, and compiled
where that was faster. The first third of each run is not counted, compilation included. Writes runs/bench/bench.json:
medians, ratios of runs of the same round, the loss at the end, versions and processor.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import transformers

from toolkit import cli, config
from toolkit.compare import table
from toolkit.data.bert import IGNORED
from toolkit.errors import UserError
from toolkit.models.bert import BertForPreTraining
from toolkit.models.gpt import GPT2LMHeadModel
from toolkit.models.presets import model_config
from toolkit.run import Run, environment, read_metrics, write_json
from toolkit.training.distributed import make_accelerator
from toolkit.training.loop import ImplConfig, TrainingConfig, seed_everything, train
from toolkit.training.throughput import peak_memory_mb


@dataclass
class BenchConfig:
    output_dir: str = "runs/bench"
    models: list[Literal["gpt", "bert", "gpt2", "bert-base"]] = field(default_factory=lambda: ["gpt", "bert"])
    """`gpt2` (124 M) and `bert-base` are for GPUs."""
    rounds: int = 5
    """Times that everything is run, in turn; medians are reported."""
    compile: bool = True
    """Run both sides compiled as well."""
    shares: float = 1.0
    """Of the steps; less for a quick look."""
    job: str = ""
    """For the processes that the benchmark starts."""


@dataclass(frozen=True)
class Shape:
    batch_size: int
    length: int
    steps: int
    learning_rate: float


SHAPES = {"gpt": Shape(12, 64, 480, 1e-3), "bert": Shape(32, 128, 48, 5e-4),
          "gpt2": Shape(16, 1024, 48, 3e-4), "bert-base": Shape(64, 512, 48, 1e-4)}
PREDICTED = 0.15


def bench(settings: BenchConfig) -> dict:
    """Every contestant in turn, `rounds` times; prints and writes the table as it grows."""
    if settings.rounds < 1:
        raise UserError(f"rounds is {settings.rounds}; it must be at least 1.")
    contestants = ["ours", "hf_default", "hf_bf16"] + ["ours_compiled", "hf_bf16_compiled"] * settings.compile
    found = {name: {contestant: [] for contestant in contestants} for name in settings.models}
    result = {"environment": {**environment(), "cpu": cpu_name()}, "steps_measured": "the last two thirds of each run"}
    for number in range(settings.rounds):
        for name in settings.models:
            for contestant in contestants:
                found[name][contestant].append(in_own_process(__file__, f"{name}:{contestant}",
                                                              shares=settings.shares))
            result[name] = summary(found[name])
            write_json(Path(settings.output_dir) / "bench.json", result)
            print(f"\n{name}, round {number + 1} of {settings.rounds}\n{contest_table(result[name])}", flush=True)
    return result


def summary(runs: dict[str, list[dict]]) -> dict:
    """Medians of every contestant, and the medians over rounds of what is compared within a round."""
    medians = {contestant: {key: statistics.median(run[key] for run in found) for key, value in found[0].items()
                            if value is not None} for contestant, found in runs.items()}
    ours = fastest(medians, "ours")
    best = fastest(medians, "hf_bf16")

    def ratio(key: str, one: str, other: str) -> float:
        return statistics.median(a[key] / b[key] for a, b in zip(runs[one], runs[other], strict=True))

    return {"over_hf_default": ratio("tokens_per_second", ours, "hf_default"),
            "over_hf_best": ratio("tokens_per_second", ours, best),
            "auto_over_hf_default": ratio("tokens_per_second", "ours", "hf_default"),
            "best": {"ours": ours, "hf": best}, "mfu": medians[ours]["mfu"],
            "peak_memory_over_hf": ratio("peak_memory_mb", ours, "hf_default"), "medians": medians, "rounds": runs}


def fastest(medians: dict[str, dict], name: str) -> str:
    """The faster of a setting and the same compiled."""
    return max((key for key in (name, f"{name}_compiled") if key in medians),
               key=lambda key: medians[key]["tokens_per_second"])


def contest_table(entry: dict) -> str:
    rows = [{"": contestant, "tokens/s": f"{run['tokens_per_second']:,.0f}",
             "of the matmul peak": f"{100 * run['mfu']:.0f} %" if "mfu" in run else "",
             "peak MB": f"{run['peak_memory_mb']:,.0f}", "loss": f"{run['loss']:.3f}",
             "beside steps, s": f"{run['overhead_seconds']:.1f}"}
            for contestant, run in entry["medians"].items()]
    return (table(rows, list(rows[0])) + f"\n{entry['best']['ours']}: {entry['over_hf_default']:.2f} × hf_default in "
            f"{entry['peak_memory_over_hf']:.2f} × its memory, {entry['over_hf_best']:.2f} × {entry['best']['hf']}")


# --- one run ------------------------------------------------------------------------------------------------------


def in_own_process(recipe: str, job: str, **options: float) -> dict:
    """What a benchmark's own recipe prints at its end when it is started with `--job` and further options."""
    named = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    done = subprocess.run([sys.executable, recipe, "--job", job, *named], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{job}: the run failed with status {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


class StepClock(transformers.TrainerCallback):
    """When each of Trainer's steps ended."""

    def __init__(self):
        self.ended: list[float] = []

    def on_step_end(self, *_, **__):
        self.ended.append(time.perf_counter())


def run_job(job: str, shares: float) -> dict:
    name, contestant = job.split(":")
    shape = SHAPES[name]
    steps = 12 * max(1, round(shares * shape.steps / 12))
    seed_everything(0)
    causal = name.startswith("gpt")
    settings = {"gpt": ("gpt-tiny", dict(n_layer=4, n_head=4, n_embd=128, vocab_size=65, n_positions=64)),
                "bert": ("bert-mini", dict(vocab_size=8192)), "gpt2": ("gpt2", {}), "bert-base": ("bert-base", {})}
    preset, changes = settings[name]
    configuration = model_config(preset, dropout=0.0, **{
        **({"activation_function": "gelu_new"} if causal else {}), **changes})
    data = MarkovRows(configuration.vocab_size, shape, steps * shape.batch_size, causal)
    run = run_ours if contestant.startswith("ours") else run_trainer
    return run(configuration, data, shape, steps, contestant)


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


def run_ours(configuration, data: MarkovRows, shape: Shape, steps: int, contestant: str) -> dict:
    """Our loop, as a recipe would call it."""
    model = (GPT2LMHeadModel if data.causal else BertForPreTraining)(configuration)
    settings = TrainingConfig(max_steps=steps, batch_size=shape.batch_size, learning_rate=shape.learning_rate,
                              adam_beta2=0.999, weight_decay=0.0, lr_scheduler_type="constant", warmup_ratio=0.0,
                              logging_steps=steps // 12, save_steps=0)
    impl = ImplConfig(compile=contestant.endswith("compiled"))
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
            "overhead_seconds": seconds - records[-1]["tokens"] / speed}


def run_trainer(configuration, data: MarkovRows, shape: Shape, steps: int, contestant: str) -> dict:
    """transformers' Trainer on transformers' class, with the same optimiser, rates and order of rows."""
    model = (transformers.GPT2LMHeadModel if data.causal else transformers.BertForPreTraining)(configuration)
    best = {"bf16": True, "optim": "adamw_torch_fused"} if "bf16" in contestant else {}
    clock = StepClock()

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
            learning_rate=shape.learning_rate, lr_scheduler_type="constant", logging_steps=steps // 12,
            save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
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


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown"


def main(argv: list[str]) -> None:
    settings = config.parse(BenchConfig, argv, __doc__)
    if settings.job:
        print(json.dumps(run_job(settings.job, settings.shares)))
        return
    bench(settings)
    print(f"\n{settings.output_dir}/bench.json")


if __name__ == "__main__":
    cli.run(main)
