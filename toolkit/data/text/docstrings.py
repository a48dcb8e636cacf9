"""From a docstring in reST, numpydoc, Google style or Markdown to its prose: no examples, tables, markup or types."""

import inspect
import re
import unicodedata
from collections.abc import Sequence
from itertools import takewhile

MINIMUM_DOCSTRING = 40  # characters of clean prose

ENTRY_SECTION = re.compile(
    r"(other |optional |keyword )?(arg(ument)?|param(eter)?)s|(class )?attributes|properties|fields|"
    r"returns?|yields|raises|warns|receives|methods|inputs|outputs"
)
PROSE_SECTION = re.compile(r"(example|note|warning)s?|usage|shape|summary|description")
DROPPED_SECTION = re.compile(r"references?|see also|links")
PROSE_DIRECTIVE = re.compile(
    r"note|warning|tip|important|caution|attention|hint|danger|seealso|admonition|version(added|changed)|"
    r"deprecated|function|class|method|attribute|data|exception"
)
RULE = re.compile(r"([=\-~^\"'*+#`.:_])\1{2,}$")
SIMPLE_TABLE = re.compile(r"[=-]{2,}(\s+[=-]{2,})+$")
DIRECTIVE = re.compile(r"\.\.\s*(?:[\w-]+:)?([\w-]+)::\s*(.*)")
FIELD = re.compile(r":(\w+)(?:\s+([^:`]+))?:(?!`)\s*(.*)")
BULLET = re.compile(r"(?:[-*+•]|\(?\d{1,2}[.)]|\([a-z]\))\s+(?=\S)")
DOCTEST = re.compile(r">>>|\.\.\.\s|In \[\d+\]:|\$ |% \w+ ")
GOOGLE_SECTION = re.compile(r"([A-Z][\w ]{2,24}?)\s*:$")
ENTRY = re.compile(r"(\*{0,2}[`\w][`\w.,/ *\[\]-]{0,60}?)\s*(?:\(.*\))?\s*:(?:\s+(.*)|$)")
CODE_LINE = re.compile(
    r"(import |from [\w.]+ import|def \w+\(|class \w+[(:]|@\w|return |yield |await |print\(|raise \w|#|"
    r"(async )?(with|for) .*:$|(if|elif|while|except) .*:$|(else|try|finally):|.*::=|"
    r"[\w.\[\]'\", ]+\s*[-+*/]?=\s*\S|[\w.]+\(.*\)\s*(->.*)?$|[\w.]+\([^)]*,$)"
)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _dedent(lines: Sequence[str]) -> list[str]:
    if lines and lines[0][:1].strip():  # most often there is nothing to do
        return list(lines)
    margin = min((_indent(line) for line in lines if line.strip()), default=0)
    return [line[margin:] for line in lines]


def _indented_block(lines: Sequence[str], start: int, margin: int) -> list[str]:
    """The lines from `start` that belong to what stands at `margin`: deeper ones, and blank ones."""
    return list(takewhile(lambda line: not line.strip() or _indent(line) > margin, lines[start:]))


def _is_heading(lines: Sequence[str], i: int) -> bool:
    if i + 1 >= len(lines):
        return False
    title, rule = lines[i].strip(), lines[i + 1].strip()
    underlined = bool(title and rule and not rule[0].isalnum() and RULE.match(rule) and not RULE.match(title))
    return underlined and _indent(lines[i]) == _indent(lines[i + 1])


def _starts_block(line: str) -> bool:
    text = line.strip()
    if text[-1] == ":" and (section := GOOGLE_SECTION.match(text)):
        return bool(
            ENTRY_SECTION.fullmatch(section[1].lower()) or PROSE_SECTION.fullmatch(section[1].lower())
        )
    if text[0].isalpha() and not text.startswith("In ["):  # nearly all lines
        return False
    return bool(
        text.startswith((".. ", "```", "~~~")) or any(p.match(text) for p in (DOCTEST, BULLET, FIELD))
    )


def _named(name: str, paragraphs: list[str]) -> list[str]:
    """ "name: description", if there is a description."""
    name = name.strip("`* ")
    return [f"{name}: {paragraphs[0]}", *paragraphs[1:]] if paragraphs and name else paragraphs


def _entries(lines: Sequence[str], numpydoc: bool) -> list[str]:
    """Sections of named things. Types go: they are annotations more than prose."""
    lines, found, plain, i = _dedent(lines), [], [], 0
    while i < len(lines):
        body = _indented_block(lines, i + 1, 0)
        match = ENTRY.match(lines[i])
        if match or (lines[i] and any(body) and numpydoc):
            found += _paragraphs(plain)
            plain = []
            inline = [match[2]] if match and match[2] and not numpydoc else []
            name = match[1] if match else lines[i] if len(lines[i]) < 40 else ""
            found += _named(name, _paragraphs([*inline, *_dedent(body)]))
        else:
            plain += [lines[i], *body]
        i += 1 + len(body)
    return found + _paragraphs(plain)


def _paragraphs(lines: Sequence[str]) -> list[str]:
    """Paragraphs of one line each; examples, tables, directives and section titles are left out."""
    lines, found, i = _dedent(lines), [], 0

    def close_lead_in() -> None:  # "For example:" must not promise what was dropped
        if found and found[-1].endswith(":"):
            found[-1] = found[-1].rstrip(":. ") + "."

    while i < len(lines):
        text, margin = lines[i].strip(), _indent(lines[i])
        if not text or RULE.match(text):
            i += 1
        elif text.startswith(("```", "~~~")):
            close_lead_in()
            fence = text[:3]
            i += 2 + sum(
                1 for _ in takewhile(lambda line, f=fence: not line.strip().startswith(f), lines[i + 1 :])
            )
        elif DOCTEST.match(text):
            close_lead_in()
            i += sum(1 for _ in takewhile(str.strip, lines[i:]))
        elif text.startswith("> ") or text == ">":  # a quotation in Markdown, and what GitHub makes of it
            quotation = list(takewhile(lambda line: line.lstrip().startswith(">"), lines[i:]))
            unquoted = [re.sub(r"^>\s?(\[!\w+\])?", "", line.lstrip()) for line in quotation]
            found += _paragraphs(unquoted)
            i += len(quotation)
        elif text.startswith(".. ") or text == ".." or DIRECTIVE.match(text):
            body = _indented_block(lines, i + 1, margin)
            directive = DIRECTIVE.match(text)
            if directive and PROSE_DIRECTIVE.fullmatch(directive[1]):
                versioned = directive[1].startswith(("version", "deprecated"))
                argument = re.sub(r"^v?[\d.]+\w*\s*", "", directive[2]) if versioned else directive[2]
                options_out = [line for line in _dedent(body) if not re.match(r":[\w-]+:", line)]
                found += _paragraphs([argument, *options_out])
            else:
                close_lead_in()
            i += 1 + len(body)
        elif SIMPLE_TABLE.match(text) or (text[0] in "|+" and text[-1] in "|+"):
            close_lead_in()
            while i < len(lines) and lines[i].strip():
                i += 1
        elif _is_heading(lines, i):
            end = next((j for j in range(i + 2, len(lines)) if _is_heading(lines, j)), len(lines))
            title = text.lower().rstrip(":")
            if ENTRY_SECTION.fullmatch(title):
                found += _entries(lines[i + 2 : end], numpydoc=True)
            elif not DROPPED_SECTION.fullmatch(title):
                found += [text, *_paragraphs(lines[i + 2 : end])]
            i = end
        elif text[-1] == ":" and _starts_block(text):
            body = _indented_block(lines, i + 1, margin)
            is_prose = PROSE_SECTION.fullmatch(text.rstrip(": ").lower())
            found += _paragraphs(body) if is_prose else _entries(body, numpydoc=False)
            i += 1 + len(body)
        elif field := FIELD.match(text):
            body = _indented_block(lines, i + 1, margin)
            if field[1] not in ("type", "rtype", "vartype"):
                name = (field[2] or "").split(" ")[-1]
                found += _named(name, _paragraphs([field[3], *_dedent(body)]))
            i += 1 + len(body)
        elif bullet := BULLET.match(text):
            body = _indented_block(lines, i + 1, margin)
            found += _paragraphs([text[bullet.end() :], *_dedent(body)])
            i += 1 + len(body)
        else:
            end = i + 1
            while end < len(lines) and lines[end].strip() and not _starts_block(lines[end]):
                if _is_heading(lines, end):
                    break
                end += 1
            paragraph = [line.strip() for line in lines[i:end]]
            literal = paragraph[-1].endswith("::")
            if sum(bool(CODE_LINE.match(line)) for line in paragraph) * 2 < len(paragraph):
                deeper = len(paragraph) > 1 and _indent(lines[i + 1]) > margin
                if deeper and len(paragraph[0]) < 40 and paragraph[0][-1] not in ".,:;":
                    paragraph[0] += ":"  # a definition list: the term, then what it means
                found.append(re.sub(r"(?<=\w)- (?=[a-z])", "-", " ".join(paragraph)))
            if literal:
                if found and found[-1].endswith("::"):
                    found[-1] = found[-1].rstrip(":. ") + "."
                end += len(_indented_block(lines, end, margin))
            i = end
    return found


LATEX = [
    (re.compile(r"\\d?frac\{([^{}]*)\}\{([^{}]*)\}"), r"\1 / \2"),
    (re.compile(r"\\(?:(?:text|mathrm|mathbb|mathcal|mathbf|operatorname|left|right|big)\b\*?|[,;!])"), ""),
    (re.compile(r"\\leq?\b"), "<="),
    (re.compile(r"\\geq?\b"), ">="),
    (re.compile(r"\\([a-zA-Z]+)"), r" \1 "),
    (re.compile(r"[{}$\\]"), ""),
]


def _latex(match: re.Match) -> str:
    text = match[1]
    for pattern, replacement in LATEX:
        text = pattern.sub(replacement, text)
    return text.strip()


# (a character without which the pattern cannot match, the pattern, what takes its place)
INLINE = [
    ("`", re.compile(r":math:`([^`]*)`"), _latex),
    (
        "`",
        re.compile(r"(?::[\w+-]+)?:[\w+-]+:`~?!?([^`<]+?)(?:\s*<[^`>]*>)?`"),
        r"`\1`",
    ),  # :role:`text <target>`
    ("`", re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?"), r"\1"),  # `text <target>`_
    ("](", re.compile(r"!?\[`?~?!?([^\]\[]*?)`?\]\([^)\s]*\)"), r"\1"),  # [text](target)
    ("`", re.compile(r"\[`~?([^`\]]+)`\]"), r"\1"),  # [`~Class.method`]
    ("]_", re.compile(r"\s*\[[\w#*-]{1,12}\]_"), ""),  # footnote marks
    ("`", re.compile(r"`{1,2}~?([^`]+?)`{1,2}(?:__?(?!\w))?"), r"\1"),
    ("`", re.compile(r"(?<!\w):(?:py:)?[a-z]+:(?=`)|`"), ""),  # what is not closed
    ("**", re.compile(r"\*\*(?=\S)([^*]+?)(?<=\S)\*\*"), r"\1"),
    ("*", re.compile(r"(?<![\w*])\*(?=[^\s*])([^*]+?)(?<=\S)\*(?![\w*])"), r"\1"),
    (
        "<",
        re.compile(r"</?(?:tip|br|a|p|b|i|em|code|div|img|span|li|ul|hfoptions?)\b[^<>]*>", re.IGNORECASE),
        " ",
    ),
    ("{", re.compile(r"(?<!\{)\{[a-zA-Z_]\w*\}(?!\})"), ""),  # placeholders, in three styles
    ("%(", re.compile(r"%\([\w:.]+\)[sd]"), ""),
    ("|", re.compile(r"\|[\w-]+\|(?=[\s.,]|$)"), ""),
    ("://", re.compile(r"\s*\(\s*(?:see:?\s*)?<?(?:https?|ftp)://[^\s)]*>?\s*\)", re.IGNORECASE), ""),
    # A sentence with a bare address in it is a pointer, not prose.
    (
        "://",
        re.compile(r"(?:(?<=[.!?] )|^)(?:[^.!?]|[.!?](?=\S))*?\w+://\S*(?:[^.!?]|[.!?](?=\S))*[.!?]?"),
        "",
    ),
    ("\\", re.compile(r"\\([*_`|<>\\ ])"), r"\1"),
    (" ", re.compile(r"\s+(?=[,.;:!?)](?:\s|$))"), ""),
]


def _inline(text: str) -> str:
    for needed, pattern, replacement in INLINE:
        if needed in text:
            text = pattern.sub(replacement, text)
    return " ".join(text.split())


def _is_prose(text: str) -> bool:
    """At least three words, mostly letters, and not a call signature."""
    letters = sum(map(str.isalpha, text))
    solid = len(text) - text.count(" ")
    return (
        letters >= 12 and letters >= 0.75 * solid and text.count(" ") >= 2
        and not re.match(r"[\w.]+\([^()]*(\([^()]*\)[^()]*)*\)\s*(->.*)?$", text)
    )  # fmt: skip


def clean_docstring(text: str) -> str:
    """The prose of a docstring in reST, numpydoc, Google style or Markdown; "" if there is next to none."""
    lines = inspect.cleandoc(unicodedata.normalize("NFC", text)).split("\n")
    paragraphs: list[str] = []
    for paragraph in [*map(_inline, _paragraphs(lines)), ""]:
        if _is_prose(paragraph):
            paragraphs.append(paragraph)
        elif paragraphs and paragraphs[-1].endswith(":"):  # it announced what is not prose
            paragraphs[-1] = paragraphs[-1].rstrip(":. ") + "."
    prose = "\n\n".join(paragraphs)
    return prose if len(prose) >= MINIMUM_DOCSTRING else ""
