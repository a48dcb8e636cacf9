"""What a run learned, by step: training and validation in one panel, what guessing gives as a marked line.

    save_figure(loss_figure(read_metrics(run / "metrics.jsonl"), title="my run"), "loss.png")
    save_figure(fits_figure({"random": [records, …], "pretrained": [records, …]}, curves), "fits.png")
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from toolkit.report.figures.canvas import INK, OKABE_ITO, PAPER, SOFT, entitle, new_figure, style_of
from toolkit.run.results import kept_evaluation
from toolkit.shown import in_picture

TRAINING, VALIDATION = OKABE_ITO[5], OKABE_ITO[0]
_ON_PAPER = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}
"""Behind a text, so that no line goes through it."""
Records = Sequence[dict]
"""The lines of a metrics.jsonl."""


@dataclass(frozen=True)
class Curve:
    """One quantity by step."""

    title: str
    unit: str
    """What the axis is called."""
    train: str = ""
    """Key of the records; "" where it is not measured in training."""
    validation: str = ""
    references: dict[str, float] = field(default_factory=dict)
    """Name → value that is drawn as a line."""
    share: bool = False
    """Between 0 and 1, shown in percent."""
    beside: tuple[str, float] | None = None
    """A second axis, on the right: what it is called, and how much of it is one of the first."""


def curves_of(records: Records, result: Mapping | None = None, references: Mapping[str, float] | None = None
              ) -> list[Curve]:
    """What the records of a run hold, each loss by its task's name and in its unit.

    result: what the run reported; its `unigram_entropy` and `guessing` are references. references: further lines of the
        first panel.
    """
    keys = {key for record in records for key in record}
    last = {key: value for record in records for key, value in record.items() if key.startswith("eval_")}
    known = {name.replace("_", " "): value for name in ("unigram_entropy", "guessing")
             if (value := (result or {}).get(name))}
    curves = _of_kind(keys, last, known)
    if curves and references:
        curves[0] = replace(curves[0], references={**curves[0].references, **references})
    return curves


def _of_kind(keys: set[str], last: Mapping[str, float], known: dict[str, float]) -> list[Curve]:
    if "mlm_loss" in keys:
        pairs = [Curve("next sentence", "loss (nats a pair)", "nsp_loss", "eval_nsp_loss", {"guessing": math.log(2)})]
        return [Curve("masked words", "loss (nats a masked token)", "mlm_loss", "eval_mlm_loss", known),
                *(pairs if "nsp_loss" in keys else [])]
    if "masked_patches_loss" in keys:
        unexplained = 1 - last.get("eval_explained", 1.0)
        guess = {"always the mean": last["eval_loss"] / unexplained} if unexplained > 0 else {}
        return [Curve("hidden patches", "MSE (standardised values)", "loss", "eval_loss", guess)]
    if "eval_r2" in keys:
        return [Curve("numbers", "MSE (labels of variance 1)", "loss", "eval_loss", {"always the mean": 1.0}),
                Curve("share of the variance explained", "R²", validation="eval_r2",
                      references={"always the mean": 0.0})]
    if "seq2seq_loss" in keys:
        return [Curve("next target token", "loss (nats a token)", "loss", "eval_loss"),
                Curve("right tokens, those before given", "tokens (%)", validation="eval_accuracy", share=True)]
    if "eval_accuracy" in keys and "lm_loss" not in keys:
        scores = [Curve(name, f"{shown} (%)", validation=key, share=True)
                  for key, name, shown in (("eval_accuracy", "accuracy", "accuracy"), ("eval_f1", "F1", "F1"))
                  if key in keys]
        return [Curve("label", "loss (nats a label)", "loss", "eval_loss"), *scores]
    if "eval_mse" in keys or "forecast_loss" in keys:
        return [Curve("forecast", "MSE (standardised values)", "loss", "eval_mse")]
    if "loss" not in keys:
        return []
    beside = None
    if last.get("eval_bits_per_byte") and last.get("eval_loss"):
        beside = ("bits per byte of validation", last["eval_bits_per_byte"] / last["eval_loss"])
    return [Curve("next token", "loss (nats a token)", "loss", "eval_loss", known, beside=beside)]


def points_of(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of a key."""
    found = [(record["step"], record[key]) for record in records
             if isinstance(record.get(key), (int, float)) and math.isfinite(record[key])]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.asarray(steps, float), np.asarray(values, float)


# --- one run -------------------------------------------------------------------------------------------------------


def loss_figure(records: Records, curves: Sequence[Curve] | None = None, title: str = "",
                result: Mapping | None = None) -> Figure | None:
    """A panel a curve, those of one run; None where nothing was logged. curves: default `curves_of(records, result)`.
    """
    curves = [curve for curve in (curves_of(records, result) if curves is None else curves)
              if any(len(points_of(records, key)[0]) for key in (curve.train, curve.validation))]
    if not curves:
        return None
    figure, all_axes = _panels(curves, title)
    kept = kept_evaluation(records).get("step")
    for axes, curve in zip(all_axes, curves, strict=True):
        scale = 100 if curve.share else 1
        of_train, of_validation = (points_of(records, key) for key in (curve.train, curve.validation))
        axes.plot(of_train[0], scale * of_train[1], color=TRAINING, linewidth=1.1)
        few = len(of_validation[0]) <= 40
        axes.plot(of_validation[0], scale * of_validation[1], color=VALIDATION, linewidth=1.5,
                  marker="o" if few else "", markersize=3.5)
        if kept in of_validation[0]:
            value = scale * of_validation[1][of_validation[0] == kept][-1]
            axes.plot([kept], [value], "o", markersize=9, markerfacecolor="none", color=INK, markeredgewidth=1.2)
            axes.annotate(f"{value:.3g}", (kept, value), xytext=(0, 8), textcoords="offset points", ha="center",
                          fontsize=8, color=INK, bbox=_ON_PAPER)
        _scale(axes, [of_train, of_validation], curve)
        _refer(axes, curve, [of_train, of_validation])
    handles = [Line2D([], [], color=TRAINING, linewidth=1.5, label="training")] if any(
        len(points_of(records, curve.train)[0]) for curve in curves) else []
    handles += [Line2D([], [], color=VALIDATION, marker="o", markersize=4, label="validation"),
                Line2D([], [], color=INK, marker="o", markerfacecolor="none", markersize=8, linestyle="",
                       label="the model that is kept")][:1 + (kept is not None)]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _panels(curves: Sequence[Curve], title: str) -> tuple[Figure, list[Axes]]:
    """In rows of at most two."""
    columns = min(2, len(curves))
    rows = -(-len(curves) // columns)
    figure, all_axes = new_figure(6.4 if columns == 1 else 9.2, 0.9 + 2.8 * rows, rows, columns)
    if title:
        entitle(figure, title)
    found = list(all_axes.flat)
    for axes in found[len(curves):]:
        axes.remove()
    for axes, curve in zip(found, curves, strict=False):
        axes.set_title(in_picture(curve.title), loc="left", fontsize=10)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_ylabel(in_picture(curve.unit))
        axes.grid(axis="y", color=SOFT, alpha=0.2, linewidth=0.6)
    return figure, found[:len(curves)]


def _scale(axes: Axes, lines: Sequence[tuple[np.ndarray, np.ndarray]], curve: Curve) -> None:
    """Shares from 0 to 100; errors over more than two powers of ten, and steps where most falls at once, by powers."""
    steps = np.concatenate([line[0] for line in lines])
    values = np.concatenate([line[1] for line in lines])
    if curve.share:
        axes.set_ylim(0, 100)
    elif values.min() > 0 and values.max() > 100 * values.min():
        axes.set_yscale("log")
    if steps.min() == steps.max():
        axes.set_xlim(steps.min() - 1, steps.max() + 1)  # else its ticks are parts of a step
    longest = max(lines, key=lambda line: len(line[0]))
    if len(longest[0]) < 8 or steps.min() <= 0 or steps.max() < 20 * steps.min():
        return
    early = longest[1][longest[0] <= 0.15 * steps.max()]
    if len(early) and abs(early[0] - early[-1]) > 0.6 * np.ptp(longest[1]):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("step (logarithmic)")


def _refer(axes: Axes, curve: Curve, lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Marked lines, each with its name and value at the end where the curves are farther; the second axis, if any. What
    lies so far off that its line would squash the curves is told over them.
    """
    scale = 100 if curve.share else 1
    steps, values = (np.concatenate([line[part] for line in lines]) for part in (0, 1))
    share, at = ((each - steps.min()) / (np.ptp(steps) or 1) for each in (steps, lines[-1][0]))
    of_last = lines[-1][1]  # of validation, which is drawn with dots
    room = np.ptp(values) or abs(values[0]) or 1.0
    beyond = {"above": [], "below": []}
    for name, value in curve.references.items():
        told = f"{in_picture(name, 40)} {scale * value:.3g}"
        if not curve.share and not values.min() - room <= value <= values.max() + room:
            beyond["above" if value > values.max() else "below"].append(told)
            continue
        near = [np.abs(values[chosen] - value).min(initial=np.inf) for chosen in (share < 0.4, share > 0.6)]
        dots = [np.abs(of_last[chosen] - value).min(initial=np.inf) < 0.1 * room for chosen in (at < 0.4, at > 0.6)]
        at_left = near[0] > near[1] if dots[0] == dots[1] else dots[1]  # a crossed line is read more easily than a dot
        axes.axhline(scale * value, color=SOFT, linestyle=(0, (5, 2)), linewidth=1, zorder=1)
        axes.annotate(told, (0.01 if at_left else 0.99, scale * value), xycoords=("axes fraction", "data"),
                      xytext=(0, 2), textcoords="offset points", ha="left" if at_left else "right", va="bottom",
                      color=SOFT, fontsize=8, zorder=2.5, bbox=_ON_PAPER)
    axes.set_title("; ".join(f"{where}: {', '.join(names)}" for where, names in beyond.items() if names), loc="right",
                   fontsize=8, color=SOFT)
    if curve.beside:
        name, factor = curve.beside
        right = axes.secondary_yaxis("right", functions=(lambda y: y * factor, lambda y: y / factor))
        right.set_ylabel(in_picture(name), color=INK, fontsize=9)
        right.tick_params(color=INK, labelcolor=INK, labelsize=9)
        right.spines["right"].set_color(INK)


# --- several fits --------------------------------------------------------------------------------------------------


def fits_figure(fits: Mapping[str, Sequence[Records]], curves: Sequence[Curve], title: str = "") -> Figure | None:
    """Arm → the records of each seed: a thin line a seed, a thick one for their mean; one panel what is measured in
    training, or else on validation. Arms from a random start are dashed. None where nothing was logged.
    """
    def key_of(curve: Curve) -> str:
        return curve.validation or curve.train

    def of(records: Records, curve: Curve) -> tuple[np.ndarray, np.ndarray]:
        return points_of(records, key_of(curve))

    curves = [curve for curve in curves if any(len(of(records, curve)[0]) for seeds in fits.values()
                                               for records in seeds)]
    if not curves:
        return None
    figure, all_axes = _panels(curves, title)
    styles = {arm: {"color": style_of(number)["color"], "linestyle": (0, (5, 2)) if "random" in arm else "-"}
              for number, arm in enumerate(fits)}
    for axes, curve in zip(all_axes, curves, strict=True):
        scale, lines = 100 if curve.share else 1, []
        for arm, seeds in fits.items():
            found = [line for line in (of(records, curve) for records in seeds) if len(line[0])]
            lines += found
            for steps, values in found if len(found) > 1 else []:
                axes.plot(steps, scale * values, linewidth=0.6, alpha=0.5, marker=_dot(steps), markersize=3,
                          **styles[arm])
            if found:
                steps, means = _mean(found, scale)
                axes.plot(steps, means, linewidth=1.8, marker=_dot(steps), markersize=6, **styles[arm])
        where = "validation" if curve.validation else "training"
        axes.set_ylabel(f"{where} {in_picture(curve.unit)}")
        _scale(axes, lines, curve)
        _refer(axes, curve, lines)
    handles = [Line2D([], [], label=in_picture(arm, 40), linewidth=1.8, **style) for arm, style in styles.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=8, labelcolor=INK,
                  title="thick: mean of seeds" if any(len(seeds) > 1 for seeds in fits.values()) else None,
                  title_fontsize=8, alignment="left")
    return figure


def _dot(steps: np.ndarray) -> str:
    """The marker of a line: a single point has no line."""
    return "o" if len(steps) == 1 else ""


def _mean(lines: Sequence[tuple[np.ndarray, np.ndarray]], scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Over seeds, at the steps that all of them have."""
    curves = [dict(zip(*line, strict=True)) for line in lines]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return np.asarray(steps), scale * np.asarray([[curve[step] for step in steps] for curve in curves]).mean(0)
