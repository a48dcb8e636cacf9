"""What is found before the first step: what the compiler made, a memory that is too small; and a loss that stays."""

import pytest
import small
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import Toy

from toolkit.errors import Diverged, UserError
from toolkit.run.directory import Run
from toolkit.run.files import read_json
from toolkit.training import checkpoint, warm_up
from toolkit.training import trainer as loop
from toolkit.training.budget import TIMED_STEPS, Budget, BudgetConfig
from toolkit.training.feed import StepDataset
from toolkit.training.guard import Beginning, Guard, GuardConfig, Moment
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, _has_native_bf16, choose
from toolkit.training.task import TrainingConfig
from toolkit.training.warm_up import Computed

CPU = torch.device("cpu")


def config(**changes) -> TrainingConfig:
    return TrainingConfig(**{"max_steps": 3, "batch_size": 4, "logging_steps": 1, "save_steps": 0, **changes})


# What was compiled.

def backend_that(change):
    """A compiler for torch.compile that runs the graph as it is, and changes what comes out."""
    def backend(graph, inputs):
        def run(*arguments):
            return change(graph(*arguments))
        return run
    return backend


COMPILERS = {
    "right": lambda outputs: outputs,
    "no gradient": lambda outputs: tuple(output.detach() + 0 * output if output.is_floating_point() else output
                                         for output in outputs),
    "wrong": lambda outputs: tuple(3 * output if output.is_floating_point() else output for output in outputs)}


@pytest.mark.parametrize("kind", COMPILERS)
def test_what_is_compiled_is_held_against_what_is_not(tmp_path, monkeypatch, capfd, kind):
    """A compiler that loses gradients, as torch 2.11's did, or is wrong: told, and the run is the uncompiled one."""
    task, plain = Toy([1.0]), Toy([1.0])
    small.train(plain, tmp_path / "plain", config(), compile=False)
    capfd.readouterr()
    monkeypatch.setattr(task.model, "compile", lambda **_: torch.nn.Module.compile(
        task.model, backend=backend_that(COMPILERS[kind]), dynamic=False))
    small.train(task, tmp_path / "compiled", config(), compile=True)
    told = capfd.readouterr().out
    assert ("compiled and held against the uncompiled micro-batch" in told) == (kind == "right")
    assert ("goes on uncompiled. Please report" in told) == (kind != "right")
    assert {"right": "agree to 50 %", "no gradient": "its gradient norm is 0, uncompiled",
            "wrong": "the first micro-batch is not the same (its"}[kind] in told
    if kind != "right":
        assert small.records(tmp_path / "compiled") == small.records(tmp_path / "plain")
        for name, tensor in plain.model.state_dict().items():
            assert torch.equal(task.model.state_dict()[name], tensor)


def test_a_compiler_that_fails_is_told(tmp_path, monkeypatch, capfd):
    """Its own error, or one of what it wrote: seen with inductor's AVX2 kernels and a text classifier."""
    def failing(graph, inputs):
        raise RuntimeError("kernel, index out of bounds: 0 <= tmp7 < 2L\nmore words")

    task = Toy([1.0])
    monkeypatch.setattr(task.model, "compile",
                        lambda **_: torch.nn.Module.compile(task.model, backend=failing, dynamic=False))
    assert small.train(task, tmp_path, config(), compile=True)["steps"] == 3
    told = capfd.readouterr().out
    assert "index out of bounds" in told and "The run goes on uncompiled" in told


def test_a_gradient_that_is_lost_in_part_is_seen():
    right = Computed(2.0, 1.0, ["unused"])
    assert right.differs(Computed(2.001, 0.999, ["unused"]), 2e-3) == ""
    assert "loss is 2.1" in right.differs(Computed(2.1, 1.0, []), 2e-3)
    assert "gradient norm is nan" in right.differs(Computed(2.0, float("nan"), []), 2e-3)
    assert right.differs(Computed(2.0, 1.0, ["a", "b", "unused"]), 2e-3).startswith("a has no gradient, nor have 1")


def test_nothing_is_left_behind():
    """No gradient, no changed statistic; another shape within the step is compiled, too, before the clock starts."""
    task = Toy()
    task.model.register_buffer("seen", torch.zeros(()))
    task.model.register_forward_hook(lambda module, *_: (module.seen.add_(1), None)[1])
    shapes = []
    task.model.register_forward_pre_hook(
        lambda _, __, inputs: shapes.append(len(inputs["input_ids"])), with_kwargs=True)
    precision = choose(ImplConfig(dtype="fp32", compile=True, micro_batch_size=3), CPU)
    dataset = StepDataset(task, 8, make_accelerator(), ImplConfig(micro_batch_size=3))
    warm_up.warm_up(task, task.model, dataset, 0, precision, make_accelerator())
    assert shapes == [3, 3, 2] and task.model.seen == 0
    assert all(parameter.grad is None for parameter in task.model.parameters())


def test_what_is_compiled_later_is_no_part_of_a_budget(tmp_path, monkeypatch):
    """A new shape at a step: its time is taken to be that of the step before."""
    clock, graphs = [50.0], [1]
    monkeypatch.setitem(small.PARTS, "clock", lambda: clock[0])
    monkeypatch.setattr(warm_up, "matmul_peak", lambda device, dtype: 1e9)
    monkeypatch.setitem(small.PARTS, "count_graphs", lambda: graphs[0])

    class Compiling(Toy):
        def batch(self, step, rows):
            drawn = super().batch(step, rows)
            clock[0] += 30.0 if step == 4 else 0.5
            graphs[0] += step == 4
            return drawn

    task = Compiling([1.0])
    monkeypatch.setattr(task.model, "compile", lambda **_: None)
    result = small.train(task, tmp_path, config(max_steps=None, max_minutes=0.1), compile=True)
    assert (result["steps"], result["seconds"]) == (12, 6.0)


# Memory that is too small.

class Large(Toy):
    """Toy on a device that holds so many rows, from a step on."""

    def __init__(self, holds: int, since: int = 0):
        super().__init__([1.0])
        self.holds, self.since, self.step = holds, since, 0

    def batch(self, step, rows):
        self.step = step
        return super().batch(step, rows)

    def losses(self, model, batch):
        if len(batch["input_ids"]) > self.holds and self.step >= self.since:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().losses(model, batch)


@pytest.mark.parametrize(("holds", "told"), [
    (5, "micro-batch of 8 rows; one of 4 was tried and fits.*--impl.micro_batch_size 4"), (1, "micro_batch_size 1"),
    (0, "does not hold one row")])
def test_a_memory_that_is_too_small_is_told_at_the_start(tmp_path, holds, told):
    with pytest.raises(UserError, match=told):
        small.train(Large(holds), tmp_path, config(batch_size=8))


def test_a_memory_that_fills_later_loses_nothing(tmp_path):
    """The state before the step is saved; with the micro-batch that was named the run goes on."""

    with pytest.raises(UserError, match="--impl.micro_batch_size 4"):
        small.train(Large(4, since=3), tmp_path / "run", config(batch_size=8, max_steps=6))
    path, _ = checkpoint.newest_valid(tmp_path / "run/checkpoints")
    assert path.name == "step-00000003"
    task = Large(4, since=3)
    assert small.train(task, tmp_path / "run", config(batch_size=8, max_steps=6), micro_batch_size=4)["steps"] == 6
    assert [record["step"] for record in small.records(tmp_path / "run") if "loss" in record] == [1, 2, 3, 4, 5, 6]


# Gradients that are zero, losses that stay.

class Deaf(Toy):
    """A loss that weights do nothing to, from a step on."""

    def __init__(self, since: int, factor: float = 0.0, rest: float = 1.0):
        super().__init__([1.0])
        self.since, self.factor, self.rest, self.step = since, factor, rest, -1

    def batch(self, step, rows):
        self.step = step
        return super().batch(step, rows)

    def losses(self, model, batch):
        loss = super().losses(model, batch)["toy"]
        return {"toy": loss if self.step < self.since else self.factor * loss + self.rest}


def test_a_gradient_of_zero_is_a_bad_step(tmp_path):
    with pytest.raises(Diverged, match="gradient of step 2 is exactly zero.*--impl.compile false"):
        small.train(Deaf(2), tmp_path, config())
    assert checkpoint.newest_valid(tmp_path / "checkpoints")[0].name == "step-00000002"
    # What has nothing left to learn, or no label in it, is no fault.
    assert small.train(Deaf(2, rest=0.0), tmp_path / "known", config())["steps"] == 3


@pytest.mark.parametrize("at_once", [True, False])
def test_the_guard_knows_a_zero_gradient(at_once):
    guard = Guard(GuardConfig(), CPU, at_once)
    loss, none = torch.tensor(2.0), torch.tensor(0.0)
    moments = [Moment(step, 0, {}, 0) for step in range(3)]
    good = [bool(guard.step([], *pair, moment)) for pair, moment in zip(
        [(loss, loss), (none, none), (loss, none)], moments, strict=True)]
    assert good == [True, True, False]
    (found,) = guard.look(True)
    assert found.step == 2 and found.no_gradient


def test_a_loss_that_does_not_fall_is_told_once(tmp_path, capfd):
    stays = Deaf(0, factor=1e-3, rest=5.0)
    small.train(stays, tmp_path / "stays", config(max_steps=12, learning_rate=0.0, save_steps=6))
    told = capfd.readouterr().out
    assert told.count(", where it began") == 1 and "usual causes: a learning rate too high or too low" in told
    small.train(Toy([1.0]), tmp_path / "falls", config(max_steps=60, logging_steps=10, learning_rate=3e-3))
    assert ", where it began" not in capfd.readouterr().out
    state = read_json(tmp_path / "stays/checkpoints/step-00000012/state.json")
    assert state["began"][1] is True, "a resumed run would say it again"


def test_the_beginning_is_the_first_logged_loss():
    beginning = Beginning(None)
    assert [beginning.has_not_fallen(used, loss) for used, loss in
            [(0.01, 3.0), (0.02, 4.0), (0.06, 3.0), (0.07, 9.0)]] == [False, False, True, False]
    assert not Beginning([3.0, False]).has_not_fallen(0.5, 2.9)
    assert Beginning([3.0, False]).has_not_fallen(0.5, float("nan"))


# Steps in so many minutes.

def test_steps_in_time():
    budget = Budget(BudgetConfig(max_steps=1000, max_minutes=2.0))
    assert budget.name == "max_steps" and budget.limit == 1000
    durations = [1.0] * TIMED_STEPS + [0.2] * 18 + [9.0, 9.0]  # slow at first; two were held up
    assert budget.steps_in_time(20, 4.0, durations[:20]) is None
    assert budget.steps_in_time(50, 20.0, durations) == 550
    assert budget.steps_in_time(50, 2.0, [0.04] * TIMED_STEPS) == 1000
    assert budget.steps_in_time(50, 1000.0, durations) == 51
    assert Budget(BudgetConfig(max_steps=1000)).steps_in_time(50, 10.0, durations) is None
    assert Budget(BudgetConfig(max_minutes=2.0)).steps_in_time(50, 10.0, durations) is None


def test_a_machine_that_is_too_slow_makes_fewer_steps(tmp_path, monkeypatch, capfd):
    """Half a second each: sixty steps in the thirty seconds there are, and the schedule ends with them; a run that was
    broken off goes on to the same sixty, however fast the machine is then.
    """
    clock = [50.0]
    monkeypatch.setitem(small.PARTS, "clock", lambda: clock[0])
    monkeypatch.setattr(warm_up, "matmul_peak", lambda device, dtype: 1e9)

    class Slow(Toy):
        def __init__(self, seconds: float, fail_at: int | None = None):
            super().__init__([1.0], fail_at)
            self.seconds = seconds

        def batch(self, step, rows):
            drawn = super().batch(step, rows)
            clock[0] += self.seconds
            return drawn

    settings = config(max_steps=90, max_minutes=1 / 2, save_steps=10)
    result = small.train(Slow(0.5), tmp_path / "slow", settings)
    assert result["steps"] == 60 and "60 steps instead of 90, which would take about 45 s" in capfd.readouterr().out
    logged = [record for record in small.records(tmp_path / "slow") if "loss" in record]
    assert logged[-1]["learning_rate"] < 0.02 * settings.learning_rate
    with pytest.raises(small.Stopped):
        small.train(Slow(0.5, fail_at=54), tmp_path / "broken", settings)
    assert small.train(Slow(0.01), tmp_path / "broken", settings)["steps"] == 60
    assert small.records(tmp_path / "broken") == small.records(tmp_path / "slow")
    capfd.readouterr()
    assert small.train(Slow(0.1), tmp_path / "fast", settings)["steps"] == 90
    assert "instead of" not in capfd.readouterr().out


# Number formats.

class Bf16Products(TorchDispatchMode):
    """Collects the operations that multiply matrices in bf16."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.name().split("::")[1].split(".")[0]
        if name in ("mm", "bmm", "addmm", "baddbmm", "linear", "mkldnn_linear", "convolution", "matmul") and any(
                isinstance(argument, torch.Tensor) and argument.dtype == torch.bfloat16 for argument in arguments):
            self.found.add(name)
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("native", [True, False])
def test_no_product_in_bf16_where_the_run_is_in_fp32(tmp_path, monkeypatch, native):
    """Training, its optimiser and its evaluation; `auto` on a processor without bf16 is such a run."""
    if native and not _has_native_bf16(CPU):
        pytest.skip("this processor emulates bf16: a minute for what others show")
    monkeypatch.setattr("toolkit.training.impl.precision._has_native_bf16", lambda device: native)
    data = {"bert": small.small_data(tmp_path, "wordpiece")}

    def products(**impl) -> set[str]:
        with Bf16Products() as mode:
            loop.train(small.bert_task(data["bert"]), config(optimizer="muon"), ImplConfig(**impl),
                       Run(tmp_path / str(impl)), make_accelerator(), 7)
        return mode.found

    assert products(dtype="fp32") == set()
    assert bool(products(dtype="auto")) == native
    assert choose(ImplConfig(dtype="bf16"), CPU).optimizer_dtype == (torch.bfloat16 if native else torch.float32)


def test_the_first_micro_batch_moves_no_running_statistics():
    """Once wrong: the forward that counts operations moved BatchNorm's mean and variance before step 0."""
    class Normed(Toy):
        def __init__(self):
            super().__init__([1.0])
            self.model.bert.norm = torch.nn.BatchNorm1d(6)

        def losses(self, model, batch):
            self.model.bert.norm(batch["input_ids"].float())
            return super().losses(model, batch)

    task = Normed()
    before = {name: buffer.clone() for name, buffer in task.model.named_buffers()}
    accelerator = make_accelerator()
    dataset = StepDataset(task, 8, accelerator, ImplConfig())
    warm_up.warm_up(task, task.model, dataset, 0, choose(ImplConfig(dtype="fp32"), torch.device("cpu")), accelerator)
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(buffer, before[name]) for name, buffer in task.model.named_buffers())
