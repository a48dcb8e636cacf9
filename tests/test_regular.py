"""Pipes, sockets and devices are refused wherever a file is read, at once and by name; links to files are files."""

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from mutation import within

from toolkit.config import read_yaml
from toolkit.data.series.readers import read_series
from toolkit.data.tables.rows import read_rows
from toolkit.data.tables.sources import Reading, list_parts
from toolkit.data.tables.table_files import read_columns
from toolkit.data.text.corpus import CorpusConfig, iterate_documents, prepare_corpus
from toolkit.errors import UserError
from toolkit.hub import checkpoint_directory
from toolkit.models.load import checkpoint_config
from toolkit.models.word_vectors import load_word2vec
from toolkit.publishing import card
from toolkit.run.directory import Run, read_metrics
from toolkit.run.files import read_json
from toolkit.tokenization.load import load_tokenizer
from toolkit.training import checkpoint


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's name is short
    try:
        with socket.socket(socket.AF_UNIX) as own:
            own.bind(path.name)
    finally:
        os.chdir(here)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_pipe(path: Path) -> None:
    path.with_name(".behind").mkdir()
    os.mkfifo(path.with_name(".behind") / "pipe")
    path.symlink_to(".behind/pipe")


SPECIAL = {"pipe": pipe, "socket": listening, "device": endless, "link to a pipe": link_to_pipe}
READERS = {
    "text": ("a.txt", lambda path: list(iterate_documents([str(path)]))),
    "lines": ("a.jsonl", lambda path: list(iterate_documents([str(path)]))),
    "compressed": ("a.jsonl.gz", lambda path: list(iterate_documents([str(path)]))),
    "table": ("a.csv", lambda path: list(iterate_documents([str(path)]))),
    "parquet": ("a.parquet", lambda path: list(iterate_documents([str(path)]))),
    "corpus": ("a.txt", lambda path: prepare_corpus(CorpusConfig([str(path)]), path.parent / "data", False)),
    "labelled": ("a.tsv", lambda path: list(read_rows(str(path), "train", {"text": "text"}))),
    "series": ("a.npz", lambda path: read_series(path)),
    "over time": ("a.csv", lambda path: read_columns(path)),
    "config": ("a.yaml", read_yaml),
    "json": ("state.json", read_json),
    "metrics": ("metrics.jsonl", read_metrics),
    "vectors": ("vectors.txt", load_word2vec),
    "model": ("config.json", lambda path: checkpoint_config(path.parent)),
    "weights": ("model.safetensors", lambda path: checkpoint_directory(path.parent)),
    "tokenizer": ("tokenizer.json", lambda path: load_tokenizer(str(path.parent))),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("reader", READERS)
def test_what_never_ends_is_refused_by_name(tmp_path, reader, kind):
    name, read = READERS[reader]
    SPECIAL[kind](tmp_path / name)
    with within(20), pytest.raises(UserError, match=f"{name}: is a (pipe|socket|device), not a file") as refused:
        read(tmp_path / name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", SPECIAL)
def test_in_a_folder_of_texts_it_is_left_out(tmp_path, kind):
    (tmp_path / "good.txt").write_text("A good text.")
    SPECIAL[kind](tmp_path / "bad.txt")
    with within(20):
        assert [part.name for part in list_parts(str(tmp_path))] == ["good.txt"]
        assert [part.name for part in list_parts(str(tmp_path / "*.txt"))] == [str(tmp_path / "good.txt")]


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "optimizer.pt", "state.json"])
def test_a_checkpoint_with_one_is_passed_over(tmp_path, saved_checkpoint, name, kind):
    for step in (4, 8):
        shutil.copytree(saved_checkpoint, tmp_path / f"step-{step:08}")
    (tmp_path / "step-00000008" / name).unlink()
    SPECIAL[kind](tmp_path / "step-00000008" / name)
    with within(20):
        found, (reason,) = checkpoint.newest_valid(tmp_path)
    assert found == tmp_path / "step-00000004" and name in reason


@pytest.fixture(scope="module")
def saved_checkpoint(tmp_path_factory):
    import torch

    model = torch.nn.Linear(2, 2)
    optimizers = [torch.optim.AdamW(model.parameters())]
    return checkpoint.save(tmp_path_factory.mktemp("saved"), 4, checkpoint.snapshot(model, optimizers), {}, 1)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "README.md"])
def test_a_card_waits_for_no_pipe(tmp_path, name):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "model/config.json").write_text("{}")
    for own, content in (("config.yaml", "seed: 1\n"), ("manifest.json", "{}"), ("result.json", "{}")):
        (run / own).write_text(content)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with within(20), pytest.raises(UserError, match=f"{name}: "):
        card.regenerate(run)


def test_a_source_that_is_a_pipe_is_not_looked_into_when_a_run_opens(tmp_path):
    os.mkfifo(tmp_path / "corpus.txt")
    with within(20):
        Run(tmp_path / "run").open(CorpusConfig([str(tmp_path / "corpus.txt")]))


def test_links_to_files_are_files(tmp_path, wordpiece):
    """A big corpus elsewhere, and a hub's cache, whose snapshots are links to blobs."""
    big = tmp_path / "disk/corpus.txt"
    big.parent.mkdir()
    big.write_text("A text that lies elsewhere.")
    (tmp_path / "corpus.txt").symlink_to(big)
    (tmp_path / "folder").symlink_to(big.parent)
    for source in (tmp_path / "corpus.txt", tmp_path / "folder"):
        assert [document.text for document in iterate_documents([str(source)])] == ["A text that lies elsewhere."]
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots/abc"
    wordpiece.save_pretrained(blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(os.path.relpath(path, snapshot))
    assert len(load_tokenizer(str(snapshot))) == len(wordpiece)
    np.savez(tmp_path / "blobs/series.npz", X=np.zeros((3, 1, 8)), y=np.array(["a", "b", "a"]))
    (tmp_path / "series.npz").symlink_to("blobs/series.npz")
    assert len(read_series(tmp_path / "series.npz").labels) == 3
    (tmp_path / "blobs/rows.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
    (tmp_path / "rows.jsonl").symlink_to("blobs/rows.jsonl")
    assert [cells for _, cells in read_rows(str(tmp_path / "rows.jsonl"), "train", {"text": "text"}, "data.",
                                            Reading())] == [["x"]]
