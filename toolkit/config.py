"""Typed dataclasses ⇄ YAML ⇄ `--section.key value`.

A recipe's configuration is one dataclass whose fields are values or further dataclasses (sections). Every field
may carry a docstring on the line below it, which `--help` prints. Unknown keys and wrong types are `UserError`s
that name the key and suggest the nearest one.
"""

import ast
import dataclasses
import inspect
import json
import os
import sys
import textwrap
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from toolkit import bounded_yaml
from toolkit.errors import UserError, did_you_mean
from toolkit.regular import regular

Config = TypeVar("Config")
CHECKOUT = Path(__file__).parents[1]
SHIPPED = ("recipes", "tokenizers")
"""Folders of the checkout whose configs and specs are found from every working directory."""


def from_dict(cls: type[Config], values: dict, where: str = "config", prefix: str = "",
              given: frozenset[str] | set[str] = frozenset()) -> Config:
    """Build `cls` from nested dictionaries; `where` names the source in error messages.

    Required keys in `given` come later, from the command line: None stands in for them.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: '{prefix.rstrip('.') or 'the top level'}' must be a mapping of keys to values, "
                        f"not {values!r}.")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    arguments = {}
    for key, value in values.items():
        if key not in names:
            raise UserError(f"{where}: unknown key '{prefix}{key}'.{did_you_mean(str(key), names)}")
        arguments[key] = _convert(hints[key], value, where, prefix + key, given)
    for field in dataclasses.fields(cls):
        if field.name in arguments and not field.metadata.get("text"):
            arguments[field.name] = with_home(arguments[field.name])
    for field in dataclasses.fields(cls):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in arguments:
            if prefix + field.name in given:
                arguments[field.name] = None
                continue
            raise UserError(f"{where}: '{prefix}{field.name}' is missing. Set it in the YAML file or with "
                            f"--{prefix}{field.name}.")
    made = cls(**arguments)
    if prefix and hasattr(cls, "section"):  # of classes whose messages say by what name the caller knows them
        made.section = prefix
    return made


def free(default: Any = dataclasses.MISSING, **options: Any) -> Any:
    """A field that says how, or how much of it, something is run, and not what is learned: a run that was broken off
    goes on when it has changed. As `dataclasses.field`.
    """
    return dataclasses.field(metadata={"free": True}, **({} if default is dataclasses.MISSING else
                                                         {"default": default}), **options)


def text(default: str = "", **options: Any) -> Any:
    """A field of words as they were written, in which `~/` is no home directory. As `dataclasses.field`."""
    return dataclasses.field(default=default, metadata={"text": True}, **options)


def with_home(value: Any) -> Any:
    """A copy of a value in which paths that begin with `~/` or `~name/` begin with that home directory."""
    if isinstance(value, dict):
        return {key: with_home(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [with_home(entry) for entry in value]
    return os.path.expanduser(value) if isinstance(value, str) and "/" in value else value


class Free:
    """Base of sections in which every field is `free`."""


def binding_keys(cls: type, prefix: str = "") -> list[str]:
    """Every dotted key of a configuration class that decides what is learned."""
    keys = []
    for field in dataclasses.fields(cls):
        hint = typing.get_type_hints(cls)[field.name]
        if field.metadata.get("free") or (isinstance(hint, type) and issubclass(hint, Free)):
            continue
        keys += binding_keys(hint, f"{prefix}{field.name}.") if dataclasses.is_dataclass(hint) else [
            prefix + field.name]
    return keys


def flat(values: dict, prefix: str = "") -> dict:
    """Nested dictionaries by dotted keys; empty ones are left out."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def to_dict(config: Any) -> dict:
    """Nested plain dictionaries, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def with_values(values: dict, changes: dict) -> dict:
    """A copy of nested dictionaries with dotted keys set: {"training.max_steps": 10}."""
    result = dict(values)
    for dotted, value in changes.items():
        section, _, rest = dotted.partition(".")
        result[section] = with_values(result.get(section) or {}, {rest: value}) if rest else value
    return result


def dump(config: Any) -> str:
    """The resolved configuration as YAML, keys in the order of the dataclass."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def read_yaml(path: str | Path) -> dict:
    """A YAML mapping from a file, or from one that ships, with errors that name the file and line."""
    try:
        with open(regular(shipped(path)), "rb") as file:
            data = file.read(bounded_yaml.LARGEST_FILE + 1)
        if len(data) > bounded_yaml.LARGEST_FILE:
            raise UserError(f"{path}: is larger than {bounded_yaml.LARGEST_FILE >> 20} MB; no configuration is. Name "
                            f"the YAML file.")
        values = bounded_yaml.load(data.decode())
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file.{_where_else(Path(path))}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a UTF-8 YAML file ({error}).") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, found {type(values).__name__}.")
    return values


def shipped(path: str | Path) -> Path:
    """The path itself, or, where there is none, what the checkout has under that name, from wherever it is asked."""
    path = Path(os.path.expanduser(path))
    there = CHECKOUT / path
    return there if path.parts[:1] and path.parts[0] in SHIPPED and not path.exists() and there.exists() else path


def _where_else(path: Path) -> str:
    """What a config or spec that is not there may have meant: one that ships has that name."""
    found = sorted(file.relative_to(CHECKOUT) for folder in SHIPPED for file in (CHECKOUT / folder).rglob("*.yaml")
                   if path.name in (file.name, file.stem))
    if found:
        return f" Did you mean {' or '.join(map(str, found))}?"
    return " The configs that ship are in recipes/configs/, the specs of tokenizers in tokenizers/."


def parse(cls: type[Config], argv: list[str], description: str, positional: Sequence[str] = ()) -> Config:
    """`[--config FILE.yaml] [--section.key value …]` → `cls`. `--help` prints every key and exits.

    positional: keys whose values may also stand without their names, in this order; the last takes all that are left
    where it is a list. UserError for one too many, one given in both ways, or a required one that is nowhere.
    """
    if any(argument in ("-h", "--help") for argument in argv):
        print(_help(cls, description, positional))
        sys.exit(0)
    values, where, overrides, unnamed = {}, "command line", [], []
    flags = [key for key, hint in typing.get_type_hints(cls).items() if hint is bool]
    position = 0
    while position < len(argv):
        argument = argv[position]
        if positional and not argument.startswith("-"):
            unnamed.append(argument)
            position += 1
            continue
        if not argument.startswith("--"):
            raise UserError(f"command line: unexpected '{argument}'. Options look like --section.key value; "
                            f"--help lists them.")
        key, equals, value = argument[2:].partition("=")
        alone = position + 1 >= len(argv) or argv[position + 1].startswith("--")
        if not equals and alone and key in flags:  # --dry_run
            value = "true"
        elif not equals:
            if position + 1 >= len(argv):
                raise UserError(f"command line: --{key} needs a value.")
            position += 1
            value = argv[position]
        position += 1
        if key == "config":
            values, where = read_yaml(value), value
        else:
            overrides.append((key, value))
    overrides += _by_position(cls, positional, unnamed, {key for key, _ in overrides})
    from_dict(cls, values, where, given={key for key, _ in overrides} | set(positional))  # errors of the file name it
    for key, value in overrides:
        _override(cls, values, key, value)
    if missing := [key for key in positional if key not in values and key not in default_values(cls)]:
        raise UserError(f"command line: {missing[0].upper()} is missing. Expected is {_usage(positional)}, and options "
                        f"like --section.key value; --help lists them.")
    return from_dict(cls, values, "command line")


def _by_position(cls: type, positional: Sequence[str], unnamed: list[str], named: set[str]) -> list[tuple[str, str]]:
    """Values without names → (key, value as text), as options give them."""
    last = len(positional) - 1
    if unnamed[last:] and typing.get_origin(typing.get_type_hints(cls)[positional[last]]) is list:
        unnamed = [*unnamed[:last], json.dumps(unnamed[last:], ensure_ascii=False)]
    for key, value in zip(positional, unnamed, strict=False):
        if key in named:
            raise UserError(f"command line: {key} is given twice, as {value} and with --{key}. Leave one out.")
    if len(unnamed) > len(positional):
        raise UserError(f"command line: unexpected '{unnamed[last + 1]}'. Expected is {_usage(positional)}, and "
                        f"options like --section.key value; a value with blanks needs quotes.")
    return list(zip(positional, unnamed, strict=False))


def _usage(positional: Sequence[str]) -> str:
    return " ".join(key.upper() for key in positional)


def _override(cls: type, values: dict, dotted: str, text: str) -> None:
    *sections, last = dotted.split(".")
    owner, node = cls, values
    for depth, section in enumerate(sections):
        hint = typing.get_type_hints(owner).get(section)
        if hint is None or not dataclasses.is_dataclass(hint):
            known = [name for name, kind in typing.get_type_hints(owner).items() if dataclasses.is_dataclass(kind)]
            raise UserError(f"command line: --{dotted}: no section '{'.'.join(sections[:depth + 1])}'."
                            f"{did_you_mean(section, known)}")
        if node.get(section) is None:  # an empty section in the file
            node[section] = {}
        owner, node = hint, node[section]
    hints = typing.get_type_hints(owner)
    if last not in hints:
        close = did_you_mean(dotted, all_keys(cls))
        raise UserError(f"command line: unknown option --{dotted}.{close}")
    try:
        value = bounded_yaml.load(text)
    except yaml.YAMLError:
        value = text
    hint = hints[last]
    takes_text = hint is str or str in typing.get_args(hint)  # str, str | None, list[str]: 2024 or "a: b" is text
    if takes_text and not isinstance(value, list) and (value is not None or hint is str):
        value = text
    node[last] = value


def all_keys(cls: type, prefix: str = "") -> list[str]:
    """Every dotted key of a configuration class."""
    keys = []
    for name, hint in typing.get_type_hints(cls).items():
        keys += all_keys(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [prefix + name]
    return keys


def default_values(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted key → default, for every key of a configuration class that has one."""
    values = {}
    for field in dataclasses.fields(cls):
        hint = typing.get_type_hints(cls)[field.name]
        if dataclasses.is_dataclass(hint):
            values |= default_values(hint, f"{prefix}{field.name}.")
        elif field.default is not dataclasses.MISSING:
            values[prefix + field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[prefix + field.name] = field.default_factory()
    return values


def _convert(hint: Any, value: Any, where: str, key: str, given: frozenset[str] | set[str] = frozenset()) -> Any:
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        return from_dict(hint, {} if value is None else value, where, key + ".", given)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for candidate in arguments:
            if candidate is not type(None):
                try:
                    return _convert(candidate, value, where, key)
                except UserError as error:
                    last = error
        raise last
    if origin is Literal:
        if value in arguments:
            return value
        raise UserError(f"{where}: '{key}' is {_brief(value)}.{did_you_mean(_brief(value), map(str, arguments))}")
    if origin is list:
        items = value if isinstance(value, list) else [value]  # one value is a list of one
        return [_convert(arguments[0], item, where, f"{key}[{index}]") for index, item in enumerate(items)]
    if origin is dict:
        if isinstance(value, dict):
            return value
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) < 2**1000:
            return float(value)
    elif hint is float and isinstance(value, float):
        return value
    elif hint is float and isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as a string
        except ValueError:
            pass
    elif hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif hint is bool or not isinstance(value, bool):
        if isinstance(value, hint):
            return value
    raise UserError(f"{where}: '{key}' should be {_name(hint)}, got {_brief(value)}.")


def _brief(value: Any) -> str:
    """For a message; of a number of thousands of digits, which Python does not write, that it is one."""
    try:
        text = repr(value)
    except ValueError:
        return "a number beyond all bounds"
    return text if len(text) <= 200 else f"{text[:197]}…"


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "|".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " | ".join("none" if part is type(None) else _name(part) for part in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint).replace("typing.", "")


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


def _help(cls: type, description: str, positional: Sequence[str]) -> str:
    lines = [description.strip(), "", "Options (YAML keys by the same names):", "  --config FILE.yaml"]
    if positional:
        lines[2:2] = [f"Without their names may stand: {_usage(positional)}.", ""]

    def section(owner: type, prefix: str) -> None:
        hints, docs = typing.get_type_hints(owner), field_docs(owner)
        for field in dataclasses.fields(owner):
            hint = hints[field.name]
            if dataclasses.is_dataclass(hint):
                section(hint, f"{prefix}{field.name}.")
                continue
            default = field.default
            if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            shown = "required" if default is dataclasses.MISSING else f"default {default}"
            lines.append(f"  --{prefix}{field.name} {_name(hint)}  ({shown})")
            if field.name in docs:
                lines.extend(textwrap.wrap(docs[field.name], 100, initial_indent=" " * 8, subsequent_indent=" " * 8))

    section(cls, "")
    return "\n".join(lines)
