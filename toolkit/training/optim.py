"""Optimisers and the learning-rate schedule, a pure function of progress."""

import math
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass
class OptimConfig:
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon (Jordan et al. 2024) for the matrices of the hidden layers, AdamW for everything else."""
    learning_rate: float = 1e-3
    """AdamW's, at its peak."""
    muon_learning_rate: float = 1e-2
    """Muon's, at its peak, on AdamW's scale (update root-mean-square 0.2, Liu et al. 2025)."""
    weight_decay: float = 0.1
    """Decoupled (Loshchilov & Hutter 2019); on matrices only, never on biases and norms."""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "wsd"] = "linear"
    """How the rate falls after warm-up; `wsd` stays at the peak, then falls linearly over `decay_ratio`."""
    warmup_ratio: float = 0.05
    """Share of the budget in which the rate rises linearly from zero."""
    decay_ratio: float = 0.7
    """Share of the budget in which `wsd` falls to zero."""


def learning_rate_factor(config: OptimConfig, progress: float) -> float:
    """Multiplier of the peak learning rate at `progress` (0 … 1 of the budget)."""
    if progress < config.warmup_ratio:
        return progress / config.warmup_ratio
    after = (progress - config.warmup_ratio) / max(1e-12, 1 - config.warmup_ratio)
    if config.lr_scheduler_type == "linear":
        return max(0.0, 1 - after)
    if config.lr_scheduler_type == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, after)))
    if config.lr_scheduler_type == "wsd":
        return min(1.0, max(0.0, 1 - progress) / max(1e-12, config.decay_ratio))
    return 1.0


def make_optimizers(model: torch.nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """One optimiser, or Muon and AdamW; each group carries its peak rate as `initial_lr`.

    Decay goes to tensors of two or more dimensions. Muon takes the matrices inside the layers: embeddings, heads and
    vectors are not the linear maps its orthogonalised update is made for.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    hidden = [parameter for name, parameter in named
              if config.optimizer == "muon" and parameter.ndim == 2 and (".layer." in name or ".h." in name)]
    taken = {id(parameter) for parameter in hidden}
    rest = [parameter for _, parameter in named if id(parameter) not in taken]
    groups = [{"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
              {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    device = named[0][1].device.type
    optimizers = [torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2),
                                    eps=config.adam_epsilon, fused=device in ("cpu", "cuda"))]
    if hidden:
        optimizers.append(torch.optim.Muon(hidden, lr=config.muon_learning_rate, weight_decay=config.weight_decay,
                                           adjust_lr_fn="match_rms_adamw"))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers
