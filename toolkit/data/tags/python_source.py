"""The built-in set: lines of installed Python packages, each word tagged by what it is. Every machine has it.

Signs and keywords are told by their letters; names are not, since all are in lower case: whether one is a class, a
method, an argument or an attribute is told by the words around it.
"""

import ast
import hashlib
import io
import keyword
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from toolkit.data.tags.tagged import TaggedSentences, joined
from toolkit.data.text.python_docs import source_files

PARTS = {"train": ("python", "sklearn", "matplotlib", "torch", "transformers", "networkx", "sympy", "huggingface_hub"),
         "validation": ("pandas", "accelerate"), "test": ("scipy", "numpy", "datasets")}
"""No package is in two of them."""
LONGEST, LONGEST_WORD = 60, 24
"""Words of the longest line, and letters of the longest word: of strings and comments the beginning is shown."""
_SKIPPED = (tokenize.ENCODING, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def python_lines(part: str, count: int) -> TaggedSentences:
    """So many logical lines of the packages of a part, a few of each module, no two alike."""
    files = [(path, module) for package in PARTS[part] for path, module, _ in source_files(package)]
    files.sort(key=lambda source: hashlib.blake2b(source[1].encode()).digest())  # of all packages by turns
    rows, seen = [], set()
    for path, module in files:
        fresh = []
        for number, words, tags in tagged_lines(Path(path).read_bytes()):
            if len(words) > 2 and (key := tuple(words)) not in seen:
                seen.add(key)
                fresh.append((*joined(words), tags, f"{module}, line {number}"))
        rows += fresh[:: max(1, len(fresh) // 20)][:20]
        if len(rows) >= count:
            break
    rows = rows[:count]
    return TaggedSentences(*([row[part] for row in rows] for part in range(4)))


def tagged_lines(source: bytes) -> Iterator[tuple[int, list[str], list[str]]]:
    """(number, words, tags) of each logical line and each comment; none of what is no Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
        tokens = list(tokenize.tokenize(io.BytesIO(source).readline))
    except (SyntaxError, ValueError, RecursionError, MemoryError, UnicodeDecodeError, tokenize.TokenError):
        return
    roles, line = _roles(tree, source), []
    for token in tokens:
        if token.type in (tokenize.NEWLINE, tokenize.NL) and (token.type == tokenize.NEWLINE or all(
                each.type == tokenize.COMMENT for each in line)):
            if line and len(line) <= LONGEST:
                yield line[0].start[0], *_tagged(line, roles)
            line = []
        elif token.type not in (*_SKIPPED, tokenize.NL):
            line.append(token)


def _roles(tree: ast.Module, source: bytes) -> dict[tuple[int, int], str]:
    """(line, column in letters) of arguments → what they are; and (line of its statement, -1) of what defines a method.
    """
    lines = source.decode("utf-8", errors="replace").splitlines()

    def place(node: ast.AST) -> tuple[int, int]:  # ast counts bytes
        text = lines[node.lineno - 1] if node.lineno <= len(lines) else ""
        return node.lineno, len(text.encode()[:node.col_offset].decode(errors="replace"))

    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg):
            found[place(node)] = "argument"
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    found[inner.lineno, -1] = "method"
    return found


def _tagged(line: list[tokenize.TokenInfo], roles: dict[tuple[int, int], str]) -> tuple[list[str], list[str]]:
    words, tags, before = [], [], ""
    importing = line[0].string in ("import", "from")
    for token, behind in zip(line, [*line[1:], None], strict=True):
        text = " ".join(token.string.split())
        if token.type == tokenize.COMMENT:
            tag = "comment"
        elif token.type == tokenize.NUMBER:
            tag = "number"
        elif token.type == tokenize.OP:
            tag = "operator"
        elif token.type != tokenize.NAME:
            tag = "string"
        elif keyword.iskeyword(text):
            tag = "keyword"
        else:
            tag = _name(token, before, behind.string if behind else "", importing, roles)
        before = text
        words.append(text.lower()[:LONGEST_WORD].strip() or "_")
        tags.append(tag)
    return words, tags


def _name(token: tokenize.TokenInfo, before: str, behind: str, importing: bool, roles: dict[tuple[int, int], str]
          ) -> str:
    if before == "class":
        return "class"
    if before == "def":
        return roles.get((token.start[0], -1), "function")
    if importing:
        return "module"
    if role := roles.get(token.start):
        return role
    called = behind == "("
    if before == ".":
        return "method" if called else "attribute"
    return "function" if called else "name"
