"""What `check_page` is for: a page that has everything passes, and each fault of a page is told."""

import planted
import pytest

pytestmark = pytest.mark.browser

GOOD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Good</title><style>
body { color: #222; background: #fff; font: 15px sans-serif } :focus-visible { outline: 2px solid #005a9c }
.scroll { overflow-x: auto } .wide { width: 2000px }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #111 } }
</style></head><body><h1>Good</h1><h2>Table</h2><div class="scroll" tabindex="0" aria-label="wide">
<table class="wide"><tr><th>a</th></tr><tr><td>%s</td></tr></table></div>
<label>Search <input type="search"></label> <button>Go</button>
<div role="grid" aria-label="heads"><span tabindex="0">one</span><span tabindex="-1">two</span></div>
%s</body></html>"""

FAULTS = {
    "wider": ('<p style="width: 1500px">wide</p>', "the page is 1"),
    "wide for a telephone": ('<p style="width: 500px">wide</p>', "400 px, light: the page is 5"),
    "pale": ('<p style="color: #888; background: #fff">pale</p>', "contrast 3.54"),
    "pale in the dark": ('<p style="color: #555; background: none">dim</p>', "1280 px, dark: contrast 2"),
    "pale over a shape": ('<svg role="img" aria-label="x"><rect width="90" height="40" fill="#111"/>'
                          '<text x="20" y="20" fill="#222">on it</text></svg>', "contrast 1"),
    "an error": ("<script>nowhere.at.all</script>", "nowhere is not defined"),
    "a request": ('<img alt="" src="nothing-here.png">', "nothing-here.png"),
    "no alt": ('<img src="data:,">', "a picture without alt"),
    "no name": ("<button></button>", "a control without a name"),
    "not by keys": ("""<p id="clicked">click</p><script>clicked.onclick = () => 0</script>""",
                    "not reached by Tab: <p#clicked>"),
    "no focus": ('<button style="outline: none">dark</button>', "no visible focus: <button> “dark”"),
    "headings": ("<h4>Deep</h4>", "h2 is followed by h4"),
    "twice": ('<p id="x">1</p><p id="x">2</p>', "ids that occur twice: x"),
}


def test_a_good_page_passes(check_page, tmp_path):
    path = tmp_path / "good.html"
    path.write_text(GOOD % ("<!-- nothing -->text", ""), encoding="utf-8")
    check_page(path)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told(check_page, tmp_path, fault):
    body, said = FAULTS[fault]
    path = tmp_path / "bad.html"
    path.write_text(GOOD % ("text", body), encoding="utf-8")
    with pytest.raises(AssertionError) as told:
        check_page(path)
    assert said in str(told.value)


@pytest.mark.parametrize("label", planted.PLANTED)
def test_a_label_that_runs_is_told(check_page, tmp_path, label):
    path = tmp_path / "bad.html"
    path.write_text(GOOD % (label, ""), encoding="utf-8")
    with pytest.raises(AssertionError, match="a script in a label ran"):
        check_page(path)
