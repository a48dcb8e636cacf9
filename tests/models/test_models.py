"""The cheaper heads against transformers' own classes: losses, every gradient, and checkpoints that need no toolkit."""

import json
import subprocess
import sys

import pytest
import small
import torch
import transformers
from small import full_labels
from torch.testing import assert_close

from toolkit.data.batches import IGNORED
from toolkit.models import cross_entropy
from toolkit.models.cross_entropy import linear_cross_entropy
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.tasks.causal_lm import GptPretraining, SeriesPretraining
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, choose

ROWS = range(12)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return small.bert_task(small.small_data(tmp_path_factory.mktemp("bert"), "wordpiece"))


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    return small.gpt_task(small.small_data(tmp_path_factory.mktemp("gpt"), "bytes"))


def plain_bert(task) -> transformers.BertForPreTraining:
    model = transformers.BertForPreTraining(task.model.config)
    model.load_state_dict(task.model.state_dict())
    return model


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None and gradient.abs().max() > 0, f"{name}: the reference is empty"
        assert_close(found[name], gradient, rtol=1e-4, atol=max(1e-5 * float(gradient.abs().max()), 1e-8),
                     msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masked_only_head_is_transformers_bert(bert, attention):
    batch = to_device(as_tensors(bert.batch(0, ROWS)), torch.device("cpu"))
    counts = bert.counts(bert.batch(0, ROWS))
    used = (batch["masked_labels"] != IGNORED).sum(1)
    assert used.min() < used.max(), "all rows predict the same number: short rows are not tested"
    reference = plain_bert(bert)
    for model in (bert.model, reference):
        model.set_attn_implementation(attention)
        model.train()
    inputs = {key: batch[key] for key in ("input_ids", "token_type_ids", "attention_mask")}
    expected = reference(**inputs, labels=full_labels(batch), next_sentence_label=batch["next_sentence_label"])
    sums = bert.losses(bert.model, batch)
    loss = sums["mlm"] / counts["mlm"] + sums["nsp"] / counts["nsp"]
    assert_close(loss, expected.loss, rtol=1e-6, atol=1e-6)
    found = gradients(bert.model, loss)
    expected_gradients = gradients(reference, expected.loss)
    # Attention keys have a bias that softmax cancels: its gradient is rounding, in the reference too.
    for name in list(expected_gradients):
        if name.endswith("attention.self.key.bias"):
            assert expected_gradients.pop(name).abs().max() < 1e-7 and found.pop(name).abs().max() < 1e-7
    assert_same_gradients(found, expected_gradients)


def test_masked_only_head_counts_what_is_right(bert):
    batch = to_device(as_tensors(bert.batch(1, ROWS)), torch.device("cpu"))
    reference = plain_bert(bert).eval()
    bert.model.eval()
    with torch.no_grad():
        # A head that knows the answers of half of the rows: otherwise nothing would be right.
        sums = bert.losses(bert.model, batch)
        out = reference(batch["input_ids"], token_type_ids=batch["token_type_ids"],
                        attention_mask=batch["attention_mask"])
        guesses = out.prediction_logits.argmax(-1)
        batch["masked_labels"][: len(ROWS) // 2] = torch.where(
            batch["masked_labels"] == IGNORED, IGNORED, guesses.gather(1, batch["masked_positions"]))[: len(ROWS) // 2]
        labels = full_labels(batch)
        sums = bert.losses(bert.model, batch)
    right = int((guesses == labels)[labels != IGNORED].sum())
    assert right >= 6 and int(sums["mlm_correct"]) == right
    relation = out.seq_relationship_logits.argmax(-1) == batch["next_sentence_label"]
    assert int(sums["nsp_correct"]) == int(relation.sum())


def test_without_next_sentences_the_loss_is_masked_lm_alone(bert):
    batch = to_device(as_tensors(bert.batch(0, ROWS)), torch.device("cpu"))
    del batch["next_sentence_label"]
    sums = bert.model.eval()(**batch)
    assert sums.keys() == {"mlm", "mlm_correct"}
    logits = plain_bert(bert).eval()(batch["input_ids"], token_type_ids=batch["token_type_ids"],
                                     attention_mask=batch["attention_mask"]).prediction_logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), full_labels(batch).flatten(), reduction="sum")
    assert_close(sums["mlm"], expected, rtol=1e-5, atol=1e-4)


def test_series_as_tokens_have_no_bytes_to_count_bits_of(gpt):
    accelerator = make_accelerator()
    precision = choose(ImplConfig(dtype="fp32"), accelerator.device)
    with torch.inference_mode():
        of_text, of_series = (kind(gpt.model, gpt.data, 24, 32, 7).evaluate(gpt.model.eval(), accelerator, precision)
                              for kind in (GptPretraining, SeriesPretraining))
    assert of_text.pop("bytes") and of_text.pop("bits_per_byte") and of_series == of_text


@pytest.mark.parametrize("uneven", [False, True])
def test_gpt_is_transformers_gpt2(gpt, uneven):
    batch = gpt.batches.batch(0, ROWS)
    # transformers shifts by itself: one more token, each labelled with its own id.
    whole = torch.from_numpy(small.np.concatenate([batch["input_ids"], batch["labels"][:, -1:]], 1))
    labels = whole.clone()
    if uneven:
        batch = gpt.batch(0, ROWS)
        labels[:, 1:] = torch.from_numpy(batch["labels"])
        predicted = (batch["labels"] != IGNORED).sum(1)
        assert predicted.min() < predicted.max()
    reference = transformers.GPT2LMHeadModel(gpt.model.config)
    reference.load_state_dict(gpt.model.state_dict())
    reference.train(), gpt.model.train()
    expected = reference(whole, labels=labels).loss
    sums = gpt.losses(gpt.model, to_device(as_tensors(batch), torch.device("cpu")))
    assert sums.keys() == {"lm"}
    loss = sums["lm"] / gpt.counts(batch)["lm"]
    assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    found, expected_gradients = gradients(gpt.model, loss), gradients(reference, expected)
    assert "lm_head.weight" not in found, "the output layer is not tied"
    # Position 24 is an input to the reference alone, and predicts nothing: no gradient. Key biases: see BERT.
    width = gpt.model.config.n_embd
    for name in list(expected_gradients):
        if name.endswith("attn.c_attn.bias"):
            found[name], expected_gradients[name] = (torch.cat([grad[:width], grad[2 * width:]])
                                                     for grad in (found[name], expected_gradients[name]))
    assert_same_gradients(found, expected_gradients)


def test_without_our_arguments_forward_is_inherited(bert, gpt):
    batch = to_device(as_tensors(bert.batch(0, ROWS)), torch.device("cpu"))
    inputs = {key: batch[key] for key in ("input_ids", "token_type_ids", "attention_mask")}
    labels = full_labels(batch)
    with torch.no_grad():
        ours = bert.model.eval()(**inputs, labels=labels, next_sentence_label=batch["next_sentence_label"])
        theirs = plain_bert(bert).eval()(**inputs, labels=labels, next_sentence_label=batch["next_sentence_label"])
        assert_close(ours.loss, theirs.loss)
        assert_close(ours.prediction_logits, theirs.prediction_logits)
        reference = transformers.GPT2LMHeadModel(gpt.model.config).eval()
        reference.load_state_dict(gpt.model.state_dict())
        ids = torch.arange(20)[None]
        assert_close(gpt.model.eval()(ids, labels=ids).loss, reference(ids, labels=ids).loss)
        generated = gpt.model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
        assert torch.equal(generated, reference.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0))


_LOAD_WITHOUT_TOOLKIT = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoModelForPreTraining, AutoTokenizer
found = {}
for name, auto in (("bert", AutoModelForPreTraining), ("gpt", AutoModelForCausalLM)):
    path = f"{sys.argv[1]}/{name}"
    model, info = auto.from_pretrained(path, output_loading_info=True)
    encoded = AutoTokenizer.from_pretrained(path)("Bada fo kimu.", return_tensors="pt")
    with torch.no_grad():
        out = model(**encoded)
    logits = out.prediction_logits if name == "bert" else out.logits
    torch.save(logits, f"{sys.argv[1]}/{name}.pt")
    found[name] = {"class": type(model).__name__, "ids": encoded["input_ids"].tolist(),
                   "problems": [sorted(map(str, keys)) for keys in info.values() if keys]}
assert not [name for name in sys.modules if name.split(".")[0] == "toolkit"]
print(json.dumps(found))
"""


def test_checkpoints_load_where_the_toolkit_is_not(bert, gpt, tmp_path):
    expected = {}
    for name, task in (("bert", bert), ("gpt", gpt)):
        task.save(task.model.eval(), tmp_path / name)
        architectures = json.loads((tmp_path / name / "config.json").read_text())["architectures"]
        assert architectures == [{"bert": "BertForPreTraining", "gpt": "GPT2LMHeadModel"}[name]]
        with torch.no_grad():
            encoded = task.data.tokenizer("Bada fo kimu.", return_tensors="pt")
            out = task.model(**encoded)
        expected[name] = (encoded["input_ids"], out.prediction_logits if name == "bert" else out.logits)
    done = subprocess.run([sys.executable, "-c", _LOAD_WITHOUT_TOOLKIT, str(tmp_path)], capture_output=True, text=True,
                          timeout=100, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (ids, logits) in expected.items():
        assert found[name]["class"] == {"bert": "BertForPreTraining", "gpt": "GPT2LMHeadModel"}[name]
        assert found[name]["problems"] == [], "missing or unexpected weights"
        assert found[name]["ids"] == ids.tolist()
        assert_close(torch.load(tmp_path / f"{name}.pt"), logits, rtol=1e-5, atol=1e-6)


def test_classes_keep_transformers_names():
    assert BertForPreTraining.__name__ == transformers.BertForPreTraining.__name__
    assert issubclass(BertForPreTraining, transformers.BertForPreTraining)
    assert GPT2LMHeadModel.__name__ == transformers.GPT2LMHeadModel.__name__
    assert issubclass(GPT2LMHeadModel, transformers.GPT2LMHeadModel)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [5, 512, 1300])
def test_the_loss_taken_in_pieces_is_the_loss(with_bias, smoothing, rows, monkeypatch):
    monkeypatch.setitem(cross_entropy._LOGITS_AT_ONCE, "cpu", 500 * 30)
    torch.manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, dtype=torch.float64, requires_grad=True)
                            for shape in ((rows, 8), (30, 8), (30,)))
    labels = torch.randint(0, 30, (rows,))
    labels[::3] = -100
    if not with_bias:
        bias = None
    loss, _ = linear_cross_entropy(hidden, weight, labels, bias, smoothing)
    wanted = torch.nn.functional.cross_entropy(torch.nn.functional.linear(hidden, weight, bias), labels,
                                               ignore_index=-100, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-4, check_dtype=False)
    inputs = [hidden, weight] + [bias] * with_bias
    gradients = [torch.autograd.grad(3 * value, inputs) for value in (loss, wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, check_dtype=False)
    with torch.no_grad():
        _, correct = linear_cross_entropy(hidden, weight, labels, bias)
        right = torch.nn.functional.linear(hidden, weight, bias).argmax(1) == labels
    assert int(correct) == int(right.sum())
