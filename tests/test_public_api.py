"""`from toolkit import …`: every name is there, README's example runs as it stands, and nobody waits for it."""

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import typing

import pretrain_bert
import pytest
import small

import toolkit
from toolkit.config_docs import is_configuration
from toolkit.options.option_help import field_docs

README = (small.ROOT / "README.md").read_text(encoding="utf-8")
RECIPES = [path.stem for path in sorted((small.ROOT / "recipes").glob("*.py"))
           if "__main__" in path.read_text(encoding="utf-8")]


def test_every_name_is_what_its_module_has():
    for name in toolkit.__all__:
        assert getattr(toolkit, name) is getattr(importlib.import_module(toolkit._MODULE[name]), name)
        assert name in dir(toolkit)
    assert len(set(toolkit.__all__)) == len(toolkit.__all__) == sum(map(len, toolkit._WHERE.values()))
    with pytest.raises(AttributeError, match="no attribute 'generatee'"):
        toolkit.generatee  # noqa: B018
    with pytest.raises(ImportError):
        exec("from toolkit import nothing_of_the_kind")


def test_no_name_hides_a_module():
    modules = {path.stem for path in (small.ROOT / "toolkit").iterdir()}
    assert not modules & set(toolkit.__all__)


def test_what_a_module_keeps_private_no_other_imports():
    for path in sorted([*(small.ROOT / "toolkit").rglob("*.py"), *(small.ROOT / "recipes").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module != "__future__":
                private = [item.name for item in node.names if item.name.startswith("_")]
                assert not private, f"{path}:{node.lineno} imports {private} from {node.module}"


def test_importing_costs_nothing_and_help_waits_for_no_library():
    """numpy and yaml are a tenth of a second each; of a recipe's help they may be part."""
    heavy = ("torch", "transformers", "pandas", "pyarrow", "sklearn", "matplotlib", "scipy", "tokenizers", "datasets")
    code = f"""
import runpy, sys, time
start = time.process_time()
import toolkit
took = time.process_time() - start
sys.path.insert(0, "recipes")
for recipe in {RECIPES!r}:
    sys.argv = [f"recipes/{{recipe}}.py", "--help"]
    start = time.process_time()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        assert stop.code == 0, (recipe, stop.code)
    assert time.process_time() - start < 1, (recipe, time.process_time() - start)
    assert not set({heavy!r}) & set(sys.modules), (recipe, sorted(set({heavy!r}) & set(sys.modules)))
assert took < 0.05, took
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=small.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Options, which are keys of the YAML file") == len(RECIPES) - 1  # the demo takes none


@pytest.mark.parametrize("sources", ["my/notes", pytest.param("python-docs", marks=pytest.mark.slow)])
def test_the_example_in_readme_leaves_a_run_like_others(tmp_path, monkeypatch, capsys, sources):
    """It has configuration, state, kind, result and card; the recipe of the same name knows it for finished."""
    example = README.split("### From Python")[1].split("```python\n")[1].split("```")[0]
    assert len(example.strip().splitlines()) <= 15
    small.write_corpus(tmp_path / "my/notes", documents=200)
    if sources == "my/notes":
        spec = small.SPECS["wordpiece"].replace("lowercase: true", "lowercase: true\nmodel_max_length: 128")
        (tmp_path / "tokenizers").mkdir()
        (tmp_path / "tokenizers/wordpiece-8k.yaml").write_text(spec)
    monkeypatch.chdir(tmp_path)
    shorter, count = re.subn(r"max_minutes=\d+", "max_steps=2", example)
    assert count == 1 and shorter.count('"python-docs"') == 1
    shorter = shorter.replace("python-docs", sources)
    exec(compile(shorter, "README.md", "exec"), {})
    assert re.search(r"\[\('\S+', 0\.\d+\)", capsys.readouterr().out)
    (run,) = toolkit.find_runs("runs")
    assert (run.name, run.state, run.steps) == ("small", "finished", 2) and run.kind.startswith("BERT pretraining")
    assert {"config.yaml", "manifest.json", "README.md", "result.json", "model"} <= {
        path.name for path in run.directory.iterdir()}
    pretrain_bert.main(["--config", "runs/small/config.yaml"])
    assert "is finished" in capsys.readouterr().out


def test_help_lists_the_fields_of_every_configuration_class():
    """With their texts and defaults, those of bases and of the sections in it too."""
    found = {name: value for name in toolkit.__all__ if is_configuration(value := getattr(toolkit, name))}
    assert len(found) >= 18 and all(name.endswith(("Config", "Section", "Values")) for name in found)
    pending, seen = list(found.values()), set()
    while pending:
        cls = pending.pop()
        seen.add(cls)
        text, docs = inspect.getdoc(cls), field_docs(cls)
        for field in dataclasses.fields(cls):
            assert f"\n{field.name}: " in text, (cls, field.name)
            assert all(word in text for word in docs.get(field.name, "").split()), (cls, field.name)
        pending += [hint for hint in typing.get_type_hints(cls).values()
                    if dataclasses.is_dataclass(hint) and hint not in seen]
    assert "batch_size: int, default 32\n    Rows of the global batch" in toolkit.PretrainingConfig.__doc__
    assert "output_dir: str, required" in toolkit.PretrainBertConfig.__doc__
    assert "see help(CorpusConfig)" in toolkit.PretrainBertConfig.__doc__
    assert toolkit.PretrainingConfig(max_steps=1).__doc__ == toolkit.PretrainingConfig.__doc__


def test_no_module_touches_the_users_own_plots():
    """Nobody loads pyplot, or chooses matplotlib's backend, of a notebook that imports us."""
    for path in sorted([*(small.ROOT / "toolkit").rglob("*.py"), *(small.ROOT / "recipes").glob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = ([item.name for item in node.names] if isinstance(node, ast.Import) else
                     [f"{node.module}.{item.name}" for item in node.names] if isinstance(node, ast.ImportFrom) else [])
            assert not [name for name in named if name.startswith("matplotlib.pyplot")], f"{path}:{node.lineno}"
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) == "matplotlib.use"), path
