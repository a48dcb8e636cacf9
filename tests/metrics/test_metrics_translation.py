"""BLEU and chrF against sacrebleu itself, character errors against the textbook's table."""

import random

import pytest
import sacrebleu

from toolkit import metrics
from toolkit.metrics.translation import edit_distance

WORDS = "the cat dog sat on a mat , . runs Big — naïve 猫".split()


def sentences(seed: int, count: int = 40) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(1, 12))) for _ in range(count)]


def in_batches(name: str, predictions: list[str], references: list[str], **settings) -> dict:
    metric = metrics.load(name, **settings)
    for start in range(0, len(references), 7):
        metric.add_batch(predictions=predictions[start:start + 7], references=references[start:start + 7])
    return metric.compute()


def test_bleu_and_chrf_are_sacrebleus_however_they_are_added():
    predictions, references = sentences(1), sentences(2)
    found = in_batches("bleu", predictions, references)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(predictions, [references]).score)
    assert found["bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert in_batches("chrf", predictions, references)["chrf"] == pytest.approx(
        sacrebleu.corpus_chrf(predictions, [references]).score)


def test_lower_case_is_another_bleu_and_says_so():
    found = in_batches("bleu", ["The CAT sat on the mat"], ["the cat sat on the mat"], lowercase=True)
    assert found["bleu"] == pytest.approx(100) and "case:lc" in found["bleu_signature"]
    assert in_batches("bleu", ["The CAT sat on the mat"], ["the cat sat on the mat"])["bleu"] < 60


def test_states_of_processes_are_merged():
    predictions, references = sentences(3), sentences(4)
    for name in ("bleu", "chrf", "exact_match", "character_error_rate"):
        parts = []
        for part in (slice(0, 11), slice(11, None)):
            metric = metrics.load(name)
            metric.add_batch(predictions=predictions[part], references=references[part])
            parts.append(metric.state())
        assert metrics.load(name).merge(parts).compute() == in_batches(name, predictions, references)


def table(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def test_character_errors_are_the_textbooks():
    for one, other in [*zip(sentences(5), sentences(6), strict=True), ("", "abc"), ("abc", ""), ("", "")]:
        assert edit_distance(one, other) == table(one, other)
    found = metrics.load("character_error_rate").compute(predictions=["kitten"], references=["sitting"])
    assert found == {"character_error_rate": 3 / 7}


@pytest.mark.parametrize("name", ["bleu", "chrf", "exact_match", "character_error_rate"])
def test_what_is_no_text_is_refused(name):
    for predictions, references in ((["a"], ["a", "b"]), ([1], ["a"]), ("a", ["a"]), (None, ["a"])):
        with pytest.raises(ValueError, match=name):
            metrics.load(name).compute(predictions=predictions, references=references)
