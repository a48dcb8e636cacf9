"""Cells of label columns → arrays: names, numbers, probabilities, one or several. What is odd is refused or counted."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Literal

import numpy as np

from toolkit.errors import UserError

Task = Literal["classification", "multi-label", "distribution", "regression"]
Note = Callable[[str], None]
"""Takes one line about what was decided, and how often."""

_NUMBER = re.compile(r"[+-]?(\d++(\.\d*+)?|\.\d++)([eE][+-]?\d++)?")  # nothing is tried twice, however long it is
_NOTHING = ("nan", "na", "n/a", "null", "none")


@dataclass
class LabelSpec:
    """Where labels stand in a table, and what they are."""

    section: ClassVar[str] = "data."
    """What these keys begin with in the caller's configuration, for messages; `config.from_dict` sets it."""
    task: Task = "classification"
    """classification: one label each; multi-label: any number of them; distribution: a probability for every class;
    regression: a number."""
    label_column: str = "label"
    """Multi-label: names in one cell, parted by label_separator, or a list of them (.jsonl, .parquet)."""
    label_columns: list[str] = field(default_factory=list)
    """Instead of label_column: one column a class, of 0 and 1 (multi-label) or of probabilities (distribution)."""
    label_separator: str = ""
    """Multi-label: what parts the names in one cell, for instance '|'."""


def read_labels(data: LabelSpec, cells: list, places: list[str], known: tuple[str, ...] | None, role: str,
                note: Note) -> tuple[np.ndarray, tuple[str, ...]]:
    """The cells of the label columns as an array, and the names of the classes."""
    column, at = data.label_column, data.section
    if data.task == "regression":
        return _numbers(cells, places, column, "a number").astype(np.float32), ("value",)
    if data.label_columns:
        expected = "0 or 1" if data.task == "multi-label" else "a probability"
        table = np.stack([_numbers([row[i] for row in cells], places, name, expected)
                          for i, name in enumerate(data.label_columns)], axis=1)
        if data.task == "distribution":
            return _distributions(table, places, role, note), tuple(data.label_columns)
        wrong = (table != 0) & (table != 1)
        refuse(wrong.any(1), places, lambda i: f"'{data.label_columns[wrong[i].argmax()]}' is "
                f"{table[i][wrong[i]][0]:g}, where 0 or 1 was expected", f"Set {at}task to distribution for "
                "probabilities, or correct them.")
        return table.astype(np.float32), tuple(data.label_columns)
    quantities = f" Where labels are quantities, set {at}task to regression."
    # Parted by a separator, an empty cell is no label at all.
    refuse([_is_missing(cell) and not (data.label_separator and isinstance(cell, str)) for cell in cells], places,
            lambda i: f"'{column}' is {_shown(cells[i])}", "Fill or remove them.")
    if data.task == "distribution":
        size = len(known) if known else len(cells[0]) if isinstance(cells[0], list) else 1
        refuse([not isinstance(cell, list) or not cell or len(cell) != size for cell in cells], places,
                lambda i: f"'{column}' is {_shown(cells[i])}, where a list of {size or 'as many'} probabilities was "
                f"expected",
                f"Give every row one probability a class, or name a column a class in {at}label_columns.")
        table = np.stack([_numbers([cell[i] for cell in cells], places, f"{column}[{i}]", "a probability")
                          for i in range(size)], axis=1)
        return _distributions(table, places, role, note), known or tuple(map(str, range(size)))
    if data.task == "classification":
        refuse([isinstance(cell, (list, dict)) for cell in cells], places, lambda i: f"'{column}' is "
                f"{_shown(cells[i])}, where one label was expected",
                f"Set {at}task to multi-label for several.")
        return numbered(cells, places, column, known, role, note, quantities)
    # multi-label: names in one cell
    if data.label_separator:
        split = [cell if isinstance(cell, list) else list(filter(str.strip, str(cell).split(data.label_separator)))
                 for cell in cells]
    else:
        split = cells
    refuse([not isinstance(cell, list) for cell in split], places, lambda i: f"'{column}' is {_shown(cells[i])}, "
            f"where a list of labels was expected", f"Say what parts them ({at}label_separator), or "
            f"name a column a class in {at}label_columns.")
    refuse([any(_is_missing(name) or isinstance(name, (list, dict)) for name in cell) for cell in split], places,
            lambda i: f"'{column}' is {_shown(cells[i])}, where names were expected", "Correct or remove them.")
    owner = np.repeat(np.arange(len(split)), [len(cell) for cell in split])
    flat, names = numbered([name for cell in split for name in cell], [places[i] for i in owner], column, known, role,
                           note, quantities)
    table = np.zeros((len(cells), len(names)), np.float32)
    table[owner, flat] = 1
    without = int((table.sum(1) == 0).sum())
    if without:
        note(f"{role}: {without:,} rows have no label at all")
    return table, names


def numbered(cells: list, places: list[str], column: str, known: tuple[str, ...] | None, role: str, note: Note,
             if_quantities: str = "") -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as indices into their names: without blanks around them and, where all are numbers, whole ones in one
    spelling.

    if_quantities: advice where an unknown label is a number.
    """
    # A float that is whole was an integer before pandas met an empty cell in its column.
    given = [str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell) for cell in cells]
    labels = [label.strip() for label in given]
    stripped = sum(map(str.__ne__, labels, given))
    if stripped:
        example = next(label for label in given if label != label.strip())
        note(f"{role}: {stripped:,} labels were stripped of the blanks around them, for instance {example!r}")
    others = {label for label in known or labels if not _NUMBER.fullmatch(label)}
    nothing = {label for label in labels if label.lower() in _NOTHING}
    if nothing and others <= nothing and others != set(labels):
        refuse([label in nothing for label in labels], places, lambda i: f"'{column}' is {_shown(cells[i])} among "
                f"numbers", "Fill or remove them.")
    if any(label.lower() == "nan" for label in nothing):
        note(f"{role}: {sum(label.lower() == 'nan' for label in labels):,} labels are 'nan', taken for a name as the "
             f"others")
    numeric = not others
    if numeric:
        labels = _spelled(labels, known, role, note)
    names = known or tuple(sorted(set(labels), key=(lambda name: (float(name), name)) if numeric else None))
    position = {name: index for index, name in enumerate(names)}
    refuse([label not in position for label in labels], places, lambda i: f"label '{labels[i]}' does not occur in the "
            f"training data, which has {', '.join(names[:20])}{', …' if len(names) > 20 else ''}",
            "Correct the label, or add examples of it to training." + numeric * if_quantities)
    return np.asarray([position[label] for label in labels], np.int64), names


def _spelled(labels: list[str], known: tuple[str, ...] | None, role: str, note: Note) -> list[str]:
    """Whole numbers in one spelling, training's where it is known; '1.1' and '1.10' are two names all the same.

    Among fractions, '1' and '1.0' of one file are two names as well: they may count sections or versions.
    """
    texts = set(known or labels)
    spelling = {text: _whole(text) for text in {*texts, *labels}}
    alike = Counter(spelling[text] for text in texts)
    if known:
        names = {spelling[name]: name for name in known if alike[spelling[name]] == 1}
        spelling = {text: text if text in texts else names.get(whole, text) for text, whole in spelling.items()}
    elif len(alike) < len(texts) and not all(re.fullmatch(r"-?\d+", whole) for whole in spelling.values()):
        return labels
    changed = [(label, spelling[label]) for label in labels if label != spelling[label]]
    if changed:
        note(f"{role}: {len(changed):,} labels were spelled otherwise, for instance '{changed[0][0]}' for "
             f"'{changed[0][1]}'")
    return [spelling[label] for label in labels]


def _whole(label: str) -> str:
    """'+1', '1.0', '01' and '1e0' are 1. What is no whole number stays as it is."""
    if re.fullmatch(r"[+-]?\d+", label):  # of any length, and exact
        digits = label.lstrip("+-").lstrip("0") or "0"
        return f"-{digits}" if label[0] == "-" and digits != "0" else digits
    if not _NUMBER.fullmatch(label):
        return label
    number = float(label)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else label


def _distributions(table: np.ndarray, places: list[str], role: str, note: Note) -> np.ndarray:
    sums = table.sum(1)
    # Rounded to two digits, a row can miss 1 by a little.
    refuse((table < 0).any(1) | (abs(sums - 1) > 0.02), places, lambda i: f"the probabilities are "
            f"{', '.join(f'{value:g}' for value in table[i][:10])} and sum to {sums[i]:g}, where 0 or more and a sum "
            f"of 1 was expected", "Divide each row by its sum.")
    rounded = int((abs(sums - 1) > 1e-6).sum())
    if rounded:
        note(f"{role}: {rounded:,} rows of probabilities, rounded, were divided by their sums (of 0.98 to 1.02)")
    return (table / sums[:, None]).astype(np.float32)


def _numbers(cells: list, places: list[str], column: str, expected: str) -> np.ndarray:
    """(n,) float64."""
    numbers = [_number(cell) for cell in cells]
    refuse([number is None for number in numbers], places, lambda i: f"'{column}' is {_shown(cells[i])}, where "
            f"{expected} was expected", "Correct or remove them; decimals take a point.")
    return np.asarray(numbers, float)


def _number(cell: object) -> float | None:
    if isinstance(cell, str):
        cell = cell.strip()
        cell = float(cell) if _NUMBER.fullmatch(cell) else {"true": 1.0, "false": 0.0}.get(cell.lower())
    elif isinstance(cell, Decimal):
        cell = float(cell)
    # 3e38: what float32 holds. NaN is not less than anything.
    return float(cell) if isinstance(cell, (int, float)) and abs(cell) < 3e38 else None


def _is_missing(cell: object) -> bool:
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())  # NaN differs from itself


def _shown(cell: object) -> str:
    text = "empty" if cell is None or cell == "" else f"'{cell}'" if isinstance(cell, str) else str(cell)
    return text if len(text) <= 60 else f"{text[:60]}…"


def refuse(wrong: Sequence[bool], places: list[str], what: Callable[[int], str], remedy: str) -> None:
    """Names the first of the rows that are wrong, and how many there are."""
    found = np.flatnonzero(wrong)
    if len(found):
        raise UserError(f"{places[found[0]]}: {what(int(found[0]))} ({len(found):,} such rows). {remedy}")
