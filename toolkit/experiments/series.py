"""Arms on labelled series: what pretraining, attention and a transformer at all are worth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from toolkit import metrics
from toolkit.analysis.dead_branches import report_dead_branches
from toolkit.analysis.shuffled_patches import shuffle_patches
from toolkit.baselines.classical import dtw_1nn, logistic_on_values, minirocket
from toolkit.data.series.augmentation import AugmentedBatches
from toolkit.data.series.dataset import SeriesBatches, SeriesDataset
from toolkit.data.series.generators import LABELLED
from toolkit.data.series.splits import SeriesDataSection, load_splits
from toolkit.errors import UserError, did_you_mean
from toolkit.experiments.grid import Classifying
from toolkit.experiments.settings import TRANSFORMERS, CompareSeriesConfig
from toolkit.metrics.intervals import mean_interval, paired_difference, verdict
from toolkit.models.load import checkpoint_config, pretrained_config
from toolkit.models.presets import model_config
from toolkit.models.series.ablations import AblatedSeriesConfig, AblatedSeriesForClassification, at_budget
from toolkit.models.series.patches import SeriesConfig, SeriesForClassification, SeriesForMaskedPatches
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification
from toolkit.pretrained import saved_model
from toolkit.run.binary import read_npz
from toolkit.run.directory import Run
from toolkit.tasks.classification import class_scores, predict
from toolkit.tasks.masked_patches import pretrain_on_series
from toolkit.training.impl.precision import exact

RECURRENT = {"rnn": ("rnn", False, None), "lstm": ("lstm", False, None), "gru": ("gru", False, None),
             "bilstm": ("lstm", True, None), "lstm-additive": ("lstm", False, "additive"),
             "lstm-dot": ("lstm", False, "dot"), "lstm-scaled-dot": ("lstm", False, "scaled-dot"),
             "lstm-general": ("lstm", False, "general"), "lstm-location": ("lstm", False, "location"),
             "lstm-content": ("lstm", False, "content"), "bigru-additive": ("gru", True, "additive")}
"""Arm → cell, both directions, attention."""
TUNED = ("random", "text", "masked-patches")
"""Arms whose seeds also answer together: published figures of InceptionTime are of five networks that do."""
RULES = {"logistic": lambda train, test, seed: logistic_on_values(train.values, train.labels, test.values),
         "minirocket": minirocket, "dtw": dtw_1nn}
DRAWN = ("minirocket",)  # what differs from seed to seed
REFERENCE = {"text": "random", "text-frozen": "random-frozen", "masked-patches": "random", "random": "no-attention",
             "random-frozen": "random"}
"""Arm → what it must beat: the same without pretraining; the transformer, itself without attention."""


def patches_of(path: str, patch_length: int) -> SeriesConfig:
    """How a model made from the checkpoint cuts series."""
    source = checkpoint_config(path)
    if isinstance(source, SeriesConfig):
        return source
    if patch_length < 1:
        raise UserError(f"patch_length is {patch_length}; give at least 1.")
    return SeriesConfig(backbone_config=pretrained_config(path), patch_length=patch_length)


@dataclass(frozen=True)
class LabelledSet:
    """Training series, all of them, and test series."""

    name: str
    train: SeriesDataset
    test: SeriesDataset
    patch_length: int


def check(settings: CompareSeriesConfig) -> None:
    known = [*TRANSFORMERS, *RECURRENT, "mlp", *RULES, "majority"]
    for arm in settings.arms:
        if arm not in known:
            raise UserError(f"arms: there is no arm '{arm}'.{did_you_mean(arm, known)}")
    if settings.seeds < 1 or not settings.sets or not settings.arms:
        raise UserError("compare-series needs seeds of at least 1, sets and arms.")
    if settings.patches < 2:
        raise UserError(f"patches is {settings.patches}; a transformer needs at least 2.")


def load_set(settings: CompareSeriesConfig, name: str, accelerator: Accelerator) -> LabelledSet:
    """The set by that name. Nothing is held out of training, for nothing is chosen on this set."""
    if not settings.archive:
        if name not in LABELLED:
            raise UserError(f"sets: there is no generator '{name}'.{did_you_mean(name, LABELLED)}")
        section = SeriesDataSection(generator=name)
    else:
        folder = Path(settings.archive) / name
        files = [next((path for kind in ("tsv", "ts", "arff") if (path := folder / f"{name}_{split}.{kind}").is_file()),
                      None) for split in ("TRAIN", "TEST")]
        if None in files:
            raise UserError(f"{folder}: expected {name}_TRAIN and {name}_TEST as .tsv, .ts or .arff. Check archive and "
                            f"sets, or get the files from https://www.timeseriesclassification.com.")
        section = SeriesDataSection(train=str(files[0]), test=str(files[1]))
    parts = load_splits(section, 0, lambda line: None if line.startswith("validation") else accelerator.print(
        f"{name}: {line}"))
    train = joined(parts[0], parts[1]) if settings.archive else parts[0]
    length = patch_length_of(train.values.shape[2], settings.patches)
    shape = pretrained_config(settings.text_model) if settings.text_model else shape_of(settings)
    longest, positions = train.values.shape[2], shape.max_position_embeddings
    count = SeriesConfig(embedding="convolution", patch_length=length).num_patches(longest)
    if count > positions:
        raise UserError(f"patches is {settings.patches}: {name}, series of {longest:,} values, makes {count} patches "
                        f"of {length}, but the model has {positions} positions. Lower patches.")
    return LabelledSet(name, train, parts[2], length)


def patch_length_of(length: int, patches: int) -> int:
    """Values a patch, where a series of `length` values is cut into so many patches."""
    own = max(1, round(length / patches))
    return own if own < 4 else 4 * round(own / 4)  # of four, convolutions average most at once


def joined(first: SeriesDataset, second: SeriesDataset) -> SeriesDataset:
    def both(name):
        pair = [getattr(part, name) for part in (first, second)]
        return None if pair[0] is None else np.concatenate(pair)

    return replace(first, values=both("values"), labels=both("labels"), observed=both("observed"))


# --- arms ----------------------------------------------------------------------------------------------------------


def training_of(arm: str, data: LabelledSet, settings: CompareSeriesConfig, source: Path | None, seed: int
                ) -> Classifying:
    """What an arm trains on a seed; source: of masked-patches the model pretrained on series, None: a random start."""
    batch_size = settings.training.batch_size
    batches = (AugmentedBatches(data.train, batch_size, seed, settings.augmentation),
               SeriesBatches(data.train, batch_size, seed), SeriesBatches(data.test, batch_size, seed))
    keep = arm == "random" or (seed == 0 and arm in TRANSFORMERS)
    return Classifying(partial(new_model, arm, data, settings, source), batches, settings.training, settings.impl,
                       keep_model=keep)


def shape_of(settings: CompareSeriesConfig) -> BertConfig | str:
    return settings.text_model or model_config(settings.preset, vocab_size=1)


def labels_of(data: SeriesDataset) -> dict:
    return {"id2label": dict(enumerate(data.label_names)),
            "label2id": {name: label for label, name in enumerate(data.label_names)}}


def new_model(arm: str, data: LabelledSet, settings: CompareSeriesConfig, source: Path | None) -> PreTrainedModel:
    """A classifier whose configuration says how the series are to be read."""
    model = _new_model(arm, data, settings, source)
    model.config.update(data.train.learned.as_config())
    return model


def _new_model(arm: str, data: LabelledSet, settings: CompareSeriesConfig, source: Path | None) -> PreTrainedModel:
    names, channels, length = data.train.label_names, data.train.values.shape[1], data.train.values.shape[2]
    labels = labels_of(data.train)
    if arm == "mlp":
        return PerceptronForClassification(PerceptronConfig(num_channels=channels, series_length=length, **labels))
    if arm in RECURRENT:
        cell, both, attention = RECURRENT[arm]
        return RecurrentForClassification(RecurrentConfig(
            cell=cell, bidirectional=both, attention=attention, hidden_size=settings.recurrent_size, dropout=0.2,
            num_channels=channels, patch_length=data.patch_length, series_length=length, **labels))
    if source is not None:
        return SeriesForClassification.from_backbone(source, names, pretrained=True, pooling="layers",
                                                     head_dropout=settings.head_dropout)
    patches = {"num_channels": channels, "embedding": "convolution", "patch_length": data.patch_length,
               "pooling": "layers", "head_dropout": settings.head_dropout}
    model = SeriesForClassification.from_backbone(shape_of(settings), names, pretrained=arm.startswith("text"),
                                                  **patches)
    if arm.endswith("frozen"):
        model.freeze_all_but_norms_and_positions()
    if arm == "no-attention":
        without = AblatedSeriesConfig(backbone_config=model.config.backbone_config, attention="identity", **patches,
                                      **labels)
        return AblatedSeriesForClassification.new(at_budget(without, model.num_parameters()))
    return model


def parameters_of(model: PreTrainedModel) -> dict[str, int]:
    return {"parameters": sum(p.numel() for p in model.parameters()),
            "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)}


def pretrained_on_series(data: LabelledSet, settings: CompareSeriesConfig, run: Run, accelerator: Accelerator,
                         seed: int) -> Path:
    """A model pretrained by hidden patches of the training series; the last step's, as nothing is held out."""
    train = data.train
    make = partial(SeriesForMaskedPatches.from_backbone, shape_of(settings), pretrained=False, embedding="convolution",
                   num_channels=train.values.shape[1], patch_length=data.patch_length)
    pretrain_on_series(make, train.values, train.values, settings.pretraining, settings.impl, run, accelerator, seed,
                       f"{data.name}, hidden patches, seed {seed}", train.observed, train.observed)
    return run.model_dir


# --- what is asked of fitted models --------------------------------------------------------------------------------


def kept_model(run: Run) -> SeriesForClassification:
    return saved_model(AutoModelForSequenceClassification, run.model_dir)


def shuffled_scores(run: Run, data: LabelledSet, settings: CompareSeriesConfig, accelerator: Accelerator, seed: int
                    ) -> dict:
    """The test scores when each series' patches come in another order: what the order was worth to the model."""
    model, precision = kept_model(run).to(accelerator.device), exact(accelerator.device)
    precision.prepare(model)
    values, observed = shuffle_patches(data.test.values, data.patch_length, seed, data.test.observed)
    mixed = replace(data.test, values=values, observed=observed)
    logits = predict(model, SeriesBatches(mixed, settings.training.batch_size, seed), accelerator, precision)
    return class_scores(logits.argmax(1), data.test.labels)


def examined(run: Run, data: LabelledSet, settings: CompareSeriesConfig, accelerator: Accelerator, name: str) -> dict:
    return report_dead_branches(kept_model(run), SeriesBatches(data.train, settings.training.batch_size, 0),
                                accelerator, name, run.directory)


def answers(run: Run) -> np.ndarray:
    """(test series, classes) probabilities of a finished fit."""
    return read_npz(run.directory / "outputs.npz", "test")["test"]


def ranking(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """ROC-AUC and PR-AUC of each class against the rest, their plain means over the classes that occur."""
    found: dict[str, list[float]] = {"roc_auc": [], "pr_auc": []}
    for label in np.unique(labels):
        for name, values in found.items():
            values.append(metrics.load(name).compute(prediction_scores=probabilities[:, label],
                                                     references=(labels == label).astype(int))[name])
    return {name: float(np.mean(values)) for name, values in found.items() if None not in values}


def together(probabilities: list[np.ndarray], labels: np.ndarray) -> dict:
    """What the mean of the seeds' probabilities answers: one ensemble, so no interval over seeds."""
    mean = np.mean(probabilities, 0)
    return {**class_scores(mean.argmax(1), labels), **ranking(mean, labels), "predictions": mean.argmax(1).tolist()}


# --- what compare_series reports -----------------------------------------------------------------------------------


def entry(fits: Sequence[dict], data: LabelledSet) -> dict:
    """mean and ci95 of accuracy over fits, as shares; means of whatever else all of them know."""
    accuracies = [fit["accuracy"] for fit in fits]
    found = {**mean_interval(accuracies).as_dict(), "values": accuracies}
    for key in ("f1", "roc_auc", "pr_auc", "seconds"):
        values = [fit.get(key) for fit in fits]
        if None not in values:
            found[key] = float(np.mean(values))
    if "predictions" in fits[0]:
        classes = len(data.test.label_names)
        pairs = np.asarray(data.test.labels) * classes + np.asarray(fits[0]["predictions"])
        found["confusion_matrix"] = np.bincount(pairs, minlength=classes**2).reshape(classes, classes).tolist()
    return found


def verdict_on_set(arm: str, entries: dict[str, dict], told: str = "") -> str | None:
    """On one set, over seeds; None where the arm has no reference there. told: what is judged; default: the arm."""
    if REFERENCE.get(arm) not in entries:
        return None
    return verdict(paired_difference(*([100 * value for value in entries[name]["values"]]
                                       for name in (arm, REFERENCE[arm]))), told or arm)


def summarise(results: dict[str, dict[str, dict]]) -> dict:
    """Arm → over_sets (mean accuracy, its interval over sets), means of the rest, and verdicts against its reference:
    over sets, and for each set over seeds.
    """
    summary: dict = {}
    for arm, by_set in results.items():
        means = [found["mean"] for found in by_set.values()]
        summary[arm] = {"over_sets": {**mean_interval(means).as_dict(), "values": means}}
        for key in ("f1", "roc_auc", "pr_auc", "seconds", "parameters", "trained_parameters"):
            if all(key in found for found in by_set.values()):
                summary[arm][key] = float(np.mean([found[key] for found in by_set.values()]))
        other = REFERENCE.get(arm)
        if other not in results:
            continue
        gains = {name: 100 * (found["mean"] - results[other][name]["mean"]) for name, found in by_set.items()}
        over_sets = mean_interval(list(gains.values()))
        pairs = {name: {one: results[one][name] for one in (arm, other)} for name in by_set}
        if len(gains) == 1:  # over seeds, then
            told = verdict_on_set(arm, *pairs.values(), told=f"{arm} over {other}")
        else:
            told = verdict(over_sets, f"{arm} over {other}, mean of {len(gains)} sets,", of="set")
        summary[arm] |= {"reference": other, "gain_points": over_sets.as_dict(), "gains": gains, "verdict": told,
                         "by_set": {name: verdict_on_set(arm, pair) for name, pair in pairs.items()}}
    return summary
