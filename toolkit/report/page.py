"""The engine of every page: Jinja2 with autoescape, one frame, one style, nothing to fetch.

    write_page("report.html", "demo/bert", [Section("Scores", table(["", "value"], [["accuracy", 0.91]]))])

Whatever stands in a value is text: it goes through `toolkit.shown` and is escaped, unless it is `Markup` already.
"""

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from toolkit.report.figures.canvas import as_svg
from toolkit.run.files import write_atomic
from toolkit.shown import on_one_line

TEMPLATES = Path(__file__).parent / "templates"
_MINUS = "\u2212"


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    body: Markup


@dataclass(frozen=True)
class Measured:
    """A number with half the width of its interval, for a table's cell; None where no interval is known."""

    value: float
    half: float | None = None
    decimals: int = 1


@dataclass(frozen=True)
class Between:
    """A number with both ends of its interval, for a table's cell; or as `text` writes it."""

    value: float
    low: float | None = None
    high: float | None = None
    decimals: int = 3
    text: str = ""


def _text(value: Any) -> Any:
    """What an expression of a template gives, before it is escaped."""
    return on_one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_ENGINE = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=_text,
                      trim_blocks=True, lstrip_blocks=True)


def markup(source: str, **values: Any) -> Markup:
    """A piece of a page, written here: `markup("<p>{{ told }}</p>", told=text)`."""
    return Markup(_compiled(source).render(**values))


_compiled = functools.lru_cache(maxsize=256)(_ENGINE.from_string)


def render(template: str, **values: Any) -> str:
    """A file of templates/, filled in."""
    return _ENGINE.get_template(template).render(**values)


def write_page(path: str | Path, title: str, sections: Sequence[Section], lead: str | Markup = "") -> None:
    """A whole page, whole or not at all. lead: the answer, a sentence or two under the title."""
    write_atomic(path, page(title, sections, lead))


def page(title: str, sections: Sequence[Section], lead: str | Markup = "", style: str = "", script: str = "") -> str:
    """The page as text. style and script: of its own, after those of all pages."""
    return render("page.html", title=title, lead=lead, sections=sections,
                  style=Markup(_source("style.css") + style), script=Markup(_source("page.js") + script))


@functools.cache
def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def number(value: float | None, decimals: int = 3) -> str:
    """As a person reads it: thousands apart, so many decimals, a real minus sign."""
    if value is None:
        return "undefined"
    if isinstance(value, int):
        return f"{value:,}".replace("-", _MINUS)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{_MINUS if value < 0 else ''}∞"
    shown = f"{value:,.{decimals}f}"
    return shown.lstrip("-") if not float(shown.replace(",", "")) else shown.replace("-", _MINUS)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], *, sortable: bool = False,
          filters: Sequence[str] = (), decimals: int = 3) -> Markup:
    """A real table: numbers to the right with even decimals; texts as they were written, from whichever side.

    sortable: by every column, with a box to search in; filters: columns of which one value can be chosen.
    A cell is a text, Markup, a number, `Measured`, `Between`, a truth or None, of a number that is not defined.
    """
    numeric = [any(_is_number(row[place]) for row in rows) and
               all(row[place] is None or _is_number(row[place]) for row in rows) for place in range(len(heads))]
    can_be_sorted = sortable or bool(filters)
    cells = [[_cell(value, decimals, is_number) for value, is_number in zip(row, numeric, strict=True)]
             for row in rows]
    columns = [{"name": name, "numeric": is_number, "filter": name in filters,
                "width": None if is_number else _width([name + 2 * "-" * can_be_sorted, *(row[place] for row in rows)])}
               for place, (name, is_number) in enumerate(zip(heads, numeric, strict=True))]
    return Markup(render("table.html", columns=columns, rows=cells, sortable=can_be_sorted))


def _width(texts: Sequence[Any]) -> float:
    """What a column of texts is never narrower than, in em: about 26 letters, or the longest text; of scripts with wide
    letters half as many.
    """
    longest = max((sum(1 + (letter >= "\u2e80") for letter in on_one_line(text)[:26]) for text in texts
                   if isinstance(text, str) and not isinstance(text, Markup)), default=0)
    return round(1.2 + 0.62 * min(26, longest) + 0.25 * min(8, longest), 1)  # in few letters many may be wide


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Measured, Between)) and not isinstance(value, bool)


def _cell(value: Any, decimals: int, is_number: bool) -> dict:
    """shown: as it stands in the table; key: what a column is sorted by."""
    if isinstance(value, Measured):
        half = "" if value.half is None else f" ± {number(float(value.half), value.decimals)}"
        return {"shown": number(float(value.value), value.decimals) + half, "key": float(value.value)}
    if isinstance(value, Between):
        ends = "" if value.low is None or value.high is None else (
            f" ({number(float(value.low), value.decimals)} – {number(float(value.high), value.decimals)})")
        shown = value.text.replace("-", _MINUS) or number(float(value.value), value.decimals) + ends
        return {"shown": shown, "key": float(value.value)}
    if isinstance(value, bool):
        return {"shown": "yes" if value else "no", "key": None}
    if _is_number(value):
        return {"shown": number(value, decimals), "key": float(value)}
    if value is None:
        return {"shown": "undefined" if is_number else "", "key": None}
    return {"shown": value, "key": None}


def picture(figure: Figure, alt: str, caption: str | Markup = "") -> Markup:
    """A figure of `toolkit.report.figures` as inline SVG in a box of its own. alt: what it shows, for those who cannot
    see it; caption: what stands under it.
    """
    return drawn(as_svg(figure), alt, caption)


_ROOT = re.compile(r"<svg\b[^>]*>")
_SIZE = re.compile(r'\b(width|height)="([\d.]+)(pt|px)?"')


def drawn(svg: str, alt: str, caption: str | Markup = "") -> Markup:
    """An <svg> as `picture` shows it: as wide as it was drawn, or as the page; where its letters would get less than
    about three quarters of their size, its box scrolls.
    """
    root = _ROOT.search(svg)
    assert root, "no <svg>"
    sizes = {name: float(size) * (4 / 3 if unit == "pt" else 1) for name, size, unit in _SIZE.findall(root[0])}
    opened = _SIZE.sub("", root[0]).replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    return markup('<figure class="picture"><div class="scroll" role="img" aria-label="{{ alt }}">'
                  '<div style="max-width: {{ width }}px; min-width: {{ least }}px">{{ svg }}</div></div>'
                  "{% if caption %}<figcaption>{{ caption }}</figcaption>{% endif %}</figure>",
                  alt=alt, caption=caption, width=round(sizes.get("width", 640)),
                  least=round(0.72 * sizes.get("width", 640)),
                  svg=Markup(svg[root.start():].replace(root[0], opened, 1)))


def paragraph(text: str | Markup, soft: bool = False) -> Markup:
    return markup('<p{% if soft %} class="soft"{% endif %} dir="auto">{{ text }}</p>', text=text, soft=soft)


def lines(text: str, label: str = "") -> Markup:
    """A text of several lines, which stay, in letters of one width."""
    return markup('{% if label %}<p class="soft" dir="auto">{{ label }}</p>{% endif %}'
                  '<pre class="scroll">{% for line in text %}{{ line }}\n{% endfor %}</pre>',
                  text=text.split("\n"), label=label)


def grouped(title: str, sections: Sequence[Section]) -> Section:
    """Several as one, with headings of the third order."""
    return Section(title, markup("{% for section in sections %}<h3 dir=\"auto\">{{ section.title }}</h3>"
                                 "{{ section.body }}{% endfor %}", sections=sections))


def join(parts: Sequence[str | Markup]) -> Markup:
    """One after the other; what is no Markup is escaped."""
    return Markup("").join(parts)
