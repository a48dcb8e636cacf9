"""How well each state of a recurrent network answers a query: the published scores, and weights made of them.

    states h (B, T, D), queries q (B, Q, D) → scores e (B, Q, T) → weights a = softmax of e over T → Σᵢ aᵢ hᵢ (B, Q, D)

Luong et al.'s `concat`, v·tanh(W [q; h]), is `additive` with W cut in two.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init


class Score(nn.Module):
    """states (B, T, D), queries (B, Q, D) → scores (B, Q, T). `steps` is the largest T, where there is one."""

    needs_steps = False

    def __init__(self, size: int, steps: int | None):
        super().__init__()

    def forward(self, states: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def initialise(self) -> None:
        """Initial values of parameters that are not in an nn.Linear."""


class Additive(Score):
    """eᵢ = v·tanh(W q + U hᵢ), no biases: Bahdanau et al. (2015), appendix A.1.2."""

    def __init__(self, size: int, steps: int | None):
        super().__init__(size, steps)
        self.of_query, self.of_state = (nn.Linear(size, size, bias=False) for _ in range(2))
        self.sum = nn.Linear(size, 1, bias=False)

    def forward(self, states: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return self.sum(torch.tanh(self.of_query(queries)[:, :, None] + self.of_state(states)[:, None]))[..., 0]


class Dot(Score):
    """eᵢ = q·hᵢ: Luong et al. (2015), equation 8."""

    def forward(self, states: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return torch.einsum("btd,bqd->bqt", states, queries)


class ScaledDot(Dot):
    """eᵢ = q·hᵢ / √D: Vaswani et al. (2017), section 3.2.1."""

    def forward(self, states: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return super().forward(states, queries) / math.sqrt(states.shape[-1])


class General(Dot):
    """eᵢ = q·W hᵢ: Luong et al. (2015), equation 8."""

    def __init__(self, size: int, steps: int | None):
        super().__init__(size, steps)
        self.of_state = nn.Linear(size, size, bias=False)

    def forward(self, states: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return super().forward(self.of_state(states), queries)


class Location(Score):
    """e = W q, W (T, D): where to look is told by the query alone. Luong et al. (2015), equation 9."""

    needs_steps = True

    def __init__(self, size: int, steps: int):
        super().__init__(size, steps)
        self.of_query = nn.Linear(size, steps, bias=False)

    def forward(self, states: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return self.of_query(queries)[..., :states.shape[1]]


class Content(Score):
    """eᵢ = β cos(q, hᵢ): Graves et al. (2014), Neural Turing Machines, equations 5 and 6.

    Their controller emits the key strength β ≥ 0 at each step; here it is one learned number, softplus of a parameter,
    and 1 at the start.
    """

    def __init__(self, size: int, steps: int | None):
        super().__init__(size, steps)
        self.strength = nn.Parameter(torch.empty(1))

    def initialise(self) -> None:
        init.constant_(self.strength, math.log(math.e - 1))

    def forward(self, states: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return F.softplus(self.strength) * F.cosine_similarity(states[:, None], queries[:, :, None], dim=-1)


class Positional(Score):
    """eᵢ = tanh(w·hᵢ + bᵢ), one bias a step and no query: the layer of the Keras tutorial that the lecture uses.

    Brownlee (2021), *Adding a custom attention layer to a recurrent neural network in Keras*. D + T parameters. Scores
    lie between −1 and 1, so that no step can weigh more than e² times another.
    """

    needs_steps = True

    def __init__(self, size: int, steps: int):
        super().__init__(size, steps)
        self.of_state = nn.Linear(size, 1, bias=False)
        self.bias = nn.Parameter(torch.empty(steps))

    def initialise(self) -> None:
        init.zeros_(self.bias)

    def forward(self, states: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        scores = torch.tanh(self.of_state(states)[..., 0] + self.bias[:states.shape[1]])
        return scores[:, None].expand(-1, queries.shape[1], -1)


class Uniform(Score):
    """eᵢ = 0: the plain mean of all states, which attention has to beat."""

    def forward(self, states: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        return states.new_zeros(len(states), queries.shape[1], states.shape[1])


SCORES: dict[str, type[Score]] = {
    "additive": Additive, "dot": Dot, "scaled-dot": ScaledDot, "general": General, "location": Location,
    "content": Content, "positional": Positional, "uniform": Uniform}
"""Name → score."""


def attention_weights(scores: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
    """scores (B, Q, T), seen (B, T) bool → weights (B, Q, T) that sum to 1 over T and are 0 where nothing was seen.

    Each row must have seen something.
    """
    if seen is not None:
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
    return scores.softmax(-1)
