"""Tokenizers: how many bytes a token holds, by the size of the vocabulary."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from toolkit.report.figures.canvas import INK, SOFT, entitle, new_figure, style_of
from toolkit.shown import in_picture


def vocabularies_figure(rows: Sequence[dict], title: str = "") -> Figure:
    """A panel a text: `bytes_per_token` against `vocab_size`, a line a tokenizer; one of a single size is a dot."""
    texts = list(dict.fromkeys(row["text"] for row in rows))
    names = list(dict.fromkeys(row["tokenizer"] for row in rows))
    styles = {name: style_of(number) for number, name in enumerate(names)}
    figure, all_axes = new_figure(1.0 + 4.4 * len(texts), 4.4, 1, len(texts), sharey=True)
    if title:
        entitle(figure, title)
    sizes = np.log2([row["vocab_size"] for row in rows])
    for axes, text in zip(all_axes[0], texts, strict=True):
        for name in names:
            points = sorted((row["vocab_size"], row["bytes_per_token"]) for row in rows
                            if row["tokenizer"] == name and row["text"] == text)
            axes.plot(*zip(*points, strict=True), markersize=5, linewidth=1.4, **styles[name])
        axes.set_xscale("log", base=2)
        lowest, highest = int(sizes.min()), int(np.ceil(sizes.max()))
        ticks = [2**power for power in range(lowest, highest + 1, 2 if highest - lowest > 5 else 1)]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(f"{in_picture(text)} text", loc="left", fontsize=10)
        axes.set_xlabel("vocabulary (tokens, logarithmic)")
        axes.grid(axis="y", color=SOFT, alpha=0.2, linewidth=0.6)
    all_axes[0, 0].set_ylim(bottom=0)
    all_axes[0, 0].set_ylabel("bytes per token (more: shorter sequences)")
    figure.legend([Line2D([], [], markersize=5, linewidth=1.4, **style) for style in styles.values()],
                  [in_picture(name, 40) for name in names], loc="outside lower left", ncols=4, frameon=False,
                  fontsize=8, labelcolor=INK)
    return figure
