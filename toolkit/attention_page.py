"""What every attention head of a model looks at, for one text or one series, on an HTML page with nothing to fetch.

A map has a row for each token that reads and a column for each that is read. Beside it stands its entropy against
uniform attention: 1 where a head reads everything alike, 0 where each token reads one other alone.
"""

import base64
import html
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import image
from transformers import AutoModel, AutoModelForSequenceClassification

from toolkit.errors import UserError
from toolkit.generation import load_weights, model_directory
from toolkit.models import series as series_models
from toolkit.models import text as text_models
from toolkit.models.backbone import checkpoint_config
from toolkit.run import without_machine_paths, write_atomic

_MOST_WEIGHTS = 4_000_000  # 11 MB of page; all heads of BERT-base for 166 tokens
_LEVELS = 65_535


@dataclass(frozen=True)
class AttentionMaps:
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


def text_attention(model: str | Path, text: str, text_pair: str = "") -> AttentionMaps:
    """The maps of a BERT, a GPT-2 or a text classifier around one, for a text or a pair.

    UserError for a text with more tokens than the model has positions, and for other models.
    """
    directory = model_directory(model)
    config = checkpoint_config(directory)
    if config.model_type == text_models.TextConfig.model_type:
        backbone = load_weights(AutoModelForSequenceClassification, directory, model,
                                attn_implementation="eager").backbone
    elif config.model_type in ("bert", "gpt2"):
        own = {"add_pooling_layer": False} if config.model_type == "bert" else {}
        backbone = load_weights(AutoModel, directory, model, attn_implementation="eager", **own)
    else:
        raise UserError(f"{model}: is a {config.model_type}, not a BERT, a GPT-2 or a text classifier around one. Give "
                        f"such a model; series classifiers take a series.")
    tokenizer = text_models.load_checkpoint_tokenizer(directory)
    batch = tokenizer(text, text_pair or None, return_tensors="pt")
    length, positions = batch["input_ids"].shape[1], backbone.config.max_position_embeddings
    if not 1 <= length <= positions:
        raise UserError(f"text: has {length} tokens; the model has {positions} positions. "
                        f"{'Shorten it.' if length else 'Give some text.'}")
    if backbone.config.model_type == "gpt2":
        batch = {"input_ids": batch["input_ids"]}
    with torch.inference_mode():
        weights = torch.cat(backbone.eval()(**batch, output_attentions=True).attentions).float().numpy()
    labels = tuple(_label(tokenizer, index) for index in batch["input_ids"][0].tolist())
    return AttentionMaps(without_machine_paths(str(model)), labels, weights, backbone.config.model_type == "gpt2")


def series_attention(model: str | Path, values: np.ndarray, observed: np.ndarray | None = None, channel: int = 0
                     ) -> AttentionMaps:
    """The maps of one of our series models for a series (C, L), scaled as in its training; tokens are patches.

    observed: bool (C, L); patches without an observed value are read by none, and left out. channel: which one, where
    the model reads each by itself. A forecaster sees the last `context_length` values. UserError for other models,
    and for a series that does not fit the model.
    """
    directory = model_directory(model)
    config = checkpoint_config(directory)
    if config.model_type != series_models.SeriesConfig.model_type:
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
                         config.backbone_config.model_type == "gpt2", shown, spans)


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


def write_attention_page(maps: AttentionMaps, path: str | Path) -> None:
    """The page: entropies, one map large with its labels, and all of them side by side."""
    layers, heads, length, _ = maps.weights.shape
    if maps.weights.size > _MOST_WEIGHTS:
        most = int((_MOST_WEIGHTS / (layers * heads)) ** 0.5)
        raise UserError(f"text: {length} tokens in {layers * heads} heads make {maps.weights.size:,} weights, too many "
                        f"for a page. Shorten it to {most} tokens.")
    entropy = relative_entropy(maps)
    what = "patch" if maps.spans else "token"
    data = {"labels": maps.labels, "what": what, "spans": maps.spans,
            "weights": [[_base64(np.round(_LEVELS * head).astype("<u2").tobytes()) for head in layer]
                        for layer in maps.weights]}
    table = "".join(
        f"<tr><th>layer {layer + 1}</th>" + "".join(
            f'<td data-head="{layer},{head}" style="background:rgba(37,99,235,{0.5 * max(0, 1 - value):.2f})">'
            f"{value:.2f}</td>" for head, value in enumerate(row)) + "</tr>" for layer, row in enumerate(entropy))
    heads_row = "".join(f"<th>head {head + 1}</th>" for head in range(heads))
    gallery = "".join(
        f'<figure data-head="{layer},{head}"><img src="data:image/png;base64,{_picture(maps.weights[layer, head])}" '
        f'alt=""><figcaption>layer {layer + 1}, head {head + 1} · entropy {entropy[layer, head]:.2f}</figcaption>'
        f"</figure>" for layer in range(layers) for head in range(heads))
    reads = "A token reads itself and those before it." if maps.is_causal else "Every token reads all of them."
    reads = reads.replace("token", what)
    text = "" if maps.spans else "".join(f'<span data-place="{place}">{html.escape(label)}</span>'
                                         for place, label in enumerate(maps.labels))
    title = f"Attention of {maps.name}"
    write_atomic(path, _PAGE.format(
        title=html.escape(title), what=what, facts=f"{layers} layers × {heads} heads, {length} {what}"
        f"{('s' if what == 'token' else 'es') if length > 1 else ''}. {reads}", table=table, heads=heads_row,
        gallery=gallery, text=text, series=_curve(maps) if maps.spans else "",
        data=json.dumps(data, ensure_ascii=False).replace("</", "<\\/"), style=_STYLE, script=_SCRIPT))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _picture(weights: np.ndarray) -> str:
    """A pixel a weight. Colour goes with the square root: 1 / 64 is still seen, and heads can be compared."""
    buffer = io.BytesIO()
    image.imsave(buffer, np.sqrt(weights), cmap="Blues", vmin=0, vmax=1, format="png")
    return _base64(buffer.getvalue())


def _curve(maps: AttentionMaps) -> str:
    """The series as SVG, 1,000 × 120, over a bar for every patch (two rows, as patches may overlap)."""
    channels, length = maps.values.shape
    low, high = maps.values.min(), maps.values.max()
    across = 1000 / max(1, length - 1)
    height = 110 - 100 * (maps.values - low) / max(high - low, 1e-12)
    lines = "".join(f'<polyline points="{" ".join(f"{x * across:.1f},{y:.1f}" for x, y in enumerate(row))}"/>'
                    for row in height)
    bars = "".join(f'<rect data-place="{place}" x="{start * across:.1f}" y="{122 + 9 * (place % 2)}" height="7" '
                   f'width="{max(1, (stop - 1 - start) * across):.1f}"><title>{start} to {stop - 1}</title></rect>'
                   for place, (start, stop) in enumerate(maps.spans))
    return f'<svg id="series" viewBox="-2 0 1004 142" preserveAspectRatio="none">{lines}{bars}</svg>'


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #e5e7eb }
th { font-weight: normal; color: #6b7280; text-align: left; padding-right: .8rem; font-size: 13px }
td { padding: .15rem .8rem; text-align: right; font-variant-numeric: tabular-nums; border-radius: 3px }
.soft { color: #6b7280 } [data-head] { cursor: pointer } [data-head].on { outline: 2px solid #ea580c }
.scroll { overflow-x: auto }
#large text { font: 11px ui-monospace, monospace; fill: #6b7280 } #large text.on { fill: #c2410c; font-weight: bold }
#large image, figure img { image-rendering: pixelated }
#told { min-height: 1.5em; margin: .3rem 0 }
#text span { font: 14px/1.9 ui-monospace, monospace; padding: .1rem .2rem; border-radius: 3px; margin-right: 2px }
#text span.on, #series rect.on { outline: 2px solid #ea580c } #series { width: 100%; height: 150px }
#series polyline { fill: none; stroke: #1f2937; stroke-width: 1.5; vector-effect: non-scaling-stroke }
#series rect { fill: #e5e7eb } #series rect.on { stroke: #ea580c; stroke-width: 2; vector-effect: non-scaling-stroke }
#gallery { display: flex; flex-wrap: wrap; gap: 14px } figure { margin: 0 }
figure img { width: 168px; height: 168px; border: 1px solid #e5e7eb; display: block }
figcaption { font-size: 12px; color: #6b7280 }
"""

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style>
</head><body><h1>{title}</h1><p>{facts}</p>
<h2>How spread out</h2><p class="soft">Entropy of a head's attention over that of uniform attention, mean over readers:
1.00 reads everything alike, 0.00 one {what} alone. Click on a head to see it below.</p>
<div class="scroll"><table><tr><th></th>{heads}</tr>{table}</table></div>
<h2 id="which">One head</h2><p class="soft">A row reads, a column is read; the darker, the more (colour goes with the
square root of the weight).</p><p id="told"></p><div id="text">{text}</div>{series}
<div class="scroll"><svg id="large"></svg></div>
<h2>All heads</h2><div id="gallery">{gallery}</div>
<script id="data" type="application/json">{data}</script><script>{script}</script></body></html>
"""

_SCRIPT = """
const data = JSON.parse(document.getElementById('data').textContent), n = data.labels.length
const svg = document.getElementById('large'), told = document.getElementById('told'), space = 'http://www.w3.org/2000/svg'
const cell = Math.max(6, Math.min(24, Math.floor(640 / n))), every = Math.ceil(11 / cell)
const margin = 14 + 7 * Math.min(16, Math.max(...data.labels.map(label => label.length)))
const cut = label => label.length > 16 ? label.slice(0, 15) + '…' : label
let weights, chosen
function add(kind, attributes, parent = svg) {
  const made = document.createElementNS(space, kind)
  for (const name in attributes) made.setAttribute(name, attributes[name])
  return parent.appendChild(made)
}
svg.setAttribute('width', margin + n * cell + 2)
svg.setAttribute('height', margin + n * cell + 2)
const picture = add('image', {x: margin, y: margin, width: n * cell, height: n * cell, preserveAspectRatio: 'none'})
add('rect', {x: margin, y: margin, width: n * cell, height: n * cell, fill: 'none', stroke: '#d1d5db'})
const rows = [], columns = []
data.labels.forEach((label, i) => {
  if (i % every) return
  const at = margin + (i + .5) * cell
  rows[i] = add('text', {x: margin - 5, y: at + 4, 'text-anchor': 'end'})
  columns[i] = add('text', {transform: `translate(${at + 4} ${margin - 5}) rotate(-90)`})
  rows[i].textContent = columns[i].textContent = cut(label)
})
const frame = add('rect', {width: cell, height: cell, fill: 'none', stroke: '#ea580c', 'stroke-width': 2})
const places = document.querySelectorAll('[data-place]')
function point(i, j) {
  const mark = (list, k) => list.forEach((label, at) => label.classList.toggle('on', at == k))
  mark(rows, i); mark(columns, j)
  frame.setAttribute('x', margin + j * cell); frame.setAttribute('y', margin + i * cell)
  const say = k => `“${data.labels[k]}” (${data.what} ${k + 1})`
  told.textContent = `${say(i)} reads ${say(j)} with ${(weights[i * n + j] / 65535).toFixed(4)}`
  places.forEach((place, k) => {
    const share = Math.sqrt(weights[i * n + k] / 65535)
    place.classList.toggle('on', k == i)
    place.style[data.spans.length ? 'fill' : 'background'] = `rgba(37, 99, 235, ${(.05 + .75 * share).toFixed(3)})`
  })
  chosen = [i, j]
}
function show(layer, head) {
  const raw = atob(data.weights[layer][head])
  weights = new Uint16Array(n * n)
  for (let i = 0; i < n * n; i++) weights[i] = raw.charCodeAt(2 * i) | raw.charCodeAt(2 * i + 1) << 8
  document.getElementById('which').textContent = `Layer ${layer + 1}, head ${head + 1}`
  document.querySelectorAll('[data-head]').forEach(
    each => each.classList.toggle('on', each.dataset.head == `${layer},${head}`))
  picture.setAttribute('href', document.querySelector(`figure[data-head="${layer},${head}"] img`).src)
  const i = chosen ? chosen[0] : n >> 1, row = weights.subarray(i * n, (i + 1) * n)
  point(i, chosen ? chosen[1] : row.indexOf(Math.max(...row)))
}
document.querySelectorAll('[data-head]').forEach(each => each.addEventListener('click', () => {
  show(...each.dataset.head.split(',').map(Number))
  document.getElementById('which').scrollIntoView({behavior: 'smooth'})
}))
places.forEach((place, k) => place.addEventListener('mouseenter', () => point(k, chosen[1])))
svg.addEventListener('mousemove', event => {
  const box = svg.getBoundingClientRect()
  const [j, i] = [event.clientX - box.left, event.clientY - box.top].map(at => Math.floor((at - margin) / cell))
  if (i >= 0 && i < n && j >= 0 && j < n) point(i, j)
})
show(0, 0)
"""
