"""Preparing data holds few times what its longest document holds, whatever the shape of the input.

Each shape is read by a process of its own, whose peak is looked at: daily with documents of 6 MB, in the hostile tests
as long as they may be.
"""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import mutation
import numpy as np
import pandas as pd
import pytest

from toolkit import regular
from toolkit.data.series.readers import read_values
from toolkit.data.tables import sources
from toolkit.data.tables.labels import numbered
from toolkit.data.tables.parquet_batches import parquet_batches
from toolkit.data.tables.sources import LONGEST, json_object, list_parts, read_table_rows
from toolkit.data.tables.table_files import read_columns
from toolkit.data.text.corpus import iterate_sentences, normalise, sentences
from toolkit.data.text.documents import read_part
from toolkit.errors import UserError
from toolkit.run.binary import saved_arrays

SMALL, LARGE = 6 * 2**20, LONGEST - 2**20
TIMES = 8
"""What a document may take, beside what the process takes: its bytes, its text, cleaned, written, and their copies."""
BESIDE = 200e6
"""At any size: rows of parquet at once, blocks of a text, what is tokenised at once."""

CHILD = """
import sys
from pathlib import Path
from tokenizers import Tokenizer, models, pre_tokenizers
import pyarrow.parquet
from toolkit.data.stores.shards import write_shard
from toolkit.data.text.corpus import CorpusConfig, prepare_corpus

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

source, folder, rule = sys.argv[1:]
folder = Path(folder)
(folder / "validation.txt").write_text("Something to validate with. " * 9)
config = CorpusConfig([source], validation_sources=[str(folder / "validation.txt")], txt_documents=rule,
                      min_characters=1)
before = peak()
prepare_corpus(config, folder / "corpus", False)
letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
tokenizer = Tokenizer(models.BPE(letters, []))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
text = folder / "corpus/train.jsonl"
(folder / "store").mkdir()
write_shard(folder / "store", {"shards": [[0, 0, text.stat().st_size]], "dtype": "uint16", "append_id": 0,
            "text": str(text), "language": "en", "unknown_id": None}, tokenizer, 0)
print(peak() - before)
"""


def fill(unit: str, size: int) -> str:
    return unit * (size // len(unit.encode()))


def parquet(path: Path, size: int) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = pyarrow.array([fill("ab cd ", size)] * 16)  # of more than 1 GB it would be refused
    parquet.write_table(pyarrow.table({"text": rows}), path, compression="zstd")
    assert path.stat().st_size < size / 20


SHAPES = {
    "lines of two characters": (".txt", "file", "ab\n"),
    "ended as on old Macs": (".txt", "file", "ab\r"),
    "blanks at their ends": (".txt", "file", "ab \n"),
    "paragraphs of two characters": (".txt", "file", "ab\n\n"),
    "empty lines": (".txt", "file", "ab" + 99 * "\n"),
    "sentences of two characters": (".txt", "file", "A. "),
    "one line": (".txt", "file", "ab cd ef gh "),
    "one word": (".txt", "file", "ab"),
    "documents of four characters": (".txt", "line", "ab c\n"),
    "few compressed bytes": (".parquet", "file", None),
}
DAILY = ("lines of two characters", "sentences of two characters", "one word", "few compressed bytes")


def taken(folder: Path, shape: str, size: int) -> int:
    """Bytes at the peak, beyond those of the process before it."""
    suffix, rule, unit = SHAPES[shape]
    path = folder / f"source{suffix}"
    if unit is None:
        parquet(path, size)
    else:
        path.write_bytes(fill(unit, size).encode())
    run = subprocess.run([sys.executable, "-c", CHILD, str(path), str(folder), rule], capture_output=True, text=True,
                         check=False, env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr[-2000:]
    return int(run.stdout)


@pytest.mark.parametrize("shape", DAILY)
def test_a_small_one_of_any_shape(tmp_path, shape):
    assert taken(tmp_path, shape, SMALL) < TIMES * SMALL + BESIDE


@pytest.mark.hostile
@pytest.mark.parametrize("shape", SHAPES)
def test_the_longest_of_any_shape(tmp_path, shape):
    times = TIMES + (SHAPES[shape][0] == ".parquet")  # the page that a value stands in is unpacked beside it
    assert taken(tmp_path, shape, LARGE) < times * LARGE + BESIDE


@pytest.mark.parametrize("text", ["Ab. Cd. ", "One, two. Dr. Who went. \"Yes.\" No. ", "a b c ", "Eh?\n\nOh. ", "A.\n"])
def test_sentences_taken_some_at_a_time_are_the_same(monkeypatch, text):
    from toolkit.data.text import corpus

    whole = normalise(text * 400)
    expected = sentences(whole)
    monkeypatch.setattr(corpus, "_AT_ONCE", 200)
    assert list(iterate_sentences(whole)) == expected
    assert normalise(text * 400) == whole


LONG = 200_000
LINES = {
    "heading": (".md", {}, "# a" + " #" * LONG + "x"), "blanks of a heading": (".md", {}, "# a" + " " * LONG + "x"),
    "fence": (".md", {}, "`" * LONG + "x`"),
    "article": (".txt", {"txt_documents": "wikitext"}, "= a" + " =" * LONG + "x"),
    "sentence": (".txt", {}, "A" + " ./" * LONG + "x")}


@pytest.mark.parametrize("name", LINES)
def test_no_line_takes_time_out_of_proportion_to_its_length(tmp_path, name):
    """A pattern that tries every place with every other takes hours for a line of this length."""
    suffix, reading, line = LINES[name]
    (tmp_path / f"a{suffix}").write_text(f"{line}\nA line after it.\n")
    with mutation.within(30):
        (part,) = list_parts(str(tmp_path / f"a{suffix}"))
        texts = [document.text for document in read_part(part, sources.Reading(**reading))]
        assert "".join(texts).strip().endswith("A line after it.")
        if name == "sentence":
            assert "".join(sentences(texts[0])) == texts[0]


def test_no_cell_takes_time_out_of_proportion_to_its_length():
    places = ["a", "b"]
    with mutation.within(30):
        assert numbered(["1", "9" * LONG + "x"], places, "label", None, "train", print)[0].tolist() == [0, 1]
        assert numbered(["1.", ".5e3"], places, "label", None, "train", print)[1] == ("1", "500")


def test_json_of_many_parts_is_refused_and_a_text_with_many_commas_is_not(monkeypatch):
    monkeypatch.setattr(sources, "MOST_PARTS", 1000)
    assert json_object('{"text": "' + "a, [b], {c} \\\" , " * 1000 + '"}', "x")["text"].count(",") == 3000
    for value in ("[" + "[]," * 1000 + "[]]", "[" + "0," * 1000 + "0]", "{" + '"":{},' * 1000 + '"":{}}'):
        with pytest.raises(UserError, match="^x: holds more than 1,000 values"):
            json_object(f'{{"text": "a", "x": {value}}}', "x")


def test_a_row_of_many_cells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MOST_PARTS", 1000)
    (tmp_path / "a.csv").write_text("text\n" + "," * 1001 + "\n")
    with pytest.raises(UserError, match="a.csv, line 2: holds more than 1,000 cells"):
        list(read_table_rows(tmp_path / "a.csv", sources.Reading()))


def test_many_files_take_little_each(tmp_path):
    import tracemalloc

    for number in range(500):
        (tmp_path / f"{number}.txt").touch()
    tracemalloc.start()
    parts = list_parts(str(tmp_path))
    each = tracemalloc.get_traced_memory()[0] / len(parts)
    tracemalloc.stop()
    assert each < 1000, f"a million files would take {each / 1e3:.1f} GB"


# --- small files that unpack to much, or say that they do ----------------------------------------------------------


def arrays_told(count: int) -> bytes:
    """An .npy whose header tells of so many numbers, of which there are ten."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2, count)})
    return file.getvalue() + bytes(80)


def packed(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("values.npy", data)
    return path


def test_an_array_is_as_long_as_its_header_says(tmp_path):
    assert saved_arrays(packed(tmp_path / "a.npz", arrays_told(5)))["values"].shape == (2, 5)
    (tmp_path / "a.npy").write_bytes(arrays_told(10**11))
    for path in (tmp_path / "a.npy", packed(tmp_path / "b.npz", arrays_told(10**11)),
                 packed(tmp_path / "c.npz", arrays_told(4))):
        with pytest.raises(UserError, match="does not fit the 80 bytes"):
            read_values(path)


def test_an_npz_that_unpacks_to_very_much_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(regular, "LARGEST_UNPACKED", 2**20)
    file = io.BytesIO()
    np.save(file, np.zeros((2, 2**20)))
    with pytest.raises(UserError, match="unpacks to .* Save it unpacked: np.savez"):
        read_values(packed(tmp_path / "a.npz", file.getvalue()))
    np.savez(tmp_path / "plain.npz", values=np.zeros((2, 2**20)))
    np.savez_compressed(tmp_path / "small.npz", values=np.zeros((2, 1000)))
    assert len(read_values(tmp_path / "plain.npz")[0]) == len(read_values(tmp_path / "small.npz")[0]) == 2


def test_a_parquet_that_unpacks_to_very_much_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": ["a" * 2**20], "label": ["x"]}).to_parquet(path, compression="zstd")
    assert len(list(parquet_batches(path))) == 1
    monkeypatch.setattr(regular, "LARGEST_UNPACKED", 2**10)
    with pytest.raises(UserError, match="unpacks to .* smaller row groups"):
        list(parquet_batches(path))
    pd.DataFrame({"load": np.zeros(10**6)}).to_parquet(path)
    with pytest.raises(UserError, match="unpacks to .* Leave out columns or rows"):
        read_columns(path)


def test_a_text_that_all_rows_of_a_table_share_is_held_once(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    note = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1999 + [None]), pyarrow.array(["ab" * 10**5]))
    parquet.write_table(pyarrow.table({"load": np.arange(2000.0), "note": note}), path, store_schema=False)
    columns, places = read_columns(path)
    assert {len(cell) for cell in columns["note"]} == {200_000, 0} and columns["note"][-1] == ""
    assert len({id(cell) for cell in columns["note"][:-1]}) == 1, "400 MB"
    assert columns["load"].tolist() == list(range(2000)) and places[-1] == "row 2000"
