"""What pictures are drawn on leaves a notebook's own plots alone, and becomes part of a page without a collision."""

import re
import subprocess
import sys

import numpy as np
import pytest

from toolkit.report.figures.canvas import BASELINE, INK, OKABE_ITO, PAPER, as_svg, new_figure, save_figure, style_of

UNTOUCHED = """
import sys
import matplotlib
matplotlib.use("svg")
matplotlib.rcParams["lines.linewidth"] = 7.5
before = dict(matplotlib.rcParams)
from toolkit.report.figures.canvas import as_svg, save_figure
from toolkit.report.figures.gains import Gain, GainPanel, gain_figure
figure = gain_figure([GainPanel("a", [Gain("b", [0.1, 0.2, 0.3], [0.2, 0.3, 0.5])], {"majority": 0.1})])
save_figure(figure, sys.argv[1])
as_svg(figure)
assert dict(matplotlib.rcParams) == before
assert "matplotlib.pyplot" not in sys.modules
import matplotlib.pyplot
assert matplotlib.get_backend() == "svg" and not matplotlib.pyplot.get_fignums()
"""


def test_drawing_leaves_pyplot_its_backend_and_the_users_style_alone(tmp_path):
    subprocess.run([sys.executable, "-c", UNTOUCHED, str(tmp_path / "a.png")], check=True)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def figure_with(text: str, values=(1, 2)):
    figure, axes = new_figure(4, 3)
    axes[0, 0].plot(values, **style_of(0))
    axes[0, 0].set_title(text)
    axes[0, 0].annotate(text, (0, 1))
    return figure


def test_an_svg_takes_ink_and_paper_from_its_page_and_its_ids_are_its_own():
    one, other = as_svg(figure_with("one")), as_svg(figure_with("other", (2, 1)))
    assert one.startswith("<svg") and "var(--ink)" in one and INK not in one and PAPER not in one
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip((one, other), ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= own


def test_a_script_in_a_picture_is_text_and_dollars_are_drawn(tmp_path):
    figure = figure_with("<script>alert(1)</script> $x_1$ & -->")
    save_figure(figure, tmp_path / "a.png")  # and once more, since one figure becomes a file and part of a page
    svg = as_svg(figure)
    assert "<script" not in svg and "<!--" not in svg
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x_1$ &amp; --&gt;" in svg


def test_a_picture_shows_itself_in_a_notebook():
    assert figure_with("a")._repr_png_().startswith(b"\x89PNG")


# --- colours -------------------------------------------------------------------------------------------------------

MACHADO = {  # Machado, Oliveira & Fernandes (2009), severity 1.0, on linear RGB
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "full": np.eye(3).tolist()}


def lab(colour: str, sight: str) -> np.ndarray:
    """CIE L*a*b* (D65) of a colour as someone sees it."""
    encoded = np.asarray([int(colour[place:place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(MACHADO[sight]) @ linear, 0, 1)
    xyz = np.asarray([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                      [0.0193339, 0.1191920, 0.9503041]]) @ seen / [0.95047, 1, 1.08883]
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.asarray([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def closest(colours, sight: str) -> float:
    """The smallest difference (ΔE, CIE 1976) between any two."""
    seen = [lab(colour, sight) for colour in colours]
    return min(float(np.linalg.norm(one - other)) for number, one in enumerate(seen) for other in seen[:number])


@pytest.mark.parametrize("sight", MACHADO)
def test_the_colour_blind_can_tell_any_two_colours(sight):
    assert closest((*OKABE_ITO, INK, BASELINE, PAPER), sight) > 12


def test_the_measure_finds_colours_that_the_colour_blind_mix_up():
    assert closest(("#d62728", "#8c564b"), "protanopia") < 20 < closest(("#d62728", "#8c564b"), "full")


def test_forty_things_are_drawn_in_forty_ways():
    assert len({str(style_of(index)) for index in range(40)}) == 40
