"""Word vectors of a token store: counted (PPMI and truncated SVD) or predicted (skip-gram, CBOW); what they know.

Levy, Goldberg & Dagan (2015) for the former, Mikolov et al. (2013a, b) for the latter, by gensim. A "word" is an entry
of the store's tokenizer.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from transformers import PreTrainedTokenizerBase

from toolkit.bars import bar
from toolkit.data.stores.store import TokenStore
from toolkit.errors import UserError
from toolkit.regular import regular
from toolkit.run.files import write_atomic

WINDOW = 5
CONTEXT_SMOOTHING = 0.75  # Levy et al. 2015, section 3.1: rare contexts would dominate otherwise
_CHUNK = 1_000_000  # tokens counted at a time: bounds memory whatever the size of the store

METHODS = ("ppmi-svd", "skip-gram", "cbow")


def cooccurrence(store: TokenStore, vocab_size: int, progress: bool = True) -> sparse.csr_matrix:
    """(vocab, vocab) symmetric counts of ids at most `WINDOW` tokens apart, each weighted by 1 / distance."""
    total = sparse.csr_matrix((vocab_size, vocab_size), dtype=np.float32)
    for start in bar(range(0, max(store.num_tokens - 1, 0), _CHUNK), desc="counting neighbours", unit="M",
                     progress=progress):
        ids = store.ids[start:start + _CHUNK + WINDOW].astype(np.int32)
        distances = range(1, min(WINDOW, len(ids) - 1) + 1)
        right = [ids[distance:distance + _CHUNK] for distance in distances]  # left tokens of this chunk alone
        left = np.concatenate([ids[:len(part)] for part in right])
        weight = np.concatenate([np.full(len(part), 1 / distance, np.float32)
                                 for distance, part in zip(distances, right, strict=True)])
        right = np.concatenate(right)
        total += sparse.csr_matrix((weight, (left, right)), shape=total.shape)
    return total + total.T


def train_word_vectors(store: TokenStore, vocab_size: int, width: int, method: str = "ppmi-svd", seed: int = 0,
                       progress: bool = True) -> np.ndarray:
    """(vocab, width) float32 vectors by one of `METHODS`; zero rows for ids that do not occur, or too seldom."""
    if method == "ppmi-svd":
        return _factorised(cooccurrence(store, vocab_size, progress), width, seed)
    return _predicted(store, vocab_size, width, method, seed)


def _factorised(counts: sparse.csr_matrix, width: int, seed: int) -> np.ndarray:
    """Singular vectors of the positive pointwise mutual information, times the roots of the singular values."""
    counts = counts.tocoo()
    word = np.bincount(counts.row, counts.data, counts.shape[0])
    context = word**CONTEXT_SMOOTHING
    expected = word[counts.row] / word.sum() * context[counts.col] / context.sum()
    information = np.log(np.maximum(counts.data / word.sum() / expected, 1))
    table = sparse.csr_matrix((information.astype(np.float32), (counts.row, counts.col)), shape=counts.shape)
    table.eliminate_zeros()
    left, singular, _ = randomized_svd(table, min(width, counts.shape[0] - 1), random_state=seed)
    vectors = np.zeros((counts.shape[0], width), np.float32)
    vectors[:, : left.shape[1]] = left * np.sqrt(singular)
    vectors[word == 0] = 0
    return vectors


def _predicted(store: TokenStore, vocab_size: int, width: int, method: str, seed: int) -> np.ndarray:
    """Skip-gram or CBOW with five negative samples (Mikolov et al. 2013b); several threads, so no two runs agree."""
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise UserError(f"word vectors by {method} need gensim: pip install gensim, or use ppmi-svd, which needs "
                        f"nothing.") from None
    model = Word2Vec(_Sentences(store), vector_size=width, window=WINDOW, sg=int(method == "skip-gram"), negative=5,
                     sample=1e-4, min_count=5, epochs=3, seed=seed, workers=os.cpu_count())
    vectors = np.zeros((vocab_size, width), np.float32)
    vectors[np.asarray(model.wv.index_to_key, int)] = model.wv.vectors
    return vectors


class _Sentences:
    """Runs of ids for gensim, which wants them as often as it has epochs; cut where documents end or at 1,000."""

    def __init__(self, store: TokenStore):
        self.store = store

    def __iter__(self):
        bounds = self.store.document_tokens()
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            for begin in range(start, stop, 1000):
                yield list(map(str, self.store.ids[begin:min(begin + 1000, stop)].tolist()))


@dataclass(frozen=True)
class WordVectors:
    """`words` and their `vectors` (n, width)."""

    words: list[str]
    vectors: np.ndarray

    def nearest(self, word: str, count: int = 8) -> list[tuple[str, float]]:
        """The words with the largest cosine to `word`, itself left out."""
        return self._closest(self.unit()[self._index(word)], {word}, count)

    def analogy(self, a: str, b: str, c: str, count: int = 3) -> list[tuple[str, float]]:
        """`a` is to `b` as `c` is to …: the words closest to b − a + c (Mikolov et al. 2013a), the three left out."""
        unit = self.unit()
        return self._closest(unit[self._index(b)] - unit[self._index(a)] + unit[self._index(c)], {a, b, c}, count)

    def unit(self) -> np.ndarray:
        return self.vectors / np.maximum(np.linalg.norm(self.vectors, axis=1, keepdims=True), 1e-12)

    def _index(self, word: str) -> int:
        if word not in self.words:
            raise UserError(f"'{word}' has no vector: it is not in the vocabulary, or does not occur in the corpus.")
        return self.words.index(word)

    def _closest(self, target: np.ndarray, without: set[str], count: int) -> list[tuple[str, float]]:
        cosine = self.unit() @ (target / max(np.linalg.norm(target), 1e-12))
        order = [i for i in np.argsort(-cosine) if self.words[i] not in without][:count]
        return [(self.words[i], float(cosine[i])) for i in order]


def save_word2vec(path: str | Path, vectors: WordVectors) -> None:
    """word2vec's text format, which gensim reads: a line with the counts, then a line a word."""
    lines = [f"{len(vectors.words)} {vectors.vectors.shape[1]}"]
    lines += [f"{word} {' '.join(f'{value:.6g}' for value in row)}"
              for word, row in zip(vectors.words, vectors.vectors, strict=True)]
    write_atomic(Path(path), "\n".join(lines) + "\n")


def load_word2vec(path: str | Path) -> WordVectors:
    """Read word2vec's text format; UserError that names the line where it is something else."""
    path = regular(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file. `make word-vectors` writes one.")
    words, rows, width = [], [], 0
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            parts = line.rstrip("\n").split(" ")
            try:
                if number == 1:
                    _, width = map(int, parts)
                    continue
                row = np.asarray(parts[1:], np.float32)
            except ValueError:
                row = np.empty(0)
            if len(row) != width or not width:
                raise UserError(f"{path}, line {number}: not word2vec's text format: a line with the number of words "
                                f"and of dimensions, then a word and its {width or 'd'} numbers a line.")
            words.append(parts[0])
            rows.append(row)
    return WordVectors(words, np.stack(rows) if rows else np.empty((0, width), np.float32))


def averaged(texts: Sequence[str], vectors: WordVectors, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """(n, width) mean of the vectors of each text's words, at unit length: probes of them are 3 points better than with
    frequent words' longer ones. Zero where no word is known.
    """
    by_id = np.zeros((len(tokenizer), vectors.vectors.shape[1] + 1), np.float32)  # the last column counts
    ids = tokenizer.get_vocab()
    for word, vector in zip(vectors.words, vectors.unit(), strict=True):
        if word in ids:
            by_id[ids[word]] = [*vector, 1]
    sums = np.stack([by_id[text].sum(0) for text in tokenizer(list(texts), add_special_tokens=False)["input_ids"]])
    return sums[:, :-1] / np.maximum(sums[:, -1:], 1)
