"""Text → memory-mapped ids and offsets → the same text; and what is refused."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.data.stores import shards, store
from toolkit.data.stores.store import TokenStore, build_store
from toolkit.data.text.corpus import normalise, sentences
from toolkit.data.text.documents import Document
from toolkit.errors import UserError
from toolkit.tokenization.load import load_tokenizer


def test_ids_decode_to_the_text(gpt_store, byte_level_bpe, documents):
    bounds = gpt_store.document_tokens()
    for number, document in enumerate(documents):
        *ids, end = gpt_store.ids[bounds[number]:bounds[number + 1]].tolist()
        assert end == byte_level_bpe.eos_token_id
        assert byte_level_bpe.decode(ids) == document.text


@pytest.mark.parametrize("tokenizer", ["wordpiece", "byte_level_bpe", "characters"])
def test_the_store_is_what_naive_tokenising_gives(request, tokenizer, documents, make_store, tmp_path):
    tokenizer = request.getfixturevalue(tokenizer)
    store = make_store(documents, tokenizer, tmp_path / "store")
    ids, starts, firsts = [], [], []
    for document in documents:
        firsts.append(len(starts))
        for sentence in sentences(document.text):
            starts.append(len(ids))
            ids += tokenizer(sentence, add_special_tokens=False)["input_ids"]
    assert store.ids.tolist() == ids
    assert store.sentence_offsets.tolist() == [*starts, len(ids)]
    assert store.document_offsets.tolist() == [*firsts, len(starts)]
    assert (np.diff(store.sentence_offsets) > 0).all()
    assert (np.diff(store.document_offsets) > 0).all()
    assert (store.num_tokens, store.num_documents) == (len(ids), len(documents))
    assert store.document_tokens().tolist() == [*(starts[first] for first in firsts), len(ids)]
    assert store.manifest["bytes"] == sum(len(document.text.encode()) for document in documents)
    assert store.manifest["unknown"] == 0, "training text with unknown tokens"
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_an_earlier_call_with_truncation_does_not_cut_the_store(wordpiece, documents, make_store, tmp_path):
    """transformers leaves truncation and padding switched on in the tokenizer it called last."""
    whole = make_store(documents[:2], load_tokenizer(wordpiece.name_or_path), tmp_path / "whole")
    used = load_tokenizer(wordpiece.name_or_path)
    used(["the man", "a"], truncation=True, max_length=3, padding="max_length")
    assert np.array_equal(make_store(documents[:2], used, tmp_path / "used").ids, whole.ids)


def test_marks_of_special_tokens_in_a_text_are_text(wordpiece, byte_level_bpe, make_store, tmp_path):
    """The documentation of transformers is full of them; a document must not be able to end itself."""
    text = "Put [CLS] first, [SEP] between and [MASK] anywhere. Then <|endoftext|> ends it."
    for number, tokenizer in enumerate((wordpiece, byte_level_bpe)):
        store = make_store([Document("a", "b", text)], tokenizer, tmp_path / f"{number}")
        unknown = {tokenizer.unk_token_id}
        assert not set(store.ids.tolist()) & (set(tokenizer.all_special_ids) - unknown)
    assert byte_level_bpe.decode(store.ids) == text


@pytest.mark.parametrize("blank", [" ", ""])
def test_a_sentence_of_any_length_is_one_sentence_and_tokenised_in_pieces(byte_level_bpe, make_store, tmp_path, blank,
                                                                          monkeypatch):
    text = blank.join(["the", "man", "and", "his", "house"] * 200)
    documents = [Document("a", "b", text), Document("c", "b", "A short one. And another.")]
    whole = make_store(documents, byte_level_bpe, tmp_path / "whole")
    asked = []
    monkeypatch.setattr(shards, "GROUP_CHARACTERS", 100)
    original = shards._groups
    monkeypatch.setattr(shards, "_groups", lambda *how: (asked.extend(group) or (group, size)
                                                         for group, size in original(*how)))
    cut = make_store(documents, byte_level_bpe, tmp_path / "cut")
    assert max(len(piece) for piece, *_ in asked) <= 100 < len(text)
    assert "".join(piece for piece, *_ in asked) == text + documents[1].text
    assert byte_level_bpe.decode(cut.ids) == byte_level_bpe.decode(whole.ids)
    assert len(cut.sentence_offsets) == len(whole.sentence_offsets) == 1 + 3
    if blank:
        assert np.array_equal(cut.ids, whole.ids), "between words, a cut is none"


def test_a_store_reopens_as_it_was_without_reading_documents_again(gpt_store, byte_level_bpe):
    again = build_store(Path("must-not-be-read.jsonl"), byte_level_bpe, gpt_store.directory, progress=False,
                        append_id=byte_level_bpe.eos_token_id)
    for name in ("ids", "sentence_offsets", "document_offsets"):
        assert np.array_equal(getattr(again, name), getattr(gpt_store, name))
        assert isinstance(getattr(again, name), np.memmap)
        assert not getattr(again, name).flags.writeable
    assert again.manifest == gpt_store.manifest
    assert gpt_store.ids.dtype == np.uint16


@pytest.fixture
def own_copy(gpt_store, tmp_path):
    shutil.copytree(gpt_store.directory, tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize("name", ["ids", "sentence_offsets", "document_offsets"])
@pytest.mark.parametrize("damage", ["cut", "grown", "gone", "emptied"])
def test_a_damaged_file_is_refused_by_name(own_copy, name, damage):
    path = own_copy / f"{name}.bin"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-1], "grown": data + b"\0", "emptied": b""}[damage])
    with pytest.raises(UserError, match=rf"{name}\.bin: .*expects {len(data)} bytes\. Delete .*store to have it"):
        TokenStore.open(own_copy)


@pytest.mark.parametrize("manifest", [None, "", "{", "[1"])
def test_a_damaged_manifest_is_refused_by_name(own_copy, manifest):
    path = own_copy / "manifest.json"
    if manifest is None:
        path.unlink()
    else:
        path.write_text(manifest)
    with pytest.raises(UserError, match=r"manifest\.json: cannot be read as JSON"):
        TokenStore.open(own_copy)


def test_another_corpus_tokenizer_end_or_language_is_refused(documents, byte_level_bpe, make_store, tmp_path):
    made = {"corpus": "one", "tokenizer": "two"}

    def build(fingerprints, **options):
        return make_store(documents[:3], byte_level_bpe, tmp_path / "store", fingerprints=fingerprints, **options)

    assert build(made).manifest["fingerprints"] == {**made, "append_id": None, "language": "en"}
    build(made)
    with pytest.raises(UserError, match="store: was built from another corpus.*delete it"):
        build({**made, "corpus": "three"})
    with pytest.raises(UserError, match="store: was built from another tokenizer"):
        build({**made, "tokenizer": "three"})
    with pytest.raises(UserError, match="store: was built from another append_id"):
        build(made, append_id=byte_level_bpe.eos_token_id)
    with pytest.raises(UserError, match="store: was built from another language"):
        build(made, language="de")


def test_documents_without_tokens_are_left_out_and_none_at_all_is_refused(byte_level_bpe, make_store, tmp_path):
    some = [Document("a", "s", ""), Document("b", "s", "Text."), Document("c", "s", "")]
    store = make_store(some, byte_level_bpe, tmp_path / "some")
    assert store.num_documents == 1
    assert byte_level_bpe.decode(store.ids) == "Text."
    with pytest.raises(UserError, match="none: no document has any text"):
        make_store(some[:1], byte_level_bpe, tmp_path / "none")


def test_the_end_follows_the_last_sentence_that_has_tokens(wordpiece, make_store, tmp_path):
    """BERT's normaliser leaves nothing of some characters; a document may end with a sentence of them."""
    text = "The man was there.\n\n\u200b\u200d"
    store = make_store([Document("a", "s", text), Document("b", "s", "The end.")], wordpiece, tmp_path / "store",
                       append_id=3)
    first = store.ids[:store.document_tokens()[1]].tolist()
    assert first == [*wordpiece("The man was there.", add_special_tokens=False)["input_ids"], 3]
    assert store.sentence_offsets.tolist() == [0, len(first), store.num_tokens]


def test_a_large_vocabulary_takes_four_bytes(documents, byte_level_bpe, make_store, tmp_path):
    class Large:
        backend_tokenizer, unk_token_id = byte_level_bpe.backend_tokenizer, None

        def __len__(self) -> int:
            return 2**16 + 1

    store = make_store(documents[:1], Large(), tmp_path / "store")
    assert store.ids.dtype == np.uint32
    assert json.loads((tmp_path / "store/manifest.json").read_text())["dtype"] == "uint32"
    assert byte_level_bpe.decode(store.ids) == documents[0].text


TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \n\n.!?。AB")), max_size=120)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=5))
def test_any_text_comes_back_from_its_offsets(byte_level_bpe, make_store, tmp_path_factory, texts):
    texts = [normalise(text) for text in texts]
    directory = tmp_path_factory.mktemp("any")
    documents = [Document(str(number), "s", text) for number, text in enumerate(texts)]
    if not any(texts):
        with pytest.raises(UserError, match="no document has any text"):
            make_store(documents, byte_level_bpe, directory / "store")
        return
    found = make_store(documents, byte_level_bpe, directory / "store")
    kept = [text for text in texts if text]
    bounds = found.document_tokens()
    assert [byte_level_bpe.decode(found.ids[start:stop]) for start, stop in itertools.pairwise(bounds)] == kept
    starts = found.sentence_offsets
    assert [byte_level_bpe.decode(found.ids[start:stop]) for start, stop in itertools.pairwise(starts)] == [
        unit for text in kept for unit in sentences(text)]
    assert found.manifest["bytes"] == sum(len(text.encode()) for text in kept)


# --- in shards, in parallel, broken off ------------------------------------------------------------------------------


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(store, "SHARD_BYTES", 5000)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shards_and_processes_do_not_show_in_the_bytes(
        documents, wordpiece, bert_store, make_store, small_shards, tmp_path, processes):
    """`bert_store` was built in one piece."""
    cut = make_store(documents, wordpiece, tmp_path / "cut", num_proc=processes)
    assert contents(cut.directory) == contents(bert_store.directory)
    assert not list(tmp_path.glob("*building"))


def test_what_a_build_takes_is_not_asked_of_a_document_without_text(
        documents, wordpiece, bert_store, make_store, small_shards, tmp_path):
    cut = make_store([Document("empty", "s", ""), *documents], wordpiece, tmp_path / "cut")
    assert contents(cut.directory)["ids.bin"] == contents(bert_store.directory)["ids.bin"]


def test_a_document_longer_than_what_is_tokenised_at_once(documents, byte_level_bpe, make_store, monkeypatch, tmp_path):
    long = Document("long", "s", "\n\n".join(document.text for document in documents))
    whole = make_store([long, *documents[:2]], byte_level_bpe, tmp_path / "whole", append_id=0)
    monkeypatch.setattr(shards, "GROUP_CHARACTERS", 700)
    pieces = make_store([long, *documents[:2]], byte_level_bpe, tmp_path / "pieces", append_id=0)
    assert contents(pieces.directory) == contents(whole.directory)
    assert byte_level_bpe.decode(whole.ids[:whole.document_tokens()[1] - 1]) == long.text


def test_shards_do_not_cross_sources(documents, wordpiece, make_store, small_shards, tmp_path):
    sizes, counts = [], []
    for source in ("source-0", "source-1"):
        own = [document for document in documents if document.source == source]
        found = make_store(own, wordpiece, tmp_path / source)
        sizes.append((tmp_path / f"{source}.jsonl").stat().st_size)
        counts.append(found.num_tokens)
    documents = sorted(documents, key=lambda document: document.source)
    both = make_store(documents, wordpiece, tmp_path / "both", source_bytes=[0, *sizes])
    assert both.source_tokens() == [0, *counts]
    assert make_store(documents, wordpiece, tmp_path / "one").source_tokens() == [sum(counts)]


DRIVER = """
import sys
from pathlib import Path
from toolkit import cli
from toolkit.data.stores import store
from toolkit.tokenization.load import load_tokenizer
text, tokenizer, directory, shard_bytes, processes, limit = sys.argv[1:]
store.SHARD_BYTES = int(shard_bytes)
def main(argv):
    tokenizer_ = load_tokenizer(tokenizer)
    if int(limit):
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    store.build_store(Path(text), tokenizer_, Path(directory), num_proc=int(processes), progress=False)
cli.run(main)
"""


@pytest.fixture
def large_text(documents, tmp_path) -> Path:
    """About a million bytes, in some 50 shards of 20,000."""
    path = tmp_path / "large.jsonl"
    lines = [json.dumps({"name": f"{copy}-{document.name}", "source": "s", "text": document.text})
             for copy in range(25) for document in documents]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def driver(text: Path, tokenizer, directory: Path, processes: int = 2, limit: int = 0) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(text), tokenizer.name_or_path, str(directory), "20000",
                             str(processes), str(limit)], stderr=subprocess.PIPE, text=True)


def shards_of(directory: Path) -> set[str]:
    return {path.name for path in directory.with_name(directory.name + ".building").glob("shard-*.json")}


def wait_for_shards(process: subprocess.Popen, directory: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(shards_of(directory)) < count:
        assert process.poll() is None, "it finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def unbroken(large_text, wordpiece, tmp_path) -> dict[str, bytes]:
    build_store(large_text, wordpiece, tmp_path / "unbroken", progress=False, num_proc=2)
    return contents(tmp_path / "unbroken")


def test_a_killed_build_goes_on_after_the_last_finished_shard(large_text, wordpiece, unbroken, monkeypatch, tmp_path):
    process = driver(large_text, wordpiece, tmp_path / "store")
    wait_for_shards(process, tmp_path / "store", 10)
    process.kill()
    process.wait()
    time.sleep(0.5)  # its helpers notice, finish what they hold, and leave
    (tmp_path / "store.building/.plan.json.x1").write_text("half")  # what a kill within a write leaves
    kept = shards_of(tmp_path / "store")
    assert 10 <= len(kept) < 50
    assert not (tmp_path / "store").exists(), "nothing that looks finished"
    written = []
    original = store.write_shard
    monkeypatch.setattr(store, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(store, "write_shard", lambda *arguments: written.append(arguments[3]) or original(*arguments))
    build_store(large_text, wordpiece, tmp_path / "store", progress=False, num_proc=1)
    assert contents(tmp_path / "store") == unbroken
    assert not {f"shard-{number:05}.json" for number in written} & kept, "finished shards were made again"


@pytest.mark.parametrize(("owner", "function", "after"),
                         [(shutil, "copyfileobj", 7), (np, "fromfile", 60), (Path, "unlink", 120)])
def test_a_build_that_dies_while_joining_ends_with_the_same_bytes(
        large_text, wordpiece, unbroken, monkeypatch, tmp_path, owner, function, after):
    """While ids are joined, while offsets are made, and while what is no longer needed is removed."""
    monkeypatch.setattr(store, "SHARD_BYTES", 20_000)
    calls = iter(range(after))
    original = getattr(owner, function)

    class Died(Exception):
        pass

    def dying(*arguments, **options):
        if next(calls, None) is None:
            raise Died
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, dying)
        with pytest.raises(Died):
            build_store(large_text, wordpiece, tmp_path / "store", progress=False, num_proc=1)
    assert not (tmp_path / "store").exists()
    monkeypatch.setattr(store, "write_shard", None)  # every shard is finished
    build_store(large_text, wordpiece, tmp_path / "store", progress=False, num_proc=1)
    assert contents(tmp_path / "store") == unbroken


def test_a_build_from_something_else_starts_afresh(large_text, wordpiece, byte_level_bpe, unbroken, tmp_path):
    process = driver(large_text, byte_level_bpe, tmp_path / "store")
    wait_for_shards(process, tmp_path / "store", 5)
    process.kill()
    process.wait()
    time.sleep(0.5)
    build_store(large_text, wordpiece, tmp_path / "store", progress=False, num_proc=1)
    assert contents(tmp_path / "store") == unbroken


def test_two_builds_at_once_are_refused_and_the_first_is_unharmed(large_text, wordpiece, unbroken, tmp_path):
    process = driver(large_text, wordpiece, tmp_path / "store")
    wait_for_shards(process, tmp_path / "store", 2)
    with pytest.raises(UserError, match="store: another process is making it at this moment. Wait") as caught:
        build_store(large_text, wordpiece, tmp_path / "store", progress=False)
    assert "\n" not in str(caught.value)
    assert process.wait(60) == 0, process.stderr.read()
    assert contents(tmp_path / "store") == unbroken


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_one_line_and_what_is_finished_stays(large_text, wordpiece, unbroken, tmp_path, processes):
    """A real limit of the kernel: files of shards fit under it, the joined ids do not."""
    process = driver(large_text, wordpiece, tmp_path / "store", processes, limit=250_000)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert error.count("\n") == 1
    assert "store: a file may not become as large as it must" in error
    assert "the same command continues" in error
    plan = json.loads((tmp_path / "store.building/plan.json").read_text())
    assert len(shards_of(tmp_path / "store")) == len(plan["shards"])
    build_store(large_text, wordpiece, tmp_path / "store", progress=False)
    assert contents(tmp_path / "store") == unbroken
    process = driver(large_text, wordpiece, tmp_path / "early", processes, limit=15_000)
    assert "early: a file may not become as large as it must" in process.communicate(timeout=60)[1]
    assert process.returncode == 2


def test_ctrl_c_ends_the_helpers_and_keeps_the_shards(large_text, wordpiece, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(large_text), wordpiece.name_or_path,
                                str(tmp_path / "store"), "20000", "2", "0"], stderr=subprocess.PIPE, text=True,
                               start_new_session=True,
                               # A shell's background jobs, and so what they start, are deaf to Ctrl-C.
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait_for_shards(process, tmp_path / "store", 3)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert error.strip() == "stopped; what was finished is kept, the same command continues"
    assert len(shards_of(tmp_path / "store")) >= 3
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_helper_that_dies_is_reported(large_text, wordpiece, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sentencex.py").write_text("import os\ndef segment(*a): os._exit(9)\n")
    monkeypatch.setattr(store, "SHARD_BYTES", 20_000)
    with pytest.raises(UserError, match=r"a tokenising process ended with status 9\. If memory ran out.*continues"):
        build_store(large_text, wordpiece, tmp_path / "store", progress=False, num_proc=2)


def test_a_disk_too_small_is_refused_before_anything_is_done(large_text, wordpiece, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(store, "SHARD_BYTES", 20_000)
    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
        with pytest.raises(UserError, match=r"store: needs about \d+ MB, but the disk has 1 MB left"):
            build_store(large_text, wordpiece, tmp_path / "store", progress=False, num_proc=2)
    assert not shards_of(tmp_path / "store")
    found = build_store(large_text, wordpiece, tmp_path / "store", num_proc=2)
    said = capsys.readouterr()
    tokens, disk = (float(number) for number in re.search(
        r"about ([\d.]+) million tokens, (\d+) MB of disk", said.out + said.err).groups())
    size = sum(path.stat().st_size for path in (tmp_path / "store").iterdir())
    assert tokens == pytest.approx(found.num_tokens / 1e6, rel=0.2)
    assert disk == pytest.approx(size / 1e6, abs=1)
