"""How a table of text is written: what parts its cells, whether they are quoted, how its numbers are spelled.

This is found from the names that the caller asks for and from the first rows; what is not the usual is told.
"""

import csv
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from toolkit.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

SAMPLE = 2**20
"""Characters from which the separator and the spelling of numbers are found."""

QUOTES_SAMPLE = 2**26
"""Characters, never held together, from which it is found whether cells between tabs are quoted."""

_NAMED = re.compile(f"sep=([{''.join(SEPARATORS)}])\r?\n")

NO_VALUE = ("", "?", "na", "n/a", "nan", "null", "none")
"""What stands in cells of numbers, in lower case, where there is none."""
_NOT_SPELLED = (*NO_VALUE, "inf", "-inf", "+inf", "infinity", "-infinity")


@dataclass(frozen=True)
class Spelling:
    """Numbers that `float` does not read, or reads otherwise than they are meant."""

    decimal: str
    groups: str
    """What may part thousands, the same throughout a number."""

    def plain(self, cell: str) -> str | None:
        """The number as Python spells it; None where the cell is none."""
        if not self.pattern.fullmatch(cell):
            return None
        return re.sub(f"[{self.groups}]", "", cell).replace(self.decimal, ".")

    @functools.cached_property
    def pattern(self) -> re.Pattern:
        grouped = rf"[1-9]\d{{0,2}}([{self.groups}])\d{{3}}(?:\1\d{{3}})*"
        point = re.escape(self.decimal)
        return re.compile(rf"[+-]?(?:{grouped}|\d+|(?={point}\d))(?:{point}\d*)?(?:[eE][+-]?\d+)?", re.ASCII)


COMMA = Spelling(",", ". '’\u00a0\u202f")
POINT = Spelling(".", ", '’\u00a0\u202f")


@dataclass(frozen=True)
class Dialect:
    """What `csv` needs for a file, and what is told about it."""

    separator: str
    quoted: bool
    """A cell that begins with a quotation mark ends with one, and holds separators, line breaks and, doubled,
    quotation marks. Otherwise a quotation mark is a character as any other."""
    spellings: Mapping[str, Spelling] = field(default_factory=dict)
    """Column → how its numbers are spelled, where that is not Python's own way."""
    notes: tuple[str, ...] = ()

    def reader(self, lines: Iterable[str]):
        return csv.reader(lines, delimiter=self.separator, strict=True,
                          quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE)


def find_dialect(read: Callable[[], Iterator[str]], usual: str, names: Collection[str],
                 is_number: Callable[[str], bool], decimal: str = "") -> Dialect:
    """The dialect of the lines that `read` begins to give, each time it is called.

    usual: the separator that the file's suffix stands for. names: columns that the caller asks for. is_number: whether
    a column is asked for as numbers. decimal: the comma or the point, where the caller was told. UserError, which the
    caller gives the file's name and an end, where numbers of a column can be meant in two ways.
    """
    lines = list(_start(read(), SAMPLE))
    separator, notes = _separator(lines, usual, names), []
    lines = list(without_hint(lines))
    if separator != usual:
        notes.append(f"cells are parted by {SEPARATORS[separator]}")
    quoted = True
    # Tab-separated text is seldom quoted, and a lone quotation mark must not swallow the lines after it.
    if separator == "\t":
        quoted, told = _quotes(without_hint(_start(read(), QUOTES_SAMPLE)))
        notes += told
    dialect = Dialect(separator, quoted)
    spellings, told = _spellings(dialect, lines, is_number, decimal)
    return Dialect(separator, quoted, spellings, (*notes, *told))


def without_hint(lines: Iterable[str]) -> Iterator[str]:
    """The lines; for a first one by which Excel is told the separator, a blank one."""
    for number, line in enumerate(lines):
        yield "\n" if not number and _NAMED.fullmatch(line) else line


def _start(lines: Iterator[str], size: int) -> Iterator[str]:
    """The first lines, up to `size` characters. One that cannot be read ends them: the reading itself will say so."""
    try:
        for line in lines:
            yield line
            size -= len(line)
            if size <= 0:
                return
    except UserError:
        return


# --- what parts cells ---------------------------------------------------------------------------------------------


def _separator(lines: list[str], usual: str, names: Collection[str]) -> str:
    """The first, the usual one before others, whose header has all the names; else one that parts all rows alike."""
    candidates = [usual, *(separator for separator in SEPARATORS if separator != usual)]
    headers = {separator: _header(lines, separator) for separator in candidates}
    if named := _NAMED.fullmatch(lines[0] if lines else ""):
        return named[1]
    if names:
        for separator in candidates:
            if set(names) <= set(headers[separator]):
                return separator
    even = [separator for separator in candidates if len(headers[separator]) > 1 and _parts_evenly(lines, separator)]
    if usual in even or len(headers[usual]) > 1 or not even:
        return usual
    return max(even, key=lambda separator: len(headers[separator]))


def _header(lines: list[str], separator: str) -> list[str]:
    try:
        return next(filter(None, csv.reader(lines, delimiter=separator)), [])
    except csv.Error:
        return []


def _parts_evenly(lines: list[str], separator: str) -> bool:
    """Whether all rows are as long as the header; between tabs with or without quotes."""
    for quoted in (True, False) if separator == "\t" else (True,):
        try:
            if len({len(row) for row in Dialect(separator, quoted).reader(lines) if row}) == 1:
                return True
        except csv.Error:
            pass
    return False


# --- whether cells between tabs are quoted ------------------------------------------------------------------------


def _quotes(lines: Iterable[str]) -> tuple[bool, list[str]]:
    """Quoted are cells that need it: where quotation marks are doubled, where lines alone do not make rows, or under a
    header of quoted names; and only where they are so throughout, or mostly (the others are then refused by line).
    """
    counts = {"doubled": 0, "lone": 0}
    width, even, named, first = 0, True, False, 0

    def counted() -> Iterator[str]:
        nonlocal width, even, named, first
        for number, line in enumerate(lines, 1):
            if cells := line.rstrip("\r\n"):
                cells = cells.split("\t")
                opened = [cell for cell in cells if cell[:1] == '"'] if '"' in line else []
                closed = [cell for cell in opened if re.fullmatch('"(?:[^"]|"")*"', cell)]
                if not width:
                    width, named = len(cells), len(closed) == len(cells)
                even = even and len(cells) == width
                counts["doubled"] += sum('""' in cell[1:-1] for cell in closed)
                counts["lone"] += len(opened) - len(closed)
                first = first or number * bool(counts["lone"])
            yield line

    source = counted()
    try:
        throughout = len({len(row) for row in Dialect("\t", True).reader(source) if row}) <= 1
    except csv.Error:
        throughout = False
        for _ in source:  # the rest is only counted
            pass
    needed = counts["doubled"] or named or not even
    if needed and (throughout or counts["doubled"] > counts["lone"]):
        return True, ["cells are quoted; a quotation mark within one is written twice"]
    if counts["lone"]:
        return False, [f"quotation marks are read as text, since {counts['lone']:,} cells begin with one and do not "
                       f"end with one, the first in line {first}"]
    return False, []


# --- how numbers are spelled --------------------------------------------------------------------------------------


def _spellings(dialect: Dialect, lines: list[str], is_number: Callable[[str], bool], decimal: str
               ) -> tuple[dict[str, Spelling], list[str]]:
    columns = _columns(dialect, lines, is_number)
    found: dict[str, Spelling] = {}
    unclear, pointed, decimals = [], [], set()  # decimals: those of numbers that can be read in one way only
    for name, cells in columns.items():
        fits = [spelling for spelling in (COMMA, POINT) if all(spelling.plain(cell) is not None for _, cell in cells)]
        odd = not all(map(_is_float, (cell for _, cell in cells)))
        if len(fits) == 1:
            if decimal and fits[0].decimal != decimal:
                continue  # the caller will refuse its cells
            if odd or any("." in cell for _, cell in cells):
                decimals.add(fits[0].decimal)
            if odd:
                found[name] = fits[0]
        elif fits and any(COMMA.plain(cell) != POINT.plain(cell) for _, cell in cells):
            (unclear if odd else pointed).append(name)
        elif fits and odd:
            found[name] = POINT  # thousands are parted by blanks, and nothing else is
    decimals = {decimal} if decimal else decimals
    for name in unclear:
        if len(decimals) != 1:
            line, cell = next((line, cell) for line, cell in columns[name] if COMMA.plain(cell) != POINT.plain(cell))
            raise UserError(f"line {line}, column '{name}': '{cell}' is {float(COMMA.plain(cell)):g} or "
                            f"{float(POINT.plain(cell)):g}, and no number of the table tells which. Write numbers with "
                            f"a decimal point and without thousands separators")
        found[name] = COMMA if decimals == {","} else POINT
    if decimals == {","}:  # then a point can but part thousands
        found |= dict.fromkeys(pointed, COMMA)
    return found, [_told(spelling, [name for name in found if found[name] is spelling], columns)
                   for spelling in (COMMA, POINT) if spelling in found.values()]


def _columns(dialect: Dialect, lines: list[str], is_number: Callable[[str], bool]) -> dict[str, list[tuple[int, str]]]:
    """Column asked for as numbers → (line, cell) of those that hold something."""
    reader, columns, start = dialect.reader(lines), None, 1
    while True:
        try:
            row = next(reader)
        except (StopIteration, csv.Error):  # the sample may end within a cell
            break
        if row and columns is None:
            columns = [(name, place, []) for place, name in enumerate(row) if is_number(name)]
            if not columns:
                break
        elif row:
            for _, place, cells in columns:
                cell = row[place].strip() if place < len(row) else ""
                if cell.lower() not in _NOT_SPELLED:
                    cells.append((start, cell))
        start = reader.line_num + 1
    return {name: cells for name, _, cells in columns or () if cells}


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _told(spelling: Spelling, names: list[str], columns: dict[str, list[tuple[int, str]]]) -> str:
    example = next(cell for name in names for _, cell in columns[name] if spelling.plain(cell) != cell)
    what = "decimal commas" if spelling is COMMA else "thousands separators"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"numbers with {what} in {', '.join(names[:5])}{more}: '{example}' is {float(spelling.plain(example)):.15g}"


def as_float_reads(row: list[str], converted: list[tuple[int, str, Spelling]], place: str) -> list[str]:
    """The row with the numbers of columns (place in the row, name, spelling) as Python spells them."""
    for number, name, spelling in converted:
        cell = row[number].strip()
        if cell.lower() not in _NOT_SPELLED:
            plain = spelling.plain(cell)
            if plain is None:
                what = "a decimal comma" if spelling is COMMA else "a decimal point"
                raise UserError(f"{place}, column '{name}': expected a number with {what}, as in the lines above, "
                                f"found '{cell[:60]}'. Mend it; a missing value is written ?.")
            row[number] = plain
    return row
