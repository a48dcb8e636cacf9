"""report.html of every kind of run, and the pages made from their models, as a reader has them."""

import json
import re
import shutil

import pandas as pd
import planted
import pytest
from old_runs import OLD, unpacked

from toolkit.analysis.attention import text_attention
from toolkit.report.attention_page import write_attention_page
from toolkit.report.comparison_page import write_runs_page
from toolkit.report.run_report import write_report
from toolkit.report.runs import find_runs, read_run

pytestmark = pytest.mark.browser

RUNS = ("bert", "gpt", "bert-unfinished", "gpt-unfinished", "text", "text-multi-label", "series", "compare-text/words",
        "compare-series/generated/cylinder-bell-funnel", "forecast/chaos", "transfer")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return unpacked(tmp_path_factory.mktemp("old") / "there")


@pytest.mark.parametrize("name", RUNS)
def test_the_report_of_a_run_holds(check_page, old, name, monkeypatch):
    monkeypatch.chdir(old)
    check_page(write_report(name))


def test_every_kind_of_old_run_has_its_report_here():
    kinds = {path.name for path in OLD.iterdir() if path.is_dir()} - {"models", "corpus", "data"}
    assert kinds == {name.partition("/")[0] for name in RUNS}


def test_what_people_wrote_is_text(check_page, old, tmp_path, monkeypatch):
    """Labels, texts and the names of runs with scripts in them."""
    wrote = {"warm": planted.PLANTED[0], "garden": planted.PLANTED[1], "river": planted.PLANTED[2]}
    folder = tmp_path / planted.PLANTED[1]
    shutil.copytree(old / "text", folder)
    for path in folder.rglob("*.json*"):
        text = path.read_text(encoding="utf-8")
        for word, script in wrote.items():
            text = re.sub(rf"\b{word}\b", lambda _, script=script: json.dumps(script)[1:-1], text)
        path.write_text(text, encoding="utf-8")
    for path in folder.rglob("*.parquet"):
        pd.read_parquet(path).rename(columns=lambda name: name.replace("warm", wrote["warm"])).replace(
            {rf"\b{word}\b": script for word, script in wrote.items()}, regex=True).to_parquet(path)
    monkeypatch.chdir(old)
    page = write_report(folder)
    shown = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;window.planted = 1" in shown and planted.PLANTED[0] not in shown
    check_page(page)


def test_all_old_runs_beside_each_other(check_page, old, tmp_path):
    runs = find_runs(old)
    write_runs_page(runs[:8], tmp_path / "page.html")
    check_page(tmp_path / "page.html")


@pytest.mark.parametrize("name", ["bert", "gpt", "text/bert-pretrained/seed-0"])
def test_attention_of_a_trained_model(check_page, old, tmp_path, name):
    write_attention_page(text_attention(old / name, "the river [MASK]."), tmp_path / "page.html")
    check_page(tmp_path / "page.html")
    assert read_run(old / name).state == "finished"
