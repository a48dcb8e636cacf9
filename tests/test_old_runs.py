"""Runs and models that an earlier commit left are opened, resumed, listed and asked, through what is public alone.

They lie in fixtures/old; fixtures/make.py made them, and says how they were made small.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import small
from old_runs import OLD, unpacked

MODELS = sorted(path.name for path in (OLD / "models").iterdir())
FINISHED = ("bert", "gpt", "text", "text-multi-label", "series")
NEWER = {"toolkit-recurrent-seq2seq"}
"""Kinds of models that there were not yet when these were made."""
UNFINISHED = {"bert": "mlm_loss", "gpt": "loss"}

# Reads the models' directories, one a line; opens each in a process of its own, forked from one that has transformers
# imported and nothing of the toolkit.
ASK = """
import importlib, json, os, sys
import torch
from transformers import AutoModelForSequenceClassification, BertModel, GPT2Model
import transformers
assert "toolkit" not in sys.modules
for directory in sys.stdin.read().split():
    if not (child := os.fork()):
        case = json.load(open(directory + "/answers.json"))
        known = importlib.import_module(case["module"])
        for source, name in [(known, case["class"]), *((transformers, name) for name in case["auto"])]:
            model = getattr(source, name).from_pretrained(directory).eval()
            assert type(model).__name__ == case["class"], type(model)
            with torch.no_grad():
                given = model(**{key: torch.tensor(value) for key, value in case["inputs"].items()})[case["output"]]
            torch.testing.assert_close(given.flatten(1), torch.tensor(case["expected"]), rtol=1e-5, atol=1e-5)
        print(directory, "as before", flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(directory, "FAILED", flush=True)
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    return unpacked(tmp_path_factory.mktemp("old") / "there")


def run(old: Path, tmp_path: Path, recipe: str, *arguments: str) -> str:
    """What a recipe prints, given in the folder of the old runs."""
    done = small.run_recipe(recipe, list(arguments), tmp_path, cwd=old, timeout=300)
    assert done.code == 0, done.err
    return done.out


def test_models_answer_as_before_through_what_their_cards_import(old):
    done = subprocess.run([sys.executable, "-c", ASK], input="\n".join(f"models/{name}" for name in MODELS), text=True,
                          capture_output=True, cwd=old, timeout=300)
    assert done.stdout.splitlines() == [f"models/{name} as before" for name in MODELS], done.stderr


def test_there_is_a_model_of_each_kind_of_ours():
    kinds = {json.loads((OLD / f"models/{name}/config.json").read_text())["model_type"] for name in MODELS}
    known = {kind for path in (small.ROOT / "toolkit").rglob("*.py")
             for kind in re.findall(r'^\s*model_type = "(toolkit-[\w-]+)"', path.read_text(), re.MULTILINE)}
    assert kinds == known - NEWER


@pytest.mark.parametrize("name", UNFINISHED)
def test_an_unfinished_run_is_resumed_to_the_end_that_it_would_have_had(old, tmp_path, name):
    directory = f"{name}-unfinished"
    step = int(next((old / directory / "checkpoints").iterdir()).name.removeprefix("step-"))
    assert not (old / directory / "result.json").exists()
    out = run(old, tmp_path, f"pretrain_{name}", "--config", f"{directory}/config.yaml")
    assert f"resuming at step {step}" in out
    result, expected = (json.loads(path.read_text()) for path in (old / directory / "result.json",
                                                                  old / f"{directory}-expected.json"))
    assert expected.keys() <= result.keys()
    assert result["steps"] == expected["steps"] and result["tokens"] == expected["tokens"]
    assert result[UNFINISHED[name]] == pytest.approx(expected[UNFINISHED[name]], rel=1e-3)
    steps = [record["step"] for record in small.read_metrics(old / directory / "metrics.jsonl")]
    assert steps == sorted(steps) and steps[0] == 5 and steps[-1] == 120


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_is_known_as_finished(old, tmp_path, name):
    before = (old / name / "result.json").read_bytes()
    recipe = {"bert": "pretrain_bert", "gpt": "pretrain_gpt", "series": "finetune_series"}.get(name, "finetune_text")
    assert "is finished" in run(old, tmp_path, recipe, "--config", f"{name}/config.yaml")
    assert (old / name / "result.json").read_bytes() == before


@pytest.mark.parametrize("recipe, directory, results", [
    ("compare_text", "compare-text/words", "compare-text/words.json"),
    ("compare_series", "compare-series/generated/cylinder-bell-funnel", "compare-series/generated.json"),
    ("transfer", "transfer", "transfer/transfer.json"),
    ("forecast", "forecast/chaos", "forecast/chaos.json"),
])
def test_fits_of_a_comparison_are_not_made_again(old, tmp_path, recipe, directory, results):
    before = json.loads((old / results).read_text())
    fits = {path: path.read_bytes() for path in (old / directory).rglob("seed-*/result.json")}
    assert fits
    out = run(old, tmp_path, recipe, "--config", f"{directory}/config.yaml")
    assert not re.search(r"step \d", out), "something was trained"
    assert all(path.read_bytes() == content for path, content in fits.items())
    assert leaves(json.loads((old / results).read_text())) == pytest.approx(leaves(before), rel=1e-3, abs=1e-6)


def leaves(value, key: str = "") -> dict[str, float]:
    """Dotted key → number; but those of the dead-branch check, which is made anew, on weights that were rounded."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {} if isinstance(value, (dict, list, str)) or value is None else {key: value}
    for name, entry in entries:
        found |= {} if name == "dead_branches" else leaves(entry, f"{key}.{name}")
    return found


def test_runs_are_listed_and_compared(old, tmp_path):
    fresh = unpacked(tmp_path / "fresh")  # whatever the other tests have done to theirs
    listed = run(fresh, tmp_path, "list_runs", ".")
    for name in (*FINISHED, "forecast/chaos", "compare-text/words", "transfer"):
        assert re.search(rf"^{re.escape(name)} ", listed, re.MULTILINE), listed
    unfinished = re.findall(r"^\S+-unfinished +unfinished ", listed, re.MULTILINE)
    assert "damaged" not in listed and len(unfinished) == 2, listed
    compared = run(fresh, tmp_path, "compare_runs", "bert", "gpt", "--output", "page.html")
    assert "bert" in compared and (fresh / "page.html").stat().st_size > 1000


def test_cards_are_written_anew(old, tmp_path):
    for name in ("bert", "text/bert-pretrained/seed-0", "forecast/chaos"):
        (old / name / "README.md").unlink(missing_ok=True)
        run(old, tmp_path, "card", name, "--card.license", "apache-2.0")
        assert "license: apache-2.0" in (old / name / "README.md").read_text()


@pytest.mark.parametrize("name", ["text/bert-pretrained/seed-0", "text/gpt-pretrained/seed-0",
                                  "text-multi-label/gpt-pretrained/seed-0"])
def test_classifiers_of_texts_are_asked(old, tmp_path, name):
    run(old, tmp_path, "predict", f"{name}/model", "test.tsv", "--output", "answers.tsv")
    lines = (old / "answers.tsv").read_text().splitlines()
    several = name.startswith("text-multi-label")  # whose answer is a set: once it was the likeliest label alone
    assert len(lines) == 13 and lines[0].startswith("labels\t" if several else "label\t")


def test_a_classifier_of_series_is_asked(old, tmp_path):
    rows = ["\t".join([str(row % 3 + 1), *(f"{(row + t) % 7:.1f}" for t in range(128))]) for row in range(3)]
    (old / "series.tsv").write_text("\n".join(rows) + "\n")
    run(old, tmp_path, "predict", "series/gpt-pretrained/seed-0/model", "series.tsv", "--output", "answers.tsv")
    assert len((old / "answers.tsv").read_text().splitlines()) == 4


def test_pretrained_models_are_asked(old, tmp_path):
    assert "river" in run(old, tmp_path, "generate", "gpt/model", "--prompt", "The river",
                           "--max_new_tokens", "4")
    assert run(old, tmp_path, "fill_mask", "bert/model", "--text", "river garden [MASK].").strip()
