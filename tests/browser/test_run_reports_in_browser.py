"""Pages of runs in a browser: read at every width, in either colour, by keyboard; tables sorted, searched, filtered."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from planted import PLANTED

from toolkit.report.run_report import write_report
from toolkit.report.sections.classified import Classified
from toolkit.report.sections.predictions import write_predictions
from toolkit.run.results import Results, Row, Verdict, write_results

pytestmark = pytest.mark.browser
OLD = Path(__file__).parents[1] / "fixtures/old"
NAMES = ("plain", PLANTED[0], "שלום עולם")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """The page of a classifier whose labels and texts are strangers'."""
    run = tmp_path_factory.mktemp("run") / "mine"
    run.mkdir()
    rng = np.random.default_rng(0)
    labels, outputs = rng.integers(0, 3, 60), rng.dirichlet([1, 1, 1], 60)
    texts = [f"{PLANTED[i % 3]} text unique{i}unique of a long line that wraps, 日本語 and שלום" for i in range(60)]
    (run / "config.yaml").write_text(yaml.safe_dump({"models": {"bert": "m"}, "data": {}}))
    (run / "result.json").write_text(json.dumps({"label_names": NAMES}))
    write_results(run, Results("mine", "accuracy", [
        Row("mine", f"bert, {start}", seed, {"accuracy": value + 0.01 * seed}, model="bert", start=start,
            reference="bert, random" if start == "pretrained" else "", test_examples=60)
        for start, value in (("random", 0.5), ("pretrained", 0.7)) for seed in range(3)],
        [Verdict("bert, pretrained", PLANTED[1])]))
    write_predictions(Classified(texts, labels, outputs, NAMES), run / "bert-predictions.parquet")
    return write_report(run)


def test_a_classifiers_page_can_be_read(classifier, check_page):
    check_page(classifier)


@pytest.mark.parametrize("run", ["bert", "series", "transfer", "forecast/chaos"])
def test_pages_of_runs_can_be_read(run, tmp_path, monkeypatch, check_page):
    shutil.copytree(OLD, tmp_path / "old", ignore=shutil.ignore_patterns("*.xz", "models"))
    monkeypatch.chdir(tmp_path / "old")
    check_page((tmp_path / "old" / write_report(run)).resolve())


def test_errors_are_sorted_searched_and_filtered(classifier, browser):
    browser.open(classifier)
    table = "[...document.querySelectorAll('[data-sortable]')].find(box => box.querySelector('select'))"
    shown = f"return [...{table}.querySelectorAll('tbody tr')].filter(row => !row.hidden)"
    whole = browser.run(f"{shown}.map(row => row.cells[0].textContent)")
    assert len(whole) > 10 and set(whole) == set(NAMES)
    browser.run(f"const box = {table}.querySelector('select'); box.value = 'plain'; "
                "box.dispatchEvent(new Event('change'))")
    assert set(browser.run(f"{shown}.map(row => row.cells[0].textContent)")) == {"plain"}
    browser.run(f"const box = {table}.querySelector('select'); box.value = ''; box.dispatchEvent(new Event('change'))")
    browser.run(f"const box = {table}.querySelector('input'); box.value = 'UNIQUE7unique'; "
                "box.dispatchEvent(new Event('input'))")
    found = browser.run(f"{shown}.map(row => row.cells[4].textContent)")
    assert all("unique7unique" in text for text in found) and len(found) <= 1
    browser.run(f"const box = {table}.querySelector('input'); box.value = ''; box.dispatchEvent(new Event('input'))")
    for ascending in (False, True):
        browser.run(f"{table}.querySelectorAll('th button')[3].focus()")
        browser.enter()
        values = [float(text) for text in browser.run(f"{shown}.map(row => row.cells[3].textContent)")]
        assert values == sorted(values, reverse=not ascending)
