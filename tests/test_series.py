"""Series data, and the series model against its backbone."""

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

from toolkit.data.series import SeriesBatches, SeriesDataset, z_normalise
from toolkit.data.series_generators import cylinder_bell_funnel
from toolkit.models.presets import model_config
from toolkit.models.series import SeriesConfig, SeriesForClassification

NAMES = ("cylinder", "bell", "funnel")
BACKBONES = ("bert-tiny", "gpt-tiny")


# ---- z-normalisation


def test_z_normalise_scales_each_series_and_channel_by_itself():
    values = np.random.default_rng(0).normal(50, 9, (5, 3, 40)) * np.arange(1, 6)[:, None, None]
    scaled = z_normalise(values)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(-1), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(-1, ddof=1), 1, rtol=1e-6)
    np.testing.assert_allclose(z_normalise(scaled), scaled, atol=1e-6)
    np.testing.assert_array_equal(z_normalise(values[2:3]), scaled[2:3])


@pytest.mark.parametrize("level", [0.0, 0.1, -1e30, 1 / 3])
def test_constant_series_become_zeros(level):
    # The mean of 49 thirds is not a third: dividing by the deviation would turn rounding into a signal.
    values = np.full((2, 1, 49), level, np.float32)
    np.testing.assert_array_equal(z_normalise(values), 0)
    np.testing.assert_array_equal(z_normalise(np.full((1, 1, 1), level)), 0)


def test_z_normalise_looks_at_what_was_observed_alone():
    values = np.random.default_rng(0).normal(50, 9, (4, 2, 30)).astype(np.float32)
    observed = np.random.default_rng(1).random(values.shape) < 0.7
    observed[3, 1] = False
    scaled = z_normalise(np.where(observed, values, 0), observed)
    for series, seen, before in zip(scaled.reshape(8, 30), observed.reshape(8, 30), values.reshape(8, 30), strict=True):
        np.testing.assert_array_equal(series[~seen], 0)
        if seen.any():
            np.testing.assert_allclose(series[seen], z_normalise(before[seen]), atol=1e-6)
    np.testing.assert_array_equal(z_normalise(np.where(observed, values, 1e30), observed), scaled)
    constant = np.where(observed, np.float32(1 / 3), 0)
    np.testing.assert_array_equal(z_normalise(constant, observed), 0)


# ---- the data set


def test_lengths_and_select():
    observed = np.asarray([[[1, 1, 1, 0], [0, 1, 0, 0]], [[1, 0, 0, 0], [0, 0, 0, 1]], [[0] * 4, [0] * 4]], bool)
    data = SeriesDataset(observed.astype(np.float32), np.asarray([0, 1, 0]), ("a", "b"), observed, 125.0)
    assert data.lengths.tolist() == [3, 4, 0]
    part = data.select(np.asarray([1, 0]))
    assert part.labels.tolist() == [1, 0] and part.sampling_rate == 125 and part.lengths.tolist() == [4, 3]
    full = SeriesDataset(np.ones((2, 1, 4), np.float32), np.zeros(2, np.int64), ("a",))
    assert full.lengths.tolist() == [4, 4] and full.select(np.asarray([True, False])).values.shape == (1, 1, 4)


@pytest.mark.parametrize("masked", [False, True])
def test_batches_follow_seed_and_step(masked):
    values = np.arange(10, dtype=np.float32)[:, None, None] + np.ones((10, 2, 3), np.float32)
    observed = np.ones(values.shape, bool) if masked else None
    data = SeriesDataset(values, np.arange(10), tuple("abcdefghij"), observed)
    batches = SeriesBatches(data, 5, seed=3)
    epoch = [batches.batch(step, range(5)) for step in (0, 1)]
    assert set(epoch[0]) == {"values", "labels"} | ({"observed"} if masked else set())
    assert sorted(np.concatenate([batch["labels"] for batch in epoch])) == list(range(10))
    np.testing.assert_array_equal(epoch[1]["values"][:, 0, 0], epoch[1]["labels"] + 1)
    np.testing.assert_array_equal(batches.batch(1, range(2, 4))["labels"], epoch[1]["labels"][2:4])
    if masked:
        assert epoch[0]["observed"].shape == (5, 2, 3)


def test_datasets_check_their_shapes():
    with pytest.raises(ValueError, match="float32"):
        SeriesDataset(np.zeros((2, 1, 4)), np.zeros(2, np.int64), ("a",))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        SeriesDataset(np.zeros((2, 1, 4), np.float32), np.zeros(3, np.int64), ("a",))
    with pytest.raises(ValueError, match="1 label names"):
        SeriesDataset(np.zeros((2, 1, 4), np.float32), np.ones(2, np.int64), ("a",))
    ones, labels = np.ones((2, 1, 4), np.float32), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="3 of 8 values are not finite"):
        SeriesDataset(np.where(np.arange(8).reshape(2, 1, 4) < 3, np.float32("nan"), ones), labels, ("a",))
    with pytest.raises(ValueError, match=r"observed must be bool \(2, 1, 4\)"):
        SeriesDataset(ones, labels, ("a",), ones)
    with pytest.raises(ValueError, match="not observed must be 0"):
        SeriesDataset(ones, labels, ("a",), np.zeros((2, 1, 4), bool))
    with pytest.raises(ValueError, match="positive number of Hz, not 0"):
        SeriesDataset(ones, labels, ("a",), sampling_rate=0)


# ---- the model


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
    model = _model("bert-tiny", num_channels=2, patch_length=4, patch_stride=3)
    values = torch.arange(1, 19.0).view(1, 2, 9)
    patches = model.patches(values)
    assert patches.shape == (1, 3, 8)
    assert patches[0].tolist() == [
        [1, 2, 3, 4, 10, 11, 12, 13], [4, 5, 6, 7, 13, 14, 15, 16],
        [7, 8, 9, 0, 16, 17, 18, 0]]  # the last, partial patch is filled up with zeros
    assert model.patches(values[..., :4]).shape[1] == 1
    assert model.patches(values[..., :7]).shape[1] == 2
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
        embedded = model.patch_embedding(model.patches(values))
        expected = source(inputs_embeds=embedded).last_hidden_state
        torch.testing.assert_close(model(values, output_hidden_states=True).hidden_states[-1], expected)
        torch.testing.assert_close(model(values).logits, model.classifier(expected.mean(1)))


def test_patch_embeddings_are_of_the_size_of_word_embeddings(checkpoint):
    words = _text_encoder(checkpoint).get_input_embeddings().weight.std().item()
    assert words > 0.05, "the checkpoint's must differ from a random model's 0.02"
    for pretrained, size in ((True, words), (False, 0.02)):
        model = SeriesForClassification.from_backbone(checkpoint, NAMES, pretrained=pretrained)
        with torch.no_grad():
            embedded = model.patch_embedding(model.patches(torch.randn(200, 1, 80)))
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
    output = model(torch.randn(4, 1, 40), labels)
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
        loss = model(x[rows], y[rows]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        accuracy = (model.eval()(xt).logits.argmax(-1) == yt).float().mean().item()
    assert accuracy > linear + 0.03, (accuracy, linear)
