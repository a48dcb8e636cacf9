"""What people wrote is shown as they wrote it, whatever it is: over all of Unicode."""

import json
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toolkit.metrics.tabulate import table
from toolkit.shown import as_code, in_html, in_markdown, in_picture, in_script, lines_on_terminal, on_terminal

ANY = st.text(st.characters(exclude_categories=()), max_size=40)  # lone halves of characters among them
HARMFUL = ("\x1b[2J", "a\nb", "<!-- a", "</script><script>", "| a |", "$x_$", "_a", "`", "``` a", "## a", "[a](b)",
           "\u202eabc", "\u2028", "a\\|b", "می\u200cخواهم")


@pytest.fixture(scope="module")
def markdown():
    return pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")


def on_one_line(shown: str) -> bool:
    return len((shown + "x").splitlines()) == 1 and not any(
        unicodedata.category(character) in ("Cc", "Cs") for character in shown)


@given(ANY)
def test_every_way_of_showing_gives_one_line_without_control_characters(text):
    for show in (on_terminal, in_markdown, as_code, in_html, in_picture):
        assert on_one_line(show(text)), show.__name__
        show(text).encode()


@pytest.mark.parametrize("text", HARMFUL)
def test_harmful_ones(text):
    test_every_way_of_showing_gives_one_line_without_control_characters.hypothesis.inner_test(text)


def test_what_is_harmless_stays_as_it_is():
    for text in ("می\u200cخواهم", "naïve café", "饮食", "👩\u200d🔬", "tab-less, plain!"):
        assert on_terminal(text) == in_picture(text) == text
    assert on_terminal("a\x1b[31mb\nc") == r"a\x1b[31mb c"
    assert lines_on_terminal("a\x07\nb") == "a\\x07\nb"
    assert in_picture("_a") != "_a" and in_picture("_a").endswith("_a")
    assert len(in_picture("x" * 500)) == 80


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_comment(self, data):
        raise AssertionError("a comment")

    def handle_data(self, data):
        self.text += data


@given(ANY)
@example("\"><script>alert(1)</script>")
def test_in_html_it_is_text_and_nothing_but_text(text):
    parser = Text()
    parser.feed(f'<p title="{in_html(text)}">{in_html(text)}</p>')
    parser.close()
    assert parser.tags == [("p", {"title": on_terminal(text)})] and parser.text == on_terminal(text)


@given(st.lists(ANY))
@example(["</script>", "<!--", "]]>"])
def test_json_within_a_script_ends_no_script_and_reads_back(values):
    values = [value.encode("utf-8", "replace").decode() for value in values]
    written = in_script(json.dumps(values, ensure_ascii=False))
    assert "<" not in written and ">" not in written and json.loads(written) == values


@given(ANY)
@example("<!--")
@example("a|b")
@example("1. a")
@example("http://x.org <a@b.org>")
def test_in_markdown_it_is_text_and_nothing_but_text(markdown, text):
    shown = f"a {in_markdown(text)} b"
    tokens = markdown.parse(shown)
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert {child.type for child in tokens[1].children} <= {"text", "text_special"}
    assert "".join(child.content for child in tokens[1].children) == f"a {on_terminal(text)} b"


@given(ANY)
@example("`")
@example("``a` ")
def test_a_code_span_is_one_and_holds_the_text(markdown, text):
    inline = markdown.parse(f"a {as_code(text)} b")[1].children
    assert [child.type for child in inline] == ["text", "code_inline", "text"]
    assert inline[1].content.strip() == on_terminal(text).strip()


@given(ANY)
@example("a|b")
@example("\\|")
@example("`|`")
def test_a_cell_of_a_table_is_one_cell(markdown, text):
    rows = [{"name": in_markdown(text), "n": 1}, {"name": as_code("b"), "n": 2}]
    tokens = markdown.parse(table(rows, markdown=True))
    cells = [tokens[place + 1] for place, token in enumerate(tokens) if token.type == "td_open"]
    assert len(cells) == 4
    written = "".join(child.content for child in cells[0].children)
    assert written.strip() == on_terminal(text).strip()
    assert len(table(rows).splitlines()) == 4
