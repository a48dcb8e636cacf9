"""BERT's batches, on stores in which every token tells its place, so that each row can be read back exactly."""

import random
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_pairs import create_instances
from scipy import stats

from toolkit.data.batches import IGNORED
from toolkit.data.stores.bert_batches import BertBatches, MaskingConfig, unigram_entropy
from toolkit.errors import UserError

PAD, CLS, SEP, MASK, FIRST = 0, 2, 3, 4, 5


def long_documents(documents: int = 40, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(3, 40, random.integers(40, 80)).tolist() for _ in range(documents)]


def mixed_documents(documents: int = 300, seed: int = 1) -> list[list[int]]:
    """From a single sentence of two tokens to forty sentences."""
    random = np.random.default_rng(seed)
    sizes = np.where(random.random(documents) < 0.1, 1, random.geometric(0.12, documents)).clip(1, 40)
    return [random.integers(2, 20, size).tolist() for size in sizes]


@dataclass
class Rows:
    """A batch with the masks taken off: where A and B lie in the store, and what was done to which token."""

    label: np.ndarray
    a: np.ndarray  # (b, 2) from, to
    b: np.ndarray
    length: np.ndarray
    labels: np.ndarray  # (predicted,) what stood there
    fates: np.ndarray  # (predicted,) what stands there
    ordinary: int


def read_back(store, batch: dict[str, np.ndarray], length: int) -> Rows:
    """Check everything that must hold of each row, one by one, and return what is left to be counted."""
    count = len(batch["input_ids"])
    for name, dtype in (("input_ids", np.int32), ("token_type_ids", bool), ("attention_mask", bool)):
        assert batch[name].shape == (count, length)
        assert batch[name].dtype == dtype
    used = batch["masked_labels"] != IGNORED
    row, column = np.nonzero(used)[0], batch["masked_positions"][used]
    labels, fates = batch["masked_labels"][used], batch["input_ids"][row, column]
    assert len(np.unique(row * length + column)) == len(row), "a position was chosen twice"
    original = batch["input_ids"].copy()
    original[row, column] = labels
    spans_a, spans_b, lengths = [], [], []
    for ids, types, attention in zip(original, batch["token_type_ids"], batch["attention_mask"], strict=True):
        assert ids[0] == CLS
        seps = np.flatnonzero(ids == SEP)
        a, b = ids[1:seps[0]] - FIRST, ids[seps[0] + 1:seps[-1]] - FIRST
        assert len(a), "A is empty"
        assert len(seps) == 2 or may_be_alone(store, a[0], a[-1], length - 3)
        assert len(b) == 0 if len(seps) == 1 else len(b), "B is empty"
        for part in (a, b) if len(b) else (a,):  # running text of the store, every label the token that stood there
            assert np.array_equal(part, np.arange(part[0], part[0] + len(part)))
            assert 0 <= part[0]
            assert part[-1] < store.num_tokens
        end = seps[-1] + 1
        assert (ids[end:] == PAD).all()
        assert np.array_equal(attention, np.arange(length) < end)
        assert np.array_equal(types, (np.arange(length) > seps[0]) & (np.arange(length) < end))
        spans_a.append((a[0], a[-1] + 1))
        spans_b.append((b[0], b[-1] + 1) if len(b) else (a[-1] + 1, a[-1] + 1))
        lengths.append(end)
    rows = Rows(batch["next_sentence_label"], np.asarray(spans_a), np.asarray(spans_b), np.asarray(lengths), labels,
                fates, int((original >= FIRST).sum()))

    def document(token):
        return np.searchsorted(store.document_tokens(), token, "right") - 1

    assert set(rows.label.tolist()) <= {0, 1}
    paired = rows.b[:, 0] < rows.b[:, 1]
    a, b, negative = rows.a[paired], rows.b[paired], rows.label[paired] == 1
    assert not rows.label[~paired].any()
    assert np.isin(b[:, 0], store.sentence_offsets).all(), "B starts within a sentence"
    for span in (a, b):
        assert np.array_equal(document(span[:, 0]), document(span[:, 1] - 1)), "a segment runs into another document"
    same = document(a[:, 0]) == document(b[:, 0])
    assert not same[negative].any(), "a wrong continuation from the same document"
    assert np.array_equal(b[~negative, 0], a[~negative, 1]), "a true continuation that does not continue"
    assert np.isin(a[:, 1], store.sentence_offsets).all(), "A ends within a sentence"
    return rows


def may_be_alone(store, first: int, last: int, window: int) -> bool:
    """Whether tokens are all of a document of one sentence, or lie in a sentence longer than a row, or after one."""
    bounds = store.document_tokens()
    sentence, document = (np.searchsorted(offsets, first, "right") - 1 for offsets in (store.sentence_offsets, bounds))
    opens, closes = store.sentence_offsets[sentence:sentence + 2]
    single = (opens, closes) == tuple(bounds[document:document + 2])
    before = np.diff(store.sentence_offsets)[:sentence + 1].max()
    return last < closes and last + 1 - first == min(closes - opens, window) and (single or before > window)


def rows_of(store, tokenizer, config: MaskingConfig, batches: int, batch_size: int = 256, seed: int = 0) -> list[Rows]:
    source = BertBatches(store, tokenizer, config, batch_size, seed)
    return [read_back(store, source.batch(step, range(batch_size)), config.max_seq_length) for step in range(batches)]


def masking(max_seq_length: int, mlm_probability: float = 0.15, *more, **settings) -> MaskingConfig:
    """With the paper's share of predicted tokens."""
    return MaskingConfig(max_seq_length, mlm_probability, *more, **settings)


def within_sampling_error(hits: float, trials: int, share: float) -> bool:
    return abs(hits - trials * share) < 4.5 * np.sqrt(trials * share * (1 - share))


@pytest.mark.parametrize(("length", "batches"), [(32, 20), (64, 10), (128, 6)])
def test_15_percent_are_chosen_and_80_10_10_happens_to_them(position_store, length, batches):
    """Over 100,000 tokens. `read_back` has held every label against the token that stood there."""
    store, tokenizer = position_store(long_documents())
    rows = rows_of(store, tokenizer, masking(length), batches)
    tokens = sum(part.ordinary for part in rows)
    labels, fates = (np.concatenate([getattr(part, name) for part in rows]) for name in ("labels", "fates"))
    assert tokens >= 100_000
    assert (labels >= FIRST).all(), "a special token was chosen"
    masked, kept = fates == MASK, fates == labels
    replaced = ~masked & ~kept
    assert within_sampling_error(masked.sum(), len(labels), 0.8)
    assert within_sampling_error(kept.sum(), len(labels), 0.1)
    assert within_sampling_error(replaced.sum(), len(labels), 0.1)
    assert (fates[replaced] >= FIRST).all(), "a special token as random replacement"
    bins = np.histogram(fates[replaced], 20, (FIRST, len(tokenizer)))[0]
    assert stats.chisquare(bins).pvalue > 1e-4
    assert within_sampling_error(len(labels), tokens, 0.15), f"{len(labels) / tokens:.4f} of the tokens are chosen"


def test_every_place_in_a_row_is_chosen_equally_often_and_independently_of_the_row(position_store):
    store, tokenizer = position_store(long_documents())
    source = BertBatches(store, tokenizer, masking(64), 4096, 0)
    batch = source.batch(3, range(4096))
    columns = batch["masked_positions"][batch["masked_labels"] != IGNORED]
    counts = np.bincount(columns, minlength=64)
    assert counts[0] == counts[63] == 0
    counts = counts[1:40] / (batch["masked_labels"] != IGNORED).sum()
    assert counts.max() / counts.min() < 1.35


def test_no_wrong_continuation_shares_a_document_and_half_are_wrong(position_store):
    """`read_back` has checked each pair: documents differ, or B begins with the sentence right after A's end."""
    store, tokenizer = position_store(long_documents(documents=5))  # chance alone would share one in five
    rows = rows_of(store, tokenizer, masking(64), batches=20)
    labels = np.concatenate([part.label for part in rows])
    assert within_sampling_error(labels.sum(), len(labels), 0.5)
    starts = np.concatenate([part.b[part.label == 1, 0] for part in rows])
    hits = np.bincount(np.searchsorted(store.document_tokens(), starts, "right") - 1, minlength=5)
    share = np.diff(store.document_tokens()) / store.num_tokens
    assert (np.abs(hits / hits.sum() - share) < 0.05).all(), "wrong continuations do not come from everywhere"


def test_rows_are_filled_when_documents_are_long(position_store):
    store, tokenizer = position_store(long_documents())
    for rows in rows_of(store, tokenizer, masking(128), batches=4):
        assert (rows.length == 128).all()


@pytest.mark.parametrize("lengths", ["long", "mixed", "short"])
def test_the_geometry_does_not_tell_the_label(position_store, lengths):
    """Were lengths or padding different for wrong continuations, a model could score without reading."""
    documents = {"long": long_documents(), "mixed": mixed_documents(),
                 "short": [[4, 3], [6, 2, 3], [5] * 12, [9, 9]] * 50}[lengths]
    store, tokenizer = position_store(documents)
    rows = rows_of(store, tokenizer, masking(128), batches=20)
    label = np.concatenate([part.label for part in rows])
    for name, measured in {
        "length of A": np.concatenate([np.diff(part.a)[:, 0] for part in rows]),
        "length of B": np.concatenate([np.diff(part.b)[:, 0] for part in rows]),
        "padding": np.concatenate([128 - part.length for part in rows]),
    }.items():
        test = stats.ks_2samp(measured[label == 0], measured[label == 1])
        assert test.pvalue > 1e-4, f"{name} tells the label: they differ by {test.statistic:.3f}"


@pytest.mark.parametrize("earlier", [True, False])
def test_documents_of_a_single_sentence_are_no_a_of_a_pair(position_store, earlier):
    """With next-sentence prediction, and in runs that an earlier version began without it: the text says so."""
    documents = [[7], [4, 6, 5], [30], [2], [8, 3], [50], [1]] * 20
    store, tokenizer = position_store(documents)
    config = masking(32, next_sentence_prediction=not earlier)
    source = BertBatches(store, tokenizer, config, 256, 0, pairs_alone=earlier)
    sizes = np.diff(store.document_offsets)
    for step in range(5):
        rows = read_back(store, source.batch(step, range(256)), 32)
        document = np.searchsorted(store.document_tokens(), rows.a[:, 0], "right") - 1
        assert (sizes[document] > 1).all()
        assert rows.label.any() != earlier
    assert source.left_out().startswith("100 of 140 documents (77.6% of the tokens) are a single sentence")


def test_without_next_sentences_every_document_is_drawn_in_proportion_to_its_tokens(position_store):
    documents = [[7], [4, 6, 5], [30], [2], [8, 3], [50], [1], [9, 200, 9]] * 20
    store, tokenizer = position_store(documents)
    source = BertBatches(store, tokenizer, masking(32, next_sentence_prediction=False), 256, 0)
    assert source.left_out() == ""
    starts, drawn = [], np.zeros(store.num_tokens, int)
    for step in range(60):
        rows = read_back(store, source.batch(step, range(256)), 32)
        starts.append(rows.a[:, 0])
        for first, last in zip(rows.a[:, 0], rows.b[:, 1], strict=True):
            drawn[first:last] += 1
    document = np.searchsorted(store.document_tokens(), np.concatenate(starts), "right") - 1
    found = np.bincount(document % 8, minlength=8) / len(document)  # of each of the eight kinds
    expected = np.asarray([sum(sentences) for sentences in documents[:8]]) / sum(map(sum, documents[:8]))
    assert found == pytest.approx(expected, abs=0.02)
    assert (drawn > 0).all(), "the middle of a long sentence, too"


def test_one_document_and_single_sentences_are_enough_without_next_sentences(position_store):
    for documents in ([[3, 4, 5]], [[3], [4]], [[100]]):
        store, tokenizer = position_store(documents)
        source = BertBatches(store, tokenizer, masking(32, next_sentence_prediction=False), 8, 0)
        for step in range(10):
            read_back(store, source.batch(step, range(8)), 32)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=6), min_size=2, max_size=6),
    st.integers(8, 48), st.integers(0, 2**31), st.integers(0, 10**6), st.floats(0.05, 0.9), st.booleans(),
)
def test_any_store_gives_right_rows(position_store, documents, length, seed, step, probability, prediction):
    if max(map(len, documents)) < 2:
        documents[0].append(3)
    store, tokenizer = position_store(documents)
    config = masking(length, probability, prediction)
    source = BertBatches(store, tokenizer, config, 16, seed)
    read_back(store, source.batch(step, range(16)), length)


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_batch_is_a_pure_function_of_step_and_rows(position_store):
    store, tokenizer = position_store(mixed_documents())
    source = BertBatches(store, tokenizer, masking(64), 32, seed=5)
    np.random.seed(1)
    whole = {step: source.batch(step, range(32)) for step in (0, 7, 1000)}
    np.random.seed(2)
    again = BertBatches(store, tokenizer, masking(64), 32, seed=5)
    for step in (1000, 0, 7):  # in another order, from another object
        assert same(again.batch(step, range(32)), whole[step])
        parts = [again.batch(step, range(start, stop)) for start, stop in ((0, 1), (1, 9), (9, 32))]
        assert same({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, whole[step])
    assert not same(whole[0], whole[7])
    assert not same(BertBatches(store, tokenizer, masking(64), 32, seed=6).batch(0, range(32)), whole[0])
    # The order does not depend on the batch size either: 2 × 16 are 1 × 32.
    half = BertBatches(store, tokenizer, masking(64), 16, seed=5)
    halves = [half.batch(step, range(16)) for step in (14, 15)]
    assert same({name: np.concatenate([part[name] for part in halves]) for name in halves[0]}, whole[7])


def test_an_epoch_reads_the_whole_store_about_once(position_store):
    store, tokenizer = position_store(long_documents())
    source = BertBatches(store, tokenizer, masking(128, next_sentence_prediction=False), 1, seed=0)
    count, epochs = source.rows_per_epoch, []
    for epoch in range(2):
        rows = read_back(store, source.batch(0, range(epoch * count, (epoch + 1) * count)), 128)
        seen = np.zeros(store.num_tokens, int)
        for (start, _), (_, stop) in zip(rows.a, rows.b, strict=True):
            seen[start:stop] += 1
        assert 0.95 < seen.mean() < 1.05
        assert (seen > 0).mean() > 0.85
        assert seen.max() <= 4
        epochs.append(rows.a[:, 0])
    assert not np.array_equal(*epochs), "the second epoch repeats the order of the first"
    assert len(np.intersect1d(*epochs)) < 0.9 * len(epochs[0]), "the second epoch cuts the same windows"


def test_masks_are_drawn_anew_each_epoch(position_store):
    store, tokenizer = position_store(long_documents())
    source = BertBatches(store, tokenizer, masking(128, next_sentence_prediction=False), 1, seed=0)
    count = source.rows_per_epoch
    epochs = [source.batch(0, range(epoch * count, (epoch + 1) * count)) for epoch in range(2)]
    begins = [epoch["input_ids"][:, 1] for epoch in epochs]
    same_start = [(one, other) for one in range(count) for other in np.flatnonzero(begins[1] == begins[0][one])
                  if begins[0][one] >= FIRST]
    assert len(same_start) > 10
    overlaps = [len(np.intersect1d(epochs[0]["masked_positions"][one], epochs[1]["masked_positions"][other]))
                for one, other in same_start]
    assert np.mean(overlaps) < 0.3 * epochs[0]["masked_positions"].shape[1], "chance alone gives 15 %"


def test_short_sequences_are_as_many_and_as_long_as_the_paper_says(position_store):
    store, tokenizer = position_store(long_documents())
    rows = rows_of(store, tokenizer, masking(128, short_seq_prob=1.0), batches=20)
    lengths = np.concatenate([part.length for part in rows])
    assert lengths.min() < 10
    assert stats.ks_1samp(lengths - 5, stats.randint(0, 124).cdf).statistic < 0.03, "uniform from 2 tokens to 125"
    rows = rows_of(store, tokenizer, masking(128, short_seq_prob=0.1), batches=20)
    short = np.concatenate([part.length for part in rows]) < 128
    assert within_sampling_error(short.sum(), len(short), 0.1 * 123 / 124)


@pytest.mark.parametrize("weights", [(1, 3), (0, 1), (2, 0.5)])
def test_sources_are_passed_over_as_often_as_their_weights_say(position_store, weights):
    store, tokenizer = position_store(long_documents())
    bounds = store.document_tokens()
    store.manifest["sources"] = [int(bounds[25]), int(store.num_tokens - bounds[25])]
    source = BertBatches(store, tokenizer, masking(64, next_sentence_prediction=False), 1, 0, weights)
    seen = np.zeros(store.num_tokens)
    for epoch in range(3):
        count = source.rows_per_epoch
        rows = read_back(store, source.batch(0, range(epoch * count, (epoch + 1) * count)), 64)
        for (start, _), (_, stop) in zip(rows.a, rows.b, strict=True):
            seen[start:stop] += 1
    passes = [part.mean() / 3 for part in np.split(seen, [bounds[25]])]
    assert passes == pytest.approx(weights, rel=0.08, abs=0.02)


# --- whole words ------------------------------------------------------------------------------------------------------


def words_of(batch: dict[str, np.ndarray], tokenizer) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(row, columns, original ids) of every word of a batch, read off the pieces' marks."""
    used = batch["masked_labels"] != IGNORED
    row = np.nonzero(used)[0]
    ids = batch["input_ids"].copy()
    ids[row, batch["masked_positions"][used]] = batch["masked_labels"][used]
    continues = np.asarray([token.startswith("##") for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))])
    words = []
    for number, line in enumerate(ids):
        columns: list[int] = []
        for column, token in enumerate(line.tolist()):
            special = token in (CLS, SEP, PAD)
            if columns and (special or not continues[token]):
                words.append((number, np.asarray(columns), line[columns]))
                columns = []
            if not special:
                columns.append(column)
    return words


@pytest.fixture(scope="module")
def whole_words(bert_store, wordpiece) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(original ids, which are predicted, what stands there) of every word of 2,000 rows."""
    source = BertBatches(bert_store, wordpiece, masking(64, whole_word_masking=True), 2000, 0)
    batch = source.batch(1, range(2000))
    predicted = np.zeros(batch["input_ids"].shape, bool)
    used = batch["masked_labels"] != IGNORED
    predicted[np.nonzero(used)[0], batch["masked_positions"][used]] = True
    assert predicted.sum() == used.sum(), "a position was chosen twice"
    return [(original, predicted[row, columns], batch["input_ids"][row, columns])
            for row, columns, original in words_of(batch, wordpiece)]


def test_whole_words_are_predicted_wholly_or_not_at_all(whole_words):
    assert max(len(original) for original, _, _ in whole_words) >= 4, "words of one piece show nothing"
    assert all(predicted.all() or not predicted.any() for _, predicted, _ in whole_words)


def test_words_of_every_length_are_chosen_as_often(whole_words):
    tokens = sum(len(original) for original, _, _ in whole_words)
    assert within_sampling_error(sum(predicted.sum() for _, predicted, _ in whole_words) / 2, tokens / 2, 0.15)
    for length in (1, 2, 3, 4):
        chosen = [predicted.all() for original, predicted, _ in whole_words if len(original) == length]
        assert len(chosen) > 500
        assert abs(np.mean(chosen) - 0.15) < 0.02 + 4 * np.sqrt(0.13 / len(chosen)), f"words of {length} pieces"


def test_a_word_has_one_fate(whole_words):
    chosen = [(original, found) for original, predicted, found in whole_words if predicted.all()]
    masked = np.asarray([(found == MASK).all() for _, found in chosen])
    kept = np.asarray([(found == original).all() for original, found in chosen])
    mixed = [found for original, found in chosen if 0 < (found == MASK).sum() < len(found)]
    assert not mixed, "a word half masked"
    assert within_sampling_error(masked.sum(), len(chosen), 0.8)
    long = np.asarray([len(original) >= 2 for original, _ in chosen])
    assert within_sampling_error(kept[long].sum(), long.sum(), 0.1)  # (of one piece, 1 in 145 is kept by chance)
    assert within_sampling_error((~masked & ~kept)[long].sum(), long.sum(), 0.1)


# --- against the algorithm written plainly ------------------------------------------------------------------------


def measure(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What can be compared between two ways of making rows."""
    used = batch["masked_labels"] != IGNORED
    found = np.take_along_axis(batch["input_ids"], batch["masked_positions"], 1)[used]
    length, length_b = batch["attention_mask"].sum(1), batch["token_type_ids"].sum(1) - 1
    return {"length": length, "length of A": length - length_b - 3, "length of B": length_b,
            "predictions": used.sum(1), "negative": batch["next_sentence_label"], "masked": found == MASK,
            "kept": found == batch["masked_labels"][used]}


def test_distributions_are_those_of_the_plain_algorithm(position_store):
    """Known differences: ours keeps B's length from telling the label, and draws exactly half of the labels, where a
    chunk of a single sentence forces the plain one to a random B."""
    store, tokenizer = position_store([sum(long_documents(10, seed), []) for seed in range(20)])
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(store.num_tokens))]
    starts = store.sentence_offsets
    documents = [[[f"w{token - FIRST}" for token in store.ids[starts[sentence]:starts[sentence + 1]]]
                  for sentence in range(first, last)]
                 for first, last in zip(store.document_offsets, store.document_offsets[1:], strict=False)]
    config = masking(128, short_seq_prob=0.1)
    rows = list(create_instances(documents, vocabulary, 128, 0.1, 0.15, config.predictions_per_row(), False,
                                 random.Random(0)))
    assert len(rows) > 1500
    plain = measure({name: np.stack([row[name] for row in rows]) for name in rows[0]})
    ours = measure(BertBatches(store, tokenizer, config, 4096, 0).batch(0, range(4096)))
    for name in ("length", "length of A", "length of B"):
        difference = stats.ks_2samp(plain[name], ours[name]).statistic
        assert difference < 0.12, f"{name}: {difference:.3f}"
    assert abs(plain["negative"].mean() - ours["negative"].mean()) < 0.05
    assert plain["predictions"].mean() == pytest.approx(ours["predictions"].mean(), rel=0.05)
    for name in ("masked", "kept"):
        assert abs(plain[name].mean() - ours[name].mean()) < 0.015, name


def test_any_step_is_as_quick_as_the_first(bert_store, wordpiece):
    source = BertBatches(bert_store, wordpiece, masking(128), 32, seed=0)
    source.batch(0, range(32))
    began = time.perf_counter()
    batch = source.batch(1_000_000, range(32))
    assert time.perf_counter() - began < 0.5
    assert batch["input_ids"].shape == (32, 128)


def test_rows_of_a_real_tokenizer_read_as_text(bert_store, wordpiece, documents):
    source = BertBatches(bert_store, wordpiece, masking(64), 16, seed=0)
    batch = source.batch(2, range(16))
    assert batch["masked_positions"].shape == batch["masked_labels"].shape == (16, 10)
    used = batch["masked_labels"] != IGNORED
    row = np.nonzero(used)[0]
    ids = batch["input_ids"].copy()
    ids[row, batch["masked_positions"][used]] = batch["masked_labels"][used]
    words = " ".join(" ".join(document.text.lower().split()) for document in documents)
    for tokens, label in zip(ids, batch["next_sentence_label"], strict=True):
        text = wordpiece.decode(tokens)
        assert text.startswith("[CLS]")  # a piece that continues a word follows without a blank
        a, b = text.removeprefix("[CLS]").split(" [SEP]")[:2]
        squeezed = "".join(words.split())
        assert "".join(b.split()) in squeezed
        if not label:
            assert "".join((a + b).split()) in squeezed


def test_what_cannot_work_is_refused(position_store, byte_level_bpe):
    store, tokenizer = position_store([[3, 4], [5, 6]])
    with pytest.raises(UserError, match="memory: 1 document; .*Give more files"):
        BertBatches(*position_store([[3, 4, 5]]), masking(32), 4, 0)
    with pytest.raises(UserError, match="memory: every document is a single sentence"):
        BertBatches(*position_store([[3], [4]]), masking(32), 4, 0)
    with pytest.raises(UserError, match=r"has no cls_token, .*wordpiece-8k\.yaml"):
        BertBatches(store, byte_level_bpe, masking(32), 4, 0)
    with pytest.raises(UserError, match="max_seq_length is 4"):
        BertBatches(store, tokenizer, masking(4), 4, 0)
    for share in (0.0, 1.0, 15.0):
        with pytest.raises(UserError, match=f"mlm_probability is {share}"):
            BertBatches(store, tokenizer, masking(32, share), 4, 0)


def test_unigram_entropy(position_store):
    store, _ = position_store([[2, 1], [1]])  # ids 5, 6, 7, 8, once each
    counts = np.asarray([0.5] * 5 + [1.5] * 4)
    assert unigram_entropy(store, 9, store) == pytest.approx(-np.log(1.5 / counts.sum()))
