"""Arms on labelled texts: what pretraining bought, by number of labels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from toolkit.analysis.probes import fit_head, frozen_states, new_text_classifier
from toolkit.data.tables.labels import Note
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText, spread
from toolkit.data.text.labelled import TextDataSection
from toolkit.experiments.grid import Classifying
from toolkit.experiments.results import by, gain, mcnemar_p, over_test_examples, summary, values
from toolkit.experiments.settings import CompareTextConfig, TransferConfig
from toolkit.metrics.intervals import mean_interval, verdict
from toolkit.models.load import load_checkpoint_tokenizer, pretrained_config
from toolkit.models.text.classifier import text_classifier
from toolkit.run.results import Row, Verdict, over_sets
from toolkit.tokenization.measure import check_unknown
from toolkit.training.feed import seed_everything
from toolkit.training.impl.precision import choose

ARMS = {"random": ("full", False), "frozen": ("head", True), "tuned": ("full", True), "lora": ("lora", True)}
"""Arm → what is trained, and whether it starts from the checkpoint's values."""


@dataclass(frozen=True)
class Checkpoint:
    """A model that is compared, with what it reads texts by."""

    path: str
    tokenizer: PreTrainedTokenizerBase
    max_positions: int | None = None

    @classmethod
    def of(cls, path: str) -> "Checkpoint":
        return cls(path, load_checkpoint_tokenizer(path), pretrained_config(path).max_position_embeddings)

    def check(self, train: LabelledText, data: TextDataSection, name: str, note: Note) -> None:
        """Tell, or refuse above data.max_unknown, what of the training texts its tokenizer does not know."""
        check_unknown(self.tokenizer, spread(train, 2000), f"models.{name}, on texts of {data.train or 'training'}",
                      data.max_unknown, f"{data.section}max_unknown", note)

    def batches(self, part: LabelledText, data: TextDataSection, batch_size: int, seed: int = 0) -> TextBatches:
        return TextBatches(part, self.tokenizer, data.max_length, batch_size, seed, data.long_texts,
                           self.max_positions)


def fine_tuning(checkpoint: Checkpoint, label_names: tuple[str, ...], batches: tuple[TextBatches, ...],
                settings: CompareTextConfig | TransferConfig, accelerator: Accelerator, pretrained: bool,
                tuning: str | None = None, keep_tokenizer: bool = False) -> Classifying:
    """One fit: the checkpoint, or random values in its shape, from a probe on; tuning: in place of the config's."""
    training = settings.training if tuning is None else replace(settings.training, tuning=tuning)
    make = partial(new_text_classifier, checkpoint.path, label_names, checkpoint.tokenizer, batches[0], accelerator,
                   settings.impl, pretrained, settings.pooling, settings.dropout)
    return Classifying(make, batches, training, settings.impl, checkpoint.tokenizer if keep_tokenizer else None)


def states_by_seed(checkpoint: Checkpoint, label_names: tuple[str, ...], parts: list[TextBatches], pretrained: bool,
                   settings: TransferConfig, accelerator: Accelerator) -> Iterator[list[np.ndarray]]:
    """For each seed the backbone's states of (train, test); of a checkpoint they are the same, and computed once."""
    precision, states = choose(settings.impl, accelerator.device), None
    for seed in range(settings.seeds):
        if not pretrained or states is None:
            seed_everything(seed)
            backbone = text_classifier(checkpoint.path, label_names, checkpoint.tokenizer, pretrained=pretrained,
                                       pooling=settings.pooling, dropout=settings.dropout).backbone
            backbone.to(accelerator.device)
            states = [frozen_states(backbone, settings.pooling, part, accelerator, precision) for part in parts]
        yield states


def probed(states: list[np.ndarray], chosen: np.ndarray, train: LabelledText, test: LabelledText) -> dict:
    """Accuracy on test of logistic regression on the states of the chosen training examples."""
    head = fit_head(states[0][chosen], train.labels[chosen], len(train.label_names))
    return {"accuracy": float((head.predict(states[1]) == test.labels).mean())}


# --- what compare_text and transfer report -------------------------------------------------------------------------


def arms_by_labels(rows: list[Row], examples: int) -> dict:
    """Means with intervals over seeds; gains over the reference arm, over seeds and over test examples."""
    curve: dict = {}
    for size, arms in by(rows, "size", "arm").items():
        curve[size] = {}
        for arm, fits in arms.items():
            entry = {**mean_interval(values(fits)).as_dict(), "seeds": len(fits), "values": values(fits)}
            if fits[0].reference:
                reference = arms[fits[0].reference]
                ahead = gain(fits, reference)
                entry |= {"reference": fits[0].reference, "gain_points": ahead.as_dict(),
                          "verdict": verdict(ahead, f"{arm} over {reference[0].start}"),
                          "test_set_points": over_test_examples(fits, reference),
                          "mcnemar_p": mcnemar_p(fits, reference)}
            curve[size][arm] = entry
    last = list(curve)[-1]
    return {**curve[last], "labels": last, "test_examples": examples, "learning_curve": curve}


def arms_by_set_and_labels(rows: list[Row]) -> dict:
    """Means with intervals over seeds, by set and for the mean of all sets; what pretraining bought."""
    result: dict = {}
    for name, by_size in by([*rows, *over_sets(rows, "accuracy")], "set", "size", "arm").items():
        for size, arms in by_size.items():
            entries = {arm: summary(values(fits)) for arm, fits in arms.items()}
            for arm, fits in arms.items():
                if fits[0].reference:
                    ahead = gain(fits, arms[fits[0].reference])
                    entries[arm] |= {"gain_points": ahead.as_dict(), "verdict": verdict(ahead)}
            result.setdefault(name, {})[size] = entries
    return result


def verdicts_by_labels(curve: dict, set_name: str = "") -> list[Verdict]:
    return [Verdict(arm, entry["verdict"], set_name, size) for size, arms in curve.items()
            for arm, entry in arms.items() if "verdict" in entry]
