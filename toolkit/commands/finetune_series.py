"""A whole comparison of fine-tuned series classifiers with the same from random starts, as `make finetune-series`."""

from functools import partial

from accelerate import Accelerator

from toolkit.analysis.dead_branches import report_dead_branches
from toolkit.analysis.shown_attention import keep_series_map
from toolkit.baselines.classical import dtw_1nn, logistic_on_values, majority, minirocket
from toolkit.data.series.dataset import SeriesBatches
from toolkit.data.series.splits import check_patches, load_splits
from toolkit.errors import UserError
from toolkit.experiments.fine_tuning import Arm, dry_run_arms, fine_tune_arms
from toolkit.experiments.series import patches_of
from toolkit.experiments.settings import FinetuneSeriesConfig
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


def finetune_series(settings: FinetuneSeriesConfig, accelerator: Accelerator | None = None) -> dict | None:
    """Train every arm on every seed; returns what `result.json` holds, a dry run nothing."""
    accelerator = accelerator or make_accelerator(settings.impl.ddp_timeout, settings.impl)
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
    kept = {name: run.directory / f"{name}-pretrained/seed-0" for name in settings.models}
    if settings.check_dead_branches:
        validation = SeriesBatches(first[1], settings.training.batch_size, 0)
        result["dead_branches"] = {name: report_dead_branches(
            saved_model(SeriesForClassification, fit / "model"), validation, accelerator, f"{name}, pretrained", fit)
            for name, fit in kept.items()}
    result = run.finish({**result, "label_names": list(first[0].label_names)})
    if accelerator.is_main_process:
        write_shown(run, first[0], first[2], [read_npz(fit / "outputs.npz", "test")["test"] for fit in kept.values()])
        for fit in kept.values():
            keep_series_map(fit, first[2])
        write_report(run.directory)
    return result
