"""Settings that all trainings share; importing them takes no torch."""

import math
from dataclasses import dataclass
from typing import Literal

from toolkit.config import free, rival
from toolkit.errors import UserError


@dataclass
class BudgetConfig:
    max_steps: int | None = rival()
    """The budget in optimiser steps, …"""
    max_tokens: int | None = rival()
    """… or in tokens, padding included, …"""
    max_minutes: float | None = rival()
    """… or in minutes of training, as in Geiping & Goldstein (2022); evaluations, checkpoints and the compiler are not
    counted. Give exactly one; that of the command line takes the place of the file's. Two runs of so many minutes are
    never the same to the digit, as two of so many steps are. Or give max_steps as well: so many steps, but where this
    machine is too slow for them only as many as it makes in the minutes, by the speed of its first ones."""

    def check_budget(self, section: str = "training.") -> None:
        """UserError unless there is one positive limit, or steps with the minutes that they may take."""
        given = {name: limit for name in ("max_steps", "max_tokens", "max_minutes")
                 if (limit := getattr(self, name)) is not None}
        for name, limit in given.items():
            if not 0 < limit < math.inf:
                raise UserError(f"{section}{name} is {limit}; it must be a number above 0.")
        if len(given) != 1 and given.keys() != {"max_steps", "max_minutes"}:
            found = "none of them" if not given else " and ".join(f"{name} = {limit}" for name, limit in given.items())
            raise UserError(f"{section.rstrip('.')} needs exactly one budget: {section}max_steps (if you like with the "
                            f"{section}max_minutes they may take), {section}max_tokens or {section}max_minutes; this "
                            f"run gives {found}.")


@dataclass
class GuardConfig:
    on_bad_step: Literal["stop", "skip", "back"] = free("stop")
    """What to do at a step whose loss or gradient is infinite or no number, or whose gradient is zero although the loss
    is not. Its update is never made. `stop`: save the state before it and end; `skip`: go on with the next batch;
    `back`: go back to the weights of the last checkpoint and on with the next batch, so that the batches since then go
    unlearned, as in Chowdhery et al. (2022)."""
    loss_spike: float = 0.0
    """A step whose loss lies so many standard deviations above its running mean is bad, too; 0: none is."""


@dataclass
class OptimConfig:
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon (Jordan et al. 2024) for the matrices of the hidden layers, AdamW for everything else."""
    learning_rate: float = 1e-3
    """AdamW's, at its peak."""
    muon_learning_rate: float = 1e-2
    """Muon's, at its peak, on AdamW's scale (update root-mean-square 0.2, Liu et al. 2025)."""
    muon_momentum: float = 0.9
    """Jordan et al. take 0.95; in budgets of minutes 0.9 was ahead in every comparison (docs/results/speed.md)."""
    weight_decay: float = 0.1
    """Decoupled (Loshchilov & Hutter 2019); on matrices only, never on biases and norms."""
    layerwise_lr_decay: float = 1.0
    """Each layer's rates are this share of those of the one above it, the head's being whole (Howard & Ruder 2018,
    section 3.2)."""
    adam_beta1: float = 0.9
    """What AdamW's running mean of the gradients keeps a step (Kingma & Ba 2015)."""
    adam_beta2: float = 0.98
    """What its running mean of their squares keeps; 0.98 (Vaswani et al. 2017) forgets sooner than 0.999, as short runs
    want it."""
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "wsd", "one_cycle"] = "linear"
    """How the rate falls after warm-up; `wsd` stays at the peak, then falls linearly over `decay_ratio`; `one_cycle`
    (Smith & Topin 2018) rises and falls as cosines, from 1/25 of the peak."""
    warmup_ratio: float = 0.05
    """Share of the budget in which the rate rises linearly from zero; one_cycle wants about 0.3."""
    decay_ratio: float = 0.7
    """Share of the budget in which `wsd` falls to zero."""
    ema_decay: float = 0.0
    """Evaluate and keep a running mean of the weights, of which each step leaves this share (Polyak & Juditsky 1992;
    Izmailov et al. 2018): where the rate is high, single steps are noise; 0: the weights themselves."""


@dataclass
class TrainingConfig(GuardConfig, OptimConfig, BudgetConfig):
    COMMON = ("max_steps", "max_tokens", "max_minutes", "batch_size", "learning_rate", "eval_steps", "save_steps",
              "report_to")

    batch_size: int = 32
    """Rows of the global batch, over all processes and accumulated micro-batches."""
    logging_steps: int = 20
    eval_steps: int = 0
    """Evaluate every so many steps; 0: only at the end."""
    early_stopping_patience: int | None = None
    """End after so many evaluations in a row without a better model."""
    save_steps: int = 100
    """Checkpoint every so many steps; 0: only when interrupted."""
    save_total_limit: int = 2
    """Checkpoints kept."""
    report_to: list[Literal["wandb", "tensorboard", "trackio"]] = free(default_factory=list)
    """Trackers beside metrics.jsonl, which is always written: `wandb` (offline where nobody is logged in or the server
    does not answer), `tensorboard`, `trackio` (a local database)."""
    emissions: bool = free(False)
    """Measure the energy, by codecarbon, offline. Where the machine has no counters, which is most often, it is an
    estimate from the power that the processor's maker states."""
    country: str = free("")
    """Where the machine stands, as ISO 3166-1 alpha-3, for instance FRA: what its electricity emits. Empty: unknown,
    and no emissions are given."""

    def check_values(self, section: str = "training.") -> None:
        """UserError for a value that makes no sense."""
        self.check_budget(section)
        for name in ("batch_size", "logging_steps", "save_total_limit", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{section}{name} is {value}; it must be at least 1.")
        for name, otherwise in (("eval_steps", "only at the end"), ("save_steps", "only when interrupted")):
            if getattr(self, name) < 0:
                raise UserError(f"{section}{name} is {getattr(self, name)}; give a number of steps, or 0: {otherwise}.")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"{section}ema_decay is {self.ema_decay}; it is the share of the mean that a step leaves: "
                            f"0.98, say, or 0 for none.")
