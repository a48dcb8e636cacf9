"""The dead-branch check: on blocks killed in every known way, each called what it is, and on a live model."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, GPT2Config

from toolkit.analysis.dead_branches import _entropy, check, report_dead_branches
from toolkit.analysis.shuffled_patches import shuffle_patches
from toolkit.data.series.dataset import SeriesBatches, z_normalise
from toolkit.data.series.generators import cylinder_bell_funnel
from toolkit.data.series.windows import WindowBatches, standardised
from toolkit.models.series.patches import SeriesForClassification, SeriesForForecasting
from toolkit.models.small.keras_forda import BLOCKS, KerasForda, KerasFordaConfig
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification
from toolkit.models.text.classifier import TextConfig, TextForClassification
from toolkit.training.impl.distributed import make_accelerator

BERT = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                  max_position_embeddings=31, type_vocab_size=1)
GPT2 = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=31)
NAMES = ["block 1 attention", "block 1 feed-forward", "block 2 attention", "block 2 feed-forward"]


def batch_of(rows: int = 20, seed: int = 1) -> dict[str, torch.Tensor]:
    data = cylinder_bell_funnel(rows, seed)
    return {"values": torch.from_numpy(z_normalise(data.values)), "labels": torch.from_numpy(data.labels)}


def trained(model, steps: int, rate: float = 1e-3):
    """On 90 series; in place."""
    data = batch_of(30, seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    order = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        rows = torch.randperm(90, generator=order)[:32]
        loss = model(data["values"][rows], labels=data["labels"][rows]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def live_model(backbone, steps: int = 80) -> SeriesForClassification:
    torch.manual_seed(0)
    model = SeriesForClassification.from_backbone(backbone, ["c", "b", "f"], pretrained=False, patch_length=16)
    return trained(model, steps)


@pytest.fixture(scope="module")
def trained_bert():
    return live_model(BERT)


@pytest.fixture
def bert(trained_bert):
    return copy.deepcopy(trained_bert)


@pytest.fixture(scope="module")
def trained_gpt2():
    return live_model(GPT2)


@pytest.fixture
def gpt2(trained_gpt2):
    return copy.deepcopy(trained_gpt2)


def states(findings) -> dict[str, str]:
    return {branch.name: branch.state for branch in findings.branches}


def test_a_trained_model_is_alive(trained_bert, trained_gpt2):
    for model in (trained_bert, trained_gpt2):
        findings = check(model, batch_of())
        assert states(findings) == dict.fromkeys(NAMES, "alive")
        assert findings.warnings == [] and "everything is alive" in str(findings)
        assert findings.shuffle.accuracy > findings.shuffle.shuffled_accuracy + 0.1
        assert findings.examples == 60 and findings.parameters == model.num_parameters()
        attention = [branch for branch in findings.branches if "attention" in branch.name]
        assert all(len(branch.entropy) == 2 and max(branch.entropy) < 1 for branch in attention)
        json.dumps(findings.as_dict())


def test_the_model_is_left_as_it_was(bert):
    bert.train()
    bert.classifier.eval()
    bert.set_attn_implementation("sdpa")
    state, mode = copy.deepcopy(bert.state_dict()), [module.training for module in bert.modules()]
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    assert states(check(bert, batch_of())) == dict.fromkeys(NAMES, "alive"), "sdpa gives no weights, yet they are seen"
    assert torch.rand(1) == expected
    assert all(torch.equal(value, state[key]) for key, value in bert.state_dict().items())
    assert [module.training for module in bert.modules()] == mode
    assert bert.config._attn_implementation == bert.backbone.config._attn_implementation == "sdpa"
    assert all(parameter.grad is None for parameter in bert.parameters())
    assert not any(module._forward_hooks for module in bert.modules())


def test_a_branch_without_output_is_dead(bert, gpt2):
    nn.init.zeros_(bert.backbone.encoder.layer[1].attention.output.dense.weight)
    nn.init.normal_(bert.backbone.encoder.layer[1].attention.output.dense.bias)  # a constant is as dead as nothing
    findings = check(bert, batch_of())
    assert states(findings) == dict.fromkeys(NAMES, "alive") | {"block 2 attention": "dead"}
    dead = findings.branches[2]
    assert dead.variation < 1e-5 and dead.effect < 1e-5 and dead.answers_changed == 0
    assert ("block 2 attention: adds a constant, the same for every input and position; removing it changes nothing"
            in findings.warnings)
    assert "backbone.encoder.layer.1.attention.self.value.weight" in findings.without_gradient
    assert any("trained values get no gradient" in text for text in findings.warnings)
    assert "DEAD" in str(findings) and "everything is alive" not in str(findings)

    nn.init.zeros_(gpt2.backbone.h[0].mlp.c_proj.weight)
    assert states(check(gpt2, batch_of())) == dict.fromkeys(NAMES, "alive") | {"block 1 feed-forward": "dead"}


def test_attention_without_scores_is_a_mean(bert, gpt2):
    nn.init.zeros_(bert.backbone.encoder.layer[0].attention.self.query.weight)
    nn.init.zeros_(bert.backbone.encoder.layer[0].attention.self.query.bias)
    gpt2.backbone.h[1].attn.c_attn.weight.data[:, 32:64] = 0  # its keys
    gpt2.backbone.h[1].attn.c_attn.bias.data[32:64] = 0
    for model, name in ((bert, "block 1 attention"), (gpt2, "block 2 attention")):
        findings = check(model, batch_of())
        assert states(findings) == dict.fromkeys(NAMES, "alive") | {name: "mean"}
        branch = next(branch for branch in findings.branches if branch.name == name)
        assert branch.entropy == pytest.approx((1, 1), abs=1e-5)
        assert any("weighs all positions alike" in text for text in findings.warnings)


class Positions(nn.Module):
    """In the place of an attention: what it gives is known before any input is."""

    def __init__(self, width: int):
        super().__init__()
        self.states = nn.Parameter(torch.randn(31, width))

    def forward(self, hidden_states, *args, **kwargs):
        return self.states[:hidden_states.shape[1]].expand_as(hidden_states), None


def test_what_is_the_same_for_every_input_only_tells_positions(bert):
    bert.backbone.encoder.layer[0].attention.self = Positions(32)
    findings = check(bert, batch_of())
    branch = findings.branches[0]
    assert branch.state == "same" and branch.variation > 0.1 and branch.across_inputs < 1e-5
    assert any("the same to every input" in text for text in findings.warnings)


def test_what_no_answer_depends_on_is_idle(bert):
    nn.init.zeros_(bert.classifier.weight)
    findings = check(bert, batch_of())
    assert states(findings) == dict.fromkeys(NAMES, "idle")
    assert any("on which no answer depends" in text for text in findings.warnings)
    assert "shuffling the patches changes no answer: their order does not matter to the model" in findings.warnings


@pytest.mark.parametrize("norm_first", [True, False])
def test_the_keras_example_is_dead(norm_first):
    torch.manual_seed(0)
    model = trained(KerasForda(KerasFordaConfig(length=128, num_labels=3, norm_first=norm_first)), steps=4)
    batch = {name: tensor[:16] for name, tensor in batch_of().items()}
    findings = check(model, batch)
    assert len(findings.branches) == 2 * BLOCKS and set(states(findings).values()) == {"dead"}
    assert len(findings.size_one_norms) == 2 * BLOCKS
    assert any("normalisation over an axis of size 1" in text for text in findings.warnings)
    queries = [name for name in findings.without_gradient if "query" in name]
    assert len(queries) == 2 * BLOCKS if norm_first else queries
    assert not any(name.startswith("mlp") for name in findings.without_gradient), "that part lives"
    for branch in findings.branches:
        if norm_first and "attention" in branch.name:
            assert branch.entropy == pytest.approx([1] * 4, abs=1e-5), "of a constant, attention is uniform"


def test_parameters_without_gradient_are_named(bert):
    bert.forgotten = nn.Linear(3, 5)
    bert.backbone.encoder.layer[0].requires_grad_(False)  # frozen on purpose: not trained, not counted
    findings = check(bert, batch_of())
    assert findings.without_gradient == {"forgotten.weight": 15, "forgotten.bias": 5}
    assert findings.parameters == sum(p.numel() for p in bert.parameters() if p.requires_grad)
    assert any("forgotten.weight, forgotten.bias: 20 of" in text for text in findings.warnings)


def test_a_model_that_is_certain_and_right_still_has_gradients(bert):
    """The loss would have none; what is asked is whether a parameter can move the answers."""
    bert.classifier.weight.data.mul_(1e4)
    assert check(bert, batch_of()).without_gradient == {}


def test_norms_over_one_number_are_found_and_others_are_not():
    model = nn.ModuleDict({"one": nn.LayerNorm(1), "wide": nn.LayerNorm(8), "square": nn.LayerNorm((1, 1)),
                           "batch": nn.BatchNorm1d(1), "rms": nn.RMSNorm(1)})
    from toolkit.analysis.dead_branches import _size_one_norms
    assert _size_one_norms(model) == ["one", "square", "rms"]


def test_entropy_is_a_share_of_the_uniforms():
    uniform, sharp = torch.full((4,), 0.25), torch.tensor([0, 1.0, 0, 0])
    half = torch.tensor([0.5, 0.5, 0, 0])  # of two keys it may see: as even as can be
    skewed = torch.tensor([0.9, 0.1, 0, 0])
    weights = torch.stack([uniform, sharp, half, skewed]).view(1, 4, 1, 4)
    of_skewed = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)
    entropy = _entropy(weights)
    assert entropy[0] == pytest.approx(1) and entropy[2] == pytest.approx(1)
    assert entropy[3] == pytest.approx(of_skewed)
    assert entropy[1] == 0
    assert _entropy(sharp.view(1, 1, 1, 4)) is None, "a single key leaves no choice"


def test_recurrent_layers():
    torch.manual_seed(0)
    config = RecurrentConfig(patch_length=8, hidden_size=16, num_labels=3, attention="additive", bidirectional=True)
    model = trained(RecurrentForClassification(config), 30)
    findings = check(model, batch_of())
    assert states(findings) == {"recurrent layer forwards": "alive", "recurrent layer backwards": "alive"}
    assert 0 < findings.branches[0].entropy[0] < 1
    for name, weights in model.forwards.named_parameters():
        if "ih" in name:
            weights.data[:, :-1] = 0  # a bias is left, and a state that goes its own way
    assert states(check(model, batch_of())) == {"recurrent layer forwards": "same",
                                                "recurrent layer backwards": "alive"}
    for weights in model.forwards.parameters():
        nn.init.zeros_(weights)
    assert states(check(model, batch_of()))["recurrent layer forwards"] == "dead"


def test_texts():
    torch.manual_seed(0)
    backbone = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=64, max_position_embeddings=16)
    model = TextForClassification(TextConfig(backbone_config=backbone, num_labels=3))
    ids = torch.randint(1, 50, (8, 12), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(12) < torch.tensor([12, 12, 5, 7, 3, 12, 8, 9])[:, None]).long()
    findings = check(model, {"input_ids": ids, "attention_mask": mask, "labels": torch.zeros(8, dtype=torch.long)})
    assert findings.shuffle is None and len(findings.branches) == 2
    assert findings.branches[0].entropy and findings.branches[0].state != "dead"


def waves(rows: int = 48, seed: int = 1) -> dict[str, torch.Tensor]:
    """Two cycles each, of any phase and of one of three frequencies, and the quarter of a cycle that follows."""
    random = np.random.default_rng(seed)
    t = np.arange(48) * random.choice([0.2, 0.3, 0.4], (rows, 1)) + random.uniform(0, 6.3, (rows, 1))
    values = torch.from_numpy(np.sin(t).astype(np.float32))[:, None]
    return {"values": values[..., :40], "future": values[..., 40:]}


@pytest.fixture(scope="module")
def trained_forecaster():
    torch.manual_seed(0)
    model = SeriesForForecasting.from_backbone(BERT, pretrained=False, patch_length=8, context_length=40, horizon=8)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    for step in range(80):
        optimiser.zero_grad()
        model(**waves(seed=step + 2)).loss.backward()
        optimiser.step()
    return model.eval()


def test_a_trained_forecaster_is_alive(trained_forecaster):
    findings = check(trained_forecaster, waves())
    assert states(findings) == dict.fromkeys(NAMES, "alive") and findings.warnings == []
    assert [branch.answers_changed for branch in findings.branches] == [None] * 4
    assert all(branch.entropy and max(branch.entropy) < 1 for branch in findings.branches if "att" in branch.name)
    seen = findings.shuffle
    with torch.no_grad():
        assert seen.mse == pytest.approx(float(trained_forecaster(**waves()).loss), rel=1e-4)
    assert seen.patch_length == 8 and seen.mse < 0.1 < 0.3 < seen.shuffled_mse and 0.3 < seen.moved
    assert f"shuffled within the context: MSE {seen.mse:.3g} → {seen.shuffled_mse:.3g}" in str(findings)


def test_a_dead_block_of_a_forecaster_is_named(trained_forecaster):
    model = copy.deepcopy(trained_forecaster)
    for branch in (model.backbone.encoder.layer[0].attention, model.backbone.encoder.layer[0]):
        nn.init.zeros_(branch.output.dense.weight)
    findings = check(model, waves())
    assert states(findings) == dict(zip(NAMES, ["dead", "dead", "alive", "alive"], strict=True))
    assert ("block 1 attention, block 1 feed-forward: adds a constant, the same for every input and position; removing "
            "it changes nothing") in findings.warnings
    assert "backbone.encoder.layer.0.attention.self.value.weight" in findings.without_gradient


def test_a_forecaster_that_does_not_look_at_the_order(trained_forecaster):
    model = copy.deepcopy(trained_forecaster)
    nn.init.zeros_(model.forecast.weight)
    findings = check(model, waves())
    assert findings.shuffle.moved == 0
    assert "shuffling the patches changes no forecast: their order does not matter to the model" in findings.warnings


def test_what_was_not_observed_of_the_future_counts_for_nothing(trained_forecaster):
    batch = waves()
    seen = torch.rand(batch["future"].shape, generator=torch.Generator().manual_seed(0)) < 0.7
    spoilt = torch.where(seen, batch["future"], torch.tensor(1e4))
    found = check(trained_forecaster, {**batch, "future": spoilt, "future_observed": seen}).shuffle
    with torch.no_grad():
        errors = (trained_forecaster(batch["values"]).prediction - batch["future"]) ** 2
    assert found.mse == pytest.approx(float(errors[seen].mean()), rel=1e-4)


def test_windows_of_a_table_are_reported(trained_forecaster, capsys, tmp_path):
    data = standardised([np.sin(0.3 * np.arange(400))[None]], ["a"], [0.5, 0.75, 1.0])
    windows = WindowBatches(data, "validation", 40, 8)
    found = report_dead_branches(trained_forecaster, windows, make_accelerator(), "it", tmp_path)
    assert found["examples"] == 64 and set(found["shuffle"]) == {"patch_length", "mse", "shuffled_mse", "moved"}
    assert capsys.readouterr().out.startswith("it: all branches alive; patches shuffled: mse ")


def test_at_least_two_examples_and_at_most_sixty_four(bert):
    with pytest.raises(ValueError, match="at least 2 examples"):
        check(bert, {name: tensor[:1] for name, tensor in batch_of().items()})
    assert check(bert, batch_of(40)).examples == 64


def test_patches_are_shuffled_whole_in_an_order_of_each_series_own():
    random = np.random.default_rng(0)
    values = random.normal(size=(6, 2, 23)).astype(np.float32)
    observed = np.ones(values.shape, bool)
    observed[2, :, 13:] = False  # three whole patches and a value
    observed[3, 0, 4:6] = False  # a gap
    values[~observed] = 0
    shuffled, seen = shuffle_patches(values, 4, seed=3, observed=observed)
    again, _ = shuffle_patches(values, 4, seed=3, observed=observed)
    assert np.array_equal(shuffled, again)
    orders = set()
    for row, whole in enumerate([5, 5, 3, 5, 5, 5]):
        before = values[row, :, :4 * whole].reshape(2, whole, 4)
        after = shuffled[row, :, :4 * whole].reshape(2, whole, 4)
        order = [next(i for i in range(whole) if np.array_equal(before[:, i], after[:, place]))
                 for place in range(whole)]
        assert sorted(order) == list(range(whole)), "both channels, each patch once"
        assert np.array_equal(shuffled[row, :, 4 * whole:], values[row, :, 4 * whole:])
        assert np.array_equal(seen[row, :, :4 * whole].reshape(2, whole, 4),
                              observed[row, :, :4 * whole].reshape(2, whole, 4)[:, order])
        orders.add(tuple(order))
    assert len(orders) > 3
    assert np.array_equal(seen[2, :, 13:], observed[2, :, 13:])


def test_the_report_is_written_and_takes_series_from_everywhere(bert, capsys, tmp_path):
    data = cylinder_bell_funnel(50, seed=2)
    order = np.argsort(data.labels, kind="stable")  # as files often are: class after class
    data = type(data)(z_normalise(data.values)[order], data.labels[order], data.label_names)
    found = report_dead_branches(bert, SeriesBatches(data, 8, 0), make_accelerator(), "transformer", tmp_path)
    printed = capsys.readouterr().out.splitlines()
    said = "transformer: all branches alive; patches shuffled: "
    assert len(printed) == 1 and printed[0].startswith(said)
    report = (tmp_path / "dead-branches.txt").read_text()
    assert report.startswith("transformer, dead-branch check on 64 examples\n") and report.count(" alive ") == 4
    nn.init.zeros_(bert.backbone.encoder.layer[1].attention.output.dense.weight)
    report_dead_branches(bert, SeriesBatches(data, 8, 0), make_accelerator(), "transformer", tmp_path)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("transformer: 1 of 4 branches do nothing; ")
    assert "warning: block 2 attention: adds a constant" in printed[1] and "dead-branches.txt" in printed[-1]
    assert found["examples"] == 64 and found["warnings"] == []
    assert found["shuffle"]["accuracy"] < 1, "not of the first class alone, which it knows"
    assert found["states"] == dict.fromkeys(NAMES, "alive")
