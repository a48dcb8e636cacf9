"""How often an epoch passes over each source of a store: positions along an epoch → tokens of the store."""

import numpy as np

from toolkit.data import counter
from toolkit.data.stores.store import TokenStore
from toolkit.errors import UserError

_SHIFT = 0x3417


class Mixture:
    """An epoch as one line of `size` positions, on which source s takes weight × its tokens.

    A source of weight 2 is passed over twice, of weight 0.3 to three tenths, from a place that each epoch draws anew.
    Without weights, positions are tokens.
    """

    def __init__(self, store: TokenStore, weights: tuple[float, ...], seed: int):
        self.tokens = np.asarray(store.source_tokens(), np.int64)
        self.weighted = any(weight != 1 for weight in weights)
        self.seed = seed
        self.size = store.num_tokens
        if self.weighted:
            if len(weights) < len(self.tokens):
                raise UserError(f"{store.directory}: has {len(self.tokens)} sources, corpus.weights {len(weights)}. "
                                f"Give one weight for each.")
            lengths = (np.asarray(weights[:len(self.tokens)]) * self.tokens).astype(np.int64)
            self.ends = np.cumsum(lengths)
            self.begins, self.first = self.ends - lengths, np.cumsum(self.tokens) - self.tokens
            self.size = int(self.ends[-1])
            if not self.size:
                raise UserError(f"{store.directory}: no source with a corpus.weights above 0 has any text.")

    def tokens_at(self, position: np.ndarray, epoch: np.ndarray) -> np.ndarray:
        """(n,) positions in 0 … size − 1 and their epochs → (n,) indices into the ids of the store."""
        if not self.weighted:
            return position
        source = np.searchsorted(self.ends, position, "right")
        own = self.tokens[source]
        stream = counter.key(self.seed, _SHIFT)
        shift = (counter.uniform(stream, epoch * len(self.ends) + source, 1)[:, 0] * own).astype(np.int64)
        return self.first[source] + (position - self.begins[source] + shift) % own
