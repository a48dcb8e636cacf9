"""Scores of answers by the length of the source: which metric, which groups, how sure."""

import numpy as np
import pytest

from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.metrics.translation import bleu_interval
from toolkit.tasks.seq2seq import by_length, scores, telling_metric


def test_what_is_counted_follows_the_references():
    assert telling_metric(["2018-03-04", "seven men", "a b c d e"]) == "exact_match"
    assert telling_metric(["a man is asleep .", "two dogs run in snow", "yes"]) == "bleu"


def test_sources_of_one_length_are_in_one_group():
    sources = ["x" * length for length in [3] * 4 + [1, 2, 4, 5, 6, 7]]
    groups = by_length(TextPairs(sources, sources, [""] * 10), [*sources[:5], *["wrong"] * 5])
    assert [(group["shortest"], group["longest"], group["pairs"]) for group in groups] == [
        (1, 2, 2), (3, 3, 4), (4, 5, 2), (6, 7, 2)]
    assert [group["value"] for group in groups] == [0.5, 1.0, 0.0, 0.0]
    assert groups[1]["low"] == pytest.approx(0.5101, abs=1e-4) and groups[1]["high"] == 1.0  # Wilson, 4 of 4


def test_one_length_is_one_group():
    pairs = TextPairs(["a man is very old"] * 6, ["ein Mann ist sehr alt"] * 6, [""] * 6)
    assert [(group["pairs"], round(group["value"], 6)) for group in by_length(pairs, pairs.targets)] == [(6, 100.0)]


def test_other_test_pairs_would_move_bleu_so_far():
    """Around the score of all; narrower of more pairs; of answers that are all right there is nothing to move."""
    random = np.random.default_rng(0)
    words = np.array(["the", "old", "red", "dog", "runs", "far", "away", "home"])
    references = [" ".join(random.choice(words, 8)) for _ in range(200)]
    answers = [text if number % 3 else " ".join(random.permutation(text.split()))
               for number, text in enumerate(references)]
    few, many = (bleu_interval(answers[:count], references[:count]) for count in (20, 200))
    assert few[1] - few[0] > 2 * (many[1] - many[0])
    assert many[0] < scores(answers, references)["bleu"] < many[1]
    assert bleu_interval(references, references) == pytest.approx((100, 100))
