"""The series models against their backbone: classes, forecasts, hidden patches."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    BertForPreTraining,
    BertModel,
    GPT2LMHeadModel,
    GPT2Model,
    ViTConfig,
)

from toolkit.data.series.dataset import z_normalise
from toolkit.data.series.generators import cylinder_bell_funnel
from toolkit.models.presets import model_config
from toolkit.models.series.embedding import cut, instance_statistics
from toolkit.models.series.patches import (
    SeriesConfig,
    SeriesForClassification,
    SeriesForForecasting,
    SeriesForMaskedPatches,
)

NAMES = ("cylinder", "bell", "funnel")
BACKBONES = ("bert-tiny", "gpt-tiny")


def _backbone_config(name):
    return model_config(name, vocab_size=50, max_position_embeddings=20, dropout=0.1)


def _model(name, **settings):
    torch.manual_seed(0)
    model = SeriesForClassification.from_backbone(_backbone_config(name), NAMES, pretrained=False, **settings)
    return model.eval()


@pytest.fixture(params=BACKBONES)
def checkpoint(request, tmp_path):
    """A text checkpoint as pretraining leaves it, no weight at a value that initialisation would give it."""
    torch.manual_seed(1)
    config = _backbone_config(request.param)
    model = (BertForPreTraining if config.model_type == "bert" else GPT2LMHeadModel)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "text")
    return tmp_path / "text"


def _text_encoder(path):
    if "GPT2" in (path / "config.json").read_text():
        return GPT2Model.from_pretrained(path).eval()
    return BertModel.from_pretrained(path).eval()


def test_patches():
    values = torch.arange(1, 19.0).view(1, 2, 9)
    patches = cut(values, 4, 3).flatten(2)
    assert patches.shape == (1, 3, 8)
    assert patches[0].tolist() == [
        [1, 2, 3, 4, 10, 11, 12, 13], [4, 5, 6, 7, 13, 14, 15, 16],
        [7, 8, 9, 0, 16, 17, 18, 0]]  # the last, partial patch is filled up with zeros
    config = SeriesConfig(num_channels=2, patch_length=4, patch_stride=3)
    for length in (4, 5, 7, 8, 9):
        assert cut(values[..., :length], 4, 3).shape[1] == config.num_patches(length) == -(-(length - 4) // 3) + 1
    assert (SeriesConfig(patch_length=16).patch_stride, SeriesConfig(patch_length=5).patch_stride) == (8, 3)


@pytest.mark.parametrize("name", BACKBONES)
def test_save_and_load_are_bit_identical(name, tmp_path):
    model = _model(name, num_channels=2, patch_length=6, patch_stride=4, dropout=0.2)
    values = torch.randn(3, 2, 50)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(again) is SeriesForClassification
    again.save_pretrained(tmp_path / "again")
    saved, resaved = (json.loads((tmp_path / path / "config.json").read_text()) for path in ("", "again"))
    saved["backbone_config"]["dtype"] = resaved["backbone_config"]["dtype"]  # known from loading on
    assert saved == resaved
    assert again.config.id2label == dict(enumerate(NAMES))
    state, loaded = model.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys() and all(torch.equal(state[key], loaded[key]) for key in state)
    with torch.no_grad():
        assert torch.equal(model(values).logits, again(values).logits)
    assert (tmp_path / "model.safetensors").is_file()
    assert not any("word_embeddings" in key or "wte" in key or "pooler" in key for key in state)


def test_pretrained_backbone_gives_the_source_hidden_states(checkpoint):
    source = _text_encoder(checkpoint)
    model = SeriesForClassification.from_backbone(checkpoint, NAMES, pretrained=True).eval()
    values = torch.randn(4, 1, 100)
    with torch.no_grad():
        embedded = model.patch_embedding(values)
        expected = source(inputs_embeds=embedded).last_hidden_state
        torch.testing.assert_close(model(values, output_hidden_states=True).hidden_states[-1], expected)
        torch.testing.assert_close(model(values).logits, model.classifier(expected.mean(1)))


def test_patch_embeddings_are_of_the_size_of_word_embeddings(checkpoint):
    words = _text_encoder(checkpoint).get_input_embeddings().weight.std().item()
    assert 0.05 < words < 0.2, "the checkpoint's must differ from a random start's 0.3"
    for pretrained, size in ((True, words), (False, 0.3)):
        model = SeriesForClassification.from_backbone(checkpoint, NAMES, pretrained=pretrained)
        with torch.no_grad():
            embedded = model.patch_embedding(torch.randn(200, 1, 80))
        assert embedded.std().item() == pytest.approx(size, rel=0.1)


def test_random_backbone_shares_no_weights_with_the_checkpoint(checkpoint):
    source = _text_encoder(checkpoint).state_dict()
    model = SeriesForClassification.from_backbone(checkpoint, NAMES, pretrained=False)
    matrices = [key for key, weight in model.backbone.state_dict().items() if weight.ndim == 2]
    state = model.backbone.state_dict()
    assert matrices and not any(torch.equal(state[key], source[key]) for key in matrices)


def test_incomplete_and_missing_checkpoints_are_refused(checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    dropped = next(key for key in weights if ".1." in key)
    del weights[dropped]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 of the backbone's weights"):
        SeriesForClassification.from_backbone(checkpoint, NAMES, pretrained=True)
    with pytest.raises(ValueError, match="nowhere: no checkpoint here"):
        SeriesForClassification.from_backbone(tmp_path / "nowhere", NAMES, pretrained=True)
    with pytest.raises(ValueError, match="needs a checkpoint"):
        SeriesForClassification.from_backbone(_backbone_config("bert-tiny"), NAMES, pretrained=True)


@pytest.mark.parametrize("name", BACKBONES)
def test_gradient_reaches_every_parameter(name):
    model = _model(name).train()
    labels = torch.tensor([0, 1, 2, 0])
    output = model(torch.randn(4, 1, 40), labels=labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, labels))
    output.loss.backward()
    seen = dict(model.named_parameters())
    untouched = [key for key, p in seen.items() if p.grad is None or not p.grad.abs().max() > 0]
    # Softmax does not see what is added to all keys alike: BERT's key bias has no gradient but rounding's.
    assert not [key for key in untouched if not key.endswith("key.bias")]
    assert any("layer.1." in key or "h.1." in key for key in seen)


@pytest.mark.parametrize("name", BACKBONES)
def test_order_of_patches_matters(name):
    model = _model(name, patch_length=8, patch_stride=8)
    values = torch.randn(2, 1, 64)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    shuffled = values.view(2, 1, 8, 8)[:, :, order].reshape(2, 1, 64)
    with torch.no_grad():
        assert not torch.allclose(model(values).logits, model(shuffled).logits, atol=1e-4)
        if name.startswith("bert"):  # it is the positions that tell: without them, patches are a set
            model.backbone.embeddings.position_embeddings.weight.zero_()
            torch.testing.assert_close(model(values).logits, model(shuffled).logits)


@pytest.mark.parametrize("name", BACKBONES)
def test_dropout_is_one_dial(name):
    values = torch.randn(2, 1, 64)
    model = _model(name).train()
    assert torch.equal(model(values).logits, model(values).logits), "0 by default, the text model had 0.1"
    model = _model(name, dropout=0.3).train()
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    assert not torch.equal(model(values).logits, model(values).logits)


def test_the_text_models_configuration_is_left_alone():
    config = _backbone_config("bert-tiny")
    before = config.to_dict()
    SeriesForClassification.from_backbone(config, NAMES, pretrained=False)
    assert config.to_dict() == before


def test_impossible_shapes_are_named():
    model = _model("bert-tiny", num_channels=2, patch_length=8, patch_stride=8)
    with pytest.raises(ValueError, match="length 7 are shorter than one patch of 8"):
        model(torch.zeros(1, 2, 7))
    with pytest.raises(ValueError, match="length 161 make 21 patches of 8 .* 20 positions"):
        model(torch.zeros(1, 2, 161))
    model(torch.zeros(1, 2, 160))
    with pytest.raises(ValueError, match=r"\(batch, 2, length\), not \(1, 1, 50\)"):
        model(torch.zeros(1, 1, 50))
    with pytest.raises(ValueError, match="patch_stride must be from 1 to patch_length = 8"):
        SeriesConfig(patch_length=8, patch_stride=9)
    with pytest.raises(ValueError, match="must be one of bert, gpt2, not 'vit'"):
        SeriesConfig(backbone_config=ViTConfig())


@pytest.fixture
def one_thread():
    """On a busy machine, two threads waiting for one another made this twenty times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_it_learns():
    """90 series, a few seconds: clearly better than a linear classifier on the values themselves."""
    train, test = cylinder_bell_funnel(30, seed=0), cylinder_bell_funnel(100, seed=1)
    x, y = torch.from_numpy(z_normalise(train.values)), torch.from_numpy(train.labels)
    xt, yt = torch.from_numpy(z_normalise(test.values)), torch.from_numpy(test.labels)
    linear = LogisticRegression(max_iter=1000).fit(x[:, 0], y).score(xt[:, 0], yt)
    model = _model("bert-tiny").train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps = 60
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, steps, pct_start=0.1,
                                                   anneal_strategy="linear")
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randperm(len(x), generator=order)[:32]
        loss = model(x[rows], labels=y[rows]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        accuracy = (model.eval()(xt).logits.argmax(-1) == yt).float().mean().item()
    assert accuracy > linear + 0.03, (accuracy, linear)


# ---- convolutional patches, gaps, channels


def test_convolutional_patches_lie_side_by_side():
    model = _model("bert-tiny", embedding="convolution", patch_length=8, pooling="layers")
    assert model.config.patch_stride == 8
    assert model.patch_embedding(torch.randn(2, 1, 50)).shape == (2, 7, 128)
    assert model.classifier.in_features == 3 * 128
    with pytest.raises(ValueError, match="side by side"):
        SeriesConfig(embedding="convolution", patch_length=8, patch_stride=4)


@pytest.mark.parametrize("embedding", ["linear", "convolution"])
def test_what_was_not_observed_says_nothing(embedding):
    model = _model("bert-tiny", num_channels=2, patch_length=8, embedding=embedding, instance_norm=True,
                   pooling="layers")
    values, observed = torch.randn(3, 2, 64), torch.ones(3, 2, 64, dtype=torch.bool)
    with torch.no_grad():
        torch.testing.assert_close(model(values).logits, model(values, observed).logits)
        observed[:, :, 40:] = False
        observed[1, 0, 3:9] = False
        spoilt = torch.where(observed, values, torch.full_like(values, 1e4))
        torch.testing.assert_close(model(values, observed).logits, model(spoilt, observed).logits)
        assert torch.isfinite(model(values, torch.zeros_like(observed)).logits).all()


def test_padding_changes_nothing_to_linear_patches():
    model = _model("bert-tiny", patch_length=8, patch_stride=8)
    values, observed = torch.randn(3, 1, 64), torch.ones(3, 1, 64, dtype=torch.bool)
    values[..., 40:], observed[..., 40:] = 0, False
    with torch.no_grad():
        torch.testing.assert_close(model(values, observed).logits, model(values[..., :40]).logits, atol=1e-5, rtol=1e-4)


def test_independent_channels_do_not_see_each_other():
    model = _model("bert-tiny", num_channels=3, channels="independent")
    values = torch.randn(2, 3, 64)
    with torch.no_grad():
        whole = model(values).logits
        torch.testing.assert_close(whole, model(values[:, [2, 0, 1]]).logits)
        one = _model("bert-tiny")
        one.load_state_dict(model.state_dict())
        alone = torch.stack([one(values[:, c:c + 1]).logits for c in range(3)]).mean(0)
        torch.testing.assert_close(whole, alone)


def test_instance_normalisation():
    values = torch.randn(2, 3, 50) * 7 + 30
    mean, deviation = instance_statistics(values)
    np.testing.assert_allclose(mean[..., 0], values.numpy().mean(-1), rtol=1e-5)
    np.testing.assert_allclose(deviation[..., 0], values.numpy().std(-1), rtol=1e-5)
    assert instance_statistics(torch.full((1, 1, 9), 1e7))[1].item() == 1
    model = _model("bert-tiny", instance_norm=True)
    with torch.no_grad():
        torch.testing.assert_close(model(values[:, :1]).logits, model(100 * values[:, :1] - 3).logits, atol=1e-4,
                                   rtol=1e-3)


# ---- forecasts


def _forecaster(**settings):
    torch.manual_seed(0)
    return SeriesForForecasting.from_backbone(_backbone_config("bert-tiny"), pretrained=False, num_channels=2,
                                              context_length=64, horizon=12, **settings).eval()


@pytest.mark.parametrize("channels", ["mixed", "independent"])
def test_forecasts_follow_level_and_scale(channels, tmp_path):
    model = _forecaster(channels=channels, instance_norm=True)
    values, future = torch.randn(3, 2, 64), torch.randn(3, 2, 12)
    with torch.no_grad():
        found = model(values, future=future)
        assert found.prediction.shape == (3, 2, 12)
        torch.testing.assert_close(found.loss, F.mse_loss(found.prediction, future))
        moved = model(5 * values + 40).prediction
        torch.testing.assert_close(moved, 5 * found.prediction + 40, atol=1e-3, rtol=1e-3)
    model.save_pretrained(tmp_path)
    again = SeriesForForecasting.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(values).prediction, found.prediction)
    with pytest.raises(ValueError, match="expected 64 values of context, not 60"):
        model(values[..., :60])
    with pytest.raises(ValueError, match="needs context_length and horizon"):
        SeriesForForecasting(SeriesConfig())


# ---- hidden patches


@pytest.mark.parametrize("settings", [{"patch_length": 8}, {"patch_length": 8, "embedding": "convolution"},
                                      {"patch_length": 8, "channels": "independent", "instance_norm": True}])
def test_hidden_values_are_not_seen(settings):
    torch.manual_seed(0)
    model = SeriesForMaskedPatches.from_backbone(_backbone_config("bert-tiny"), pretrained=False, num_channels=2,
                                                 **settings).eval()
    values = torch.randn(3, 2, 64)
    masked = torch.zeros(3, 2, 64, dtype=torch.bool)
    masked[:, :, 16:32] = True
    masked[0, 1, 48:56] = True
    other = torch.where(masked, torch.randn(3, 2, 64), values)
    with torch.no_grad():
        found, again = model(values, masked), model(other, masked)
    torch.testing.assert_close(found.prediction, again.prediction)
    assert not torch.equal(found.loss, again.loss)
    expected = ((found.prediction - found.target) ** 2)[found.hidden > 0].mean()
    torch.testing.assert_close(found.loss, expected)
    if settings.get("embedding") == "convolution":  # patches side by side: each hidden value counts once
        assert found.hidden.sum() == masked.sum()


def test_a_classifier_starts_from_hidden_patches(tmp_path):
    torch.manual_seed(0)
    settings = {"embedding": "convolution", "patch_length": 8, "instance_norm": True}
    source = SeriesForMaskedPatches.from_backbone(_backbone_config("bert-tiny"), pretrained=False, **settings)
    source.save_pretrained(tmp_path)
    model = SeriesForClassification.from_backbone(tmp_path, NAMES, pretrained=True, pooling="layers", dropout=0.2)
    assert model.config.patch_length == 8 and model.config.instance_norm and model.config.num_labels == 3
    for part in ("backbone", "patch_embedding"):
        wanted, found = getattr(source, part).state_dict(), getattr(model, part).state_dict()
        assert wanted.keys() == found.keys() and all(torch.equal(wanted[key], found[key]) for key in wanted)
    random = SeriesForClassification.from_backbone(tmp_path, NAMES, pretrained=False)
    assert not torch.equal(random.patch_embedding.narrow.weight, source.patch_embedding.narrow.weight)


@pytest.mark.parametrize("name", BACKBONES)
def test_one_fits_all_tunes_norms_and_positions(name):
    model = _model(name)
    model.freeze_all_but_norms_and_positions()
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"classifier.weight", "patch_embedding.projection.weight"} <= trained
    inside = {key for key in trained if key.startswith("backbone.")}
    assert inside and all("norm" in key.lower() or "ln_" in key or "position" in key or "wpe" in key for key in inside)
    frozen = sum(p.numel() for p in model.backbone.parameters() if not p.requires_grad)
    assert frozen > 0.9 * sum(p.numel() for p in model.backbone.parameters())
