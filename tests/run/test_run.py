"""The run directory: claimed by one configuration, written whole or not at all."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch
import yaml

from toolkit import cli, config, errors
from toolkit.errors import Interrupted, UserError, did_you_mean
from toolkit.run import directory as run
from toolkit.run import places
from toolkit.run.directory import Run, read_metrics
from toolkit.run.files import building, read_json, write_atomic, write_directory, write_json


@dataclass
class Impl(config.Free):
    dtype: str = "auto"


@dataclass
class Training:
    steps: int = 10
    betas: list[float] = field(default_factory=lambda: [0.9, 1e-8])
    note: str | None = None
    on_bad_step: str = config.free("stop")


@dataclass
class Settings:
    output_dir: str = "x"
    training: Training = field(default_factory=Training)
    impl: Impl = field(default_factory=Impl)


def test_a_directory_belongs_to_one_configuration(tmp_path):
    opened = Run(tmp_path / "run").open(Settings())
    assert isinstance(opened, Run)
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["training"]["betas"] == [0.9, 1e-8]
    before = (tmp_path / "run/config.yaml").read_bytes()
    Run(tmp_path / "run").open(Settings())
    Run(tmp_path / "run").open(Settings(impl=Impl("bfloat16")))  # how it is run may differ
    assert (tmp_path / "run/config.yaml").read_bytes() == before
    Run(tmp_path / "run").open(Settings(training=Training(20)))  # nothing is computed: a mistake is just corrected
    Run(tmp_path / "run").open(Settings())
    assert (tmp_path / "run/config.yaml").read_bytes() == before
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match=r"config\.yaml: this run was made with training\.steps = 10, now it is 20\. "
                                        r"Choose another --output_dir, or delete .*run to start over"):
        Run(tmp_path / "run").open(Settings(training=Training(20)))
    with pytest.raises(UserError, match=r"training\.steps = 10, now it is 20 \(and 1 more key"):
        Run(tmp_path / "run").open(Settings(training=Training(20, note="more")))
    Run(tmp_path / "run").open(Settings(training=Training(on_bad_step="skip"), impl=Impl("float32")))


def test_a_run_of_an_earlier_version_goes_on(tmp_path):
    """A key that it did not have is at its default there; another value of it is another run."""
    Run(tmp_path).open(Settings())
    values = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del values["training"]["betas"], values["training"]["note"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    Run(tmp_path).open(Settings())
    with pytest.raises(UserError, match=r"made with training\.note = None, now it is 'more'"):
        Run(tmp_path).open(Settings(training=Training(note="more")))


# --- the same files, spelled otherwise or moved ------------------------------------------------------------------


@dataclass
class Reading:
    output_dir: str
    data_dir: str = "made"
    sources: list[str] = field(default_factory=list)
    models: dict = field(default_factory=dict)
    column: str = "text"


def begun(tmp_path, **values) -> Reading:
    """A run in tmp_path/run that has read tmp_path/a.txt and the folder tmp_path/model, and computed something."""
    (tmp_path / "a.txt").write_text("one text")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(bytes(range(256)) * 1000)
    settings = Reading("run", **{"sources": ["a.txt"], "models": {"small": "model"}, **values})
    Run(settings.output_dir).open(settings).write_manifest()
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1}\n')
    return settings


def test_the_same_directory_spelled_otherwise_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = begun(tmp_path)
    before = (tmp_path / "run/config.yaml").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    (tmp_path / "linked.txt").symlink_to(tmp_path / "a.txt")
    for spelled in ("run/", "./run", str(tmp_path / "run"), "link", "~/run", "run/../run"):
        Run(spelled).open(replace(settings, output_dir=spelled, data_dir=f"{tmp_path}/made/",
                                  sources=[str(tmp_path / "a.txt")], models={"small": "./model/"}))
    Run("run").open(replace(settings, sources=["./linked.txt"]))
    assert (tmp_path / "run/config.yaml").read_bytes() == before
    assert not capsys.readouterr().out, "nothing was moved"
    assert not (tmp_path / "~").exists()


def test_a_run_whose_files_were_moved_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    monkeypatch.chdir(first)
    settings = begun(first, sources=[str(first / "a.txt")])
    monkeypatch.chdir(tmp_path)
    first.rename(second)
    there = replace(settings, output_dir=str(second / "run"), data_dir=str(second / "made"),
                    sources=[str(second / "a.txt")], models={"small": str(second / "model")})
    Run(there.output_dir).open(there)
    told = capsys.readouterr().out
    assert f"note: sources is ['{second}/a.txt'] now, and was ['{first}/a.txt']: it holds the same" in told
    assert "models.small" in told and "output_dir" not in told
    assert yaml.safe_load((second / "run/config.yaml").read_text()) == config.to_dict(there)
    Run(there.output_dir).open(there)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("change", ["longer", "one letter", "another name in a folder"])
def test_other_content_at_another_place_is_another_run(tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    settings = begun(tmp_path)
    now = replace(settings, sources=["./b.txt"])
    (tmp_path / "b.txt").write_text({"longer": "one text more", "one letter": "one texT"}.get(change, ""))
    if change == "another name in a folder":
        (tmp_path / "other").mkdir()
        (tmp_path / "other/weight").write_bytes((tmp_path / "model/weights").read_bytes())
        now = replace(settings, models={"small": "./other"})
    with pytest.raises(UserError, match="this run was made with .* what lies there is not known to be the same") as no:
        Run("run").open(now)
    assert "delete" not in str(no.value)
    with pytest.raises(UserError, match="column = 'text', now it is 'words' .*delete"):
        Run("run").open(replace(now, column="words"))


def test_only_what_is_looked_into_is_known_to_be_the_same(tmp_path, monkeypatch):
    """One letter in the middle of a file is seen; the whole disk, and what is no file, are not looked at."""
    text = bytearray(b"a" * 400_000)
    (tmp_path / "one").write_bytes(text)
    text[200_000] += 1
    (tmp_path / "two").write_bytes(text)
    os.mkfifo(tmp_path / "pipe")
    one, two = places.contents([str(tmp_path / "one"), str(tmp_path / "two")])
    assert one.startswith("1 file, 400,000 bytes") and one != two
    assert places.contents({"a": "/", "b": str(tmp_path / "pipe"), "c": "no such file"}) == dict.fromkeys("abc")
    monkeypatch.setattr(places, "_MOST_FILES", 1)
    assert places.contents(str(tmp_path)) is None
    assert not places.same("/", "//x\0") and not places.same("a", "b")


def test_a_run_that_knows_nothing_of_its_files_is_not_taken_for_moved(tmp_path, monkeypatch):
    """As of versions that kept no record of them."""
    monkeypatch.chdir(tmp_path)
    settings = begun(tmp_path)
    manifest = read_json(tmp_path / "run/manifest.json")
    assert manifest["inputs"]["sources"][0].startswith("1 file, 8 bytes, ")
    del manifest["inputs"]
    write_json(tmp_path / "run/manifest.json", manifest)
    (tmp_path / "b.txt").write_text("one text")
    Run("run").open(replace(settings, sources=["./a.txt"]))
    with pytest.raises(UserError, match="not known to be the same"):
        Run("run").open(replace(settings, sources=["./b.txt"]))


def test_data_at_another_place_are_the_same_data(tmp_path):
    """What checkpoints saw is compared without the names of sources, and without keys of later versions."""
    record = Run(tmp_path).open(Settings())
    facts = {"corpus": {"config": {"sources": ["a.jsonl"], "errors": "strict"}, "sources": [{"source": "a.jsonl",
             "train": {"bytes": 9}}], "splits": {"train": {"sha256": "1f"}}}, "tokens": {"train": 3}}
    record.write_manifest(data=facts)
    (tmp_path / "checkpoints/step-00000001").mkdir(parents=True)
    elsewhere = json.loads(json.dumps(facts).replace("a.jsonl", "/there/a.jsonl"))
    record.write_manifest(data={**elsewhere, "corpus": {**elsewhere["corpus"], "inputs": {}}})
    with pytest.raises(UserError, match=r"differing: corpus\)"):
        record.write_manifest(data=json.loads(json.dumps(facts).replace("1f", "2e")))


def test_other_ranks_write_nothing(tmp_path):
    other = Run(tmp_path / "run", is_main=False).open(Settings())
    other.write_manifest(fact=1)
    assert other.finish({"loss": 1.0}) == {"loss": 1.0}
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="run: is a file; output_dir must be a directory"):
        Run(tmp_path / "run").open(Settings())


def test_a_result_marks_the_run_as_finished(tmp_path):
    opened = Run(tmp_path / "run").open(Settings())
    assert opened.result() is None
    opened.finish({"loss": 0.5, "name": "é"})
    assert Run(tmp_path / "run").result() == {"loss": 0.5, "name": "é"}
    opened.result_path.write_text('{"loss"')
    with pytest.raises(UserError, match=r"result\.json: cannot be read as JSON.*Delete it"):
        opened.result()


def test_the_manifest_tells_versions_and_nothing_private(tmp_path):
    Run(tmp_path / "run").open(Settings()).write_manifest(data={"tokens": 3})
    manifest = read_json(tmp_path / "run/manifest.json")
    assert manifest["data"] == {"tokens": 3}
    assert {"torch", "transformers", "tokenizers"} <= set(manifest["versions"])
    text = json.dumps(manifest)
    assert os.uname().nodename not in text or len(os.uname().nodename) < 4
    assert str(tmp_path) not in text
    assert os.path.expanduser("~") + "/" not in text


# --- whole or not at all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
def test_write_atomic_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch, failing):
    path = tmp_path / "deep/file.txt"
    write_atomic(path, "old")

    def fail(*_):
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(run.os, failing, fail)
        with pytest.raises(OSError, match="no space left"):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file.txt"]
    write_atomic(path, "n\u00e9w")
    assert path.read_bytes() == "n\u00e9w".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    write_atomic(path, b"\0\xff")
    assert path.read_bytes() == b"\0\xff"


def fill_with(text: str):
    def fill(directory):
        (directory / "sub").mkdir()
        (directory / "sub/file.txt").write_text(text)

    return fill


def test_write_directory_replaces_the_whole(tmp_path):
    path = tmp_path / "deep/model"
    write_directory(path, fill_with("old"))
    (path / "stale.txt").write_text("")
    write_directory(path, fill_with("new"))
    assert sorted(file.name for file in path.rglob("*")) == ["file.txt", "sub"]
    assert (path / "sub/file.txt").read_text() == "new"
    assert os.listdir(path.parent) == ["model"]
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_write_directory_leaves_the_old_one_when_filling_fails(tmp_path, error):
    path = tmp_path / "model"
    write_directory(path, fill_with("old"))

    def fail(directory):
        fill_with("half")(directory)
        raise error

    with pytest.raises(type(error)):
        write_directory(path, fail)
    assert (path / "sub/file.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["model"]


def test_write_directory_leaves_the_old_one_when_the_last_rename_fails(tmp_path, monkeypatch):
    path = tmp_path / "model"
    write_directory(path, fill_with("old"))
    rename = os.replace

    def fail_at_the_end(source, target):
        if os.path.basename(target) == "model" and "old" not in os.path.basename(source):
            raise OSError("input/output error")
        rename(source, target)

    monkeypatch.setattr(run.os, "replace", fail_at_the_end)
    with pytest.raises(OSError, match="input/output"):
        write_directory(path, fill_with("new"))
    assert (path / "sub/file.txt").read_text() == "old"


def test_json_keeps_letters_and_names_a_broken_file(tmp_path):
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"é": [1, None]}
    with pytest.raises(UserError, match=r"b\.json: cannot be read as JSON"):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize("torn", [b"", b'{"step": 3', b'{"step": 3, "text": "\xc3', b"{"])
def test_metrics_survive_a_last_line_cut_short(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 2.0}\n' + torn)
    assert read_metrics(path) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.0}]
    assert read_metrics(tmp_path / "none.jsonl") == []


# --- how a recipe ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [(None, 0, ""), (UserError("a.txt: is empty."), 2, "error: a.txt: is empty.\n"),
     (Interrupted(signal.SIGTERM, 40), 143, "SIGTERM after step 40, which is saved"),
     (Interrupted(signal.SIGINT, 7), 130, "SIGINT after step 7"), (KeyboardInterrupt(), 130, "the same command")],
)
def test_how_a_recipe_ends(capsys, monkeypatch, raised, code, message):
    monkeypatch.setattr("sys.argv", ["recipe.py", "--seed", "1"])
    seen = []

    def main(argv):
        seen.append(argv)
        if raised:
            raise raised

    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert caught.value.code == code
    assert seen == [["--seed", "1"]]
    assert message in capsys.readouterr().err


def test_a_mistake_of_ours_is_not_dressed_up_as_the_users(monkeypatch):
    monkeypatch.setattr("sys.argv", ["recipe.py"])
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda argv: 1 / 0)


@pytest.mark.parametrize("option", [["--config", "configs/a.yaml"], ["--seed", "1", "--config=configs/a.yaml"]])
def test_a_path_that_lies_beside_the_config_is_pointed_at(tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/data").mkdir(parents=True)
    (tmp_path / "configs/data/train.csv").write_text("text,label\n")
    monkeypatch.setattr("sys.argv", ["recipe.py", *option])

    def fail(missing: str, _) -> None:
        raise UserError(f"{missing}: no such file (data.train).")

    for missing, told in (("data/train.csv", True), ("data/test.csv", False)):
        with pytest.raises(SystemExit):
            cli.run(partial(fail, missing))
        said = capsys.readouterr().err
        assert ("There is configs/data/train.csv: paths in a config are relative to the working" in said) == told


def test_a_full_gpu_is_one_line(capsys):
    def main(argv):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee documentation")

    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and line.startswith("error: the GPU's memory is full (CUDA out of memory.")



def test_suggestions():
    assert did_you_mean("sede", ["seed", "steps"]) == " Did you mean 'seed'?"
    assert did_you_mean("zzz", ["b", "a"]) == " Choose from: a, b."
    assert issubclass(errors.UserError, ValueError)
    assert replace(Settings(), output_dir="y").output_dir == "y"


# --- building -------------------------------------------------------------------------------------------------------

HOLDER = """
import multiprocessing, sys, time
from toolkit.run.files import building
with building(sys.argv[1]) as partial:
    (partial / "part").write_text("done")
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    print(child.pid, flush=True)
    time.sleep(30)
"""


def test_a_directory_appears_whole_and_a_broken_build_is_taken_up_again(tmp_path):
    target = tmp_path / "made"
    with pytest.raises(KeyboardInterrupt):
        with building(target) as partial:
            (partial / "part").write_text("done")
            raise KeyboardInterrupt
    assert not target.exists()
    with building(target) as partial:
        assert (partial / "part").read_text() == "done"
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert [path.name for path in target.iterdir()] == ["part"]
    with pytest.raises(KeyError):
        with building(tmp_path / "other"):
            raise KeyError
    assert not list(tmp_path.glob("other*")), "nothing to go on from"


def test_a_killed_build_leaves_no_lock_even_when_its_children_live(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "made")], stdout=subprocess.PIPE,
                               text=True)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(UserError, match="made: another process is making it at this moment. Wait"):
            with building(tmp_path / "made"):
                pass
        process.kill()
        process.wait()
        os.kill(child, 0)  # is alive
        with building(tmp_path / "made") as partial:
            assert (partial / "part").exists()
    finally:
        os.kill(child, signal.SIGKILL)
    assert (tmp_path / "made").exists()
