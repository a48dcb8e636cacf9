"""What pretraining bought on one set of labelled texts, by number of labels.

    python recipes/compare_text.py --config recipes/configs/compare-trec.yaml [--section.key value ...]

Arms that share splits and seeds: the majority class; TF-IDF and logistic regression; and for every checkpoint the same
model from random values, its frozen encoder under a trained head, all of it tuned, and, when asked for, LoRA. Every arm
is held against the reference arm over seeds, and over the test examples. Writes runs/compare-text/<name>.json, .png
and .html.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit import cli, config
from toolkit.analysis.probes import new_text_classifier
from toolkit.baselines.classical import tfidf_logistic
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText, draw, label_counts
from toolkit.data.text.labelled import TextDataSection, load_data
from toolkit.errors import UserError
from toolkit.metrics.intervals import mcnemar, mean_interval, paired_bootstrap, paired_difference, verdict
from toolkit.metrics.tabulate import table
from toolkit.models.checkpoints import load_checkpoint_tokenizer, pretrained_config
from toolkit.models.text.classifier import Pooling
from toolkit.publishing import card
from toolkit.publishing.card import LiveCard
from toolkit.report.pages import write_comparison
from toolkit.report.plots import plot_learning_curves
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.tasks.classification import FineTuningConfig, fine_tune
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig

ARMS = {"random": ("full", False), "frozen": ("head", True), "tuned": ("full", True), "lora": ("lora", True)}
"""Arm → what is trained, and whether it starts from the checkpoint's values."""


@dataclass
class CompareTextConfig:
    name: str
    """Of the data set, and of the files that are written."""
    models: dict
    """Name → checkpoint directory or hub id."""
    output_dir: str = "runs/compare-text"
    data: TextDataSection = field(default_factory=TextDataSection)
    arms: list[Literal["random", "frozen", "tuned", "lora"]] = field(
        default_factory=lambda: ["random", "frozen", "tuned"])
    """For each model. The first that a model has is what its other arms are held against."""
    labels: list[int | Literal["all"]] = field(default_factory=lambda: [50, 200, 1000, "all"])
    """How many labelled examples; a larger count of the same seed holds the smaller one's."""
    seeds: int = 5
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    pooling: Pooling = "layers"
    dropout: float = 0.3
    impl: ImplConfig = field(default_factory=ImplConfig)


def compare_text(settings: CompareTextConfig, accelerator) -> dict:
    """Every arm on every seed and number of labels; returns what the JSON file holds."""
    if not settings.models or not settings.arms or not settings.labels or settings.seeds < 1:
        raise UserError("compare_text needs at least one entry under each of models, arms and labels, and seeds of at "
                        "least 1.")
    run = Run(Path(settings.output_dir) / settings.name, accelerator.is_main_process, [LiveCard()]).open(settings)
    train, validation, test = load_data(settings.data, accelerator.print)
    if train.task != "classification":
        raise UserError(f"data.task is {train.task}; comparisons are made for classification.")
    tokenizers = {name: load_checkpoint_tokenizer(path) for name, path in settings.models.items()}
    positions = {name: pretrained_config(path).max_position_embeddings for name, path in settings.models.items()}
    run.write_manifest(examples={"train": len(train), "validation": len(validation), "test": len(test)})
    counts = label_counts(settings.labels, len(train))

    def tokenised(part: LabelledText, model: str, seed: int = 0) -> TextBatches:
        return TextBatches(part, tokenizers[model], settings.data.max_length, settings.training.batch_size, seed,
                           settings.data.long_texts, positions[model])

    held_out = {model: [tokenised(part, model) for part in (validation, test)] for model in settings.models}

    answers: dict[str, dict[str, list]] = {column: {} for column in counts}  # labels → arm → one of predictions a seed
    for column, size in counts.items():
        for seed in range(settings.seeds):
            labelled = train.select(draw(train, size, seed))

            def note(arm: str, predictions, column: str = column) -> None:
                answers[column].setdefault(arm, []).append(np.asarray(predictions))

            note("majority class", np.full(len(test), np.bincount(labelled.labels).argmax()))
            note("TF-IDF", tfidf_logistic(labelled, test))
            for model, path in settings.models.items():
                batches = [tokenised(labelled, model, seed), *held_out[model]]
                for arm in settings.arms:
                    tuning, pretrained = ARMS[arm]
                    make = partial(new_text_classifier, path, train.label_names, tokenizers[model], batches[0],
                                   accelerator, settings.impl, pretrained, settings.pooling, settings.dropout)
                    training = config.from_dict(FineTuningConfig, config.with_values(
                        config.to_dict(settings.training), {"tuning": tuning}))
                    fit = fine_tune(make, *batches, training, settings.impl,
                                    run.part(f"{model}-{arm}/{column}/seed-{seed}"),
                                    accelerator, seed, f"{column} labels, {model} {arm}, seed {seed}",
                                    tokenizers[model])
                    note(f"{model}, {arm}", fit["predictions"])

    result = summarise(answers, test.labels, settings)
    if accelerator.is_main_process:
        write_json(Path(settings.output_dir) / f"{settings.name}.json", result)
        picture = Path(settings.output_dir) / f"{settings.name}.png"
        plot_learning_curves({settings.name: result["learning_curve"]}, picture, "Test accuracy by number of labels")
        write_comparison(f"{settings.name}: was pretraining worth it?", show(result), picture,
                         picture.with_suffix(".html"))
        card.refresh(run.directory)
    return result


def summarise(answers: dict, references: np.ndarray, settings: CompareTextConfig) -> dict:
    """Means with intervals over seeds; paired differences to the reference arm, over seeds and over test examples."""
    curve: dict = {}
    for column, arms in answers.items():
        right = {arm: np.stack(predictions) == references for arm, predictions in arms.items()}  # (seeds, examples)
        curve[column] = {}
        for arm, values in right.items():
            accuracies = values.mean(1).tolist()
            entry = {**mean_interval(accuracies).as_dict(), "seeds": len(accuracies), "values": accuracies}
            model, _, kind = arm.partition(", ")
            reference = f"{model}, {settings.arms[0]}"
            if kind and arm != reference:
                gain = paired_difference(100 * values.mean(1), 100 * right[reference].mean(1))
                mean, low, high = paired_bootstrap(values.mean(0), right[reference].mean(0))
                entry |= {"reference": reference, "gain_points": gain.as_dict(),
                          "verdict": verdict(gain, f"{arm} over {settings.arms[0]}"),
                          "test_set_points": [100 * mean, 100 * low, 100 * high],
                          "mcnemar_p": mcnemar(values[0], right[reference][0])}
            curve[column][arm] = entry
    return {**curve[list(curve)[-1]], "labels": list(curve)[-1], "test_examples": len(references),
            "learning_curve": curve}


def show(result: dict) -> str:
    """The table at the most labels, the verdicts, and the learning curve."""
    curve = result["learning_curve"]
    last = curve[result["labels"]]
    def points(value: float | None) -> str | None:
        return None if value is None else f"{value:.1f}"

    rows = [{"arm": arm, "accuracy %": points(100 * entry["mean"]),
             "sd": points(entry["sd"] and 100 * entry["sd"]), "± 95 %": points(entry["ci95"] and 100 * entry["ci95"]),
             "over the reference": points(entry.get("gain_points", {}).get("mean")),
             "± seeds": points(entry.get("gain_points", {}).get("ci95")),
             "± test set": points(entry["test_set_points"][2] - entry["test_set_points"][0])
             if "verdict" in entry else None,
             "McNemar p": f"{entry['mcnemar_p']:.2g}" if "verdict" in entry else None} for arm, entry in last.items()]
    curves = [{"arm": arm} | {count: points(100 * entries[arm]["mean"]) for count, entries in curve.items()}
              for arm in last]
    verdicts = [f"{count} labels: {entry['verdict']}" for count, entries in curve.items() for entry in entries.values()
                if "verdict" in entry]
    return "\n\n".join([f"{result['labels']} labels, {result['test_examples']:,} test examples\n{table(rows)}",
                        f"test accuracy in percent by number of labels\n{table(curves)}", "\n".join(verdicts)])


def main(argv: list[str]) -> None:
    settings = config.parse(CompareTextConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = compare_text(settings, accelerator)
    accelerator.print(show(result))
    accelerator.print(f"{Path(settings.output_dir) / settings.name}.json")


if __name__ == "__main__":
    cli.run(main)
