"""The layers of BERT and GPT-2 as few large operations, forward and backward, for CPUs.

A small model spends much of its time on passes over memory and on autograd's bookkeeping; under autocast, on converting
activations to bf16 and back around every product, too. Here a layer is one autograd function whose activations stay
in one format, bf16 under autocast, else fp32; weights, the statistics of norms and the gradients of weights are fp32.
Modules, names of parameters and what is computed stay transformers': only `forward` is another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

aten = torch.ops.aten
MASKED = -1e30  # finite in bf16: a row that may attend to nothing is uniform, as in transformers, and not NaN


@dataclass(frozen=True)
class Shape:
    """What a layer's tensors do not say themselves."""

    batch: int
    heads: int
    scaling: float
    epsilon: float
    exact_gelu: bool = True
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    """Both 0 unless the layer is training."""
    exact_sums: bool = False
    """Allow in softmax's gradient for weights whose sum bf16 has rounded; see `_softmax_backward`."""

    def split(self, joint: torch.Tensor, parts: int) -> torch.Tensor:
        """(B · T, parts · width) → (parts, B · heads, T, head size)."""
        length, dtype = len(joint) // self.batch, joint.dtype
        return (_by_fours(joint.view(self.batch, length, parts, self.heads, -1)).permute(2, 0, 3, 1, 4)
                .reshape(parts, self.batch * self.heads, length, -1).view(dtype))

    def join(self, split: torch.Tensor) -> torch.Tensor:
        """The inverse of `split`."""
        parts, _, length, size = split.shape
        return (_by_fours(split.view(parts, self.batch, self.heads, length, size)).permute(1, 3, 0, 2, 4)
                .reshape(self.batch * length, -1).view(split.dtype))


def _by_fours(x: torch.Tensor) -> torch.Tensor:
    """Four numbers of bf16 as one to be moved: heads of 4 change places in a quarter of the time."""
    return x.view(torch.int64) if x.element_size() == 2 and x.shape[-1] % 4 == 0 else x


def draw_kept(like: torch.Tensor, dropout: float) -> torch.Tensor | None:
    """What dropout multiplies `like` by: 0 for so many 256ths as are nearest to `dropout`, else what keeps the mean.

    A random byte decides on each: torch's own dropout draws a 64-bit number, and takes ten times as long.
    """
    if not dropout:
        return None
    dropped, count = min(255, round(256 * dropout)), like.numel()
    drawn = torch.empty(-(-count // 8), dtype=torch.int64).random_(-2**63, None).view(torch.uint8)[:count]
    return drawn.view(like.shape).to(like.dtype).ge_(dropped).mul_(256 / (256 - dropped))


def drop(x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    return x if keep is None else x * keep


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """Over the last dimension. torch's kernel for bf16 goes through what is left beyond a multiple of 32 one by one:
    with 41 scores it takes twice as long as fp32 with conversions, with 31 five times.
    """
    if scores.dtype == torch.float32 or scores.shape[-1] % 32 == 0:
        return torch.softmax(scores, -1)
    return torch.softmax(scores, -1, dtype=torch.float32).to(scores.dtype)


def _softmax_backward(d_weights: torch.Tensor, weights: torch.Tensor, exact_sums: bool) -> torch.Tensor:
    """w (d − Σ w d); with exact_sums w (d − Σ w d / Σ w). What is common to all d of a row should cancel. Weights in
    bf16 sum to 1 only to a thousandth, so that the first leaves a rest: gradients of queries and keys of attention to
    another text were a sixth off, four times as much as transformers' under autocast.
    """
    if not exact_sums or weights.dtype == torch.float32:
        return aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
    wide, d_wide = weights.float(), d_weights.float()
    mean = (wide * d_wide).sum(-1, keepdim=True).div_(wide.sum(-1, keepdim=True))
    return d_wide.sub_(mean).mul_(wide).to(weights.dtype)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, shape: Shape):
    """Each (B · heads, T, head size) → context in that shape, and what backward needs. `query` is scaled in place."""
    query.mul_(shape.scaling)
    scores = torch.bmm(query, key.transpose(1, 2))
    if mask is not None:
        scores.view(shape.batch, shape.heads, *scores.shape[1:]).add_(mask)
    weights = _softmax(scores)
    kept = draw_kept(weights, shape.attention_dropout)
    return torch.bmm(drop(weights, kept), value), weights, kept


def attend_backward(d_context: torch.Tensor, inputs: Sequence[torch.Tensor], weights: torch.Tensor,
                    kept: torch.Tensor | None, shape: Shape, into: Sequence[torch.Tensor]) -> None:
    """inputs: query, key and value as `attend` left them; into: where their gradients are written."""
    query, key, value = inputs
    d_query, d_key, d_value = into
    torch.bmm(drop(weights, kept).transpose(1, 2), d_context, out=d_value)
    d_weights = drop(torch.bmm(d_context, value.transpose(1, 2)), kept)
    d_scores = _softmax_backward(d_weights, weights, shape.exact_sums)
    torch.bmm(d_scores, key, out=d_query).mul_(shape.scaling)  # `query` is scaled already
    torch.bmm(d_scores.transpose(1, 2), query, out=d_key)


def self_attend(joint: torch.Tensor, mask: torch.Tensor | None, shape: Shape):
    """Queries, keys and values side by side (B · T, 3 · width) → context (B · T, width), and what backward needs."""
    split = shape.split(joint, 3)
    context, weights, kept = attend(*split, mask, shape)
    return shape.join(context[None]), split, weights, kept


def self_attend_backward(d_context: torch.Tensor, split: torch.Tensor, weights: torch.Tensor,
                         kept: torch.Tensor | None, shape: Shape) -> torch.Tensor:
    d_split = torch.empty_like(split)
    attend_backward(shape.split(d_context, 1)[0], split, weights, kept, shape, d_split)
    return shape.join(d_split)


def norm(x, weight, bias, shape):
    return torch.native_layer_norm(x, x.shape[-1:], weight, bias, shape.epsilon)


def norm_backward(gradient, x, mean, deviation, weight, bias):
    # In fp32: given bf16, torch's kernel sums the gradients of weight and bias in bf16, and is a tenth off.
    d_x, d_weight, d_bias = aten.native_layer_norm_backward(
        gradient.float(), x.float(), x.shape[-1:], mean.float(), deviation.float(), weight, bias, [True] * 3)
    return d_x.to(x.dtype), d_weight, d_bias


def linear_backward(inputs, gradient):
    """Gradients of weight (outputs, inputs) and bias."""
    return torch.mm(gradient.t(), inputs).float(), gradient.sum(0).float()


def _conv1d_backward(inputs, gradient):
    """Gradients of weight (inputs, outputs) and bias."""
    return torch.mm(inputs.t(), gradient).float(), gradient.sum(0).float()


_SLOPE = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _SLOPE


def _gelu(x, exact: bool):
    """GELU of x, and what its gradient needs beside x.

    GPT-2's approximation, x (1 + tanh u) / 2, is x σ(2u), and a sigmoid takes a third of the time of a tanh here.
    """
    if exact:
        return F.gelu(x), None
    gate = torch.addcmul(x.new_tensor(_SLOPE), x, x, value=_CUBIC).mul_(x).sigmoid_()
    return x * gate, gate


def _gelu_backward(gradient, x, gate):
    if gate is None:
        return aten.gelu_backward(gradient, x)
    slope = torch.addcmul(x.new_tensor(_SLOPE), x, x, value=3 * _CUBIC).mul_(x)
    return aten.sigmoid_backward(slope, gate).add_(gate).mul_(gradient)


class _PreNormLayer(torch.autograd.Function):
    """GPT-2's: x + attention(norm(x)), to which MLP(norm(·)) is added. Weights are (inputs, outputs)."""

    @staticmethod
    def forward(ctx, x, mask, shape, norm1_w, norm1_b, joint_w, joint_b, out_w, out_b, norm2_w, norm2_b, up_w, up_b,
                down_w, down_b):
        joint_w, joint_b, out_w, out_b, up_w, up_b, down_w, down_b = (
            parameter.to(x.dtype) for parameter in (joint_w, joint_b, out_w, out_b, up_w, up_b, down_w, down_b))
        normed1, mean1, deviation1 = norm(x, norm1_w, norm1_b, shape)
        context, split, weights, keep = self_attend(torch.addmm(joint_b, normed1, joint_w), mask, shape)
        attended = torch.addmm(out_b, context, out_w)
        keep1 = draw_kept(attended, shape.hidden_dropout)
        middle = drop(attended, keep1).add_(x)
        normed2, mean2, deviation2 = norm(middle, norm2_w, norm2_b, shape)
        wide = torch.addmm(up_b, normed2, up_w)
        active, gate = _gelu(wide, shape.exact_gelu)
        y = torch.addmm(down_b, active, down_w)
        keep2 = draw_kept(y, shape.hidden_dropout)
        ctx.shape = shape
        ctx.save_for_backward(x, normed1, mean1, deviation1, split, weights, keep, context, keep1, middle, normed2,
                              mean2, deviation2, wide, gate, active, keep2, norm1_w, norm1_b, joint_w, out_w, norm2_w,
                              norm2_b, up_w, down_w)
        return drop(y, keep2) + middle  # not in place: see toolkit/models/cross_entropy.py

    @staticmethod
    def backward(ctx, d_y):
        (x, normed1, mean1, deviation1, split, weights, keep, context, keep1, middle, normed2, mean2, deviation2, wide,
         gate, active, keep2, norm1_w, norm1_b, joint_w, out_w, norm2_w, norm2_b, up_w, down_w) = ctx.saved_tensors
        d_down = drop(d_y, keep2)
        d_wide = _gelu_backward(torch.mm(d_down, down_w.t()), wide, gate)
        d_middle, *d_norm2 = norm_backward(torch.mm(d_wide, up_w.t()), middle, mean2, deviation2, norm2_w, norm2_b)
        d_middle.add_(d_y)
        d_out = drop(d_middle, keep1)
        d_joint = self_attend_backward(torch.mm(d_out, out_w.t()), split, weights, keep, ctx.shape)
        d_x, *d_norm1 = norm_backward(torch.mm(d_joint, joint_w.t()), x, mean1, deviation1, norm1_w, norm1_b)
        d_x.add_(d_middle)
        return (d_x, None, None, *d_norm1, *_conv1d_backward(normed1, d_joint), *_conv1d_backward(context, d_out),
                *d_norm2, *_conv1d_backward(normed2, d_wide), *_conv1d_backward(active, d_down))


class _PostNormLayer(torch.autograd.Function):
    """BERT's: norm(x + attention(x)), then norm(· + MLP(·)). Weights are (outputs, inputs)."""

    @staticmethod
    def forward(ctx, x, mask, shape, query_w, query_b, key_w, key_b, value_w, value_b, out_w, out_b, norm1_w, norm1_b,
                up_w, up_b, down_w, down_b, norm2_w, norm2_b):
        joint_w = torch.cat((query_w, key_w, value_w)).to(x.dtype)
        joint_b = torch.cat((query_b, key_b, value_b)).to(x.dtype)
        out_w, out_b, up_w, up_b, down_w, down_b = (
            parameter.to(x.dtype) for parameter in (out_w, out_b, up_w, up_b, down_w, down_b))
        context, split, weights, keep = self_attend(torch.addmm(joint_b, x, joint_w.t()), mask, shape)
        attended = torch.addmm(out_b, context, out_w.t())
        keep1 = draw_kept(attended, shape.hidden_dropout)
        first = drop(attended, keep1).add_(x)
        middle, mean1, deviation1 = norm(first, norm1_w, norm1_b, shape)
        wide = torch.addmm(up_b, middle, up_w.t())
        active, _ = _gelu(wide, exact=True)
        projected = torch.addmm(down_b, active, down_w.t())
        keep2 = draw_kept(projected, shape.hidden_dropout)
        second = drop(projected, keep2).add_(middle)
        y, mean2, deviation2 = norm(second, norm2_w, norm2_b, shape)
        ctx.shape = shape
        ctx.save_for_backward(x, split, weights, keep, context, keep1, first, mean1, deviation1, middle, wide, active,
                              keep2, second, mean2, deviation2, joint_w, out_w, norm1_w, norm1_b, up_w, down_w, norm2_w,
                              norm2_b)
        return y

    @staticmethod
    def backward(ctx, d_y):
        (x, split, weights, keep, context, keep1, first, mean1, deviation1, middle, wide, active, keep2, second, mean2,
         deviation2, joint_w, out_w, norm1_w, norm1_b, up_w, down_w, norm2_w, norm2_b) = ctx.saved_tensors
        d_second, *d_norm2 = norm_backward(d_y, second, mean2, deviation2, norm2_w, norm2_b)
        d_down = drop(d_second, keep2)
        d_wide = _gelu_backward(torch.mm(d_down, down_w), wide, None)
        d_middle = torch.mm(d_wide, up_w).add_(d_second)
        d_first, *d_norm1 = norm_backward(d_middle, first, mean1, deviation1, norm1_w, norm1_b)
        d_out = drop(d_first, keep1)
        d_joint = self_attend_backward(torch.mm(d_out, out_w), split, weights, keep, ctx.shape)
        d_x = torch.mm(d_joint, joint_w).add_(d_first)
        (query_w, key_w, value_w), (query_b, key_b, value_b) = (
            joint.chunk(3) for joint in linear_backward(x, d_joint))
        return (d_x, None, None, query_w, query_b, key_w, key_b, value_w, value_b, *linear_backward(context, d_out),
                *d_norm1, *linear_backward(middle, d_wide), *linear_backward(active, d_down), *d_norm2)


def _run(function, hidden_states, attention_mask, shape, modules):
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden_states.dtype
    if attention_mask is not None:
        attention_mask = attention_mask.clamp(min=MASKED).to(dtype)
    parameters = [parameter for module in modules for parameter in (module.weight, module.bias)]
    with torch.autocast("cpu", enabled=False):
        y = function.apply(hidden_states.to(dtype).flatten(0, 1), attention_mask, shape, *parameters)
    return y.view_as(hidden_states)


class _FusedBertLayer(BertLayer):
    @staticmethod
    def computes(layer: BertLayer) -> bool:
        """Whether `layer` is what this class computes."""
        config = layer.attention.self.config
        return config.hidden_act == "gelu" and not config.is_decoder

    def forward(self, hidden_states, attention_mask=None, *args, **kwargs):
        attention = self.attention.self
        if not applies(self, kwargs):
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        shape = Shape(len(hidden_states), attention.num_attention_heads, attention.scaling,
                      self.output.LayerNorm.eps, attention_dropout=self.training * attention.dropout.p,
                      hidden_dropout=self.training * self.output.dropout.p)
        return _run(_PostNormLayer, hidden_states, attention_mask, shape,
                    (attention.query, attention.key, attention.value, self.attention.output.dense,
                     self.attention.output.LayerNorm, self.intermediate.dense, self.output.dense,
                     self.output.LayerNorm))


class _FusedGPT2Block(GPT2Block):
    @staticmethod
    def computes(layer: GPT2Block) -> bool:
        """Whether `layer` is what this class computes."""
        config = layer.attn.config
        return (config.activation_function in ("gelu", "gelu_new", "gelu_pytorch_tanh")
                and not config.add_cross_attention and not config.reorder_and_upcast_attn)

    def forward(self, hidden_states, past_key_values=None, attention_mask=None, *args, **kwargs):
        attention = self.attn
        if past_key_values is not None or not applies(self, kwargs):
            return super().forward(hidden_states, past_key_values, attention_mask, *args, **kwargs)
        shape = Shape(len(hidden_states), attention.num_heads, attention.scaling, self.ln_1.eps,
                      exact_gelu=attention.config.activation_function == "gelu",
                      attention_dropout=self.training * attention.attn_dropout.p,
                      hidden_dropout=self.training * attention.resid_dropout.p)
        return _run(_PreNormLayer, hidden_states, attention_mask, shape,
                    (self.ln_1, attention.c_attn, attention.c_proj, self.ln_2, self.mlp.c_fc, self.mlp.c_proj))


_FUSED = {BertLayer: _FusedBertLayer, GPT2Block: _FusedGPT2Block}
"""A family's layer → the same as few large operations."""


class _Dropout(torch.nn.Dropout):
    def forward(self, x):
        return drop(x, draw_kept(x, self.training * self.p))


class _Fp32LayerNorm(torch.nn.LayerNorm):
    def forward(self, hidden_states):
        return super().forward(hidden_states.float())  # see norm_backward


def applies(layer, kwargs) -> bool:
    """In fp32 to training alone: whoever evaluates may want to see inside, and autocast is no sign that nobody does."""
    return (torch.is_autocast_enabled("cpu") or layer.training) and kwargs.get("past_key_values") is None


def use_fused_layers(model: PreTrainedModel) -> None:
    """Compute the layers of `model` as above wherever that is what they are: not with a cache of keys and values, not
    with another activation than GELU, not with adapters; outside autocast in training only.
    """
    for module in model.modules():
        if type(module) is torch.nn.LayerNorm:
            module.__class__ = _Fp32LayerNorm
        elif type(module) is torch.nn.Dropout:
            module.__class__ = _Dropout
        elif any("lora_" in name for name, _ in module.named_parameters()):
            continue  # its maps are more than their weights
        elif type(module) in _FUSED:
            fused = _FUSED[type(module)]
            if fused.computes(module):
                module.__class__ = fused
