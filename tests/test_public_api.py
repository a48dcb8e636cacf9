"""`from toolkit import …`: every name is there, README's example runs as it stands, and nobody waits for it."""

import ast
import importlib
import re
import subprocess
import sys

import pytest
import small

import toolkit

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
def test_the_example_in_readme_pretrains_and_fills_a_mask(tmp_path, monkeypatch, capsys, sources):
    """With another, smaller corpus and tokenizer; the slow one as it is printed, but for the minutes."""
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
    assert (tmp_path / "runs/small/model/model.safetensors").is_file()
