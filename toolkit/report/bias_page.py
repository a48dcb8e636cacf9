"""What the probe for bias found, as a page: shares round 50 % with intervals, figures, sentences that stand out."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from toolkit.analysis.bias import CONTROL, in_order, verdict
from toolkit.report.figures.canvas import BASELINE, INK, OKABE_ITO, PAPER, SOFT, new_figure
from toolkit.report.page import Between, Measured, Section, join, markup, paragraph, picture, table, write_page
from toolkit.shown import in_picture

_MOST_ROWS = 40  # of a picture; all are in the table


def write_bias_page(report: dict, path: str | Path) -> None:
    """report: what `toolkit.analysis.bias.probe_bias` gives."""
    write_page(path, f"Bias probe of {report['model']}", [
        Section("Which of two sentences is likelier", join([
            paragraph(f"{report['pairs']} pairs of sentences that differ in one term. A dot: the share of a category's "
                      f"pairs whose sentence a is the likelier one, with its 95 % interval. Asked for: the "
                      f"{report['method']}."),
            picture(bias_figure(report), _in_words(report), _left_out_of_picture(report))])),
        Section("Figures", _figures(report)), Section("Sentences that stand out", _stand_out(report)),
        Section("What this can show, and what not", join([
            paragraph(report["can_show"]),
            markup("<p><b>It cannot show:</b> {{ told }}</p>", told=report["cannot_show"]),
            paragraph(_left_out(report), soft=True)]))], _lead(report))


def _lead(report: dict) -> str:
    categories = report["categories"]
    asked = [name for name in categories if name != CONTROL]
    leaning = [name for name in asked if verdict(name, categories).startswith("prefers")]
    control = "" if CONTROL not in categories else (
        " So do the control pairs, which name no group: a term alone can do it."
        if verdict(CONTROL, categories).startswith("prefers") else " The control pairs, which name no group, do not.")
    lean, more = ("leans", "category") if len(asked) == 1 else ("lean", "categories")
    return f"{len(leaning)} of {len(asked)} {more} {lean} to one side by more than chance.{control}"


def _in_words(report: dict) -> str:
    """The picture for those who cannot see it."""
    return "Shares of pairs that prefer sentence a. " + "; ".join(
        f"{name}: {_share(report['categories'][name])}, {verdict(name, report['categories'])}"
        for name in in_order(report["categories"])[:_MOST_ROWS])


def _share(found: dict) -> str:
    if found["prefers_a"] is None:
        return "none"
    return f"{100 * found['prefers_a']:.0f} % ({100 * found['low']:.0f} to {100 * found['high']:.0f})"


def _left_out_of_picture(report: dict) -> str:
    more = len(report["categories"]) - _MOST_ROWS
    return f"{more} more categories are in the table." if more > 0 else ""


def _left_out(report: dict) -> str:
    unknown, same = report["left_out"]["unknown_word"], report["left_out"]["same_tokens"]
    return (f"Left out: {unknown} pairs with a word that the tokenizer does not know, {same} whose sentences are the "
            f"same tokens. In {report['split_terms']} pairs what differs is several tokens.")


def _figures(report: dict):
    rows = []
    for name in in_order(report["categories"]):
        found = report["categories"][name]
        rows.append(_row(name, found, verdict(name, report["categories"])))
        if "shared_tokens" in found:
            rows.append(_row(f"{name}: shared tokens alone", found["shared_tokens"], ""))
    return table(["category (a / b)", "pairs", "ties", "prefer a, % (95 %)", "a − b, nats", "verdict"], rows,
                 sortable=True, decimals=0)


def _row(name: str, found: dict, said: str) -> list:
    share = None if found["prefers_a"] is None else Between(
        *(100 * found[key] for key in ("prefers_a", "low", "high")), decimals=0)
    return [name, found["n"], found["ties"], share, Measured(found["mean_difference"], found["ci95"], 2), said]


def _stand_out(report: dict):
    """Sentences that lead by more than others of their category."""
    rows = [[name, side, text, lead] for name in in_order(report["categories"]) for side in ("a", "b")
            for text, lead in report["categories"][name]["stand_out"][side]]
    if not rows:
        return paragraph("None: in every category all pairs lean alike.", soft=True)
    return join([paragraph("By how many nats a sentence leads by more than its category does as a whole.", soft=True),
                 table(["category", "side", "sentence", "nats"], rows, filters=["category", "side"], decimals=2)])


def bias_figure(report: dict) -> Figure:
    """A row a category, sorted: share that prefers a, its interval, counts and verdict; of a GPT hollow below it the
    same of the shared tokens alone. The control last, in grey.
    """
    categories = report["categories"]
    names = in_order(categories)[:_MOST_ROWS]
    figure, all_axes = new_figure(10, 1.1 + 0.46 * len(names), 1, 2, width_ratios=(2, 1.3))
    axes, words = all_axes[0]
    axes.axvline(50, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    for place, name in enumerate(names):
        found, colour = categories[name], BASELINE if name == CONTROL else OKABE_ITO[0]
        below = "shared_tokens" in found
        _dot(axes, found, place - 0.14 * below, colour, colour)
        if below:
            _dot(axes, found["shared_tokens"], place + 0.2, colour, PAPER)
        words.text(0, place, f"{found['n']} pairs", va="center", fontsize=9, color=SOFT)
        words.text(0.24, place, verdict(name, categories), va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(names)), [in_picture(name, 42) for name in names])
    for each in (axes, words):
        each.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100], ["0\nall prefer b", "25", "50", "75", "100 %\nall prefer a"])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    words.set_axis_off()
    words.set_xlim(0, 1)
    if any("shared_tokens" in categories[name] for name in names):
        for face, label in ((OKABE_ITO[0], "whole sentence"), (PAPER, "shared tokens alone")):
            axes.plot([], [], "o", color=OKABE_ITO[0], markerfacecolor=face, label=label)
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return figure


def _dot(axes: Axes, found: dict, place: float, colour: str, face: str) -> None:
    if found["prefers_a"] is not None:
        axes.plot([100 * found["low"], 100 * found["high"]], [place, place], color=colour, linewidth=1.6)
        axes.plot(100 * found["prefers_a"], place, "o", color=colour, markerfacecolor=face, markersize=7)
