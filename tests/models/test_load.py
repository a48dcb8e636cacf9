"""Checkpoints as they are saved: pipelines of transformers ask them without an option, long texts too."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import pipeline

from toolkit.models.presets import model_config
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.classifier import text_classifier
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.tasks.causal_lm import GptPretraining
from toolkit.tasks.masked_lm import BertPretraining
from toolkit.tokenization.load import save_tokenizer

LABELS = ["river, old", "garden"]
LONG = "the old captain went back to the river " * 20


@pytest.fixture(scope="module")
def saved(wordpiece, byte_level_bpe, tmp_path_factory):
    """Directories of a BERT and a GPT of 16 positions, whose tokenizers were meant for 512 tokens."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    tokenizers = {"bert": copy.copy(wordpiece), "gpt": copy.copy(byte_level_bpe)}
    shapes = {name: model_config(f"{name}-tiny", len(tokenizer), 16, pad_token_id=tokenizer.pad_token_id)
              for name, tokenizer in tokenizers.items()}
    shapes["gpt"].bos_token_id = shapes["gpt"].eos_token_id = byte_level_bpe.eos_token_id
    models = {"bert": BertForPreTraining(shapes["bert"]), "gpt": GPT2LMHeadModel(shapes["gpt"])}
    for name, tokenizer in tokenizers.items():
        tokenizer.model_max_length = 512
        task = BertPretraining if name == "bert" else GptPretraining
        task.save(SimpleNamespace(data=SimpleNamespace(tokenizer=tokenizer)), models[name], folder / name)
        assert tokenizer.model_max_length == 512, "of the one in use nothing changes"
    return folder


def test_a_gpt_is_continued_up_to_its_positions_without_an_option(saved):
    ask = pipeline("text-generation", model=str(saved / "gpt"))
    for prompt in ("the", "the old captain"):
        before = len(ask.tokenizer(prompt)["input_ids"])
        ids = ask(prompt, return_tensors=True)[0]["generated_token_ids"]
        assert before < len(ids) <= 16 and (len(ids) == 16 or ids[-1] == ask.tokenizer.eos_token_id)
    shape = json.loads((saved / "gpt/config.json").read_text(encoding="utf-8"))
    assert shape["n_ctx"] == shape["n_positions"] == 16


def test_a_long_text_is_cut_to_the_positions(saved):
    for name in ("bert", "gpt"):  # transformers 4 knows the class by this name alone
        config = json.loads((saved / name / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert {name: transformers.AutoTokenizer.from_pretrained(saved / name).model_max_length
            for name in ("bert", "gpt")} == {"bert": 16, "gpt": 16}
    fill = pipeline("fill-mask", model=str(saved / "bert"), tokenizer_kwargs={"truncation": True})
    assert len(fill("the [MASK] " + LONG)) == 5


@pytest.mark.parametrize("kind", ["bert", "gpt"])
@pytest.mark.parametrize("pooling", ["layers", "mean", "max", "cls"])
def test_a_long_text_is_classified_with_the_names_of_the_labels(saved, tmp_path, kind, pooling):
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved / kind)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokenizer.model_max_length = 60
    model = text_classifier(str(saved / kind), LABELS, tokenizer, pretrained=True, pooling=pooling)
    model.save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path, 16 if pooling == "cls" else None)
    ask = pipeline("text-classification", model=str(tmp_path))
    assert ask.tokenizer.model_max_length == (16 if pooling == "cls" else 60), "others read windows"
    ids = ask.tokenizer([LONG], truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model.eval()(**ids).logits.softmax(-1)[0].tolist()
    answers = {answer["label"]: answer["score"] for answer in ask([LONG], truncation=True, top_k=None)[0]}
    assert set(answers) == set(LABELS)
    assert [answers[name] for name in LABELS] == pytest.approx(expected, abs=1e-5)
    assert ask(LONG, truncation=True)[0]["label"] == max(answers, key=answers.get)
