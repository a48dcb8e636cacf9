"""GPT's blocks, on stores that count upwards, so that every token tells its place."""

import time
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.data.stores.gpt_batches import GptBatches, document_positions, evaluation_blocks, num_evaluation_blocks
from toolkit.data.stores.store import TokenStore
from toolkit.errors import UserError
from toolkit.models.text.gpt import GPT2LMHeadModel

END = 10**6


def counting_store(tokens: int) -> TokenStore:
    whole = np.asarray([0, tokens], np.int64)
    return TokenStore(Path("memory"), np.arange(tokens, dtype=np.uint32), whole, np.asarray([0, 1], np.int64), {})


def test_targets_are_the_inputs_shifted(gpt_store):
    batch = GptBatches(gpt_store, 64, 16, seed=0).batch(5, range(16))
    assert batch["input_ids"].shape == batch["labels"].shape == (16, 64)
    assert batch["input_ids"].dtype == batch["labels"].dtype == np.int64
    assert np.array_equal(batch["input_ids"][:, 1:], batch["labels"][:, :-1])
    counting = GptBatches(counting_store(5000), 64, 16, seed=0).batch(5, range(16))
    assert np.array_equal(counting["labels"], counting["input_ids"] + 1)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.integers(1, 50))
def test_evaluation_predicts_every_token_exactly_once(tokens, block_size):
    store = counting_store(tokens)
    blocks = num_evaluation_blocks(store, block_size)
    batch = evaluation_blocks(store, block_size, END, range(blocks))
    assert batch["input_ids"].shape == batch["labels"].shape == (blocks, block_size)
    predicted = batch["labels"] != -100
    assert np.array_equal(batch["labels"][predicted], np.arange(tokens))
    assert predicted.any(1).all(), "a block without a target"
    # Each from the token before it; the first from an end token, as a document starts.
    assert np.array_equal(batch["input_ids"][predicted], np.concatenate([[END], np.arange(tokens - 1)]))
    cut = blocks // 2
    parts = [evaluation_blocks(store, block_size, END, rows) for rows in (range(cut), range(cut, blocks))]
    assert all(np.array_equal(np.concatenate([part[name] for part in parts]), batch[name]) for name in batch)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(2, 400), st.integers(0, 2**31), st.integers(0, 3))
def test_an_epoch_visits_each_block_once(block_size, extra, seed, epoch):
    store = counting_store(block_size + extra)
    source = GptBatches(store, block_size, 1, seed)
    count = (store.num_tokens - 1) // block_size
    assert source.rows_per_epoch == count
    targets = source.batch(0, range(epoch * count, (epoch + 1) * count))["labels"]
    start = np.sort(targets[:, 0])
    assert 1 <= start[0] <= block_size  # a phase of its own
    assert (np.diff(start)[:-1] == block_size).all()  # the last block alone may be pushed back by the end of the store
    assert targets.max() < store.num_tokens
    seen = np.bincount(targets.ravel(), minlength=store.num_tokens)
    assert (seen == 0).sum() <= 2 * block_size
    assert seen.max() <= 2
    assert (seen == 2).sum() < block_size


def test_epochs_differ_in_order_and_phase():
    source = GptBatches(counting_store(20_000), 32, 1, seed=0)
    count = source.rows_per_epoch
    first, second = (source.batch(0, range(n * count, (n + 1) * count))["input_ids"][:, 0] for n in (0, 1))
    assert not np.array_equal(np.sort(first), np.sort(second))
    assert not np.array_equal(np.argsort(first), np.argsort(second))
    assert abs(np.corrcoef(first, np.arange(count))[0, 1]) < 4.5 / np.sqrt(count)


def test_a_batch_is_a_pure_function_of_step_and_rows():
    store = counting_store(20_000)
    source, again = GptBatches(store, 32, 24, seed=3), GptBatches(store, 32, 24, seed=3)
    whole = {step: source.batch(step, range(24)) for step in (0, 9, 500)}
    for step in (500, 9, 0):
        parts = [again.batch(step, rows) for rows in (range(5), range(5, 6), range(6, 24))]
        for name in ("input_ids", "labels"):
            assert np.array_equal(np.concatenate([part[name] for part in parts]), whole[step][name])
    halves = [GptBatches(store, 32, 12, seed=3).batch(step, range(12))["labels"] for step in (18, 19)]
    assert np.array_equal(np.concatenate(halves), whole[9]["labels"])
    assert not np.array_equal(whole[0]["labels"], GptBatches(store, 32, 24, seed=4).batch(0, range(24))["labels"])


def test_any_step_is_as_quick_as_the_first(gpt_store):
    source = GptBatches(gpt_store, 64, 32, seed=0)
    began = time.perf_counter()
    source.batch(1_000_000, range(32))
    assert time.perf_counter() - began < 0.5


def test_a_text_too_short_for_a_block_is_refused_and_one_that_just_fits_is_not():
    with pytest.raises(UserError, match="memory: 10 tokens do not fill one block of 10.*smaller block_size"):
        GptBatches(counting_store(10), 10, 4, 0)
    batch = GptBatches(counting_store(11), 10, 4, 0).batch(0, range(4))
    assert np.array_equal(batch["labels"], np.tile(np.arange(1, 11), (4, 1)))


# --- attention inside documents -----------------------------------------------------------------------------------


def test_positions_start_again_with_every_document():
    ids = np.asarray([[5, 6, 0, 7, 8, 9, 0, 0, 4], [0, 1, 2, 3, 4, 5, 6, 7, 8]])
    assert document_positions(ids, 0).tolist() == [[0, 1, 0, 1, 2, 3, 0, 0, 1], list(range(9))]


def test_batches_carry_positions_when_asked_in_training_and_evaluation(gpt_store, byte_level_bpe):
    end = byte_level_bpe.eos_token_id
    batch = GptBatches(gpt_store, 64, 32, seed=0, end_id=end).batch(3, range(32))
    plain = GptBatches(gpt_store, 64, 32, seed=0).batch(3, range(32))
    assert "position_ids" not in plain
    assert np.array_equal(batch["input_ids"], plain["input_ids"])
    assert np.array_equal(batch["position_ids"], document_positions(batch["input_ids"], end))
    assert (batch["position_ids"][batch["input_ids"] == end] == 0).all()
    evaluated = evaluation_blocks(gpt_store, 64, end, range(4), within_documents=True)
    assert evaluated["position_ids"][0, :3].tolist() == [0, 1, 2], "the first token follows an end token"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("training", [False, True])
def test_changing_one_document_leaves_the_next_ones_logits_unchanged(attention, training):
    config = small.gpt_config(50)
    config._attn_implementation = attention
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).train(training)
    ids = torch.randint(1, 50, (2, 24))
    ids[0, 9] = ids[0, 17] = ids[1, 5] = 0
    changed = ids.clone()
    changed[0, :9] = (ids[0, :9] + 7) % 49 + 1
    changed[1, :5] = (ids[1, :5] + 7) % 49 + 1
    positions = torch.from_numpy(document_positions(ids.numpy(), 0))

    def losses(inputs: torch.Tensor, position_ids: torch.Tensor | None) -> torch.Tensor:
        """(2, 24) from the forward that is trained, one predicted token at a time."""
        rows = []
        for column in range(24):
            labels = torch.full_like(ids, -100)
            labels[:, column] = 3
            rows.append(torch.stack([model(inputs[[row]], shifted_labels=labels[[row]],
                                           position_ids=None if position_ids is None else position_ids[[row]])["lm"]
                                     for row in range(2)]))
        return torch.stack(rows, 1)

    with torch.no_grad():
        before, after = losses(ids, positions), losses(changed, positions)
        assert torch.equal(before[0, 9:], after[0, 9:])
        assert torch.equal(before[1, 5:], after[1, 5:])
        assert not torch.allclose(before[0, :9], after[0, :9])
        alone = losses(ids[:, 9:17].repeat(1, 3), None)[0, :8]
        assert torch.allclose(before[0, 9:17], alone, atol=1e-5), "as if it stood alone"
        assert not torch.allclose(losses(ids, None)[0, 9:], losses(changed, None)[0, 9:], atol=1e-3), (
            "without positions documents do see each other, or this test shows nothing")


# --- mixtures -----------------------------------------------------------------------------------------------------


def three_sources(tokens: tuple[int, ...] = (3000, 1000, 2000)) -> TokenStore:
    store = counting_store(sum(tokens))
    store.manifest["sources"] = list(tokens)
    return store


@pytest.mark.parametrize("weights", [(1, 3, 0.5), (0, 1, 0), (0.25, 0.25, 0.25), (2, 2, 2)])
def test_an_epoch_passes_over_each_source_as_often_as_its_weight_says(weights):
    store = three_sources()
    source = GptBatches(store, 10, 1, seed=0, weights=weights)
    counts = np.zeros(store.num_tokens)
    for epoch in range(4):
        first = epoch * source.rows_per_epoch
        batch = source.batch(0, range(first, first + source.rows_per_epoch))
        np.add.at(counts, batch["labels"].ravel(), 1)
    passes = [part.mean() / 4 for part in np.split(counts, np.cumsum(store.source_tokens())[:-1])]
    assert passes == pytest.approx(weights, abs=0.02)
    for weight, part in zip(weights, np.split(counts, np.cumsum(store.source_tokens())[:-1]), strict=True):
        if weight >= 0.25:
            assert (part > 0).mean() > 0.6, "a share of a source is always the same share"


def test_equal_weights_change_nothing_and_weights_without_text_are_refused():
    store = three_sources()
    plain, ones = (GptBatches(store, 10, 8, 0, weights).batch(3, range(8)) for weights in ((), (1.0, 1.0, 1.0)))
    assert np.array_equal(plain["input_ids"], ones["input_ids"])
    with pytest.raises(UserError, match=r"memory: has 3 sources, corpus\.weights 2"):
        GptBatches(store, 10, 8, 0, (1.0, 2.0))
    with pytest.raises(UserError, match=r"no source with a corpus\.weights above 0 has any text"):
        GptBatches(three_sources((3000, 0)), 10, 8, 0, (0.0, 2.0))
