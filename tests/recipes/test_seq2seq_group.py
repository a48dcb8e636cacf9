"""Two processes that share the training of encoder–decoders, sharded or not, and one that is killed."""

import signal
from pathlib import Path

import pytest
import small
from launching import difference, group

SCRIPT = small.ROOT / "recipes/compare_seq2seq.py"
ARMS = ("gru", "transformer")
PARTS = ("gru/seed-0", "transformer/seed-0")
SHARDED = {"ACCELERATE_USE_FSDP": "true"}


def settings(root: Path, name: str) -> list[str]:
    """Twelve steps for each arm, without dropout: what is drawn for it depends on the rank."""
    pairs = root / "pairs.tsv"
    if not pairs.exists():
        texts = [f"{a} {b}" for a in ("red", "blue", "old", "new", "wet", "dry") for b in
                 ("cat", "dog", "hat", "box", "cup", "sun", "sea", "hen", "ant", "bee")]
        pairs.write_text("source\ttarget\n" + "".join(f"{text}\t{text[::-1]}\n" for text in texts))
    values = {
        "output_dir": str(root / name), "tokenizer": "tokenizers/characters.yaml", "seeds": 1,
        "data": {"train": [str(pairs)], "validation_share": 0.1, "max_source_length": 16, "max_target_length": 16},
        "model": {"embedding_size": 12, "hidden_size": 16, "dropout": 0.0},
        "arms": {"gru": {"architecture": "gru"}, "transformer": {"architecture": "transformer-micro"}},
        "training": {"max_steps": 12, "max_minutes": None, "batch_size": 12, "eval_steps": 6, "save_steps": 4,
                     "logging_steps": 3, "decoding": {"max_new_tokens": 10}},
        "impl": {"dtype": "fp32"}}
    return ["--config", str(small.write_config(root / f"{name}.yaml", values))]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("group")


@pytest.fixture(scope="module")
def alone(root) -> Path:
    finished = small.run_recipe("compare_seq2seq", settings(root, "alone"), root / "alone-output")
    assert finished.code == 0, finished.err
    return root / "alone"


def assert_same_course(found: Path, expected: Path) -> None:
    """The losses of every step that is told, the weights that are kept and the answers."""
    for part in PARTS:
        one, other = small.records(found / part), small.records(expected / part)
        assert [record["step"] for record in one] == [record["step"] for record in other] and len(other) > 4
        for line, expectation in zip(one, other, strict=True):
            assert line | {"tokens": 0} == pytest.approx(expectation | {"tokens": 0}, rel=2e-4)  # less padding of two
        assert difference(found / part / "model/model.safetensors", expected / part / "model/model.safetensors") < 1e-3
        answers = [small.read_json(run / part / "predictions.json") for run in (found, expected)]
        assert answers[0] == answers[1] and all(row["source"] for row in answers[0])


def test_two_processes_take_the_course_of_one(root, alone):
    for finished in group(SCRIPT, settings(root, "two"), root / "two-output"):
        assert finished.code == 0, finished.err
    assert_same_course(root / "two", alone)


@pytest.mark.faults
def test_sharded_over_two_they_do_too(root, alone):
    done = group(SCRIPT, settings(root, "sharded"), root / "sharded-output", env=SHARDED)
    for finished in done:
        assert finished.code == 0, finished.err
    assert "sharded over 2 processes" in done[0].out
    assert_same_course(root / "sharded", alone)


@pytest.mark.faults
@pytest.mark.parametrize("env", [{}, SHARDED], ids=["copies", "sharded"])
def test_killed_they_end_bit_identical_to_an_unbroken_run(root, env):
    name = "sharded" if env else "copies"
    for finished in group(SCRIPT, settings(root, f"{name}-unbroken"), root / f"{name}-1", env=env):
        assert finished.code == 0, finished.err
    left, killed = group(SCRIPT, settings(root, f"{name}-killed"), root / f"{name}-2",
                         (None, ("batch", 7, signal.SIGKILL)), env=env)
    assert killed.code == -signal.SIGKILL and left.code == 4, left.err
    for finished in group(SCRIPT, settings(root, f"{name}-killed"), root / f"{name}-3", env=env):
        assert finished.code == 0, finished.err
    resumed = (root / f"{name}-3/rank-0/out.txt").read_text()
    assert resumed.count("resuming at step 4") == 1, resumed
    for part in PARTS:
        assert small.digest(root / f"{name}-killed/{part}/model/model.safetensors") == small.digest(
            root / f"{name}-unbroken/{part}/model/model.safetensors")
        assert small.records(root / f"{name}-killed/{part}") == small.records(root / f"{name}-unbroken/{part}")
