"""Shared fixtures: small texts, tokenizers and stores, built once a session in temporary folders."""

import gc
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a mistyped name must fail at once, not after half a minute of retries

import numpy as np
import pytest
import small

from toolkit.data.stores.store import TokenStore, build_store
from toolkit.data.text.documents import Document
from toolkit.tokenization.load import load_tokenizer
from toolkit.tokenization.train import read_spec, train_tokenizer
from toolkit.training import trainer

ROOT = Path(__file__).resolve().parents[1]
pytest_plugins = ["asked", "checkpoints"]  # of tests/shared

LONGEST_FIRST = ("training", "recipes", "test_add_a_task.py", "test_docs.py", "test_old_runs.py", "publishing")
"""Folders and modules below tests/ that take longest: begun first, so that two workers end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        place = item.path.relative_to(ROOT / "tests").parts[0]
        return LONGEST_FIRST.index(place) if place in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)


WORDS = """the a of to and in that it was his her with as for had on at by which not but from they this or one all
were there an so when no them been would if more who what could out time then some into up very now little only our
than other about such like did any over man good old great own before made must through well day house night eyes
never hand long came after went back again first where life away thought still under last while might because sea
river mountain garden window letter captain doctor morning winter summer street village journey answer"""


@pytest.fixture(scope="session", autouse=True)
def trainings_begin_at_once():
    """Each looks for garbage first, among all that lives in this process: for a third of a second, longer than most of
    them take. Here it is left to the collector's own turns.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "gc", SimpleNamespace(collect=lambda: 0, freeze=gc.freeze, unfreeze=gc.unfreeze))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets beside the checkout; tests that ask for them are skipped where there are none."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"needs the data sets in {path}")
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with the made-up corpus, for recipes in processes of their own."""
    root = tmp_path_factory.mktemp("root")
    small.write_corpus(root / "corpus")
    small.start_server()
    return root


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """40 documents of 3 to 8 paragraphs of made-up English, about 80,000 characters."""
    random = np.random.default_rng(0)
    vocabulary = WORDS.split()
    weights = 1 / np.arange(1, len(vocabulary) + 1)

    def sentence() -> str:
        words = random.choice(vocabulary, random.integers(4, 16), p=weights / weights.sum())
        return " ".join(words).capitalize() + random.choice([".", ".", ".", "?", "!"])

    def paragraph() -> str:
        return " ".join(sentence() for _ in range(random.integers(2, 8)))

    return ["\n\n".join(paragraph() for _ in range(random.integers(3, 9))) for _ in range(40)]


@pytest.fixture(scope="session")
def documents(texts: list[str]) -> list[Document]:
    """The same as documents of two sources."""
    return [Document(f"{number}.txt", f"source-{number % 2}", text) for number, text in enumerate(texts)]


@pytest.fixture(scope="session")
def train_spec(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """`train_spec(name)` trains tokenizers/<name>.yaml on `texts`, once a session; gives the tokenizer as loaded.

    The vocabulary is as large as so small a corpus can give.
    """
    folder = tmp_path_factory.mktemp("tokenizers")

    def train(name: str):
        if not (folder / name).exists():
            spec = read_spec(ROOT / f"tokenizers/{name}.yaml")
            if spec.algorithm not in ("byte", "character"):
                spec.vocab_size = 400 if spec.algorithm == "byte-level-bpe" else 150
            train_tokenizer(spec, texts, progress=False).save_pretrained(folder / name)
        return load_tokenizer(str(folder / name))

    return train


@pytest.fixture(scope="session")
def wordpiece(train_spec):
    return train_spec("wordpiece-8k")


@pytest.fixture(scope="session")
def byte_level_bpe(train_spec):
    return train_spec("byte-level-bpe-4k")


@pytest.fixture(scope="session")
def characters(train_spec):
    return train_spec("characters")


def store_of(documents: Sequence[Document], tokenizer, directory: Path, **options) -> TokenStore:
    """A store of documents that are given as a list: they become a file like the one a preparation leaves."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    text = directory.with_suffix(".jsonl")
    text.write_text("".join(json.dumps(asdict(document)) + "\n" for document in documents), encoding="utf-8")
    return build_store(text, tokenizer, directory, progress=False, **options)


@pytest.fixture(scope="session")
def make_store() -> Callable:
    return store_of


@pytest.fixture(scope="session")
def bert_store(documents, wordpiece, tmp_path_factory) -> TokenStore:
    return store_of(documents, wordpiece, tmp_path_factory.mktemp("bert") / "store")


@pytest.fixture(scope="session")
def gpt_store(documents, byte_level_bpe, tmp_path_factory) -> TokenStore:
    return store_of(documents, byte_level_bpe, tmp_path_factory.mktemp("gpt") / "store",
                    append_id=byte_level_bpe.eos_token_id)


class PositionTokenizer:
    """What `BertBatches` asks of a tokenizer, over a vocabulary in which an id is 5 + a place in the store."""

    name_or_path = "positions"
    pad_token_id, unk_token_id, cls_token_id, sep_token_id, mask_token_id = all_special_ids = (0, 1, 2, 3, 4)

    def __init__(self, size: int):
        self.size = size

    def __len__(self) -> int:
        return self.size


@pytest.fixture(scope="session")
def position_store() -> Callable:
    """`position_store(sentence lengths of each document)` → store in which every id tells its place: 5 + offset."""

    def make(lengths: Sequence[Sequence[int]]) -> tuple[TokenStore, PositionTokenizer]:
        sentences = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        documents = np.concatenate([[0], np.cumsum([len(document) for document in lengths])]).astype(np.int64)
        ids = np.arange(sentences[-1], dtype=np.uint32) + 5
        return TokenStore(Path("memory"), ids, sentences, documents, {}), PositionTokenizer(len(ids) + 5)

    return make
