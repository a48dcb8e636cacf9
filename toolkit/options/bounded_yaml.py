"""YAML from strangers: a few lines can stand for billions of values, or nest deeper than Python can follow."""

from typing import Any

import yaml

LARGEST_FILE = 16 << 20
"""Bytes of a YAML file."""
MOST_VALUES = 100_000
"""With aliases written out."""
DEEPEST = 64
"""Levels of lists and mappings within each other."""


class _Loader(yaml.SafeLoader):
    """Counts while it reads: an alias counts as all that it stands for."""

    def __init__(self, text: str):
        super().__init__(text)
        self.depth, self.values, self.sizes = 0, 0, {}

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self.values
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nests deeper than {DEEPEST} levels", event.start_mark)
        node = super().compose_node(parent, index)
        if not isinstance(event, yaml.AliasEvent):
            self.values += 1
            self.sizes[id(node)] = self.values - before
        elif id(node) in self.sizes:
            self.values += self.sizes[id(node)]
        else:
            raise yaml.composer.ComposerError(None, None, f"'*{event.anchor}' stands within what it stands for",
                                              event.start_mark)
        if self.values > MOST_VALUES:
            raise yaml.composer.ComposerError(None, None, f"holds more than {MOST_VALUES:,} values, aliases written "
                                              f"out", event.start_mark)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            what = str(node.value)[:40] if isinstance(node, yaml.ScalarNode) else node.id
            raise yaml.constructor.ConstructorError(None, None, f"{what!r} is no {node.tag.rpartition(':')[2]} "
                                                    f"({error})", node.start_mark) from None


def load(text: str) -> Any:
    """What `yaml.safe_load` gives; yaml.YAMLError for everything that is wrong, what is too much or too deep, too."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
