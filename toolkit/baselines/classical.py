"""What every result is held against: cheap, classical, from scikit-learn and aeon."""

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from toolkit.data.series.dataset import SeriesDataset
from toolkit.data.text.examples import LabelledText
from toolkit.errors import UserError


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


def minirocket(train: SeriesDataset, test: SeriesDataset, seed: int) -> np.ndarray:
    """(n,) predictions of ridge regression on 9,996 MiniRocket features (Dempster et al. 2021), by aeon.

    It reads series of one length: of shorter ones, the padding, and of gaps, the zeros, which are the mean of
    normalised series. It takes 9 values at least; shorter sets are padded.
    """
    try:
        from aeon.classification.convolution_based import MiniRocketClassifier
    except ImportError:
        raise _without_aeon("MiniRocket") from None
    more = ((0, 0), (0, 0), (0, max(0, 9 - train.values.shape[2])))
    state = np.random.get_state()  # aeon seeds numpy's global generator
    try:
        with _numba_threads() as threads:
            model = MiniRocketClassifier(random_state=seed, n_jobs=threads)
            return model.fit(np.pad(train.values, more), train.labels).predict(np.pad(test.values, more))
    finally:
        np.random.set_state(state)


def dtw_1nn(train: SeriesDataset, test: SeriesDataset, seed: int = 0) -> np.ndarray:
    """(n,) labels of the nearest training series by dynamic time warping without a window, by aeon; ties go to the
    first. Several channels are warped together.

    Of unequal lengths each series is compared as long as it is; times at which no channel was observed are left out.
    Nothing is drawn: `seed` is there for the signature. The time grows with train × test × length².
    """
    try:
        from aeon.distances import dtw_pairwise_distance
    except ImportError:
        raise _without_aeon("1-NN DTW") from None
    with _numba_threads() as threads, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's, about casts inside aeon
        distances = dtw_pairwise_distance(_as_observed(test), _as_observed(train), n_jobs=threads)
    return train.labels[np.asarray(distances).argmin(1)]


@contextlib.contextmanager
def _numba_threads() -> Iterator[int]:
    """As many threads as torch uses, and numba has; numba changes torch's number, which is set back."""
    import numba

    threads = torch.get_num_threads()
    try:
        yield min(threads, numba.config.NUMBA_NUM_THREADS)
    finally:
        torch.set_num_threads(threads)


def _as_observed(data: SeriesDataset) -> list[np.ndarray] | np.ndarray:
    """float64 (channels, length of its own) each."""
    values = data.values.astype(np.float64)
    if data.observed is None:
        return values
    return [np.ascontiguousarray(series[:, seen.any(0)]) for series, seen in zip(values, data.observed, strict=True)]


def _without_aeon(what: str) -> UserError:
    return UserError(f"{what} needs the package aeon. Install it (the extra `series`: pip install "
                     f"'pretraining-toolkit[series]'), or leave this baseline out.")
