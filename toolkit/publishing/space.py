"""A model in the browser, as a Space of the hub: a few lines that start the page of `toolkit.app`, and what of this
package that reaches.

    app.py  requirements.txt  README.md  toolkit/…

It names the model's repository and holds nothing of the run: no weights, no configuration, no card.
"""

import ast
import importlib.util
import shutil
import sys
from importlib import metadata
from pathlib import Path

from toolkit.errors import UserError
from toolkit.models.registry import TABLE
from toolkit.publishing.privacy import refuse_private_text
from toolkit.publishing.staging import FOLDER, Staged
from toolkit.run.files import disk_errors, write_directory

REQUIRED = ("torch", "transformers", "tokenizers", "accelerate", "safetensors", "numpy", "pyarrow", "pandas", "scipy",
            "scikit-learn", "psutil", "matplotlib", "sentencepiece", "pyyaml", "tqdm", "jinja2", "rich")
"""What the page needs beside gradio, which the hub installs; as it is installed here."""
_STARTS = ("toolkit.app.serve", *dict.fromkeys(entry.module for entry in TABLE.values()))
_APP = '''"""{model} in the browser."""

from toolkit.app.serve import serve_space

serve_space("{model}")
'''
_README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
models:
- {repository}
license: apache-2.0
pinned: false
---

# {title}

The model [{repository}](https://huggingface.co/{repository}) in the browser. `toolkit/` is what of the
pretraining-toolkit (Apache-2.0) this page needs; `app.py` starts it.
"""


def stage_space(run: Path, repository: str, revision: str = "main") -> Staged:
    """Gather the Space of a pushed model in the run's `hub-staging`, and check it.

    revision: of the model: a branch or a tag. UserError where gradio is not installed, whose version the Space names.
    """
    try:
        gradio = metadata.version("gradio")
    except metadata.PackageNotFoundError:
        raise UserError("a Space names gradio's version, which is not installed: pip install "
                        "'pretraining-toolkit[app]'.") from None
    model = repository if revision == "main" else f"{repository}@{revision}"
    texts = {"app.py": _APP.format(model=model), "requirements.txt": _requirements(),
             "README.md": _README.format(title=repository.split("/")[1], repository=repository, gradio=gradio,
                                         python="{}.{}".format(*sys.version_info))}
    sources = _code()
    folder = run / FOLDER / ".space"  # no branch is called so

    def fill(temporary: Path) -> None:
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        for name, path in sources.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)
            refuse_private_text(temporary / name, str(path), "edit that line")

    with disk_errors(folder.parent, "place for the run"):
        write_directory(folder, fill)
    return Staged(folder, "main")


def _requirements() -> str:
    return "".join(f"{name}=={metadata.version(name).partition('+')[0]}\n" for name in REQUIRED)


def _code() -> dict[str, Path]:
    """Path in the Space → file of this package: the modules that the page imports, one by one, and its templates."""
    found: dict[str, Path] = {}
    root, todo = Path(__file__).parents[2], list(_STARTS)
    while todo:
        name = todo.pop()
        path = _file_of(name)
        if path is None or (place := path.relative_to(root).as_posix()) in found:
            continue
        found[place] = path
        todo += [name.rpartition(".")[0]] if "." in name else []
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "toolkit":
                todo += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for name in ("app.css", "page.html", "page.js", "style.css", "table.html"):
        place = f"toolkit/report/templates/{name}"
        found[place] = root / place
    return found


def _file_of(name: str) -> Path | None:
    """The file of a module; None where `name` is something in one."""
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found and found.origin else None
