"""Pairs become batches: both sides tokenised once, pairs of like length together, padded to the longest of them."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from toolkit.data.batches import IGNORED
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.data.text.buckets import LengthBuckets
from toolkit.errors import UserError


@dataclass(frozen=True)
class TokenIds:
    """The tokens that hold a target together."""

    start: int
    """What the decoder reads first."""
    end: int
    """What it says last; sources end in it too."""
    pad: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, name: str) -> "TokenIds":
        """From what a tokenizer has: [CLS], [SEP] and [PAD] of BERT's; <|endoftext|> alone of GPT's stands for all.

        Without a token to start with, the padding, or else the end, is the start, as in Marian and T5.
        """
        def first(*ids: int | None) -> int | None:
            return next((token for token in ids if token is not None), None)

        end = first(tokenizer.eos_token_id, tokenizer.sep_token_id)
        if end is None:
            raise UserError(f"{name}: has no token that ends a text, which a decoder needs to stop. Use a spec such as "
                            f"tokenizers/bpe-8k.yaml.")
        pad = first(tokenizer.pad_token_id, end)
        start = first(tokenizer.bos_token_id, tokenizer.cls_token_id, pad)
        return cls(start, end, pad)


class PairBatches:
    """Tokenised pairs; `batch(step, rows)` draws rows of a global batch, each epoch in a fresh order.

    `source_lengths`, `target_lengths` (n,): tokens, the end among them; `cut`: sources that were longer than the limit;
    `left_out`: pairs whose targets were, of training; `unknown` (sources, targets): which hold what the side's
    tokenizer does not know.
    """

    def __init__(self, pairs: TextPairs, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase,
                 ids: tuple[TokenIds, TokenIds], limits: tuple[int, int], batch_size: int, seed: int,
                 is_training: bool = False):
        """ids: of source and target; limits: tokens of the longest of each, the end among them."""
        self.source_ids, self.target_ids = ids
        self.max_source_length, self.limits = limits[0], limits
        sources = tokenised(pairs.sources, source)
        targets = tokenised(pairs.targets, target)
        self.left_out = 0
        if is_training:
            kept = [i for i, tokens in enumerate(targets) if len(tokens) < limits[1]]
            if not kept:
                raise UserError(f"every target has {limits[1]} tokens or more (data.max_target_length). Raise it.")
            self.left_out = len(pairs) - len(kept)
            pairs, sources, targets = pairs.select(kept), [sources[i] for i in kept], [targets[i] for i in kept]
        self.pairs = pairs
        self.unknown = tuple([] if tokenizer.unk_token_id is None else
                             [i for i, tokens in enumerate(side) if tokenizer.unk_token_id in tokens]
                             for side, tokenizer in ((sources, source), (targets, target)))
        self.cut = sum(len(tokens) >= limits[0] for tokens in sources)
        self.sources = [np.append(tokens[:limits[0] - 1], self.source_ids.end) for tokens in sources]
        self.targets = [np.append(tokens, self.target_ids.end) for tokens in targets]
        self.source_lengths, self.target_lengths = (np.asarray([len(tokens) for tokens in side], np.int64)
                                                    for side in (self.sources, self.targets))
        self.by_length = np.lexsort((self.target_lengths, self.source_lengths))
        self.buckets = self._buckets(batch_size, seed)

    def _buckets(self, batch_size: int, seed: int) -> LengthBuckets:
        """Both sides are padded, and logits grow with the target's: targets of a length together, their sources rising
        and falling by turns, so that those of a batch across two lengths are of like length, too.
        """
        longest = int(self.source_lengths.max())
        turned = np.where(self.target_lengths % 2, self.source_lengths, longest - self.source_lengths)
        return LengthBuckets(self.target_lengths * (1 + longest) + turned, batch_size, seed)

    def drawn_by(self, seed: int, batch_size: int) -> "PairBatches":
        """The same tokens in batches of another order and size."""
        other = copy.copy(self)
        other.buckets = self._buckets(batch_size, seed)
        return other

    def notes(self, role: str) -> Iterator[str]:
        """What was cut, left out or is unknown, a line each; role: what they are, such as `train`."""
        if self.cut:
            yield (f"{role}: {self.cut:,} of {len(self):,} sources have {self.limits[0]:,} tokens or more and are read "
                   f"up to there (data.max_source_length)")
        if self.left_out:
            yield (f"{role}: {self.left_out:,} pairs are left out, since their targets have {self.limits[1]:,} tokens "
                   f"or more (data.max_target_length)")
        for side, rows, cost in zip(("sources", "targets"), self.unknown,
                                    ("they are read without", "no answer can hold it"), strict=True):
            if rows:
                yield (f"{role}: {len(rows):,} of {len(self):,} {side} hold what their tokenizer does not know, the "
                       f"first at {self.pairs.places[rows[0]]}: {cost}")

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        return self.rows(self.buckets.examples(step)[rows.start:rows.stop])

    def rows(self, index: Sequence[int]) -> dict[str, np.ndarray]:
        """input_ids, attention_mask (B, S); decoder_input_ids (B, T) from the start on; labels (B, T) to the end."""
        sources, targets = ([side[i] for i in index] for side in (self.sources, self.targets))
        labels = _padded(targets, IGNORED)
        before = np.roll(labels, 1, 1)
        before[:, 0] = self.target_ids.start
        ids = _padded(sources, IGNORED)
        return {"input_ids": np.where(ids == IGNORED, self.source_ids.pad, ids),
                "attention_mask": (ids != IGNORED).astype(np.int64),
                "decoder_input_ids": np.where(before == IGNORED, self.target_ids.pad, before), "labels": labels}


def tokenised(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[np.ndarray]:
    """Ids of each text, without special tokens; control tokens in a text are text."""
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False, split_special_tokens=True)["input_ids"]
    return [np.asarray(tokens, np.int64) for tokens in encoded]


def _padded(rows: Sequence[np.ndarray], value: int) -> np.ndarray:
    """(B, longest)."""
    table = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for number, row in enumerate(rows):
        table[number, :len(row)] = row
    return table
