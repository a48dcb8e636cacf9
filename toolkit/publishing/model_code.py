"""The code of our own model classes, beside their weights, for those who load them where this package is not.

transformers copies the .py of a class into a repository, but not what that imports from a package. So the modules that
a class needs are written side by side, importing each other relatively, and of each only the definitions that the class
reaches. `from_pretrained(…, trust_remote_code=True)` then needs transformers alone.
"""

import ast
import importlib
import importlib.util
import re
import sys
from pathlib import Path

from toolkit.models.load import checkpoint_config
from toolkit.models.registry import model_class
from toolkit.run.files import read_json, write_json

_OURS = re.compile(r"\bfrom toolkit((?:\.\w+)+) import\b")


class _Module:
    """A module of this package: its top-level definitions, and where its other names come from."""

    def __init__(self, name: str):
        self.name, self.file = name, f"{name.replace('.', '_')}.py"
        path = importlib.util.find_spec(name).origin
        source = Path(path).read_text(encoding="utf-8")
        self.lines = source.splitlines()
        self.defined: dict[str, ast.stmt] = {}
        self.imported: dict[str, tuple[str, str]] = {}  # local name → (module, name in it, or "" for the module)
        for node in ast.parse(source, path).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.defined[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    self.defined |= {part.id: node for part in ast.walk(target) if isinstance(part, ast.Name)}
            elif isinstance(node, ast.ImportFrom):
                self.imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                self.imported |= {alias.asname or alias.name.split(".")[0]: (
                    alias.name if alias.asname else alias.name.split(".")[0], "") for alias in node.names}

    def text(self, node: ast.stmt) -> str:
        """A definition as it is written, with its decorators and the remarks above it."""
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))]) - 1
        while first and self.lines[first - 1].startswith("#"):
            first -= 1
        return "\n".join(self.lines[first:node.end_lineno])


class _Needed:
    """The definitions and imports that some names reach, by module."""

    def __init__(self) -> None:
        self.modules: dict[str, _Module] = {}
        self.kept: dict[str, set[str]] = {}

    def add(self, module: str, name: str) -> None:
        if module not in self.modules:
            self.modules[module], self.kept[module] = _Module(module), set()
        here, kept = self.modules[module], self.kept[module]
        if name in kept or name not in here.defined.keys() | here.imported.keys():
            return
        kept.add(name)
        if name in here.imported:
            source, original = here.imported[name]
            if source.split(".")[0] == "toolkit":
                if not original or f"{source}.{original}" in sys.modules:
                    raise ValueError(f"{module}: {name} is a module; code that travels imports names from modules")
                self.add(source, original)
            return
        for part in ast.walk(here.defined[name]):
            if isinstance(part, ast.Name):
                self.add(module, part.id)
            elif isinstance(part, ast.ImportFrom) and part.module.split(".")[0] == "toolkit":
                for alias in part.names:
                    self.add(part.module, alias.name)

    def write(self, module: str) -> str:
        """A module of the needed definitions alone."""
        here, kept = self.modules[module], self.kept[module]
        imports = set()
        for name in kept & here.imported.keys():
            source, original = here.imported[name]
            renamed = f" as {name}" if name != (original or source) else ""
            imports.add(f"from {source} import {original}{renamed}" if original else f"import {source}{renamed}")
        nodes = {here.defined[name].lineno: here.defined[name] for name in kept & here.defined.keys()}
        parts = [f'"""What its models need of {module}, of the pretraining-toolkit (Apache-2.0)."""',
                 "\n".join(sorted(imports)), *(here.text(nodes[line]) for line in sorted(nodes))]
        text = "\n\n\n".join(part for part in parts if part) + "\n"
        return _OURS.sub(lambda match: f"from .toolkit{match[1].replace('.', '_')} import", text)


def add_model_code(directory: Path) -> list[str]:
    """Put the code of a checkpoint's classes into its directory, and say in its config.json where they are.

    Returns the files written: none where the classes are transformers' own. ValueError for code that cannot travel.
    """
    config = checkpoint_config(directory)
    if not type(config).__module__.startswith("toolkit."):
        return []
    model = model_class(config)
    needed = _Needed()
    for found in (type(config), model):
        needed.add(found.__module__, found.__name__)
    for name, module in needed.modules.items():
        (directory / module.file).write_text(needed.write(name), encoding="utf-8")
    values = read_json(directory / "config.json", dict)
    values["auto_map"] = {"AutoConfig": _place(type(config)),
                          **{auto: _place(model) for auto in ["AutoModel", *_registered(type(config), model)]}}
    write_json(directory / "config.json", values)
    return sorted(module.file for module in needed.modules.values())


def _place(found: type) -> str:
    return f"{found.__module__.replace('.', '_')}.{found.__name__}"


def _registered(config: type, model: type) -> list[str]:
    """Names of the Auto classes that a model is registered with."""
    autos = vars(importlib.import_module("transformers.models.auto.modeling_auto"))
    return sorted(name for name, auto in autos.items()
                  if name.startswith("AutoModel") and getattr(auto, "_model_mapping", None) is not None
                  and config in auto._model_mapping and auto._model_mapping[config] is model)
