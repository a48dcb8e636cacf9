"""What an answer is without a word is the answer to the text without it; every word lies in one part, within bounds."""

import re

import askable
import pytest
from checkpoints import checkpoints  # noqa: F401 - a fixture

from toolkit.analysis import occlusion
from toolkit.analysis.occlusion import words_left_out
from toolkit.inference.text_answers import answer_texts


@pytest.fixture(scope="module")
def model(checkpoints, wordpiece, tmp_path_factory):  # noqa: F811
    place = tmp_path_factory.mktemp("occluded")
    return {pairs: askable.classifier(place / str(pairs), checkpoints["bert"], wordpiece, pairs)
            for pairs in (False, True)}


def test_each_word_is_left_out_by_itself(model):
    answer, found = words_left_out(model[False], "the sea\nand the river")
    assert found.column == f"p({answer['label'][0]})" and found.whole == answer[found.column][0]
    assert [(part.start, part.end) for part in found.parts] == [(0, 3), (4, 7), (8, 11), (12, 15), (16, 21)]
    without = ["sea\nand the river", "the and the river", "the sea\nthe river", "the sea\nand river",
               "the sea\nand the"]
    wanted = answer_texts(model[False], without)[found.column]
    assert [part.without for part in found.parts] == pytest.approx(list(wanted), abs=1e-6)
    assert max(abs(part.without - found.whole) for part in found.parts) > 1e-3


def test_of_a_pair_the_words_of_both_are_left_out(model):
    _, found = words_left_out(model[True], "the sea", "a river")
    wanted = answer_texts(model[True], ["sea", "the", "the sea", "the sea"], ["a river", "a river", "river", "a"])
    assert [part.second for part in found.parts] == [False, False, True, True]
    assert [part.without for part in found.parts] == pytest.approx(list(wanted[found.column]), abs=1e-6)


@pytest.mark.parametrize(("text", "words"), [("sea " * 500, 500), ("word", 1), ("海とriver", 3)])
def test_every_word_lies_in_one_part_and_parts_are_few(model, monkeypatch, text, words):
    asked = []
    monkeypatch.setattr(occlusion, "answer_texts", lambda *given: asked.append(len(given[1])) or answer_texts(*given))
    _, found = words_left_out(model[False], text)
    assert sum(asked) <= occlusion.MOST_ASKED + 1
    assert found.together == -(-words // min(words, 48 if words == 500 else 96))
    covered = "".join(text[part.start:part.end] for part in found.parts)
    assert re.sub(r"\s", "", covered) == re.sub(r"\s", "", text)
    assert all(one.end <= other.start for one, other in zip(found.parts, found.parts[1:], strict=False))
