"""Word vectors of a token store: positive pointwise mutual information, factorised (Levy, Goldberg & Dagan 2015)."""

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from tqdm.auto import tqdm

from toolkit.data.store import TokenStore

WINDOW = 5
CONTEXT_SMOOTHING = 0.75  # Levy et al. 2015, section 3.1: rare contexts would dominate otherwise
_CHUNK = 1_000_000  # tokens counted at a time: bounds memory whatever the size of the store


def cooccurrence(store: TokenStore, vocab_size: int, progress: bool = True) -> sparse.csr_matrix:
    """(vocab, vocab) symmetric counts of ids at most `WINDOW` tokens apart, each weighted by 1 / distance."""
    total = sparse.csr_matrix((vocab_size, vocab_size), dtype=np.float32)
    for start in tqdm(range(0, max(store.num_tokens - 1, 0), _CHUNK), desc="counting neighbours", unit="M",
                      disable=None if progress else True, leave=False):
        ids = store.ids[start:start + _CHUNK + WINDOW].astype(np.int32)
        distances = range(1, min(WINDOW, len(ids) - 1) + 1)
        right = [ids[distance:distance + _CHUNK] for distance in distances]  # left tokens of this chunk alone
        left = np.concatenate([ids[:len(part)] for part in right])
        weight = np.concatenate([np.full(len(part), 1 / distance, np.float32)
                                 for distance, part in zip(distances, right, strict=True)])
        right = np.concatenate(right)
        total += sparse.csr_matrix((weight, (left, right)), shape=total.shape)
    return total + total.T


def word_vectors(store: TokenStore, vocab_size: int, width: int, standard_deviation: float,
                 progress: bool = True) -> np.ndarray:
    """(vocab, width) float32 vectors of the given standard deviation; zero rows for ids that do not occur."""
    counts = cooccurrence(store, vocab_size, progress).tocoo()
    word = np.bincount(counts.row, counts.data, vocab_size)
    context = word**CONTEXT_SMOOTHING
    expected = word[counts.row] / word.sum() * context[counts.col] / context.sum()
    information = np.log(np.maximum(counts.data / word.sum() / expected, 1))
    table = sparse.csr_matrix((information.astype(np.float32), (counts.row, counts.col)), shape=counts.shape)
    table.eliminate_zeros()
    left, singular, _ = randomized_svd(table, min(width, vocab_size - 1), random_state=0)
    vectors = np.zeros((vocab_size, width), np.float32)
    vectors[:, : left.shape[1]] = left * np.sqrt(singular)
    occurring = word > 0
    vectors *= standard_deviation / vectors[occurring].std()
    vectors[~occurring] = 0
    return vectors
