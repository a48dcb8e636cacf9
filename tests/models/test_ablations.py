"""Ablated series classifiers: each replaces what it says and no more, at the same size, saved and loaded like any."""

import itertools

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, GPT2Config

from toolkit.models.fast_layers import use_fused_layers
from toolkit.models.series.ablations import (
    ATTENTIONS,
    AblatedBertLayer,
    AblatedGPT2Block,
    AblatedSeriesConfig,
    AblatedSeriesForClassification,
    PatchMixer,
    at_budget,
    count_parameters,
)
from toolkit.models.series.patches import SeriesConfig, SeriesForClassification
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification

BACKBONES = {
    "bert": BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                       max_position_embeddings=12),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=12)}
LENGTH = 96  # 12 patches of 8, side by side
ALL = list(itertools.product(BACKBONES, ATTENTIONS, (True, False)))


def shape_of(backbone: str, attention: str = "full", positions: bool = True, **options) -> AblatedSeriesConfig:
    return AblatedSeriesConfig(backbone_config=BACKBONES[backbone], attention=attention, positions=positions,
                               patch_length=8, patch_stride=8, num_labels=3, **options)


def model_of(*args, **options) -> AblatedSeriesForClassification:
    torch.manual_seed(0)
    return AblatedSeriesForClassification.new(shape_of(*args, **options)).eval()


def series(rows: int = 4, length: int = LENGTH) -> torch.Tensor:
    return torch.randn(rows, 1, length, generator=torch.Generator().manual_seed(1))


def some_observed(rows: int = 4) -> torch.Tensor:
    """Right padding: 12, 7, 3 and 1 patches."""
    lengths = torch.tensor([LENGTH, 56, 24, 8])[:rows]
    return (torch.arange(LENGTH) < lengths[:, None])[:, None]


def layers_of(model) -> list:
    return list(model.backbone.encoder.layer if model.config.backbone_config.model_type == "bert" else model.backbone.h)


@pytest.mark.parametrize(("backbone", "attention", "positions"), ALL)
def test_saved_and_loaded_bit_for_bit_at_the_size_of_the_whole(backbone, attention, positions, tmp_path):
    whole = count_parameters(shape_of(backbone))
    torch.manual_seed(0)
    config = at_budget(shape_of(backbone, attention, positions), whole)
    model = AblatedSeriesForClassification.new(config).eval()
    assert abs(model.num_parameters() - whole) <= 0.01 * whole
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(again) is AblatedSeriesForClassification
    assert (again.config.attention, again.config.positions) == (attention, positions)
    assert torch.equal(model(series()).logits, again(series()).logits)
    for parameter in model.parameters():
        assert not parameter.isnan().any()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_nothing_taken_out_is_the_series_classifier(backbone):
    model = model_of(backbone)
    options = {"patch_length": 8, "patch_stride": 8, "num_labels": 3}
    plain = SeriesForClassification(SeriesConfig(backbone_config=BACKBONES[backbone], **options)).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(series()).logits, model(series()).logits)
    torch.manual_seed(0)
    fresh = SeriesForClassification.from_backbone(BACKBONES[backbone], pretrained=False, **options)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True))


def without_queries(model):
    """Full attention whose scores are all 0: an independent way to the uniform mean."""
    for layer in layers_of(model):
        if hasattr(layer, "attn"):
            width = layer.attn.embed_dim
            layer.attn.c_attn.weight.data[:, :width] = 0
            layer.attn.c_attn.bias.data[:width] = 0
        else:
            layer.attention.self.query.weight.data.zero_()
            layer.attention.self.query.bias.data.zero_()
    return model


def copy_weights(source, target) -> None:
    """What the target has of the source's; GPT-2's value map out of its joint one."""
    state = source.state_dict()
    for key in [key for key in state if "c_attn" in key]:
        state[key.replace("c_attn", "value")] = state[key][..., -32:]
    for key in [key for key in state if "attn.c_proj" in key]:
        state[key.replace("c_proj", "output.0")] = state[key]
    target.load_state_dict({key: state[key] for key in target.state_dict()})


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_uniform_is_full_attention_without_scores(backbone, implementation):
    full, uniform = without_queries(model_of(backbone)), model_of(backbone, "uniform")
    copy_weights(full, uniform)
    for model in (full, uniform):
        model.set_attn_implementation(implementation)
    assert uniform._can_set_attn_implementation(), "transformers would warn of a class whose attention it cannot set"
    torch.testing.assert_close(uniform(series()).logits, full(series()).logits)
    torch.testing.assert_close(uniform(series(), some_observed()).logits, full(series(), some_observed()).logits)
    assert not torch.allclose(uniform(series(), some_observed()).logits[1:], uniform(series()).logits[1:])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_identity_sees_no_other_patch(backbone):
    model = model_of(backbone, "identity")
    values = series()
    changed = values.clone()
    changed[:, :, 16:24] += 1  # the third patch
    before, after = (model(part, output_hidden_states=True).hidden_states[-1] for part in (values, changed))
    others = [0, 1, *range(3, 12)]
    assert torch.equal(before[:, others], after[:, others]) and not torch.allclose(before[:, 2], after[:, 2])
    # a patch's own value and output maps are all that is left
    attention = layers_of(model)[0].attention if backbone == "bert" else None
    if attention:
        states = torch.randn(2, 12, 32)
        torch.testing.assert_close(attention.output.dense(attention.self(states)[0]),
                                   attention.output.dense(attention.self.value(states)))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_mixer_is_of_the_size_of_attention_and_ignores_what_was_not_observed(backbone):
    model = model_of(backbone, "mixer")
    mixer = next(module for module in model.modules() if isinstance(module, PatchMixer))
    attention = 4 * 32 * 33
    assert abs(sum(parameter.numel() for parameter in mixer.parameters()) - attention) <= 0.02 * attention
    values = series()
    changed = values.clone()
    changed[:, :, 16:24] += 1
    before, after = (model(part, output_hidden_states=True).hidden_states[-1] for part in (values, changed))
    assert not torch.isclose(before[:, 0], after[:, 0]).all(), "it mixes"
    garbage = torch.where(some_observed(), values, 100 * torch.ones(()))
    torch.testing.assert_close(model(garbage, some_observed()).logits, model(values, some_observed()).logits)
    assert torch.isfinite(model(values[..., :40]).logits).all(), "shorter series are padded"
    with pytest.raises(ValueError, match="no MLP over 400 positions has 1,088 ± 2 % parameters"):
        PatchMixer(400, 16, 0.0)


def test_without_positions_order_is_unknown():
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = series().view(4, 1, 12, 8)[:, :, order].reshape(4, 1, LENGTH)
    for positions in (True, False):
        model = model_of("bert", "full", positions)
        same = torch.allclose(model(series()).logits, model(shuffled).logits, atol=1e-5)
        assert same != positions
        assert any("position" in name for name in model.state_dict()) == positions
    assert not any("wpe" in name for name in model_of("gpt2", "full", False).state_dict())


@pytest.mark.parametrize(("backbone", "attention", "positions"), ALL)
def test_gradient_reaches_every_parameter(backbone, attention, positions):
    model = model_of(backbone, attention, positions).train()
    model(series(), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    # Softmax does not see what is added to all keys alike: BERT's key bias has no gradient but rounding's.
    assert not [name for name, parameter in model.named_parameters()
                if not name.endswith("key.bias") and (parameter.grad is None or not parameter.grad.abs().max() > 0)]


@pytest.mark.parametrize(("backbone", "attention"), list(itertools.product(BACKBONES, ATTENTIONS[1:])))
def test_the_fast_layers_for_cpus_leave_ablated_ones_alone(backbone, attention):
    model = model_of(backbone, attention)
    expected = model(series()).logits
    use_fused_layers(model)
    assert {type(layer) for layer in layers_of(model)} <= {AblatedBertLayer, AblatedGPT2Block}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model(series()).logits.float(), expected, atol=0.05, rtol=0.05)


def test_a_perceptron_of_the_same_size():
    config = at_budget(PerceptronConfig(series_length=LENGTH, hidden_sizes=[1, 1], num_labels=3), 20_000)
    assert config.hidden_sizes[0] == config.hidden_sizes[1] > 1
    assert abs(PerceptronForClassification(config).num_parameters() - 20_000) <= 400


def test_the_nearest_width_is_taken_and_the_given_config_left_alone():
    config = shape_of("bert")
    for size in (63, 64, 65):
        sized = shape_of("bert")
        sized.backbone_config.intermediate_size = size
        assert at_budget(config, count_parameters(sized)).backbone_config.intermediate_size == size
        assert at_budget(config, count_parameters(sized) + 40).backbone_config.intermediate_size == size
    assert config.backbone_config.intermediate_size == 64


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="attention must be one of full, identity, uniform, mixer, not 'none'"):
        shape_of("bert", "none")
    with pytest.raises(ValueError, match=r"no width gives 1,000 parameters ± 2 %; the nearest has 9,"):
        at_budget(shape_of("bert"), 1000)
    with pytest.raises(ValueError, match="random weights"):
        AblatedSeriesForClassification.from_backbone(BACKBONES["bert"], pretrained=True)
