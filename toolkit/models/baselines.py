"""What every result is held against: cheap, classical, from scikit-learn."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from toolkit.data.labelled import LabelledText


def majority(train_labels: np.ndarray, test_labels: np.ndarray) -> float:
    """Accuracy of always answering the class most frequent in training (the first of several)."""
    return float((test_labels == np.bincount(train_labels).argmax()).mean())


def tfidf_logistic(train: LabelledText, test: LabelledText) -> np.ndarray:
    """(n,) predictions of logistic regression on TF-IDF of words and word pairs."""
    return tfidf_outputs(train, test).argmax(1)


def tfidf_outputs(train: LabelledText, test: LabelledText) -> np.ndarray:
    """(n, classes) probabilities of logistic regression, one for each label where there are several at once, or (n,)
    numbers of ridge regression, on TF-IDF of words and word pairs (of a pair of texts, of both). Soft labels are taken
    for their likeliest class.
    """
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    texts, test_texts = ([" ".join(both) for both in zip(part.texts, part.pairs, strict=True)] if part.pairs
                         else part.texts for part in (train, test))
    x, test_x = features.fit_transform(texts), features.transform(test_texts)
    if train.task == "regression":
        return Ridge(alpha=1.0).fit(x, train.labels).predict(test_x)
    logistic = LogisticRegression(C=10, max_iter=1000)
    if train.task == "multi-label":
        return OneVsRestClassifier(logistic).fit(x, train.labels).predict_proba(test_x)
    labels = train.labels.argmax(1) if train.task == "distribution" else train.labels
    present = np.unique(labels)
    probabilities = np.zeros((len(test), len(train.label_names)))
    probabilities[:, present] = (logistic.fit(x, labels).predict_proba(test_x) if len(present) > 1 else 1.0)
    return probabilities


def constant_outputs(train: LabelledText, test: LabelledText) -> np.ndarray:
    """The same for every text: the shares of the classes, or the mean of the numbers, in training."""
    if train.task == "classification":
        share = np.bincount(train.labels, minlength=len(train.label_names)) / len(train)
    else:
        share = train.labels.mean(0)
    return np.repeat(np.asarray(share)[None], len(test), 0)


def logistic_on_values(train_values: np.ndarray, train_labels: np.ndarray, test_values: np.ndarray) -> np.ndarray:
    """(n,) predictions of logistic regression on the raw samples of the series, (n, channels, length)."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(train_values.reshape(len(train_values), -1), train_labels).predict(
        test_values.reshape(len(test_values), -1))
