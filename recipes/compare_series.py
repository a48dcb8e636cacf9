"""The table that stands beside a series result: what pretraining, attention and a transformer at all were worth.

    make compare-series                            # the UCR sets and ETTh1 beside the checkout, or generated series
    make compare-series MODEL=runs/demo/bert/model # also what a model pretrained on text is worth
    make compare-series CONFIG=recipes/configs/ucr.yaml
    python recipes/compare_series.py --config recipes/configs/ucr.yaml --sets '[GunPoint]' --seeds 5

Arms × sets × seeds, with one recipe for all sets; only the length of a patch follows the length of the series. Nothing
is chosen on any set: a fit learns from all training series and ends after so many steps. (What the recipe is was chosen
by cross-validation within training sets: docs/results/series.md.) The test series are answered once, at the end.
Writes <output_dir>/<name>.json: arm → set → mean, ci95, …; <name>-summary.json: means over sets, and verdicts; and
pictures: <name>.png, how far each arm is from the best baseline, <name>-gains.png, and for three sets or more
-ranks.png (which arms are told apart) and -pairs.png (set by set).
"""

from toolkit import cli, config
from toolkit.experiments.settings import CompareSeriesConfig

if __name__ == "__main__":  # --help, and mistakes in options, before what takes seconds to import
    cli.options_first(CompareSeriesConfig, __doc__)

from functools import partial
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from toolkit.baselines.classical import majority
from toolkit.experiments import series
from toolkit.experiments.grid import Cell, Grid, classified
from toolkit.experiments.published import published_accuracies
from toolkit.experiments.results import cell as shown
from toolkit.experiments.results import percent
from toolkit.experiments.series import REFERENCE, RULES, TRANSFORMERS, LabelledSet, entry
from toolkit.metrics.tabulate import on_screen
from toolkit.publishing.card import LiveCard
from toolkit.report.comparison_run import many_sets_figures
from toolkit.report.ending import command, ending
from toolkit.report.figures.canvas import save_figure
from toolkit.report.run_report import write_report
from toolkit.run.directory import Run
from toolkit.run.files import write_json
from toolkit.run.results import Verdict
from toolkit.training.impl.distributed import make_accelerator

DEMO = Path("runs/demo/bert/model")
BASELINES = (*RULES, "majority")


def compare_series(settings: CompareSeriesConfig, accelerator: Accelerator) -> dict | None:
    """Every arm on every set and seed: what the JSON file holds, and what the summary does, under `summary`."""
    series.check(settings)
    arms = [arm for arm in settings.arms if settings.text_model or not arm.startswith("text")]
    if len(arms) < len(settings.arms):
        offer = f"; make demo left one: --text_model {DEMO}" if DEMO.is_dir() else ""
        accelerator.print(f"text_model is empty: the arms text and text-frozen are left out{offer}")
    stem = Path(settings.output_dir) / settings.name
    results: dict[str, dict[str, dict]] = {arm: {} for arm in arms}
    for name in settings.sets:
        run = Run(stem / name, accelerator.is_main_process and not settings.dry_run, [LiveCard()])
        run.open(settings)
        data = series.load_set(settings, name, accelerator)
        run.write_manifest(examples={"train": len(data.train), "test": len(data.test)})
        grid = Grid(settings.name, run, accelerator, dry_run=settings.dry_run)
        more: dict[str, dict] = {}
        for arm in arms:
            found = one_arm(arm, data, settings, grid)
            if settings.dry_run:
                continue
            for key, row in (("shuffled", f"{arm}, patches shuffled"), ("together", f"{arm}, seeds together")):
                if key in found:
                    more[row] = found.pop(key)
            results[arm][name] = found
            accelerator.print(f"{name}, {arm}: {100 * found['mean']:.1f} % of {len(data.test):,}")
        if settings.dry_run:
            grid.tell()
            continue
        for row, found in more.items():
            results.setdefault(row, {})[name] = found
        of_set = {arm: by_set[name] for arm, by_set in results.items()}
        grid.write([Verdict(arm, text, set=name) for arm in arms if (text := series.verdict_on_set(arm, of_set))])
        run.finish(of_set)
    if settings.dry_run:
        return None
    summary = series.summarise(results)
    if accelerator.is_main_process:
        write_json(stem.with_suffix(".json"), results)
        write_json(stem.with_name(f"{settings.name}-summary.json"), summary)
        figures = many_sets_figures({arm: results[arm] for arm in arms}, REFERENCE, BASELINES, settings.name)
        for name, figure in figures.items():
            save_figure(figure, stem.with_name(f"{settings.name}{'' if name == 'arms' else f'-{name}'}.png"))
    return {"results": results, "summary": summary}


def one_arm(arm: str, data: LabelledSet, settings: CompareSeriesConfig, grid: Grid) -> dict | None:
    """One arm's entry of the JSON file: means over seeds; None in a dry run."""
    labels, accelerator, seeds = data.test.labels, grid.accelerator, range(settings.seeds)

    def cell(seed: int, what: str = "") -> Cell:
        return Cell(arm + what, seed, "" if what else f"{arm}/seed-{seed}", set=data.name, start=arm,
                    reference="" if what else REFERENCE.get(arm, ""))

    if arm == "majority":
        found = grid.measure(cell(0), lambda: {"accuracy": majority(data.train.labels, labels)})
        return found and entry([found], data)
    if arm in RULES:
        fits = [grid.measure(cell(seed), partial(classified, grid.run.part(f"{arm}/seed-{seed}"), partial(
            RULES[arm], data.train, data.test, seed), labels)) for seed in (seeds if arm in series.DRAWN else range(1))]
        return None if settings.dry_run else entry(fits, data)
    fits, shuffled, outputs, counts, dead = [], [], [], {}, {}
    for seed in seeds:
        run = grid.run.part(f"{arm}/seed-{seed}")
        source = None
        if arm == "masked-patches" and not settings.dry_run:
            source = series.pretrained_on_series(data, settings, run.part("pretraining"), accelerator, seed)
        training = series.training_of(arm, data, settings, source, seed)
        counts = counts or (series.parameters_of(training.make_model()) if not settings.dry_run else {})
        fit = grid.fit(cell(seed), training, **counts)
        if fit is None:
            continue
        outputs.append(series.answers(run))
        fits.append({**fit, **series.ranking(outputs[-1], labels), "seconds": fit["validation"]["seconds"]})
        if arm == "random":
            mixed = partial(series.shuffled_scores, run, data, settings, accelerator, seed)
            shuffled.append(grid.measure(cell(seed, ", patches shuffled"), mixed))
        if seed == 0 and arm in TRANSFORMERS and settings.check_dead_branches:
            dead = {"dead_branches": series.examined(run, data, settings, accelerator, f"{data.name}, {arm}")}
    if settings.dry_run:
        return None
    extra = {"shuffled": entry(shuffled, data)} if shuffled else {}
    if arm in series.TUNED and settings.seeds > 1:
        ensemble = grid.measure(cell(0, ", seeds together"), partial(series.together, outputs, labels))
        extra["together"] = entry([ensemble], data)
    return {**entry(fits, data), **counts, **extra, **dead}


def show(results: dict, summary: dict, published: dict) -> str:
    """Accuracy by set; then what else is known of each arm; then verdicts."""
    rows = [{"arm": arm, "mean": percent(summary[arm]["over_sets"]["mean"], 2)}
            | {name: shown(found) for name, found in by_set.items()} for arm, by_set in results.items()]
    rows += [{"arm": f"published {method}", "mean": f"{np.mean(list(by_set.values())):.2f}"}
             | {name: f"{value:.1f}" for name, value in by_set.items()} for method, by_set in published.items()]

    def figure(found: dict, key: str, form: str) -> str | None:
        return format(found[key], form) if key in found else None

    details = [{"arm": arm, "ROC-AUC": figure(found, "roc_auc", ".3f"), "PR-AUC": figure(found, "pr_auc", ".3f"),
                "F1": figure(found, "f1", ".3f"), "trained": figure(found, "trained_parameters", ",.0f"),
                "parameters": figure(found, "parameters", ",.0f"), "seconds": figure(found, "seconds", ".0f")}
               for arm, found in summary.items()]
    verdicts = [found["verdict"] for found in summary.values() if "verdict" in found]
    return "\n\n".join([
        "test accuracy in percent, mean ± 95 % interval over seeds\n" + on_screen(rows),
        "means over sets; ROC-AUC and PR-AUC: each class against the rest\n" + on_screen(details),
        "\n".join(verdicts)])


def main(argv: list[str]) -> None:
    settings = config.parse(CompareSeriesConfig, argv, __doc__)
    published = published_accuracies(settings.published, settings.sets)
    accelerator = make_accelerator(settings.impl.ddp_timeout, settings.impl)
    found = compare_series(settings, accelerator)
    if found is not None:
        accelerator.print(show(found["results"], found["summary"], published))
        stem = Path(settings.output_dir) / settings.name
        first = stem / next(iter(next(iter(found["results"].values()))))
        if accelerator.is_main_process:
            write_report(stem)
        accelerator.print(ending(stem, command("make card", {"RUN": first}), results=f"{stem}.json"))


if __name__ == "__main__":
    cli.run(main)
