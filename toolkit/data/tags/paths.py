"""Which tag may follow which, and the likeliest sentence of tags that keeps to it."""

from collections.abc import Sequence

import numpy as np

from toolkit.metrics.tagging import marks_spans, parted


def allowed(tags: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of BIO: first (T,), which tags a sentence may begin with, and after (T, T), which may follow which. Of tags that
    mark no spans everything is allowed.
    """
    if not marks_spans(tags):
        return np.ones(len(tags), bool), np.ones((len(tags), len(tags)), bool)
    parts = list(map(parted, tags))
    first = np.array([prefix != "I" for prefix, _ in parts])
    after = np.array([[prefix != "I" or kind == before for prefix, kind in parts] for _, before in parts])
    return first, after


def best_path(scores: np.ndarray, first: np.ndarray, after: np.ndarray) -> np.ndarray:
    """scores (n, T), a logarithm of each word's tags → (n,) the tags of the likeliest sentence that is allowed (Viterbi
    1967).
    """
    total = np.where(first, scores[0], -np.inf)
    before = np.zeros(scores.shape, np.int64)
    barred = np.where(after, 0.0, -np.inf)
    for place in range(1, len(scores)):
        reached = total[:, None] + barred
        before[place] = reached.argmax(0)
        total = reached.max(0) + scores[place]
    path = [int(total.argmax())]
    for place in range(len(scores) - 1, 0, -1):
        path.append(int(before[place, path[-1]]))
    return np.array(path[::-1])
