"""Where an encoder–decoder looks in the source while it writes: cross attention as a map of target by source.

Bahdanau et al. (2015), figure 3: of a translation the map is an alignment of its words. Pieces of a word are joined:
the weights on the pieces of a source word are added, those of the pieces of a target word averaged. A tokenizer of
single characters gives a map of characters.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from toolkit.analysis.attention import Answer, AttentionMaps
from toolkit.errors import UserError
from toolkit.inference.written_answers import Writer, open_writer
from toolkit.run.provenance import without_machine_paths
from toolkit.tasks.seq2seq import decoded
from toolkit.training.feed import as_tensors, to_device


class NoAttention(UserError):
    """The model has none."""


def text_alignment(model: str | Path | Writer, text: str, target: str = "") -> AttentionMaps:
    """The cross attention of every head: `readers` are the target's words, `labels` the source's.

    target: what it is to have written; empty: it writes itself. A row is what was looked at to write that word.
    NoAttention for a model without, UserError for texts that are longer than it can take.
    """
    writer = model if isinstance(model, Writer) else open_writer(model)
    if not text.strip():
        raise UserError("text: is empty. Give some text.")
    pairs = writer.batches([text], [target])
    if pairs.cut:
        raise UserError(f"text: has {writer.longest:,} tokens or more, and {writer.name} reads no more. Shorten it.")
    batch = to_device(as_tensors(pairs.rows(np.zeros(1, np.int64))), writer.accelerator.device)
    source, seen, end = batch["input_ids"], batch["attention_mask"], writer.ids[1].end
    with torch.inference_mode(), writer.precision.autocast():
        ids = batch["labels"] if target.strip() else decoded(writer.model, source, seen, writer.decoding)
        ids = ids[:, :1 + (ids[0] == end).nonzero()[0, 0]] if bool((ids == end).any()) else ids
        longest = _positions(writer) or ids.shape[1]
        if ids.shape[1] > longest:
            raise UserError(f"target: has {ids.shape[1]:,} tokens, and {writer.name} has positions for {longest:,}. "
                            f"Shorten it.")
        before = torch.cat([torch.full_like(ids[:, :1], writer.ids[1].start), ids[:, :-1]], 1)
        layers = _cross_attentions(writer, source, seen, before)
    weights = torch.cat(layers).float().cpu().numpy()  # (layers, heads, T, S)
    written = _words(writer.target, ids[0].tolist(), end)
    read = _words(writer.source, source[0].tolist(), writer.ids[0].end)
    text_of = " ".join(writer.target.decode(ids[0], skip_special_tokens=True).split())
    return AttentionMaps(without_machine_paths(writer.name), read[0], _joined(weights, written[1], read[1]), False,
                         answers=(Answer("given" if target.strip() else "written", text_of or "nothing"),),
                         special=frozenset({len(read[0]) - 1}), readers=written[0],
                         unit="character" if read[2] and written[2] else "word")


def _positions(writer: Writer) -> int | None:
    """Of the decoder; None of recurrent ones, which have none."""
    shape = writer.model.config.get_text_config(decoder=True)
    return None if hasattr(shape, "cell") else getattr(shape, "max_position_embeddings", None)


def _cross_attentions(writer: Writer, source: torch.Tensor, seen: torch.Tensor, before: torch.Tensor
                      ) -> list[torch.Tensor]:
    """A layer each, (1, heads, T, S); computed by the code that knows its weights."""
    model, kept = writer.model, getattr(writer.model.config, "_attn_implementation", None)
    if kept not in (None, "eager"):
        model.set_attn_implementation("eager")
    try:
        given = model(input_ids=source, attention_mask=seen, decoder_input_ids=before, output_attentions=True,
                      use_cache=False).cross_attentions
    finally:
        if kept not in (None, "eager"):
            model.set_attn_implementation(kept)
    if not given:
        raise NoAttention(f"{writer.name}: has no attention: all that its decoder knows of the source is the state it "
                          f"starts in. Give a model that has it, such as one of make finetune-seq2seq's own.")
    return list(given)


END = "‹end›"


def _words(tokenizer: PreTrainedTokenizerBase, ids: list[int], end: int
           ) -> tuple[tuple[str, ...], np.ndarray, bool]:
    """Words, (n,) the word of each token, and whether each word is one character; special tokens are by themselves."""
    special = set(tokenizer.all_special_ids)
    plain = [tokenizer.decode([token]) for token in ids if token not in special]
    are_letters = all(len(text) <= 1 for text in plain) and len(plain) > 1
    groups, texts, before, joins = [], [], "", False
    for place, token in enumerate(ids):
        so_far = tokenizer.decode(ids[:place + 1], skip_special_tokens=True)
        more = so_far[len(before):]
        is_special = token in special
        parted = more[:1].isspace() or before[-1:].isspace()
        if is_special or are_letters or not joins or parted and texts[-1].strip():  # a blank belongs to what follows
            texts.append("")
        texts[-1] += (END if token == end else tokenizer.convert_ids_to_tokens(token)) if is_special else more
        groups.append(len(texts) - 1)
        before, joins = so_far, not is_special
    shown = [text.strip() or text.replace(" ", "␣") or "·" for text in texts]
    return tuple(shown), np.asarray(groups), are_letters


def _joined(weights: np.ndarray, written: np.ndarray, read: np.ndarray) -> np.ndarray:
    """(layers, heads, T, S) of tokens → of words; rows sum to 1 as before."""
    to_words = [np.eye(groups[-1] + 1, dtype=np.float32)[groups] for groups in (written, read)]
    return np.einsum("lhts,tw,sv->lhwv", weights, to_words[0] / to_words[0].sum(0), to_words[1])
