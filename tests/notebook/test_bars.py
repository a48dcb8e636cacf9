"""Bars in notebooks and logs; those of libraries silent while we call them, and as the user had them afterwards."""

import math
import subprocess
import sys

import datasets
import huggingface_hub.utils as hub
import numpy as np
import pytest
import small
from datasets.utils import disable_progress_bars as no_bars_of_datasets
from transformers.utils import logging

from toolkit import bars
from toolkit.estimators import SeriesClassifier
from toolkit.models.text.bert import BertForPreTraining
from toolkit.pretrained import save_model, saved_model
from toolkit.training.observers.base import LossShown, Training
from toolkit.training.observers.notebook import POINTS, InNotebook, curves_in_svg, thinned


def state() -> tuple:
    return (logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled(),
            datasets.utils.is_progress_bar_enabled(), logging.get_verbosity())


@pytest.fixture
def as_before():
    """What a test switches is switched back."""
    transformers, of_hub, of_datasets, level = state()
    yield
    (logging.enable_progress_bar if transformers else logging.disable_progress_bar)()
    (hub.enable_progress_bars if of_hub else hub.disable_progress_bars)()
    (datasets.enable_progress_bars if of_datasets else no_bars_of_datasets)()
    logging.set_verbosity(level)


@pytest.mark.parametrize("of_transformers", [True, False])
@pytest.mark.parametrize("of_hub", [True, False])
@pytest.mark.parametrize("of_datasets", [True, False])
def test_libraries_are_silent_within_and_afterwards_as_the_user_said(of_transformers, of_hub, of_datasets, as_before):
    (logging.enable_progress_bar if of_transformers else logging.disable_progress_bar)()
    (hub.enable_progress_bars if of_hub else hub.disable_progress_bars)()
    (datasets.enable_progress_bars if of_datasets else no_bars_of_datasets)()
    logging.set_verbosity_info()
    before = state()
    with bars.libraries_silent():
        assert state() == (False, False, False, logging.ERROR)
    assert state() == before == (of_transformers, of_hub, of_datasets, logging.INFO)
    with pytest.raises(KeyError), bars.libraries_silent():
        raise KeyError
    assert state() == before


def test_a_model_is_saved_and_loaded_without_a_bar_or_a_report(tmp_path, capfd, as_before):
    logging.enable_progress_bar()
    logging.set_verbosity_warning()
    model = BertForPreTraining(small.bert_config(100))
    capfd.readouterr()
    save_model(model, tmp_path / "model")
    saved_model(BertForPreTraining, tmp_path / "model")
    assert capfd.readouterr() == ("", "")
    model.save_pretrained(tmp_path / "own")  # the user's own call keeps its bar
    assert "shards" in capfd.readouterr().err


def test_no_call_for_widgets_when_tqdm_is_loaded():
    code = ("import sys, types, IPython; sys.modules['ipykernel.zmqshell'] = types.ModuleType('zmqshell')\n"
            "import toolkit, tqdm.auto")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=small.ROOT, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_a_bar_in_a_log_and_without_progress_writes_nothing(capfd):
    assert not bars.in_notebook()
    assert list(bars.bar(range(3), desc="reading")) == [0, 1, 2]
    with bars.bar(total=5, progress=False) as bar:
        bar.update(2)
        assert bar.total == 5
    assert capfd.readouterr() == ("", "")


def test_a_bar_in_a_notebook_is_html_in_its_place(shell, capfd):
    assert bars.in_notebook()
    with bars.bar(total=4, desc="<b>reading", mininterval=0) as bar:
        for _ in range(4):
            bar.update(1)
    pages = [output["data"]["text/html"] for output in shell.display_pub.outputs]
    assert 'value="0.500"' in pages[2] and 'value="1.000"' in pages[4]
    assert "&lt;b&gt;reading: 2/4" in pages[2] and "<b>" not in "".join(pages) and pages[-1] == ""
    assert "<b>reading: 2/4" in shell.display_pub.outputs[2]["data"]["text/plain"]
    assert not list(bars.bar([], progress=False)) and len(shell.display_pub.outputs) == len(pages)
    assert capfd.readouterr() == ("", "")


def test_estimators_stay_quiet_in_a_notebook(shell, capfd):
    values = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    values[::2] += np.linspace(0, 5, 24, dtype=np.float32)
    fitted = SeriesClassifier(max_steps=2, patches=4).fit(values, np.arange(16) % 2)
    assert not shell.display_pub.outputs and capfd.readouterr() == ("", "")
    assert any("SeriesClassifier" in line for line in fitted.log_)
    assert bars.in_notebook()


def test_a_mistake_is_one_line(shell, capsys):
    shell.run_cell("from toolkit.errors import UserError\nraise UserError('notes: no such file.\\x1b[2J Give one.')")
    said = capsys.readouterr().out
    assert "UserError: notes: no such file. [2J Give one." in said and "Traceback" not in said and "\x1b[2J" not in said


def test_a_training_in_a_notebook_is_a_bar_a_line_and_curves(shell, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0, "eval_loss": 8.0}\n')  # before it was broken off
    loss = LossShown("<i>mlm", guessing=6.5)
    watching = InNotebook(Training(tmp_path, "<b>BERT", 1, 0.1, loss=loss))
    for step in range(2, 11):
        watching.log({"step": step, "loss": 10.0 - step, "tokens_per_second": 1000.0})
        watching.update(step / 10)
    watching.log({"step": 10, "eval_loss": math.nan})
    watching.log({"step": 10, "eval_loss": 0.5})
    watching.evaluated()
    during = shell.display_pub.outputs[-1]["data"]
    watching.ended({"loss": 0.5, "best_step": 10})
    watching.close()
    after = shell.display_pub.outputs[-1]["data"]
    assert 'value="1.000"' in after["text/html"] and "9 steps" in after["text/plain"]
    assert "step 10" in during["text/plain"] and "val 0.5" in during["text/plain"]
    page = after["text/html"]
    assert "<details>" not in page
    assert page.count("<polyline") == 2 and page.count("<circle") == 2  # the earlier evaluation, and this one
    assert "guessing 6.5" in page and "<b>" not in page and "<i>" not in page and "&lt;i&gt;mlm" in page


def test_curves_of_one_fit_of_many_are_folded_when_it_ends(shell, tmp_path):
    for name in ("config.yaml", "manifest.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "bert/seed-0").mkdir(parents=True)
    watching = InNotebook(Training(tmp_path / "bert/seed-0", "bert"))
    for step in (1, 2, 3):
        watching.log({"step": step, "loss": 1.0 / step})
    watching.evaluated()
    assert "<details>" not in shell.display_pub.outputs[-1]["data"]["text/html"]
    watching.ended({"loss": 0.3, "best_step": 3})
    watching.close()
    assert "<details><summary>curves</summary><svg" in shell.display_pub.outputs[-1]["data"]["text/html"]


def test_long_curves_are_thinned_and_short_ones_wait():
    curve = [(float(step), 100.0 / step) for step in range(1, 10_001)]
    kept = thinned(curve)
    assert len(kept) <= POINTS + 1 and kept[-1] == curve[-1]
    assert all(low < high for (low, _), (high, _) in zip(kept, kept[1:], strict=False))
    assert kept[0][1] == pytest.approx(sum(value for _, value in curve[:34]) / 34)
    assert len(curves_in_svg({"training": curve, "validation": []}, "loss")) < 8_000
    assert curves_in_svg({"training": [(1, 2.0)], "validation": []}, "loss") == ""
    flat = curves_in_svg({"training": [(1, 0.0), (2, 0.0)], "validation": []}, "loss")
    assert "nan" not in flat and "<polyline" in flat
