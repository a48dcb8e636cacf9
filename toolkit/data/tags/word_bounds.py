"""A text → its words, and spans of its letters → spans of its words."""

import re
from collections.abc import Sequence

from toolkit.errors import UserError
from toolkit.metrics.tagging import Span

_ONE_BY_ONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Kana and Chinese characters, between which nothing says where words end."""
_WORD = re.compile(rf"[{_ONE_BY_ONE}]|(?:(?![{_ONE_BY_ONE}])\w)+|[^\w\s]")


def words_in(text: str) -> list[tuple[int, int]]:
    """Start and stop of each word in letters: runs of letters and digits; each other sign by itself, but for blanks."""
    return [found.span() for found in _WORD.finditer(text)]


def spans_of_words(spans: Sequence[tuple[int, int, str]], words: Sequence[tuple[int, int]], place: str
                   ) -> tuple[list[Span], int]:
    """(start, stop, kind) in letters → in words, and how many cut a word: these are widened to whole ones.

    UserError where spans overlap, since a word has one tag, or hold no word.
    """
    found, cut, last = [], 0, None
    for start, stop, kind in sorted(spans):
        if last and start < last[1]:
            raise UserError(f"{place}: the spans {last[0]} to {last[1]} ({last[2]}) and {start} to {stop} ({kind}) "
                            f"overlap, and a word has one tag. Leave one of them out.")
        last = (start, stop, kind)
        inside = [number for number, (begun, ended) in enumerate(words) if begun < stop and ended > start]
        if not inside:
            raise UserError(f"{place}: the span {start} to {stop} ({kind}) holds no word. Correct it, or leave it out.")
        cut += words[inside[0]][0] < start or words[inside[-1]][1] > stop
        first = inside[0] + (bool(found) and found[-1].stop > inside[0])  # the word is of the span before
        if first <= inside[-1]:
            found.append(Span(first, inside[-1] + 1, kind))
    return found, cut
