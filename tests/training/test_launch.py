"""Runs of several processes, really launched, and what befalls them: signals, kills, errors, cut links, requeues.

Run as a script (`accelerate launch … tests/test_launch.py JOB…`) it does several jobs in one process group, since a
launch costs ten seconds. What every suite looks at is in test_group.py, without launchers.
"""

import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small
import torch
import transformers
from launching import ACCUMULATED, SAVE_STEPS, STEPS, Launch, assert_same_course, difference, free_port, pretraining

from toolkit.training import checkpoint

ACCELERATE = small.ROOT / "recipes/accelerate"
# What the Makefile tells launchers: which signals to pass on.
TOLD = dict(re.findall(r"\b(PET_\w+)=(\S+)", (small.ROOT / "Makefile").read_text()))

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds its processes through /proc")]


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """`launch(script or job, …, config="cpu.yaml", options=[…], before=[…], env={…})` → Launch."""
    launched = []
    logs = tmp_path_factory.mktemp("logs")

    def start(*arguments, config: str = "cpu.yaml", options=(), before=(), env=None) -> Launch:
        command = [*before, sys.executable, "-m", "accelerate.commands.launch", "--config_file", ACCELERATE / config,
                   *options, *arguments]
        return start_command(command, {**TOLD, **(env or {})})

    def start_command(command: list, env=None) -> Launch:
        launched.append(Launch(command, logs / f"{len(launched)}.txt", env))
        return launched[-1]

    start.command = start_command
    yield start
    for one in launched:
        one.kill_all()


def alone(root: Path, path: Path, recipe: str = "pretrain_bert", hook=None) -> small.Finished:
    """In a single process that nobody launched."""
    return small.run_recipe(recipe, ["--config", str(path)], root / f"{path.stem}-output", hook=hook)


def last_weights(run: Path) -> Path:
    return run / f"checkpoints/step-{STEPS:08}/model.safetensors"


@pytest.fixture(scope="module")
def single(root):
    """The unbroken run of one process, which also makes the data."""
    finished = alone(root, pretraining(root, "single"))
    assert finished.code == 0, finished.err
    return root / "single"


# Stopped, killed, wrong on one rank: two processes of one machine.

def test_usr1_to_the_launcher_saves_and_one_process_goes_on(root, single, launch):
    # Once wrong: launchers signal whole process groups, the processes that draw batches died of it, and with them the
    # run, unsaved.
    path = pretraining(root, "stopped", impl={"micro_batch_size": 3, "dtype": "fp32", "num_workers": 1})
    launched = launch("recipes/pretrain_bert.py", "--config", path)
    launched.wait_for_step(root / "stopped", SAVE_STEPS)
    launched.launcher.send_signal(signal.SIGUSR1)
    assert launched.ends() > 0, "the launcher died of it, and told nobody"
    assert not (root / "stopped/result.json").exists(), "it was too quick"
    newest = max((root / "stopped/checkpoints").glob("step-*"))
    stopped_at = int(newest.name.removeprefix("step-"))
    assert SAVE_STEPS <= stopped_at < STEPS
    assert launched.said.count(f"stopped by SIGUSR1 after step {stopped_at}, which is saved") == 1, launched.said
    assert len(small.read_json(newest / "state.json")["running"]) == 2, "it was no run of two processes"
    finished = alone(root, path)
    assert finished.code == 0 and f"resuming at step {stopped_at} " in finished.out, finished.err
    assert_same_course(root / "stopped", single)
    assert difference(last_weights(root / "stopped"), last_weights(single)) < 1e-4
    assert small.read_json(root / "stopped/model/config.json")["hidden_dropout_prob"] == 0


@pytest.fixture(scope="module")
def killed(root, single, launch):
    """A run of two, killed twice, of which the launcher was told to start it again once."""
    path = pretraining(root, "killed", **ACCUMULATED)
    # A slower look at the workers lets each end in its own way before the launcher ends it.
    launched = launch("recipes/pretrain_bert.py", "--config", path,
                      options=["--max_restarts", "1", "--monitor_interval", "1"])
    launched.wait_for_step(root / "killed", SAVE_STEPS)
    os.kill(launched.worker(rank=0), signal.SIGKILL)  # which writes, and holds the lock
    launched.wait_for_step(root / "killed", 3 * SAVE_STEPS)
    os.kill(launched.worker(rank=1), signal.SIGKILL)
    return launched, path


def test_a_killed_process_is_noticed_and_the_group_started_again_if_asked(root, killed):
    launched, _ = killed
    assert launched.ends() != 0 and not (root / "killed/result.json").exists(), "it was too quick"
    assert launched.said.count("BERT: cpu, float32") == 2 and launched.said.count("resuming at step") == 1
    assert "error: rank 0: another process of the group is gone" in launched.said
    newest, passed_over = checkpoint.newest_valid(root / "killed/checkpoints")
    assert int(newest.name.removeprefix("step-")) >= 3 * SAVE_STEPS and not passed_over


@pytest.fixture(scope="module")
def ended(root, killed, launch):
    """One launch of two: an unbroken run, the rest of the killed one, and one that fails on rank 1 at step 3."""
    unbroken = pretraining(root, "unbroken", **ACCUMULATED)
    failing = pretraining(root, "failing", **ACCUMULATED)
    launched = launch(__file__, f"pretrain_bert={unbroken}", f"pretrain_bert={killed[1]}",
                      f"pretrain_bert={failing}=fail", options=["--monitor_interval", "2"])
    launched.wait_for(lambda: "this one fails" in launched.said, "failure")
    return launched


def test_killed_twice_it_ends_bit_identical_to_an_unbroken_run(root, ended):
    ended.ends()
    assert ended.said.count("resuming at step") == 1, ended.said
    for file in (f"checkpoints/step-{STEPS:08}/model.safetensors", "model/model.safetensors"):
        assert small.digest(root / "killed" / file) == small.digest(root / "unbroken" / file), file
    assert small.records(root / "killed") == small.records(root / "unbroken")


def test_an_error_on_one_rank_ends_all(root, ended):
    assert ended.ends() != 0
    said = ended.said
    assert said.count("error: the rows of rank 1 are spoilt") == 1, said
    assert said.count("error: rank 0: another process of the group is gone") == 1, said
    assert "exitcode  : 2" in said and "exitcode  : 4" in said, said
    assert not (root / "failing/result.json").exists()


def test_a_process_that_hangs_is_given_up(root, single, launch):
    path = pretraining(root, "hanging")
    launched = launch("recipes/pretrain_bert.py", "--config", path, "--impl.ddp_timeout", "10")
    launched.wait_for_step(root / "hanging", SAVE_STEPS)
    os.kill(launched.worker(rank=1), signal.SIGSTOP)
    assert launched.ends(120) != 0 and not (root / "hanging/result.json").exists(), "it was too quick"
    assert "error: rank 0: another process of the group is gone" in launched.said, launched.said
    finished = alone(root, path)
    assert finished.code == 0 and "resuming at step" in finished.out, finished.err
    assert_same_course(root / "hanging", single)


def test_a_group_that_was_started_again_ends_on_its_own(root, two, launch):
    path = pretraining(root, "restarted", "gpt")
    launched = launch("recipes/pretrain_gpt.py", "--config", path, options=["--max_restarts", "1"])
    launched.wait_for_step(root / "restarted", SAVE_STEPS)
    os.kill(launched.worker(rank=1), signal.SIGKILL)
    assert launched.ends(180) == 0, launched.said
    assert launched.said.count("resuming at step") == 1
    assert small.digest(last_weights(root / "restarted")) == small.digest(last_weights(root / "two-gpt"))
    assert small.records(root / "restarted") == small.records(root / "two-gpt")


# Layouts: one course, however many processes share it, sharded or not, in micro-batches or at once.

KINDS = ("bert", "gpt", "bert-accumulated", "gpt-accumulated")


def jobs(root: Path, layout: str) -> list[str]:
    """One run of each kind, called `<layout>-<kind>`."""
    made = []
    for kind in KINDS:
        family, _, accumulated = kind.partition("-")
        path = pretraining(root, f"{layout}-{kind}", family, **(ACCUMULATED if accumulated else {}))
        made.append(f"pretrain_{family}={path}")
    return made


def fine_tuning(root: Path, layout: str) -> list[str]:
    """Texts and series, each with and without accumulation, after the models of one process."""
    folder = root / "tables"
    folder.mkdir(exist_ok=True)
    rng = random.Random(0)
    for name, rows in (("train", 60), ("test", 31)):
        lines = ["text\tlabel"]
        for row in range(rows):  # told apart by one word, in most rows
            told = ["bada", "kiku"][(row + (rng.random() < 0.2)) % 2]
            lines.append(" ".join([*rng.choices(["dofo", "gami", "ruse", "tipa"], k=6), told]) + f"\t{'ab'[row % 2]}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shared = {"models": {"bert": str(root / "single/model"), "gpt": str(root / "alone-gpt/model")}, "seeds": 1,
              "training": {"max_steps": 12, "eval_steps": 4, "logging_steps": 4, "batch_size": 16,
                           "learning_rate": 1e-3}}
    # Its head starts at random; one that starts as logistic regression multiplies what rounding does to the states.
    text = {"data": {"train": str(folder / "train.tsv"), "test": str(folder / "test.tsv"), "max_length": 32},
            "pooling": "cls", "dropout": 0.0}
    series = {"data": {"train_per_class": 8, "test_per_class": 11}}
    made = []
    for kind, section in (("text", text), ("series", series)):
        for suffix, impl in (("", {"dtype": "fp32"}), ("-accumulated", ACCUMULATED["impl"])):
            name = f"{layout}-{kind}{suffix}"
            values = {"output_dir": str(root / name), **shared, **section, "impl": impl}
            made.append(f"finetune_{kind}={small.write_config(root / f'{name}.yaml', values)}")
    return made


@pytest.fixture(scope="module")
def by_itself(root, single):
    """Every kind of run in a single process: what the others are compared with."""
    for job in [*jobs(root, "alone"), *fine_tuning(root, "alone")]:
        recipe, path = job.split("=")
        finished = alone(root, Path(path), recipe)
        assert finished.code == 0, finished.err
    return root


def stop(launched: Launch, run: Path) -> None:
    """SIGTERM to the launcher once that run, its last, is under way."""
    launched.wait_for_step(run, SAVE_STEPS, within=400)
    launched.launcher.send_signal(signal.SIGTERM)
    assert launched.ends() != 0 and not (run / "result.json").exists(), "it was too quick"
    assert "stopped by SIGTERM after step" in launched.said, launched.said


@pytest.fixture(scope="module")
def two(root, by_itself, launch):
    """Two processes do all kinds of runs, and begin one."""
    launched = launch(__file__, *jobs(root, "two"), *fine_tuning(root, "two"),
                      f"pretrain_bert={pretraining(root, 'begun-on-two')}")
    stop(launched, root / "begun-on-two")


@pytest.fixture(scope="module")
def four(root, two, launch):
    """Four go on with what two began."""
    launched = launch(__file__, *jobs(root, "four"), f"pretrain_bert={root / 'begun-on-two.yaml'}",
                      options=["--num_processes", "4"])
    assert launched.ends(400) == 0, launched.said
    assert "resuming at step" in launched.said


@pytest.fixture(scope="module")
def fsdp(root, by_itself, launch):
    """Two, sharded, go on with what one began, and begin what one goes on with."""
    plain, sharded = (pretraining(root, name) for name in ("begun-plain", "begun-sharded"))
    assert alone(root, plain, hook=("batch", 9, signal.SIGTERM)).code == 143
    launched = launch(__file__, *jobs(root, "fsdp"), f"pretrain_bert={plain}", f"pretrain_bert={sharded}",
                      config="fsdp.yaml", options=["--num_processes", "2"])
    stop(launched, root / "begun-sharded")
    assert "sharded over 2 processes, resuming at step 10 " in launched.said
    finished = alone(root, sharded)
    assert finished.code == 0 and "resuming at step" in finished.out, finished.err


@pytest.fixture(scope="module")
def zero2(root, by_itself, launch):
    launched = launch(__file__, *jobs(root, "zero2"), config="deepspeed_zero2.yaml", options=["--num_processes", "2"])
    assert launched.ends(400) == 0, launched.said
    assert launched.said.count("sharded over 2 processes") == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["alone", "two", "four", "fsdp", "zero2"])
def test_the_course_is_that_of_one_process(root, by_itself, request, layout, kind):
    if layout != "alone":
        request.getfixturevalue(layout)
    run, expected = root / f"{layout}-{kind}", root / f"alone-{kind.split('-')[0]}"
    assert_same_course(run, expected)
    assert difference(last_weights(run), last_weights(expected)) < 1e-4
    result = small.read_json(run / "result.json")
    if kind.startswith("bert"):
        assert result["nsp_count"] == 15, "not every row once"
    else:
        assert result["count"] == small.read_json(expected / "result.json")["count"] > 100


@pytest.mark.parametrize(("layout", "run"), [("four", "begun-on-two"), ("fsdp", "begun-plain"),
                                             ("fsdp", "begun-sharded")])
def test_another_layout_goes_on(root, by_itself, request, layout, run):
    request.getfixturevalue(layout)
    assert_same_course(root / run, root / "alone-bert")
    assert difference(last_weights(root / run), last_weights(root / "alone-bert")) < 1e-4


@pytest.mark.parametrize(("family", "auto", "output"), [
    ("bert", transformers.AutoModelForPreTraining, "prediction_logits"),
    ("gpt", transformers.AutoModelForCausalLM, "logits")])
def test_the_model_of_a_sharded_run_is_a_plain_one(root, fsdp, family, auto, output):
    logits = []
    for run in (f"fsdp-{family}", f"alone-{family}"):
        model, loading = auto.from_pretrained(root / run / "model", output_loading_info=True)
        assert not loading["missing_keys"] and not loading["unexpected_keys"]
        with torch.inference_mode():
            logits.append(getattr(model(torch.arange(5, 45)[None]), output))
    assert (logits[0] - logits[1]).norm() < 1e-4 * logits[1].norm()


@pytest.mark.parametrize("accumulated", ["", "-accumulated"])
@pytest.mark.parametrize("kind", ["text", "series"])
@pytest.mark.parametrize("layout", ["alone", "two"])
def test_fine_tuning_follows_one_process(root, by_itself, request, layout, kind, accumulated):
    if layout != "alone":
        request.getfixturevalue(layout)
    run, expected = root / f"{layout}-{kind}{accumulated}", root / f"alone-{kind}"
    for arm in ("bert-pretrained", "bert-random", "gpt-pretrained", "gpt-random"):
        lines = [[record for record in small.records(directory / arm / "seed-0") if "eval_loss" in record]
                 for directory in (run, expected)]
        assert len(lines[1]) == 3
        losses = [[line["eval_loss"] for line in part] for part in lines]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
        for key in ("step", "eval_accuracy"):
            assert [line[key] for line in lines[0]] == [line[key] for line in lines[1]]
    results = [small.read_json(directory / "result.json") for directory in (run, expected)]
    for model in ("bert", "gpt"):
        for start in ("pretrained", "random"):
            assert results[0][model][start]["values"] == results[1][model][start]["values"]
    assert len(results[0]["predictions"]["gpt-random"]) == results[1]["test_examples"] > 30


# Two hosts: network namespaces of this machine, with a cable that can be cut.

class Hosts:
    def __init__(self):
        self.names = [f"launch-{os.getpid()}-{side}" for side in "ab"]
        self.launched = []
        try:
            for name in self.names:
                self.ip("netns", "add", name)
            self.ip("link", "add", "veth0", "netns", self.names[0], "type", "veth", "peer", "name", "veth0", "netns",
                    self.names[1])
            for number, name in enumerate(self.names):
                self.ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "veth0")
                self.ip("-n", name, "link", "set", "lo", "up")
            self.cable("up")
        except BaseException:
            self.remove()
            raise

    def ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)

    def cable(self, state: str) -> None:
        for name in self.names:
            self.ip("-n", name, "link", "set", "veth0", state)

    def launch(self, launch, *arguments) -> list[Launch]:
        """The same command on both."""
        pair = [launch(*arguments, config="multi_node.yaml", before=["ip", "netns", "exec", name],
                       options=["--num_machines", "2", "--num_processes", "2", "--machine_rank", str(rank),
                                "--main_process_ip", "10.77.0.1"],
                       env={"GLOO_SOCKET_IFNAME": "veth0", "TOOLKIT_NPROC": "2"})
                for rank, name in enumerate(self.names)]
        self.launched += pair
        return pair

    def remove(self) -> None:
        for launched in self.launched:
            launched.kill_all()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30, check=False)


@pytest.fixture
def hosts():
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    try:
        found = Hosts()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    yield found
    found.remove()


def test_two_hosts_a_cut_cable_and_a_host_that_dies(root, single, launch, hosts):
    """Each time both sides end by themselves, with a line that says so, and the same commands go on."""
    run = root / "two-hosts"
    command = ["recipes/pretrain_bert.py", "--config", pretraining(root, "two-hosts"), "--impl.ddp_timeout", "20"]
    lost = "error: rank {}: another process of the group is gone"

    both = hosts.launch(launch, *command)
    both[0].wait_for_step(run, SAVE_STEPS)
    hosts.cable("down")
    for rank, launched in enumerate(both):
        assert launched.ends(120) != 0 and lost.format(rank) in launched.said, launched.said
    assert not (run / "result.json").exists(), "it was too quick"
    cut_at = checkpoint.newest_valid(run / "checkpoints")[0]
    assert cut_at is not None

    hosts.cable("up")
    both = hosts.launch(launch, *command)
    both[0].wait_for_step(run, 3 * SAVE_STEPS)
    both[1].kill_all()
    assert both[0].ends() != 0 and lost.format(0) in both[0].said, both[0].said
    assert f"resuming at step {int(cut_at.name.removeprefix('step-'))} " in both[0].said
    assert not (run / "result.json").exists(), "it was too quick"

    both = hosts.launch(launch, *command)
    for launched in both:
        assert launched.ends(180) == 0, launched.said
    assert "resuming at step" in both[0].said
    assert_same_course(run, single)


# A cluster: the batch script, with stand-ins for SLURM's commands.

@pytest.mark.skipif(not (small.ROOT / ".venv/bin/accelerate").exists(), reason="the script starts .venv/bin/accelerate")
def test_the_batch_script_saves_requeues_and_goes_on(root, single, launch, tmp_path):
    calls = tmp_path / "calls"
    for name, does in (("srun", 'exec "$@"'),
                       ("scontrol", f'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> {calls}; fi')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PROCESSES_PER_NODE": "2", "MAIN_PORT": free_port(),
           "SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "here"}
    run = root / "batch-job"
    command = ["bash", "recipes/slurm/train.sbatch", "recipes/pretrain_bert.py", "--config",
               pretraining(root, "batch-job", **ACCUMULATED)]

    job = launch.command(command, env)
    job.wait_for_step(run, SAVE_STEPS)
    job.launcher.send_signal(signal.SIGUSR1)
    assert job.ends() == 0 and not (run / "result.json").exists(), f"it was too quick: {job.said}"
    assert "stopped by SIGUSR1 after step" in job.said and calls.read_text() == "requeue 4711\n", job.said

    job = launch.command(command, env)
    assert job.ends(180) == 0, job.said
    assert "resuming at step" in job.said and calls.read_text() == "requeue 4711\n"
    assert_same_course(run, single)


def _do(jobs: list[str]) -> None:
    """Each job is `recipe=configuration`, done by the whole group; with `=fail`, rank 1 is wrong at step 3."""
    from toolkit import config
    from toolkit.data.stores.bert_batches import BertBatches
    from toolkit.errors import UserError
    from toolkit.training.impl.distributed import make_accelerator

    accelerator = make_accelerator()
    for job in jobs:
        recipe, path, *fails = job.split("=")
        if fails:
            draw = BertBatches.batch

            def spoilt(self, step, rows, draw=draw):
                if step == 3 and accelerator.process_index == 1:
                    print("this one fails", flush=True)
                    raise UserError("the rows of rank 1 are spoilt")
                return draw(self, step, rows)

            BertBatches.batch = spoilt
        module = importlib.import_module(recipe)
        settings = getattr(module, "".join(part.title() for part in recipe.split("_")) + "Config")
        getattr(module, recipe)(config.parse(settings, ["--config", path], ""), accelerator)


if __name__ == "__main__":
    from toolkit import cli

    sys.path.insert(0, str(small.ROOT / "recipes"))
    cli.run(_do)
