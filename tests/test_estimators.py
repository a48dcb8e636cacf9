"""The estimators do as scikit-learn's: its own checks, its own tools, and the toolkit's own answers."""

import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from toolkit.data.series.generators import LABELLED
from toolkit.estimators import SeriesClassifier, SeriesForecaster, TextClassifier, texts_of
from toolkit.inference.predict import PredictConfig, predict

OF_NAMES_AND_SHAPES = ("check_estimator_cloneable", "check_no_attributes_set_in_init",
                       "check_get_params_invariance", "check_set_params", "check_estimators_unfitted",
                       "check_classifiers_one_label", "check_n_features_in_after_fitting",
                       "check_estimators_nan_inf", "check_methods_subset_invariance", "check_supervised_y_2d")
"""What costs a second or two; the rest of scikit-learn's checks are run among the slow tests."""


def failed(checks) -> list[str]:
    return [f"{one['check_name']}: {one['exception']!r}" for one in checks if one["status"] == "failed"]


def test_scikit_learn_finds_a_series_classifier_in_order():
    classifier = SeriesClassifier(normalisation="train", max_steps=3, batch_size=16)
    ran = set()
    for estimator, check in estimator_checks_generator(classifier):
        if check.func.__name__ in OF_NAMES_AND_SHAPES:
            check(estimator)
            ran.add(check.func.__name__)
    assert ran == set(OF_NAMES_AND_SHAPES)


@pytest.mark.slow
def test_scikit_learn_finds_nothing_wrong_with_a_series_classifier():
    checks = check_estimator(SeriesClassifier(normalisation="train", max_steps=60, batch_size=16), on_fail=None)
    assert len(checks) > 50 and not failed(checks)


def test_scikit_learn_finds_nothing_wrong_with_a_text_classifier(checkpoints):
    with pytest.warns(match="2darray|input of type|Skipping|Can't test"):
        assert not failed(check_estimator(TextClassifier(checkpoints["bert"]), on_fail=None))


@pytest.fixture(scope="module")
def series():
    data = LABELLED["cylinder-bell-funnel"](20, 0)
    return data.values[:, 0], np.asarray(data.label_names)[data.labels]


def test_a_series_classifier_learns_within_scikit_learns_tools(series, tmp_path):
    values, labels = series
    classifier = SeriesClassifier(max_steps=50, batch_size=16)
    shorter = make_pipeline(FunctionTransformer(lambda X: X[:, ::2]), classifier)
    assert cross_val_score(shorter, values, labels, cv=2).mean() > 0.7, "chance is 1/3"
    search = GridSearchCV(classifier, {"max_steps": [1, 50]}, cv=2).fit(values[:, ::4], labels)
    values = values[:, ::4]
    assert search.best_params_ == {"max_steps": 50}
    best = search.best_estimator_
    assert set(best.classes_) == set(labels)
    again = pickle.loads(pickle.dumps(best))
    np.testing.assert_allclose(again.predict_proba(values), best.predict_proba(values), atol=1e-6)
    assert any("step" in line for line in best.log_)


def test_series_of_several_channels_and_of_other_shapes(series):
    values, labels = series
    both = np.stack([values, -values], 1)
    classifier = SeriesClassifier(max_steps=2).fit(both, labels)
    assert classifier.predict_proba(both).shape == (len(both), 3)
    with pytest.raises(ValueError, match="3 features, but SeriesClassifier is expecting 2"):
        classifier.predict(np.concatenate([both, both[:, :1]], 1))
    with pytest.raises(ValueError, match=r"expected \(n, length\)"):
        SeriesClassifier().fit(both[..., None], labels)
    with pytest.raises(ValueError, match="normalisation is 'trian'"):
        SeriesClassifier(normalisation="trian").fit(values, labels)


def test_a_fit_leaves_the_random_state_and_the_answer_depends_on_its_own(series):
    values, labels = series
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    fits = [SeriesClassifier(max_steps=2, random_state=seed).fit(values, labels) for seed in (1, 1, 2)]
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all() and torch.equal(torch.get_rng_state(), states[2])
    first, same, other = (one.predict_proba(values) for one in fits)
    assert (first == same).all() and (first != other).any()


def test_what_a_saved_series_classifier_predicts(series, tmp_path):
    values, labels = series
    frame = pd.DataFrame(values[:, :60] * 7 + 3, columns=[f"t{number}" for number in range(60)])
    for normalisation in ("series", "train", "none"):
        fitted = SeriesClassifier(normalisation=normalisation, max_steps=3).fit(frame.to_numpy(), labels)
        fitted.save_pretrained(tmp_path / normalisation)
        frame.to_csv(tmp_path / "new.csv", index=False)
        found = predict(PredictConfig(str(tmp_path / normalisation), str(tmp_path / "new.csv")))
        np.testing.assert_allclose(found[[f"p({name})" for name in fitted.classes_]],
                                   fitted.predict_proba(frame.to_numpy()), atol=1e-5)


def test_a_forecaster_forecasts_within_scikit_learns_tools(tmp_path):
    rows = np.arange(400)
    table = pd.DataFrame({"load": 50 + 10 * np.sin(rows / 5), "heat": 1e-3 * np.cos(rows / 5)})
    forecaster = SeriesForecaster(context_length=40, horizon=8, max_steps=150, learning_rate=1e-2)
    fitted = forecaster.fit(table)
    ahead = np.arange(400, 408)
    truth = np.stack([50 + 10 * np.sin(ahead / 5), 1e-3 * np.cos(ahead / 5)], 1)
    assert np.abs((fitted.predict() - truth) / table.std().to_numpy()).max() < 0.2
    np.testing.assert_allclose(fitted.predict(table), fitted.predict(), rtol=1e-5)
    scores = cross_val_score(make_pipeline(StandardScaler(), forecaster), table, cv=TimeSeriesSplit(2))
    assert (scores < 0).all() and (scores > -0.2).all(), "the mean would have about -1"
    search = GridSearchCV(forecaster, {"max_steps": [1, 150]}, cv=TimeSeriesSplit(2)).fit(table[["load"]])
    assert search.best_params_ == {"max_steps": 150}
    fitted.save_pretrained(tmp_path / "model")
    table.to_csv(tmp_path / "table.csv", index=False)
    found = predict(PredictConfig(str(tmp_path / "model"), str(tmp_path / "table.csv")))
    for place, name in enumerate(table.columns):
        own = found[found["channel"] == name]
        np.testing.assert_allclose(own["value"], fitted.predict()[:, place], rtol=1e-4)
    assert SeriesForecaster(context_length=40, horizon=8, max_steps=2).fit(rows.astype(float)).predict().shape == (8, 1)
    with pytest.raises(ValueError, match="X has 20 rows; a context of 40 and a horizon of 8 take more"):
        forecaster.fit(table[:20])
    with pytest.raises(ValueError, match="X has 20 rows; a forecast is made from 40"):
        fitted.predict(table[:20])


def test_a_forecaster_of_a_checkpoint(checkpoints):
    table = np.random.default_rng(0).normal(size=(200, 2))
    fitted = SeriesForecaster(checkpoints["bert"], context_length=48, horizon=4, max_steps=2).fit(table)
    assert fitted.predict().shape == (4, 2) and np.isfinite(fitted.score(table))


def few_texts(words=("good fine great", "bad awful poor")) -> tuple[list[str], list[str]]:
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words[i % 2].split(), 6)) for i in range(40)]
    return texts, [("up", "down")[i % 2] for i in range(40)]


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_a_text_classifier_learns_and_answers_texts_and_pairs(checkpoints, family, tmp_path):
    texts, labels = few_texts()
    classifier = TextClassifier(checkpoints[family], max_steps=20, batch_size=8)
    assert cross_val_score(classifier, texts, labels, cv=2).mean() > 0.9
    assert cross_val_score(classifier, pd.Series(texts), labels, cv=2).mean() > 0.9
    pairs = pd.DataFrame({"first": texts, "second": texts[::-1]})
    fitted = classifier.fit(pairs, labels)
    assert (fitted.predict(pairs) == fitted.predict(list(zip(*pairs.to_dict("list").values(), strict=True)))).all()
    with pytest.raises(ValueError, match="X holds single texts, but the classifier was fitted on pairs"):
        fitted.predict(texts)
    fitted.save_pretrained(tmp_path / "model")
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    found = predict(PredictConfig(str(tmp_path / "model"), str(tmp_path / "pairs.csv"), "first", "second"))
    assert found["label"].tolist() == fitted.predict(pairs).tolist()
    np.testing.assert_allclose(found[["p(down)", "p(up)"]], fitted.predict_proba(pairs), atol=1e-5)


def test_what_is_no_text_is_refused():
    for X, said in (("one text", "one text"), ([b"bytes"], r"X\[0\] is bytes"), (["a", None], r"X\[1\] is NoneType"),
                    ([], "no text"), (np.zeros((3, 3)), r"X\[0\] is ndarray")):
        with pytest.raises(ValueError, match=said):
            texts_of(X)
    assert texts_of(np.asarray([["a"], ["b"]])) == (["a", "b"], None)
    assert texts_of([("a", "b"), ("c", "d")]) == (["a", "c"], ["b", "d"])
