"""`fit`: one life for every fit, which can be taken up wherever it was killed."""

import shutil

import pytest
from toy import Toy

from toolkit.run.directory import Run
from toolkit.tasks.base import fit
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig
from toolkit.training.task import TrainingConfig

CONFIG = TrainingConfig(max_steps=2, batch_size=4, save_steps=1)


def fitted(directory, make_task=lambda: Toy([1.0]), told=(), **options) -> dict:
    def test(task, best, result, precision):
        return {"names": [name for name, _ in best.named_parameters()][:1], "loss": result["loss"]}

    return fit(make_task, CONFIG, ImplConfig(dtype="fp32"), Run(directory, observers=told), make_accelerator(), 7,
               "toy", test, **options)


def test_a_model_that_is_not_kept_goes_after_the_result_is_written(tmp_path, monkeypatch):
    """Killed between the two, the same call finds the result; a model that was left takes room, and that is all."""
    # Once wrong: the model went first, so that a run killed then could not be taken up.
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        fitted(tmp_path, keep_model=False)
    assert (tmp_path / "model").exists()
    result = fitted(tmp_path, lambda: pytest.fail("a finished fit was made again"), keep_model=False)
    assert result["loss"] == 1.0
    fitted(tmp_path / "unbroken", keep_model=False)
    assert not (tmp_path / "unbroken/model").exists()


def test_killed_while_it_is_tested_it_is_tested_again(tmp_path):
    class Killed(Toy):
        pass

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(lambda: Killed([1.0]), CONFIG, ImplConfig(dtype="fp32"), Run(tmp_path), make_accelerator(), 7, "toy", fail)
    task = Toy([1.0])
    assert fitted(tmp_path, lambda: task)["loss"] == 1.0
    assert task.drawn == [], "steps that were saved were made again"


def test_observers_are_told_when_all_is_in_place(tmp_path):
    seen = []

    def told(directory, finished):
        seen.append((finished, (directory / "result.json").exists(), (directory / "model").exists()))

    fitted(tmp_path, told=[told], keep_model=False)
    assert seen == [(False, False, True), (True, True, False)]
