"""Sharded training by torch's `fully_shard` (Zhao et al. 2023), on GPUs and CPUs, asked for as accelerate does it.

Every rank holds a part of each parameter, its gradient and its optimiser state. Files know nothing of it: checkpoints
and models are written whole, so that any number of ranks, sharded or not, can go on from them.
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from toolkit.errors import UserError


def take_over_from_accelerate() -> None:
    """accelerate would shard on GPUs in its own way, and silently not on CPUs: let it form the process group only."""
    if os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() == "true":
        os.environ["TOOLKIT_FSDP"] = "true"
        if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
            raise UserError("fsdp_offload_params is true in accelerate's configuration; parameters stay on the device "
                            "here. Set it to false.")


def is_asked_for() -> bool:
    """Whether the launch asks for sharding (`distributed_type: FSDP` in accelerate's configuration)."""
    return os.environ.get("TOOLKIT_FSDP") == "true"


class Sharded:
    """A model whose parameters are spread over all ranks, layer by layer, in place."""

    def __init__(self, model: PreTrainedModel, device: torch.device):
        for tensor in [*model.parameters(), *model.buffers()]:
            torch.distributed.broadcast(tensor.data, src=0)  # as DistributedDataParallel does: rank 0's initial values
        self.model, self.empty = model, copy.deepcopy(model).to("meta")
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        # false: parameters stay gathered between forward and backward, which is stage 2 of ZeRO (Rajbhandari et al.)
        self.reshard = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() == "true"
        for layer in [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]:
            fully_shard(layer, mesh=mesh, reshard_after_forward=self.reshard)
        fully_shard(model, mesh=mesh, reshard_after_forward=self.reshard)
        self.parts = [module for module in model.modules() if isinstance(module, FSDPModule)]

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients are accumulated where they are."""
        self.model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """All parameters on all ranks, so that each may compute as often as it likes without the others."""
        for part in self.parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in self.parts:
                part.reshard()
                part.set_reshard_after_forward(self.reshard, recurse=False)

    def whole(self) -> PreTrainedModel:
        """A model of the plain class with the weights of now, on the CPU. Every rank must call it."""
        weights = {name: whole(tensor).cpu() for name, tensor in self.model.state_dict().items()}
        model = copy.deepcopy(self.empty)
        model.load_state_dict(weights, assign=True)
        model.tie_weights()
        return model


def whole(tensor):
    """A sharded tensor in full, anything else as it is. Every rank must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A full tensor, spread as `other` is."""
    if not isinstance(other, DTensor) or value.shape != other.shape:
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
