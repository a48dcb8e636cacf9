"""Fine-tuning as a task of the loop, for texts and for series, for classes, several labels, soft labels and numbers."""

import copy
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from toolkit import metrics
from toolkit.data.batches import LabelledBatches
from toolkit.data.text.text_input import save_with_input
from toolkit.errors import UserError
from toolkit.models.lora import add_lora, merge_lora
from toolkit.models.losses import Objective, Task, fold_scale, probabilities
from toolkit.models.registry import reads_text
from toolkit.pretrained import save_model
from toolkit.run.directory import Run
from toolkit.run.files import write_atomic
from toolkit.tasks.base import Description, ViewedTask, fit, for_all, write_arrays
from toolkit.tasks.settings import FineTuningConfig
from toolkit.tasks.threshold import ThresholdConfig, choose_threshold, positive_class
from toolkit.tokenization.load import save_tokenizer
from toolkit.training.impl.precision import ImplConfig, Precision
from toolkit.training.observers.base import LossShown

_SHORT = {"mse": "mse", "mae": "mae", "msle": "msle", "focal": "focal loss", "kl-divergence": "KL"}
_CLASSIFIER = re.compile("For(Sequence)?Classification$")  # not of tokens
DESCRIPTIONS = (
    Description("text", lambda name, module, values: bool(_CLASSIFIER.search(name))
                and reads_text(values.get("model_type")) and values.get("problem_type") == "regression",
                "text-classification", lambda inside, size, start, figures: f"A {inside} of {size} that reads a number "
                f"out of a text, fine-tuned from {start}.", "squared error", is_classifier=True),
    Description("text", lambda name, module, values: bool(_CLASSIFIER.search(name))
                and reads_text(values.get("model_type")),
                "text-classification", lambda inside, size, start, figures: f"A {inside} of {size} that classifies "
                f"texts, fine-tuned from {start}.", "cross-entropy of the label", is_classifier=True),
    Description("series", lambda name, module, values: bool(_CLASSIFIER.search(name))
                and not reads_text(values.get("model_type")),
                "other", lambda inside, size, start, figures: f"A model of {size} that classifies time series"
                + (f", fine-tuned from {start}." if start else "."), "cross-entropy of the label", unit="values",
                is_classifier=True))


class FineTuning(ViewedTask):
    """An objective on `train`; evaluated, and the best model chosen, on `validation`. The test set is not in here."""

    best_metric = "criterion"

    def __init__(self, model: PreTrainedModel, train: LabelledBatches, validation: LabelledBatches,
                 config: FineTuningConfig, tokenizer: PreTrainedTokenizerBase | None = None,
                 task: Task = "classification"):
        self.model, self.validation, self.config, self.tokenizer = model, validation, config, tokenizer
        self.objective = Objective(task, config.objective, train.labels, model.config.num_labels)
        self.loss_shown = LossShown(_SHORT.get(self.objective.loss_name, "loss"),
                                    guessing=self.objective.of_guessing(validation.labels))
        self.criterion = config.metric_for_best_model
        if self.criterion == "auto":
            self.criterion = {"classification": "accuracy", "multi-label": "f1"}.get(task, "loss")
        elif self.criterion != "loss" and task == "regression":
            raise UserError(f"training.metric_for_best_model is {self.criterion}, which numbers do not have. Use loss.")
        self.batch = train.batch
        self.text_input = getattr(train, "text_input", None)  # of series there is none
        if self.text_input is not None:
            model.config.text_input = asdict(self.text_input)
        if config.tuning == "lora":
            add_lora(model, config.lora_rank)
        elif config.tuning == "head":
            model.base_model.requires_grad_(False)

    def counts(self, batch: dict[str, np.ndarray]) -> dict[str, int]:
        return {"classification": len(batch["labels"])}

    def losses(self, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        return {"classification": self.objective(model(**inputs).logits, batch["labels"])}

    def evaluate(self, model: PreTrainedModel, accelerator: Accelerator, precision: Precision) -> dict[str, float]:
        logits = predict(model, self.validation, accelerator, precision)
        return self.figures(self.objective.in_units(logits.astype(np.float64)))

    def figures(self, logits: np.ndarray) -> dict[str, float]:
        """Of what a saved model gives for validation: its loss, its scores and the criterion by which it is kept."""
        labels, task = self.validation.labels, self.objective.task
        loss = self.objective.of_saved(logits, labels)
        scores = {"loss": loss, **score(task, probabilities(task, logits), labels)}
        return {**scores, "criterion": loss if self.criterion == "loss" else 1 - scores[self.criterion]}

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """With all that its answers take: LoRA merged, the scale of numbers in its head, how texts are read beside it.
        """
        regression = self.objective.task == "regression"
        if regression or self.config.tuning == "lora":
            model = copy.deepcopy(model)
        if self.config.tuning == "lora":
            model = merge_lora(model)
        if regression:
            fold_scale(model, *self.objective.scale)
        save_model(model, directory)
        if self.tokenizer is not None and self.text_input is not None:
            save_with_input(self.tokenizer, self.text_input, directory)
        elif self.tokenizer is not None:  # of batches that are not ours
            save_tokenizer(self.tokenizer, directory)


def predict(model: PreTrainedModel, data: LabelledBatches, accelerator: Accelerator, precision: Precision,
            batch_size: int = 64) -> np.ndarray:
    """(n, classes) float32 logits of every example, once each and in order, on every rank."""
    return for_all(lambda **batch: model(**batch).logits, model, data, accelerator, precision, batch_size)


def class_scores(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Accuracy and macro F1."""
    return {**metrics.load("accuracy").compute(predictions=predictions, references=references),
            **metrics.load("f1").compute(predictions=predictions, references=references, average="macro")}


def score(task: Task, outputs: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """What `Objective.probabilities` gives against labels of the same kind."""
    predictions = decisions(task, outputs)
    if task == "classification":
        return class_scores(predictions, references)
    if task == "distribution":  # of the likeliest class
        return class_scores(predictions, references.argmax(1))
    if task == "multi-label":
        references = references.astype(int)
        return {"accuracy": float((predictions == references).all(1).mean()),
                **metrics.load("f1").compute(predictions=predictions, references=references, average="micro")}
    errors = {name: metrics.load(name).compute(predictions=predictions, references=references)[name]
              for name in ("mse", "mae")}
    variance = float(np.var(references.astype(np.float64)))
    return {**errors, "r2": 1 - errors["mse"] / variance if variance else None}


MAIN_SCORE: dict[str, str] = {"classification": "accuracy", "distribution": "accuracy", "multi-label": "f1",
                              "regression": "r2"}
"""Task → the one of `score` by which arms are compared; more is better."""


def fine_tune(make_model: Callable[[], PreTrainedModel], train_data: LabelledBatches, validation: LabelledBatches,
              test: LabelledBatches, config: FineTuningConfig, impl: ImplConfig, run: Run, accelerator: Accelerator,
              seed: int, name: str, tokenizer: PreTrainedTokenizerBase | None = None, keep_model: bool = False,
              task: Task = "classification", threshold: ThresholdConfig | None = None) -> dict:
    """One arm on one seed: train, take the model that was best on validation, and touch the test set once.

    Returns, and leaves in the run's result.json, the test scores and predictions; what the model gives for every
    example of validation and test goes to outputs.npz. A threshold is chosen on validation, written into the model's
    configuration, and held against test. A finished run is not repeated.
    """
    def tested(learning: FineTuning, best: PreTrainedModel, on_validation: dict[str, float], precision: Precision
               ) -> dict:
        logits = {split: predict(best, data, accelerator, precision)
                  for split, data in (("validation", validation), ("test", test))}
        outputs = {split: probabilities(task, values) for split, values in logits.items()}
        chosen = None
        if threshold is not None:
            chosen = at_threshold(outputs, validation.labels, test.labels, threshold, task, best.config.id2label)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            if chosen is not None:
                best.config.decision_threshold = {key: chosen[key] for key in ("label", "probability", "aim")}
                write_atomic(run.model_dir / "config.json", best.config.to_json_string())
            write_arrays(run.directory / "outputs.npz", {split: values.astype(np.float32)
                                                         for split, values in outputs.items()})
        scores = score(task, outputs["test"], test.labels)
        if task == "regression" and (told := worse_than_constant(scores, train_data.labels, test.labels)):
            accelerator.print(f"{name}: {told}")
        # What training gave last is of the last weights; these figures are those of the model that is kept.
        return {**scores, "predictions": decisions(task, outputs["test"]).tolist(),
                "validation": {**on_validation, **learning.figures(logits["validation"])},
                **({"threshold": chosen} if chosen else {})}

    return fit(lambda: FineTuning(make_model(), train_data, validation, config, tokenizer, task), config, impl, run,
               accelerator, seed, name, tested, keep_model)


def worse_than_constant(scores: dict[str, float], train_labels: np.ndarray, test_labels: np.ndarray) -> str:
    """A line to tell where answering the mean of training would have been no worse; else nothing."""
    constant = float(np.mean((test_labels.astype(np.float64) - train_labels.mean(dtype=np.float64)) ** 2))
    if scores["mse"] < constant:
        return ""
    return (f"on test its squared error is {scores['mse']:.4g}, no better than the {constant:.4g} of answering the "
            f"mean of training. It has learned nothing that helps; train longer, or give it more examples.")


def at_threshold(outputs: dict[str, np.ndarray], validation_labels: np.ndarray, test_labels: np.ndarray,
                 config: ThresholdConfig, task: Task, names: dict[int, str]) -> dict | None:
    """The threshold chosen on validation, and what it comes to there and on test; None where none is asked for."""
    label_names = tuple(names[index] for index in sorted(names))
    positive = positive_class(config, task, label_names)
    if positive is None:
        return None
    probability = choose_threshold(outputs["validation"][:, positive], validation_labels == positive, config)
    found = {"label": label_names[positive], "probability": probability, "aim": config.aim}
    for split, labels in (("validation", validation_labels), ("test", test_labels)):
        called, actual = (outputs[split][:, positive] >= probability).astype(int), (labels == positive).astype(int)
        found[split] = {name: metrics.load(name).compute(predictions=called, references=actual)[name]
                        for name in ("accuracy", "precision", "recall", "specificity")}
        found[split] |= metrics.load("fbeta").compute(predictions=called, references=actual, beta=config.beta)
    return found


def decisions(task: Task, outputs: np.ndarray) -> np.ndarray:
    """Class ids (n,); for several labels rows of 0 and 1; numbers as they are."""
    if task in ("classification", "distribution"):
        return outputs.argmax(1)
    return (outputs >= 0.5).astype(int) if task == "multi-label" else outputs
