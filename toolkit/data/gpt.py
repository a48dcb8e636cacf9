"""GPT's pretraining batches: (store, seed, step) → packed blocks, documents parted by the end token."""

import numpy as np

from toolkit.data import counter
from toolkit.data.store import TokenStore
from toolkit.errors import UserError

_EPOCH = 0


class GptBatches:
    """`batch(step, rows)` draws rows of a global batch; equal arguments give equal arrays, for ever.

    One epoch cuts the token stream into blocks, from a random phase, and visits them in a fresh order. A block is
    `block_size` inputs and the same shifted by one as targets.
    """

    def __init__(self, store: TokenStore, block_size: int, batch_size: int, seed: int):
        self.store, self.block_size, self.batch_size, self.seed = store, block_size, batch_size, seed
        if store.num_tokens <= block_size:
            raise UserError(f"{store.directory}: {store.num_tokens} tokens do not fill one block of {block_size}. Give "
                            f"more text or a smaller block_size.")
        self.rows_per_epoch = (store.num_tokens - 1) // block_size

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """`input_ids`, `labels` (b, block_size): labels are the next tokens, already shifted."""
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        epochs, slots = counter.epoch_order(self.seed, index, self.rows_per_epoch)
        phase = counter.bits(counter.key(self.seed, _EPOCH), epochs, 1)[:, 0] % np.uint64(self.block_size)
        start = slots * self.block_size + phase.astype(np.int64)
        start = np.minimum(start, self.store.num_tokens - self.block_size - 1)
        block = self.store.ids[start[:, None] + np.arange(self.block_size + 1)[None, :]].astype(np.int64)
        return {"input_ids": block[:, :-1], "labels": block[:, 1:]}


def evaluation_blocks(store: TokenStore, block_size: int, end_id: int, rows: range) -> dict[str, np.ndarray]:
    """Blocks `rows` of a pass in which every token of the store is predicted exactly once.

    The first token follows an end token, as the start of a document does. `labels` are −100 past the end.
    """
    start = np.arange(rows.start, rows.stop)[:, None] * block_size
    position = start + np.arange(block_size + 1)[None, :] - 1
    inside = position < store.num_tokens
    tokens = store.ids[np.clip(position, 0, store.num_tokens - 1)].astype(np.int64)
    tokens[position < 0] = end_id
    tokens[~inside] = end_id
    return {"input_ids": tokens[:, :-1], "labels": np.where(inside, tokens, -100)[:, 1:]}


def num_evaluation_blocks(store: TokenStore, block_size: int) -> int:
    return -(-store.num_tokens // block_size)
