"""Causal language modelling as a task, on text or on series as tokens: the next one."""

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from toolkit import metrics
from toolkit.data.batches import IGNORED
from toolkit.data.stores.gpt_batches import GptBatches, evaluation_blocks, num_evaluation_blocks
from toolkit.data.stores.prepare import PreparedData, prepare
from toolkit.data.stores.series import prepare_series
from toolkit.errors import UserError
from toolkit.pretrained import save_model
from toolkit.tasks.base import Description, Evaluation, ViewedTask
from toolkit.tasks.pretraining import add_to
from toolkit.tasks.settings import PretrainGptConfig
from toolkit.tokenization.load import save_tokenizer
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.impl.distributed import reduce_sums, share
from toolkit.training.observers.base import LossShown

DESCRIPTIONS = (Description(
    "gpt", lambda name, module, values: module is None and name.endswith("LMHeadModel"), "text-generation",
    lambda inside, size, start, figures: f"A {inside} of {size}, trained "
    + (f"further from {start}" if start else "from scratch") + " to continue its input, token by token.",
    "the next token (Radford et al. 2019)", is_pretraining=True),)


def pretraining_data(settings: PretrainGptConfig, progress: bool) -> PreparedData:
    """Tokens of the text, or of the series, that the configuration names."""
    if settings.series.sources:
        if settings.probes.sets:
            raise UserError("probes.sets names labelled texts, but series.sources is given: a model of series reads no "
                            "text. Leave one of them out.")
        data = prepare_series(settings.series, settings.tokenizer, settings.data_dir, progress)
        document = data.tokenizer.context_length + data.tokenizer.horizon + 1
        if settings.block_size < document:
            raise UserError(f"block_size is {settings.block_size}; a document of {settings.tokenizer} is {document} "
                            f"tokens, and a row must hold at least one.")
        return data
    return prepare(settings.corpus, settings.tokenizer, settings.data_dir, end_documents=True,
                   num_proc=settings.impl.preprocessing_num_workers, progress=progress)


class CausalLanguageModelling(ViewedTask):
    """The next token (Radford et al. 2019): batches of `input_ids` and `labels`, already shifted."""

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        return {"lm": int((batch["labels"] != IGNORED).sum())}

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return model(batch["input_ids"], shifted_labels=batch["labels"], position_ids=batch.get("position_ids"))


class GptPretraining(CausalLanguageModelling):
    """Causal language modelling on blocks packed from documents."""

    best_metric = "loss"

    def __init__(self, model: PreTrainedModel, data: PreparedData, block_size: int, batch_size: int, seed: int,
                 within_documents: bool = False, probes: Evaluation | None = None):
        self.model, self.data, self.block_size, self.eval_batch = model, data, block_size, batch_size
        self.probes, self.loss_shown = probes, LossShown()
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
        # A text ends where the positions do, when nobody says how long it shall be.
        model.generation_config.max_length = model.config.max_position_embeddings
        save_model(model, directory)
        save_tokenizer(self.data.tokenizer, directory, model.config.max_position_embeddings)


class SeriesPretraining(GptPretraining):
    """The same on series as tokens, which have no bytes to count bits of."""

    def evaluate(self, model, accelerator, precision) -> dict[str, float]:
        result = super().evaluate(model, accelerator, precision)
        return {key: value for key, value in result.items() if key not in ("bytes", "bits_per_byte")}

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        save_model(model, directory)
        self.data.tokenizer.save_pretrained(directory)


