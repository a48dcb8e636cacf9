"""BERT's pretraining as a task: masked words and, where pairs are given, next-sentence prediction."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from toolkit.data.batches import IGNORED
from toolkit.data.stores.bert_batches import BertBatches, MaskingConfig
from toolkit.data.stores.prepare import PreparedData
from toolkit.pretrained import save_model
from toolkit.run.directory import Run
from toolkit.run.files import read_json
from toolkit.run.schema import Manifest
from toolkit.tasks.base import Description, Evaluation, ViewedTask
from toolkit.tasks.pretraining import EVALUATION_SEED, add_to
from toolkit.tokenization.load import save_tokenizer
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.impl.distributed import reduce_sums, share
from toolkit.training.observers.base import LossShown

_EVALUATION_MLM_PROBABILITY = 0.15  # Devlin et al. 2018, whatever is masked in training


DESCRIPTIONS = (Description(
    "bert", lambda name, module, values: module is None and bool(re.search("ForPreTraining|ForMaskedLM", name)),
    "fill-mask", lambda inside, size, start, figures: f"A {inside} of {size}, pretrained "
    + (f"further from {start}" if start else "from scratch") + ": masked words"
    + " and next sentences" * ("nsp_loss" in figures) + ".", "masked words (Devlin et al. 2018)",
    is_pretraining=True),)


def drawn_in_pairs_alone(run: Run) -> bool:
    """Whether the checkpoints of a run without next-sentence prediction are an earlier version's, which saw other rows:
    it goes on with those. `write_manifest` notes "single_sentences" of all others.
    """
    path = run.directory / "manifest.json"
    data = read_json(path, Manifest).get("data") or {} if path.exists() else {}
    return any(run.checkpoint_dir.glob("step-*")) and "single_sentences" not in data


class BertPretraining(ViewedTask):
    """Devlin et al. (2018): both losses are means over what they predict, and are added."""

    best_metric = "loss"

    def __init__(self, model: PreTrainedModel, data: PreparedData, masking: MaskingConfig, batch_size: int, seed: int,
                 eval_rows: int, probes: Evaluation | None = None, pairs_alone: bool = False):
        self.model, self.data, self.masking, self.probes = model, data, masking, probes
        self.batches = BertBatches(data.train, data.tokenizer, masking, batch_size, seed, data.weights,
                                   pairs_alone)
        asked = dataclasses.replace(masking, mlm_probability=_EVALUATION_MLM_PROBABILITY)
        self.evaluation = BertBatches(data.validation, data.tokenizer, asked, eval_rows, EVALUATION_SEED,
                                      pairs_alone=pairs_alone)
        self.eval_rows, self.eval_batch = eval_rows, batch_size
        self.loss_shown = LossShown("mlm", "mlm_loss", "eval_mlm_loss")
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
        save_model(model, directory)
        save_tokenizer(self.data.tokenizer, directory, model.config.max_position_embeddings)
