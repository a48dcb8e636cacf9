"""Every parameter's gradient, compiled against uncompiled: each family of models, number format and way to take logits.

torch 2.11 compiled the loss to one without gradients, and no other test noticed.
"""

import shutil
import sys
from collections.abc import Callable, Iterator

import pytest
import small
import torch
from torch._dynamo.utils import counters
from transformers import PreTrainedConfig, PreTrainedModel

from toolkit.data.bert import IGNORED
from toolkit.models import layers, loss
from toolkit.models.bert import BertForPreTraining
from toolkit.models.gpt import GPT2LMHeadModel
from toolkit.models.series import SeriesConfig, SeriesForClassification, SeriesForForecasting, SeriesForMaskedPatches
from toolkit.models.text import TextConfig, TextForClassification
from toolkit.training.precision import ImplConfig, Precision, choose

VOCABULARY, ROWS, LENGTH, CLASSES = 90, 4, 12, 3
assert VOCABULARY % 64, "nothing is padded within the loss"

Batch = dict[str, torch.Tensor]
Made = tuple[PreTrainedModel, Batch]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
DEVICES = [pytest.param("cpu", marks=needs_compiler),
           pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Without what earlier tests compiled: after eight versions of one `forward` torch compiles no more."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def draw(*shape: int, below: int) -> torch.Tensor:
    return torch.randint(1, below, shape)


def padding() -> torch.Tensor:
    """(ROWS, LENGTH): row i lacks its last i tokens."""
    return (torch.arange(LENGTH) < LENGTH - torch.arange(ROWS)[:, None]).long()


def one_layer(config: PreTrainedConfig) -> PreTrainedConfig:
    """Compilation takes its time for each."""
    config.num_hidden_layers = 1
    return config


def bert(dropout: float = 0.0) -> Made:
    """Of two layers: the last one is another."""
    labels = draw(ROWS, 6, below=VOCABULARY)
    labels[::2, 5] = IGNORED
    return BertForPreTraining(small.bert_config(VOCABULARY, dropout)), {
        "input_ids": draw(ROWS, LENGTH, below=VOCABULARY), "token_type_ids": draw(ROWS, LENGTH, below=2),
        "attention_mask": padding(), "masked_positions": draw(ROWS, 6, below=7), "masked_labels": labels,
        "next_sentence_label": torch.arange(ROWS) % 2}


def gpt(dropout: float = 0.0) -> Made:
    labels = draw(ROWS, LENGTH, below=VOCABULARY)
    labels[::2, :5] = IGNORED
    return GPT2LMHeadModel(one_layer(small.gpt_config(VOCABULARY, dropout))), {
        "input_ids": draw(ROWS, LENGTH, below=VOCABULARY), "shifted_labels": labels}


def text(pooling: str = "layers", backbone: str = "bert", length: int = LENGTH) -> Made:
    """length: more than 64 is read in several windows."""
    shape = one_layer(small.bert_config(VOCABULARY) if backbone == "bert" else small.gpt_config(VOCABULARY))
    shape.pad_token_id = 0
    config = TextConfig(backbone_config=shape, pooling=pooling, dropout=0.0, num_labels=CLASSES)
    mask = padding() if length == LENGTH else torch.ones(ROWS, length, dtype=torch.long)
    return TextForClassification(config), {"input_ids": draw(ROWS, length, below=VOCABULARY), "attention_mask": mask,
                                           "labels": torch.arange(ROWS) % CLASSES}


def series(kind: type[PreTrainedModel], **settings) -> Made:
    """Of 2 channels and 40 values, of which some were not observed."""
    config = SeriesConfig(**{"backbone_config": one_layer(small.bert_config(1)), "num_channels": 2, "patch_length": 8,
                             "context_length": 40, "horizon": 4, "num_labels": CLASSES, "embedding_std": 0.3,
                             **settings})
    batch = {"values": torch.randn(ROWS, 2, 40), "observed": torch.rand(ROWS, 2, 40) > 0.1}
    batch |= {SeriesForClassification: {"labels": torch.arange(ROWS) % CLASSES},
              SeriesForForecasting: {"future": torch.randn(ROWS, 2, 4)},
              SeriesForMaskedPatches: {"masked": torch.rand(ROWS, 2, 40) > 0.6}}[kind]
    return kind(config), batch


def made(make: Callable[..., Made], device: str, **settings) -> Made:
    """The model in training mode, its weights away from initial values, whose gradients would be tiny; a batch."""
    torch.manual_seed(0)
    model, batch = make(**settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.to(device).train(), {name: value.to(device) for name, value in batch.items()}


def gradients(model: PreTrainedModel, batch: Batch, precision: Precision) -> dict[str, torch.Tensor]:
    """Of the loss a row."""
    model.zero_grad()
    with precision.autocast():
        out = model(**batch)
    total = out.loss if hasattr(out, "loss") else sum(out.values()) / ROWS
    total.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def norm(found: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([gradient.norm() for gradient in found.values()]).norm())


def both(make: Callable[..., Made], device: str, settings: dict | None = None, **impl
         ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Gradients compiled and uncompiled, every one of the model's."""
    model, batch = made(make, device, **settings or {})
    precision = choose(ImplConfig(compile=True, **impl), torch.device(device))
    precision.prepare(model)
    with precision.uncompiled():
        expected = gradients(model, batch, precision)
    assert not counters["stats"]["unique_graphs"], "the reference was compiled"
    found = gradients(model, batch, precision)
    assert counters["stats"]["unique_graphs"], "nothing was compiled"
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    return found, expected


def assert_alive(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Whatever has a gradient has one compiled."""
    dead = [name for name, gradient in found.items() if not gradient.abs().max() and expected[name].abs().max()]
    assert not dead, f"no gradient when compiled: {', '.join(dead)}"


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """To 1e-4 each. (Softmax cancels a bias of attention's keys: its gradient is rounding, with no digits to hold.)"""
    assert_alive(found, expected)
    rounding = 1e-6 * norm(expected)
    for name, gradient in expected.items():
        error = float((found[name] - gradient).norm())
        assert gradient.norm() > rounding or name.endswith("key.bias"), f"{name}: the reference is empty"
        assert error <= max(1e-4 * float(gradient.norm()), rounding), f"{name}: off by {error / gradient.norm():.2g}"


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """In bf16, to 2 % of the whole gradient's norm."""
    assert_alive(found, expected)
    error = norm({name: found[name] - gradient for name, gradient in expected.items()})
    assert error <= 0.02 * norm(expected), f"off by {error / norm(expected):.2g}"


@pytest.fixture
def in_pieces(monkeypatch) -> None:
    """Logits of 20 rows at a time: BERT's 24 rows in two pieces and GPT's 48 in three, the last ones smaller."""
    for kind in ("cpu", "cuda"):
        monkeypatch.setitem(loss._LOGITS_AT_ONCE, kind, 20 * 128)


@pytest.fixture
def padded(monkeypatch) -> None:
    """The vocabulary made up to a multiple of 64 on a CPU, too."""
    monkeypatch.setitem(loss._COLUMNS, "cpu", 64)


slow = pytest.mark.slow


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [bert, pytest.param(gpt, marks=slow)])
def test_logits_in_one_piece(make, device):
    assert_equal(*both(make, device, dtype="fp32"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [pytest.param(bert, marks=slow), gpt])
@pytest.mark.usefixtures("in_pieces", "padded")
def test_logits_in_pieces_of_a_padded_vocabulary(make, device):
    assert_equal(*both(make, device, dtype="fp32"))


@slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [bert, gpt])
@pytest.mark.parametrize("fixture", ["in_pieces", "padded"])
def test_either_alone(request, fixture, make, device):
    request.getfixturevalue(fixture)
    assert_equal(*both(make, device, dtype="fp32"))


@slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [bert, gpt])
@pytest.mark.parametrize("impl", [{"layers": "transformers"}, {"attention": "sdpa"}, {"gradient_checkpointing": True}],
                         ids=["transformers", "sdpa", "checkpointing"])
def test_computed_otherwise(make, device, impl):
    assert_equal(*both(make, device, dtype="fp32", **impl))


@slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [bert, gpt])
@pytest.mark.parametrize("layers", ["auto", "transformers"])
def test_bf16(make, device, layers):
    assert_close(*both(make, device, dtype="bf16", layers=layers))


@slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", [bert, gpt])
@pytest.mark.usefixtures("in_pieces", "padded")
def test_bf16_in_pieces_of_a_padded_vocabulary(make, device):
    assert_close(*both(make, device, dtype="bf16"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "settings"), [
    (SeriesForClassification, {}),
    pytest.param(SeriesForClassification, {"pooling": "layers", "embedding": "convolution"}, marks=slow),
    pytest.param(SeriesForClassification, {"backbone_config": one_layer(small.gpt_config(1))}, marks=slow),
    pytest.param(SeriesForForecasting, {"channels": "independent", "instance_norm": True}, marks=slow),
    pytest.param(SeriesForMaskedPatches, {"instance_norm": True}, marks=slow)])
def test_series(kind, settings, device):
    assert_equal(*both(series, device, {"kind": kind, **settings}, dtype="fp32"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("settings", [
    {"pooling": "layers"}, pytest.param({"pooling": "mean", "backbone": "gpt"}, marks=slow),
    pytest.param({"pooling": "max"}, marks=slow),
    pytest.param({"pooling": "layers", "length": 150}, marks=slow)])
def test_text(settings, device):
    assert_equal(*both(text, device, settings, dtype="fp32"))


def our_functions() -> list[type[torch.autograd.Function]]:
    """Every autograd function of the toolkit's models."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("toolkit.")]
    return [value for module in modules for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, torch.autograd.Function)
            and value.__module__ == module.__name__]


@pytest.mark.usefixtures("in_pieces", "padded")
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_nothing_that_a_function_returns_was_updated_in_place(monkeypatch, dtype, dropout):
    """torch 2.11 compiles such a tensor to one without a gradient. A tensor counts what was written into it."""
    versions: dict[type, set[int]] = {}

    def counted(function: type, forward: Callable) -> Callable:
        def wrapped(*args):
            out = forward(*args)
            tensors = out if isinstance(out, tuple) else (out,)
            versions.setdefault(function, set()).update(tensor._version for tensor in tensors)
            return out
        return wrapped

    for function in our_functions():
        monkeypatch.setattr(function, "forward", staticmethod(counted(function, function.forward)))
    for make in (bert, gpt):
        model, batch = made(make, "cpu", dropout=dropout)
        layers.use_fused_layers(model)
        for training in (True, False):
            precision = choose(ImplConfig(dtype=dtype, compile=False), torch.device("cpu"))
            with precision.autocast(), torch.set_grad_enabled(training):
                model.train(training)(**batch)
    assert versions == {function: {0} for function in our_functions()} and len(versions) >= 3
