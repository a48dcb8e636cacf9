"""Schedules by their values, parameter groups by their names, AdamW and Muon by steps written out."""

import itertools
import math

import pytest
import small
import torch
from torch.testing import assert_close

from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.training.optim import Muon, OptimConfig, learning_rate_factor, make_optimizers

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


@pytest.mark.parametrize(("warmup", "total"), [(0.1, 200), (0.3, 200), (0.3, 7), (0.9, 1000)])
def test_one_cycle_is_torchs(warmup, total):
    """torch counts to `total` − 1, and rises for `pct_start` · total − 1 steps of these."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3.0, total_steps=total, cycle_momentum=False,
                                                    pct_start=(warmup * (total - 1) + 1) / total)
    config = OptimConfig(lr_scheduler_type="one_cycle", warmup_ratio=warmup)
    for step in range(total):
        factor = learning_rate_factor(config, step / (total - 1))
        assert 3 * factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12), step
        optimizer.step()
        if step < total - 1:
            scheduler.step()


def test_one_cycle_rises_once_and_falls_once():
    config = OptimConfig(lr_scheduler_type="one_cycle", warmup_ratio=0.3)
    factors = [learning_rate_factor(config, step / 1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 25) and factors[300] == 1 and factors[-1] == pytest.approx(1 / 25e4)
    assert sorted(factors[:301]) == factors[:301] and sorted(factors[300:], reverse=True) == factors[300:]
    assert max(abs(a - b) for a, b in itertools.pairwise(factors)) < 0.0055, "a jump"


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "wsd", "one_cycle"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_schedule_without_and_with_nothing_but_warmup(kind, warmup):
    config = OptimConfig(lr_scheduler_type=kind, warmup_ratio=warmup)
    cosine = (1 + math.cos(math.pi / 4)) / 2
    if kind == "one_cycle":
        first, last = 1 / 25, 1 / 25e4
        start, quarter = (first, first + (1 - first) * (1 - cosine)) if warmup else (1, last + (1 - last) * cosine)
    else:
        start, quarter = (0, 0.25) if warmup else (1, {"linear": 0.75, "cosine": cosine, "constant": 1, "wsd": 1}[kind])
    assert learning_rate_factor(config, 0) == pytest.approx(start)
    assert learning_rate_factor(config, 0.25) == pytest.approx(quarter)


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


def random_matrices(shapes, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def steps(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], numbers: range, split: int = 1,
          skip: tuple = ()) -> None:
    """Rates vary; parameter 1 has no gradient at the steps in `skip`. split: each gradient is given as so many."""
    for number in numbers:
        optimizer.param_groups[0]["lr"] = 0.02 / (1 + number)
        whole = random_matrices([(*parameter.shape[:1], split * parameter.shape[1])
                                 for parameter in parameters[::split]], 100 + number)
        gradients = [part for gradient in whole for part in gradient.chunk(split, 1)]
        for index, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            parameter.grad = None if index == 1 and number in skip else 0.1 * gradient.clone()
        optimizer.step()


MUON = {"lr": 0.02, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
SHAPES = [(16, 48), (48, 16), (16, 16), (16, 48), (32, 32), (1, 8), (48, 16), (8, 1), (5, 7)]


def assert_same_change(found: torch.Tensor, expected: torch.Tensor, before: torch.Tensor) -> None:
    """To the rounding of bf16: a product of many matrices may be summed in another order than one of two."""
    assert (expected - before).norm() > 1e-3 * before.norm()
    assert (found - expected).norm() < 0.01 * (expected - before).norm()


@pytest.mark.parametrize("settings", [{"momentum": 0.95}, {"momentum": 0.8, "nesterov": False}, {"ns_steps": 3}])
def test_muon_is_torchs(settings):
    """Though all matrices of a shape, and those of its transpose, are taken at once."""
    found, expected = ([torch.nn.Parameter(matrix) for matrix in random_matrices(SHAPES, 0)] for _ in range(2))
    ours = Muon(found, product_dtype=torch.bfloat16, **MUON, **settings)
    theirs = torch.optim.Muon(expected, **MUON, **settings)
    steps(ours, found, range(4), skip=(1,))
    steps(theirs, expected, range(4), skip=(1,))
    for mine, other, before in zip(found, expected, random_matrices(SHAPES, 0), strict=True):
        assert_same_change(mine.detach(), other.detach(), before)
        assert torch.equal(ours.state[mine]["momentum_buffer"], theirs.state[other]["momentum_buffer"])


def test_muon_in_fp32_is_muon():
    """bf16 has three digits, which is enough for a direction; more of them change it little."""
    found, rounded = ([torch.nn.Parameter(matrix) for matrix in random_matrices(SHAPES, 0)] for _ in range(2))
    for parameters, dtype in ((found, torch.float32), (rounded, torch.bfloat16)):
        steps(Muon(parameters, product_dtype=dtype, **MUON), parameters, range(4))
    for mine, other, before in zip(found, rounded, random_matrices(SHAPES, 0), strict=True):
        assert not torch.equal(mine, other)
        assert (mine - other).norm() < 0.03 * (other - before).norm()


@pytest.mark.parametrize("settings", [{"momentum": 0.95}, {"momentum": 0.8, "nesterov": False}])
def test_muon_takes_queries_keys_and_values_apart(settings):
    whole = random_matrices([(16, 48), (16, 48)], 0)
    joint = [torch.nn.Parameter(matrix.clone()) for matrix in whole]
    apart = [torch.nn.Parameter(part.clone()) for matrix in whole for part in matrix.chunk(3, 1)]
    together = [torch.nn.Parameter(matrix.clone()) for matrix in whole]
    steps(Muon([{"params": joint, "maps": 3}], **MUON, **settings), joint, range(4))
    steps(torch.optim.Muon(apart, **MUON, **settings), apart, range(4), split=3)
    steps(torch.optim.Muon(together, **MUON, **settings), together, range(4))
    for index, before in enumerate(whole):
        expected = torch.cat([part.detach() for part in apart[3 * index:3 * index + 3]], 1)
        assert_same_change(joint[index].detach(), expected, before)
        with pytest.raises(AssertionError):  # one map or three is not the same here
            assert_same_change(together[index].detach(), expected, before)


def test_muon_takes_gpts_joint_matrices_as_three():
    _, muon = make_optimizers(GPT, OptimConfig(optimizer="muon"))
    names = {id(parameter): name for name, parameter in GPT.named_parameters()}
    maps = {names[id(parameter)]: group["maps"] for group in muon.param_groups for parameter in group["params"]}
    assert {name for name, number in maps.items() if number == 3} == {
        f"transformer.h.{layer}.attn.c_attn.weight" for layer in range(2)}
    assert set(maps.values()) == {1, 3}
    _, muon = make_optimizers(BERT, OptimConfig(optimizer="muon"))
    assert [group["maps"] for group in muon.param_groups] == [1]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_optimizers_continue_from_their_state(kind, tmp_path):
    """Saved after two steps and loaded into new ones: the third and fourth are those of an unbroken run."""
    config, models = OptimConfig(optimizer=kind, muon_momentum=0.9), []
    for broken in (False, True):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(small.gpt_config(50))
        optimizers = make_optimizers(model, config)
        for step in range(4):
            if broken and step == 2:
                torch.save([optimizer.state_dict() for optimizer in optimizers], tmp_path / "optimizer.pt")
                optimizers = make_optimizers(model, config)
                for optimizer, state in zip(optimizers, torch.load(tmp_path / "optimizer.pt", weights_only=True),
                                            strict=True):
                    optimizer.load_state_dict(state)
            for parameter, gradient in zip(model.parameters(), random_matrices(
                    [parameter.shape for parameter in model.parameters()], step), strict=True):
                parameter.grad = gradient
            for optimizer in optimizers:
                optimizer.step()
        models.append(model.state_dict())
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())
