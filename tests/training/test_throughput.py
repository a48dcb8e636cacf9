"""Operations by formulas, the meter by made-up numbers, and what a run logs and prints of them."""

import subprocess
import sys

import pytest
import small
import torch
import transformers
from toy import Toy

from toolkit.models.fast_layers import use_fused_layers
from toolkit.run.directory import read_metrics
from toolkit.training import feed, warm_up
from toolkit.training.impl.distributed import make_accelerator
from toolkit.training.impl.precision import ImplConfig, choose
from toolkit.training.observers import throughput
from toolkit.training.observers.throughput import Meter, duration, efficiency, matmul_flops, matmul_peak
from toolkit.training.task import TrainingConfig

CPU = torch.device("cpu")


def test_operations_of_a_linear_layer():
    """Two for a multiply-add; backward twice the forward, but for inputs that want no gradient."""
    layer = torch.nn.Linear(12, 7)
    for wanted, products in ((False, 2), (True, 3)):
        inputs = torch.randn(5, 12, requires_grad=wanted)
        assert matmul_flops(lambda inputs=inputs: layer(inputs).sum().backward()) == products * 2 * 5 * 12 * 7
    assert matmul_flops(lambda: layer(inputs)) == 2 * 5 * 12 * 7
    assert matmul_flops(lambda: None) == 0


def bert_flops(layers: str) -> int:
    model = transformers.BertModel(small.bert_config(30)).train()
    model.set_attn_implementation("eager")
    if layers == "bf16":
        use_fused_layers(model)

    def work() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(torch.ones(3, 10, dtype=torch.long)).last_hidden_state.float().sum().backward()

    return matmul_flops(work)


def test_operations_of_layers_in_bf16_are_those_of_transformers():
    rows, length, width, wide = 3, 10, 32, 64
    layer = 2 * rows * length * (4 * width * width + 2 * width * wide) + 2 * 2 * rows * length * length * width
    assert bert_flops("bf16") == bert_flops("transformers")
    # No gradient reaches the pooler, whose product is forward alone.
    assert bert_flops("bf16") == 3 * 2 * layer + 2 * rows * width * width


def test_meter():
    meter = Meter(CPU, flops_per_token=50.0, peak=1e4)
    meter.step(100, 2.0, 0.5)
    meter.step(140, 4.0, 0.1)
    record = meter.record()
    assert record.keys() == {"tokens_per_second", "mfu", "data_wait", "peak_memory_mb"}
    assert (record["tokens_per_second"], record["mfu"], record["data_wait"]) == (40.0, 0.2, 0.1)
    assert record["peak_memory_mb"] == pytest.approx(throughput.peak_memory_mb(CPU), rel=0.1)
    meter.step(10, 1.0, 1.0)  # only what came since
    record = meter.record()
    assert (record["tokens_per_second"], record["mfu"], record["data_wait"]) == (10.0, 0.05, 1.0)


def test_matmul_peak_is_measured_once(monkeypatch):
    matmul_peak.cache_clear()
    first = matmul_peak(CPU, torch.float32)
    assert 1e8 < first < 1e15
    monkeypatch.setattr(throughput.torch, "randn", None)
    assert matmul_peak(CPU, torch.float32) == first


def test_peak_memory_grows_and_stays():
    # Once wrong: getrusage begins with the peak of the parent, which may be larger than what is asked for here.
    code = ("import torch; from toolkit.training.observers.throughput import peak_memory_mb as peak\n"
            "cpu = torch.device('cpu')\n"
            "before = peak(cpu); block = torch.ones(200_000_000); during = peak(cpu); del block\n"
            "print(before, during, peak(cpu))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    before, during, after = map(float, done.stdout.split())
    assert 50 < before < 500 and 780 < during - before < 850 and after == pytest.approx(during, rel=0.01)


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (42.4, "42 s"), (119.9, "2 min"), (1800, "30 min"), (5400, "90 min"), (9000, "2.5 h"),
    (360_000, "100.0 h")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_efficiency():
    record = {"tokens_per_second": 10_000, "mfu": 0.36, "data_wait": 0.01, "peak_memory_mb": 2345.6}
    faster = {"tokens_per_second": 14_000, "mfu": 0.4, "data_wait": 0.03, "peak_memory_mb": 2300}
    assert efficiency([record, faster], "values") == ("12,000 values/s, 38 % of the matmul peak, 2.0 % waiting, "
                                                      "2,346 MB")


def test_no_share_of_the_peak_is_over_all_of_it():
    """What was measured of the peak, in an instant, can be less than what the run then does."""
    meter = Meter(CPU, flops_per_token=50.0, peak=1e3)
    shares = []
    for tokens in (10, 100, 80):
        meter.step(tokens, 1.0, 0.0)
        shares.append(meter.record()["mfu"])
    assert shares == [0.5, 1.0, 0.8], "the best that was seen is the peak from then on"


def test_a_run_logs_its_throughput(tmp_path):
    config = TrainingConfig(max_steps=6, batch_size=4, logging_steps=2, save_steps=0)
    small.train(Toy([1.0]), tmp_path, config)
    logged = [record for record in read_metrics(tmp_path / "metrics.jsonl") if "loss" in record]
    assert len(logged) == 3
    for record in logged:
        assert record["tokens_per_second"] > 0 and 0 < record["mfu"] <= 1
        assert 0 <= record["data_wait"] <= 1 and record["peak_memory_mb"] > 50


def test_waiting_for_data_is_seen(tmp_path, monkeypatch):
    """A clock that only batches move: all of the time is waiting, and the tokens a second are known."""
    now = [0.0]
    monkeypatch.setitem(small.PARTS, "clock", lambda: now[0])
    monkeypatch.setattr(warm_up, "matmul_peak", lambda device, dtype: 1e9)

    class Slow(Toy):
        def batch(self, step, rows):
            now[0] += 0.25
            return super().batch(step, rows)

    small.train(Slow([1.0]), tmp_path, TrainingConfig(max_steps=4, batch_size=4, logging_steps=2, save_steps=0))
    logged = [record for record in read_metrics(tmp_path / "metrics.jsonl") if "loss" in record]
    assert [record["data_wait"] for record in logged] == [1.0, 1.0]
    assert [record["tokens_per_second"] for record in logged] == [24 / 0.25] * 2


def test_operations_a_token_do_not_depend_on_micro_batches():
    config, found = choose(ImplConfig(dtype="fp32"), CPU), []
    for micro in (None, 2):
        dataset = feed.StepDataset(Toy(), 8, make_accelerator(), ImplConfig(micro_batch_size=micro))
        task = dataset.task
        found.append(warm_up.warm_up(task, task.model, dataset, 0, config, make_accelerator()))
        assert all(parameter.grad is None for parameter in task.model.parameters()), "gradients are left behind"
    assert found[0].flops_per_token == pytest.approx(found[1].flops_per_token, rel=1e-9) and found[0].peak == \
        matmul_peak(CPU, torch.float32)
