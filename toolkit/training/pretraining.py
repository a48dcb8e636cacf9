"""The two pretraining objectives as tasks of the loop, masked LM with next-sentence prediction and causal LM; and what
of their optimisation goes with a preset.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from toolkit import metrics
from toolkit.data.bert import IGNORED, BertBatches, MaskingConfig
from toolkit.data.gpt import GptBatches, evaluation_blocks, num_evaluation_blocks
from toolkit.data.prepare import PreparedData
from toolkit.models.presets import preset
from toolkit.training.distributed import reduce_sums, share
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.loop import TrainingConfig
from toolkit.training.probing import Probes

# Peak rates of AdamW as published: Devlin et al. 2018, section A.2; Radford et al. 2018, section 4.1; Brown et al.
# 2020, table 2.1, which GPT-2's sizes of the same shape share (its own paper gives none).
_PUBLISHED_RATES = {
    "bert-base": 1e-4, "bert-large": 1e-4, "gpt1": 2.5e-4,
    "gpt2": 6e-4, "gpt2-medium": 3e-4, "gpt2-large": 2.5e-4, "gpt2-xl": 2e-4,
    "gpt3-small": 6e-4, "gpt3-medium": 3e-4, "gpt3-large": 2.5e-4, "gpt3-xl": 2e-4, "gpt3-2.7b": 1.6e-4,
    "gpt3-6.7b": 1.2e-4, "gpt3-13b": 1e-4, "gpt3": 6e-5}

_EVALUATION_SEED = 0x5EED  # one fixed draw of pairs and masks for every evaluation of every run
_EVALUATION_MLM_PROBABILITY = 0.15  # Devlin et al. 2018, whatever is masked in training


@dataclass
class PretrainingConfig(TrainingConfig):
    optimizer: Literal["adamw", "muon"] | None = None
    """`muon`: Muon (Jordan et al. 2024) for the matrices of the hidden layers, AdamW for everything else. Default: muon
    for small presets, adamw for those whose authors published a rate."""
    learning_rate: float | None = None
    """AdamW's, at its peak. Default: the preset's."""
    muon_learning_rate: float | None = None
    """Muon's, at its peak, on AdamW's scale (update root-mean-square 0.2, Liu et al. 2025). Default: the preset's."""
    weight_decay: float | None = None
    """Decoupled (Loshchilov & Hutter 2019); on matrices only. Default: 0.3 for small presets, which keeps weights small
    enough to be fine-tuned (recipes/README.md), 0.1 for those with a published rate, as Brown et al. 2020."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "wsd", "one_cycle"] = "wsd"


def with_defaults(training: PretrainingConfig, preset_name: str) -> PretrainingConfig:
    """Optimiser and rates that are left open, as they go with the preset.

    Small models: what transferred best at width 128 (recipes/README.md); wider ones in proportion to 1 / width (Yang
    et al. 2022), measured at 256. Large models: what their authors published.
    """
    narrow = 128 / max(128, preset(preset_name).width)
    published = _PUBLISHED_RATES.get(preset_name)
    optimizer = training.optimizer or ("adamw" if published else "muon")
    defaults = {"optimizer": optimizer, "learning_rate": published or 2e-3 * narrow,
                "muon_learning_rate": 1e-2 * narrow, "weight_decay": 0.1 if published else 0.3}
    return dataclasses.replace(training, **{key: value for key, value in defaults.items()
                                            if getattr(training, key) is None})


class BertPretraining:
    """Devlin et al. (2018): both losses are means over what they predict, and are added."""

    best_metric = "loss"

    def __init__(self, model: PreTrainedModel, data: PreparedData, masking: MaskingConfig, batch_size: int, seed: int,
                 eval_rows: int, probes: Probes | None = None):
        self.model, self.data, self.masking, self.probes = model, data, masking, probes
        self.batches = BertBatches(data.train, data.tokenizer, masking, batch_size, seed, data.weights)
        asked = dataclasses.replace(masking, mlm_probability=_EVALUATION_MLM_PROBABILITY)
        self.evaluation = BertBatches(data.validation, data.tokenizer, asked, eval_rows, _EVALUATION_SEED)
        self.eval_rows, self.eval_batch = eval_rows, batch_size
        self.batch = self.batches.batch

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        counts = {"mlm": int((batch["masked_labels"] != IGNORED).sum())}
        if self.masking.next_sentence_prediction:
            counts["nsp"] = len(batch["next_sentence_label"])
        return counts

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if not self.masking.next_sentence_prediction:
            batch = {key: value for key, value in batch.items() if key != "next_sentence_label"}
        return model(**batch)

    def evaluate(self, model, accelerator, precision) -> dict[str, float]:
        """On `eval_rows` fixed rows of the validation store; accuracies with the counts they stand on."""
        rows = share(self.eval_rows, accelerator.process_index, accelerator.num_processes)
        totals: dict[str, float] = {}
        for start in range(rows.start, rows.stop, self.eval_batch):
            batch = self.evaluation.batch(0, range(start, min(start + self.eval_batch, rows.stop)))
            add_to(totals, {f"{key}_count": value for key, value in self.counts(batch).items()})
            add_to(totals, self.losses(model, to_device(as_tensors(batch), accelerator.device)))
        totals = reduce_sums(accelerator, totals)
        result = {}
        for name in ("mlm", "nsp"):
            if f"{name}_count" in totals:
                result[f"{name}_loss"] = totals[name] / totals[f"{name}_count"]
                result[f"{name}_accuracy"] = totals[f"{name}_correct"] / totals[f"{name}_count"]
                result[f"{name}_count"] = int(totals[f"{name}_count"])
        result["loss"] = result["mlm_loss"] + result.get("nsp_loss", 0.0)
        return result | (self.probes(model, accelerator, precision) if self.probes else {})

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        model.save_pretrained(directory)
        self.data.tokenizer.save_pretrained(directory)


class CausalLanguageModelling:
    """The next token (Radford et al. 2019): batches of `input_ids` and `labels`, already shifted."""

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        return {"lm": int((batch["labels"] != IGNORED).sum())}

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return model(batch["input_ids"], shifted_labels=batch["labels"], position_ids=batch.get("position_ids"))


class GptPretraining(CausalLanguageModelling):
    """Causal language modelling on blocks packed from documents."""

    best_metric = "loss"

    def __init__(self, model: PreTrainedModel, data: PreparedData, block_size: int, batch_size: int, seed: int,
                 within_documents: bool = False, probes: Probes | None = None):
        self.model, self.data, self.block_size, self.eval_batch = model, data, block_size, batch_size
        self.probes = probes
        self.end_id, self.within_documents = data.tokenizer.eos_token_id, within_documents
        self.batches = GptBatches(data.train, block_size, batch_size, seed, data.weights,
                                  self.end_id if within_documents else None)
        self.batch = self.batches.batch

    def evaluate(self, model, accelerator, precision) -> dict[str, float]:
        """Every token of the validation store once, in blocks; bits per byte are over the bytes of its text."""
        blocks = share(num_evaluation_blocks(self.data.validation, self.block_size), accelerator.process_index,
                       accelerator.num_processes)
        totals: dict[str, float] = {"count": 0}
        for start in range(blocks.start, blocks.stop, self.eval_batch):
            batch = evaluation_blocks(self.data.validation, self.block_size, self.end_id,
                                      range(start, min(start + self.eval_batch, blocks.stop)), self.within_documents)
            add_to(totals, {"count": int((batch["labels"] != IGNORED).sum())})
            add_to(totals, self.losses(model, to_device(as_tensors(batch), accelerator.device)))
        totals = reduce_sums(accelerator, totals)
        nats, count, text_bytes = totals["lm"], int(totals["count"]), self.data.validation.manifest["bytes"]
        return {"loss": nats / count, "accuracy": totals["lm_correct"] / count, "count": count, "bytes": text_bytes,
                **(self.probes(model, accelerator, precision) if self.probes else {}),
                **metrics.load("perplexity").compute(negative_log_likelihood=[nats], tokens=[count]),
                **metrics.load("bits_per_byte").compute(negative_log_likelihood=[nats], bytes=[text_bytes])}

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        model.save_pretrained(directory)
        self.data.tokenizer.save_pretrained(directory)


class SeriesPretraining(GptPretraining):
    """The same on series as tokens, which have no bytes to count bits of."""

    def evaluate(self, model, accelerator, precision) -> dict[str, float]:
        result = super().evaluate(model, accelerator, precision)
        return {key: value for key, value in result.items() if key not in ("bytes", "bits_per_byte")}


def add_to(totals: dict[str, float], values: dict) -> None:
    for key, value in values.items():
        totals[key] = totals.get(key, 0.0) + float(value)
