"""Checkpoints: bit-identical when loaded, passed over when damaged, whole or absent whatever happens in between."""

import hashlib
import json
import shutil

import pytest
import small
import torch
from safetensors.torch import load_file, save_file

from toolkit.errors import UserError
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.training import checkpoint
from toolkit.training.optim import OptimConfig, make_optimizers

FILES = ("manifest.json", "model.safetensors", "optimizer.pt", "state.json")


def trained(kind: str = "bert", steps: int = 3, seed: int = 0, optimizer: str = "muon"):
    """A model and optimisers after a few steps on random gradients, so that every state is there."""
    torch.manual_seed(seed)
    model = BertForPreTraining(small.bert_config(50)) if kind == "bert" else GPT2LMHeadModel(small.gpt_config(50))
    optimizers = make_optimizers(model, OptimConfig(optimizer=optimizer))
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for item in optimizers:
            item.step()
    return model, optimizers


def save(directory, step: int, model, optimizers, state: dict, keep: int):
    return checkpoint.save(directory, step, checkpoint.snapshot(model, optimizers), state, keep)


def write(directory, steps, keep: int = 10) -> None:
    for step in steps:
        save(directory, step, *trained(steps=1), {}, keep)


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def assert_same(left, right) -> None:
    """Equal to the last bit, through dictionaries and lists."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype and torch.equal(left, right)
    else:
        assert left == right


@pytest.mark.parametrize("kind", ["bert", "gpt"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_is_loaded_is_what_was_saved(tmp_path, kind, optimizer):
    model, optimizers = trained(kind, optimizer=optimizer)
    state = {"best": 0.1 + 0.2, "running": [{"mlm": 1 / 3}], "tokens": 2**40}
    path = save(tmp_path, 12, model, optimizers, state, keep=2)
    assert names(path) == sorted(FILES)
    other, others = trained(kind, steps=1, seed=1, optimizer=optimizer)
    assert checkpoint.newest_valid(tmp_path) == (path, [])
    assert checkpoint.load(path, other, others) == {"step": 12, **state}
    assert_same(dict(other.state_dict()), dict(model.state_dict()))
    assert_same([item.state_dict() for item in others], [item.state_dict() for item in optimizers])
    assert other.get_output_embeddings() is None or (
        other.get_output_embeddings().weight is other.get_input_embeddings().weight), "the tie is lost"
    # And they go on alike.
    for number in range(2):
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            torch.manual_seed(number)
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for item in (*optimizers, *others):
            item.step()
    assert_same(dict(other.state_dict()), dict(model.state_dict()))


def test_another_set_of_optimisers_is_refused(tmp_path):
    path = save(tmp_path, 1, *trained(optimizer="muon"), {}, keep=2)
    with pytest.raises(UserError, match="2 optimisers, this run has 1"):
        checkpoint.load(path, *trained(optimizer="adamw"))


def test_nothing_to_resume(tmp_path):
    assert checkpoint.newest_valid(tmp_path / "never-made") == (None, [])
    assert checkpoint.newest_valid(tmp_path) == (None, [])


def flip(path, position: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(position * (len(data) - 1))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "longer", "first bit", "middle bit", "last bit"])
def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path, name, damage):
    write(tmp_path, [4, 8])
    path = tmp_path / "step-00000008" / name
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage in ("empty", "truncated", "longer"):
        path.write_bytes({"empty": b"", "truncated": data[:-20], "longer": data + b"x"}[damage])
    else:
        flip(path, {"first bit": 0, "middle bit": 0.5, "last bit": 1}[damage])
        if name == "manifest.json" and damage == "last bit":
            pytest.skip("the line end of the manifest: what it says is still right")
    found, reasons = checkpoint.newest_valid(tmp_path)
    assert found == tmp_path / "step-00000004"
    assert len(reasons) == 1 and "step-00000008" in reasons[0]
    mentioned = name if name != "manifest.json" or damage != "middle bit" else ""  # a flipped checksum blames its file
    assert mentioned in reasons[0]


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"model.safetensors": 3}'])
def test_a_manifest_that_promises_nothing_is_not_trusted(tmp_path, content):
    # Once wrong: `{}` counts as valid, as no file is checked; loading then ends in a traceback if one is missing.
    write(tmp_path, [4, 8])
    (tmp_path / "step-00000008/manifest.json").write_text(content)
    found, reasons = checkpoint.newest_valid(tmp_path)
    assert found == tmp_path / "step-00000004" and len(reasons) == 1


def test_a_link_is_passed_over_by_name_and_never_removed(tmp_path):
    """What it leads to may be another run's: neither is learned from it, nor is it tidied away."""
    write(tmp_path / "other", [8])
    write(tmp_path / "own", [4])
    link = tmp_path / "own/step-00000008"
    link.symlink_to(tmp_path / "other/step-00000008")
    found, reasons = checkpoint.newest_valid(tmp_path / "own")
    assert found == tmp_path / "own/step-00000004" and reasons == [
        f"{link}: it is a link, and may be another run's; put the folder itself there to go on from it"]
    write(tmp_path / "own", [6])
    assert checkpoint.newest_valid(tmp_path / "other") == (tmp_path / "other/step-00000008", [])


def test_all_damaged(tmp_path):
    write(tmp_path, [4, 8])
    for step in (4, 8):
        (tmp_path / f"step-{step:08}/model.safetensors").unlink()
    found, reasons = checkpoint.newest_valid(tmp_path)
    assert found is None and ["step-00000008" in reasons[0], "step-00000004" in reasons[1]] == [True, True]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_are_kept(tmp_path, keep):
    write(tmp_path, [9, 10, 99, 100, 1000], keep)
    assert names(tmp_path) == [f"step-{step:08}" for step in (9, 10, 99, 100, 1000)[-keep:]]


def test_damaged_checkpoints_do_not_push_out_new_ones(tmp_path):
    """After 20 was found damaged, training goes on from 10 and saves 15: that one has to stay.

    Bug found 5: the newest by number are kept, so that with keep=1 the new one is removed at once.
    """
    write(tmp_path, [10, 20])
    (tmp_path / "step-00000020/model.safetensors").write_bytes(b"cut")
    write(tmp_path, [15], keep=1)
    found, _ = checkpoint.newest_valid(tmp_path)
    assert found == tmp_path / "step-00000015"


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 5, *trained(seed=1), {"mark": 1}, keep=2)
    model, optimizers = trained(seed=2)
    path = save(tmp_path, 5, model, optimizers, {"mark": 2}, keep=2)
    assert names(tmp_path) == ["step-00000005"] and checkpoint.newest_valid(tmp_path) == (path, [])
    other, others = trained(seed=3)
    assert checkpoint.load(path, other, others)["mark"] == 2
    assert_same(dict(other.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "ctrl-c"])
@pytest.mark.parametrize("part", ["save_file", "torch.save", "write_json", "fsync", "replace"])
def test_nothing_half_written_is_left_when_writing_fails(tmp_path, monkeypatch, part, error):
    write(tmp_path, [4])

    def fail(*args, **kwargs):
        raise error

    target = {"save_file": (checkpoint, "save_file"), "torch.save": (checkpoint.torch, "save"),
              "write_json": (checkpoint, "write_json"), "fsync": (small.os, "fsync"),
              "replace": (small.os, "replace")}[part]
    with monkeypatch.context() as patch:
        patch.setattr(*target, fail)
        with pytest.raises(type(error)):
            write(tmp_path, [8])
    assert names(tmp_path) == ["step-00000004"]
    assert checkpoint.newest_valid(tmp_path) == (tmp_path / "step-00000004", [])
    write(tmp_path, [8])
    assert checkpoint.newest_valid(tmp_path) == (tmp_path / "step-00000008", [])


def test_a_half_written_directory_is_never_taken_for_a_checkpoint(tmp_path):
    """What a killed process leaves: a temporary directory, even a complete one, is not a checkpoint."""
    write(tmp_path, [4, 8])
    shutil.copytree(tmp_path / "step-00000008", tmp_path / ".step-00000012.abcd")
    assert checkpoint.newest_valid(tmp_path) == (tmp_path / "step-00000008", [])
    assert json.loads((tmp_path / "step-00000008/state.json").read_text())["step"] == 8


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    # Once wrong: temporary directories, each as large as a checkpoint, stay for ever.
    write(tmp_path, [4])
    shutil.copytree(tmp_path / "step-00000004", tmp_path / ".step-00000008.abcd1234")
    write(tmp_path, [8, 12], keep=2)
    assert names(tmp_path) == ["step-00000008", "step-00000012"]


def right_checksums(path, listed=()) -> None:
    """A manifest for the files as they are now, and for what else is listed."""
    sums = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in FILES[1:]}
    (path / "manifest.json").write_text(json.dumps(sums | dict(listed)))


def spoil_optimizer(path, change) -> None:
    states = torch.load(path / "optimizer.pt", weights_only=True)
    change(states)
    torch.save(states, path / "optimizer.pt")


@pytest.mark.parametrize(("state", "said"), [
    ("{}", "'step' is missing"), ("", "JSON"), ("[]", "a mapping"), ('{"step": "2"}', "a whole number, found '2'"),
    ('{"step": 1}', "is of step 1"), ('{"step": 2, "seconds": "abc"}', "'seconds' should be a number"),
    ('{"step": 2, "seconds": NaN}', "less than zero"), ('{"step": 2, "tokens": -3}', "less than zero"),
    ('{"step": 2, "running": {"a": 1}}', "a list"), ("[" * 100_000, "too deep"),
    ('{"step": 2, "tokens": ' + "9" * 5000 + "}", "100 digits")])
def test_a_state_that_is_none_is_passed_over_though_its_checksum_is_right(tmp_path, state, said):
    write(tmp_path, (1, 2))
    (tmp_path / "step-00000002/state.json").write_text(state)
    right_checksums(tmp_path / "step-00000002")
    path, passed_over = checkpoint.newest_valid(tmp_path)
    assert path.name == "step-00000001" and len(passed_over) == 1 and said in passed_over[0]
    with pytest.raises(UserError, match="Delete this checkpoint"):
        checkpoint.read_state(tmp_path / "step-00000002")


@pytest.mark.parametrize("listed", ["/dev/zero", "../../../x", "sub"])
def test_a_manifest_names_no_other_files(tmp_path, listed):
    write(tmp_path, (1, 2))
    (tmp_path / "step-00000002/sub").mkdir()
    right_checksums(tmp_path / "step-00000002", {listed: "00"})
    path, passed_over = checkpoint.newest_valid(tmp_path)
    assert path.name == "step-00000001" and "no file of a checkpoint" in passed_over[0]


@pytest.mark.parametrize(("change", "said"), [
    (lambda states: states[0].clear(), "no groups"), (lambda states: states[0]["state"].update({0: 3}), "parameter 0"),
    (lambda states: states[0]["state"].update({999: {}}), "parameter 999"),
    (lambda states: states[0]["state"][0].pop("exp_avg"), "has step, exp_avg_sq, not"),
    (lambda states: states[0]["state"][0].update(exp_avg=torch.zeros(2, 1)), "does not have its shape"),
    (lambda states: states[0]["param_groups"][0].update(lr="fast"), "lr is fast"),
    (lambda states: states[0]["param_groups"][0].update(betas=(0.9,)), "betas"),
    (lambda states: states[0]["param_groups"][0].update(eps=float("nan")), "eps is nan"),
    (lambda states: states[1]["param_groups"][0].update(ns_steps=10**12), "ns_steps"),
    (lambda states: states[0].update(param_groups=[]), "other parameters")])
def test_optimisers_that_could_not_go_on_are_refused(tmp_path, change, said):
    write(tmp_path, (1,))
    path = tmp_path / "step-00000001"
    spoil_optimizer(path, change)
    model, optimizers = trained(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=said):
        checkpoint.load(path, model, optimizers)
    assert_same(dict(model.state_dict()), before)


def test_junk_and_other_shapes_are_refused(tmp_path):
    write(tmp_path, (1,))
    path = tmp_path / "step-00000001"
    (path / "optimizer.pt").write_bytes(b"junk" * 100)
    with pytest.raises(UserError, match="cannot be read as the state of optimisers.*Delete this checkpoint"):
        checkpoint.load(path, *trained())
    saved = load_file(path / "model.safetensors")
    name = next(iter(saved))
    save_file(saved | {name: saved[name][:1].contiguous()}, path / "model.safetensors")
    with pytest.raises(UserError, match=f"another model; {name} is float32"):  # it would have been broadcast
        checkpoint.load(path, *trained())
    (path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        checkpoint.load(path, *trained())
