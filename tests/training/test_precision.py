"""How a run is computed: what `auto` chooses, what is refused by name, and that none of it changes what is learned."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import small
import torch

from toolkit.errors import UserError
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.run.directory import Run
from toolkit.training import trainer as loop
from toolkit.training import warm_up
from toolkit.training.impl import precision
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, Precision, choose
from toolkit.training.task import TrainingConfig
from toolkit.training.warm_up import remarks

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture
def hardware(monkeypatch):
    """`hardware(cpu=…, cuda=…)`: which of them have bf16."""
    def have(cpu: dict[str, bool] | None = None, cuda: bool = False) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu or {"avx2": True, "avx512_bf16": False})
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    return have


def chosen(device: torch.device, **impl) -> tuple:
    found = choose(ImplConfig(**impl), device)
    return found.dtype, found.attention, found.layers


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", "bf16"])
def test_cpu_with_bf16(hardware, capability):
    hardware(cpu={"avx2": True, capability: True})
    assert chosen(CPU) == (torch.bfloat16, "eager", "fused")
    assert chosen(CPU, dtype="fp32") == (torch.float32, "eager", "fused")
    assert chosen(CPU, layers="transformers") == (torch.bfloat16, "eager", "transformers")
    assert chosen(CPU, attention="sdpa") == (torch.bfloat16, "sdpa", "transformers")
    assert chosen(CPU, attention="eager") == (torch.bfloat16, "eager", "fused")


def test_cpu_without_bf16(hardware):
    hardware()
    assert chosen(CPU) == (torch.float32, "eager", "fused")
    assert chosen(CPU, layers="fused") == (torch.float32, "eager", "fused")
    assert chosen(CPU, layers="transformers") == (torch.float32, "eager", "transformers")
    assert chosen(CPU, attention="sdpa") == (torch.float32, "sdpa", "transformers")
    assert chosen(CPU, dtype="bf16") == (torch.bfloat16, "eager", "fused")
    assert chosen(CPU, dtype="bf16", layers="transformers") == (torch.bfloat16, "eager", "transformers")
    with pytest.raises(UserError, match="impl.layers is bf16"):
        choose(ImplConfig(layers="bf16"), CPU)


def test_gpus(hardware):
    hardware(cuda=True)
    assert chosen(CUDA) == (torch.bfloat16, "sdpa", "transformers")
    assert chosen(CUDA, dtype="fp32", attention="eager") == (torch.float32, "eager", "transformers")
    hardware(cpu={"avx512_bf16": True}, cuda=False)
    assert chosen(CUDA) == (torch.float32, "sdpa", "transformers")
    assert chosen(MPS) == (torch.float32, "sdpa", "transformers")
    with pytest.raises(UserError, match="impl.dtype is bf16, which this GPU does not have"):
        choose(ImplConfig(dtype="bf16"), CUDA)


@pytest.mark.parametrize(("device", "impl"), [
    (CUDA, {"layers": "bf16"}), (CUDA, {"layers": "bf16", "dtype": "bf16"}), (MPS, {"layers": "bf16"}),
    (CPU, {"layers": "bf16", "dtype": "fp32"})])
def test_layers_in_bf16_are_for_cpus_in_bf16(hardware, device, impl):
    hardware(cpu={"avx512_bf16": True}, cuda=True)
    with pytest.raises(UserError, match=f"impl.layers is bf16.* impl.dtype .* on {device.type} in "):
        choose(ImplConfig(**impl), device)


def test_workers_and_compilation(hardware, monkeypatch):
    hardware(cuda=True)
    assert [choose(ImplConfig(), device).num_workers for device in (CPU, CUDA, MPS)] == [0, 2, 0]
    assert [choose(ImplConfig(num_workers=3), device).num_workers for device in (CPU, CUDA)] == [3, 3]
    assert choose(ImplConfig(num_workers=0), CUDA).num_workers == 0
    for triton in (None, "found"):
        monkeypatch.setattr(precision.importlib.util, "find_spec", lambda name, found=triton: found)
        assert [choose(ImplConfig(), device).compile for device in (CPU, CUDA, MPS)] == [False, bool(triton), False]
        assert choose(ImplConfig(compile=True), CPU).compile is True
        assert choose(ImplConfig(compile=False), CUDA).compile is False


def test_old_gpus(hardware, monkeypatch):
    """Too old for bf16 or for triton: what they have is taken, and said; what they lack is refused where asked for."""
    hardware(cuda=False)
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda name: "found")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (6, 1))
    found = choose(ImplConfig(), CUDA)
    assert (found.dtype, found.compile) == (torch.float32, False)
    said = list(remarks(ImplConfig(), found))
    assert len(said) == 2 and "no bf16 of its own" in said[0] and "this one has 6.1" in said[1]
    assert list(remarks(ImplConfig(dtype="fp32", compile=False), found)) == []
    with pytest.raises(UserError, match="impl.compile is true, which takes triton"):
        choose(ImplConfig(compile=True), CUDA)


def test_emulated_bf16_is_told(hardware, monkeypatch):
    hardware()
    peaks = {torch.float32: 120e9, torch.bfloat16: 5e9}
    monkeypatch.setattr(warm_up, "matmul_peak", lambda device, dtype: peaks[dtype])
    (said,) = remarks(ImplConfig(dtype="bf16"), choose(ImplConfig(dtype="bf16"), CPU))
    assert "this processor emulates: its products take 24.0 times as long" in said
    hardware(cpu={"avx512_bf16": True})
    assert list(remarks(ImplConfig(), choose(ImplConfig(), CPU))) == []


def test_compiling_on_a_cpu_is_told_what_was_seen(hardware):
    hardware()
    (said,) = remarks(ImplConfig(compile=True), choose(ImplConfig(compile=True), CPU))
    assert "impl.compile is true on a CPU" in said


def test_descriptions():
    plain = Precision(CPU, torch.float32, "eager", "transformers", False, False, 0)
    assert plain.describe() == "cpu, float32, eager attention"
    all_of_it = Precision(CPU, torch.bfloat16, "sdpa", "fused", True, True, 2)
    assert all_of_it.describe() == "cpu, bfloat16, sdpa attention, fused layers, compiled, gradient checkpointing"
    assert not isinstance(plain.autocast(), torch.autocast)
    with all_of_it.autocast():
        assert torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


@pytest.mark.parametrize("make", [lambda: BertForPreTraining(small.bert_config(50)),
                                  lambda: GPT2LMHeadModel(small.gpt_config(50))], ids=["bert", "gpt"])
def test_preparing_changes_no_parameter(make):
    model = make()
    before = {name: (parameter, parameter.detach().clone()) for name, parameter in model.named_parameters()}
    state = list(model.state_dict())
    choose(ImplConfig(dtype="bf16", layers="bf16", gradient_checkpointing=True, compile=True), CPU).prepare(model)
    assert list(model.state_dict()) == state
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is parameter and torch.equal(parameter, value) for name, (parameter, value)
               in before.items())
    assert model.config._attn_implementation == "eager" and model.is_gradient_checkpointing


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("precision")
    return {"bert": small.small_data(root, "wordpiece"), "gpt": small.small_data(root, "bytes")}


def make_task(data, kind: str, dropout: float = 0.0):
    return (small.bert_task if kind == "bert" else small.gpt_task)(data[kind], dropout)


def trained(task, directory: Path, config: TrainingConfig, **impl) -> list[float]:
    """The logged losses."""
    loop.train(task, config, ImplConfig(**impl), Run(directory), make_accelerator(), 7, **small.PARTS)
    return [record["loss"] for record in small.records(directory) if "loss" in record]


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_gradient_checkpointing_changes_nothing(data, tmp_path, monkeypatch, kind):
    """The same gradients with dropout: what is computed again is what was computed."""
    monkeypatch.setitem(small.PARTS, "make_optimizers", small.sgd)
    found, again = [], []
    for checkpointing in (False, True):
        task = make_task(data, kind, 0.1)
        calls, layer = [0], (task.model.bert.encoder.layer if kind == "bert" else task.model.transformer.h)[0]
        (layer.intermediate if kind == "bert" else layer.ln_1).register_forward_hook(
            lambda *_, calls=calls: calls.__setitem__(0, calls[0] + 1))
        trained(task, tmp_path / str(checkpointing), small.sgd_steps(0.3), dtype="fp32",
                layers="transformers", gradient_checkpointing=checkpointing)
        found.append(task.model.state_dict())
        again.append(calls[0])
    assert again[1] > again[0], "nothing was computed again"
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_gradient_checkpointing_of_layers_in_bf16(data, tmp_path, monkeypatch, kind):
    monkeypatch.setitem(small.PARTS, "make_optimizers", small.sgd)
    found = []
    for checkpointing in (False, True):
        task = make_task(data, kind)
        trained(task, tmp_path / str(checkpointing), small.sgd_steps(0.3), dtype="bf16", layers="bf16",
                gradient_checkpointing=checkpointing)
        found.append(task.model.state_dict())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


# Means over 20 steps differ by 0.0001 (BERT) and 0.003 nats (GPT with AdamW).
CURVES = 0.02


@pytest.mark.parametrize(("kind", "optimizer", "fall"), [("bert", "muon", 0.5), ("gpt", "adamw", 2.0)])
def test_loss_curves_agree(data, tmp_path, kind, optimizer, fall):
    """200 steps in bf16, whole layers included, and the same in fp32: the same losses all the way down."""
    config = TrainingConfig(max_steps=200, batch_size=32, logging_steps=20, save_steps=0, optimizer=optimizer,
                            learning_rate=3e-3)
    exact = trained(make_task(data, kind), tmp_path / "fp32", config, dtype="fp32")
    found = trained(make_task(data, kind), tmp_path / "bf16", config, dtype="bf16", layers="bf16")
    assert len(exact) == len(found) == 10 and exact != found
    assert exact[0] - exact[-1] > fall, "it does not learn: nothing is compared"
    assert np.abs(np.subtract(exact, found)).max() < CURVES, (exact, found)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize(("kind", "impl", "within"), [
    ("bert", {"dtype": "fp32"}, 1e-4), ("gpt", {"dtype": "fp32"}, 1e-4),
    ("bert", {"dtype": "bf16", "layers": "bf16"}, CURVES), ("gpt", {"dtype": "bf16", "layers": "bf16"}, CURVES)])
def test_compiled_is_the_same(data, tmp_path, kind, impl, within):
    config = TrainingConfig(max_steps=30, batch_size=32, logging_steps=5, eval_steps=10, save_steps=10)
    losses, files = [], []
    for compile in (False, True):
        directory = tmp_path / str(compile)
        losses.append(trained(make_task(data, kind), directory, config, compile=compile, **impl))
        files.append(sorted(str(path.relative_to(directory)) for path in directory.rglob("*")))
    assert np.abs(np.subtract(*losses)).max() < within
    assert files[0] == files[1] and "model/model.safetensors" in files[0]
    for file in ("model/model.safetensors", "checkpoints/step-00000030/model.safetensors"):
        plain, compiled = (small.load_file(tmp_path / str(compile) / file) for compile in (False, True))
        # Of tied weights one is written, and which is chance.
        assert {name.replace("lm_head", "transformer.wte") for name in plain} == {
            name.replace("lm_head", "transformer.wte") for name in compiled}
    # A checkpoint of one is resumed by the other.
    longer = TrainingConfig(**{**vars(config), "max_steps": 35})
    assert len(trained(make_task(data, kind), tmp_path / "True", longer, compile=False, **impl)) == 7
