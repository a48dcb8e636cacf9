"""Files of runs and models, spoiled at random: read, passed over or refused in a line; never a traceback or a hang."""

import functools
import hashlib
import io
import json

import mutation
import numpy as np
import pytest
import small
import torch
import yaml
from transformers import AutoModel, BertModel

from toolkit.config import from_dict, read_yaml
from toolkit.errors import UserError
from toolkit.models.load import checkpoint_config, load_backbone, load_weights
from toolkit.publishing.card_facts import Facts
from toolkit.report.run_comparison import commands, compared, differences
from toolkit.report.run_list import list_runs
from toolkit.report.runs import find_runs
from toolkit.run.binary import read_npz, tensor_shapes
from toolkit.run.directory import read_metrics
from toolkit.run.files import read_json
from toolkit.run.results import read_results
from toolkit.run.schema import Emissions, Intervals, Manifest, Tracking
from toolkit.tasks.settings import PretrainBertConfig
from toolkit.tokenization.bins import SeriesBins
from toolkit.tokenization.load import load_tokenizer
from toolkit.tokenization.train import TokenizerSpec, read_spec, train_tokenizer
from toolkit.training import checkpoint
from toolkit.training.optim import OptimConfig, make_optimizers
from toolkit.training.state import State


def lengths(tries: int) -> list:
    """Some tries daily, and so many under the marker `hostile`."""
    return [30, mutation.at_length(tries)]


SMALL, WHOLE_RUNS, CHECKPOINTS, MODELS = map(lengths, (10_000, 600, 3000, 400))
"""Tries of each; where a run is listed, or a model built, at each of them, there is no time for 10,000."""


def encoded(value) -> bytes:
    return json.dumps(value).encode()


def yaml_spoiled(data: bytes, draw) -> bytes:
    if draw.random() < 0.5:
        return mutation.bytes_spoiled(data, draw)
    value = mutation.value_spoiled(yaml.safe_load(data), draw)
    try:
        return yaml.safe_dump(value).encode()
    except ValueError:  # digits, or halves of characters, that cannot be written
        return mutation.bytes_spoiled(data, draw)


CONFIG = {"output_dir": "runs/x", "data_dir": "data", "seed": 3, "corpus": {"sources": ["a.txt"], "language": "en"},
          "tokenizer": "wp.yaml", "model": {"preset": "bert-tiny", "dropout": 0.1},
          "training": {"max_steps": 5, "learning_rate": 1e-3, "save_steps": 2}, "masking": {"max_seq_length": 32}}
METRICS = b"".join(encoded({"step": step, "loss": 3.0 / step, "tokens": 9 * step, "tokens_per_second": 5.0}) + b"\n"
                   + encoded({"step": step, "eval_loss": 2.0, "eval_accuracy": 0.5}) + b"\n" for step in (2, 4))
MANIFEST = encoded({"started": "2026-01-01T00:00:00+00:00", "commit": "abc", "inputs": {"corpus.sources": ["1", "2"]},
                    "data": {"corpus": {"documents": 3}}, "parameters": 123, "versions": {"torch": "2.11"}})
RESULT = encoded({"loss": 2.5, "mlm_accuracy": 0.1, "steps": 4, "tokens": 36, "tokens_per_second": 5.0, "best_step": 4})
ROWS = encoded({"schema": 1, "experiment": "e", "metric": "accuracy", "sizes": "labels", "rows": [
    {"arm": "bert, tuned", "seed": 0, "metrics": {"accuracy": 0.5, "r2": None}, "size": "40", "parameters": 7},
    {"arm": "TF-IDF", "seed": 0, "metrics": {"accuracy": 1.0}, "size": "40", "set": "a"}],
    "verdicts": [{"arm": "bert, tuned", "text": "it helps", "set": "", "size": "40"}]})
OLD_RESULT = encoded({"learning_curve": {"10": {"bert": {"mean": 0.5, "ci95": [0.4, 0.6], "values": [0.5, 0.6],
                                                         "verdict": "helps", "parameters": 5}}}, "test_examples": 9})


def weights(**arrays) -> bytes:
    from safetensors.numpy import save
    return save(arrays or {"a.weight": np.ones((3, 2), np.float32), "b": np.zeros(4, np.float32)})


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, test=np.ones((3, 2)), index=np.arange(3))
    return buffer.getvalue()


SMALL_READERS = {
    "config": (yaml.safe_dump(CONFIG).encode(), yaml_spoiled,
               lambda path: from_dict(PretrainBertConfig, read_yaml(path), str(path))),
    "spec": (b"algorithm: wordpiece\nvocab_size: 100\nlowercase: true\nadditional_special_tokens: ['<|user|>']\n",
             yaml_spoiled, read_spec),
    "manifest": (MANIFEST, mutation.json_spoiled, lambda path: read_json(path, Manifest)),
    "intervals": (encoded({"quantiles": [0.1, 0.9], "offsets": [[[0.1, 0.2]]]}), mutation.json_spoiled,
                  lambda path: read_json(path, Intervals)),
    "emissions": (encoded({"seconds": 1.0, "energy_kwh": 0.1, "ram_kwh": 0.0}), mutation.json_spoiled,
                  lambda path: read_json(path, Emissions)["seconds"] + 1),
    "tracking": (encoded({"id": "ab", "trackers": ["wandb"]}), mutation.json_spoiled,
                 lambda path: sorted({*read_json(path, Tracking)["trackers"], "x"})),
    "rows": (ROWS, mutation.json_spoiled, lambda path: read_results(path.parent)),
    "metrics": (METRICS, mutation.bytes_spoiled, lambda path: [record["step"] + 1 for record in read_metrics(path)]),
    "weights": (weights(), mutation.bytes_spoiled, tensor_shapes),
    "arrays": (npz(), mutation.bytes_spoiled, lambda path: read_npz(path, "test")),
}


@pytest.mark.parametrize("tries", SMALL)
@pytest.mark.parametrize("name", SMALL_READERS)
def test_small_files(tmp_path, name, tries):
    sample, spoil, read = SMALL_READERS[name]
    path = tmp_path / ("rows.json" if name == "rows" else f"{name}.yaml")
    assert read(written(path, sample)) is not None
    refused = mutation.try_reader(sample, spoil, lambda data: written(path, data), read, tries)
    assert refused or name == "metrics"


def written(path, data: bytes):
    path.write_bytes(data)
    return path


PARTS = {"config.yaml": (yaml.safe_dump(CONFIG).encode(), yaml_spoiled),
         "manifest.json": (MANIFEST, mutation.json_spoiled),
         "result.json": (RESULT, mutation.json_spoiled), "metrics.jsonl": (METRICS, mutation.bytes_spoiled),
         "rows.json": (ROWS, mutation.json_spoiled), "transfer.json": (OLD_RESULT, mutation.json_spoiled),
         "model/model.safetensors": (weights(), mutation.bytes_spoiled)}


@pytest.mark.parametrize("tries", WHOLE_RUNS)
@pytest.mark.parametrize("part", PARTS)
def test_one_broken_run_does_not_hide_the_others(tmp_path, part, tries):
    """Listed, with the reason, or sound; the good run beside it as ever."""
    for name in ("good", "bad"):
        (tmp_path / name / "model").mkdir(parents=True)
        for file in ("config.yaml", "manifest.json", "metrics.jsonl", "model/model.safetensors", part):
            if file != "result.json" or name == "good":
                written(tmp_path / name / file, PARTS[file][0])

    def read(_):
        runs = find_runs(tmp_path)
        assert {run.name for run in runs} == {"good", "bad"}
        good = next(run for run in runs if run.name == "good")
        assert good.state != "damaged", good.problem
        list_runs(runs, 80), [(line.shown, line.deltas) for line in compared(runs)], commands(runs)
        differences(runs), differences(runs, "manifest")
        read_results(tmp_path / "bad")

    sample, spoil = PARTS[part]
    mutation.try_reader(sample, spoil, lambda data: written(tmp_path / "bad" / part, data), read, tries)


@functools.cache
def trained():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(4, 3), torch.nn.Linear(3, 2))
    optimizers = make_optimizers(model, OptimConfig())
    step(model, optimizers)
    return model, optimizers


def step(model, optimizers) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for optimizer in optimizers:
        optimizer.step()


STATE = {"tokens": 9, "seconds": 1.5, "best": None, "no_better": 0, "kept": None, "running": [{"mlm": 2.0}],
         "running_steps": 1, "limit": None, "guard": [0.0, 0.0, 0.0], "began": [2.0, False], "evaluation_due": False}


@pytest.mark.parametrize("tries", CHECKPOINTS)
@pytest.mark.parametrize("name", ["state.json", "optimizer.pt", "model.safetensors", "manifest.json"])
def test_checkpoints_of_right_checksums(tmp_path, name, tries):
    model, optimizers = trained()
    path = checkpoint.save(tmp_path, 5, checkpoint.snapshot(model, optimizers), STATE, keep=2)

    def write(data: bytes):
        written(path / name, data)
        if name != "manifest.json":
            files = ("model.safetensors", "optimizer.pt", "state.json")
            written(path / "manifest.json", encoded({file: hashlib.sha256((path / file).read_bytes()).hexdigest()
                                                     for file in files}))
        return path / name

    def read(_):
        found, passed_over = checkpoint.newest_valid(tmp_path)
        assert (found is None) == bool(passed_over)
        if found is not None:
            state = State.read(checkpoint.read_state(found), 0, 1)
            assert (state.step, type(state.tokens), type(state.running)) == (5, int, dict)
            checkpoint.load(found, model, optimizers)
            step(model, optimizers)

    spoil = mutation.json_spoiled if name.endswith(".json") else mutation.bytes_spoiled
    mutation.try_reader((path / name).read_bytes(), spoil, write, read, tries)


@pytest.mark.parametrize("tries", CHECKPOINTS)
def test_optimisers_of_other_types(tmp_path, tries):
    """What a sound file of the library holds, and is of no use."""
    model, optimizers = trained()
    path = checkpoint.save(tmp_path, 5, checkpoint.snapshot(model, optimizers), STATE, keep=2)
    saved = torch.load(path / "optimizer.pt", weights_only=True)

    def spoil(_, draw) -> bytes:
        buffer = io.BytesIO()
        value = mutation.value_spoiled(saved, draw)
        torch.save(value, buffer)
        return buffer.getvalue()

    def read(_):
        states = checkpoint._optimizer_states(path, optimizers)
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        step(model, optimizers)

    assert mutation.try_reader(b"", spoil, lambda data: written(path / "optimizer.pt", data), read, tries)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    BertModel(small.bert_config(50)).save_pretrained(directory)
    spec = TokenizerSpec("wordpiece", 50, normalizer="bert", pre_tokenizer="bert", special_tokens="bert")
    texts = ["the cat sat on the mat and looked at other cats"] * 9
    train_tokenizer(spec, texts, progress=False).save_pretrained(directory)
    written(directory / "series_bins.json", encoded({"algorithm": "series-bins", "context_length": 8, "horizon": 4,
                                                     "vocab_size": 1024}))
    return directory


MODEL_READERS = {
    "config.json": checkpoint_config, "tokenizer.json": lambda path: load_tokenizer(str(path)),
    "tokenizer_config.json": lambda path: load_tokenizer(str(path)), "series_bins.json": SeriesBins.from_pretrained,
    "model.safetensors": lambda path: (load_backbone(path, "bert"), load_weights(AutoModel, str(path), path))}


@pytest.mark.parametrize("tries", MODELS)
@pytest.mark.parametrize("name", MODEL_READERS)
def test_models_and_tokenizers(tiny, name, tries):
    sample, read = (tiny / name).read_bytes(), MODEL_READERS[name]
    spoil = mutation.json_spoiled if name.endswith(".json") else mutation.bytes_spoiled
    try:
        mutation.try_reader(sample, spoil, lambda data: written(tiny / name, data), lambda path: read(tiny), tries)
    finally:
        written(tiny / name, sample)


@pytest.mark.parametrize("tries", WHOLE_RUNS)
@pytest.mark.parametrize("part", ["config.yaml", "manifest.json", "result.json", "metrics.jsonl", "model/config.json",
                                  "model/tokenizer.json", "model/tokenizer_config.json", "emissions.json", "bias.json"])
def test_what_a_card_reads(tmp_path, tiny, part, tries):
    samples = {name: data for name, (data, _) in PARTS.items() if name not in ("rows.json", "transfer.json")} | {
        f"model/{name}": (tiny / name).read_bytes()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json")} | {
        "emissions.json": SMALL_READERS["emissions"][0], "bias.json": encoded({"pairs": 3})}
    for name, data in samples.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written(tmp_path / name, data)

    def read(_):
        facts = Facts.of(tmp_path)
        for name in ("result", "records", "evaluation", "model", "parameters", "tokenizer", "energy", "bias", "shape",
                     "architecture", "training", "arm", "base", "is_text", "module", "beside"):
            getattr(facts, name)

    spoil = {"config.yaml": yaml_spoiled, "metrics.jsonl": mutation.bytes_spoiled}.get(part, mutation.json_spoiled)
    mutation.try_reader(samples[part], spoil, lambda data: written(tmp_path / part, data), read, tries)


def test_yaml_that_explodes_or_nests(tmp_path):
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    merged = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n"
                                          for n in range(1, 12))
    for text, said in ((bomb, "more than 100,000 values"), (merged, "more than 100,000 values"),
                       ("a: " + "[" * 20_000 + "]" * 20_000, "deeper than 64"), ("a: &a [*a]", "stands within"),
                       ("a: 2024-13-45", "timestamp"), ("a: !!int x", "int"),
                       ("a: !!python/object:os.system x", "tag")):
        path = written(tmp_path / "x.yaml", text.encode())
        with mutation.within(10), pytest.raises(UserError, match=said) as caught:
            read_yaml(path)
        assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    shared = written(tmp_path / "x.yaml", b"a: &a {x: [1, 2]}\nb: *a\nc:\n  <<: *a\n  y: 3\n")
    assert read_yaml(shared) == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}, "c": {"x": [1, 2], "y": 3}}
