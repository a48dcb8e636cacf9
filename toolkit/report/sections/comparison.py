"""Comparisons of arms over seeds: the verdicts, the gain picture, what came of each arm."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from toolkit.report.comparison_run import ahead_panel, comparison_figures, many_sets_figures
from toolkit.report.figures.gains import GainPanel, panels_of
from toolkit.report.figures.series import next_values_figure
from toolkit.report.figures.sweeps import sweep_panels
from toolkit.report.page import Between, Section, join, paragraph, picture, table
from toolkit.report.sections import pieces
from toolkit.report.sections.evidence import Evidence
from toolkit.report.sections.series import shown_of, the_series
from toolkit.run.results import MEAN, Results, Verdict, over_sets, read_results

MOST_SENTENCES = 3
RECIPES = {"quick": "transfer", "archive": "compare-series", "keras_seeds": "forda-lab", "numbers": "fibonacci",
           "labels": "compare-text"}
"""A key of its configuration → the make target that made it."""


def comparison_page(run: Evidence) -> tuple[str, list[Section]]:
    results = _of_sets(run) if run.sets else run.results
    if results is None:
        return "It has not ended yet.", [next_steps(run)]
    sections = [*drawn(run, results), *the_series(shown_of(run), spectra=True), *next_values(run), *_arms(results),
                *verdicts_section(results), *over_test_examples(run)]
    if alive := pieces.dead_branches(found_dead(run)):
        sections.append(alive)
    return lead_of(results), [*sections, *pieces.fits(run), *pictures(run), next_steps(run)]


def _of_sets(run: Evidence) -> Results | None:
    """Of a comparison on several sets, each of them a run of its own in the folder."""
    found = [read for path in run.sets if (read := read_results(path))]
    if not found:
        return None
    return dataclasses.replace(found[0], rows=[row for each in found for row in each.rows],
                               verdicts=[verdict for each in found for verdict in each.verdicts])


PICTURES = {"gains": ("The comparison", "A row an arm, a dot a seed or a set; beside it the gain over its reference"),
            "arms": ("Arm by arm", "Every arm's test accuracy, or how far it is from the best baseline"),
            "learning-curves": ("By number of labels", "Test accuracy and gain by number of labels, a line an arm"),
            "ranks": ("Who is told apart", "Mean ranks over all sets; bars join arms that are not told apart"),
            "pairs": ("Set by set", "An arm against what it is held against, a dot a set")}


def drawn(run: Evidence, results: Results) -> list[Section]:
    """The pictures of the experiment's kind, each with its table."""
    if (run.directory / "sweep.json").is_file():
        return [_with_table(sweep_panels(results))]
    if "keras_seeds" in run.config:
        arms = {arm: entry["values"] for arm, entry in run.result["arms"].items()}
        examples = run.result["test_examples"]
        return [_with_table([ahead_panel(arms, "full", ["majority"], f"{examples:,} test series")])]
    if "archive" in run.config or run.sets:
        figures = many_sets_figures(_by_set(run, results), {row.arm: row.reference for row in results.rows
                                                            if row.reference}, _baselines(results), run.directory.name)
    elif results.metric == "accuracy":
        figures = comparison_figures(run.directory)
    else:
        return pieces.gains(results)
    return [Section(title, picture(figures[name], alt)) for name, (title, alt) in PICTURES.items() if name in figures]


def _with_table(panels: list[GainPanel]) -> Section:
    return Section("The comparison", join([pieces.gain_picture(panels), pieces.gain_rows(panels)]))


def _by_set(run: Evidence, results: Results) -> dict[str, dict[str, dict]]:
    """arm → set → entry with its mean and its values."""
    sets = list(dict.fromkeys(row.set for row in results.rows))
    found: dict[str, dict[str, dict]] = {}
    for (name, _, arm), rows in results.arms().items():
        values = [row.metrics[results.metric] for row in rows]
        found.setdefault(arm, {})[name or run.directory.name] = {"mean": float(np.mean(values)), "values": values}
    return {arm: by_set for arm, by_set in found.items() if len(by_set) == len(sets)}


def _baselines(results: Results) -> list[str]:
    """Arms that no loop trains; not what is derived from one that was."""
    return list(dict.fromkeys(row.arm for row in results.rows if row.parameters is None and not row.reference
                              and row.arm not in {other.reference for other in results.rows} and ", " not in row.arm))


def next_values(run: Evidence) -> list[Section]:
    """Of the Fibonacci lab: what was foretold."""
    if "numbers" not in run.config or not run.result:
        return []
    return [Section("What they foretell", picture(
        next_values_figure(run.result, "ln F (training: 0 to 1)"),
        "Test values and each arm's answers; errors by seed"))]


def lead_of(results: Results) -> str:
    """Did it help? With the most labels, where there are counts of them; over sets, where there are many."""
    largest = _largest(results)
    panels = panels_of(largest.rows, results.metric, results.sizes)
    if len(panels) <= MOST_SENTENCES and all(panel.hollow == "random start" for panel in panels) and (
            told := pieces.answer(panels)):
        return told
    several = {verdict.set for verdict in results.verdicts if verdict.set not in ("", MEAN)}
    if len(several) > 1:
        return _counted([verdict for verdict in results.verdicts if verdict.set != MEAN])
    return pieces.verdicts(results) or ahead(largest)


def ahead(results: Results) -> str:
    """Which arm is best, by its mean over all that was measured."""
    means = {arm: float(np.mean([row.metrics[results.metric] for row in results.rows if row.arm == arm]))
             for arm in dict.fromkeys(row.arm for row in results.rows)}
    share = pieces.is_share(results.metric)
    best = (max if share else min)(means, key=lambda arm: means[arm])
    value = f"{100 * means[best]:.1f} %" if share else f"{means[best]:.4g}"
    return f"{best} is ahead: {pieces.proper(results.metric)} {value}."


def _counted(told: Sequence[Verdict]) -> str:
    """Arm by arm, on how many sets it is ahead, behind, or neither."""
    lines = []
    for arm in dict.fromkeys(verdict.arm for verdict in told):
        of_arm = [verdict.text for verdict in told if verdict.arm == arm]
        real, hurts = (sum(text.endswith(word) for text in of_arm) for word in ("real", "hurts"))
        lines.append(f"{arm}: better on {real}, worse on {hurts} of {len(of_arm)} sets")
    return f"{'; '.join(lines[:4])}."


def _largest(results: Results) -> Results:
    """With the most labels alone, where there are several counts: the gain at each is in the learning curves."""
    if results.sizes != "labels":
        return results
    last = {row.set: row.size for row in results.rows}
    rows = [row for row in results.rows if row.size == last[row.set]]
    return dataclasses.replace(results, rows=rows)


def _arms(results: Results) -> list[Section]:
    sets = list(dict.fromkeys(row.set for row in results.rows))
    if results.sizes == "labels" and len(sets) > 1:  # a table a set, and one of their mean
        whole = dataclasses.replace(results, rows=[*results.rows, *over_sets(results.rows, results.metric)])
        return [dataclasses.replace(pieces.arms_section(dataclasses.replace(
            whole, rows=[dataclasses.replace(row, set="") for row in whole.rows if row.set == name])),
            title=f"All arms: {name}") for name in [*sets, MEAN]]
    if len(sets) > 4:  # a row a set reads better than a column
        return [Section("All arms by set", by_set(results))]
    return [pieces.arms_section(results)]


def by_set(results: Results) -> object:
    arms = list(dict.fromkeys(row.arm for row in results.rows))
    found = results.arms()
    sets = list(dict.fromkeys(row.set for row in results.rows))
    rows = [[name, *(pieces.measured(found.get((name, "", arm)), results.metric) for arm in arms)] for name in sets]
    return join([paragraph("Test accuracy in percent, mean over seeds ± half of its 95 % interval.", soft=True),
                 table(["set", *arms], rows, sortable=True)])


def verdicts_section(results: Results) -> list[Section]:
    """Every verdict as a row."""
    one_set = len({row.set for row in results.rows}) == 1
    told = [each for each in results.verdicts if not (one_set and each.set == MEAN)]
    if len(told) < 2:
        return []
    several, sized = not one_set, any(each.size for each in told)
    heads = [*(["set"] if several else []), *([results.sizes] if sized else []), "arm", "verdict"]
    rows = [[*([each.set] if several else []), *([each.size] if sized else []), each.arm,
             pieces.with_minus(each.text)] for each in told]
    return [Section("Verdicts", table(heads, rows, sortable=len(rows) > 6))]


def over_test_examples(run: Evidence) -> list[Section]:
    """How far another test set would move the gains, where that was measured."""
    rows = []
    for size, arms in (run.result.get("learning_curve") or {}).items():
        for arm, entry in arms.items():
            if "test_set_points" in entry and "gain_points" in entry:
                mean, low, high = entry["test_set_points"]
                rows.append([arm, size, Between(mean, low, high, 1), Between(entry["mcnemar_p"], text=(
                    f"{entry['mcnemar_p']:.2g}"))])
    told = ("Gains in points with their 95 % interval over test examples: how far another test set of this size would "
            "move them. McNemar's test is of the first seed's answers.")
    return [Section("Over test examples", join([paragraph(told, soft=True), table(
        ["arm", "labels", "gain over its reference", "McNemar p"], rows, sortable=len(rows) > 6)]))] if rows else []


def found_dead(run: Evidence) -> dict[str, dict]:
    """Arm → what the dead-branch check found, wherever the recipe left it."""
    found = dict(run.result.get("dead_branches") or {})
    for arm, entry in run.result.items():
        if isinstance(entry, dict) and isinstance(entry.get("dead_branches"), dict):
            found[arm] = entry["dead_branches"]
    return found


def pictures(run: Evidence) -> list[Section]:
    """What the recipe has drawn beside, as links."""
    places = [(str(path.relative_to(run.directory)), path.stem.replace("-", " "))
              for path in sorted((run.directory / "plots").glob("*.png"))[:12]]
    there = pieces.links(run, places)
    return [Section("Pictures", there)] if there else []


def next_steps(run: Evidence) -> Section:
    recipe = next((recipe for key, recipe in RECIPES.items() if key in run.config), None)
    again = [("More seeds make intervals narrower.",
              f'make {recipe} CONFIG={run.path("config.yaml")} ARGS="--seeds 5 --output_dir {run.place}-5-seeds"')
             ] if recipe else []
    return pieces.commands([*again, ("See it beside other runs.", f'make compare-runs RUNS="{run.place} runs/other"'),
                            ("This page again.", f"make report RUN={run.place}")])
