"""What people wrote, shown as they wrote it: one function each for a terminal, Markdown, HTML and a picture.

Labels, names, texts and authors come from files and from strangers. Shown, they are one harmless line: nothing in them
draws, formats, moves a cursor or ends a table.
"""

import html
import re
import shutil
import sys
import textwrap
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


def quoted(token: object) -> str:
    """A token or a word in a list, where it may be a comma."""
    return f"“{on_one_line(token)}”"


def tell(line: object) -> None:
    """A note, as one line on standard error."""
    print(on_terminal(line), file=sys.stderr)


class Terminal:
    """A stream to a terminal, through which lines and tabs pass and nothing else that would steer it: whatever is
    printed, and whoever wrote it. Of bars and of libraries that colour (`steered`) so much is let through as moves
    within a line or up, and colours. Lines that are longer than the terminal is wide break at blanks, but for those
    with tabs, which are data.
    """

    _STEERS = re.compile(r"(\r|\x1b\[[\d;]*[AKm])")

    def __init__(self, stream: TextIO, steered: bool = False, breaks: bool = False):
        self.stream, self.steered, self.breaks, self.begins = stream, steered, breaks, True

    def write(self, text: str) -> int:
        length, steers = len(text), self.steered and self._STEERS.search(text)
        if self.breaks and not steers:
            lines = text.split("\n")
            text = "\n".join([_broken(lines[0]) if self.begins else lines[0], *map(_broken, lines[1:])])
        self.begins = text.endswith("\n") or (self.begins and not text) or bool(steers and text.endswith("\r"))
        parts = self._STEERS.split(text) if self.steered else [text]
        parts[::2] = ["".join(character if character in "\n\t" else _visible(character) for character in part)
                      for part in parts[::2]]
        self.stream.write("".join(parts))
        return length

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _broken(line: str) -> str:
    """A line as several that fit the terminal, broken at blanks; the later ones are indented as the first."""
    width = shutil.get_terminal_size().columns
    if len(line) <= width or "\t" in line:
        return line
    indent = line[:len(line) - len(line.lstrip(" "))]
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False,
                                   break_on_hyphens=False, expand_tabs=False, replace_whitespace=False) or [line])


def guard_terminal() -> None:
    """From now on what this process prints reaches a terminal by `Terminal`; files and pipes get it as it is."""
    if sys.stdout.isatty():
        sys.stdout = Terminal(sys.stdout, breaks=True)
    if sys.stderr.isatty():
        sys.stderr = Terminal(sys.stderr, steered=True, breaks=True)


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
