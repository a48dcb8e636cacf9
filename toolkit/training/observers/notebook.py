"""What is told while training in a notebook: a bar, a line, and the curves of training and validation, drawn as they
grow. What stands there at the end stays in the notebook.
"""

import math
import os
from pathlib import Path

from toolkit.bars import Display, bar_in_html
from toolkit.run.directory import home, read_metrics
from toolkit.shown import in_html
from toolkit.training.observers.base import Training
from toolkit.training.observers.progress import InLog

SECONDS = 0.5
"""Between two drawings: a browser that is far away must keep up."""
POINTS = 300
"""Of a curve at most."""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 216, 48, 24, 22
COLOURS = {"training": "#0072b2", "validation": "#d55e00"}
"""Of Okabe and Ito, which the colour-blind can tell."""

Curve = list[tuple[float, float]]
"""Steps and losses."""


class InNotebook(InLog):
    """Of one training; drawn between its steps."""

    every = SECONDS

    def __init__(self, training: Training):
        super().__init__(training)
        self.curves: dict[str, Curve] = {"training": [], "validation": []}
        self.said = ""
        self.is_one_of_many = home(training.directory) not in (None, Path(os.path.abspath(training.directory)))
        for record in read_metrics(training.directory / "metrics.jsonl"):  # of before it was broken off
            self._add(record)
        self.place = Display(*self.drawn())

    def log(self, record: dict) -> None:
        super().log(record)
        self._add(record)

    def _add(self, record: dict) -> None:
        loss = self.learning.training.loss
        for name, key in (("training", loss.training), ("validation", loss.validation)):
            if isinstance(value := record.get(key), (int, float)) and math.isfinite(value):
                self.curves[name].append((record["step"], value))

    def evaluated(self) -> None:
        self.show()

    def show(self) -> None:
        self.place.show(*self.drawn())

    def drawn(self) -> tuple[str, str]:
        loss, line = self.learning.training.loss, self.said or self.learning.line()
        curves = curves_in_svg(self.curves, loss.name, loss.guessing)
        if self.said and curves and self.is_one_of_many:
            curves = f"<details><summary>curves</summary>{curves}</details>"
        return line, bar_in_html(self.learning.used, line) + curves

    def ended(self, kept: dict) -> None:
        if self.learning.record:
            self.learning.used = 1.0
            self.said = " · ".join(line.strip() for line in self.learning.summary(kept).splitlines())

    def close(self) -> None:
        self.show()


def curves_in_svg(curves: dict[str, Curve], loss: str, guessing: float | None = None) -> str:
    """Losses by step, and what guessing gives, as an SVG in the colours of the page around it; nothing before there are
    two points.

    The first fall would press the rest together, so that the axis ends at what comes after a twentieth of the steps.
    """
    curves = {name: thinned(curve) for name, curve in curves.items() if curve}
    if max(map(len, curves.values()), default=0) < 2:
        return ""
    last = max(curve[-1][0] for curve in curves.values())
    later = [value for curve in curves.values() for step, value in curve if step > 0.05 * last]
    later += [guessing] * (guessing is not None)
    low, high = min(later), max(later)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = max(low - margin, min(low, 0.0)), high + margin

    def place(step: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 8) * step / last
        y = TOP + (HEIGHT - BOTTOM - TOP) * (high - min(high, max(low, value))) / (high - low)
        return f"{x:.1f},{y:.1f}"

    axis = HEIGHT - BOTTOM
    drawn = [f'<path d="M{LEFT} {TOP}V{axis}H{WIDTH - 8}" fill="none" stroke="currentColor" opacity=".5"/>']
    drawn += [f'<text x="{LEFT - 6}" y="{y}" text-anchor="end">{value:.3g}</text>'
              for y, value in ((TOP + 8, high), (axis, low))]
    drawn += [f'<text x="{LEFT}" y="{HEIGHT - 5}">step 0</text>',
              f'<text x="{WIDTH - 8}" y="{HEIGHT - 5}" text-anchor="end">{last:,}</text>']
    if guessing is not None:
        y = place(0, guessing).split(",")[1]
        drawn.append(f'<path d="M{LEFT} {y}H{WIDTH - 8}" stroke="currentColor" stroke-dasharray="4 3"/>'
                     f'<text x="{(LEFT + WIDTH) / 2}" y="{float(y) - 4:.1f}" text-anchor="middle">guessing '
                     f'{guessing:.3g}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[name]
        points = " ".join(place(*point) for point in curve)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if name == "validation":
            drawn += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
                      for x, y in (place(*point).split(",") for point in curve)]
        x = LEFT + 180 * number
        drawn.append(f'<path d="M{x} 10h18" stroke="{colour}" stroke-width="3"/>'
                     f'<text x="{x + 24}" y="14">{name} {in_html(loss)}</text>')
    said = ", ".join(f"{name} {curve[-1][1]:.3f}" for name, curve in curves.items())
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" style="max-width:{WIDTH}px;width:100%;display:block" role="img" '
            f'aria-label="{in_html(f"{loss} by step; last: {said}")}" font-family="sans-serif" font-size="11" '
            f'fill="currentColor">{"".join(drawn)}</svg>')


def thinned(curve: Curve) -> Curve:
    """Means of neighbours where there are more than POINTS; the last point as it is."""
    size = -(-len(curve) // POINTS)
    if size < 2:
        return list(curve)
    before = curve[:-1]
    parts = [before[start:start + size] for start in range(0, len(before), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts] + [curve[-1]]
