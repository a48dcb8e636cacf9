"""The words that mattered, marked in their text and listed by how far the answer moves without them."""

import re

from markupsafe import Markup

from toolkit.analysis.occlusion import Occlusion, Part
from toolkit.report.page import Between, join, markup, paragraph, table

LISTED = 10
_LEAST_SHARE = 0.12
"""Of the largest change: less is not marked."""
_LEAST = 5e-4
_MARKED = """<p class="marked" dir="auto">{% for kind, weight, line in pieces %}
{%- if kind == "break" %}<br>{% elif kind == "plain" %}{{ line }}
{%- else %}<mark class="{{ kind }}" style="--weight: {{ weight }}">{{ line }}</mark>{% endif %}
{%- endfor %}</p>"""


def marked_words(text: str, pair: str | None, found: Occlusion) -> Markup:
    """The text with its marks, and the words that move the answer most."""
    if not found.parts:
        return Markup("")
    changes = [part.without - found.whole for part in found.parts]
    largest = max(map(abs, changes))
    what = "the number" if found.column == "value" else found.column
    parts = [markup("<h2>Words that mattered</h2>"), paragraph(_legend(what, found.together), soft=True)]
    if largest < _LEAST:
        return join([*parts, paragraph("No word by itself changes the answer.")])
    for second, each in enumerate((text, pair)):
        if each is not None:
            own = [part for part in found.parts if part.second == bool(second)]
            parts.append(markup(_MARKED, pieces=_pieces(each, own, found.whole, largest)))
    order = sorted(range(len(changes)), key=lambda place: -abs(changes[place]))[:LISTED]
    texts = {False: text, True: pair or ""}
    scale, decimals = (1, 3) if found.column == "value" else (100, 1)
    rows = [[_short(texts[part.second], part), Between(scale * part.without, decimals=decimals),
             Between(scale * change, text=f"{scale * change:+,.{decimals}f}")]
            for part, change in ((found.parts[place], changes[place]) for place in order) if abs(change) >= _LEAST]
    heads = ["left out", "without it", "change"] if scale == 1 else ["left out", "without it, %", "change, points"]
    return join([*parts, markup('<div class="narrow">{{ table }}</div>', table=table(heads, rows))])


def _legend(what: str, together: int) -> str:
    each = "Each word" if together == 1 else f"Every {together} words together"
    return (f"{each} left out in turn, and the model asked again. Underlined: without it {what} falls, so it speaks "
            f"for the answer; dashed: without it {what} rises.")


def _short(text: str, part: Part) -> str:
    words = text[part.start:part.end]
    return f"“{words if len(words) <= 40 else words[:39] + '…'}”"


def _pieces(text: str, parts: list[Part], whole: float, largest: float) -> list[tuple[str, float, str]]:
    """(for, against, plain or break, weight in [0, 1], text on one line)"""
    pieces, place = [], 0
    for part in parts:
        pieces += _lines("plain", 0, text[place:part.start])
        change = part.without - whole
        weight = abs(change) / largest
        kind = "plain" if weight < _LEAST_SHARE else "for" if change < 0 else "against"
        pieces += _lines(kind, round(weight, 2), text[part.start:part.end])
        place = part.end
    return pieces + _lines("plain", 0, text[place:])


def _lines(kind: str, weight: float, text: str) -> list[tuple[str, float, str]]:
    found = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text)):
        found += ([("break", 0, "")] if number else []) + ([(kind, weight, line)] if line else [])
    return found
