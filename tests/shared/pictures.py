"""What a drawn figure looks like: its texts and where they stand."""

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is seen, and its box in pixels."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    seen = {id(text) for axes in figure.axes if axes.get_visible() for text in axes.findobj(Text)}
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        drawn = {id(tick.label1) for tick in axis._update_ticks()}  # those beyond the ends of the axis are not
        seen -= {id(tick.label1) for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())} - drawn
    seen |= {id(text) for text in [figure._suptitle, *(own for legend in figure.legends for own in legend.get_texts())]}
    return [(text.get_text(), Text.get_window_extent(text, renderer))  # of an annotation without its line
            for text in texts if id(text) in seen]


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of which one covers the other, by more than a hair."""
    return [(one, other) for (one, first), (other, second) in combinations(boxes(figure), 2)
            if (both := Bbox.intersection(first, second)) is not None and both.width > 1 and both.height > 1]


def outside(figure: Figure) -> list[str]:
    """Texts that leave the figure."""
    width, height = figure.canvas.get_width_height()
    return [text for text, box in boxes(figure)
            if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1]


def words(figure: Figure) -> list[str]:
    return [text for text, _ in boxes(figure)]
