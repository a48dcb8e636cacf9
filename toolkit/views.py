"""What a notebook shows of our objects: a few lines as text, a table as HTML, both short and made from one `View`.

A class derives from `Viewed` and says what is worth seeing of it. What people wrote is escaped, whatever it holds.
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolkit.shown import in_html, on_one_line

LONGEST = 2000
"""Characters of a text."""
ROWS, CELL, FACT = 12, 44, 100
"""Rows of a table, characters of its cells, characters of a fact."""


@dataclass(frozen=True)
class View:
    """What is worth seeing of an object."""

    title: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    heads: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    note: str = ""
    """What stands below."""


class Viewed:
    """Base of classes that a notebook shows. A dataclass among them is made with `repr=False`."""

    def _shown(self) -> View:
        raise NotImplementedError

    def __repr__(self) -> str:
        return as_text(self._shown())

    def _repr_html_(self) -> str:
        return as_html(self._shown())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython's printer would take a dict apart, or a tuple."""
        printer.text(repr(self))


class Reported(Viewed, dict):
    """What a run came to: a dict whose long lists are not shown."""

    def _shown(self) -> View:
        facts = {key: value for key, value in _flat(self).items() if value is not None}
        return View("result", {}, ("", "value"), list(facts.items()))


def as_text(view: View) -> str:
    """At most LONGEST characters."""
    lines = [_cut(view.title, FACT)]
    lines += [f"  {_cut(key, CELL)}: {_cut(shown(value), FACT)}" for key, value in view.facts.items()]
    if view.rows:
        table = [[_cut(head, CELL) for head in view.heads],
                 *([_cut(shown(cell), CELL) for cell in row] for row in view.rows[:ROWS])]
        widths = [max(len(row[place]) for row in table) for place in range(len(view.heads))]
        lines += ["  " + "  ".join(cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right
                                   in zip(row, widths, _to_right(view), strict=True)).rstrip() for row in table]
        lines += [f"  … and {len(view.rows) - ROWS:,} more"] * (len(view.rows) > ROWS)
    lines += [_cut(view.note, FACT)] * bool(view.note)
    text = "\n".join(lines)
    return text if len(text) <= LONGEST else text[:LONGEST - 2] + " …"


def as_html(view: View) -> str:
    """A table with a caption; facts are its lines above."""
    parts = [f"<p><strong>{in_html(_cut(view.title, 2 * FACT))}</strong>"]
    parts += [f"<br>{in_html(key)}: {in_html(_cut(shown(value), 2 * FACT))}" for key, value in view.facts.items()]
    parts.append("</p>")
    if view.rows:
        right = _to_right(view)
        parts.append("<table><thead><tr>" + "".join(map(_head, view.heads, right)) + "</tr></thead><tbody>")
        parts += ["<tr>" + "".join(map(_cell, row, right)) + "</tr>" for row in view.rows[:4 * ROWS]]
        parts.append("</tbody></table>")
        parts += [f"<p>… and {len(view.rows) - 4 * ROWS:,} more</p>"] * (len(view.rows) > 4 * ROWS)
    parts += [f"<p>{in_html(view.note)}</p>"] * bool(view.note)
    return "".join(parts)


def shown(value: Any) -> str:
    """A value on one line: numbers with four digits, sequences by their beginning or their length."""
    if value is None:
        return "–"
    if isinstance(value, (bool, str)):
        return on_one_line(value)
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}".replace("-", "−")
    if isinstance(value, numbers.Real):
        return "–" if math.isnan(value) else f"{float(value):.4g}".replace("-", "−")
    if isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
        items = [on_one_line(shown(item)) for item in list(value)[:6]]
        return ", ".join(items) + f", … ({len(value):,})" * (len(value) > 6)
    return on_one_line(value)


def counted(count: int, one: str, many: str = "") -> str:
    """1 text, 2 texts."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _flat(values: Mapping, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            if "mean" in value and "ci95" in value:  # over seeds
                spread = f" ± {shown(value['ci95'])}" if value["ci95"] is not None else ""
                found[f"{prefix}{key}"] = f"{shown(value['mean'])}{spread} (n = {value.get('n', '?')})"
            else:
                found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and len(value) > 6:
            found[f"{prefix}{key}"] = f"{len(value):,} values"
        else:
            found[f"{prefix}{key}"] = value
    return found


def _cut(text: object, length: int) -> str:
    line = on_one_line(text)
    return line if len(line) <= length else line[:length - 1] + "…"


def _to_right(view: View) -> list[bool]:
    """Which columns hold numbers alone, or intervals."""
    return [all(_is_number(row[place]) for row in view.rows) for place in range(len(view.heads))]


def _is_number(value: Any) -> bool:
    return value is None or hasattr(value, "ci95") or isinstance(value, numbers.Real) and not isinstance(value, bool)


def _head(text: str, right: bool) -> str:
    return f'<th scope="col" style="text-align:{"right" if right else "left"}">{in_html(text)}</th>'


def _cell(value: Any, right: bool) -> str:
    return f'<td style="text-align:{"right" if right else "left"}">{in_html(_cut(shown(value), 3 * CELL))}</td>'
