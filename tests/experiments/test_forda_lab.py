"""The Keras example rebuilt, and the lab around it: sizes, resumption, files, a test set that nothing is chosen on."""

import json
import math

import forda_lab
import numpy as np
import pytest
import torch
from reading import reads_alike_without_rows
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from toolkit import config
from toolkit.data.series.generators import cylinder_bell_funnel
from toolkit.data.series.splits import SeriesDataSection
from toolkit.errors import UserError
from toolkit.experiments import forda as lab
from toolkit.experiments.forda import FordaLabConfig
from toolkit.models.small.keras_forda import HEADS, KEY_DIM, KerasForda, KerasFordaConfig, KerasMultiHead
from toolkit.run.results import read_results
from toolkit.tasks import base
from toolkit.tasks.classification import FineTuningConfig
from toolkit.training.impl.distributed import make_accelerator

ARMS = ["full", "identity", "uniform", "mixer", "flatten-mlp", "no-positions"]


@pytest.fixture(scope="module")
def accelerator():
    return make_accelerator()


# ---- the Keras example


@pytest.mark.parametrize("norm_first", [True, False])
def test_the_example_has_the_published_parameter_counts(norm_first):
    model = KerasForda(KerasFordaConfig(norm_first=norm_first))
    assert model.num_parameters() == 93_130
    assert sum(parameter.numel() for parameter in model.mlp.parameters()) == 64_386
    attention = sum(parameter.numel() for parameter in model.blocks[0].attention_branch.attention.parameters())
    assert attention == 7_169, "as Keras's summary has for MultiHeadAttention"
    assert model(torch.randn(2, 1, 500)).logits.shape == (2, 2)
    other = KerasForda(KerasFordaConfig(length=40, num_labels=5, norm_first=norm_first))
    assert other.num_parameters() == 93_130 - 460 * 128 + 3 * 129
    with pytest.raises(ValueError, match=r"\(batch, 1, 40\), not \(2, 1, 41\)"):
        other(torch.randn(2, 1, 41))


def test_attention_is_keras_multi_head_attention():
    """Against queries, keys and values written out in all their 256 dimensions."""
    torch.manual_seed(0)
    attention = KerasMultiHead().eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(3, 10, 1)
    query, key, value = (dense(x).view(3, 10, HEADS, KEY_DIM).transpose(1, 2)
                         for dense in (attention.query, attention.key, attention.value))
    context = F.scaled_dot_product_attention(query, key, value)
    output, weights = attention(x)
    torch.testing.assert_close(output, attention.output(context.transpose(1, 2).flatten(2)), atol=1e-4, rtol=1e-4)
    expected = torch.softmax(query @ key.transpose(2, 3) / 16, -1)
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-4)
    assert weights.std() > 0.01, "or nothing was compared"


def test_initial_values_are_keras():
    torch.manual_seed(0)
    model = KerasForda(KerasFordaConfig())
    attention, feed_forward = model.blocks[0].attention_branch.attention, model.blocks[0].feed_forward_branch
    for weight, fans in ((attention.query.weight, 4 + 256), (attention.output.weight, 1024 + 4),
                         (feed_forward.up.weight, 1 + 4), (model.mlp[0].weight, 500 + 128)):
        bound = math.sqrt(6 / fans)
        assert weight.abs().max() <= bound and (weight.numel() < 9 or weight.abs().max() > 0.97 * bound)
    assert not attention.key.bias.any() and not model.mlp[3].bias.any()


@pytest.mark.parametrize("norm_first", [True, False])
def test_its_blocks_come_to_one_number(norm_first, tmp_path):
    torch.manual_seed(0)
    model = KerasForda(KerasFordaConfig(length=30, norm_first=norm_first))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    values, labels = torch.randn(16, 1, 30), torch.arange(16) % 2
    for _ in range(10):  # so that norms have weights and biases
        optimiser.zero_grad()
        model(values, labels=labels).loss.backward()
        optimiser.step()
    model.eval()
    assert any(block.attention_branch.norm.bias.abs() > 1e-3 for block in model.blocks)
    fresh = torch.randn(50, 1, 30)
    with torch.no_grad():
        torch.testing.assert_close(model.without_blocks(fresh), model(fresh).logits, atol=2e-5, rtol=1e-5)
        zero = model.mlp(torch.zeros(1, 30))
        assert not torch.allclose(model.without_blocks(torch.zeros(1, 1, 30)), zero, atol=1e-3), "the number is not 0"
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(again) is KerasForda and torch.equal(again(fresh).logits, model(fresh).logits)


# ---- the lab


def write_forda(directory, length: int = 48, per_class: int = 15):
    """Files named like the archive's, of a set that is not FordA."""
    directory.mkdir(parents=True, exist_ok=True)
    for split, seed in (("TRAIN", 0), ("TEST", 1)):
        data = cylinder_bell_funnel(per_class, seed)
        lines = ["\t".join([str([-1, 1][label % 2]), *(f"{value:.6f}" for value in series[::128 // length][:length])])
                 for series, label in zip(data.values[:, 0], data.labels, strict=True)]
        (directory / f"FordA_{split}.tsv").write_text("\n".join(lines) + "\n")
    return directory


def quick(directory, forda, **settings) -> FordaLabConfig:
    training = FineTuningConfig(max_steps=4, batch_size=8, learning_rate=1e-3, logging_steps=2, eval_steps=2)
    return FordaLabConfig(**{"output_dir": str(directory), "forda": str(forda), "seeds": 2, "arms": ARMS,
                             "patch_length": 8, "width": 32, "training": training, **settings})


@pytest.fixture(scope="module")
def forda(tmp_path_factory):
    return write_forda(tmp_path_factory.mktemp("archive") / "FordA")


@pytest.fixture(scope="module")
def finished(forda, tmp_path_factory, accelerator):
    """The lab once through, on two seeds of few steps."""
    directory = tmp_path_factory.mktemp("lab") / "run"
    settings = quick(directory, forda.parent)  # the folder above will do, too
    return settings, directory, forda_lab.forda_lab(settings, accelerator)


def test_every_arm_has_the_examples_size_and_an_interval(finished):
    _, directory, result = finished
    assert json.loads((directory / "result.json").read_text()) == result
    assert result["data"] == "FordA" and result["test_examples"] == 45
    parameters = 28_744 + 48 * 128 + 128 + 128 * 2 + 2
    assert result["parameters"] == parameters
    assert list(result["arms"]) == ["full", "identity", "uniform", "mixer", "no-positions", "flatten-mlp", "keras",
                                    "majority"]
    for arm, entry in result["arms"].items():
        if arm != "majority":
            assert abs(entry["parameters"] - parameters) <= 0.02 * parameters
        assert len(entry["values"]) == (1 if arm == "keras" else 2) and entry["mean"] == pytest.approx(
            np.mean(entry["values"]))
        if arm != "full":
            gaps = [100 * (whole - own) for whole, own in zip(result["arms"]["full"]["values"], entry["values"],
                                                              strict=False)]
            assert entry["ahead_points"]["mean"] == pytest.approx(np.mean(gaps), abs=1e-9)
            low, high = entry["test_set_points"][1:]
            assert low <= entry["test_set_points"][0] <= high
    for name in ("examples", "spectra", "learning-curves", "arms"):
        assert (directory / f"plots/{name}.png").stat().st_size > 10_000
    table = (directory / "table.md").read_text()
    assert "| Keras example" in table and "attention → MLP mixer" in table and "\n- " in table


def test_the_keras_example_is_shown_dead_and_its_blocks_replaced(finished):
    _, _, result = finished
    found = result["dead_branches"]["keras"]
    assert set(found["states"].values()) == {"dead"} and len(found["states"]) == 8
    assert found["answers_changed_without_blocks"] == 0 and found["largest_change_without_blocks"] < 1e-4
    assert result["verdict"][0].startswith("Keras example: 8 of 8 branches add a constant.")
    assert set(result["dead_branches"]) == {*ARMS, "keras"}
    assert "dead" not in result["dead_branches"]["full"]["states"].values()
    assert result["dead_branches"]["uniform"]["states"]["block 1 attention"] == "mean"


def test_a_finished_arm_is_not_trained_again(finished, accelerator, monkeypatch):
    settings, directory, result = finished
    monkeypatch.setattr(base, "train", lambda *args, **kwargs: pytest.fail("an arm was trained again"))
    assert forda_lab.forda_lab(settings, accelerator) == result
    (directory / "result.json").unlink()
    arm = directory / "identity/seed-1/result.json"
    predictions = json.loads(arm.read_text())["predictions"]
    arm.write_text(json.dumps(json.loads(arm.read_text()) | {"predictions": [1 - label for label in predictions]}))
    again = forda_lab.forda_lab(settings, accelerator)
    assert again["arms"]["identity"]["values"] == pytest.approx(
        [result["arms"]["identity"]["values"][0], 1 - result["arms"]["identity"]["values"][1]])
    assert again["arms"]["mixer"] | {"ahead_points": 0} == result["arms"]["mixer"] | {"ahead_points": 0}


def test_rows_say_what_the_result_says_and_a_dry_run_tells(finished, forda, tmp_path, accelerator, capsys):
    settings, directory, result = finished
    reads_alike_without_rows(directory)
    rows = read_results(directory).arms()
    assert {arm for _, _, arm in rows} == set(result["arms"])
    assert [row.seconds >= 0 for row in rows["", "", "mixer"]] == [True, True]  # in tenths
    assert "transformer over no positions" in (directory / "README.md").read_text()
    dry = quick(tmp_path / "dry", forda, dry_run=True, arms=["full", "minirocket"], keras_seeds=1)
    assert forda_lab.forda_lab(dry, accelerator) is None
    out = capsys.readouterr().out
    assert "\nfull, 2 fits, each of them:" in out and "\nkeras, 1 fits" in out and "minirocket" not in out
    assert not (tmp_path / "dry").exists()


def test_nothing_is_chosen_on_the_test_set(finished, forda, tmp_path, accelerator):
    """With the test labels turned round, every model answers the same, and only the scores differ."""
    settings, directory, result = finished
    turned = tmp_path / "turned"
    turned.mkdir()
    (turned / "FordA_TRAIN.tsv").write_text((forda / "FordA_TRAIN.tsv").read_text())
    lines = (forda / "FordA_TEST.tsv").read_text().splitlines()
    (turned / "FordA_TEST.tsv").write_text("\n".join(
        f"{-int(line.partition(chr(9))[0])}\t{line.partition(chr(9))[2]}" for line in lines) + "\n")
    other = forda_lab.forda_lab(quick(tmp_path / "run", turned, seeds=1, arms=["full", "flatten-mlp"], keras_seeds=0,
                                      check_dead_branches=False), accelerator)
    for arm in ("full", "flatten-mlp"):
        answers = [json.loads((run / arm / "seed-0/result.json").read_text())["predictions"]
                   for run in (directory, tmp_path / "run")]
        assert answers[0] == answers[1]
        assert other["arms"][arm]["mean"] == pytest.approx(1 - result["arms"][arm]["values"][0])


@pytest.mark.slow
def test_generated_by_default_and_minirocket_beside_it(tmp_path, accelerator, capsys):
    data = SeriesDataSection(train_per_class=4, test_per_class=3)
    settings = quick(tmp_path / "run", "", data=data, seeds=1, arms=["full", "minirocket"], keras_seeds=0,
                     patch_length=16)
    result = forda_lab.forda_lab(settings, accelerator)
    assert result["data"] == "noisy-sines" and result["test_examples"] == 12
    assert result["arms"]["minirocket"]["mean"] > 0.5 and result["arms"]["minirocket"]["parameters"] is None
    assert "test_set_points" not in result["arms"]["minirocket"], "each seed has a test set of its own"
    assert any("one seed: no verdict" in line for line in result["verdict"])
    assert "transformer: " in capsys.readouterr().out
    report = tmp_path / "run/full/seed-0/dead-branches.txt"
    assert report.read_text().startswith("transformer, dead-branch check on 16 examples")
    assert "MiniRocket" in forda_lab.show(result)


def entry(mean: float, ahead: float | None = None, ci95: float | None = 1.0) -> dict:
    extra = {} if ahead is None else {"ahead_points": {"mean": ahead, "ci95": ci95}, "verdict": "…"}
    return {"mean": mean, **extra}


@pytest.mark.parametrize(("identity", "mixer", "expected"), [
    ((3.0, 1.0), (2.0, 1.0), "Attention pays here: without it, the best at this size is attention → MLP mixer"),
    ((3.0, 1.0), (0.5, 1.0), "not shown to pay here: attention → MLP mixer does without it and is not disting"),
    ((3.0, 1.0), (-2.0, 1.0), "not shown to pay here: attention → MLP mixer does without it and is ahead"),
    ((3.0, None), (2.0, None), "one seed says nothing")])
def test_the_verdict_follows_the_numbers(identity, mixer, expected):
    arms = {"full": entry(0.9), "identity": entry(0.9 - identity[0] / 100, *identity),
            "mixer": entry(0.9 - mixer[0] / 100, *mixer)}
    assert expected in " ".join(lab.conclusions({"arms": arms, "dead_branches": {}}))


def test_wrong_input_is_one_line(tmp_path, forda, accelerator):
    with pytest.raises(UserError, match=r"nowhere: expected FordA_TRAIN and FordA_TEST .* the folder does not exist\. "
                                        r"Download FordA from https://www\.timeseriesclassification\.com"):
        forda_lab.forda_lab(quick(tmp_path / "a", tmp_path / "nowhere"), accelerator)
    assert not (tmp_path / "a").exists(), "nothing is begun"
    (tmp_path / "half").mkdir()
    (tmp_path / "half/FordA_TRAIN.tsv").write_text("1\t1\t2\n")
    with pytest.raises(UserError, match="but they are not in there"):
        forda_lab.forda_lab(quick(tmp_path / "a", tmp_path / "half"), accelerator)
    with pytest.raises(UserError, match=r"arm full cannot have the 35,274 parameters .* Change width or num_layers"):
        forda_lab.forda_lab(quick(tmp_path / "b", forda, width=96), accelerator)
    with pytest.raises(UserError, match="shorter than one patch of 64"):
        forda_lab.forda_lab(quick(tmp_path / "c", forda, patch_length=64), accelerator)
    two = tmp_path / "two.csv"
    two.write_text("series,time,label,a,b\n" + "".join(
        f"{series},{time},{series % 2},{time},{series}\n" for series in range(10) for time in range(12)))
    section = SeriesDataSection(train=str(two), test=str(two), series_column="series", time_column="time",
                                label_column="label")
    with pytest.raises(UserError, match="series of 2 channels; the Keras example"):
        forda_lab.forda_lab(quick(tmp_path / "d", "", data=section), accelerator)


def test_the_config_that_ships_is_read(repository):
    settings = config.parse(FordaLabConfig, ["--config", str(repository / "recipes/configs/forda-lab.yaml")], "")
    assert settings.seeds >= 5 and settings.impl.dtype == "fp32"
    assert set(settings.arms) == {*ARMS, "minirocket"}
