"""A page of runs held beside each other, with nothing to fetch: figures, curves to choose and follow, differences."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from toolkit.report.figures.canvas import SOFT, new_figure, save_figure, style_of
from toolkit.report.page import TEMPLATES, Section, join, markup, page, paragraph, render
from toolkit.report.run_comparison import (
    Line,
    commands,
    compared,
    curve,
    differences,
    limits,
    panels,
    steps_differ,
    tells_how,
)
from toolkit.report.runs import RunFacts
from toolkit.report.thinning import kept_points
from toolkit.run.files import write_atomic
from toolkit.shown import in_picture, in_script, on_one_line

_MOST_POINTS = 600  # of a curve
_LONGEST = 300  # of a setting's value


def write_runs_page(runs: Sequence[RunFacts], path: str | Path) -> None:
    """The page; the picture of its curves lies beside it as .png."""
    lines = compared(runs)
    sections = [Section("Figures", _figures(runs, lines))]
    if picture := runs_figure(runs):
        save_figure(picture, Path(path).with_suffix(".png"))
        sections.append(Section("Curves", _curves(runs)))
    sections.append(Section("What was set differently", _differing(runs, differences(runs))))
    sections.append(Section("How they were started", _commands(runs)))
    sections.append(Section("What else differs", _differing(runs, differences(runs, "manifest"))))
    style, script = ((TEMPLATES / f"comparison.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    write_atomic(path, page(f"{len(runs)} runs compared", sections, _lead(runs, lines), style, script))


def _lead(runs: Sequence[RunFacts], lines: Sequence[Line]) -> str:
    """Which run is best by the first figure that tells."""
    told = next((line for line in lines if line.best), None)
    if told is None:
        return ""
    best = [runs[place].name for place in sorted(told.best)]
    number = told.shown[min(told.best)]
    return f"By {told.name.replace('_', ' ')} the best is {' and '.join(best)}: {number}."


def _figures(runs: Sequence[RunFacts], lines: Sequence[Line]) -> Markup:
    return join([Markup(render("comparison_figures.html", names=[run.name for run in runs], lines=lines)),
                 paragraph(f"Bold: the best of its row. Δ: how much more than {runs[0].name}. Each is a single figure: "
                           f"whether a difference is more than chance, several seeds tell.", soft=True)])


def _differing(runs: Sequence[RunFacts], rows: Sequence[tuple[str, list]]) -> Markup:
    """What is marked differs from the first run."""
    if not rows:
        return paragraph("Nothing.", soft=True)
    return markup("""<div class="scroll"><table class="settings"><thead><tr><th scope="col">setting</th>
{% for name in names %}<th scope="col" dir="auto">{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for key, values in rows %}
<tr><th scope="row" class="setting">{{ key }}</th>{% for value in values %}
<td dir="auto">{% if value == values[0] %}{{ value }}{% else %}<mark>{{ value }}</mark>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>""", names=[run.name for run in runs],
                  rows=[(key, [_setting(value) for value in values]) for key, values in rows])


def _setting(value: object) -> str:
    text = "–" if value is None else "yes" if value is True else "no" if value is False else str(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST - 1] + "…"


def _commands(runs: Sequence[RunFacts]) -> Markup:
    return markup("""{% for name, words in commands %}
<p class="soft" dir="auto">{{ name }}</p>
{% if words %}<pre class="scroll wrap">{{ words }}</pre>{% else %}<p>It does not say.</p>{% endif %}
{% endfor %}""", commands=[(run.name, Markup(" ").join(_word(*word) for word in words))
                           for run, words in zip(runs, commands(runs), strict=True)])


def _word(word: str, differs: bool) -> Markup:
    return markup("<mark>{{ word }}</mark>" if differs else "{{ word }}", word=word)


def _curves(runs: Sequence[RunFacts]) -> Markup:
    """The data of the panels, which the script draws."""
    by_tokens = bool(runs) and all(len(curve(run, "tokens")[0]) for run in runs)
    names = [on_one_line(run.name) for run in runs]
    data = {"runs": names, "axes": ["step", "tokens"] if by_tokens else ["step"],
            "axis": "tokens" if steps_differ(runs) else "step",
            "panels": [{"name": name.replace("_", " "), "how": tells_how(name), "limits": limits(runs, name),
                        "curves": [[_points(run, key, by_tokens) for key in (name, f"eval_{name}")] for run in runs]}
                       for name in panels(runs)]}
    return join([Markup(render("comparison_curves.html", panels=data["panels"], axes=data["axes"], axis=data["axis"])),
                 markup('<script id="data" type="application/json">{{ data }}</script>',
                        data=Markup(in_script(json.dumps(data, ensure_ascii=False))))])


def _points(run: RunFacts, key: str, by_tokens: bool) -> dict[str, list[float]]:
    steps, values = curve(run, key)
    finite = np.isfinite(values)
    kept = np.flatnonzero(finite)[kept_points(values[finite], _MOST_POINTS)]
    tokens = curve(run, key, by_tokens=True)[0] if by_tokens else steps
    return {"step": steps[kept].tolist(), "tokens": np.round(tokens[kept]).tolist(),
            "value": [float(f"{value:.6g}") for value in values[kept]]}


def runs_figure(runs: Sequence[RunFacts]) -> Figure | None:
    """Curves of all runs over each other, a panel a metric: training thin, validation with markers; over tokens where
    their steps have different numbers of them. None where nothing was logged.
    """
    shown, by_tokens = panels(runs), steps_differ(runs)
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, all_axes = new_figure(4.6 * columns, 0.6 + 3.1 * rows, rows, columns)
    for axes in all_axes.flat[len(shown):]:
        axes.set_visible(False)
    styles = [style_of(number) for number in range(len(runs))]
    for axes, name in zip(all_axes.flat, shown, strict=False):
        for run, style in zip(runs, styles, strict=True):
            axes.plot(*curve(run, name, by_tokens), **style | {"marker": ""}, linewidth=0.9, alpha=0.8)
            axes.plot(*curve(run, f"eval_{name}", by_tokens), **style, linewidth=1.8, markersize=4)
        if reach := limits(runs, name):
            axes.set_ylim(*reach)
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("tokens" if by_tokens else "step")
        axes.grid(axis="y", color=SOFT, alpha=0.3)
    handles = [Line2D([], [], label=in_picture(run.name), **style) for run, style in zip(runs, styles, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(runs)), frameon=False, fontsize=9)
    return figure
