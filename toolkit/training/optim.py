"""Optimisers, and the learning-rate schedule as a function of the share of the budget that is used."""

import math

import torch

from toolkit.models.families import is_embedding, layer_number, maps_side_by_side
from toolkit.training.settings import OptimConfig


def learning_rate_factor(config: OptimConfig, progress: float) -> float:
    """Multiplier of the peak learning rate at `progress` (0 … 1 of the budget)."""
    if config.lr_scheduler_type == "one_cycle":
        return _one_cycle(progress, config.warmup_ratio)
    if progress < config.warmup_ratio:
        return progress / config.warmup_ratio
    after = (progress - config.warmup_ratio) / max(1e-12, 1 - config.warmup_ratio)
    if config.lr_scheduler_type == "linear":
        return max(0.0, 1 - after)
    if config.lr_scheduler_type == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, after)))
    if config.lr_scheduler_type == "wsd":
        return min(1.0, max(0.0, 1 - progress) / max(1e-12, config.decay_ratio))
    if config.lr_scheduler_type == "inverse_sqrt":
        return math.sqrt(config.warmup_ratio / progress) if progress > 0 else 1.0
    return 1.0


def _one_cycle(progress: float, rising: float) -> float:
    """As torch.optim.lr_scheduler.OneCycleLR does by default, but for the momentum, which stays."""
    first, last = 1 / 25, 1 / 25e4
    if progress < rising:
        return 1 + (first - 1) * 0.5 * (1 + math.cos(math.pi * progress / rising))
    falling = min(1.0, (progress - rising) / max(1e-12, 1 - rising))
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * falling))


def make_optimizers(model: torch.nn.Module, config: OptimConfig,
                    product_dtype: torch.dtype = torch.float32) -> list[torch.optim.Optimizer]:
    """One optimiser, or AdamW and Muon; each group carries its peak rate as `initial_lr`. product_dtype: of Muon's
    matrix products (`Precision.optimizer_dtype`).

    Decay goes to tensors of two or more dimensions. Muon takes the matrices inside the layers: embeddings, heads and
    vectors are not the linear maps its orthogonalised update is made for.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    hidden = {id(parameter) for name, parameter in named
              if config.optimizer == "muon" and parameter.ndim == 2 and layer_number(name) is not None}
    shares = _layer_shares([name for name, _ in named], config.layerwise_lr_decay)

    def groups(parameters: list[tuple[str, torch.nn.Parameter]], rate: float, **options) -> list[dict]:
        """One for each share of the rate."""
        by_share: dict[float, list[torch.nn.Parameter]] = {}
        for name, parameter in parameters:
            by_share.setdefault(shares[name], []).append(parameter)
        return [{"params": chosen, "lr": rate * share, **options} for share, chosen in by_share.items()]

    rest = [(name, parameter) for name, parameter in named if id(parameter) not in hidden]
    device = named[0][1].device.type
    optimizers = [torch.optim.AdamW(
        [*groups([(n, p) for n, p in rest if p.ndim >= 2], config.learning_rate, weight_decay=config.weight_decay),
         *groups([(n, p) for n, p in rest if p.ndim < 2], config.learning_rate, weight_decay=0.0)],
        lr=config.learning_rate, betas=(config.adam_beta1, config.adam_beta2), eps=config.adam_epsilon,
        fused=device in ("cpu", "cuda", "mps"))]
    if hidden:
        matrices = [(name, parameter) for name, parameter in named if id(parameter) in hidden]
        optimizers.append(Muon(
            [group for maps in (1, 2, 3) for group in groups(
                [(n, p) for n, p in matrices if maps_side_by_side(n) == maps], config.muon_learning_rate, maps=maps)],
            lr=config.muon_learning_rate, momentum=config.muon_momentum, weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw", product_dtype=product_dtype))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _layer_shares(names: list[str], decay: float) -> dict[str, float]:
    """Parameter → its share of the rate: 1 for what lies above the layers, decay^n for embeddings below n of them."""
    layers = {name: number for name in names if (number := layer_number(name)) is not None}
    top = max(layers.values(), default=-1) + 1
    return {name: decay ** (top - layers[name] if name in layers else
                            top + 1 if is_embedding(name) else 0) for name in names}


class Muon(torch.optim.Muon):
    """torch.optim.Muon that orthogonalises all matrices of a shape at once: small ones take half the time.

    A group's `maps` says how many linear maps lie side by side in each of its matrices, as GPT-2's queries, keys and
    values do; each is orthogonalised on its own (Jordan et al. 2024). product_dtype: of the matrix products; bf16 is
    enough, and many times slower than fp32 on a processor that emulates it.
    """

    def __init__(self, *args, product_dtype: torch.dtype = torch.float32, **options):
        super().__init__(*args, **options)
        self.product_dtype = product_dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            group.setdefault("maps", 1)
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
            made = 1.0
            if (found := getattr(self, "found_inf", None)) is not None:  # as fused AdamW: no update where it is 1
                gradients = [torch.where(found > 0, buffer, gradient)
                             for buffer, gradient in zip(buffers, gradients, strict=True)]
                made = 1 - found
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            updates = torch._foreach_lerp(gradients, buffers, group["momentum"]) if group["nesterov"] else buffers
            torch._foreach_mul_(parameters, 1 - made * group["lr"] * group["weight_decay"])
            by_shape: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for parameter, update in zip(parameters, updates, strict=True):
                for pair in zip(parameter.chunk(group["maps"], 1), update.chunk(group["maps"], 1), strict=True):
                    wide = pair if pair[0].shape[0] <= pair[0].shape[1] else (pair[0].mT, pair[1].mT)
                    by_shape.setdefault(tuple(wide[0].shape), []).append(wide)
            for (_, columns), pairs in by_shape.items():
                directions = _orthogonalise(torch.stack([update for _, update in pairs]).to(self.product_dtype), group)
                rate = group["lr"] * 0.2 * math.sqrt(columns)  # the size of AdamW's updates (Liu et al. 2025)
                directions = (directions * made if found is not None else directions).to(pairs[0][0].dtype)
                torch._foreach_add_([parameter for parameter, _ in pairs], list(directions.unbind()), alpha=-rate)


def _orthogonalise(matrices: torch.Tensor, group: dict) -> torch.Tensor:
    """(n, rows, columns), rows ≤ columns → roughly their nearest half-orthogonal matrices, by Newton–Schulz in the
    format that they come in.
    """
    a, b, c = group["ns_coefficients"]
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
