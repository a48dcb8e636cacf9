"""The engine of pages: whatever stands in a value is text; numbers read as numbers; colours can be read."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup
from planted import IN_JSON, PLANTED

from toolkit.report.page import (
    TEMPLATES,
    Between,
    Measured,
    Section,
    drawn,
    join,
    lines,
    markup,
    number,
    page,
    paragraph,
    table,
    write_page,
)
from toolkit.shown import on_terminal

ANY = st.text(st.characters(exclude_categories=()), max_size=40)  # lone halves of characters among them


class Skeleton(HTMLParser):
    """Tags with the names of their attributes, in order; all text and all values of attributes."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.texts, self.values = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *(name for name, _ in attributes)))
        self.values += [value for _, value in attributes]

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}",))

    def handle_comment(self, data):
        raise AssertionError("a comment")

    def handle_data(self, data):
        self.texts.append(data)


def everything(text: str) -> str:
    """A page on which the text stands wherever a text can."""
    body = join([text, paragraph(text), lines(f"{text}", text), markup("<p>{{ told }}</p>", told=text),
                 table([f"head {text}", "n"], [[text, 1], ["b", None]], filters=[f"head {text}"]),
                 drawn('<svg width="9pt" height="9pt"></svg>', text, text)])
    return page(text, [Section(text, body)] * 4, text)


@given(ANY)
@example(PLANTED[0])
@example(PLANTED[2])
@example(IN_JSON)
@example("{{ 7 * 7 }}{% raw %}")
@example("-->")
def test_on_a_page_it_is_text_and_nothing_but_text(text):
    found, plain = Skeleton(everything(text)), Skeleton(everything("x"))
    # An empty lead, label or caption has no place, and a width follows from the longest text.
    assert not text or found.tags == plain.tags
    shown = on_terminal(text)
    assert "".join(found.texts).count(f"head {shown}") >= 4 and (not shown or shown in found.values)


@pytest.mark.parametrize(("value", "decimals", "shown"), [
    (1234567, 3, "1,234,567"), (-5, 3, "−5"), (0.12345, 3, "0.123"), (-0.5, 1, "−0.5"), (-0.0001, 2, "0.00"),
    (12345.678, 1, "12,345.7"), (None, 3, "undefined"), (float("nan"), 3, "not a number"), (float("inf"), 3, "∞"),
    (float("-inf"), 3, "−∞")])
def test_numbers_read_as_numbers(value, decimals, shown):
    assert number(value, decimals) == shown


def test_a_column_of_numbers_is_one_whatever_they_are():
    html = str(table(["name", "score", "gain", "share", "right"], [
        ["a", 0.5, Measured(-1.25, 0.5), Between(0.9, 0.8, 0.95), True],
        ["b", None, Measured(2.0), Between(1e-9, text="1e-09"), False]], decimals=2))
    heads = re.findall(r"<th [^>]*>", html)
    assert ["number" in head for head in heads] == [False, True, True, True, False]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html)
    assert cells == ["a", "0.50", "−1.2 ± 0.5", "0.900 (0.800 – 0.950)", "yes",
                     "b", "undefined", "2.0", "1e−09", "no"]
    assert re.findall(r'data-key="([^"]*)"', html) == ["0.5", "-1.25", "0.9", "2.0", "1e-09"]


def test_markup_is_kept_and_text_from_the_right_has_its_side():
    html = str(table(["", ""], [[Markup("<b>bold</b>"), "שלום (world)"]]))
    assert "<b>bold</b>" in html and 'dir="auto">שלום (world)</td>' in html


def test_a_page_fetches_nothing_and_says_its_language(tmp_path):
    write_page(tmp_path / "page.html", "a run", [Section("one", table(["a"], [[1]], sortable=True))], "It helped.")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<html lang="en">' in html and "<h2" in html and "<h1" in html
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*['"]?(?:https?:)?//""", html)


def test_colours_can_be_read_light_and_dark():
    """Text against what it stands on, at least 4.5 : 1 (WCAG 2.1, 1.4.3)."""
    blocks = re.findall(r":root \{(.*?)\}", (TEMPLATES / "style.css").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3  # light, dark, printed
    for block in blocks:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block))
        assert {"ink", "soft", "paper", "line", "accent", "panel"} <= colours.keys()
        for text in ("ink", "soft", "accent"):
            for ground in ("paper", "panel"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground, block)


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[at:at + 2], 16) / 255 for at in (0, 2, 4)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
