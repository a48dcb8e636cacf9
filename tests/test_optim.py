"""Schedules by their values, parameter groups by their names, AdamW and Muon by steps written out."""

import itertools
import math

import pytest
import small
import torch
from torch.testing import assert_close

from toolkit.models.bert import BertForPreTraining
from toolkit.models.gpt import GPT2LMHeadModel
from toolkit.training.optim import OptimConfig, learning_rate_factor, make_optimizers

BERT = BertForPreTraining(small.bert_config(50))
GPT = GPT2LMHeadModel(small.gpt_config(50))


@pytest.mark.parametrize(("kind", "middle", "three_quarters", "end"), [
    ("linear", 0.5 / 0.9, 0.25 / 0.9, 0.0),
    ("cosine", (1 + math.cos(math.pi * 0.4 / 0.9)) / 2, (1 + math.cos(math.pi * 0.65 / 0.9)) / 2, 0.0),
    ("constant", 1.0, 1.0, 1.0),
    ("wsd", 1.0, 0.625, 0.0),
])
def test_schedule(kind, middle, three_quarters, end):
    config = OptimConfig(lr_scheduler_type=kind, warmup_ratio=0.1, decay_ratio=0.4)
    expected = {0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.5: middle, 0.75: three_quarters, 1: end}
    for progress, factor in expected.items():
        assert learning_rate_factor(config, progress) == pytest.approx(factor, abs=1e-12), progress
    factors = [learning_rate_factor(config, step / 1000) for step in range(1001)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert max(abs(a - b) for a, b in itertools.pairwise(factors)) < 0.011, "a jump"
    assert sorted(factors[100:], reverse=True) == factors[100:], "it rises after warm-up"


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_schedule_without_and_with_nothing_but_warmup(kind, warmup):
    config = OptimConfig(lr_scheduler_type=kind, warmup_ratio=warmup)
    assert learning_rate_factor(config, 0) == (0 if warmup else 1)
    assert learning_rate_factor(config, 0.25) == (0.25 if warmup else pytest.approx({
        "linear": 0.75, "cosine": (1 + math.cos(math.pi / 4)) / 2, "constant": 1, "wsd": 1}[kind]))


def test_wsd_without_decay_is_finite():
    config = OptimConfig(lr_scheduler_type="wsd", decay_ratio=0.0)  # bug found 3: ZeroDivisionError
    assert learning_rate_factor(config, 0.5) == 1


def groups(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, tuple[str, dict]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert names[id(parameter)] not in found, "a parameter in two groups"
                found[names[id(parameter)]] = (type(optimizer).__name__, group)
    return found


@pytest.mark.parametrize("model", [BERT, GPT], ids=["bert", "gpt"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_every_parameter_is_optimised_once_and_vectors_do_not_decay(model, kind):
    config = OptimConfig(optimizer=kind, learning_rate=2e-3, muon_learning_rate=3e-2, weight_decay=0.3)
    found = groups(model, make_optimizers(model, config))
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        optimizer, group = found[name]
        plain = name.endswith(".bias") or "LayerNorm" in name or ".ln_" in name
        assert plain == (parameter.ndim < 2), "the reference below is by name, not by shape"
        assert group["weight_decay"] == (0.0 if plain else 0.3), name
        assert group["lr"] == group["initial_lr"] == (3e-2 if optimizer == "Muon" else 2e-3), name


@pytest.mark.parametrize(("model", "matrices"), [
    (BERT, {f"bert.encoder.layer.{layer}.{name}.weight" for layer in range(2) for name in (
        "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
        "intermediate.dense", "output.dense")}),
    (GPT, {f"transformer.h.{layer}.{name}.weight" for layer in range(2)
           for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}),
], ids=["bert", "gpt"])
def test_muon_takes_the_hidden_matrices_alone(model, matrices):
    found = groups(model, make_optimizers(model, OptimConfig(optimizer="muon")))
    assert {name for name, (optimizer, _) in found.items() if optimizer == "Muon"} == matrices
    assert {optimizer for optimizer, _ in found.values()} == {"Muon", "AdamW"}
    found = groups(model, make_optimizers(model, OptimConfig(optimizer="adamw")))
    assert {optimizer for optimizer, _ in found.values()} == {"AdamW"}


def test_frozen_parameters_are_left_out():
    model = BertForPreTraining(small.bert_config(50))
    model.bert.pooler.requires_grad_(False)
    for kind in ("adamw", "muon"):
        found = groups(model, make_optimizers(model, OptimConfig(optimizer=kind)))
        assert not [name for name in found if "pooler" in name] and len(found) > 20


class Layered(torch.nn.Module):
    """One matrix that Muon would take, one it would not, one vector."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(6, 4))])
        self.encoder = torch.nn.Module()
        self.encoder.layer = torch.nn.ModuleList([torch.nn.Linear(6, 4)])
        self.head = torch.nn.Linear(4, 3)


def test_adamw_steps_are_loshchilov_and_hutters():
    model, config = Layered().double(), OptimConfig(learning_rate=0.01, weight_decay=0.2, adam_epsilon=1e-3)
    (optimizer,) = make_optimizers(model, config)
    expected = {name: (p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p))
                for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    for step, rate in enumerate((0.01, 0.005, 0.02, 0.0), 1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
            weight, first, second = expected[name]
            if parameter.ndim >= 2:
                weight = weight - rate * 0.2 * weight
            first = 0.9 * first + 0.1 * parameter.grad
            second = 0.98 * second + 0.02 * parameter.grad**2
            weight = weight - rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.98**step)).sqrt() + 1e-3)
            expected[name] = (weight, first, second)
        optimizer.step()
        for name, parameter in model.named_parameters():
            assert_close(parameter.detach(), expected[name][0], rtol=1e-9, atol=1e-12)


def test_muon_steps_are_orthogonal_and_of_adamws_size():
    """Newton–Schulz brings the singular values near 1; times 0.2 √max(shape) the update has root mean square 0.2."""
    model = Layered()
    _, optimizer = make_optimizers(model, OptimConfig(optimizer="muon", muon_learning_rate=0.5, weight_decay=0.1))
    weight = model.encoder.layer[0].weight
    before = weight.detach().clone()
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    optimizer.step()
    update = ((1 - 0.5 * 0.1) * before - weight.detach()) / 0.5
    singular = torch.linalg.svdvals(update) / (0.2 * math.sqrt(6))
    assert singular.min() > 0.6 and singular.max() < 1.3
    left, _, right = torch.linalg.svd(weight.grad, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(update.flatten(), (left @ right).flatten(), dim=0)
    assert cosine > 0.97
