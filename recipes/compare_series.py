"""The table that stands beside a series result: what pretraining, attention and a transformer at all were worth.

    make compare-series                            # the UCR sets and ETTh1 beside the checkout, or generated series
    make compare-series CONFIG=recipes/configs/ucr.yaml
    python recipes/compare_series.py --config recipes/configs/ucr.yaml --sets '[GunPoint]' --seeds 5

Arms × sets × seeds, with one recipe for all sets; only the length of a patch follows the length of the series. Nothing
is chosen on any set: a fit learns from all training series and ends after so many steps. (What the recipe is was chosen
by cross-validation within training sets: recipes/README.md.) The test series are answered once, at the end.
Writes <output_dir>/<name>.json: arm → set → mean, ci95, …; and <name>-summary.json: means over sets, and verdicts.
"""

import csv
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from toolkit import cli, config, metrics
from toolkit.analysis.dead_branches import report_dead_branches
from toolkit.analysis.shuffled_patches import shuffle_patches
from toolkit.baselines.classical import dtw_1nn, logistic_on_values, majority, minirocket
from toolkit.data.series.augmentation import AugmentationConfig, AugmentedBatches
from toolkit.data.series.dataset import SeriesBatches, SeriesDataset
from toolkit.data.series.generators import LABELLED
from toolkit.data.series.splits import SeriesDataSection, check_patches, load_splits
from toolkit.errors import UserError, did_you_mean
from toolkit.metrics.intervals import mean_interval, paired_difference, verdict
from toolkit.metrics.tabulate import table
from toolkit.models.objectives import ObjectiveConfig
from toolkit.models.presets import model_config
from toolkit.models.series.ablations import AblatedSeriesConfig, AblatedSeriesForClassification, at_budget
from toolkit.models.series.patches import SeriesForClassification, SeriesForMaskedPatches
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification
from toolkit.publishing.card import LiveCard
from toolkit.report.plots import plot_arms
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.tasks.classification import FineTuningConfig, class_scores, fine_tune, predict
from toolkit.tasks.masked_patches import MaskedPatchesConfig, pretrain_on_series
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, choose

TRANSFORMERS = {"random": "random start", "random-frozen": "random start, all but norms and positions frozen",
                "text": "pretrained on text", "text-frozen": "pretrained on text, all but norms and positions frozen",
                "masked-patches": "pretrained on the training series by hidden patches",
                "no-attention": "random start, attention → identity, as many parameters"}
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


@dataclass
class CompareSeriesConfig:
    name: str = "generated"
    """Of the files that are written."""
    output_dir: str = "runs/compare-series"
    archive: str = ""
    """Folder with a folder a set, <set>/<set>_TRAIN.tsv (.ts, .arff) and _TEST likewise, as the UCR archive's; empty:
    generated sets."""
    sets: list[str] = field(default_factory=lambda: list(LABELLED))
    """Folders of the archive, or generators."""
    published: str = ""
    """A csv of published accuracies in percent to show beside: dataset, then a column a method."""
    preset: str = "bert-tiny"
    """Shape of the transformer where no text_model gives it."""
    text_model: str = ""
    """Directory or hub id of a BERT or GPT pretrained on text, for the arms text and text-frozen; and the shape of the
    others."""
    arms: list[str] = field(default_factory=lambda: [
        *TRANSFORMERS, "lstm", "bigru-additive", "mlp", *RULES, "majority"])
    """Also rnn, gru, bilstm, and lstm-<score> for the scores of attention: additive, dot, scaled-dot, general,
    location, content."""
    patches: int = 48
    """Into which a series is cut, or a few more; what the length of a patch follows from."""
    head_dropout: float = 0.2
    recurrent_size: int = 64
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    pretraining: MaskedPatchesConfig = field(default_factory=MaskedPatchesConfig)
    """Of masked-patches: on the training series, without their labels."""
    training: FineTuningConfig = field(default_factory=lambda: FineTuningConfig(
        max_steps=500, learning_rate=2e-3, lr_scheduler_type="cosine", weight_decay=0.05, warmup_ratio=0.1,
        eval_steps=0, objective=ObjectiveConfig(label_smoothing_factor=0.1)))
    """One recipe for every set and arm."""
    seeds: int = 3
    check_dead_branches: bool = True
    """Examine the first seed's transformers of each set on training series."""
    impl: ImplConfig = field(default_factory=ImplConfig)


@dataclass(frozen=True)
class Task:
    """One set: training series, all of them, and test series."""

    name: str
    train: SeriesDataset
    test: SeriesDataset
    patch_length: int


def compare_series(settings: CompareSeriesConfig, accelerator: Accelerator) -> dict:
    """Every arm on every set and seed: what the JSON file holds, and what the summary does, under `summary`."""
    check(settings)
    arms = [arm for arm in settings.arms if settings.text_model or not arm.startswith("text")]
    if len(arms) < len(settings.arms):
        accelerator.print("text_model is empty: the arms text and text-frozen are left out")
    results: dict[str, dict[str, dict]] = {arm: {} for arm in arms}
    for name in settings.sets:
        run = Run(Path(settings.output_dir) / settings.name / name, accelerator.is_main_process, [LiveCard()])
        run.open(settings, ignore=("impl", "sets", "seeds", "arms", "name", "published", "check_dead_branches"))
        task = load_task(settings, name, accelerator)
        run.write_manifest(examples={"train": len(task.train), "test": len(task.test)})
        for arm in arms:
            results[arm][name] = one_arm(arm, task, settings, run, accelerator)
            accelerator.print(f"{name}, {arm}: {100 * results[arm][name]['mean']:.1f} % of {len(task.test):,}")
        for arm in arms:
            for key, row in (("shuffled", f"{arm}, patches shuffled"), ("together", f"{arm}, seeds together")):
                if key in results[arm][name]:
                    results.setdefault(row, {})[name] = results[arm][name].pop(key)
        run.finish({arm: by_set[name] for arm, by_set in results.items()})
    summary = summarise(results, settings)
    if accelerator.is_main_process:
        stem = Path(settings.output_dir) / settings.name
        write_json(stem.with_suffix(".json"), results)
        write_json(stem.with_name(f"{settings.name}-summary.json"), summary)
        plot_arms({f"mean of {len(settings.sets)} sets": {arm: entry["over_sets"] for arm, entry in summary.items()}},
                  stem.with_suffix(".png"), f"{settings.name}: test accuracy")
    return {"results": results, "summary": summary}


def check(settings: CompareSeriesConfig) -> None:
    known = [*TRANSFORMERS, *RECURRENT, "mlp", *RULES, "majority"]
    for arm in settings.arms:
        if arm not in known:
            raise UserError(f"arms: there is no arm '{arm}'.{did_you_mean(arm, known)}")
    if settings.seeds < 1 or not settings.sets or not settings.arms:
        raise UserError("compare-series needs seeds of at least 1, sets and arms.")
    if settings.patches < 2:
        raise UserError(f"patches is {settings.patches}; a transformer needs at least 2.")


def load_task(settings: CompareSeriesConfig, name: str, accelerator: Accelerator) -> Task:
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
    length = max(1, round(train.values.shape[2] / settings.patches))
    length = length if length < 4 else 4 * round(length / 4)  # of four, convolutions average most at once
    check_patches((train, parts[1], parts[2]), length, length, model_config(settings.preset, vocab_size=1)
                  .max_position_embeddings)
    return Task(name, train, parts[2], length)


def joined(first: SeriesDataset, second: SeriesDataset) -> SeriesDataset:
    def both(name):
        pair = [getattr(part, name) for part in (first, second)]
        return None if pair[0] is None else np.concatenate(pair)

    return SeriesDataset(both("values"), both("labels"), first.label_names, both("observed"), first.sampling_rate)


def one_arm(arm: str, task: Task, settings: CompareSeriesConfig, run: Run, accelerator: Accelerator) -> dict:
    """One arm's entry of the JSON file: means over seeds."""
    seeds = range(settings.seeds)
    if arm in RULES or arm == "majority":
        drawn = seeds if arm in DRAWN else range(1)
        fits = [by_rule(arm, task, run.part(f"{arm}/seed-{seed}"), seed)
                for seed in drawn]
        return entry(fits, task)
    fits, shuffled, answers, counts = [], [], [], None
    for seed in seeds:
        place = run.part(f"{arm}/seed-{seed}")
        source = pretrained_on_series(task, settings, place, accelerator, seed) if arm == "masked-patches" else None
        make = partial(new_model, arm, task, settings, source)
        model = make()
        counts = {"parameters": sum(p.numel() for p in model.parameters()),
                  "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)}
        batch_size = settings.training.batch_size
        test = SeriesBatches(task.test, batch_size, seed)
        keep = arm == "random" or (seed == 0 and arm in TRANSFORMERS)
        fit = fine_tune(make, AugmentedBatches(task.train, batch_size, seed, settings.augmentation),
                        SeriesBatches(task.train, batch_size, seed), test, settings.training, settings.impl, place,
                        accelerator, seed, f"{task.name}, {arm}, seed {seed}", keep_model=keep)
        with np.load(place.directory / "outputs.npz") as outputs:
            answers.append(outputs["test"])
        fits.append({**fit, **ranking(answers[-1], task.test.labels), "seconds": fit["validation"]["seconds"]})
        if arm == "random":
            shuffled.append(shuffled_scores(place, task, settings, accelerator, seed))
        if seed == 0 and arm in TRANSFORMERS and settings.check_dead_branches:
            fits[-1]["dead_branches"] = examined(place, task, settings, accelerator, f"{task.name}, {arm}")
    extra = {"shuffled": entry(shuffled, task)} if shuffled else {}
    if arm in TUNED and settings.seeds > 1:
        extra["together"] = together(answers, task)
    return {**entry(fits, task), **counts, **extra,
            **({"dead_branches": fits[0]["dead_branches"]} if "dead_branches" in fits[0] else {})}


def new_model(arm: str, task: Task, settings: CompareSeriesConfig, series_model: Path | None) -> PreTrainedModel:
    """The arm's model; `series_model`: a model pretrained on series."""
    names, channels, length = task.train.label_names, task.train.values.shape[1], task.train.values.shape[2]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    if arm == "mlp":
        return PerceptronForClassification(PerceptronConfig(num_channels=channels, series_length=length, **labels))
    if arm in RECURRENT:
        cell, both, attention = RECURRENT[arm]
        return RecurrentForClassification(RecurrentConfig(
            cell=cell, bidirectional=both, attention=attention, hidden_size=settings.recurrent_size, dropout=0.2,
            num_channels=channels, patch_length=task.patch_length, series_length=length, **labels))
    if arm == "masked-patches":
        return SeriesForClassification.from_backbone(series_model, names, pretrained=True, pooling="layers",
                                                     head_dropout=settings.head_dropout)
    shape = settings.text_model or model_config(settings.preset, vocab_size=1)
    patches = {"num_channels": channels, "embedding": "convolution", "patch_length": task.patch_length,
               "pooling": "layers", "head_dropout": settings.head_dropout}
    model = SeriesForClassification.from_backbone(shape, names, pretrained=arm.startswith("text"), **patches)
    if arm.endswith("frozen"):
        model.freeze_all_but_norms_and_positions()
    if arm == "no-attention":
        without = AblatedSeriesConfig(backbone_config=model.config.backbone_config, attention="identity", **patches,
                                      **labels)
        return AblatedSeriesForClassification.new(at_budget(without, model.num_parameters()))
    return model


def pretrained_on_series(task: Task, settings: CompareSeriesConfig, place: Run, accelerator: Accelerator, seed: int
                         ) -> Path:
    """A model pretrained by hidden patches of the training series; the last step's, as nothing is held out."""
    run = Run(place.directory / "pretraining", accelerator.is_main_process, [LiveCard()])
    shape = settings.text_model or model_config(settings.preset, vocab_size=1)
    make = partial(SeriesForMaskedPatches.from_backbone, shape, pretrained=False, embedding="convolution",
                   num_channels=task.train.values.shape[1], patch_length=task.patch_length)
    train = task.train
    pretrain_on_series(make, train.values, train.values, settings.pretraining, settings.impl, run, accelerator, seed,
                       f"{task.name}, hidden patches, seed {seed}", train.observed, train.observed)
    return run.model_dir


def by_rule(arm: str, task: Task, run: Run, seed: int) -> dict:
    """A baseline that is not trained by our loop, its answers kept."""
    if run.result():
        return run.result()
    if arm == "majority":
        return {"accuracy": majority(task.train.labels, task.test.labels)}
    answers = RULES[arm](task.train, task.test, seed)
    if run.is_main:
        run.directory.mkdir(parents=True, exist_ok=True)
    return run.finish({**class_scores(answers, task.test.labels), "predictions": answers.tolist()})


def kept_model(place: Run) -> SeriesForClassification:
    return AutoModelForSequenceClassification.from_pretrained(place.model_dir)


def shuffled_scores(place: Run, task: Task, settings: CompareSeriesConfig, accelerator: Accelerator, seed: int) -> dict:
    """The test scores when each series' patches come in another order: what the order was worth to the model."""
    model, precision = kept_model(place).to(accelerator.device), choose(settings.impl, accelerator.device)
    precision.prepare(model)
    values, observed = shuffle_patches(task.test.values, task.patch_length, seed, task.test.observed)
    mixed = SeriesDataset(values, task.test.labels, task.test.label_names, observed)
    logits = predict(model, SeriesBatches(mixed, settings.training.batch_size, seed), accelerator, precision)
    return class_scores(logits.argmax(1), task.test.labels)


def examined(place: Run, task: Task, settings: CompareSeriesConfig, accelerator: Accelerator, name: str) -> dict:
    return report_dead_branches(kept_model(place), SeriesBatches(task.train, settings.training.batch_size, 0),
                                accelerator, name)


def ranking(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """ROC-AUC and PR-AUC of each class against the rest, their plain means over the classes that occur."""
    found: dict[str, list[float]] = {"roc_auc": [], "pr_auc": []}
    for label in np.unique(labels):
        for name, values in found.items():
            values.append(metrics.load(name).compute(prediction_scores=probabilities[:, label],
                                                     references=(labels == label).astype(int))[name])
    return {name: float(np.mean(values)) for name, values in found.items() if None not in values}


def together(answers: list[np.ndarray], task: Task) -> dict:
    """What the mean of the seeds' probabilities answers: one ensemble, so no interval over seeds."""
    mean = np.mean(answers, 0)
    scores = {**class_scores(mean.argmax(1), task.test.labels), **ranking(mean, task.test.labels),
              "predictions": mean.argmax(1).tolist()}
    return entry([scores], task)


def entry(fits: list[dict], task: Task) -> dict:
    """mean and ci95 of accuracy over fits, as shares; means of whatever else all of them know."""
    found = {**mean_interval([fit["accuracy"] for fit in fits]).as_dict(), "values": [fit["accuracy"] for fit in fits]}
    for key in ("f1", "roc_auc", "pr_auc", "seconds"):
        values = [fit.get(key) for fit in fits]
        if None not in values:
            found[key] = float(np.mean(values))
    if "predictions" in fits[0]:
        classes = len(task.test.label_names)
        pairs = np.asarray(task.test.labels) * classes + np.asarray(fits[0]["predictions"])
        found["confusion_matrix"] = np.bincount(pairs, minlength=classes**2).reshape(classes, classes).tolist()
    return found


def summarise(results: dict[str, dict[str, dict]], settings: CompareSeriesConfig) -> dict:
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
        pairs = [(by_set[name], results[other][name]) for name in by_set]
        gains = [100 * (found["mean"] - against["mean"]) for found, against in pairs]
        over_sets = mean_interval(gains)
        summary[arm] |= {"reference": other, "gain_points": over_sets.as_dict(),
                         "gains": dict(zip(by_set, gains, strict=True)),
                         "verdict": verdict(over_sets, f"{arm} over {other}, mean of {len(pairs)} sets,"),
                         "by_set": {name: verdict(paired_difference([100 * value for value in found["values"]],
                                                                    [100 * value for value in against["values"]]), arm)
                                    for name, (found, against) in zip(by_set, pairs, strict=True)}}
    return summary


def read_published(path: str, sets: list[str]) -> dict[str, dict[str, float]]:
    """Method → set → accuracy in percent, of methods that know all the sets."""
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = {row["dataset"]: row for row in csv.DictReader(file)}
        columns = [column for column in next(iter(rows.values())) if column not in (
            "dataset", "train", "test", "length", "classes")]
        return {column: {name: float(rows[name][column]) for name in sets} for column in columns
                if all(rows.get(name, {}).get(column) for name in sets)}
    except (OSError, KeyError, StopIteration, ValueError) as error:
        raise UserError(f"{path}: cannot be read as published accuracies ({error}). Expected a csv with dataset and a "
                        f"column a method (key published).") from None


def show(results: dict, summary: dict, published: dict) -> str:
    """Accuracy by set; then what else is known of each arm; then verdicts."""
    def cell(found: dict) -> str:
        return f"{100 * found['mean']:.1f}" + (f" ± {100 * found['ci95']:.1f}" if found["ci95"] else "")

    rows = [{"arm": arm, "mean": f"{100 * summary[arm]['over_sets']['mean']:.2f}"}
            | {name: cell(found) for name, found in by_set.items()} for arm, by_set in results.items()]
    rows += [{"arm": f"published {method}", "mean": f"{np.mean(list(by_set.values())):.2f}"}
             | {name: f"{value:.1f}" for name, value in by_set.items()} for method, by_set in published.items()]

    def figure(entry: dict, key: str, form: str) -> str | None:
        return format(entry[key], form) if key in entry else None

    details = [{"arm": arm, "ROC-AUC": figure(found, "roc_auc", ".3f"), "PR-AUC": figure(found, "pr_auc", ".3f"),
                "F1": figure(found, "f1", ".3f"), "trained": figure(found, "trained_parameters", ",.0f"),
                "parameters": figure(found, "parameters", ",.0f"), "seconds": figure(found, "seconds", ".0f")}
               for arm, found in summary.items()]
    verdicts = [found["verdict"] for found in summary.values() if "verdict" in found]
    return "\n\n".join([
        "test accuracy in percent, mean ± 95 % interval over seeds\n" + table(rows),
        "means over sets; ROC-AUC and PR-AUC: each class against the rest\n" + table(details), "\n".join(verdicts)])


def main(argv: list[str]) -> None:
    settings = config.parse(CompareSeriesConfig, argv, __doc__)
    published = read_published(settings.published, settings.sets)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    found = compare_series(settings, accelerator)
    accelerator.print(show(found["results"], found["summary"], published))
    accelerator.print(f"\n{Path(settings.output_dir) / settings.name}.json")


if __name__ == "__main__":
    cli.run(main)
