"""docs/notebook.ipynb, executed: with a text and a table of one's own daily, and as it stands, by a kernel."""

import copy
import random
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
import small
from nbclient import NotebookClient

import toolkit

NOTEBOOK = nbformat.read(small.ROOT / "docs/notebook.ipynb", as_version=4)
FOREIGN = ("\r", "%|", "Warning", "Loading", "shards", "IProgress")
"""What bars and warnings of libraries would leave."""


@dataclass
class Seen:
    """What a cell leaves."""

    printed: str
    errors: str
    displayed: list[dict]
    result: dict
    """Of its last line, by MIME type."""


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def executed(cell, shell, capsys) -> Seen:
    shell.display_pub.outputs.clear()
    done = shell.run_cell(cell.source)
    done.raise_error()
    said, displayed = capsys.readouterr(), [output["data"] for output in shell.display_pub.outputs]
    return Seen(said.out, said.err, displayed, shell.display_formatter.format(done.result)[0])


def executed_by_kernel(notebook, folder: Path, seconds: int) -> list[Seen]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(small.ROOT))
        NotebookClient(notebook, timeout=seconds, kernel_name="python3",
                       resources={"metadata": {"path": str(folder)}}).execute()
    found = []
    for cell in code_cells(notebook):
        streams = [output for output in cell.outputs if output.output_type == "stream"]
        found.append(Seen(*("".join(each.text for each in streams if each.name == name)
                            for name in ("stdout", "stderr")),
                          [output.data for output in cell.outputs if output.output_type == "display_data"],
                          cell.outputs[-1].data))
    return found


def labelled_table(path: Path, rows: int, seed: int) -> None:
    draw = random.Random(seed)
    words = {"good": ["fine", "sound", "well made"], "bad": ["poor", "broken", "badly made"]}
    lines = [f"the {draw.choice(['film', 'book', 'play'])} number {number} was {draw.choice(words[label])},{label}"
             for number in range(rows) for label in words]
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")


def with_own_text(folder: Path):
    """The notebook with what its comments say in place of what every machine has, and a few steps."""
    notebook = copy.deepcopy(NOTEBOOK)
    small.write_corpus(folder / "my/notes", documents=120)
    labelled_table(folder / "train.csv", 20, 0)
    labelled_table(folder / "test.csv", 10, 1)
    (folder / "tokenizers").mkdir()
    for name, kind in (("wordpiece-8k", "wordpiece"), ("byte-level-bpe-4k", "bytes")):
        spec = small.SPECS[kind] + "model_max_length: 128\n"
        (folder / f"tokenizers/{name}.yaml").write_text(spec, encoding="utf-8")
    changes = {r'sources=\["python-docs"\]\)\n.*\n': 'sources=["my/notes"], validation_share=0.2)\n',
               r"labelled = .*\n# yours: (TextDataSection.*)\n": r"labelled = \1\n",
               r"max_minutes=2, logging_steps=10, eval_steps=50\)":
               "max_steps=4, logging_steps=1, eval_steps=2), eval_rows=32",
               r"max_steps=100, eval_steps=25": "max_steps=2, eval_steps=1", r"seeds=3": "seeds=1"}
    for pattern, new in changes.items():
        counts = 0
        for cell in code_cells(notebook):
            cell.source, count = re.subn(pattern, new, cell.source)
            counts += count
        assert counts == 1, pattern
    return notebook


def check(cells: list[Seen], folder: Path) -> None:
    """Nothing on stderr, no bar on stdout, tables as tables, the picture as a picture, and runs like others."""
    for cell in cells:
        assert not cell.errors and not any(mark in cell.printed for mark in FOREIGN), cell
        assert len(cell.result["text/plain"]) <= 2000
    prepared, tokenizers, learned, arms, figure = (cell.result for cell in cells)
    assert "documents" in prepared["text/html"] and "<table>" in tokenizers["text/html"]
    assert learned["text/plain"].startswith("[('")
    assert all(word in arms["text/html"] for word in ("bert, pretrained", "bert, random", "tfidf", "<table>"))
    assert figure["image/png"]
    live = cells[2].displayed[-1]
    assert all(part in live["text/html"] for part in ("<progress", "<svg", "training", "validation"))
    assert "<" not in live["text/plain"]
    runs = {run.name: run for run in toolkit.find_runs(folder / "runs")}
    assert {run.state for run in runs.values()} == {"finished"}
    assert runs["notebook/bert"].kind.startswith("BERT pretraining")
    assert (folder / "runs/notebook/bert/README.md").is_file() and (folder / "runs/notebook/text/README.md").is_file()
    command = runs["notebook/bert"].manifest["command"]
    assert "notebook" in command and "ipykernel" not in command


def test_it_runs_with_a_text_of_ones_own(shell, tmp_path, monkeypatch, capsys):
    notebook = with_own_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    check([executed(cell, shell, capsys) for cell in code_cells(notebook)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_a_kernel_runs_it(tmp_path, own):
    notebook = with_own_text(tmp_path) if own else copy.deepcopy(NOTEBOOK)
    check(executed_by_kernel(notebook, tmp_path, 1500), tmp_path)
    results = toolkit.read_results(tmp_path / "runs/notebook/text")
    assert len(results.verdicts) == 1 and len(results.rows) >= 4


def test_it_is_kept_without_outputs_and_has_five_cells():
    assert len(code_cells(NOTEBOOK)) == 5
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(NOTEBOOK))
    source = "\n".join(cell.source for cell in NOTEBOOK.cells)
    for name in re.findall(r"^from toolkit import (.*)$", source, re.MULTILINE):
        assert set(name.split(", ")) <= set(toolkit.__all__)
