"""Sinusoids against their formula, word vectors against what they are for, co-occurrence against a double loop."""

import math

import numpy as np
import pytest
import small
import torch
from small import store_of
from transformers import BertModel, GPT2Model

from toolkit.errors import UserError
from toolkit.models import word_vectors as vectors_module
from toolkit.models.initialisation import (
    InitialValues,
    initialise,
    set_attention,
    set_positions,
    set_word_embeddings,
    sinusoids,
)
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.models.word_vectors import WINDOW, cooccurrence, train_word_vectors


@pytest.mark.parametrize(("positions", "width"), [(50, 32), (7, 5), (1, 1)])
def test_sinusoids_follow_the_formula(positions, width):
    table = sinusoids(positions, width, 0.3)
    assert table.shape == (positions, width) and table.dtype == torch.float32
    for position in range(positions):
        for dimension in range(width):
            angle = position / 10_000 ** (2 * (dimension // 2) / width)
            expected = 0.3 * (math.cos(angle) if dimension % 2 else math.sin(angle))
            assert table[position, dimension] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("make", [lambda: BertForPreTraining(small.bert_config(50)),
                                  lambda: GPT2LMHeadModel(small.gpt_config(50)),
                                  lambda: BertModel(small.bert_config(50)), lambda: GPT2Model(small.gpt_config(50))],
                         ids=["bert", "gpt", "bert without heads", "gpt without head"])
def test_set_positions_changes_the_positions_alone(make):
    # Once wrong: a bare GPT2Model calls its table `wpe`, not `….wpe`, and is not recognised.
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    set_positions(model, 0.2)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(changed) == 1 and changed[0].endswith(("position_embeddings.weight", "wpe.weight"))
    assert torch.equal(model.state_dict()[changed[0]], sinusoids(64, 32, 0.2))
    assert all(parameter.requires_grad for parameter in model.parameters()), "positions stay learned"


def test_set_positions_needs_positions():
    with pytest.raises(UserError, match="the model is a toolkit-recurrent; expected one of bert, gpt2"):
        set_positions(RecurrentForClassification(RecurrentConfig()), 0.2)


def queries_and_keys(model) -> list[tuple[torch.Tensor, torch.Tensor]]:
    state = model.state_dict()
    bert = [(state[name], state[name.replace("query", "key")]) for name in state if name.endswith("query.weight")]
    return bert or [state[name].T.chunk(3)[:2] for name in state if name.endswith("c_attn.weight")]


@pytest.mark.parametrize("agreement", [0.5, 0.9])
@pytest.mark.parametrize("make", [lambda: BertForPreTraining(small.bert_config(50)),
                                  lambda: GPT2LMHeadModel(small.gpt_config(50))], ids=["bert", "gpt"])
def test_set_attention_makes_queries_and_keys_agree_and_nothing_else(make, agreement):
    torch.manual_seed(0)
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    set_attention(model, agreement)
    for query, key in queries_and_keys(model):
        correlation = torch.corrcoef(torch.stack([query.flatten(), key.flatten()]))[0, 1]
        assert correlation == pytest.approx(agreement, abs=0.1)  # of 1,024 pairs
        assert query.std() == pytest.approx(32**-0.5, rel=0.1) and key.std() == pytest.approx(32**-0.5, rel=0.1)
        # What that is for: states attend to themselves, and to what is like them, more than to others.
        states = torch.randn(40, 32)
        logits = (states @ query.T) @ (states @ key.T).T
        assert logits.diagonal().mean() > 5 * logits[~torch.eye(40, dtype=bool)].mean().abs()
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert all(name.endswith(("query.weight", "key.weight", "c_attn.weight")) for name in changed)
    for name in changed:
        if "c_attn" in name:
            assert torch.equal(model.state_dict()[name][:, 64:], before[name][:, 64:]), "values stay as they were"


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_initialise_sets_what_is_asked_for(family, tmp_path):
    data = small.small_data(tmp_path, "wordpiece" if family == "bert" else "bytes")
    make = {"bert": lambda: BertForPreTraining(small.bert_config(len(data.tokenizer))),
            "gpt": lambda: GPT2LMHeadModel(small.gpt_config(len(data.tokenizer)))}[family]
    torch.manual_seed(0)
    model = make()
    initialise(model, InitialValues(), data.train, data.tokenizer)
    words, known = model.get_input_embeddings().weight, np.unique(data.train.ids)
    assert words[known.astype(int)].std().item() == pytest.approx(0.1, rel=0.01)
    positions = [weight for name, weight in model.named_parameters() if name.endswith(("position_embeddings.weight",
                                                                                       "wpe.weight"))]
    assert torch.equal(positions[0], sinusoids(64, 32, 0.2))
    torch.manual_seed(0)
    model = make()
    initialise(model, InitialValues(position_amplitude=0, attention_agreement=0, embeddings="random"), data.train,
               data.tokenizer)
    assert all(tensor.std() < 0.03 for name, tensor in model.named_parameters() if tensor.ndim == 2)


@pytest.mark.parametrize("make", [lambda: BertForPreTraining(small.bert_config(50)),
                                  lambda: GPT2LMHeadModel(small.gpt_config(50))], ids=["bert", "gpt"])
def test_set_word_embeddings_keeps_unknown_rows_and_the_tie(make):
    model = make()
    before = model.get_input_embeddings().weight.clone()
    vectors = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
    vectors[[0, 17]] = 0
    set_word_embeddings(model, vectors)
    after = model.get_input_embeddings().weight
    assert torch.equal(after[[0, 17]], before[[0, 17]])
    known = [row for row in range(50) if row not in (0, 17)]
    torch.testing.assert_close(after[known], torch.from_numpy(vectors)[known] * (0.1 / vectors[known].std()))
    assert model.get_output_embeddings().weight is after
    with pytest.raises(ValueError, match=r"\(49, 32\)"):
        set_word_embeddings(model, vectors[1:])


def test_set_word_embeddings_takes_other_precisions():
    model = GPT2LMHeadModel(small.gpt_config(50)).to(torch.bfloat16)
    set_word_embeddings(model, np.tile([0.5, -0.5], (50, 16)))
    assert (model.get_input_embeddings().weight.abs() == torch.tensor(0.1).bfloat16()).all()


def counted(ids: list[int], vocab_size: int) -> np.ndarray:
    table = np.zeros((vocab_size, vocab_size))
    for here in range(len(ids)):
        for there in range(len(ids)):
            if 0 < abs(here - there) <= WINDOW:
                table[ids[here], ids[there]] += 1 / abs(here - there)
    return table


@pytest.mark.parametrize("length", [1, 2, WINDOW, WINDOW + 1, 97])
@pytest.mark.parametrize("chunk", [1_000_000, 20])
def test_cooccurrence_is_what_a_double_loop_counts(monkeypatch, length, chunk):
    # Once wrong: at chunk 20, length 97, pairs in the overlap of two chunks are counted in both.
    monkeypatch.setattr(vectors_module, "_CHUNK", chunk)
    ids = np.random.default_rng(length).integers(0, 9, length).tolist()
    found = cooccurrence(store_of(ids), 9, progress=False).toarray()
    np.testing.assert_allclose(found, counted(ids, 9), rtol=1e-5)


def test_words_in_the_same_contexts_are_near():
    # Four kinds of five words, each word always between two of the four contexts of its kind. Words never stand near
    # their own kind, so that only their contexts can bring them together.
    rng, ids = np.random.default_rng(0), []
    words, contexts = 1 + np.arange(20).reshape(4, 5), 21 + np.arange(16).reshape(4, 4)
    for _ in range(800):
        kind = rng.integers(4)
        ids += [rng.choice(contexts[kind]), rng.choice(words[kind]), rng.choice(contexts[kind]), *[0] * WINDOW]
    vectors = train_word_vectors(store_of(ids), 40, 8, progress=False)
    assert vectors.shape == (40, 8) and vectors.dtype == np.float32
    assert (vectors[37:] == 0).all(), "ids that never occur"
    unit = vectors[words.ravel()] / np.linalg.norm(vectors[words.ravel()], axis=1, keepdims=True)
    similarity, same = unit @ unit.T, np.kron(np.eye(4), np.ones((5, 5))) > 0
    assert similarity[same].min() > 0.5 and similarity[~same].max() < 0.3


def test_word_vectors_are_the_factors_of_the_ppmi_table():
    ids = np.random.default_rng(1).choice(12, 400, p=np.arange(1, 13) / 78).tolist()
    vectors = train_word_vectors(store_of(ids), 12, 11, progress=False).astype(np.float64)
    counts = counted(ids, 12)
    word, context = counts.sum(1), counts.sum(0) ** 0.75
    with np.errstate(divide="ignore"):
        ppmi = np.maximum(0, np.log(counts / counts.sum() / np.outer(word / word.sum(), context / context.sum())))
    left, singular, _ = np.linalg.svd(ppmi)
    expected = (left * np.sqrt(singular))[:, :11]
    # Signs of singular vectors are free, inner products are not; the scale is another matter.
    found, expected = vectors @ vectors.T, expected @ expected.T
    np.testing.assert_allclose(found / np.trace(found), expected / np.trace(expected), atol=1e-5)


def test_word_vectors_fit_widths_above_the_vocabulary():
    vectors = train_word_vectors(store_of([0, 1, 2, 1, 0, 2, 2, 1] * 10), 5, 16, progress=False)
    assert vectors.shape == (5, 16) and np.isfinite(vectors).all() and (vectors[3:] == 0).all()
