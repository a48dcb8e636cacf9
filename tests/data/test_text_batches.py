"""Batches of texts: tokens, cut or not, against the tokenizer's own; batches by length, whoever draws which rows."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.data import counter
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.buckets import WINDOW
from toolkit.data.text.examples import LabelledText
from toolkit.data.text.labelled import read_table
from toolkit.errors import UserError
from toolkit.tokenization.train import read_spec, train_tokenizer


def labelled(texts: list[str], pairs: list[str] | None = None) -> LabelledText:
    """Every text has a class of its own, so that a batch's labels tell which examples it holds."""
    return LabelledText(texts, np.arange(len(texts)), tuple(map(str, range(len(texts)))), pairs)


def tokens(batches: TextBatches, row: int) -> list[int]:
    batch = batches.rows(np.asarray([row]))
    assert batch["attention_mask"].all()
    return batch["input_ids"][0].tolist()


@pytest.fixture(scope="module")
def short(texts) -> list[str]:
    """300 texts of 1 to 40 words."""
    words = " ".join(texts).split()
    lengths = np.random.default_rng(0).integers(1, 41, 300)
    return [" ".join(words[start : start + length]) for start, length in zip(np.cumsum(lengths), lengths, strict=True)]


# --- tokens -------------------------------------------------------------------------------------------------------


def test_rows_are_padded_to_the_longest_of_them(wordpiece, short):
    batches = TextBatches(labelled(short), wordpiece, 12, batch_size=8, seed=0)
    expected = wordpiece(short, truncation=True, max_length=12)["input_ids"]
    for step in range(5):
        batch = batches.batch(step, range(8))
        assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
        lengths = batch["attention_mask"].sum(1)
        assert lengths.max() == batch["input_ids"].shape[1] <= 12
        for ids, attention, length, label in zip(batch["input_ids"], batch["attention_mask"], lengths, batch["labels"],
                                                 strict=True):
            assert np.array_equal(attention, np.arange(len(ids)) < length)
            assert ids[:length].tolist() == expected[label]
            assert (ids[length:] == wordpiece.pad_token_id).all()
    rows = batches.rows(np.asarray([3, 0, 3]))
    assert rows["labels"].tolist() == [3, 0, 3]
    assert rows["input_ids"][1, : len(expected[0])].tolist() == expected[0]


def test_a_tokenizer_without_pad_token_pads_with_its_end(byte_level_bpe, short):
    batch = TextBatches(labelled(short), byte_level_bpe, 32, 8, seed=4).rows(np.arange(40))
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert (batch["input_ids"][batch["attention_mask"] == 0] == byte_level_bpe.eos_token_id).all()


@pytest.mark.parametrize("limit", [7, 8, 20, 33, 500])
def test_pairs_are_encoded_and_cut_as_the_tokenizer_does(wordpiece, short, limit):
    data = labelled(short[:60], short[60:120])
    expected = wordpiece(data.texts, data.pairs, truncation="longest_first", max_length=limit)
    batches = TextBatches(data, wordpiece, limit, 8, 0)
    batch = batches.rows(np.arange(60))
    for row, ids in enumerate(expected["input_ids"]):
        assert tokens(batches, row) == ids
        assert batch["token_type_ids"][row, : len(ids)].tolist() == expected["token_type_ids"][row]
        assert not batch["token_type_ids"][row, len(ids):].any()
    assert batches.cut == sum(len(ids) > limit for ids in wordpiece(data.texts, data.pairs)["input_ids"])


def test_between_two_texts_gpt_sees_its_end_token(byte_level_bpe, short):
    data = labelled(short[:20], short[20:40])
    alone = [byte_level_bpe(side)["input_ids"] for side in (data.texts, data.pairs)]
    batches = TextBatches(data, byte_level_bpe, 500, 8, 0)
    few = TextBatches(data, byte_level_bpe, 11, 8, 0)
    for row in range(20):
        first, second = alone[0][row], alone[1][row]
        assert tokens(batches, row) == [*first, byte_level_bpe.eos_token_id, *second]
        if min(len(first), len(second)) > 5:
            assert tokens(few, row) == [*first[:5], byte_level_bpe.eos_token_id, *second[:5]]


def test_of_long_texts_the_head_or_head_and_tail_are_read(wordpiece, short):
    body = [wordpiece(text, add_special_tokens=False)["input_ids"] for text in short]
    row = int(np.argmax([len(ids) for ids in body]))
    cls, sep, ids = wordpiece.cls_token_id, wordpiece.sep_token_id, body[row]
    assert len(ids) > 30
    data, positions = labelled(short), 21
    windows = TextBatches(data, wordpiece, 30, 8, 0, "windows", positions)
    head = TextBatches(data, wordpiece, 30, 8, 0, "head", positions)
    both = TextBatches(data, wordpiece, 30, 8, 0, "head+tail", positions)
    assert tokens(windows, row) == [cls, *ids[:28], sep]  # the model cuts it into windows
    assert tokens(head, row) == [cls, *ids[:19], sep]
    assert tokens(both, row) == [cls, *ids[:10], *ids[-9:], sep]
    assert head.cut == both.cut == sum(len(ids) > 19 for ids in body)
    assert tokens(TextBatches(data, wordpiece, 10, 8, 0, "head+tail"), row) == [cls, *ids[:4], *ids[-4:], sep]
    few = int(np.argmin([len(ids) for ids in body]))
    assert tokens(both, few) == [cls, *body[few], sep]


def test_of_long_pairs_each_text_keeps_head_and_tail(wordpiece, short):
    data = labelled([short[0] + " " + short[1]] * 2, ["river", " ".join(short[2:8])])
    ids = [[wordpiece(text, add_special_tokens=False)["input_ids"] for text in side] for side in
           (data.texts, data.pairs)]
    batches = TextBatches(data, wordpiece, 25, 8, 0, "head+tail")
    cls, sep, (river,) = wordpiece.cls_token_id, wordpiece.sep_token_id, ids[1][:1]
    room = 22 - len(river)
    first = ids[0][0]
    assert len(first) > 25
    assert tokens(batches, 0) == [cls, *first[: room - room // 2], *first[-(room // 2):], sep, *river, sep]
    second = ids[1][1]
    assert tokens(batches, 1) == [cls, *first[:6], *first[-5:], sep, *second[:6], *second[-5:], sep]


def test_too_few_tokens_for_any_text_are_refused(wordpiece, byte_level_bpe):
    with pytest.raises(UserError, match=r"data\.max_length, or the positions of the model, are 2: too few for the 2 "):
        TextBatches(labelled(["a"]), wordpiece, 2, 8, 0)
    with pytest.raises(UserError, match="too few"):
        TextBatches(labelled(["a"], ["b"]), wordpiece, 100, 8, 0, "head", positions=4)
    assert TextBatches(labelled(["a"]), byte_level_bpe, 1, 8, 0).lengths.tolist() == [1]


@pytest.mark.parametrize("task", ["multi-label", "distribution", "regression"])
def test_labels_of_every_task_are_passed_on(wordpiece, short, task):
    labels = np.random.default_rng(0).random((300,) if task == "regression" else (300, 4)).astype(np.float32)
    batches = TextBatches(LabelledText(short, labels, tuple("abcd"), None, task), wordpiece, 12, 8, 0)
    batch = batches.batch(0, range(8))
    assert batch["labels"].dtype == np.float32 and batch["labels"].shape == (8, *labels.shape[1:])
    index = np.asarray([7, 2])
    assert np.array_equal(batches.rows(index)["labels"], labels[index])


# --- by length ----------------------------------------------------------------------------------------------------


def examples(batches: TextBatches, steps) -> np.ndarray:
    return np.stack([batches.batch(step, range(batches.buckets.batch_size))["labels"] for step in steps])


@pytest.fixture(scope="module")
def make(wordpiece, short):
    def batches(size: int, batch_size: int, seed: int) -> TextBatches:
        return TextBatches(labelled(short[:size]), wordpiece, 64, batch_size, seed)

    return batches


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 300), batch_size=st.integers(1, 40), seed=st.integers(0, 5), start=st.integers(0, 90),
       cut=st.integers(0, 40))
def test_a_batch_is_a_function_of_seed_and_step(make, size, batch_size, seed, start, cut):
    whole, other = make(size, batch_size, seed), make(size, batch_size, seed)
    forward = examples(whole, range(start, start + 6))
    # From any step, in any order, and however the rows are shared out.
    assert np.array_equal(examples(other, reversed(range(start, start + 6)))[::-1], forward)
    parts = [other.batch(start, rows)["labels"] for rows in (range(min(cut, batch_size)), range(cut, batch_size))
             if len(rows)]
    assert np.array_equal(np.concatenate(parts), forward[0])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 300), batch_size=st.integers(1, 40), seed=st.integers(0, 5), number=st.integers(0, 9))
def test_a_window_holds_what_it_would_without_sorting(make, size, batch_size, seed, number):
    batches = make(size, batch_size, seed)
    first = number * batches.buckets.window
    found = examples(batches, range(first, first + batches.buckets.window)).ravel()
    index = first * batch_size + np.arange(len(found))
    assert sorted(found) == sorted(counter.epoch_order(seed, index, size)[1])


def test_every_example_comes_once_an_epoch(make):
    for size, batch_size in ((300, 4), (300, 25), (240, 8), (256, 1)):
        batches = make(size, batch_size, 0)
        assert batches.buckets.window == min(size // (4 * batch_size), WINDOW)
        epoch = examples(batches, range(size // batch_size))
        windows, rest = divmod(size, batches.buckets.window * batch_size)
        whole = epoch.ravel()[: windows * batches.buckets.window * batch_size]
        assert len(set(whole)) == len(whole)
        if not rest:
            assert sorted(whole) == list(range(size))


def test_no_example_is_in_a_batch_twice_because_it_is_as_long_as_itself(make):
    batches = make(70, 4, 0)  # windows of 16 examples: most epochs end inside one
    repeated = [len(set(chosen)) < 4 for chosen in examples(batches, range(400))]
    # Only across the end of an epoch, and there by chance: 22 ends, at most one batch each.
    assert sum(repeated) < 8


def test_batches_are_of_like_lengths_in_a_random_order_and_differ_by_epoch_and_seed(make):
    batches = make(300, 8, 0)
    assert batches.buckets.window == 9
    lengths = batches.lengths[examples(batches, range(0, 27))]
    assert (lengths[:, -1] - lengths[:, 0]).mean() < 6 < np.ptp(batches.lengths)
    means = lengths[:9].mean(1)
    assert sorted(means) != means.tolist() and np.ptp(means) > 10
    assert not np.array_equal(examples(batches, range(9)), examples(make(300, 8, 1), range(9)))
    sets = [{frozenset(batch) for batch in examples(batches, range(start, start + 36))} for start in (0, 36)]
    assert len(sets[0] & sets[1]) <= 1


def test_all_examples_can_be_walked_by_length(make):
    batches = make(300, 8, 0)
    assert sorted(batches.by_length) == list(range(300))
    assert (np.diff(batches.lengths[batches.by_length]) >= 0).all()


# --- real data ----------------------------------------------------------------------------------------------------


def padding(batches) -> float:
    """Padded positions for each token."""
    shapes = [(batch["input_ids"].size, batch["attention_mask"].sum()) for batch in batches]
    return sum(size for size, _ in shapes) / sum(real for _, real in shapes) - 1


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["sst2", "trec"])
def test_batches_by_length_are_hardly_padded(shared_data, repository, name):
    data = read_table(shared_data / name / "train.tsv")
    spec = read_spec(repository / "tokenizers/wordpiece-8k.yaml")
    spec.vocab_size = 4000
    batches = TextBatches(data, train_tokenizer(spec, data.texts, progress=False), 256, 32, seed=0)
    steps = len(data) // 32
    unsorted = counter.epoch_order(0, np.arange(steps * 32), len(data))[1].reshape(steps, 32)
    before = padding(map(batches.rows, unsorted))
    after = padding(batches.batch(step, range(32)) for step in range(steps))
    chunks = np.array_split(np.arange(len(data)), len(data) // 64)
    in_order, by_length = padding(map(batches.rows, chunks)), padding(batches.rows(batches.by_length[chunk])
                                                                      for chunk in chunks)
    print(f"\n{name}, padding for each token: trained {before:.3f} → {after:.3f}, evaluated {in_order:.3f} → "
          f"{by_length:.3f}")
    assert before > 10 * after and in_order > 20 * by_length
