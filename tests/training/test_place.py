"""The directory of a run goes while it trains, or the training is on another thread."""

import shutil
import threading

import pytest
import small
from toy import Toy

from toolkit.errors import UserError
from toolkit.run.directory import Run
from toolkit.tasks.base import fit
from toolkit.training import trainer as loop
from toolkit.training.task import TrainingConfig

CONFIG = TrainingConfig(max_steps=6, batch_size=4, logging_steps=1, save_steps=2, eval_steps=3)


def remove(directory) -> None:
    shutil.rmtree(directory)


def replace(directory) -> None:
    directory.rename(directory.with_name("elsewhere"))
    directory.mkdir()


def replace_by_a_copy(directory) -> None:
    directory.rename(directory.with_name("elsewhere"))
    shutil.copytree(directory.with_name("elsewhere"), directory)


def empty(directory) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def take_metrics(directory) -> None:
    (directory / "metrics.jsonl").unlink()


def take_config(directory) -> None:
    (directory / "config.yaml").unlink()


def trained(directory, act, at: int, config: TrainingConfig = CONFIG, part: bool = False) -> dict:
    class Disturbed(Toy):
        def batch(self, step, rows):
            if step == at:
                act(directory)
            return super().batch(step, rows)

    run = Run(directory).open(CONFIG)
    run.write_manifest()
    own = run.part("seed-0") if part else run
    return fit(lambda: Disturbed([2.0, 1.0]), config, loop.ImplConfig(dtype="fp32"), own, small.make_accelerator(), 7,
               "toy")


@pytest.mark.parametrize("part", [False, True], ids=["run", "part"])
@pytest.mark.parametrize("at", [1, 5], ids=["early", "at the last step"])
@pytest.mark.parametrize("act", [remove, replace, replace_by_a_copy, empty, take_config])
def test_a_directory_that_goes_is_told(tmp_path, act, at, part):
    with pytest.raises(UserError, match="was removed or replaced while this run was writing into"):
        trained(tmp_path / "run", act, at, part=part)
    assert not (tmp_path / "run/result.json").exists() and not (tmp_path / "run/seed-0/result.json").exists()


@pytest.mark.parametrize("changes", [{"save_steps": 2}, {"save_steps": 0}])
def test_lost_figures_are_told(tmp_path, changes):
    """Also where no checkpoint is written, at the evaluation."""
    config = TrainingConfig(max_steps=6, batch_size=4, logging_steps=1, eval_steps=3, **changes)
    with pytest.raises(UserError, match="metrics.jsonl: was removed or replaced"):
        trained(tmp_path / "run", take_metrics, 1, config)


def test_an_undisturbed_one_ends(tmp_path):
    assert trained(tmp_path / "run", lambda directory: None, 1)["steps"] == 6


def test_it_trains_on_another_thread_and_says_what_that_costs(tmp_path, capsys):
    found = {}

    def job() -> None:
        found["thread"] = small.train(Toy([1.0]), tmp_path / "thread", TrainingConfig(max_steps=3, batch_size=4))

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert capsys.readouterr().out.count("this is not the main thread: signals do not stop the training") == 1
    small.train(Toy([1.0]), tmp_path / "main", TrainingConfig(max_steps=3, batch_size=4))
    assert "main thread" not in capsys.readouterr().out
    assert small.digest(tmp_path / "thread/model/model.safetensors") == small.digest(
        tmp_path / "main/model/model.safetensors")
    assert found["thread"]["steps"] == 3
