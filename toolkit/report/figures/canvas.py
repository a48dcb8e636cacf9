"""What every picture is drawn on: a figure that is nobody's current one, the colours, and how it becomes a file or a
part of a page.

    figure, axes = new_figure(7, 4)
    axes[0, 0].plot(steps, losses, **style_of(0))
    save_figure(figure, "loss.png")         # or .svg
    page = as_svg(figure)

Neither pyplot nor its backend is touched, so a notebook keeps its own. A function that draws is named …_figure and
returns the figure; who calls it saves it.
"""

import hashlib
import io
import re
import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.text import Text

from toolkit.report.figures.lettering import write_literally
from toolkit.run.files import write_atomic

INK, SOFT, PAPER = "#1f2937", "#6b7280", "#fffffe"
"""Text and axes; what stands behind; what all is drawn on. In pages they are the page's own, light or dark."""
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe & Ito (2008), *Color universal design*, without black, which is INK's place, and yellow, which paper drowns."""
PRETRAINED, RANDOM, BASELINE = OKABE_ITO[0], OKABE_ITO[1], SOFT
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
DOTS_PER_INCH = 130


class Picture(Figure):
    """A figure that a notebook shows where it is the last line of a cell."""

    def _repr_png_(self) -> bytes:
        return _as_bytes(self, "png")


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
               ) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches, and its axes as a table (rows, columns). options: of `Figure.subplots`."""
    with matplotlib.rc_context(_STYLE):
        figure = Picture(figsize=(width, height), layout="constrained", facecolor=PAPER)
        figure.get_layout_engine().set(h_pad=0.07)
        FigureCanvasAgg(figure)
        all_axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axes in all_axes.flat:
        dress(axes)
    return figure, all_axes


def entitle(figure: Figure, title: str) -> None:
    """The title of all its axes, at the left, on as many lines as it needs."""
    figure.suptitle(wrapped(title, 9.5 * figure.get_figwidth()), x=0.01, ha="left", fontsize=12, color=INK)


def wrapped(text: str, characters: float) -> str:
    """On lines of so many characters; at most 80, after which a line of a picture is cut."""
    return textwrap.fill(text, min(80, int(characters)))


def dress(axes: Axes) -> None:
    """In our colours, whatever style the user has set; open at the top and the right."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(which="both", color=INK, labelcolor=INK, labelsize=9)
    for text in (axes.title, axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
        text.set_fontsize(10)


def style_of(index: int) -> dict[str, Any]:
    """Colour, marker and line of the index-th thing drawn: no two of the first forty are alike in all three."""
    return {"color": OKABE_ITO[index % len(OKABE_ITO)], "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINES[index // len(OKABE_ITO) % len(LINES)]}


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write the picture, .png or .svg, making its folder. Texts are drawn as they are written."""
    write_atomic(path, _as_bytes(figure, Path(path).suffix.removeprefix(".") or "png"))


def as_svg(figure: Figure) -> str:
    """The picture as an <svg> of a page: its letters are letters, its ids its own, its ink and paper the page's."""
    svg = _as_bytes(figure, "svg").decode()
    svg = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg"):], flags=re.DOTALL)
    svg = re.sub(r' xmlns:xlink="[^"]*"', "", svg).replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    own = f"p{hashlib.sha256(svg.encode()).hexdigest()[:10]}-"
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{own}{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{own}", svg)
    for colour, name in ((INK, "ink"), (SOFT, "soft"), (PAPER, "paper")):
        svg = svg.replace(colour, f"var(--{name})")
    return svg


_STYLE = {**{key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")},
          "svg.fonttype": "none", "svg.hashsalt": "one picture"}


def _as_bytes(figure: Figure, form: str) -> bytes:
    picture, unset = io.BytesIO(), matplotlib.rcParams["text.color"]  # what a text has that was given no colour
    with matplotlib.rc_context(_STYLE):
        write_literally(figure)
        for text in figure.findobj(Text):
            if same_color(text.get_color(), unset):
                text.set_color(INK)
        if form == "svg":
            paper = figure.get_facecolor()
            figure.set_facecolor("none")
            FigureCanvasSVG(figure).print_svg(picture, metadata={"Date": None, "Creator": None})
            figure.set_facecolor(paper)
            FigureCanvasAgg(figure)
        else:
            figure.savefig(picture, dpi=DOTS_PER_INCH, format=form)
    return picture.getvalue()
