"""A page of every kind of run, out of the files that earlier versions and this one leave."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
import yaml
from test_page import Skeleton

from toolkit.data.series.dataset import SeriesDataset
from toolkit.errors import UserError
from toolkit.experiments.shown_series import write_shown
from toolkit.metrics.intervals import proportion_interval
from toolkit.report.run_report import write_model_report, write_report
from toolkit.report.sections.classified import Classified, bootstrapped, scores
from toolkit.report.sections.evidence import Evidence
from toolkit.report.sections.from_card import as_html
from toolkit.report.sections.predictions import read_predictions, write_predictions
from toolkit.report.sections.series import answers_of, names_of, shown_of
from toolkit.run.directory import Run
from toolkit.run.results import Results, Row, Verdict, write_results

OLD = Path(__file__).parents[1] / "fixtures/old"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """Runs of an earlier version, without what is packed."""
    place = tmp_path / "old"
    shutil.copytree(OLD, place, ignore=shutil.ignore_patterns("*.xz", "models"))
    monkeypatch.chdir(place)
    return place


def headings(page: str) -> list[str]:
    return re.findall(r"<h[23][^>]*>(.*?)</h[23]>", page)


slow = pytest.mark.slow


@pytest.mark.parametrize(("run", "said", "sections"), [
    ("bert", "It fills a hidden word with", ["What it learned", "How it learned", "Limits and risks", "Next"]),
    pytest.param("gpt", "It foretells the next token with", ["What it learned", "How it learned", "Next"], marks=slow),
    pytest.param("bert-unfinished", "It has not been evaluated yet", ["What it learned", "How it learned", "Next"],
                 marks=slow),
    ("text", "is right in", ["The comparison", "All arms", "Scores on the test set", "By class", "Ranking",
                             "Which classes are taken for which", "Worst errors", "How it learned", "Next"]),
    pytest.param("text-multi-label", "", ["The comparison", "All arms", "Next"], marks=slow),
    pytest.param("series", "", ["The comparison", "All arms", "Does every part do something?", "Next"], marks=slow),
    pytest.param("compare-text/words", "", ["The comparison", "All arms", "Verdicts", "Next"], marks=slow),
    ("transfer", "", ["The comparison", "By number of labels", "All arms", "Verdicts", "Next"]),
    ("compare-series/generated", "is ahead", ["Arm by arm", "All arms", "Next"]),
    ("forecast/chaos", "rows ahead", ["The comparison", "Skill by step", "Does every part do something?", "Next"])])
def test_runs_of_earlier_versions_have_a_page(old, run, said, sections):
    page = write_report(run).read_text(encoding="utf-8")
    assert said in page
    found = headings(page)
    assert [title for title in sections if title in found] == sections, found
    assert f"make report RUN={run}" in page or run in ("bert", "gpt", "bert-unfinished", "forecast/chaos")
    assert not re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*['"]?(?:https?:)?//""", page)
    assert "nan" not in " ".join(Skeleton(page).texts).split()


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no run directory"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="is no run directory"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "config.yaml").write_text("steps: 3\n")
    with pytest.raises(UserError, match="of a kind that has no page"):
        write_report(tmp_path)


@pytest.mark.parametrize("spoil", [
    lambda run: (run / "result.json").write_text('{"label_names": 3}'),
    lambda run: (run / "result.json").write_text("[]"),
    lambda run: (run / "bert-predictions.parquet").write_bytes(b"PAR1 and no more"),
    lambda run: (run / "config.yaml").write_text("models: 7\npatch_length: x\n")])
def test_files_that_do_not_fit_are_told_in_a_line(old, spoil):
    spoil(old / "text")
    with pytest.raises(UserError) as error:
        write_report("text")
    assert len(str(error.value).splitlines()) == 1


# --- figures -------------------------------------------------------------------------------------------------------


def a_comparison(directory: Path, pretrained: list[float], random: list[float], models: str = "bert") -> None:
    """A fine-tuning of texts that has ended, as its recipe leaves it."""
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump({"models": {models: "m"}, "data": {}}))
    (directory / "manifest.json").write_text("{}")
    (directory / "result.json").write_text(json.dumps({"label_names": ["a", "b"]}))
    rows = [Row("text", f"{models}, {start}", seed, {"accuracy": value}, model=models, start=start, test_examples=200,
                reference=f"{models}, random" if start == "pretrained" else "")
            for start, values in (("random", random), ("pretrained", pretrained)) for seed, value in enumerate(values)]
    rows.append(Row("text", "tfidf", 0, {"accuracy": 0.6}))
    write_results(directory, Results("text", "accuracy", rows, [Verdict(f"{models}, pretrained", "a verdict")]))


@pytest.mark.parametrize(("pretrained", "random", "said"), [
    ([0.8, 0.81, 0.82], [0.6, 0.6, 0.6], "Pretraining helped bert (+21.0 ± 2.5 points)."),
    ([0.5, 0.51, 0.52], [0.6, 0.6, 0.6], "Pretraining hurt bert (−9.0 ± 2.5 points)."),
    ([0.6, 0.7, 0.5], [0.6, 0.6, 0.6],
     "Pretraining made no difference that can be told from chance for bert (+0.0 ± 24.8 points)."),
    ([0.8, 0.8], [0.6, 0.6], "Pretraining has too few seeds to be judged for bert (+20.0 points).")])
def test_the_answer_is_a_sentence(tmp_path, pretrained, random, said):
    a_comparison(tmp_path / "run", pretrained, random)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert re.search(r'<p class="lead"[^>]*>(.*?)</p>', page)[1] == said


def found_of(task: str, n: int = 40) -> Classified:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    outputs = rng.dirichlet([1, 1, 1], n)
    outputs[np.arange(n), labels] += 0.5
    outputs /= outputs.sum(1, keepdims=True)
    texts = [f"text {i} <b>" for i in range(n)]
    names = ("one", "two & more", "<script>three</script>")
    if task == "multi-label":
        return Classified(texts, (outputs > 0.3).astype(int), rng.random((n, 3)), names, task=task)
    if task == "regression":
        return Classified(texts, outputs[:, 0], outputs[:, 1], (), task=task)
    if task == "distribution":
        return Classified(texts, outputs, rng.dirichlet([1, 1, 1], n), names, task=task)
    return Classified(texts, labels, outputs, names, pairs=[f"pair {i}" for i in range(n)])


@pytest.mark.parametrize("task", ["classification", "multi-label", "distribution", "regression"])
def test_predictions_are_read_as_they_were_written_and_shown(tmp_path, task):
    found = found_of(task)
    write_predictions(found, tmp_path / "p.parquet")
    again = read_predictions(tmp_path / "p.parquet", found.label_names, task, None, "it")
    assert again.shown == found.shown
    np.testing.assert_allclose(again.labels, found.labels)
    np.testing.assert_allclose(again.outputs, found.outputs)
    a_comparison(tmp_path / "run", [0.8, 0.8, 0.7], [0.6, 0.6, 0.6])
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump({"models": {"bert": "m"}, "data": {"task": task}}))
    (tmp_path / "run/result.json").write_text(json.dumps({"label_names": found.label_names}))
    shutil.copy(tmp_path / "p.parquet", tmp_path / "run/bert-predictions.parquet")
    page = write_model_report(tmp_path / "run", "bert").read_text(encoding="utf-8")
    assert "Scores on the test set" in headings(page) and "Worst errors" in headings(page)
    assert "<script>three" not in page and "text 3 <b>" not in page
    assert "as kept (seed 0), on 40 test examples" in page


def test_intervals_are_of_test_examples():
    found = found_of("classification", 400)
    predictions = found.outputs.argmax(1)
    drawn = bootstrapped(found.labels, predictions, 3)
    right = int((predictions == found.labels).sum())
    low, high, _ = proportion_interval(right, 400)
    assert drawn["accuracy"] == pytest.approx((low, high), abs=0.02)
    values = scores(found)
    for name, (low, high) in drawn.items():
        assert low < values[name] < high, name
    assert bootstrapped(np.arange(3000), np.arange(3000), 3000) == {}


def test_series_are_kept_and_shown(tmp_path):
    """Also where something was not observed, a class has no series, and nothing is wrong."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 2, 16)).astype(np.float32)
    seen = np.ones(values.shape, bool)
    seen[:, :, 12:] = False
    labels = np.arange(30) % 2
    data = SeriesDataset(np.where(seen, values, 0).astype(np.float32), labels.astype(np.int64), ("up", "<i>", "none"),
                         seen)
    outputs = rng.dirichlet([1, 1, 1], 30).astype(np.float32)
    run = tmp_path / "run"
    a_comparison(run, [0.8, 0.8, 0.7], [0.6, 0.6, 0.6])
    (run / "config.yaml").write_text(yaml.safe_dump({"models": {"bert": "m"}, "data": {}, "patch_length": 4}))
    fit = run / "bert-pretrained/seed-0"
    fit.mkdir(parents=True)
    np.savez(fit / "outputs.npz", test=outputs)
    write_shown(Run(run), data, data, [outputs])
    page = write_report(run).read_text(encoding="utf-8")
    assert {"The series", "What the worst errors look like", "Worst errors"} <= set(headings(page))
    right = np.eye(3, dtype=np.float32)[labels]
    write_shown(Run(run), data, data, [right])
    shown = shown_of(Evidence(run))
    assert len(shown["index"]) == 0 and names_of(shown) == data.label_names
    np.savez(fit / "outputs.npz", test=right[:7])
    with pytest.raises(UserError, match="of 30 test series"):
        answers_of(Evidence(run), "bert", shown, names_of(shown))
    np.savez(run / "shown-series.npz", **{**dict(np.load(run / "shown-series.npz")), "labels": labels + 5})
    with pytest.raises(UserError, match="do not fit together"):
        shown_of(Evidence(run))


def test_samples_are_quoted_and_the_right_word_marked(old):
    (old / "bert/samples.json").write_text(json.dumps({"fills": [
        {"text": "a [MASK] <b>", "answers": [[",", 0.5], ["it", 0.25]], "truth": "it"}]}))
    page = write_report("bert").read_text(encoding="utf-8")
    assert "“,” 50 %, <mark>“it”</mark> 25 %" in page and "a [MASK] &lt;b&gt;" in page
    (old / "bert/samples.json").write_text(json.dumps({"fills": [{"text": 3}]}))
    with pytest.raises(UserError, match="samples.json"):
        write_report("bert")


def test_the_card_is_shown_and_nothing_in_it_is_html():
    html = str(as_html("<script>a</script>\n\n![x](http://a.b/c.png) [b](javascript:x) *ok*\n\n| a | b |\n| - | - |\n"
                       "| 1 | 2 |\n\n<details><summary>The configuration</summary>\n\n```yaml\na: <b>\n```\n\n"
                       "</details>"))
    tags = {tag[0] for tag in Skeleton(html).tags}
    assert not tags & {"script", "img"} and {"em", "table", "details", "pre"} <= tags
    assert 'href="javascript' not in html


def test_commands_name_the_run_as_a_shell_takes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Evidence(Path("runs/a b")).path("model") == "'runs/a b/model'"
    assert Evidence(tmp_path / "runs/x").place == "runs/x"


def test_pages_of_attention_are_linked(old):
    (old / "runs/attention").mkdir(parents=True)
    (old / "runs/attention/bert.html").write_text("a page")
    assert 'href="../runs/attention/bert.html"' in write_report("bert").read_text(encoding="utf-8")


def test_the_recipe_writes_the_page(old, capsys):
    import report

    report.main(["bert"])
    assert "page:   bert/report.html\n" in capsys.readouterr().out and (old / "bert/report.html").is_file()
    assert small.ROOT.joinpath("recipes/report.py").is_file()


# --- what is kept for a page as a run ends --------------------------------------------------------------------------


def keep_map(run: Path, **changes) -> Path:
    labels = np.asarray(["[CLS]", "<script>", "a"], np.str_)
    path = run / "bert-pretrained/seed-0/attention.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **{"labels": labels, "weights": np.full((3, 3), 1 / 3, np.float32),
                      "text": np.asarray("it's <script> a", np.str_), **changes})
    return path


def test_a_kept_map_of_attention_is_drawn_with_the_command_that_shows_every_head(tmp_path, monkeypatch):
    a_comparison(tmp_path / "run", [0.8, 0.8, 0.7], [0.6, 0.6, 0.6])
    keep_map(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    page = write_report("run").read_text(encoding="utf-8")
    assert "What its heads look at" in headings(page) and "<script> a" not in page
    texts = "".join(Skeleton(page).texts)
    assert """make attention MODEL=run/bert-pretrained/seed-0 TEXT='it'"'"'s <script> a'""" in texts
    assert {"[CLS]", "<script>", "is read"} <= set(Skeleton(page).texts)


@pytest.mark.parametrize("changes", [
    {"weights": np.ones((2, 3), np.float32)}, {"weights": np.full((3, 3), np.nan, np.float32)},
    {"labels": np.arange(3)}, {"text": np.asarray(3)}])
def test_a_map_that_does_not_fit_is_refused_in_a_line(tmp_path, changes):
    a_comparison(tmp_path / "run", [0.8, 0.8, 0.7], [0.6, 0.6, 0.6])
    path = keep_map(tmp_path / "run", **changes)
    with pytest.raises(UserError, match="attention.npz: its arrays do not fit"):
        write_report(tmp_path / "run")
    path.unlink()
    assert "What its heads look at" not in write_report(tmp_path / "run").read_text(encoding="utf-8")


def test_the_confusion_of_the_demo_is_of_all_seeds(tmp_path):
    demo = tmp_path / "demo"
    a_comparison(demo / "text", [0.8, 0.8, 0.7], [0.6, 0.6, 0.6])
    (demo / "text/result.json").write_text(json.dumps({"label_names": ["a", "b"], "confusion": {
        "bert-pretrained": [[0, 0, 431], [0, 1, 19], [1, 1, 150]], "bert-random": [[0, 0, 7]]}}))
    (demo / "summary.json").write_text(json.dumps({
        "bert": {"mlm_loss": 3.0, "unigram_entropy": 5.0, "mlm_accuracy": 0.4, "nsp_accuracy": 0.6},
        "gpt": {"bits_per_byte": 1.9, "gzip_bits_per_byte": 2.4, "xz_bits_per_byte": 2.0,
                "primed_xz_bits_per_byte": 1.6, "samples": []}}))
    texts = Skeleton(write_report(demo).read_text(encoding="utf-8")).texts
    assert "Test examples of all seeds together, as in the scores above." in texts
    assert {"431", "19", "150"} <= {text.strip() for text in texts}
    assert any("bert, pretrained: 600 test examples" in text for text in texts)
