"""What pretraining bought on one set of labelled texts, by number of labels.

    make compare-text                                                # the demo's checkpoints on the demo's own task
    make compare-text CONFIG=recipes/configs/compare-trec.yaml

Arms that share splits and seeds: the majority class; TF-IDF and logistic regression; and for every checkpoint the same
model from random values, its frozen encoder under a trained head, all of it tuned, and, when asked for, LoRA. Every arm
is held against the reference arm over seeds, and over the test examples. Writes runs/compare-text/<name>.json, .png
(learning curves), -gains.png and .html.
"""

from toolkit import cli, config
from toolkit.experiments.settings import CompareTextConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(CompareTextConfig, __doc__)

from pathlib import Path

import numpy as np

from toolkit.baselines.classical import tfidf_logistic
from toolkit.data.text.examples import draw, label_counts
from toolkit.data.text.labelled import load_data
from toolkit.errors import UserError
from toolkit.experiments.grid import Cell, Grid
from toolkit.experiments.results import percent, points
from toolkit.experiments.text import ARMS, Checkpoint, arms_by_labels, fine_tuning, verdicts_by_labels
from toolkit.metrics.tabulate import on_screen
from toolkit.publishing.card import LiveCard
from toolkit.report.comparison_run import comparison_figures
from toolkit.report.ending import command, ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.training.impl.distributed import make_accelerator


def compare_text(settings: CompareTextConfig, accelerator) -> dict | None:
    """Every arm on every seed and number of labels; returns what the JSON file holds, a dry run nothing."""
    if not settings.models or not settings.arms or not settings.labels or settings.seeds < 1:
        raise UserError("compare_text needs at least one entry under each of models, arms and labels, and seeds of at "
                        "least 1.")
    stem = Path(settings.output_dir) / settings.name
    run = Run(stem, accelerator.is_main_process and not settings.dry_run, [LiveCard()]).open(settings)
    train, validation, test = load_data(settings.data, accelerator.print)
    if train.task != "classification":
        raise UserError(f"data.task is {train.task}; comparisons are made for classification.")
    models = {name: Checkpoint.of(path) for name, path in settings.models.items()}
    for name, model in models.items():
        model.check(train, settings.data, name, accelerator.print)
    run.write_manifest(examples={"train": len(train), "validation": len(validation), "test": len(test)})

    # Fit: labels × seeds × (baselines, then models × arms).
    batch_size = settings.training.batch_size
    held_out = {name: [model.batches(part, settings.data, batch_size) for part in (validation, test)]
                for name, model in models.items()}
    grid = Grid(settings.name, run, accelerator, sizes="labels", dry_run=settings.dry_run)
    for size, count in label_counts(settings.labels, len(train)).items():
        for seed in range(settings.seeds):
            labelled = train.select(draw(train, count, seed))
            majority = np.full(len(test), np.bincount(labelled.labels).argmax())
            grid.measure(Cell("majority class", seed, size=size), lambda answers=majority: {"predictions": answers},
                         test.labels)
            grid.measure(Cell("TF-IDF", seed, size=size), lambda labelled=labelled: {
                "predictions": tfidf_logistic(labelled, test)}, test.labels)
            for name, model in models.items():
                batches = (model.batches(labelled, settings.data, batch_size, seed), *held_out[name])
                for arm in settings.arms:
                    tuning, pretrained = ARMS[arm]
                    reference = "" if arm == settings.arms[0] else f"{name}, {settings.arms[0]}"
                    cell = Cell(f"{name}, {arm}", seed, f"{name}-{arm}/{size}/seed-{seed}", size=size, model=name,
                                start=arm, reference=reference)
                    grid.fit(cell, fine_tuning(model, train.label_names, batches, settings, accelerator, pretrained,
                                               tuning, keep_tokenizer=True), test.labels)
    if settings.dry_run:
        return grid.tell()

    # Summarise.
    result = arms_by_labels(grid.rows, len(test))
    grid.write(verdicts_by_labels(result["learning_curve"]))
    if accelerator.is_main_process:
        picture = stem.with_name(f"{settings.name}.png")
        write_json(stem.with_name(f"{settings.name}.json"), result)
        figures = comparison_figures(run.directory)
        save_figure(figures["learning-curves"], picture)
        save_figure(figures["gains"], stem.with_name(f"{settings.name}-gains.png"))
        run.tell(finished=True)
        write_report(run.directory, picture.with_suffix(".html"))
    return result


def show(result: dict) -> str:
    """The table at the most labels, the verdicts, and the learning curve."""
    curve = result["learning_curve"]
    last = curve[result["labels"]]
    rows = [{"arm": arm, "accuracy": percent(entry["mean"]), "sd": percent(entry["sd"]),
             "± 95 %": percent(entry["ci95"]), "gain": points(entry.get("gain_points", {}).get("mean")),
             "± seeds": points(entry.get("gain_points", {}).get("ci95")),
             "± test": points(entry["test_set_points"][2] - entry["test_set_points"][0])
             if "verdict" in entry else None,
             "McNemar p": f"{entry['mcnemar_p']:.2g}" if "verdict" in entry else None} for arm, entry in last.items()]
    curves = [{"arm": arm} | {size: percent(entries[arm]["mean"]) for size, entries in curve.items()} for arm in last]
    verdicts = [f"{verdict.size} labels: {verdict.text}" for verdict in verdicts_by_labels(curve)]
    told = (f"{result['labels']} labels, {result['test_examples']:,} test examples, in percent; the gain over the "
            f"reference with its interval over seeds and over the test set")
    return "\n\n".join([f"{told}\n{on_screen(rows)}",
                        f"test accuracy in percent by number of labels\n{on_screen(curves)}", "\n".join(verdicts)])


def main(argv: list[str]) -> None:
    settings = config.parse(CompareTextConfig, argv, __doc__)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    result = compare_text(settings, accelerator)
    if result is not None:
        accelerator.print(show(result))
        stem = Path(settings.output_dir) / settings.name
        if accelerator.is_main_process:
            write_report(stem)
        accelerator.print(ending(stem, command("make card", {"RUN": stem}), results=f"{stem}.json"))


if __name__ == "__main__":
    cli.run(main)
