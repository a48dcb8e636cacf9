"""Pairs of texts from two aligned files, or from the rows of a table, a folder of tables or a data set on the hub."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from toolkit.data.pairs.grammar import dates_and_numbers, reversals
from toolkit.data.pairs.text_pairs import TextPairs
from toolkit.data.parts import held_out
from toolkit.data.tables.rows import read_rows, with_own_splits
from toolkit.data.tables.sources import Reading, file_kind, read_lines
from toolkit.errors import UserError

Note = Callable[[str], None]
PairParts = tuple[TextPairs, TextPairs, TextPairs]
"""Train, validation and test."""
BUILT_IN = {"dates": dates_and_numbers, "reversal": reversals}
_PLAIN = (".txt", "")


@dataclass
class PairsSection:
    """Where sources and targets stand."""

    section: ClassVar[str] = "data."
    built_in: Literal["dates", "reversal"] = "dates"
    """Where `train` is empty: dates and numbers in words → digits, or letters → the same, reversed."""
    train: list[str] = field(default_factory=list)
    """Two files of as many lines, sources first, plain, .gz or .zst; or one .tsv, .csv, .jsonl or .parquet, a glob or
    folder of them, a .txt whose columns a tab parts, or a hub data set, hub:owner/name[:configuration][#split], which
    gives its own validation and test splits too."""
    max_pairs: int = 0
    """The first so many of train; 0: all of them."""
    validation: list[str] = field(default_factory=list)
    """Empty: validation_share of the training pairs."""
    test: list[str] = field(default_factory=list)
    """Empty: as many again, of the training pairs."""
    validation_share: float = 0.05
    """Share of the training pairs, spread over them, that becomes validation, and test, where no file is given."""
    source_column: str = "source"
    """Of a table; `translation.de` where a column holds texts by language; of a .txt without names the number of the
    column, 1 where nothing is said."""
    target_column: str = "target"
    """The same; 2 where nothing is said."""
    encoding: str = ""
    """Of text files that are not UTF-8 and have no byte-order mark: latin-1, cp1252, …"""
    lowercase: bool = False
    """Lower-case both sides of all pairs, the targets that answers are held against among them: scores are then of
    lower-cased text, as many published ones."""
    max_source_length: int = 128
    """Longer sources are cut to this many tokens, which is told; pairs are not dropped."""
    max_target_length: int = 128
    """Training pairs with longer targets are left out, which is told: a target that is cut teaches to stop too soon.
    Of validation and test they stay, and count as they are."""


@dataclass
class ComparedPairsSection(PairsSection):
    built_in: Literal["both", "dates", "reversal"] = "both"
    """Where `train` is empty: dates and numbers in words → digits, letters → the same, reversed, or one after the
    other."""


def load_sets(data: PairsSection, note: Note = lambda line: None) -> dict[str, PairParts]:
    """Name → its pairs: built-in sets by their names, files without one."""
    if data.train or data.validation or data.test:
        return {"": load_pairs(data, note)}
    names = list(BUILT_IN) if data.built_in == "both" else [data.built_in]
    return {name: load_pairs(replace(data, built_in=name), note) for name in names}


def load_pairs(data: PairsSection, note: Note = lambda line: None) -> PairParts:
    """Train, validation and test. `note` is told what was decided on the way, and how often."""
    at = data.section
    if not data.train:
        if data.validation or data.test:
            role = "validation" if data.validation else "test"
            raise UserError(f"{at}train is empty, and {at}{role} is not. Give two aligned files, or one table, of "
                            f"sources and targets to learn from.")
        make = BUILT_IN[data.built_in]
        return make(20_000, "train"), make(1000, "validation"), make(1000, "test")
    if not 0 < data.validation_share < 0.5:
        raise UserError(f"{at}validation_share is {data.validation_share}; it must lie between 0 and 0.5.")
    data = with_own_splits(data, note)
    parts = {role: _checked(_cased(read_pairs(getattr(data, role), data, role, note), data), role, data, note)
             for role in ("train", "validation", "test") if getattr(data, role)}
    if data.max_pairs < 0:
        raise UserError(f"{at}max_pairs is {data.max_pairs}; give a number of pairs, or 0: all of them.")
    if 0 < data.max_pairs < len(parts["train"]):
        note(f"train: the first {data.max_pairs:,} of {len(parts['train']):,} pairs ({at}max_pairs)")
        parts["train"] = parts["train"].select(range(data.max_pairs))
    for role in ("validation", "test"):
        if role not in parts:
            parts["train"], parts[role] = _split_off(parts["train"], data, role, note)
    _tell_of_shared(parts, note)
    return parts["train"], parts["validation"], parts["test"]


def read_pairs(files: list[str], data: PairsSection, role: str = "train", note: Note = lambda line: None) -> TextPairs:
    """All pairs of two aligned files or of one table, as they stand."""
    reading = Reading(encoding=data.encoding, options=data.section, note=note)
    if len(files) > 2:
        raise UserError(f"{data.section}{role} names {len(files)} files. Give one table, or two aligned files, sources "
                        f"first.")
    if len(files) == 2:
        return _aligned(*map(Path, files), reading)
    if file_kind(Path(files[0])) in _PLAIN and not files[0].startswith("hub:") and not Path(files[0]).is_dir():
        rows = _columns(Path(files[0]), data, reading)
    else:
        rows = _table(files[0], role, data, reading)
    places, sides = [], ([], [])
    for place, row in rows:
        places.append(place)
        for cell, side, column in zip(row, sides, (data.source_column, data.target_column), strict=True):
            if cell is not None and not isinstance(cell, str):
                raise UserError(f"{place}: '{column}' is {cell!r:.40}, of type {type(cell).__name__}, not text. Write "
                                f"it as text, or name another column.")
            side.append(" ".join((cell or "").split()))
    return TextPairs(*sides, places)


def _table(file: str, role: str, data: PairsSection, reading: Reading) -> Iterator[tuple[str, list]]:
    """Both cells of every row: of two columns, or of one that holds texts by language, as on the hub:
    `translation.de` and `translation.en`.
    """
    names = data.source_column, data.target_column
    if names[0] == names[1]:
        raise UserError(f"{data.section}source_column and target_column are both '{names[0]}'. A pair has two columns.")
    heads, inner = zip(*(name.partition(".")[::2] for name in names), strict=True)
    if heads[0] != heads[1] or not all(inner):
        yield from read_rows(file, role, dict(zip(names, ("source_column", "target_column"), strict=True)),
                             data.section, reading)
        return
    for place, (cell,) in read_rows(file, role, {heads[0]: "source_column"}, data.section, reading):
        if not isinstance(cell, dict) or any(key not in cell for key in inner):
            keys = f"holds {', '.join(map(str, cell))}" if isinstance(cell, dict) else f"is {type(cell).__name__}"
            raise UserError(f"{place}: '{heads[0]}' {keys}; expected a text for each of {inner[0]} and {inner[1]} "
                            f"({data.section}source_column, {data.section}target_column).")
        yield place, [cell[key] for key in inner]


def _aligned(source: Path, target: Path, reading: Reading) -> TextPairs:
    """Line n of one belongs to line n of the other."""
    sides = []
    for path in (source, target):
        sides.append([" ".join(line.split()) for _, line in read_lines(path, reading)])
    longer = len(sides[0]) - len(sides[1])
    if longer:
        than = "fewer" if longer < 0 else "more"
        raise UserError(f"{source} has {len(sides[0]):,} lines and {target} {len(sides[1]):,}: {abs(longer):,} {than}. "
                        f"{_seam(*sides)} Line n of one must belong to line n of the other.")
    return TextPairs(*sides, [f"{source}, line {number}" for number in range(1, 1 + len(sides[0]))])


def _seam(sources: list[str], targets: list[str]) -> str:
    """The line at which lines were lost, most likely: the first that is empty on one side alone; else that up to which
    lines fit in length as they stand, and behind which they do when the longer side is moved up.
    """
    for number, (source, target) in enumerate(zip(sources, targets, strict=False), 1):
        if bool(source) != bool(target):
            return f"They seem to part at line {number:,}, which is empty in one of them."
    longer, shorter = (np.log1p([len(line) for line in side]) for side in
                       sorted((sources, targets), key=len, reverse=True))
    lost = len(longer) - len(shorter)
    usual = longer.mean() - shorter.mean()
    as_they_stand, moved = (np.abs(longer[start:start + len(shorter)] - shorter - usual) for start in (0, lost))
    misfit = np.append(0, np.cumsum(as_they_stand)) + np.append(np.cumsum(moved[::-1])[::-1], 0)
    line = len(misfit) - int(misfit[::-1].argmin())  # of places that fit as well the last: lines are lost at ends
    return f"By the lengths of their lines they part about line {line:,}."


def _columns(path: Path, data: PairsSection, reading: Reading) -> Iterator[tuple[str, list[str]]]:
    """Two columns of a text without names, parted by tabs."""
    numbers = []
    for key, column, default in (("source_column", data.source_column, "source"),
                                 ("target_column", data.target_column, "target")):
        number = len(numbers) + 1 if column == default else int(column) if column.isdigit() else 0
        if number < 1:
            raise UserError(f"{path}: has no names of columns, and {data.section}{key} is '{column}'. Give the number "
                            f"of the column, from 1 on.")
        numbers.append(number)
    for number, line in read_lines(path, reading):
        cells = line.rstrip("\r\n").split("\t")
        if not line.strip():
            continue
        if len(cells) < max(numbers):
            raise UserError(f"{path}, line {number}: has {len(cells)} columns parted by tabs, and column "
                            f"{max(numbers)} was asked for ({data.section}target_column). Repair the line, or name "
                            f"another column.")
        yield f"{path}, line {number}", [cells[place - 1] for place in numbers]


def _cased(pairs: TextPairs, data: PairsSection) -> TextPairs:
    if not data.lowercase:
        return pairs
    return TextPairs(*([text.lower() for text in side] for side in (pairs.sources, pairs.targets)), pairs.places)


def _checked(pairs: TextPairs, role: str, data: PairsSection, note: Note) -> TextPairs:
    """Without pairs of which a side is empty; refused where nothing can be learned."""
    source = " ".join(getattr(data, role))
    if not len(pairs):
        raise UserError(f"{source}: has no pairs ({data.section}{role}).")
    empty = [i for i, both in enumerate(zip(pairs.sources, pairs.targets, strict=True)) if not all(both)]
    if len(empty) == len(pairs):
        raise UserError(f"{source}: every pair has an empty side ({data.section}{role}). Check source_column and "
                        f"target_column.")
    if empty:
        note(f"{role}: {len(empty):,} of {len(pairs):,} pairs have an empty side and are left out, the first at "
             f"{pairs.places[empty[0]]}")
        pairs = pairs.select(np.setdiff1d(np.arange(len(pairs)), empty))
    same = sum(a == b for a, b in zip(pairs.sources, pairs.targets, strict=True))
    if same == len(pairs) and role == "train":
        raise UserError(f"{source}: every target is the copy of its source. Name the file or column of the other side.")
    if same > len(pairs) // 10:
        note(f"{role}: {same:,} of {len(pairs):,} targets are copies of their sources")
    if role == "train" and len(pairs) < 2:
        raise UserError(f"{source}: has {len(pairs)} pair. Give more: there is nothing to learn from one.")
    return pairs


def _split_off(train: TextPairs, data: PairsSection, role: str, note: Note) -> tuple[TextPairs, TextPairs]:
    """Pairs evenly spread over the file; whoever has a source that is held out is held out too."""
    kept, out = held_out(train.sources, data.validation_share, int(role == "test"))
    if not len(out) or not len(kept):
        raise UserError(f"{' '.join(data.train)}: has too few pairs ({len(train)}) to split {role} off. Give "
                        f"{data.section}{role}, or more pairs.")
    note(f"{role}: {len(out):,} of {len(train):,} training pairs, evenly spread, since {data.section}{role} is empty")
    return train.select(kept), train.select(out)


def _tell_of_shared(parts: dict[str, TextPairs], note: Note) -> None:
    """What stands in train too: it asks what was learned by heart."""
    train = parts["train"]
    sources, known = set(train.sources), set(zip(train.sources, train.targets, strict=True))
    for role in ("validation", "test"):
        pairs = parts[role]
        shared = sum(source in sources for source in pairs.sources)
        if shared:
            whole = sum(pair in known for pair in zip(pairs.sources, pairs.targets, strict=True))
            note(f"{role}: {shared:,} of {len(pairs):,} sources are in train too, {whole:,} of them with the same "
                 f"target, and flatter the model")
