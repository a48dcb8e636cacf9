"""Text classifiers: pooling against plain arithmetic, windows, and that saved ones come back."""

import numpy as np
import pytest
import torch
from small import bert_config, gpt_config
from transformers import AutoModelForSequenceClassification, BertModel, GPT2Model

from toolkit.errors import UserError
from toolkit.models.load import checkpoint_config, load_backbone
from toolkit.models.text.classifier import TextConfig, TextForClassification, pooled_states


def backbone(family: str):
    torch.manual_seed(0)
    model = BertModel(bert_config(50), add_pooling_layer=False) if family == "bert" else GPT2Model(gpt_config(50))
    return model.eval()


def rows(lengths: list[int], width: int | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    width = width or max(lengths)
    ids = torch.randint(5, 50, (len(lengths), width), generator=generator)
    inside = torch.arange(width) < torch.tensor(lengths)[:, None]
    return {"input_ids": ids * inside, "attention_mask": inside.long()}


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_pooling_is_over_the_tokens_that_are_there(family):
    model, batch = backbone(family), rows([9, 4])
    with torch.inference_mode():
        states = model(**batch, output_hidden_states=True).hidden_states
        found = {pooling: pooled_states(model, pooling, **batch) for pooling in ("mean", "max", "layers")}
    for row, length in enumerate((9, 4)):
        torch.testing.assert_close(found["mean"][row], states[-1][row, :length].mean(0))
        torch.testing.assert_close(found["max"][row], states[-1][row, :length].amax(0))
        torch.testing.assert_close(found["layers"][row], torch.cat([state[row, :length].mean(0) for state in states]))


@pytest.mark.parametrize("family", ["bert", "gpt"])
@pytest.mark.parametrize("pooling", ["mean", "max", "layers"])
def test_a_long_text_is_read_in_windows(family, pooling):
    """64 positions: 150 tokens are windows of 64, 64 and 22, whose tokens count alike; short texts stay as they are."""
    model, batch = backbone(family), rows([150, 20, 64])
    with torch.inference_mode():
        together = pooled_states(model, pooling, **batch)
        parts = [pooled_states(model, pooling, batch["input_ids"][:1, start:start + 64]) for start in (0, 64)]
        parts.append(pooled_states(model, pooling, batch["input_ids"][:1, 128:150]))
        if pooling == "max":
            long = torch.stack(parts).amax(0)
        else:
            long = (64 * parts[0] + 64 * parts[1] + 22 * parts[2]) / 150
        torch.testing.assert_close(together[0], long[0], rtol=1e-4, atol=1e-5)
        for row, length in ((1, 20), (2, 64)):
            alone = pooled_states(model, pooling, batch["input_ids"][row:row + 1, :length])
            torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_a_saved_classifier_comes_back(family, tmp_path):
    shape = bert_config(50) if family == "bert" else gpt_config(50)
    torch.manual_seed(0)
    model = TextForClassification(TextConfig(backbone_config=shape, pooling="layers", id2label={0: "a", 1: "b", 2: "c"},
                                             label2id={"a": 0, "b": 1, "c": 2})).eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    batch = rows([9, 4])
    with torch.inference_mode():
        assert torch.equal(model(**batch).logits, again(**batch).logits)
        labelled = again(**batch, labels=torch.tensor([2, 0]))
    assert again.config.id2label[2] == "c" and labelled.loss == pytest.approx(
        torch.nn.functional.cross_entropy(labelled.logits, torch.tensor([2, 0])).item())
    assert again.classifier.in_features == 3 * 32, "embeddings and two layers"
    with pytest.raises(ValueError, match="pooling must be layers, mean or max, not 'median'"):
        TextConfig(backbone_config=shape, pooling="median")


def test_dropout_is_before_the_head_alone():
    model = TextForClassification(TextConfig(backbone_config=bert_config(50, dropout=0.5), dropout=0.5)).train()
    batch = rows([9, 4])
    first, second = (pooled_states(model.backbone, "layers", **batch) for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(model(**batch).logits, model(**batch).logits)


def test_checkpoints_that_are_none_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no checkpoint here"):
        checkpoint_config(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="no checkpoint could be loaded"):
        checkpoint_config(tmp_path)
    model = backbone("bert")
    state = {name: value for name, value in model.state_dict().items() if "layer.1.output.dense.weight" not in name}
    model.save_pretrained(tmp_path / "lacking", state_dict=state)
    with pytest.raises(UserError, match="lacks 1 of the backbone's weights"):
        load_backbone(tmp_path / "lacking", "bert")


def test_a_window_without_tokens_counts_nothing():
    model, batch = backbone("bert"), rows([10], width=130)
    with torch.inference_mode():
        alone = pooled_states(model, "mean", batch["input_ids"][:, :10])
        assert np.allclose(pooled_states(model, "mean", **batch), alone, atol=1e-5)
