"""The Keras example "Timeseries classification with a Transformer model" (Ntakouris 2021, keras.io), rebuilt exactly.

Four transformer blocks on series of model dimension 1, then the mean over that one dimension, then an MLP. LayerNorm
over one number returns its bias whatever the number was, so every block adds a constant and what is left is the MLP on
the raw values: with the example's 500 values and 2 classes, 64,386 of 93,130 parameters. It is here to be shown dead
(`toolkit.analysis.dead_branches`, `make forda-lab`), not to be used.

The published code has two versions of equal parameter count. The one of June 2021 (norms first) pools over the channel;
the one of August 2021 has the norms last. (It now pools over time, which leaves one number a series and 29,258
parameters; that part is not rebuilt.)
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.generic import can_return_tuple

from toolkit.models.cross_entropy import classification_loss

HEADS, KEY_DIM, FEED_FORWARD, BLOCKS, MLP_UNITS = 4, 256, 4, 4, 128
DROPOUT, MLP_DROPOUT, EPSILON = 0.25, 0.4, 1e-6


class KerasFordaConfig(PreTrainedConfig):
    """The example's, for series of `length` values of one channel. Labels come as `id2label`.

    norm_first: as published in June 2021; else as since August 2021.
    """

    model_type = "toolkit-keras-forda"

    length: int = 500
    norm_first: bool = True


class _Dense(nn.Linear):
    """With Keras's initial values, glorot_uniform by the fans of the kernel as Keras shapes it, and biases of 0."""

    def __init__(self, inputs: int, outputs: int, fans: tuple[int, int] | None = None):
        super().__init__(inputs, outputs)
        self.bound = math.sqrt(6 / sum(fans or (inputs, outputs)))


class KerasMultiHead(nn.Module):
    """keras.layers.MultiHeadAttention on (B, L, 1) → (B, L, 1) and its weights (B, heads, L, L).

    Query and key are linear in one number x: of their 256 dimensions a score keeps (x, 1) M (y, 1)ᵀ with a 2 × 2 matrix
    M a head, and the value and output maps come to a 2 × 1 matrix. Computed so, the function is the same, in a
    hundredth of the work.
    """

    def __init__(self) -> None:
        super().__init__()
        joint = HEADS * KEY_DIM
        self.query, self.key, self.value = (_Dense(1, joint, (HEADS, KEY_DIM)) for _ in range(3))
        self.output = _Dense(joint, 1, (joint, HEADS))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        query, key, value = (torch.stack([dense.weight[:, 0], dense.bias]).view(2, HEADS, KEY_DIM).transpose(0, 1)
                             for dense in (self.query, self.key, self.value))
        form = query @ key.transpose(1, 2) / math.sqrt(KEY_DIM)  # (heads, 2, 2)
        to_output = value @ self.output.weight.view(HEADS, KEY_DIM, 1)  # (heads, 2, 1)
        extended = torch.cat([x, torch.ones_like(x)], -1)[:, None]  # (B, 1, L, 2)
        weights = torch.softmax(extended @ form @ extended.transpose(2, 3), -1)
        return (self.dropout(weights) @ extended @ to_output).sum(1) + self.output.bias, weights


class _AttentionBranch(nn.Module):
    def __init__(self, norm_first: bool):
        super().__init__()
        self.norm_first = norm_first
        self.norm, self.attention, self.dropout = nn.LayerNorm(1, EPSILON), KerasMultiHead(), nn.Dropout(DROPOUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.norm_first:
            return self.dropout(self.attention(self.norm(x))[0])
        return self.norm(self.dropout(self.attention(x)[0]))


class _FeedForwardBranch(nn.Module):
    """Two Conv1D of kernel size 1, which are linear maps of each value by itself."""

    def __init__(self, norm_first: bool):
        super().__init__()
        self.norm_first, self.norm = norm_first, nn.LayerNorm(1, EPSILON)
        self.up, self.down = _Dense(1, FEED_FORWARD), _Dense(FEED_FORWARD, 1)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(self.dropout(F.relu(self.up(self.norm(x) if self.norm_first else x))))
        return y if self.norm_first else self.norm(y)


class KerasBlock(nn.Module):
    """x + attention, then that + feed-forward: (B, L, 1) → (B, L, 1)."""

    def __init__(self, norm_first: bool):
        super().__init__()
        self.attention_branch, self.feed_forward_branch = _AttentionBranch(norm_first), _FeedForwardBranch(norm_first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention_branch(x)
        return x + self.feed_forward_branch(x)


class KerasForda(PreTrainedModel):
    """The example's network, for univariate series of one length."""

    config_class = KerasFordaConfig
    main_input_name = "values"

    def __init__(self, config: KerasFordaConfig):
        super().__init__(config)
        self.blocks = nn.ModuleList(KerasBlock(config.norm_first) for _ in range(BLOCKS))
        self.mlp = nn.Sequential(_Dense(config.length, MLP_UNITS), nn.ReLU(), nn.Dropout(MLP_DROPOUT),
                                 _Dense(MLP_UNITS, config.num_labels))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, _Dense):
            init.uniform_(module.weight, -module.bound, module.bound)

    @can_return_tuple
    def forward(self, values: torch.Tensor, observed: torch.Tensor | None = None, labels: torch.Tensor | None = None,
                **kwargs: Any) -> SequenceClassifierOutput:
        """values (B, 1, length) float, labels → logits (B, num_labels) and, given labels, the loss.

        The example knows no missing values: where `observed` says there are some, they count as the zeros they are.
        """
        if values.shape[1:] != (1, self.config.length):
            raise ValueError(f"expected values of shape (batch, 1, {self.config.length}), not {tuple(values.shape)}")
        x = values.transpose(1, 2).to(self.mlp[0].weight.dtype)
        for block in self.blocks:
            x = block(x)
        logits = self.mlp(x.mean(-1))  # GlobalAveragePooling1D over the one channel
        loss = None if labels is None else classification_loss(self.config, logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def without_blocks(self, values: torch.Tensor) -> torch.Tensor:
        """values (B, 1, length) → logits (B, num_labels) of the MLP on the values themselves, to each of which the one
        number is added that all blocks together come to. `eval` mode is meant: dropout makes noise of the blocks.
        """
        x = values.new_zeros(1, 1, 1)
        for block in self.blocks:
            x = block(x)
        return self.mlp(values[:, 0] + x.flatten())


AutoConfig.register(KerasFordaConfig.model_type, KerasFordaConfig, exist_ok=True)
AutoModelForSequenceClassification.register(KerasFordaConfig, KerasForda, exist_ok=True)
