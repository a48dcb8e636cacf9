"""Settings of how a run is computed; importing them takes no torch."""

from dataclasses import dataclass
from typing import Literal

from toolkit.config import Free
from toolkit.errors import UserError


@dataclass
class ImplConfig(Free):
    COMMON = ("dtype", "micro_batch_size")

    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """Format of the matrix products; weights and optimiser states stay fp32. `auto`: bf16 where the hardware has it."""
    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """`auto`: plain matmul-softmax on CPU, where it is faster at these lengths; fused attention on GPU."""
    layers: Literal["auto", "transformers", "fused", "bf16"] = "auto"
    """`fused`: whole layers whose activations stay in one format, for CPUs (toolkit/models/fast_layers.py); `bf16`: the
    same, refused where that format is not bf16. `auto`: these on a CPU."""
    compile: bool | Literal["auto"] = "auto"
    """torch.compile. `auto`: on GPUs; on a CPU it takes a C++ compiler and 5 to 15 seconds at every start, and gives a
    narrow GPT a quarter more speed and a BERT nothing."""
    gradient_checkpointing: bool = False
    """Keep a layer's input alone and compute the rest again when it is needed: less memory, a third more time."""
    micro_batch_size: int | None = None
    """Rows a process takes through the model at once; smaller ones are accumulated. Default: all of its share."""
    num_workers: int | None = None
    """Processes that draw batches ahead. Default: none on CPU, where drawing takes a hundredth of a step; 2 on GPU."""
    preprocessing_num_workers: int | None = None
    """Processes that tokenise the corpus. Default: one a core."""
    ddp_timeout: float = 600
    """Seconds after which the other processes give up one that does not answer; one that died is noticed at once."""

    def check_values(self, section: str = "impl.") -> None:
        """UserError for a value that makes no sense."""
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise UserError(f"{section}micro_batch_size is {self.micro_batch_size}; it must be at least 1.")
