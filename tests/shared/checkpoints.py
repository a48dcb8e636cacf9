"""Small checkpoints to fine-tune, as fixtures."""

import pytest
import torch
from transformers import (
    BertConfig,
    GPT2Config,
)

from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.training.impl.distributed import make_accelerator

QUICK = dict(max_steps=6, batch_size=8, learning_rate=1e-3, logging_steps=3, save_steps=0)


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator()


@pytest.fixture(scope="module")
def checkpoints(wordpiece, byte_level_bpe, tmp_path_factory):
    """A tiny BERT and a tiny GPT with their tokenizers, saved as the pretraining recipes save them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    bert = BertForPreTraining(BertConfig(vocab_size=len(wordpiece), hidden_size=32, num_hidden_layers=1,
                                         num_attention_heads=2, intermediate_size=64, max_position_embeddings=64))
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=len(byte_level_bpe), n_embd=32, n_layer=1, n_head=2, n_positions=64,
                                     bos_token_id=0, eos_token_id=0))
    for name, model, tokenizer in (("bert", bert, wordpiece), ("gpt", gpt, byte_level_bpe)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {"bert": str(folder / "bert"), "gpt": str(folder / "gpt")}
