"""What a corpus is read from: every kind of file, packed or not, the hub, and how bad input reads."""

import csv
import gzip
import importlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from hub import Hub
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from toolkit.data.tables import sources
from toolkit.data.tables.sources import Reading, list_parts
from toolkit.data.text import documents as documents_module
from toolkit.data.text.corpus import iterate_documents, normalise, read_documents
from toolkit.data.text.documents import Document, read_part
from toolkit.errors import UserError


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    return pyarrow.Codec("zstd").compress(data, asbytes=True)


def halves(pack):
    """Two members, or frames, one after the other."""
    return lambda data: pack(data[:len(data) // 2]) + pack(data[len(data) // 2:])


PACKINGS = {"plain": ("", bytes), "gz": (".gz", gz), "gz-two-members": (".gz", halves(gz)),
            "zst": (".zst", zst), "zst-two-frames": (".zst", halves(zst))}


def table(**columns) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file, row_group_size=2)
    return file.getvalue()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def documents_of(source: Path | str, reading: Reading | None = None, skip: int = 0) -> list[Document]:
    """As they are read, before they are cleaned."""
    return [document for part in list_parts(str(source)) for document in read_part(part, reading or Reading(), skip)]


def texts_of(source: Path | str, reading: Reading | None = None) -> list[str]:
    return [document.text for document in documents_of(source, reading)]


def until_error(source: Path | str, reading: Reading | None = None) -> tuple[list[Document], str]:
    """The documents that come before the error, and its message, which is one line."""
    found = []
    with pytest.raises(UserError) as caught:
        for part in list_parts(str(source)):
            for document in read_part(part, reading or Reading()):
                found.append(document)
    assert len(str(caught.value).splitlines()) == 1
    return found, str(caught.value)


# --- every kind ---------------------------------------------------------------------------------------------------

WIKITEXT = """ \n = First = \n \n Words of it . \n \n = = A part = = \n \n a = b = c \n = = = Deeper = = = \n More .
 = Second ( film ) = \n \n 1 = 1 and = 2 = here\n"""
MARKDOWN = """Preface.
# Title #
Right below.
```python
# a comment
~~~
```text
# which does not close it
```
~~~~ text
# no heading
~~~
# nor this
~~~~
```inline``` code opens no fence
###\tDeeper ###  \r
````
```python
## still code
```
````
#tag and #hash
####### seven
## C# and F#
The end.
"""
CSV = 'id,text,label\r\n1,"First, with ""marks""\nover\n\nlines",a\r\n\r\n2,Second,b\r\n3,,c\r\n'
TSV = 'text\tlabel\nHe said "no.\ta\n"Quoted"\tb\nit\'s 5" long\tc\n'
JSONL = '{"text": "One\\nline", "n": 1}\n\n{"n": 2, "text": "caf\\u00e9 \\ud83d\\ude00 \u2028 x"}\r\n{"text": ""}'

KINDS = {
    "txt-file": ("a.txt", "One.\n\nTwo.\r\n\n\nThree", {}, [("a.txt", "One.\n\nTwo.\r\n\n\nThree")]),
    "txt-blank-line": ("a.txt", "\n \nOne.\nMore.\n \n\t\n\nTwo.\n\nThree", {"txt_documents": "blank-line"},
                       [("a.txt:3", "One.\nMore.\n \n\t\n\n"), ("a.txt:8", "Two.\n\n"), ("a.txt:10", "Three")]),
    "txt-wikitext": ("a.txt", WIKITEXT, {"txt_documents": "wikitext"},
                     [("a.txt:2",
                       "\nFirst\n\n \n Words of it . \n \n\nA part\n\n \n a = b = c \n\nDeeper\n\n More .\n"),
                      ("a.txt:11", "\nSecond ( film )\n\n \n 1 = 1 and = 2 = here\n")]),
    "md-file": ("a.md", MARKDOWN, {}, [("a.md", """Preface.

Title

Right below.
```python
# a comment
~~~
```text
# which does not close it
```
~~~~ text
# no heading
~~~
# nor this
~~~~
```inline``` code opens no fence

Deeper

````
```python
## still code
```
````
#tag and #hash
####### seven

C# and F#

The end.
""")]),
    "md-heading": ("a.md", "\n\n# One\nText.\n~~~\n# comment\n~~~\n\n## Two ##\n### Three\nEnd.",
                   {"md_documents": "heading"},
                   [("a.md:3", "\nOne\n\nText.\n~~~\n# comment\n~~~\n\n"), ("a.md:9", "\nTwo\n\n"),
                    ("a.md:10", "\nThree\n\nEnd.")]),
    "jsonl": ("a.jsonl", JSONL, {}, [("a.jsonl:1", "One\nline"), ("a.jsonl:3", "café 😀 \u2028 x"), ("a.jsonl:4", "")]),
    "csv": ("a.csv", CSV, {}, [("a.csv:2", 'First, with "marks"\nover\n\nlines'), ("a.csv:7", "Second"),
                               ("a.csv:8", "")]),
    "csv-column": ("a.csv", CSV, {"text_column": "label"}, [("a.csv:2", "a"), ("a.csv:7", "b"), ("a.csv:8", "c")]),
    "tsv": ("a.tsv", TSV, {}, [("a.tsv:2", 'He said "no.'), ("a.tsv:3", '"Quoted"'), ("a.tsv:4", 'it\'s 5" long')]),
    "another-suffix-named-outright": ("a.log", "# One\n\nline", {}, [("a.log", "# One\n\nline")]),
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_its_documents_however_it_is_packed(tmp_path, kind, packing):
    name, content, options, expected = KINDS[kind]
    suffix, pack = PACKINGS[packing]
    path = write(tmp_path / (name + suffix), pack(content.encode()))
    expected = [Document(place.replace(name, path.name), path.name, text) for place, text in expected]
    assert documents_of(path, Reading(section="corpus.", **options)) == expected
    for skip in (1, 2, 9):
        assert documents_of(path, Reading(section="corpus.", **options), skip) == expected[skip:]


@pytest.mark.parametrize("kind", [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(),
                                  pyarrow.dictionary(pyarrow.int32(), pyarrow.string())], ids=str)
def test_parquet_gives_a_document_a_row(tmp_path, kind):
    texts = ["One\n\nline", "café 😀", "", "One\n\nline", "last"]
    column = pyarrow.array(texts).dictionary_encode() if isinstance(kind, pyarrow.DictionaryType) else texts
    path = write(tmp_path / "a.parquet", table(n=range(5), text=pyarrow.array(column, kind)))
    expected = [Document(f"a.parquet:{row}", "a.parquet", text) for row, text in enumerate(texts, 1)]
    assert documents_of(path) == expected
    assert documents_of(path, skip=3) == expected[3:]


def test_more_rows_of_parquet_than_a_batch_holds_keep_their_order_and_numbers(tmp_path):
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": [f"row {row}" for row in range(1, 1001)]}), file, row_group_size=300)
    path = write(tmp_path / "a.parquet", file.getvalue())
    assert [(document.name, document.text) for document in documents_of(path, skip=250)] == [
        (f"a.parquet:{row}", f"row {row}") for row in range(251, 1001)]


def test_a_heading_is_a_paragraph_of_its_own_after_cleaning(tmp_path):
    path = write(tmp_path / "a.md", "Above.\n## One ##\nBelow.\n# Two\n# Three\n")
    (document,) = iterate_documents([str(path)])
    assert document.text == "Above.\n\nOne\n\nBelow.\n\nTwo\n\nThree"


def mixed(folder: Path) -> Path:
    """Made in another order than they are read in."""
    for name, content in [
        ("z.parquet", table(text=["of parquet"])), ("sub/e.tsv.gz", gz(b"text\nof tsv\n")),
        ("sub/d.csv", "text\nof csv"), ("c.jsonl.zst", zst(b'{"text": "of jsonl"}\n')), ("sub/deep/a.txt", "of deep"),
        ("b.md", "# of md"), ("a.txt", "of txt"), ("a/b.txt", "of a/b"), (".hidden.txt", "hidden"),
        (".git/x.txt", "hidden"), ("sub/.cache/x.md", "hidden"), ("x.pdf", b"%PDF\0"), ("README", "no kind"),
        ("y.gz", gz(b"no kind")),
    ]:
        write(folder / name, content)
    (folder / "folder.txt").mkdir()
    return folder


def test_a_folder_of_mixed_kinds_is_read_in_a_fixed_order_without_hidden_files(tmp_path):
    documents = documents_of(mixed(tmp_path / "library"))
    assert [(document.name, document.text.strip()) for document in documents] == [
        ("a/b.txt", "of a/b"), ("a.txt", "of txt"), ("b.md", "of md"), ("c.jsonl.zst:1", "of jsonl"),
        ("sub/d.csv:2", "of csv"), ("sub/deep/a.txt", "of deep"), ("sub/e.tsv.gz:2", "of tsv"),
        ("z.parquet:1", "of parquet")]
    assert {document.source for document in documents} == {"library"}


@pytest.mark.parametrize(("pattern", "names"), [
    ("**/*.txt", ["a/b.txt", "a.txt", "sub/deep/a.txt"]), ("*.txt", ["a.txt"]), ("[ab].*", ["a.txt", "b.md"]),
    ("sub/?.*", ["sub/d.csv:2", "sub/e.tsv.gz:2"]), ("*/*/a.txt", ["sub/deep/a.txt"])])
def test_globs_give_the_files_they_match(tmp_path, pattern, names):
    folder = mixed(tmp_path / "library")
    documents = documents_of(f"{folder}/{pattern}")
    assert [document.name for document in documents] == [f"{folder}/{name}" for name in names]
    assert {document.source for document in documents} == {f"{folder}/{pattern}"}


def test_a_file_whose_name_looks_like_a_glob_is_read(tmp_path):
    write(tmp_path / "a1.txt", "other")
    assert texts_of(write(tmp_path / "a[1].txt", "itself")) == ["itself"]


def test_a_file_name_that_is_not_utf8_is_spelled_so_that_it_can_be_written(tmp_path):
    write(tmp_path / os.fsdecode(b"caf\xe9.txt"), "text")
    (part,) = list_parts(str(tmp_path))
    assert part.name == "caf\ufffd.txt"
    assert part.identity.encode()
    assert [document.text for document in read_part(part, Reading())] == ["text"]


def test_a_part_is_another_when_its_file_changes(tmp_path):
    path = write(tmp_path / "a.txt", "text")
    (before,) = list_parts(str(path))
    assert list_parts(str(path)) == [before]
    assert before.size == 4
    os.utime(path, ns=(0, 0))
    assert list_parts(str(path))[0].identity != before.identity
    assert list_parts(str(write(tmp_path / "a.txt.gz", gz(b"text"))))[0].size is None


def test_python_source_is_the_code_of_the_standard_library():
    (part,) = list_parts("python-source")
    documents = {document.name: document for document in itertools.takewhile(
        lambda document: document.name < "bisecu", read_part(part, Reading()))}
    for name in ("abc", "asyncio.queues", "bisect"):
        code = Path(importlib.import_module(name).__file__).read_text(encoding="utf-8")
        assert documents[name] == Document(name, "python-source", code)
    assert [*documents] == sorted(documents)
    assert not any("test" in name.split(".") for name in documents)
    after = itertools.islice(read_part(part, Reading(), skip=3), 5)
    assert [document.name for document in after] == [*documents][3:8]


# --- what is written comes back -----------------------------------------------------------------------------------

NO_NUL = st.characters(codec="utf-8", exclude_characters="\0")  # which is no text
CELL = st.characters(codec="utf-8", exclude_characters="\0\t\r\n")
MARKS = st.sampled_from(' \t\r\n"\',\\\ufeff\u2028\x85\x1ce\u0301`#=')


def as_csv(texts: list[str]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
    return file.getvalue().encode()


WRITERS = {
    "a.jsonl": (lambda texts: "".join(json.dumps({"text": text}) + "\n" for text in texts).encode(), NO_NUL | MARKS),
    "b.jsonl": (lambda texts: "\r\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts).encode(),
                NO_NUL | MARKS),
    "a.parquet": (lambda texts: table(text=texts), NO_NUL | MARKS),
    "a.csv": (as_csv, NO_NUL | MARKS),
    "a.tsv": (lambda texts: "".join(f"{text}\t1\n" for text in ["text", *texts]).encode(), CELL),
}


@pytest.mark.parametrize("name", WRITERS)
def test_texts_come_back_in_order_from_any_document_on(tmp_path_factory, name):
    writer, alphabet = WRITERS[name]
    path = tmp_path_factory.mktemp("texts") / name

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.text(alphabet, max_size=60), min_size=1, max_size=7), st.integers(0, 8))
    def check(texts, skip):
        path.write_bytes(writer(texts))
        assert texts_of(path) == texts
        assert [document.text for document in documents_of(path, skip=skip)] == texts[skip:]
        assert [document.text for document in iterate_documents([str(path)])] == [normalise(text) for text in texts]

    check()


def test_documents_between_blank_lines_are_the_whole_file(tmp_path):
    path = tmp_path / "a.txt"

    @settings(max_examples=200, deadline=None)
    @given(st.text(st.sampled_from("ab \t\r\n\n\n\x0b\u2028"), min_size=1, max_size=60))
    def check(text):
        path.write_bytes(text.encode())
        documents = documents_of(path, Reading(txt_documents="blank-line"))
        whole = "".join(document.text for document in documents)
        above = text.removesuffix(whole)
        assert text == above + whole
        assert not above.strip()
        for document in documents if text.strip() else ():
            kept = [bool(line.strip()) for line in re.split("\r\n|\r|\n", document.text)]
            assert kept == sorted(kept, reverse=True), "words first, then blank lines"
            assert kept[0]
            line = int(document.name.rsplit(":", 1)[1])
            lines, own = (re.split("\r\n|\r|\n", whole) for whole in (text, document.text))
            assert lines[line - 1] == own[0]

    check()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path, end):
    """Old Macs' files, too, have lines: the documents are those of the same file from elsewhere."""
    lines = ["One. Two.", "", "Three", "# Title", "four"]
    path = write(tmp_path / "a.txt", end.join(lines).encode())

    def texts(**rule):
        return [(document.name, normalise(document.text)) for document in documents_of(path, Reading(**rule))]

    assert texts() == [("a.txt", "One. Two.\n\nThree\n# Title\nfour")]
    assert texts(txt_documents="line") == [
        ("a.txt:1", "One. Two."), ("a.txt:3", "Three"), ("a.txt:4", "# Title"), ("a.txt:5", "four")]
    assert texts(txt_documents="blank-line") == [("a.txt:1", "One. Two."), ("a.txt:3", "Three\n# Title\nfour")]
    rows = write(tmp_path / "a.jsonl", end.join(json.dumps({"text": line}) for line in lines).encode())
    assert [document.text for document in documents_of(rows)] == lines
    marked = write(tmp_path / "a.md", end.join(lines).encode())
    assert [document.name for document in documents_of(marked, Reading(md_documents="heading"))] == ["a.md:1", "a.md:4"]


# --- bad input ----------------------------------------------------------------------------------------------------

def utf16(text: str) -> bytes:
    return text.encode("utf-16")


REFUSED = {  # file name: content, reading, place and reason, remedy
    "empty.txt": (b"", {}, ": is empty.", "Give it text, or leave it out."),
    "empty.md": (b"", {}, ": is empty.", "Give it text, or leave it out."),
    "empty.jsonl": (b"", {}, ": is empty.", "Give it text, or leave it out."),
    "empty.csv": (b"", {}, ": is empty.", "Give it text, or leave it out."),
    "empty.txt.gz": (b"", {}, ": is empty.", "Give it text, or leave it out."),
    "empty-inside.txt.gz": (gz(b""), {}, ": is empty.", "Give it text, or leave it out."),
    "empty.txt.zst": (b"", {}, ": is empty.", "Give it text, or leave it out."),
    "empty.parquet": (b"", {}, ": cannot be read as parquet", "Fetch it again."),
    "blank.csv": (b"\n\r\n", {}, ": is empty;", "a header was expected."),
    "binary.txt": (b"GIF89a\0\1", {}, ": looks binary (a NUL byte at offset 6).", "corpus.errors to replace."),
    "binary2.txt": (b"one\ntwo\na\0", {}, ": looks binary (a NUL byte at offset 9).", "Give plain UTF-8 text"),
    "latin1.txt": ("ab café".encode("latin1"), {}, ": not valid UTF-8 at byte 6 (line 1).",
                   "`iconv -f latin1 -t utf-8`"),
    "later.txt": (b"ok\nok\n\ncaf\xe9", {}, ": not valid UTF-8 at byte 10 (line 4).", "corpus.errors to replace."),
    "later.md.gz": (gz(b"ok\n" * 300 + b"caf\xe9\n"), {}, ": not valid UTF-8 at byte 903 (line 301).", "iconv"),
    "later.csv.zst": (zst(b"text\n" + b"ok\n" * 5000 + b"caf\xe9\n"), {}, ": not valid UTF-8 at byte 15008 (line 5002)",
                      "iconv"),
    "mark.jsonl": (b'\xef\xbb\xbf{"text": "\xff"}', {}, ": not valid UTF-8 at byte 13 (line 1).", "iconv"),
    "cut-character.txt": ("caf\u00e9".encode()[:-1], {}, ": not valid UTF-8 at byte 3 (line 1).", "iconv"),
    "utf16.txt": (utf16("text")[:-1], {}, ": not valid utf-16 at or below line 1 (", "set corpus.errors to replace."),
    "utf16be.csv": (b"\xfe\xff\0t", {"errors": "replace"}, ": has no column 'text'", "Choose from: t."),
    "long.txt": ("short\n" + 1001 * "a", {}, ", line 2: is longer than", "Put line breaks into it, or split it"),
    "long.jsonl.gz": (gz(json.dumps({"text": 1000 * "a"}).encode()), {}, ", line 1: is longer than", "Put line breaks"),
    "document.txt": (b"0123456\n\n" * 200, {}, ", line 1: a document of more than",
                     "corpus.txt_documents to line or blank-line"),
    "second.txt": (b"ok\n\n" + b"012\n" * 300, {"txt_documents": "blank-line"}, ", line 3: a document of more than",
                   "split the file"),
    "document.md": (b"# A\n" + b"0123456\n\n" * 200, {}, ", line 1: a document of more than",
                    "Set corpus.md_documents to heading, or split the file."),
    "cell.csv": (b'text\nok\n"' + b"0123456\n" * 200 + b'"\n', {}, ", line 3: cannot be read as a table",
                 "field limit"),
    "document.parquet": (table(text=["a", 1001 * "b"]), {}, ", row 2: a document of more than",
                         "Split it into several."),
    "column.jsonl": (b'{"text": "a"}\n{"txet": "b", "n": 1}', {},
                     ", line 2: has no column 'text' (corpus.text_column).", "Did you mean 'txet'?"),
    "column.csv": (b"body,label\na,b\n", {}, ": has no column 'text' (corpus.text_column).",
                   "Choose from: body, label."),
    "column.tsv.gz": (gz(b"texts\tlabel\na\tb\n"), {}, ": has no column 'text'", "Did you mean 'texts'?"),
    "column.parquet": (table(Text=["a"], n=[1]), {}, ": has no column 'text' (corpus.text_column).",
                       "Did you mean 'Text'?"),
    "named.parquet": (table(text=["a"]), {"text_column": "body"}, ": has no column 'body'", "Choose from: text."),
    "rows.csv": (b'text,n\n"a\n\nb",1\nc,2,3\n', {}, ", line 5: 3 columns, the header has 2.", "Quote or remove"),
    "short.tsv": (b"text\tn\na\t1\n\nb\n", {}, ", line 4: 1 columns, the header has 2.", "fill in missing cells."),
    "open.csv": (b'text,n\na,1\n"b,2\nc,3\n', {}, ", line 3: cannot be read as a table", "unexpected end of data"),
    "quote.csv": (b'text,n\n"a"b,1\n', {}, ", line 2: cannot be read as a table", "expected after"),
    "not.jsonl": (b'{"text": "a"}\n\n{"text": \n', {}, ", line 3: not valid JSON (", "One object a line was expected."),
    "array.jsonl": (b'["text"]\n', {}, ", line 1: has no column 'text'", "An object with columns was expected."),
    "string.jsonl": (b'"text"\n', {}, ", line 1: has no column 'text'", "An object with columns was expected."),
    "number.jsonl": (b'{"text": "a"}\n{"text": 5}', {}, ", line 2: 'text' is int, not text.",
                     "Name another column with corpus.text_column, or convert it."),
    "list.jsonl": (b'{"text": ["a"]}', {}, ", line 1: 'text' is list, not text.", "Name another column"),
    "number.parquet": (table(text=[None, 1.5]), {}, ", row 2: 'text' is float, not text.", "Name another column"),
    "bytes.parquet": (table(text=[b"a"]), {}, ", row 1: 'text' is bytes, not text.", "or convert it."),
    "surrogate.jsonl": (b'{"text": "a"}\n{"text": "b \\ud83d"}', {}, ", line 2: holds NUL or half of a surrogate pair",
                        "Repair it, or set corpus.errors to replace."),
    "cut.txt.gz": (gz(b"text\n" * 99)[:-4], {}, ": is damaged or cut short after", "Fetch or compress it again."),
    "header.txt.gz": (gz(b"text\n")[:6], {}, ": is damaged or cut short after 0 bytes", "Fetch or compress it again."),
    "plain.txt.gz": (b"no gzip at all", {}, ": is damaged or cut short after 0 bytes", "Fetch or compress it again."),
    "checksum.txt.gz": (gz(b"text\n")[:-8] + bytes(8), {}, ": is damaged or cut short after 5 bytes",
                        "compress it again."),
    "tail.txt.gz": (gz(b"text\n") + b"tail", {}, ": is damaged or cut short after 5 bytes", "compress it again."),
    "stream.txt.gz": (gz(b"text\n")[:10] + b"\xff" * 20, {}, ": is damaged or cut short", "compress it again."),
    "cut.txt.zst": (zst(os.urandom(300).hex().encode())[:-4], {}, ": is damaged or cut short", "compress it again."),
    "plain.txt.zst": (b"no zstd at all", {}, ": is damaged or cut short after 0 bytes", "Fetch or compress it again."),
    "cut.parquet": (table(text=["a"])[:-9], {}, ": cannot be read as parquet, perhaps cut short", "Fetch it again."),
    "plain.parquet": (b"text\nno parquet", {}, ": cannot be read as parquet", "Fetch it again."),
    "a.parquet.gz": (gz(table(text=["a"])), {}, ": parquet compresses by itself", "unpack it."),
    "a.parquet.zst": (zst(table(text=["a"])), {}, ": parquet compresses by itself", "unpack it."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_in_a_line_with_file_place_and_remedy(tmp_path, monkeypatch, name):
    content, options, reason, remedy = REFUSED[name]
    path = write(tmp_path / name, content)
    for module in (sources, documents_module):
        monkeypatch.setattr(module, "LONGEST", 1000)
    _, message = until_error(path, Reading(section="corpus.", **options))
    assert message.startswith(str(path) + reason)
    assert remedy in message


def test_what_comes_before_a_damage_is_read(tmp_path):
    lines = [json.dumps({"text": os.urandom(500).hex()}) for _ in range(500)]
    data = "\n".join(lines).encode()
    texts = [json.loads(line)["text"] for line in lines]
    for name, packed in (("a.jsonl.gz", gz(data)), ("a.jsonl.zst", zst(data))):
        documents, message = until_error(write(tmp_path / name, packed[:-50_000]))
        assert 200 < len(documents) < 480
        assert [document.text for document in documents] == texts[:len(documents)]
        after = int(re.search(r"cut short after ([\d,]+) bytes of text", message)[1].replace(",", ""))
        assert after == sum(len(line) + 1 for line in lines[:len(documents)])
    documents, _ = until_error(write(tmp_path / "a.jsonl", data.replace(lines[40].encode(), b"\xff")))
    assert [document.text for document in documents] == texts[:40]


def test_rows_of_parquet_before_a_damaged_page_are_read(tmp_path):
    texts = [os.urandom(500).hex() for _ in range(1000)]
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": texts}), file, row_group_size=300, use_dictionary=False)
    data = bytearray(file.getvalue())
    place = parquet.ParquetFile(file).metadata.row_group(2).column(0).data_page_offset
    data[place:place + 5000] = os.urandom(5000)
    documents, message = until_error(write(tmp_path / "a.parquet", bytes(data)))
    assert 256 <= len(documents) <= 600
    assert [document.text for document in documents] == texts[:len(documents)]
    assert "a.parquet: cannot be read as parquet" in message


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_line_and_a_document_as_long_as_can_be_are_read(tmp_path, monkeypatch, suffix):
    for module in (sources, documents_module):
        monkeypatch.setattr(module, "LONGEST", 1000)
    pack = {"": bytes, ".gz": gz, ".zst": zst}[suffix]
    whole = 999 * b"a" + b"\n"
    assert texts_of(write(tmp_path / f"a.txt{suffix}", pack(whole))) == [whole.decode()]
    lines = write(tmp_path / f"b.txt{suffix}", pack(whole + b"\n" + whole))
    assert "a document of more than" in until_error(lines)[1]
    documents = write(tmp_path / f"d.txt{suffix}", pack((whole[100:] + b"\n") * 3))
    assert len(texts_of(documents, Reading(txt_documents="blank-line"))) == 3
    assert texts_of(write(tmp_path / f"c.jsonl{suffix}", pack(b"\n" * 3000 + b'{"text": "a"}'))) == ["a"]


LONG_LINES = """
import sys
from toolkit.data.tables.sources import Reading, list_parts
from toolkit.data.text.documents import read_part
import pyarrow, pyarrow.parquet

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

before = peak()
for source in sys.argv[1:]:
    try:
        for part in list_parts(source):
            for document in read_part(part, Reading()):
                pass
        print("no error")
    except ValueError as error:
        print(error)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to see peak memory")
def test_memory_stays_bounded_by_the_longest_line_whatever_comes(tmp_path, repository):
    mega, lines = 2**20 * b"a", (2**10 - 1) * b"a" + b"\n"
    with open(tmp_path / "line.txt", "wb") as file:
        file.writelines(itertools.repeat(mega, 400))
    paths = [tmp_path / "line.txt", write(tmp_path / "line.jsonl.gz", gz(mega) * 700),
             write(tmp_path / "line.txt.zst", zst(mega) * 700),
             write(tmp_path / "document.txt.zst", zst(lines * 1024) * 700)]
    done = subprocess.run([sys.executable, "-c", LONG_LINES, *map(str, paths)], cwd=repository, capture_output=True,
                          text=True, check=True)
    *messages, peak = done.stdout.splitlines()
    assert messages == [f"{path}, line 1: is longer than 64 MB. Put line breaks into it, or split it into several "
                        f"documents." for path in paths[:3]] + [
        f"{paths[3]}, line 1: a document of more than 64 MB. If each line is a document, or blank lines part them, set "
        f"corpus.txt_documents to line or blank-line; otherwise split the file."]
    assert 64 < float(peak) < 4 * 64


def test_replaced_characters_are_counted_one_by_one(tmp_path):
    reading = Reading(errors="replace")
    path = write(tmp_path / "a.txt", b"a\xff\xfeb \0\0 \xef\xbf\xbd\ncaf\xe9 \xe2\x82 \xf0\xef\xbf\xbd\n")
    assert texts_of(path, reading) == ["a\ufffd\ufffdb \ufffd\ufffd \ufffd\ncaf\ufffd \ufffd \ufffd\ufffd\n"]
    assert reading.counts == {"replaced_characters": 7}
    reading = Reading(errors="replace")
    path = write(tmp_path / "a.jsonl", b'{"text": "\\ud83d \\udc00\\ud83d \\ud83d\\ude00"}\n{"text": "\xff"}\n')
    assert texts_of(path, reading) == ["\ufffd \ufffd\ufffd 😀", "\ufffd"]
    assert reading.counts == {"replaced_characters": 4}


def test_json_nested_without_end_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "a"}\n' + b"[" * 200_000)
    documents, message = until_error(path)
    assert [document.text for document in documents] == ["a"]
    assert message.startswith(f"{path}, line 2: not valid JSON (maximum recursion depth exceeded")


def test_parquet_that_is_not_utf8_is_refused_or_replaced(tmp_path):
    column = pyarrow.array([b"fine", b"caf\xe9 \xef\xbf\xbd"]).view(pyarrow.string())
    path = write(tmp_path / "a.parquet", table(text=column))
    documents, message = until_error(path, Reading(section="corpus."))
    assert [document.text for document in documents] == ["fine"]
    assert message == (f"{path}, row 2: 'text' is not valid UTF-8 at byte 3. Convert it, or set corpus.errors to "
                       f"replace.")
    reading = Reading(errors="replace")
    assert texts_of(path, reading) == ["fine", "caf\ufffd \ufffd"]
    assert reading.counts == {"replaced_characters": 1}


def test_marks_line_ends_and_rows_without_text_are_counted(tmp_path):
    reading = Reading(section="corpus.")
    assert texts_of(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\n\r\nthree\r"), reading) == [
        "one\r\ntwo\n\r\nthree\r"]
    assert reading.counts == {"byte_order_marks": 1, "windows_line_ends": 2}
    write(tmp_path / "b/a.csv", b"\xef\xbb\xbftext,n\r\none,1\r\n")
    write(tmp_path / "b/b.jsonl.gz", gz(b'\xef\xbb\xbf{"text": null}\n{"text": "\\ufefftwo"}\n{"text": null}'))
    write(tmp_path / "b/c.parquet", table(text=["three", None]))
    reading = Reading(section="corpus.")
    assert texts_of(tmp_path / "b", reading) == ["one", "", "\ufefftwo", "", "three", ""]
    assert reading.counts == {"byte_order_marks": 2, "windows_line_ends": 2, "without_text": 3}


@pytest.mark.parametrize(("source", "message"), [
    ("gone.txt", "gone.txt: no such file or folder (corpus.sources)."),
    ("gone/", "gone/: no such file or folder (corpus.sources)."),
    ("gone/**/*.txt", "gone/**/*.txt: no file matches (corpus.sources)."),
    ("sub/*.txt", "sub/*.txt: no file matches (corpus.sources)."),
    ("su*", "su*: no file matches (corpus.sources)."),
    ("sub", "sub: holds no .txt, .md, .jsonl, .csv, .tsv or .parquet file, plain or .gz or .zst (corpus.sources)."),
    ("owner/name-2", "owner/name-2: no such file or folder (corpus.sources). For a data set on the hub write "
                     "'hub:owner/name-2'."),
    ("owner/name.txt", "owner/name.txt: no such file or folder (corpus.sources)."),
    ("python-doc", "python-doc: no such file or folder (corpus.sources). Did you mean 'python-docs'?"),
    ("x" * 300, "x" * 300 + ": no such file or folder (corpus.sources)."),
    ("hub:", "hub:: is not of the form hub:owner/name[:configuration][@revision] (corpus.sources)."),
    ("hub:a/b/c", "hub:a/b/c: is not of the form hub:owner/name[:configuration][@revision] (corpus.sources)."),
    ("hub:a/b:c:d", "hub:a/b:c:d: is not of the form hub:owner/name[:configuration][@revision] (corpus.sources)."),
    ("hub:a b/c", "hub:a b/c: is not of the form hub:owner/name[:configuration][@revision] (corpus.sources)."),
    ("hub:own/a--b", "hub:own/a--b: no data set can be called so (Cannot have -- or .. in repo_id: 'own/a--b') "
                     "(corpus.sources)."),
    ("hub:own/name", "hub:own/name: the hub cannot be reached (OfflineModeIsEnabled). To work offline, fetch it once "
                     "where there is a network (`hf download --repo-type dataset own/name --local-dir DIR`) and name "
                     "its files as the source, for instance 'DIR/**/*.parquet'."),
], ids=lambda value: value[:20])
def test_what_is_not_there_is_said_with_a_remedy(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "sub/x.pdf", b"%PDF")
    write(tmp_path / "sub/.hidden.txt", "hidden")
    with pytest.raises(UserError) as caught:
        list_parts(source)
    assert str(caught.value) == message
    with pytest.raises(UserError) as caught:
        list_parts(source, "corpus.validation_sources")
    assert str(caught.value) == message.replace("corpus.sources", "corpus.validation_sources")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.txt.gz", "a.txt.zst", "a.parquet"])
def test_a_file_that_may_not_be_read_is_named(tmp_path, name):
    path = write(tmp_path / name, "text")
    path.chmod(0)
    assert until_error(tmp_path)[1] == f"{path}: cannot be read (Permission denied)."


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.txt.gz", "a.txt.zst", "a.parquet"])
def test_a_file_that_went_away_is_named(tmp_path, name):
    (part,) = list_parts(str(write(tmp_path / name, "text")))
    part.path.unlink()
    with pytest.raises(UserError) as caught:
        list(read_part(part, Reading()))
    assert str(caught.value) == f"{tmp_path / name}: cannot be read (No such file or directory)."


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails to be read")
def test_a_failing_disk_is_named(tmp_path):
    (tmp_path / "a.txt").symlink_to("/proc/self/mem")
    assert until_error(tmp_path)[1] == f"{tmp_path / 'a.txt'}: cannot be read (Input/output error)."


# --- the hub ------------------------------------------------------------------------------------------------------

READ_HUB = """
import json, sys
from pathlib import Path
from toolkit.data.text.corpus import CorpusConfig, prepare_corpus
from toolkit.data.tables.sources import Reading, list_parts
from toolkit.data.text.documents import read_part
from toolkit.errors import UserError

order = json.load(sys.stdin)
for source, options, skip in order["read"]:
    result = {"documents": [], "error": None, "identity": None}
    try:
        for part in list_parts(source):
            result["identity"] = part.identity
            for document in read_part(part, Reading(section="corpus.", **options), skip):
                result["documents"].append([document.name, document.source, document.text])
    except UserError as error:
        result["error"] = str(error)
    print(json.dumps(result), flush=True)
if "prepare" in order:
    print(json.dumps(prepare_corpus(CorpusConfig(**order["prepare"]), Path(order["directory"]), progress=False)))
"""

CONFIGURATIONS = b"""---
configs:
- config_name: en
  data_files: en/*.parquet
- config_name: de
  data_files: de/*.parquet
---
"""

HUB_DATASETS = {
    "own/plain": {"train.jsonl": b'{"text": "one"}\n{"text": null}\n{"text": "three \\ud83d\\ude00"}\n',
                  "test.jsonl": b'{"text": "of test"}\n'},
    "own/configs": {"README.md": CONFIGURATIONS, "en/a.parquet": table(text=["English", "more"]),
                    "de/a.parquet": table(text=["Deutsch"])},
    "own/script": {"script.py": b"import datasets\n"},
    "own/empty": {"README.md": b"nothing here"},
    "own/cut": {"train.jsonl.gz": gz(b'{"text": "one"}\n' * 9999)[:-20]},
    "own/cut-parquet": {"train.parquet": table(text=["one"])[:-9]},
    "own/numbers": {"train.jsonl": b'{"text": 1}\n'},
    "own/bytes": {"train.jsonl": b'{"text": "\xff"}\n'},
}
STREAMED = "Check the configuration, corpus.hub_split and the connection; the same command continues."

HUB = {  # what is asked: source, reading, documents to skip; what comes: texts, message
    "a split": ("hub:own/plain", {}, 0, ["one", "", "three 😀"], None),
    "the rest of it": ("hub:own/plain", {}, 2, ["three 😀"], None),
    "another split": ("hub:own/plain", {"hub_split": "test"}, 0, ["of test"], None),
    "a configuration": ("hub:own/configs:en", {}, 0, ["English", "more"], None),
    "another configuration": ("hub:own/configs:de", {}, 0, ["Deutsch"], None),
    "an older revision": ("hub:own/moved@{older}", {}, 0, ["older"], None),
    "the branch it is on now": ("hub:own/moved@main", {}, 0, ["newer"], None),
    "no such data set": ("hub:own/missing", {}, 0, [], "hub:own/missing: no such data set on the hub, or it is private "
                                                       "and no token is set (corpus.sources)."),
    "no such revision": ("hub:own/plain@v9", {}, 0, [],
                         "hub:own/plain@v9: the data set has no revision 'v9' (corpus.sources)."),
    "no such split": ("hub:own/plain", {"hub_split": "dev"}, 0, [],
                      f"hub:own/plain: cannot be streamed (Bad split: dev. Available splits: ['train', 'test']). "
                      f"{STREAMED}"),
    "no such configuration": ("hub:own/configs:fr", {}, 0, [],
                              f"hub:own/configs:fr: cannot be streamed (BuilderConfig 'fr' not found. Available: "
                              f"['en', 'de']). {STREAMED}"),
    "no such column": ("hub:own/plain", {"text_column": "txt"}, 0, [],
                       "hub:own/plain: has no column 'txt' (corpus.text_column). Did you mean 'text'?"),
    "no text": ("hub:own/numbers", {}, 0, [], "hub:own/numbers, row 1: 'text' is int, not text. Name another column "
                                              "with corpus.text_column, or convert it."),
    "a script": ("hub:own/script", {}, 0, [], f"hub:own/script: cannot be streamed (Dataset scripts are no longer "
                                              f"supported, but found script.py). {STREAMED}"),
    "nothing": ("hub:own/empty", {}, 0, [], "hub:own/empty: cannot be streamed ("),
    "a file cut short": ("hub:own/cut", {}, 0, None, "hub:own/cut: cannot be streamed (Compressed file ended"),
    "parquet cut short": ("hub:own/cut-parquet", {}, 0, [], "hub:own/cut-parquet: cannot be streamed (Parquet magic"),
    "no UTF-8": ("hub:own/bytes", {}, 0, [], "hub:own/bytes: cannot be streamed ('utf-8' codec can't decode byte 0xff"),
}


def read_hub(environment: dict[str, str], repository: Path, **order) -> list[dict]:
    done = subprocess.run([sys.executable, "-c", READ_HUB], input=json.dumps(order), cwd=repository, env=environment,
                          capture_output=True, text=True, timeout=100, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def hub_answers(repository, tmp_path_factory) -> dict[str, dict]:
    """What each of HUB gives, and a preparation, all asked in one process."""
    directory = tmp_path_factory.mktemp("hub") / "data"
    with Hub() as hub:
        commits = {name: hub.add_dataset(name, files) for name, files in HUB_DATASETS.items()}
        older = hub.add_dataset("own/moved", {"train.jsonl": b'{"text": "older"}\n'})
        commits["own/moved"] = hub.add_dataset("own/moved", {"train.jsonl": b'{"text": "newer"}\n'})
        asked = [(source.replace("{older}", older), options, skip) for source, options, skip, *_ in HUB.values()]
        config = {"sources": ["hub:own/plain", f"hub:own/moved@{older}"], "min_characters": 1,
                  "validation_sources": ["hub:own/configs:en"]}
        *answers, manifest = read_hub(hub.environment(), repository, read=asked, prepare=config,
                                      directory=str(directory))
    return {**dict(zip(HUB, answers, strict=True)), "commits": commits, "older": older, "manifest": manifest,
            "directory": directory}


@pytest.mark.parametrize("case", HUB)
def test_the_hub_gives_its_documents_or_a_line_that_says_why_not(hub_answers, case):
    source, _, skip, texts, message = HUB[case]
    answer = hub_answers[case]
    if message is None:
        assert answer["error"] is None
    else:
        assert answer["error"].startswith(message)
        assert answer["error"].endswith(STREAMED if "streamed" in message else message)
        assert len(answer["error"].splitlines()) == 1
    if texts is not None:
        name, _, configuration = source.removeprefix("hub:").split("@")[0].partition(":")
        shown = f"{name}:{configuration}" if configuration else name
        assert answer["documents"] == [[f"{shown}:{number}", name, text] for number, text in enumerate(texts, 1 + skip)]


def test_a_data_set_is_pinned_to_the_commit_it_is_at(hub_answers):
    commits, older = hub_answers["commits"], hub_answers["older"]
    assert hub_answers["a split"]["identity"] == f"hub:own/plain {commits['own/plain']}"
    assert hub_answers["an older revision"]["identity"] == f"hub:own/moved@{older} {older}"
    assert hub_answers["the branch it is on now"]["identity"] == f"hub:own/moved@main {commits['own/moved']}"


def test_a_preparation_from_the_hub_tells_the_commits_it_read(hub_answers):
    manifest, commits, older = (hub_answers[key] for key in ("manifest", "commits", "older"))
    assert manifest["revisions"] == {"hub:own/plain": commits["own/plain"], f"hub:own/moved@{older}": older,
                                     "hub:own/configs:en": commits["own/configs"]}
    assert manifest["counts"] == {"read": 6, "too_short": 1, "duplicates": 0, "unicode_normalised": 0,
                                  "without_text": 1}
    assert [document.text for document in read_documents(hub_answers["directory"] / "train.jsonl")] == [
        "one", "three 😀", "older"]
    assert list(read_documents(hub_answers["directory"] / "validation.jsonl")) == [
        Document("own/configs:en:1", "own/configs", "English"), Document("own/configs:en:2", "own/configs", "more")]


def test_a_hub_that_does_not_answer_is_said_with_the_way_to_work_offline(repository):
    with Hub() as hub:
        environment = hub.environment()
    (answer,) = read_hub(environment, repository, read=[("hub:own/plain", {}, 0)])
    assert answer["error"] == (
        "hub:own/plain: the hub cannot be reached (ConnectError). To work offline, fetch it once where there is a "
        "network (`hf download --repo-type dataset own/plain --local-dir DIR`) and name its files as the source, for "
        "instance 'DIR/**/*.parquet'.")


# --- real data ----------------------------------------------------------------------------------------------------

@pytest.mark.real_data
@pytest.mark.parametrize("name", ["valid", "test"])
def test_wikitext_is_an_article_a_title(shared_data, name):
    path = shared_data / f"wikitext-2/{name}.txt"
    lines = path.read_text(encoding="utf-8").split("\n")
    titles = [line[3:-3] for line in lines if re.fullmatch(r" = [^=].* = ", line) and not line.endswith(" = = ")]
    documents = list(iterate_documents([str(path)], Reading(txt_documents="wikitext")))
    assert [document.text.split("\n")[0] for document in documents] == titles
    assert len(documents) == {"valid": 60, "test": 62}[name]
    words = [word for line in lines for word in line.split() if word != "="]
    assert [word for document in documents for word in document.text.split() if word != "="] == words


@pytest.mark.real_data
def test_shakespeare_is_a_document_a_speech(shared_data):
    path = shared_data / "shakespeare/input.txt"
    documents = list(iterate_documents([str(path)], Reading(txt_documents="blank-line")))
    assert len(documents) == 7222
    assert documents[1] == Document("input.txt:4", "input.txt", "All:\nSpeak, speak.")
    assert "\n\n".join(document.text for document in documents) == normalise(path.read_text(encoding="utf-8"))


@pytest.mark.real_data
def test_a_book_is_a_document_a_chapter(shared_data):
    path = shared_data / "books/anthony-trollope/barchester-towers.md"
    documents = list(iterate_documents([str(path)], Reading(md_documents="heading")))
    assert [document.text.split("\n")[0] for document in documents[:4]] == [
        "Title: Barchester Towers", "Author: Anthony Trollope", "Year: 1857",
        "CHAPTER I - Who Will Be the New Bishop?"]
    assert sum(document.text.startswith("CHAPTER ") for document in documents) == 53 == len(documents) - 3
    (whole,) = iterate_documents([str(path)])
    assert normalise("\n\n".join(document.text for document in documents)) == whole.text
    assert documents[3].name == "barchester-towers.md:9"
