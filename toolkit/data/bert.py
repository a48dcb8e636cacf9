"""BERT's pretraining batches: (store, seed, step) → [CLS] A [SEP] B [SEP], next-sentence labels, 80/10/10 masks.

After Devlin et al. (2018), section 3.1 and appendix A.2, with differences that keep the next-sentence label from
showing in the geometry: a random B comes from a different document and is as long as the true one would have been, a
long A is cut at its front whatever B is, and neither B ends with a sentence much more often than the other.
"""

import math
from dataclasses import dataclass

import numpy as np

from toolkit.data import counter
from toolkit.data.store import TokenStore
from toolkit.errors import UserError
from toolkit.tokenization import PreTrainedTokenizerBase, ordinary_ids

IGNORED = -100
"""Label of a position that is not predicted, as everywhere in transformers."""

_GEOMETRY, _EPOCH, _CHOICE, _REPLACEMENT, _ROUNDING = range(5)  # independent random streams


@dataclass
class MaskingConfig:
    max_seq_length: int = 128
    """Tokens in a row, special ones included; rows are filled to it."""
    mlm_probability: float = 0.15
    """Share of the non-special tokens that are predicted."""
    next_sentence_prediction: bool = True
    """Whether half of the rows get a B from a different document, to be told apart."""

    def predictions_per_row(self) -> int:
        return max(1, math.ceil(self.mlm_probability * (self.max_seq_length - 3)))


class BertBatches:
    """`batch(step, rows)` draws rows of a global batch; equal arguments give equal arrays, for ever.

    One epoch lays windows of `max_seq_length` − 3 tokens over the whole store, shifted by a random phase, and visits
    them in a fresh order; every row starts at a sentence. Documents of a single sentence have no true continuation:
    a window that falls into one moves to the next document that has two.
    """

    def __init__(self, store: TokenStore, tokenizer: PreTrainedTokenizerBase, config: MaskingConfig,
                 batch_size: int, seed: int):
        self.store, self.config, self.batch_size, self.seed = store, config, batch_size, seed
        missing = [name for name in ("cls_token_id", "sep_token_id", "mask_token_id", "pad_token_id")
                   if getattr(tokenizer, name) is None]
        if missing:
            raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no {missing[0].removesuffix('_id')}, which "
                            f"BERT needs. Use a WordPiece spec such as tokenizers/wordpiece-8k.yaml.")
        if not 0 < config.mlm_probability < 1:
            raise UserError(f"mlm_probability is {config.mlm_probability}; it must lie between 0 and 1.")
        if config.max_seq_length < 8:
            raise UserError(f"max_seq_length is {config.max_seq_length}; pairs need at least 8 tokens.")
        self.cls, self.sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.mask, self.pad = tokenizer.mask_token_id, tokenizer.pad_token_id
        self.ordinary = ordinary_ids(tokenizer)
        if store.num_documents < 2:
            raise UserError(f"{store.directory}: {store.num_documents} document; next-sentence prediction needs a "
                            f"second one to draw wrong continuations from. Give more files, or split the text.")
        sizes = np.diff(store.document_offsets)
        if not (sizes > 1).any():
            raise UserError(f"{store.directory}: every document is a single sentence, so there are no continuations "
                            f"to predict. Check corpus.language and the blank lines of the text.")
        following = np.where(sizes > 1, np.arange(len(sizes)), len(sizes))
        following = np.minimum.accumulate(following[::-1])[::-1]  # nearest document, this or later, with two sentences
        self.paired_document = np.where(following < len(sizes), following, np.argmax(sizes > 1))
        self.window = config.max_seq_length - 3
        # Documents by length, so that those long enough for a random B are the end of a list.
        lengths = np.diff(store.document_tokens())
        self.by_length = np.argsort(lengths, kind="stable")
        self.sorted_lengths = lengths[self.by_length]
        self.sorted_tokens = np.concatenate([[0], np.cumsum(self.sorted_lengths)])
        self.rank = np.argsort(self.by_length)
        self.rows_per_epoch = max(1, store.num_tokens // self.window)

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """Arrays for rows (b of them) of the global batch at `step`, T = max_seq_length, P predictions a row:

        input_ids, token_type_ids, attention_mask (b, T); masked_positions, masked_labels (b, P), labels −100 where a
        short row predicts fewer; next_sentence_label (b,), 0 for a true continuation, 1 for a random one.
        """
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        batch = self._pairs(index)
        self._mask(batch, index)
        return batch

    def _pairs(self, index: np.ndarray) -> dict[str, np.ndarray]:
        store, window = self.store, self.window
        starts, documents = store.sentence_offsets, store.document_offsets
        draws = counter.uniform(counter.key(self.seed, _GEOMETRY), index, 4)
        epochs, slots = counter.epoch_order(self.seed, index, self.rows_per_epoch)
        phase = counter.uniform(counter.key(self.seed, _EPOCH), epochs, 1)[:, 0]
        token = ((slots + phase) * (store.num_tokens / self.rows_per_epoch)).astype(np.int64) % store.num_tokens

        def sentence_at(tokens: np.ndarray) -> np.ndarray:
            return np.searchsorted(starts, tokens, "right") - 1

        # A starts at the sentence under the token, or earlier where the document would end before the window does.
        first = sentence_at(token)
        document = np.searchsorted(documents, first, "right") - 1
        moved = self.paired_document[document]
        first = np.where(moved == document, first, documents[moved])
        document = moved
        opening, closing = documents[document], documents[document + 1]
        last_token = starts[closing]
        latest = np.maximum(opening, sentence_at(np.maximum(last_token - window, starts[opening])))
        first = np.minimum(np.minimum(first, latest), closing - 2)

        # The boundary between A and B is any sentence boundary inside the window.
        past_window = np.minimum(np.searchsorted(starts, starts[first] + window, "left"), closing)
        boundary = first + 1 + (draws[:, 0] * np.maximum(past_window - first - 1, 1)).astype(np.int64)
        middle = starts[boundary]
        available = last_token - middle
        length_a = np.minimum(middle - starts[first], window - np.minimum(available, window // 4))
        length_b = np.minimum(available, window - length_a)
        if self.config.next_sentence_prediction:  # true or random, B is no longer than another document can give
            longest_other = np.where(document == self.by_length[-1], *self.sorted_lengths[[-2, -1]])
            length_b = np.minimum(length_b, longest_other)
            # A true B that reaches the end of its document would end with a sentence, as a random one seldom does.
            last_sentence = np.minimum(last_token - starts[closing - 1], length_b)
            short = (length_b == available) & (length_a + length_b < window)
            length_b = length_b - np.where(short, (draws[:, 3] * last_sentence).astype(np.int64), 0)
        start_a, start_b = middle - length_a, middle

        # A random B: a sentence of another document, early enough in it to be as long as the true one.
        label = np.zeros(len(index), np.int64)
        if self.config.next_sentence_prediction:
            label = (draws[:, 1] < 0.5).astype(np.int64)
            # Tokens of the documents that are long enough, in the order of length, this document left out.
            size, here = last_token - starts[opening], self.sorted_tokens[self.rank[document]]
            low = self.sorted_tokens[np.searchsorted(self.sorted_lengths, length_b, "left")]
            token = low + (draws[:, 2] * (store.num_tokens - low - size)).astype(np.int64)
            token = np.where(token >= here, token + size, token)
            place = np.searchsorted(self.sorted_tokens, token, "right") - 1
            other = self.by_length[place]
            other_start, other_end = starts[documents[other]], starts[documents[other + 1]]
            token = np.minimum(token - self.sorted_tokens[place] + other_start, other_end - length_b)
            start_b = np.where(label == 1, starts[sentence_at(token)], start_b)

        column = np.arange(self.config.max_seq_length)[None, :]
        in_a = (column >= 1) & (column <= length_a[:, None])
        second = (length_a + 2)[:, None]
        end = second + length_b[:, None]
        in_b = (column >= second) & (column < end)
        source = np.where(in_a, start_a[:, None] + column - 1, np.where(in_b, start_b[:, None] + column - second, 0))
        input_ids = store.ids[source].astype(np.int64)
        input_ids[~(in_a | in_b)] = self.pad
        input_ids[:, 0] = self.cls
        row = np.arange(len(index))
        input_ids[row, length_a + 1] = self.sep
        input_ids[row, end[:, 0]] = self.sep
        return {
            "input_ids": input_ids,
            "token_type_ids": ((column >= second) & (column <= end)).astype(np.int64),
            "attention_mask": (column <= end).astype(np.int64),
            "next_sentence_label": label,
        }

    def _mask(self, batch: dict[str, np.ndarray], index: np.ndarray) -> None:
        ids = batch["input_ids"]
        predictions = self.config.predictions_per_row()
        special = (ids == self.cls) | (ids == self.sep) | (ids == self.pad)
        # The share exactly, on average: what is left over of a row decides by chance.
        leftover = counter.uniform(counter.key(self.seed, _ROUNDING), index, 1)[:, 0]
        wanted = np.floor(self.config.mlm_probability * (~special).sum(1) + leftover).astype(np.int64)
        wanted = np.clip(wanted, 1, predictions)
        # The `wanted` smallest of one random key a position: a draw without replacement.
        keys = counter.bits(counter.key(self.seed, _CHOICE), index, ids.shape[1])
        keys[special] = np.iinfo(np.uint64).max
        chosen = np.argpartition(keys, predictions, axis=1)[:, :predictions]
        chosen = np.take_along_axis(chosen, np.argsort(np.take_along_axis(keys, chosen, 1), axis=1), 1)
        used = np.arange(predictions)[None, :] < wanted[:, None]
        chosen = np.where(used, chosen, 0)
        original = np.take_along_axis(ids, chosen, 1)
        fate = counter.uniform(counter.key(self.seed, _REPLACEMENT), index, 2 * predictions)
        random_ids = self.ordinary[(fate[:, predictions:] * len(self.ordinary)).astype(np.int64)]
        fate = fate[:, :predictions]
        replaced = np.where(fate < 0.8, self.mask, np.where(fate < 0.9, random_ids, original))
        row = np.broadcast_to(np.arange(len(ids))[:, None], chosen.shape)
        ids[row[used], chosen[used]] = replaced[used]
        batch["masked_positions"] = chosen
        batch["masked_labels"] = np.where(used, original, IGNORED)


def unigram_entropy(store: TokenStore, vocab_size: int, reference: TokenStore) -> float:
    """Cross-entropy in nats of `store` under the word frequencies of `reference`: what knowing no context costs.

    Frequencies are smoothed by one half (Krichevsky & Trofimov 1981), so that unseen tokens cost a finite amount.
    """
    counts = np.bincount(reference.ids, minlength=vocab_size) + 0.5
    log_probability = np.log(counts / counts.sum())
    return float(-(np.bincount(store.ids, minlength=vocab_size) / store.num_tokens) @ log_probability)
