"""Typed dataclasses ⇄ YAML ⇄ `--section.key value`.

A recipe's configuration is one dataclass whose fields are values or further dataclasses (sections). Every field
may carry a docstring on the line below it, which `--help` prints. Unknown keys and wrong types are `UserError`s
that name the key and suggest the nearest one.
"""

import dataclasses
import json
import os
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from toolkit.errors import UserError, did_you_mean, nearest
from toolkit.options import bounded_yaml
from toolkit.options.checkout import shipped, where_else
from toolkit.options.option_help import first_command, help_text, in_words
from toolkit.regular import regular

Config = TypeVar("Config")
PLACES = ("output_dir", "data_dir")
"""Keys that `with_places` fills in."""


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


def field_hints(cls: type) -> dict[str, Any]:
    """Field → its type, in the order of the class."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def free(default: Any = dataclasses.MISSING, **options: Any) -> Any:
    """A field that says how, or how much of it, something is run, and not what is learned: a run that was broken off
    goes on when it has changed. As `dataclasses.field`.
    """
    return dataclasses.field(metadata={"free": True}, **({} if default is dataclasses.MISSING else
                                                         {"default": default}), **options)


def rival(default: Any = None) -> Any:
    """A field that competes with the other rivals of its class, as one kind of budget with another: one that is given
    on the command line takes the place of those in the file and of defaults. As `dataclasses.field`.
    """
    return dataclasses.field(default=default, metadata={"rival": True})


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
        raise UserError(f"{path}: no such config file.{where_else(Path(path))}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a UTF-8 YAML file ({error}).") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())[:300]}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of keys to values, found {type(values).__name__}.")
    return values


def parse(cls: type[Config], argv: list[str], description: str, positional: Sequence[str] = ()) -> Config:
    """`[--config FILE.yaml] [--section.key value …]` → `cls`. `--help` prints the common keys, `--help all` every one,
    and exits.

    positional: keys whose values may also stand without their names, in this order; the last takes all that are left
    where it is a list. UserError for one too many, one given in both ways, or a required one that is nowhere. What is
    missing ends in the first command that the description shows.
    """
    asked = [place for place, argument in enumerate(argv) if argument in ("-h", "--help")]
    if asked:
        print(help_text(cls, description, positional, "all" in argv[asked[0] + 1:]))
        sys.exit(0)
    file, overrides, unnamed = _words(cls, argv, bool(positional))
    values = read_yaml(file) if file else {}
    overrides += _by_position(cls, positional, unnamed, {key for key, _ in overrides})
    given = {key for key, _ in overrides}
    later = {*given, *positional, *PLACES, *(() if file else _required(cls))}
    from_dict(cls, values, file or "command line", given=later)  # errors of the file name it
    for key, value in overrides:
        _override(cls, values, key, value)
    _give_way(cls, values, given)
    values = with_places(cls, values, file)
    following = f" For example: {example}" if (example := first_command(description)) else ""
    if missing := [key for key in positional if key not in values and key not in default_values(cls)]:
        raise UserError(f"command line: {missing[0].upper()} is missing. Expected is {_usage(positional)}, and "
                        f"options, which --help lists.{following}")
    if missing := [key for key in _required(cls) if key not in values]:  # for want of a file
        names = missing[:1] if missing == ["output_dir", "data_dir"] else missing
        raise UserError(f"command line: {' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing. Give a "
                        f"config, or {' and '.join(f'--{key}' for key in names)}.{following}")
    settings = from_dict(cls, values, "command line")
    _check(settings)
    return settings


def _check(settings: Any, section: str = "") -> None:
    """Let every section refuse values that make no sense, before anything is read or made."""
    for field in dataclasses.fields(settings):
        if dataclasses.is_dataclass(value := getattr(settings, field.name)):
            _check(value, f"{section}{field.name}.")
    if hasattr(settings, "check_values"):
        settings.check_values(section)


def _words(cls: type, argv: list[str], some_unnamed: bool) -> tuple[str, list[tuple[str, str]], list[str]]:
    """The config file, (key, text) of every option, and what stands without a name."""
    file, overrides, unnamed = "", [], []
    flags = [key for key, hint in field_hints(cls).items() if hint is bool]
    position = 0
    while position < len(argv):
        argument = argv[position]
        if some_unnamed and not argument.startswith("-"):
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
            file = value
        else:
            overrides.append((key, value))
    return file, overrides, unnamed


def with_places(cls: type, values: dict, file: str | Path) -> dict:
    """A copy of the values in which a run has a place: `output_dir`, where the class requires it, is named by the file,
    and `data_dir` lies in there.
    """
    values, missing = dict(values), {*_required(cls)} - values.keys()
    if "output_dir" in missing and file:
        values["output_dir"] = f"runs/{Path(file).stem}"
    if "data_dir" in missing and "output_dir" in values:
        values["data_dir"] = f"{values['output_dir']}/data"
    return values


def _required(cls: type) -> list[str]:
    """The keys of no section that have no default."""
    return [field.name for field in dataclasses.fields(cls)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]


def _give_way(cls: type, values: dict, given: set[str]) -> None:
    """Rivals of what is given on the command line make way for it, where they stand in the file or are defaults."""
    for dotted in given:
        *sections, last = dotted.split(".")
        owner, node = cls, values
        for section in sections:
            owner, node = field_hints(owner)[section], node[section]
        rivals = {field.name for base in owner.__mro__ if dataclasses.is_dataclass(base)
                  for field in dataclasses.fields(base) if field.metadata.get("rival")}
        if last in rivals and node[last] not in (None, "none"):
            for name in rivals:
                if ".".join([*sections, name]) not in given:
                    node[name] = None


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
        hint = field_hints(owner).get(section)
        if hint is None or not dataclasses.is_dataclass(hint):
            known = [name for name, kind in field_hints(owner).items() if dataclasses.is_dataclass(kind)]
            raise UserError(f"command line: --{dotted}: no section '{'.'.join(sections[:depth + 1])}'."
                            f"{did_you_mean(section, known)}")
        if node.get(section) is None:  # an empty section in the file
            node[section] = {}
        owner, node = hint, node[section]
    hints = field_hints(owner)
    if last not in hints:
        raise UserError(f"command line: unknown option --{dotted}.{nearest(dotted, all_keys(cls))}")
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
    for name, hint in field_hints(cls).items():
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
        if type(None) in arguments and (value is None or (str not in arguments and _says_none(value))):
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
    raise UserError(f"{where}: '{key}' should be {in_words(hint)}, got {_brief(value)}.")


def _says_none(value: Any) -> bool:
    """`none`, as `--help` writes it, beside YAML's own null."""
    return isinstance(value, str) and value.lower() == "none"


def _brief(value: Any) -> str:
    """For a message; of a number of thousands of digits, which Python does not write, that it is one."""
    try:
        text = repr(value)
    except ValueError:
        return "a number beyond all bounds"
    return text if len(text) <= 200 else f"{text[:197]}…"
