"""BERT's pretraining batches: (store, seed, step) → [CLS] A [SEP] B [SEP], next-sentence labels, 80/10/10 masks.

After Devlin et al. (2018), section 3.1 and appendix A.2, with differences that keep the next-sentence label from
showing in the geometry: a random B comes from a different document and is as long as the true one would have been, a
long A is cut at its front whatever B is, and neither B ends with a sentence much more often than the other.
"""


import numpy as np

from toolkit.data import counter
from toolkit.data.batches import IGNORED
from toolkit.data.stores.mixture import Mixture
from toolkit.data.stores.settings import MaskingConfig
from toolkit.data.stores.store import TokenStore
from toolkit.errors import UserError
from toolkit.tokenization.load import PreTrainedTokenizerBase, ordinary_ids, word_joints

_GEOMETRY, _EPOCH, _CHOICE, _FATE, _RANDOM_TOKEN, _ROUNDING = range(6)  # independent random streams


class BertBatches:
    """`batch(step, rows)` draws rows of a global batch; equal arguments give equal arrays, for ever.

    One epoch lays windows of `max_seq_length` − 3 tokens over the whole store, shifted by a random phase, and visits
    them in a fresh order, each from the start of a sentence; an A that is too long then loses some of its front.
    Documents of a single sentence have no true continuation: a window that falls into one moves to the next document
    that has two. Without next-sentence prediction it stays, and its row is that sentence alone, [CLS] A [SEP]; so it is
    where sentences longer than a row would keep a pair from it.
    """

    def __init__(self, store: TokenStore, tokenizer: PreTrainedTokenizerBase, config: MaskingConfig,
                 batch_size: int, seed: int, weights: tuple[float, ...] = (), pairs_alone: bool = False):
        """pairs_alone: rows are pairs without next-sentence prediction too, as earlier versions had it, which never
        drew a document of one sentence.
        """
        self.store, self.config, self.batch_size, self.seed = store, config, batch_size, seed
        self.pairs_alone = config.next_sentence_prediction or pairs_alone
        missing = [name for name in ("cls_token_id", "sep_token_id", "mask_token_id", "pad_token_id")
                   if getattr(tokenizer, name) is None]
        if missing:
            raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no {missing[0].removesuffix('_id')}, which "
                            f"BERT needs. Use a WordPiece spec such as tokenizers/wordpiece-8k.yaml.")
        if not 0 < config.mlm_probability < 1:
            raise UserError(f"mlm_probability is {config.mlm_probability}; it must lie between 0 and 1.")
        if not 0 <= config.short_seq_prob <= 1:
            raise UserError(f"short_seq_prob is {config.short_seq_prob}; it must lie between 0 and 1.")
        if config.max_seq_length < 8:
            raise UserError(f"max_seq_length is {config.max_seq_length}; pairs need at least 8 tokens.")
        self.cls, self.sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.mask, self.pad = tokenizer.mask_token_id, tokenizer.pad_token_id
        self.ordinary = ordinary_ids(tokenizer)
        if config.next_sentence_prediction and store.num_documents < 2:
            raise UserError(f"{store.directory}: {store.num_documents} document; next-sentence prediction needs a "
                            f"second one to draw wrong continuations from. Give more files, or split the text.")
        sizes = np.diff(store.document_offsets)
        if self.pairs_alone and not (sizes > 1).any():
            raise UserError(f"{store.directory}: every document is a single sentence, so there are no continuations "
                            f"to predict. Check corpus.language and the blank lines of the text, or set "
                            f"masking.next_sentence_prediction to false.")
        following = np.where(sizes > 1, np.arange(len(sizes)), len(sizes))
        following = np.minimum.accumulate(following[::-1])[::-1]  # nearest document, this or later, with two sentences
        self.paired_document = np.where(following < len(sizes), following, np.argmax(sizes > 1))
        if not self.pairs_alone:
            self.paired_document = np.arange(len(sizes))
        self.window = config.max_seq_length - 3
        # Documents by length, so that those long enough for a random B are the end of a list.
        bounds = store.document_tokens()
        lengths = np.diff(bounds)
        self.by_length = np.argsort(lengths, kind="stable")
        self.sorted_lengths = lengths[self.by_length]
        self.sorted_tokens = np.concatenate([[0], np.cumsum(self.sorted_lengths)])
        self.rank = np.argsort(self.by_length)
        # Where the last full window of each document starts.
        self.latest = np.searchsorted(store.sentence_offsets, np.maximum(bounds[1:] - self.window, bounds[:-1]),
                                      "right") - 1
        self.mixture = Mixture(store, weights, seed)
        self.rows_per_epoch = max(1, self.mixture.size // self.window)
        # All runs of max_seq_length ids, as a view: a row of a batch is two of them.
        ids = np.asarray(store.ids)
        ids = np.pad(ids, (0, max(0, config.max_seq_length - len(ids))))
        self.runs = np.lib.stride_tricks.sliding_window_view(ids, config.max_seq_length)
        self.joints = word_joints(tokenizer) if config.whole_word_masking else None

    def left_out(self) -> str:
        """What no row begins with, in words; empty where that is nothing."""
        sizes = np.diff(self.store.document_offsets)
        single = int((sizes == 1).sum())
        if not (self.pairs_alone and single):
            return ""
        share = np.diff(self.store.document_tokens())[sizes == 1].sum() / self.store.num_tokens
        line = (f"{single:,} of {len(sizes):,} documents ({share:.1%} of the tokens) are a single sentence and can be "
                f"no A of a pair")
        if self.config.next_sentence_prediction:
            return (f"{line}: they are drawn as a random B only. Join them, or set masking.next_sentence_prediction to "
                    f"false, which draws every document")
        return f"{line}: this run was begun by a version that never draws them, and goes on so. A new one draws them"

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """Arrays for rows (b of them) of the global batch at `step`, T = max_seq_length, P predictions a row:

        input_ids, token_type_ids, attention_mask (b, T); masked_positions, masked_labels (b, P), labels −100 where a
        row predicts fewer; next_sentence_label (b,), 0 for a true continuation, or none, 1 for a random one. Types and
        mask are bool, ids int32: less to move; models take them as int64.
        """
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        start_a, length_a, start_b, length_b, label = self._pairs(index)
        second = length_a + 2  # where B starts in a row
        end = second + length_b - (length_b == 0)  # of the closing [SEP], which without a B is that of A
        column = np.arange(self.config.max_seq_length, dtype=np.int16)
        in_b = column >= second[:, None].astype(np.int16)
        inside = column <= end[:, None].astype(np.int16)
        ids = np.where(in_b, self._run(start_b - second), self._run(start_a - 1))
        row = np.arange(len(index))
        ids[:, 0] = self.cls
        ids[row, second - 1] = self.sep
        ids[row, end] = self.sep
        np.copyto(ids, self.pad, where=~inside)
        positions, labels = self._mask(ids, length_a, length_b, index)
        return {"input_ids": ids.astype(np.int32), "token_type_ids": in_b & inside, "attention_mask": inside,
                "masked_positions": positions, "masked_labels": labels, "next_sentence_label": label}

    def _run(self, start: np.ndarray) -> np.ndarray:
        """(b, T) ids from `start` on; before the first and after the last of the store, whatever."""
        last = len(self.runs) - 1
        if start.min() >= 0 and start.max() <= last:
            return self.runs[start]
        runs = self.runs[np.clip(start, 0, last)]
        for row in np.flatnonzero((start < 0) | (start > last)):
            runs[row] = np.take(self.store.ids, start[row] + np.arange(runs.shape[1]), mode="clip")
        return runs

    def _pairs(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """(b,) arrays: where in the store A starts, its length, the same of B, and the next-sentence label."""
        store, window = self.store, self.window
        starts, documents = store.sentence_offsets, store.document_offsets
        draws = counter.uniform(counter.key(self.seed, _GEOMETRY), index, 7)
        epochs, slots = counter.epoch_order(self.seed, index, self.rows_per_epoch)
        phase = counter.uniform(counter.key(self.seed, _EPOCH), epochs, 1)[:, 0]
        place = ((slots + phase) * (self.mixture.size / self.rows_per_epoch)).astype(np.int64) % self.mixture.size
        token = self.mixture.tokens_at(place, epochs)

        # A starts at the sentence under the token, or earlier where the document would end before the window does.
        first = _containing(starts, token)
        document = _containing(documents, first)
        moved = self.paired_document[document]
        first = np.where(moved == document, first, documents[moved])
        document = moved
        closing = documents[document + 1]
        opening_token, last_token = starts[documents[document]], starts[closing]
        first = np.maximum(np.minimum(np.minimum(first, self.latest[document]), closing - 2), documents[document])
        if self.config.short_seq_prob:
            short = draws[:, 4] < self.config.short_seq_prob
            window = np.where(short, 2 + (draws[:, 5] * (window - 1)).astype(np.int64), window)

        # The boundary between A and B is any sentence boundary inside the window.
        start_a = starts[first]
        past_window = np.minimum(1 + _containing(starts, start_a + window - 1), closing)
        boundary = first + 1 + (draws[:, 0] * np.maximum(past_window - first - 1, 1)).astype(np.int64)
        start_b = starts[boundary]
        available = last_token - start_b
        # What the sentences have too much is taken from the longer of the two: from A's front, from B's end. A long A
        # gives a random part of it: a B that always ended with its sentence would be known by that for a true one.
        length_a = start_b - start_a
        excess = np.maximum(starts[past_window] - start_a - window, 0)
        given = np.minimum((draws[:, 6] * (excess + 1)).astype(np.int64), np.maximum(length_a - (window + 1) // 2, 0))
        length_a = np.minimum(length_a - given, window - np.minimum(available, np.maximum(window // 8, 1)))
        length_b = np.minimum(available, window - length_a)
        start_a = start_b - length_a
        if not self.config.next_sentence_prediction:
            if not self.pairs_alone:  # what no pair holds: single sentences, long ones, and what follows on a long one
                sentence = _containing(starts, token)
                opens, closes = starts[sentence], starts[sentence + 1]
                alone = (closing - documents[document] == 1) | (closes - opens > self.window)
                alone |= (starts[first + 1] - starts[first] > self.window) & (token >= start_b + length_b)
                start_a = np.where(alone, np.maximum(np.minimum(token, closes - window), opens), start_a)
                length_a = np.where(alone, np.minimum(closes - opens, window), length_a)
                start_b, length_b = np.where(alone, start_a + length_a, start_b), np.where(alone, 0, length_b)
            return start_a, length_a, start_b, length_b, np.zeros(len(index), np.int64)

        # True or random, B is no longer than another document can give.
        longest_other = np.where(document == self.by_length[-1], *self.sorted_lengths[[-2, -1]])
        length_b = np.minimum(length_b, longest_other)
        # A true B that reaches the end of its document would end with a sentence, as a random one seldom does.
        last_sentence = np.minimum(last_token - starts[closing - 1], length_b)
        cut = (length_b == available) & (length_a + length_b < window)
        length_b = length_b - np.where(cut, (draws[:, 3] * last_sentence).astype(np.int64), 0)

        # A random B: a sentence of another document, early enough in it to be as long as the true one.
        label = (draws[:, 1] < 0.5).astype(np.int64)
        row = np.flatnonzero(label)
        document, length = document[row], length_b[row]
        # Tokens of the documents that are long enough, in the order of length, this document left out.
        size, here = last_token[row] - opening_token[row], self.sorted_tokens[self.rank[document]]
        low = self.sorted_tokens[np.searchsorted(self.sorted_lengths, length, "left")]
        token = low + (draws[row, 2] * (store.num_tokens - low - size)).astype(np.int64)
        token = np.where(token >= here, token + size, token)
        rank = _containing(self.sorted_tokens, token)
        other = self.by_length[rank]
        token = np.minimum(token - self.sorted_tokens[rank] + starts[documents[other]],
                           starts[documents[other + 1]] - length)
        start_b[row] = starts[_containing(starts, token)]
        return start_a, length_a, start_b, length_b, label

    def _mask(self, ids: np.ndarray, length_a: np.ndarray, length_b: np.ndarray, index: np.ndarray
              ) -> tuple[np.ndarray, np.ndarray]:
        """Choose positions (b, P), replace what stands there in `ids`, and give the labels (b, P)."""
        predictions, size = self.config.predictions_per_row(), length_a + length_b
        # The share exactly, on average: what is left over of a row decides by chance.
        leftover = counter.uniform(counter.key(self.seed, _ROUNDING), index, 2)
        wanted = np.floor(self.config.mlm_probability * size + leftover[:, 0]).astype(np.int64)
        wanted = np.clip(wanted, 1, np.minimum(predictions, size))
        fate = counter.bits32(counter.key(self.seed, _FATE), index, predictions)
        if self.config.whole_word_masking:
            chosen, used, first = self._whole_words(ids, length_a, size, wanted[:, None], leftover[:, 1:], index)
            fate = np.take_along_axis(fate, first, 1)
        else:
            chosen = self._subset(size, wanted, index)
            used = np.arange(predictions) < wanted[:, None]
        chosen += 1 + (chosen >= length_a[:, None])  # past [CLS], and past the first [SEP]
        chosen[~used] = 0  # where [CLS] stands, and stays
        tokens, places = ids.reshape(-1), chosen + (np.arange(len(ids)) * ids.shape[1])[:, None]
        original = tokens[places].astype(np.int64)
        tokens[places[used & (fate < np.uint32(0.8 * 2**32))]] = self.mask
        random = places[used & (fate >= np.uint32(0.8 * 2**32)) & (fate < np.uint32(0.9 * 2**32))]
        row, column = np.divmod(random, ids.shape[1])
        draw = counter.uniform(counter.key(self.seed, _RANDOM_TOKEN), index[row] * ids.shape[1] + column, 1)[:, 0]
        tokens[random] = self.ordinary[(draw * len(self.ordinary)).astype(np.int64)]
        return chosen, np.where(used, original, IGNORED)

    def _subset(self, size: np.ndarray, wanted: np.ndarray, index: np.ndarray) -> np.ndarray:
        """(b, P) `wanted` different numbers below `size` in each row, every set as likely (Floyd's algorithm)."""
        draws = counter.bits32(counter.key(self.seed, _CHOICE), index, self.config.predictions_per_row())
        # To a number below `bound` by multiplication: 32 bits hold the product of a shortened draw and a bound.
        bits = np.uint32(32 - self.config.max_seq_length.bit_length())
        draws = np.ascontiguousarray((draws >> (np.uint32(32) - bits)).T)
        chosen = np.empty(draws.shape, np.uint16)  # a column is a row of the batch: all of them take a step at once
        bound = (size - wanted).astype(np.uint32)
        for step, draw in enumerate(draws):
            bound += np.uint32(1)
            number = (draw * bound >> bits).astype(np.uint16)
            taken = (chosen[:step] == number).any(0)
            np.copyto(number, (bound - np.uint32(1)).astype(np.uint16), where=taken)
            chosen[step] = number
        return chosen.T.astype(np.int64)

    def _whole_words(self, ids: np.ndarray, length_a: np.ndarray, size: np.ndarray, wanted: np.ndarray,
                     coin: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers of tokens word by word in random order (b, P), which are used, and where in the order each word
        begins.

        The word that goes past the wanted number is taken with the chance that makes the number right on average.
        """
        predictions, width = self.config.predictions_per_row(), ids.shape[1]
        number = np.arange(width)
        tokens = np.take_along_axis(ids, np.minimum(number + 1 + (number >= length_a[:, None]), width - 1), 1)
        first_kind, last_kind = self.joints[0][tokens], self.joints[1][tokens]
        joined = np.zeros(ids.shape, bool)
        joined[:, 1:] = (first_kind[:, 1:] > 0) & (first_kind[:, 1:] == last_kind[:, :-1])
        joined[np.arange(len(ids)), length_a] = False  # B's first token goes on with nothing
        word = (np.cumsum(~joined, axis=1) - 1).astype(np.uint64)
        # One random key a word, then the word, then the token: sorted, words lie in random order and in one piece.
        keys = counter.bits32(counter.key(self.seed, _CHOICE), index, width)
        keys = np.take_along_axis(keys, word.astype(np.int64), 1).astype(np.uint64) << np.uint64(32)
        keys |= word << np.uint64(16) | number.astype(np.uint64)
        keys[number >= size[:, None]] = np.iinfo(np.uint64).max
        keys.sort(axis=1)
        keys = keys[:, :predictions + 1]
        begins = np.ones(keys.shape, bool)
        begins[:, 1:] = keys[:, 1:] >> np.uint64(16) != keys[:, :-1] >> np.uint64(16)
        order = np.arange(predictions + 1)
        first = np.maximum.accumulate(np.where(begins, order, 0), axis=1)[:, :-1]
        ends = np.where(begins[:, 1:], order[1:], predictions + 1)  # a word that does not fit has no end here
        ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
        used = (ends <= wanted) | ((ends <= predictions) & (coin * (ends - first) < wanted - first))
        used &= order[:-1] < size[:, None]
        return (keys[:, :-1] & np.uint64(0xFFFF)).astype(np.int64), used, first


def _containing(offsets: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Which interval of `offsets` each place lies in. In order, a search finds its way in the cache."""
    order = np.argsort(place)
    found = np.empty(len(place), np.int64)
    found[order] = np.searchsorted(offsets, place[order], "right") - 1
    return found


def token_counts(store: TokenStore, vocab_size: int) -> np.ndarray:
    """(vocab,) how often each id occurs, a piece of the store at a time."""
    counts = np.zeros(vocab_size, np.int64)
    for start in range(0, store.num_tokens, 2**22):
        counts += np.bincount(store.ids[start:start + 2**22], minlength=vocab_size)
    return counts


def unigram_entropy(store: TokenStore, vocab_size: int, reference: TokenStore) -> float:
    """Cross-entropy in nats of `store` under the word frequencies of `reference`: what knowing no context costs.

    Frequencies are smoothed by one half (Krichevsky & Trofimov 1981), so that unseen tokens cost a finite amount.
    """
    counts = token_counts(reference, vocab_size) + 0.5
    log_probability = np.log(counts / counts.sum())
    return float(-(token_counts(store, vocab_size) / store.num_tokens) @ log_probability)
