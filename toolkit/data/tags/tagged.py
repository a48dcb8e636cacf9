"""Sentences with a tag a word, in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

Offsets = list[tuple[int, int]]
"""Start and stop of each word in its text, in letters."""


@dataclass(frozen=True)
class TaggedSentences:
    """`texts` with the places of their words, as many `tags`, and where each stands, such as `train.conll, line 3`.

    tags: empty where none are known, of texts that are to be answered.
    """

    texts: list[str]
    offsets: list[Offsets]
    tags: list[list[str]]
    places: list[str]

    @cached_property
    def words(self) -> list[list[str]]:
        return [[text[start:stop] for start, stop in offsets]
                for text, offsets in zip(self.texts, self.offsets, strict=True)]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, index: Sequence[int]) -> "TaggedSentences":
        return TaggedSentences(*([part[i] for i in index] if part else [] for part in (
            self.texts, self.offsets, self.tags, self.places)))

    def with_tags(self, tags: list[list[str]]) -> "TaggedSentences":
        return TaggedSentences(self.texts, self.offsets, tags, self.places)

    def kinds(self) -> list[str]:
        """Every tag there is, in order of the alphabet, O first."""
        return sorted({tag for tags in self.tags for tag in tags}, key=lambda tag: (tag != "O", tag))


def joined(words: Iterable[str]) -> tuple[str, Offsets]:
    """Words of which no text is known, with a blank between two."""
    offsets, at, words = [], 0, list(words)
    for word in words:
        offsets.append((at, at + len(word)))
        at += len(word) + 1
    return " ".join(words), offsets
