"""Encoder–decoders against the formulas of their papers, a loop over steps, and every target there is."""

import itertools
import math
from functools import partial
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSeq2SeqLM

from toolkit.experiments.settings import Seq2SeqModelSection
from toolkit.models.seq2seq.beam_search import beam_search, length_penalty
from toolkit.models.seq2seq.recurrent import RecurrentForSeq2Seq, RecurrentSeq2SeqConfig
from toolkit.models.seq2seq.transformer import TRANSFORMERS, count_parameters, new_transformer, transformer_config
from toolkit.models.small.attention_scores import SCORES

IDS = {"pad_token_id": 0, "decoder_start_token_id": 1, "eos_token_id": 2}


def recurrent(**options) -> RecurrentForSeq2Seq:
    torch.manual_seed(0)
    shape = {"vocab_size": 11, "embedding_size": 6, "hidden_size": 5, "cell": "gru", "attention": "additive",
             "max_position_embeddings": 12}
    return RecurrentForSeq2Seq(RecurrentSeq2SeqConfig(**{**shape, **options}, **IDS)).eval()


def transformer(vocab_size: int = 11):
    torch.manual_seed(0)
    return new_transformer(transformer_config("transformer-tiny", vocab_size, max_position_embeddings=16, **IDS)).eval()


def sources(rows: int = 3, length: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(3, 11, (rows, length))
    mask = (torch.arange(length) < torch.tensor([length, 4, 2])[:rows, None]).long()
    return ids * mask, mask


def test_the_keras_example_has_its_parameters():
    """1024 (n_in + 257) + 1024 (n_out + 257) + 257 n_out, at 74 and 78 characters."""
    for source, target, published in ((74, 78, 702_030), (20, 31, None)):
        model = recurrent(vocab_size=source, decoder_vocab_size=target, embedding_size=None, hidden_size=256,
                          cell="lstm", attention=None)
        expected = 1024 * (source + 257) + 1024 * (target + 257) + 257 * target
        assert sum(weight.numel() for weight in model.parameters()) == expected
        assert published in (None, expected)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_presets_have_the_papers_sizes(name):
    published = TRANSFORMERS[name].published_parameters
    if published is None:
        low, high = {"transformer-micro": (1e5, 3e5), "transformer-mini": (7e6, 9e6)}[name]
        assert low < count_parameters(name) < high
    else:
        assert count_parameters(name) == pytest.approx(published, rel=0.035)


def test_sinusoids_are_the_papers():
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i + 1) = cos of the same; here sines first."""
    model, width = transformer(), 128
    table = model.model.encoder.embed_positions.weight.numpy()
    place, half = np.arange(16)[:, None], np.arange(width // 2)
    angle = place / 10000 ** (2 * half / width)
    np.testing.assert_allclose(table[:, : width // 2], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(table[:, width // 2:], np.cos(angle), atol=1e-6)
    assert not model.model.encoder.embed_positions.weight.requires_grad


def test_vectors_of_both_sides_and_output_are_one_matrix():
    model = transformer()
    places = {part.weight.data_ptr() for part in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens,
                                                  model.get_output_embeddings())}
    assert len(places) == 1
    shared = recurrent()
    assert shared.output.weight is shared.encoder.embed_tokens.weight is shared.decoder.embed_tokens.weight


def by_steps(model: RecurrentForSeq2Seq, source: list[int], target: list[int]) -> torch.Tensor:
    """(T, V) logits of one pair, a token at a time, with torch's own cells and none of the model's code."""
    config = model.config
    cells = {"gru": torch.nn.GRUCell, "lstm": torch.nn.LSTMCell, "rnn": torch.nn.RNNCell}

    def cell_of(layer):
        cell = cells[config.cell](layer.input_size, layer.hidden_size, bias=False)
        cell.weight_ih, cell.weight_hh = layer.weight_ih_l0, layer.weight_hh_l0
        return cell

    def run(layer, inputs, state):
        cell, states = cell_of(layer), []
        for vector in inputs:
            state = cell(torch.cat([vector, torch.ones(1)])[None], state)
            states.append((state[0] if isinstance(state, tuple) else state)[0])
        return torch.stack(states), state

    embedded = model.encoder.embed_tokens(torch.tensor(source))
    layer = model.encoder.layers[0]
    states, end = run(layer.forwards, embedded, None)
    if layer.backwards is not None:
        back, back_end = run(layer.backwards, embedded.flip(0), None)
        states = torch.cat([states, back.flip(0)], -1)
        first = torch.tanh(model.decoder.bridge(torch.cat([pair[0] if isinstance(pair, tuple) else pair
                                                           for pair in (end, back_end)], -1)))
        end = (first, torch.zeros_like(first)) if config.cell == "lstm" else first
    queries, _ = run(model.decoder.layers[0], model.decoder.embed_tokens(torch.tensor(target)), end)
    read = []
    for query in queries:
        asked = query if model.query is None else model.query(query)
        if model.score is None:
            read.append(query)
            continue
        weights = torch.stack([model.score(states[None], asked[None, None])[0, 0, i] for i in range(len(states))]
                              ).softmax(0)
        read.append(torch.cat([query, weights @ states]))
    return model.output(torch.tanh(model.readout(torch.stack(read))))


@pytest.mark.parametrize(("cell", "bidirectional", "attention"), [
    ("gru", False, None), ("lstm", False, "general"), ("rnn", True, "dot"), ("lstm", True, "additive"),
    ("gru", True, "location")])
def test_recurrent_models_are_a_loop_over_steps(cell, bidirectional, attention):
    model = recurrent(cell=cell, bidirectional=bidirectional, attention=attention)
    ids, mask = sources()
    target = torch.tensor([[1, 5, 6, 4]] * 3)
    logits = model(ids, mask, decoder_input_ids=target).logits
    for row, length in enumerate(mask.sum(1)):
        torch.testing.assert_close(logits[row], by_steps(model, ids[row, :length].tolist(), target[row].tolist()),
                                   atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("attention", [None, *SCORES])
def test_padding_on_either_side_changes_nothing(attention):
    model = recurrent(attention=attention, cell="lstm", bidirectional=True, num_hidden_layers=2)
    ids, mask = sources()
    target = torch.tensor([[1, 5, 6]])
    alone = model(ids[1:2, :4], decoder_input_ids=target).logits
    torch.testing.assert_close(model(ids[1:2], mask[1:2], decoder_input_ids=target).logits, alone)
    if attention is None or not SCORES[attention].needs_steps:  # whose weights are of places
        left = torch.cat([ids[1:2, 4:], ids[1:2, :4]], 1), torch.cat([mask[1:2, 4:], mask[1:2, :4]], 1)
        torch.testing.assert_close(model(*left, decoder_input_ids=target).logits, alone)


@pytest.mark.parametrize("make", [transformer, recurrent])
def test_what_is_saved_answers_the_same(make, tmp_path):
    model, (ids, mask) = make(), sources()
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    options = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), again.generate(ids, **options))
    assert torch.equal(model.generate(ids, **options, num_beams=3), again.generate(ids, **options, num_beams=3))


def test_generate_goes_on_from_the_state():
    """Greedy answers of `generate`, which keeps the state, are those of reading the target again at every token."""
    for model in (recurrent(attention=None, cell="lstm"), recurrent(bidirectional=True)):
        ids, mask = sources()
        given = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
        for row, length in enumerate(mask.sum(1)):
            target = [1]
            while len(target) < 7 and target[-1] != 2:
                logits = model(ids[row:row + 1, :length], decoder_input_ids=torch.tensor([target])).logits
                target.append(int(logits[0, -1].argmax()))
            assert given[row, : len(target)].tolist() == target


def test_every_score_can_be_asked_for():
    """The settings, which take no torch, name them again."""
    assert set(get_args(get_type_hints(Seq2SeqModelSection)["attention"])) == {*SCORES, "none"}


def test_the_length_penalty_is_the_papers():
    assert length_penalty(1, 0.6) == 1
    assert length_penalty(7, 0.6) == pytest.approx((5 + 7) ** 0.6 / 6**0.6)
    assert length_penalty(7, 0.0) == 1


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("make", [transformer, recurrent, partial(recurrent, cell="lstm", attention=None)],
                         ids=["transformer", "gru", "lstm"])
def test_a_beam_as_wide_as_all_targets_finds_the_best_of_them(make, alpha):
    """Of a vocabulary of 6 every target of at most 3 tokens and its end is scored one by one."""
    model, longest = make(vocab_size=6), 4
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2.0)  # answers that are sure of something
    ids, mask = sources()
    ids = ids.clamp(max=5)
    tokens = [token for token in range(6) if token != 2]
    found, scores = beam_search(model, ids, mask, 5**3, longest, alpha)
    for row in range(len(ids)):
        best = (-math.inf, [])
        for length in range(longest):
            targets = torch.tensor([[*body, 2] for body in itertools.product(tokens, repeat=length)])
            with torch.no_grad():
                logs = model(ids[row:row + 1].expand(len(targets), -1), attention_mask=mask[row:row + 1].expand(
                    len(targets), -1), decoder_input_ids=F.pad(targets[:, :-1], (1, 0), value=1)).logits.log_softmax(-1)
            totals = logs.gather(2, targets[..., None]).sum((1, 2)) / length_penalty(length + 1, alpha)
            best = max(best, (float(totals.max()), targets[totals.argmax()].tolist()))
        assert scores[row] == pytest.approx(best[0], abs=1e-4)
        assert found[row, : len(best[1])].tolist() == best[1]


def test_a_beam_wider_than_the_vocabulary_is_no_trouble():
    ids, mask = sources()
    found, scores = beam_search(recurrent(), ids, mask, 40, 3)
    assert found.shape[0] == 3 and torch.isfinite(scores).all()


def test_label_smoothing_is_the_papers():
    """(1 − ε) of the target's share, ε spread evenly over the vocabulary (Szegedy et al. 2016, section 7)."""
    logits, labels = torch.randn(4, 9), torch.tensor([1, 2, 0, 8])
    wanted = torch.full((4, 9), 0.1 / 9)
    wanted[torch.arange(4), labels] += 0.9
    by_hand = -(wanted * logits.log_softmax(-1)).sum()
    torch.testing.assert_close(F.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1), by_hand)
