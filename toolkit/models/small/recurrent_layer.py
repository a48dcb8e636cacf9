"""One layer of a recurrent network over sequences of different lengths, without packing.

A cell has one bias vector a gate, as in the papers and in Keras, where torch's own has two: it is the weight of an
input that is always 1, and 0 where a sequence has not begun. So padding *before* a sequence changes nothing: from a
state of zeros, zeros without a bias lead to zeros again (tanh 0 = 0; an LSTM's cell is ½·0 + ½·0). Sequences that end
together therefore leave their last states, an LSTM's cell too, in the last step. torch's packed sequences, the other
way, take two to five times as long on a CPU.
"""

import torch
from torch import nn
from transformers import initialization as init

CELLS = {"rnn": (nn.RNN, 1), "lstm": (nn.LSTM, 4), "gru": (nn.GRU, 3)}
"""Name → the class, and how many gates lie above one another in its weights."""


@torch.no_grad()
def initialise_cell(module: nn.RNNBase, cell: str) -> None:
    """As Keras does: Glorot-uniform, recurrent weights orthogonal, biases (the last input's weights) 0, those of the
    LSTM's forget gate 1 (Jozefowicz et al. 2015).
    """
    _, gates = CELLS[cell]
    inputs, recurrent = torch.empty_like(module.weight_ih_l0), torch.empty_like(module.weight_hh_l0)
    for gate, (into, back) in enumerate(zip(inputs.chunk(gates), recurrent.chunk(gates), strict=True)):
        nn.init.xavier_uniform_(into[:, :-1])
        nn.init.constant_(into[:, -1], float(cell == "lstm" and gate == 1))
        nn.init.orthogonal_(back)
    init.copy_(module.weight_ih_l0, inputs)
    init.copy_(module.weight_hh_l0, recurrent)


def new_cell(cell: str, inputs: int, hidden_size: int) -> nn.RNNBase:
    """(B, T, inputs + 1) → (B, T, hidden_size); the last input is the bias's."""
    return CELLS[cell][0](inputs + 1, hidden_size, bias=False, batch_first=True)


class RecurrentLayer(nn.Module):
    """Sequences that end together (B, T, F) → states (B, T, D) and the last ones, in one direction or both."""

    def __init__(self, cell: str, inputs: int, hidden_size: int, bidirectional: bool = False):
        super().__init__()
        self.forwards = new_cell(cell, inputs, hidden_size)
        self.backwards = new_cell(cell, inputs, hidden_size) if bidirectional else None

    def forward(self, steps: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | tuple]:
        """steps (B, T, F), zeros before a sequence begins; seen (B, T), 1 from there on → states (B, T, D), zeros
        before, and what each direction ends in: (B, D), or a pair of these for an LSTM, whose second is the cell.
        """
        steps = torch.cat([steps, seen[..., None].to(steps.dtype)], -1)
        states, ends = self.forwards(steps)
        if self.backwards is None:
            return states, _first_layer(ends)
        order = reversing(seen)
        reverse, reverse_ends = self.backwards(pick(steps, order))
        states = torch.cat([states, pick(reverse, order)], -1)
        ends = (tuple(torch.cat(pair, -1) for pair in zip(ends, reverse_ends, strict=True))
                if isinstance(ends, tuple) else torch.cat([ends, reverse_ends], -1))
        return states, _first_layer(ends)


def _first_layer(ends: torch.Tensor | tuple) -> torch.Tensor | tuple:
    """Without torch's dimension of layers and directions."""
    return tuple(end[0] for end in ends) if isinstance(ends, tuple) else ends[0]


def ending_together(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """seen (B, T), true where there is something → two orders (B, T) for `pick`: the padding, wherever it is, before
    what was seen; and the way back.
    """
    order = seen.long().argsort(dim=1, stable=True)
    return order, order.argsort(dim=1)


def reversing(seen: torch.Tensor) -> torch.Tensor:
    """seen (B, T), 1 from each sequence's beginning to the last step → the places that reverse each in itself. Twice is
    as it was; the padding stays before it.
    """
    width, length = seen.shape[1], seen.long().sum(1, keepdim=True)
    place = torch.arange(width, device=seen.device)
    return torch.where(place >= width - length, 2 * width - 1 - length - place, place)


def pick(steps: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """steps (B, T, D), index (B, n) → (B, n, D)."""
    return steps.gather(1, index[..., None].expand(-1, -1, steps.shape[-1]))
