"""A comparison as its files tell it: its pictures, by what they show.

    for name, figure in comparison_figures("runs/transfer").items():
        save_figure(figure, f"{name}.png")      # learning-curves, gains
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from toolkit.errors import UserError
from toolkit.report.figures.gains import Gain, GainPanel, gain_figure, panels_of
from toolkit.report.figures.learning_curves import learning_curves_figure
from toolkit.report.figures.many_sets import (
    FEWEST_SETS,
    critical_difference_figure,
    differences_figure,
    pairs_figure,
)
from toolkit.run.files import read_json
from toolkit.run.results import over_sets, read_results
from toolkit.run.schema import Manifest


def comparison_figures(directory: str | Path) -> dict[str, Figure]:
    """Of one run that compared arms on labelled texts or series: gains, and where numbers of labels were tried,
    learning-curves.
    """
    results = read_results(directory)
    if results is None:
        raise UserError(f"{directory}: holds no comparison that has ended. Give the folder of one, with its rows.json.")
    if results.sizes != "labels":
        return {"gains": gain_figure(panels_of(results.rows, results.metric, results.sizes))}
    several = len({row.set for row in results.rows}) > 1
    rows = over_sets(results.rows, results.metric) if several else results.rows
    return {"learning-curves": learning_curves_figure(results.rows, metric=results.metric,
                                                      all_labels=_labels_of(Path(directory) / "manifest.json")),
            "gains": gain_figure(panels_of(rows, results.metric, results.sizes))}


def _labels_of(manifest: Path) -> dict[str, int]:
    """Set → how many labelled examples there were to train on; the set of a run of one is ""."""
    examples = read_json(manifest, Manifest).get("examples", {}) if manifest.exists() else {}
    found = {"": examples} | examples if isinstance(examples, dict) else {}
    return {name: of_set["train"] for name, of_set in found.items()
            if isinstance(of_set, dict) and isinstance(of_set.get("train"), int)}


def many_sets_figures(results: Mapping[str, Mapping[str, Mapping]], references: Mapping[str, str],
                      baselines: Sequence[str], title: str) -> dict[str, Figure]:
    """Of arm → set → {mean, values}, as compare-series leaves it: gains over the references; the distance from the best
    baseline, or for few sets the arms as they are; where there are sets enough, ranks and pairs.

    references: arm → what it is held against.
    """
    scores = {arm: {name: entry["mean"] for name, entry in by_set.items()} for arm, by_set in results.items()}
    sets = list(next(iter(scores.values())))
    pairs = [(arm, other) for arm, other in references.items() if arm in scores and other in scores]
    found = {}
    if pairs:
        found["gains"] = gain_figure([_over(results, pairs, sets)], f"{title}: how far ahead of its reference?")
    if len(sets) < FEWEST_SETS:
        found["arms"] = gain_figure([_plain(results, name, baselines) for name in sets], f"{title}: test accuracy")
        return found
    found["arms"] = differences_figure(scores, baselines, f"{title}: how far from the best baseline?")
    if len(scores) > 2:
        found["ranks"] = critical_difference_figure(scores, f"{title}: which are told apart?")
    if pairs:
        found["pairs"] = pairs_figure(scores, pairs, f"{title}: set by set, {len(sets)} sets")
    return found


def ahead_panel(arms: Mapping[str, Sequence[float]], whole: str, baselines: Sequence[str], title: str) -> GainPanel:
    """Of arm → accuracy of each seed: a row an arm, beside the whole model on the seeds that both have."""
    rest = {arm: values for arm, values in arms.items() if arm not in baselines}
    rows = [Gain(arm, values[:len(rest[whole])], rest[whole][:len(values)]) for arm, values in rest.items()
            if arm != whole] if whole in rest else [Gain(arm, [], values) for arm, values in rest.items()]
    return GainPanel(title, rows, {arm: float(np.mean(arms[arm])) for arm in baselines if arm in arms},
                     hollow="the arm named at the left", filled=whole)


def _over(results: Mapping[str, Mapping[str, Mapping]], pairs: Sequence[tuple[str, str]], sets: Sequence[str]
          ) -> GainPanel:
    """Of several sets a dot a set, the mean of its seeds; of one a dot a seed."""
    def of(arm: str) -> list[float]:
        return [results[arm][name]["mean"] for name in sets] if len(sets) > 1 else results[arm][sets[0]]["values"]

    rows = [Gain(f"{arm} over {other}", *zip(*zip(of(other), of(arm), strict=False), strict=True))
            for arm, other in pairs]
    return GainPanel(f"{len(sets)} sets" if len(sets) > 1 else sets[0], rows, hollow="its reference",
                     filled="the arm named first", dot="set" if len(sets) > 1 else "seed")


def _plain(results: Mapping[str, Mapping[str, Mapping]], name: str, baselines: Sequence[str]) -> GainPanel:
    """Every arm a row of its own; baselines are lines."""
    return GainPanel(name, [Gain(arm, [], by_set[name]["values"]) for arm, by_set in results.items()
                            if arm not in baselines],
                     {arm: float(np.mean(results[arm][name]["values"])) for arm in baselines if arm in results})
