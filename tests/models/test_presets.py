"""Architectures against the counts their authors published, and configurations against transformers' own."""

import resource
import sys

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from toolkit.models.presets import PRESETS, count_parameters, model_config, preset

# The unit to which each source rounds: 4.4 M to 0.1 M, 110 M to 10 M. The vocabulary is part of the published
# count.
BERT_UNCASED, GPT1, GPT2 = 30_522, 40_478, 50_257
PUBLISHED = {
    "bert-tiny": (BERT_UNCASED, 100_000),
    "bert-mini": (BERT_UNCASED, 100_000),
    "bert-small": (BERT_UNCASED, 100_000),
    "bert-medium": (BERT_UNCASED, 100_000),
    "bert-base": (BERT_UNCASED, 10_000_000),
    "bert-large": (BERT_UNCASED, 10_000_000),
    "gpt-nano": (3, 0),
    "gpt1": (GPT1, 1_000_000),
    "gpt2": (GPT2, 1_000_000),
    "gpt2-medium": (GPT2, 1_000_000),
    "gpt2-large": (GPT2, 1_000_000),
    "gpt2-xl": (GPT2, 1_000_000),
    "gpt3-small": (GPT2, 1_000_000),
    # Brown et al. print 350 M where this shape has 355.9 M, as GPT-2's has 355 M: they round to 50 M here.
    "gpt3-medium": (GPT2, 50_000_000),
    "gpt3-large": (GPT2, 10_000_000),
    "gpt3-xl": (GPT2, 100_000_000),
    "gpt3-2.7b": (GPT2, 100_000_000),
    "gpt3-6.7b": (GPT2, 100_000_000),
    "gpt3-13b": (GPT2, 1_000_000_000),
    "gpt3": (GPT2, 1_000_000_000),
}


def test_every_published_count_is_checked():
    published = {name for name, shape in PRESETS.items() if shape.published_parameters is not None}
    assert set(PUBLISHED) == published


@pytest.mark.parametrize("name", PUBLISHED)
def test_count_agrees_with_what_was_published(name):
    vocabulary, unit = PUBLISHED[name]
    assert preset(name).vocab_size == vocabulary
    assert abs(count_parameters(name) - preset(name).published_parameters) <= unit / 2


def test_exact_counts():
    assert count_parameters("gpt-nano") == 85_584  # bbycroft.net/llm shows every one of them
    assert count_parameters("gpt2") == 124_439_808  # of the released checkpoints
    assert count_parameters("bert-base") == 109_482_240
    fewer_words = count_parameters("bert-tiny", vocab_size=8_000)
    assert fewer_words == count_parameters("bert-tiny") - (30_522 - 8_000) * 128


def test_counting_gpt3_allocates_nothing():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert count_parameters("gpt3") > 174e9
    kilobytes = 1 if sys.platform != "darwin" else 1 / 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * kilobytes < 500_000


@pytest.mark.parametrize("name", PRESETS)
def test_shapes_are_consistent(name):
    shape = preset(name)
    assert shape.width % shape.heads == 0
    if shape.family == "bert" or shape.source.startswith("the shape of bert"):
        assert shape.width // shape.heads == 64
    config = model_config(name)
    assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_size) == (
        shape.layers, shape.heads, shape.width)
    assert config.vocab_size == shape.vocab_size
    assert config.max_position_embeddings == shape.max_position_embeddings


@pytest.mark.parametrize("size", ["tiny", "mini", "small", "medium"])
def test_gpt_and_bert_of_one_name_are_comparable(size):
    bert, gpt = preset(f"bert-{size}"), preset(f"gpt-{size}")
    for field in ("layers", "heads", "width", "vocab_size", "max_position_embeddings"):
        assert getattr(bert, field) == getattr(gpt, field)


def test_published_shapes_are_transformers_defaults():
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
                "max_position_embeddings", "hidden_act", "type_vocab_size"):
        assert getattr(model_config("bert-base"), key) == getattr(BertConfig(), key)
    for key in ("n_embd", "n_layer", "n_head", "n_positions", "vocab_size", "eos_token_id", "n_inner"):
        assert getattr(model_config("gpt2"), key) == getattr(GPT2Config(), key)


def test_gpt_activation_is_gelu_new():
    ids = torch.arange(8)[None] % 3
    torch.manual_seed(0)
    ours = GPT2LMHeadModel(model_config("gpt-nano", dropout=0.0)).eval()
    config = GPT2Config.from_dict(ours.config.to_dict() | {"activation_function": "gelu_new"})
    theirs = GPT2LMHeadModel(config).eval()
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-6)


def test_overrides_reach_the_configuration():
    bert = model_config("bert-tiny", vocab_size=100, max_position_embeddings=32, dropout=0.25, pad_token_id=7)
    assert (bert.vocab_size, bert.max_position_embeddings, bert.pad_token_id) == (100, 32, 7)
    assert {m.p for m in BertModel(bert).modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert bert.attention_probs_dropout_prob == 0.25
    gpt = model_config("gpt-tiny", vocab_size=100, dropout=0.25, eos_token_id=5)
    assert (gpt.eos_token_id, gpt.bos_token_id) == (5, None), "50256 lies outside this vocabulary"
    assert gpt.resid_pdrop == gpt.embd_pdrop == gpt.attn_pdrop == 0.25


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"'bert-tny'.*Did you mean 'bert-tiny'"):
        preset("bert-tny")
    with pytest.raises(ValueError, match=r"BertConfig has no field 'hidden_dropout'.*'hidden_dropout_prob'"):
        model_config("bert-tiny", hidden_dropout=0.1)
