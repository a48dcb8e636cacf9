"""Our training on series against transformers' Trainer: the same model, series, batch size and steps, in turn.

    make bench-series
    make bench-series ARGS="--tasks '[forecasting]' --rounds 3"

Both sides train our own classes: a classifier of BERT-Tiny's shape on series of 427 values, cut into 48 convolutional
patches; a forecaster of width 16 on tables of 7 channels, 96 rows from 336, channels independent, without and with
dropout. Data is made up. Trainer runs at its defaults, which is fp32, and with bf16; ours as it comes. AdamW has the
same settings. Every run is a process of its own and starts from the same weights; its first third is not counted.
Writes runs/bench-series/bench.json: series (windows) a second, and ratios of runs of the same round.
"""

from dataclasses import dataclass, field
from typing import Literal

from toolkit import cli, config


@dataclass
class BenchSeriesConfig:
    output_dir: str = "runs/bench-series"
    tasks: list[Literal["classification", "forecasting", "forecasting-dropout"]] = field(
        default_factory=lambda: ["classification", "forecasting", "forecasting-dropout"])
    rounds: int = 5
    """Times that everything is run, in turn; medians are reported."""
    steps: int = 120
    """Of each run."""
    job: str = ""
    """For the processes that the benchmark starts."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(BenchSeriesConfig, __doc__)

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from bench import StepClock, in_own_process

from toolkit.data import counter
from toolkit.data.series.dataset import SeriesBatches, SeriesDataset
from toolkit.data.series.windows import WindowBatches, standardised
from toolkit.errors import UserError
from toolkit.metrics.tabulate import on_screen
from toolkit.models.presets import model_config
from toolkit.models.series.patches import SeriesForClassification, SeriesForForecasting
from toolkit.report.ending import command, ending
from toolkit.run.directory import Run, read_metrics
from toolkit.run.files import write_json
from toolkit.run.provenance import environment
from toolkit.tasks.classification import FineTuning
from toolkit.tasks.forecasting import ForecastingTask
from toolkit.tasks.settings import FineTuningConfig
from toolkit.training.feed import seed_everything
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.settings import ImplConfig
from toolkit.training.settings import TrainingConfig
from toolkit.training.task import Task
from toolkit.training.trainer import train

CONTESTANTS = ("ours", "hf_default", "hf_bf16")
BATCH, LEARNING_RATE, SEED = 32, 1e-3, 0
LENGTH, PATCHES, CLASSES = 427, 48, "abcdef"  # the length of OSULeaf and its number of classes
CHANNELS, CONTEXT, HORIZON = 7, 336, 96  # of ETTh1
DROPOUT = 0.3  # with it PatchTST was trained on ETTh1 (yuqinie98/PatchTST, scripts/PatchTST/etth1.sh)


def bench(settings: BenchSeriesConfig) -> dict:
    """Every contestant in turn, `rounds` times; prints and writes the table as it grows."""
    if settings.rounds < 1 or settings.steps < 6:
        raise UserError(f"rounds is {settings.rounds} and steps {settings.steps}; give at least 1 and 6.")
    speeds: dict[str, dict[str, list[float]]] = {task: {name: [] for name in CONTESTANTS} for task in settings.tasks}
    result: dict = {"environment": environment(), "steps_measured": "the last two thirds of each run"}
    for number in range(settings.rounds):
        for task, found in speeds.items():
            for name in CONTESTANTS:
                run = in_own_process(__file__, f"{task}:{name}", steps=settings.steps)
                found[name].append(run["series_per_second"])
            result[task] = summary(found)
            write_json(Path(settings.output_dir) / "bench.json", result)
            print(f"\n{task}, round {number + 1} of {settings.rounds}\n{contest_table(result[task])}", flush=True)
    return result


def summary(speeds: dict[str, list[float]]) -> dict:
    """Series a second of all runs, and how many times the other's of the same round ours was: median and range."""
    over = {}
    for name in CONTESTANTS[1:]:
        ratios = [ours / other for ours, other in zip(speeds["ours"], speeds[name], strict=True)]
        over[name] = {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return {"series_per_second": speeds, "ours_over": over}


def contest_table(entry: dict) -> str:
    rows = []
    for name, speeds in entry["series_per_second"].items():
        ratio = entry["ours_over"].get(name)
        rows.append({"": name, "series/s": f"{statistics.median(speeds):,.0f}",
                     "ours over it": ratio and f"{ratio['median']:.2f}",
                     "lowest and highest": ratio and f"{ratio['lowest']:.2f} – {ratio['highest']:.2f}"})
    return on_screen(rows)


# --- what is learned ----------------------------------------------------------------------------------------------


class Rows(torch.utils.data.Dataset):
    """For Trainer: what `row` gives, in the order in which our batches have it."""

    def __init__(self, row: Callable[[int], dict[str, torch.Tensor]], count: int):
        self.row, self.order = row, counter.epoch_order(SEED, np.arange(count), count)[1]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return self.row(self.order[number])


def classification(steps: int) -> tuple[Task, Rows]:
    """A model as `make compare-series` trains it; noisy sines, whose frequency the label says."""
    model = SeriesForClassification.from_backbone(
        model_config("bert-tiny", vocab_size=1), CLASSES, pretrained=False, embedding="convolution",
        patch_length=round(LENGTH / PATCHES), pooling="layers")
    draw, count = np.random.default_rng(SEED), steps * BATCH
    labels = draw.integers(0, len(CLASSES), count)
    angles = (3 + labels[:, None]) * np.linspace(0, 2 * np.pi, LENGTH) + draw.uniform(0, 2 * np.pi, (count, 1))
    values = (np.sin(angles) + draw.normal(0, 0.5, angles.shape)).astype(np.float32)[:, None]
    batches = SeriesBatches(SeriesDataset(values, labels, tuple(CLASSES)), BATCH, SEED)
    series, labels = torch.from_numpy(values), torch.from_numpy(labels)
    return (FineTuning(model, batches, SeriesBatches(batches.data.select(np.arange(BATCH)), BATCH, SEED),
                       FineTuningConfig()),
            Rows(lambda row: {"values": series[row], "labels": labels[row]}, count))


def forecasting(steps: int, dropout: float = 0.0) -> tuple[Task, Rows]:
    """A model as `make forecast` trains it on ETTh1; daily rhythms and random walks."""
    shape = transformers.BertConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128)
    model = SeriesForForecasting.from_backbone(
        shape, pretrained=False, num_channels=CHANNELS, channels="independent", instance_norm=True, patch_length=16,
        patch_stride=8, context_length=CONTEXT, horizon=HORIZON, dropout=dropout)
    draw, count = np.random.default_rng(SEED), steps * BATCH
    train_rows = count + CONTEXT + HORIZON - 1
    rows = train_rows + 2 * HORIZON
    values = (np.sin(2 * np.pi * (np.arange(rows) / 24 + draw.random((CHANNELS, 1))))
              + draw.normal(0, 0.1, (CHANNELS, rows)).cumsum(1) + draw.normal(0, 0.3, (CHANNELS, rows)))
    data = standardised([values.astype(np.float32)], [f"channel {number}" for number in range(CHANNELS)],
                        [train_rows, train_rows + HORIZON, rows])
    batches = WindowBatches(data, "train", CONTEXT, HORIZON, BATCH, SEED)
    series = torch.from_numpy(data.values[0])
    return (ForecastingTask(model, batches, WindowBatches(data, "validation", CONTEXT, HORIZON)),
            Rows(lambda row: {"values": series[:, row:row + CONTEXT],
                              "future": series[:, row + CONTEXT:row + CONTEXT + HORIZON]}, count))


TASKS: dict[str, Callable[[int], tuple[Task, Rows]]] = {
    "classification": classification, "forecasting": forecasting,
    "forecasting-dropout": lambda steps: forecasting(steps, DROPOUT)}


# --- one run ------------------------------------------------------------------------------------------------------


def run_job(job: str, steps: int) -> dict:
    """series_per_second; loss: the mean over the last sixth of the steps."""
    task, contestant = job.split(":")
    seed_everything(SEED)
    learning, rows = TASKS[task](steps)
    times, loss = (run_ours(learning, steps) if contestant == "ours" else
                   run_trainer(learning.model, rows, steps, bf16=contestant == "hf_bf16"))
    late = times[len(times) // 3:]
    return {"series_per_second": BATCH * (len(late) - 1) / (late[-1] - late[0]), "loss": loss}


def run_ours(learning: Task, steps: int) -> tuple[list[float], float]:
    """Our loop, as a recipe would call it: when each step computed its loss, and the loss."""
    times, losses = [], learning.losses

    def clocked(model, batch):
        times.append(time.perf_counter())
        return losses(model, batch)

    learning.losses = clocked
    settings = TrainingConfig(max_steps=steps, batch_size=BATCH, learning_rate=LEARNING_RATE, adam_beta2=0.999,
                              weight_decay=0.0, lr_scheduler_type="constant", warmup_ratio=0.0,
                              logging_steps=steps // 6, save_steps=0)
    accelerator = make_accelerator()
    with tempfile.TemporaryDirectory() as directory:
        run = Run(directory)
        train(learning, settings, ImplConfig(), run, accelerator, SEED)
        losses = [record["loss"] for record in read_metrics(run.metrics_path) if "loss" in record]
    return times[-steps:], losses[-1]  # before them the loop counts the operations of a step


def run_trainer(model: transformers.PreTrainedModel, rows: Rows, steps: int, bf16: bool) -> tuple[list[float], float]:
    """transformers' Trainer with the same optimiser, rate and order of rows: when each step ended, and the loss."""
    clock = StepClock()
    with tempfile.TemporaryDirectory() as directory:
        arguments = transformers.TrainingArguments(
            output_dir=directory, per_device_train_batch_size=BATCH, max_steps=steps, learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant", train_sampling_strategy="sequential", logging_steps=steps // 6,
            save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=not torch.cuda.is_available(), bf16=bf16)
        trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[clock])
        trainer.train()
    return clock.ended, [float(record["loss"]) for record in trainer.state.log_history if "loss" in record][-1]


def main(argv: list[str]) -> None:
    settings = config.parse(BenchSeriesConfig, argv, __doc__)
    if settings.job:
        print(json.dumps(run_job(settings.job, settings.steps)))
        return
    result = bench(settings)
    answer = "; ".join(f"{task}: ours " + ", ".join(f"{ratio['median']:.2f} × {name}" for name, ratio in
                                                    result[task]["ours_over"].items()) for task in settings.tasks)
    print(ending(settings.output_dir, command("make bench-data"), answer, results=f"{settings.output_dir}/bench.json"))


if __name__ == "__main__":
    cli.run(main)
