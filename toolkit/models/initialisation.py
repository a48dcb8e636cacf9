"""Initial values that let a small model learn within minutes: sinusoids for positions, word vectors for embeddings.

From transformers' own initial values a small BERT spends thousands of steps at word frequencies: attention cannot
find neighbours among near-zero positions, and the embeddings say nothing of which words are alike. Both tables are
ordinary learned parameters that merely start elsewhere.
"""

import numpy as np
import torch
from transformers import PreTrainedModel


def sinusoids(positions: int, width: int, amplitude: float) -> torch.Tensor:
    """(positions, width) sine and cosine waves (Vaswani et al. 2017, section 3.5), scaled to `amplitude`."""
    rate = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] * rate[None, :]
    table = torch.empty(positions, width, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()[:, : width // 2]
    return (amplitude * table).float()


def set_positions(model: PreTrainedModel, amplitude: float) -> None:
    """Start the learned position embeddings of a BERT or GPT-2 as sinusoids."""
    for name, module in model.named_modules():
        if name.split(".")[-1] in ("position_embeddings", "wpe"):
            with torch.no_grad():
                module.weight.copy_(sinusoids(*module.weight.shape, amplitude))
            return
    raise AssertionError(f"{type(model).__name__} has no learned position embeddings")


def set_word_embeddings(model: PreTrainedModel, vectors: np.ndarray) -> None:
    """Start the word embeddings as `vectors` (vocabulary, width); all-zero rows keep their random values."""
    weight = model.get_input_embeddings().weight
    if tuple(weight.shape) != vectors.shape:
        raise ValueError(f"word vectors of shape {vectors.shape} do not fit embeddings of shape {tuple(weight.shape)}")
    known = torch.from_numpy(np.any(vectors != 0, axis=1))
    with torch.no_grad():
        weight[known] = torch.from_numpy(vectors).to(weight.dtype)[known]
