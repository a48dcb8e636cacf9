"""Files → clean, deduplicated, split documents; and how bad input reads."""

import gzip
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import small
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from toolkit.data.text import corpus
from toolkit.data.text.corpus import (
    CorpusConfig,
    Document,
    describe,
    iterate_documents,
    normalise,
    prepare_corpus,
    read_documents,
    sentences,
)
from toolkit.data.text.languages import check_language
from toolkit.data.text.seen import HashSet
from toolkit.errors import UserError

PUNCTUATION = st.sampled_from(" \n\n\r\t.!?。\u2028\ufeff\xa0ABab")
TEXT = st.text(st.one_of(st.characters(codec="utf-8"), PUNCTUATION), max_size=300)


@settings(max_examples=300, deadline=None)
@given(TEXT)
@example("Dr. A went.\n\n\n\nB\r\nC.  D")
@example("\ufeff\ufeffa")
@example("e\u0301. \u3000 b\x1c\n\nc")
@example("Plan A\xa0. B \u2009. C\n\u3000. D.\u202f. E")  # sentencex 1.0.32 panics at each of these
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
    assert sentences("He took vitamin A\u202f. The end\xa0? Yes.") == [
        "He took vitamin A\u202f.", " The end\xa0?", " Yes."]
    assert sentences("") == []


CHINESE = "今天天气很好。我们去公园散步吧！你想一起来吗？\n\n他说：“好的。”然后走了……再见。"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ！\n\n「そうですか。」と言った。"
THAI = "วันนี้อากาศดีมาก เราไปเดินเล่นกันเถอะ คุณจะมาด้วยไหม\n\nย่อหน้าที่สอง 3.14 บาท! ดีมาก"


@pytest.mark.parametrize(("language", "text", "first"), [
    ("zh", CHINESE, ["今天天气很好。", "我们去公园散步吧！", "你想一起来吗？"]),
    ("ja", JAPANESE, ["吾輩は猫である。", "名前はまだ無い。", "どこで生れたかとんと見当がつかぬ！"]),
    ("th", THAI, ["วันนี้อากาศดีมาก เราไปเดินเล่นกันเถอะ คุณจะมาด้วยไหม"])])
def test_languages_without_spaces_are_cut_without_loss(language, text, first):
    units = sentences(text, language)
    assert "".join(units) == text
    assert units[:len(first)] == first
    assert units[len(first)].startswith("\n\n"), "a paragraph ends a sentence"

    @settings(max_examples=100, deadline=None)
    @given(st.text(st.sampled_from(text), max_size=120))
    def check(shuffled):
        cleaned = normalise(shuffled)
        units = sentences(cleaned, language)
        assert "".join(units) == cleaned
        assert all(unit.strip() for unit in units)

    check()


@pytest.mark.real_data
def test_sentences_lose_nothing_of_a_real_book(shared_data):
    text = normalise((shared_data / "shakespeare/input.txt").read_text(encoding="utf-8"))[:300_000]
    units = sentences(text)
    assert "".join(units) == text
    assert 20 < len(text) / len(units) < 400


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
    assert manifest["counts"] == {"read": 40, "too_short": 0, "duplicates": 0, "unicode_normalised": 0}
    for split, found in (("train", train), ("validation", validation)):
        summary = manifest["splits"][split]
        assert summary["documents"] == len(found)
        assert summary["characters"] == sum(len(document.text) for document in found)
        assert summary["bytes"] == sum(len(document.text.encode()) for document in found)
        data = (tmp_path / f"data/{split}.jsonl").read_bytes()
        assert summary["sha256"] == hashlib.sha256(data).hexdigest()
        assert [json.loads(line)["name"] for line in data.splitlines()] == [document.name for document in found]
    keys = ("documents", "characters", "bytes")
    assert manifest["sources"] == [{"source": str(folder), **{
        split: {**{key: manifest["splits"][split][key] for key in keys},
                "size": (tmp_path / f"data/{split}.jsonl").stat().st_size} for split in ("train", "validation")}}]
    assert sorted(os.listdir(tmp_path / "data")) == ["manifest.json", "train.jsonl", "validation.jsonl"]
    assert sorted(os.listdir(tmp_path)) == ["data", "library"]
    assert describe(manifest) == (
        f"corpus: train {len(train)} documents, {manifest['splits']['train']['bytes'] / 1e6:.1f} MB; validation "
        f"{len(validation)} documents, {manifest['splits']['validation']['bytes'] / 1e6:.1f} MB (40 read)")
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
    assert manifest["counts"] == {"read": 43, "too_short": 1, "duplicates": 2, "unicode_normalised": 0,
                                  "byte_order_marks": 1,
                                  "windows_line_ends": 2 + texts[1].count("\n")}
    assert sorted(document.text for document in train + validation) == sorted(texts)


def test_named_validation_sources_are_all_of_the_validation_and_never_in_train(folder, tmp_path, texts):
    own = write(tmp_path / "held-out", {"a.txt": texts[3], "b.txt": "Something of its own, said again. " * 10})
    manifest, train, validation = prepared(tmp_path / "data", folder, validation_sources=[str(own)])
    assert {document.name for document in validation} == {"a.txt", "b.txt"}
    assert texts[3] not in {document.text for document in train}
    assert len(train) == 39
    assert manifest["counts"]["duplicates"] == 1
    assert [source["source"] for source in manifest["sources"]] == [str(own), str(folder)]
    assert [source["train"]["documents"] for source in manifest["sources"]] == [0, 39]
    assert [source["validation"]["documents"] for source in manifest["sources"]] == [2, 0]


def test_markdown_loses_its_heading_marks_alone(tmp_path):
    write(tmp_path, {"a.md": "# Title\n\nText with # inside and #tag.\n\n### Deeper\n\n    code\n"})
    (document,) = iterate_documents([str(tmp_path / "a.md")])
    assert document == Document("a.md", "a.md", "Title\n\nText with # inside and #tag.\n\nDeeper\n\n    code")


def test_line_ends_marks_and_blanks_are_normalised(tmp_path):
    write(tmp_path, {"b.txt": b"\xef\xbb\xbfOne \r\ntwo\t\r\r\r\n\n\nthree cafe\xcc\x81  \n"})
    (document,) = iterate_documents([str(tmp_path)])
    assert (document.name, document.source) == ("b.txt", tmp_path.name)
    assert document.text == "One\ntwo\n\nthree caf\u00e9"


def test_files_are_read_in_a_fixed_order_whatever_the_folder_says(folder):
    names = [document.name for document in iterate_documents([str(folder)])]
    assert names == sorted(names)
    assert len(names) == 40


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [({}, "missing.txt", r"missing\.txt: no such file or folder \(corpus\.sources\)"),
     ({"a.txt": b""}, "a.txt", r"a\.txt: is empty\. Give it text, or leave it out\."),
     ({"a.txt": b" \n\r\n "}, "a.txt", r"a\.txt: no document is left for train out of 0 kept \(1 under"),
     ({"a.txt": b"GIF89a\0\1"}, "a.txt", r"a\.txt: looks binary \(a NUL byte at offset 6\)\. Give plain UTF-8"),
     ({"a.txt": "ab café".encode("latin1")}, "a.txt",
      r"a\.txt: not valid UTF-8 at byte 6 \(line 1\)\. Convert it.*iconv"),
     ({"ok/a.txt": "fine", "ok/b.txt": b"\xff"}, "ok", r"ok/b\.txt: not valid UTF-8 at byte 0"),
     ({"sub/x.pdf": b"%PDF"}, "sub", r"sub: holds no \.txt, \.md,.* or \.parquet file")],
)
def test_what_is_not_text_is_refused_by_name_with_a_remedy(tmp_path, files, source, message):
    write(tmp_path, files)
    with pytest.raises(UserError, match=message) as caught:
        prepared(tmp_path / "data", tmp_path / source)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists(), "a failed preparation must leave nothing that looks prepared"
    assert not [*tmp_path.glob(".data*"), *tmp_path.glob("data*")], "nor rubbish beside it"


def test_a_missing_built_in_name_is_suggested(tmp_path):
    with pytest.raises(UserError, match="python-doc: no such file.*Did you mean 'python-docs'"):
        list(iterate_documents(["python-doc"]))


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


def test_the_sources_lie_one_after_the_other_in_the_files(folder, tmp_path, texts):
    more = write(tmp_path / "more", {"a.jsonl": "".join(json.dumps({"text": f"{text} Again."}) + "\n"
                                                        for text in texts[:30])})
    manifest, train, validation = prepared(tmp_path / "data", folder, more)
    for split, documents in (("train", train), ("validation", validation)):
        data, labels = (tmp_path / f"data/{split}.jsonl").read_bytes(), []
        for source, name in zip(manifest["sources"], ("library", "more"), strict=True):
            own, data = data[:source[split]["size"]], data[source[split]["size"]:]
            assert own.endswith(b"\n")
            assert own.count(b"\n") == source[split]["documents"] > 0
            labels += [name] * source[split]["documents"]
        assert not data
        assert [document.source for document in documents] == labels


def test_repeated_documents_are_kept_in_one_split_when_that_is_wanted(folder, tmp_path, texts):
    write(folder, {f"zz/{i}.txt": text + "\n" for i, text in enumerate(texts)})
    manifest, train, validation = prepared(tmp_path / "data", folder, deduplicate=False)
    assert manifest["counts"]["duplicates"] == 0
    assert sorted(document.text for document in train + validation) == sorted(texts + texts)
    assert not {document.text for document in train} & {document.text for document in validation}


def test_what_was_met_on_the_way_is_counted_in_the_manifest(tmp_path, texts):
    text = texts[0].encode()
    write(tmp_path / "a", {"a.txt": b"\xef\xbb\xbf" + text + b"\xff\0\r\n", "b.txt": "cafe\u0301 " + texts[1],
                           "c.jsonl": json.dumps({"text": texts[2] + "\ud83d"}) + '\n{"text": null}\n',
                           "d.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts[3:])})
    manifest, _, _ = prepared(tmp_path / "data", tmp_path / "a", errors="replace")
    assert manifest["counts"] == {"read": 41, "too_short": 1, "duplicates": 0, "unicode_normalised": 1,
                                  "byte_order_marks": 1, "windows_line_ends": 1, "replaced_characters": 3,
                                  "without_text": 1}
    assert describe(manifest).endswith("(41 read, 1 too short, 1 unicode normalised, 1 byte order marks, 1 windows "
                                       "line ends, 3 replaced characters, 1 without text)")


def test_weights_are_checked_and_may_change_without_preparing_again(folder, tmp_path):
    for weights in ([1.0], [1.0, 2.0, 3.0], [1.0, -0.5], [0.0, 0.0]):
        with pytest.raises(UserError) as caught:
            prepared(tmp_path / "data", folder, folder, weights=weights)
        assert str(caught.value) == (f"corpus.weights is {weights}; give one number for each of the 2 corpus.sources, "
                                     f"none negative, not all zero.")
    assert not (tmp_path / "data").exists()
    manifest, _, _ = prepared(tmp_path / "data", folder, folder, weights=[0.0, 2.5])
    assert "weights" not in manifest["config"]
    before = (tmp_path / "data/train.jsonl").stat().st_mtime_ns
    for weights in ([], [1.0, 1.0], [3.0, 0.0]):
        assert prepared(tmp_path / "data", folder, folder, weights=weights)[0] == manifest
    with pytest.raises(UserError, match=r"corpus\.weights is \[-1, 2\]"):
        prepared(tmp_path / "data", folder, folder, weights=[-1, 2])
    assert (tmp_path / "data/train.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(("code", "hint"), [
    ("german", "Did you mean 'de' (German)?"), ("DE", "Did you mean 'de' (German)?"), ("en_US", "'en' (English)?"),
    ("eng", "'en' (English)?"), ("xx", ""), ("", "Give one such as en, de or zh."), ("zz9", "")])
def test_a_language_that_does_not_exist_is_refused_with_the_code_that_was_meant(folder, tmp_path, code, hint):
    with pytest.raises(UserError, match=r"^corpus\.language is .* no ISO 639-1 code of a language\. ") as caught:
        prepare_corpus(CorpusConfig([str(folder)], language=code), tmp_path / "corpus", progress=False)
    assert str(caught.value).endswith(hint)
    assert not (tmp_path / "corpus").exists()


def test_languages_that_the_splitter_knows_are_taken():
    for code in ("en", "fa", "th", "hi", "zh-hans", "arz", "sh"):
        check_language(code, "corpus.language")


def test_a_directory_without_a_manifest_is_refused_with_a_remedy(folder, tmp_path):
    prepared(tmp_path / "data", folder)
    (tmp_path / "data/manifest.json").write_text('{"config": ')
    with pytest.raises(UserError, match=r"manifest\.json: cannot be read as JSON .*Delete it to have it made again\.$"):
        prepared(tmp_path / "data", folder)
    (tmp_path / "data/manifest.json").unlink()
    with pytest.raises(UserError) as caught:
        prepared(tmp_path / "data", folder)
    assert str(caught.value) == (f"{tmp_path / 'data'}: has no manifest.json, so it is no prepared corpus. Choose "
                                 f"another data_dir, or delete it.")


def test_a_file_name_that_is_not_utf8_is_prepared(folder, tmp_path, texts):
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("A text of its own. " * 20)
    _, train, validation = prepared(tmp_path / "data", folder)
    assert "caf\ufffd.txt" in {document.name for document in train + validation}


@pytest.mark.parametrize("few", [False, True], ids=["random", "clustered"])
def test_the_set_of_hashes_is_a_set(few):
    draw = random.Random(0)
    digests = [draw.randrange(1, 30_000).to_bytes(8, "big") + draw.randbytes(24) if few else draw.randbytes(32)
               for _ in range(60_000)]
    digests = [draw.choice(digests) if draw.random() < 0.3 else digest for digest in digests]
    own, known = HashSet(), set()
    for digest in digests:
        assert own.add(digest) == (digest[:8] not in known)
        known.add(digest[:8])
    assert own.count == len(known)
    assert 16 * len(known) <= 8 * len(own.slots) <= 32 * len(known) + 64, "16 to 32 bytes each"


def test_the_set_of_hashes_knows_zero():
    own = HashSet()
    assert [own.add(bytes(32)), own.add(bytes(32)), own.add(b"\1" * 32)] == [True, False, True]


# --- broken off and continued -------------------------------------------------------------------------------------

NAMES = ("manifest.json", "train.jsonl", "validation.jsonl")
JOURNAL = 6000  # bytes between two notes, for the 100,000 of `varied`

PREPARE = """
import json, os, resource, signal, sys
from pathlib import Path
from toolkit.data.text import corpus
from toolkit.errors import UserError

order = json.loads(sys.argv[1])
corpus._JOURNAL_BYTES = order["journal"]
normalise, replace, calls, notes = corpus.normalise, os.replace, 0, 0

def counted(text):  # once for every document that is read
    global calls
    calls += 1
    if calls == order.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if calls == order.get("wait"):
        print("waiting", flush=True)
        sys.stdin.readline()
    return normalise(text)

def replaced(source, target):
    global notes
    notes += Path(target).name == order.get("kill_before_writing")
    if notes == 3 or notes and Path(target).name == "manifest.json":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

corpus.normalise, os.replace = counted, replaced
if order.get("file_size"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"], order["file_size"]))
try:
    corpus.prepare_corpus(corpus.CorpusConfig(**order["config"]), Path(order["directory"]), progress=False)
except UserError as error:
    sys.exit(f"error: {error}")
"""


def ordered(config: CorpusConfig, directory: Path, **order) -> str:
    """What PREPARE is told of a preparation that may be killed, made to wait or denied its disk."""
    return json.dumps(order | {"config": vars(config), "directory": str(directory), "journal": JOURNAL})


def apart(config: CorpusConfig, directory: Path, **order) -> small.Finished:
    """Such a preparation in a process of its own."""
    script = directory.with_name("prepare.py")
    script.write_text(PREPARE, encoding="utf-8")
    return small.Program(script, [ordered(config, directory, **order)], directory.with_name("said")).ends()


def as_jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def as_parquet(texts: list[str]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": texts}), file)
    return file.getvalue()


@pytest.fixture
def varied(tmp_path, texts) -> CorpusConfig:
    """Sources of several kinds that repeat each other: 18 + 12 + 6 + 15 documents, 40 of them different."""
    write(tmp_path / "in", {
        "a.jsonl.gz": gzip.compress(b"\xef\xbb\xbf" + as_jsonl([*texts[:15], texts[2], "Too short.", texts[0]])),
        "c.csv": 'text\r\n"' + '"\r\n"'.join([texts[25], *texts[23:28]]) + '"\r\n',
        "d.parquet": as_parquet([texts[1], *texts[28:], texts[30], texts[39]]),
        **{f"b/{i}.txt": text.replace("\n", "\r\n") for i, text in enumerate([*texts[13:24], texts[7]])}})
    return CorpusConfig([str(tmp_path / "in" / name) for name in ("a.jsonl.gz", "b", "c.csv", "d.parquet")],
                        validation_share=0.2)


@pytest.fixture
def watched(monkeypatch) -> dict:
    """What a preparation in this process reads: names of its parts, and how many documents."""
    seen = {"parts": [], "documents": 0}
    read_part, clean = corpus.read_part, corpus.normalise

    def reading(part, reading, skip=0, progress=False):
        seen["parts"].append((part.name, skip))
        return read_part(part, reading, skip, progress)

    def cleaning(text):
        seen["documents"] += 1
        return clean(text)

    monkeypatch.setattr(corpus, "read_part", reading)
    monkeypatch.setattr(corpus, "normalise", cleaning)
    monkeypatch.setattr(corpus, "_JOURNAL_BYTES", JOURNAL)
    return seen


def contents(directory: Path) -> dict[str, bytes]:
    assert sorted(os.listdir(directory)) == list(NAMES)
    return {name: (directory / name).read_bytes() for name in NAMES}


def unbroken(config: CorpusConfig, directory: Path) -> dict[str, bytes]:
    prepare_corpus(config, directory, progress=False)
    return contents(directory)


@pytest.mark.parametrize("kills", [[2], [12], [17], [20], [27], [33], [36], [37], [51], [9, 9, 9]], ids=str)
def test_a_preparation_that_was_killed_ends_in_the_same_bytes(varied, tmp_path, watched, kills):
    data, building = tmp_path / "data", tmp_path / "data.building"
    noted = 0
    for kill in kills:
        done = apart(varied, data, kill=kill)
        assert done.code == -signal.SIGKILL, done.err
        assert building.exists()
        assert not data.exists()
        if (building / "journal.json").exists():
            before, noted = noted, json.loads((building / "journal.json").read_text())["states"][0]["counts"]["read"]
            assert before <= noted < before + kill
    assert noted > {2: -1, 9: 9}.get(kills[0], 0)
    prepare_corpus(varied, data, progress=False)
    assert watched["documents"] == 51 - noted, "what was noted is not read again, the rest is, once"
    assert not building.exists()
    assert contents(data) == unbroken(varied, tmp_path / "unbroken")
    windows = [*(tmp_path / "in/b").iterdir(), tmp_path / "in/c.csv"]
    assert json.loads((data / "manifest.json").read_text())["counts"] == {
        "read": 51, "too_short": 1, "duplicates": 10, "unicode_normalised": 0, "byte_order_marks": 1,
        "windows_line_ends": sum(path.read_bytes().count(b"\r\n") for path in windows)}


@pytest.mark.parametrize("name", ["journal.json", "manifest.json"])
def test_a_preparation_that_was_killed_as_it_wrote_leaves_no_rubbish(varied, tmp_path, watched, name):
    assert apart(varied, tmp_path / "data", kill_before_writing=name).code == -signal.SIGKILL
    assert list((tmp_path / "data.building").glob(f".{name}.*")), "killed in the middle of it"
    prepare_corpus(varied, tmp_path / "data", progress=False)
    assert watched["documents"] < 51
    assert contents(tmp_path / "data") == unbroken(varied, tmp_path / "unbroken")


def bad_line(data: bytes) -> bytes:
    lines = data.split(b"\n")
    return b"\n".join([*lines[:7], b'{"text": ', *lines[7:]])


def zst(data: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(data, asbytes=True)


DAMAGES: dict[str, tuple[str, Callable[[list[str]], bytes], Callable[[bytes], bytes], str]] = {
    "bad line": ("b.jsonl", as_jsonl, bad_line, ", line 8: not valid JSON"),
    "bad first line": ("b.jsonl", as_jsonl, lambda data: b"\xff" + data, ": not valid UTF-8 at byte 0"),
    "cut .gz": ("b.jsonl.gz", lambda texts: gzip.compress(as_jsonl(texts)), lambda data: data[:-2000],
                ": is damaged or cut short after"),
    "cut .zst": ("b.jsonl.zst", lambda texts: zst(as_jsonl(texts)), lambda data: data[:-2000],
                 ": is damaged or cut short after"),
    "cut .parquet": ("b.parquet", as_parquet, lambda data: data[:-2000], ": cannot be read as parquet"),
    "one of a folder": ("b/b.txt", lambda texts: "\n\n".join(texts).encode(), lambda data: b"a\0" + data,
                        ": looks binary"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_repaired_file_is_read_again_and_those_before_it_are_not(tmp_path, texts, watched, damage):
    name, pack, spoil, message = DAMAGES[damage]
    write(tmp_path / "in", {"a.jsonl": as_jsonl(texts[:12]), name: spoil(pack(texts[10:30])),
                            "c.jsonl": as_jsonl(texts[28:])})
    part = Path(name).name
    config = CorpusConfig([str(tmp_path / "in" / name.split("/")[0]) for name in ("a.jsonl", name, "c.jsonl")],
                          validation_share=0.2)
    data, building = tmp_path / "data", tmp_path / "data.building"
    for attempt in range(2):  # a second failure is like the first, and cheaper
        watched["parts"].clear()
        with pytest.raises(UserError) as caught:
            prepare_corpus(config, data, progress=False)
        assert str(caught.value).startswith(str(tmp_path / "in" / name) + message)
        assert [name for name, _ in watched["parts"]] == (["a.jsonl"] if attempt == 0 else []) + [part]
        assert not data.exists()
        kept = sum((building / f"{split}.jsonl").read_bytes().count(b"\n") for split in ("train", "validation"))
        if damage == "bad line":
            assert kept == 12 + 7 - 2, "7 of the damaged file, 2 of which are known"
        else:
            assert (kept > 12) if damage == "cut .gz" else (kept == 12)
    watched["parts"].clear()
    write(tmp_path / "in", {name: pack(texts[9:30])})
    prepare_corpus(config, data, progress=False)
    assert watched["parts"] == [(part, 0), ("c.jsonl", 0)]
    assert not building.exists()
    assert contents(data) == unbroken(config, tmp_path / "unbroken")


def test_the_file_a_killed_preparation_was_in_may_change(varied, tmp_path, texts, watched):
    apart(varied, tmp_path / "data", kill=50)
    journal = json.loads((tmp_path / "data.building/journal.json").read_text())
    assert (journal["states"][0]["parts"], journal["states"][0]["documents"]) > (14, 0)
    write(tmp_path / "in", {"d.parquet": as_parquet(texts[27:])})
    prepare_corpus(varied, tmp_path / "data", progress=False)
    assert watched["parts"] == [("d.parquet", 0)]
    assert contents(tmp_path / "data") == unbroken(varied, tmp_path / "unbroken")


@pytest.mark.parametrize("change", ["content", "time", "new file", "settings"])
def test_a_preparation_starts_afresh_when_what_it_had_read_changed(varied, tmp_path, texts, watched, change):
    write(tmp_path / "in", {"c.csv": "txt\n"})
    with pytest.raises(UserError, match=r"c\.csv: has no column 'text' .*Did you mean 'txt'\?"):
        prepare_corpus(varied, tmp_path / "data", progress=False)
    assert (tmp_path / "data.building/journal.json").exists()
    write(tmp_path / "in", {"c.csv": f'text\n"{texts[25]}"\n'})
    if change == "content":
        write(tmp_path / "in", {"b/3.txt": texts[24]})
    elif change == "time":
        os.utime(tmp_path / "in/a.jsonl.gz", ns=(0, 0))
    elif change == "new file":
        write(tmp_path / "in", {"b/0-new.txt": texts[24]})
    else:
        varied.min_characters = 1500
    watched["parts"].clear()
    prepare_corpus(varied, tmp_path / "data", progress=False)
    names = sorted([f"{i}.txt" for i in range(12)] + ["0-new.txt"] * (change == "new file"))
    assert watched["parts"] == [(name, 0) for name in ("a.jsonl.gz", *names, "c.csv", "d.parquet")]
    assert contents(tmp_path / "data") == unbroken(varied, tmp_path / "unbroken")


def test_weights_and_later_files_may_change_before_a_preparation_continues(varied, tmp_path, texts, watched):
    write(tmp_path / "in", {"c.csv": "txt\n"})
    with pytest.raises(UserError):
        prepare_corpus(varied, tmp_path / "data", progress=False)
    write(tmp_path / "in", {"c.csv": f'text\n"{texts[25]}"\n', "d.parquet": as_parquet(texts[20:])})
    varied.weights = [1.0, 2.0, 0.5, 1.0]
    watched["parts"].clear()
    prepare_corpus(varied, tmp_path / "data", progress=False)
    assert watched["parts"] == [("c.csv", 0), ("d.parquet", 0)]
    assert contents(tmp_path / "data") == unbroken(varied, tmp_path / "unbroken")


def test_a_second_preparation_of_a_directory_is_refused_and_the_first_is_unharmed(varied, tmp_path, watched):
    data = tmp_path / "data"
    with subprocess.Popen([sys.executable, "-c", PREPARE, ordered(varied, data, wait=20)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "waiting\n"
        for _ in range(2):
            with pytest.raises(UserError) as caught:
                prepare_corpus(varied, data, progress=False)
            assert str(caught.value) == (f"{data}: another process is making it at this moment. Wait for it to finish, "
                                         f"or choose another data_dir.")
        second = apart(varied, data)
        assert (second.code, second.err) == (1, f"error: {caught.value}\n")
        assert watched["documents"] == 0
        first.communicate("go on\n", timeout=60)
    assert first.returncode == 0
    prepare_corpus(varied, data, progress=False)  # made once: kept as it is
    assert watched["documents"] == 0
    assert contents(data) == unbroken(varied, tmp_path / "unbroken")


@pytest.mark.parametrize("file_size", [3000, 25_000])
def test_a_full_disk_is_a_line_with_a_remedy_and_what_is_finished_is_kept(varied, tmp_path, watched, file_size):
    data = tmp_path / "data"
    done = apart(varied, data, file_size=file_size)
    assert done.err == (f"error: {data}: a file may not become as large as it must (File too large). Raise the "
                           f"limit (`ulimit -f`) or choose another data_dir; what is finished is kept, the same "
                           f"command continues.\n")
    assert not data.exists()
    prepare_corpus(varied, data, progress=False)
    assert (watched["documents"] < 40) if file_size == 25_000 else (watched["documents"] == 51)
    assert contents(data) == unbroken(varied, tmp_path / "unbroken")


def test_files_shorter_than_the_journal_says_are_refused(varied, tmp_path):
    apart(varied, tmp_path / "data", kill=40)
    os.truncate(tmp_path / "data.building/train.jsonl", 100)
    with pytest.raises(UserError) as caught:
        prepare_corpus(varied, tmp_path / "data", progress=False)
    building = tmp_path / "data.building"
    assert str(caught.value) == (f"{building / 'train.jsonl'}: is shorter than its journal says. Delete {building} and "
                                 f"start again.")


def test_a_failed_split_leaves_nothing_and_a_changed_share_goes_on(tmp_path, texts):
    write(tmp_path, {"only.txt": texts[0]})
    with pytest.raises(UserError, match="no document is left"):
        prepared(tmp_path / "data", tmp_path / "only.txt")
    assert sorted(os.listdir(tmp_path)) == ["only.txt"]
    write(tmp_path / "validation", {"a.txt": texts[1]})
    _, train, validation = prepared(tmp_path / "data", tmp_path / "only.txt",
                                    validation_sources=[str(tmp_path / "validation")])
    assert [document.text for document in train + validation] == texts[:2]
