"""Encoder–decoders: what attention, or a start, is worth; scores by the length of the source; what they write."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from markupsafe import Markup

from toolkit.metrics.intervals import FEWEST, mean_interval
from toolkit.metrics.translation import pair_chrf
from toolkit.report.figures.gains import panels_of
from toolkit.report.figures.seq2seq import NAMES, alignment_figure, by_length_figure, span
from toolkit.report.figures.training import curves_of, fits_figure
from toolkit.report.page import Between, Measured, Section, join, markup, paragraph, picture, table
from toolkit.report.sections import pieces
from toolkit.report.sections.evidence import Evidence
from toolkit.run.results import Results, Row
from toolkit.run.schema import SavedAlignment, WrittenAnswer

WORST, SHOWN = 50, 50
"""Answers on the page: the worst, and of the others as many by chance."""
SIDE_BY_SIDE = 30
_NOTHING = Between(float("-inf"), text="–")
"""In a column of numbers, where there is none."""


def seq2seq_page(run: Evidence) -> tuple[str, list[Section]]:
    results = run.results
    if results is None:
        return "It has not ended yet.", [next_steps(run, [])]
    kept = {(row.set, row.arm): row.run for row in results.rows
            if row.run and (run.directory / row.run / "model").is_dir()}
    several = len(kept) > 1
    compared = [_comparison(results)] if any(row.reference for row in results.rows) else []
    fits = _fits(run, results) if sum(bool(row.run) for row in results.rows) > 1 else []
    sections = [*compared, _scores(run, results), *_lengths(results), *fits]
    if not several:
        sections += [Section("How it learned", pieces.curves(run.part(place))) for place in kept.values()]
    sections += [*_alignments(run, kept), *(_side_by_side(run, kept) if several else []),
                 *(section for place in _best(results, kept) for section in _answers(run, place, kept[place], several))]
    return lead(results), [*sections, next_steps(run, list(kept.values()))]


def lead(results: Results) -> str:
    """The answer in a sentence or two: what is ahead, by how much, and from which length on; else how good it is."""
    if results.verdicts:
        return pieces.with_minus(" ".join(f"{each.text.partition('; by length')[0].rstrip('.')}."
                                          for each in results.verdicts))
    told = []
    for (_, _, arm), rows in results.arms().items():
        found = mean_interval([row.metrics[results.metric] * (1 if results.metric == "bleu" else 100) for row in rows])
        half = f" ± {found.ci95:.1f}" if found.n >= FEWEST else ""
        told.append((arm, rows, f"{found.mean:.1f}{half}"))
    fits = [each for each in told if each[1][0].run]
    copied = next((value for arm, rows, value in told if not rows[0].run), None)
    said = []
    for arm, rows, value in fits:
        count, seeds = rows[0].test_examples, len(rows)
        on = (f" on {count:,} test pairs" if count else "") + (f", mean of {seeds} seeds" if seeds > 1 else "")
        said.append(f"{arm} reaches {value} BLEU{on}." if results.metric == "bleu" else
                    f"{arm} writes {value} % of the answers exactly as wanted{on}.")
    beside = "" if copied is None else (f" Copying the source gives {copied}"
                                        f"{'' if results.metric == 'bleu' else ' %'}.")
    return f"{' '.join(said)}{beside}"


def _fits(run: Evidence, results: Results) -> list[Section]:
    """Every arm on each set, a line a seed: on validation, or in training where that was evaluated once alone."""
    sets: dict[str, dict[str, list[list[dict]]]] = {}
    for row in results.rows:
        if row.run and (records := run.part(row.run).records):
            sets.setdefault(row.set, {}).setdefault(row.arm, []).append(records)
    parts = []
    for name, fits in sets.items():
        first = next(iter(fits.values()))[0]
        curves = curves_of(first)
        if sum("eval_loss" in record for record in first) < 2:
            curves = [replace(curve, validation="") for curve in curves if curve.train]
        if figure := fits_figure(fits, curves, name):
            parts.append(picture(figure, "A line a seed and a thick one for their mean, a colour an arm"))
    return [Section("How all arms learned", join(parts))] if parts else []


def _comparison(results: Results) -> Section:
    panels = panels_of(results.rows, results.metric, results.sizes)
    return Section("The comparison", join([pieces.gain_picture(panels), pieces.gain_rows(panels),
                                           _verdicts(results)]))


def _verdicts(results: Results) -> Markup:
    return join([paragraph(pieces.with_minus(verdict.text)) for verdict in results.verdicts])


# --- scores --------------------------------------------------------------------------------------------------------


def _scores(run: Evidence, results: Results) -> Section:
    """Every arm, every metric; which BLEU it is, and how targets were searched for."""
    rows = []
    for (name, _, arm), of in _with_copy(run, results).arms().items():
        scores = [_cell(of, metric) for metric in ("bleu", "chrf", "exact_match", "character_error_rate", "loss")]
        rows.append([_called(name, arm), *scores, of[0].parameters or _NOTHING, len(of) if of[0].run else _NOTHING])
    told = [paragraph(f"On {_count(results)} test pairs: mean over seeds, ± half of its 95 % interval over seeds where "
                      f"there are {FEWEST} or more.", soft=True),
            table(["arm", "BLEU", "chrF", "exact match (%)", "character errors (%)", "nats a token", "parameters",
                   "seeds"], rows, decimals=2)]
    if signature := run.result.get("bleu_signature"):
        told.append(paragraph(f"BLEU is sacrebleu's, {signature}. {_decoded(run)}", soft=True))
    return Section("Scores on the test set", join(told))


def _with_copy(run: Evidence, results: Results) -> Results:
    """With what copying the source gives, where that is known and no row yet."""
    rows = list(results.rows)
    for name, of_set in (run.result.get("sets") or {}).items():
        known = {key: value for key, value in of_set["copy"].items() if isinstance(value, (int, float))}
        last = max((place for place, row in enumerate(rows) if row.set == name), default=-1)
        rows.insert(last + 1, Row(results.experiment, "copy of the source", 0, known, name))
    return replace(results, rows=rows)


def _count(results: Results) -> str:
    counts = sorted({row.test_examples for row in results.rows if row.test_examples})
    return " / ".join(f"{count:,}" for count in counts) or "the"


def _decoded(run: Evidence) -> str:
    chosen = (run.config.get("training") or {}).get("decoding") or {}
    beams = chosen.get("num_beams", 1)
    return "Answers are greedy." if beams == 1 else (f"Answers are the best of {beams} beams, length penalty "
                                                     f"{chosen.get('length_penalty')}.")


def _cell(rows: Sequence[Row], metric: str) -> Measured | Between:
    values = [row.metrics.get(metric) for row in rows]
    if any(value is None for value in values):
        return _NOTHING
    share = metric in ("exact_match", "character_error_rate")
    found = mean_interval([100 * value if share else value for value in values])
    return Measured(found.mean, found.ci95 if found.n >= FEWEST else None,
                    2 if metric == "loss" else 1)


def _lengths(results: Results) -> list[Section]:
    """Where the bottleneck shows: the picture, and below it the same in a table."""
    figure = by_length_figure(results)
    if figure is None:
        return []
    scale, name = (1, "BLEU") if results.metric == "bleu" else (100, NAMES[results.metric])
    unit = "words" if results.metric == "bleu" else "characters"
    tables = []
    for name_of_set in dict.fromkeys(row.set for row in results.rows):
        arms = {arm: rows for (of, _, arm), rows in results.arms().items() if of == name_of_set and rows[0].by_length}
        rows = [[span(group), group["pairs"], *(_at_length(of, number, scale) for of in arms.values())]
                for number, group in enumerate(next(iter(arms.values()))[0].by_length)]
        tables.append(join([markup("<h3>{{ name }}</h3>", name=name_of_set) if name_of_set else "", table(
            [f"{unit} of the source", "test pairs", *arms], rows)]))
    told = (f"{name}: mean ± half of its 95 % interval over seeds, or of fewer than {FEWEST} seeds its "
            f"interval over test pairs.")
    return [Section("By length of the source", join([
        picture(figure, f"{name} by length of the source, a line an arm"), paragraph(told, soft=True), *tables]))]


def _at_length(rows: Sequence[Row], group: int, scale: float) -> Measured | Between:
    found = mean_interval([scale * row.by_length[group]["value"] for row in rows])
    own = rows[0].by_length[group]
    return Measured(found.mean, found.ci95) if found.n >= FEWEST else Between(
        found.mean, scale * own["low"], scale * own["high"], 1)


# --- what they write -----------------------------------------------------------------------------------------------


Kept = dict[tuple[str, str], str]
"""(set, arm) → the folder of its kept model."""


def _called(name: str, arm: str) -> str:
    """An arm, and of which set where they have names."""
    return f"{name}: {arm}" if name else arm


def _best(results: Results, kept: Kept) -> list[tuple[str, str]]:
    """Of each set the arm that is ahead."""
    means = {place: float(np.mean([row.metrics[results.metric] for row in results.arms()[place[0], "", place[1]]]))
             for place in kept}
    return [max((place for place in kept if place[0] == name), key=lambda place: means[place])
            for name in dict.fromkeys(name for name, _ in kept)]


def _alignments(run: Evidence, kept: Kept) -> list[Section]:
    """Of each model that looks back at the source, one example."""
    parts = []
    for (name, arm), place in kept.items():
        found = run.part(place).read("alignments.json", list[SavedAlignment]) or []
        for each in found[:1]:
            caption = (f"{_called(name, arm)}, first seed: the mean of its heads and layers. The stronger the colour, "
                       f"the more it looked there; a dot marks where most. Wanted was “{each['target']}”.")
            parts.append(picture(alignment_figure(each["read"], each["written"], np.asarray(each["weights"])),
                                 f"Where {arm} looked in “{each['source']}” to write each part of its answer", caption))
    if not parts:
        return []
    told = paragraph("A row for what was written, a column for what was read, of a test pair.", soft=True)
    return [Section("Where it looked", join([told, *parts]))]


def _read_answers(run: Evidence, place: str) -> list[WrittenAnswer]:
    return run.part(place).read("predictions.json", list[WrittenAnswer]) or []


def _answers(run: Evidence, which: tuple[str, str], place: str, several: bool) -> list[Section]:
    """The worst answers, and some by chance, in a table that can be searched."""
    arm = _called(*which)
    found = _read_answers(run, place)
    if not found:
        return []
    near = pair_chrf([each["prediction"] for each in found], [each["target"] for each in found])
    right = sum(each["prediction"] == each["target"] for each in found)
    once = list({(each["source"], each["target"], each["prediction"]): number
                 for number, each in reversed(list(enumerate(found)))}.values())
    worst = [number for number in sorted(once, key=lambda number: (near[number], number))
             if found[number]["prediction"] != found[number]["target"]][:WORST]
    others = np.setdiff1d(once, worst)
    drawn = np.sort(np.random.default_rng(0).permutation(others)[:SHOWN])
    rows = [[shown, found[number]["source"], found[number]["target"], found[number]["prediction"],
             float(near[number])] for shown, numbers in (("worst", worst), ("by chance", drawn)) for number in numbers]
    told = (f"{arm}, first seed: {right:,} of {len(found):,} are exactly the reference. Below, the {len(worst)} that "
            f"are farthest from it by chrF, and {len(drawn)} of the others by chance; what comes again, once.")
    return [Section(f"What it writes: {arm}" if several else "What it writes", join([paragraph(told), table(
        ["shown", "source", "reference", "written", "chrF"], rows, filters=["shown"], decimals=1)]))]


def _side_by_side(run: Evidence, kept: Kept) -> list[Section]:
    """The same test pairs by all arms of a set."""
    found: dict[str, dict[str, list[WrittenAnswer]]] = {}
    for (name, arm), place in kept.items():
        if answers := _read_answers(run, place):
            found.setdefault(name, {})[arm] = answers
    return [section for name, arms in found.items() for section in _beside(name, arms)]


def _beside(name: str, found: dict[str, list[WrittenAnswer]]) -> list[Section]:
    """found: arm → its answers."""
    if len(found) < 2 or len({len(answers) for answers in found.values()}) > 1:
        return []
    first = next(iter(found.values()))
    drawn = np.sort(np.random.default_rng(0).permutation(len(first))[:SIDE_BY_SIDE])
    rows = [[first[number]["source"], first[number]["target"], *(answers[number]["prediction"] for answers in
                                                               found.values())] for number in drawn]
    told = f"{len(rows)} test pairs by chance, and what the first seed of each arm writes."
    return [Section(": ".join(filter(None, ["Side by side", name])), join([paragraph(told, soft=True), table(
        ["source", "reference", *found], rows, sortable=True)]))]


def next_steps(run: Evidence, kept: Sequence[str]) -> Section:
    recipe = "compare-seq2seq" if "arms" in run.config else "finetune-seq2seq"
    seeds = len({row.seed for row in run.results.rows}) if run.results else 0
    few = [("An interval worth having takes three seeds or more.", f"make {recipe} CONFIG={run.path('config.yaml')} "
            f'ARGS="--seeds 5 --output_dir {run.place}-5-seeds"')] if seeds < FEWEST else []
    models = [run.path(place) for place in kept[:1]]
    steps = [step for model in models for step in (
        ("Ask it about texts of yours (a file with a column text).", f"make predict MODEL={model} FILE=texts.csv"),
        ("Ask it in the browser.", f"make app MODEL={model}"),
        ("See where it looks.", f'make attention MODEL={model} TEXT="a text of yours"'),
        ("Publish it.", f"make push RUN={model} REPO=you/writer"))]
    return pieces.commands([*few, *steps, ("This page again.", f"make report RUN={run.place}")])
