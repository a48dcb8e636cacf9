"""The benchmark of training encoder–decoders."""

import bench_seq2seq
import pytest
from accelerate.state import AcceleratorState

from toolkit.errors import UserError


def test_both_start_alike_and_learn_alike(monkeypatch):
    """The same weights, pairs and optimiser: after as many steps about the same loss; dropout draws its own."""
    monkeypatch.setattr(bench_seq2seq, "WORDS", 200)
    monkeypatch.setattr(bench_seq2seq, "BATCH", 16)
    found = {}
    for name in ("ours", "hf_default", "hf_by_length"):
        found[name] = bench_seq2seq.run_job(name, 8)
        AcceleratorState._reset_state(reset_partial_state=True)  # Trainer's would decide on number formats here
    losses = [job["loss"] for job in found.values()]
    assert max(losses) < 1.05 * min(losses) and all(1 < job["tokens_per_second"] < 1e6 for job in found.values())


@pytest.mark.parametrize("options", [{"rounds": 0}, {"steps": 6}])
def test_counts_that_make_no_sense_are_refused(options):
    with pytest.raises(UserError, match="give at least 1, and a multiple of 4"):
        bench_seq2seq.bench(bench_seq2seq.BenchSeq2SeqConfig(**options))
