"""Fine-tune text-pretrained backbones to classify time series, each beside a random start and logistic regression.

    make finetune-series CONFIG=recipes/configs/gunpoint.yaml
    python recipes/finetune_series.py --config recipes/configs/demo/series.yaml --output_dir runs/cbf

Series → patches → linear embedding → BERT or GPT through `inputs_embeds` → mean → classes. Without files, the set is
Cylinder-Bell-Funnel, generated from its published equations.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from toolkit import cli, config
from toolkit.data.series import SeriesBatches, SeriesDataset, z_normalise
from toolkit.data.series_files import read_ucr_tsv
from toolkit.data.series_generators import cylinder_bell_funnel
from toolkit.errors import UserError
from toolkit.models.baselines import logistic_on_values, majority
from toolkit.models.series import SeriesForClassification
from toolkit.run import Run
from toolkit.training.arms import Arm, arms_table, dry_run_arms, fine_tune_arms
from toolkit.training.distributed import make_accelerator
from toolkit.training.fine_tuning import FineTuningConfig, class_scores
from toolkit.training.loop import ImplConfig


@dataclass
class SeriesDataSection:
    train: str = ""
    """A UCR .tsv file (label, then values); empty: Cylinder-Bell-Funnel, generated anew for each seed."""
    test: str = ""
    train_per_class: int = 30
    """Generated series of each class for training; as many again for validation."""
    test_per_class: int = 300


@dataclass
class FinetuneSeriesConfig:
    output_dir: str
    models: dict
    """Name → checkpoint directory of a pretrained text model, for instance {bert: runs/demo/bert/model}."""
    data: SeriesDataSection = field(default_factory=SeriesDataSection)
    patch_length: int = 16
    """Samples a patch; patches start every half of it."""
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    seeds: int = 3
    impl: ImplConfig = field(default_factory=ImplConfig)
    dry_run: bool = False
    """Check every input, tell what would be trained, how long and in how much memory, and end."""


def load_data(data: SeriesDataSection, seed: int) -> tuple[SeriesDataset, SeriesDataset, SeriesDataset]:
    """Train, validation and test, each series z-normalised by its own mean and deviation."""
    if bool(data.train) != bool(data.test):
        raise UserError("data: give both data.train and data.test, or neither for the generated set.")
    if data.train:
        train = read_ucr_tsv(data.train)
        test = read_ucr_tsv(data.test, label_names=train.label_names)
        if train.values.shape[1:] != test.values.shape[1:]:
            raise UserError(f"{data.test}: series of {test.values.shape[2]} samples, but {data.train} has "
                            f"{train.values.shape[2]}.")
        held_out = np.zeros(len(train), bool)  # every fifth of each class
        for label in range(len(train.label_names)):
            held_out[np.flatnonzero(train.labels == label)[::5]] = True
        parts = [SeriesDataset(train.values[~held_out], train.labels[~held_out], train.label_names),
                 SeriesDataset(train.values[held_out], train.labels[held_out], train.label_names), test]
    else:
        sizes = (data.train_per_class, data.train_per_class, data.test_per_class)
        parts = [cylinder_bell_funnel(size, seed=3 * seed + part) for part, size in enumerate(sizes)]
    return tuple(SeriesDataset(z_normalise(part.values), part.labels, part.label_names) for part in parts)


def finetune_series(settings: FinetuneSeriesConfig, accelerator) -> dict | None:
    """Train every arm on every seed; returns what `result.json` holds, a dry run nothing."""
    if not settings.models:
        raise UserError("models is empty; name at least one checkpoint, for instance {bert: runs/demo/bert/model}.")
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    run.write_manifest()

    def on_seed(seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        parts = train, validation, test = load_data(settings.data, seed)
        batches = tuple(SeriesBatches(part, settings.training.batch_size, seed) for part in parts)
        arms = {name: Arm(
            partial(SeriesForClassification.from_backbone, path, train.label_names, patch_length=settings.patch_length,
                    num_channels=train.values.shape[1]), batches) for name, path in settings.models.items()}
        guesses = logistic_on_values(train.values, train.labels, test.values)
        return arms, {"logistic": class_scores(guesses, test.labels)["accuracy"],
                      "majority": majority(train.labels, test.labels)}

    if settings.dry_run:
        return dry_run_arms(on_seed, settings.seeds, settings.training, settings.impl, run, accelerator)
    result = fine_tune_arms(on_seed, settings.seeds, settings.training, settings.impl, run, accelerator, "series")
    return run.finish({**result, "label_names": list(load_data(settings.data, 0)[0].label_names)})


def main(argv: list[str]) -> None:
    settings = config.parse(FinetuneSeriesConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout)
    result = finetune_series(settings, accelerator)
    if settings.dry_run:
        return
    accelerator.print(f"test accuracy in percent, mean ± 95 % interval over {settings.seeds} seeds, "
                      f"{result['test_examples']:,} series")
    accelerator.print(arms_table(result, list(settings.models)))


if __name__ == "__main__":
    cli.run(main)
