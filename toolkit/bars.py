"""Bars while one waits: ours on a terminal and in a notebook; those of libraries silent while we call them.

In a notebook a bar is a line of HTML that is drawn anew in its place. It needs no ipywidgets, and writes nothing to
standard error. What a user switched on or off in a library is as it was after each of our calls.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from toolkit.shown import in_html, on_one_line

_hidden: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def hidden() -> Iterator[None]:
    """Within, nothing is displayed in a notebook; what would be, is printed as into a log."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


def in_notebook() -> bool:
    """Whether what is displayed reaches a notebook: a kernel of IPython runs this process, and nobody hides it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return hasattr(shell, "kernel") and not _hidden.get()


def load_tqdm() -> None:
    """In a notebook tqdm, which most libraries load, warns at that moment where there is no ipywidgets. Loaded here, it
    says nothing.
    """
    if "IPython" in sys.modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tqdm.auto  # noqa: F401


class Display:
    """A place in a notebook whose HTML is replaced; what shows no HTML has the line."""

    def __init__(self, line: str, content: str):
        from IPython.display import display

        self._handle = display(_forms(line, content), raw=True, display_id=True)

    def show(self, line: str, content: str) -> None:
        self._handle.update(_forms(line, content), raw=True)


def _forms(line: str, content: str) -> dict[str, str]:
    return {"text/plain": on_one_line(line), "text/html": content}


def bar_in_html(share: float, line: str) -> str:
    """A bar as long as `share` of it is done, and a line of text, escaped, beside it."""
    return (f'<div style="display:flex;flex-wrap:wrap;gap:0 .6em;align-items:center">'
            f'<progress style="width:12em" value="{min(1.0, max(0.0, share)):.3f}" max="1"></progress>'
            f'<span style="font-variant-numeric:tabular-nums;white-space:pre-wrap">{in_html(line)}</span></div>')


def bar(*args: Any, progress: bool = True, **options: Any) -> Any:
    """tqdm's bar over something, with its options. It is drawn on a terminal and in a notebook, into no log, and
    nowhere without `progress`; nothing of it stays.
    """
    if in_notebook():
        return _notebook_bar()(*args, disable=not progress, **options)
    from tqdm import tqdm

    return tqdm(*args, disable=None if progress else True, leave=False, **options)


def _notebook_bar() -> Callable[..., Any]:
    """The class, made when it is asked for, since tqdm is loaded late."""
    from tqdm import tqdm

    class NotebookBar(tqdm):
        def __init__(self, *args: Any, **options: Any):
            self.place = None
            super().__init__(*args, gui=True, **options)
            if not self.disable:
                self.place = Display(*self.drawn())

        def drawn(self) -> tuple[str, str]:
            left = "/{total_fmt} {elapsed}<{remaining}" if self.total else " {elapsed}"
            line = self.format_meter(**{**self.format_dict, "ncols": None, "bar_format": "{desc}: {n_fmt}" + left})
            return line, bar_in_html(self.n / self.total if self.total else 0.0, line)

        def display(self, *_: Any, **__: Any) -> None:
            if self.place is not None:
                self.place.show(*self.drawn())

        def close(self) -> None:
            if self.place is not None:
                self.place.show("", "")
                self.place = None
            super().close()

    return NotebookBar


@contextmanager
def libraries_silent() -> Iterator[None]:
    """Within, transformers, huggingface_hub and datasets, as far as they are loaded, draw no bars and report no more
    than errors: what is missing or wrong, we say ourselves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they warn where an environment variable has said it already
        undo = [silence() for name, silence in _SILENCES.items() if name in sys.modules]
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for restore in reversed(undo):
                restore()


def _silence_transformers() -> Callable[[], None]:
    from transformers.utils import logging

    level, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if had_bars:
        logging.disable_progress_bar()

    def restore() -> None:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()

    return restore


def _silence_hub() -> Callable[[], None]:
    from huggingface_hub import utils

    had_bars = not utils.are_progress_bars_disabled()
    if had_bars:
        utils.disable_progress_bars()

    def restore() -> None:
        if had_bars and utils.are_progress_bars_disabled():
            utils.enable_progress_bars()
        elif not had_bars and not utils.are_progress_bars_disabled():  # transformers switches both on
            utils.disable_progress_bars()

    return restore


def _silence_datasets() -> Callable[[], None]:
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    had_bars = not are_progress_bars_disabled()
    if had_bars:
        disable_progress_bars()
    return enable_progress_bars if had_bars else lambda: None


_SILENCES = {"huggingface_hub": _silence_hub, "transformers": _silence_transformers, "datasets": _silence_datasets}
