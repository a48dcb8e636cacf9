"""The layers of Marian as few large operations, forward and backward, for CPUs: see toolkit/models/fast_layers.py.

Three blocks make its two layers: norm(x + attention(x)), norm(x + attention(x, memory)), norm(x + MLP(x)).
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.marian.modeling_marian import MarianAttention, MarianDecoderLayer, MarianEncoderLayer

from toolkit.models.fast_layers import (
    MASKED,
    Shape,
    applies,
    attend,
    attend_backward,
    draw_kept,
    drop,
    linear_backward,
    norm,
    norm_backward,
    self_attend,
    self_attend_backward,
)


class _SelfAttention(torch.autograd.Function):
    """norm(x + attention(x)); x (B · T, width), weights are (outputs, inputs)."""

    @staticmethod
    def forward(ctx, x, mask, shape, query_w, query_b, key_w, key_b, value_w, value_b, out_w, out_b, norm_w, norm_b):
        joint_w, joint_b = (torch.cat(parts).to(x.dtype) for parts in ((query_w, key_w, value_w),
                                                                       (query_b, key_b, value_b)))
        out_w = out_w.to(x.dtype)
        context, split, weights, kept = self_attend(torch.addmm(joint_b, x, joint_w.t()), mask, shape)
        attended = torch.addmm(out_b.to(x.dtype), context, out_w.t())
        kept1 = draw_kept(attended, shape.hidden_dropout)
        added = drop(attended, kept1).add_(x)
        y, mean, deviation = norm(added, norm_w, norm_b, shape)
        ctx.shape = shape
        ctx.save_for_backward(x, split, weights, kept, context, kept1, added, mean, deviation, joint_w, out_w, norm_w,
                              norm_b)
        return y

    @staticmethod
    def backward(ctx, d_y):
        (x, split, weights, kept, context, kept1, added, mean, deviation, joint_w, out_w, norm_w,
         norm_b) = ctx.saved_tensors
        d_added, *d_norm = norm_backward(d_y, added, mean, deviation, norm_w, norm_b)
        d_out = drop(d_added, kept1)
        d_joint = self_attend_backward(torch.mm(d_out, out_w), split, weights, kept, ctx.shape)
        d_x = torch.addmm(d_added, d_joint, joint_w)
        (query_w, key_w, value_w), (query_b, key_b, value_b) = (
            joint.chunk(3) for joint in linear_backward(x, d_joint))
        return (d_x, None, None, query_w, query_b, key_w, key_b, value_w, value_b, *linear_backward(context, d_out),
                *d_norm)


class _CrossAttention(torch.autograd.Function):
    """norm(x + attention(x, memory)); x (B · T, width), memory (B · S, width)."""

    @staticmethod
    def forward(ctx, x, memory, mask, shape, query_w, query_b, key_w, key_b, value_w, value_b, out_w, out_b, norm_w,
                norm_b):
        query_w, out_w = query_w.to(x.dtype), out_w.to(x.dtype)
        joint_w, joint_b = (torch.cat(parts).to(x.dtype) for parts in ((key_w, value_w), (key_b, value_b)))
        (query,) = shape.split(torch.addmm(query_b.to(x.dtype), x, query_w.t()), 1)
        key, value = split = shape.split(torch.addmm(joint_b, memory, joint_w.t()), 2)
        context, weights, kept = attend(query, key, value, mask, shape)
        context = shape.join(context[None])
        attended = torch.addmm(out_b.to(x.dtype), context, out_w.t())
        kept1 = draw_kept(attended, shape.hidden_dropout)
        added = drop(attended, kept1).add_(x)
        y, mean, deviation = norm(added, norm_w, norm_b, shape)
        ctx.shape = shape
        ctx.save_for_backward(x, memory, query, split, weights, kept, context, kept1, added, mean, deviation, query_w,
                              joint_w, out_w, norm_w, norm_b)
        return y

    @staticmethod
    def backward(ctx, d_y):
        (x, memory, query, split, weights, kept, context, kept1, added, mean, deviation, query_w, joint_w, out_w,
         norm_w, norm_b) = ctx.saved_tensors
        shape = ctx.shape
        d_added, *d_norm = norm_backward(d_y, added, mean, deviation, norm_w, norm_b)
        d_out = drop(d_added, kept1)
        (d_context,) = shape.split(torch.mm(d_out, out_w), 1)
        d_query, d_split = torch.empty_like(query), torch.empty_like(split)
        attend_backward(d_context, (query, *split), weights, kept, shape, (d_query, *d_split))
        d_query, d_joint = shape.join(d_query[None]), shape.join(d_split)
        d_x = torch.addmm(d_added, d_query, query_w)
        (key_w, value_w), (key_b, value_b) = (joint.chunk(2) for joint in linear_backward(memory, d_joint))
        return (d_x, torch.mm(d_joint, joint_w), None, None, *linear_backward(x, d_query), key_w, key_b, value_w,
                value_b, *linear_backward(context, d_out), *d_norm)


class _FeedForward(torch.autograd.Function):
    """norm(x + W₂ max(0, W₁ x)): Vaswani et al. (2017), equation 2."""

    @staticmethod
    def forward(ctx, x, shape, up_w, up_b, down_w, down_b, norm_w, norm_b):
        up_w, down_w = up_w.to(x.dtype), down_w.to(x.dtype)
        active = torch.addmm(up_b.to(x.dtype), x, up_w.t()).relu_()
        projected = torch.addmm(down_b.to(x.dtype), active, down_w.t())
        kept = draw_kept(projected, shape.hidden_dropout)
        added = drop(projected, kept).add_(x)
        y, mean, deviation = norm(added, norm_w, norm_b, shape)
        ctx.save_for_backward(x, active, kept, added, mean, deviation, up_w, down_w, norm_w, norm_b)
        return y

    @staticmethod
    def backward(ctx, d_y):
        x, active, kept, added, mean, deviation, up_w, down_w, norm_w, norm_b = ctx.saved_tensors
        d_added, *d_norm = norm_backward(d_y, added, mean, deviation, norm_w, norm_b)
        d_down = drop(d_added, kept)
        d_wide = torch.ops.aten.threshold_backward(torch.mm(d_down, down_w), active, 0)
        return (torch.addmm(d_added, d_wide, up_w), None, *linear_backward(x, d_wide),
                *linear_backward(active, d_down), *d_norm)


def _parameters(*modules: nn.Module) -> list[torch.Tensor]:
    return [parameter for module in modules for parameter in (module.weight, module.bias)]


def _of_attention(attention: MarianAttention, after: nn.LayerNorm) -> list[torch.Tensor]:
    return _parameters(attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, after)


def _shape(layer: nn.Module, rows: int) -> Shape:
    attention = layer.self_attn
    return Shape(rows, attention.num_heads, attention.scaling, layer.final_layer_norm.eps,
                 attention_dropout=layer.training * attention.dropout, hidden_dropout=layer.training * layer.dropout,
                 exact_sums=True)


def _format(x: torch.Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _mask(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if mask is None else mask.clamp(min=MASKED).to(dtype)


def _computes(layer: nn.Module) -> bool:
    """Whether a layer is what these blocks compute: Marian's may have another activation, and dropout within."""
    return isinstance(layer.activation_fn, nn.ReLU) and not layer.activation_dropout


class _FusedEncoderLayer(MarianEncoderLayer):
    computes = staticmethod(_computes)

    def forward(self, hidden_states, attention_mask, **kwargs):
        if not applies(self, kwargs):
            return super().forward(hidden_states, attention_mask, **kwargs)
        shape, dtype = _shape(self, len(hidden_states)), _format(hidden_states)
        x = hidden_states.to(dtype).flatten(0, 1)
        with torch.autocast("cpu", enabled=False):
            x = _SelfAttention.apply(x, _mask(attention_mask, dtype), shape,
                                     *_of_attention(self.self_attn, self.self_attn_layer_norm))
            x = _FeedForward.apply(x, shape, *_parameters(self.fc1, self.fc2, self.final_layer_norm))
        return x.view_as(hidden_states)


class _FusedDecoderLayer(MarianDecoderLayer):
    computes = staticmethod(_computes)

    def forward(self, hidden_states, attention_mask=None, encoder_hidden_states=None, encoder_attention_mask=None,
                past_key_values=None, **kwargs):
        if encoder_hidden_states is None or past_key_values is not None or not applies(self, kwargs):
            return super().forward(hidden_states, attention_mask, encoder_hidden_states, encoder_attention_mask,
                                   past_key_values, **kwargs)
        shape, dtype = _shape(self, len(hidden_states)), _format(hidden_states)
        x, memory = (states.to(dtype).flatten(0, 1) for states in (hidden_states, encoder_hidden_states))
        with torch.autocast("cpu", enabled=False):
            x = _SelfAttention.apply(x, _mask(attention_mask, dtype), shape,
                                     *_of_attention(self.self_attn, self.self_attn_layer_norm))
            x = _CrossAttention.apply(x, memory, _mask(encoder_attention_mask, dtype), shape,
                                      *_of_attention(self.encoder_attn, self.encoder_attn_layer_norm))
            x = _FeedForward.apply(x, shape, *_parameters(self.fc1, self.fc2, self.final_layer_norm))
        return x.view_as(hidden_states)


FUSED_MARIAN = {MarianEncoderLayer: _FusedEncoderLayer, MarianDecoderLayer: _FusedDecoderLayer}
"""A layer of transformers' → the same as few large operations."""


def use_fused_marian_layers(model: PreTrainedModel) -> None:
    """Compute Marian's layers as above: in training, and under autocast, without a cache of keys and values."""
    for module in model.modules():
        if type(module) in FUSED_MARIAN and FUSED_MARIAN[type(module)].computes(module):
            module.__class__ = FUSED_MARIAN[type(module)]
