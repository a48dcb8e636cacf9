"""Tagged sentences become batches: words cut into pieces, long sentences into windows, each word answered once."""

import copy
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from toolkit.data.batches import IGNORED
from toolkit.data.tags.tagged import Offsets, TaggedSentences
from toolkit.data.text.buckets import LengthBuckets
from toolkit.data.text.text_input import pad_id
from toolkit.errors import UserError
from toolkit.views import View, Viewed

Labelled = Literal["first", "last", "all"]
"""Which pieces of a word carry its label in training; it is answered by the first of "first" and "all", else the last.
"""
_OVERLAP = 0.25
"""Share of a window that the next one reads again, half of it answered by each."""


@dataclass(frozen=True)
class Window:
    """Words first to last - 1 of a sentence are read, and answer_first to answer_last - 1 answered."""

    sentence: int
    first: int
    last: int
    answer_first: int
    answer_last: int


class TagBatches(Viewed):
    """Windows of tagged sentences; `batch(step, rows)` draws rows of a global batch, each epoch in a fresh order.

    `labels` (w,): how many words each of the w windows answers; `lengths` (w,): their tokens; `by_length`: windows from
    the shortest to the longest; `cut`: sentences of several windows; `shortened`: words of more pieces than a window
    has; `unread`: words that the tokenizer makes nothing of, which stand as its unknown token.
    """

    def __init__(self, sentences: TaggedSentences, tokenizer: PreTrainedTokenizerBase, tags: Sequence[str],
                 max_length: int, batch_size: int, seed: int, labelled: Labelled = "first"):
        self.sentences, self.tags, self.max_length, self.labelled = sentences, list(tags), max_length, labelled
        self._known = {tag: number for number, tag in enumerate(self.tags)}
        self.before, self.behind, self.pad = *special_tokens(tokenizer), pad_id(tokenizer)
        room = max_length - len(self.before) - len(self.behind)
        if room < 8:
            raise UserError(f"data.max_length, or the positions of the model, are {max_length}: too few for a "
                            f"sentence. Raise data.max_length to 16 or more.")
        pieces = list(pieces_of(sentences, tokenizer))
        self.unread = sum(not piece for words in pieces for piece in words)
        self.shortened = sum(len(piece) > room for words in pieces for piece in words)
        nothing = self.pad if tokenizer.unk_token_id is None else tokenizer.unk_token_id
        self.pieces = [[piece[:room] or [nothing] for piece in words] for words in pieces]
        self.windows = [window for number, words in enumerate(self.pieces)
                        for window in windows_of(number, list(map(len, words)), room)]
        self.cut = len({window.sentence for window in self.windows if window.first})
        self.labels = np.asarray([window.answer_last - window.answer_first for window in self.windows])
        self.lengths = np.asarray([len(self.before) + len(self.behind) + sum(
            map(len, self.pieces[window.sentence][window.first:window.last])) for window in self.windows], np.int64)
        self.by_length = np.argsort(self.lengths, kind="stable")
        self.buckets = LengthBuckets(self.lengths, batch_size, seed)

    def _shown(self) -> View:
        drawn = self.buckets
        return View(f"batches of {drawn.batch_size} of {len(self.windows):,} windows of {len(self.sentences):,} "
                    f"sentences, drawn by seed {drawn.seed}",
                    {"words": int(self.labels.sum()), "tags": len(self.tags), "cut": self.cut})

    def drawn_by(self, seed: int, batch_size: int) -> "TagBatches":
        """The same tokens in batches of another order and size."""
        other = copy.copy(self)
        other.buckets = LengthBuckets(self.lengths, batch_size, seed)
        return other

    def notes(self, role: str) -> Iterator[str]:
        """What was cut or is unknown, a line each; role: what they are, such as `train`."""
        if self.cut:
            yield (f"{role}: {self.cut:,} of {len(self.sentences):,} sentences are longer than the model reads, and "
                   f"are read in windows that overlap (data.max_length)")
        if self.shortened:
            yield f"{role}: {self.shortened:,} words are longer than the model reads; their beginning is read"
        if self.unread:
            yield f"{role}: the tokenizer makes nothing of {self.unread:,} words, which are read as unknown"

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        return self.rows(self.buckets.examples(step)[rows.start:rows.stop])

    def rows(self, index: Sequence[int]) -> dict[str, np.ndarray]:
        """Windows `index`, padded to the longest: input_ids, attention_mask, and labels (B, T), which are ignored on
        special tokens, on words that another window answers, and on pieces that carry none.
        """
        longest = int(self.lengths[index].max())
        batch = {"input_ids": np.full((len(index), longest), self.pad, np.int64),
                 "attention_mask": np.zeros((len(index), longest), np.int64),
                 "labels": np.full((len(index), longest), IGNORED, np.int64)}
        for row, number in enumerate(index):
            window = self.windows[number]
            words = self.pieces[window.sentence][window.first:window.last]
            ids = [*self.before, *(piece for word in words for piece in word), *self.behind]
            batch["input_ids"][row, :len(ids)] = ids
            batch["attention_mask"][row, :len(ids)] = 1
            if self.sentences.tags:
                self._label(batch["labels"][row], window)
        return batch

    def _label(self, labels: np.ndarray, window: Window) -> None:
        tags = self.sentences.tags[window.sentence]
        for place, at, size in self._answered(window):
            if tags[place] in self._known:
                own = self._known[tags[place]]
                if self.labelled == "all":  # a word that begins a span goes on with its inside
                    labels[at:at + size] = (self._known.get(f"I-{tags[place][2:]}", own) if tags[place][:2] == "B-"
                                            else own)
                labels[self._carrier(at, size)] = own

    def answering(self, number: int) -> list[tuple[int, int]]:
        """(position, word of its sentence) of each word that a window answers."""
        return [(self._carrier(at, size), place) for place, at, size in self._answered(self.windows[number])]

    def _carrier(self, at: int, size: int) -> int:
        """Position of the piece by which a word is answered."""
        return at + size - 1 if self.labelled == "last" else at

    def _answered(self, window: Window) -> Iterator[tuple[int, int, int]]:
        """(word of its sentence, position of its first piece, pieces) of each word that a window answers."""
        at = len(self.before)
        for place in range(window.first, window.last):
            size = len(self.pieces[window.sentence][place])
            if window.answer_first <= place < window.answer_last:
                yield place, at, size
            at += size


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before a text and behind it."""
    encoded = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    own = encoded["special_tokens_mask"]
    first = own.index(0) if 0 in own else len(own)
    last = len(own) - own[::-1].index(0) if 0 in own else len(own)
    return encoded["input_ids"][:first], encoded["input_ids"][last:]


def pieces_of(sentences: TaggedSentences, tokenizer: PreTrainedTokenizerBase) -> Iterator[list[list[int]]]:
    """The ids of each word of each sentence; what lies between two words goes with the first."""
    for start in range(0, len(sentences), 256):
        part = slice(start, start + 256)
        encoded = tokenizer(sentences.texts[part], add_special_tokens=False, return_offsets_mapping=True, verbose=False,
                            split_special_tokens=True)
        for text, offsets, ids, spans in zip(sentences.texts[part], sentences.offsets[part], encoded["input_ids"],
                                             encoded["offset_mapping"], strict=True):
            yield _by_word(text, offsets, ids, spans)


def _by_word(text: str, offsets: Offsets, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in offsets]
    starts = [start for start, _ in offsets]
    for token, (start, stop) in zip(ids, spans, strict=True):
        while start < stop - 1 and text[start].isspace():  # byte-level pieces begin with the blank before
            start += 1
        word = bisect_right(starts, start) - 1
        if word >= 0:
            found[word].append(token)
    return found


def windows_of(sentence: int, lengths: Sequence[int], room: int) -> Iterator[Window]:
    """Windows of at most `room` pieces, of words of `lengths` pieces, each at most `room`; every word is answered by
    one window, where two read it by that in which it stands further from the end.
    """
    first = answered = 0
    while True:
        last = _as_far_as(lengths, first, room)
        if last == len(lengths):
            yield Window(sentence, first, last, answered, last)
            return
        again, pieces = last, 0
        while again > first + 1 and pieces + lengths[again - 1] <= _OVERLAP * room:
            again -= 1
            pieces += lengths[again]
        while again < last and pieces + lengths[last] > room:  # the next word must fit, or nothing is gained
            pieces -= lengths[again]
            again += 1
        middle = (again + last + 1) // 2
        yield Window(sentence, first, last, answered, middle)
        first, answered = again, middle


def _as_far_as(lengths: Sequence[int], first: int, room: int) -> int:
    last, pieces = first, 0
    while last < len(lengths) and pieces + lengths[last] <= room:
        pieces += lengths[last]
        last += 1
    return last
