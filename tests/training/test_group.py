"""Two processes that share a training, and what befalls them: kills, errors, a process that nobody joins.

As launchers start them, but forked; test_launch.py has the launchers.
"""

import signal
from pathlib import Path

import pytest
import small
from launching import ACCUMULATED, STEPS, free_port, group, pretraining

from toolkit.errors import UserError
from toolkit.training import checkpoint

SCRIPT = small.ROOT / "recipes/pretrain_bert.py"
GONE = "error: rank {}: another process of the group is gone"


def two(root: Path, name: str, *hooks: tuple | None) -> list[small.Finished]:
    path = pretraining(root, name, **ACCUMULATED)
    return group(SCRIPT, ["--config", str(path)], root / f"{name}-output", hooks or (None, None))


@pytest.fixture(scope="module")
def unbroken(root) -> Path:
    for finished in two(root, "unbroken"):
        assert finished.code == 0, finished.err
    return root / "unbroken"


def test_killed_twice_they_end_bit_identical_to_an_unbroken_run(root, unbroken):
    left, killed = two(root, "killed", None, ("batch", 7, signal.SIGKILL))
    assert killed.code == -signal.SIGKILL and left.code == 4 and GONE.format(0) in left.err, left.err
    # The one that writes, and holds the lock, with a checkpoint half written.
    killed, left = two(root, "killed", ("checkpoint", 15, signal.SIGKILL), None)
    assert killed.code == -signal.SIGKILL and left.code == 4 and GONE.format(1) in left.err, left.err
    assert "Traceback" not in left.err
    newest, passed_over = checkpoint.newest_valid(root / "killed/checkpoints")
    assert newest.name == "step-00000010" and not passed_over and not (root / "killed/result.json").exists()
    main, other = two(root, "killed")
    assert (main.code, other.code) == (0, 0) and "resuming at step 10 " in main.out, main.err
    assert len(small.read_json(newest.with_name(f"step-{STEPS:08}") / "state.json")["running"]) == 2, "not two"
    small.assert_same_run(root / "killed", unbroken)


def test_an_error_on_one_rank_ends_all(root, unbroken):
    left, failed = two(root, "failing", None, ("batch", 3, UserError("the rows of rank 1 are spoilt")))
    assert failed.code == 2 and failed.err.count("error: the rows of rank 1 are spoilt") == 1, failed.err
    assert left.code == 4 and left.err.count(GONE.format(0)) == 1, left.err
    assert not (root / "failing/result.json").exists()


def test_a_process_that_nobody_joins_says_so(root, unbroken):
    # Once wrong: a traceback, when the other host's process had died before they met.
    env = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    finished = small.run_recipe("pretrain_bert", ["--config", str(pretraining(root, "lonely")), "--impl.ddp_timeout",
                                                  "3"], root / "lonely-output", env)
    assert finished.code == 4 and GONE.format(0) in finished.err, finished.err
    assert "Traceback" not in finished.err


def test_a_mistake_that_all_make_is_told_once(tmp_path):
    told = [small.run_recipe("pretrain_bert", ["--training.max_stepz", "3"], tmp_path / rank, {"RANK": rank})
            for rank in ("0", "1")]
    assert [one.code for one in told] == [2, 2]
    assert told[0].err.startswith("error: ") and "max_stepz" in told[0].err and told[1].err == ""
