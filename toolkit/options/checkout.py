"""What ships with the code, and is found from every working directory: configs of recipes, and specs of tokenizers."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
SHIPPED = ("recipes", "tokenizers")
"""Folders of the checkout whose configs and specs are found from every working directory."""


def shipped(path: str | Path) -> Path:
    """The path itself, or, where there is none, what the checkout has under that name, from wherever it is asked."""
    path = Path(os.path.expanduser(path))
    there = CHECKOUT / path
    return there if path.parts[:1] and path.parts[0] in SHIPPED and not path.exists() and there.exists() else path


def where_else(path: Path) -> str:
    """What a config or spec that is not there may have meant: one that ships has that name."""
    found = sorted(file.relative_to(CHECKOUT) for folder in SHIPPED for file in (CHECKOUT / folder).rglob("*.yaml")
                   if path.name in (file.name, file.stem))
    if found:
        return f" Did you mean {' or '.join(map(str, found))}?"
    return " The configs that ship are in recipes/configs/, the specs of tokenizers in tokenizers/."
