"""Cross-entropy of a linear output layer, a few hundred rows at a time: the logits never exist whole.

At a vocabulary of thousands the logits are by far the largest tensor of a small model, and passing over them in main
memory again and again (softmax, its gradient, conversions) costs more than the matrix products. Row by row they fit
the cache; the gradient is taken in the forward pass, while they are there (as in Hsu et al. 2024, *Liger Kernel*).
"""

import torch

ROWS = 512  # of logits at once: 8 MB at a vocabulary of 4,096


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, dtype, needs_gradient):
        loss = hidden.new_zeros((), dtype=torch.float32)
        correct = torch.zeros((), dtype=torch.int64, device=hidden.device)
        if needs_gradient:
            d_hidden = torch.empty_like(hidden)
            d_weight = torch.zeros_like(weight, dtype=torch.float32)
            d_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
        cast = weight.to(dtype)
        for start in range(0, len(hidden), ROWS):
            rows = slice(start, start + ROWS)
            inputs, target = hidden[rows].to(dtype), labels[rows]
            logits = (inputs @ cast.t()).float()
            if bias is not None:
                logits += bias
            scored = target >= 0
            target = target.clamp(min=0)[:, None]
            if not needs_gradient:
                correct += ((logits.argmax(1) == target[:, 0]) & scored).sum()
            # In place, with one exponential: softmax and its logarithm at the target.
            largest = logits.amax(1, keepdim=True)
            at_target = logits.gather(1, target) - largest
            total = logits.sub_(largest).exp_().sum(1, keepdim=True)
            loss += ((total.log() - at_target)[:, 0] * scored).sum()
            if not needs_gradient:
                continue
            gradient = logits.mul_(scored[:, None] / total)
            gradient.scatter_add_(1, target, -scored[:, None].float())
            if bias is not None:
                d_bias += gradient.sum(0)
            gradient = gradient.to(dtype)
            d_hidden[rows] = gradient @ cast
            d_weight += gradient.t() @ inputs
        if needs_gradient:
            ctx.save_for_backward(d_hidden, d_weight, *(() if bias is None else (d_bias,)))
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx, d_loss, _):
        d_hidden, d_weight, *d_bias = ctx.saved_tensors
        return (d_hidden * d_loss, d_weight * d_loss, *(part * d_loss for part in d_bias or ()),
                *(() if d_bias else (None,)), None, None, None)


def linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor,
                         bias: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """hidden (n, width), weight (vocabulary, width), labels (n,), negative ones ignored → summed loss in nats, and
    how many labels were the likeliest (counted only when no gradient is wanted).

    Products are in autocast's format where it is on; softmax and sums are fp32.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        return _LinearCrossEntropy.apply(hidden, weight, bias, labels, dtype, torch.is_grad_enabled())
