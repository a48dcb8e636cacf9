"""From series to the vectors a backbone reads: instance normalisation, linear patches, convolutional patches."""

import math

import torch
from torch import nn
from torch.nn import functional as F

_KERNELS = (9, 19, 39)  # InceptionTime's 10, 20, 40 (Fawaz et al. 2020, section 3.1), odd, so that they have a middle
_FILTERS = 32  # of each length, as there


def instance_statistics(values: torch.Tensor, observed: torch.Tensor | None = None
                        ) -> tuple[torch.Tensor, torch.Tensor]:
    """(…, L) → mean and standard deviation (…, 1) of what was observed: RevIN without its two learned numbers (Kim et
    al. 2022). A constant series, or one of which nothing was observed, gets deviation 1.
    """
    weights = torch.ones_like(values) if observed is None else observed.to(values.dtype)
    count = weights.sum(-1, keepdim=True).clamp(min=1)
    mean = (values * weights).sum(-1, keepdim=True) / count
    deviation = (((values - mean) ** 2 * weights).sum(-1, keepdim=True) / count).sqrt()
    return mean, torch.where(deviation > 1e-6 * (1 + mean.abs()), deviation, torch.ones_like(deviation))


def scaled_differences(values: torch.Tensor, observed: torch.Tensor | None = None) -> torch.Tensor:
    """(B, C, L) → the same shape: each value less the one before it, in root mean squares of the series' own; 0 at the
    start, and where one of the two was not observed.
    """
    differences = F.pad(values[..., 1:] - values[..., :-1], (1, 0))
    if observed is not None:
        seen = observed.to(torch.bool)
        differences = differences * F.pad(seen[..., 1:] & seen[..., :-1], (1, 0)).to(values.dtype)
    size = differences.square().mean(-1, keepdim=True).sqrt()
    return differences / (size + 1e-6)


def cut(values: torch.Tensor, length: int, stride: int) -> torch.Tensor:
    """(B, C, L) → (B, N, C, length), N = ⌈(L − length) / stride⌉ + 1; zeros fill what the last patch lacks."""
    # No division of a negative number: ONNX rounds it towards zero, Python down.
    count = (max(0, values.shape[-1] - length) + stride - 1) // stride + 1
    padding = (count - 1) * stride + length - values.shape[-1]
    return F.pad(values, (0, padding)).unfold(-1, length, stride).transpose(1, 2)


class LinearPatches(nn.Module):
    """Patches that may overlap, each through one linear map (Nie et al. 2023, section 3.1)."""

    def __init__(self, num_channels: int, patch_length: int, patch_stride: int, width: int):
        super().__init__()
        self.patch_length, self.patch_stride = patch_length, patch_stride
        self.projection = nn.Linear(num_channels * patch_length, width)

    def forward(self, values: torch.Tensor, observed: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, L), zeros where nothing was observed → (B, N, width)."""
        return self.projection(cut(values, self.patch_length, self.patch_stride).flatten(2))


class ConvolutionalPatches(nn.Module):
    """Filters of three lengths over the values and their differences, two narrower convolutions, averaged by patch.

    A linear patch sees a shape only where it happens to fall in the patch; filters find it anywhere, and the average
    says how often (early convolutions make a transformer easier to train: Xiao et al. 2021). Differences, each series'
    scaled to unit deviation, show what is small beside the swings of the values (MultiRocket: Tan et al. 2022, section
    3.1). The patches do not overlap: the filters already see beyond them.

    Norms are over the batch (Ioffe & Szegedy 2015), as in InceptionTime: over time or filters instead, which would not
    mix the rows of a batch, they cost two points of accuracy. So here the rows of a micro-batch, or of one process's
    share, matter to each other while training: more processes or smaller micro-batches learn something else.
    """

    def __init__(self, num_channels: int, patch_length: int, width: int):
        super().__init__()
        # Half the averaging comes before the wide convolutions, which then have less to do.
        self.first_pool = next(size for size in (4, 3, 2, 1) if patch_length % size == 0)
        self.second_pool = patch_length // self.first_pool
        filters = _FILTERS * len(_KERNELS)

        def convolution(channels: int, out: int, size: int) -> nn.Conv2d:
            return nn.Conv2d(channels, out, (1, size), padding="same", bias=False)

        self.filters = nn.ModuleList(convolution(2 * num_channels, _FILTERS, size) for size in _KERNELS)
        self.filter_norm = nn.BatchNorm2d(filters)
        self.narrow = convolution(filters, width, 9)
        self.narrow_norm = nn.BatchNorm2d(width)
        self.join = convolution(width, width, max(3, 2 * self.second_pool - 1))
        self.join_norm = nn.BatchNorm2d(width)

    def forward(self, values: torch.Tensor, observed: torch.Tensor | None = None) -> torch.Tensor:
        """(B, C, L) → (B, ⌈L / patch_length⌉, width)."""
        values = torch.cat([values, scaled_differences(values, observed)], 1)
        # As images one row high, (B, C, 1, L), whose channels lie side by side in memory: torch has no kernels for
        # series so laid out, and those for images take a quarter to a third less time than those for series.
        values = values.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        states = torch.cat([filters(values) for filters in self.filters], 1)
        states = _mean_of(F.relu(self.filter_norm(states)), self.first_pool)
        states = F.relu(self.narrow_norm(self.narrow(states)))
        states = _mean_of(F.relu(self.join_norm(self.join(states))), self.second_pool)
        return states.squeeze(2).transpose(1, 2)


def _mean_of(states: torch.Tensor, size: int) -> torch.Tensor:
    """(B, C, 1, L) → (B, C, 1, ⌈L / size⌉), the last of what there is."""
    return F.avg_pool2d(states, (1, size), ceil_mode=True) if size > 1 else states


def patches_observed(observed: torch.Tensor, length: int, stride: int) -> torch.Tensor:
    """(B, C, L) bool → (B, N) int64: 1 where anything of a patch was observed, as an attention mask."""
    return cut(observed.to(torch.float32), length, stride).flatten(2).amax(-1).ceil().long()


def mean_over(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Of patches that are not masked: (B, N, width), (B, N) → (B, width)."""
    if mask is None:
        return states.mean(1)
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def scale_of(module: nn.Linear, std: float) -> float:
    """Deviation of a projection's weights that gives states of deviation `std` to input of unit variance."""
    return std / math.sqrt(module.in_features)
