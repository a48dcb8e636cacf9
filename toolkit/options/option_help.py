"""What `--help` prints: a recipe's options with their types in words, the common ones first."""

import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Union

import yaml

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping",
          type(None): "none"}
_PLACES = {"output_dir": "default runs/‹the config's name›", "data_dir": "default data in output_dir"}
"""What `config.with_places` fills in."""
_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
"""Of a command, with the quotes that are in it."""
_SEVERAL = {str: "texts", int: "whole numbers", float: "numbers", dict: "mappings"}


def in_words(hint: Any) -> str:
    """A type as a person says it; of a choice, the words that may be given."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "|".join(str(word) or '""' for word in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(in_words, arguments)))
    if origin is list:
        return f"a list of {_SEVERAL.get(arguments[0]) or in_words(arguments[0])}"
    return _WORDS.get(origin or hint) or getattr(hint, "__name__", str(hint))


def field_docs(cls: type) -> dict[str, str]:
    """The string literal below each field of a dataclass, inherited ones included."""
    docs = {}
    for owner in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body
        for field, below in zip(body, body[1:], strict=False):
            if (isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)
                    and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)):
                docs[field.target.id] = " ".join(below.value.value.split())
    return docs


def first_command(description: str) -> str:
    """Of a recipe's docstring the first command that it shows; empty where there is none."""
    found = re.search(r"^    ((?:make|python recipes/).*?)(?:\s{2,}.*)?$", description, re.MULTILINE)
    return re.sub("^python", ".venv/bin/python", found[1]) if found else ""


def continued(command: str, width: int) -> str:
    """A command as several lines of so many columns, which is typed, or copied, as one of a single line is."""
    if len(command) <= width:
        return command
    lines = [""]
    for word in _WORD.findall(command):  # only those of ARGS are read again, and may have blanks added
        for part in word.split(" ") if word.startswith('ARGS="') else [word]:
            if lines[-1] and len(lines[-1]) + 1 + len(part) > width - 2:
                lines.append(part)
            else:
                lines[-1] = f"{lines[-1]} {part}".lstrip()
    return " \\\n".join(lines)


def help_text(cls: type, description: str, positional: Sequence[str], every: bool) -> str:
    """every: all options, else the common ones: those of no section, and of a section what it calls `COMMON`."""
    width = help_width()
    lines = [*wrapped(description, width), ""]
    if positional:
        lines += [f"Without their names may stand: {' '.join(key.upper() for key in positional)}.", ""]
    lines += ["Options, which are keys of the YAML file, too:", "  --config  a YAML file"]
    options = list(_options(cls))
    shown = [option for option in options if every or option.common]
    for option in shown:
        lines.append(f"  --{option.key}  {option.words}; {option.default}")
        if option.doc:
            lines += textwrap.wrap(option.doc, width, initial_indent=" " * 6, subsequent_indent=" " * 6,
                                   break_on_hyphens=False)
    if len(shown) < len(options):
        lines += ["", f"--help all lists the other {len(options) - len(shown)} options as well."]
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _Option:
    key: str
    words: str
    default: str
    doc: str
    common: bool


def _options(cls: type, prefix: str = "", common: Sequence[str] | None = None) -> Iterator[_Option]:
    """Those of the class itself, then those of its sections."""
    hints, docs, sections = typing.get_type_hints(cls), field_docs(cls), []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            sections.append((hint, f"{prefix}{field.name}."))
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        told = (_PLACES.get(prefix + field.name, "required") if default is dataclasses.MISSING else
                f"default {_told(default)}")
        yield _Option(prefix + field.name, in_words(hint), told, docs.get(field.name, ""),
                      common is None or field.name in common)
    for section, name in sections:
        yield from _options(section, name, getattr(section, "COMMON", ()))


def _told(default: Any) -> str:
    """As it would stand in YAML."""
    if default is None or isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list):
        return f"[{', '.join(map(_told, default))}]"
    if isinstance(default, dict):
        return yaml.safe_dump(default, default_flow_style=True, sort_keys=False, width=1000).strip()
    return str(default) or "empty"


def help_width() -> int:
    """Columns: of the terminal, within reason."""
    return max(60, min(100, shutil.get_terminal_size((80, 24)).columns - 2))


def wrapped(description: str, width: int) -> list[str]:
    """Paragraphs filled to the width; what is indented stays as it is."""
    lines: list[str] = []
    for block in description.strip().split("\n\n"):
        kept = block.startswith(" ") or "\n " in block
        lines += ["", *(_example(block, width) if kept else textwrap.wrap(block, width, break_on_hyphens=False))]
    return lines[1:]


def _example(block: str, width: int) -> Iterator[str]:
    """Lines that are indented. What is too long stays a command: its comment comes before it, and its lines go on."""
    for line in block.splitlines():
        indent = line[:len(line) - len(line.lstrip())]
        command, mark, comment = line.strip().partition("  # ")
        if len(line) <= width:
            yield line
            continue
        yield from [f"{indent}# {comment}"] * bool(mark)
        yield from (indent + part for part in continued(command.rstrip(), width - len(indent)).splitlines())
