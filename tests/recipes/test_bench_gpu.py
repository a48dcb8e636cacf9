"""The benchmark for a GPU, on the processor: the same code with tiny shapes; only what asks for CUDA is not run."""

import json
import math
import sys
import textwrap
import time
from pathlib import Path

import bench
import bench_gpu
import pytest
import torch
from bench import Shape

from toolkit import cli
from toolkit.errors import UserError

GPT = dict(n_layer=1, n_head=2, n_embd=16, vocab_size=40, n_positions=16)
BERT = dict(num_hidden_layers=2, hidden_size=32, num_attention_heads=2, intermediate_size=64, vocab_size=40,
            max_position_embeddings=16)
TINY = {"gpt2": Shape("gpt2", 2, 16, 6, 1e-2, GPT, windows=3),
        "bert-small-128": Shape("bert-small", 4, 16, 3, 1e-3, BERT, windows=3)}
RIGHT = {"environment": {"machine": {"model": "a processor"}}, "gpu": None, "gradients": {}}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """And the compiler's first half alone: torch.compile without code to build."""
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(bench_gpu, "SHAPES", TINY)
    monkeypatch.setattr(bench_gpu, "SMALL", {"gpt": TINY["gpt2"], "bert": TINY["bert-small-128"]})
    monkeypatch.setattr(torch.nn.Module, "compile",
                        lambda self, **options: compiled(self, backend="aot_eager", **options))


def settings(directory: Path, **options) -> bench_gpu.BenchGpuConfig:
    return bench_gpu.BenchGpuConfig(**{"output_dir": str(directory), "models": list(TINY), **options})


def nano_gpt(directory: Path, code: str) -> str:
    directory.mkdir()
    (directory / "bench.py").write_text(textwrap.dedent(code))
    return str(directory)


def run(speed: float, **more) -> dict:
    return {"tokens_per_second": speed, "loss": 3.0, "peak_memory_mb": 100.0, "overhead_seconds": 2.0, **more}


def test_where_there_is_no_gpu_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--output_dir", str(tmp_path / "bench")])
    with pytest.raises(SystemExit) as end:
        cli.run(bench_gpu.main)
    assert end.value.code == 0 and not (tmp_path / "bench").exists()
    assert capsys.readouterr() == (
        "bench-gpu: no GPU here, nothing to measure; make bench compares on the processor.\n", "")


def test_a_job_answers_in_json(monkeypatch, capsys):
    monkeypatch.setattr(bench_gpu, "run_job", lambda job: {"asked": job})
    bench_gpu.main(["--job", "gpt2:ours"])
    assert json.loads(capsys.readouterr().out) == {"asked": "gpt2:ours"}


@pytest.mark.slow
def test_from_gradients_to_ratios(tmp_path, monkeypatch, capsys):
    """What Trainer does in bf16 or compiled, which changes its process for good, is made up."""
    limits = {}

    def here(recipe: str, job: str, limit: float) -> dict:
        assert recipe == bench_gpu.__file__ and (tmp_path / "bench.json").exists() == bool(limits)
        limits[job] = limit
        contestant = job.partition(":")[2]
        if contestant == "hf_bf16":
            raise UserError("gpt2:hf_bf16: the run failed with status 1:\nTraceback\ntorch.OutOfMemoryError: full\n")
        found = run(1.0, mfu=None) if contestant == "hf_bf16_compiled" else bench_gpu.run_job(job)
        return json.loads(json.dumps(found))

    monkeypatch.setattr(bench_gpu, "in_own_process", here)
    bench_gpu.bench(settings(tmp_path, nanogpt=nano_gpt(tmp_path / "nano", "print('time per iteration: 32000.0ms')")))
    assert [job for job in limits if job.startswith("gpt2")] == [
        "gpt2:ours", "gpt2:hf_bf16_compiled", "gpt2:ours_uncompiled", "gpt2:hf_bf16", "gpt2:hf_default"]
    assert list(limits)[:4] == ["gradients", "gpt2:ours", "gpt2:hf_bf16_compiled", "bert-small-128:ours"]
    assert all(0 < limit <= 90 for job, limit in limits.items() if job != "gradients")

    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["gpu"] is None and {"torch", "transformers"} <= found["environment"]["versions"].keys()
    for name, case in found["gradients"].items():
        assert case["error"] < case["tolerance"] and case["parameters"] > 15, name
    gpt = found["gpt2"]
    assert gpt["runs"].keys() == {"ours", "hf_bf16_compiled", "nanogpt", "ours_uncompiled", "hf_default"}
    assert gpt["left_out"] == {"hf_bf16": "torch.OutOfMemoryError: full"}
    ours, theirs = gpt["runs"]["ours"], gpt["runs"]["hf_default"]
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.01) and ours["seconds"] > 0
    assert gpt["runs"]["nanogpt"]["tokens_per_second"] == 1.0  # 2 × 16 in 32 s
    assert gpt["over_nanogpt"] == ours["tokens_per_second"] and gpt["best"]["hf"] == "hf_default"
    assert gpt["over_hf_best"] == pytest.approx(ours["tokens_per_second"] / theirs["tokens_per_second"])
    assert theirs["mfu"] / theirs["tokens_per_second"] == pytest.approx(ours["mfu"] / ours["tokens_per_second"])
    assert "nanogpt" not in {**found["bert-small-128"]["runs"], **found["bert-small-128"]["left_out"]}

    said = capsys.readouterr().out
    table = said[said.index("\ngpt2\n"):]
    assert "× nanoGPT" in table and "× Trainer's best (hf_default)" in table
    assert "hf_bf16: torch.OutOfMemoryError: full" in table
    assert "Gradients, compiled against uncompiled, differ by at most: gpt " in said and "gpt2, ours: " in said


@pytest.mark.parametrize(("wrong", "told"), [
    (torch.zeros_like, 100), (lambda gradient: gradient * 1.05, 5), (lambda gradient: gradient * torch.nan, math.nan),
    (lambda gradient: None, 100)], ids=["zero", "off", "nan", "none"])
def test_wrong_gradients_end_it(tmp_path, monkeypatch, wrong, told):
    gradients, spoilt = bench_gpu.gradients, "transformer.h.0.mlp.c_fc.weight"

    def answered(*arguments, compile: bool) -> dict[str, torch.Tensor]:
        found = gradients(*arguments, compile=False)
        if compile and spoilt in found:
            found[spoilt] = wrong(found[spoilt])
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    asked = []
    monkeypatch.setattr(bench_gpu, "SMALL", {"gpt": TINY["gpt2"]})
    monkeypatch.setattr(bench_gpu, "gradients", answered)
    monkeypatch.setattr(bench_gpu, "in_own_process", lambda _, job, *__: asked.append(job) or bench_gpu.run_job(job))
    with pytest.raises(UserError, match=f"gpt: compiled, the gradient of {spoilt} is .* off") as error:
        bench_gpu.bench(settings(tmp_path))
    assert asked == ["gradients"] and "Nothing was timed" in str(error.value)
    assert float(str(error.value).split(" % off")[0].split()[-1]) == pytest.approx(told, rel=0.05, nan_ok=True)


def test_what_does_not_fit_the_minutes_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_gpu, "in_own_process", lambda *_: dict(RIGHT))
    bench_gpu.bench(settings(tmp_path, minutes=0.2, models=["gpt2"]))
    said = capsys.readouterr().out
    assert said.count("ours: left out: the 0.2 minutes were used up") == 2  # when its turn came, and at the end
    assert "nanogpt: not measured: no checkout was named (make bench-gpu NANOGPT=…)" in said
    found = json.loads((tmp_path / "bench.json").read_text())["gpt2"]
    assert found["runs"] == {} and len(found["left_out"]) == 6
    assert found["over_nanogpt"] is found["over_hf_best"] is None


def test_ours_that_went_on_uncompiled_is_told():
    runs = {"ours": run(6.0, mfu=0.5, compiled=False, seconds=1), "hf_bf16": run(4.0, seconds=1)}
    entry = bench_gpu.compared({"runs": runs, "left_out": {}})
    assert entry["over_hf_best"] == 1.5 and entry["runs"]["hf_bf16"]["mfu"] == pytest.approx(1 / 3)
    lines = bench_gpu.contest_table(entry).splitlines()
    assert lines[-2:] == ["ours, as it comes: 1.50 × Trainer's best (hf_bf16)", "ours, as it comes, was not compiled"]
    assert lines[2].split() == ["ours", "6", "50%", "100", "3.000", "2.0", "1"]


def test_nano_gpt_is_asked_for_the_same_batch(tmp_path):
    directory = Path(nano_gpt(tmp_path / "nano", """\
        import pathlib, sys
        assert sys.argv[1:] == ['--batch_size=16', '--block_size=1024', '--real_data=False', '--compile=True'], sys.argv
        assert pathlib.Path('bench.py').exists()
        print('0/10 loss: 10.9\\ntime per iteration: 32.7680ms, MFU: 61.00%')
        """))
    found = bench_gpu.run_nanogpt(directory, Shape("gpt2", 16, 1024, 36, 3e-4), 30)
    assert found["tokens_per_second"] == pytest.approx(500_000) and found["commit"] is None
    (directory / "bench.py").write_text("print('done')")
    with pytest.raises(UserError, match="printed no 'time per iteration'"):
        bench_gpu.run_nanogpt(directory, TINY["gpt2"], 30)
    (directory / "bench.py").write_text("raise SystemExit('no CUDA')")
    with pytest.raises(UserError, match="nanogpt: the run failed with status 1:\nno CUDA"):
        bench_gpu.run_nanogpt(directory, TINY["gpt2"], 30)
    with pytest.raises(UserError, match="has no bench.py"):
        bench_gpu.bench(settings(tmp_path, nanogpt=str(tmp_path)))


def test_a_run_is_cut_off_though_its_workers_live(tmp_path):
    code = ("import subprocess, sys, time; wait = 'import time; time.sleep(20)'\n"
            "subprocess.Popen([sys.executable, '-c', wait]); exec(wait)")
    began = time.monotonic()
    with pytest.raises(UserError, match="gpt2:ours: cut off after 1 s."):
        bench.output_of([sys.executable, "-c", code], "gpt2:ours", limit=1)
    assert time.monotonic() - began < 10


def test_the_shapes_are_those_of_the_names(monkeypatch):
    monkeypatch.undo()
    assert {name: (shape.preset, shape.batch_size, shape.length) for name, shape in bench_gpu.SHAPES.items()} == {
        "gpt2": ("gpt2", 16, 1024), "bert-small-512": ("bert-small", 512, 128),
        "bert-small-128": ("bert-small", 128, 128), "bert-base": ("bert-base", 64, 512)}
    for shape in bench_gpu.SHAPES.values():
        assert shape.windows == 3 and shape.steps % shape.windows == 0 and shape.steps * 2 / 3 >= 20
