"""Steps that must not count: a loss or gradient that is no number, a loss that leaps. Found where they are computed."""

from dataclasses import dataclass, replace

import torch

from toolkit.training.settings import GuardConfig

_HORIZON = 100
"""Steps over which the running mean and variance of the loss forget."""
_LEARNED = 50
"""Steps after which they are trusted."""
MOST_IN_A_ROW = 10
"""Bad steps that are passed over before it must be something else than the batch."""


@dataclass(frozen=True)
class Moment:
    """What a run was just before a step: enough to go back to it as long as the weights are still those."""

    step: int
    tokens: int
    running: dict
    running_steps: int
    no_gradient: bool = False
    """Its gradient was zero throughout, and its loss was not: something between the two is broken."""


def what_is_bad(moment: Moment, config: GuardConfig) -> str:
    """For people, without its full stop."""
    if moment.no_gradient:
        return f"gradient of step {moment.step:,} is exactly zero though its loss is not"
    return f"loss or gradient of step {moment.step:,} is no finite number" + " or leaps" * bool(config.loss_spike)


class Guard:
    """Judges each step where it is computed, and lets the update be made or not.

    at_once: the host asks at each step. Otherwise the device decides alone, and the host learns of it when it looks;
    unless bad steps are to be skipped, nothing is updated after one until then.
    """

    def __init__(self, config: GuardConfig, device: torch.device, at_once: bool, state: list[float] | None = None):
        self.spike, self.skips, self.at_once, self.device = (config.loss_spike, config.on_bad_step == "skip", at_once,
                                                             device)
        self.in_a_row, self.unseen = 0, []
        self.restore(state)

    def step(self, optimizers: list[torch.optim.Optimizer], loss: torch.Tensor, gradient_norm: torch.Tensor,
             moment: Moment) -> torch.Tensor:
        """Update unless the step is bad; returns () bool: whether it was good. Loss and norm are those of all ranks."""
        bad = self._judge(loss, gradient_norm)
        if self.at_once:
            if not bad:
                for optimizer in optimizers:
                    optimizer.step()
        else:
            bad = bad | self.halted
            self.halted = bad & (not self.skips)
            for optimizer in optimizers:  # as under a GradScaler: fused optimisers ask the device
                optimizer.grad_scale, optimizer.found_inf = None, bad.float()
                optimizer.step()
        self.unseen.append((bad, gradient_norm, moment))
        return ~bad

    def look(self, waits_anyway: bool) -> list[Moment]:
        """The bad steps since the last look; none is looked for on a device that would have to be waited for."""
        if not (self.at_once or waits_anyway):
            return []
        flags = torch.stack([bad for bad, _, _ in self.unseen]).tolist()
        found = [replace(moment, no_gradient=bool(norm == 0))
                 for bad, (_, norm, moment) in zip(flags, self.unseen, strict=True) if bad]
        for bad in flags:
            self.in_a_row = self.in_a_row + 1 if bad else 0
        self.unseen = []
        self.halted = torch.zeros_like(self.halted)
        return found

    def state(self) -> list[float]:
        """Mean, variance and number of the losses so far."""
        return [float(self.mean), float(self.variance), float(self.count)]

    def restore(self, state: list[float] | None) -> None:
        self.mean, self.variance, self.count = torch.tensor(state or [0.0] * 3, device=self.device)
        self.halted = torch.zeros((), dtype=torch.bool, device=self.device)

    def _judge(self, loss: torch.Tensor, gradient_norm: torch.Tensor) -> torch.Tensor:
        # A loss of exactly zero has no gradient and wants none: a batch without labels, or one known by heart.
        bad = ~torch.isfinite(loss + gradient_norm) | ((gradient_norm == 0) & (loss != 0))
        if self.spike:
            bad = bad | ((self.count >= _LEARNED) & (loss > self.mean + self.spike * self.variance.sqrt()))
            self.count = self.count + torch.where(bad, 0.0, 1.0)
            share = torch.where(bad, 0.0, 1 / self.count.clamp(1, _HORIZON))
            change = torch.where(bad, 0.0, loss - self.mean)
            self.mean = self.mean + share * change
            self.variance = (1 - share) * (self.variance + share * change**2)
        return bad


class Beginning:
    """Whether the loss, after a twentieth of the budget, is still where it began; asked for once."""

    SHARE = 0.05

    def __init__(self, state: list | None):
        """state: what `state()` gave, or None at the start."""
        self.first, self.asked = state or (None, False)

    def state(self) -> list:
        return [self.first, self.asked]

    def has_not_fallen(self, used: float, loss: float) -> bool:
        """used: the share of the budget; loss: a mean over the last logged steps. True at most once in a run."""
        if self.first is None:
            self.first = loss
        elif not self.asked and used >= self.SHARE:
            self.asked = True
            return not loss < self.first
        return False
