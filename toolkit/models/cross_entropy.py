"""The loss of classifiers; and cross-entropy of a linear output layer, some rows at a time.

In the latter the logits never exist whole. At a vocabulary of thousands they are by far the largest tensor of a small
model, and passing over them in main memory again and again (softmax, its gradient, conversions) costs more than the
matrix products. Some rows at a time they fit the cache; the gradient is taken in the forward pass, while they are there
(as in Hsu et al. 2024, *Liger Kernel*).
"""

import torch
from transformers import PreTrainedConfig
from transformers.loss.loss_utils import ForSequenceClassificationLoss

_LOGITS_AT_ONCE = {"cpu": 2**21, "cuda": 2**26, "mps": 2**24}
"""8 MB where a cache must hold them, 256 MB where a product must be large to be fast."""
_COLUMNS = {"cuda": 64}
"""A GPU's fast kernels want a vocabulary of a multiple of this. What is missing is made up within the loss alone."""


def let_logits_fill(device: torch.device) -> None:
    """A sixteenth of a GPU's memory for the logits taken at once: on a large card those of a whole batch, in one piece.
    """
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        _LOGITS_AT_ONCE["cuda"] = max(2**24, memory // 16 // 4)


class _LinearCrossEntropy(torch.autograd.Function):
    """What `forward` returns is never updated in place: torch 2.11 compiles such a tensor to one without a gradient."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, smoothing, dtype, needs_gradient):
        kind, vocabulary = hidden.device.type, len(weight)
        loss = hidden.new_zeros((), dtype=torch.float32)
        correct = torch.zeros((), dtype=torch.int64, device=hidden.device)
        d_hidden, d_weight, d_bias = [], None, None
        # Smoothing asks for the mean logit of a row, which is that of the mean column: it takes no pass over logits.
        mean_column = weight.float().mean(0) if smoothing else None
        mean_offset = bias.float().mean() if smoothing and bias is not None else 0.0
        missing = -vocabulary % _COLUMNS.get(kind, 1)
        matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
        if missing:
            matrix = torch.nn.functional.pad(matrix, (0, 0, 0, missing))
            offset = None if offset is None else torch.nn.functional.pad(offset, (0, missing))
        rows_at_once = max(1, _LOGITS_AT_ONCE[kind] // (vocabulary + missing))
        for start in range(0, len(hidden), rows_at_once):
            rows = slice(start, start + rows_at_once)
            inputs, target = hidden[rows].to(dtype), labels[rows]
            logits = torch.nn.functional.linear(inputs, matrix, offset).float()
            if missing:
                logits = torch.where(torch.arange(vocabulary + missing, device=hidden.device) < vocabulary, logits,
                                     -torch.inf)
            scored = target >= 0
            target = target.clamp(min=0)[:, None]
            probability = logits.softmax(1)
            # log Σ exp = largest logit − log of its probability, which is never 0.
            largest, at_target = logits.amax(1), logits.gather(1, target)[:, 0]
            wanted = at_target
            if smoothing:
                wanted = (1 - smoothing) * at_target + smoothing * (inputs.float() @ mean_column + mean_offset)
            loss = loss + ((largest - probability.amax(1).log() - wanted) * scored).sum()
            if not needs_gradient:
                correct = correct + ((logits.argmax(1) == target[:, 0]) & scored).sum()
                continue
            probability.scatter_add_(1, target, probability.new_full((1, 1), smoothing - 1.0).expand_as(target))
            gradient, scored = probability.to(dtype), scored[:, None].to(dtype)
            part = gradient @ matrix
            if smoothing:
                part = part.sub_((smoothing * mean_column).to(dtype))
            d_hidden.append(part.mul_(scored).to(hidden.dtype))
            inputs = inputs.mul(scored)
            part = (gradient.t() @ inputs)[:vocabulary].float()
            if smoothing:
                part.sub_(smoothing / vocabulary * inputs.float().sum(0))
            d_weight = part if d_weight is None else d_weight.add_(part)
            if bias is not None:
                part = (scored.t() @ gradient)[0, :vocabulary].float()
                if smoothing:
                    part.sub_(smoothing / vocabulary * scored.float().sum())
                d_bias = part if d_bias is None else d_bias.add_(part)
        if needs_gradient:
            d_hidden = torch.cat(d_hidden) if d_hidden else torch.zeros_like(hidden)
            d_weight = torch.zeros_like(weight) if d_weight is None else d_weight
            if bias is not None and d_bias is None:
                d_bias = torch.zeros_like(bias)
            ctx.save_for_backward(d_hidden, d_weight, *(() if bias is None else (d_bias,)))
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx, d_loss, _):
        d_hidden, d_weight, *d_bias = ctx.saved_tensors
        return (d_hidden * d_loss, d_weight * d_loss, *(part * d_loss for part in d_bias or ()),
                *(() if d_bias else (None,)), None, None, None, None)


def linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor,
                         bias: torch.Tensor | None = None, smoothing: float = 0.0
                         ) -> tuple[torch.Tensor, torch.Tensor]:
    """hidden (n, width), weight (vocabulary, width), labels (n,), negative ones ignored → summed loss in nats, and
    how many labels were the likeliest (counted only when no gradient is wanted).

    smoothing: the share of each label's probability that is spread evenly over the vocabulary (Szegedy et al. 2016).
    Products are in autocast's format where it is on; softmax and sums are fp32.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        return _LinearCrossEntropy.apply(hidden, weight, bias, labels, smoothing, dtype, torch.is_grad_enabled())


def classification_loss(config: PreTrainedConfig, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """() the mean loss that `config.problem_type` asks for, by transformers' own rule; logits (B, num_labels).

    single_label_classification: cross-entropy, labels (B,) of class ids; multi_label_classification: binary
    cross-entropy, labels (B, num_labels) of 0 and 1; regression: squared error, labels (B,) or (B, num_labels).
    Where it is None: regression with one label, else by the labels, whole numbers being class ids; what was found is
    kept in the configuration.
    """
    kind = config.problem_type
    if kind in ("regression", "multi_label_classification") or (kind is None and config.num_labels == 1):
        labels = labels.float()  # numbers, or 0 and 1, whatever they came as
    return ForSequenceClassificationLoss(labels, logits.float(), config)
