"""Columns as CoNLL has them: a word a line, its tags beside it, an empty line between sentences."""

import re
from collections.abc import Iterator
from pathlib import Path

from toolkit.data.tables.sources import Reading, read_lines
from toolkit.errors import UserError, did_you_mean

CONLL_U = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_NAMES = re.compile(r"#\s*global\.columns\s*=\s*(.+)")
_NO_WORD = re.compile(r"\d+[-.]\d+")
"""CoNLL-U's numbers of contractions, whose words follow, and of words that were left out."""
_DOCUMENT = "-DOCSTART-"


def read_conll(path: Path, word_column: str, tag_column: str, section: str, reading: Reading
               ) -> Iterator[tuple[str, list[str], list[str]]]:
    """(where it begins, its words, its tags) of each sentence.

    Columns are parted by tabs where the first line with a word has one, else by blanks. Names of columns come from
    CoNLL-U, where there are ten and the first is a number, or from `# global.columns`. A line that begins with # is a
    comment where no sentence has begun and it has not as many columns as a word, before the first word no tab.
    """
    table, words, tags, begun = None, [], [], 0
    names: list[str] = []
    for number, line in read_lines(path, reading):
        line = line.rstrip("\r\n")
        if not line.strip() or line.startswith(_DOCUMENT):
            if words:
                yield f"{path}, line {begun}", words, tags
                words, tags = [], []
            continue
        if found := _NAMES.match(line):
            names = found[1].split()
            continue
        cells = _cells(line, "\t" in line if table is None else table.tabs)
        is_word = "\t" in line if table is None else len(cells) == table.columns
        if line.startswith("#") and not words and not is_word:
            continue
        if table is None:
            table = _Table(cells, "\t" in line, names, word_column, tag_column, section, f"{path}, line {number}",
                           reading, path)
        if len(cells) != table.columns:
            raise UserError(f"{path}, line {number}: has {len(cells)} columns, and those before have {table.columns}. "
                            f"Repair the line.")
        if table.is_conll_u and _NO_WORD.fullmatch(cells[0]):
            continue
        word, tag = cells[table.word], cells[table.tag]
        if not word.strip() or not tag.strip():
            raise UserError(f"{path}, line {number}: the {'tag' if word.strip() else 'word'} is empty. Repair the "
                            f"line.")
        begun = begun if words else number
        words.append(word.strip())
        tags.append(tag.strip())
    if words:
        yield f"{path}, line {begun}", words, tags


def _cells(line: str, tabs: bool) -> list[str]:
    return line.split("\t") if tabs else line.split()


class _Table:
    """Which of the columns are the words and the tags, by the first line that has a word."""

    def __init__(self, cells: list[str], tabs: bool, names: list[str], word_column: str, tag_column: str, section: str,
                 place: str, reading: Reading, path: Path):
        self.tabs, self.columns = tabs, len(cells)
        self.is_conll_u = not names and tabs and len(cells) == len(CONLL_U) and cells[0].split("-")[0].isdecimal()
        names = list(CONLL_U) if self.is_conll_u else names
        if self.columns < 2:
            raise UserError(f"{place}: has one column. A word and its tag stand in two, parted by a tab or blanks.")
        usual = ("FORM", "UPOS") if {"FORM", "UPOS"} <= set(names) else ("1", str(self.columns))
        self.word, self.tag = (self._place(given or default, key, names, section, place) for given, default, key in (
            (word_column, usual[0], "word_column"), (tag_column, usual[1], "tag_column")))
        if self.word == self.tag:
            raise UserError(f"{place}: column {1 + self.word} is to be the words and the tags ({section}word_column, "
                            f"{section}tag_column). Name two.")
        if self.is_conll_u and not (word_column and tag_column):
            reading.tell(path, f"CoNLL-U: words are {names[self.word]}, tags {names[self.tag]}")

    def _place(self, column: str, key: str, names: list[str], section: str, place: str) -> int:
        if column in names:
            found = names.index(column) + 1
        elif column.isdecimal():
            found = int(column)
        else:
            known = f"; it has {', '.join(names)}" if names else ", and its columns have no names"
            raise UserError(f"{place}: has no column '{column}' ({section}{key}){known}. Give a number, from 1 on"
                            f"{did_you_mean(column, names) or '.'}")
        if not 1 <= found <= self.columns:
            raise UserError(f"{place}: has {self.columns} columns, and column {found} was asked for ({section}{key}).")
        return found - 1
