"""Fine-tune pretrained models to classify text, each beside the same model from a random start and TF-IDF.

    make finetune-text CONFIG=recipes/configs/authorship.yaml
    python recipes/finetune_text.py --config recipes/configs/authorship.yaml --seeds 5

Every arm sees the same examples in the same order for the same number of steps; the test set is touched once an arm
and seed. The classifier of the first seed is kept in <output_dir>/<model>-pretrained/seed-0/model.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from toolkit import cli, config
from toolkit.data.labelled import LabelledText, TextBatches, documentation_passages, few_shot, read_table
from toolkit.errors import UserError
from toolkit.models.baselines import majority, tfidf_logistic
from toolkit.models.text import load_checkpoint_tokenizer, text_classifier
from toolkit.run import Run
from toolkit.training.classification import Arm, arms_table, fine_tune_arms, score
from toolkit.training.loop import ImplConfig, TrainingConfig, make_accelerator


@dataclass
class TextDataSection:
    train: str = ""
    """A .tsv or .csv file; empty for the built-in task on the corpus prepared in `corpus_dir`."""
    validation: str = ""
    """Empty: a tenth of the training file, the same share of each class."""
    test: str = ""
    text_column: str = "text"
    label_column: str = "label"
    corpus_dir: str = ""
    """Built-in task: a data_dir of python-docs; train passages from its train documents, test from validation's."""
    shots: int | None = None
    """Labelled examples of each class; default all."""
    max_length: int = 128
    """Longer texts are cut to this many tokens."""


@dataclass
class FinetuneTextConfig:
    output_dir: str
    models: dict
    """Name → checkpoint directory or hub id, for instance {bert: runs/bert-tiny-books/model}."""
    data: TextDataSection = field(default_factory=TextDataSection)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(
        max_steps=120, learning_rate=1e-3, weight_decay=0.05, warmup_ratio=0.1, save_steps=0))
    dropout: float = 0.1
    seeds: int = 3
    """Repetitions with other labelled examples (where shots is set), head and order."""
    impl: ImplConfig = field(default_factory=ImplConfig)


def load_data(data: TextDataSection) -> tuple[LabelledText, LabelledText, LabelledText]:
    """Train, validation and test."""
    if data.corpus_dir:
        passages = documentation_passages(f"{data.corpus_dir}/corpus/train.jsonl")
        test = documentation_passages(f"{data.corpus_dir}/corpus/validation.jsonl")
        # At most 100 a class: the two largest packages would otherwise be half of the test.
        test = test.select(np.concatenate([np.flatnonzero(test.labels == label)[:100]
                                           for label in range(len(test.label_names))]))
        train, validation = split_off(passages, 0.05)
        return train, validation, test
    if not (data.train and data.test):
        raise UserError("data: give data.train and data.test, or data.corpus_dir for the built-in task.")
    columns = (data.text_column, data.label_column)
    train = read_table(data.train, *columns)
    test = read_table(data.test, *columns, label_names=train.label_names)
    if data.validation:
        return train, read_table(data.validation, *columns, label_names=train.label_names), test
    return *split_off(train, 0.1), test


def split_off(data: LabelledText, share: float) -> tuple[LabelledText, LabelledText]:
    """The last `share` of each class, in the order of the file, becomes validation."""
    held_out = np.zeros(len(data), bool)
    for label in range(len(data.label_names)):
        members = np.flatnonzero(data.labels == label)
        held_out[members[len(members) - max(1, round(share * len(members))):]] = True
    return data.select(np.flatnonzero(~held_out)), data.select(np.flatnonzero(held_out))


def finetune_text(settings: FinetuneTextConfig, accelerator) -> dict:
    """Train every arm on every seed; returns what `result.json` holds."""
    if not settings.models:
        raise UserError("models is empty; name at least one checkpoint, for instance {bert: runs/demo/bert/model}.")
    run = Run(settings.output_dir, accelerator.is_main_process).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    data = settings.data
    train, validation, test = load_data(data)
    tokenizers = {name: load_checkpoint_tokenizer(path, data.max_length) for name, path in settings.models.items()}
    run.write_manifest(examples={"train": len(train), "validation": len(validation), "test": len(test)})
    accelerator.print(f"{len(train):,} labelled examples to draw from, {len(validation):,} for validation, "
                      f"{len(test):,} for test; {len(train.label_names)} classes")

    def on_seed(seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        labelled = few_shot(train, data.shots, seed, data.train or "the built-in task") if data.shots else train
        arms = {name: Arm(
            partial(text_classifier, path, train.label_names, tokenizers[name], dropout=settings.dropout),
            tuple(TextBatches(part, tokenizers[name], data.max_length, settings.training.batch_size, seed)
                  for part in (labelled, validation, test)), tokenizers[name])
            for name, path in settings.models.items()}
        return arms, {"tfidf": score(tfidf_logistic(labelled, test), test.labels)["accuracy"],
                      "majority": majority(labelled.labels, test.labels)}

    result = fine_tune_arms(on_seed, settings.seeds, settings.training, settings.impl, run, accelerator, "text")
    return run.finish({**result, "label_names": list(test.label_names)})


def main(argv: list[str]) -> None:
    settings = config.parse(FinetuneTextConfig, argv, __doc__)
    accelerator = make_accelerator()
    result = finetune_text(settings, accelerator)
    accelerator.print(f"test accuracy in percent, mean ± 95 % interval over {settings.seeds} seeds, "
                      f"{result['test_examples']:,} examples")
    accelerator.print(arms_table(result, list(settings.models)))


if __name__ == "__main__":
    cli.run(main)
