"""Forecasts by sampling: a GPT that was pretrained on series as tokens writes on where the context ends.

Ansari et al. (2024), *Chronos*, section 3.3: many paths are drawn token by token, and their quantiles are the forecast.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from toolkit.data import counter
from toolkit.errors import UserError
from toolkit.pretrained import saved_model
from toolkit.tokenization.bins import SeriesBins

_ROWS = 512  # sequences written at a time: what the seed's draws, and memory, go by


def load_series_gpt(directory: str | Path) -> tuple[PreTrainedModel, SeriesBins]:
    """The model of a directory, or `runs/<name>/model`, in evaluation mode, and its tokenizer."""
    bins = SeriesBins.from_pretrained(directory)
    model = saved_model(AutoModelForCausalLM, directory).eval()
    if model.config.vocab_size != len(bins):
        raise UserError(f"{directory}: the model knows {model.config.vocab_size} tokens, its tokenizer {len(bins)}. "
                        f"They do not belong together.")
    return model, bins


@torch.inference_mode()
def sample_paths(model: PreTrainedModel, bins: SeriesBins, context: np.ndarray, horizon: int | None = None,
                 num_samples: int = 20, temperature: float = 1.0, top_k: int | None = 50, seed: int = 0
                 ) -> np.ndarray:
    """(n, L) contexts, NaN where a value is missing → (n, num_samples, horizon) paths in the contexts' units.

    Of a context the last `bins.context_length` values are read. PAD and EOS are never drawn. `horizon`: default, and at
    most, the one it was trained for. `top_k`: draw among so many likeliest bins, None: among all; every bin has some
    probability, and a path that once lands far off stays there. The same arguments give the same paths on the same
    machine.
    """
    context = np.asarray(context, np.float64)
    horizon = bins.horizon if horizon is None else horizon
    for name, value, most in (("horizon", horizon, bins.horizon), ("num_samples", num_samples, _ROWS)):
        if not 1 <= value <= most:
            raise UserError(f"{name} is {value}; it must lie between 1 and {most:,} for this model.")
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}; it must be above 0.")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}; it must be at least 1, or null for all bins.")
    if context.ndim != 2 or not context.shape[1]:
        raise UserError(f"contexts of shape {context.shape}; expected (n, L) values, at least one each.")
    ids, scale = bins.encode(context[:, -bins.context_length:])
    # An end token opens a document, as it did in training.
    prompts = torch.from_numpy(np.pad(ids, ((0, 0), (1, 0)), constant_values=bins.eos_token_id)).to(model.device)
    size, paths = _ROWS // num_samples, []
    with torch.random.fork_rng():
        for start in range(0, len(prompts), size):
            torch.manual_seed(int(counter.key(seed, start)) % 2**63)
            prompt = prompts[start:start + size]
            # All paths of a window share its context, which is read once.
            cache = model(prompt[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
            cache.batch_repeat_interleave(num_samples)
            prompt = prompt.repeat_interleave(num_samples, 0)
            written = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), past_key_values=cache, do_sample=True,
                max_new_tokens=horizon, temperature=temperature, top_k=top_k or 0, top_p=1.0,
                suppress_tokens=[bins.pad_token_id, bins.eos_token_id], pad_token_id=bins.pad_token_id)
            paths.append(written[:, prompt.shape[1]:].cpu().numpy())
    values = bins.decode(np.concatenate(paths), np.repeat(scale, num_samples))
    return values.reshape(len(context), num_samples, horizon)
