"""Tags on words as a task of the loop: one of the tags for each word, spans of words among them."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit.data.batches import IGNORED
from toolkit.data.tags.batches import TagBatches
from toolkit.data.tags.paths import allowed, best_path
from toolkit.metrics.tagging import marks_spans, tag_interval, tag_scores
from toolkit.models.lora import add_lora, merge_lora
from toolkit.pretrained import save_model
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.tasks.base import Description, ViewedTask, fit
from toolkit.tasks.settings import TaggingConfig
from toolkit.tokenization.load import save_tokenizer
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.impl.precision import Precision
from toolkit.training.impl.settings import ImplConfig

DESCRIPTIONS = (Description(
    "tokens", lambda name, module, values: name.endswith("ForTokenClassification"), "token-classification",
    lambda inside, size, start, figures: f"A {inside} of {size} that tags each word of a text"
    + (f", fine-tuned from {start}." if start else "."), "cross-entropy of the tag of each word"),)


class Tagging(ViewedTask):
    """Cross-entropy of words' tags on `train`; the best model is chosen on `validation`. The test is not in here."""

    best_metric = "criterion"

    def __init__(self, model: PreTrainedModel, train: TagBatches, validation: TagBatches, config: TaggingConfig,
                 tokenizer: PreTrainedTokenizerBase):
        self.model, self.validation, self.config, self.tokenizer = model, validation, config, tokenizer
        self.batch, self.spans = train.batch, marks_spans(train.tags)
        # What its answers take, kept with it.
        model.config.tag_input = {"max_length": train.max_length, "labelled": train.labelled,
                                  "constrained": config.constrained}
        if config.tuning == "lora":
            add_lora(model, config.lora_rank)
        elif config.tuning == "head":
            model.base_model.requires_grad_(False)

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        return {"tagging": int((batch["labels"] != IGNORED).sum())}

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return {"tagging": F.cross_entropy(logits.flatten(0, 1).float(), batch["labels"].flatten(),
                                           ignore_index=IGNORED, reduction="sum")}

    def evaluate(self, model: PreTrainedModel, accelerator: Accelerator, precision: Precision) -> dict[str, float]:
        scores = word_scores(model, self.validation, accelerator, precision)
        return self.figures(scores)

    def figures(self, scores: list[np.ndarray]) -> dict[str, float]:
        """Of the log-probabilities of each sentence's words: their loss, its scores, and what the best is chosen by."""
        sentences, known = self.validation.sentences, {tag: number for number, tag in enumerate(self.validation.tags)}
        losses = [-row[known[tag]] for words, tags in zip(scores, sentences.tags, strict=True)
                  for row, tag in zip(words, tags, strict=True) if tag in known]
        found = tag_scores(sentences.words, tagged(scores, self.validation.tags, self.config.constrained),
                           sentences.tags, self.spans)
        return {"loss": float(np.mean(losses)), "accuracy": found["accuracy"],
                **({"f1": found["f1"]} if self.spans else {}),
                "criterion": 1 - found["f1" if self.spans else "accuracy"]}

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """With LoRA merged, and its tokenizer beside it."""
        if self.config.tuning == "lora":
            model = merge_lora(copy.deepcopy(model))
        save_model(model, directory)
        save_tokenizer(self.tokenizer, directory)


def word_scores(model: PreTrainedModel, data: TagBatches, accelerator: Accelerator, precision: Precision,
                batch_size: int = 64) -> list[np.ndarray]:
    """Of each sentence (words, tags) float32 log-probabilities, in order, on every rank."""
    mine = data.by_length[accelerator.process_index::accelerator.num_processes]
    training, parts = model.training, []
    model.eval()
    with torch.inference_mode(), precision.autocast(), precision.uncompiled():
        for start in range(0, len(mine), batch_size):
            index = mine[start:start + batch_size]
            batch = to_device(as_tensors(data.rows(index)), accelerator.device)
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
            for number, values in zip(index.tolist(), torch.log_softmax(logits, -1).cpu().numpy(), strict=True):
                places, words = (list(part) for part in zip(*data.answering(number), strict=True))
                parts.append((data.windows[number].sentence, words, values[places]))
    model.train(training)
    parts = gather_object(parts) if accelerator.num_processes > 1 else parts
    found = [np.empty((len(words), len(data.tags)), np.float32) for words in data.pieces]
    for sentence, words, values in parts:
        found[sentence][words] = values
    return found


def tagged(scores: list[np.ndarray], tags: list[str], constrained: bool) -> list[list[str]]:
    """The likeliest tag of each word; constrained: the likeliest sentence of tags in which each span begins with B-."""
    rules = allowed(tags)
    return [[tags[number] for number in (best_path(words, *rules) if constrained else words.argmax(1))]
            for words in scores]


def train_tagger(make_model: Callable[[], PreTrainedModel], train: TagBatches, validation: TagBatches, test: TagBatches,
                 config: TaggingConfig, impl: ImplConfig, run: Run, accelerator: Accelerator, seed: int, name: str,
                 tokenizer: PreTrainedTokenizerBase, keep_model: bool = True) -> dict:
    """One arm on one seed: train, take the model that was best on validation, and tag the test set once.

    Returns, and leaves in result.json, the scores; the tags go to predictions.json. A finished run is not repeated.
    """
    def tested(learning: Tagging, best: PreTrainedModel, on_validation: dict[str, float], precision: Precision) -> dict:
        sentences = test.sentences
        answers = tagged(word_scores(best, test, accelerator, precision), test.tags, config.constrained)
        if accelerator.is_main_process:
            write_json(run.directory / "predictions.json", [
                {"words": words, "tags": tags, "predictions": given}
                for words, tags, given in zip(sentences.words, sentences.tags, answers, strict=True)])
        scores = tag_scores(sentences.words, answers, sentences.tags, learning.spans)
        known = learning.figures(word_scores(best, validation, accelerator, precision))
        return {**scores, "interval": tag_interval(answers, sentences.tags, learning.spans),
                "test_examples": len(sentences),
                "parameters": sum(parameter.numel() for parameter in best.parameters()),
                "validation": {**on_validation, **known}}

    return fit(lambda: Tagging(make_model(), train, validation, config, tokenizer), config, impl, run, accelerator,
               seed, name, tested, keep_model)
