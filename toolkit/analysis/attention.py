"""What every attention head of a model looks at, for one text or one series, on an HTML page with nothing to fetch.

A map has a row for each token that reads and a column for each that is read. Beside it stands its entropy against
uniform attention: 1 where a head reads everything alike, 0 where each token reads one other alone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from toolkit.errors import UserError
from toolkit.models.families import FAMILIES, family
from toolkit.models.load import checkpoint_config, load_checkpoint_tokenizer, load_weights, model_directory
from toolkit.models.series import patches as series_models
from toolkit.models.text.classifier import TextConfig
from toolkit.run.provenance import without_machine_paths
from toolkit.shown import in_html
from toolkit.views import View, Viewed, as_html

HEADS_SHOWN, TOKENS_SHOWN = 12, 20
"""In a notebook."""


@dataclass(frozen=True, repr=False)
class AttentionMaps(Viewed):
    """The attention of every head for one input of T tokens or patches."""

    name: str
    """The model's."""
    labels: tuple[str, ...]
    """(T,) what stands at each position."""
    weights: np.ndarray
    """float32 (layers, heads, T, T): reader by read; rows sum to 1."""
    is_causal: bool
    """Whether position i reads positions 0 to i alone."""
    values: np.ndarray | None = None
    """float32 (C, L): the series, where it is one."""
    spans: tuple[tuple[int, int], ...] = ()
    """(T,) of a series: the values of each patch, from and up to before."""

    def _shown(self) -> View:
        layers, heads, length, _ = self.weights.shape
        entropy = relative_entropy(self)
        rows = [(f"layer {layer + 1}", *(round(float(value), 2) for value in entropy[layer, :HEADS_SHOWN]))
                for layer in range(layers)]
        return View(f"attention of {self.name}: {layers} layers of {heads} heads over {length} "
                    f"{'patches' if self.spans else 'tokens'}", {"read": " ".join(self.labels)},
                    ("entropy", *(f"head {head + 1}" for head in range(min(heads, HEADS_SHOWN)))), rows,
                    "1: a head reads everything alike; 0: one other alone. write_attention_page shows every map.")

    def _repr_html_(self) -> str:
        return as_html(self._shown()) + self._map_in_html()

    def _map_in_html(self) -> str:
        """The last layer's mean over heads, of the first tokens: who reads in rows, who is read in columns."""
        labels = [in_html(label) for label in self.labels[:TOKENS_SHOWN]]
        mean = self.weights[-1].mean(0)[:len(labels), :len(labels)]
        strongest = float(mean.max()) or 1.0
        head = "".join(f'<th scope="col">{label}</th>' for label in labels)
        rows = "".join(f'<tr><th scope="row">{label}</th>' + "".join(
            f'<td title="{value:.3f}" style="background:rgba(0,114,178,{value / strongest:.2f})">&nbsp;</td>'
            for value in row) + "</tr>" for label, row in zip(labels, mean.tolist(), strict=True))
        more = f", the first {TOKENS_SHOWN} of {len(self.labels)}" * (len(self.labels) > TOKENS_SHOWN)
        return (f'<div style="overflow-x:auto"><table><caption>Last layer, mean over heads{more}: rows read columns'
                f'</caption><tr><td></td>{head}</tr>{rows}</table></div>')


def text_attention(model: str | Path, text: str, text_pair: str = "") -> AttentionMaps:
    """The maps of a BERT, a GPT-2 or a text classifier around one, for a text or a pair.

    UserError for a text with more tokens than the model has positions, and for other models.
    """
    directory = model_directory(model)
    config = checkpoint_config(directory)
    if isinstance(config, TextConfig):
        backbone = load_weights(AutoModelForSequenceClassification, directory, model,
                                attn_implementation="eager").backbone
    elif config.model_type in FAMILIES:
        backbone = load_weights(AutoModel, directory, model, attn_implementation="eager", **family(config).bare)
    else:
        raise UserError(f"{model}: is a {config.model_type}, not a BERT, a GPT-2 or a text classifier around one. Give "
                        f"such a model; series classifiers take a series.")
    tokenizer = load_checkpoint_tokenizer(directory)
    batch = tokenizer(text, text_pair or None, return_tensors="pt")
    length, positions = batch["input_ids"].shape[1], backbone.config.max_position_embeddings
    if not 1 <= length <= positions:
        raise UserError(f"text: has {length} tokens; the model has {positions} positions. "
                        f"{'Shorten it.' if length else 'Give some text.'}")
    if not family(config).has_segments:
        batch = {"input_ids": batch["input_ids"]}
    with torch.inference_mode():
        weights = torch.cat(backbone.eval()(**batch, output_attentions=True).attentions).float().numpy()
    labels = tuple(_label(tokenizer, index) for index in batch["input_ids"][0].tolist())
    return AttentionMaps(without_machine_paths(str(model)), labels, weights, family(config).is_causal)


def series_attention(model: str | Path, values: np.ndarray, observed: np.ndarray | None = None, channel: int = 0
                     ) -> AttentionMaps:
    """The maps of one of our series models for a series (C, L), scaled as in its training; tokens are patches.

    observed: bool (C, L); patches without an observed value are read by none, and left out. channel: which one, where
    the model reads each by itself. A forecaster sees the last `context_length` values. UserError for other models,
    and for a series that does not fit the model.
    """
    directory = model_directory(model)
    config = checkpoint_config(directory)
    if type(config) is not series_models.SeriesConfig:
        raise UserError(f"{model}: is a {config.model_type}, not a model of series in patches. Give one that "
                        f"make finetune-series left; other models take a text.")
    loaded = load_weights(getattr(series_models, config.architectures[0]), directory, model,
                          attn_implementation="eager").eval()
    first = max(0, values.shape[-1] - config.context_length) if config.context_length else 0
    tensor = torch.from_numpy(np.asarray(values, np.float32)[None, :, first:])
    seen = None if observed is None else torch.from_numpy(np.asarray(observed, bool)[None, :, first:])
    with torch.inference_mode():
        try:
            patches, mask = loaded.embed(loaded.scaled(tensor, seen)[0], seen)
        except ValueError as error:
            raise UserError(f"series: {error}.") from None
        attentions = loaded.backbone(inputs_embeds=patches, attention_mask=mask, output_attentions=True).attentions
    shown = tensor[0].numpy()
    if config.channels == "independent":
        if not 0 <= channel < len(shown):
            raise UserError(f"channel is {channel}; the series has {len(shown)}, counted from 0.")
        shown = shown[channel:channel + 1]
    else:
        channel = 0
    kept = np.ones(patches.shape[1], bool) if mask is None else mask[channel].bool().numpy()
    weights = torch.stack([layer[channel] for layer in attentions]).float().numpy()[:, :, kept][..., kept]
    length = shown.shape[-1]
    spans = tuple((start, min(start + config.patch_length, length))
                  for start in (config.patch_stride * np.flatnonzero(kept)).tolist())
    labels = tuple(f"{first + start}–{first + stop - 1}" for start, stop in spans)
    return AttentionMaps(without_machine_paths(str(model)), labels, weights,
                         family(config).is_causal, shown, spans)


def _label(tokenizer, index: int) -> str:
    """The token as it is written, with blanks made visible."""
    token = tokenizer.convert_ids_to_tokens(index)
    if type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece" or index in tokenizer.all_special_ids:
        return token
    return tokenizer.decode([index]).replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or token


def relative_entropy(maps: AttentionMaps) -> np.ndarray:
    """(layers, heads): a head's entropy over that of uniform attention, as a mean over its readers; in [0, 1].

    A reader that sees one position alone, as the first of a GPT, has no choice and is left out; nan if all are so.
    """
    weights = maps.weights.astype(np.float64)
    length = weights.shape[-1]
    entropy = -np.sum(weights * np.log(np.where(weights > 0, weights, 1)), -1)
    seen = np.arange(1, length + 1) if maps.is_causal else np.full(length, length)
    return (entropy[..., seen > 1] / np.log(seen[seen > 1])).mean(-1) if length > 1 else np.full(weights.shape[:2],
                                                                                                np.nan)


