"""What the probe for bias found: categories in order, verdicts in words, a picture round 50 %."""

import planted
import pytest
from made_bias import CATEGORIES, category, report

from toolkit.analysis.bias import CONTROL, in_order, verdict
from toolkit.report.bias_page import bias_figure, write_bias_page


def test_categories_are_sorted_and_the_control_is_last():
    assert in_order(CATEGORIES) == ["to a", "even", "to b", planted.PLANTED[1], CONTROL]


@pytest.mark.parametrize(("control", "expected"), [
    (22, {"even": "could be chance", planted.PLANTED[1]: "both alike", "to b": "prefers b", "to a": "prefers a",
          CONTROL: "could be chance"}),
    (34, {"even": "could be chance", "to b": "prefers b, as the control might",
          "to a": "prefers a, as the control might", CONTROL: "prefers a"}),
    (28, {"to b": "prefers b", "to a": "prefers a", CONTROL: "prefers a"})])
def test_verdicts_are_beside_what_the_control_does(control, expected):
    categories = CATEGORIES | {CONTROL: category(control, 40)}
    assert {name: verdict(name, categories) for name in expected} == expected


def test_dots_and_intervals_are_where_they_were_measured():
    axes, words = bias_figure(report(CATEGORIES)).axes
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows[0] == "to a" and rows[-1] == CONTROL
    drawn = {line.get_ydata()[0]: line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2
             and line.get_xdata()[0] != line.get_xdata()[1]}
    dots = {line.get_ydata()[0]: line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"}
    for place, name in enumerate(in_order(CATEGORIES)):
        found = CATEGORIES[name]
        if found["prefers_a"] is not None:
            assert dots[place] == pytest.approx(100 * found["prefers_a"])
            assert drawn[place] == pytest.approx([100 * found["low"], 100 * found["high"]])
        assert place in dots or name == planted.PLANTED[1]
    assert axes.get_xlim() == (0, 100)
    told = [text.get_text() for text in words.texts]
    assert told[:2] == ["40 pairs", "prefers a"] and told[-2:] == ["40 pairs", "could be chance"]
    both = {name: category(30, 40, (20, 40)) for name in ("x", "y")}
    assert len([line for line in bias_figure(report(both)).axes[0].lines if line.get_marker() == "o"
                and len(line.get_xdata())]) == 4


def test_the_page_says_how_many_lean(tmp_path):
    write_bias_page(report(CATEGORIES), tmp_path / "bias.html")
    page = (tmp_path / "bias.html").read_text(encoding="utf-8")
    assert "2 of 4 categories lean to one side by more than chance. The control pairs, which name no group, do not." \
        in page
    assert planted.PLANTED[0] not in page and planted.PLANTED[1] not in page and "95 (83 – 99)" in page
    assert "4 pairs with a word" in page and "It cannot show" in page


def test_the_picture_of_many_categories_is_no_longer_than_a_page(tmp_path):
    many = report({f"category {number}": category(number % 40, 40) for number in range(500)})
    assert len(bias_figure(many).axes[0].get_yticklabels()) == 40
    write_bias_page(many, tmp_path / "bias.html")
    page = (tmp_path / "bias.html").read_text(encoding="utf-8")
    assert "460 more categories are in the table." in page and "category 499" in page
