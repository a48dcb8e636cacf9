"""Every head's attention as one page of HTML that needs nothing beside it."""

import base64
import html
import io
import json
from pathlib import Path

import numpy as np
from matplotlib import image

from toolkit.analysis.attention import AttentionMaps, relative_entropy
from toolkit.errors import UserError
from toolkit.report.html_page import frame
from toolkit.run.files import write_atomic
from toolkit.shown import in_script

_MOST_WEIGHTS = 4_000_000  # 11 MB of page; all heads of BERT-base for 166 tokens

_LEVELS = 65_535


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
    write_atomic(path, frame(f"Attention of {maps.name}", _PAGE.format(
        what=what, facts=f"{layers} layers × {heads} heads, {length} {what}"
        f"{('s' if what == 'token' else 'es') if length > 1 else ''}. {reads}", table=table, heads=heads_row,
        gallery=gallery, text=text, series=_curve(maps) if maps.spans else "",
        data=in_script(json.dumps(data, ensure_ascii=False)), script=_SCRIPT), _STYLE))


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
table { border-collapse: separate } th, td { border-bottom: none }
th { font-weight: normal; color: #6b7280; padding-right: .8rem; font-size: 13px }
td { padding: .15rem .8rem; text-align: right; border-radius: 3px }
[data-head] { cursor: pointer } [data-head].on { outline: 2px solid #ea580c }
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

_PAGE = """<p>{facts}</p>
<h2>How spread out</h2><p class="soft">Entropy of a head's attention over that of uniform attention, mean over readers:
1.00 reads everything alike, 0.00 one {what} alone. Click on a head to see it below.</p>
<div class="scroll"><table><tr><th></th>{heads}</tr>{table}</table></div>
<h2 id="which">One head</h2><p class="soft">A row reads, a column is read; the darker, the more (colour goes with the
square root of the weight).</p><p id="told"></p><div id="text">{text}</div>{series}
<div class="scroll"><svg id="large"></svg></div>
<h2>All heads</h2><div id="gallery">{gallery}</div>
<script id="data" type="application/json">{data}</script><script>{script}</script>"""

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
