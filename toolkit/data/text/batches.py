"""Texts become batches: tokenised once, texts of like length together, padded to the longest of the batch."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from toolkit.data.text.buckets import LengthBuckets
from toolkit.data.text.examples import LabelledText
from toolkit.data.text.labelled import LongTexts, shortened
from toolkit.data.text.text_input import TextInput, pad_id
from toolkit.errors import UserError
from toolkit.views import View, Viewed

_AT_ONCE = 64  # texts; what the library keeps of each token while it works takes a hundred bytes


class TextBatches(Viewed):
    """Tokenised texts; `batch(step, rows)` draws rows of a global batch, each epoch in a fresh order.

    Texts of like length are together (toolkit.data.text.buckets).

    `text_input`: how they were tokenised; `by_length` (n,): the examples from the shortest to the longest; `lengths`
    (n,): their tokens; `cut`: how many texts had more than the limit.
    """

    def __init__(self, data: LabelledText, tokenizer: PreTrainedTokenizerBase, max_length: int, batch_size: int,
                 seed: int, long_texts: LongTexts = "windows", positions: int | None = None,
                 text_input: TextInput | None = None):
        """positions: those of the model, to which `head` and `head+tail` cut where they are fewer than max_length.
        text_input: as a model learned it, in place of these three.
        """
        self.labels = data.labels
        self.pad = pad_id(tokenizer)
        self.text_input = text_input or TextInput.new(tokenizer, max_length, long_texts, positions,
                                                      data.pairs is not None)
        ids, types, self.cut = _tokenise(data, tokenizer, self.text_input)
        self.lengths = np.asarray([len(tokens) for tokens in ids], np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._ids = np.concatenate(ids)
        self._types = np.concatenate(types) if types else None
        self.by_length = np.argsort(self.lengths, kind="stable")
        self.buckets = LengthBuckets(self.lengths, batch_size, seed)

    def _shown(self) -> View:
        drawn = self.buckets
        return View(f"batches of {drawn.batch_size} of {len(self.labels):,} texts, drawn by seed {drawn.seed}",
                    {"tokens": f"{self.lengths.min():,} to {self.lengths.max():,}", "cut": self.cut})

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        return self.rows(self.buckets.examples(step)[rows.start : rows.stop])

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Examples `index`, padded to the longest of them: input_ids, attention_mask, (token_type_ids), labels."""
        lengths = self.lengths[index]
        inside = np.arange(lengths.max()) < lengths[:, None]
        places = np.concatenate([np.arange(start, start + length) for start, length
                                 in zip(self._starts[index], lengths, strict=True)])
        batch = {"input_ids": np.full(inside.shape, self.pad, np.int64), "attention_mask": inside.astype(np.int64)}
        batch["input_ids"][inside] = self._ids[places]
        if self._types is not None:
            batch["token_type_ids"] = np.zeros(inside.shape, np.int64)
            batch["token_type_ids"][inside] = self._types[places]
        batch["labels"] = self.labels[index]
        return batch


def _tokenise(data: LabelledText, tokenizer: PreTrainedTokenizerBase, reading: TextInput
              ) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """ids, token types (none where the tokenizer gives none) and how many texts were cut."""
    pairs, limit = data.pairs is not None, reading.max_length
    special = tokenizer.num_special_tokens_to_add(pairs)
    joint = reading.joint if pairs and special == tokenizer.num_special_tokens_to_add(False) else None
    if limit < special + (joint is not None) + 1 + pairs:
        raise UserError(f"data.max_length, or the positions of the model, are {limit}: too few for the {special} "
                        f"special tokens of the tokenizer and any text. Raise data.max_length to 16 or more.")
    ids, types, cut = [], [], 0
    for start in range(0, len(data), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        texts, seconds = ([shortened(text, limit, reading.long_texts) for text in side[part]] if side else None
                          for side in (data.texts, data.pairs))
        encoded = tokenizer(texts, seconds, verbose=False,
                            split_special_tokens=reading.split_special_tokens)
        for row, tokens in enumerate(encoded["input_ids"]):
            kinds = encoded["token_type_ids"][row] if "token_type_ids" in encoded else None
            if joint is not None or len(tokens) > limit:
                of = encoded.sequence_ids(row)  # 0 or 1: which text a token is of; None: special
                if joint is not None:
                    seam = of.index(1) if 1 in of else len(of)
                    tokens, of = [*tokens[:seam], joint, *tokens[seam:]], [*of[:seam], None, *of[seam:]]
                    kinds = kinds and [*kinds[:seam], 0, *kinds[seam:]]
                cut += len(tokens) > limit
                kept = _kept(of, limit, reading.long_texts == "head+tail")
                tokens, kinds = [tokens[i] for i in kept], kinds and [kinds[i] for i in kept]
            ids.append(np.asarray(tokens or [reading.empty], np.int32))
            if kinds is not None:
                types.append(np.asarray(kinds or [0], np.int8))
    return ids, types, cut


def _kept(of: list[int | None], limit: int, tail: bool) -> list[int]:
    """Which tokens stay of one text or two that together are too long: all special ones, and of each text the head, or
    half head and half tail (Sun et al. 2019). Of two the longer one is cut first, as tokenizers do.
    """
    places: list[list[int]] = [[], []]
    special = []
    for place, text in enumerate(of):
        (special if text is None else places[text]).append(place)
    room = limit - len(special)
    shorter = min(map(len, places))
    sizes = [room - min(shorter, room // 2), min(shorter, room // 2)]  # of the longer one, of the other
    if len(places[1]) >= len(places[0]):
        sizes.reverse()
    kept = special
    for own, size in zip(places, sizes, strict=True):
        end = size // 2 if tail and size < len(own) else 0
        kept = kept + own[: size - end] + own[len(own) - end :]
    return sorted(kept)
