"""Series data against its equations and the archive's own files; the series model against its backbone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F
from transformers import (
    AutoModelForSequenceClassification,
    BertForPreTraining,
    BertModel,
    GPT2LMHeadModel,
    GPT2Model,
    ViTConfig,
)

from toolkit.data.series import SeriesDataset, z_normalise
from toolkit.data.series_files import read_ucr_tsv
from toolkit.data.series_generators import _events, cylinder_bell_funnel
from toolkit.models.presets import model_config
from toolkit.models.series import SeriesConfig, SeriesForClassification

ARCHIVE = Path(__file__).parents[1] / "../shared/data/ucr/CBF"
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


# ---- Cylinder-Bell-Funnel


def test_cylinder_bell_funnel_follows_its_equations():
    data = cylinder_bell_funnel(4_000, seed=1)
    assert data.values.shape == (12_000, 1, 128) and data.label_names == NAMES
    assert np.bincount(data.labels).tolist() == [4_000] * 3
    t = np.arange(1, 129)
    # The expectation at each t over all (a, b), by enumeration; amplitudes average 6.
    expected = np.zeros((3, 128))
    for a in range(16, 32):
        for length in range(32, 96):
            inside = (a <= t) & (t <= a + length)
            rising = (t - a) / length
            expected += 6 / (16 * 64) * inside * np.stack([np.ones(128), rising, 1 - rising])
    for label in range(3):
        series = data.values[data.labels == label, 0]
        np.testing.assert_allclose(series.mean(0), expected[label], atol=0.25)  # 5 standard errors
        np.testing.assert_allclose(series[:, :15].std(), 1, atol=0.02)  # before any a: noise alone
        np.testing.assert_allclose(series[:, 127:].std(), 1, atol=0.06)  # after every b
    plateau = data.values[data.labels == 0, 0, 31:48].mean(1)  # 31 ≤ t − 1 < 48 lies inside every [a, b]
    np.testing.assert_allclose(plateau.std(), np.sqrt(1 + 1 / 17), atol=0.05)  # η, and the mean of 17 ε


def test_cylinder_bell_funnel_is_a_function_of_its_seed():
    first, again, other = (cylinder_bell_funnel(3, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.array_equal(first.values, other.values)


@pytest.mark.real_data
@pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive's files are not here")
def test_generated_series_agree_with_the_archive():
    train = read_ucr_tsv(ARCHIVE / "CBF_TRAIN.tsv")
    test = read_ucr_tsv(ARCHIVE / "CBF_TEST.tsv", train.label_names)
    assert train.values.shape == (30, 1, 128) and test.values.shape == (900, 1, 128)
    np.testing.assert_allclose(z_normalise(test.values), test.values, atol=2e-6)
    assert train.label_names == test.label_names == ("1", "2", "3")
    random, labels = np.random.default_rng(0), np.arange(9_000) % 3
    start = random.integers(16, 32, len(labels))
    misfit = {}
    for ends, end in (("archive", random.integers(65, 129, len(labels))),
                      ("published", start + random.integers(32, 96, len(labels)))):
        ours = z_normalise(_events(labels, start, end, random))
        for label in range(3):
            a, b = ours[labels == label, 0], test.values[test.labels == label, 0]
            # Squared differences of the class means, in units of their sampling variance: 1 for one
            # distribution.
            variance = a.var(0) / len(a) + b.var(0) / len(b)
            misfit[ends, label] = np.mean(np.square(a.mean(0) - b.mean(0)) / variance)
            if ends == "archive":
                np.testing.assert_allclose(a.var(0).mean(), b.var(0).mean(), rtol=0.06)
    # The archive draws the end without regard to the start. With that, nothing else differs; and that it
    # shows so clearly says that this comparison would find another mistake.
    assert max(misfit["archive", label] for label in range(3)) < 1.6, misfit
    assert min(misfit["published", label] for label in range(3)) > 4, misfit


@pytest.mark.real_data
@pytest.mark.skipif(not ARCHIVE.exists(), reason="the archive's files are not here")
@pytest.mark.parametrize("classifier", [LogisticRegression(max_iter=1000), KNeighborsClassifier(1)])
def test_training_on_generated_series_serves_the_archive(classifier):
    train, test = read_ucr_tsv(ARCHIVE / "CBF_TRAIN.tsv"), read_ucr_tsv(ARCHIVE / "CBF_TEST.tsv")

    def accuracy(values, labels):
        return classifier.fit(values[:, 0], labels).score(test.values[:, 0], test.labels)

    draws = [cylinder_bell_funnel(10, seed) for seed in range(10)]
    ours = np.mean([accuracy(z_normalise(draw.values), draw.labels) for draw in draws])
    assert ours == pytest.approx(accuracy(train.values, train.labels), abs=0.05)  # 30 series each


# ---- .tsv files


def _write(tmp_path, text):
    path = tmp_path / "Set_TRAIN.tsv"
    path.write_text(text)
    return path


def test_read_ucr_tsv(tmp_path):
    data = read_ucr_tsv(_write(tmp_path, "2\t1.5\t-2e-1\n-1\t0\t3\n10\t1\t1\n\n"))
    np.testing.assert_array_equal(data.values, np.asarray([[[1.5, -0.2]], [[0, 3]], [[1, 1]]], np.float32))
    assert data.label_names == ("-1", "2", "10"), "numeric order"
    assert data.labels.tolist() == [1, 0, 2] and data.labels.dtype == np.int64


def test_a_test_file_is_numbered_like_its_training_file(tmp_path):
    data = read_ucr_tsv(_write(tmp_path, "3.0\t1\t2\n"), label_names=("1", "2", "3"))
    assert data.labels.tolist() == [2] and data.label_names == ("1", "2", "3")


@pytest.mark.parametrize(("text", "message"), [
    ("1\t2\t3\n1\t2\tx\n", r"Set_TRAIN.tsv, line 2, column 3: expected a number, found 'x'"),
    ("1\t2\tNaN\n", r"line 1, column 3: expected a finite number, found 'NaN'"),
    ("1\t2\t3\n1\t2\n", r"line 2, column 3: expected 2 values as in the lines above, found 1"),
    ("1\t2\t3\n1\t2\t3\t4\n", r"line 2, column 4: expected 2 values as in the lines above, found 3"),
    ("1.5\t2\t3\n", r"line 1, column 1: expected an integer label, found '1.5'"),
    ("1,2,3\n", r"line 1, column 1: expected a number, found '1,2,3'"),
    ("1\n", r"line 1, column 2: expected tabs and values after the label"),
    ("9\t2\t3\n", r"line 1, column 1: label 9 is not among 1, 2"),
    ("", r"Set_TRAIN.tsv: no series"),
])
def test_errors_name_file_line_and_column(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_ucr_tsv(_write(tmp_path, text), label_names=("1", "2"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere.tsv: no such file"):
        read_ucr_tsv(tmp_path / "nowhere.tsv")


def test_datasets_check_their_shapes():
    with pytest.raises(ValueError, match="float32"):
        SeriesDataset(np.zeros((2, 1, 4)), np.zeros(2, np.int64), ("a",))
    with pytest.raises(ValueError, match=r"\(2,\)"):
        SeriesDataset(np.zeros((2, 1, 4), np.float32), np.zeros(3, np.int64), ("a",))
    with pytest.raises(ValueError, match="1 label names"):
        SeriesDataset(np.zeros((2, 1, 4), np.float32), np.ones(2, np.int64), ("a",))


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
