"""A running mean of the weights, which is what is evaluated and kept (`training.ema_decay`)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class WeightAverage(torch.optim.Optimizer):
    """A running mean of the weights: it takes its steps, and is saved and resumed, with the optimisers it follows.

    A step leaves `decay` of the mean, at first less: n / (n + 10) of it after n steps, or the start would linger.
    Buffers, as running statistics of BatchNorm, are the model's own.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float):
        super().__init__(parameters, {"lr": 0.0, "decay": decay})
        for parameter in parameters:
            self.state[parameter] = {"step": torch.zeros((), device=parameter.device),
                                     "mean": parameter.detach().clone()}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        (group,) = self.param_groups
        states = [self.state[parameter] for parameter in group["params"]]
        found = getattr(self, "found_inf", None)  # as fused AdamW: no step where it is 1
        made = 1.0 if found is None else 1 - found
        torch._foreach_add_([state["step"] for state in states], made)
        step = states[0]["step"]
        moved = made * (1 - (step / (step + 10)).clamp(max=group["decay"]))
        torch._foreach_lerp_([state["mean"] for state in states], group["params"],
                             float(moved) if found is None else [moved] * len(states))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model has the mean; after, its weights again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, state in self.state.items():
            weights = parameter.clone()
            parameter.copy_(state["mean"])
            state["mean"].copy_(weights)
