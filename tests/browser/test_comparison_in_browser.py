"""The page of compared runs as a reader has it: panels chosen, values told where one points, by mouse and by keys."""

import json

import planted
import pytest
from made_runs import make_run

from toolkit.report.comparison_page import write_runs_page
from toolkit.report.run_comparison import curve
from toolkit.report.runs import read_run
from toolkit.run.files import read_json, write_json

pytestmark = pytest.mark.browser


@pytest.fixture
def runs(tmp_path):
    for number, name in enumerate(("done", "faster", "wide")):
        make_run(tmp_path / name, lr=1e-3 * (1 + number), tokens=512 if number < 2 else 2048,
                 masking={"mlm_probability": planted.PLANTED[number]})
        write_json(tmp_path / name / "manifest.json", read_json(tmp_path / name / "manifest.json") | {
            "command": f"python recipes/pretrain_bert.py {planted.PLANTED[number]}"})
    return [read_run(tmp_path / name, f"{name} {planted.PLANTED[number]}")
            for number, name in enumerate(("done", "faster", "wide"))]


@pytest.mark.parametrize("kind", ["two", "three", "without curves", "the same", "small and large"])
def test_every_page_holds(check_page, tmp_path, runs, kind):
    chosen = {"two": runs[:2], "the same": [runs[0], runs[0]]}.get(kind, runs)
    if kind in ("without curves", "small and large"):
        lines = [{"step": step, "loss": 1e-9 * step, "grad_norm": 1e9 / step, "lambda": 0.0, "eval_loss": -3.0}
                 for step in range(1, 900)] if kind == "small and large" else []
        (tmp_path / "done/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        chosen = [read_run(tmp_path / "done"), read_run(tmp_path / "done")]
    write_runs_page(chosen, tmp_path / "page.html")
    check_page(tmp_path / "page.html")


def cells(browser, panel: int = 0) -> list[list[str]]:
    return browser.run("""const panel = document.querySelectorAll('#panels section')[arguments[0]]
        return [...panel.querySelectorAll('tbody tr')].map(
            row => [...row.cells].slice(1).map(cell => cell.textContent))""", panel)


def test_panels_are_chosen(browser, tmp_path, runs):
    write_runs_page(runs, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    heads = "return [...document.querySelectorAll('#panels h3')].map(head => head.textContent)"
    assert browser.run(heads) == ["loss", "mlm accuracy"], "how it was trained is chosen by those who ask"
    for _ in range(60):
        browser.tab()
        if browser.run("return document.activeElement.dataset?.panel === '1'"):
            break
    browser.press(" ", 32, " ")
    assert browser.run(heads) == ["loss"]
    browser.run("document.querySelector('[data-panel=\"2\"]').click()")
    assert browser.run(heads) == ["loss", "learning rate"]
    assert cells(browser, 1) == [["0.001"], ["0.002"], ["0.003"]]


def test_the_values_are_told_where_one_points(browser, tmp_path, runs):
    write_runs_page(runs, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.run("document.querySelector('[name=axis][value=step]').click()")

    def values(place: int) -> list[list[str]]:
        return [[f"{curve(run, key)[1][place]:.4g}" for key in ("loss", "eval_loss")] for run in runs]

    assert cells(browser) == values(3) and "step 40" in browser.text(".readout thead")
    browser.run("document.querySelector('#panels svg').focus()")
    browser.arrow("Left")
    assert cells(browser) == values(2) and "step 30" in browser.text(".readout thead")
    browser.run("""const svg = document.querySelector('#panels svg'), box = svg.getBoundingClientRect()
        svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left + box.width * .35}))""")
    assert cells(browser) == values(0) and "step 10" in browser.text(".readout thead")
    browser.run("document.querySelector('[name=axis][value=tokens]').click()")
    assert "tokens 20,480" in browser.text(".readout thead"), "as far as all runs went"


def test_curves_are_where_their_values_are(browser, tmp_path, runs):
    write_runs_page(runs, tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.run("document.querySelector('[name=axis][value=step]').click()")
    drawn = browser.run("""const panel = document.querySelectorAll('#panels section')[1]
        return [...panel.querySelectorAll('.validation')].slice(0, 3).map(
            path => path.getAttribute('d').slice(1).split('L').map(pair => pair.split(' ').map(Number)))""")
    for points, run in zip(drawn, runs, strict=True):
        x, y = zip(*points, strict=True)
        steps, values = curve(run, "eval_mlm_accuracy")
        assert len(steps) == len(x) and [(b - a) / (x[-1] - x[0]) for a, b in zip(x, x[1:], strict=False)] \
            == pytest.approx([10 / 30] * 3, abs=0.01)
        assert all(b < a for a, b in zip(y, y[1:], strict=False)) == bool((values[1:] > values[:-1]).all())
