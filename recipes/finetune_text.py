"""Fine-tune pretrained models to classify text, each beside the same model from a random start and TF-IDF.

    make finetune-text CONFIG=recipes/configs/authorship.yaml
    python recipes/finetune_text.py --config recipes/configs/authorship.yaml --seeds 5

Every arm sees the same examples in the same order for the same number of steps; the test set is touched once an arm
and seed. The classifier of the first seed is kept in <output_dir>/<model>-pretrained/seed-0/model.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from toolkit import cli, config
from toolkit.data.labelled import TextBatches, TextDataSection, few_shot, load_data
from toolkit.errors import UserError
from toolkit.models.baselines import majority, tfidf_logistic
from toolkit.models.text import load_checkpoint_tokenizer, text_classifier
from toolkit.run import Run
from toolkit.training.arms import Arm, arms_table, dry_run_arms, fine_tune_arms
from toolkit.training.distributed import make_accelerator
from toolkit.training.fine_tuning import FineTuningConfig, class_scores
from toolkit.training.loop import ImplConfig
from toolkit.training.precision import choose
from toolkit.training.probing import start_from_probe


@dataclass
class FinetuneTextConfig:
    output_dir: str
    models: dict
    """Name → checkpoint directory or hub id, for instance {bert: runs/bert-5min/model}."""
    data: TextDataSection = field(default_factory=TextDataSection)
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    pooling: Literal["layers", "mean", "max", "cls"] = "layers"
    """What the head reads: the means over tokens of every layer's states side by side, the mean or maximum of the last
    layer's, or BERT's [CLS] (GPT's last token) in transformers' own class."""
    head: Literal["probe", "random"] = "probe"
    """Where the head starts: as logistic regression on the states before training (Kumar et al. 2022), or at random."""
    dropout: float = 0.3
    """Before the head; with pooling cls, inside the layers too."""
    seeds: int = 3
    """Repetitions with other labelled examples (where shots is set), head and order."""
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = False
    """Check every input, tell what would be trained, how long and in how much memory, and end."""


def finetune_text(settings: FinetuneTextConfig, accelerator) -> dict | None:
    """Train every arm on every seed; returns what `result.json` holds, a dry run nothing."""
    if not settings.models:
        raise UserError("models is empty; name at least one checkpoint, for instance {bert: runs/demo/bert/model}.")
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    data = settings.data
    train, validation, test = load_data(data)
    if settings.pooling == "cls" and settings.head == "probe":
        raise UserError("head is probe, which needs pooling layers, mean or max; with pooling cls set head to random.")
    tokenizers = {name: load_checkpoint_tokenizer(path, data.max_length if settings.pooling == "cls" else None)
                  for name, path in settings.models.items()}
    run.write_manifest(examples={"train": len(train), "validation": len(validation), "test": len(test)})
    accelerator.print(f"{len(train):,} labelled examples to draw from, {len(validation):,} for validation, "
                      f"{len(test):,} for test; {len(train.label_names)} classes")

    def start(path: str, tokenizer, batches: TextBatches, pretrained: bool):
        model = text_classifier(path, train.label_names, tokenizer, pretrained, settings.pooling, settings.dropout)
        if settings.head == "probe":
            start_from_probe(model, batches, accelerator, choose(settings.impl, accelerator.device))
        return model

    def on_seed(seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        labelled = few_shot(train, data.shots, seed, data.train or "the built-in task") if data.shots else train
        arms = {}
        for name, path in settings.models.items():
            batches = tuple(TextBatches(part, tokenizers[name], data.max_length, settings.training.batch_size, seed)
                            for part in (labelled, validation, test))
            arms[name] = Arm(partial(start, path, tokenizers[name], batches[0]), batches, tokenizers[name])
        return arms, {"tfidf": class_scores(tfidf_logistic(labelled, test), test.labels)["accuracy"],
                      "majority": majority(labelled.labels, test.labels)}

    if settings.dry_run:
        return dry_run_arms(on_seed, settings.seeds, settings.training, settings.impl, run, accelerator)
    result = fine_tune_arms(on_seed, settings.seeds, settings.training, settings.impl, run, accelerator, "text")
    return run.finish({**result, "label_names": list(test.label_names)})


def main(argv: list[str]) -> None:
    settings = config.parse(FinetuneTextConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout)
    result = finetune_text(settings, accelerator)
    if settings.dry_run:
        return
    accelerator.print(f"test accuracy in percent, mean ± 95 % interval over {settings.seeds} seeds, "
                      f"{result['test_examples']:,} examples")
    accelerator.print(arms_table(result, list(settings.models)))


if __name__ == "__main__":
    cli.run(main)
