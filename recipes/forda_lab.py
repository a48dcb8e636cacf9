"""A lab on a transformer for time series: look at the data, look at the loss, remove the attention, compare.

    make forda-lab                # noisy sines, generated: the answer needs frequencies and their order
    make forda-lab FORDA=dir      # FordA, from your own copy of the archive's files

The subject is the Keras example "Timeseries classification with a Transformer model". Its architecture is rebuilt
exactly, trained, and examined for dead branches. Beside it, at its number of parameters ± 2 %, stands a transformer on
patches and what is left of it when a part is taken out: attention that sees nothing but the patch itself, attention
that is a mean, an MLP over positions in the place of attention, no positions, no transformer (an MLP on the values).
MiniRocket says what is possible. Models are chosen on validation; the test set is touched once by each.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedModel

from toolkit import cli, config
from toolkit.analysis.dead_branches import report_dead_branches
from toolkit.baselines.classical import minirocket
from toolkit.data.series.dataset import SeriesBatches, SeriesDataset
from toolkit.data.series.splits import SeriesDataSection, Splits, check_patches, load_splits
from toolkit.errors import UserError
from toolkit.metrics.intervals import mean_interval, paired_bootstrap, paired_difference, verdict
from toolkit.metrics.tabulate import table
from toolkit.models.series.ablations import AblatedSeriesConfig, AblatedSeriesForClassification, at_budget
from toolkit.models.series.patches import SeriesConfig
from toolkit.models.small.keras_forda import KerasForda, KerasFordaConfig
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification
from toolkit.publishing.card import LiveCard
from toolkit.report.plots import plot_arms
from toolkit.report.series_plots import plot_examples, plot_fits, plot_spectra
from toolkit.run.directory import Run, read_metrics
from toolkit.run.files import write_atomic
from toolkit.tasks.classification import FineTuningConfig, class_scores, fine_tune
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig

ARCHIVE = "https://www.timeseriesclassification.com"
ABLATIONS = {"full": ("full", True), "identity": ("identity", True), "uniform": ("uniform", True),
             "mixer": ("mixer", True), "no-positions": ("full", False)}
"""Arm → its attention, and whether it has positions."""
NAMES = {"full": "transformer", "identity": "attention → identity", "uniform": "attention → uniform mean",
         "mixer": "attention → MLP mixer", "no-positions": "no positions", "flatten-mlp": "flatten-MLP",
         "keras": "Keras example", "minirocket": "MiniRocket", "majority": "majority class"}
WITHOUT_ATTENTION = ("identity", "uniform", "mixer", "flatten-mlp")


@dataclass
class FordaLabConfig:
    output_dir: str = "runs/forda-lab"
    forda: str = ""
    """Folder with FordA_TRAIN and FordA_TEST as .ts, .tsv or .arff, in place of `data`."""
    data: SeriesDataSection = field(default_factory=SeriesDataSection)
    """Series of one channel; without files and generator noisy sines."""
    arms: list[Literal["full", "identity", "uniform", "mixer", "no-positions", "flatten-mlp", "minirocket"]] = field(
        default_factory=lambda: ["full", *WITHOUT_ATTENTION, "no-positions", "minirocket"])
    """`full` is what the others are held against."""
    seeds: int = 5
    keras_seeds: int = 1
    """Of the Keras example, which takes longest by far: its attention compares every value with every other. 0: it is
    left out, and only its number of parameters stays."""
    patch_length: int = 16
    width: int = 48
    """Of the transformer; its feed-forward layers take what the budget leaves."""
    num_layers: int = 2
    num_heads: int = 4
    training: FineTuningConfig = field(default_factory=FineTuningConfig)
    check_dead_branches: bool = True
    """Examine the first seed's models on validation series."""
    impl: ImplConfig = field(default_factory=lambda: ImplConfig(dtype="fp32"))


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


def keras_config(train: SeriesDataset) -> KerasFordaConfig:
    return KerasFordaConfig(length=train.values.shape[2], **labels_of(train))


def labels_of(train: SeriesDataset) -> dict:
    return {"id2label": dict(enumerate(train.label_names)),
            "label2id": {name: label for label, name in enumerate(train.label_names)}}


def arm_configs(settings: FordaLabConfig, train: SeriesDataset, parameters: int) -> dict:
    """Arm → its configuration, sized to `parameters` ± 2 %; UserError where that cannot be."""
    length, names = train.values.shape[2], labels_of(train)
    backbone = BertConfig(
        hidden_size=settings.width, num_hidden_layers=settings.num_layers, num_attention_heads=settings.num_heads,
        type_vocab_size=1, max_position_embeddings=SeriesConfig(patch_length=settings.patch_length).num_patches(length))
    configs = {}
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
            configs[arm] = at_budget(shape, parameters)
        except ValueError as error:
            raise UserError(f"arm {arm} cannot have the {parameters:,} parameters of the Keras example on series of "
                            f"{length} values: {error}. Change width or num_layers, or leave it out of arms.") from None
    return configs


def new_model(shape: AblatedSeriesConfig | PerceptronConfig | KerasFordaConfig) -> PreTrainedModel:
    if isinstance(shape, AblatedSeriesConfig):
        return AblatedSeriesForClassification.new(shape)
    return (KerasForda if isinstance(shape, KerasFordaConfig) else PerceptronForClassification)(shape)


def forda_lab(settings: FordaLabConfig, accelerator) -> dict:
    """Every arm on every seed; returns what `result.json` holds."""
    if settings.seeds < 1 or not settings.arms:
        raise UserError("forda-lab needs seeds of at least 1, 5 or more for an interval worth having, and arms.")
    data = data_section(settings)
    run = Run(settings.output_dir, accelerator.is_main_process, [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    first = load_splits(data, 0, accelerator.print)
    train, validation, test = first
    if train.values.shape[1] != 1:
        raise UserError(f"{data.train}: series of {train.values.shape[1]} channels; the Keras example, which this lab "
                        f"is about, takes one. Compare other models with make finetune-series.")
    patches = SeriesConfig(patch_length=settings.patch_length)
    check_patches(first, patches.patch_length, patches.patch_stride, patches.num_patches(train.values.shape[2]),
                  accelerator.print)
    title = data.generator or Path(data.train).stem.removesuffix("_TRAIN")
    if accelerator.is_main_process:
        plot_examples(train, run.directory / "plots/examples.png", f"{title}: training series by class")
        plot_spectra(train, run.directory / "plots/spectra.png", f"{title}: mean spectra of training series by class")

    keras = keras_config(train)
    parameters = KerasForda(keras).num_parameters()
    shapes = arm_configs(settings, train, parameters) | ({"keras": keras} if settings.keras_seeds else {})
    sizes = {arm: new_model(shape).num_parameters() for arm, shape in shapes.items()}
    assert all(abs(size - parameters) <= 0.02 * parameters for size in sizes.values()), sizes
    run.write_manifest(parameters=sizes, examples=dict(zip(("train", "validation", "test"), map(len, first),
                                                           strict=True)))
    accelerator.print(f"{title}: {len(train):,} series to train on, {len(validation):,} to choose by, {len(test):,} to "
                      f"test on; {parameters:,} parameters an arm ± 2 %")

    right: dict[str, list[np.ndarray]] = {}  # arm → for each seed, which test series it answered rightly
    seconds: dict[str, list[float]] = {}
    findings: dict[str, dict] = {}
    for seed in range(settings.seeds):
        splits = first if seed == 0 else load_splits(data, seed)
        right.setdefault("majority", []).append(splits[2].labels == np.bincount(splits[0].labels).argmax())
        for arm in [*settings.arms, "keras"]:
            if arm == "keras" and seed >= settings.keras_seeds:
                continue
            fit_run = Run(run.directory / arm / f"seed-{seed}", accelerator.is_main_process, [LiveCard()])
            if arm == "minirocket":
                fit = classical(splits, fit_run, seed)
            else:
                fit = train_arm(shapes[arm], splits, settings, fit_run, accelerator, seed, f"{NAMES[arm]}, seed {seed}")
                seconds.setdefault(arm, []).append(fit["validation"]["seconds"])
                if seed == 0:
                    findings |= examine(arm, fit_run, splits[1], settings, accelerator)
            right.setdefault(arm, []).append(np.asarray(fit["predictions"]) == splits[2].labels)

    result = {"data": title, "parameters": parameters, "test_examples": len(test),
              "arms": summarise(right, sizes, seconds, same_test=bool(data.train)), "dead_branches": findings}
    result["verdict"] = conclusions(result)
    if accelerator.is_main_process:
        fits = {NAMES[arm]: [read_metrics(run.directory / arm / f"seed-{seed}" / "metrics.jsonl")
                             for seed in range(len(values))] for arm, values in seconds.items()}
        plot_fits(fits, run.directory / "plots/learning-curves.png",
                  f"{title}: learning curves, mean and range of seeds")
        plot_arms({f"{result['test_examples']:,} test series": {NAMES[arm]: entry for arm, entry in
                                                                result["arms"].items()}},
                  run.directory / "plots/arms.png", f"{title}: accuracy at {parameters:,} parameters ± 2 %")
        write_atomic(run.directory / "table.md", show(result, markdown=True) + "\n")
    return run.finish(result)


def train_arm(shape, splits: Splits, settings: FordaLabConfig, run: Run, accelerator, seed: int, name: str) -> dict:
    batches = [SeriesBatches(part, settings.training.batch_size, seed) for part in splits]
    impl = settings.impl
    if isinstance(shape, KerasFordaConfig) and impl.micro_batch_size is None:
        impl = dataclasses.replace(impl, micro_batch_size=4)  # its attention weights then stay in the cache
    return fine_tune(partial(new_model, shape), *batches, settings.training, impl, run, accelerator, seed, name,
                     keep_model=seed == 0)


def classical(splits: Splits, run: Run, seed: int) -> dict:
    """MiniRocket on the same training series as the others; it has nothing to choose on validation."""
    if run.result():
        return run.result()
    predictions = minirocket(splits[0], splits[2], seed)
    return run.finish({**class_scores(predictions, splits[2].labels), "predictions": predictions.tolist()})


def examine(arm: str, run: Run, validation: SeriesDataset, settings: FordaLabConfig, accelerator) -> dict:
    """The dead-branch check on a fitted model, on validation series; of the Keras example also what is left of its
    answers when its blocks are replaced by one number.
    """
    if not settings.check_dead_branches:
        return {}
    model = AutoModelForSequenceClassification.from_pretrained(run.model_dir).to(accelerator.device).eval()
    found = report_dead_branches(model, SeriesBatches(validation, 64, 0), accelerator, NAMES[arm])
    if isinstance(model, KerasForda):
        with torch.inference_mode():
            values = [torch.from_numpy(part).to(accelerator.device)
                      for part in np.array_split(validation.values, -(-len(validation) // 32))]
            whole = torch.cat([model(part).logits for part in values])
            without = torch.cat([model.without_blocks(part) for part in values])
        found |= {"validation_examples": len(validation),
                  "answers_changed_without_blocks": int((whole.argmax(1) != without.argmax(1)).sum()),
                  "largest_change_without_blocks": float((whole - without).abs().max())}
    return {arm: found}


def summarise(right: dict[str, list[np.ndarray]], sizes: dict[str, int], seconds: dict[str, list[float]],
              same_test: bool) -> dict:
    """Arm → accuracy with its interval over seeds, and how far the whole transformer is ahead of it: over the seeds
    that both have and, where all seeds share a test set, over test examples.
    """
    summary = {}
    for arm in [name for name in NAMES if name in right]:
        accuracies = [float(answers.mean()) for answers in right[arm]]
        entry = {**mean_interval(accuracies).as_dict(), "values": accuracies, "parameters": sizes.get(arm),
                 "seconds": float(np.mean(seconds[arm])) if arm in seconds else None}
        if arm != "full" and "full" in right:
            whole, count = right["full"][:len(right[arm])], len(right[arm])
            gain = paired_difference([100 * answers.mean() for answers in whole],
                                     [100 * answers.mean() for answers in right[arm]])
            entry |= {"ahead_points": gain.as_dict(), "verdict": verdict(gain, f"{NAMES['full']} over {NAMES[arm]}")}
            if same_test:
                mean, low, high = paired_bootstrap(*(np.mean(one, 0) for one in (whole, right[arm][:count])))
                entry["test_set_points"] = [100 * mean, 100 * low, 100 * high]
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


def show(result: dict, markdown: bool = False) -> str:
    """The table, and the conclusions below it."""
    def points(value: float | None) -> str | None:
        return None if value is None else f"{value:.1f}"

    rows = []
    for arm, entry in result["arms"].items():
        ahead, across = entry.get("ahead_points", {}), entry.get("test_set_points")
        rows.append({
            "arm": NAMES[arm], "parameters": f"{entry['parameters']:,}" if entry["parameters"] else None,
            "accuracy %": points(100 * entry["mean"]), "± 95 %": points(entry["ci95"] and 100 * entry["ci95"]),
            "seeds": entry["n"], "transformer ahead": points(ahead.get("mean")), "± seeds": points(ahead.get("ci95")),
            **({"test set": f"{across[1]:.1f} … {across[2]:.1f}" if across else None}
               if any("test_set_points" in other for other in result["arms"].values()) else {}),
            "seconds a fit": points(entry["seconds"])})
    lines = [f"- {line}" for line in result["verdict"]] if markdown else result["verdict"]
    return f"{table(rows, markdown=markdown)}\n\n" + "\n".join(lines)


def main(argv: list[str]) -> None:
    settings = config.parse(FordaLabConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = forda_lab(settings, accelerator)
    accelerator.print(f"\n{result['data']}: test accuracy of models chosen on validation, mean ± 95 % interval over "
                      f"seeds, {result['test_examples']:,} test series\n{show(result)}\n"
                      f"{Path(settings.output_dir) / 'result.json'}")


if __name__ == "__main__":
    cli.run(main)
