"""A card's pictures, drawn beside it: did pretraining help, samples, how it learned."""

import dataclasses
from collections.abc import Iterator

from matplotlib.figure import Figure

from toolkit.publishing.card_facts import Facts, restricted
from toolkit.report.comparison_run import comparison_figures
from toolkit.report.figures.canvas import save_figure
from toolkit.report.figures.gains import GainPanel, gain_figure, gain_of, panels_of
from toolkit.report.figures.seq2seq import by_length_figure
from toolkit.report.figures.training import loss_figure
from toolkit.run.results import Results, over_sets

GAINS, LEARNING_CURVES, SAMPLES, CURVES = "gains.png", "learning-curves.png", "samples.png", "curves.png"
BY_LENGTH = "by-length.png"
_BY_RECIPE = "plots/arms.png"
"""What the lab on attention draws of its arms."""
FEWEST_POINTS = 5
"""Of a curve."""
MOST_PANELS = 8
_TOLD = {GAINS: "Did it help? Each seed with and without, and the gain with its interval",
         BY_LENGTH: "Test scores by the length of the source",
         LEARNING_CURVES: "Test accuracy and gain by number of labels", CURVES: "Loss by step",
         _BY_RECIPE: "Each arm beside the whole model, a dot a seed"}


def draw(facts: Facts, samples: Figure | None) -> None:
    """All that the run's files give, beside the card."""
    for name, figure in (*_results(facts), (SAMPLES, samples), (CURVES, _curves(facts))):
        if figure is not None:
            save_figure(figure, facts.directory / name)


def shown(facts: Facts, *names: str) -> str:
    """Those that are there, in Markdown."""
    told = dict(_TOLD)
    if GAINS in names and not any(gain_of(row, panel) for panel in gain_panels(facts) for row in panel.rows):
        told[GAINS] = "Test results, a dot a seed"  # nothing was held against anything
    return "\n\n".join(f"![{told[name]}]({name})" for name in names if (facts.directory / name).is_file())


def of_results(facts: Facts) -> str:
    """What stands above the results, in Markdown."""
    if _is_lab(facts):
        return shown(facts, _BY_RECIPE)
    return shown(facts, LEARNING_CURVES, GAINS, BY_LENGTH)


def _is_lab(facts: Facts) -> bool:
    return "keras_seeds" in facts.config and not facts.is_fit


def _results(facts: Facts) -> Iterator[tuple[str, Figure]]:
    if _is_lab(facts):
        return
    if facts.comparison and not facts.is_fit and facts.comparison.sizes == "labels":
        yield LEARNING_CURVES, comparison_figures(facts.directory)["learning-curves"]
    if facts.is_pairs and facts.comparison and not facts.is_fit and (by_length := by_length_figure(facts.comparison)):
        yield BY_LENGTH, by_length
    if panels := gain_panels(facts):
        yield GAINS, gain_figure(panels[:MOST_PANELS])


def gain_panels(facts: Facts) -> list[GainPanel]:
    """Of an experiment; of a fit, what concerns its model; of a pretrained model, what was made from it."""
    if facts.of_model:
        return _panels(facts.of_model)
    return [dataclasses.replace(panel, title=", ".join(filter(None, [name, panel.title])))
            for name, results, model in facts.comparisons() for panel in _panels(restricted(results, model))]


def _panels(results: Results) -> list[GainPanel]:
    """With the most labels, and over all sets where there are several; of forecasts every horizon."""
    rows = results.rows
    if results.sizes == "labels":
        if len({row.set for row in rows}) > 1:
            rows = over_sets(rows, results.metric)
        last = {row.set: row.size for row in rows}
        rows = [row for row in rows if row.size == last[row.set]]
    panels = panels_of(rows, results.metric, results.sizes)
    if results.metric == "mse" and results.sizes == "horizon":
        panels = [dataclasses.replace(panel, metric="MSE", axis="test MSE (standardised)") for panel in panels]
    return [panel for panel in panels if any(len(row.random) + len(row.pretrained) for row in panel.rows)]


def _curves(facts: Facts) -> Figure | None:
    """Of training and validation."""
    if len([record for record in facts.records if "loss" in record]) < FEWEST_POINTS:
        return None
    return loss_figure(facts.records, title=facts.name, result=facts.result)
