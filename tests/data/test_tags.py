"""Sentences with tags from every kind of file, and what is said of those that are odd."""

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import small

from toolkit.data.tags.paths import allowed, best_path
from toolkit.data.tags.settings import TagsSection
from toolkit.data.tags.tag_files import load_tags, read_tagged
from toolkit.data.tags.word_bounds import spans_of_words, words_in
from toolkit.errors import UserError
from toolkit.metrics.tagging import unopened

SHARED = small.ROOT.parent / "shared/data"
ROWS = [("Anna", "B-person"), ("Karenina", "I-person"), ("left", "O"), (".", "O")], [("Moscow", "B-place")]
SENTENCES = [[word for word, _ in rows] for rows in ROWS], [[tag for _, tag in rows] for rows in ROWS]


def read(path: Path, **options):
    told = []
    found = read_tagged([str(path)], TagsSection(train=[str(path)], **options), note=told.append)
    return found, told


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def conll(sentences=ROWS, join="\t") -> str:
    return "\n\n".join("\n".join(join.join(row) for row in rows) for rows in sentences) + "\n"


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.iob", "a.tsv", "a.conll.gz"])
def test_columns(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(conll().encode()) if name.endswith("gz") else conll().encode())
    found, told = read(path)
    assert (found.words, found.tags) == SENTENCES and not told
    assert found.places == [f"{path}, line 1", f"{path}, line 6"]


def test_columns_parted_by_blanks_with_documents_and_comments(tmp_path):
    text = ("-DOCSTART- -X- O O\n\n# a comment of its own\nEU NNP B-NP B-org\nrejects VBZ B-VP O\n\n"
            "# # B-NP O\n1 CD I-NP O\n")
    found, _ = read(write(tmp_path / "a.conll", text))
    assert found.words == [["EU", "rejects"], ["#", "1"]] and found.tags == [["B-org", "O"], ["O", "O"]]
    found, _ = read(tmp_path / "a.conll", tag_column="2")
    assert found.tags == [["NNP", "VBZ"], ["#", "CD"]]


def test_a_word_may_begin_with_the_sign_of_comments(tmp_path):
    found, _ = read(write(tmp_path / "a.conll", "#first\tB-tag\nis\tO\n\n#second\tO\n"))
    assert found.words == [["#first", "is"], ["#second"]]


def test_conll_u(tmp_path):
    row = "{}\t{}\tlemma\t{}\tXP\t_\t0\troot\t_\t_\n"
    text = ("# text = I don't\n" + row.format(1, "I", "PRON") + row.format("2-3", "don't", "_") +
            row.format(2, "do", "AUX") + row.format(3, "n't", "PART") + row.format("3.1", "left", "VERB") + "\n")
    found, told = read(write(tmp_path / "a.conllu", text))
    assert found.words == [["I", "do", "n't"]] and found.tags == [["PRON", "AUX", "PART"]]
    assert told == [f"{tmp_path / 'a.conllu'}: CoNLL-U: words are FORM, tags UPOS"]
    assert read(tmp_path / "a.conllu", tag_column="XPOS")[0].tags == [["XP"] * 3]
    plus = write(tmp_path / "b.conllup", "# global.columns = ID FORM UPOS NER\n1\tI\tPRON\tO\n")
    assert read(plus, tag_column="NER")[0].words == [["I"]]


def test_lists_spans_and_rows(tmp_path):
    lists = write(tmp_path / "a.jsonl", "".join(json.dumps({"tokens": words, "ner_tags": tags}) + "\n"
                                                for words, tags in zip(*SENTENCES, strict=True)))
    spans = write(tmp_path / "b.jsonl", "".join(json.dumps(record) + "\n" for record in (
        {"text": "Anna Karenina left.", "spans": [{"start": 0, "end": 13, "label": "person"}]},
        {"text": "Moscow", "spans": [[0, 6, "place"]]})))
    rows = write(tmp_path / "c.csv", "Sentence #,Word,POS,Tag\n" + "".join(
        f"{'' if place else number},{word},X,{tag}\n" for number, rows in enumerate(ROWS)
        for place, (word, tag) in enumerate(rows)))
    named = write(tmp_path / "d.tsv", "sentence\tword\ttag\n" + "".join(
        f"{number}\t{word}\t{tag}\n" for number, rows in enumerate(ROWS) for word, tag in rows))
    for path in (lists, spans, rows, named):
        found, _ = read(path)
        assert (found.words, found.tags) == SENTENCES, path


def test_spans_that_cut_a_word_are_widened_and_told(tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "the Muscovites sang ", "spans": [
        [4, 10, "people"], [14, 20, "act"]]}) + "\n")
    found, told = read(path)
    assert found.tags == [["O", "B-people", "B-act"]]
    assert told == ["train: 1 spans begin or end within a word, and are widened to whole words",
                    "train: 1 spans begin or end with blanks, which are left off"]


def test_words_and_their_places():
    text = "Dr. Łoś–Nowak, 3.5 km; 東京へ"
    assert [text[start:stop] for start, stop in words_in(text)] == [
        "Dr", ".", "Łoś", "–", "Nowak", ",", "3", ".", "5", "km", ";", "東", "京", "へ"]
    words = words_in("twins here")
    assert spans_of_words([(0, 2, "a"), (2, 5, "b")], words, "x") == ([(0, 1, "a")], 2), "a word has one tag"


@pytest.mark.parametrize(("scheme", "first"), [(["I-a", "I-a", "B-a", "O"], "B-a"), (["S-a", "B-a", "E-a", "O"], "B-a"),
                                               (["U-a", "B-a", "L-a", "O"], "B-a")])
def test_schemes_become_bio(tmp_path, scheme, first):
    path = write(tmp_path / "a.conll", conll([list(zip(f"{n}bcd", scheme, strict=True)) for n in range(9)]))
    told = []
    train, _, test = load_tags(TagsSection(train=[str(path)], validation_share=0.2), told.append)
    assert train.tags[0][0] == first and not any(map(unopened, train.tags)) and test.kinds() == ["O", "B-a", "I-a"]
    assert any("are taken as BIO" in line for line in told)


def test_a_mixed_scheme_is_read_and_counted(tmp_path):
    path = write(tmp_path / "a.conll", conll([[(f"w{n}", "O"), ("a", "I-x" if n == 2 else "B-x"), ("b", "I-x")]
                                              for n in range(9)]))
    told = []
    train, _, _ = load_tags(TagsSection(train=[str(path)], validation_share=0.2), told.append)
    assert train.tags[2] == ["O", "B-x", "I-x"]
    assert told[0] == (f"train: 1 of 9 spans begin or end with a tag that cannot stand there, and are taken as spans "
                       f"all the same, the first in the sentence at {path}, line 9")


def test_what_training_never_shows_and_what_it_knows_already_is_told(tmp_path):
    train = write(tmp_path / "train.conll", conll([[(f"w{n}", "A"), ("x", "B")] for n in range(20)]))
    test = write(tmp_path / "test.conll", conll([[("w0", "A"), ("x", "B")], [("new", "C")]]))
    told = []
    _, validation, _ = load_tags(TagsSection(train=[str(train)], test=[str(test)]), told.append)
    assert told == [
        "validation: 2 of 20 training sentences, evenly spread, since data.validation is empty",
        f"test: 1 words have a tag that training never shows (C), the first in the sentence at {test}, line 4: they "
        "count as wrong", "test: 1 of 2 sentences are in train too, and flatter the model"]
    assert len(validation) == 2


@pytest.mark.parametrize(("name", "text", "words"), [
    ("a.conll", "a\tX\nb\n", "line 2: has 1 columns, and those before have 2"),
    ("a.conll", "a\nb\n", "line 1: has one column"), ("a.conll", "a\t\nb\tX\n", "line 1: the tag is empty"),
    ("a.conll", "# of nothing\n", "has no words"), ("a.conll", "a\tX\n\nb\tX\n", "every word has the tag 'X'"),
    ("a.jsonl", '{"words": ["a"], "tags": []}\n', "line 1: has 1 words and 0 tags"),
    ("a.jsonl", '{"words": "a b", "tags": ["X"]}\n', "'words' is no list of texts"),
    ("a.jsonl", '{"token": ["a"]}\n', "none of its columns is words or tokens"),
    ("a.jsonl", '{"text": "a b", "spans": [[0, 9, "x"]]}\n', "is no span of a text of 3 letters"),
    ("a.jsonl", '{"text": "abc d", "spans": [[0, 3, "x"], [2, 5, "y"]]}\n', "overlap, and a word has one tag"),
    ("a.jsonl", '{"text": "a  b", "spans": [[1, 2, "x"]]}\n', "holds no word"),
    ("a.csv", "sentence,word,tag\n1,a,\n", "line 2: the tag is empty"),
    ("a.csv", "sentence,words,tag\n1,a,X\n", "none of its columns is word or token or Word")])
def test_what_cannot_be_read_is_refused_by_line(tmp_path, name, text, words):
    path = write(tmp_path / name, text)
    with pytest.raises(UserError, match=words) as caught:
        load_tags(TagsSection(train=[str(path)]))
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("options", "words"), [
    ({"tag_column": "3"}, r"has 2 columns, and column 3 was asked for \(data.tag_column\)"),
    ({"tag_column": "ner"}, "has no column 'ner'"), ({"tag_column": "1"}, "is to be the words and the tags"),
    ({"scheme": "bio"}, "mark no spans, and data.scheme is bio"), ({"validation_share": 0.6}, "between 0 and 0.5")])
def test_options_that_do_not_fit_are_refused(tmp_path, options, words):
    path = write(tmp_path / "a.conll", "a\tX\nb\tY\n")
    with pytest.raises(UserError, match=words):
        load_tags(TagsSection(train=[str(path)], **options))


def test_the_best_path_is_the_best_of_all_that_are_allowed():
    tags = ["O", "B-a", "I-a", "B-b", "I-b"]
    first, after = allowed(tags)
    assert not first[[2, 4]].any() and after[1].tolist() == [True, True, True, True, False]
    for seed in range(30):
        scores = np.random.default_rng(seed).normal(size=(4, len(tags)))
        paths = [path for path in itertools.product(range(len(tags)), repeat=4)
                 if first[path[0]] and all(after[a, b] for a, b in itertools.pairwise(path))]
        best = max(paths, key=lambda path: sum(scores[place, tag] for place, tag in enumerate(path)))
        assert best_path(scores, first, after).tolist() == list(best)
    assert all(part.all() for part in allowed(["NOUN", "VERB"]))


@pytest.mark.real_data
def test_real_files():
    folder = SHARED / "wnut17"
    train, validation, test = load_tags(TagsSection(
        train=[str(folder / "train.conll")], validation=[str(folder / "dev.conll")], test=[str(folder / "test.conll")]))
    assert (len(train), len(validation), len(test)) == (3394, 1009, 1287) and len(train.kinds()) == 13
    words = SHARED / "ud_ewt"
    parts = load_tags(TagsSection(train=[str(words / "train.conll.gz")], validation=[str(words / "dev.conll.gz")],
                                  test=[str(words / "test.conll.gz")], tag_column="2"))
    assert tuple(map(len, parts)) == (12544, 2001, 2077) and len(parts[0].kinds()) == 17
