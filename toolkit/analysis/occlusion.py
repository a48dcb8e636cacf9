"""Which words an answer hangs on: each is left out, and the model is asked again.

Zeiler & Fergus (2014) cover parts of pictures; Li, Monroe & Jurafsky (2016), *Understanding neural networks through
representation erasure*, leave out words. It says what the model did with this text, not why, and words that say the
same hide each other: without either one the other still speaks.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from toolkit.inference.text_answers import answer_texts

MOST_ASKED = 96
"""Times that the model is asked about one text."""
MOST_READ = 24_000
"""Words that it reads for that, all times together; of a longer text several words are left out at once."""
_ALONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Japanese and Chinese, which part no words by blanks
_WORD = re.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")


@dataclass(frozen=True)
class Part:
    """A word, or several that were left out together."""

    start: int
    end: int
    second: bool
    """Whether it stands in the second of a pair of texts."""
    without: float
    """What the answer is without it."""


@dataclass(frozen=True)
class Occlusion:
    """What an answer is without each part of its text."""

    column: str
    """Of the answer: the probability of the likeliest label, or `value`."""
    whole: float
    """It, of the whole text."""
    parts: tuple[Part, ...]
    together: int
    """Words in a part."""


def words_left_out(model: str | Path, text: str, pair: str | None = None, batch_size: int = 32,
                   note: Callable[[str], None] = lambda line: None) -> tuple[pd.DataFrame, Occlusion]:
    """`answer_texts` of the one text (or pair), and what that answer is without each of its words.

    UserError as from `answer_texts`; note: is told what it notes of the text.
    """
    answer = answer_texts(model, [text], None if pair is None else [pair], batch_size, note)
    numbers = answer[[name for name in answer if name == "value" or name.startswith("p(")]].iloc[0]
    column = str(numbers.astype(float).idxmax())
    spans = [(found.start(), found.end(), second) for second, each in enumerate((text, pair or ""))
             for found in _WORD.finditer(each)]
    together = -(-len(spans) // max(1, min(MOST_ASKED, MOST_READ // max(len(spans), 1))))
    spans = _joined(spans, together)
    texts = [text if span[2] else _without(text, span) for span in spans]
    pairs = None if pair is None else [_without(pair, span) if span[2] else pair for span in spans]
    values = answer_texts(model, texts, pairs, batch_size, lambda line: None)[column] if spans else []
    parts = tuple(Part(start, end, bool(second), float(value))
                  for (start, end, second), value in zip(spans, values, strict=True))
    return answer, Occlusion(column, float(numbers[column]), parts, together)


def _joined(spans: list[tuple[int, int, int]], together: int) -> list[tuple[int, int, int]]:
    """So many neighbours as one, none of them across two texts."""
    found = []
    for second in (0, 1):
        own = [span for span in spans if span[2] == second]
        found += [(own[i][0], own[min(i + together, len(own)) - 1][1], second) for i in range(0, len(own), together)]
    return found


def _without(text: str, span: tuple[int, int, int]) -> str:
    """Without the blanks after it too, or, at the end, those before it: two words are as far apart as before."""
    after = text[span[1]:].lstrip()
    return text[:span[0]] + after if after else text[:span[0]].rstrip()
