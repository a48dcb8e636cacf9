"""The pretraining recipes as a person runs them: killed, stopped, continued, misused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small
from small import STEPS, assert_same_run, run_recipe, write_config


@pytest.fixture(scope="module", autouse=True)
def misspelt(root):
    """A process of its own with a misspelt key: started first, as it takes seconds to import its libraries."""
    process = recipe_process(config(root, "typo", training={"max_step": 3}))
    yield process
    process.kill()
    process.communicate()


def config(root: Path, name: str, family: str = "bert", **changes) -> Path:
    """A run of a few seconds with dropout, accumulation in uneven parts, logging and saving out of step."""
    values = {
        "output_dir": str(root / name), "data_dir": str(root / "data"), "seed": 3,
        "corpus": {"sources": [str(root / "corpus")], "validation_share": 0.2, "min_characters": 20},
        "tokenizer": small.write_spec(root / "specs", "wordpiece" if family == "bert" else "bytes"),
        "model": {"preset": f"{family}-tiny", "max_position_embeddings": 64, "dropout": 0.1},
        "training": {"max_steps": STEPS, "batch_size": 8, "logging_steps": 4, "save_steps": 5, "eval_steps": 10,
                     "optimizer": "muon"},
        "impl": {"micro_batch_size": 3, "dtype": "fp32"},
    }
    values |= {"masking": {"max_seq_length": 32}, "eval_rows": 16} if family == "bert" else {"block_size": 32}
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return write_config(root / f"{name}.yaml", values)


def run(root: Path, name: str, *arguments: str, family: str = "bert", env=None, hook=None, **changes) -> small.Finished:
    path = config(root, name, family, **changes)
    return run_recipe(f"pretrain_{family}", ["--config", str(path), *arguments], root / f"{name}-output", env, hook)


def unbroken_run(root: Path, family: str) -> Path:
    finished = run(root, f"unbroken-{family}", family=family)
    assert finished.code == 0, finished.err
    assert "Traceback" not in finished.err
    steps = [record["step"] for record in small.records(root / f"unbroken-{family}") if "loss" in record]
    assert steps == [4, 8, 12, 16, 20, 24]
    return root / f"unbroken-{family}"


@pytest.fixture(scope="module")
def unbroken(root):
    return unbroken_run(root, "bert")


def recipe_process(path: Path, *arguments: str, **kwargs) -> subprocess.Popen:
    """A recipe in a process of its own in every respect."""
    env = {key: value for key, value in os.environ.items() if key not in ("WORLD_SIZE", "TOOLKIT_NPROC", "RANK")}
    return subprocess.Popen([sys.executable, str(small.ROOT / "recipes/pretrain_bert.py"), "--config", str(path),
                             *arguments], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


def test_killed_once_from_outside_and_continued(root, unbroken):
    directory = root / "killed-once"
    path = config(root, "killed-once")
    program = small.Program(small.ROOT / "recipes/pretrain_bert.py", ["--config", str(path)], root / "killed-output")
    deadline = time.monotonic() + 60
    while not (directory / "checkpoints/step-00000005").exists() and time.monotonic() < deadline:
        assert program.process.is_alive(), program.ends()
        time.sleep(0.002)
    program.process.kill()
    assert program.ends().code == -signal.SIGKILL and not (directory / "result.json").exists(), "it was too quick"
    finished = run(root, "killed-once")
    assert finished.code == 0, finished.err
    assert "resuming at step" in finished.out
    assert_same_run(directory, unbroken)


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_killed_twice_and_continued(root, unbroken, family):
    """First between two checkpoints, then in the middle of writing the next but one."""
    name = f"killed-twice-{family}"
    for hook in (("batch", 8, signal.SIGKILL), ("checkpoint", 15, signal.SIGKILL)):
        assert run(root, name, family=family, hook=hook).code == -signal.SIGKILL
    assert sorted(path.name for path in (root / name / "checkpoints").glob("step-*")) == [
        "step-00000005", "step-00000010"]
    finished = run(root, name, family=family)
    assert finished.code == 0, finished.err
    assert "resuming at step 10 with 42 % of max_steps used" in finished.out
    assert_same_run(root / name, unbroken if family == "bert" else unbroken_run(root, "gpt"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130),
                                               (signal.SIGHUP, 129)])
def test_signals_stop_after_saving_and_the_same_command_continues(root, unbroken, number, code):
    name = f"stopped-{number.name}"
    finished = run(root, name, hook=("batch", 6, number))
    assert finished.code == code, finished.err
    assert "Traceback" not in finished.err
    assert f"stopped by {number.name} after step 7, which is saved" in finished.err
    assert (root / name / "checkpoints/step-00000007").is_dir() and not (root / name / "result.json").exists()
    finished = run(root, name)
    assert finished.code == 0 and "resuming at step 7 with 29 % of max_steps used" in finished.out
    assert_same_run(root / name, unbroken)


def test_a_finished_run_returns_its_result_at_once(root, unbroken):
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()}
    finished = run(root, "unbroken-bert", "--impl.micro_batch_size", "2")  # how it is run may differ
    assert finished.code == 0, finished.err
    assert "is finished" in finished.out and "masked words: " in finished.out and "by frequencies alone" in finished.out
    assert {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()} == before


def test_what_a_run_directory_holds(unbroken):
    assert {"config.yaml", "manifest.json", "metrics.jsonl", "model", "checkpoints", "result.json"} <= {
        path.name for path in unbroken.iterdir()}
    model = {path.name for path in (unbroken / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= model
    assert small.read_json(unbroken / "model/config.json")["architectures"] == ["BertForPreTraining"]
    result = small.read_json(unbroken / "result.json")
    assert 0 < result["mlm_loss"] and result["loss"] == pytest.approx(result["mlm_loss"] + result["nsp_loss"])
    assert {path.name for path in (unbroken / "checkpoints").iterdir()} == {"step-00000020", "step-00000024"}


# Wrong input: one line, exit code 2.

def assert_one_error(finished: small.Finished, *parts: str) -> None:
    errors = [line for line in finished.err.splitlines() if "error:" in line]
    assert finished.code == 2 and len(errors) == 1 and "Traceback" not in finished.err, finished
    assert errors[0].startswith("error: ")
    for part in parts:
        assert part in errors[0], errors[0]


def test_a_process_of_its_own_names_the_unknown_key(root, misspelt):
    out, err = misspelt.communicate(timeout=60)
    assert_one_error(small.Finished(misspelt.returncode, out, err), "typo.yaml", "training.max_step",
                     "Did you mean 'max_steps'?")
    assert not (root / "typo").exists()


@pytest.mark.parametrize(("family", "arguments", "parts"), [
    ("bert", ["--training.max_step", "3"], ["--training.max_step", "'training.max_steps'"]),
    ("bert", ["--trainin.max_steps", "3"], ["trainin", "'training'"]),
    ("bert", ["--training.max_steps", "many"], ["training.max_steps", "a whole number", "many"]),
    ("bert", ["--training.optimizer", "adam"], ["training.optimizer", "'adamw'"]),
    ("bert", ["--model.preset", "bert-tinny"], ["bert-tinny", "'bert-tiny'"]),
    ("gpt", ["--model.preset", "gpt-tinny"], ["gpt-tinny", "'gpt-tiny'"]),
    # Once wrong: the error speaks of a config class and its fields, not of the preset.
    ("bert", ["--model.preset", "gpt-tiny"], ["gpt-tiny"]),
    ("gpt", ["--model.preset", "bert-tiny"], ["bert-tiny"]),
    ("bert", ["--masking.max_seq_length", "128"], ["max_seq_length is 128", "64 positions"]),
    ("gpt", ["--block_size", "128"], ["block_size is 128", "64 positions"]),
    ("bert", ["--training.batch_size", "0"], ["batch_size"]),
    # Bugs found 10: tracebacks (ZeroDivisionError, KeyError); with −1, every batch is empty and the run "succeeds".
    ("gpt", ["--block_size", "0"], ["block_size"]),
    ("bert", ["--training.logging_steps", "0"], ["logging_steps"]),
    ("bert", ["--eval_rows", "0"], ["eval_rows"]),
    ("bert", ["--impl.micro_batch_size", "-1"], ["micro_batch_size"]),
    ("bert", ["--tokenizer", "SPECS/bytes.yaml", "--data_dir", "SPECS/data"], ["bytes", "no ", "_token"]),
    ("gpt", ["--tokenizer", "SPECS/wordpiece.yaml"], ["wordpiece.yaml", "end-of-text"]),
    ("bert", ["--tokenizer", "no/such/spec.yaml"], ["no/such/spec.yaml"]),
], ids=lambda value: " ".join(value) if isinstance(value, list) else value)
def test_wrong_values(root, request, family, arguments, parts):
    for kind in small.SPECS:
        small.write_spec(root / "specs", kind)
    arguments = [argument.replace("SPECS", str(root / "specs")) for argument in arguments]
    assert_one_error(run(root, f"wrong-{abs(hash(request.node.name))}", *arguments, family=family), *parts)


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_a_corpus_of_one_document(root, family):
    small.write_corpus(root / "one", documents=1)
    finished = run(root, f"one-document-{family}", family=family, corpus={"sources": [str(root / "one")]},
                   data_dir=str(root / f"one-data-{family}"))
    assert_one_error(finished, str(root / "one"), "no document is left for")
    assert not (root / f"one-data-{family}/corpus").exists()


def test_two_documents_leave_bert_without_wrong_continuations(root):
    """One document in each split is enough to be split, and not enough for next sentences: the store is named."""
    (root / "few.yaml").write_text("algorithm: wordpiece\nvocab_size: 50\n")
    for split, number in (("train", 3), ("validation", 7)):
        directory = root / f"two/{split}"
        directory.mkdir(parents=True)
        (directory / "a.txt").write_text((small.write_corpus(root / "more") / f"{number:02}.txt").read_text() * 5)
    finished = run(root, "two-documents", corpus={"sources": [str(root / "two/train")],
                                                  "validation_sources": [str(root / "two/validation")]},
                   data_dir=str(root / "two-data"), tokenizer=str(root / "few.yaml"))
    assert_one_error(finished, "1 document", "next-sentence")


def test_a_run_directory_made_with_another_configuration(root, unbroken):
    finished = run(root, "unbroken-bert", "--training.learning_rate", "0.5", "--seed", "4")
    assert_one_error(finished, str(unbroken / "config.yaml"), "1 more key", "Choose another --output_dir")


def test_a_mistake_does_not_claim_the_directory(root):
    # Once wrong: config.yaml is written before the configuration is checked, so that the corrected command is
    # refused with "this run was made with model.preset = 'bert-tinny'".
    assert run(root, "mistaken", "--model.preset", "bert-tinny").code == 2
    finished = run(root, "mistaken", "--training.max_steps", "2")
    assert finished.code == 0, finished.err


def test_output_dir_from_the_command_line(root):
    # Once wrong: a YAML file, or none, without the required keys is refused before the command line is looked at.
    path = config(root, "elsewhere")
    values = small.yaml.safe_load(path.read_text())
    del values["output_dir"]
    write_config(path, values)
    finished = run_recipe("pretrain_bert", ["--config", str(path), "--output_dir", str(root / "named-there"),
                                            "--training.max_steps", "2"], root / "elsewhere-output")
    assert finished.code == 0, finished.err
    assert (root / "named-there/result.json").exists()


@pytest.mark.parametrize("env", [{"WORLD_SIZE": "2"}, {"TOOLKIT_NPROC": "2"}, {"WORLD_SIZE": "1", "TOOLKIT_NPROC": "2"},
                                 {"WORLD_SIZE": "2", "TOOLKIT_NPROC": "2"}], ids=str)
def test_a_launch_of_fewer_processes_than_asked_for(root, env):
    finished = run(root, "launched", env=env)
    # Once wrong: WORLD_SIZE=2 without the rest of a launcher's environment is accelerate's traceback, exit code 1.
    assert_one_error(finished, "2 processes", "--multi_gpu")
    assert not (root / "launched").exists()


@pytest.mark.parametrize(("family", "change"), [
    ("bert", {"masking": {"whole_word_masking": True}}), ("bert", {"masking": {"short_seq_prob": 0.5}}),
    ("bert", {"corpus": {"weights": [1, 3]}}), ("gpt", {"corpus": {"weights": [1, 0.5]}}),
    ("gpt", {"attention_within_documents": True})], ids=str)
def test_an_option_of_the_batches_reaches_the_training(root, family, change):
    """Two sources, a few steps: the losses are finite, and not those of a run without the option."""
    sources = [str(small.write_corpus(root / "corpus")), str(small.write_corpus(root / "other", 37))]
    (root / "other/00.txt").write_text("Another text altogether, which nobody wrote before. " * 20)
    shared = {"data_dir": str(root / "options-data"), "corpus": {"sources": sources, "deduplicate": False},
              "training": {"max_steps": 3, "logging_steps": 1, "save_steps": 0}}
    if family == "gpt":
        shared["block_size"] = 64  # long enough to hold the ends of documents
    losses = {}
    for name, more in (("plain", {}), ("changed", change)):
        merged = {**shared, **{key: {**shared.get(key, {}), **value} if isinstance(value, dict) else value
                               for key, value in more.items()}}
        directory = f"{family}-{name}-{'-'.join(str(next(iter(change.values()))).split())}".replace("/", "")
        finished = run(root, directory, family=family, **merged)
        assert finished.code == 0, finished.err
        losses[name] = [record["loss"] for record in small.records(root / directory) if "loss" in record]
    assert len(losses["plain"]) == len(losses["changed"]) == 3
    assert all(0 < loss < 10 for loss in losses["changed"])
    assert losses["plain"] != losses["changed"]
