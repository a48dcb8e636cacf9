"""Pairs of texts: read from every kind of file, refused in a line, batched by length; the grammar of dates."""

import datetime
import gzip
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hub import Hub

from toolkit.data.batches import IGNORED
from toolkit.data.pairs.batches import PairBatches, TokenIds
from toolkit.data.pairs.grammar import HELD_OUT, TEMPLATES, dates_and_numbers, number_words, reversals, written_date
from toolkit.data.pairs.grammar import year_words as said
from toolkit.data.pairs.pair_files import PairsSection, load_pairs, read_pairs
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.errors import UserError
from toolkit.tokenization.train import TokenizerSpec, train_tokenizer

SOURCES = [f"ein Satz mit {number_words(n)}" for n in range(60)]
TARGETS = [f"a sentence with {n}" for n in range(60)]


def wrote(path, lines) -> str:
    text = "".join(line + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.fixture
def aligned(tmp_path):
    return [wrote(tmp_path / "a.de.gz", SOURCES), wrote(tmp_path / "a.en", TARGETS)]


@pytest.mark.parametrize("kind", ["aligned", "tsv", "csv", "jsonl", "jsonl.gz", "parquet", "languages", "txt"])
def test_every_kind_of_file_gives_the_same_pairs(tmp_path, aligned, kind):
    if kind == "tsv":
        files = [wrote(tmp_path / "p.tsv", ["target\tsource"] + [f"{b}\t{a}" for a, b in zip(SOURCES, TARGETS,
                                                                                         strict=True)])]
    elif kind == "csv":
        files = [wrote(tmp_path / "p.csv", ["source,target"] + [f"{a},{b}" for a, b in zip(SOURCES, TARGETS,
                                                                                         strict=True)])]
    elif kind == "jsonl":
        files = [wrote(tmp_path / "p.jsonl", [f'{{"source": "{a}", "target": "{b}"}}' for a, b in zip(
            SOURCES, TARGETS, strict=True)])]
    elif kind == "jsonl.gz":
        files = [wrote(tmp_path / "p.jsonl.gz", [f'{{"source": "{a}", "target": "{b}"}}' for a, b in zip(
            SOURCES, TARGETS, strict=True)])]
    elif kind == "parquet":
        pd.DataFrame({"target": TARGETS, "source": SOURCES}).to_parquet(tmp_path / "p.parquet")
        files = [str(tmp_path / "p.parquet")]
    elif kind == "languages":  # as WMT's sets on the hub
        pd.DataFrame({"translation": [{"de": a, "en": b} for a, b in zip(SOURCES, TARGETS, strict=True)]}).to_parquet(
            tmp_path / "p.parquet")
        files = [str(tmp_path / "p.parquet")]
    elif kind == "txt":  # as manythings.org writes them
        files = [wrote(tmp_path / "p.txt", [f"{a}\t{b}\tCC-BY" for a, b in zip(SOURCES, TARGETS, strict=True)])]
    else:
        files = aligned
    columns = {"source_column": "translation.de", "target_column": "translation.en"} if kind == "languages" else {}
    pairs = read_pairs(files, PairsSection(train=files, **columns))
    assert (pairs.sources, pairs.targets) == (SOURCES, TARGETS) and "p." in pairs.places[0] or "a.de" in pairs.places[0]


def test_what_is_held_out_never_stands_in_train(tmp_path):
    """A source that comes again with another target is held out with all of them."""
    files = [wrote(tmp_path / "a", SOURCES * 2), wrote(tmp_path / "b", TARGETS + [f"{text}!" for text in TARGETS])]
    told: list[str] = []
    parts = load_pairs(PairsSection(train=files, validation_share=0.1), told.append)
    sources = [set(part.sources) for part in parts]
    assert not sources[0] & (sources[1] | sources[2]) and not sources[1] & sources[2]
    assert sum(map(len, parts)) == 120 and any("validation is empty" in line for line in told)


def test_pairs_with_an_empty_side_are_left_out_and_told(tmp_path):
    files = [wrote(tmp_path / "a", [*SOURCES, "", "x"]), wrote(tmp_path / "b", [*TARGETS, "y", ""])]
    told: list[str] = []
    parts = load_pairs(PairsSection(train=files), told.append)
    assert sum(map(len, parts)) == 60 and any("2 of 62 pairs have an empty side" in line for line in told)


@pytest.mark.parametrize(("lines", "words"), [
    ((SOURCES, TARGETS[:-3]), "60 lines and .* 57: 3 more"),
    ((SOURCES[:5] + [""] + SOURCES[6:], TARGETS[:-1]), "part at line 6, which is empty in one of them"),
    ((SOURCES, []), "b: is empty"),
    ((SOURCES, SOURCES), "copy of its source"), ((["one"], ["eins"]), "1 pair"),
    ((["", ""], ["a", "b"]), "empty side")])
def test_files_that_are_no_pairs_are_refused_in_a_line(tmp_path, lines, words):
    files = [wrote(tmp_path / name, side) for name, side in zip("ab", lines, strict=True)]
    with pytest.raises(UserError, match=words) as refused:
        load_pairs(PairsSection(train=files))
    assert "\n" not in str(refused.value)


def test_columns_that_are_not_there_are_refused(tmp_path):
    file = wrote(tmp_path / "p.txt", ["a\tb", "c"])
    with pytest.raises(UserError, match="line 2: has 1 columns"):
        read_pairs([file], PairsSection(train=[file]))
    with pytest.raises(UserError, match="names 3 files"):
        read_pairs([file] * 3, PairsSection())
    with pytest.raises(UserError, match="test is not"):
        load_pairs(PairsSection(test=[file]))
    table = wrote(tmp_path / "p.csv", ["source,targt", "a,b"])
    with pytest.raises(UserError, match=r"no column 'target' \(data.target_column\). Did you mean 'targt'\?"):
        read_pairs([table], PairsSection(train=[table]))
    with pytest.raises(UserError, match="source_column and target_column are both 'source'"):
        read_pairs([table], PairsSection(train=[table], target_column="source"))
    lines = wrote(tmp_path / "p.jsonl", ['{"translation": {"de": "a", "en": "b"}}'])
    with pytest.raises(UserError, match="line 1: 'translation' holds de, en; expected a text for each of de and fr"):
        read_pairs([lines], PairsSection(source_column="translation.de", target_column="translation.fr"))


@pytest.mark.parametrize("lost", [1, 3])
def test_where_lines_were_lost_is_seen_by_their_lengths(tmp_path, lost):
    """Without an empty line; of either side."""
    random = np.random.default_rng(0)
    sources = ["x" * length for length in random.integers(5, 90, 400)]
    targets = [text + "y" * int(more) for text, more in zip(sources, random.integers(0, 6, 400), strict=True)]
    for sides in ((sources, targets[:150] + targets[150 + lost:]), (sources[:150] + sources[150 + lost:], targets)):
        files = [wrote(tmp_path / name, side) for name, side in zip("ab", sides, strict=True)]
        with pytest.raises(UserError, match=r"about line (\d+)\.") as refused:
            load_pairs(PairsSection(train=files))
        line = int(re.search(r"about line (\d+)", str(refused.value))[1])
        assert abs(line - 151) <= 3, line


@pytest.mark.parametrize(("row", "words"), [
    ('{"source": NaN, "target": "x"}', "line 61: 'source' is nan, of type float, not text"),
    ('{"source": "x", "target": 7}', "line 61: 'target' is 7, of type int, not text")])
def test_numbers_are_no_text(tmp_path, row, words):
    file = wrote(tmp_path / "p.jsonl", [f'{{"source": "{a}", "target": "{b}"}}' for a, b in zip(
        SOURCES, TARGETS, strict=True)] + [row])
    with pytest.raises(UserError, match=words):
        read_pairs([file], PairsSection())


def test_nan_in_a_csv_is_a_word(tmp_path):
    file = wrote(tmp_path / "p.csv", ["source,target", "nan,NaN", "x,"])
    assert read_pairs([file], PairsSection()).targets == ["NaN", ""]


def test_what_stands_in_train_too_is_told(tmp_path, aligned):
    """A source of the test that was learned with another target asks what was learned by heart, too."""
    test = [wrote(tmp_path / "c", SOURCES[:5] + ["neu"]), wrote(tmp_path / "d", TARGETS[:3] + ["x", "y", "z"])]
    told: list[str] = []
    load_pairs(PairsSection(train=aligned, test=test), told.append)
    assert "test: 5 of 6 sources are in train too, 3 of them with the same target, and flatter the model" in told
    parts = load_pairs(PairsSection(train=aligned, max_pairs=20, test=test), told.append)
    assert len(parts[0]) + len(parts[1]) == 20 and "train: the first 20 of 60 pairs (data.max_pairs)" in told


READ_HUB = """
import json, sys
from toolkit.data.pairs.pair_files import PairsSection, load_pairs
from toolkit.errors import UserError
for options in json.load(sys.stdin):
    told = []
    try:
        result = [[part.sources, part.targets] for part in load_pairs(PairsSection(**options), told.append)]
    except UserError as error:
        result = str(error)
    print(json.dumps([result, told]))
"""


def test_a_data_set_on_the_hub_brings_its_splits(repository):
    rows = ["".join(json.dumps({"translation": {"de": f"{name} {n}", "en": f"{n} {name}"}}) + "\n" for n in range(4))
            for name in ("eins", "zwei", "drei")]
    columns = {"source_column": "translation.de", "target_column": "translation.en"}
    asked = [{"train": ["hub:own/pairs"], **columns}, {"train": ["hub:own/pairs"]}, {"train": ["hub:own/none"]}]
    with Hub() as hub:
        hub.add_dataset("own/pairs", {f"{name}.jsonl": text.encode() for name, text in zip(
            ("train", "validation", "test"), rows, strict=True)})
        done = subprocess.run([sys.executable, "-c", READ_HUB], input=json.dumps(asked), cwd=repository,
                              env=hub.environment(), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    (parts, told), (no_column, _), (nowhere, _) = [json.loads(line) for line in done.stdout.splitlines()]
    assert [part[0][0] for part in parts] == ["eins 0", "zwei 0", "drei 0"] and parts[2][1][3] == "3 drei"
    assert told == ["validation: hub:own/pairs#validation, since data.validation is empty",
                    "test: hub:own/pairs#test, since data.test is empty"]
    assert no_column.startswith("hub:own/pairs#train, row 1: has no column 'source' (data.source_column).")
    assert nowhere.startswith("hub:own/none: no such data set on the hub")


# --- the grammar


@pytest.mark.parametrize(("number", "words"), [
    (0, "zero"), (13, "thirteen"), (40, "forty"), (342, "three hundred and forty-two"),
    (1_007, "one thousand and seven"),
    (20_100, "twenty thousand one hundred"), (999_999, "nine hundred and ninety-nine thousand nine hundred and "
                                                       "ninety-nine")])
def test_numbers_in_words(number, words):
    assert number_words(number) == words


def test_years_and_dates_as_they_are_said():
    assert [said(year) for year in (1800, 1907, 1998, 2000, 2007, 2018)] == [
        "eighteen hundred", "nineteen oh seven", "nineteen ninety-eight", "two thousand", "two thousand and seven",
        "twenty eighteen"]
    date = datetime.date(1998, 3, 22)
    assert written_date(date, (True, "day first", "fourth", "words")) == (
        "Sunday, the twenty-second of March nineteen ninety-eight")
    assert written_date(date, (False, "month first", "4th", "digits")) == "March 22nd, 1998"


def test_the_tests_dates_are_of_templates_that_training_never_shows():
    """Each of their parts it does show."""
    parts = [set(column) for column in zip(*(t for t in TEMPLATES if t not in HELD_OUT), strict=True)]
    assert all(part in shown for template in HELD_OUT for part, shown in zip(template, parts, strict=True))
    train, test = dates_and_numbers(3000, "train"), dates_and_numbers(800, "test")
    assert not set(train.sources) & set(test.sources)
    assert dates_and_numbers(3000, "train").sources == train.sources
    for source, target in zip(test.sources, test.targets, strict=True):
        if target.isdigit():
            assert source == number_words(int(target)) and int(target) % 7 == 6
        else:
            assert any(source == written_date(datetime.date.fromisoformat(target), template) for template in HELD_OUT)


def test_reversals_are_of_every_length():
    pairs = reversals(160, "train")
    assert all(a == b[::-1] for a, b in zip(pairs.sources, pairs.targets, strict=True))
    assert np.bincount([len(text) for text in pairs.sources])[1:].tolist() == [10] * 16


# --- batches


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TokenizerSpec("character", vocab_size=200, pre_tokenizer="characters", normalizer="none",
                                         special_tokens="gpt"), SOURCES + TARGETS, "spec", False)


def batches_of(tokenizer, pairs: TextPairs, limits=(64, 64), training=True) -> PairBatches:
    ids = TokenIds.of(tokenizer, "spec")
    return PairBatches(pairs, tokenizer, tokenizer, (ids, ids), limits, 8, 0, training)


def test_a_batch_is_a_function_of_its_step_and_holds_whole_pairs(tokenizer):
    pairs = TextPairs(SOURCES, TARGETS, SOURCES)
    batches = batches_of(tokenizer, pairs)
    first = batches.batch(3, range(8))
    for key, value in batches_of(tokenizer, pairs).batch(3, range(2, 5)).items():
        whole = first[key][2:5]
        assert (whole[:, : value.shape[1]] == value).all()  # padded to the longest of the rows that are asked for
    row = first["labels"][0]
    target = tokenizer.decode(row[(row != IGNORED) & (row != batches.target_ids.end)])
    place = TARGETS.index(target)
    kept = first["input_ids"][0][first["attention_mask"][0] == 1]
    assert tokenizer.decode(kept[:-1]) == SOURCES[place] and kept[-1] == batches.source_ids.end
    assert first["decoder_input_ids"][0, 0] == batches.target_ids.start
    np.testing.assert_array_equal(first["decoder_input_ids"][0, 1:][row[:-1] != IGNORED], row[:-1][row[:-1] != IGNORED])


def test_an_epoch_shows_every_pair_once(tokenizer):
    pairs = TextPairs(SOURCES[:56], TARGETS[:56], SOURCES[:56])
    batches = batches_of(tokenizer, pairs)
    seen = np.concatenate([batches.buckets.examples(step) for step in range(7)])
    assert sorted(seen) == list(range(56))


def test_what_is_too_long_is_cut_or_left_out_and_counted(tokenizer):
    pairs = TextPairs(["a" * 50, "b"], ["x", "y" * 50], ["1", "2"])
    learned = batches_of(tokenizer, pairs, (20, 20))
    assert (len(learned), learned.left_out, learned.cut) == (1, 1, 1)
    assert list(learned.notes("train")) == [
        "train: 1 of 1 sources have 20 tokens or more and are read up to there (data.max_source_length)",
        "train: 1 pairs are left out, since their targets have 20 tokens or more (data.max_target_length)"]
    asked = batches_of(tokenizer, pairs, (20, 20), training=False)
    assert (len(asked), asked.left_out, asked.cut) == (2, 0, 1)
    assert asked.target_lengths.tolist() == [2, 51]
    with pytest.raises(UserError, match="max_target_length"):
        batches_of(tokenizer, TextPairs(["a"], ["y" * 50], ["1"]), (20, 20))


def test_letters_that_the_tokenizer_never_saw_are_told(tokenizer):
    asked = batches_of(tokenizer, TextPairs(["ein", "Ω"], ["ж", "one"], ["p, line 1", "p, line 2"]), training=False)
    assert list(asked.notes("test")) == [
        "test: 1 of 2 sources hold what their tokenizer does not know, the first at p, line 2: they are read without",
        "test: 1 of 2 targets hold what their tokenizer does not know, the first at p, line 1: no answer can hold it"]


def test_another_seed_draws_another_order_of_the_same_tokens(tokenizer):
    pairs = TextPairs(SOURCES, TARGETS, SOURCES)
    batches, fresh = batches_of(tokenizer, pairs), batches_of(tokenizer, pairs)
    other = batches.drawn_by(5, 4)
    assert other.sources is batches.sources and len(other.batch(0, range(4))["labels"]) == 4
    assert not np.array_equal(other.buckets.examples(0), batches.buckets.examples(0)[:4])
    np.testing.assert_array_equal(batches.buckets.examples(2), fresh.buckets.examples(2))


def test_a_tokenizer_without_a_start_starts_with_what_it_has(tokenizer):
    only_end = TokenIds.of(tokenizer, "spec")
    assert only_end.start == only_end.end == only_end.pad == tokenizer.eos_token_id
    spec = TokenizerSpec("wordpiece", vocab_size=60, pre_tokenizer="bert", normalizer="bert", special_tokens="bert")
    wordpiece = train_tokenizer(spec, SOURCES + TARGETS, "spec", False)
    ids = TokenIds.of(wordpiece, "spec")
    assert (ids.start, ids.end, ids.pad) == (wordpiece.cls_token_id, wordpiece.sep_token_id, wordpiece.pad_token_id)
