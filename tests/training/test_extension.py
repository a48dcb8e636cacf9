"""A longer budget for a run that has begun or ended: the same weights as at once, or one line that says why not."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import small
from toy import Toy

from toolkit.errors import UserError
from toolkit.run.directory import Run
from toolkit.run.files import read_json
from toolkit.training import trainer as loop
from toolkit.training.extension import extension
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.task import TrainingConfig

TOKENS = 24  # of a step of Toy with four rows


@dataclass
class Settings:
    output_dir: str
    training: TrainingConfig = field(default_factory=TrainingConfig)


def run(directory: Path, values=(3.0, 2.0, 1.0, 0.9, 0.8), fail_at: int | None = None, **training) -> dict:
    """As the pretraining recipes run: open, show the result or train, finish."""
    config = TrainingConfig(**{"batch_size": 4, "logging_steps": 2, "save_steps": 5, "warmup_ratio": 0.0,
                               "lr_scheduler_type": "constant", **training})
    settings = Settings(str(directory), config)
    opened = Run(directory).open(settings, extension(config, settings.output_dir))
    if opened.result():
        return opened.result()
    return opened.finish(loop.train(Toy(values, fail_at), config, loop.ImplConfig(dtype="fp32"), opened,
                                    make_accelerator(), 7))


def weights(directory: Path, step: int) -> tuple[str, str]:
    place = directory / f"checkpoints/step-{step:08}"
    return small.digest(place / "model.safetensors"), small.digest(directory / "model/model.safetensors")


@pytest.mark.parametrize(("name", "unit"), [("max_steps", 1), ("max_tokens", TOKENS)])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_finished_run_goes_on_as_if_it_had_been_longer(tmp_path, capsys, name, unit, ema):
    assert run(tmp_path / "at-once", [3.0, 2.0], eval_steps=8, ema_decay=ema, **{name: 12 * unit})["steps"] == 12
    assert run(tmp_path / "run", [3.0], eval_steps=8, ema_decay=ema, **{name: 8 * unit})["steps"] == 8
    assert "note" not in capsys.readouterr().out
    # Its last evaluation is made again: it was still to come when the last checkpoint was saved.
    result = run(tmp_path / "run", [3.0, 2.0], eval_steps=8, ema_decay=ema, **{name: 12 * unit})
    assert result["steps"] == 12
    unit_name = name.removeprefix("max_")
    assert (f"its budget was {8 * unit:,} {unit_name}, now it is {12 * unit:,} {unit_name}: it goes on from its "
            f"checkpoint at step 8") in capsys.readouterr().out
    assert weights(tmp_path / "run", 12) == weights(tmp_path / "at-once", 12)
    logged = [[record for record in small.records(tmp_path / place) if "loss" in record]
              for place in ("run", "at-once")]
    assert logged[0] == logged[1]
    assert run(tmp_path / "run", [], eval_steps=8, ema_decay=ema, **{name: 12 * unit}) == result, "it is finished"


def test_the_earlier_result_stays_until_there_is_another(tmp_path):
    earlier = run(tmp_path, max_steps=6)
    with pytest.raises(small.Stopped):
        run(tmp_path, fail_at=8, max_steps=12)
    assert read_json(tmp_path / "earlier-result.json") == earlier and not (tmp_path / "result.json").exists()
    with pytest.raises(UserError, match="6 steps, now it is 4 steps, but 6 steps are made already|12 steps, now"):
        run(tmp_path, max_steps=4)
    assert run(tmp_path, max_steps=12)["steps"] == 12
    assert not (tmp_path / "earlier-result.json").exists()


def test_minutes_are_extended_too(tmp_path, monkeypatch):
    clock = [0.0]

    class Clocked(Toy):
        def batch(self, step, rows):
            clock[0] += 0.5
            return super().batch(step, rows)

    def timed(minutes: float) -> dict:
        config = TrainingConfig(max_minutes=minutes, batch_size=4, logging_steps=2, save_steps=5, warmup_ratio=0.0,
                                lr_scheduler_type="constant")
        opened = Run(tmp_path).open(Settings(str(tmp_path), config), extension(config, tmp_path))
        return opened.finish(loop.train(Clocked([3.0, 2.0, 1.0]), config, loop.ImplConfig(dtype="fp32"), opened,
                                        make_accelerator(), 7, clock=lambda: clock[0]))

    assert timed(0.1)["steps"] == 12
    assert timed(0.15)["seconds"] == pytest.approx(9.0)


def test_a_run_that_was_broken_off_before_the_decay_goes_on(tmp_path):
    """wsd: 60 % of the budget at the peak; the rate of a longer run falls later."""
    options = {"lr_scheduler_type": "wsd", "decay_ratio": 0.4}
    run(tmp_path / "at-once", max_steps=20, **options)
    with pytest.raises(small.Stopped):
        run(tmp_path / "run", fail_at=6, max_steps=10, **options)
    assert run(tmp_path / "run", max_steps=20, **options)["steps"] == 20
    assert weights(tmp_path / "run", 20) == weights(tmp_path / "at-once", 20)


@pytest.mark.parametrize(("options", "told"), [
    ({"lr_scheduler_type": "linear"}, "of lr_scheduler_type linear goes by the budget from its beginning"),
    ({"lr_scheduler_type": "cosine"}, "of lr_scheduler_type cosine goes by the budget from its beginning"),
    ({"lr_scheduler_type": "one_cycle"}, "one_cycle goes by the budget from its beginning"),
    ({"lr_scheduler_type": "wsd", "decay_ratio": 0.5}, "wsd goes by the budget from 50% of the budget, and its last "
                                                       "checkpoint has used 100%"),
    ({"save_steps": 0}, r"the checkpoints to go on from were not kept \(training.save_steps was 0\)"),
    ({"early_stopping_patience": 1, "eval_steps": 2, "save_steps": 3}, "it ended early, after 1 evaluations"),
])
def test_a_run_that_cannot_go_on_says_why_and_what_to_do(tmp_path, options, told):
    result = run(tmp_path, [1.0, 2.0, 3.0, 4.0], max_steps=6, **options)
    with pytest.raises(UserError, match=f"its budget was 6 steps, now it is 9 steps.*{told}.*--init_from {tmp_path}"):
        run(tmp_path, max_steps=9, **options)
    assert run(tmp_path, max_steps=6, **options) == result, "nothing was touched"


def test_a_warm_up_is_not_gone_through_twice(tmp_path):
    run(tmp_path, max_steps=6, warmup_ratio=0.5)
    with pytest.raises(UserError, match="its warm-up, 50% of it, would begin again. Give at most 12 steps"):
        run(tmp_path, max_steps=13, warmup_ratio=0.5)
    run(tmp_path, max_steps=12, warmup_ratio=0.5)
    rates = [record["learning_rate"] for record in small.records(tmp_path) if "loss" in record]
    assert rates[2:] == [1e-3] * 4 and rates[0] < rates[1] <= 1e-3


def test_another_kind_of_budget_is_refused(tmp_path):
    run(tmp_path, max_steps=6)
    with pytest.raises(UserError, match="was 6 steps, now it is 480 tokens. Give the new one as training.max_steps"):
        run(tmp_path, max_tokens=20 * TOKENS)
    with pytest.raises(UserError, match="counted out for some minutes cannot be more"):
        run(tmp_path, max_steps=60, max_minutes=3.0)


def test_whatever_else_differs_is_another_run(tmp_path):
    run(tmp_path, max_steps=6)
    with pytest.raises(UserError, match="this run was made with training.batch_size = 4, now it is 8|max_steps = 6"):
        run(tmp_path, max_steps=9, batch_size=8)


def test_damaged_checkpoints_are_named(tmp_path):
    run(tmp_path, max_steps=6)
    for place in (tmp_path / "checkpoints").iterdir():
        (place / "optimizer.pt").unlink()
    with pytest.raises(UserError, match="are damaged .*step-00000006: optimizer.pt is missing"):
        run(tmp_path, max_steps=9)


def test_before_the_first_checkpoint_any_budget_will_do(tmp_path):
    with pytest.raises(small.Stopped):
        run(tmp_path, fail_at=3, max_steps=6, lr_scheduler_type="linear")
    assert run(tmp_path, max_steps=9, lr_scheduler_type="linear")["steps"] == 9
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 9


def test_a_moved_run_is_extended_where_it_lies(tmp_path):
    run(tmp_path / "a", max_steps=6)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert run(tmp_path / "b", max_steps=9)["steps"] == 9
    assert not (tmp_path / "a").exists()
