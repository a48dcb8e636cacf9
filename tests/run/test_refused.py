"""A refused input leaves no run directory; what was there before, what was computed and what was prepared stay."""

import pytest
import small

from toolkit.run import refused


def files(directory) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_what_was_made_for_a_run_that_never_began_goes(tmp_path):
    run = tmp_path / "runs/texts/mine"
    refused.will_make(run)
    (run / "fits/a/seed-0").mkdir(parents=True)
    for name in ("config.yaml", "manifest.json", ".lock", "fits/a/seed-0/config.yaml"):
        (run / name).write_text("")
    refused.forget_runs()
    assert files(tmp_path) == []


@pytest.mark.parametrize("computed", ["metrics.jsonl", "result.json", "checkpoints/step-1/state.json",
                                      "fits/a/seed-0/result.json"])
def test_what_was_computed_stays(tmp_path, computed):
    run = tmp_path / "run"
    refused.will_make(run)
    (run / computed).parent.mkdir(parents=True)
    for name in ("config.yaml", computed):
        (run / name).write_text("")
    before = files(tmp_path)
    refused.forget_runs()
    assert files(tmp_path) == before


def test_what_was_prepared_and_what_was_there_before_stay(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        refused.will_make(tmp_path / name)
        (tmp_path / name / "data/corpus").mkdir(parents=True)
        (tmp_path / name / "data/corpus/train.jsonl").write_text("")
        (tmp_path / name / "config.yaml").write_text("")
    refused.forget_runs()
    data = ["data", "data/corpus", "data/corpus/train.jsonl"]
    assert files(tmp_path) == ["new", *(f"new/{name}" for name in data), "there", "there/config.yaml",
                               *(f"there/{name}" for name in data)]


BERT = ["--output_dir", "runs/a", "--training.max_steps", "2"]
REFUSED = {
    "no corpus": ("pretrain_bert", [*BERT, "--corpus.sources", "nowhere"], "nowhere"),
    "no tokenizer": ("pretrain_gpt", [*BERT, "--corpus.sources", "nowhere", "--tokenizer", "none.yaml"], "none.yaml"),
    "two budgets": ("pretrain_gpt", [*BERT, "--training.max_tokens", "9"], "exactly one budget"),
    "no table": ("forecast", ["--output_dir", "runs/a", "--data.path", "none.csv"], "none.csv"),
    "no texts": ("finetune_text", ["--output_dir", "runs/a", "--models", "{b: runs/b}", "--data.train", "none.csv",
                                   "--data.test", "none.csv"], "none.csv"),
    "no series": ("finetune_series", ["--output_dir", "runs/a", "--models", "{b: runs/b}", "--data.train", "none.csv",
                                      "--data.test", "none.csv"], "no such file"),
    "no built-in corpus": ("compare_text", ["--name", "a", "--models", "{b: runs/b}", "--data.corpus_dir", "none"],
                           "no prepared corpus here"),
    "no archive": ("compare_series", ["--archive", "none", "--sets", "[GunPoint]"], "expected GunPoint_TRAIN"),
    "no settings": ("sweep", ["--output_dir", "runs/a", "--pretraining", "none.yaml"], "none.yaml"),
    "no series for the lab": ("forda_lab", ["--forda", "none"], "expected FordA_TRAIN"),
    "too few numbers": ("fibonacci", ["--numbers", "30"], "window is 20"),
}


DAILY = ("no corpus", "two budgets", "no built-in corpus", "no table")


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in DAILY else pytest.mark.slow)
                                  for case in REFUSED])
def test_a_refused_input_leaves_nothing(tmp_path, case):
    recipe, arguments, said = REFUSED[case]
    done = small.run_recipe(recipe, arguments, tmp_path / "log", cwd=tmp_path)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err, done.err
    assert not [name for name in files(tmp_path) if not name.startswith("log")]
