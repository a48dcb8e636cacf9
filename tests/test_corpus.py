"""Files → clean, deduplicated, split documents; and how bad input reads."""

import hashlib
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolkit.data.corpus import (
    CorpusConfig,
    Document,
    iterate_source,
    normalise,
    prepare_corpus,
    read_documents,
    sentences,
    unit_batches,
)
from toolkit.errors import UserError

PUNCTUATION = st.sampled_from(" \n\n\r\t.!?。\u2028\ufeff\xa0ABab")
TEXT = st.text(st.one_of(st.characters(codec="utf-8"), PUNCTUATION), max_size=300)


@settings(max_examples=300, deadline=None)
@given(TEXT)
@example("Dr. A went.\n\n\n\nB\r\nC.  D")
@example("\ufeff\ufeffa")
@example("e\u0301. \u3000 b\x1c\n\nc")
def test_sentences_lose_nothing(text):
    text = normalise(text)
    units = sentences(text)
    assert "".join(units) == text
    assert all(unit.strip() for unit in units)


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_normalise_leaves_clean_text_alone(text):
    once = normalise(text)
    assert "\r" not in once
    assert "\n\n\n" not in once
    assert " \n" not in once
    assert unicodedata.is_normalized("NFC", once)
    assert normalise(once) == once


def test_sentences_know_abbreviations_and_paragraphs():
    assert sentences("Dr. Smith went to Washington, D.C. with Mrs. Jones. He left at 5 p.m. yesterday!") == [
        "Dr. Smith went to Washington, D.C. with Mrs. Jones.", " He left at 5 p.m. yesterday!"]
    assert sentences("Pi is 3.14. So?\n\nA title\n\n\"Yes.\" No.") == [
        "Pi is 3.14.", " So?", "\n\nA title", "\n\n\"Yes.\"", " No."]
    assert sentences("Das ist z. B. gut. Ja.", "de") == ["Das ist z. B. gut.", " Ja."]
    assert sentences("これは文です。次の文。", "ja") == ["これは文です。", "次の文。"]
    assert sentences("") == []


@pytest.mark.real_data
def test_sentences_lose_nothing_of_a_real_book(shared_data):
    text = normalise((shared_data / "shakespeare/input.txt").read_text(encoding="utf-8"))[:300_000]
    units = sentences(text)
    assert "".join(units) == text
    assert 20 < len(text) / len(units) < 400


def test_unit_batches_keep_documents_and_their_order(documents):
    groups = list(unit_batches(iter(documents), "en", characters=5000))
    assert ["".join(units) for group in groups for units in group] == [document.text for document in documents]
    assert all(sum(len(unit) for units in group[:-1] for unit in units) < 5000 for group in groups)
    assert len(groups) > 5


# --- preparing ---------------------------------------------------------------------------------------------------


def write(folder: Path, texts: dict[str, str | bytes]) -> Path:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.fixture
def folder(tmp_path, texts) -> Path:
    return write(tmp_path / "library", {f"part{i % 3}/{i:02}.txt": text for i, text in enumerate(texts)})


def prepared(directory: Path, *sources: Path, **options) -> tuple[dict, list[Document], list[Document]]:
    config = CorpusConfig([str(source) for source in sources], **{"validation_share": 0.2, **options})
    manifest = prepare_corpus(config, directory, progress=False)
    return manifest, *(list(read_documents(directory / f"{split}.jsonl")) for split in ("train", "validation"))


def test_a_folder_becomes_two_disjoint_files_and_a_true_manifest(folder, tmp_path, texts):
    manifest, train, validation = prepared(tmp_path / "data", folder)
    assert sorted(document.text for document in train + validation) == sorted(texts)
    assert not {document.text for document in train} & {document.text for document in validation}
    assert 2 <= len(validation) <= 16
    assert manifest["read"] == 40
    assert manifest["duplicates"] == manifest["too_short"] == 0
    for split, found in (("train", train), ("validation", validation)):
        summary = manifest["splits"][split]
        assert summary["documents"] == len(found)
        assert summary["characters"] == sum(len(document.text) for document in found)
        assert summary["bytes"] == sum(len(document.text.encode()) for document in found)
        data = (tmp_path / f"data/{split}.jsonl").read_bytes()
        assert summary["sha256"] == hashlib.sha256(data).hexdigest()
        assert [json.loads(line)["name"] for line in data.splitlines()] == [document.name for document in found]
    assert manifest["characters_by_source"] == {"library": sum(map(len, texts))}
    assert json.loads((tmp_path / "data/manifest.json").read_text()) == manifest


def test_preparing_is_deterministic_and_done_once(folder, tmp_path):
    prepared(tmp_path / "one", folder)
    prepared(tmp_path / "two", folder)
    for name in ("train.jsonl", "validation.jsonl", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    before = (tmp_path / "one/train.jsonl").stat().st_mtime_ns
    write(folder, {"late.txt": "A text that came later. " * 20})
    prepared(tmp_path / "one", folder)  # made once: kept as it is
    assert (tmp_path / "one/train.jsonl").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"one: was prepared with another corpus\.min_characters \(200\).*delete it"):
        prepared(tmp_path / "one", folder, min_characters=10)


def test_adding_documents_moves_none_from_one_split_to_the_other(folder, tmp_path, texts):
    _, train, validation = prepared(tmp_path / "before", folder)
    more = {f"new/{i}.txt": " ".join(reversed(text.split(" "))) for i, text in enumerate(texts[:20])}
    write(folder, more)
    _, train_after, validation_after = prepared(tmp_path / "after", folder)
    assert {document.text for document in train} < {document.text for document in train_after}
    assert {document.text for document in validation} < {document.text for document in validation_after}


def test_repeated_and_short_documents_are_dropped_and_counted(folder, tmp_path, texts):
    write(folder, {"zz/copy.txt": texts[0] + "\r\n\r\n", "zz/bom.txt": "\ufeff" + texts[1].replace("\n", "\r\n"),
                   "zz/short.txt": "Too short."})
    manifest, train, validation = prepared(tmp_path / "data", folder)
    assert (manifest["read"], manifest["duplicates"], manifest["too_short"]) == (43, 2, 1)
    assert sorted(document.text for document in train + validation) == sorted(texts)


def test_named_validation_sources_are_all_of_the_validation_and_never_in_train(folder, tmp_path, texts):
    own = write(tmp_path / "held-out", {"a.txt": texts[3], "b.txt": "Something of its own, said again. " * 10})
    manifest, train, validation = prepared(tmp_path / "data", folder, validation_sources=[str(own)])
    assert {document.name for document in validation} == {"a.txt", "b.txt"}
    assert texts[3] not in {document.text for document in train}
    assert len(train) == 39
    assert manifest["duplicates"] == 1


def test_markdown_loses_its_heading_marks_alone(tmp_path):
    write(tmp_path, {"a.md": "# Title\n\nText with # inside and #tag.\n\n### Deeper\n\n    code\n"})
    (document,) = iterate_source(str(tmp_path / "a.md"))
    assert document == Document("a.md", "a.md", "Title\n\nText with # inside and #tag.\n\nDeeper\n\n    code")


def test_line_ends_marks_and_blanks_are_normalised(tmp_path):
    write(tmp_path, {"b.txt": b"\xef\xbb\xbfOne \r\ntwo\t\r\r\r\n\n\nthree cafe\xcc\x81  \n"})
    (document,) = iterate_source(str(tmp_path))
    assert (document.name, document.source) == ("b.txt", tmp_path.name)
    assert document.text == "One\ntwo\n\nthree caf\u00e9"


def test_files_are_read_in_a_fixed_order_whatever_the_folder_says(folder):
    names = [document.name for document in iterate_source(str(folder))]
    assert names == sorted(names)
    assert len(names) == 40


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [({}, "missing.txt", r"missing\.txt: no such file or folder \(corpus\.sources\)"),
     ({"a.txt": b""}, "a.txt", r"a\.txt: is empty\. Remove it"),
     ({"a.txt": b" \n\r\n "}, "a.txt", r"a\.txt: is empty"),
     ({"a.txt": b"GIF89a\0\1"}, "a.txt", r"a\.txt: looks binary \(a NUL byte at offset 6\)\. Give plain UTF-8"),
     ({"a.txt": "ab café".encode("latin1")}, "a.txt", r"a\.txt: not valid UTF-8 at byte 6\. Convert it.*iconv"),
     ({"ok/a.txt": "fine", "ok/b.txt": b"\xff"}, "ok", r"ok/b\.txt: not valid UTF-8 at byte 0"),
     ({"sub/x.pdf": b"%PDF"}, "sub", r"sub: holds no \.txt or \.md file")],
)
def test_what_is_not_text_is_refused_by_name_with_a_remedy(tmp_path, files, source, message):
    write(tmp_path, files)
    with pytest.raises(UserError, match=message) as caught:
        prepared(tmp_path / "data", tmp_path / source)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists(), "a failed preparation must leave nothing that looks prepared"
    assert not list(tmp_path.glob(".data*")), "nor rubbish beside it"


def test_a_missing_built_in_name_is_suggested(tmp_path):
    with pytest.raises(UserError, match="python-doc: no such file.*Did you mean 'python-docs'"):
        list(iterate_source("python-doc"))


def test_a_missing_validation_source_is_not_blamed_on_the_sources(folder, tmp_path):
    with pytest.raises(UserError, match=r"gone: no such file or folder \(corpus\.validation_sources\)"):
        prepared(tmp_path / "data", folder, validation_sources=[str(tmp_path / "gone")])


def test_too_few_documents_to_split_are_refused_with_a_remedy(tmp_path, texts):
    write(tmp_path, {"only.txt": texts[0], "short/a.txt": "Short."})
    with pytest.raises(UserError, match=r"only\.txt: no document is left for \w+ out of 1 kept.*Give more documents"):
        prepared(tmp_path / "data", tmp_path / "only.txt")
    with pytest.raises(UserError, match=r"out of 0 kept \(1 under corpus\.min_characters = 200\)"):
        prepared(tmp_path / "data", tmp_path / "short")
    for share in (0.0, 1.0, -1, 5):
        with pytest.raises(UserError, match=r"corpus\.validation_share is .*between 0 and 1"):
            prepared(tmp_path / "data", tmp_path / "only.txt", validation_share=share)
