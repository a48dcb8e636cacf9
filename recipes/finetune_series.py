"""Fine-tune text-pretrained backbones to classify time series, each beside a random start and logistic regression.

    make finetune-series CONFIG=recipes/configs/gunpoint.yaml
    python recipes/finetune_series.py --config recipes/configs/demo/series.yaml --output_dir runs/cbf

Series → patches → linear embedding → BERT or GPT through `inputs_embeds` → mean → classes. Without files, a set is
generated from published equations: Cylinder-Bell-Funnel, or another (data.generator). report.html in output_dir shows
it all: gains, scores, the series and what is taken for what.
"""

from functools import partial

from toolkit import cli, config
from toolkit.analysis.dead_branches import report_dead_branches
from toolkit.baselines.classical import dtw_1nn, logistic_on_values, majority, minirocket
from toolkit.data.series.dataset import SeriesBatches
from toolkit.data.series.splits import check_patches, load_splits
from toolkit.errors import UserError
from toolkit.experiments.fine_tuning import Arm, arms_table, dry_run_arms, fine_tune_arms
from toolkit.experiments.series import FinetuneSeriesConfig, patches_of
from toolkit.experiments.shown_series import write_shown
from toolkit.models.series.patches import SeriesForClassification
from toolkit.pretrained import saved_model
from toolkit.publishing.card import LiveCard
from toolkit.report.comparison_run import comparison_figures
from toolkit.report.figures.canvas import save_figure
from toolkit.report.run_report import write_report
from toolkit.run.binary import read_npz
from toolkit.run.directory import Run
from toolkit.tasks.classification import class_scores
from toolkit.training.impl.distributed import make_accelerator

BASELINES = {"logistic": lambda train, test, seed: logistic_on_values(train.values, train.labels, test.values),
             "minirocket": minirocket, "dtw": dtw_1nn}


def finetune_series(settings: FinetuneSeriesConfig, accelerator) -> dict | None:
    """Train every arm on every seed; returns what `result.json` holds, a dry run nothing."""
    if not settings.models:
        raise UserError("models is empty; name at least one checkpoint, for instance {bert: runs/demo/bert/model}.")
    run = Run(settings.output_dir, accelerator.is_main_process and not settings.dry_run,
              [LiveCard()]).open(settings)
    if run.result():
        accelerator.print(f"{run.directory} is finished; its result is {run.result_path}")
        return run.result()
    first = load_splits(settings.data, 0, accelerator.print)
    for path in settings.models.values():
        patches = patches_of(path, settings.patch_length)
        check_patches(first, patches.patch_length, patches.patch_stride,
                      patches.backbone_config.max_position_embeddings, accelerator.print)
    run.write_manifest()

    accuracies: dict[str, float] = {}

    def on_seed(seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        parts = train, _, test = first if settings.data.train or seed == 0 else load_splits(settings.data, seed)
        batches = tuple(SeriesBatches(part, settings.training.batch_size, seed) for part in parts)
        arms = {name: Arm(
            partial(SeriesForClassification.from_backbone, path, train.label_names, patch_length=settings.patch_length,
                    num_channels=train.values.shape[1], **train.learned.as_config()), batches)
            for name, path in settings.models.items()}
        for name in settings.baselines if not settings.dry_run else []:
            if name == "minirocket" or parts is not first or seed == 0:  # of the same series the others say the same
                accuracies[name] = class_scores(BASELINES[name](train, test, seed), test.labels)["accuracy"]
        return arms, {**accuracies, "majority": majority(train.labels, test.labels)}

    if settings.dry_run:
        return dry_run_arms(on_seed, settings.seeds, settings.training, settings.impl, run, accelerator)
    result = fine_tune_arms(on_seed, settings.seeds, settings.training, settings.impl, run, accelerator, "series")
    if accelerator.is_main_process:
        save_figure(comparison_figures(run.directory)["gains"], run.directory / "plots/gains.png")
    if settings.check_dead_branches:
        validation = SeriesBatches(first[1], settings.training.batch_size, 0)
        result["dead_branches"] = {name: report_dead_branches(
            saved_model(SeriesForClassification, run.directory / f"{name}-pretrained/seed-0/model"), validation,
            accelerator, f"{name}, pretrained") for name in settings.models}
    if accelerator.is_main_process:
        write_shown(run, first[0], first[2], [read_npz(run.directory / f"{name}-pretrained/seed-0/outputs.npz", "test")[
            "test"] for name in settings.models])
    return run.finish({**result, "label_names": list(first[0].label_names)})


def main(argv: list[str]) -> None:
    settings = config.parse(FinetuneSeriesConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = finetune_series(settings, accelerator)
    if settings.dry_run:
        return
    accelerator.print(f"test accuracy in percent, mean ± 95 % interval over {settings.seeds} seeds, "
                      f"{result['test_examples']:,} series")
    accelerator.print(arms_table(result, list(settings.models)))
    if accelerator.is_main_process:
        print(f"report: {write_report(settings.output_dir)}")


if __name__ == "__main__":
    cli.run(main)
