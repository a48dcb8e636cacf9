"""One trajectory however it is computed: at once, in micro-batches, by two processes, or broken off and resumed."""

import copy
import json
import random

import numpy as np
import pytest
import small
import torch
import transformers
from launching import group
from safetensors.torch import load_file
from small import full_labels
from toy import Toy

from toolkit.data.batches import IGNORED
from toolkit.errors import UserError
from toolkit.run.files import write_json
from toolkit.training import checkpoint, feed
from toolkit.training import trainer as loop
from toolkit.training.feed import as_tensors, to_device
from toolkit.training.impl.distributed import make_accelerator, share
from toolkit.training.optim import learning_rate_factor
from toolkit.training.task import TrainingConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("loop")
    return {"root": root, "bert": small.small_data(root, "wordpiece"), "gpt": small.small_data(root, "bytes")}


def make_task(data, kind: str, dropout: float = 0.0):
    return (small.bert_task if kind == "bert" else small.gpt_task)(data[kind], dropout)


def mean_loss(kind: str, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """transformers' own loss, which is a mean over what the batch predicts."""
    if kind == "bert":
        inputs = {key: batch[key] for key in ("input_ids", "token_type_ids", "attention_mask")}
        return model(**inputs, labels=full_labels(batch), next_sentence_label=batch["next_sentence_label"]).loss
    # transformers shifts labels to the left itself.
    labels = torch.cat([torch.full_like(batch["labels"][:, :1], IGNORED), batch["labels"][:, :-1]], 1)
    logits = model(batch["input_ids"], labels=labels).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED)


def reference(task, kind: str, clip: float, micro: int = 32) -> dict[str, torch.Tensor]:
    """Clipped SGD written out, with transformers' classes. `micro` < 32 averages the means of micro-batches: naive."""
    auto = transformers.BertForPreTraining if kind == "bert" else transformers.GPT2LMHeadModel
    config = copy.deepcopy(task.model.config)
    config._attn_implementation = "eager"
    model = auto(config)
    model.load_state_dict(task.model.state_dict())
    model.train()
    for step in range(3):
        batch = to_device(as_tensors(task.batch(step, range(32))), CPU)
        model.zero_grad()
        for start in range(0, 32, micro):
            part = {key: value[start:start + micro] for key, value in batch.items()}
            (mean_loss(kind, model, part) * micro / 32).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip or 1e9)
        assert norm > 0.3, "nothing to clip"
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.3 * parameter.grad
    return model.state_dict()


def difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest over the tensors of |found − expected| / |expected|."""
    assert found.keys() >= expected.keys()
    return max(float((found[name] - expected[name]).norm() / expected[name].norm().clamp(min=1e-2))
               for name in expected)


ROUNDING = 1e-5


@pytest.fixture(scope="module")
def expected(data):
    return {(kind, clip): reference(make_task(data, kind), kind, clip) for kind in ("bert", "gpt")
            for clip in (0.0, 0.3)}


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_naive_averaging_would_be_seen(data, expected, kind):
    task = make_task(data, kind)
    counts = [max(task.counts(task.batch(0, range(start, start + 8))).values()) for start in range(0, 32, 8)]
    assert max(counts) > 1.05 * min(counts), counts
    assert difference(reference(task, kind, 0.0, micro=8), expected[kind, 0.0]) > 30 * ROUNDING
    assert difference(make_task(data, kind).model.state_dict(), expected[kind, 0.0]) > 1000 * ROUNDING


@pytest.mark.parametrize("kind", ["bert", "gpt"])
@pytest.mark.parametrize("clip", [0.0, 0.3])
@pytest.mark.parametrize("micro", [None, 8, 5, 1])
def test_accumulation_changes_nothing(data, expected, tmp_path, monkeypatch, kind, micro, clip):
    monkeypatch.setitem(small.PARTS, "make_optimizers", small.sgd)
    task = make_task(data, kind)
    small.train(task, tmp_path, small.sgd_steps(clip), micro_batch_size=micro)
    assert difference(task.model.state_dict(), expected[kind, clip]) < ROUNDING


@pytest.fixture(scope="module")
def shared(data):
    """The same in two processes."""
    for finished in group(small.__file__, [str(data["root"])], data["root"] / "said"):
        assert finished.code == 0, finished.err
    return data["root"]


@pytest.mark.parametrize("clip", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_two_processes_change_nothing(data, expected, shared, tmp_path, monkeypatch, kind, clip):
    name = f"two-{kind}-{clip}"
    facts = json.loads((shared / "two.json").read_text())
    assert facts["processes"] == 2
    weights = torch.load(shared / f"{name}.pt")
    assert difference(weights, expected[kind, clip]) < ROUNDING
    # What is logged and evaluated is of all rows, too.
    monkeypatch.setitem(small.PARTS, "make_optimizers", small.sgd)
    result = small.train(make_task(data, kind), tmp_path, small.sgd_steps(clip))
    for one, two in zip(small.records(tmp_path), small.records(shared / name), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    timeless = [{key: value for key, value in metrics.items() if key not in small.TIMING}
                for metrics in (facts[name], result)]
    assert timeless[0] == pytest.approx(timeless[1], rel=1e-4)
    saved = load_file(shared / name / "model/model.safetensors")
    assert all(torch.equal(tensor, weights[key]) for key, tensor in saved.items()), "saved is not trained"


def test_two_processes_resume_as_if_unbroken(shared):
    # Once wrong: every rank resumes with the running loss of rank 0, so that the next logged loss is wrong.
    assert json.loads((shared / "two.json").read_text())["stopped"]
    unbroken, resumed = shared / "two-unbroken", shared / "two-resumed"
    assert (small.digest(unbroken / "checkpoints/step-00000006/model.safetensors")
            == small.digest(resumed / "checkpoints/step-00000006/model.safetensors"))
    assert small.records(resumed) == small.records(unbroken)


def test_the_best_model_is_kept(tmp_path):
    hashes = []

    class Watched(Toy):
        def evaluate(self, model, accelerator, precision):
            hashes.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            return super().evaluate(model, accelerator, precision)

    config = TrainingConfig(max_steps=7, batch_size=4, eval_steps=2, logging_steps=3, save_steps=0)
    result = small.train(Watched([3.0, 1.0, 2.0, 5.0]), tmp_path, config)
    # Once wrong: the result was that of the last step, whose model is not the one that is saved.
    assert result["loss"] == 1.0 and (result["best_step"], result["steps"]) == (4, 7)
    records = small.records(tmp_path)
    assert [(record["step"], record["eval_loss"]) for record in records if "eval_loss" in record] == [
        (2, 3.0), (4, 1.0), (6, 2.0), (7, 5.0)]
    assert [record["step"] for record in records if "loss" in record] == [3, 6, 7]
    saved = load_file(tmp_path / "model/model.safetensors")
    assert all(torch.equal(saved[name], hashes[1][name]) for name in saved)
    assert not torch.equal(hashes[1]["bert.pooler.dense.bias"], hashes[3]["bert.embeddings.LayerNorm.bias"])


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_the_mean_of_the_weights_is_what_is_judged_and_kept(tmp_path, clip):
    """Training goes on with the weights themselves, as if there were no mean."""
    def weights(model):
        return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    stepped, judged = [], []

    class Watched(Toy):
        def batch(self, step, rows):
            stepped.append(weights(self.model))
            return super().batch(step, rows)

        def evaluate(self, model, accelerator, precision):
            judged.append(weights(model))
            return super().evaluate(model, accelerator, precision)

    config = TrainingConfig(max_steps=6, batch_size=4, eval_steps=3, save_steps=0, max_grad_norm=clip)
    plain, averaged = Toy([2.0, 1.0]), Watched([2.0, 1.0])
    small.train(plain, tmp_path / "plain", config)
    small.train(averaged, tmp_path / "mean", TrainingConfig(**{**vars(config), "ema_decay": 0.2}))
    assert all(torch.equal(value, weights(averaged.model)[name]) for name, value in weights(plain.model).items())
    stepped = [*stepped[-6:], weights(averaged.model)]  # before each step, and after the last
    mean = stepped[0]
    for step, now in enumerate(stepped[1:], 1):
        kept = min(0.2, step / (step + 10))
        mean = {name: kept * mean[name] + (1 - kept) * value for name, value in now.items()}
        if step in (3, 6):
            for name, value in judged[step // 3 - 1].items():
                torch.testing.assert_close(value, mean[name], rtol=1e-5, atol=1e-7)
    saved = load_file(tmp_path / "mean/model/model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in judged[-1].items() if name in saved)
    assert not torch.equal(judged[-1]["cls.predictions.bias"], stepped[-1]["cls.predictions.bias"])


@pytest.mark.parametrize("decay", [1.0, -0.1, 98])
def test_a_mean_that_is_none_is_refused(tmp_path, decay):
    with pytest.raises(UserError, match=rf"training.ema_decay is {decay}; it is the share"):
        small.train(Toy([1.0]), tmp_path, TrainingConfig(max_steps=1, batch_size=4, ema_decay=decay))


def test_an_evaluation_that_is_no_number_is_not_the_best(tmp_path):
    # Once wrong: nothing is less than NaN, so that a first evaluation of NaN stayed the best.
    config = TrainingConfig(max_steps=8, batch_size=4, eval_steps=2, save_steps=0)
    steps = []

    class Noted(Toy):
        def save(self, model, directory):
            steps.append(self.drawn[-1][0] + 1)
            super().save(model, directory)

    small.train(Noted([float("nan"), 2.0, float("nan"), 1.5]), tmp_path, config)
    assert steps == [2, 4, 8]


def test_logged_numbers(tmp_path):
    """`loss` is the mean over the steps since the last line, the learning rate that of the last one's middle."""
    config = TrainingConfig(max_steps=5, batch_size=4, logging_steps=2, save_steps=0, warmup_ratio=0.2)
    small.train(Toy([1.0]), tmp_path / "twos", config)
    small.train(Toy([1.0]), tmp_path / "ones", TrainingConfig(**{**vars(config), "logging_steps": 1}))
    twos = [record for record in small.records(tmp_path / "twos") if "loss" in record]
    ones = [record for record in small.records(tmp_path / "ones") if "loss" in record]
    assert [record["step"] for record in twos] == [2, 4, 5] and [record["step"] for record in ones] == [1, 2, 3, 4, 5]
    losses = [record["loss"] for record in ones]
    assert [record["loss"] for record in twos] == pytest.approx(
        [sum(losses[:2]) / 2, sum(losses[2:4]) / 2, losses[4]], rel=1e-6)
    for record in twos + ones:
        assert record["learning_rate"] == pytest.approx(1e-3 * learning_rate_factor(config, (record["step"] - 0.5) / 5))
        assert record["tokens"] == record["step"] * 24 and record["grad_norm"] > 0
        assert record["toy_loss"] == record["loss"]


@pytest.mark.parametrize(("fail_at", "impl"), [  # before any checkpoint; with 2 saved and 3 logged; with 4 and 3
    (1, {"micro_batch_size": 3}), (3, {"micro_batch_size": 3}), (5, {"micro_batch_size": 3}), (5, {"num_workers": 1})])
def test_resumed_is_unbroken(tmp_path, fail_at, impl):
    """Steps lost between checkpoint and failure are repeated, not skipped; logged once; dropout is on."""
    config = TrainingConfig(max_steps=8, batch_size=7, eval_steps=4, logging_steps=3, save_steps=2, optimizer="muon",
                            ema_decay=0.9)
    unbroken = small.train(Toy([3.0, 2.0]), tmp_path / "unbroken", config, **impl)
    with pytest.raises(small.Stopped):
        small.train(Toy([3.0, 2.0], fail_at), tmp_path / "resumed", config, **impl)
    # The checkpoint at 4 comes before the evaluation there, which a run that resumes from it makes.
    resumed = Toy([3.0, 2.0])
    result = small.train(resumed, tmp_path / "resumed", config, **impl)
    assert {key: result[key] for key in ("loss", "best_step", "steps")} == {"loss": 2.0, "best_step": 8, "steps": 8}
    assert {**result, **dict.fromkeys(small.TIMING)} == {**unbroken, **dict.fromkeys(small.TIMING)}
    if "num_workers" not in impl:  # with workers, batches are drawn elsewhere
        assert resumed.drawn[0] == (fail_at // 2 * 2, range(7))
    for file in ("model/model.safetensors", "checkpoints/step-00000008/model.safetensors"):
        assert small.digest(tmp_path / "resumed" / file) == small.digest(tmp_path / "unbroken" / file)
    assert small.records(tmp_path / "resumed") == small.records(tmp_path / "unbroken")
    assert sorted(path.name for path in (tmp_path / "resumed/checkpoints").iterdir()) == [
        "step-00000006", "step-00000008"]


def test_stopped_after_the_last_step_but_before_the_result(tmp_path):
    """The checkpoint of the last step is there, the result is not: the same metrics, logged once."""
    # Once wrong: the last evaluation is run again, and logged a second time.
    config = TrainingConfig(max_steps=4, batch_size=4, save_steps=2)
    small.train(Toy([2.0]), tmp_path, config)
    before = small.records(tmp_path)
    assert small.train(Toy([2.0]), tmp_path, config)["loss"] == 2.0
    assert small.records(tmp_path) == before


class Asked(Toy):
    """Its evaluation measures the model that it is given."""

    def evaluate(self, model, accelerator, precision):
        assert not model.training
        score = abs(float(model.cls.predictions.bias.detach().double().sum()) - self.values[0])
        return {"loss": score, "asked": 1.0}


@pytest.mark.parametrize("old", [False, True])
def test_a_resumed_run_tells_what_the_kept_model_scored(tmp_path, old):
    """Also where nothing after the checkpoint is better, and where it is of a version that did not note it."""
    config = TrainingConfig(max_steps=8, batch_size=7, eval_steps=2, save_steps=3, learning_rate=1e-2)
    model = Toy().model
    target = float(model.cls.predictions.bias.detach().double().sum()) + 1e-4  # further off with every step
    unbroken = small.train(Asked([target]), tmp_path / "unbroken", config)
    scores = [record["eval_loss"] for record in small.records(tmp_path / "unbroken") if "eval_loss" in record]
    assert scores[0] == min(scores) == unbroken["loss"] < scores[-1] and unbroken["best_step"] == 2
    with pytest.raises(small.Stopped):
        small.train(Asked([target], fail_at=7), tmp_path / "resumed", config)
    if old:
        _forget(tmp_path / "resumed/checkpoints/step-00000006", "kept")
    resumed = small.train(Asked([target]), tmp_path / "resumed", config)
    assert resumed["loss"] == unbroken["loss"] and resumed["asked"] == 1.0 and resumed["steps"] == 8
    assert old or resumed["best_step"] == 2
    assert small.records(tmp_path / "resumed") == small.records(tmp_path / "unbroken")


def _forget(path, key):
    """Take a key out of a checkpoint's state, as if a version without it had written it."""
    state = small.read_json(path / "state.json")
    del state[key]
    write_json(path / "state.json", state)
    manifest = small.read_json(path / "manifest.json")
    write_json(path / "manifest.json", manifest | {"state.json": checkpoint._sha256(path / "state.json")})


def test_damaged_checkpoints_are_named_and_passed_over(tmp_path, capfd):
    config = TrainingConfig(max_steps=6, batch_size=4, save_steps=2, logging_steps=1)
    small.train(Toy([2.0]), tmp_path / "unbroken", config)
    with pytest.raises(small.Stopped):
        small.train(Toy([2.0], fail_at=5), tmp_path / "resumed", config)
    broken = tmp_path / "resumed/checkpoints/step-00000004/model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-100])
    small.train(Toy([2.0]), tmp_path / "resumed", config)
    said = capfd.readouterr().out
    assert "step-00000004: model.safetensors does not match its checksum" in said
    assert "resuming at step 2 with 33 % of max_steps used" in said
    assert small.records(tmp_path / "resumed") == small.records(tmp_path / "unbroken")
    path, _ = checkpoint.newest_valid(tmp_path / "resumed/checkpoints")
    assert path.name == "step-00000006"


def test_the_last_checkpoint_survives_a_limit_of_zero(tmp_path):
    # Once wrong: save_total_limit 0 removes each checkpoint just after writing it; it should be refused, or mean 1.
    config = TrainingConfig(max_steps=2, batch_size=4, save_steps=1, save_total_limit=0)
    try:
        small.train(Toy([2.0]), tmp_path, config)
    except UserError as error:
        assert "save_total_limit" in str(error)
    else:
        assert checkpoint.newest_valid(tmp_path / "checkpoints")[0] is not None


def test_shares_are_a_partition():
    for total in (1, 2, 7, 32, 1000):
        for world in (1, 2, 3, 7):
            parts = [share(total, rank, world) for rank in range(world)]
            assert [row for part in parts for row in part] == list(range(total))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("name", ["TOOLKIT_NPROC", "WORLD_SIZE"])
def test_fewer_processes_than_asked_for_are_refused(monkeypatch, name):
    make_accelerator()
    monkeypatch.setenv(name, "2")
    with pytest.raises(UserError, match="2 processes were asked for, but the process group has 1"):
        make_accelerator()


@pytest.mark.parametrize("largest", [0.5, 1e3])
def test_clipping_is_torchs(largest):
    """Bit for bit where there is something to clip and where there is not; parameters without a gradient are passed."""
    found, expected = [], []
    for parameters in (found, expected):
        generator = torch.Generator().manual_seed(4)
        for shape in ((7, 5), (5,), (3, 2, 4)):
            parameter = torch.nn.Parameter(torch.zeros(shape))
            parameter.grad = torch.randn(shape, generator=generator)
            parameters.append(parameter)
        parameters.insert(1, torch.nn.Parameter(torch.zeros(2)))
    before = [parameter.grad.clone() for parameter in found if parameter.grad is not None]
    norm = loop._clip(found, largest)
    assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(expected, largest)) and 0.5 < norm < 1e3
    gradients = [parameter.grad for parameter in found if parameter.grad is not None]
    assert all(map(torch.equal, gradients, [parameter.grad for parameter in expected if parameter.grad is not None]))
    assert all(map(torch.equal, gradients, before)) == (largest == 1e3)
    assert loop._clip(found, 0.0) == torch.nn.utils.get_total_norm(gradients), "0 measures only"


def test_a_gradient_that_is_no_number_is_seen():
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([1.0, float("nan"), 2.0])
    assert loop._clip([parameter], 1.0).isnan() and parameter.grad.isnan().all()


def test_seeding_makes_generators_functions_of_the_arguments():
    def draws(*parts: int) -> tuple:
        feed.seed_everything(*parts)
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    first = draws(7, 0, 0, 0)
    torch.rand(5), np.random.rand(2), random.random()
    assert draws(7, 0, 0, 0) == first
    others = [draws(7, 1, 0, 0), draws(7, 0, 1, 0), draws(7, 0, 0, 1), draws(8, 0, 0, 0), draws(7, 0, 0)]
    for kind in range(3):
        assert len({str(draw[kind]) for draw in [first, *others]}) == 6
    feed.seed_everything(7, 0, 0, 0)
    value = torch.initial_seed()
    torch.manual_seed(value)
    assert torch.rand(3).tolist() == first[0], "not what torch.manual_seed gives"


class Failing(Toy):
    """Its evaluation fails as often as its values say so."""

    def evaluate(self, model, accelerator, precision):
        if self.values[0] is None:
            raise MemoryError
        return super().evaluate(model, accelerator, precision)


@pytest.mark.parametrize("failing", [1, 2])
def test_an_evaluation_that_fails_costs_no_step_and_is_made_when_the_run_goes_on(tmp_path, failing):
    """In the middle and at the end; early stopping and the kept model are those of an unbroken run."""
    config = TrainingConfig(max_steps=8, batch_size=7, eval_steps=4, logging_steps=3, save_steps=4,
                            early_stopping_patience=2)
    values = [3.0, 2.0]
    small.train(Toy(values), tmp_path / "unbroken", config)
    broken = Failing([*values[:failing - 1], None])
    with pytest.raises(MemoryError):
        small.train(broken, tmp_path / "resumed", config)
    resumed = Toy(values[failing - 1:])
    small.train(resumed, tmp_path / "resumed", config)
    assert len(resumed.drawn) == (5 if failing == 1 else 0), "a step that was saved was made again"  # one: warm-up
    for file in ("model/model.safetensors", "checkpoints/step-00000008/model.safetensors"):
        assert small.digest(tmp_path / "resumed" / file) == small.digest(tmp_path / "unbroken" / file)
    assert small.records(tmp_path / "resumed") == small.records(tmp_path / "unbroken")


@pytest.mark.parametrize("name", ["eval_steps", "save_steps"])
def test_every_minus_first_step_is_no_step(tmp_path, name):
    # Once wrong: done % -1 is 0, so that each step was evaluated or saved.
    with pytest.raises(UserError, match=rf"training\.{name} is -1; give a number of steps, or 0: only"):
        small.train(Toy([1.0]), tmp_path, TrainingConfig(max_steps=1, batch_size=4, **{name: -1}))


def test_patience_without_evaluations_is_told(tmp_path, capfd):
    small.train(Toy([1.0]), tmp_path, TrainingConfig(max_steps=1, batch_size=4, early_stopping_patience=3))
    assert "early_stopping_patience does nothing, since training.eval_steps is 0" in capfd.readouterr().out
