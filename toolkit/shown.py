"""What people wrote, shown as they wrote it: one function each for a terminal, Markdown, HTML and a picture.

Labels, names, texts and authors come from files and from strangers. Shown, they are one harmless line: nothing in them
draws, formats, moves a cursor or ends a table.
"""

import html
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any, TextIO

_KEPT = "\u200c\u200d"  # joiners, which Persian and Indic words and emoji are written with
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~$&{}])")


def on_one_line(text: object) -> str:
    """Line breaks as blanks; control and direction characters, and halves of characters, as their escapes."""
    return "".join(_visible(character) for character in str(text))


def _visible(character: str) -> str:
    if character in "\n\r\t\v\f\x85\u2028\u2029":
        return " "
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") and character not in _KEPT:
        return character.encode("unicode_escape", "surrogatepass").decode()
    return character


def on_terminal(text: object) -> str:
    """As `on_one_line`: no escape sequence of a stranger's reaches the terminal."""
    return on_one_line(text)


def tell(line: object) -> None:
    """A note, as one line on standard error."""
    print(on_terminal(line), file=sys.stderr)


class Terminal:
    """A stream to a terminal, through which lines and tabs pass and nothing else that would steer it: whatever is
    printed, and whoever wrote it. Of bars and of libraries that colour (`steered`) so much is let through as moves
    within a line or up, and colours.
    """

    _STEERS = re.compile(r"(\r|\x1b\[[\d;]*[AKm])")

    def __init__(self, stream: TextIO, steered: bool = False):
        self.stream, self.steered = stream, steered

    def write(self, text: str) -> int:
        parts = self._STEERS.split(text) if self.steered else [text]
        parts[::2] = ["".join(character if character in "\n\t" else _visible(character) for character in part)
                      for part in parts[::2]]
        self.stream.write("".join(parts))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard_terminal() -> None:
    """From now on what this process prints reaches a terminal by `Terminal`; files and pipes get it as it is."""
    if sys.stdout.isatty():
        sys.stdout = Terminal(sys.stdout)
    if sys.stderr.isatty():
        sys.stderr = Terminal(sys.stderr, steered=True)


def terminal_width() -> int | None:
    """Columns of the terminal that standard output goes to; None for a file or a pipe, which have no end."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def in_markdown(text: object) -> str:
    """One line in which nothing is markup: no link, picture, heading, comment or cell."""
    return _MARKDOWN.sub(r"\\\1", on_one_line(text))


def as_code(text: object) -> str:
    """A code span of Markdown, whatever backticks it holds (CommonMark 0.31, section 6.1)."""
    line = on_one_line(text) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if line[0] in "` " or line[-1] in "` " else f"{fence}{line}{fence}"


def in_html(text: object) -> str:
    """One line of HTML's text, or of an attribute in double quotes."""
    return html.escape(on_one_line(text))


def lines_in_html(text: str) -> str:
    """The same for a text of several lines, which stay."""
    return "\n".join(in_html(line) for line in text.split("\n"))


def in_script(json_text: str) -> str:
    """JSON as it may stand in a page's <script>: no tag, no comment and no line separator of its own."""
    for character in "<>&\u2028\u2029":
        json_text = json_text.replace(character, f"\\u{ord(character):04x}")
    return json_text


def in_picture(text: object, longest: int = 80) -> str:
    """One short line; matplotlib leaves what begins with an underscore out of its legends, so a thin blank goes first.
    That dollars are no mathematics is the picture's affair.
    """
    line = on_one_line(text)
    line = line if len(line) <= longest else line[:longest - 1] + "…"
    return f"\u200a{line}" if line.startswith("_") else line
