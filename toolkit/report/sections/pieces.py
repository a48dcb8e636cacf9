"""What pages of several kinds of run share: verdicts, the gain picture, curves, commands to go on with."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from toolkit.errors import UserError
from toolkit.metrics.intervals import FEWEST, mean_interval
from toolkit.report.figures.classification import attention_figure
from toolkit.report.figures.gains import GainPanel, gain_figure, gain_table, panels_of, proper
from toolkit.report.figures.series import shuffle_figure
from toolkit.report.figures.training import curves_of, fits_figure, loss_figure
from toolkit.report.page import Between, Measured, Section, join, lines, markup, paragraph, picture, table
from toolkit.report.sections.evidence import Evidence
from toolkit.run.binary import read_npz
from toolkit.run.directory import name_of
from toolkit.run.provenance import without_machine_paths
from toolkit.run.results import Results, Row, Verdict


def is_share(metric: str) -> bool:
    """Whether it lies between 0 and 1 and is told in percent."""
    return metric in ("accuracy", "f1", "mlm_accuracy", "nsp_accuracy", "coverage", "exact_match")


def verdicts(results: Results | None) -> str:
    """Those of an experiment, the first few; "" where nothing was compared."""
    told = list(dict.fromkeys(_of_whom(verdict, results) for verdict in results.verdicts)) if results else []
    return "; ".join(text.rstrip(".") for text in told[:3]) + ("." if told else "")


def _of_whom(verdict: Verdict, results: Results) -> str:
    """With the arm, and the size, where several are judged and the sentence does not name them."""
    sized = f", {verdict.size} {results.sizes}".rstrip() if verdict.size else ""
    alone = len(results.verdicts) == 1 or verdict.arm in verdict.text
    return judged(verdict, results) if alone else f"{verdict.arm}{sized}: {judged(verdict, results)}"


def judged(verdict: Verdict, results: Results) -> str:
    """A verdict, and that it is of too few seeds."""
    seeds = len({row.seed for row in results.rows if row.arm == verdict.arm})
    few = 1 < seeds < FEWEST and "no verdict" not in verdict.text  # earlier versions judged two
    return with_minus(verdict.text) + f" ({seeds} seeds: run {FEWEST} or more)" * few


def with_minus(text: str) -> str:
    """Hyphens before digits as minus signs."""
    return re.sub(r"(?<![\w–-])-(?=\d)", "\u2212", text)


def answer(panels: Sequence[GainPanel], what: str = "pretraining") -> str:
    """Did it help? In a sentence a panel."""
    told = []
    for panel in panels:
        by_verdict: dict[str, list[str]] = {}
        for row in gain_table([panel]):
            if row["gain"] is not None:
                half = "" if row["half_width"] is None else f" ± {row['half_width']:.1f}"
                by_verdict.setdefault(row["verdict"], []).append(
                    f"{row['name']} ({row['gain']:+.1f}{half} {row['unit']})")
        parts = [f"{_SAID.get(verdict, _TOO_FEW)} {', '.join(names)}" for verdict, names in
                 sorted(by_verdict.items(), key=lambda entry: [*_SAID, entry[0]].index(entry[0]))]
        if parts:
            where = f"{panel.title.rstrip('?')}: " if len(panels) > 1 else ""
            told.append(f"{where}{what} {'; it '.join(parts)}.")
    return with_minus(" ".join(f"{text[:1].upper()}{text[1:]}" for text in told))


_SAID = {"real": "helped", "hurts": "hurt",
         "not distinguishable from zero": "made no difference that can be told from chance for"}
"""A verdict → the words that say it of a model."""
_TOO_FEW = "has too few seeds to be judged for"


def lead(results: Results | None) -> str:
    """The answer of an experiment that held models against each other; else its verdicts."""
    if results is None:
        return ""
    return answer(panels_of(results.rows, results.metric, results.sizes)) or verdicts(results)


def gains(results: Results, title: str = "The comparison") -> list[Section]:
    """The gain picture of an experiment, and below it the same in a table."""
    panels = panels_of(results.rows, results.metric, results.sizes)
    return [Section(title, join([gain_picture(panels), gain_rows(panels)]))] if panels else []


def gain_picture(panels: Sequence[GainPanel]) -> Markup:
    said = "; ".join(f"{row['panel']} {row['name']}: {row['verdict'] or 'not compared'}".strip()
                     for row in gain_table(panels)[:12])
    return picture(gain_figure(panels, ""), f"A row a model, a dot a seed; beside it the gain. {said}")


def gain_rows(panels: Sequence[GainPanel]) -> Markup:
    """Only of what was compared with a random start, or another reference."""
    several = len({panel.title for panel in panels}) > 1
    rows = [[*([row["panel"]] if several else []), row["name"], row["random"], row["pretrained"],
             Measured(row["gain"], row["half_width"]), row["verdict"], row["seeds"]]
            for row in gain_table(panels) if row["gain"] is not None]
    if not rows:
        return Markup("")
    first = panels[0]
    unit = " (%)" if first.share and first.sign else ""
    return table([*(["set"] if several else []), "model", f"{first.hollow}{unit}", f"{first.filled}{unit}",
                  f"gain ({'points' if first.share else '%'}) ± 95 %", "verdict", "seeds"], rows,
                 decimals=1 if first.share else 4)


def arms_section(results: Results) -> Section:
    """Every arm with its mean over seeds and interval: a row an arm, a column a size or a set."""
    arms = results.arms()
    names = list(dict.fromkeys(arm for _, _, arm in arms))
    columns = list(dict.fromkeys((name, size) for name, size, _ in arms))
    kind = {"labels": " labels", "horizon": " ahead"}.get(results.sizes, "")
    heads = [", ".join(filter(None, [name, f"{size}{kind}" if size else ""])) or proper(results.metric)
             for name, size in columns]
    rows = [[arm, *(measured(arms.get((*column, arm)), results.metric) for column in columns),
             max(len(arms.get((*column, arm), ())) for column in columns)] for arm in names]
    counts = sorted({row.test_examples for row in results.rows if row.test_examples})
    examples = f" on {' / '.join(f'{count:,}' for count in counts[:4])} test examples" if counts else ""
    unit = " in percent" if is_share(results.metric) else ""
    told = (f"Test {proper(results.metric)}{unit}{examples}: mean over seeds, ± half of its 95 % interval over seeds "
            f"where there are {FEWEST} or more.")
    return Section("All arms", join([paragraph(told, soft=True), table(
        ["arm", *heads, "seeds"], rows, sortable=len(rows) > 6)]))


def measured(rows: Sequence[Row] | None, metric: str) -> Measured | Between | None:
    """A cell of a table: mean over seeds with its interval; of what is no share so many digits as count."""
    values = [row.metrics[metric] for row in rows or () if row.metrics.get(metric) is not None]
    if not values:
        return None
    scale = 100 if is_share(metric) else 1
    found = mean_interval([scale * value for value in values])
    if scale == 1 and 0 < abs(found.mean) < 0.01:
        half = f" ± {found.ci95:.2g}" if found.n >= FEWEST else ""
        return Between(found.mean, text=f"{found.mean:.3g}{half}")
    return Measured(found.mean, found.ci95 if found.n >= FEWEST else None, 1 if scale == 100 else 4)


def curves(run: Evidence) -> Markup:
    """Training and validation of one fit, by step, beside what needs no model."""
    figure = loss_figure(run.records, result=run.result)
    if figure is None:
        return paragraph("Too little was logged for a curve.", soft=True)
    return picture(figure, "Loss on training and on validation by step, with what guessing gives as marked lines")


def fits(run: Evidence) -> list[Section]:
    """Every arm's way: a line a seed, their mean thick."""
    found: dict[str, list[list[dict]]] = {}
    for row in run.results.rows if run.results else ():
        if row.run and (records := run.part(row.run).records):
            found.setdefault(row.arm, []).append(records)
    if not found:
        return []
    first = next(iter(found.values()))[0]
    figure = fits_figure(found, curves_of(first))
    said = "Loss or score on validation by step: a thin line a seed, a thick one for their mean"
    return [Section("How all arms learned", picture(figure, said))] if figure else []


def commands(steps: Sequence[tuple[str, str]]) -> Section:
    """What to do next: (why, the exact line)."""
    return Section("Next", markup(
        '<ul class="commands">{% for why, line in steps %}<li><span dir="auto">{{ why }}</span>'
        '<pre class="scroll">{{ line }}</pre></li>{% endfor %}</ul>', steps=steps))


def dead_branches(findings: Mapping[str, dict]) -> Section | None:
    """Which parts of the kept models do something: a line where all do, else what was found."""
    if not findings:
        return None
    warned = {name: found.get("warnings") or [] for name, found in findings.items()}
    dead = {name: warnings for name, warnings in warned.items() if warnings}
    parts = []
    if not dead:
        checked = ", ".join(f"{len(found.get('branches') or ())} branches of {name}" for name, found in
                            findings.items())
        parts.append(paragraph(f"Everything is alive: {checked}, each replaced by its mean, and each trained value's "
                               f"gradient, were looked at."))
    parts += [markup("<p>{{ name }}:</p><ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>", name=name,
                     lines=warnings) for name, warnings in dead.items()]
    if figure := shuffle_figure(findings):
        parts.append(picture(figure, "Answers to series as they are, and with their patches in random order"))
    parts += [paragraph(f"{name}: {shuffled(found['shuffle'])}") for name, found in findings.items()
              if found.get("shuffle")]
    return Section("Does every part do something?", join(parts))


def shuffled(shuffle: dict) -> str:
    """What the order of the patches is worth."""
    length = shuffle.get("patch_length")
    if "accuracy" in shuffle:
        return (f"with the patches of {length} values in random order its accuracy goes from "
                f"{100 * shuffle['accuracy']:.1f} % to {100 * shuffle['shuffled_accuracy']:.1f} %, and "
                f"{100 * shuffle['answers_changed']:.0f} % of the answers are others (validation).")
    return (f"with the patches of {length} values of the context in random order its MSE goes from "
            f"{shuffle['mse']:.3g} to {shuffle['shuffled_mse']:.3g} (validation).")


def attention(run: Evidence) -> list[Section]:
    """A map of one test example by each kept classifier, and links to the pages of attention that `make attention` made
    of this run's models, where it puts them.
    """
    drawn = [attention_map(run, path) for path in sorted(run.directory.glob("*/seed-0/attention.npz"))]
    models = [run.directory, *(path.parent.parent for path in run.directory.glob("*/seed-0/model/config.json"))]
    found = []
    for model in models:
        for place in (model, model / "model"):
            slug = re.sub(r"[^\w.-]+", "-", without_machine_paths(str(place))).strip("-.")
            found += [(os.path.relpath(page, run.directory), f"{name_of(model)}: {page.stem}") for page in (
                Path(f"runs/attention/{slug}.html"), Path(f"runs/attention/{slug}-series.html")) if page.is_file()]
    return [Section("What its heads look at", join([*drawn, links(run, found)]))] if drawn or found else []


def attention_map(run: Evidence, path: Path) -> Markup:
    """What `toolkit.analysis.shown_attention` kept, and the command that shows every head."""
    kept = read_npz(path, "labels", "weights", "text")
    labels, weights, text = kept["labels"], kept["weights"], kept["text"]
    if labels.ndim != 1 or {labels.dtype.kind, text.dtype.kind} != {"U"} or weights.shape != 2 * labels.shape or not (
            len(labels) and weights.dtype.kind == "f" and np.isfinite(weights).all()):
        raise UserError(f"{path}: its arrays do not fit each other. Delete it; the page is made without it then.")
    given, model = str(text), run.path(os.path.relpath(path.parent, run.directory))
    series = (run.config.get("data") or {}).get("test") or "series.tsv"
    asked = f"TEXT={shlex.quote(given)}" if given else f"SERIES={shlex.quote(str(series))} ROW=0"
    told = (f"{path.parent.parent.name}, seed 0, the first test {'text' if given else 'series'}"
            f"{'' if given else ', in patches'}: the mean over the heads of the last layer.")
    return join([picture(attention_figure(weights, labels.tolist()), f"Attention of {told}", told),
                 lines(f"make attention MODEL={model} {asked}", "Every head, and what it predicted, by itself:")])


def links(run: Evidence, places: Sequence[tuple[str, str]]) -> Markup:
    """Links to files of the run that are there: (path within it, what it is)."""
    there = [(path, told) for path, told in places if (run.directory / path).is_file()]
    return markup('<ul>{% for path, told in there %}<li><a href="{{ path | urlencode }}">{{ told }}</a></li>'
                  "{% endfor %}</ul>", there=there) if there else Markup("")
