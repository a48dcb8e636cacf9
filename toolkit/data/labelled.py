"""Texts with labels: tables from files, and the built-in task (which package does a passage describe?)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from toolkit.data import counter
from toolkit.data.corpus import read_documents
from toolkit.data.python_docs import PACKAGES, mask_package_names
from toolkit.data.sources import Reading, file_kind, read_table_rows
from toolkit.errors import UserError, did_you_mean


@dataclass(frozen=True)
class LabelledText:
    """`texts` and their `labels` (n,) int64, indices into `label_names`."""

    texts: list[str]
    labels: np.ndarray
    label_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, index: Sequence[int]) -> "LabelledText":
        return LabelledText([self.texts[i] for i in index], self.labels[np.asarray(index, int)], self.label_names)


@dataclass
class TextDataSection:
    train: str = ""
    """A .tsv or .csv file; empty for the built-in task on the corpus prepared in `corpus_dir`."""
    validation: str = ""
    """Empty: a tenth of the training file, the same share of each class."""
    test: str = ""
    text_column: str = "text"
    label_column: str = "label"
    corpus_dir: str = ""
    """Built-in task: a data_dir of python-docs; train passages from its train documents, test from validation's."""
    shots: int | None = None
    """Labelled examples of each class; default all."""
    max_length: int = 256
    """Longer texts are cut to this many tokens. More than the model has positions are read in windows."""


def read_table(path: str | Path, text_column: str = "text", label_column: str = "label",
               label_names: tuple[str, ...] | None = None) -> LabelledText:
    """A .tsv or .csv file with a header, plain or compressed. Labels are sorted by name; given `label_names` (those
    of the training file), a label outside them is an error.
    """
    path = Path(path)
    if file_kind(path) not in (".tsv", ".csv"):
        raise UserError(f"{path}: labelled text is read from .tsv or .csv files with a header.")
    if not path.exists():
        raise UserError(f"{path}: no such file.")
    rows = list(read_table_rows(path, Reading()))
    lines, records = [line for line, _ in rows], [row for _, row in rows]
    table, lines = pd.DataFrame(records[1:], columns=records[0], dtype=str), lines[1:]
    for column, key in ((text_column, "text_column"), (label_column, "label_column")):
        if column not in table:
            raise UserError(f"{path}: has no column '{column}' (data.{key}).{did_you_mean(column, table.columns)}")
    if table.empty:
        raise UserError(f"{path}: has a header but no rows.")
    for column in (text_column, label_column):
        blank = np.flatnonzero(table[column].str.strip() == "")
        if len(blank):
            raise UserError(f"{path}, line {lines[blank[0]]}: '{column}' is empty ({len(blank)} such rows). Fill or "
                            f"remove them.")
    names = label_names or tuple(sorted(table[label_column].unique()))
    position = {name: index for index, name in enumerate(names)}
    unseen = np.flatnonzero(~table[label_column].isin(names))
    if len(unseen):
        raise UserError(f"{path}, line {lines[unseen[0]]}: label '{table[label_column].iloc[unseen[0]]}' does not "
                        f"occur in the training file, which has {', '.join(names)}.")
    labels = table[label_column].map(position).to_numpy(np.int64, copy=True)
    return LabelledText(table[text_column].tolist(), labels, names)


def documentation_passages(corpus_file: Path, passage: int = 250, per_document: int = 8) -> LabelledText:
    """The built-in task on a prepared split: passages of about `passage` characters, labelled by package.

    A passage is whole paragraphs in a row, with every package's names and aliases masked. At most `per_document`
    come from one module, spread over it. Train on passages of train.jsonl, test on validation.jsonl: no module is in
    both, and the pretrained models have seen neither text nor label of the latter.
    """
    texts, labels = [], []
    for document in read_documents(corpus_file):
        if document.source not in PACKAGES:
            continue
        passages, current = [], ""
        for paragraph in document.text.split("\n\n"):
            current = f"{current} {paragraph}".strip()
            if len(current) >= passage:
                passages.append(mask_package_names(current[: 2 * passage]))
                current = ""
        for position in np.linspace(0, len(passages) - 1, min(per_document, len(passages))).round().astype(int):
            texts.append(passages[position])
            labels.append(PACKAGES.index(document.source))
    return LabelledText(texts, np.asarray(labels, np.int64), PACKAGES)


def load_data(data: TextDataSection) -> tuple[LabelledText, LabelledText, LabelledText]:
    """Train, validation and test."""
    if data.corpus_dir:
        passages = documentation_passages(f"{data.corpus_dir}/corpus/train.jsonl")
        test = documentation_passages(f"{data.corpus_dir}/corpus/validation.jsonl")
        # At most 100 a class: the two largest packages would otherwise be half of the test.
        test = test.select(np.concatenate([np.flatnonzero(test.labels == label)[:100]
                                           for label in range(len(test.label_names))]))
        train, validation = split_off(passages, 0.05)
        return train, validation, test
    if not (data.train and data.test):
        raise UserError("data: give data.train and data.test, or data.corpus_dir for the built-in task.")
    columns = (data.text_column, data.label_column)
    train = read_table(data.train, *columns)
    test = read_table(data.test, *columns, label_names=train.label_names)
    if data.validation:
        return train, read_table(data.validation, *columns, label_names=train.label_names), test
    return *split_off(train, 0.1), test


def split_off(data: LabelledText, share: float) -> tuple[LabelledText, LabelledText]:
    """The last `share` of each class, in the order of the file, becomes validation."""
    held_out = np.zeros(len(data), bool)
    for label in range(len(data.label_names)):
        members = np.flatnonzero(data.labels == label)
        held_out[members[len(members) - max(1, round(share * len(members))):]] = True
    return data.select(np.flatnonzero(~held_out)), data.select(np.flatnonzero(held_out))


def few_shot(data: LabelledText, shots: int, seed: int, what: str = "the training set") -> LabelledText:
    """`shots` examples of each class, drawn by `seed`, in a shuffled order."""
    chosen = []
    for label, name in enumerate(data.label_names):
        members = np.flatnonzero(data.labels == label)
        if len(members) < shots:
            raise UserError(f"{what} has {len(members)} examples of class '{name}', fewer than data.shots = {shots}. "
                            f"Lower shots, or leave it out to use all labels.")
        order = counter.permute(counter.key(seed, label), np.arange(shots), len(members))
        chosen.append(members[order])
    chosen = np.concatenate(chosen)
    return data.select(chosen[counter.permute(counter.key(seed, -1), np.arange(len(chosen)), len(chosen))])


def draw(data: LabelledText, count: int, seed: int) -> np.ndarray:
    """Indices of `count` examples whatever their class; a larger count of the same seed holds the smaller one's."""
    return counter.permute(counter.key(seed, -2), np.arange(min(count, len(data))), len(data))


class TextBatches:
    """Tokenised texts; `batch(step, rows)` draws rows of a global batch, each epoch in a fresh order."""

    def __init__(self, data: LabelledText, tokenizer: PreTrainedTokenizerBase, max_length: int, batch_size: int,
                 seed: int):
        self.labels, self.batch_size, self.seed = data.labels, batch_size, seed
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.encoded = tokenizer(data.texts, truncation=True, max_length=max_length)
        self.token_types = "token_type_ids" in self.encoded

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        return self.rows(counter.epoch_order(self.seed, index, len(self.labels))[1])

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Examples `index`, padded to the longest of them: input_ids, attention_mask, (token_type_ids), labels."""
        ids = [self.encoded["input_ids"][i] for i in index]
        length = max(map(len, ids))
        batch = {"input_ids": np.full((len(ids), length), self.pad, np.int64),
                 "attention_mask": np.zeros((len(ids), length), np.int64)}
        if self.token_types:
            batch["token_type_ids"] = np.zeros((len(ids), length), np.int64)
        for row, tokens in enumerate(ids):
            batch["input_ids"][row, : len(tokens)] = tokens
            batch["attention_mask"][row, : len(tokens)] = 1
        batch["labels"] = self.labels[index]
        return batch
