"""Pretraining on series alone: what is hidden, what is learned, and that the loop can resume it."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from toolkit.data.series.augmentation import AugmentationConfig, AugmentedBatches
from toolkit.data.series.dataset import SeriesDataset, z_normalise
from toolkit.data.series.generators import cylinder_bell_funnel
from toolkit.data.series.masked_patches import MaskedPatchBatches
from toolkit.errors import UserError
from toolkit.models.presets import model_config
from toolkit.models.series.patches import SeriesForMaskedPatches
from toolkit.run.directory import Run
from toolkit.tasks.masked_patches import MaskedPatchesConfig, pretrain_on_series
from toolkit.training.impl.precision import ImplConfig


def test_the_same_share_of_every_series_is_hidden():
    values = np.random.default_rng(0).normal(size=(20, 3, 50)).astype(np.float32)
    batches = MaskedPatchBatches(values, None, 8, 0.4, 8, seed=1)
    batch = batches.batch(3, range(8))
    by_patch = np.pad(batch["masked"], ((0, 0), (0, 0), (0, 6))).reshape(8, 3, 7, 8)
    assert (by_patch[..., 0].sum(-1) == 3).all(), "0.4 of 7, rounded"
    assert (by_patch[..., :2] == by_patch[..., :1]).all(), "whole stretches"
    assert (batch["masked"] == batch["masked"][:, :1]).all(), "all channels at once"
    for rows in (range(0, 3), range(3, 8)):  # whoever asks, for whatever part
        part = batches.batch(3, rows)
        np.testing.assert_array_equal(part["masked"], batch["masked"][rows.start:rows.stop])
        np.testing.assert_array_equal(part["values"], batch["values"][rows.start:rows.stop])
    assert not np.array_equal(batch["masked"], batches.batch(4, range(8))["masked"])
    shares = np.stack([batches.batch(step, range(8))["masked"][:, 0, ::8] for step in range(250)]).mean((0, 1))
    np.testing.assert_allclose(shares, 3 / 7, atol=0.04)
    with pytest.raises(ValueError, match="series of 8 values are one patch of 8"):
        MaskedPatchBatches(values[..., :8], None, 8, 0.4, 8, 0)


def test_augmentation_is_a_function_of_seed_and_step():
    data = cylinder_bell_funnel(10, seed=0)
    data = SeriesDataset(z_normalise(data.values), data.labels, data.label_names)
    batches = AugmentedBatches(data, 16, 3, AugmentationConfig())
    whole, part = batches.batch(5, range(16)), batches.batch(5, range(4, 9))
    for key in ("values", "labels"):
        np.testing.assert_array_equal(whole[key][4:9], part[key])
    assert whole["labels"].shape == (16, 3)
    np.testing.assert_allclose(whole["labels"].sum(1), 1, atol=1e-6)
    still = {"scale": 0.0, "shift": 0.0, "noise": 0.0, "mixup": 0.0}

    def drawn(**changes):
        return AugmentedBatches(data, 256, 3, AugmentationConfig(**{**still, **changes})).batch(0, range(256))

    plain = drawn()["values"]
    assert drawn()["labels"].dtype == np.int64 and not np.array_equal(plain, drawn(mixup=0.5)["values"])
    factors = drawn(scale=0.1)["values"] / plain
    np.testing.assert_allclose(factors, np.broadcast_to(factors[..., :1], factors.shape), rtol=1e-4)
    assert factors[:, 0, 0].std() == pytest.approx(0.1, rel=0.2)
    noise = (drawn(noise=0.4)["values"] - plain).std((1, 2))
    assert np.mean(noise == 0) == pytest.approx(0.5, abs=0.1) and 0.02 < noise.max() < 0.5
    time = np.arange(128)
    moves = [next(by for by in range(-13, 14) if np.array_equal(after[0], before[0, (time - by).clip(0, 127)]))
             for before, after in zip(plain, drawn(shift=0.1)["values"], strict=True)]
    assert np.mean(np.equal(moves, 0)) == pytest.approx(0.52, abs=0.1)  # half, and one in 25 of the others
    assert min(moves) == -12 and max(moves) == 12 and len(set(moves)) > 20
    np.testing.assert_array_equal(batches.rows(np.arange(3))["values"], data.values[:3])


def test_gaps_stay_gaps_when_augmented():
    values = np.ones((6, 2, 20), np.float32)
    observed = np.random.default_rng(0).random(values.shape) < 0.8
    data = SeriesDataset(np.where(observed, values, np.float32(0)), np.arange(6) % 2, ("a", "b"), observed)
    batch = AugmentedBatches(data, 6, 0, AugmentationConfig()).batch(0, range(6))
    assert (batch["values"][~batch["observed"]] == 0).all() and batch["observed"].any()
    moved = AugmentedBatches(data, 6, 0, AugmentationConfig(scale=0, noise=0, mixup=0, shift=0.3)).batch(2, range(6))
    np.testing.assert_array_equal(moved["values"] == 1, moved["observed"])
    assert not np.array_equal(np.sort(moved["observed"].sum(-1), 0), np.sort(observed.sum(-1), 0))


def test_it_learns_sines_and_resumes_to_the_same_weights(tmp_path):
    phase = np.random.default_rng(0).uniform(0, 6.3, (96, 1, 1))
    values = (np.sqrt(2) * np.sin(phase + np.arange(64) * 0.4)).astype(np.float32)

    def make():
        return SeriesForMaskedPatches.from_backbone(
            model_config("bert-tiny", vocab_size=1, max_position_embeddings=32, dropout=0.0), pretrained=False,
            patch_length=4, patch_stride=4)

    def fit(name, **changes):
        quick = {"max_steps": 240, "batch_size": 32, "eval_steps": 120, "save_steps": 120}
        config = MaskedPatchesConfig(**quick | changes)
        return pretrain_on_series(make, values[:64], values[64:], config, ImplConfig(), Run(tmp_path / name),
                                  Accelerator(cpu=True), 0, name)

    result = fit("whole")
    assert result["explained"] > 0.5, "a mean explains nothing of a sine"
    run = Run(tmp_path / "again")
    fit("again")
    run.result_path.unlink()
    for path in sorted(run.checkpoint_dir.glob("step-*"))[1:]:
        for file in path.rglob("*"):
            file.unlink()
        path.rmdir()
    assert fit("again")["loss"] == result["loss"], "from step 120 on, the same again"
    assert torch.equal(_flat(run.model_dir), _flat(tmp_path / "whole/model"))


def _flat(directory):
    model = SeriesForMaskedPatches.from_pretrained(directory)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("share", [0.0, 1.0, 40])
def test_a_share_that_hides_nothing_or_all_is_refused(tmp_path, share):
    with pytest.raises(UserError, match=rf"pretraining\.mask_ratio is {share}; give a share"):
        pretrain_on_series(None, None, None, MaskedPatchesConfig(mask_ratio=share), None, None, None, 0, "")
