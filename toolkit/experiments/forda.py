"""The lab on the Keras FordA example: arms at its number of parameters, and what is asked of them once fitted."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from toolkit.analysis.dead_branches import report_dead_branches
from toolkit.data.series.dataset import SeriesBatches, SeriesDataset
from toolkit.data.series.learned import Learned
from toolkit.data.series.splits import SeriesDataSection, Splits
from toolkit.errors import UserError
from toolkit.experiments.grid import Classifying
from toolkit.experiments.results import by, over_test_examples, values
from toolkit.experiments.series import labels_of
from toolkit.experiments.settings import WITHOUT_ATTENTION, FordaLabConfig
from toolkit.metrics.intervals import mean_interval, paired_difference, verdict
from toolkit.models.series.ablations import AblatedSeriesConfig, AblatedSeriesForClassification, at_budget
from toolkit.models.series.patches import SeriesConfig
from toolkit.models.small.keras_forda import KerasForda, KerasFordaConfig
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification
from toolkit.pretrained import saved_model
from toolkit.run.directory import Run
from toolkit.run.results import Row

ARCHIVE = "https://www.timeseriesclassification.com"
ABLATIONS = {"full": ("full", True), "identity": ("identity", True), "uniform": ("uniform", True),
             "mixer": ("mixer", True), "no-positions": ("full", False)}
"""Arm → its attention, and whether it has positions."""
NAMES = {"full": "transformer", "identity": "attention → identity", "uniform": "attention → uniform mean",
         "mixer": "attention → MLP mixer", "no-positions": "no positions", "flatten-mlp": "flatten-MLP",
         "keras": "Keras example", "minirocket": "MiniRocket", "majority": "majority class"}


Shape = AblatedSeriesConfig | PerceptronConfig | KerasFordaConfig


def data_section(settings: FordaLabConfig) -> SeriesDataSection:
    """Where the series come from: FordA's files, the config's, or the generator."""
    if not settings.forda:
        own = settings.data.train or settings.data.test or settings.data.validation
        generator = settings.data.generator or (None if own else "noisy-sines")
        return dataclasses.replace(settings.data, generator=generator)
    for folder in (Path(settings.forda), Path(settings.forda) / "FordA"):
        for kind in (".ts", ".tsv", ".arff"):
            train, test = (folder / f"FordA_{split}{kind}" for split in ("TRAIN", "TEST"))
            if train.is_file() and test.is_file():
                return dataclasses.replace(settings.data, train=str(train), test=str(test), validation="",
                                           generator=None)
    found = "the folder does not exist" if not Path(settings.forda).is_dir() else "they are not in there"
    raise UserError(f"{settings.forda}: expected FordA_TRAIN and FordA_TEST as .ts, .tsv or .arff, but {found}. "
                    f"Download FordA from {ARCHIVE} and unpack it, then give its folder: make forda-lab FORDA=folder")


def shapes_at_budget(settings: FordaLabConfig, train: SeriesDataset) -> tuple[dict[str, Shape], dict[str, int], int]:
    """Arm → its configuration; arm → its parameters, which are the Keras example's ± 2 %; and those.

    UserError where an arm cannot have that many.
    """
    length, names = train.values.shape[2], labels_of(train)
    keras = KerasFordaConfig(length=length, **names)
    parameters = KerasForda(keras).num_parameters()
    backbone = BertConfig(
        hidden_size=settings.width, num_hidden_layers=settings.num_layers, num_attention_heads=settings.num_heads,
        type_vocab_size=1, max_position_embeddings=SeriesConfig(patch_length=settings.patch_length).num_patches(length))
    shapes: dict[str, Shape] = {}
    for arm in settings.arms:
        if arm == "minirocket":
            continue
        if arm == "flatten-mlp":
            shape = PerceptronConfig(series_length=length, hidden_sizes=[1, 1], **names)
        else:
            attention, positions = ABLATIONS[arm]
            shape = AblatedSeriesConfig(backbone_config=backbone, patch_length=settings.patch_length,
                                        attention=attention, positions=positions, **names)
        try:
            shapes[arm] = at_budget(shape, parameters)
        except ValueError as error:
            raise UserError(f"arm {arm} cannot have the {parameters:,} parameters of the Keras example on series of "
                            f"{length} values: {error}. Change width or num_layers, or leave it out of arms.") from None
    if settings.keras_seeds:
        shapes["keras"] = keras
    sizes = {arm: new_model(shape).num_parameters() for arm, shape in shapes.items()}
    assert all(abs(size - parameters) <= 0.02 * parameters for size in sizes.values()), sizes
    return shapes, sizes, parameters


def new_model(shape: Shape, learned: Learned | None = None) -> PreTrainedModel:
    """learned: what its configuration is to say of its series."""
    if isinstance(shape, AblatedSeriesConfig):
        model = AblatedSeriesForClassification.new(shape)
    else:
        model = (KerasForda if isinstance(shape, KerasFordaConfig) else PerceptronForClassification)(shape)
    model.config.update(learned.as_config() if learned else {})
    return model


def training_of(shape: Shape, splits: Splits, settings: FordaLabConfig, seed: int) -> Classifying:
    batches = tuple(SeriesBatches(part, settings.training.batch_size, seed) for part in splits)
    impl = settings.impl
    if isinstance(shape, KerasFordaConfig) and impl.micro_batch_size is None:
        impl = dataclasses.replace(impl, micro_batch_size=4)  # its attention weights then stay in the cache
    make_model = partial(new_model, shape, splits[0].learned)
    return Classifying(make_model, batches, settings.training, impl, keep_model=seed == 0)


def examine(arm: str, run: Run, validation: SeriesDataset, accelerator: Accelerator) -> dict:
    """The dead-branch check on a fitted model, on validation series; of the Keras example also what is left of its
    answers when its blocks are replaced by one number.
    """
    model = saved_model(AutoModelForSequenceClassification, run.model_dir).to(accelerator.device).eval()
    found = report_dead_branches(model, SeriesBatches(validation, 64, 0), accelerator, NAMES[arm],
                                 run.directory)
    if isinstance(model, KerasForda):
        with torch.inference_mode():
            batches = [torch.from_numpy(part).to(accelerator.device)
                       for part in np.array_split(validation.values, -(-len(validation) // 32))]
            whole = torch.cat([model(part).logits for part in batches])
            without = torch.cat([model.without_blocks(part) for part in batches])
        found |= {"validation_examples": len(validation),
                  "answers_changed_without_blocks": int((whole.argmax(1) != without.argmax(1)).sum()),
                  "largest_change_without_blocks": float((whole - without).abs().max())}
    return found


def summarise(rows: list[Row], same_test: bool) -> dict:
    """Arm → accuracy with its interval over seeds, and how far the whole transformer is ahead of it: over the seeds
    that both have and, where all seeds share a test set, over test examples.
    """
    arms, summary = by(rows, "arm"), {}
    for arm in [name for name in NAMES if name in arms]:
        fits = arms[arm]
        seconds = [fit.seconds for fit in fits if fit.seconds is not None]
        entry = {**mean_interval(values(fits)).as_dict(), "values": values(fits), "parameters": fits[0].parameters,
                 "seconds": float(np.mean(seconds)) if seconds else None}
        if arm != "full" and "full" in arms:
            whole = arms["full"][:len(fits)]
            ahead = paired_difference(*([100 * value for value in values(those)] for those in (whole, fits)))
            entry |= {"ahead_points": ahead.as_dict(), "verdict": verdict(ahead, f"{NAMES['full']} over {NAMES[arm]}")}
            if same_test:
                entry["test_set_points"] = over_test_examples(whole, fits)
        summary[arm] = entry
    return summary


def conclusions(result: dict) -> list[str]:
    """What the numbers say, in sentences."""
    arms, found = result["arms"], []
    if keras := result["dead_branches"].get("keras"):
        states = list(keras["states"].values())
        found.append(f"Keras example: {states.count('dead')} of {len(states)} branches add a constant. With one number "
                     f"in place of all its blocks, {keras['answers_changed_without_blocks']} of "
                     f"{keras['validation_examples']:,} answers to validation series change, and no logit by more than "
                     f"{keras['largest_change_without_blocks']:.1e}: it is an MLP on the values.")
    rivals = [arm for arm in WITHOUT_ATTENTION if arm in arms]
    if "full" in arms and rivals:
        best = max(rivals, key=lambda arm: arms[arm]["mean"])
        ahead = arms[best]["ahead_points"]
        if ahead["ci95"] is None:
            found.append("Attention: one seed says nothing about it; run more.")
        elif ahead["mean"] > ahead["ci95"]:
            found.append(f"Attention pays here: without it, the best at this size is {NAMES[best]}, and it is behind.")
        else:
            found.append(f"Attention is not shown to pay here: {NAMES[best]} does without it and is "
                         f"{'ahead' if -ahead['mean'] > ahead['ci95'] else 'not distinguishably behind'}.")
    return found + [entry["verdict"] for entry in arms.values() if "verdict" in entry]
