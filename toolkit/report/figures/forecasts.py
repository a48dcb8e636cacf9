"""Forecasts: windows with what came and several bands, by the models, the best baseline and the naive rule; and the
error by step as skill over the naive rule.

    shown = read_forecasts("runs/forecast/etth1", 96)
    save_figure(forecasts_figure(shown, "etth1, horizon 96"), "forecasts.png")
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from toolkit.report.figures.canvas import INK, LINES, OKABE_ITO, PRETRAINED, RANDOM, SOFT, entitle, new_figure
from toolkit.shown import in_picture

ROLES = {"pretrained": (PRETRAINED, "-"), "random start": (RANDOM, LINES[1]), "model": (PRETRAINED, "-"),
         "best baseline": (OKABE_ITO[2], LINES[3]), "naive": (SOFT, LINES[2])}
"""What a forecaster is shown as → its colour and line, in every picture of forecasts."""
WINDOWS = 3
LOWEST_SKILL = -100.0
"""Percent: down to here at most the axis goes, and only for forecasters that have a role; what is worse is told."""
_OTHERS = (*OKABE_ITO[3:], SOFT)


@dataclass(frozen=True)
class Window:
    """Of one series and channel, in the table's units."""

    title: str
    context: np.ndarray
    truth: np.ndarray
    """(horizon,); NaN where it is not known."""
    times: np.ndarray
    """(context + horizon,) datetime64, or numbers."""


@dataclass(frozen=True)
class Forecaster:
    """One forecaster's answers to every window."""

    name: str
    role: str
    """One of `ROLES`."""
    predictions: list[np.ndarray]
    bands: list[dict[float, tuple[np.ndarray, np.ndarray]]] = field(default_factory=list)
    """Of each window: share of values that the band is to hold → its ends. Empty where there are none."""
    score: str = ""
    """Such as `test MSE 0.301`."""


@dataclass(frozen=True)
class Forecasts:
    """What one picture shows."""

    windows: list[Window]
    forecasters: list[Forecaster]
    quantity: str = ""
    """The channel's name, for the axis."""
    unit: str = "(the table's unit)"
    time: str = ""
    """What the axis of time is called."""
    bands: str = "by residuals on validation"
    """What the bands are."""
    known: str = "what came"
    """What the line beside the forecasts is."""


def forecasts_figure(shown: Forecasts, title: str = "") -> Figure:
    """A row a forecaster, a column a window: what was known, what came, the forecast and its bands."""
    columns, rows = len(shown.windows), len(shown.forecasters)
    figure, all_axes = new_figure(0.5 + 3.1 * columns, 1.1 + 1.65 * rows, rows, columns, sharex="col", sharey="col")
    if title:
        entitle(figure, title)
    for row, forecaster in enumerate(shown.forecasters):
        for column, window in enumerate(shown.windows):
            axes = all_axes[row, column]
            _draw(axes, window, forecaster, column)
            if row == rows - 1:
                told = " · ".join(filter(None, [window.title, shown.time]))
                axes.set_xlabel(in_picture(told, 46), fontsize=8, loc="left")
                axes.xaxis.get_offset_text().set(color=INK, fontsize=8)
        told = f" ({forecaster.role})" if forecaster.role not in ("model", forecaster.name) else ""
        told += f", {forecaster.score}" if forecaster.score else ""
        all_axes[row, 0].set_title(in_picture(forecaster.name, 40) + told, loc="left", fontsize=10,
                                   color=INK)
        all_axes[row, 0].set_ylabel("\n".join(filter(None, [in_picture(shown.quantity, 20), shown.unit])), fontsize=8)
    for column, axes in enumerate(all_axes[0]):
        axes.set_ylim(*_limits(shown, column))
    _legend(figure, shown)
    return figure


def fan_figure(shown: Forecasts) -> Figure:
    """A row a window, of one forecaster: what the table holds, and after its end the forecast and its bands."""
    figure, all_axes = new_figure(4.4, 1.1 + 1.5 * len(shown.windows), len(shown.windows), 1)
    for number, (window, axes) in enumerate(zip(shown.windows, all_axes[:, 0], strict=True)):
        _draw(axes, window, shown.forecasters[0], number)
        axes.set_title(in_picture(window.title), loc="left", fontsize=10, color=INK)
        axes.set_ylim(*_limits(shown, number))
        axes.xaxis.get_offset_text().set(color=INK, fontsize=8)
    all_axes[-1, 0].set_xlabel(in_picture(shown.time, 60), fontsize=8, loc="left")
    _legend(figure, shown, 2)
    return figure


def _limits(shown: Forecasts, number: int) -> tuple[float, float]:
    """Every line is whole; bands are as far as they reach no farther beyond the lines than these lie apart."""
    window = shown.windows[number]
    lines = np.concatenate([window.context, window.truth, *(one.predictions[number] for one in shown.forecasters)])
    low, high = np.nanmin(lines), np.nanmax(lines)
    room = (high - low) or abs(high) or 1.0
    ends = [end for one in shown.forecasters if one.bands for band in one.bands[number].values() for end in band]
    if ends:
        low, high = (min(low, max(np.nanmin(ends), low - room)), max(high, min(np.nanmax(ends), high + room)))
    return low - 0.05 * room, high + 0.05 * room


def _draw(axes: Axes, window: Window, forecaster: Forecaster, number: int) -> None:
    colour, line = ROLES[forecaster.role]
    known = len(window.context)
    after = window.times[known:]
    axes.plot(window.times, np.concatenate([window.context, window.truth]), color=INK, linewidth=0.9, zorder=2)
    if forecaster.bands:
        for low, high in forecaster.bands[number].values():
            axes.fill_between(after, low, high, color=colour, alpha=0.16, linewidth=0, zorder=1)
    axes.plot(after, forecaster.predictions[number], color=colour, linestyle=line, linewidth=1.7, zorder=3)
    axes.axvline(window.times[known], color=SOFT, linewidth=0.8, zorder=0)
    axes.margins(x=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8)
    if window.times.dtype.kind == "M":
        locator = AutoDateLocator(minticks=2, maxticks=5)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _legend(figure: Figure, shown: Forecasts, columns: int = 0) -> None:
    handles = [Line2D([], [], color=INK, linewidth=0.9, label=shown.known),
               *(Line2D([], [], color=ROLES[role][0], linestyle=ROLES[role][1], linewidth=1.7,
                        label="forecast" if role == "model" else role)
                 for role in dict.fromkeys(forecaster.role for forecaster in shown.forecasters))]
    shares = sorted({share for forecaster in shown.forecasters for bands in forecaster.bands for share in bands})
    for number, share in enumerate(shares):
        handles.append(Patch(facecolor=SOFT, alpha=1 - (1 - 0.16) ** (len(shares) - number), linewidth=0,
                             label=f"{100 * share:.0f} %" + (f" band, {shown.bands}" if share == shares[-1] else "")))
    figure.legend(handles=handles, loc="outside lower left", ncols=columns or len(handles), frameon=False, fontsize=8,
                  labelcolor=INK, columnspacing=1.2, handlelength=2)


# --- error by step -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SkillPanel:
    """One horizon's errors by step."""

    title: str
    naive: str
    """The rule that skill is measured against, one of `errors`."""
    errors: Mapping[str, Sequence[float]]
    """Forecaster → its error at each step."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Forecaster → one of `ROLES`; others are drawn thin."""


def skill(errors: Sequence[float], naive: Sequence[float]) -> np.ndarray:
    """By how many percent of the naive rule's error a forecast is better, by step; NaN where that has none."""
    errors, naive = np.asarray(errors, float), np.asarray(naive, float)
    return 100 * (1 - np.divide(errors, naive, out=np.full(len(naive), np.nan), where=naive > 0))


def skill_figure(panels: Sequence[SkillPanel], title: str = "", metric: str = "MSE", steps: str = "steps ahead"
                 ) -> Figure:
    """A panel a horizon: every forecaster's skill over the naive rule, which is the line at zero. Above is better."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure, all_axes = new_figure(6.6 if columns == 1 else 10.4, 0.8 + 3.1 * rows, rows, columns)
    if title:
        entitle(figure, title)
    for axes in all_axes.flat[len(panels):]:
        axes.remove()
    for axes, panel in zip(all_axes.flat, panels, strict=False):
        _draw_skill(axes, panel)
        axes.set_title(in_picture(panel.title), loc="left", fontsize=10)
        axes.set_xlabel(in_picture(steps, 60))
        axes.set_ylabel(f"skill (% of the naive {metric})")
        axes.grid(axis="y", color=SOFT, alpha=0.2, linewidth=0.6)
    return figure


def _draw_skill(axes: Axes, panel: SkillPanel) -> None:
    curves = {name: skill(errors, panel.errors[panel.naive]) for name, errors in panel.errors.items()
              if name != panel.naive}
    steps = len(panel.errors[panel.naive])
    axes.axhline(0, color=INK, linewidth=0.9, zorder=1)
    lowest = min((np.nanmin(curve) for name, curve in curves.items() if name in panel.roles), default=0.0)
    bottom = 1.06 * max(min(lowest, -20.0), LOWEST_SKILL)
    highest = max((np.nanmax(curve) for curve in curves.values()), default=0.0)
    axes.set_ylim(bottom, min(103, max(1.1 * highest, 20)))
    axes.set_xlim(1, max(steps, 2))
    labels: list[tuple[float, str, dict]] = [(0.0, f"{in_picture(panel.naive, 30)} = 0", {"color": INK,
                                                                                          "linewidth": 0.9})]
    thin = [name for name in curves if name not in panel.roles]
    for name, curve in curves.items():
        chosen = name in panel.roles
        place = 0 if chosen else thin.index(name)
        colour, line = ROLES[panel.roles[name]] if chosen else (_OTHERS[place % len(_OTHERS)], LINES[1 + place % 3])
        style = {"color": colour, "linestyle": line, "linewidth": 1.8 if chosen else 0.9}
        axes.plot(range(1, 1 + len(curve)), curve, zorder=3 if chosen else 2, **style)
        worst = np.nanmin(curve)
        told = f", down to {worst:,.0f} %".replace("-", "\u2212") if worst < bottom else ""
        labels.append((curve[-1], in_picture(name, 30) + told, style))
    _name(axes, labels)


def _name(axes: Axes, labels: Sequence[tuple[float, str, dict]]) -> None:
    """Names, each with a piece of its line, at the right end of the lines, moved apart where they would lie on each
    other.
    """
    low, high = axes.get_ylim()
    gap = 0.062 * (high - low)
    ordered = sorted(labels, key=lambda label: np.nan_to_num(label[0], nan=low))
    places = np.clip([np.nan_to_num(label[0], nan=low) for label in ordered], low, high)
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    if (over := places[-1] - high) > 0:
        places[-1] -= over
        for index in range(len(places) - 2, -1, -1):
            places[index] = min(places[index], places[index + 1] - gap)
    for place, (_, name, style) in zip(places, ordered, strict=True):
        axes.plot([1.015, 1.075], [place, place], transform=axes.get_yaxis_transform(), clip_on=False, **style)
        axes.annotate(name, (1.09, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=INK)
