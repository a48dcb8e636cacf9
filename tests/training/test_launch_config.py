"""What a user's accelerate configuration, the environment and the machine ask for: done, told in a line, or refused."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import small
import torch
import yaml
from accelerate import Accelerator
from accelerate.commands import launch as accelerate_launch
from accelerate.commands.config import config_args
from accelerate.state import AcceleratorState
from launching import Launch, assert_same_course, difference, free_port, pretraining

from toolkit.errors import UserError
from toolkit.training import trainer as loop
from toolkit.training.impl import launch
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig

BIN = Path(sys.executable).parent
NOTE = "note: accelerate's configuration or environment asks for"
ONE = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "num_machines": 1, "num_processes": 1,
       "machine_rank": 0, "main_process_port": 0, "mixed_precision": "bf16", "downcast_bf16": "no",
       "dynamo_config": {"dynamo_backend": "INDUCTOR", "dynamo_mode": "default"}}
TWO = {**ONE, "distributed_type": "MULTI_CPU", "num_processes": 2, "use_cpu": True}
CPU = torch.device("cpu")


# Really launched, under a default configuration that asks for bf16.

@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("configured")
    small.write_corpus(root / "corpus")
    for name, values in (("one", ONE), ("two", TWO)):
        small.write_config(root / name / "accelerate/default_config.yaml", values)
    return root


@pytest.fixture(scope="module")
def start(root):
    """`start(run, command…, home="one", …)` → Launch of a short pretraining called so; HF_HOME has a configuration."""
    launched = []

    def begin(name: str, *command, home: str = "one", **env: str) -> Launch:
        if command[0] != "make":
            command = [*command, "recipes/pretrain_bert.py", "--config", configured(root, name)]
        launched.append(Launch(command, root / f"{name}.txt", {"HF_HOME": str(root / home), **env}))
        return launched[-1]

    yield begin
    for one in launched:
        one.kill_all()


def configured(root: Path, name: str) -> Path:
    return pretraining(root, name, training={"max_steps": 6, "eval_steps": 3, "save_steps": 0, "logging_steps": 2})


@pytest.fixture(scope="module")
def plain(root):
    """The run that no configuration touches; it makes the data, too."""
    finished = small.run_recipe("pretrain_bert", ["--config", str(configured(root, "plain"))], root / "plain-output")
    assert finished.code == 0 and "BERT: cpu, float32" in finished.out, finished.err
    assert NOTE not in finished.err
    return root / "plain"


def weights(run: Path) -> Path:
    return run / "model/model.safetensors"


def assert_same_within_rounding(run: Path, plain: Path) -> None:
    assert_same_course(run, plain)
    assert difference(weights(run), weights(plain)) < 1e-4


@pytest.fixture(scope="module")
def single(start, plain):
    """One process each: accelerate with that configuration, torchrun with that environment."""
    return {"accelerate": start("accelerate", BIN / "accelerate", "launch"),
            "torchrun": start("torchrun", BIN / "torchrun", "--standalone", ACCELERATE_MIXED_PRECISION="bf16")}


@pytest.mark.faults
@pytest.mark.parametrize(("launcher", "asked"), [("accelerate", "mixed_precision bf16, dynamo_backend inductor"),
                                                 ("torchrun", "mixed_precision bf16")])
def test_one_process_is_the_same_to_the_bit(root, plain, single, launcher, asked):
    # Once wrong: accelerate wrapped `forward` in autocast and in torch.compile, while the run said float32.
    assert single[launcher].ends(180) == 0, single[launcher].said
    assert "BERT: cpu, float32" in single[launcher].said
    assert single[launcher].said.count(f"{NOTE} {asked}; ") == 1, single[launcher].said
    assert small.digest(weights(root / launcher)) == small.digest(weights(plain))
    assert small.records(root / launcher) == small.records(plain)


def test_an_environment_that_asks_changes_no_bit(root, plain):
    """What accelerate's launcher sets for such a configuration, without it."""
    wishes = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}
    finished = small.run_recipe("pretrain_bert", ["--config", str(configured(root, "asked"))], root / "asked-output",
                                wishes)
    assert finished.code == 0 and "BERT: cpu, float32" in finished.out, finished.err
    assert finished.err.count(f"{NOTE} mixed_precision bf16, dynamo_backend inductor; ") == 1, finished.err
    assert small.digest(weights(root / "asked")) == small.digest(weights(plain))
    assert small.records(root / "asked") == small.records(plain)


def make_two(root: Path) -> list:
    """As `make` would, whatever is installed."""
    return ["make", "-o", "install", f"BIN={BIN}", "pretrain-bert", "NPROC=2", f"CONFIG={configured(root, 'make')}"]


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_what_make_starts_asks_accelerate_for_two_processes_and_for_nothing_else(tmp_path, monkeypatch):
    """Its words, read by accelerate itself, under a default configuration that asks for bf16 and a compiler."""
    command = ["make", "--no-print-directory", "-n", "-o", "install", f"BIN={BIN}", "pretrain-bert", "NPROC=2"]
    words = shlex.split(subprocess.run(command, cwd=small.ROOT, capture_output=True, text=True, check=True).stdout)
    at = words.index(str(BIN / "accelerate"))
    for word in words[:at]:
        monkeypatch.setenv(*word.split("=", 1))
    home = small.write_config(tmp_path / "default_config.yaml", TWO)
    for module in (accelerate_launch, config_args):
        monkeypatch.setattr(module, "default_config_file", str(home))
    assert words[at + 1] == "launch"
    args = accelerate_launch.launch_command_parser().parse_args(words[at + 2:])
    args, *_ = accelerate_launch._validate_launch_command(args)
    assert args.multi_gpu and args.num_processes == 2 and args.training_script == "recipes/pretrain_bert.py"
    asked = accelerate_launch.prepare_multi_gpu_env(args)
    assert asked["ACCELERATE_MIXED_PRECISION"] == "no" and asked["ACCELERATE_DYNAMO_BACKEND"] == "NO"
    assert asked["TOOLKIT_NPROC"] == "2" and "SIGINT" in asked["PET_SIGNALS_TO_HANDLE"]


@pytest.mark.faults
@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_two_of_make_follow_one(root, plain, start):
    launched = start("make", *make_two(root), home="two")
    assert launched.ends(180) == 0, launched.said
    assert NOTE not in launched.said  # make itself says no to both
    assert_same_within_rounding(root / "make", plain)


def refusal(launched: Launch) -> str:
    assert launched.ends(120) != 0
    lines = [line for line in launched.said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, launched.said
    return lines[0]


@pytest.mark.faults
def test_two_asked_for_and_one_started_is_refused(root, plain, start):
    # Once wrong: the half of what was asked for, without a word.
    line = refusal(start("lone", BIN / "accelerate", "launch", home="two"))
    assert line.startswith(f"error: 2 processes were asked for ({root}/two/accelerate/default_config.yaml, "
                           f"distributed_type MULTI_CPU), but accelerate started one.")
    assert line.endswith(f"{BIN}/accelerate launch --multi_gpu recipes/pretrain_bert.py --config {root}/lone.yaml")
    assert not (root / "lone").exists()


@pytest.mark.faults
@pytest.mark.parametrize(("name", "options"), [
    ("configured", []), ("said", ["--cpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"])])
def test_the_command_that_is_named_works(root, plain, start, name, options):
    line = refusal(start(name, BIN / "accelerate", "launch", *options, home="two"))
    command = shlex.split(line.partition("on CPUs too: ")[2])
    launched = start(name, *command[:command.index("recipes/pretrain_bert.py")], home="two")
    assert launched.ends(180) == 0, launched.said
    assert launched.said.count(NOTE) == 1, launched.said  # of two ranks
    assert_same_within_rounding(root / name, plain)


@pytest.mark.faults
def test_two_of_torchrun_follow_one(root, plain, start):
    launched = start("torchrun-two", BIN / "torchrun", "--standalone", "--nproc_per_node", "2",
                     ACCELERATE_MIXED_PRECISION="bf16", ACCELERATE_DYNAMO_BACKEND="INDUCTOR")
    assert launched.ends(180) == 0, launched.said
    assert launched.said.count(NOTE) == 1, launched.said
    assert_same_within_rounding(root / "torchrun-two", plain)


@pytest.mark.faults
def test_two_of_mpi_follow_one(root, plain, start):
    # Once wrong: formed, and then refused, since one process had been asked for.
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMPI_COMM_WORLD_SIZE": "2",
              "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    both = [start("mpi", sys.executable, **shared, OMPI_COMM_WORLD_RANK=str(rank),
                  OMPI_COMM_WORLD_LOCAL_RANK=str(rank)) for rank in (1, 0)]
    assert [one.ends(180) for one in both] == [0, 0], both[1].said
    assert_same_within_rounding(root / "mpi", plain)


# Within this process.

@pytest.fixture
def anew(monkeypatch):
    """As in a process that has no Accelerator yet and has told nothing."""
    monkeypatch.setattr(launch, "_told", set())
    AcceleratorState._reset_state(reset_partial_state=True)
    yield monkeypatch
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("name", ["ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND"])
@pytest.mark.parametrize("value", ["bf16", "fp16", "fp8", "inductor", "EAGER"])
def test_nothing_is_wrapped_and_it_is_told_once(anew, capsys, name, value):
    anew.setenv(name, value)
    accelerators = [make_accelerator(), make_accelerator(5)]
    model = torch.nn.Linear(3, 3)
    assert accelerators[0].prepare(model) is model and "forward" not in vars(model)
    assert not accelerators[0].native_amp and accelerators[0].scaler is None
    said = capsys.readouterr().err
    option = "--impl.dtype bf16" if name.endswith("PRECISION") else "--impl.compile true"
    assert said.count("\n") == 1 and value.lower() in said and said.endswith(f"What does it here: {option}\n")


def test_what_asks_for_nothing_is_not_told(anew, capsys):
    for name, value in (("MIXED_PRECISION", "no"), ("DYNAMO_BACKEND", "NO"), ("GRADIENT_ACCUMULATION_STEPS", "1")):
        anew.setenv(f"ACCELERATE_{name}", value)
    anew.setenv("FSDP_SHARDING_STRATEGY", "SHARD_GRAD_OP")  # of no concern where nothing is sharded
    make_accelerator()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("wish", "value", "impl", "told"), [
    ("MIXED_PRECISION", "bf16", {"dtype": "bf16"}, False), ("MIXED_PRECISION", "bf16", {"dtype": "fp32"}, True),
    ("MIXED_PRECISION", "fp16", {"dtype": "bf16"}, True), ("DYNAMO_BACKEND", "INDUCTOR", {"compile": True}, False),
    ("DYNAMO_BACKEND", "INDUCTOR", {"compile": False}, True),
    ("GRADIENT_ACCUMULATION_STEPS", "4", {"micro_batch_size": 3}, False),
    ("GRADIENT_ACCUMULATION_STEPS", "4", {}, True)])
def test_what_impl_does_anyway_is_not_told(anew, capsys, wish, value, impl, told):
    anew.setenv(f"ACCELERATE_{wish}", value)
    make_accelerator(600, ImplConfig(**impl))
    assert (NOTE in capsys.readouterr().err) == told


def test_what_sharding_does_not_do_is_told(monkeypatch):
    for name, value in (("ACCELERATE_USE_FSDP", "true"), ("FSDP_ACTIVATION_CHECKPOINTING", "true"),
                        ("FSDP_SHARDING_STRATEGY", "NO_SHARD"), ("ACCELERATE_USE_PARALLELISM_CONFIG", "true"),
                        ("PARALLELISM_CONFIG_DP_REPLICATE_SIZE", "2"), ("PARALLELISM_CONFIG_DP_SHARD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    line = launch.unmet(launch.take_wishes(), None, CPU)
    assert "fsdp_activation_checkpointing true, fsdp_sharding_strategy no_shard, " in line
    assert "parallelism_config_dp_replicate_size 2;" in line and "--impl.gradient_checkpointing true" in line


@pytest.mark.parametrize(("environment", "says"), [
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, "asks for DeepSpeed.*deepspeed_zero2.yaml"),
    ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "asks for Megatron-LM.*fsdp.yaml"),
    ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"}, "_tp_size is 2 .* layers are"),
    ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_CP_SIZE": "4"}, "_cp_size is 4 .*sequences are"),
    ({"ACCELERATE_TORCH_DEVICE": "nonsense"}, "ACCELERATE_TORCH_DEVICE is nonsense, which cannot be used"),
    ({"ACCELERATE_TORCH_DEVICE": "meta"}, "the device meta"),
    ({"ACCELERATE_CPU_AFFINITY": "perhaps"}, "invalid truth value perhaps"),
    ({"OMPI_COMM_WORLD_SIZE": "3"}, "3 processes were asked for"),
])
def test_what_is_not_done_is_refused(anew, environment, says):
    for name, value in environment.items():
        anew.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        anew.setenv(name, "")  # accelerate sets some: afterwards they are as before
        anew.delenv(name)
    with pytest.raises(UserError, match=says) as refused:
        make_accelerator()
    assert "\n" not in str(refused.value)


def test_an_accelerator_from_elsewhere_is_refused_if_it_wraps(anew):
    Accelerator(cpu=True, mixed_precision="bf16")
    with pytest.raises(UserError, match="Accelerator with mixed_precision bf16 and dynamo_backend no, "):
        make_accelerator()
    AcceleratorState._reset_state(reset_partial_state=True)
    Accelerator(cpu=True)
    assert make_accelerator().num_processes == 1


def test_gradients_and_losses_are_those_without_a_configuration(anew, tmp_path):
    """A batch in micro-batches, under an environment that asks for another precision and accumulation."""
    found = []
    for name in ("without", "with"):
        data = small.small_data(tmp_path / "data", "bytes")
        task = small.gpt_task(data)
        loop.train(task, small.sgd_steps(0.3), ImplConfig(dtype="fp32", micro_batch_size=9),
                   small.Run(tmp_path / name), make_accelerator(), 7)
        found.append(task.model.state_dict())
        AcceleratorState._reset_state(reset_partial_state=True)
        anew.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        anew.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert all(torch.equal(tensor, found[1][key]) for key, tensor in found[0].items())


# Who started this process.

@pytest.mark.parametrize(("words", "ends"), [
    ("python /venv/bin/accelerate launch --cpu recipe.py", 3), ("/venv/bin/accelerate-launch recipe.py", 1),
    ("python -m accelerate.commands.launch recipe.py", 3),
    ("python -u -m accelerate.commands.accelerate_cli launch recipe.py", 5),
    ("C:\\bin\\python accelerate.exe launch r.py", 3),
    ("python recipe.py accelerate launch", None), ("bash -c accelerate", None), ("python accelerate config", None),
    ("python launch.py recipe.py", None), ("make pretrain-bert", None), ("", None)])
def test_an_accelerate_launch_is_known_by_its_words(words, ends):
    assert launch._end_of_launcher(words.split()) == ends


def launched_by(monkeypatch, command: str, **environment: str) -> None:
    """As if `command`, with that environment, had started this process."""
    class Parent:
        def __init__(self, pid: int):
            pass

        def cmdline(self) -> list[str]:
            return command.split()

        def environ(self) -> dict[str, str]:
            return environment

    monkeypatch.setattr(launch.psutil, "Process", Parent)


@pytest.mark.parametrize(("command", "named"), [
    ("python /bin/accelerate launch --cpu --num_processes 3 r.py --cpu", "/bin/accelerate launch --multi_gpu "
                                                                         "--num_processes 3 r.py --cpu"),
    ("python -m accelerate.commands.launch --config_file HOME/several.yaml r.py",
     "python -m accelerate.commands.launch --multi_gpu --config_file HOME/several.yaml r.py"),
    ("python /bin/accelerate launch --config_file HOME/several.yaml --num_processes 1 r.py", None),
    ("python /bin/accelerate launch --config_file HOME/single.yaml r.py", None),
    ("python /bin/accelerate launch --nonsense", None),
    ("python recipes/sweep.py", None)])
def test_a_lone_process_is_refused_where_several_were_asked_for(monkeypatch, tmp_path, command, named):
    for name, values in (("several", TWO), ("single", ONE)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    launched_by(monkeypatch, command.replace("HOME", str(tmp_path)))
    if named is None:
        return launch.refuse_a_lone_process()
    with pytest.raises(UserError, match=re.escape(named.replace("HOME", str(tmp_path))) + "$"):
        launch.refuse_a_lone_process()
    monkeypatch.setenv("LOCAL_RANK", "0")
    launch.refuse_a_lone_process()


@pytest.mark.parametrize(("options", "environment", "threads", "told"), [
    ("", {}, 1, True), ("", {}, 2, False), ("", {"OMP_NUM_THREADS": "1"}, 1, False),
    ("--num_cpu_threads_per_process 1", {}, 1, False)])
def test_idle_cores_are_told(monkeypatch, options, environment, threads, told):
    launched_by(monkeypatch, f"python /bin/accelerate launch {options} r.py", **environment)
    monkeypatch.setattr(launch.torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    lines = list(launch.idle_cores(CPU, 1))
    assert bool(lines) == told and not list(launch.idle_cores(CPU, 2))
    assert not told or "--num_cpu_threads_per_process 4" in lines[0]


# What the machine has.

@pytest.fixture
def machine(monkeypatch):
    """`machine(gpus=…, nvidia=…, cuda=…, hip=…)`: torch's view of one, and what lies in /dev and /proc."""
    def be(gpus: int = 0, nvidia: bool = False, cuda: str | None = None, hip: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(launch, "has_nvidia_gpu", lambda: nvidia)
        monkeypatch.setattr(launch, "why_no_cuda", lambda: "the NVIDIA driver on your system is too old")
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    return be


def test_a_machine_that_is_used_is_silent(machine):
    for kind, device in (({}, "cpu"), ({"cuda": "12.6"}, "cpu"), ({"cuda": "12.6", "gpus": 1, "nvidia": True}, "cuda"),
                         ({"hip": "6.4", "gpus": 1}, "cuda"), ({"hip": "6.4", "nvidia": True}, "cpu")):
        machine(**kind)
        assert list(launch.idle_devices(torch.device(device), 1)) == [], kind
    machine(gpus=2, nvidia=True, cuda="12.6")
    assert list(launch.idle_devices(torch.device("cuda"), 2)) == []


def test_several_gpus_and_one_process(machine, monkeypatch):
    machine(gpus=4, nvidia=True, cuda="12.6")
    monkeypatch.setattr(sys, "argv", ["recipes/pretrain_gpt.py", "--output_dir", "my run"])
    [line] = launch.idle_devices(torch.device("cuda"), 1)
    assert "4 GPUs are here, and one process uses one" in line and "NPROC=4" in line
    assert "accelerate launch --multi_gpu --num_processes 4 recipes/pretrain_gpt.py --output_dir 'my run'" in line


def test_a_gpu_that_torch_cannot_use(machine, monkeypatch):
    machine(nvidia=True, cuda="12.6")
    [line] = launch.idle_devices(CPU, 1)
    assert torch.__version__ in line and "cannot use it: the NVIDIA driver on your system is too old;" in line
    machine(nvidia=True)
    [line] = launch.idle_devices(CPU, 1)
    assert "built without CUDA" in line and "pytorch.org" in line
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert not list(launch.idle_devices(CPU, 1))


def test_a_gpu_that_a_configuration_leaves_idle(machine, monkeypatch):
    machine(gpus=1, nvidia=True, cuda="12.6")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert launch.wants_cpu()
    [line] = launch.idle_devices(CPU, 1)
    assert "a GPU is left idle" in line and "ACCELERATE_USE_CPU=True" in line


def test_a_hidden_gpu_is_none(monkeypatch):
    monkeypatch.setattr(launch.Path, "exists", lambda path: True)
    for hidden, seen in (("", False), ("-1", False), ("0", True)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert launch.has_nvidia_gpu() == seen


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU can be used")
def test_torch_says_why_there_is_no_gpu():
    reason = launch.why_no_cuda()
    assert reason and "\n" not in reason and not reason.endswith(".")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_plain_machine_is_told_nothing(anew, capsys):
    anew.delenv("ACCELERATE_USE_CPU", raising=False)
    make_accelerator()
    assert capsys.readouterr().err == "" or launch.has_nvidia_gpu()
