"""Recurrent classifiers and the MLP: against torch's own cells and independent formulas; padding; files."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from toolkit.data.series.dataset import SeriesBatches, SeriesDataset
from toolkit.models.small.attention_scores import SCORES, attention_weights
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification
from toolkit.run.directory import Run
from toolkit.tasks.classification import FineTuningConfig, fine_tune
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig

LENGTH, CHANNELS = 13, 2
KINDS = list(itertools.product(("rnn", "lstm", "gru"), (False, True), (None, "additive")))


def model_of(**options) -> RecurrentForClassification:
    torch.manual_seed(0)
    config = RecurrentConfig(**{"num_labels": 3, "num_channels": CHANNELS, "hidden_size": 5,
                                "series_length": LENGTH, **options})
    return RecurrentForClassification(config).eval()


def series(rows: int = 4, length: int = LENGTH, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, CHANNELS, length)).astype(np.float32))


def padded(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Series of these lengths, and what is observed of them."""
    observed = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None, None]
    values = series(len(lengths), max(lengths))
    return values * observed, observed.expand(values.shape)


# ---- scores


def by_hand(name: str, score: nn.Module, h: np.ndarray, q: np.ndarray) -> list[float]:
    """Scores of one series, h (T, D), one state at a time."""
    p = {key: value.detach().double().numpy() for key, value in score.named_parameters()}
    if name == "location":
        return [float(row @ q) for row in p["of_query.weight"][:len(h)]]
    formulas = {
        "additive": lambda i: p["sum.weight"][0] @ np.tanh(p["of_query.weight"] @ q + p["of_state.weight"] @ h[i]),
        "dot": lambda i: q @ h[i],
        "scaled-dot": lambda i: q @ h[i] / len(q) ** 0.5,
        "general": lambda i: q @ (p["of_state.weight"] @ h[i]),
        "content": lambda i: np.log1p(np.exp(p["strength"][0])) * (q @ h[i]) / (q @ q * (h[i] @ h[i])) ** 0.5,
        "positional": lambda i: np.tanh(p["of_state.weight"][0] @ h[i] + p["bias"][i]),
        "uniform": lambda i: 0.0}
    return [float(formulas[name](i)) for i in range(len(h))]


@pytest.mark.parametrize("name", SCORES)
def test_scores_are_their_formulas(name):
    torch.manual_seed(1)
    score = SCORES[name](6, 9)
    for parameter in score.parameters():
        nn.init.normal_(parameter)
    states, query = torch.randn(3, 7, 6), torch.randn(3, 6)
    expected = [by_hand(name, score, h.double().numpy(), q.double().numpy())
                for h, q in zip(states, query, strict=True)]
    np.testing.assert_allclose(score(states, query[:, None])[:, 0].detach(), expected, rtol=1e-5, atol=1e-6)


def test_additive_is_the_concat_of_luong():
    score, states, query = SCORES["additive"](4, None), torch.randn(2, 5, 4), torch.randn(2, 4)
    whole = torch.cat([score.of_query.weight, score.of_state.weight], 1)  # W of v·tanh(W [q; h])
    both = torch.cat([query[:, None].expand(-1, 5, -1), states], -1)
    torch.testing.assert_close(score(states, query[:, None])[:, 0],
                               torch.tanh(both @ whole.T) @ score.sum.weight[0])


def test_weights_sum_to_one_over_what_was_seen():
    scores, seen = torch.randn(5, 8) * 4, torch.rand(5, 8) < 0.5
    seen[:, 3] = True
    weights = attention_weights(scores[:, None], seen)[:, 0]
    assert (weights[~seen] == 0).all() and (weights[seen] > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    expected = (scores.exp() * seen) / (scores.exp() * seen).sum(1, keepdim=True)
    torch.testing.assert_close(weights, expected)


# ---- the networks


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_states_and_ends_are_those_of_the_bidirectional_network_of_torch(cell):
    """torch's own, on packed sequences, with our weights; its second bias 0."""
    model = model_of(cell=cell, bidirectional=True)
    values, observed = padded([13, 5, 1, 9])
    theirs = getattr(nn, cell.upper())(CHANNELS, 5, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for ours, suffix in ((model.forwards, ""), (model.backwards, "_reverse")):
            getattr(theirs, f"weight_ih_l0{suffix}").copy_(ours.weight_ih_l0[:, :-1])
            getattr(theirs, f"bias_ih_l0{suffix}").copy_(ours.weight_ih_l0[:, -1])
            getattr(theirs, f"weight_hh_l0{suffix}").copy_(ours.weight_hh_l0)
            getattr(theirs, f"bias_hh_l0{suffix}").zero_()
        packed = nn.utils.rnn.pack_padded_sequence(values.mT, [13, 5, 1, 9], batch_first=True, enforce_sorted=False)
        out, last = theirs(packed)
        out = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)[0]
        steps, seen = model._steps(values, observed)
        states, ends = model._states(steps, seen)
        torch.testing.assert_close(states * seen[..., None], out)
        last = last[0] if cell == "lstm" else last
        torch.testing.assert_close(ends, torch.cat([last[0], last[1]], -1))
        torch.testing.assert_close(model(values, observed).logits, model.classifier(ends))


def test_starts_as_keras_does():
    model = model_of(cell="lstm", hidden_size=64, num_channels=30)
    inputs, recurrent = model.forwards.weight_ih_l0, model.forwards.weight_hh_l0
    assert inputs.shape == (4 * 64, 31)
    bias = inputs[:, -1].view(4, 64)
    assert (bias[1] == 1).all() and (bias[[0, 2, 3]] == 0).all()
    limit = (6 / (64 + 30)) ** 0.5
    assert 0.98 * limit < inputs[:, :-1].abs().max() <= limit
    for gate in recurrent.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(64), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("cell", "bidirectional", "attention"), KINDS)
def test_padding_changes_nothing(cell, bidirectional, attention):
    """Whatever stands in the padding, and however long it is, in steps of one sample and of several."""
    for patch_length in (1, 4):
        model = model_of(cell=cell, bidirectional=bidirectional, attention=attention, patch_length=patch_length,
                         series_length=20)
        values, observed = padded([13, 8, 1])
        spoiled = torch.where(observed, values, torch.tensor(float("nan")))
        longer = F.pad(spoiled, (0, 7), value=1e9), F.pad(observed, (0, 7))
        with torch.no_grad():
            alone = torch.cat([model(values[i:i + 1, :, :length]).logits for i, length in enumerate((13, 8, 1))])
            for inputs in ((values, observed), (spoiled, observed.long()), longer):
                torch.testing.assert_close(model(*inputs).logits, alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("attention", SCORES)
def test_attention_sees_what_is_observed(attention):
    model = model_of(attention=attention, bidirectional=True)
    values, observed = padded([13, 6])
    observed = observed.clone()
    observed[0, :, 2:4] = False  # a gap; one channel missing at another step is none
    observed[0, 0, 7] = False
    values = values * observed
    out = model(values, observed)
    (weights,) = out.attentions
    assert weights.shape == (2, 13)
    seen = observed.any(1)
    assert (weights[~seen] == 0).all() and (weights[seen] > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    # The logits are the head's of the weighted mean of the states.
    states, _ = model._states(*model._steps(values, observed))
    torch.testing.assert_close(out.logits, model.classifier((weights[..., None] * states).sum(1)))
    assert model_of()(values, observed).attentions is None


def test_a_series_of_nothing_gets_an_answer():
    values, observed = series(2), torch.ones(2, CHANNELS, LENGTH, dtype=torch.bool)
    observed[1] = False
    out = model_of(attention="dot", bidirectional=True)(values, observed)
    assert out.logits.isfinite().all() and out.attentions[0][1].tolist() == [1.0] + [0.0] * (LENGTH - 1)


@pytest.mark.parametrize(("cell", "bidirectional", "attention"),
                         [*KINDS, *(("rnn", True, score) for score in SCORES)])
def test_every_parameter_learns(cell, bidirectional, attention):
    model = model_of(cell=cell, bidirectional=bidirectional, attention=attention)
    model(*padded([13, 8, 9, 3]), labels=torch.tensor([0, 1, 2, 1])).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_losses():
    values = series()
    labels = torch.tensor([0, 1, 2, 1])
    for make in (model_of, lambda **more: PerceptronForClassification(PerceptronConfig(
            num_channels=CHANNELS, series_length=LENGTH, **{"num_labels": 3, **more})).eval()):
        out = make()(values, labels=labels)
        torch.testing.assert_close(out.loss, F.cross_entropy(out.logits, labels))
        numbers = torch.tensor([0.5, -1.0, 2.0, 0.0])
        out = make(num_labels=1, problem_type="regression")(values, labels=numbers)
        assert out.logits.shape == (4, 1)
        torch.testing.assert_close(out.loss, ((out.logits[:, 0] - numbers) ** 2).mean())


def test_it_is_computed_in_fp32():
    model, values = model_of(cell="lstm", attention="general"), series()
    expected = model(values).logits
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(values).logits, expected)


@pytest.mark.parametrize(("cell", "bidirectional", "attention"),
                         [("lstm", True, None), ("gru", False, "content"), ("rnn", True, "positional")])
def test_save_and_load(cell, bidirectional, attention, tmp_path):
    names = {0: "calm", 1: "storm"}
    model = model_of(cell=cell, bidirectional=bidirectional, attention=attention, id2label=names, num_labels=2)
    with torch.no_grad():
        for parameter in model.parameters():  # not what a fresh model starts with
            parameter.add_(0.1)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is RecurrentForClassification and loaded.config.id2label == names
    assert torch.equal(loaded(series()).logits, model(series()).logits)
    loaded.double().float()  # the cell's own list of weights goes along
    assert torch.equal(loaded(series()).logits, model(series()).logits)


def test_wrong_shapes_and_settings():
    with pytest.raises(ValueError, match=r"expected values of shape \(batch, 2, length\), not \(1, 3, 9\)"):
        model_of()(torch.zeros(1, 3, 9))
    with pytest.raises(ValueError, match="series of length 14 are longer than series_length = 13"):
        model_of()(torch.zeros(1, CHANNELS, 14))
    with pytest.raises(ValueError, match="cell must be one of rnn, lstm, gru, not 'qrnn'"):
        RecurrentConfig(cell="qrnn")
    with pytest.raises(ValueError, match="attention must be one of additive, .*, not 'luong'"):
        RecurrentConfig(attention="luong")
    with pytest.raises(ValueError, match="attention location has weights for every step: give series_length"):
        RecurrentConfig(attention="location")
    with pytest.raises(ValueError, match="patch_length must be at least 1, not 0"):
        RecurrentConfig(patch_length=0)
    with pytest.raises(ValueError, match="each of hidden_sizes must be at least 1, not 0"):
        PerceptronConfig(hidden_sizes=[8, 0])
    with pytest.raises(ValueError, match=r"expected values of shape \(batch, 1, 128 or less\), not \(1, 1, 129\)"):
        PerceptronForClassification(PerceptronConfig())(torch.zeros(1, 1, 129))


# ---- the MLP


def test_the_mlp_is_that_of_wang_et_al():
    model = PerceptronForClassification(PerceptronConfig(series_length=150, num_labels=2))
    sizes = [tuple(module.weight.shape) for module in model.modules() if isinstance(module, nn.Linear)]
    assert sizes == [(500, 150), (500, 500), (500, 500), (2, 500)]
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.1, 0.2, 0.2, 0.3]
    assert model.num_parameters() == 150 * 500 + 2 * 500 * 500 + 500 * 2 + 3 * 500 + 2


def test_the_mlp_saves_loads_and_ignores_what_is_not_observed(tmp_path):
    model = PerceptronForClassification(PerceptronConfig(num_channels=CHANNELS, series_length=LENGTH,
                                                         hidden_sizes=(7, 4), num_labels=2)).eval()
    values, observed = padded([13, 6])
    expected = model(values).logits
    flat = values.flatten(1)
    for layer in (model.hidden[1], model.hidden[4]):
        flat = (flat @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(expected, flat @ model.classifier.weight.T + model.classifier.bias)
    spoiled = torch.where(observed, values, torch.tensor(float("inf")))
    assert torch.equal(model(spoiled, observed).logits, expected)
    torch.testing.assert_close(model(values[1:, :, :6]).logits, expected[1:])
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is PerceptronForClassification and loaded.config.hidden_sizes == [7, 4]
    assert torch.equal(loaded(values).logits, expected)


# ---- in the loop


@pytest.mark.parametrize("make", [
    lambda: RecurrentForClassification(RecurrentConfig(cell="gru", hidden_size=12, bidirectional=True,
                                                       attention="additive", patch_length=4)),
    lambda: PerceptronForClassification(PerceptronConfig(series_length=32, hidden_sizes=[32]))], ids=["gru", "mlp"])
def test_they_learn_in_the_loop(make, tmp_path):
    """Slow waves against fast ones, of any phase, with the format the hardware asks for; far from chance (0.5)."""
    random = np.random.default_rng(0)

    def waves(rows: int) -> SeriesBatches:
        labels = np.arange(rows, dtype=np.int64) % 2
        phase, rate = random.uniform(0, 2 * np.pi, (rows, 1)), np.where(labels, 0.9, 0.5)[:, None]
        values = np.sin(phase + rate * np.arange(32)) + 0.1 * random.normal(size=(rows, 32))
        return SeriesBatches(SeriesDataset(values[:, None].astype(np.float32), labels, ("slow", "fast")), 32, seed=0)

    result = fine_tune(make, waves(256), waves(64), waves(200),
                       FineTuningConfig(max_steps=80, learning_rate=1e-2, logging_steps=40, eval_steps=40),
                       ImplConfig(), Run(tmp_path / "run"), make_accelerator(), 0, "waves")
    assert result["accuracy"] > 0.9
