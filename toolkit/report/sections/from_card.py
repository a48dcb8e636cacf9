"""What only the card knows: data, limits, how it was made; out of the README.md beside the page."""

import re

from markdown_it import MarkdownIt
from markupsafe import Markup

from toolkit.regular import regular
from toolkit.report.page import Section
from toolkit.report.sections.evidence import Evidence

_WANTED = ("What it saw", "The data", "Tokenizer", "Limits and risks", "How it was made", "Licence and author")
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
_FOLDED = re.compile("<p>&lt;details&gt;&lt;summary&gt;(The configuration)&lt;/summary&gt;</p>")
"""The only HTML of our cards."""


def card_sections(run: Evidence) -> list[Section]:
    """The card's sections that the page does not tell in its own way; none where there is no card."""
    path = run.directory / "README.md"
    if not path.is_file():
        return []
    _, *parts = re.split(r"^## +(.+)$", regular(path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = dict(zip(parts[::2], parts[1::2], strict=False))
    return [Section(title, as_html(found[title])) for title in _WANTED if title in found]


def as_html(markdown: str) -> Markup:
    """Markdown in which nothing is HTML and nothing is fetched."""
    text = re.sub(r"<!--.*?-->", "", markdown, flags=re.DOTALL)
    html = _MARKDOWN.render(text)
    html = _FOLDED.sub(r"<details><summary>\1</summary>", html).replace("<p>&lt;/details&gt;</p>", "</details>")
    return Markup(html.replace("<table>", '<div class="table"><div class="scroll"><table>').replace(
        "</table>", "</table></div></div>"))
