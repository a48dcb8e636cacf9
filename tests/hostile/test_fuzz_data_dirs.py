"""Files of a data directory, finished or being built, spoiled at random: gone on from, or refused in a line."""

import shutil
from pathlib import Path

import mutation
import numpy as np
import pandas as pd
import pytest

from toolkit.data.stores import store
from toolkit.data.stores.prepare import prepare_tokenizer
from toolkit.data.stores.series import SeriesCorpusConfig, prepare_series
from toolkit.data.stores.store import TokenStore, build_store
from toolkit.data.text.corpus import CorpusConfig, prepare_corpus, read_documents
from toolkit.errors import UserError
from toolkit.tokenization.load import load_tokenizer

DAILY, LONG = 20, 300
TRIES = [DAILY, mutation.at_length(LONG)]
SPEC = "algorithm: wordpiece\nvocab_size: 60\nlowercase: true\n"


def corpus_config(place: Path) -> CorpusConfig:
    return CorpusConfig([str(place / "texts")], validation_share=0.3, min_characters=5)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Of everything that is prepared one that is finished, and one that was broken off half-way (`….building`)."""
    place = tmp_path_factory.mktemp("built")
    (place / "texts").mkdir()
    for number in range(8):
        (place / f"texts/{number}.txt").write_text(f"The cat number {number} sat on the mat. It looked at other cats.")
    config = corpus_config(place)
    (place / "texts/7.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not valid UTF-8"):
        prepare_corpus(config, place / "broken", progress=False)
    (place / "texts/7.txt").write_text("The last cat of them all came home. It slept on the mat.")
    prepare_corpus(config, place / "corpus", progress=False)
    (place / "wp.yaml").write_text(SPEC)
    prepare_tokenizer(str(place / "wp.yaml"), place / "corpus", place / "tokenizer", progress=False)
    made_from = (place / "corpus/train.jsonl", place / "tokenizer")
    shards(place / "unbroken", *made_from)
    with pytest.raises(UserError, match="cannot be written"):
        shards(place / "half", *made_from, most=1)
    assert (place / "half.building/shard-00000.json").exists() and (place / "broken.building/journal.json").exists()
    (place / "bins.yaml").write_text("algorithm: series-bins\ncontext_length: 8\nhorizon: 4\nvocab_size: 64\n")
    pd.DataFrame({"date": range(200), "load": np.sin(np.arange(200.0))}).to_csv(place / "series.csv", index=False)
    series(place)
    return place


def shards(directory: Path, text: Path, tokenizer: Path, most: int | None = None) -> TokenStore:
    """A store in shards of some documents; most: those that are finished before the disk fails."""
    finished, write = [], store.write_shard

    def some(*arguments):
        if len(finished) == most:
            raise OSError(5, "broken off")
        finished.append(1)
        write(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SHARD_BYTES", 200)
        patch.setattr(store, "write_shard", some)
        return build_store(text, load_tokenizer(str(tokenizer)), directory, num_proc=1, progress=False,
                           fingerprints={"corpus": "x"})


def series(place: Path):
    return prepare_series(SeriesCorpusConfig([str(place / "series.csv")]), str(place / "bins.yaml"), place / "data",
                          progress=False)


def spoiled_in_a_copy(built: Path, tmp_path: Path, folder: str, name: str, read, tries: int, spoil=mutation.json_spoiled
                      ) -> int:
    """`read` is asked of a copy of the folder, in which the one file is spoiled."""
    def write(data: bytes) -> Path:
        for old in tmp_path.iterdir():
            shutil.rmtree(old)
        shutil.copytree(built / folder, tmp_path / folder)
        path = tmp_path / folder / name
        path.write_bytes(data)
        return path

    return mutation.try_reader((built / folder / name).read_bytes(), spoil, write, read, tries)


def lines_spoiled(data: bytes, draw) -> bytes:
    lines = data.splitlines(keepends=True)
    number = draw.randrange(len(lines))
    lines[number] = mutation.json_spoiled(lines[number], draw) + b"\n"
    return b"".join(lines)


@pytest.mark.parametrize("tries", TRIES)
def test_a_corpus_that_was_broken_off(built, tmp_path, tries):
    def go_on(_):
        manifest = prepare_corpus(corpus_config(built), tmp_path / "broken", progress=False)
        assert sum(split["documents"] for split in manifest["splits"].values())
        for split in ("train", "validation"):
            assert len(list(read_documents(tmp_path / f"broken/{split}.jsonl")))

    assert spoiled_in_a_copy(built, tmp_path, "broken.building", "journal.json", go_on, tries)


@pytest.mark.parametrize("tries", TRIES)
def test_a_corpus(built, tmp_path, tries):
    def take(path):
        facts = prepare_corpus(corpus_config(built), path.parent, progress=False)
        assert facts["sources"][0]["train"]["size"] >= 0 <= facts["splits"]["train"]["characters"]

    assert spoiled_in_a_copy(built, tmp_path, "corpus", "manifest.json", take, tries)


@pytest.mark.parametrize("tries", TRIES)
@pytest.mark.parametrize("name", ["plan.json", "shard-00000.json", "ids-00000.bin", "documents-00000.bin"])
def test_a_store_that_was_broken_off(built, tmp_path, name, tries):
    expected = TokenStore.open(built / "unbroken")

    def go_on(_):
        made = shards(tmp_path / "half", built / "corpus/train.jsonl", built / "tokenizer")
        if name.endswith(".json"):
            assert np.array_equal(made.ids, expected.ids)
            assert made.document_offsets.tolist() == expected.document_offsets.tolist()

    spoil = mutation.json_spoiled if name.endswith(".json") else mutation.bytes_spoiled
    assert spoiled_in_a_copy(built, tmp_path, "half.building", name, go_on, tries, spoil)


@pytest.mark.parametrize("tries", TRIES)
def test_what_a_store_is_made_from(built, tmp_path, tries):
    def make(path):
        shards(tmp_path / "corpus/store", path, built / "tokenizer")

    assert spoiled_in_a_copy(built, tmp_path, "corpus", "train.jsonl", make, tries, lines_spoiled)


@pytest.mark.parametrize("tries", TRIES)
def test_a_store(built, tmp_path, tries):
    def take(_):
        found = shards(tmp_path / "unbroken", built / "corpus/train.jsonl", built / "tokenizer")
        assert len(found.document_tokens()) == found.num_documents + 1 and sum(found.source_tokens()) >= 0

    assert spoiled_in_a_copy(built, tmp_path, "unbroken", "manifest.json", take, tries)


@pytest.mark.parametrize("tries", TRIES)
def test_a_tokenizer(built, tmp_path, tries):
    def take(path):
        prepare_tokenizer(str(built / "wp.yaml"), built / "corpus", path.parent, progress=False)

    assert spoiled_in_a_copy(built, tmp_path, "tokenizer", "manifest.json", take, tries)


@pytest.mark.parametrize("tries", TRIES)
def test_prepared_series(built, tmp_path, tries):
    def take(_):
        config = SeriesCorpusConfig([str(built / "series.csv")])
        prepare_series(config, str(built / "bins.yaml"), tmp_path / "data", progress=False)

    assert spoiled_in_a_copy(built, tmp_path, "data", "bins/manifest.json", take, tries)


def test_workers_tell_in_a_line_that_a_corpus_is_damaged(built, tmp_path):
    """Not in a traceback of theirs."""
    text = tmp_path / "train.jsonl"
    text.write_bytes((built / "corpus/train.jsonl").read_bytes() * 3 + b'{"name": "a", "text": 3}\n')
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="no document of a prepared corpus"):
        patch.setattr(store, "SHARD_BYTES", 200)
        build_store(text, load_tokenizer(str(built / "tokenizer")), tmp_path / "store", num_proc=2, progress=False)
