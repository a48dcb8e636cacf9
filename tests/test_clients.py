"""Models of ours in the hands of others: libraries that know nothing of this package load them and get its answers.

`make test-clients` installs them (the extra `clients`) and runs this. A test whose library is absent is skipped; so is
the one of transformers 4 unless TRANSFORMERS_4 names a Python that has it.
"""

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import small
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from toolkit.data.text.corpus import read_documents
from toolkit.models.families import family
from toolkit.models.presets import model_config
from toolkit.models.series.patches import SeriesForClassification
from toolkit.models.small.keras_forda import KerasForda, KerasFordaConfig
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.classifier import text_classifier
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.models.word_vectors import WordVectors, save_word2vec, train_word_vectors
from toolkit.tasks.causal_lm import GptPretraining
from toolkit.tasks.masked_lm import BertPretraining
from toolkit.tokenization.load import save_tokenizer
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, choose

pytestmark = pytest.mark.clients
LABELS = ["river", "garden", "sea"]
TEXTS = ["the old captain went back to the river in winter", "a garden", "who would [MASK] the sea " * 20]
POSITIONS = 16
POOLINGS = ("layers", "mean", "max", "cls")


def holding(tokenizer) -> SimpleNamespace:
    """What a pretraining task needs to save a model."""
    return SimpleNamespace(data=SimpleNamespace(tokenizer=tokenizer))


@pytest.fixture(scope="module")
def saved(wordpiece, byte_level_bpe, tmp_path_factory):
    """Directories of a BERT and a GPT with a few positions, as pretraining saves them, and of classifiers of both."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    end = byte_level_bpe.eos_token_id
    bert = model_config("bert-tiny", len(wordpiece), POSITIONS, pad_token_id=wordpiece.pad_token_id,
                        initializer_range=0.2)
    gpt = model_config("gpt-tiny", len(byte_level_bpe), POSITIONS, bos_token_id=end, eos_token_id=end,
                       initializer_range=0.2)
    BertPretraining.save(holding(wordpiece), BertForPreTraining(bert), folder / "bert")
    GptPretraining.save(holding(byte_level_bpe), GPT2LMHeadModel(gpt), folder / "gpt")
    for kind in ("bert", "gpt"):
        tokenizer = AutoTokenizer.from_pretrained(folder / kind)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        for pooling in POOLINGS:
            model = text_classifier(str(folder / kind), LABELS, tokenizer, pretrained=True, pooling=pooling)
            model.save_pretrained(folder / f"{kind}-{pooling}")
            save_tokenizer(tokenizer, folder / f"{kind}-{pooling}", POSITIONS if pooling == "cls" else None)
    return folder


# torch.onnx and onnxruntime


def assert_onnx_answers(model, inputs: dict, more: list[dict], axes: dict[int, str], path, dynamo: bool = True) -> None:
    """`model` exported with `inputs` gives its logits for them and for `more`; axes: which may differ in size."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    names = list(inputs)
    model.eval()
    if dynamo:
        torch.onnx.export(model, (), path, kwargs=dict(inputs), verbose=False, dynamo=True,
                          dynamic_shapes={name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for name in names})
    else:
        torch.onnx.export(model, (), path, kwargs=dict(inputs), input_names=names, dynamo=False,
                          dynamic_axes=dict.fromkeys(names, axes))
    session = onnxruntime.InferenceSession(path)
    known = {each.name for each in session.get_inputs()}
    for given in (inputs, *more):
        with torch.inference_mode():
            expected = model.eval()(**given).logits.numpy()
        logits = session.run(None, {name: value.numpy() for name, value in given.items() if name in known})[0]
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)


def tokens(rows: int, length: int, vocabulary: int = 100) -> dict:
    """Random ids; the first row ends early."""
    inside = torch.ones(rows, length, dtype=torch.long)
    inside[0, length - length // 3:] = 0
    return {"input_ids": torch.randint(5, vocabulary, (rows, length)), "attention_mask": inside}


@pytest.mark.parametrize("dynamo", [True, False], ids=["export", "trace"])
@pytest.mark.parametrize("kind", ["bert", "gpt"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_onnx_runs_text_classifiers(saved, tmp_path, kind, pooling, dynamo):
    """Exported with a text longer than its positions, a pooled classifier answers long and short ones."""
    model = AutoModelForSequenceClassification.from_pretrained(saved / f"{kind}-{pooling}")
    lengths = (9, 5, POSITIONS) if pooling == "cls" else (40, 33, 90, 7)
    first, *more = (tokens(rows, length) for rows, length in zip((2, 3, 1, 2), lengths, strict=False))
    assert_onnx_answers(model, first, more, {0: "rows", 1: "tokens"}, tmp_path / "model.onnx", dynamo)


def patched(kind: str = "bert", **settings) -> SeriesForClassification:
    shape = model_config(f"{kind}-tiny", vocab_size=1, max_position_embeddings=20)
    return SeriesForClassification.from_backbone(shape, LABELS, pretrained=False, num_channels=2, **settings)


SERIES = {  # name → a classifier of two channels
    "linear-bert": lambda: patched(patch_length=6, patch_stride=4),
    "linear-gpt": lambda: patched("gpt", patch_length=6, patch_stride=4),
    "convolution": lambda: patched(embedding="convolution", patch_length=8),
    "layers": lambda: patched(patch_length=6, pooling="layers", instance_norm=True),
    "independent": lambda: patched(patch_length=6, channels="independent"),
    "rnn": lambda: RecurrentForClassification(RecurrentConfig(cell="rnn", num_channels=2, num_labels=3)),
    "lstm": lambda: RecurrentForClassification(RecurrentConfig(
        cell="lstm", num_channels=2, num_labels=3, bidirectional=True, patch_length=3)),
    "gru": lambda: RecurrentForClassification(RecurrentConfig(
        cell="gru", num_channels=2, num_labels=3, attention="additive")),
    "perceptron": lambda: PerceptronForClassification(PerceptronConfig(
        num_channels=2, num_labels=3, series_length=50))}
OF_ANY_LENGTH = ("linear-bert", "linear-gpt", "convolution", "layers", "independent", "perceptron")


@pytest.mark.parametrize("name", SERIES)
def test_onnx_runs_series_classifiers(tmp_path, name):
    torch.manual_seed(0)

    def series(rows: int, length: int) -> dict:
        observed = torch.ones(rows, 2, length, dtype=torch.bool)
        observed[0, :, length - length // 3:] = False
        return {"values": torch.randn(rows, 2, length) * observed, "observed": observed}

    lengths, axes = ((33, 50), {0: "rows", 2: "samples"}) if name in OF_ANY_LENGTH else ((40, 40), {0: "rows"})
    assert_onnx_answers(SERIES[name](), series(2, 40), [series(3, lengths[0]), series(1, lengths[1])], axes,
                        tmp_path / "model.onnx")


def test_onnx_runs_the_keras_example(tmp_path):
    values = [{"values": torch.randn(rows, 1, 40)} for rows in (2, 3)]
    assert_onnx_answers(KerasForda(KerasFordaConfig(length=40)), values[0], values[1:], {0: "rows"},
                        tmp_path / "model.onnx")


# peft


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_peft_adapts_saves_and_loads_a_pooled_classifier(saved, tmp_path, kind):
    peft = pytest.importorskip("peft")
    directory = saved / f"{kind}-layers"
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    adapted = peft.get_peft_model(model, peft.LoraConfig(
        r=4, task_type="SEQ_CLS", target_modules=list(family(model.config).lora_targets), init_lora_weights=False))
    batch = tokens(3, 40)
    loss = adapted(**batch, labels=torch.tensor([0, 1, 2])).loss
    loss.backward()
    torch.optim.SGD([each for each in adapted.parameters() if each.requires_grad], lr=0.1).step()
    expected = adapted.eval()(**batch).logits
    adapted.save_pretrained(tmp_path)
    fresh = AutoModelForSequenceClassification.from_pretrained(directory)
    for again in (peft.PeftModel.from_pretrained(fresh, tmp_path),
                  peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path, num_labels=3)):
        torch.testing.assert_close(again.eval()(**batch).logits, expected)
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(again(**batch).logits, merged(**batch).logits)
    assert set(again.state_dict()) == set(before) and not torch.equal(
        again.state_dict()["classifier.weight"], before["classifier.weight"])


# sentence-transformers, lm_eval, gensim


def test_sentence_transformers_pools_our_bert(saved):
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(saved / "bert"), device="cpu")
    assert model.max_seq_length == POSITIONS
    batch = AutoTokenizer.from_pretrained(saved / "bert")(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        states = transformers.AutoModel.from_pretrained(saved / "bert").eval()(**batch).last_hidden_state
    inside = batch["attention_mask"][..., None]
    np.testing.assert_allclose(model.encode(TEXTS), ((states * inside).sum(1) / inside.sum(1)).numpy(), atol=1e-5)


def test_lm_eval_measures_our_bits_per_byte(tmp_path):
    library = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.api.instance import Instance

    torch.manual_seed(0)
    data = small.small_data(tmp_path, "bytes")
    end = data.tokenizer.eos_token_id
    task = GptPretraining(GPT2LMHeadModel(model_config("gpt-tiny", len(data.tokenizer), 32, bos_token_id=end,
                                                       eos_token_id=end, initializer_range=0.1)), data, 32, 8, seed=0)
    accelerator = make_accelerator()
    with torch.inference_mode():
        ours = task.evaluate(task.model.eval(), accelerator, choose(ImplConfig(dtype="fp32"), accelerator.device))
    task.save(task.model, tmp_path / "model")
    theirs = library.HFLM(pretrained=str(tmp_path / "model"), device="cpu", batch_size=4)
    assert theirs.max_length == 32
    # One stream, as ours is: documents with the end token after each, whose bytes nobody counts.
    texts = [document.text for document in read_documents(tmp_path / "data/corpus/validation.jsonl")]
    stream = "".join(text + data.tokenizer.eos_token for text in texts)
    (found,) = theirs.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (stream,), 0)])
    nats = -(found[0] if isinstance(found, tuple) else found)
    assert nats / math.log(2) / sum(len(text.encode()) for text in texts) == pytest.approx(
        ours["bits_per_byte"], rel=0.005)


def test_gensim_has_our_neighbours(gpt_store, byte_level_bpe, tmp_path):
    gensim = pytest.importorskip("gensim.models")
    trained = train_word_vectors(gpt_store, len(byte_level_bpe), 16, "ppmi-svd", 0)
    names = byte_level_bpe.convert_ids_to_tokens(list(range(len(byte_level_bpe))))
    kept = np.flatnonzero(trained.any(1))
    vectors = WordVectors([names[index] for index in kept], trained[kept])
    save_word2vec(tmp_path / "vectors.txt", vectors)
    theirs = gensim.KeyedVectors.load_word2vec_format(tmp_path / "vectors.txt")
    for word in [word for word in vectors.words if len(word) > 3][:3]:
        assert [near for near, _ in theirs.most_similar(word, topn=5)] == [near for near, _ in vectors.nearest(word, 5)]


# transformers: the calls of its example scripts, and its version before


def one_step(model, rows: list[dict], collator, tokenizer, folder) -> None:
    """What the scripts do with a model: Trainer, a step, an evaluation, and all saved."""
    arguments = transformers.TrainingArguments(str(folder), max_steps=1, per_device_train_batch_size=2, use_cpu=True,
                                               report_to=[], save_strategy="no", disable_tqdm=True)
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=collator,
                                   processing_class=tokenizer)
    trainer.train()
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    trainer.save_model()
    assert type(type(model).from_pretrained(folder)) is type(model)


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_run_glue_fine_tunes_a_pretrained_model(saved, tmp_path, kind):
    directory = str(saved / kind)
    config = transformers.AutoConfig.from_pretrained(directory, num_labels=3, finetuning_task="mnli")
    tokenizer = AutoTokenizer.from_pretrained(directory, use_fast=True)
    model = AutoModelForSequenceClassification.from_pretrained(directory, config=config)
    if tokenizer.pad_token is None:  # as the script asks of the users of every GPT
        tokenizer.pad_token, model.config.pad_token_id = tokenizer.eos_token, tokenizer.eos_token_id
    longest = min(128, tokenizer.model_max_length)
    rows = [{**tokenizer(text, text, padding="max_length", max_length=longest, truncation=True), "label": number}
            for number, text in enumerate(TEXTS)]
    one_step(model, rows, transformers.default_data_collator, tokenizer, tmp_path)


@pytest.mark.parametrize("name", ["bert-layers", "gpt-max", "bert-cls", "gpt-cls"])
def test_run_glue_trains_a_classifier_of_ours_on(saved, tmp_path, name):
    tokenizer = AutoTokenizer.from_pretrained(saved / name)
    model = AutoModelForSequenceClassification.from_pretrained(saved / name)
    assert [model.config.id2label[number] for number in range(3)] == LABELS
    rows = [{**tokenizer(text, truncation=True), "label": number} for number, text in enumerate(TEXTS)]
    one_step(model, rows, transformers.DataCollatorWithPadding(tokenizer), tokenizer, tmp_path)


def test_run_mlm_pretrains_our_bert_on(saved, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(saved / "bert", use_fast=True)
    model = transformers.AutoModelForMaskedLM.from_pretrained(saved / "bert")
    assert len(tokenizer) <= model.get_input_embeddings().weight.shape[0]
    longest = tokenizer.model_max_length  # which the script takes up to 1,024
    rows = [tokenizer(text, truncation=True, max_length=longest, return_special_tokens_mask=True) for text in TEXTS]
    one_step(model, rows, transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5), tokenizer,
             tmp_path)


def test_run_clm_pretrains_our_gpt_on(saved, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(saved / "gpt", use_fast=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(saved / "gpt")
    ids = tokenizer("".join(TEXTS))["input_ids"]
    block = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    rows = [{"input_ids": ids[start:start + block], "labels": ids[start:start + block]}
            for start in range(0, len(ids) - block, block)]
    one_step(model, rows, transformers.default_data_collator, tokenizer, tmp_path)


ASK = """
import json, sys, torch, transformers
texts, answers = json.loads(sys.argv[1]), {"version": transformers.__version__}
for directory, auto in json.loads(sys.argv[2]):
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    ids = tokenizer(texts, truncation=True)["input_ids"]
    model = getattr(transformers, auto).from_pretrained(directory).eval()
    with torch.no_grad():
        answers[directory] = [ids, [model(torch.tensor([row])).logits[0].tolist() for row in ids],
                              tokenizer.model_max_length, [tokenizer.decode(row) for row in ids]]
print(json.dumps(answers))
"""


def test_transformers_4_gives_the_same_ids_and_logits(saved):
    """Ours of transformers' own classes; the pooled ones are written for transformers 5."""
    other = os.environ.get("TRANSFORMERS_4")
    if not other:
        pytest.skip("TRANSFORMERS_4 names no Python with transformers 4")
    asked = [(str(saved / name), f"AutoModelFor{auto}") for name, auto in (
        ("bert", "MaskedLM"), ("gpt", "CausalLM"), ("bert-cls", "SequenceClassification"),
        ("gpt-cls", "SequenceClassification"))]
    answers = {}
    for python in (other, sys.executable):
        done = subprocess.run([python, "-c", ASK, json.dumps(TEXTS), json.dumps(asked)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        answers[found.pop("version").split(".")[0]] = found
    assert sorted(answers) == ["4", "5"]
    for directory, (ids, logits, longest, texts) in answers["5"].items():
        theirs = answers["4"][directory]
        assert (theirs[0], theirs[2], theirs[3]) == (ids, longest, texts) and longest == POSITIONS
        for ours, other_row in zip(logits, theirs[1], strict=True):
            np.testing.assert_allclose(other_row, ours, atol=1e-5)
