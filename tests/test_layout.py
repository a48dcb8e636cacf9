"""The tree is the architecture: imports run one way, folders are small, and docs/layout.md says what is where.

Every import counts, also those inside functions and under TYPE_CHECKING.
"""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
import small

ROOT = small.ROOT
TOOLKIT = ROOT / "toolkit"

MAY_IMPORT = {
    "errors": "",
    "openmp": "",
    "shown": "",
    "bars": "shown",
    "views": "shown",
    "regular": "errors",
    "options": "",
    "config": "errors regular options",
    "config_docs": "options",
    "remedy": "errors options config",
    "hub": "bars errors regular",
    "pretrained": "bars errors",
    "metrics": "errors shown",
    "run": "bars views metrics errors regular config",
    "cli": "errors openmp shown config remedy run",
    "tokenization": "views errors config hub pretrained run",
    "data": "views errors run",
    "data.tables": "bars errors regular data",
    "data.text": "views bars errors regular run tokenization data data.tables",
    "data.pairs": "errors config regular run data data.tables data.text",
    "data.tags": "views errors metrics data data.tables data.text",
    "data.series": "views errors regular run data data.tables",
    "data.stores": "views bars errors run tokenization data data.tables data.text data.series",
    "models": "bars errors regular hub pretrained run tokenization data data.tables data.text data.series data.stores",
    "models.small": "errors models",
    "models.seq2seq": "errors data.pairs models models.small",
    "models.text": "errors hub models",
    "models.series": "errors hub pretrained models models.small",
    "training.observers": "errors shown bars config run",
    "training.impl": "errors config models models.seq2seq",
    "training": "errors config pretrained run data models training.observers training.impl",
    "baselines": "errors metrics data data.tables data.text data.series models models.small",
    "tasks": "errors views config pretrained run metrics tokenization data data.tables data.text data.pairs data.tags "
             "data.series data.stores models models.small models.text models.series training training.impl "
             "training.observers models.seq2seq",
    "inference": "errors shown views regular config hub pretrained run tokenization data data.tables data.text "
                 "data.series data.stores models models.small models.text models.series training training.impl "
                 "tasks data.pairs models.seq2seq",
    "analysis": "errors shown views config run metrics tokenization data data.tables data.text data.series data.stores "
                "models models.small models.text models.series training training.impl tasks inference",
    "experiments": "errors regular config pretrained run metrics tokenization data data.tables data.text "
                   "data.series data.stores models models.small models.text models.series training training.impl "
                   "training.observers baselines tasks inference analysis data.pairs models.seq2seq",
    "estimators": "bars pretrained run data data.text data.series models models.text training training.impl tasks "
                  "inference analysis experiments",
    "report.figures": "errors shown run metrics data data.series",
    "report.page": "shown run report.figures",
    "report.forecast_run": "errors config run report.figures",
    "report.sampled_run": "errors run report.figures report.forecast_run",
    "report.comparison_run": "errors run report.figures",
    "report.sections": "errors regular config run metrics data data.series report.figures report.page "
                       "report.forecast_run report.sampled_run report.comparison_run",
    "report": "errors shown views options config run metrics data data.series analysis report.figures report.page "
              "report.sections report.forecast_run report.sampled_run report.comparison_run",
    "publishing": "errors shown regular config hub pretrained run metrics models tasks report.figures "
                  "report.forecast_run report.sampled_run report.comparison_run report.sections",
    "app": "errors shown regular data data.series data.tables models inference analysis report report.figures "
           "report.page report.forecast_run",
    "commands": "errors pretrained run metrics tokenization data data.text data.series data.stores models models.text "
                "models.series training training.impl baselines tasks inference analysis experiments report "
                "report.figures report.comparison_run report.sections publishing",
}
"""Folder of the toolkit, or module at its root → the folders that it may import beside its own, from the ground up."""

LARGEST_FOLDER, LONGEST_MODULE = 13, 400
SAME_IDEA = {"seq2seq", "recurrent", "text", "series", "classification", "forecasting", "attention", "results",
             "batches", "masked_patches", "forecasts", "covariates", "generation", "base", "registry", "load",
             "pretraining", "settings"}
"""Names that occur in several folders: the same idea on several levels."""


def modules() -> dict[str, Path]:
    """Dotted name below `toolkit` → file."""
    found = {}
    for path in sorted(TOOLKIT.rglob("*.py")):
        parts = path.relative_to(TOOLKIT).with_suffix("").parts
        if parts != ("__init__",):
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def folder(module: str) -> str:
    """That a module lies in; a module at the root is one of its own, and so is one that the table names."""
    if module in MAY_IMPORT:
        return module
    path = MODULES.get(module)
    if path is None or path.name == "__init__.py":
        return module
    return module.rpartition(".")[0] or module


def imports(path: Path) -> set[str]:
    """Dotted names below `toolkit` of what a file imports, the modules rather than the packages."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            if node.module and node.module.split(".")[0] == "toolkit":
                inside = node.module.removeprefix("toolkit").lstrip(".")
                names = [".".join(filter(None, (inside, alias.name))) for alias in node.names]
                found |= {name if name in MODULES else inside for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("toolkit.") for alias in node.names
                      if alias.name.startswith("toolkit.")}
    return found - {""}


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    own = folder(module)
    allowed = {own, *MAY_IMPORT[own].split()}
    wrong = {name for name in imports(MODULES[module]) if folder(name) not in allowed}
    if module == own.rpartition(".")[2] or MODULES[module].name == "__init__.py":
        wrong -= {name for name in wrong if folder(name) == own}
    assert not wrong, f"toolkit.{module} is in {own}, which may not import {', '.join(sorted(wrong))}"


def test_the_table_itself_has_no_way_back():
    """What a folder may import stands above it in the table."""
    seen: set[str] = set()
    for name, allowed in MAY_IMPORT.items():
        assert set(allowed.split()) <= seen, f"{name} imports what stands below it: {set(allowed.split()) - seen}"
        seen.add(name)


def test_no_circle_of_modules():
    graph = {module: {name for name in imports(path) if name in MODULES and MODULES[name].name != "__init__.py"}
             for module, path in MODULES.items()}
    done, path = set(), []

    def visit(module: str) -> None:
        assert module not in path, f"a circle: {' → '.join([*path[path.index(module):], module])}"
        if module in done:
            return
        path.append(module)
        for name in sorted(graph[module]):
            visit(name)
        done.add(path.pop())

    for module in graph:
        visit(module)


def test_recipes_are_imported_by_nobody_below():
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.py")}
    for module, path in MODULES.items():
        names = {node.module if isinstance(node, ast.ImportFrom) else alias.name
                 for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
        assert not names & recipes, module


def test_folders_and_modules_are_small():
    sizes = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    assert not {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > LARGEST_FOLDER}
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert not {module: length for module, length in lengths.items() if length > LONGEST_MODULE}


def test_a_name_is_one_module():
    names = Counter(path.stem for path in MODULES.values() if path.name != "__init__.py")
    assert not {name for name, count in names.items() if count > 1} - SAME_IDEA
    assert not {"utils", "util", "helpers", "helper", "manager", "common", "misc"} & set(names)


def test_no_private_name_of_another_module_is_imported():
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("toolkit"):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not private, f"{module} imports {private} of {node.module}"


def test_the_map_names_every_module_and_no_other():
    """docs/layout.md: a line a module, `folder/` above its modules."""
    text = (ROOT / "docs/layout.md").read_text(encoding="utf-8")
    tree = text.split("```")[1]
    named, here = set(), ""
    for line in tree.splitlines():
        if found := re.match(r"^(toolkit/[\w/]*)\s", line + " "):
            here = found[1]
        elif found := re.match(r"^  (\w+)\.py\s+\S", line):
            named.add(f"{here}{found[1]}.py")
    there = {str(path.relative_to(ROOT)) for path in MODULES.values() if path.name != "__init__.py"}
    assert named == there, f"not in the map: {sorted(there - named)}; not in the tree: {sorted(named - there)}"


@pytest.mark.parametrize("recipe", sorted([*(ROOT / "recipes").glob("*.py"), *(TOOLKIT / "commands").glob("*.py")]),
                         ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_run_that_a_recipe_opens_has_a_card(recipe):
    """`Run` knows nothing of cards: whoever opens one hands in what keeps it. Configs are the toolkit's."""
    tree = ast.parse(recipe.read_text(encoding="utf-8"))
    opens = any(isinstance(node, ast.Attribute) and node.attr == "open" for node in ast.walk(tree))
    for node in ast.walk(tree):
        if opens and isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Run":
            assert "LiveCard" in ast.unparse(node), f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and (ROOT / f"recipes/{node.module}.py").exists():
            configs = [alias.name for alias in node.names if alias.name.endswith("Config")]
            assert not configs, f"{configs} of another recipe; keep it in the toolkit"
