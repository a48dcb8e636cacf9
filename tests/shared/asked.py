"""Small models to be asked something, as fixtures."""

import pytest
import torch
from transformers import BertConfig, GPT2Config

from toolkit.inference.generation import LanguageModel, open_model
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel


@pytest.fixture(scope="module")
def runs(wordpiece, byte_level_bpe, tmp_path_factory):
    """Directories of a BERT's and a GPT's run, with weights large enough that their answers are not all alike."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs")
    bert = BertForPreTraining(BertConfig(
        vocab_size=len(wordpiece), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.3))
    gpt = GPT2LMHeadModel(GPT2Config(
        vocab_size=len(byte_level_bpe), n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0))
    for name, model, tokenizer in (("bert", bert, wordpiece), ("gpt", gpt, byte_level_bpe)):
        model.save_pretrained(folder / name / "model")
        tokenizer.save_pretrained(folder / name / "model")
        (folder / name / "config.yaml").write_text("seed: 0\n")
    return folder


@pytest.fixture(scope="module")
def gpt(runs) -> LanguageModel:
    return open_model(runs / "gpt", "causal")


@pytest.fixture(scope="module")
def bert(runs) -> LanguageModel:
    return open_model(runs / "bert", "masked")
