"""Settings of initial values and of losses; importing them takes no torch."""

from dataclasses import dataclass
from typing import Literal

Pooling = Literal["layers", "mean", "max", "cls"]
Loss = Literal["auto", "cross-entropy", "focal", "binary-cross-entropy", "kl-divergence", "mse", "mae", "msle"]


@dataclass
class InitialValues:
    position_amplitude: float = 0.2
    """Position embeddings start as sinusoids of this amplitude; 0 keeps transformers' random start."""
    attention_agreement: float = 0.9
    """Queries and keys start as random maps with this correlation, so that attention goes to what is alike and near;
    0 keeps transformers' start, in which it goes nowhere."""
    embeddings: str = "word-vectors"
    """Word embeddings start as the corpus's own word vectors (`word-vectors`: PPMI, truncated SVD), as `random` values,
    or as the vectors of a file in word2vec's text format, such as `make word-vectors` writes."""


@dataclass
class ObjectiveConfig:
    loss: Loss = "auto"
    """auto: cross-entropy for classes, binary cross-entropy for several labels at once, the KL divergence for soft
    labels, MSE for numbers. focal (Lin et al. 2017) gives examples that are answered already less to say; mae counts
    errors as they are, msle those of log(1 + y). mse and mae count in standard deviations of the training labels: an
    mse of 1 is that of answering their mean."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: every class (multi-label: present and absent) weighs the same in all, however rare."""
    label_smoothing_factor: float = 0.0
    """Share of each label that is spread over all classes (Szegedy et al. 2016, section 7); with cross-entropy."""
    focal_gamma: float = 2.0
