"""Our fine-tuning against transformers' Trainer: the same classifier, texts, batch size and number of steps, in turn.

    make bench-text

BERT-Mini's shape under transformers' own BertForSequenceClassification, without dropout. Texts are made up, of the
lengths of short reviews: 8 to 128 tokens, half of them below 24. Trainer pads all to 128 (`pad_to_max_length`), or each
batch to its longest text, both at its defaults, and the latter in bf16 too, with texts of like length together
(`group_by_length`); ours as it comes. Every run is a process of its own; the first third of it is not counted. Writes
runs/bench-text/bench.json: examples a second, and ratios of runs of the same round.
"""

from dataclasses import dataclass

from toolkit import cli, config


@dataclass
class BenchTextConfig:
    output_dir: str = "runs/bench-text"
    rounds: int = 3
    """Times that everything is run, in turn; medians are reported."""
    steps: int = 60
    job: str = ""
    """For the processes that the benchmark starts."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(BenchTextConfig, __doc__)

import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import tokenizers
import transformers
from bench import StepClock, in_own_process

from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText
from toolkit.errors import UserError
from toolkit.metrics.tabulate import on_screen
from toolkit.models.presets import model_config
from toolkit.report.ending import command, ending
from toolkit.run.directory import Run, read_metrics
from toolkit.run.files import write_json
from toolkit.run.provenance import environment
from toolkit.tasks.classification import FineTuning
from toolkit.tasks.settings import FineTuningConfig
from toolkit.training.feed import seed_everything
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.settings import ImplConfig
from toolkit.training.trainer import train

CONTESTANTS = ("ours", "hf_pad_to_max_length", "hf_dynamic", "hf_dynamic_bf16_by_length")
WORDS, LONGEST, CLASSES, BATCH, LEARNING_RATE = 2000, 128, 4, 32, 5e-5


def bench(settings: BenchTextConfig) -> dict:
    """Every contestant in turn, `rounds` times; prints and writes the table as it grows."""
    if settings.rounds < 1 or settings.steps < 6:
        raise UserError(f"rounds is {settings.rounds} and steps {settings.steps}; give at least 1 and 6.")
    speeds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for number in range(settings.rounds):
        for name in CONTESTANTS:
            speeds[name].append(in_own_process(__file__, name, steps=settings.steps)["examples_per_second"])
        rows = [{"": name, "examples/s": f"{statistics.median(found):,.0f}", "ours over it": statistics.median(
            ours / other for ours, other in zip(speeds["ours"], found, strict=True))} for name, found in speeds.items()]
        result = {"environment": environment(), "examples_per_second": speeds,
                  "over": {row[""]: row["ours over it"] for row in rows}}
        write_json(Path(settings.output_dir) / "bench.json", result)
        print(f"\nround {number + 1} of {settings.rounds}\n{on_screen(rows)}", flush=True)
    return result


def run_job(contestant: str, steps: int) -> dict:
    seed_everything(0)
    words = {f"w{number}": 5 + number for number in range(WORDS)}
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, **words}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]")
    data = texts(steps * BATCH)
    model = transformers.BertForSequenceClassification(model_config(
        "bert-mini", vocab_size=len(vocabulary), max_position_embeddings=LONGEST, dropout=0.0))
    model.config.num_labels = CLASSES
    model.classifier = type(model.classifier)(model.config.hidden_size, CLASSES)
    model.num_labels = CLASSES
    return (run_ours if contestant == "ours" else run_trainer)(model, tokenizer, data, steps, contestant)


def texts(count: int) -> LabelledText:
    """Lengths are log-normal; which of the words come, the label says."""
    draw = np.random.default_rng(0)
    lengths = np.clip(np.exp(draw.normal(np.log(22), 0.55, count)), 6, LONGEST - 2).astype(int)
    labels = draw.integers(0, CLASSES, count)
    rows = [" ".join(f"w{(word * CLASSES + label) % WORDS}" for word in draw.zipf(1.3, length) % WORDS)
            for length, label in zip(lengths, labels, strict=True)]
    return LabelledText(rows, labels.astype(np.int64), tuple("abcd"))


def run_ours(model, tokenizer, data: LabelledText, steps: int, contestant: str) -> dict:
    settings = FineTuningConfig(max_steps=steps, batch_size=BATCH, learning_rate=LEARNING_RATE, weight_decay=0.0,
                                lr_scheduler_type="constant", warmup_ratio=0.0, logging_steps=steps // 6, eval_steps=0)
    accelerator = make_accelerator()
    train_batches = TextBatches(data, tokenizer, LONGEST, BATCH, seed=0)
    few = TextBatches(data.select(range(BATCH)), tokenizer, LONGEST, BATCH, seed=0)
    with tempfile.TemporaryDirectory() as directory:
        run = Run(directory)
        task = FineTuning(model, train_batches, few, settings)
        train(task, settings, ImplConfig(), run, accelerator, seed=0)
        records = [record for record in read_metrics(run.metrics_path) if "tokens_per_second" in record]
    tokens = [record["tokens"] for record in records]
    late = range(len(records) // 3, len(records))
    seconds = sum((tokens[i] - (tokens[i - 1] if i else 0)) / records[i]["tokens_per_second"] for i in late)
    return {"examples_per_second": len(late) * (steps // 6) * BATCH / seconds}


def run_trainer(model, tokenizer, data: LabelledText, steps: int, contestant: str) -> dict:
    pad = "max_length" if contestant == "hf_pad_to_max_length" else "longest"
    encoded = tokenizer(data.texts, truncation=True, max_length=LONGEST,
                        padding="max_length" if pad == "max_length" else False)
    rows = [{"input_ids": encoded["input_ids"][i], "attention_mask": encoded["attention_mask"][i],
             "labels": int(data.labels[i])} for i in range(len(data))]
    clock = StepClock()
    options = {"bf16": True, "train_sampling_strategy": "group_by_length"} if "bf16" in contestant else {}
    with tempfile.TemporaryDirectory() as directory:
        arguments = transformers.TrainingArguments(
            output_dir=directory, per_device_train_batch_size=BATCH, max_steps=steps, learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant", logging_steps=steps // 6, save_strategy="no", report_to=[], disable_tqdm=True,
            use_cpu=True, **options)
        collator = transformers.DataCollatorWithPadding(tokenizer) if pad == "longest" else None
        transformers.Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator,
                             callbacks=[clock]).train()
    late = clock.ended[len(clock.ended) // 3 - 1:]
    return {"examples_per_second": BATCH * (len(late) - 1) / (late[-1] - late[0])}


def main(argv: list[str]) -> None:
    settings = config.parse(BenchTextConfig, argv, __doc__)
    if settings.job:
        print(json.dumps(run_job(settings.job, settings.steps)))
        return
    over = bench(settings)["over"]
    answer = "examples a second: ours " + ", ".join(f"{over[name]:.2f} × {name}" for name in CONTESTANTS[1:])
    print(ending(settings.output_dir, command("make bench-series"), answer,
                 results=f"{settings.output_dir}/bench.json"))


if __name__ == "__main__":
    cli.run(main)
