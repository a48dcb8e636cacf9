"""Nothing is lost: runs killed at every kind of moment, full disks, changed data, losses that are no number."""

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from small import assert_same_run as _assert_same_run
from small import run_recipe, write_config
from toy import Toy

from toolkit.errors import Diverged, UserError
from toolkit.run.directory import Run
from toolkit.training import checkpoint, feed, guard
from toolkit.training import trainer as loop
from toolkit.training.guard import Guard, GuardConfig, Moment
from toolkit.training.optim import OptimConfig, make_optimizers
from toolkit.training.task import TrainingConfig

STEPS = 40  # four epochs of BERT's corpus, more than one and a half of GPT's


def config(root: Path, name: str, family: str, **training) -> Path:
    values = {
        "output_dir": str(root / name), "data_dir": str(root / "data"), "seed": 5,
        "corpus": {"sources": [str(root / "corpus")], "validation_share": 0.2, "min_characters": 20},
        "tokenizer": small.write_spec(root / "specs", "wordpiece" if family == "bert" else "bytes"),
        "model": {"preset": f"{family}-tiny", "dropout": 0.1},
        "training": {"max_steps": STEPS, "batch_size": 8, "logging_steps": 4, "save_steps": 5, "eval_steps": 10,
                     "optimizer": "muon", **training},
        "impl": {"micro_batch_size": 3, "dtype": "fp32"},
    }
    values |= {"masking": {"max_seq_length": 32}, "eval_rows": 16} if family == "bert" else {"block_size": 32}
    return write_config(root / f"{name}.yaml", values)


def run(root: Path, name: str, family: str, hook=None, kill_after=None, **training) -> small.Finished:
    path = config(root, name, family, **training)
    return run_recipe(f"pretrain_{family}", ["--config", str(path)], root / f"{name}-output", hook=hook,
                      kill_after=kill_after)


def assert_same_run(directory: Path, unbroken: Path) -> None:
    _assert_same_run(directory, unbroken, STEPS)
    steps = [record["step"] for record in small.records(directory) if "loss" in record]
    assert steps == list(range(4, STEPS + 1, 4)), "a gap or a duplicate in metrics.jsonl"


_unbroken: dict[str, tuple[Path, float]] = {}


def unbroken(root: Path, family: str) -> tuple[Path, float]:
    """A run that nothing happens to, and the seconds it takes."""
    if family not in _unbroken:
        run(root, f"warm-up-{family}", family, max_steps=1)  # prepares the data
        began = time.monotonic()
        finished = run(root, f"unbroken-{family}", family)
        assert finished.code == 0, finished.err
        _unbroken[family] = root / f"unbroken-{family}", time.monotonic() - began
    return _unbroken[family]


MOMENTS = [("micro", 33), ("evaluate", 2), ("renamed", 20), ("model", 0)]
IN_EVERY_SUITE = {("bert", "evaluate")}  # all of them take their time


@pytest.mark.parametrize(("family", "hook"), [
    pytest.param(family, hook, id=f"{family}-{hook[0]}",
                 marks=() if (family, hook[0]) in IN_EVERY_SUITE else pytest.mark.faults)
    for family in ("bert", "gpt") for hook in MOMENTS])
def test_killed_in_the_middle_of(root, family, hook):
    """… accumulation, an evaluation, tidying up after a checkpoint, writing the best model."""
    reference, _ = unbroken(root, family)
    name = f"{family}-{hook[0]}"
    assert run(root, name, family, hook=(*hook, signal.SIGKILL)).code == -signal.SIGKILL, "it was not killed"
    finished = run(root, name, family)
    assert finished.code == 0, finished.err
    assert_same_run(root / name, reference)


def kill_often(root: Path, family: str, kills: int, seed: int) -> list[dict]:
    """Kill runs at seeded random moments, one, two or three times each; every run must end as if nothing had been."""
    reference, seconds = unbroken(root, family)
    moments, log = random.Random(seed), []
    while len(log) < kills:
        name = f"{family}-kills-{len(log)}"
        for _ in range(min(moments.choice([1, 2, 3]), kills - len(log))):
            after = moments.uniform(0.15, 0.9) * seconds
            code = run(root, name, family, kill_after=after).code
            if code == 0:
                break  # it had so little left to do
            assert code == -signal.SIGKILL
            path, _ = checkpoint.newest_valid(root / name / "checkpoints")
            log.append({"family": family, "run": name, "after_seconds": round(after, 3),
                        "checkpoint": path.name if path else None})
        finished = run(root, name, family)
        assert finished.code == 0, finished.err
        assert_same_run(root / name, reference)
        for kill in log:
            if kill["run"] == name:
                kill["identical"] = small.digest(root / name / "model/model.safetensors") == small.digest(
                    reference / "model/model.safetensors")
    return log


@pytest.mark.faults
def test_killed_at_random_moments(root):
    log = kill_often(root, "gpt", 3, seed=1)
    assert len(log) >= 3 and all(kill["identical"] for kill in log)


def resume_seconds(root: Path, early: int, late: int, rounds: int) -> dict[int, float]:
    """Median seconds from the call of `train` to the first step after a resume at `early` and at `late` steps."""
    data = small.small_data(root / "resume", "bytes")

    class Seeking(Exception):
        pass

    def task(stop_at: int | None = None):
        torch.manual_seed(0)
        stub = small.gpt_task(data)
        stub.model = small.GPT2LMHeadModel(small.GPT2Config(
            vocab_size=len(data.tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=24, bos_token_id=0,
            eos_token_id=0))
        draw = stub.batch

        def batch(step: int, rows: range):
            if step == stop_at:
                raise Seeking
            stub.drawn.append(step)
            return draw(step, rows)

        stub.batch, stub.drawn = batch, []
        return stub

    settings = TrainingConfig(max_steps=late + 2, batch_size=2, logging_steps=1000, save_steps=early,
                              save_total_limit=10**6)
    with pytest.raises(Seeking):
        small.train(task(late + 1), root / "stub", settings)
    found: dict[int, list[float]] = {early: [], late: []}
    for number in range(rounds):
        for step in (early, late):
            directory = root / f"stub-{step}-{number}"
            (directory / "checkpoints").mkdir(parents=True)
            name = f"checkpoints/step-{step:08}"
            shutil.copytree(root / "stub" / name, directory / name, copy_function=os.link)
            os.symlink(root / "stub/metrics.jsonl", directory / "metrics.jsonl")
            stub = task(step + 1)
            began = time.perf_counter()
            with pytest.raises(Seeking):
                small.train(stub, directory, settings)
            found[step].append(time.perf_counter() - began)
            assert set(stub.drawn) <= {step - 1, step}, "it went on from the checkpoint"
    return {step: statistics.median(seconds) for step, seconds in found.items()}


@pytest.mark.faults
def test_resuming_is_a_seek(tmp_path):
    seconds = resume_seconds(tmp_path, 20, 2000, rounds=3)
    assert seconds[2000] < 2 * seconds[20] + 0.2, seconds


@pytest.mark.faults
def test_twenty_kills_of_each_family(root, repository, tmp_path):
    log = kill_often(root, "bert", 20, seed=11) + kill_often(root, "gpt", 20, seed=12)
    seconds = resume_seconds(tmp_path, 100, 10_000, rounds=7)
    facts = {"kills": len(log), "identical": sum(kill["identical"] for kill in log),
             "resume_seconds_ratio": round(seconds[10_000] / seconds[100], 3),
             "resume_seconds": {str(step): round(value, 4) for step, value in seconds.items()}, "log": log}
    (repository / "runs/faults").mkdir(parents=True, exist_ok=True)
    (repository / "runs/faults/faults.json").write_text(json.dumps(facts, indent=2) + "\n")
    assert facts["kills"] >= 40 and facts["identical"] == facts["kills"]
    assert facts["resume_seconds_ratio"] < 1.5


# Losses that are no number.

class Spoilt(Toy):
    """Toy whose loss at some steps is spoilt: multiplied by `factor` at step `step`."""

    def __init__(self, at: set[int], factor: float = float("nan"), evaluations: int = 1):
        super().__init__([1.0] * evaluations)
        self.at, self.factor, self.step = at, factor, -1

    def batch(self, step, rows):
        batch = super().batch(step, rows)
        return batch | {"spoilt": np.full(len(rows), step in self.at)}

    def losses(self, model, batch):
        spoilt = batch.pop("spoilt").bool().any()
        losses = super().losses(model, batch)
        return {"toy": losses["toy"] * torch.where(spoilt, self.factor, 1.0)}


def settings(**changes) -> TrainingConfig:
    return TrainingConfig(**{"max_steps": 12, "batch_size": 4, "logging_steps": 2, "save_steps": 5, "optimizer": "muon",
                             "lr_scheduler_type": "constant", "warmup_ratio": 0.0, **changes})


def weights(task) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in task.model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(params=["host", "device"])
def where(request, monkeypatch):
    """Who decides: the host at each step, or, as on a GPU, the device, asked only where it is waited for anyway."""
    if request.param == "device":
        monkeypatch.setitem(small.PARTS, "make_guard", lambda config, device, at_once, state: Guard(
            config, device, False, state))
    return request.param


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_stop_saves_the_state_before(tmp_path, where, factor):
    good = Toy([1.0])
    small.train(good, tmp_path / "good", settings(max_steps=7))
    spoilt = Spoilt({7}, factor)
    with pytest.raises(Diverged, match="step 7 is no finite number.*STEP=7"):
        small.train(spoilt, tmp_path / "spoilt", settings())
    assert same(weights(spoilt), weights(good)), "the bad step was learned from, or a good one was not"
    path, _ = checkpoint.newest_valid(tmp_path / "spoilt/checkpoints")
    state = checkpoint.read_state(path)
    assert path.name == "step-00000007" and state["step"] == 7 and state["tokens"] == 7 * 24
    assert state["running_steps"] == 1 and np.isfinite(state["running"][0]["toy"])
    # The same command meets it again; with another policy it goes on, as if it had been so from the start.
    with pytest.raises(Diverged):
        small.train(Spoilt({7}, factor), tmp_path / "spoilt", settings())
    resumed = Spoilt({7}, factor)
    small.train(resumed, tmp_path / "spoilt", settings(on_bad_step="skip"))
    skipped = Spoilt({7}, factor)
    small.train(skipped, tmp_path / "skipped", settings(on_bad_step="skip"))
    assert same(weights(resumed), weights(skipped))


def test_skip_leaves_out_one_update(tmp_path, where):
    """Weights, optimisers and logged losses are those of a run in which the step's update was never made."""
    task = Spoilt({3}, evaluations=1)
    small.train(task, tmp_path / "skip", settings(on_bad_step="skip", logging_steps=1 if where == "host" else 2))
    records = small.records(tmp_path / "skip")
    assert [record for record in records if "bad_step" in record] == [{"step": 4, "bad_step": 3}]
    assert all(np.isfinite(value) for record in records for value in record.values() if isinstance(value, float)
               and "grad_norm" not in record)
    reference = Toy([1.0])
    made = []

    def optimizers(model, config, product_dtype):
        items = make_optimizers(model, config, product_dtype)
        for item in items:
            step = item.step

            def unless_third(step=step, item=item):
                made.append(item)
                if (len(made) - 1) // len(items) != 3:
                    step()

            item.step = unless_third
        return items

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(small.PARTS, "make_optimizers", optimizers)
        patch.setitem(small.PARTS, "make_guard", Guard)
        small.train(reference, tmp_path / "reference", settings())
    assert same(weights(task), weights(reference))


def test_back_goes_on_from_the_last_checkpoint_with_the_next_batch(tmp_path, where):
    task = Spoilt({7})
    small.train(task, tmp_path / "back", settings(on_bad_step="back", save_total_limit=9))
    saved = tmp_path / "back/checkpoints"
    assert [path.name for path in sorted(saved.iterdir())] == ["step-00000005", "step-00000010", "step-00000012"]
    # Batches 5 and 6 are unlearned: the checkpoint of step 10 is that of 5 and batches 8 and 9.
    reference = Toy([1.0])
    small.train(reference, tmp_path / "reference", settings(max_steps=5))
    optimizers = make_optimizers(reference.model, settings())
    checkpoint.load(saved / "step-00000005", reference.model, optimizers)
    for step in range(8, 10):
        feed.seed_everything(7, step, 0, 0)
        batch = feed.to_device(feed.as_tensors(reference.batch(step, range(4))), torch.device("cpu"))
        (reference.losses(reference.model, batch)["toy"] / 24).backward()
        loop._clip([p for item in optimizers for group in item.param_groups for p in group["params"]], 1.0)
        for item in optimizers:
            item.step()
            item.zero_grad()
    expected = {**dict(reference.model.named_parameters())}
    found = small.load_file(saved / "step-00000010/model.safetensors")
    assert all(torch.equal(found[name], expected[name].detach()) for name in found if name in expected)


def test_back_without_a_checkpoint_stops(tmp_path, where):
    with pytest.raises(Diverged):
        small.train(Spoilt({1}), tmp_path, settings(on_bad_step="back"))


def test_skipping_has_an_end(tmp_path, where):
    """A run that has gone wrong for good does not pass over all its batches in silence."""
    config = settings(on_bad_step="skip", max_steps=60, logging_steps=1)
    with pytest.raises(Diverged, match="as those of the"):
        small.train(Spoilt(set(range(4, 60))), tmp_path, config)
    path, _ = checkpoint.newest_valid(tmp_path / "checkpoints")
    assert checkpoint.read_state(path)["step"] <= 4 + guard.MOST_IN_A_ROW


def test_a_leap_is_bad_only_when_asked_for(tmp_path):
    config = settings(max_steps=80, save_steps=0)
    small.train(Spoilt({70}, 50.0), tmp_path / "unasked", config)
    with pytest.raises(Diverged, match="step 70 .*leaps"):
        small.train(Spoilt({70}, 50.0), tmp_path / "asked", settings(max_steps=80, save_steps=0, loss_spike=10.0))
    small.train(Toy([1.0]), tmp_path / "calm", settings(max_steps=80, save_steps=0, loss_spike=10.0))


def test_the_running_mean_of_the_loss_survives_a_resume(tmp_path):
    config = settings(max_steps=80, save_steps=30, loss_spike=10.0)
    broken = Spoilt({70}, 50.0)
    broken.fail_at = 65
    with pytest.raises(small.Stopped):
        small.train(broken, tmp_path, config)
    with pytest.raises(Diverged, match="step 70 "):
        small.train(Spoilt({70}, 50.0), tmp_path, config)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_update_gated_on_the_device_is_made_whole_or_not_at_all(optimizer):
    torch.manual_seed(0)
    models = [small.BertForPreTraining(small.bert_config(30)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    sets = [make_optimizers(model, OptimConfig(optimizer=optimizer, ema_decay=0.1)) for model in models]
    gate = Guard(GuardConfig(on_bad_step="skip"), torch.device("cpu"), at_once=False)
    for number in range(4):
        for model in models:
            for position, parameter in enumerate(model.parameters()):
                torch.manual_seed(100 * number + position)
                parameter.grad = torch.randn_like(parameter)
        if number != 2:
            for item in sets[0]:
                item.step()
        else:
            for parameter in models[1].parameters():
                parameter.grad.fill_(float("nan"))
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in models[1].parameters()])
        gate.step(sets[1], torch.tensor(1.0), norm, Moment(number, 0, {}, 0))
    assert [moment.step for moment in gate.look(True)] == [2]
    assert same(models[0].state_dict(), models[1].state_dict())
    for one, two in zip(*(
            [state for item in items for state in item.state_dict()["state"].values()] for items in sets), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


# The disk, the data, another process.

@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_no_checkpoint(small_disk):
    unhindered = settings(max_steps=5)
    small.train(Toy([1.0]), small_disk / "run", unhindered)
    kept = (small_disk / "run/checkpoints/step-00000005/model.safetensors").read_bytes()
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    with pytest.raises(UserError, match="run: the disk is full .*the same command continues"):
        small.train(Toy([1.0, 1.0]), small_disk / "run", settings(max_steps=10, logging_steps=100))
    path, passed_over = checkpoint.newest_valid(small_disk / "run/checkpoints")
    assert path.name == "step-00000005" and not passed_over
    assert (path / "model.safetensors").read_bytes() == kept
    filler.unlink()
    small.train(Toy([1.0, 1.0]), small_disk / "run", settings(max_steps=10))


def test_a_disk_that_becomes_read_only(small_disk):
    covered = small_disk / "run/checkpoints"

    class Covered(Toy):
        def batch(self, step, rows):
            if step == 7:
                subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(covered)], check=True)
            return super().batch(step, rows)

    try:
        with pytest.raises(UserError, match="the disk is read-only"):
            small.train(Covered([1.0]), small_disk / "run", settings(logging_steps=100))
    finally:
        subprocess.run(["umount", str(covered)], check=True)
    assert checkpoint.newest_valid(covered)[0].name == "step-00000005"
    small.train(Toy([1.0]), small_disk / "run", settings(logging_steps=100))


def test_data_that_changes_under_a_run(tmp_path):
    """It is noticed before the next checkpoint claims to have seen the data."""
    file = tmp_path / "ids.bin"
    file.write_bytes(bytes(100))
    record = Run(tmp_path / "run")
    record.write_manifest([file], data={"tokens": 50})

    class Changed(Toy):
        def batch(self, step, rows):
            if step == 7:
                file.write_bytes(bytes(99) + b"1")
                os.utime(file, ns=(0, 0))
            return super().batch(step, rows)

    with pytest.raises(UserError, match="ids.bin: was changed while"):
        loop.train(Changed([1.0]), settings(), loop.ImplConfig(dtype="fp32"), record, small.make_accelerator(), 7)
    assert checkpoint.newest_valid(record.checkpoint_dir)[0].name == "step-00000005"
    # Built again with other contents, it is not what the checkpoints saw.
    with pytest.raises(UserError, match=r"saw other data than there is now \(differing: tokens\)"):
        Run(tmp_path / "run").write_manifest([file], data={"tokens": 51})
    Run(tmp_path / "run").write_manifest([file], data={"tokens": 50})


def test_two_runs_in_one_directory(root):
    """The second is refused at once; one that was killed leaves no lock behind."""
    path = config(root, "twice", "gpt", max_steps=100_000)
    first = small.Program(small.ROOT / "recipes/pretrain_gpt.py", ["--config", str(path)], root / "first-output")
    try:
        deadline = time.monotonic() + 60
        while not (root / "twice/checkpoints").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert first.process.is_alive()
        second = run(root, "twice", "gpt", max_steps=100_000)
        assert second.code == 2 and "another process is running in this directory" in second.err
        assert first.process.is_alive()
    finally:
        first.process.kill()
        first.ends()
    step = checkpoint.read_state(checkpoint.newest_valid(root / "twice/checkpoints")[0])["step"]
    third = run(root, "twice", "gpt", max_steps=100_000, hook=("batch", step + 2, signal.SIGTERM))
    assert third.code == 143 and f"resuming at step {step:,}" in third.out, third


@pytest.mark.faults
def test_a_clock_that_jumps(root):
    """Nothing asks what time it is: the same run under clocks a year apart, forwards and back."""
    reference, _ = unbroken(root, "gpt")
    name = "clock"
    assert run(root, name, "gpt", hook=("batch", 31, signal.SIGTERM)).code == 143
    for path in (root / name).rglob("*"):
        os.utime(path, (4e9, 4e9))  # written, it seems, in the year 2096
    finished = run(root, name, "gpt")
    assert finished.code == 0, finished.err
    assert_same_run(root / name, reference)


def test_a_dry_run_tells_and_leaves_nothing(root):
    assert run(root, "prepared", "gpt", max_steps=1).code == 0
    for family in ("bert", "gpt"):
        path = config(root, f"dry-{family}", family)
        finished = run_recipe(f"pretrain_{family}", ["--dry_run", "--config", str(path)], root / "dry-output")
        assert finished.code == 0, finished.err
        for part in ("parameters", "batch", f"{STEPS} steps", "time", "memory", "disk", "nothing was written"):
            assert part in finished.out, finished.out
        assert not (root / f"dry-{family}").exists()
