"""Sources with their targets, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TextPairs:
    """`sources` and their `targets`, and where each stands, such as `train.de.gz, line 3`."""

    sources: list[str]
    targets: list[str]
    places: list[str]

    def __len__(self) -> int:
        return len(self.sources)

    def select(self, index: Sequence[int]) -> "TextPairs":
        return TextPairs(*([side[i] for i in index] for side in (self.sources, self.targets, self.places)))

    def reversed(self) -> "TextPairs":
        """Targets as sources."""
        return TextPairs(self.targets, self.sources, self.places)
