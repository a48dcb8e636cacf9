"""The Space of a pushed model: what it holds, that it starts without this checkout, and what is refused."""

import re
import subprocess
import sys
from importlib import metadata

import askable
import pushable
import pytest
import yaml
from checkpoints import checkpoints  # noqa: F401 - a fixture

from toolkit.errors import UserError
from toolkit.publishing import space
from toolkit.publishing.space import REQUIRED, stage_space

STARTED = """
import pathlib, runpy, sys

class Refused:
    "Packages that the Space does not install, to what is in it; transformers looks for more."
    def find_spec(self, name, path=None, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if name in ("datasets", "evaluate", "wandb", "sentencex", "detect_secrets") and (
                "/toolkit/" in frame.f_code.co_filename):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refused())
from toolkit.app import answering, asked, serve
assert pathlib.Path(serve.__file__).is_relative_to(pathlib.Path.cwd()), serve.__file__
opened = []
serve.serve_space = opened.append
runpy.run_path("app.py")
print(*opened)
for model, ask in zip(sys.argv[1:], (answering.answer_text, answering.answer_masks, answering.answer_prompt)):
    page = ask(asked.open_asked(model), "the sea and the [MASK]")
    assert "refusal" not in page and len(page) > 100, page
"""


@pytest.fixture(autouse=True, scope="module")
def gradio_is_known():
    """Its version, where it is not installed: staging asks for no more of it."""
    version = metadata.version
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "version", lambda name: "6.31.0" if name == "gradio" else version(name))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, wordpiece):
    return pushable.bert_run(tmp_path_factory.mktemp("run") / "bert", wordpiece)


@pytest.fixture(scope="module")
def staged(run):
    return stage_space(run, "ada/bert", "v1")


def test_a_space_names_the_model_and_holds_nothing_of_the_run(run, staged):
    files = staged.files()
    assert {name for name in files if not name.startswith("toolkit/")} == {"app.py", "requirements.txt", "README.md"}
    code = {name for name in files if name.startswith("toolkit/")}
    assert {"toolkit/app/serve.py", "toolkit/models/small/recurrent.py", "toolkit/report/templates/app.css"} <= code
    assert not [name for name in code if "publishing" in name or "commands" in name]
    folder = run / "hub-staging/.space"
    assert 'serve_space("ada/bert@v1")' in (folder / "app.py").read_text()
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert front == {"title": "bert", "sdk": "gradio", "sdk_version": "6.31.0", "app_file": "app.py", "pinned": False,
                     "python_version": "{}.{}".format(*sys.version_info), "models": ["ada/bert"],
                     "license": "apache-2.0"}
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in lines] == list(REQUIRED)
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in lines)


def test_it_starts_and_answers_without_this_checkout(staged, tmp_path, wordpiece, checkpoints):  # noqa: F811
    text = askable.classifier(tmp_path / "text", checkpoints["bert"], wordpiece)
    done = subprocess.run([sys.executable, "-c", STARTED, text, checkpoints["bert"], checkpoints["gpt"]],
                          cwd=staged.folder, capture_output=True, text=True, timeout=120,
                          env={"PATH": "", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ada/bert@v1\n"


def test_what_is_private_does_not_travel(run, tmp_path, monkeypatch):
    (tmp_path / "notes.py").write_text('TOKEN = "hf_' + "a" * 34 + '"\n')
    monkeypatch.setattr(space, "_code", lambda: {"toolkit/notes.py": tmp_path / "notes.py"})
    with pytest.raises(UserError, match=r"notes.py, line 1: holds a Hugging Face token"):
        stage_space(run, "ada/bert")


def test_without_gradio_the_way_to_it_is_told(tmp_path, monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(UserError, match="pip install"):
        stage_space(tmp_path, "ada/bert")
