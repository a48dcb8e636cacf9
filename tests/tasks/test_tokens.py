"""Tags on words as a task: what starts from where, that it learns, and that a saved model tags as it was tested."""

import random

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForTokenClassification

from toolkit.data.tags.batches import TagBatches
from toolkit.data.tags.tagged import TaggedSentences, joined
from toolkit.metrics.tagging import unopened
from toolkit.models.load import load_checkpoint_tokenizer
from toolkit.models.text.tagger import token_classifier
from toolkit.run.directory import Run
from toolkit.run.files import read_json
from toolkit.tasks.settings import TaggingConfig
from toolkit.tasks.tokens import Tagging, tagged, train_tagger, word_scores
from toolkit.training.impl.precision import exact
from toolkit.training.impl.settings import ImplConfig

TAGS = ["O", "B-person", "I-person", "B-time"]
PEOPLE, TIMES, OTHERS = ("captain", "doctor", "man"), ("morning", "winter", "night"), (
    "the", "a", "of", "and", "in", "was", "with", "house", "river", "great")


def sentences(count: int, seed: int) -> TaggedSentences:
    """A person is `old captain` or `captain`; a time is one word."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        words, tags = [], []
        for _ in range(draw.randrange(2, 7)):
            kind = draw.randrange(4)
            if kind == 0:
                old = draw.random() < 0.5
                words += [*(["old"] if old else []), draw.choice(PEOPLE)]
                tags += ["B-person", "I-person"] if old else ["B-person"]
            else:
                words.append(draw.choice(TIMES if kind == 1 else OTHERS))
                tags.append("B-time" if kind == 1 else "O")
        rows.append((*joined(words), tags, f"line {number}"))
    return TaggedSentences(*([row[part] for row in rows] for part in range(4)))


@pytest.fixture(params=["bert", "gpt"])
def arm(request, checkpoints):
    """(path, tokenizer, train, validation, test)."""
    path = checkpoints[request.param]
    tokenizer = load_checkpoint_tokenizer(path)
    labelled = "first" if request.param == "bert" else "last"
    return path, tokenizer, *(TagBatches(sentences(count, seed), tokenizer, TAGS, 48, 16, 0, labelled)
                              for seed, count in enumerate((200, 40, 60)))


def settings(**changes) -> TaggingConfig:
    return TaggingConfig(**{"max_steps": 60, "batch_size": 16, "learning_rate": 5e-3, "eval_steps": 20,
                            "logging_steps": 20, **changes})


def test_it_starts_from_the_checkpoint_or_from_random_values(arm):
    path, tokenizer, *_ = arm
    states = AutoModel.from_pretrained(path).state_dict()
    for pretrained in (True, False):
        model = token_classifier(path, TAGS, tokenizer, pretrained, dropout=0.25)
        own = model.base_model.state_dict()
        same = [torch.equal(own[name], states[name]) for name in own if own[name].ndim == 2]
        assert all(same) == pretrained and len(same) > 4
        assert model.config.id2label == dict(enumerate(TAGS)) and model.dropout.p == 0.25


def test_it_learns_and_the_saved_model_tags_as_it_was_tested(arm, accelerator, tmp_path):
    path, tokenizer, train, validation, test = arm
    run = Run(tmp_path / "run")
    result = train_tagger(lambda: token_classifier(path, TAGS, tokenizer, True), train, validation, test, settings(),
                          ImplConfig(dtype="fp32"), run, accelerator, 0, "tags", tokenizer)
    assert result["accuracy"] > 0.9 and result["f1"] > 0.8 and result["by_kind"].keys() == {"person", "time"}
    low, high = result["interval"]
    assert low <= result["f1"] <= high and 0 < result["validation"]["f1"] <= 1
    saved = AutoModelForTokenClassification.from_pretrained(run.model_dir)
    assert saved.config.tag_input == {"max_length": 48, "labelled": test.labelled, "constrained": True}
    given = [row["predictions"] for row in read_json(run.directory / "predictions.json", list)]
    for size in (1, 60):  # whatever stands beside it
        assert tagged(word_scores(saved, test, accelerator, exact(accelerator.device), size), TAGS, True) == given
    assert run.result() == train_tagger(None, train, validation, test, settings(), ImplConfig(), run, accelerator, 0,
                                        "tags", tokenizer), "a finished run is not repeated"


@pytest.mark.parametrize("tuning", ["head", "lora"])
def test_parts_are_trained_alone(arm, accelerator, tmp_path, tuning):
    path, tokenizer, train, validation, test = arm
    run = Run(tmp_path / "run")
    train_tagger(lambda: token_classifier(path, TAGS, tokenizer, True), train, validation, test,
                 settings(max_steps=4, eval_steps=2, tuning=tuning), ImplConfig(dtype="fp32"), run, accelerator, 0,
                 "tags", tokenizer)
    before, after = (AutoModel.from_pretrained(place).state_dict() for place in (path, run.model_dir))
    changed = [name for name in before if name in after and "pooler" not in name
               and not torch.equal(before[name], after[name])]
    assert bool(changed) == (tuning == "lora") and all("attn" in name or "attention" in name for name in changed)


def test_a_long_sentence_is_tagged_word_by_word(arm, accelerator):
    """In windows as whole: each word gets an answer."""
    path, tokenizer, *_ = arm
    long = sentences(60, 5)
    words = [word for sentence in long.words for word in sentence]
    whole = TaggedSentences(*([part] for part in joined(words)), [], ["line 1"])
    batches = TagBatches(whole, tokenizer, TAGS, 32, 4, 0)
    (scores,) = word_scores(token_classifier(path, TAGS, tokenizer, True), batches, accelerator,
                            exact(accelerator.device))
    assert scores.shape == (len(words), len(TAGS)) and np.allclose(np.exp(scores).sum(1), 1, atol=1e-5)


def test_constrained_answers_are_bio(arm):
    draw = np.random.default_rng(0)
    scores = [draw.normal(size=(12, len(TAGS))) for _ in range(20)]
    assert not any(map(unopened, tagged(scores, TAGS, True))) and any(map(unopened, tagged(scores, TAGS, False)))


def test_the_best_is_chosen_by_spans_or_by_words(arm):
    path, tokenizer, train, validation, _ = arm
    learning = Tagging(token_classifier(path, TAGS, tokenizer, False), train, validation, settings(), tokenizer)
    wanted = [np.log(np.eye(len(TAGS))[[TAGS.index(tag) for tag in tags]] + 1e-9) for tags in validation.sentences.tags]
    found = learning.figures(wanted)
    assert found["f1"] == found["accuracy"] == 1 and found["criterion"] == 0
    assert found["loss"] == pytest.approx(0, abs=1e-6)
