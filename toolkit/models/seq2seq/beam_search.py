"""Beam search of encoder–decoders with the length penalty of the Transformer paper.

transformers' `generate` divides by n^α; Vaswani et al. (2017), section 6.1, by ((5 + n) / 6)^α (Wu et al. 2016,
equation 14). The difference decides between hypotheses, so that it cannot be added afterwards. Greedy answers and
samples are `generate`'s own.
"""

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel


def length_penalty(length: int | torch.Tensor, alpha: float) -> float | torch.Tensor:
    """((5 + n) / 6)^α; n counts the token that ends."""
    return ((5 + length) / 6) ** alpha


@torch.inference_mode()
def beam_search(model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, num_beams: int,
                max_new_tokens: int, alpha: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids, attention_mask (B, S) → the best target of each source (B, n), without its start, filled up with the
    padding behind its end, and its score (B,): log probability over `length_penalty`.

    A row is done when no beam can still overtake the worst of its `num_beams` finished targets. Where none ended within
    max_new_tokens, the likeliest unfinished one is given.
    """
    rows, device = len(input_ids), input_ids.device
    end, pad = model.generation_config.eos_token_id, model.generation_config.pad_token_id
    start = model.generation_config.decoder_start_token_id
    model.eval()
    encoded = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
    encoded = type(encoded)(**{key: value.repeat_interleave(num_beams, 0) for key, value in encoded.items()})
    mask = attention_mask.repeat_interleave(num_beams, 0)
    first_row = torch.arange(rows, device=device)[:, None] * num_beams
    targets = torch.full((rows, num_beams, 1), start, dtype=torch.long, device=device)
    sums = torch.full((rows, num_beams), -torch.inf, device=device)
    sums[:, 0] = 0.0  # all beams are the same yet
    finished = torch.full((rows, num_beams, max_new_tokens), pad, dtype=torch.long, device=device)
    scores = torch.full((rows, num_beams), -torch.inf, device=device)
    state = None
    for length in range(1, max_new_tokens + 1):
        out = model(encoder_outputs=encoded, attention_mask=mask, past_key_values=state, use_cache=True,
                    decoder_input_ids=targets.flatten(0, 1)[:, -1 if state is not None else 0:])
        state = out.past_key_values
        sums_next = sums[..., None] + out.logits[:, -1].float().log_softmax(-1).view(rows, num_beams, -1)
        # Targets that end here beside those that ended before: the best num_beams of both stay.
        ending = F.pad(targets[..., 1:], (0, 1), value=end)
        both = torch.cat([finished, F.pad(ending, (0, max_new_tokens - length), value=pad)], 1)
        scores, kept = torch.cat([scores, sums_next[..., end] / length_penalty(length, alpha)], 1).topk(num_beams)
        finished = both.gather(1, kept[..., None].expand_as(finished))
        sums_next[..., end] = -torch.inf
        sums, kept = sums_next.flatten(1).topk(num_beams)
        beam, token = kept // sums_next.shape[-1], kept % sums_next.shape[-1]
        targets = torch.cat([targets.gather(1, beam[..., None].expand_as(targets)), token[..., None]], -1)
        state.reorder_cache((first_row + beam).flatten())
        # Log probabilities only fall, and the penalty is largest at the longest.
        if bool((scores[:, -1] >= sums[:, 0] / length_penalty(max_new_tokens, alpha)).all()):
            break
    best, score = finished[:, 0], scores[:, 0]
    none = score.isneginf()
    best[none, :targets.shape[-1] - 1] = targets[none, 0, 1:]
    score = torch.where(none, sums[:, 0] / length_penalty(targets.shape[-1] - 1, alpha), score)
    return best[:, :int((best != pad).sum(1).max())] if pad != end else best, score
