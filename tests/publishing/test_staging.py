"""What of a run goes to the hub, and what never does: gathered and checked before a byte is sent."""

import importlib
import inspect
import json
import pickle
import re
import resource
import shutil

import pushable
import pytest
import small
import torch
from push_to_hub import PushConfig, push_to_hub
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from toolkit.errors import UserError
from toolkit.models import registry
from toolkit.publishing.model_code import add_model_code
from toolkit.publishing.staging import stage
from toolkit.tasks import forecasting
from toolkit.tokenization import bins


@pytest.fixture(scope="module")
def runs(tmp_path_factory, wordpiece):
    folder = tmp_path_factory.mktemp("runs")
    bert = pushable.bert_run(folder / "bert", wordpiece)
    pushable.text_run(folder / "text/bert-pretrained/seed-0", bert, wordpiece)
    return folder


@pytest.fixture
def run(runs, tmp_path, monkeypatch):
    """A copy of the BERT's run, at runs/bert of the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs, "runs")
    return tmp_path / "runs/bert"


def dry_run(run: str = "runs/bert", **settings) -> None:
    assert push_to_hub(PushConfig(run, "ada/bert", dry_run=True, **settings)) == []


def refused(run: str = "runs/bert", **settings) -> str:
    with pytest.raises(UserError) as caught:
        dry_run(run, **settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


FILES = ["README.md", "config.json", "config.yaml", "metrics.jsonl", "model.safetensors", "plots/loss.png",
         "tokenizer.json", "tokenizer_config.json"]


def test_a_dry_run_gathers_everything_lists_it_and_needs_no_hub(run, capsys):
    dry_run(checkpoints=True)
    staged = run / "hub-staging"
    told = capsys.readouterr().out
    assert sorted(path.relative_to(staged / "main").as_posix() for path in (staged / "main").rglob("*")
                  if path.is_file()) == FILES
    assert (staged / "main/model.safetensors").read_bytes() == (run / "model/model.safetensors").read_bytes()
    assert "to ada/bert, branch main: 8 files, 0." in told and "0.1 kB  README.md" in told
    for name in FILES:
        assert f"  {name}\n" in told
    assert "a new repository would be private" in told
    for step in (10, 20):  # the final model's files, that step's weights, a card of their own
        folder = staged / f"step-{step}"
        assert {path.name for path in folder.iterdir()} == set(FILES) - {"config.yaml", "metrics.jsonl",
                                                                         "plots/loss.png"}
        weights, final = load_file(folder / "model.safetensors"), load_file(run / "model/model.safetensors")
        assert weights.keys() == final.keys()
        assert weights.pop("cls.seq_relationship.bias").tolist() == [step, step]
        final.pop("cls.seq_relationship.bias")
        assert all(torch.equal(weights[name], final[name]) for name in weights)
        card = (folder / "README.md").read_text()
        assert f"Weights after step {step}" in card and "license: apache-2.0" in card
    assert not {path.name for path in staged.rglob("*")} & {"optimizer.pt", "result.json", "state.json", ".lock"}


def test_the_configuration_of_an_arm_is_found_above_it(run):
    arm = run.parent / "text/bert-pretrained/seed-0"
    for name in ("config.yaml", "manifest.json"):
        (arm / name).rename(run.parent / "text" / name)
    staged = stage(arm, "ada/text", "main")
    assert staged.files()["config.yaml"] == (run.parent / "text/config.yaml").stat().st_size
    assert not staged.code


def test_the_card_loads_the_model_from_the_hub(run):
    (run / "README.md").unlink()
    folder = stage(run, "ada/bert", "main").folder
    written, staged = (run / "README.md").read_text(), (folder / "README.md").read_text()
    assert 'model="./model"' in written and "./model" not in staged
    assert written.replace('"./model"', '"ada/bert"').replace(
        " `./model` is the folder beside this file, `bert/model`.", "") == staged
    for edited in (written + "\nMore by hand.\n", written.replace("license", "x")):
        (run / "README.md").write_text(edited)
        staged = (stage(run, "ada/bert", "main").folder / "README.md").read_text()
        assert 'model="ada/bert"' in staged and "./model" not in staged
    assert staged.endswith(edited[-50:])


def test_half_written_runs_are_named_with_the_way_on(run):
    assert refused("runs/none") == "runs/none: no such run directory."
    assert "Give the run it is of: runs/bert." in refused("runs/bert/model")
    assert refused("runs/text") == ("runs/text: holds no model to push (model/config.json is missing). Give one of the "
                                    "runs below it: runs/text/bert-pretrained/seed-0.")
    (run / "result.json").unlink()
    assert "runs/bert: is not finished (result.json is missing). Give the command that started it" in refused()
    dry_run(unfinished=True)
    shutil.rmtree(run / "model")
    assert "runs/bert: holds no model to push (model/config.json is missing). Let the run finish." in refused()


SECRET = {
    "a Hugging Face token": "hf_" + "aB3" * 11,
    "a wandb key": "api_key: " + "0123456789abcdef" * 2 + "01234567",
    "an AWS key": "AKIA" + "ABCDEFGH12345678",
    "a private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "a GitHub token": "ghp_" + "aB3x" * 9,
    "an API key": "sk-" + "aB3x" * 9,
    "a Google key": "AIza" + "aB3x-" * 7,
    "a Slack token": "xox" + "b-123456789012-abcdefghijkl",
    "a web token (JWT)": ".".join(["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0",
                                   "dBjftJeZ4CVP-mB92K27uhbUJU1p"]),
    "a password in an address": "https://alice:" + "hunter2password@git.example.com/x.git",
    "a Stripe key": "sk_live_" + "aB3x" * 6,
    "a PyPI token": "pypi-AgEIcHlwaS5vcmc" + "aB3x" * 18,
}


@pytest.mark.parametrize("kind", SECRET)
def test_secrets_are_named_by_file_and_line_but_not_shown(run, kind):
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 3, "note": SECRET[kind]}) + "\n")
    message = refused()
    assert message.startswith(f"runs/bert/metrics.jsonl, line 3: holds {kind}. Revoke it")
    assert SECRET[kind][-20:] not in message
    assert not (run / "hub-staging/main").exists()
    dry_run(leave_out=["metrics.jsonl"])
    assert not (run / "hub-staging/main/metrics.jsonl").exists()


def test_secrets_hide_in_templates_and_in_the_environment(run, monkeypatch):
    cell = f"login('{SECRET['a Hugging Face token']}')"
    template = run / "model/chat_template.json"
    template.write_text(json.dumps({"cells": [cell]}, indent=1))
    assert "model/chat_template.json, line 3: holds a Hugging Face token" in refused()
    template.write_text('{"cells": []}')
    monkeypatch.setenv("MY_SERVICE_TOKEN", "correct horse battery")
    (run / "config.yaml").write_text("seed: 0\nnote: correct horse battery\n")
    message = refused()
    assert message.startswith("runs/bert/config.yaml, line 2: holds the value of MY_SERVICE_TOKEN.")
    assert "horse" not in message


def test_secrets_in_utf_16_are_found(run):
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        (run / "metrics.jsonl").write_bytes(f"{{}}\nkey: {SECRET['a Hugging Face token']}\n".encode(encoding))
        assert "runs/bert/metrics.jsonl, line 2: holds a Hugging Face token" in refused()


@pytest.mark.parametrize("text", ["/home/ada/texts", "/root/x", "file:///home/ada/x", "path:/home/ada/x",
                                  "'data:/home/ada/x'", "[/tmp/run-1/a.txt]", "'/Users/ada'", r"C:\Users\ada",
                                  "{place}/corpus"])
def test_paths_of_this_machine_are_named_by_file_and_line(run, text):
    text = text.format(place=run)
    (run / "config.yaml").write_text(f"seed: 0\nnote: {text}\n")
    message = refused()
    assert message.startswith("runs/bert/config.yaml, line 2: holds ") and "a path of this machine" in message
    assert "--leave_out config.yaml" in message
    (run / "config.yaml").write_text("seed: 0\n")
    with open(run / "README.md", "a") as file:
        file.write(f"from {text}")
    assert message != refused() and "README.md, line 11: holds" in refused() and "edit that line" in refused()


@pytest.mark.parametrize("text", [
    "https://example.org/home/ada/x", "../shared/data/books", "~/texts", "and/or/not", "#!/usr/bin/env python",
    "[a](plots/loss.png)", "/dev/null", "</b></i>", "runs/bert/model", "1/2/3", "hub:ada/texts", "git a40b2c" * 4,
    "commit 0123456789abcdef0123456789abcdef01234567", "hf_model_name", "wandb: offline", "/etc/hosts"])
def test_what_only_looks_like_one_is_pushed(run, text):
    (run / "config.yaml").write_text(f"note: {json.dumps(text)}\n")
    with open(run / "README.md", "a") as file:
        file.write(text)
    dry_run()


@pytest.mark.parametrize("name", ["optimizer.pt", "pytorch_model.bin", "x.pkl", "innocent.txt", "archive"])
def test_pickles_stay_here_whatever_they_are_called(run, name, capsys):
    path = run / "model" / name
    if name == "innocent.txt":
        path.write_bytes(pickle.dumps({"a": 1}))
    else:
        torch.save({"a": torch.zeros(2)}, path)
    dry_run()
    assert f"runs/bert: left here, since no model has it: model/{name}\n" in capsys.readouterr().out
    assert not (run / "hub-staging/main" / name).exists()
    path.rename(run / "model/vocab.txt")  # a name that models have
    assert "runs/bert/model/vocab.txt: is a pickle, which can run code" in refused()


def test_what_is_no_part_of_a_model_stays_here_and_is_told(run, capsys):
    # Once wrong: whatever lay in model/ and plots/ was pushed, and what hid in hidden folders.
    stray = ["model/.git/config", "model/.hidden/notes.txt", "model/prod.env", "model/train.csv", "plots/texts.txt",
             "plots/other.png", "beside.png", "model/sub/config.json"]
    for name in stray:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("password=hunter2\n")
    dry_run()
    told = capsys.readouterr().out
    staged = {path.relative_to(run / "hub-staging/main").as_posix() for path in (run / "hub-staging/main").rglob("*")
              if path.is_file()}
    assert staged == set(FILES)
    assert "left here" in told and "and 2 more" in told and "model/prod.env" in told


@pytest.mark.parametrize("name", [bins.FILE_NAME, forecasting.INTERVALS])
def test_what_a_model_of_series_needs_beside_its_weights_goes_with_them(run, name):
    # Once wrong: bins were no file of a model's, so that a GPT of series that was pulled could not be asked.
    (run / "model" / name).write_text("{}\n")
    dry_run()
    assert (run / "hub-staging/main" / name).read_text() == "{}\n"


def test_a_run_that_is_called_model_is_gathered_like_others(run):
    run.rename(run.with_name("model"))
    dry_run("runs/model")
    staged = run.with_name("model") / "hub-staging/main"
    assert {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()} == set(FILES)


def test_predictions_go_only_where_they_are_asked_for(run, capsys):
    (run / "bert-predictions.parquet").write_bytes(b"PAR1")
    dry_run()
    assert not (run / "hub-staging/main/bert-predictions.parquet").exists()
    dry_run(predictions=True)
    assert (run / "hub-staging/main/bert-predictions.parquet").read_bytes() == b"PAR1"


@pytest.mark.parametrize("name", ["model/config.json", "plots/loss.png", "config.yaml", "README.md", "model", "plots"])
def test_a_link_is_refused_by_name(run, tmp_path, name):
    # Once wrong: what a link led to was pushed, from anywhere on the machine.
    path, elsewhere = run / name, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    message = refused()
    assert message.startswith(f"runs/bert/{name}: is a link, and what it leads to is not pushed.")
    assert not (run / "hub-staging/main").exists()


def test_broken_weights_are_named(run):
    path = run / "model/model.safetensors"
    weights, whole = load_file(path), path.read_bytes()
    name = "bert.encoder.layer.1.output.dense.bias"
    for value in (torch.nan, torch.inf):
        save_file({**weights, name: weights[name].index_fill(0, torch.tensor([3, 5]), value)}, path, {"format": "pt"})
        assert (f"model.safetensors: 2 of the 32 numbers of {name} are no finite numbers: the run has diverged"
                in refused())
    path.write_bytes(whole[:-100])
    assert "model/model.safetensors: is cut short. Fetch or save it again" in refused()
    save_file({key: value for key, value in weights.items() if key != name}, path, {"format": "pt"})
    assert f"its weights lack {name} and 0 more" in refused()
    save_file({**weights, "more": torch.zeros(1)}, path, {"format": "pt"})
    assert "its weights hold besides more and 0 more" in refused()
    path.unlink()
    assert "runs/bert/model/config.json: lies beside no weights" in refused()


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/step-00000010",
                                   "checkpoints/step-00000010/model.safetensors"])
def test_checkpoints_that_are_links_are_not_pushed(run, place):
    (run / place).rename(run.parent / "elsewhere")
    (run / place).symlink_to(run.parent / "elsewhere")
    assert f"runs/bert/{place}: is a link, and what it leads to is not pushed" in refused(checkpoints=True)


def test_broken_checkpoints_are_named(run):
    weights = run / "checkpoints/step-00000010/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "step-00000010/model.safetensors: does not match its checksum. Delete runs/bert/checkpoints/step-00000010" \
        in refused(checkpoints=True)
    shutil.rmtree(run / "checkpoints")
    assert refused(checkpoints=True) == "runs/bert: has no checkpoints. Push without --checkpoints."


@pytest.mark.parametrize(("card", "message"), [
    ("# no metadata\n", "README.md, line 1: a card begins with its metadata"),
    ("---\nlicense: [\n---\n", "README.md: its metadata cannot be read"),
    ("---\n- a\n---\n", "README.md: its metadata cannot be read"),
    ("---\nlicense: mit\n---\n\n![](plots/none.png)\n", "README.md, line 5: shows plots/none.png, which is not pushed"),
])
def test_a_card_that_cannot_be_read_or_shows_what_is_not_there(run, card, message):
    (run / "README.md").write_text(card)
    assert message in refused()


def test_wrong_settings(run):
    assert refused(leave_out=["model.safetensors"]) == (
        "leave_out names model.safetensors. Files that can be left out: config.yaml, metrics.jsonl, plots/loss.png.")
    for name in ("a..b", "/a", "a b", "a.lock"):
        assert refused(revision=name) == f"revision is '{name}', which git does not take for a name."
    for name in ("bert", "a/b/c", "a--b/c", "a/b.git", "ada/little bert"):
        with pytest.raises(UserError, match=f"^repo is '{name}'"):
            push_to_hub(PushConfig("runs/bert", name, dry_run=True))


def test_a_full_disk_loses_nothing(run):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        message = refused()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "a file may not become as large as it must (File too large). Raise the limit" in message
    assert "the same command continues" in message
    assert not list((run / "hub-staging").iterdir())
    dry_run()


def test_code_of_ours_travels_without_what_it_does_not_need(run, capsys):
    dry_run(with_code=True)
    assert "its class is transformers' own" in capsys.readouterr().out
    arm = run.parent / "text/bert-pretrained/seed-0"
    dry_run(str(arm.relative_to(run.parent.parent)), with_code=True)
    folder = arm / "hub-staging/main"
    code = {path.name: path.read_text() for path in folder.rglob("*.py")}
    assert json.loads((folder / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "toolkit_models_text_classifier.TextConfig",
        "AutoModel": "toolkit_models_text_classifier.TextForClassification",
        "AutoModelForSequenceClassification": "toolkit_models_text_classifier.TextForClassification"}
    assert "auto_map" not in json.loads((arm / "model/config.json").read_text())
    assert code.keys() == {"toolkit_models_text_classifier.py", "toolkit_models_families.py",
                           "toolkit_models_cross_entropy.py", "toolkit_models_settings.py", "toolkit_errors.py"}
    assert 'from_pretrained("ada/bert", trust_remote_code=True)' in (folder / "README.md").read_text()
    assert "def _read" in code["toolkit_models_text_classifier.py"]
    assert "def text_classifier" not in code["toolkit_models_text_classifier.py"]  # makes new ones


def classes_of_ours() -> list[type]:
    """Every model of toolkit/models that is not made for others of its module to build on, nor a part of one."""
    models = []
    for name in sorted({entry.module for entry in registry.TABLE.values()}):
        here = {value for value in vars(importlib.import_module(name)).values()
                if isinstance(value, type) and issubclass(value, PreTrainedModel) and value.__module__.startswith(name)
                and "config" == " ".join(inspect.signature(value).parameters)}
        models += [model for model in here if not any(issubclass(other, model) for other in here if other != model)]
    return models


def test_every_class_of_ours_travels(tmp_path, monkeypatch):
    """Each is made small, saved with its code, and loaded by that alone; test_hub.py does it without the toolkit."""
    monkeypatch.syspath_prepend(tmp_path)
    made = set()
    for model in classes_of_ours():
        settings = {"context_length": 32, "horizon": 4}
        if "backbone_config" in model.config_class.__annotations__:
            settings["backbone_config"] = small.bert_config(30)
        folder = tmp_path / "travelled" / model.__name__
        model(model.config_class(**settings)).save_pretrained(folder)
        for name in add_model_code(folder):
            assert not re.search(r"^\s*(from|import) toolkit\b", (folder / name).read_text(), re.MULTILINE)
        module, name = json.loads((folder / "config.json").read_text())["auto_map"]["AutoModel"].split(".")
        copy = getattr(importlib.import_module(f"travelled.{model.__name__}.{module}"), name)
        assert copy is not model and name == model.__name__
        assert not any(copy.from_pretrained(folder, output_loading_info=True)[1].values())
        made.add(name)
    assert {"TextForClassification", "SeriesForClassification", "RecurrentForClassification", "NLinear"} <= made
