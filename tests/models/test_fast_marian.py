"""Marian's layers as few large operations, against transformers'; the losses of encoder–decoders, against logits."""

import copy

import pytest
import small
import torch
import transformers
from torch.nn import functional as F

from toolkit.data.pairs.batches import TokenIds
from toolkit.models import fast_layers
from toolkit.models.seq2seq import fast_marian
from toolkit.models.seq2seq.fast_marian import FUSED_MARIAN, use_fused_marian_layers
from toolkit.models.seq2seq.joined import EncoderDecoderModel, new_joined
from toolkit.models.seq2seq.recurrent import RecurrentForSeq2Seq, RecurrentSeq2SeqConfig
from toolkit.models.seq2seq.transformer import MarianMTModel, new_transformer, transformer_config
from toolkit.training.optim import make_optimizers
from toolkit.training.settings import OptimConfig

VOCABULARY, ROWS, SOURCE, TARGET = 60, 32, 23, 17
IDS = {"pad_token_id": 0, "decoder_start_token_id": 1, "eos_token_id": 2}


def perturbed(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # sinusoids are made anew when they are loaded
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.set_attn_implementation("eager")
    return model.train()


def marian(dropout: float = 0.0, **settings) -> MarianMTModel:
    torch.manual_seed(0)
    config = transformer_config("transformer-tiny", VOCABULARY, max_position_embeddings=32, dropout=dropout, **IDS)
    config.update({"encoder_layers": 2, "decoder_layers": 2, **settings})
    model = perturbed(new_transformer(config))
    with torch.no_grad():
        for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
            # Units far from zero on either side: near it, rounding decides whether one is on.
            layer.fc1.weight *= 0.3
            layer.fc1.bias.copy_(torch.tensor([2.0, -2.0]).repeat(len(layer.fc1.bias) // 2))
    return model


def fused(model: MarianMTModel) -> MarianMTModel:
    model = copy.deepcopy(model)
    use_fused_marian_layers(model)
    return model


def pairs() -> dict[str, torch.Tensor]:
    """Row i lacks its last i mod 9 source tokens."""
    generator = torch.Generator().manual_seed(5)
    ids, before = (torch.randint(3, VOCABULARY, (ROWS, length), generator=generator) for length in (SOURCE, TARGET))
    mask = (torch.arange(SOURCE)[None] < SOURCE - torch.arange(ROWS)[:, None] % 9).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "decoder_input_ids": before}


def labels() -> torch.Tensor:
    found = torch.randint(3, VOCABULARY, (ROWS, TARGET), generator=torch.Generator().manual_seed(9))
    found[::3, 11:] = -100
    return found


def states_and_gradients(model: MarianMTModel, bf16: bool):
    """The last states of the decoder, and every gradient of a random linear function of them."""
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        states = model.model(**pairs(), use_cache=False).last_hidden_state
    direction = torch.randn(states.shape, generator=torch.Generator().manual_seed(7)) + 0.5
    (states.float() * direction).sum().backward()
    return states.detach().float(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def blocks_taken(monkeypatch) -> list[str]:
    taken = []
    for name in ("_SelfAttention", "_CrossAttention", "_FeedForward"):
        block = getattr(fast_marian, name)
        monkeypatch.setattr(block, "apply", lambda *given, name=name, apply=block.apply: (
            taken.append(name), apply(*given))[1])
    return taken


ALL = ["_SelfAttention", "_FeedForward"] * 2 + ["_SelfAttention", "_CrossAttention", "_FeedForward"] * 2


def test_in_fp32_they_are_transformers_to_rounding(monkeypatch):
    model = marian()
    expected, gradients = states_and_gradients(model, False)
    taken = blocks_taken(monkeypatch)
    found, found_gradients = states_and_gradients(fused(model), False)
    assert taken == ALL and relative(found, expected) < 1e-5
    assert found_gradients.keys() == gradients.keys() and len(gradients) > 80
    scale = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (found_gradients[name] - gradient).norm() < 1e-5 * gradient.norm() + 1e-6 * scale, name


def test_in_bf16_they_are_no_less_exact():
    """Against transformers in fp32: off by at most 1.5 times what transformers is under autocast, or by 0.02. Without
    `exact_sums` queries and keys of attention to the source were off by four times as much.
    """
    model = marian()
    exact, gradients = states_and_gradients(model, False)
    theirs, their_gradients = states_and_gradients(model, True)
    found, found_gradients = states_and_gradients(fused(model), True)
    assert relative(found, exact) <= max(1.5 * relative(theirs, exact), 0.02)
    scale = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        mine, other = found_gradients[name], their_gradients[name]
        assert mine.dtype == torch.float32
        if name.endswith("k_proj.bias"):  # softmax cancels a bias of keys: its gradient is rounding
            assert mine.norm() < 1e-3 * scale
            continue
        assert relative(mine, gradient) <= max(1.5 * relative(other, gradient), 0.02), name


@pytest.mark.parametrize("settings", [{"dropout": 0.3}, {"dropout": 0.3, "attention_dropout": 0.2},
                                      {"dropout": 0.0, "attention_dropout": 0.2}], ids=str)
def test_dropout(settings, monkeypatch):
    """What transformers computes where its dropout takes the numbers that ours drew, in the same order."""
    model, drawn, draw = marian(**settings), [], fast_layers.draw_kept
    model.model.encoder.dropout = model.model.decoder.dropout = 0.0  # of the embeddings, which are transformers'

    def noted(like, p):
        drawn.append(draw(like, p))
        return drawn[-1]

    for module in (fast_layers, fast_marian):
        monkeypatch.setattr(module, "draw_kept", noted)
    torch.manual_seed(11)
    found, found_gradients = states_and_gradients(fused(model), False)
    drawn = [each for each in drawn if each is not None]
    assert len(drawn) == 10 * bool(settings["dropout"]) + 6 * bool(settings.get("attention_dropout"))
    taken = iter(drawn)
    monkeypatch.setattr(F, "dropout", lambda x, p=0.5, training=True: x * next(taken).view(x.shape) if p else x)
    exact, gradients = states_and_gradients(model, False)
    assert next(taken, None) is None and relative(found, exact) < 1e-5
    scale = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (found_gradients[name] - gradient).norm() < 1e-4 * gradient.norm() + 1e-5 * scale, name


def test_where_they_do_not_apply_all_is_transformers(monkeypatch):
    """Evaluation in fp32, caches of keys and values, other activations, dropout within the MLP."""
    taken, model = blocks_taken(monkeypatch), marian().eval()
    ours = fused(model)
    assert {type(layer) for layer in ours.model.encoder.layers} | {type(layer) for layer in ours.model.decoder.layers} \
        == set(FUSED_MARIAN.values())
    with torch.no_grad():
        assert torch.equal(ours(**pairs()).logits, model(**pairs()).logits)
        inputs = {key: value[:3] for key, value in pairs().items() if key != "decoder_input_ids"}
        assert torch.equal(ours.generate(**inputs, max_new_tokens=5, num_beams=2),
                           model.generate(**inputs, max_new_tokens=5, num_beams=2))
        ours.train()
        ours(**pairs(), use_cache=True)
    assert taken == ["_SelfAttention", "_FeedForward"] * 2, "of the last call the encoder alone"
    for other in ({"activation_function": "gelu"}, {"activation_dropout": 0.1}):
        assert not set(FUSED_MARIAN.values()) & {type(module) for module in fused(marian(**other)).modules()}


def test_layers_computed_again_drop_the_same():
    outcomes = []
    for again in (False, True):
        model = fused(marian(dropout=0.3))
        if again:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(11)
        outcomes.append(states_and_gradients(model, True))
    (output, gradients), (same, again) = outcomes
    assert torch.equal(output, same) and all(torch.equal(again[name], each) for name, each in gradients.items())


def test_checkpoints_are_transformers(tmp_path):
    model = fused(marian())
    model.save_pretrained(tmp_path)
    loaded, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and type(loaded) is transformers.MarianMTModel
    assert not set(FUSED_MARIAN.values()) & {type(module) for module in loaded.modules()}
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def joined(tmp_path) -> EncoderDecoderModel:
    transformers.BertForPreTraining(small.bert_config(VOCABULARY)).save_pretrained(tmp_path / "bert")
    transformers.GPT2LMHeadModel(small.gpt_config(VOCABULARY)).save_pretrained(tmp_path / "gpt")
    return perturbed(new_joined(tmp_path / "bert", tmp_path / "gpt", TokenIds(1, 2, 0), dropout=0.0))


def recurrent(tmp_path) -> RecurrentForSeq2Seq:
    torch.manual_seed(0)
    return RecurrentForSeq2Seq(RecurrentSeq2SeqConfig(
        vocab_size=VOCABULARY, embedding_size=12, hidden_size=16, bidirectional=True, **IDS)).train()


@pytest.mark.parametrize("make", [lambda _: marian(), recurrent, joined], ids=["marian", "recurrent", "joined"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_labels_is_that_of_logits(make, smoothing, tmp_path):
    """Summed over what is scored, with every gradient; and how many were the likeliest."""
    model = make(tmp_path)
    with torch.no_grad():
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    outcomes = []
    for ours in (False, True):
        model.zero_grad()
        if ours:
            loss = model(**pairs(), scored_labels=labels(), label_smoothing=smoothing)["loss"]
        else:
            logits = model(**pairs(), use_cache=False).logits
            loss = F.cross_entropy(logits.flatten(0, 1), labels().flatten(), reduction="sum", label_smoothing=smoothing)
        loss.backward()
        outcomes.append((loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    (expected, gradients), (found, found_gradients) = outcomes
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    assert found_gradients.keys() == gradients.keys()
    scale = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (found_gradients[name] - gradient).norm() < 1e-4 * gradient.norm() + 1e-5 * scale, name
    with torch.no_grad():
        correct = model(**pairs(), scored_labels=labels())["correct"]
    assert int(correct) == int((logits.argmax(-1) == labels()).sum()) > 0


def test_muon_takes_the_matrices_of_layers():
    """Of the Transformer; those of cells hold gates, and their biases as a column: AdamW has them all."""
    settings = OptimConfig(optimizer="muon")
    model = marian()
    adamw, muon = make_optimizers(model, settings)
    taken = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in taken}
    assert names == {name for name, parameter in model.named_parameters() if ".layers." in name and parameter.ndim == 2}
    assert len(names) == 2 * 6 + 2 * 10
    assert all(group["maps"] == 1 for group in muon.param_groups)
    assert len(make_optimizers(recurrent(None), settings)) == 1
