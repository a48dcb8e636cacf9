"""Sequence to sequence as a task of the loop: the next target token, given the source and the target before it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit import metrics
from toolkit.data import counter
from toolkit.data.batches import IGNORED
from toolkit.data.pairs.batches import PairBatches
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.errors import UserError
from toolkit.metrics.intervals import proportion_interval
from toolkit.models.seq2seq.beam_search import beam_search
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.run.schema import LengthGroup
from toolkit.tasks.base import Description, fit
from toolkit.tasks.settings import DecodingConfig, Seq2SeqTrainingConfig
from toolkit.tokenization.load import save_tokenizer
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.impl.distributed import reduce_sums
from toolkit.training.impl.precision import Precision
from toolkit.training.impl.settings import ImplConfig

DESCRIPTIONS = (Description(
    "seq2seq", lambda name, module, values: values.get("is_encoder_decoder", False), "text2text-generation",
    lambda inside, size, start, figures: f"An encoder–decoder of {size} that turns one text into another"
    + (f", fine-tuned from {start}." if start else ", trained from scratch."),
    "cross-entropy of the next target token, smoothed (Vaswani et al. 2017, section 5.4)"),)


class Seq2Seq:
    """Cross-entropy on `train`; the best model is chosen on `validation`. The test set is not in here."""

    best_metric = "criterion"

    def __init__(self, model: PreTrainedModel, train: PairBatches, validation: PairBatches,
                 config: Seq2SeqTrainingConfig, tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]):
        if not 0 <= config.label_smoothing < 1:
            raise UserError(f"training.label_smoothing is {config.label_smoothing}; give a share between 0 and 1.")
        self.model, self.validation, self.config, self.tokenizers = model, validation, config, tokenizers
        self.batch, self.ids = train.batch, train.target_ids
        # What its answers take, kept with it: how sources are cut, and how targets are searched for.
        model.config.max_source_length, model.config.decoding = train.max_source_length, asdict(config.decoding)

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        return {"seq2seq": int((batch["labels"] != IGNORED).sum())}

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        labels, inputs = batch["labels"], {key: value for key, value in batch.items() if key != "labels"}
        return {"seq2seq": model(**inputs, scored_labels=labels, label_smoothing=self.config.label_smoothing)["loss"]}

    def evaluate(self, model: PreTrainedModel, accelerator: Accelerator, precision: Precision) -> dict[str, float]:
        """Loss without smoothing, and the share of right tokens, where the target before is given."""
        sums = reduce_sums(accelerator, teacher_forced(model, self.validation, accelerator, self.config.batch_size))
        loss, accuracy = sums["loss"] / sums["count"], sums["right"] / sums["count"]
        return {"loss": loss, "accuracy": accuracy,
                **metrics.load("perplexity").compute(negative_log_likelihood=[sums["loss"]],
                                                     tokens=[int(sums["count"])]),
                "criterion": loss if self.config.metric_for_best_model == "loss" else 1 - accuracy}

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """One tokenizer where both sides share it; else the source's, with the target's in `target_tokenizer`."""
        model.generation_config.update(decoder_start_token_id=self.ids.start, eos_token_id=self.ids.end,
                                       pad_token_id=self.ids.pad, max_length=None,
                                       max_new_tokens=self.config.decoding.max_new_tokens)
        model.save_pretrained(directory)
        source, target = self.tokenizers
        save_tokenizer(source, directory)
        if target is not source:
            save_tokenizer(target, Path(directory) / TARGET_TOKENIZER)


TARGET_TOKENIZER = "target_tokenizer"
"""Folder beside a model whose sides have tokenizers of their own."""


def teacher_forced(model: PreTrainedModel, pairs: PairBatches, accelerator: Accelerator, batch_size: int
                   ) -> dict[str, float]:
    """Sums over this process's pairs: `loss` in nats, `right` tokens and their `count`."""
    sums = {"loss": 0.0, "right": 0.0, "count": 0.0}
    mine = pairs.by_length[accelerator.process_index::accelerator.num_processes]
    for start in range(0, len(mine), batch_size):
        batch = to_device(as_tensors(pairs.rows(mine[start:start + batch_size])), accelerator.device)
        labels = batch.pop("labels")
        found = model(**batch, scored_labels=labels)
        sums["loss"] += float(found["loss"])
        sums["right"] += float(found["correct"])
        sums["count"] += float((labels != IGNORED).sum())
    return sums


def answers(model: PreTrainedModel, pairs: PairBatches, tokenizer: PreTrainedTokenizerBase, decoding: DecodingConfig,
            accelerator: Accelerator, precision: Precision, batch_size: int = 64) -> list[str]:
    """What the model writes for every source, once each and in order, on every rank."""
    mine = pairs.by_length[accelerator.process_index::accelerator.num_processes]
    parts = []
    devices = [] if accelerator.device.type == "cpu" else [accelerator.device]
    with (torch.inference_mode(), precision.autocast(), precision.uncompiled(),
          torch.random.fork_rng(devices, enabled=decoding.temperature > 0)):
        for start in range(0, len(mine), batch_size):
            index = mine[start:start + batch_size]
            batch = to_device(as_tensors(pairs.rows(index)), accelerator.device)
            if decoding.temperature:
                torch.manual_seed(int(counter.key(decoding.seed, 0xD4A3, accelerator.process_index, start)))
            ids = decoded(model, batch["input_ids"], batch["attention_mask"], decoding)
            parts += zip(index.tolist(), tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True)
    parts = gather_object(parts) if accelerator.num_processes > 1 else parts
    texts = [""] * len(pairs)
    for index, text in parts:
        texts[index] = " ".join(text.split())
    return texts


def decoded(model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, decoding: DecodingConfig
            ) -> torch.Tensor:
    """(B, n) target ids: greedily or drawn by transformers' `generate`, or by beams with the paper's penalty."""
    if decoding.num_beams > 1:
        return beam_search(model, input_ids, attention_mask, decoding.num_beams, decoding.max_new_tokens,
                           decoding.length_penalty)[0]
    drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0} if decoding.temperature else {}
    return model.generate(input_ids=input_ids, attention_mask=attention_mask, num_beams=1, do_sample=bool(drawn),
                          max_new_tokens=decoding.max_new_tokens, **drawn)[:, 1:]


def scores(predictions: Sequence[str], references: Sequence[str]) -> dict:
    """BLEU with its signature, chrF, exact match, character error rate."""
    given = {"predictions": list(predictions), "references": list(references)}
    return {key: value for name in ("bleu", "chrf", "exact_match", "character_error_rate")
            for key, value in metrics.load(name).compute(**given).items()}


BY_LENGTH = 5
"""Groups of test pairs, about as many of each, by the length of the source."""


def telling_metric(references: Sequence[str]) -> Literal["bleu", "exact_match"]:
    """What says how good answers are: BLEU counts runs of four words; where most references have none, as dates and
    letters, a pair is right or wrong.
    """
    return "bleu" if np.median([len(text.split()) for text in references]) >= 4 else "exact_match"


def source_length(source: str, metric: str) -> int:
    """In words, where those are what is counted, else in characters."""
    return len(source.split()) if metric == "bleu" else len(source)


def by_length(pairs: TextPairs, predictions: Sequence[str]) -> list[LengthGroup]:
    """Where a bottleneck would show: the telling metric on groups of pairs, from the shortest sources to the longest.
    Sources of one length are in one group.
    """
    from toolkit.metrics.translation import bleu_interval  # its libraries are not needed to write, as a Space does

    metric = telling_metric(pairs.targets)
    lengths = np.asarray([source_length(source, metric) for source in pairs.sources])
    edges = np.unique(np.sort(lengths)[np.arange(1, BY_LENGTH) * len(lengths) // BY_LENGTH])
    group_of, found = np.searchsorted(edges, lengths, side="right"), []
    for number in np.unique(group_of):
        rows = np.flatnonzero(group_of == number)
        given = [predictions[i] for i in rows], [pairs.targets[i] for i in rows]
        value = metrics.load(metric).compute(predictions=given[0], references=given[1])[metric]
        low, high = bleu_interval(*given) if metric == "bleu" else proportion_interval(
            round(value * len(rows)), len(rows))[:2]
        found.append({"shortest": int(lengths[rows].min()), "longest": int(lengths[rows].max()), "pairs": len(rows),
                      "value": value, "low": low, "high": high})
    return found


def train_seq2seq(make_model: Callable[[], PreTrainedModel], train: PairBatches, validation: PairBatches,
                  test: PairBatches, config: Seq2SeqTrainingConfig, impl: ImplConfig, run: Run,
                  accelerator: Accelerator, seed: int, name: str,
                  tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase], keep_model: bool = True) -> dict:
    """One arm on one seed: train, take the model that was best on validation, and answer the test set once.

    Returns, and leaves in result.json, the scores; the answers go to predictions.json. A finished run is not repeated.
    """
    from toolkit.metrics.translation import bleu_interval

    def tested(learning: Seq2Seq, best: PreTrainedModel, on_validation: dict[str, float], precision: Precision) -> dict:
        best.eval()
        texts = answers(best, test, tokenizers[1], config.decoding, accelerator, precision)
        if accelerator.is_main_process:
            write_json(run.directory / "predictions.json", [
                {"source": source, "target": target, "prediction": text}
                for source, target, text in zip(test.pairs.sources, test.pairs.targets, texts, strict=True)])
        with torch.inference_mode():
            sums = reduce_sums(accelerator, teacher_forced(best, test, accelerator, config.batch_size))
        return {**scores(texts, test.pairs.targets), "bleu_interval": bleu_interval(texts, test.pairs.targets),
                "by_length": by_length(test.pairs, texts), "test_examples": len(texts),
                "loss": sums["loss"] / sums["count"],
                "parameters": sum(parameter.numel() for parameter in best.parameters() if parameter.requires_grad),
                "tokens_per_second": on_validation["tokens_per_second"], "decoding": asdict(config.decoding),
                "validation": on_validation}

    return fit(lambda: Seq2Seq(make_model(), train, validation, config, tokenizers), config, impl, run, accelerator,
               seed, name, tested, keep_model)
