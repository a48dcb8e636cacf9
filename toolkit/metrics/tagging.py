"""Tags of words: the spans that they mark, whatever the scheme, and how well they are found.

    spans_of(["B-person", "I-person", "O", "B-place"])   # [Span(0, 2, "person"), Span(3, 4, "place")]
    load("span_f1").compute(predictions=[["B-place", "O"]], references=[["B-place", "I-place"]])

Ramshaw & Marcus (1995), *Text chunking using transformation-based learning*, for IOB1; Tjong Kim Sang & Veenstra
(1999), *Representing text chunks*, for BIO and BIOES.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from toolkit.metrics.base import OfflineMetric, State, ratio

OUTSIDE = "O"
_TAG = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
_ALIKE = {"L": "E", "U": "S"}
"""BILOU's last and unit are BIOES's end and single."""


class Span(NamedTuple):
    """Words start to stop - 1."""

    start: int
    stop: int
    kind: str


def parted(tag: str) -> tuple[str, str]:
    """Prefix (B, I, E or S; "" outside) and kind."""
    found = _TAG.fullmatch(tag)
    return (_ALIKE.get(found[1], found[1]), found[2]) if found else ("", "")


def marks_spans(tags: Iterable[str]) -> bool:
    """Whether these are tags of spans: every one is O or has a prefix, and one has. Parts of speech are not."""
    prefixed = [tag for tag in set(tags) if tag != OUTSIDE]
    return bool(prefixed) and all(map(_TAG.fullmatch, prefixed))


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans that tags of any scheme mark, read as the scorer of CoNLL-2000 and seqeval read them: what cannot begin
    a span does so where none is open.
    """
    return [span for span, _ in _read(tags)]


def unopened(tags: Sequence[str]) -> int:
    """Spans that begin with the tag of a span's middle or end, as BIO and BIOES have none; in IOB1 that is the rule."""
    return sum(not opened for _, opened in _read(tags))


def _read(tags: Sequence[str]) -> list[tuple[Span, bool]]:
    """The spans, and whether each begins as it should."""
    found, begun, kind, opened, closed = [], -1, "", True, False
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, new = parted(tag)
        if begun >= 0 and (closed or prefix in ("", "B", "S") or new != kind):
            found.append((Span(begun, place, kind), opened))
            begun = -1
        if prefix and begun < 0:
            begun, kind, opened = place, new, prefix in ("B", "S")
        closed = prefix in ("E", "S")
    return found


def as_bio(spans: Iterable[Span], length: int) -> list[str]:
    """A tag a word: B- where a span begins, I- within it."""
    tags = [OUTSIDE] * length
    for span in spans:
        tags[span.start:span.stop] = [f"{'I' if place else 'B'}-{span.kind}" for place in range(span.stop - span.start)]
    return tags


def as_bioes(spans: Iterable[Span], length: int) -> list[str]:
    """As BIO, but the last word of a span is E-, and one that is a span by itself S-."""
    tags = as_bio(spans := list(spans), length)
    for span in spans:
        tags[span.stop - 1] = f"{'S' if span.stop - span.start == 1 else 'E'}-{span.kind}"
    return tags


class Found(NamedTuple):
    """What the tags of a file are: `scheme` bio, iob1, bioes, or "" where they mark no spans, and what breaks it."""

    scheme: str
    spans: int
    unopened: int
    """Of these begin with I- or E- …"""
    unclosed: int
    """… or, in BIOES, end with neither E- nor S-."""


def scheme_of(sentences: Sequence[Sequence[str]]) -> Found:
    """By all tags of a file. With B- before words that follow no span of the same kind it is BIO; where no span begins
    so, IOB1.
    """
    counts = Counter(tag for tags in sentences for tag in tags)
    if not marks_spans(counts):
        return Found("", 0, 0, 0)
    read = [(tags, span, opened) for tags in sentences for span, opened in _read(tags)]
    wrong = sum(not opened for _, _, opened in read)
    if any(parted(tag)[0] in ("E", "S") for tag in counts):
        unclosed = sum(parted(tags[span.stop - 1])[0] in ("B", "I") for tags, span, _ in read)
        return Found("bioes", len(read), wrong, unclosed)
    free = sum(opened and not _follows_its_like(tags, span) for tags, span, opened in read)
    return Found("iob1" if wrong and not free else "bio", len(read), wrong, 0)


def _follows_its_like(tags: Sequence[str], span: Span) -> bool:
    """Whether the word before is of a span of the same kind, where IOB1 needs a B-."""
    return span.start > 0 and parted(tags[span.start - 1])[1] == span.kind


# --- scores --------------------------------------------------------------------------------------------------------

Sentences = Sequence[Sequence[str]]


class SpanF1(OfflineMetric):
    """Precision, recall and F1 of whole spans: the same words and the same kind (Tjong Kim Sang & De Meulder 2003), as
    seqeval counts them by default, whatever scheme the tags are of.

    Inputs: predictions, references: lists of sentences, each a list of tags. Result: {"precision", "recall", "f1":
    floats in [0, 1], 0 where there is nothing to count, "by_kind": kind → the same and "spans", how many there are}.
    """

    inputs: ClassVar = {"predictions": list, "references": list}
    keeps = ("right", "predicted", "wanted")

    def _info(self):
        import datasets
        import evaluate

        sentences = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=type(self).__doc__, citation="", inputs_description="Inputs: lists of tags, a list a sentence",
            features=datasets.Features(dict.fromkeys(self.inputs, sentences)))

    def _batch(self, given: dict[str, Any]) -> State:
        predictions, references = (given.get(name) for name in self.inputs)
        if predictions is None or references is None or len(predictions) != len(references):
            raise ValueError(f"{self.name} was given {len(predictions or ())} predictions and {len(references or ())} "
                             f"references; expected as many sentences of tags.")
        for number, (one, other) in enumerate(zip(predictions, references, strict=True)):
            if isinstance(one, str) or isinstance(other, str) or len(one) != len(other):
                raise ValueError(f"{self.name} was given {len(one)} tags for the {len(other)} words of sentence "
                                 f"{number}; expected a list with one a word.")
        if not len(references):
            return {}
        right, predicted, wanted = Counter(), Counter(), Counter()
        for one, other in zip(predictions, references, strict=True):
            found, there = set(spans_of(one)), set(spans_of(other))
            for counter, spans in ((right, found & there), (predicted, found), (wanted, there)):
                counter.update(span.kind for span in spans)
        return {"examples": len(references), "right": right, "predicted": predicted, "wanted": wanted}

    def _result(self, state: State, **_) -> dict[str, Any]:
        counts = [state[name] for name in self.keeps]
        kinds = sorted(set().union(*counts))
        return {**_rates(*(counter.total() for counter in counts)),
                "by_kind": {kind: {**_rates(*(counter[kind] for counter in counts)), "spans": state["wanted"][kind]}
                            for kind in kinds}}


def _rates(right: int, predicted: int, wanted: int) -> dict[str, float]:
    """As seqeval, 0 where there is nothing to divide by."""
    return {"precision": ratio(right, predicted) or 0.0, "recall": ratio(right, wanted) or 0.0,
            "f1": ratio(2 * right, predicted + wanted) or 0.0}


def tag_scores(words: Sentences, predictions: Sentences, references: Sentences, spans: bool) -> dict[str, Any]:
    """Of all sentences: accuracy over words and exact_match over sentences; where tags mark spans their precision,
    recall, f1 and by_kind, and surface_f1: of distinct names with their kinds, however often they come (Derczynski et
    al. 2017).
    """
    right = sum(a == b for one, other in zip(predictions, references, strict=True)
                for a, b in zip(one, other, strict=True))
    found = {"accuracy": ratio(right, sum(map(len, references))),
             "exact_match": ratio(sum(list(a) == list(b) for a, b in zip(predictions, references, strict=True)),
                                  len(references))}
    if spans:
        one, other = (_names(words, tags) for tags in (predictions, references))
        found |= SpanF1().compute(predictions=predictions, references=references)
        found["surface_f1"] = _rates(len(one & other), len(one), len(other))["f1"]
    return found


def _names(words: Sentences, tags: Sentences) -> set[tuple[str, str]]:
    return {(" ".join(sentence[span.start:span.stop]), span.kind)
            for sentence, of_sentence in zip(words, tags, strict=True) for span in spans_of(of_sentence)}


def tag_interval(predictions: Sentences, references: Sentences, spans: bool, draws: int = 1000, seed: int = 0
                 ) -> tuple[float, float]:
    """How far other test sentences would move F1 of spans, or accuracy of words: both ends of its 95 % interval.

    Efron (1979), *Bootstrap methods*: sentences drawn anew, with returning: the words of one depend on each other.
    """
    rows = []
    for one, other in zip(predictions, references, strict=True):
        if spans:
            found, there = set(spans_of(one)), set(spans_of(other))
            rows.append((2 * len(found & there), len(found) + len(there)))
        else:
            rows.append((sum(a == b for a, b in zip(one, other, strict=True)), len(other)))
    counts = np.asarray(rows)
    drawn = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), draws) @ counts
    low, high = np.percentile(drawn[:, 0] / np.maximum(drawn[:, 1], 1), [2.5, 97.5])
    return float(low), float(high)
