"""The page of the bias probe, of a BERT, of a GPT, and of a file with many categories."""

import planted
import pytest
from made_bias import CATEGORIES, category, report

from toolkit.analysis.bias import CONTROL
from toolkit.report.bias_page import write_bias_page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("categories", [
    CATEGORIES, {"he / she": category(30, 40, (21, 40)), CONTROL: category(20, 40, (19, 40))},
    {f"{number} {planted.PLANTED[number % 3]}": category(number % 40, 40) for number in range(50)}],
    ids=["bert", "gpt", "many"])
def test_every_page_holds(check_page, tmp_path, categories):
    write_bias_page(report(categories), tmp_path / "bias.html")
    check_page(tmp_path / "bias.html")


def test_sentences_are_filtered_by_category_and_side(browser, tmp_path):
    write_bias_page(report(CATEGORIES), tmp_path / "bias.html")
    browser.open(tmp_path / "bias.html")
    shown = "return [...document.querySelectorAll('table')[1].tBodies[0].rows].filter(row => !row.hidden).length"
    assert browser.run(shown) == 2 * len(CATEGORIES)
    browser.run("""for (const [place, value] of ['to a', 'b'].entries()) {
        const list = document.querySelectorAll('select')[place]
        list.value = value
        list.dispatchEvent(new Event('change'))
    }""")
    assert browser.run(shown) == 1
