"""The built-in corpus: the documentation of Python and of the packages this toolkit stands on.

Every machine that can run the toolkit has this text, so the demo and the first experiments need no network.
Sources are parsed with `ast`; no package is ever imported. A module is a document, its docstrings are what it
says, and the package it comes from is a label (`mask_package_names` takes the answer out of the question).
"""

import ast
import gc
import hashlib
import importlib.util
import logging
import os
import re
import sysconfig
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from toolkit.bars import bar
from toolkit.data.text.docstrings import MINIMUM_DOCSTRING, clean_docstring
from toolkit.errors import UserError

logger = logging.getLogger(__name__)

PACKAGES = ("python", "numpy", "scipy", "pandas", "sklearn", "matplotlib", "torch", "transformers")
"""The labels of the "which package is this from" task. "python" is the standard library."""

CORPUS_PACKAGES = (*PACKAGES, "accelerate", "datasets", "huggingface_hub", "networkx", "sympy")
"""What pretraining reads: PACKAGES and the dependencies of ours that add prose worth having."""

# Tests, vendored copies and scripts that convert weights say little; modeling_*.py is made from modular_*.py.
SKIPPED_FOLDERS = re.compile(
    r"tests?|_?testing|idle_test|test_utils|_?vendor(ed)?|externals?|extern|__pycache__|benchmarks|templates"
)
SKIPPED_FILES = re.compile(r"test_.*|.*_test|tests?|conftest|modular_.*|convert_.*|setup")
MINIMUM_MODULE = 200  # characters of clean prose


@dataclass(frozen=True)
class ModuleDocumentation:
    """What one module says about itself: clean docstrings in source order, paragraphs a blank line apart."""

    package: str
    module: str
    docstrings: tuple[str, ...]


# --- from files to modules ----------------------------------------------------------------------------------


def _raw_docstrings(body: list[ast.stmt], documented: bool = True) -> Iterator[str]:
    """Docstrings in source order, and what C extensions are told by `add_docstr(function, text)`."""
    for position, node in enumerate(body):
        value = getattr(node, "value", None) if isinstance(node, ast.Expr | ast.Assign) else None
        if documented and position == 0 and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value
        elif isinstance(value, ast.Call):
            called = getattr(value.func, "attr", getattr(value.func, "id", ""))
            if called.lstrip("_").startswith(("add_docstr", "add_newdoc")):
                constants = (node.value for node in ast.walk(value) if isinstance(node, ast.Constant))
                yield from (
                    text for text in constants if isinstance(text, str) and len(text) >= MINIMUM_DOCSTRING
                )
        opens_scope = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for branch in ("body", "handlers", "orelse", "finalbody") if hasattr(node, "body") else ():
            yield from _raw_docstrings(getattr(node, branch, ()), opens_scope and branch == "body")


def _topics(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """`pydoc_data.topics` is the language reference as one dictionary."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            yield from sorted(ast.literal_eval(node.value).items())


def _parse(path: Path) -> ast.Module | None:
    """None for what is not Python of this version: templates, other encodings, nesting that is too deep."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # their invalid escape sequences are not our business
            source = path.read_bytes()
            if b'"""' not in source and b"'''" not in source and path.name != "topics.py":
                source = b""  # nothing to find; most of the time goes into parsing
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
        return None


def _document(package: str, module: str, raw: Iterator[str]) -> ModuleDocumentation | None:
    docstrings = tuple(prose for text in raw if (prose := clean_docstring(text)))
    return ModuleDocumentation(package, module, docstrings) if docstrings else None


def read_module(path: str | os.PathLike, module: str, package: str) -> ModuleDocumentation | None:
    """The documentation in a source file, which is parsed and not run; None if there is none to read."""
    tree = _parse(Path(path))
    return _document(package, module, _raw_docstrings(tree.body)) if tree else None


def _read_file(source: tuple[str, str, str]) -> list[ModuleDocumentation] | None:
    """What a worker does with (path, module, package). None: the file could not be read as Python."""
    path, module, package = source
    if (tree := _parse(Path(path))) is None:
        return None
    if module == "pydoc_data.topics":
        found = [_document(package, f"{module}.{name}", iter([text])) for name, text in _topics(tree)]
    else:
        found = [_document(package, module, _raw_docstrings(tree.body))]
    return [document for document in found if document]


def _package_root(package: str) -> Path:
    if package == "python":
        return Path(sysconfig.get_path("stdlib"))
    # For a top-level name, find_spec looks for the file and runs nothing.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not (spec.submodule_search_locations or spec.origin):
        raise UserError(
            f"There is no documentation to read for {package!r}: no package of that name is installed here. "
            f"Install it, or leave it out of `packages` (known to work: {', '.join(CORPUS_PACKAGES)})."
        )
    return Path(next(iter(spec.submodule_search_locations or ()), spec.origin))


def _source_files(package: str, root: Path) -> list[tuple[str, str, str]]:
    """(path, module, package) of every source file worth reading, in the order of module names."""
    if root.is_file():
        return [(str(root), package, package)]
    prefix = () if package == "python" else (package,)
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [
            name for name in subfolders if name.isidentifier() and not SKIPPED_FOLDERS.fullmatch(name)
        ]
        parts = (*prefix, *Path(folder).relative_to(root).parts)
        for stem in (name.removesuffix(".py") for name in names if name.endswith(".py")):
            if not SKIPPED_FILES.fullmatch(stem):
                module = ".".join(parts if stem == "__init__" else (*parts, stem))
                found.append((os.path.join(folder, f"{stem}.py"), module, package))
    return sorted(found, key=lambda source: source[1])


def source_files(package: str) -> list[tuple[str, str, str]]:
    """(path, module, package) of every source file of an installed package worth reading, by module names."""
    return _source_files(package, _package_root(package))


def _fingerprint(paragraph: str) -> bytes:
    """Equal for paragraphs that differ in names and numbers only, as those of copied modules do."""
    words = " ".join(re.findall(r"\b[a-z]+\b", paragraph))
    return hashlib.blake2b((words if len(words) >= 40 else paragraph).encode(), digest_size=12).digest()


def _without_repeats(document: ModuleDocumentation, seen: set[bytes]) -> ModuleDocumentation | None:
    docstrings = []
    for docstring in document.docstrings:
        fresh = []
        for paragraph in docstring.split("\n\n"):
            if (key := _fingerprint(paragraph)) not in seen:
                seen.add(key)
                fresh.append(paragraph)
        if len(kept := "\n\n".join(fresh)) >= MINIMUM_DOCSTRING:
            docstrings.append(kept)
    if sum(map(len, docstrings)) < MINIMUM_MODULE:
        return None
    return ModuleDocumentation(document.package, document.module, tuple(docstrings))


def iterate_python_documentation(
    packages: Sequence[str] = PACKAGES, num_workers: int | None = None, progress: bool = False
) -> Iterator[ModuleDocumentation]:
    """The documentation of installed packages, module by module.

    The order is that of package and module names, whatever `num_workers` is (None: one a core, at most 8;
    0 or 1: this process). A paragraph is given once: later ones that say the same, but for names and numbers,
    go; copied boilerplate teaches little and would leak from training into validation.
    """
    if isinstance(packages, str):
        raise TypeError(f"`packages` takes a sequence of names, not one string: write ({packages!r},).")
    roots = {package: _package_root(package) for package in sorted(set(packages))}  # before anything is read
    return _iterate(roots, num_workers, progress)


def _start_worker(parent: int) -> None:
    def leave_with_parent() -> None:  # who was killed cannot stop its workers; they would wait for ever
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    gc.disable()  # syntax trees have no cycles: the garbage collector would only cost time, a quarter of it


def _iterate(
    roots: dict[str, Path], num_workers: int | None, progress: bool
) -> Iterator[ModuleDocumentation]:
    sources = [source for package, root in roots.items() for source in _source_files(package, root)]
    workers = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
    pool = ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(os.getpid(),)) if workers > 1 else None
    seen: set[bytes] = set()
    unreadable = 0
    try:
        results = pool.map(_read_file, sources, chunksize=16) if pool else map(_read_file, sources)
        for documents in bar(results, "reading documentation", len(sources), unit="file", progress=progress):
            unreadable += documents is None
            for document in documents or ():
                if kept := _without_repeats(document, seen):
                    yield kept
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
    if unreadable:
        logger.warning("Skipped %d of %d files that are not valid Python.", unreadable, len(sources))


def iterate_python_source() -> Iterator[tuple[str, str]]:
    """(module, source code) of the standard library: a text of another kind than the documentation."""
    for path, module, _ in _source_files("python", _package_root("python")):
        try:
            yield module, Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a few old modules declare another encoding
            continue


# --- the label, hidden --------------------------------------------------------------------------------------

# Long names are replaced wherever they stand ("PyTorch", "from_numpy"), short ones as whole words only.
NAMES = re.compile(
    r"(?i:[ic]?python|(?:py|lib)?torch(?:script|vision|audio|run)?|numpy|scipy|pandas|sklearn|"
    r"scikits?(?:[-_ .]?learn)?|matplotlib|pyplot|pylab|hugging[-_ ]?face|(?<![a-z])transformers(?![a-z])|"
    r"standard library|stdlib)"
    r"|(?<![A-Za-z0-9])(?:np|pd|plt|mpl|sp|sk|hf|HF|mplot3d)(?![A-Za-z0-9])|🤗\s?"
)


def mask_package_names(text: str) -> str:
    """Every name and alias of the PACKAGES becomes "package": `torch.nn.Linear` gives `package.nn.Linear`."""
    return NAMES.sub("package", text)
