"""Losses against scikit-learn, torch's own and tables worked by hand; thresholds against every threshold there is."""

import numpy as np
import pytest
import small
import torch
from scipy.special import expit, log_softmax, rel_entr, softmax
from sklearn import metrics as reference
from transformers import BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

from toolkit.data.series.augmentation import AugmentationConfig, AugmentedBatches
from toolkit.data.series.dataset import SeriesDataset
from toolkit.errors import UserError
from toolkit.models.lora import add_lora, merge_lora
from toolkit.models.losses import LOSSES, Objective, ObjectiveConfig, fold_scale, probabilities
from toolkit.models.text.classifier import TextConfig, TextForClassification
from toolkit.tasks import classification as fine_tuning
from toolkit.tasks.threshold import ThresholdConfig, choose_threshold, positive_class
from toolkit.training.optim import OptimConfig, make_optimizers

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 3)).astype(np.float32) * 2
LABELS = RNG.choice(3, size=40, p=[0.7, 0.2, 0.1])
SEVERAL = (RNG.random((40, 3)) < [0.5, 0.2, 0.1]).astype(np.float32)
SOFT = RNG.dirichlet([1, 1, 1], size=40).astype(np.float32)
NUMBERS = RNG.gamma(2.0, size=40).astype(np.float32)


def loss(task: str, logits, labels, classes: int = 3, **options) -> float:
    objective = Objective(task, ObjectiveConfig(**options), labels, classes)
    return float(objective(torch.from_numpy(logits), torch.from_numpy(labels)))


def test_cross_entropy():
    expected = reference.log_loss(LABELS, softmax(LOGITS.astype(float), 1), normalize=False)
    assert loss("classification", LOGITS, LABELS) == pytest.approx(expected, rel=1e-5)
    smoothed = 0.9 * expected + 0.1 * -log_softmax(LOGITS.astype(float), 1).mean(1).sum()
    assert loss("classification", LOGITS, LABELS, label_smoothing_factor=0.1) == pytest.approx(smoothed, rel=1e-5)


def test_balanced_weights_give_every_class_the_same_say():
    by_class = [-log_softmax(LOGITS.astype(float), 1)[LABELS == label, label].mean() for label in range(3)]
    found = loss("classification", LOGITS, LABELS, class_weights="balanced")
    assert found == pytest.approx(40 * np.mean(by_class), rel=1e-5)
    several = Objective("multi-label", ObjectiveConfig(class_weights="balanced"), SEVERAL, 3)
    weights = several.weights.numpy()
    assert np.allclose(weights[1] * SEVERAL.sum(0), weights[0] * (1 - SEVERAL).sum(0))


def test_focal_loss_by_hand():
    """Probability 0.9 of the right class counts (1 - 0.9)² of its cross-entropy, probability 0.5 a quarter."""
    logits = np.log(np.array([[0.9, 0.1], [0.5, 0.5]], np.float32))
    expected = 0.01 * -np.log(0.9) + 0.25 * -np.log(0.5)
    assert loss("classification", logits, np.array([0, 1]), 2, loss="focal") == pytest.approx(expected, rel=1e-4)
    assert loss("classification", LOGITS, LABELS, loss="focal", focal_gamma=0.0) == pytest.approx(
        loss("classification", LOGITS, LABELS), rel=1e-5)
    assert loss("multi-label", LOGITS, SEVERAL, loss="focal", focal_gamma=0.0) == pytest.approx(
        loss("multi-label", LOGITS, SEVERAL), rel=1e-5)


def test_focal_loss_of_mixed_labels():
    """Of a whole label it is that of the class; of shares the sum over classes, each weighed like the class."""
    certain = np.eye(3, dtype=np.float32)[LABELS]
    for options in ({}, {"class_weights": "balanced"}):
        objective = Objective("classification", ObjectiveConfig("focal", **options), LABELS, 3)
        logits = torch.from_numpy(LOGITS)
        assert float(objective(logits, torch.from_numpy(certain))) == pytest.approx(
            float(objective(logits, torch.from_numpy(LABELS))), rel=1e-5)
        by_class = sum(objective(logits[row:row + 1], torch.tensor([label])) * float(SOFT[row, label])
                       for row in range(40) for label in range(3))
        assert float(objective(logits, torch.from_numpy(SOFT))) == pytest.approx(float(by_class), rel=1e-5)
    data = SeriesDataset(RNG.normal(size=(6, 1, 20)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2]), ("a", "b", "c"))
    labels = AugmentedBatches(data, 4, 0, AugmentationConfig(mixup=0.5)).batch(0, range(4))["labels"]
    assert objective(torch.randn(4, 3), torch.from_numpy(labels)).isfinite()


def test_several_labels():
    p = expit(LOGITS.astype(float))
    expected = -(SEVERAL * np.log(p) + (1 - SEVERAL) * np.log(1 - p)).mean(1).sum()
    assert loss("multi-label", LOGITS, SEVERAL) == pytest.approx(expected, rel=1e-5)


def test_soft_labels():
    expected = rel_entr(SOFT.astype(float), softmax(LOGITS.astype(float), 1)).sum()
    assert loss("distribution", LOGITS, SOFT) == pytest.approx(expected, rel=1e-4)
    certain = np.eye(3, dtype=np.float32)[LABELS]
    assert loss("distribution", LOGITS, certain) == pytest.approx(loss("classification", LOGITS, LABELS), rel=1e-5)


@pytest.mark.parametrize(("name", "expected"), [
    ("mse", reference.mean_squared_error), ("mae", reference.mean_absolute_error),
    ("msle", reference.mean_squared_log_error)])
def test_numbers(name, expected):
    guesses, (mean, deviation) = np.abs(LOGITS[:, :1]), (NUMBERS.mean(), NUMBERS.std())
    unit = {"mse": deviation**2, "mae": deviation, "msle": 1}[name]  # errors in standard deviations of the labels
    assert loss("regression", (guesses - mean) / deviation, NUMBERS, 1, loss=name) == pytest.approx(
        40 * expected(NUMBERS, guesses[:, 0]) / unit, rel=1e-5)


@pytest.mark.parametrize(("scale", "offset"), [(1e5, 3e5), (1e-4, 0.0), (1.0, -7.0)])
@pytest.mark.parametrize("make", [
    lambda: BertForSequenceClassification(small.bert_config(50)),
    lambda: GPT2ForSequenceClassification(small.gpt_config(50)),
    lambda: TextForClassification(TextConfig(backbone_config=small.gpt_config(50), num_labels=1))])
def test_the_scale_of_numbers_is_folded_into_the_head(make, scale, offset):
    model = make()
    if model.config.num_labels != 1:
        model.config.num_labels, model.config.pad_token_id = 1, 0
        model = type(model)(model.config)
    model.eval()
    ids = torch.randint(5, 50, (6, 9))
    objective = Objective("regression", ObjectiveConfig(), (NUMBERS * scale + offset).astype(np.float32), 1)
    with torch.inference_mode():
        learned = model(ids).logits.numpy()
        fold_scale(model, *objective.scale)
        saved = model(ids).logits.numpy()
    assert np.allclose(saved, objective.in_units(learned.astype(float)), rtol=1e-5, atol=1e-5 * objective.scale[1])
    labels = (NUMBERS[:6] * scale + offset).astype(np.float32)
    expected = ((saved[:, 0] - labels) / (NUMBERS.std() * scale)) ** 2
    assert objective.of_saved(saved, labels) == pytest.approx(expected.mean(), rel=1e-3)


def test_msle_has_a_gradient_below_zero():
    """Where log(1 + x) has none to speak of: an output that begins at -5 must find its way up."""
    output = torch.tensor([[-5.0]], requires_grad=True)
    Objective("regression", ObjectiveConfig(loss="msle"), NUMBERS, 1)(output, torch.tensor([2.0])).backward()
    assert output.grad < -1


@pytest.mark.parametrize(("task", "labels", "options", "part"), [
    ("classification", LABELS, {"loss": "mse"}, "cross-entropy, focal"),
    ("regression", NUMBERS, {"loss": "focal"}, "mse, mae, msle"),
    ("regression", -NUMBERS, {"loss": "msle"}, "numbers of 0 or more"),
    ("regression", NUMBERS, {"class_weights": "balanced"}, "is for classes"),
    ("multi-label", SEVERAL, {"label_smoothing_factor": 0.1}, "goes with cross-entropy"),
    ("classification", LABELS, {"label_smoothing_factor": 1.0}, "must lie in"),
])
def test_a_loss_that_does_not_fit_is_refused(task, labels, options, part):
    with pytest.raises(UserError, match=part):
        Objective(task, ObjectiveConfig(**options), labels, 3)


def test_probabilities():
    for task, expected in (("classification", softmax(LOGITS.astype(float), 1)), ("multi-label", expit(LOGITS)),
                           ("distribution", softmax(LOGITS.astype(float), 1)), ("regression", LOGITS[:, 0])):
        labels = {"classification": LABELS, "multi-label": SEVERAL, "distribution": SOFT, "regression": NUMBERS}[task]
        objective = Objective(task, ObjectiveConfig(), labels, 3)
        assert np.allclose(probabilities(task, LOGITS), expected, atol=1e-6)
        assert objective.loss_name == LOSSES[task][0]


# Thresholds.

SCORES = np.round(np.clip(RNG.normal(0.5, 0.25, 300), 0.01, 0.99), 2)  # with ties
POSITIVE = RNG.random(300) < SCORES**2


def at(threshold: float) -> tuple[float, float, int, int]:
    called = SCORES >= threshold
    return (reference.precision_score(POSITIVE, called, zero_division=0), reference.recall_score(POSITIVE, called),
            int((called & ~POSITIVE).sum()), int((~called & POSITIVE).sum()))


EVERY = np.arange(-0.005, 1.01, 0.01)  # half way between the scores, which have two digits


def test_scores_are_those_of_the_decisions_that_are_kept(monkeypatch):
    outputs = np.asarray([[0.5, 0.1], [0.49, 0.6], [0.9, 0.7]])
    references = np.asarray([[1.0, 0], [0, 1], [0, 1]])
    assert fine_tuning.decisions("multi-label", outputs).tolist() == [[1, 0], [0, 1], [1, 1]], "from 0.5 on"
    assert fine_tuning.score("multi-label", outputs, references)["accuracy"] == pytest.approx(2 / 3)
    monkeypatch.setattr(fine_tuning, "decisions", lambda task, outputs: np.asarray([[1, 0], [0, 1], [0, 1]]))
    assert fine_tuning.score("multi-label", outputs, references) == {"accuracy": 1.0, "f1": 1.0}


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_best_f_beta(beta):
    found = choose_threshold(SCORES, POSITIVE, ThresholdConfig(aim="f-beta", beta=beta))
    values = [reference.fbeta_score(POSITIVE, SCORES >= threshold, beta=beta) for threshold in EVERY]
    assert reference.fbeta_score(POSITIVE, SCORES >= found, beta=beta) == pytest.approx(max(values))


def test_recall_and_precision_of_at_least():
    found = choose_threshold(SCORES, POSITIVE, ThresholdConfig(aim="recall", at_least=0.95))
    assert at(found)[1] >= 0.95
    assert at(found)[2] == min(at(threshold)[2] for threshold in EVERY if at(threshold)[1] >= 0.95)
    found = choose_threshold(SCORES, POSITIVE, ThresholdConfig(aim="precision", at_least=0.6))
    assert at(found)[0] >= 0.6
    assert at(found)[1] == max(at(threshold)[1] for threshold in EVERY if at(threshold)[0] >= 0.6)
    with pytest.raises(UserError, match="no threshold reaches 1 on validation"):
        choose_threshold(SCORES, SCORES < 0.3, ThresholdConfig(aim="precision", at_least=1.0))


def test_costs_move_the_threshold():
    def cost(threshold: float) -> float:
        return at(threshold)[2] + 10 * at(threshold)[3]

    found = choose_threshold(SCORES, POSITIVE, ThresholdConfig(aim="cost", false_negative_cost=10.0))
    assert cost(found) == min(map(cost, EVERY))
    assert found < choose_threshold(SCORES, POSITIVE, ThresholdConfig(aim="cost", false_positive_cost=10.0))


def test_a_threshold_stands_clear_of_the_examples():
    scores, positive = np.array([0.1, 0.2, 0.7, 0.9]), np.array([False, False, True, True])
    assert choose_threshold(scores, positive, ThresholdConfig(aim="f-beta")) == pytest.approx(0.45)


def test_what_cannot_be_aimed_at_is_refused():
    with pytest.raises(UserError, match="only negative examples"):
        choose_threshold(SCORES, np.zeros(300, bool), ThresholdConfig(aim="recall"))
    with pytest.raises(UserError, match="takes two classes; there are 3"):
        positive_class(ThresholdConfig(aim="recall"), "classification", ("a", "b", "c"))
    with pytest.raises(UserError, match="Did you mean 'spam'"):
        positive_class(ThresholdConfig(aim="recall", positive_label="spamm"), "classification", ("ham", "spam"))
    assert positive_class(ThresholdConfig(), "classification", ("a", "b", "c")) is None
    assert positive_class(ThresholdConfig(aim="cost", positive_label="ham"), "classification", ("ham", "spam")) == 0


# What is trained.

@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_lora_changes_little_and_merges_into_plain_weights(family):
    torch.manual_seed(0)
    if family == "bert":
        model = BertForSequenceClassification(small.bert_config(50))
    else:
        model = GPT2ForSequenceClassification(small.gpt_config(50))
        model.config.pad_token_id = 0
    model.eval()
    ids = torch.randint(5, 50, (4, 9))
    before = model(ids).logits
    names = set(model.state_dict())
    add_lora(model, rank=2)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "classifier" in name or "score" in name for name in trained) and len(trained) > 2
    assert torch.equal(model(ids).logits, before), "an adapter begins as no change"
    optimizers = make_optimizers(model, OptimConfig(learning_rate=0.05))
    for _ in range(3):
        model(ids).logits.square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    changed = model(ids).logits
    merged = merge_lora(model)
    assert set(merged.state_dict()) == names
    assert torch.allclose(merged(ids).logits, changed, atol=1e-5) and not torch.allclose(changed, before, atol=1e-3)


def test_layerwise_rates():
    model = BertForSequenceClassification(small.bert_config(50))
    (optimizer,) = make_optimizers(model, OptimConfig(learning_rate=1.0, layerwise_lr_decay=0.5))
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["classifier.weight"] == found["bert.pooler.dense.bias"] == 1.0
    assert found["bert.encoder.layer.1.output.dense.weight"] == 0.5
    assert found["bert.encoder.layer.0.attention.self.query.bias"] == 0.25
    assert found["bert.embeddings.word_embeddings.weight"] == found["bert.embeddings.LayerNorm.bias"] == 0.125


@pytest.mark.parametrize("tuning", ["full", "head", "lora"])
@pytest.mark.parametrize("make", [lambda: GPT2ForSequenceClassification(GPT2Config(
    **{**small.gpt_config(50).to_dict(), "num_labels": 1, "pad_token_id": 0})),
    lambda: TextForClassification(TextConfig(backbone_config=small.bert_config(50), num_labels=1))])
def test_a_saved_regression_answers_in_the_users_unit(make, tuning, tmp_path):
    """Whatever is trained; and what goes on learning is left as it was."""
    class Batches:
        labels = (NUMBERS * 1e5 + 3e5).astype(np.float32)
        batch = None

    torch.manual_seed(0)
    learning = fine_tuning.FineTuning(make(), Batches(), Batches(), fine_tuning.FineTuningConfig(tuning=tuning),
                                      task="regression")
    for name, parameter in learning.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    ids, model = torch.randint(5, 50, (6, 9)), learning.model.eval()
    with torch.inference_mode():
        learned = model(ids).logits
        learning.save(model, tmp_path)
        assert torch.equal(model(ids).logits, learned)
        saved = type(model).from_pretrained(tmp_path).eval()(ids).logits.numpy()
    expected = learning.objective.in_units(learned.numpy().astype(float))
    assert np.allclose(saved, expected, rtol=1e-5, atol=1.0)  # of a deviation of 1e5
