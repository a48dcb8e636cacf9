"""Our training of encoder–decoders against transformers' Seq2SeqTrainer: the same model, pairs and number of steps.

    make bench-seq2seq

The Transformer of the size transformer-mini under transformers' own MarianMTModel, dropout and label smoothing 0.1.
Pairs are made up, as long as captions: sources and targets of 5 to 40 tokens, 14 on average. Seq2SeqTrainer as it
comes, with pairs of like length together (`group_by_length`), and the latter in bf16; ours as it comes. Where the
processor emulates bf16, Trainer's is left out. Every run is a process of its own; the first quarter of it is not
counted: both sides sort by length within a quarter. Writes runs/bench-seq2seq/bench.json: tokens of sources and targets
a second, padding not counted, and ratios of runs of the same round.
"""

from dataclasses import dataclass

from toolkit import cli, config


@dataclass
class BenchSeq2SeqConfig:
    output_dir: str = "runs/bench-seq2seq"
    rounds: int = 3
    """Times that everything is run, in turn; medians are reported."""
    steps: int = 36
    job: str = ""
    """For the processes that the benchmark starts."""


if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(BenchSeq2SeqConfig, __doc__)

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from bench import StepClock, in_own_process

from toolkit.data.pairs.batches import PairBatches, TokenIds
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.errors import UserError
from toolkit.metrics.tabulate import table
from toolkit.models.seq2seq.transformer import new_transformer, transformer_config
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.run.provenance import environment, processor_name
from toolkit.tasks.seq2seq import Seq2Seq
from toolkit.tasks.settings import Seq2SeqTrainingConfig
from toolkit.training.feed import seed_everything
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import choose
from toolkit.training.impl.settings import ImplConfig
from toolkit.training.trainer import train

WORDS, LONGEST, BATCH, LEARNING_RATE, SMOOTHING = 9_995, 40, 128, 5e-4, 0.1
TRAINERS = {"hf_default": {}, "hf_by_length": {"train_sampling_strategy": "group_by_length"},
            "hf_by_length_bf16": {"train_sampling_strategy": "group_by_length", "bf16": True}}
"""Contestant → Seq2SeqTrainer's arguments."""


def bench(settings: BenchSeq2SeqConfig) -> dict:
    """Every contestant in turn, `rounds` times; prints and writes the table as it grows."""
    if settings.rounds < 1 or settings.steps < 4 or settings.steps % 4:
        raise UserError(f"rounds is {settings.rounds} and steps {settings.steps}; give at least 1, and a multiple of "
                        f"4.")
    native = choose(ImplConfig(), torch.device("cpu")).dtype == torch.bfloat16
    names = ["ours", *(name for name in TRAINERS if native or "bf16" not in name)]
    found: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(settings.rounds):
        for name in names:
            found[name].append(in_own_process(__file__, name, steps=settings.steps))
        speeds = {name: [run["tokens_per_second"] for run in runs] for name, runs in found.items()}
        over = {name: statistics.median(ours / other for ours, other in zip(speeds["ours"], of, strict=True))
                for name, of in speeds.items()}
        write_json(Path(settings.output_dir) / "bench.json", {
            "environment": {**environment(), "cpu": processor_name()}, "over": over, "rounds": found})
        rows = [{"": name, "tokens/s": f"{statistics.median(of):,.0f}", "ours over it": f"{over[name]:.2f}",
                 "loss": f"{found[name][-1]['loss']:.3f}"} for name, of in speeds.items()]
        print(f"\nround {number + 1} of {settings.rounds}\n{table(rows)}", flush=True)
    return over


def run_job(contestant: str, steps: int) -> dict:
    seed_everything(0)
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4,
                  **{f"w{number}": 5 + number for number in range(WORDS)}}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]")
    ids = TokenIds.of(tokenizer, "words")
    model = new_transformer(transformer_config(
        "transformer-mini", len(vocabulary), dropout=0.1, max_position_embeddings=LONGEST, pad_token_id=ids.pad,
        eos_token_id=ids.end, decoder_start_token_id=ids.start))
    batches = PairBatches(made_pairs(steps * BATCH), tokenizer, tokenizer, (ids, ids), (LONGEST, LONGEST + 1), BATCH,
                          seed=0, is_training=True)
    return (run_ours if contestant == "ours" else run_trainer)(model, tokenizer, batches, steps, contestant)


def made_pairs(count: int) -> TextPairs:
    """Frequencies fall as 1 / rank; a target is its source backwards in other words, a fifth longer or shorter."""
    draw = np.random.default_rng(0)
    shares = 1 / np.arange(1, WORDS + 1)
    sources, targets = [], []
    for length in np.clip(np.exp(draw.normal(np.log(12.5), 0.33, count)), 4, 30).astype(int):
        words = draw.choice(WORDS, length, p=shares / shares.sum())
        longer = int(np.clip(length + round(draw.normal(0, 0.15) * length), 4, LONGEST - 1))
        sources.append(" ".join(f"w{word}" for word in words))
        targets.append(" ".join(f"w{(word + 1) % WORDS}" for word in np.resize(words[::-1], longer)))
    return TextPairs(sources, targets, [""] * count)


def late_speed(ended: list[float], tokens: int, steps: int) -> float:
    """tokens: of all steps, of which the first quarter is not counted; ended: when each step did."""
    late = ended[len(ended) // 4 - 1:]
    return tokens / steps * (len(late) - 1) / (late[-1] - late[0])


class Timed(Seq2Seq):
    """Notes when each batch is asked for: the step before has ended by then."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked, self.draw = [], self.batch
        self.batch = self.noted

    def noted(self, step: int, rows: range) -> dict[str, np.ndarray]:
        self.asked.append(time.perf_counter())
        return self.draw(step, rows)


def run_ours(model, tokenizer, batches: PairBatches, steps: int, contestant: str) -> dict:
    settings = Seq2SeqTrainingConfig(
        max_steps=steps, max_minutes=None, batch_size=BATCH, optimizer="adamw", learning_rate=LEARNING_RATE,
        weight_decay=0.0, adam_beta2=0.999, lr_scheduler_type="constant", warmup_ratio=0.0, logging_steps=steps,
        eval_steps=0, save_steps=0, label_smoothing=SMOOTHING)
    few = PairBatches(batches.pairs.select(range(BATCH)), tokenizer, tokenizer, (batches.source_ids,) * 2,
                      (LONGEST, LONGEST + 1), BATCH, seed=0)
    task = Timed(model, batches, few, settings, (tokenizer, tokenizer))
    with tempfile.TemporaryDirectory() as directory:
        run = Run(directory)
        train(task, settings, ImplConfig(), run, make_accelerator(), seed=0)
        (loss,) = [record["loss"] for record in map(json.loads, run.metrics_path.read_text().splitlines())
                   if "loss" in record]
    # The first batch is asked for once more, before the first step; the last step's end nobody asks for.
    return {"tokens_per_second": late_speed(task.asked[1:], real_tokens(batches), steps), "loss": loss}


def real_tokens(batches: PairBatches) -> int:
    return int(batches.source_lengths.sum() + batches.target_lengths.sum())


def run_trainer(model, tokenizer, batches: PairBatches, steps: int, contestant: str) -> dict:
    """On transformers' own class, which takes the weights over; its collator makes the decoder's inputs."""
    theirs = transformers.MarianMTModel(model.config)
    theirs.load_state_dict(model.state_dict())
    rows = [{"input_ids": source.tolist(), "attention_mask": [1] * len(source), "labels": target.tolist()}
            for source, target in zip(batches.sources, batches.targets, strict=True)]
    clock = StepClock()
    with tempfile.TemporaryDirectory() as directory:
        arguments = transformers.Seq2SeqTrainingArguments(
            output_dir=directory, per_device_train_batch_size=BATCH, max_steps=steps, learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant", logging_steps=steps, save_strategy="no", report_to=[], disable_tqdm=True,
            use_cpu=True, label_smoothing_factor=SMOOTHING, **TRAINERS[contestant])
        trainer = transformers.Seq2SeqTrainer(
            model=theirs, args=arguments, train_dataset=rows, callbacks=[clock],
            data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, model=theirs))
        trainer.train()
    loss = next(record["loss"] for record in trainer.state.log_history if "loss" in record)
    return {"tokens_per_second": late_speed(clock.ended, real_tokens(batches), steps), "loss": loss}


def main(argv: list[str]) -> None:
    settings = config.parse(BenchSeq2SeqConfig, argv, __doc__)
    if settings.job:
        print(json.dumps(run_job(settings.job, settings.steps)))
        return
    bench(settings)
    print(f"\n{settings.output_dir}/bench.json")


if __name__ == "__main__":
    cli.run(main)
