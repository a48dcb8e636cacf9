"""Text → memory-mapped ids and offsets → the same text; and what is refused."""

import json
import shutil

import numpy as np
import pytest

from toolkit.data.corpus import Document, sentences
from toolkit.data.store import TokenStore, build_store
from toolkit.errors import UserError
from toolkit.tokenization import load_tokenizer


def test_ids_decode_to_the_text(gpt_store, byte_level_bpe, documents):
    bounds = gpt_store.document_tokens()
    for number, document in enumerate(documents):
        *ids, end = gpt_store.ids[bounds[number]:bounds[number + 1]].tolist()
        assert end == byte_level_bpe.eos_token_id
        assert byte_level_bpe.decode(ids) == document.text


@pytest.mark.parametrize("tokenizer", ["wordpiece", "byte_level_bpe", "characters"])
def test_the_store_is_what_naive_tokenising_gives(request, tokenizer, documents, tmp_path):
    tokenizer = request.getfixturevalue(tokenizer)
    store = build_store(documents, tokenizer, tmp_path / "store", progress=False)
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


def test_an_earlier_call_with_truncation_does_not_cut_the_store(wordpiece, documents, tmp_path):
    """transformers leaves truncation and padding switched on in the tokenizer it called last."""
    whole = build_store(documents[:2], load_tokenizer(wordpiece.name_or_path), tmp_path / "whole", progress=False)
    used = load_tokenizer(wordpiece.name_or_path)
    used(["the man", "a"], truncation=True, max_length=3, padding="max_length")
    assert np.array_equal(build_store(documents[:2], used, tmp_path / "used", progress=False).ids, whole.ids)


def test_marks_of_special_tokens_in_a_text_are_text(wordpiece, byte_level_bpe, tmp_path):
    """The documentation of transformers is full of them; a document must not be able to end itself."""
    text = "Put [CLS] first, [SEP] between and [MASK] anywhere. Then <|endoftext|> ends it."
    for number, tokenizer in enumerate((wordpiece, byte_level_bpe)):
        store = build_store([Document("a", "b", text)], tokenizer, tmp_path / f"{number}", progress=False)
        unknown = {tokenizer.unk_token_id}
        assert not set(store.ids.tolist()) & (set(tokenizer.all_special_ids) - unknown)
    assert byte_level_bpe.decode(store.ids) == text


def test_a_store_reopens_as_it_was_without_reading_documents_again(gpt_store, byte_level_bpe):
    def must_not_be_read():
        raise AssertionError("documents were read again")
        yield

    again = build_store(must_not_be_read(), byte_level_bpe, gpt_store.directory, progress=False,
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


def test_another_corpus_tokenizer_or_end_is_refused(documents, byte_level_bpe, tmp_path):
    made = {"corpus": "one", "tokenizer": "two"}

    def build(fingerprints, **options):
        return build_store(documents[:3], byte_level_bpe, tmp_path / "store", progress=False,
                           fingerprints=fingerprints, **options)

    assert build(made).manifest["fingerprints"] == {**made, "append_id": None}
    build(made)
    with pytest.raises(UserError, match="store: was built from another corpus.*delete it"):
        build({**made, "corpus": "three"})
    with pytest.raises(UserError, match="store: was built from another tokenizer"):
        build({**made, "tokenizer": "three"})
    with pytest.raises(UserError, match="store: was built from another append_id"):
        build(made, append_id=byte_level_bpe.eos_token_id)


def test_a_build_that_fails_leaves_nothing_and_can_be_repeated(documents, byte_level_bpe, tmp_path):
    def torn():
        yield from documents[:2]
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        build_store(torn(), byte_level_bpe, tmp_path / "store", progress=False)
    assert not list(tmp_path.iterdir())
    store = build_store(documents[:2], byte_level_bpe, tmp_path / "store", progress=False)
    assert store.num_documents == 2


def test_documents_without_tokens_are_left_out_and_none_at_all_is_refused(byte_level_bpe, tmp_path):
    some = [Document("a", "s", ""), Document("b", "s", "Text."), Document("c", "s", "")]
    store = build_store(some, byte_level_bpe, tmp_path / "some", progress=False)
    assert store.num_documents == 1
    assert byte_level_bpe.decode(store.ids) == "Text."
    with pytest.raises(UserError, match="none"):
        build_store(some[:1], byte_level_bpe, tmp_path / "none", progress=False)


def test_a_large_vocabulary_takes_four_bytes(documents, byte_level_bpe, tmp_path):
    class Large:
        backend_tokenizer, unk_token_id = byte_level_bpe.backend_tokenizer, None

        def __len__(self) -> int:
            return 2**16 + 1

    store = build_store(documents[:1], Large(), tmp_path / "store", progress=False)
    assert store.ids.dtype == np.uint32
    assert json.loads((tmp_path / "store/manifest.json").read_text())["dtype"] == "uint32"
    assert byte_level_bpe.decode(store.ids) == documents[0].text
