"""The dead-branch check: does every part of a trained model do something, or would it answer the same without?

    findings = check(model, batch)
    print(findings)                    # what is alive, block by block, and warnings in plain words

A network can score well with half of it dead: LayerNorm over an axis of size 1 gives a constant, attention that has
learned nothing is a mean, and residual connections carry the input past both. One batch shows it.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from toolkit.analysis.shuffled_patches import Shuffle, ShuffledContext, moved, outputs_of, shuffled
from toolkit.data.batches import LabelledBatches
from toolkit.data.series.windows import WindowBatches
from toolkit.metrics.tabulate import table
from toolkit.models.families import FAMILIES, LAYERS
from toolkit.models.small.keras_forda import KerasBlock
from toolkit.run.files import write_atomic
from toolkit.training.feed import as_tensors, to_device

LARGEST_BATCH = 64
REPORT = "dead-branches.txt"

CONSTANT = 1e-3
"""Deviations of a thousandth and less, of the stream or of the answers, count as nothing."""
UNIFORM = 0.999
"""Attention whose entropy is this share of the uniform's, or more, is a mean."""
NO_GRADIENT = 1e-7
"""A gradient this much smaller than the largest is rounding."""

_BRANCHES: dict[type[nn.Module], tuple[tuple[str, str, str], ...]] = {
    **{known.layer: known.branches for known in FAMILIES.values()},
    KerasBlock: (("attention", "attention_branch", "attention_branch"),
                 ("feed-forward", "feed_forward_branch", "feed_forward_branch"))}
"""Block → its branches: what it is called, whose output is added to the stream, and whose input that stream is."""
_WEIGHTS = {**{known.layer: known.attention for known in FAMILIES.values()}, KerasBlock: "attention_branch.attention"}
"""Block → the module that returns its attention's weights (B, heads, queries, keys) second."""


@dataclass(frozen=True)
class Branch:
    """What one branch of one block adds to the stream that passes by, on one batch. Of a recurrent layer, which has
    nothing passing by: what it gives, relative to its own size.
    """

    name: str
    variation: float
    """Standard deviation of what it adds, across inputs and positions, in standard deviations of the stream."""
    across_inputs: float
    """The same, at one position and across inputs."""
    effect: float
    """How far the model's outputs move when it adds its mean instead, in their standard deviation across inputs."""
    answers_changed: float | None = None
    """The share of answers that then are others; None for a model without classes."""
    entropy: tuple[float, ...] | None = None
    """Of attention: mean entropy of each head's weights, as a share of the uniform's."""

    @property
    def state(self) -> Literal["alive", "dead", "same", "idle", "mean"]:
        """One word for what STATES says of it."""
        if self.variation <= CONSTANT:
            return "dead"
        if self.across_inputs <= CONSTANT:
            return "same"
        if self.effect <= CONSTANT:
            return "idle"
        return "mean" if self.entropy and min(self.entropy) >= UNIFORM else "alive"


STATES = {
    "dead": "adds a constant, the same for every input and position; removing it changes nothing",
    "same": "adds the same to every input; it can only tell positions apart",
    "idle": "adds something on which no answer depends",
    "mean": "weighs all positions alike; it is a mean, for which no attention is needed"}
"""State of a branch that is not alive → what to say of it."""


LEGEND = """\
adds: deviation over inputs and positions of what the branch adds, in that of the stream it adds to
effect: how far the outputs move, in their deviation, with its mean in its place; answers: that then are others
entropy: of its heads' attention, as a share of the uniform's"""


@dataclass(frozen=True)
class Findings:
    """What `check` saw. Prints as a report; `warnings` is empty when all is alive."""

    examples: int
    branches: tuple[Branch, ...]
    shuffle: Shuffle | ShuffledContext | None
    without_gradient: dict[str, int]
    """Parameter → its size: trained, but no gradient reaches it."""
    parameters: int
    """How many values are trained."""
    size_one_norms: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        found = []
        for state, meaning in STATES.items():
            if names := [branch.name for branch in self.branches if branch.state == state]:
                found.append(f"{_some(names)}: {meaning}")
        if self.size_one_norms:
            found.append(f"{_some(self.size_one_norms)}: normalisation over an axis of size 1, which gives a constant "
                         f"whatever comes in")
        if self.without_gradient:
            found.append(f"{_some(list(self.without_gradient))}: {sum(self.without_gradient.values()):,} of "
                         f"{self.parameters:,} trained values get no gradient")
        if self.shuffle is not None and self.shuffle.change <= CONSTANT:
            found.append(f"shuffling the patches changes no {self.shuffle.answers}: their order does not matter to the "
                         f"model")
        return found

    def as_dict(self) -> dict:
        """As JSON would give it back."""
        return json.loads(json.dumps({**dataclasses.asdict(self), "warnings": self.warnings,
                                      "states": {branch.name: branch.state for branch in self.branches}}))

    def in_short(self) -> str:
        """One line: whether all is alive, and what the order of the patches is worth."""
        dead = sum(branch.state != "alive" for branch in self.branches)
        said = "all branches alive"
        if self.warnings:
            said = f"{dead} of {len(self.branches)} branches do nothing" if dead else "a part of it does nothing"
        return "; ".join([said, *([self.shuffle.in_short()] if self.shuffle is not None else [])])

    def __str__(self) -> str:
        lines = [f"dead-branch check on {self.examples} examples"]
        if self.branches:
            rows = [{"branch": branch.name, "state": branch.state.upper() if branch.state == "dead" else branch.state,
                     "adds %": f"{100 * branch.variation:.3g}", "effect %": f"{100 * branch.effect:.3g}",
                     "answers %": "–" if branch.answers_changed is None else f"{100 * branch.answers_changed:.0f}",
                     "entropy": "–" if not branch.entropy else
                     " … ".join(dict.fromkeys(f"{end(branch.entropy):.4f}" for end in (min, max)))}
                    for branch in self.branches]
            lines += [table(rows), LEGEND]
        if self.shuffle is not None:
            lines.append(str(self.shuffle))
        if not self.warnings:
            lines.append("everything is alive")
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])


def check(model: PreTrainedModel, batch: dict[str, torch.Tensor], patch_length: int | None = None) -> Findings:
    """Look at what each branch of `model` does on one batch, of which at most LARGEST_BATCH rows are taken.

    model: any of ours, on the batch's device; it is left as it was. Blocks of BERT, GPT-2 and the Keras example are
        known, and torch's recurrent layers; of other models, norms, gradients and shuffling are examined.
    batch: its inputs, 2 rows or more; for what shuffled patches do `values` (B, C, L) and `labels` (B,) or, of a
        forecaster, `future` (B, C, horizon), and `future_observed` where values are missing.
    patch_length: of the shuffling; None: the model's own, or a sixteenth of the series.

    ValueError for a batch of one row, in which nothing can vary.
    """
    batch = {name: tensor[:LARGEST_BATCH] for name, tensor in batch.items()}
    told = {name: batch.pop(name) for name in ("labels", "future", "future_observed") if name in batch}
    rows = len(next(iter(batch.values())))
    if rows < 2:
        raise ValueError("the dead-branch check needs at least 2 examples to see what differs between them")
    with _plainly_computed(model):
        branches = _branches(model, batch)
        shuffle = None
        if told and "values" in batch:
            own = getattr(model.config, "patch_length", 1)
            length = patch_length or (own if own > 1 else max(1, batch["values"].shape[-1] // 16))
            shuffle = shuffled(model, batch, length, **told)
        without, trained = _without_gradient(model, batch)
    return Findings(rows, tuple(branches), shuffle, without, trained, tuple(_size_one_norms(model)))


def report_dead_branches(model: PreTrainedModel, data: LabelledBatches | WindowBatches, accelerator: Accelerator,
                         name: str, directory: Path) -> dict:
    """Check a fitted model on up to LARGEST_BATCH examples from all over `data` (not the test set's: it is for looking,
    and what is seen may be acted upon), and return what was found, ready for JSON. The table of it goes to REPORT in
    the fit's directory; printed is one line, or, where something is dead, what.
    """
    count = len(data) if isinstance(data, WindowBatches) else len(data.labels)
    index = np.unique(np.linspace(0, count - 1, min(LARGEST_BATCH, count)).astype(np.int64))
    findings = check(model.to(accelerator.device), to_device(as_tensors(data.rows(index)), accelerator.device))
    if accelerator.is_main_process:
        write_atomic(directory / REPORT, f"{name}, {findings}\n")
    accelerator.print(f"{name}: {findings.in_short()}")
    for text in findings.warnings:
        accelerator.print(f"  warning: {text}")
    if findings.warnings:
        accelerator.print(f"  all of it: {directory / REPORT}")
    return findings.as_dict()


@contextmanager
def _plainly_computed(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout and autocast, with attention that returns its weights; afterwards as before."""
    training = {module: module.training for module in model.modules()}
    layers = any(isinstance(module, LAYERS) for module in model.modules())
    attention = model.config._attn_implementation
    model.eval()
    if layers:
        model.set_attn_implementation("eager")
    try:
        # cuDNN's recurrent layers have no backward in eval mode
        with torch.autocast(model.device.type, enabled=False), torch.backends.cudnn.flags(enabled=False), \
                torch.compiler.set_stance("force_eager"):
            yield
    finally:
        if layers:
            model.set_attn_implementation(attention)
        for module, was_training in training.items():
            module.training = was_training


def _branches(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> list[Branch]:
    """Every known block's branches, and every recurrent layer."""
    blocks = [module for module in model.modules() if isinstance(module, tuple(_BRANCHES))]
    parts = []  # name, module that adds, module whose input the stream is, module with the weights
    for number, block in enumerate(blocks, 1):
        kind = next(kind for kind in _BRANCHES if isinstance(block, kind))
        parts += [(f"block {number} {label}", block.get_submodule(added), block.get_submodule(stream),
                   block.get_submodule(_WEIGHTS[kind]) if label == "attention" else None)
                  for label, added, stream in _BRANCHES[kind]]
    parts += [(f"recurrent layer {name}", module, None, None) for name, module in model.named_modules()
              if isinstance(module, nn.RNNBase)]

    added, streams, weights = {}, {}, {}
    handles = []
    for name, module, stream, attention in parts:
        handles.append(module.register_forward_hook(_keep(added, name, lambda args, output: _first(output))))
        if stream is not None:
            handles.append(stream.register_forward_hook(_keep(streams, name, lambda args, output: args[0])))
        if attention is not None:
            handles.append(attention.register_forward_hook(_keep(weights, name, _second)))
    try:
        with torch.no_grad():
            output = model(**inputs)
    finally:
        for handle in handles:
            handle.remove()

    plain = outputs_of(output)
    found = []
    for name, module, _, _ in parts:
        if isinstance(module, nn.RNNBase) and getattr(output, "attentions", None):
            weights[name] = output.attentions[0][:, None, None]  # (B, T), over its states
        with torch.no_grad():
            handle = module.register_forward_hook(_its_mean)
            try:
                without = outputs_of(model(**inputs))
            finally:
                handle.remove()
        changed = None
        if plain.ndim == 2 and plain.shape[1] > 1:
            changed = float((without.argmax(1) != plain.argmax(1)).float().mean())
        # A recurrent layer has no stream beside it: of a constant, the variation is nothing beside its own size.
        size = _deviation(streams[name]) if name in streams else added[name].square().mean(0).mean(0).sum().sqrt()
        size = max(float(size), torch.finfo(torch.float32).tiny)
        found.append(Branch(name, float(_deviation(added[name])) / size, float(_deviation(added[name], [0])) / size,
                            moved(plain, without), changed, _entropy(weights.get(name))))
    return found


def _keep(store: dict[str, torch.Tensor], name: str, what: Callable) -> Callable:
    def hook(module, args, output):
        kept = what(args, output)
        if kept is not None:
            store[name] = kept.detach().float()

    return hook


def _first(output):
    return output[0] if isinstance(output, tuple) else output


def _second(args, output):
    weights = output[1] if isinstance(output, tuple) else None
    return weights if isinstance(weights, torch.Tensor) and weights.ndim == 4 else None


def _its_mean(module, args, output):
    states = _first(output)
    mean = states.mean((0, 1), keepdim=True).expand_as(states)
    return (mean, *output[1:]) if isinstance(output, tuple) else mean


def _deviation(states: torch.Tensor, over: list[int] | None = None) -> torch.Tensor:
    """(B, N, d) → root of the variance over `over` (inputs and positions), summed over d and averaged over the rest."""
    return states.double().var(over or [0, 1], correction=0).reshape(-1, states.shape[-1]).sum(1).mean().sqrt()


def _entropy(weights: torch.Tensor | None) -> tuple[float, ...] | None:
    """(B, heads, Q, K) → each head's mean entropy over that of uniform weights on the keys it may see."""
    if weights is None:
        return None
    keys = (weights > 0).sum(-1)
    entropy = torch.special.entr(weights).sum(-1) / keys.clamp(min=2).log()
    counted = keys > 1  # a single key leaves no choice
    if not counted.any():
        return None
    return tuple((entropy * counted).sum((0, 2)).div(counted.sum((0, 2)).clamp(min=1)).tolist())


def _without_gradient(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> tuple[dict[str, int], int]:
    """Trained parameters that none of four parts of the batch gives a gradient, and how many values are trained.

    What is differentiated are the outputs with random weights, not the loss: that has no gradient either where a model
    is certain and right.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    largest = dict.fromkeys(trained, 0.0)
    rows = len(next(iter(inputs.values())))
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for part in torch.arange(rows).chunk(4):
            outputs = outputs_of(model(**{name: tensor[part.to(tensor.device)] for name, tensor in inputs.items()}))
            weights = torch.randn(outputs.shape, generator=generator).to(outputs)
            gradients = torch.autograd.grad((outputs * weights).sum(), trained.values(), allow_unused=True)
            for name, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    largest[name] = max(largest[name], float(gradient.abs().max()))
    smallest = NO_GRADIENT * max(largest.values(), default=0.0)
    # Softmax does not see what is added to all keys alike, so that BERT's key bias has no gradient by its nature.
    return ({name: trained[name].numel() for name, size in largest.items()
             if size <= smallest and not name.endswith("key.bias")},
            sum(parameter.numel() for parameter in trained.values()))


def _size_one_norms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules()
            if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and int(np.prod(module.normalized_shape)) == 1]


def _some(names: list[str] | tuple[str, ...]) -> str:
    """The first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
