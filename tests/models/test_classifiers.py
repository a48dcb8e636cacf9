"""What every classifier of ours does as transformers' own do: losses by problem_type, formats, outputs, export."""

import pytest
import small
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from toolkit.models.families import family
from toolkit.models.series.ablations import AblatedSeriesConfig, AblatedSeriesForClassification
from toolkit.models.series.patches import (
    SeriesConfig,
    SeriesForClassification,
    SeriesForForecasting,
    SeriesForMaskedPatches,
)
from toolkit.models.small.keras_forda import KerasForda, KerasFordaConfig
from toolkit.models.small.linear import DLinear, DLinearConfig, NLinear, NLinearConfig
from toolkit.models.small.perceptron import PerceptronConfig, PerceptronForClassification
from toolkit.models.small.recurrent import RecurrentConfig, RecurrentForClassification
from toolkit.models.text.classifier import TextConfig, TextForClassification

SHAPES = {"bert": small.bert_config, "gpt2": small.gpt_config}
LENGTH = 32


def text(name: str, **more) -> TextForClassification:
    return TextForClassification(TextConfig(backbone_config=SHAPES[name](50), **more))


def series(name: str, model=SeriesForClassification, config=SeriesConfig, **more):
    return model(config(backbone_config=SHAPES[name](50), patch_length=8, **more))


MAKERS = {
    **{f"text-{name}-{pooling}": lambda name=name, pooling=pooling, **more: text(name, pooling=pooling, **more)
       for name in SHAPES for pooling in ("layers", "max")},
    **{f"series-{name}-{pooling}": lambda name=name, pooling=pooling, **more: series(name, pooling=pooling, **more)
       for name in SHAPES for pooling in ("layers", "mean")},
    "convolution": lambda **more: series("bert", embedding="convolution", instance_norm=True, **more),
    "ablated": lambda **more: series("gpt2", AblatedSeriesForClassification, AblatedSeriesConfig, attention="uniform",
                                     positions=False, **more),
    "recurrent": lambda **more: RecurrentForClassification(RecurrentConfig(
        cell="lstm", attention="additive", bidirectional=True, hidden_size=8, **more)),
    "perceptron": lambda **more: PerceptronForClassification(PerceptronConfig(series_length=LENGTH, **more)),
    "keras": lambda **more: KerasForda(KerasFordaConfig(length=LENGTH, **more))}
POOLED = [name for name in MAKERS if name.startswith(("text", "series", "convolution", "ablated"))]


def made(name: str, **more):
    torch.manual_seed(0)
    return MAKERS[name](**more).eval()


def inputs_of(model) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if model.main_input_name == "input_ids":
        return {"input_ids": torch.randint(5, 50, (4, 20), generator=generator)}
    return {"values": torch.randn(4, 1, LENGTH, generator=generator)}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("labels", "count", "problem_type", "loss"), [
    (torch.tensor([0, 2, 1, 1]), 3, "single_label_classification", F.cross_entropy),
    (torch.tensor([0, 2, 1, 1]), 3, None, F.cross_entropy),
    (torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]]), 3, "multi_label_classification",
     lambda logits, labels: F.binary_cross_entropy_with_logits(logits, labels.float())),
    (torch.tensor([[0., 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0]]), 3, None, F.binary_cross_entropy_with_logits),
    (torch.tensor([0.5, -1, 2, 7]), 1, None, lambda logits, labels: F.mse_loss(logits[:, 0], labels)),
    (torch.tensor([1, 2, 3, 4]), 1, "regression", lambda logits, labels: F.mse_loss(logits[:, 0], labels.float())),
    (torch.arange(12.0).view(4, 3), 3, "regression", F.mse_loss)])
def test_the_loss_is_that_of_the_problem_type(name, labels, count, problem_type, loss):
    model = made(name, num_labels=count, problem_type=problem_type)
    output = model(**inputs_of(model), labels=labels)
    torch.testing.assert_close(output.loss, loss(output.logits, labels))


def test_the_problem_type_that_is_found_is_transformers():
    ids = torch.randint(5, 50, (4, 20))
    for labels, count in ((torch.tensor([0, 2, 1, 1]), 3), (torch.rand(4, 3).round(), 3), (torch.rand(4), 1)):
        theirs = BertForSequenceClassification(small.bert_config(50))
        theirs = BertForSequenceClassification(type(theirs.config)(**{**theirs.config.to_dict(), "num_labels": count}))
        ours = made("text-bert-max", num_labels=count)
        theirs(ids, labels=labels), ours(ids, labels=labels)
        assert ours.config.problem_type == theirs.config.problem_type is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MAKERS)
def test_it_loads_in_half_the_bytes(name, dtype, tmp_path):
    model = made(name, num_labels=3)
    model.save_pretrained(tmp_path)
    inputs = inputs_of(model)
    half = type(model).from_pretrained(tmp_path, dtype=dtype).eval()
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    with torch.inference_mode():
        found = half(**inputs, labels=torch.tensor([0, 2, 1, 1]))
        expected = model(**inputs)
    assert found.loss.isfinite()
    torch.testing.assert_close(found.logits.float(), expected.logits, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [
    lambda: series("bert", SeriesForForecasting, context_length=LENGTH, horizon=4, instance_norm=True),
    lambda: series("gpt2", SeriesForMaskedPatches), lambda: NLinear(NLinearConfig(context_length=LENGTH, horizon=4)),
    lambda: DLinear(DLinearConfig(context_length=LENGTH, horizon=4))])
def test_forecasters_and_hidden_patches_too(make, dtype):
    torch.manual_seed(0)
    model = make().eval()
    inputs = {"values": torch.randn(4, 1, LENGTH)}
    if isinstance(model, SeriesForMaskedPatches):
        inputs["masked"] = torch.rand(4, 1, LENGTH) > 0.6
    else:
        inputs["future"] = torch.randn(4, 1, 4)
    with torch.inference_mode():
        expected = model(**inputs)
        found = model.to(dtype)(**inputs)
    torch.testing.assert_close(found.prediction.float(), expected.prediction, rtol=0.1, atol=0.1)
    assert found.loss.isfinite()


@pytest.mark.parametrize("name", POOLED)
def test_outputs_are_those_that_were_asked_for(name):
    model = made(name, num_labels=3)
    inputs = inputs_of(model)
    plain = model(**inputs)
    assert plain.hidden_states is None and plain.attentions is None
    asked = model(**inputs, output_hidden_states=True)
    backbone = model.config.backbone_config
    assert [state.shape[-1] for state in asked.hidden_states] == [32] * (1 + backbone.num_hidden_layers)
    assert torch.equal(asked.logits, plain.logits)
    as_tuple = model(**inputs, labels=torch.tensor([0, 2, 1, 1]), return_dict=False)
    assert isinstance(as_tuple, tuple) and len(as_tuple) == 2 and torch.equal(as_tuple[1], plain.logits)
    assert model.config.hidden_size == 32 and "hidden_size" not in model.config.to_dict()
    if name == "ablated":
        return  # what stands in for its attention records no weights
    model.set_attn_implementation("eager")
    assert len(model(**inputs, output_attentions=True).attentions) == backbone.num_hidden_layers


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("length", [20, 150])
def test_embeddings_in_place_of_ids(name, length):
    model, ids = text(name, num_labels=3).eval(), torch.randint(5, 50, (3, length))
    inside = (torch.arange(length) < torch.tensor([[length], [9], [length - 1]])).long()
    embedded = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embedded, attention_mask=inside).logits,
                               model(ids, attention_mask=inside).logits)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(ids, inputs_embeds=embedded)
    states = model(ids, attention_mask=inside, output_hidden_states=True).hidden_states
    assert states[-1].shape == ((3, 20, 32) if length == 20 else (7, 64, 32))


@pytest.mark.parametrize("name", POOLED)
def test_it_is_exported(name, tmp_path):
    """For another number of rows than it was exported with; texts of another length, too."""
    model = made(name, num_labels=3)
    inputs = inputs_of(model)
    rows = torch.export.Dim("rows", min=2, max=64)
    key = model.main_input_name
    shapes = {key: {0: rows, 1: torch.export.Dim("length", min=2, max=64)} if key == "input_ids" else {0: rows}}
    exported = torch.export.export(model, (), inputs, dynamic_shapes=shapes, strict=False).module()
    more = {key: torch.cat([value, value.flip(0)])[:7, ..., :11 if key == "input_ids" else LENGTH]
            for key, value in inputs.items()}
    torch.testing.assert_close(exported(**more).logits, model(**more).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["text-bert-layers", "series-gpt2-mean"])
def test_plain_peft_takes_the_familys_targets(name):
    peft = pytest.importorskip("peft")
    model = made(name, num_labels=3)
    inputs, targets = inputs_of(model), list(family(model.config).lora_targets)
    with torch.no_grad():
        before = model(**inputs).logits
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, modules_to_save=["classifier"]))
    torch.testing.assert_close(adapted(**inputs).logits, before)
    trained = {key for key, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all("lora_" in key or "classifier" in key for key in trained)
    assert sum("lora_A" in key for key in trained) == 2 * len(targets)


def test_configurations_from_before_are_the_same(tmp_path):
    """What a class saves has no new key, and a saved one comes back."""
    model = made("text-gpt2-layers", num_labels=3)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert again.config.hidden_size == 32
    assert torch.equal(again(**inputs_of(model)).logits, model(**inputs_of(model)).logits)
