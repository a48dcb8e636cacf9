"""What every page can: tables that are sorted, searched and filtered, by mouse and by keys; pictures light and dark."""

import planted
import pytest
from markupsafe import Markup

from toolkit.report.figures.canvas import new_figure, style_of
from toolkit.report.figures.gains import Gain, GainPanel, gain_figure
from toolkit.report.page import Measured, Section, join, lines, paragraph, picture, table, write_page

pytestmark = pytest.mark.browser

ROWS = [[f"text {number} {planted.PLANTED[number % 3]}", ("spam", "ham")[number % 2], value, Measured(value, 1)]
        for number, value in enumerate([3.5, -20.0, 1000.25, 7.0, 0.0, -3.0])]


@pytest.fixture
def page(tmp_path):
    figure, axes = new_figure(7, 4)
    for number in range(6):
        axes[0, 0].plot(range(5), [number * place for place in range(5)], **style_of(number),
                        label=f"{number} {planted.PLANTED[number % 3]}")
    axes[0, 0].set_title(planted.PLANTED[0])
    axes[0, 0].legend(frameon=False)
    panel = GainPanel(planted.PLANTED[1], [Gain(f"{place} {name}", (0.5, 0.6, 0.55), (0.7, 0.8, 0.75))
                                           for place, name in enumerate(planted.PLANTED)], {planted.PLANTED[2]: 0.6})
    write_page(tmp_path / "page.html", planted.PLANTED[0], [
        Section(planted.PLANTED[1], table(["text", "label", "value", "measured"], ROWS, filters=["label"], decimals=2)),
        Section("Long", join([table(["w" * 60, *map(str, range(40))], [["x" * 300, *range(40)]]), lines("y" * 500)])),
        Section("Pictures", join([picture(figure, "six lines"), picture(gain_figure([panel]), planted.PLANTED[2])])),
        Section("Text", join([paragraph(planted.PLANTED[0], soft=True), Markup("<ul><li>a</li></ul>")]))],
        planted.PLANTED[2])
    return tmp_path / "page.html"


def values(browser) -> list[str]:
    return browser.run("""return [...document.querySelector('table').tBodies[0].rows].filter(row => !row.hidden)
        .map(row => row.cells[2].textContent)""")


def test_every_page_holds(check_page, page):
    check_page(page)


def test_rows_are_sorted_as_numbers_by_keys(browser, page):
    browser.open(page)
    browser.run("document.querySelectorAll('th button')[2].focus()")
    browser.enter()
    assert values(browser) == ["1,000.25", "7.00", "3.50", "0.00", "−3.00", "−20.00"]
    assert browser.run("return document.querySelectorAll('th')[2].getAttribute('aria-sort')") == "descending"
    browser.enter()
    assert values(browser) == ["−20.00", "−3.00", "0.00", "3.50", "7.00", "1,000.25"]
    browser.run("document.querySelectorAll('th button')[0].click()")
    assert values(browser)[0] == "3.50" and browser.run(
        "return document.querySelectorAll('th')[2].getAttribute('aria-sort')") is None


def test_rows_are_searched_and_filtered(browser, page):
    browser.open(page)
    browser.run("""const search = document.querySelector('input[type=search]')
        search.value = 'TEXT script'; search.dispatchEvent(new Event('input'))""")
    assert values(browser) == ["3.50", "7.00"] and "2 of 6 rows" in browser.text(".controls")
    browser.run("""const list = document.querySelector('select')
        list.value = 'ham'; list.dispatchEvent(new Event('change'))""")
    assert values(browser) == ["7.00"]
