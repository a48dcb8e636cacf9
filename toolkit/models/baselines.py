"""What every result is held against: cheap, classical, from scikit-learn."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from toolkit.data.labelled import LabelledText


def majority(train_labels: np.ndarray, test_labels: np.ndarray) -> float:
    """Accuracy of always answering the class most frequent in training (the first of several)."""
    return float((test_labels == np.bincount(train_labels).argmax()).mean())


def tfidf_logistic(train: LabelledText, test: LabelledText) -> np.ndarray:
    """(n,) predictions of logistic regression on TF-IDF of words and word pairs."""
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                          LogisticRegression(C=10, max_iter=1000))
    return model.fit(train.texts, train.labels).predict(test.texts)


def logistic_on_values(train_values: np.ndarray, train_labels: np.ndarray, test_values: np.ndarray) -> np.ndarray:
    """(n,) predictions of logistic regression on the raw samples of the series, (n, channels, length)."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(train_values.reshape(len(train_values), -1), train_labels).predict(
        test_values.reshape(len(test_values), -1))
