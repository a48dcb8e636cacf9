"""What is a checkpoint worth with 100, 400, 1,600 and all labels? Learning curves beside what needs no pretraining.

    make transfer
    make transfer ARGS="--models '{bert: runs/bert/model}' --output_dir runs/transfer-bert"
    make transfer ARGS="--quick true"                     probes only, a minute

For each data set, number of labels and seed (which draws the labels, the random start, the order and the dropout):
a frozen probe (logistic regression on the checkpoint's states), full fine-tuning that starts from this probe, both from
random weights of the same shape, TF-IDF, and averaged word vectors. Writes transfer.json (data set → labels → arm →
mean, ci95) and transfer.png. A run that was broken off goes on.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from toolkit import cli, config
from toolkit.analysis.probes import fit_head, frozen_states, new_text_classifier
from toolkit.baselines.classical import majority, tfidf_logistic
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText, draw, label_counts
from toolkit.data.text.labelled import TextDataSection, load_data
from toolkit.errors import UserError
from toolkit.metrics.intervals import mean_interval, paired_difference, verdict
from toolkit.metrics.tabulate import table
from toolkit.models.checkpoints import load_checkpoint_tokenizer
from toolkit.models.text.classifier import text_classifier
from toolkit.models.word_vectors import averaged, load_word2vec
from toolkit.publishing import card
from toolkit.publishing.card import LiveCard
from toolkit.report.plots import plot_learning_curves
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.tasks.classification import FineTuningConfig, fine_tune
from toolkit.tokenization.load import load_tokenizer
from toolkit.training.feed import seed_everything
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, choose

MEAN = "mean of all sets"


@dataclass
class TransferConfig:
    output_dir: str
    models: dict
    """Name → checkpoint directory or hub id."""
    sets: dict
    """Name → what the `data` section of finetune-text takes."""
    labels: list[int | Literal["all"]] = field(default_factory=lambda: [100, 400, 1600, "all"])
    """How many labelled examples; those of a seed are drawn from the training file, whatever their class."""
    seeds: int = 5
    quick: bool = False
    """Frozen probes and baselines only."""
    word_vectors: str = ""
    """A file of `make word-vectors`, whose averages are a baseline; its tokenizer lies beside it."""
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    pooling: Literal["layers", "mean", "max"] = "layers"
    dropout: float = 0.3
    impl: ImplConfig = field(default_factory=ImplConfig)


def transfer(settings: TransferConfig, accelerator) -> dict:
    """Every arm on every set, count of labels and seed; returns what transfer.json holds."""
    if not settings.models or not settings.sets or not settings.labels or settings.seeds < 1:
        raise UserError("transfer needs at least one entry under each of models, sets and labels, and seeds of at "
                        "least 1.")
    sections = {name: config.from_dict(TextDataSection, values or {}, f"sets.{name}")
                for name, values in settings.sets.items()}
    tokenizers = {name: load_checkpoint_tokenizer(path) for name, path in settings.models.items()}
    vectors = load_word2vec(settings.word_vectors) if settings.word_vectors else None
    vector_tokenizer = load_tokenizer(str(Path(settings.word_vectors).parent)) if vectors else None
    data = {name: load_data(section) for name, section in sections.items()}
    precision = choose(settings.impl, accelerator.device)
    run = Run(settings.output_dir, accelerator.is_main_process, [LiveCard()]).open(settings)
    run.write_manifest(examples={name: {"train": len(train), "validation": len(validation), "test": len(test)}
                                 for name, (train, validation, test) in data.items()})

    scores: dict = {}  # data set → labels → arm → one accuracy a seed
    for name, (train, validation, test) in data.items():
        counts = label_counts(settings.labels, len(train))
        draws = {column: [draw(train, size, seed) for seed in range(settings.seeds)] for column, size in counts.items()}
        scores[name] = {column: {} for column in counts}
        measured = Curves(scores[name], train, test, draws)

        # Without a network: the majority class, TF-IDF, averaged word vectors.
        averages = vectors and [averaged(part.texts, vectors, vector_tokenizer) for part in (train, test)]
        for column, by_seed in draws.items():
            for chosen in by_seed:
                labelled = train.select(chosen)
                measured.note("majority class", column, majority(labelled.labels, test.labels))
                measured.note("TF-IDF", column, float((tfidf_logistic(labelled, test) == test.labels).mean()))
        if averages:
            for seed in range(settings.seeds):
                measured.probe("word vectors", averages, seed)
        accelerator.print(f"{name}: baselines measured", flush=True)

        # With one: frozen, and tuned from the frozen probe; the checkpoint beside random weights of its shape.
        for model, path in settings.models.items():
            tokenizer, max_length = tokenizers[model], sections[name].max_length
            tokenised = [TextBatches(part, tokenizer, max_length, 0, 0) for part in (train, test)]
            for start in ("pretrained", "random"):
                classifier = partial(text_classifier, path, train.label_names, tokenizer,
                                     pretrained=start == "pretrained", pooling=settings.pooling,
                                     dropout=settings.dropout)
                states = None
                for seed in range(settings.seeds):
                    if start == "random" or states is None:
                        seed_everything(seed)
                        backbone = classifier().backbone.to(accelerator.device)
                        states = [frozen_states(backbone, settings.pooling, part, accelerator, precision)
                                  for part in tokenised]
                    measured.probe(f"{model}, {start}: probe", states, seed)
                for column in () if settings.quick else draws:
                    for seed in range(settings.seeds):
                        fit = tune(path, start == "pretrained", settings, accelerator, seed, tokenizer, max_length,
                                   (train.select(draws[column][seed]), validation, test),
                                   run.part(f"fits/{name}/{model}-{start}/{column}/seed-{seed}"),
                                   f"{name}, {column} labels, {model} {start}, seed {seed}")
                        measured.note(f"{model}, {start}: tuned", column, fit["accuracy"])

    result = summarise(scores, list(settings.models))
    if accelerator.is_main_process:
        write_json(run.directory / "transfer.json", result)
        plot_learning_curves(result, run.directory / "transfer.png", "Test accuracy by number of labels")
        card.refresh(run.directory)
    return result


@dataclass
class Curves:
    """Accuracies on one set: labels → arm → one a seed."""

    scores: dict
    train: LabelledText
    test: LabelledText
    draws: dict

    def note(self, arm: str, column: str, accuracy: float) -> None:
        self.scores[column].setdefault(arm, []).append(accuracy)

    def probe(self, arm: str, states: list[np.ndarray], seed: int) -> None:
        """Logistic regression on the states (train, test) of the labelled examples of a seed, by number of labels."""
        for column, by_seed in self.draws.items():
            chosen = by_seed[seed]
            head = fit_head(states[0][chosen], self.train.labels[chosen], len(self.train.label_names))
            self.note(arm, column, float((head.predict(states[1]) == self.test.labels).mean()))


def tune(path: str, pretrained: bool, settings: TransferConfig, accelerator, seed: int, tokenizer, max_length: int,
         parts: tuple[LabelledText, LabelledText, LabelledText], run: Run, title: str) -> dict:
    """Full fine-tuning that starts from the probe on the labelled examples at hand; what its result.json holds."""
    batches = [TextBatches(part, tokenizer, max_length, settings.training.batch_size, seed) for part in parts]
    make = partial(new_text_classifier, path, parts[0].label_names, tokenizer, batches[0], accelerator, settings.impl,
                   pretrained, settings.pooling, settings.dropout)
    return fine_tune(make, *batches, settings.training, settings.impl, run, accelerator, seed, title)


def summarise(scores: dict, models: list[str]) -> dict:
    """Means with intervals over seeds, by set and for the mean of all sets; what pretraining bought."""
    everywhere = [column for column in next(iter(scores.values()))
                  if all(column in by_count for by_count in scores.values())]
    scores = {**scores, MEAN: {
        column: {arm: np.mean([by_count[column][arm] for by_count in scores.values()], axis=0).tolist()
                 for arm in next(iter(scores.values()))[column]} for column in everywhere}}
    result: dict = {}
    for name, by_count in scores.items():
        for column, arms in by_count.items():
            entries = {arm: {**mean_interval(values).as_dict(), "values": values} for arm, values in arms.items()}
            for model in models:
                for kind in ("probe", "tuned"):
                    if f"{model}, pretrained: {kind}" in arms:
                        gain = paired_difference(*([100 * value for value in arms[f"{model}, {start}: {kind}"]]
                                                   for start in ("pretrained", "random")))
                        entries[f"{model}, pretrained: {kind}"] |= {"gain_points": gain.as_dict(),
                                                                    "verdict": verdict(gain)}
            result.setdefault(name, {})[column] = entries
    return result


def show(result: dict) -> str:
    """One table a set: arms by number of labels, in percent."""
    blocks = []
    for name, by_count in result.items():
        arms = list(next(iter(by_count.values())))
        rows = [{"arm": arm} | {count: cell(values[arm]) for count, values in by_count.items()} for arm in arms]
        lines = [f"{count} labels, {arm}: {entry['verdict']}" for count, values in by_count.items()
                 for arm, entry in values.items() if "verdict" in entry]
        blocks.append("\n".join([f"{name}, test accuracy in percent by number of labels", table(rows), *lines]))
    return "\n\n".join(blocks)


def cell(entry: dict) -> str:
    spread = "" if entry["ci95"] is None else f" ± {100 * entry['ci95']:.1f}"
    return f"{100 * entry['mean']:.1f}{spread}"


def main(argv: list[str]) -> None:
    settings = config.parse(TransferConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = transfer(settings, accelerator)
    accelerator.print(show(result))
    accelerator.print(f"{Path(settings.output_dir) / 'transfer.json'}")


if __name__ == "__main__":
    cli.run(main)
