"""Texts with labels, out of files and hub data sets. What is wrong is refused by line, what is decided is counted."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from toolkit.data.parts import Parts
from toolkit.data.tables.labels import LabelSpec, Note, read_labels, refuse
from toolkit.data.tables.rows import SPLITS, hub_splits, read_rows, whole_rows
from toolkit.data.tables.sources import Reading, file_kind, read_lines
from toolkit.data.text.documentation_task import documentation_splits
from toolkit.data.text.examples import LabelledText, split_off
from toolkit.errors import UserError

LongTexts = Literal["windows", "head", "head+tail"]

CHARACTERS = 64
"""For each token of max_length so many characters of a text are kept: ten times what a token has."""


@dataclass
class TextDataSection(LabelSpec):
    COMMON = ("train", "validation", "test", "text_column", "label_column", "task", "shots", "max_length")

    train: str = ""
    """A .tsv, .csv, .jsonl or .parquet file, plain, .gz or .zst, a glob or folder of them, or a hub data set,
    hub:owner/name[:configuration][@revision][#split]; empty for the built-in task on the corpus in `corpus_dir`."""
    validation: str = ""
    """Empty: the hub data set's own, where `train` is one that has it; else validation_share of the training rows."""
    test: str = ""
    """Empty: the hub data set's own."""
    validation_share: float = 0.1
    """Share of each class (multi-label, distribution, regression: every so manyth row) that becomes validation."""
    encoding: str = ""
    """Of .csv, .tsv and .jsonl files that are not UTF-8 and have no byte-order mark: latin-1, cp1252, shift_jis, …"""
    decimal: Literal["", ",", "."] = ""
    """Decimal comma or point of numbers in .csv and .tsv files; empty: found, and refused where it could be either."""
    text_column: str = "text"
    text_pair_column: str = ""
    """A second text, read by the model together with the first: question and answer, premise and hypothesis."""
    corpus_dir: str = ""
    """Built-in task: a data_dir of python-docs; train passages from its train documents, test from validation's."""
    shots: int | None = None
    """Labelled examples of each class; default all."""
    max_length: int = 256
    """Longer texts are cut to this many tokens. More than the model has positions are read in windows."""
    long_texts: LongTexts = "windows"
    """Of a text longer than the model has positions: windows that are pooled together, the head alone, or half head and
    half tail (Sun et al. 2019)."""
    max_unknown: float = 0.5
    """The share of the characters of the training texts that a model's tokenizer may not know, alone or in a word."""


class TextRow(NamedTuple):
    """A row of texts without labels, or whose labels are not read."""

    place: str
    """Such as `my.csv, line 3`."""
    text: str
    pair: str | None
    columns: dict[str, object]
    """All of them as they stand, in the file's order."""


def load_data(data: TextDataSection, note: Note = lambda line: None) -> Parts:
    """Train, validation and test. `note` is told what was decided on the way, and how often."""
    _check_section(data)
    if data.corpus_dir:
        parts = documentation_splits(data.corpus_dir)
        _check_train(parts[0], data.corpus_dir, data.section, note)
    else:
        sources = _sources(data, note)
        train = read_labelled(sources["train"], data, note=note)
        _check_train(train, sources["train"], data.section, note)
        validation, test = (read_labelled(sources[role], data, role, train.label_names, note) if sources[role] else None
                            for role in ("validation", "test"))
        if validation is None:
            train, validation = _own_validation(train, data, note)
        parts = train, validation, test
    _tell_of_absent_classes(parts, note)
    _tell_of_duplicates(parts, note)
    return Parts(*parts)


def read_table(path: str | Path, text_column: str = "text", label_column: str = "label",
               label_names: tuple[str, ...] | None = None) -> LabelledText:
    """Texts of one class each. Given `label_names` (those of the training file), a label outside them is an error."""
    return read_labelled(str(path), TextDataSection(text_column=text_column, label_column=label_column),
                         label_names=label_names)


def read_labelled(source: str, data: TextDataSection, role: str = "train", label_names: tuple[str, ...] | None = None,
                  note: Note = lambda line: None) -> LabelledText:
    """All rows of a source. Labels are numbered in the order of their names, which training gives the other splits."""
    text_columns = [column for column in (data.text_column, data.text_pair_column) if column]
    keys = dict(zip(text_columns, ("text_column", "text_pair_column"), strict=False))
    keys |= dict.fromkeys(data.label_columns, "label_columns") or {data.label_column: "label_column"}
    at, limit, long = data.section, CHARACTERS * data.max_length, 0
    places, texts, cells = [], [[] for _ in text_columns], []
    numbers = data.label_columns or [data.label_column] * (data.task == "regression")
    reading = Reading(encoding=data.encoding, decimal=data.decimal, options=at, note=note)
    for place, row in read_rows(source, role, keys, at, reading, numbers):
        places.append(place)
        for column, kept, text in zip(text_columns, texts, row, strict=False):
            text = _checked_text(text, place, column, at)
            if len(text) > limit:  # a cell of 10 MB must cost no more than what the model can read of it
                long, text = long + 1, shortened(text, data.max_length, data.long_texts)
            kept.append(text)
        labels = row[len(text_columns):]
        cells.append(labels if data.label_columns else labels[0])
    if not places:
        raise UserError(f"{source}: has no rows ({at}{role}). Give it texts with labels.")
    for column, kept in zip(text_columns, texts, strict=True):
        refuse([not text.strip() for text in kept], places, lambda i, column=column: f"'{column}' is empty",
                "Fill or remove them.")
    if long:
        note(f"{role}: {long:,} texts of more than {limit:,} characters were cut to that before tokenising; "
             f"{at}max_length is {data.max_length} tokens")
    labels, names = read_labels(data, cells, places, label_names, role, note)
    return LabelledText(texts[0], labels, names, texts[1] if data.text_pair_column else None, data.task)


def shortened(text: str, max_length: int, long_texts: LongTexts) -> str:
    """No more of a text than `max_length` tokens can come from; cut once or again, it is the same."""
    limit = CHARACTERS * max_length
    if len(text) > limit:
        text = text.strip()
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} {text[-(limit // 2):]}" if long_texts == "head+tail" else text[:limit]


def text_rows(source: str, text_column: str = "text", text_pair_column: str = "", option: str = "file",
              reading: Reading | None = None) -> Iterator[TextRow]:
    """Every row of a source, or every line of a .txt file that is not blank, with all that stands in it.

    option: what the caller names the source by. reading: the encoding, what it is called in the caller's options, and
    who is told how tables are written.
    """
    if file_kind(Path(source)) == ".txt":
        if text_pair_column:
            raise UserError(f"{source}: a .txt file has no columns, so no '{text_pair_column}'. Leave it out.")
        for number, line in read_lines(Path(source), reading or Reading()):
            if text := line.strip():
                yield TextRow(f"{source}, line {number}", text, None, {"text": text})
        return
    keys = {text_column: "text_column"} | ({text_pair_column: "text_pair_column"} if text_pair_column else {})
    for place, columns in whole_rows(source, option, keys, "", reading):
        texts = [_checked_text(columns[column], place, column, "") for column in keys]
        yield TextRow(place, texts[0], texts[1] if text_pair_column else None, columns)


# --- what is asked for, and what is told --------------------------------------------------------------------------


def _sources(data: TextDataSection, note: Note) -> dict[str, str]:
    """Split → where it is read. A data set on the hub that is named for training gives its own other splits too."""
    at = data.section
    sources = {"train": data.train, "validation": data.validation, "test": data.test}
    if data.train.startswith("hub:"):
        name = data.train.partition("#")[0]
        splits = hub_splits(name)
        for role in ("test", "validation"):
            own = next((f"{name}#{split}" for split in SPLITS[role] if split in splits), "")
            if own and not sources[role] and own not in sources.values():
                sources[role] = own
                note(f"{role}: {own}, since data.{role} is empty")
        if not sources["test"]:
            raise UserError(f"{at}test is empty, and {name} has no test split. Give {at}test, for instance "
                            f"one of its splits: {', '.join(f'{name}#{split}' for split in splits)}.")
    if not sources["test"]:
        raise UserError(f"{at.rstrip('.')}: give {at}train and {at}test, or {at}corpus_dir for the built-in "
                        f"task.")
    return sources


def _check_section(data: TextDataSection) -> None:
    at = data.section
    columns = [data.text_column, data.text_pair_column, *(data.label_columns or [data.label_column])]
    columns = [column for column in columns if column]
    twice = [column for column in columns if columns.count(column) > 1]
    labels_in_columns = data.task in ("multi-label", "distribution")
    wrong = [
        (not (data.corpus_dir or data.train),
         f"give {at}train and {at}test, or {at}corpus_dir for the built-in task."),
        (data.corpus_dir and data.task != "classification",
         f"{at}task is {data.task}; the built-in task of {at}corpus_dir is classification."),
        (twice, f"column '{twice and twice[0]}' is named twice. Texts and labels are different columns."),
        (not 0 < data.validation_share < 1,
         f"{at}validation_share is {data.validation_share}; it must lie between 0 and 1."),
        (data.max_length < 1, f"{at}max_length is {data.max_length}; give at least 16 tokens."),
        (data.label_columns and not labels_in_columns,
         f"{at}label_columns is given, but {at}task is {data.task}. Set it to multi-label or distribution, or name one "
         f"column in {at}label_column."),
        (data.label_separator and data.task != "multi-label",
         f"{at}label_separator is given, but {at}task is {data.task}. Set it to multi-label, or leave it out."),
        (data.shots is not None and data.shots < 1,
         f"{at}shots is {data.shots}; give at least 1, or leave it out."),
        (data.shots and data.task != "classification",
         f"{at}shots counts the examples of each class; with {at}task {data.task} leave it out."),
    ]
    for found, message in wrong:
        if found:
            raise UserError(f"{at.rstrip('.')}: {message}")


def _check_train(train: LabelledText, source: str, at: str, note: Note) -> None:
    """A training set has something to learn."""
    if train.task == "multi-label":
        constant = [name for name, column in zip(train.label_names, train.labels.T, strict=True)
                    if len(np.unique(column)) == 1]
        if len(constant) < train.classes:
            if constant:
                note(f"train: {len(constant)} labels are on all rows or on none, and cannot be learned: "
                     f"{', '.join(constant[:10])}")
            return
        what = "every label is on all rows or on none"
    elif train.task == "distribution":
        if train.classes > 1:
            return
        what = "there is one class only"
    else:
        if len(np.unique(train.labels)) > 1:
            return
        name = f"'{train.label_names[train.labels[0]]}'" if train.task == "classification" else f"{train.labels[0]:g}"
        what = f"all {len(train):,} rows have the label {name}"
    raise UserError(f"{source}: {what} ({at}label_column), so there is nothing to learn. Name another column, or "
                    f"add rows with other labels.")


def _own_validation(train: LabelledText, data: TextDataSection, note: Note) -> tuple[LabelledText, LabelledText]:
    at = data.section
    kept, held = split_off(train, data.validation_share)
    if not len(held) or not len(kept):
        raise UserError(f"{data.train}: too few rows ({len(train)}) to split a validation set off. Give "
                        f"{at}validation, or more rows.")
    how = "the last of each class" if train.task == "classification" else "evenly spread"
    note(f"validation: {len(held):,} of {len(train):,} training rows, {how}, since {at}validation is empty")
    if train.task == "classification":
        single = [train.label_names[label] for label in np.flatnonzero(np.bincount(train.labels) == 1)]
        if single:
            note(f"validation: {len(single)} classes of one example keep it in training: {', '.join(single[:10])}")
    return kept, held


def _tell_of_absent_classes(parts: Sequence[LabelledText], note: Note) -> None:
    for role, part in zip(("train", "validation", "test"), parts, strict=True):
        if part.task == "classification":
            absent = np.setdiff1d(np.arange(part.classes), part.labels)
        elif part.task == "multi-label" and role != "train":  # of train, `_check_train` tells
            absent = np.flatnonzero(~part.labels.any(0))
        else:
            continue
        if len(absent):
            note(f"{role}: has no example of {len(absent)} classes: "
                 f"{', '.join(part.label_names[label] for label in absent[:10])}{', …' * (len(absent) > 10)}")


def _tell_of_duplicates(parts: Sequence[LabelledText], note: Note) -> None:
    """Texts that come again, within a split or in another one; blanks do not tell texts apart."""
    seen: dict[str, dict[int, bytes]] = {}  # split → text → the label it has there first
    for role, part in zip(("train", "validation", "test"), parts, strict=True):
        own, repeated = {}, []
        shared: dict[str, list[bool]] = {other: [] for other in seen}  # whether the label is another one
        for text, pair, label in zip(part.texts, part.pairs or [""] * len(part), part.labels, strict=True):
            key, label = hash((" ".join(text.split()), " ".join(pair.split()))), label.tobytes()
            if key in own:
                repeated.append(own[key] != label)
            own.setdefault(key, label)
            for other, known in seen.items():
                if key in known:
                    shared[other].append(known[key] != label)
        if repeated:
            note(f"{role}: {len(repeated):,} of {len(part):,} rows repeat the text of an earlier one, "
                 f"{sum(repeated):,} of them with another label")
        for other, differ in shared.items():
            if differ:
                note(f"{role}: {len(differ):,} of {len(part):,} rows have a text of {other}, {sum(differ):,} of them "
                     f"with another label; taken out of {other}, they would no longer flatter the model")
        seen[role] = own


def _checked_text(cell: object, place: str, column: str, at: str) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, str):
        raise UserError(f"{place}: '{column}' is {type(cell).__name__}, not text. Name another column with "
                        f"{at}text_column or {at}text_pair_column, or convert it.")
    if not cell.isascii() and re.search("[\ud800-\udfff]", cell):  # JSON can spell what UTF-8 cannot
        raise UserError(f"{place}: '{column}' holds half of a surrogate pair, which is no text. Repair it.")
    return cell
