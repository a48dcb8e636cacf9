"""Models of strangers: their code is never run, nothing is asked, no pickle is read; and honest ones still load."""

import ast
import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, BertForSequenceClassification

from toolkit.errors import UserError
from toolkit.models.load import checkpoint_config, load_backbone, load_checkpoint_tokenizer, load_weights
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification
from toolkit.pretrained import saved_config, saved_model
from toolkit.publishing.model_code import add_model_code
from toolkit.tokenization.load import load_tokenizer

HOSTILE = """
import pathlib
pathlib.Path(__file__).parent.joinpath("RAN").touch()
pathlib.Path({mark!r}).touch()
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
class Theirs(BertConfig): model_type = "theirs"
class TheirModel(BertModel): config_class = Theirs
class TheirTokenizer(PreTrainedTokenizerFast): pass
"""
ELSEWHERE = "ada/other--theirs."


# --- one way in ----------------------------------------------------------------------------------------------------


def calls_beside_the_one_place() -> list[str]:
    found = []
    for folder in ("toolkit", "recipes"):
        for path in sorted((small.ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                is_ours = "SeriesBins." in ast.unparse(node.func) or path == small.ROOT / "toolkit/pretrained.py"
                wrong = (name == "from_pretrained" and not is_ours
                         or name == "from_config" and given.get("trust_remote_code") != "False"
                         or given.get("trust_remote_code", "False") != "False"
                         or given.get("use_safetensors", "True") != "True"
                         or given.get("allow_pickle", "False") != "False"
                         or ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True"
                         or ast.unparse(node.func) in ("pickle.load", "pickle.loads", "yaml.load",
                                                       "transformers.pipeline"))
                found += [f"{path.relative_to(small.ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}"] * wrong
    return found


def test_nothing_is_loaded_beside_the_one_place():
    assert calls_beside_the_one_place() == []


def test_the_one_place_trusts_no_code_and_takes_safetensors_alone():
    text = (small.ROOT / "toolkit/pretrained.py").read_text(encoding="utf-8")
    assert [ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(".from_pretrained")] == [
                "loader.from_pretrained(str(directory), **_NO_CODE, **options)"]
    assert '_NO_CODE = {"trust_remote_code": False}' in text and "use_safetensors=True, **options)" in text


# --- strangers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def stranger(checkpoints, tmp_path, monkeypatch):
    """Makes a copy of a model with values changed in its files, code beside it, and a `y` that waits to be read."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 99))

    def make(files: dict[str, dict], without: tuple[str, ...] = ()) -> Path:
        directory = tmp_path / "stranger"
        shutil.copytree(checkpoints["bert"], directory)
        (directory / "theirs.py").write_text(HOSTILE.format(mark=str(tmp_path / "RAN")))
        for file, values in files.items():
            path = directory / file
            held = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps(held | values))
        for name in without:
            (directory / name).unlink()
        return directory

    yield make
    assert not list(tmp_path.rglob("RAN")), "code of a stranger ran"
    assert sys.stdin.read() == "y\n" * 99, "a question was asked"


def everything(directory: Path) -> list:
    """What is loaded of a model, and what it is called where it is refused."""
    said = []
    for load in (lambda: checkpoint_config(directory), lambda: load_tokenizer(str(directory)),
                 lambda: load_checkpoint_tokenizer(str(directory)), lambda: load_backbone(directory, "bert"),
                 lambda: load_weights(AutoModel, str(directory), directory)):
        try:
            load()
        except UserError as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("place", ["theirs.", ELSEWHERE])
def test_a_config_that_needs_code_is_refused_and_named(stranger, place):
    directory = stranger({"config.json": {"model_type": "theirs", "code_revision": "main", "auto_map": {
        "AutoConfig": f"{place}Theirs", "AutoModel": f"{place}TheirModel"}}})
    said = everything(directory)
    assert len(said) >= 3 and all("\n" not in line and line.startswith(f"{directory}/config.json: needs Python code")
                                  for line in said), said


@pytest.mark.parametrize("place", ["theirs.", ELSEWHERE])
def test_a_tokenizer_that_needs_code_is_refused_and_named(stranger, place):
    directory = stranger({"tokenizer_config.json": {"tokenizer_class": "TheirTokenizer", "auto_map": {
        "AutoTokenizer": [None, f"{place}TheirTokenizer"]}}}, without=("config.json", "model.safetensors"))
    with pytest.raises(UserError, match=r"stranger/tokenizer_config\.json: needs Python code of its own \(auto_map\)"):
        load_tokenizer(str(directory))


@pytest.mark.parametrize("place", ["theirs.", ELSEWHERE])
def test_code_beside_a_class_that_is_here_is_ignored(stranger, place):
    directory = stranger({"config.json": {"auto_map": {"AutoConfig": f"{place}Theirs",
                                                       "AutoModel": f"{place}TheirModel"}},
                          "tokenizer_config.json": {"auto_map": {"AutoTokenizer": [None, f"{place}TheirTokenizer"]}}})
    assert everything(directory) == []
    assert type(load_weights(AutoModel, str(directory), directory)).__module__.startswith("transformers.")


def test_a_head_that_needs_code_is_refused(stranger):
    directory = stranger({"config.json": {"auto_map": {"AutoModelForTimeSeriesPrediction": "theirs.TheirModel"}}})
    from transformers import AutoModelForTimeSeriesPrediction

    with pytest.raises(UserError, match=r"stranger/config\.json: needs Python code"):
        load_weights(AutoModelForTimeSeriesPrediction, str(directory), directory)


def test_models_of_ours_with_their_code_beside_them_are_read_by_our_class(tmp_path):
    model = PerceptronForClassification(PerceptronConfig(num_channels=1, series_length=8))
    model.save_pretrained(tmp_path)
    assert add_model_code(tmp_path)
    for file in tmp_path.glob("*.py"):
        file.write_text("raise SystemExit('ran')")
    assert type(load_weights(AutoModelForSequenceClassification, str(tmp_path), tmp_path)) is type(model)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_kernels_of_a_repository_are_refused(stranger, key):
    nested = stranger({"config.json": {"backbone_config": {key: "ada/kernel@main"}}})
    with pytest.raises(UserError, match=rf"config\.json: {key} names code of another repository"):
        saved_config(nested)


def test_nothing_is_asked_in_a_process_whose_input_says_yes(stranger):
    directory = stranger({"config.json": {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Theirs"}}})
    (directory / "texts.txt").write_text("the gate\n")
    ran = subprocess.run([sys.executable, small.ROOT / "recipes/predict.py", directory, directory / "texts.txt"],
                         input="yes\n" * 1000, capture_output=True, text=True, timeout=120, cwd=small.ROOT)
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.startswith(f"error: {directory}/config.json: needs Python code") and ran.stderr.count("\n") == 1


# --- weights -------------------------------------------------------------------------------------------------------


class Payload:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_in_one_line(stranger, tmp_path, name):
    directory = stranger({}, without=("model.safetensors",))
    (directory / name).write_bytes(pickle.dumps(Payload(tmp_path / "RAN")))
    for load in (lambda: load_backbone(directory, "bert"), lambda: load_weights(AutoModel, str(directory), directory),
                 lambda: saved_model(AutoModel, directory)):
        with pytest.raises(UserError, match=rf"never out of a pickle \(\.bin\), which can run code\. {name} is such"):
            load()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../bert/model.safetensors", "/etc/passwd", 7])
def test_an_index_leads_to_safetensors_beside_it_alone(stranger, tmp_path, name):
    directory = stranger({"model.safetensors.index.json": {"metadata": {}, "weight_map": {"a": name}}})
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "RAN")))
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    with pytest.raises(UserError, match=r"index\.json: must map weights to names of \.safetensors files beside it"):
        load_weights(AutoModel, str(directory), directory)


@pytest.mark.parametrize("file, values, said", [
    ("config.json", {"transformers_weights": "pytorch_model.bin"}, "transformers_weights must name a .safetensors"),
    ("adapter_config.json", {"base_model_name_or_path": "ada/other"}, "adapters are not read")])
def test_weights_that_lie_elsewhere_are_refused(stranger, file, values, said):
    directory = stranger({file: values})
    with pytest.raises(UserError, match=said):
        load_weights(AutoModel, str(directory), directory)


def test_a_cache_of_the_hub_whose_files_are_links_still_loads(checkpoints, tmp_path):
    """And so do weights in several files."""
    model = BertForSequenceClassification.from_pretrained(checkpoints["bert"])
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    model.save_pretrained(blobs, max_shard_size="20KB")
    assert len(list(blobs.glob("*.safetensors"))) > 1
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    loaded = load_weights(AutoModelForSequenceClassification, str(snapshot), snapshot)
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)
