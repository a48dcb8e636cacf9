"""What a card says that nobody but its author can know; part of a run's configuration."""

import re
from dataclasses import dataclass, field

from toolkit.config import Free
from toolkit.errors import UserError


@dataclass
class CardConfig(Free):
    """What nobody but you can say; it may be changed at any time."""

    COMMON = ("license", "language")

    license: str = ""
    """Of the model, as the hub spells it: apache-2.0, mit, cc-by-4.0, other …"""
    language: list[str] = field(default_factory=list)
    """ISO 639 codes of the languages it learned, for instance [de, fr]."""
    speakers: str = ""
    """Whose language the text is: who wrote it, where, for whom."""
    written: str = ""
    """When the text was written, for instance 1800-1920."""
    source_licenses: dict = field(default_factory=dict)
    """Source, as corpus.sources names it → its licence."""
    datasets: list[str] = field(default_factory=list)
    """Hub ids of the data, beside those that are read from the hub."""
    base_model: str = ""
    """Hub id of the model it was fine-tuned from; default: that under models, where it is one."""
    author: str = ""
    limits: str = ""
    """What else a user must know, added to what the card says of limits."""

    def check(self) -> None:
        """UserError for what the hub would not take."""
        for key, pattern, example in (
                ("license", r"[a-z0-9][a-z0-9.-]*|", "apache-2.0; other, where the hub has no name for it"),
                ("language", r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual", "de, or gsw"),
                ("datasets", r"[\w.-]+(/[\w.-]+)?", "owner/name"), ("base_model", r"[\w.-]+/[\w.-]+|", "owner/name")):
            values = getattr(self, key)
            for value in values if isinstance(values, list) else [values]:
                if not re.fullmatch(pattern, value):
                    raise UserError(f"card.{key} is {value!r}, which the hub does not take. Give for instance "
                                    f"{example}.")
