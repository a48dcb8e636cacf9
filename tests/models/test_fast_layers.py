"""Whole layers against transformers' own: no less exact in outputs and gradients, and only where they apply."""

import copy

import pytest
import small
import torch
import transformers
from torch.testing import assert_close
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from toolkit.errors import UserError
from toolkit.models import fast_layers as layers
from toolkit.models.fast_layers import use_fused_layers
from toolkit.models.text.bert import BertForPreTraining
from toolkit.models.text.gpt import GPT2LMHeadModel
from toolkit.training.impl.precision import ImplConfig, choose

ROWS, LENGTH, VOCABULARY = 64, 48, 60
BF16 = {layers._FusedBertLayer, layers._FusedGPT2Block}


def perturbed(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Weights away from their initial values, whose gradients would be tiny; plain attention, as `choose` sets it."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.set_attn_implementation("eager")
    return model.eval()


def bert(dropout: float = 0.0, **settings) -> transformers.BertModel:
    torch.manual_seed(0)
    config = small.bert_config(VOCABULARY, dropout)
    config.update(settings)
    return perturbed(transformers.BertModel(config))


def gpt(activation: str = "gelu_new", dropout: float = 0.0, **settings) -> transformers.GPT2Model:
    """Without a cache of keys and values, which training has no use for and the layers leave to transformers."""
    torch.manual_seed(0)
    config = small.gpt_config(VOCABULARY, dropout)
    config.update({"activation_function": activation, "use_cache": False, **settings})
    return perturbed(transformers.GPT2Model(config))


def in_bf16(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    model = copy.deepcopy(model)
    use_fused_layers(model)
    return model


def autocast(enabled: bool = True) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def token_ids(rows: int = ROWS, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(5))


def padding(left: bool) -> torch.Tensor:
    """Row i lacks its last (or first) i mod 20 tokens."""
    missing, places = torch.arange(ROWS)[:, None] % 20, torch.arange(LENGTH)[None]
    return (places >= missing if left else places < LENGTH - missing).long()


def restarting() -> torch.Tensor:
    """Positions of rows that are two or three texts each."""
    places, first, second = torch.arange(LENGTH).repeat(ROWS, 1), torch.arange(ROWS)[:, None] % 30 + 5, 40
    places = torch.where(places >= first, places - first, places)
    places[::2, second:] = torch.arange(LENGTH - second)
    return places


def output_and_gradients(model, bf16: bool, inputs: dict[str, torch.Tensor]):
    """The last hidden state, and every gradient of a random linear function of it."""
    model.zero_grad()
    with autocast(bf16):
        output = model(**inputs).last_hidden_state
    # Of mean 0.5: sums over thousands of rows of one sign are where a sum in bf16 goes wrong.
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(7)) + 0.5
    (output.float() * direction).sum().backward()
    return output.detach().float(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def assert_no_less_exact(model, inputs: dict[str, torch.Tensor]) -> None:
    """Against transformers in fp32: off by at most 1.5 times what transformers is under autocast, or by 0.02."""
    ours = in_bf16(model)
    stack = ours.encoder.layer if "bert" in model.config.model_type else ours.h
    assert {type(layer) for layer in stack} <= BF16
    exact, gradients = output_and_gradients(model, False, inputs)
    theirs, their_gradients = output_and_gradients(model, True, inputs)
    found, found_gradients = output_and_gradients(ours, True, inputs)
    assert torch.isfinite(found).all() and not torch.equal(found, theirs), "transformers' forward was taken"
    assert relative(found, exact) <= max(1.5 * relative(theirs, exact), 0.02)
    assert found_gradients.keys() == gradients.keys() and len(gradients) > 25
    scale = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        mine, other = found_gradients[name], their_gradients[name]
        assert mine.dtype == torch.float32
        if name.endswith(("key.bias", "c_attn.bias")):  # softmax cancels a bias of keys: its gradient is rounding
            third = len(gradient) // 3
            keys = slice(None) if name.endswith("key.bias") else slice(third, 2 * third)
            assert gradient[keys].norm() < 1e-6 * scale and mine[keys].norm() < 1e-3 * scale
            if name.endswith("key.bias"):
                continue
            gradient, mine, other = (torch.cat([g[:third], g[2 * third:]]) for g in (gradient, mine, other))
        assert relative(mine, gradient) <= max(1.5 * relative(other, gradient), 0.02), name


def test_bert_with_padding():
    assert_no_less_exact(bert(), {"input_ids": token_ids(), "attention_mask": padding(left=False)})


@pytest.mark.parametrize("make", [bert, gpt, lambda: gpt("gelu"), lambda: gpt("gelu_pytorch_tanh")])
@pytest.mark.parametrize("left", [None, False, True])
def test_in_fp32_they_are_transformers_to_rounding(make, left):
    """In training; whoever evaluates gets transformers' own forward, to the bit."""
    model = make()
    ours = in_bf16(model)
    inputs = {"input_ids": token_ids()} | ({} if left is None else {"attention_mask": padding(left)})
    with torch.no_grad():
        assert torch.equal(ours(**inputs).last_hidden_state, model(**inputs).last_hidden_state)
    taken, kind = [], next(type(layer) for layer in ours.modules() if type(layer) in BF16)
    original = layers._run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "_run", lambda *arguments: (taken.append(kind), original(*arguments))[1])
        expected, gradients = output_and_gradients(model.train(), False, inputs)
        found, found_gradients = output_and_gradients(ours.train(), False, inputs)
    assert len(taken) == 2, "transformers' forward was taken"
    assert found.dtype == torch.float32 and relative(found, expected) < 1e-5
    assert found_gradients.keys() == gradients.keys()
    scale = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (found_gradients[name] - gradient).norm() < 1e-5 * gradient.norm() + 1e-6 * scale, name


def test_bert_without_a_mask():
    assert_no_less_exact(bert(), {"input_ids": token_ids()})


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "gelu"])
def test_gpt(activation):
    assert_no_less_exact(gpt(activation), {"input_ids": token_ids()})


def test_activations_and_their_slopes():
    x = torch.linspace(-4, 4, 801, dtype=torch.double, requires_grad=True)
    slopes = {}
    for kind in ("tanh", "none"):
        expected = torch.nn.functional.gelu(x, approximate=kind)
        slopes[kind], = torch.autograd.grad(expected.sum(), x)
        y, gate = layers._gelu(x.detach(), exact=kind == "none")
        assert_close(y, expected.detach(), rtol=1e-12, atol=1e-12)
        found = layers._gelu_backward(torch.full_like(y, 3.0), x.detach(), gate)
        assert_close(found, 3 * slopes[kind], rtol=1e-12, atol=1e-12)
    assert (slopes["tanh"] - slopes["none"]).abs().max() > 1e-4, "the two are the same here"


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "gelu"])
def test_the_approximation_is_taken_where_it_is_meant(activation, monkeypatch):
    """In a whole model the two differ by less than bf16 does."""
    taken, original = [], layers._gelu
    monkeypatch.setattr(layers, "_gelu", lambda x, exact: (taken.append(exact), original(x, exact))[1])
    with torch.no_grad(), autocast():
        in_bf16(gpt(activation))(token_ids(2, 5))
        in_bf16(bert())(token_ids(2, 5))
    assert taken == [activation == "gelu"] * 2 + [True] * 2


def test_gpt_with_several_texts_in_a_row():
    """Positions that start anew, and no mask: transformers lets no text see another."""
    inputs = {"input_ids": token_ids(), "position_ids": restarting()}
    assert_no_less_exact(gpt(), inputs)
    model = in_bf16(gpt())
    with autocast():
        before = model(**inputs).last_hidden_state
        inputs["input_ids"] = inputs["input_ids"].clone()
        inputs["input_ids"][0, :5] = 59 - inputs["input_ids"][0, :5]
        after = model(**inputs).last_hidden_state
    assert torch.equal(before[0, 5:], after[0, 5:]) and not torch.equal(before[0, :5], after[0, :5])


def test_gpt_with_padding_on_the_left():
    """A place of padding may attend to nothing: there, too, the output is finite and transformers'."""
    mask = padding(left=True)
    assert (mask[:, 0] == 0).any()
    inputs = {"input_ids": token_ids(), "attention_mask": mask}
    assert_no_less_exact(gpt(), inputs)
    model = gpt()
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
        with autocast():
            found = in_bf16(model)(**inputs).last_hidden_state.float()
    assert relative(found[mask == 0], expected[mask == 0]) < 0.02


def test_later_tokens_are_unseen_with_fused_attention_too():
    """Fused attention comes without a mask where it is causal; layers in bf16 have nothing else to go by."""
    model = gpt()
    try:
        choose(ImplConfig(dtype="bf16", layers="bf16", attention="sdpa"), torch.device("cpu")).prepare(model)
    except UserError as error:
        assert "impl.attention" in str(error)
        return
    ids = token_ids(4, 12)
    with torch.no_grad(), autocast():
        before = model(ids).last_hidden_state
        ids[:, -1] = 59 - ids[:, -1]
        assert torch.equal(model(ids).last_hidden_state[:, :-1], before[:, :-1])


@pytest.mark.parametrize("dropouts", [("bert", {}), ("gpt", {}), ("bert", {"attention_probs_dropout_prob": 0.0}), (
    "bert", {"hidden_dropout_prob": 0.0}), ("gpt", {"attn_pdrop": 0.0}), ("gpt", {"resid_pdrop": 0.0})],
    ids=lambda dropouts: "-".join([dropouts[0], *dropouts[1]]))
def test_dropout(dropouts, monkeypatch):
    """What transformers computes where its dropout takes the numbers that ours drew, in the same order."""
    name, settings = dropouts
    model = {"bert": bert, "gpt": gpt}[name](dropout=0.3, **settings).train()
    drawn, keep = [], layers.draw_kept
    monkeypatch.setattr(layers, "draw_kept", lambda like, p: (drawn.append(keep(like, p)), drawn[-1])[1])
    inputs = {"input_ids": token_ids()}
    torch.manual_seed(11)
    found, found_gradients = output_and_gradients(in_bf16(model), True, inputs)
    drawn = [each for each in drawn if each is not None]
    kinds = {"attention_probs_dropout_prob": 2, "attn_pdrop": 2, "hidden_dropout_prob": 5, "resid_pdrop": 4}
    assert len(drawn) == 7 - sum(kinds[kind] for kind in settings)  # embeddings, and three in each layer
    taken = iter(drawn)

    def dropout(x, p=0.5, training=True, inplace=False):
        return x * next(taken).float().view(x.shape) if p and training else x

    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    exact, gradients = output_and_gradients(model, False, inputs)
    assert next(taken, None) is None and relative(found, exact) < 0.02
    scale = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (found_gradients[name] - gradient).norm() < 0.02 * gradient.norm() + 1e-3 * scale, name


def test_what_dropout_draws():
    like = torch.zeros(300, 1001, dtype=torch.bfloat16)
    for dropout, dropped in ((0.3, 77 / 256), (0.1, 26 / 256), (0.999, 255 / 256), (0.001, 0.0)):
        torch.manual_seed(5)
        keep = layers.draw_kept(like, dropout).float()
        torch.manual_seed(5)
        assert torch.equal(keep, layers.draw_kept(like, dropout).float()) and keep.shape == like.shape
        assert not torch.equal(keep, layers.draw_kept(like, dropout).float()) or not dropped
        assert len(keep.unique()) == 1 + bool(dropped)
        shares = (keep == 0).float().view(-1)[:300_000].view(-1, 8).mean(0)  # of each byte of a draw
        assert (shares - dropped).abs().max() < 0.01, "5 standard deviations are 0.01"
        assert abs(float(keep.mean()) - 1) < (0.2 if dropout > 0.9 else 0.01)
    assert layers.draw_kept(like, 0.0) is None


@pytest.mark.parametrize("make", [bert, gpt])
def test_dropout_is_for_training(make):
    model = in_bf16(make(dropout=0.3))
    with torch.no_grad(), autocast():
        assert torch.equal(*(model(token_ids(8, 20)).last_hidden_state for _ in range(2)))
        model.train()
        assert not torch.equal(*(model(token_ids(8, 20)).last_hidden_state for _ in range(2)))


@pytest.mark.parametrize("make", [bert, gpt])
def test_layers_computed_again_drop_the_same(make):
    """Gradient checkpointing computes a layer twice."""
    outcomes = []
    for again in (False, True):
        model = in_bf16(make(dropout=0.3)).train()
        if again:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(11)
        outcomes.append(output_and_gradients(model, True, {"input_ids": token_ids(8, 20)}))
    (output, gradients), (same, again) = outcomes
    assert torch.equal(output, same) and all(torch.equal(again[name], each) for name, each in gradients.items())


@pytest.mark.parametrize("length", [7, 31, 32, 41, 64])
def test_attention_weights_at_every_length(length):
    scores = 3 * torch.randn(6, length, length, generator=torch.Generator().manual_seed(1))
    scores = scores.bfloat16()
    assert_close(layers._softmax(scores).double(), scores.double().softmax(-1), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("size", [3, 4, 16])
def test_heads_of_every_size(size):
    shape = layers.Shape(5, 2, 1.0, 1e-5)
    joint = torch.randn(5 * 7, 3 * 2 * size, generator=torch.Generator().manual_seed(1)).bfloat16()
    split = shape.split(joint, 3)
    assert split.shape == (3, 10, 7, size) and split.dtype == joint.dtype
    assert torch.equal(split[2, 2 * 4 + 1, 6], joint[4 * 7 + 6, 2 * 2 * size + size:])  # value, row 4, head 1
    assert torch.equal(shape.join(split), joint)


@pytest.mark.parametrize("make", [bert, gpt])
def test_outside_autocast_all_is_transformers(make):
    model = make()
    ours = in_bf16(model)
    expected, gradients = output_and_gradients(model, False, {"input_ids": token_ids(8, 20)})
    found, found_gradients = output_and_gradients(ours, False, {"input_ids": token_ids(8, 20)})
    assert torch.equal(found, expected)
    assert all(torch.equal(found_gradients[name], gradient) for name, gradient in gradients.items())


def test_generation_with_a_cache_is_transformers():
    torch.manual_seed(0)
    model = perturbed(GPT2LMHeadModel(small.gpt_config(VOCABULARY)))
    model.generation_config.pad_token_id = 0
    ours, ids = in_bf16(model), token_ids(3, 12)
    for settings in ({"do_sample": False}, {"do_sample": True, "temperature": 0.7}):
        tokens = []
        for each in (model, ours):
            torch.manual_seed(2)
            with autocast():
                tokens.append(each.generate(ids, max_new_tokens=30, use_cache=True, **settings))
        assert torch.equal(*tokens) and len(tokens[0][0]) > 20
    with torch.no_grad(), autocast():
        caches = [each(ids[:, :8], use_cache=True).past_key_values for each in (model, ours)]
        assert caches[0].get_seq_length() == caches[1].get_seq_length() == 8
        logits = [each(ids[:, 8:], past_key_values=cache).logits for each, cache in zip((model, ours), caches,
                                                                                         strict=True)]
        assert torch.equal(*logits)
        assert relative(ours(ids, use_cache=False).logits[:, 8:], logits[0]) < 0.02


@pytest.mark.parametrize("model", [
    bert(hidden_act="relu"), bert(hidden_act="gelu_new"), bert(is_decoder=True),
    bert(is_decoder=True, add_cross_attention=True), gpt("relu"), gpt(add_cross_attention=True),
    gpt(reorder_and_upcast_attn=True)],
    ids=["bert-relu", "bert-tanh", "bert-decoder", "bert-cross", "gpt-relu", "gpt-cross", "gpt-upcast"])
def test_other_layers_are_left_alone(model):
    ours = in_bf16(model)
    classes = [type(module) for module in ours.modules() if isinstance(module, (BertLayer, GPT2Block))]
    assert classes in ([BertLayer] * 2, [GPT2Block] * 2)


def test_the_last_layer_of_pretraining_keeps_its_class():
    """It answers at the read positions alone; only the layers before it are in bf16."""
    model = in_bf16(BertForPreTraining(small.bert_config(VOCABULARY)))
    assert [type(layer).__name__ for layer in model.bert.encoder.layer] == ["_FusedBertLayer", "_LastLayer"]


def test_norms_of_bf16_are_exact():
    """torch's own kernel, given bf16, is a tenth off in the gradients of weight and bias here."""
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(4096, 256, generator=generator).bfloat16() for _ in range(2))
    gradient += 0.1
    weight, bias = 1 + 0.1 * torch.randn(256, generator=generator), 0.1 * torch.randn(256, generator=generator)
    shape = layers.Shape(1, 1, 1.0, 1e-5)
    exact = [tensor.double().requires_grad_() for tensor in (x, weight, bias)]
    y = torch.nn.functional.layer_norm(exact[0], (256,), exact[1], exact[2], 1e-5)
    expected = torch.autograd.grad(y, exact, gradient.double())
    found, mean, deviation = layers.norm(x, weight, bias, shape)
    assert relative(found.double(), y.detach()) < 0.004
    d_x, d_weight, d_bias = layers.norm_backward(gradient, x, mean, deviation, weight, bias)
    assert relative(d_x.double(), expected[0]) < 0.005
    assert relative(d_weight.double(), expected[1]) < 0.005 and relative(d_bias.double(), expected[2]) < 1e-5


@pytest.mark.parametrize(("make", "auto"), [
    (lambda: BertForPreTraining(small.bert_config(VOCABULARY)), transformers.BertForPreTraining),
    (lambda: GPT2LMHeadModel(small.gpt_config(VOCABULARY)), transformers.GPT2LMHeadModel)], ids=["bert", "gpt"])
def test_checkpoints_are_transformers(make, auto, tmp_path):
    model = perturbed(make())
    ours = in_bf16(model)
    assert list(ours.state_dict()) == list(model.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in model.named_parameters()]
    ours.save_pretrained(tmp_path)
    loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not any(info.values()) and not BF16 & {type(module) for module in loaded.modules()}
    assert type(loaded.get_submodule(
        "bert.embeddings.LayerNorm" if auto is transformers.BertForPreTraining else "transformer.ln_f")
    ) is torch.nn.LayerNorm
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        for found, expected in zip(loaded.eval()(token_ids(2, 9)).to_tuple()[:1], ours(token_ids(2, 9)).to_tuple()[:1],
                                   strict=True):
            assert torch.equal(found, expected)
