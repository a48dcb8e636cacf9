"""GPT's pretraining batches: (store, seed, step) → packed blocks, documents parted by the end token."""

import numpy as np

from toolkit.data import counter
from toolkit.data.stores.mixture import Mixture
from toolkit.data.stores.store import TokenStore
from toolkit.errors import UserError

_EPOCH = 0


class GptBatches:
    """`batch(step, rows)` draws rows of a global batch; equal arguments give equal arrays, for ever.

    One epoch cuts the token stream into blocks, from a random phase, and visits them in a fresh order. A block is
    `block_size` inputs and the same shifted by one as targets. Given `end_id`, positions start again with every
    document, which keeps attention inside it.
    """

    def __init__(self, store: TokenStore, block_size: int, batch_size: int, seed: int,
                 weights: tuple[float, ...] = (), end_id: int | None = None):
        self.store, self.block_size, self.batch_size, self.seed = store, block_size, batch_size, seed
        self.end_id, self.mixture = end_id, Mixture(store, weights, seed)
        if store.num_tokens <= block_size:
            raise UserError(f"{store.directory}: {store.num_tokens} tokens do not fill one block of {block_size}. Give "
                            f"more text or a smaller block_size.")
        self.rows_per_epoch = max(1, (self.mixture.size - 1) // block_size)

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """`input_ids`, `labels` (b, block_size): labels are the next tokens, already shifted. With `end_id`, also
        `position_ids`.
        """
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        epochs, slots = counter.epoch_order(self.seed, index, self.rows_per_epoch)
        phase = counter.bits(counter.key(self.seed, _EPOCH), epochs, 1)[:, 0] % np.uint64(self.block_size)
        place = np.minimum(slots * self.block_size + phase.astype(np.int64), self.mixture.size - 1)
        start = np.minimum(self.mixture.tokens_at(place, epochs), self.store.num_tokens - self.block_size - 1)
        block = self.store.ids[start[:, None] + np.arange(self.block_size + 1)[None, :]].astype(np.int64)
        return _inputs_and_labels(block, block[:, 1:], self.end_id)


def evaluation_blocks(store: TokenStore, block_size: int, end_id: int, rows: range,
                      within_documents: bool = False) -> dict[str, np.ndarray]:
    """Blocks `rows` of a pass in which every token of the store is predicted exactly once.

    The first token follows an end token, as the start of a document does. `labels` are −100 past the end.
    """
    start = np.arange(rows.start, rows.stop)[:, None] * block_size
    position = start + np.arange(block_size + 1)[None, :] - 1
    inside = position < store.num_tokens
    tokens = store.ids[np.clip(position, 0, store.num_tokens - 1)].astype(np.int64)
    tokens[position < 0] = end_id
    tokens[~inside] = end_id
    return _inputs_and_labels(tokens, np.where(inside, tokens, -100)[:, 1:], end_id if within_documents else None)


def _inputs_and_labels(block: np.ndarray, labels: np.ndarray, end_id: int | None) -> dict[str, np.ndarray]:
    batch = {"input_ids": block[:, :-1], "labels": labels}
    if end_id is not None:
        batch["position_ids"] = document_positions(batch["input_ids"], end_id)
    return batch


def document_positions(input_ids: np.ndarray, end_id: int) -> np.ndarray:
    """(b, T) positions that start again at every end token, which opens the document after it.

    transformers takes restarting positions for packed documents and keeps attention inside each.
    """
    column = np.arange(input_ids.shape[1])
    starts = np.maximum.accumulate(np.where(input_ids == end_id, column, 0), axis=1)
    return column - starts


def num_evaluation_blocks(store: TokenStore, block_size: int) -> int:
    return -(-store.num_tokens // block_size)
