"""Spans and their scores, held against seqeval, and against counting by hand."""

import random

import numpy as np
import pytest

from toolkit.metrics import load
from toolkit.metrics.tagging import (
    Span,
    SpanF1,
    as_bio,
    as_bioes,
    marks_spans,
    scheme_of,
    spans_of,
    tag_interval,
    tag_scores,
    unopened,
)

BIO = ["O", "B-a", "I-a", "B-b", "I-b"]
EVERY = [*BIO, "E-a", "S-a", "E-b", "S-b"]


def drawn(tags: list[str], sentences: int = 200, seed: int = 0) -> list[list[str]]:
    draw = random.Random(seed)
    return [draw.choices(tags, k=draw.randrange(1, 12)) for _ in range(sentences)]


@pytest.mark.parametrize("tags", [BIO, EVERY])
def test_spans_are_seqevals(tags):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    for sentence in drawn(tags):
        expected = [(start, stop + 1, kind) for kind, start, stop in seqeval.get_entities(sentence)]
        assert [tuple(span) for span in spans_of(sentence)] == expected, sentence


def test_scores_are_seqevals():
    metrics = pytest.importorskip("seqeval.metrics")
    one, other = drawn(BIO, seed=1), drawn(BIO, seed=1)
    for tags in one[::2]:
        tags[0] = "O"
    found = load("span_f1").compute(predictions=one, references=other)
    for name in ("precision", "recall", "f1"):
        assert found[name] == pytest.approx(getattr(metrics, f"{name}_score")(other, one))
    report = metrics.classification_report(other, one, output_dict=True)
    for kind, scores in found["by_kind"].items():
        assert scores["f1"] == pytest.approx(report[kind]["f1-score"]) and scores["spans"] == report[kind]["support"]


def test_scores_by_hand():
    references = [["B-a", "I-a", "O"], ["O", "B-b"], ["B-b", "O"]]
    predictions = [["B-a", "I-a", "O"], ["O", "B-a"], ["B-b", "I-b"]]
    words = [["New", "York", "is"], ["in", "May"], ["May", "day"]]
    found = tag_scores(words, predictions, references, spans=True)
    assert found["accuracy"] == 5 / 7 and found["exact_match"] == 1 / 3
    assert (found["precision"], found["recall"], found["f1"]) == (1 / 3, 1 / 3, 1 / 3)
    assert found["by_kind"]["a"] == {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "spans": 1}
    # Names: {New York a, May a, May day b} beside {New York a, May b}: May, however often it comes, is one.
    assert found["surface_f1"] == pytest.approx(2 * 1 / (3 + 2))
    assert "f1" not in tag_scores(words, predictions, references, spans=False)


def test_parts_gathered_elsewhere_are_one():
    one, other = drawn(BIO, 40, seed=1), drawn(BIO, 40, seed=2)
    one = [(tags * 12)[:len(wanted)] for tags, wanted in zip(one, other, strict=True)]
    states = []
    for start in (0, 10):
        part = SpanF1()
        part.add_batch(predictions=one[start:start + 10], references=other[start:start + 10])
        states.append(part.state())
    assert SpanF1().merge(states).compute() == SpanF1().compute(predictions=one[:20], references=other[:20])


@pytest.mark.parametrize(("predictions", "references", "words"), [
    ([["O"]], [["O", "O"]], "1 tags for the 2 words of sentence 0"), ([["O"]], [], "expected as many sentences"),
    (["O"], ["O"], "expected a list with one a word")])
def test_inputs_that_do_not_fit_are_refused(predictions, references, words):
    with pytest.raises(ValueError, match=words):
        SpanF1().compute(predictions=predictions, references=references)


def test_there_and_back():
    for tags in drawn(BIO):
        spans = spans_of(tags)
        assert spans_of(as_bio(spans, len(tags))) == spans == spans_of(as_bioes(spans, len(tags)))
        assert not unopened(as_bio(spans, len(tags)))
    assert as_bioes([Span(0, 1, "a"), Span(1, 4, "b")], 5) == ["S-a", "B-b", "I-b", "E-b", "O"]


@pytest.mark.parametrize(("tags", "scheme"), [
    (["B-a", "I-a", "B-a", "O"], "bio"), (["I-a", "I-a", "B-a", "O"], "iob1"), (["I-a", "I-b", "O"], "iob1"),
    (["B-a", "E-a", "S-b", "O"], "bioes"), (["B-a", "L-a", "U-b"], "bioes"), (["NOUN", "O"], ""), (["O", "O"], ""),
    (["B-", "O"], "")])
def test_the_scheme_is_found(tags, scheme):
    assert scheme_of([tags]).scheme == scheme and marks_spans(tags) == bool(scheme)


def test_what_breaks_a_scheme_is_counted():
    mixed = [["B-a", "I-a", "O", "I-b", "I-b"], ["O", "B-b"]]
    assert scheme_of(mixed) == ("bio", 3, 1, 0)
    assert scheme_of([["B-a", "I-a", "O", "I-b", "E-b", "S-a"]]) == ("bioes", 3, 1, 1)


def test_the_interval_covers_where_sentences_are_drawn_from():
    """Of a tagger that is right in four of five spans, independently: 19 of 20 intervals hold the share."""
    draw, inside = np.random.default_rng(0), 0
    for _ in range(100):
        right = draw.random(150) < 0.8
        low, high = tag_interval([["B-a" if hit else "B-b"] for hit in right], [["B-a"]] * 150, spans=True, draws=300)
        inside += low <= 0.8 <= high
    assert 88 <= inside <= 100
