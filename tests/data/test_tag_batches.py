"""Words as pieces, long sentences as windows: each word is answered once, and its label stands where it is answered."""

import random
from collections import Counter

import numpy as np
import pytest

from toolkit.data.batches import IGNORED
from toolkit.data.tags.batches import TagBatches, pieces_of, special_tokens, windows_of
from toolkit.data.tags.python_source import PARTS, python_lines, tagged_lines
from toolkit.data.tags.tagged import TaggedSentences, joined
from toolkit.errors import UserError
from toolkit.tokenization.train import read_spec, train_tokenizer

SENTENCES = [["Anna", "Karenina", "left", "Moscow", "."], ["all", "happy", "families", "resemble", "one", "another"],
             ["“", "naïve", "”", "東京", "x"], ["a"]]
TAGS = ["O", "B-a", "I-a"]


def tagged(sentences=SENTENCES, seed: int = 0) -> TaggedSentences:
    draw = random.Random(seed)
    rows = [(*joined(words), [draw.choice(TAGS) for _ in words], f"line {number}")
            for number, words in enumerate(sentences)]
    return TaggedSentences(*([row[part] for row in rows] for part in range(4)))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    texts = [" ".join(words) for words in SENTENCES] * 4
    found, folder = {}, tmp_path_factory.mktemp("specs")
    for name, size in (("wordpiece", 60), ("byte-level-bpe", 270), ("bpe", 60), ("character", 60), ("byte", None)):
        spec = folder / f"{name}.yaml"
        spec.write_text(f"algorithm: {name}\nmodel_max_length: 64\n" + (f"vocab_size: {size}\n" if size else ""))
        found[name] = train_tokenizer(read_spec(spec), texts, name, False)
        if found[name].pad_token is None:
            found[name].pad_token = found[name].eos_token
    return found


@pytest.fixture(params=["wordpiece", "byte-level-bpe", "bpe", "character", "byte"])
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


def test_the_pieces_of_words_are_those_of_the_text(tokenizer):
    sentences = tagged()
    whole = tokenizer(sentences.texts, add_special_tokens=False)["input_ids"]
    for ids, words in zip(whole, pieces_of(sentences, tokenizer), strict=True):
        assert [piece for word in words for piece in word] == ids and all(words)


def test_pieces_stand_with_their_word(tokenizers):
    words = next(pieces_of(tagged([["Moscow", "left", "Anna"]]), tokenizers["byte-level-bpe"]))
    assert [tokenizers["byte-level-bpe"].decode(ids).strip() for ids in words] == ["Moscow", "left", "Anna"]


@pytest.mark.parametrize("labelled", ["first", "last", "all"])
def test_labels_stand_where_words_are_answered(tokenizer, labelled):
    sentences = tagged()
    batches = TagBatches(sentences, tokenizer, TAGS, 64, 4, 0, labelled)
    batch = batches.rows(np.arange(len(sentences)))
    before, behind = special_tokens(tokenizer)
    for number, tags in enumerate(sentences.tags):
        row = batch["labels"][number]
        places = batches.answering(number)
        assert [word for _, word in places] == list(range(len(tags)))
        assert [TAGS[row[at]] for at, _ in places] == tags
        carrying = (row != IGNORED).sum()
        pieces = batches.lengths[number] - len(before) - len(behind)
        assert carrying == (pieces if labelled == "all" else len(tags))
        assert batch["attention_mask"][number].sum() == batches.lengths[number]
    if labelled == "all":
        inside = Counter(batch["labels"][batch["labels"] != IGNORED].tolist())
        begun = sum(tags.count("B-a") for tags in sentences.tags)
        assert inside[TAGS.index("B-a")] == begun, "a word that begins a span goes on with its inside"


def test_every_word_of_a_long_sentence_is_answered_once_and_seen_from_both_sides(tokenizers):
    draw = random.Random(3)
    long = [draw.choice([word for words in SENTENCES for word in words]) for _ in range(300)]
    batches = TagBatches(tagged([long, ["a"]]), tokenizers["wordpiece"], TAGS, 64, 4, 0)
    assert batches.cut == 1 and max(batches.lengths) <= 64 and len(batches.windows) > 15
    answered = [word for number, window in enumerate(batches.windows) if window.sentence == 0
                for _, word in batches.answering(number)]
    assert answered == list(range(300))
    for one, other in zip(batches.windows, batches.windows[1:-1], strict=False):
        assert other.first < one.last, "windows overlap"
        assert one.answer_last < one.last and other.answer_first > other.first, "each answers its own half of that"
    assert list(batches.notes("train"))[0].startswith("train: 1 of 2 sentences are longer than the model reads")


@pytest.mark.parametrize("seed", range(200))
def test_windows_hold_whatever_the_words(seed):
    draw = random.Random(seed)
    room = draw.randrange(8, 40)
    lengths = [draw.randrange(1, room + 1) if draw.random() < 0.2 else draw.randrange(1, 4)
               for _ in range(draw.randrange(1, 120))]
    answered = []
    for window in windows_of(0, lengths, room):
        assert sum(lengths[window.first:window.last]) <= room
        assert window.first <= window.answer_first <= window.answer_last <= window.last
        answered += range(window.answer_first, window.answer_last)
    assert answered == list(range(len(lengths)))


def test_odd_words(tokenizers):
    batches = TagBatches(tagged([["x" * 200, "left"]]), tokenizers["byte"], TAGS, 32, 4, 0)
    assert batches.shortened == 1 and max(batches.lengths) <= 32
    assert "1 words are longer than the model reads" in " ".join(batches.notes("test"))
    batches = TagBatches(tagged([["a", "\u200b", "left"]]), tokenizers["wordpiece"], TAGS, 32, 4, 0)
    assert batches.unread == 1 and "makes nothing of 1 words" in " ".join(batches.notes("test"))
    assert [word for _, word in batches.answering(0)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"data.max_length.* are 6: too few for a sentence"):
        TagBatches(tagged(), tokenizers["wordpiece"], TAGS, 6, 4, 0)


def test_tags_that_training_never_showed_are_not_learned(tokenizers):
    batches = TagBatches(tagged(), tokenizers["wordpiece"], ["O"], 32, 4, 0)
    labels = batches.rows(np.arange(4))["labels"]
    assert set(labels[labels != IGNORED].tolist()) == {0}


def test_batches_of_an_epoch_hold_every_window_once(tokenizers):
    batches = TagBatches(tagged(SENTENCES * 8), tokenizers["wordpiece"], TAGS, 32, 8, 0)
    seen = [row.tobytes() for step in range(4) for row in batches.batch(step, range(8))["input_ids"]]
    assert len(seen) == 32 and batches.drawn_by(1, 4).batch(0, range(4))["input_ids"].shape[0] == 4


# --- the built-in set ----------------------------------------------------------------------------------------------


def test_names_of_source_are_told_by_what_stands_around_them():
    source = (b"class Foo(Base):\n    @deco\n    def bar(self, x=1):\n        # note\n"
              b"        return self.z.call(x, y=np.pi)\n\ndef bar(q):\n    pass\nimport os.path as p\n")
    found = {(number, word): tag for number, words, tags in tagged_lines(source)
             for word, tag in zip(words, tags, strict=True)}
    expected = {(1, "foo"): "class", (1, "base"): "name", (3, "bar"): "method", (3, "self"): "argument",
                (3, "1"): "number", (4, "# note"): "comment", (5, "return"): "keyword", (5, "z"): "attribute",
                (5, "call"): "method", (5, "x"): "name", (5, "y"): "argument", (5, "np"): "name",
                (7, "bar"): "function", (7, "q"): "argument", (9, "os"): "module", (9, "p"): "module"}
    assert {key: found[key] for key in expected} == expected
    assert not list(tagged_lines(b"def (:\n")) and not list(tagged_lines(b"\xff\xfe"))


def test_columns_behind_letters_of_several_bytes():
    ((_, words, tags),) = tagged_lines('é = f("é", key=1)\n'.encode())
    assert dict(zip(words, tags, strict=True))["key"] == "argument"


def test_the_built_in_set_is_of_packages_that_are_in_one_part_alone():
    assert len({name for names in PARTS.values() for name in names}) == sum(map(len, PARTS.values()))
    lines = python_lines("validation", 200)
    assert len(lines) == 200 == len({tuple(words) for words in lines.words})
    assert all(place.startswith(("pandas", "accelerate")) for place in lines.places)
    assert {"class", "method", "function", "argument", "attribute", "name", "keyword", "string"} <= set(lines.kinds())
    assert python_lines("validation", 200).words == lines.words
