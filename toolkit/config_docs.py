"""What `help` says of a configuration class: its fields with their texts and defaults, made from its source."""

import dataclasses
import textwrap
import typing
from typing import Any

from toolkit.options.option_help import field_docs

WIDTH = 100


class FieldsAsDocstring:
    """Stands in for a class's docstring, and makes it when it is asked for: reading sources takes milliseconds each."""

    def __init__(self, own: str):
        """own: what was written below the class statement, or nothing."""
        self.own = own

    def __get__(self, instance: Any, cls: type) -> str:
        return "\n\n".join(filter(None, (self.own, "\n".join(["Fields:", *_lines(cls, "")]))))


def document(cls: type) -> None:
    """Give a configuration class, and the sections in it, the docstring of its fields."""
    written = vars(cls).get("__doc__")
    if isinstance(written, FieldsAsDocstring):
        return
    made = str(written).startswith(f"{cls.__name__}(")  # by `dataclass`: the signature
    cls.__doc__ = FieldsAsDocstring("" if made or written is None else written)
    for hint in typing.get_type_hints(cls).values():
        if dataclasses.is_dataclass(hint):
            document(hint)


def is_configuration(value: Any) -> bool:
    """Whether it is a class of settings: a dataclass whose fields may be set."""
    return isinstance(value, type) and dataclasses.is_dataclass(value) and not value.__dataclass_params__.frozen


def _lines(cls: type, indent: str) -> list[str]:
    hints, docs, lines = typing.get_type_hints(cls), field_docs(cls), []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            lines.append(f"{indent}{field.name}: {hint.__name__}, a section of its own; see help({hint.__name__})")
        else:
            name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
            lines.append(f"{indent}{field.name}: {name.replace('typing.', '')}, {_default(field)}")
        if field.name in docs:
            lines += textwrap.wrap(docs[field.name], WIDTH - len(indent) - 4, initial_indent=f"{indent}    ",
                                   subsequent_indent=f"{indent}    ")
    return lines


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return f"default {field.default!r}"
    if field.default_factory is not dataclasses.MISSING:
        return f"default {field.default_factory()!r}"
    return "required"
