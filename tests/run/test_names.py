"""Nothing is written elsewhere: names that become folders, links within a run, renames."""

import os
from dataclasses import dataclass, field

import pytest
import small
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data.stores.prepare import prepare
from toolkit.data.text.corpus import CorpusConfig
from toolkit.errors import UserError
from toolkit.publishing.card_facts import Facts
from toolkit.run.directory import Run
from toolkit.run.files import building, write_atomic, write_directory
from toolkit.run.names import check_name
from toolkit.training import checkpoint


@dataclass
class Settings:
    models: dict = field(default_factory=dict)
    sets: list = field(default_factory=list)
    name: str = "fine"


BAD = ("", " ", ".", "..", "../x", "/abs", "a/b", "a\\b", ".hidden", "a.", "a ", "a\nb", "a\x00b", "a\x1b[2J", "\ud800",
       "\u2028", "con", "NUL.txt", "Com1", "x" * 201, "ü" * 101)
GOOD = ("bert", "GPT small (5 min)", "bert-5min", "größe", "蘭", "a..b", "a: b", "100 %", "$x", "console", "x" * 200)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("key", ["models", "sets", "name"])
def test_names_that_lead_elsewhere_are_refused_with_their_key(tmp_path, name, key):
    value = {"models": {name: "x"}, "sets": [name], "name": name}[key]
    with pytest.raises(UserError, match=f"^{key}: .* is to name files and folders") as refused:
        Run(tmp_path / "run").open(Settings(**{key: value}))
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", GOOD)
def test_other_names_are_taken(tmp_path, name):
    run = Run(tmp_path / "run").open(Settings({name: "x"}, [name], name))
    assert run.part(f"{name[:100]}-pretrained/seed-0").directory.is_relative_to(tmp_path / "run")


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_whatever_is_taken_is_one_folder(name):
    try:
        check_name(name, "models")
    except UserError:
        return
    place = os.path.normpath(os.path.join("/run", name))
    assert os.path.dirname(place) == "/run" and os.path.basename(place) == name and name.isascii() | bool(name.encode())


@pytest.mark.parametrize("name", ["..", "../other", "a/../..", "/abs", "a//b", "a/"])
def test_a_part_lies_in_its_run(tmp_path, name):
    with pytest.raises(UserError, match="the folder of a fit: "):
        Run(tmp_path / "run").part(name)


# --- links ---------------------------------------------------------------------------------------------------------


OWN = ("checkpoints", "model", "plots", "hub-staging", "wandb", "tensorboard")


@pytest.mark.parametrize("name", [*OWN, ".lock"])
def test_a_run_whose_folders_are_links_is_refused(tmp_path, name):
    (tmp_path / "victim").mkdir()
    (tmp_path / "run/bert-pretrained/seed-0").mkdir(parents=True)
    (tmp_path / "run" / name).symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match=f"run/{name}: is a link, and what a run writes stays in its own directory"):
        Run(tmp_path / "run").open(Settings())
    (tmp_path / "run" / name).rename(tmp_path / "run/bert-pretrained/seed-0" / name)
    run = Run(tmp_path / "run").open(Settings())
    with pytest.raises(UserError, match=f"seed-0/{name}: is a link"):
        run.part("bert-pretrained/seed-0")
    assert not any((tmp_path / "victim").iterdir())


@pytest.mark.parametrize("link", ["bert-pretrained", "bert-pretrained/seed-0"])
def test_a_fit_whose_folder_is_a_link_is_refused(tmp_path, link):
    (tmp_path / "victim").mkdir()
    (tmp_path / "run" / link).parent.mkdir(parents=True)
    (tmp_path / "run" / link).symlink_to(tmp_path / "victim")
    run = Run(tmp_path / "run").open(Settings())
    with pytest.raises(UserError, match=f"{link}: is a link"):
        run.part("bert-pretrained/seed-0")
    assert run.part("gpt-pretrained/seed-0")


def test_runs_on_another_disk_and_folders_linked_above_them_are_fine(tmp_path):
    (tmp_path / "disk/run").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    (tmp_path / "mine").symlink_to(tmp_path / "disk/run")
    Run(tmp_path / "runs/run").open(Settings())
    Run(tmp_path / "mine").open(Settings()).part("bert/seed-0").finish({"a": 1})
    assert (tmp_path / "disk/run/bert/seed-0/result.json").exists()


def test_what_is_written_replaces_a_link_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")
    for name, target in (("a", "kept/file"), ("b", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / target)
        write_atomic(tmp_path / name, "new")
        assert not (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
    for name, target in (("c", "kept"), ("d", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / target)
        write_directory(tmp_path / name, lambda place: (place / "file").write_text("new"))
        assert not (tmp_path / name).is_symlink() and (tmp_path / name / "file").read_text() == "new"
    assert (tmp_path / "kept/file").read_text() == "kept" and not (tmp_path / "nowhere").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d", "kept"]


@pytest.mark.parametrize("link", ["data.building", "data.building/.lock", "data"])
def test_what_is_built_little_by_little_is_built_in_no_link(tmp_path, link):
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "victim")
    refused = pytest.raises(UserError, match=f"{link}: is a link, where a folder is to be made")
    with refused, building(tmp_path / "data"):
        raise AssertionError("not reached")
    assert not (tmp_path / "victim").exists()


def test_a_checkpoint_that_is_a_link_is_neither_read_nor_removed(tmp_path):
    victim, own = tmp_path / "victim", tmp_path / "run/checkpoints"
    checkpoint.save(victim, 9, ({}, []), {}, keep=3)
    own.mkdir(parents=True)
    (own / "step-00000009").symlink_to(victim / "step-00000009")
    (own / ".step-00000001.abc").symlink_to(victim)
    found, passed_over = checkpoint.newest_valid(own)
    assert found is None and len(passed_over) == 1 and "it is a link" in passed_over[0]
    checkpoint.save(own, 2, ({}, []), {}, keep=1)
    assert checkpoint.newest_valid(own)[0] == own / "step-00000002" and checkpoint.newest_valid(victim)[0]


def test_models_that_a_link_leads_to_are_no_fits_of_a_run(tmp_path):
    """Their cards would be written."""
    for place in ("run/bert/seed-0", "victim/seed-0"):
        (tmp_path / place / "model").mkdir(parents=True)
        (tmp_path / place / "model/config.json").write_text("{}")
    for name in ("config.yaml", "manifest.json"):
        (tmp_path / "run" / name).write_text("{}")
    (tmp_path / "run/other").symlink_to(tmp_path / "victim")
    (tmp_path / "linked").symlink_to(tmp_path / "run")
    for run in ("run", "linked"):
        assert [path.name for path in Facts.of(tmp_path / run).kept] == ["seed-0"], run


@pytest.mark.parametrize("tokenizer", ["..", "../work/.."])
def test_stores_lie_in_data_dir_whatever_the_tokenizer_is_called(tmp_path, monkeypatch, byte_level_bpe, tokenizer):
    (tmp_path / "mine/work").mkdir(parents=True)
    byte_level_bpe.save_pretrained(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine/work")
    corpus = CorpusConfig([str(small.write_corpus(tmp_path / "corpus"))], validation_share=0.2, min_characters=20)
    before = sorted(tmp_path.rglob("*"))
    prepare(corpus, tokenizer, tmp_path / "data", end_documents=True, progress=False)
    new = set(tmp_path.rglob("*")) - set(before)
    assert new and all(path.is_relative_to(tmp_path / "data") for path in new)
    assert (tmp_path / "data/mine/store/train/ids.bin").exists()
