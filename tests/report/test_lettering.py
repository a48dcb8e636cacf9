"""Texts of pictures: drawn as they are written, in a font that has them, and not more of them than can be read."""

import csv
import resource

import numpy as np
import pytest
from matplotlib import mathtext
from PIL import Image

from toolkit.report.figures import lettering
from toolkit.report.figures.canvas import new_figure, save_figure
from toolkit.report.figures.classification import (
    MOST_CLASSES,
    confusion_counts,
    confusion_figure,
    ranking_figure,
    write_counts,
)

NAMES = ["$", "$$", "cheap: $5_$ or less", "_under", "a\x1b[31mred\nline", "x" * 200, "costs $5 to $10"]


@pytest.fixture
def no_mathematics(monkeypatch):
    """Any text that matplotlib sets as mathematics, but for the numbers of an axis, is an error."""
    parse = mathtext.MathTextParser.parse

    def parsed(self, text, *rest, **named):
        assert "mathdefault" in text, text
        return parse(self, text, *rest, **named)

    monkeypatch.setattr(mathtext.MathTextParser, "parse", parsed)


def test_labels_are_drawn_as_they_are_written(tmp_path, no_mathematics):
    # Once wrong: labels with dollars were mathematics, or ended a run after its training.
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(0, 7, 200), generator.dirichlet(np.ones(7), 200)
    counts = confusion_counts(labels, probabilities.argmax(1), len(NAMES))
    save_figure(confusion_figure(counts, NAMES, "a title of $x_$"), tmp_path / "confusion.png")
    save_figure(ranking_figure(probabilities, labels, NAMES), tmp_path / "ranking.png")
    assert (tmp_path / "confusion.png").stat().st_size and (tmp_path / "ranking.png").stat().st_size


def test_numbers_of_a_logarithmic_axis_stay_powers(tmp_path):
    figure, ((axes,),) = new_figure(4, 3)
    axes.set_title("log $")
    axes.plot([1, 10, 1000], [1e-4, 1, 3])
    axes.set_yscale("log")
    save_figure(figure, tmp_path / "log.png")
    assert any("mathdefault{10^" in label.get_text() for label in axes.get_yticklabels())
    assert axes.get_title() == "log $" and not axes.title.get_parse_math()


def test_letters_that_no_font_has_are_told_once(tmp_path, capsys, recwarn, monkeypatch):
    monkeypatch.setattr(lettering, "_told", set())
    monkeypatch.setattr(lettering, "_font_with", lambda character: None)
    for _ in range(2):
        figure, all_axes = new_figure(3, 2)
        all_axes[0, 0].set_title("饮食")
        save_figure(figure, tmp_path / "letters.png")
    assert capsys.readouterr().out.count("no font of this machine has") == 1
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_of_many_classes_the_most_confused_are_drawn_and_all_are_in_a_table(tmp_path):
    classes = 500
    labels = np.repeat(np.arange(classes), 3)
    answers = labels.copy()
    answers[labels == 7] = 311
    names = [f"class {number}" for number in range(classes)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = confusion_counts(labels, answers, classes)
    save_figure(confusion_figure(counts, names, "Test", "confusion.csv"), tmp_path / "confusion.png")
    write_counts(counts, names, tmp_path / "confusion.csv")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000, "kB"
    assert max(Image.open(tmp_path / "confusion.png").size) < 150 * (MOST_CLASSES + 8)
    with open(tmp_path / "confusion.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == classes + 1 and rows[8][312] == "3" and rows[8][8] == "0"
