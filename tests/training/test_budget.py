"""Budgets in steps, tokens and minutes: what is refused, where a run ends, and its learning rate till then."""

import time

import pytest
import small
from toy import Toy

from toolkit.errors import UserError
from toolkit.run.directory import read_metrics
from toolkit.run.files import read_json
from toolkit.training import warm_up
from toolkit.training.budget import Budget, BudgetConfig
from toolkit.training.optim import learning_rate_factor
from toolkit.training.task import TrainingConfig

TOKENS = 24  # of a step of Toy with four rows


@pytest.mark.parametrize("given", [{}, {"max_steps": 3, "max_tokens": 9}, {"max_tokens": 3, "max_minutes": 1.5},
                                   {"max_steps": 1, "max_tokens": 2, "max_minutes": 3.0}])
def test_one_budget_is_needed(given):
    with pytest.raises(UserError) as caught:
        Budget(BudgetConfig(**given))
    for name in ("training.max_steps", "training.max_tokens", "training.max_minutes"):
        assert name in str(caught.value)
    for name, value in given.items():
        assert f"{name} = {value}" in str(caught.value)
    assert ("none of them" in str(caught.value)) == (not given)


@pytest.mark.parametrize(("name", "limit"), [
    *((name, limit) for name in ("max_steps", "max_tokens", "max_minutes") for limit in (0, -2)),
    ("max_minutes", float("nan"))])
def test_a_budget_is_positive(name, limit):
    with pytest.raises(UserError, match=f"training.{name} is {limit}"):
        Budget(BudgetConfig(**{name: limit}))


@pytest.mark.parametrize(("name", "limit", "share"), [("max_steps", 40, 0.25), ("max_tokens", 4000, 0.75),
                                                      ("max_minutes", 2.5, 0.4)])
def test_used(name, limit, share):
    budget = Budget(BudgetConfig(**{name: limit}))
    assert budget.name == name
    assert budget.used(10, 3000, 60.0) == share and budget.used(0, 0, 0.0) == 0
    assert budget.used(40, 4000, 150.0) == 1 and budget.used(50, 5000, 200.0) > 1


def test_a_budget_is_checked_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="exactly one budget"):
        small.train(Toy(), tmp_path / "run", TrainingConfig(batch_size=4))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["linear", "one_cycle"])
def test_tokens_are_steps_of_so_many(tmp_path, kind):
    """The same weights, losses and learning rates to the last bit."""
    rest = {"batch_size": 4, "logging_steps": 2, "eval_steps": 3, "save_steps": 5, "lr_scheduler_type": kind}
    for name, budget in (("steps", {"max_steps": 7}), ("tokens", {"max_tokens": 7 * TOKENS})):
        result = small.train(Toy([3.0, 2.0, 1.0]), tmp_path / name, TrainingConfig(**budget, **rest))
        assert (result["steps"], result["tokens"]) == (7, 7 * TOKENS)
    assert small.records(tmp_path / "tokens") == small.records(tmp_path / "steps")
    for file in ("model/model.safetensors", "checkpoints/step-00000007/model.safetensors"):
        assert small.digest(tmp_path / "tokens" / file) == small.digest(tmp_path / "steps" / file)


@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (TOKENS, 1), (TOKENS + 1, 2), (5 * TOKENS - 1, 5)])
def test_the_step_that_reaches_the_budget_is_the_last(tmp_path, tokens, steps):
    config = TrainingConfig(max_tokens=tokens, batch_size=4, logging_steps=1, save_steps=0)
    result = small.train(Toy([1.0]), tmp_path, config)
    assert (result["steps"], result["tokens"]) == (steps, steps * TOKENS)
    logged = [record for record in small.records(tmp_path) if "loss" in record]
    assert [record["tokens"] for record in logged] == [TOKENS * step for step in range(1, steps + 1)]
    for record in logged:  # of the middle of a step, by what is used before and after it
        middle = min(1, (2 * record["tokens"] - TOKENS) / 2 / tokens)
        assert record["learning_rate"] == pytest.approx(1e-3 * learning_rate_factor(config, middle))


def test_minutes_end_in_time(tmp_path):
    config = TrainingConfig(max_minutes=0.02, batch_size=4, logging_steps=1, save_steps=0, warmup_ratio=0.2)
    began = time.monotonic()
    result = small.train(Toy([1.0]), tmp_path, config)
    assert time.monotonic() - began < 10 and result["steps"] > 5
    assert 0.9 < result["seconds"] < 1.8
    rates = [record["learning_rate"] for record in small.records(tmp_path) if "loss" in record]
    assert rates[0] < 0.2e-3 and rates[-1] < 0.2e-3 and max(rates) > 0.7e-3


class Clocked(Toy):
    """Each batch takes the time that `durations` says, or half a second; nothing else takes any."""

    def __init__(self, now: list[float], *args, durations: dict[int, float] | None = None):
        super().__init__(*args)
        self.now, self.durations = now, durations or {}

    def batch(self, step, rows):
        drawn = super().batch(step, rows)
        self.now[0] += self.durations.get(step, 0.5)
        return drawn

    def evaluate(self, model, accelerator, precision):
        self.now[0] += 100
        return super().evaluate(model, accelerator, precision)


@pytest.fixture
def now(monkeypatch) -> list[float]:
    clock = [50.0]
    monkeypatch.setitem(small.PARTS, "clock", lambda: clock[0])
    monkeypatch.setattr(warm_up, "matmul_peak", lambda device, dtype: 1e9)
    return clock


def minutes(**settings) -> TrainingConfig:
    return TrainingConfig(**{"max_minutes": 0.1, "batch_size": 4, "logging_steps": 1, "save_steps": 2, **settings})


def test_minutes_are_minutes_of_training(tmp_path, now):
    """Six seconds, in steps of half a second; evaluations take none of them."""
    config = minutes(eval_steps=3, warmup_ratio=0.25)
    assert small.train(Clocked(now, [4.0, 3.0, 2.0, 1.0]), tmp_path, config)["steps"] == 12
    logged = [record for record in small.records(tmp_path) if "loss" in record]
    # How long a step takes is known from the one before it; the first is taken to take no time.
    middles = [0.0] + [(step + 0.5) / 12 for step in range(1, 12)]
    assert [record["learning_rate"] for record in logged] == pytest.approx(
        [1e-3 * learning_rate_factor(config, middle) for middle in middles])


@pytest.mark.parametrize("fail_at", [1, 4, 7])
def test_resumed_minutes_are_no_more_minutes(tmp_path, now, fail_at):
    with pytest.raises(small.Stopped):
        small.train(Clocked(now, [1.0], fail_at), tmp_path, minutes())
    result = small.train(Clocked(now, [1.0]), tmp_path, minutes())
    assert result["seconds"] == 6.0 and result["steps"] == 12
    state = read_json(tmp_path / "checkpoints/step-00000012/state.json")
    assert state["seconds"] == pytest.approx(6.0)
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl") if "loss" in record] == list(
        range(1, 13))


def test_a_slow_last_step_is_one_step_too_much_at_most(tmp_path, now):
    result = small.train(Clocked(now, [1.0], durations={11: 3.0}), tmp_path, minutes())
    assert result["steps"] == 12 and result["seconds"] == 8.5


def test_minutes_that_ended_are_not_gone_on_with(tmp_path, now):
    """The last step was faster than the one before it: a little of the budget is left, and stays."""
    task = Clocked(now, [2.0], durations={11: 0.1})
    assert small.train(task, tmp_path, minutes())["steps"] == 12
    before = small.records(tmp_path)
    assert small.train(Clocked(now, [2.0]), tmp_path, minutes())["steps"] == 12
    assert small.records(tmp_path) == before
