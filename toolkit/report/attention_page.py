"""Every head's attention as one page of HTML that needs nothing beside it, with what the model predicted."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from markupsafe import Markup

from toolkit.analysis.attention import Answer, AttentionMaps, relative_entropy
from toolkit.errors import UserError
from toolkit.report.page import TEMPLATES, Section, join, markup, page, paragraph, render
from toolkit.report.thinning import kept_points
from toolkit.run.files import write_atomic
from toolkit.shown import in_script, on_one_line

_MOST_WEIGHTS = 4_000_000  # 11 MB of page; all heads of BERT-base for 166 tokens
_MOST_POINTS, _MOST_CHANNELS = 2000, 7  # of a drawn series
_LEVELS = 65_535


def write_attention_page(maps: AttentionMaps, path: str | Path) -> None:
    """The page: what was predicted, one map large with its labels, and all of them side by side."""
    layers, heads, readers, length = maps.weights.shape
    if maps.weights.size > _MOST_WEIGHTS:
        most, longest = int((_MOST_WEIGHTS / (layers * heads)) ** 0.5), max(readers, length)
        raise UserError(f"text: {longest} {maps.unit}s in {layers * heads} heads make {maps.weights.size:,} weights, "
                        f"too many for a page. Shorten it to {most} {maps.unit}s.")
    what = "patch" if maps.spans else maps.unit
    if maps.readers:
        sections = [Section("Where it looked", _one_head(maps, what))]
        of = f", of {_count(layers, 'layer')} of {_count(heads, 'head')}" if layers * heads > 1 else ""
        lead = f"Where it looked in the source to write each {what} of the target: its cross attention{of}."
    else:
        sections = [Section("What was predicted", predicted)] if (predicted := _predicted(maps)) else []
        sections.append(Section("One head", _one_head(maps, what)))
        reads = f"A {what} reads itself and those before it." if maps.is_causal else f"Every {what} reads all of them."
        several = {"token": "tokens", "patch": "patches"}[what] if length > 1 else what
        lead = f"{layers} layers × {heads} heads, {length} {several}. {reads}"
    if not maps.readers or layers * heads > 1:
        sections.append(Section("All heads", _all_heads(maps, what)))
    style, script = ((TEMPLATES / f"attention.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    write_atomic(path, page(f"Attention of {maps.name}", sections, lead, style, script))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _predicted(maps: AttentionMaps) -> Markup:
    parts = [_answer(answer) for answer in maps.answers]
    if maps.forecast is not None:
        parts.append(paragraph(f"The {maps.forecast.shape[1]} values that follow: dashed, in the picture below."))
    return join(parts)


def _answer(answer: Answer) -> Markup:
    return markup("""<p dir="auto">{{ answer.what | capitalize if answer.what[0] != "[" else answer.what }}:
<b class="token">{{ answer.said }}</b></p>
{% if answer.likeliest %}
<div class="scroll"><table class="bars"><tbody>
{% for name, share in answer.likeliest %}
<tr><th scope="row" class="token" dir="auto">{{ name }}</th>
<td class="bar"><span style="width: {{ "%.1f" | format(100 * share) }}%"></span></td>
<td class="number">{{ "%.1f" | format(100 * share) }} %</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}""", answer=answer)


def _opening(maps: AttentionMaps) -> dict:
    """Where the page opens. Of a text itself: the last layer, mean over its heads, and the position that an answer was
    read from; where none was, the one that the others read most, of those that are part of the text.
    """
    layers, heads, *_ = maps.weights.shape
    if maps.readers:  # the first word; a mean of all is an alignment where single heads are not
        whole = {"layer": "mean" if layers > 1 else 0, "head": "mean" if heads > 1 else 0}
        return {**whole, "reader": 0, "read": int(maps.weights.mean((0, 1))[0].argmax())}
    mean = maps.weights[-1].mean(0)
    places = [answer.place for answer in maps.answers if answer.place is not None]
    read = (mean.sum(0) - np.diagonal(mean)) / np.maximum(1, (mean > 0).sum(0))
    read[sorted(maps.special)] = -1
    reader = places[0] if places else int(read.argmax())
    return {"layer": layers - 1, "head": "mean" if heads > 1 else 0, "reader": reader,
            "read": int(mean[reader].argmax())}


def _one_head(maps: AttentionMaps, what: str) -> Markup:
    layers, heads, *_ = maps.weights.shape
    data = {"labels": [on_one_line(label) for label in maps.labels],
            "readers": [on_one_line(label) for label in maps.readers], "what": what, "spans": maps.spans,
            "opens": _opening(maps), "top": float(maps.weights.max()),
            "weights": [[_base64(head) for head in layer] for layer in maps.weights]}
    return Markup(render("attention.html", layers=layers, heads=heads, what=what, labels=maps.labels,
                         readers=maps.readers, given=any(each.what == "given" for each in maps.answers),
                         spans=bool(maps.spans), special=maps.special, **(_curve(maps) if maps.spans else {}),
                         data=Markup(in_script(json.dumps(data, ensure_ascii=False)))))


def _base64(weights: np.ndarray) -> str:
    return base64.b64encode(np.round(_LEVELS * weights).astype("<u2").tobytes()).decode()


def _curve(maps: AttentionMaps) -> dict:
    """The series, and what was forecast, 150 high over a bar for every patch: two rows, as patches may overlap."""
    ahead = maps.forecast if maps.forecast is not None else maps.values[:, :0]
    length, first = maps.values.shape[1], int(maps.labels[0].partition("–")[0]) - maps.spans[0][0]
    shown, end = slice(_MOST_CHANNELS), length + ahead.shape[1] - 1
    everything = np.concatenate([maps.values[shown], ahead[shown]], 1)
    low, high = float(everything.min()), float(everything.max())
    across = 1000 / max(1, end)

    def line(channel: int, start: int, values: np.ndarray, is_ahead: bool) -> dict:
        places = np.arange(start, start + len(values))
        kept = kept_points(values, _MOST_POINTS)
        heights = 148 - 146 * (values[kept] - low) / max(high - low, 1e-12)
        return {"channel": channel + 1, "ahead": is_ahead, "points": " ".join(
            f"{x * across:.1f},{y:.1f}" for x, y in zip(places[kept], heights, strict=True))}

    lines = [line(number, 0, row, False) for number, row in enumerate(maps.values[shown])]
    if ahead.size:
        lines += [line(number, length - 1, np.concatenate([maps.values[number, -1:], row]), True)
                  for number, row in enumerate(ahead[shown])]
    patches = [{"x": f"{start * across:.2f}", "y": 160 + 16 * (place % 2), "label": maps.labels[place],
                "width": f"{max(1, (stop - 1 - start) * across):.2f}"}
               for place, (start, stop) in enumerate(maps.spans)]
    return {"lines": lines, "patches": patches, "width": 1000, "keys": maps.channels[shown],
            "left_out": max(0, len(maps.values) - _MOST_CHANNELS), "low": _short(low), "high": _short(high),
            "ticks": [first, first + end // 2, f"{first + end} (time step)"]}


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "\u2212")


def _all_heads(maps: AttentionMaps, what: str) -> Markup:
    """A row a layer: every head's map with its entropy, then their mean."""
    heads, readers, length = maps.weights.shape[1:]
    entropy = relative_entropy(maps)
    if heads > 1:
        mean = replace(maps, weights=maps.weights.mean(1, keepdims=True))
        entropy = np.concatenate([entropy, relative_entropy(mean)], 1)
    return Markup(render("attention_heads.html", what=what, heads=heads, readers=readers, length=length,
                         entropy=entropy.tolist(),
                         top=f"{maps.weights.max():.2f}", size=132 if heads < 5 else 92 if heads < 9 else 58))
