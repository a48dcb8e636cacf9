"""What to do about a path that is missing: the very command that makes it, or the options that name another.

Each config that ships begins with the command that it is for, as `# make pretrain-bert CONFIG=…`.
"""

import re
from pathlib import Path

import yaml

from toolkit.config import flat, read_yaml
from toolkit.errors import UserError
from toolkit.options.checkout import CHECKOUT, shipped
from toolkit.options.option_help import continued

EXAMPLES = "../shared/data"
"""Where configs that ship look for example data, beside the checkout."""
_COMMAND = re.compile(r"^# (make \S+(?: CONFIG=\S+)?)$", re.MULTILINE)


def remedy(error: str, argv: list[str]) -> str:
    """A sentence, or several, to stand behind an error that begins with a path; empty where nothing is known of it.

    argv: what the recipe was called with.
    """
    found = re.match(r"(.+?): ", error)
    path = Path(found[1]).expanduser() if found else Path("/")
    if path.is_absolute() or path.exists() or ": make " in error:
        return ""
    if made := _command_that_makes(path):
        return f" Make it first: {made}"
    config = _config_of(argv)
    if config and (there := Path(config).expanduser().parent / path).exists():
        return f" There is {there}: paths in a config are relative to the working directory, not to the config."
    return _of_your_own(path, config)


def command_apart(line: str, width: int) -> str:
    """A line that ends in a command, and is longer than the terminal is wide: the command stands below, to be copied.
    """
    found = re.search(r": ((?:make|\.venv/bin/python) \S.*)$", line)
    if found is None or len(line) <= width or ". " in found[1]:  # more is said behind it
        return line
    command = continued(found[1], width - 2).replace("\n", "\n  ")
    return f"{line[:found.start()]}:\n  {command}"


def _config_of(argv: list[str]) -> str:
    """The value of --config; empty where there is none."""
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name == "--config":
            return value if equals else "".join(argv[place + 1:place + 2])
    return ""


def command_in(config: str | Path) -> str:
    """The command that a config is for, as its comment says; empty where it says none."""
    found = _COMMAND.search(shipped(config).read_text(encoding="utf-8"))
    return found[1] if found else ""


def _command_that_makes(path: Path) -> str:
    """The command of the config that ships and writes below this path; empty where none does, or where it has."""
    parts = path.parts
    if parts[:1] != ("runs",) or Path(*parts[:2], "result.json").exists():
        return ""
    if parts[1:2] in ((), ("demo",)):
        return "" if Path("runs/demo/summary.json").exists() else "make demo"
    for config in sorted((CHECKOUT / "recipes/configs").glob("*.yaml")):
        if (read_yaml(config).get("output_dir") or f"runs/{config.stem}") == "/".join(parts[:2]):
            return command_in(config)
    return ""


def _of_your_own(path: Path, config: str) -> str:
    """Where a config that ships names example data that are not there: the options for other ones."""
    try:
        values = flat(read_yaml(config)) if config else {}
    except (UserError, yaml.YAMLError):
        return ""
    keys = [key for key, value in values.items() if any(
        isinstance(part, str) and part.startswith(EXAMPLES) and not Path(part).exists()
        for part in (value if isinstance(value, list) else [value]))]
    if not keys or not str(path).startswith(EXAMPLES):
        return ""
    options = [f"--{key} …" for key in keys if key.count(".") < 2]  # of a mapping's entries there are no options
    if any(key.startswith("probes.sets.") for key in keys):
        options.append("--probes.sets '{}'")
    return f" It is example data; name your own: {command_in(config)} ARGS=\"{' '.join(options)}\""
