"""Forecasts: the arms beside each other, windows of the test part, skill by step, intervals."""

from collections.abc import Mapping

from toolkit.metrics.intervals import FEWEST, mean_interval
from toolkit.report.figures.gains import proper
from toolkit.report.forecast_run import NAIVE, forecast_figures
from toolkit.report.page import Between, Measured, Section, join, paragraph, picture, table
from toolkit.report.sampled_run import sampled_figures, shown_source
from toolkit.report.sections import pieces
from toolkit.report.sections.evidence import Evidence
from toolkit.run.schema import ForecastEntry, SampledForecasts, checked

TITLES = {"gain": ("The comparison", "A row a model, a dot a seed; beside it the gain"),
          "by-step": ("Skill by step", "By how much each forecaster is better than the naive rule, step by step"),
         "forecasts": ("Forecasts, {} rows ahead",
                       "Test windows: what was known, what came, the forecasts with their bands"),
         "training": ("How all arms learned, {} rows ahead",
                      "MSE on validation by step: a thin line a seed, a thick one for their mean")}
"""Of the pictures of a comparison; shuffled patches stand with the dead branches."""


def forecasts_page(run: Evidence) -> tuple[str, list[Section]]:
    if run.results is None:
        return "It has not ended yet.", [next_steps(run)]
    entries = checked(run.result, dict[str, dict[str, ForecastEntry]], str(run.directory))
    horizons = list(dict.fromkeys(row.size for row in run.results.rows))
    sections = []
    for name, figure in forecast_figures(run.directory).items():
        kind, horizon = (name, "") if name in TITLES else (name.partition("-")[0], name.partition("-")[2])
        if kind in TITLES:
            title, alt = TITLES[kind]
            sections.append(Section(title.format(horizon), picture(figure, alt)))
    sections += [Section(f"All arms, {horizon} rows ahead", arms(entries, horizon)) for horizon in horizons]
    dead = {f"{arm}, {horizon} ahead": entry["dead_branches"] for arm, by_horizon in entries.items()
            for horizon, entry in by_horizon.items() if "dead_branches" in entry}
    if alive := pieces.dead_branches(dead):
        sections.append(alive)
    return lead(run, entries, horizons), [*sections, next_steps(run)]


def lead(run: Evidence, entries: Mapping[str, Mapping[str, ForecastEntry]], horizons: list[str]) -> str:
    """Which arm is best at each horizon, beside the naive rules; then the verdicts."""
    told = []
    for horizon in horizons:
        errors = {arm: by_horizon[horizon]["mse"] for arm, by_horizon in entries.items() if horizon in by_horizon}
        best = min(errors, key=lambda arm: errors[arm])
        naive = min((arm for arm in errors if arm in NAIVE), key=lambda arm: errors[arm])
        told.append(f"{horizon} rows ahead nothing errs less than the naive rule {naive}: MSE {errors[naive]:.3g}"
                    if best in NAIVE else
                    f"{horizon} rows ahead {best} errs least: MSE {errors[best]:.3g}, {naive} {errors[naive]:.3g}")
    return f"{'; '.join(told)}. {pieces.verdicts(run.results)}".strip()


def arms(entries: Mapping[str, Mapping[str, ForecastEntry]], horizon: str) -> object:
    """A row an arm."""
    rows = []
    for arm, by_horizon in entries.items():
        if (entry := by_horizon.get(horizon)) is None:
            continue
        cells = []
        for key in ("mse", "mae", "mase", "quantile_loss"):
            values = entry.get(f"{key}_values")
            found = mean_interval(values) if values else None
            cells.append(found and Measured(found.mean, found.ci95 if found.n >= FEWEST else None, 4))
        rows.append([arm, *cells, 100 * entry["coverage"], entry["seeds"], entry["parameters"]])
    first = next(by_horizon[horizon] for by_horizon in entries.values() if horizon in by_horizon)
    nominal = first["nominal_coverage"]
    told = (f"Test errors on standardised values over {first['test_windows']:,} windows: mean over seeds ± half of its "
            f"95 % interval. MASE: 1 is the seasonal naive error on train. Inside: the share of values within "
            f"intervals of nominally {100 * nominal:.0f} %.")
    return join([paragraph(told, soft=True), table(
        ["arm", "MSE", "MAE", "MASE", "quantile loss", "inside (%)", "seeds", "parameters"], rows, sortable=True,
        decimals=1)])


def sampled_forecasts_page(run: Evidence) -> tuple[str, list[Section]]:
    """Of a GPT that learned series as tokens: errors beside naive rules, source by source."""
    found = checked(run.result, dict[str, SampledForecasts], str(run.directory))
    if not found:
        return "It has not ended yet.", [next_steps(run)]
    sections, figures = [], sampled_figures(run.directory)
    for source, entry in found.items():
        figure = figures.get(entry.get("file", ""))
        names = list(dict.fromkeys(key for scores in entry["arms"].values() for key in scores if key != "coverage"))
        rows = [[arm, *(scores.get(name) for name in names), _inside(scores)] for arm, scores in entry["arms"].items()]
        gains = [[rule, Between(gain["mean"], gain["low"], gain["high"], 4)]
                 for rule, gain in entry["mae_saved"].items()]
        sections.append(Section(shown_source(source), join([
            paragraph(f"{entry['windows']:,} test windows, in units of the context's mean absolute value; intervals of "
                      f"nominally {100 * entry['nominal_coverage']:.0f} %.", soft=True),
            table(["forecast", *(proper(name) for name in names), "inside (%)"], rows),
            table(["MAE saved against", "mean (95 % of bootstraps over windows)"], gains),
            *([picture(figure, "Test windows: what was known, what came, the forecasts with their bands")]
              if figure else [])])))
    places = [] if figures else [(path.name, path.stem) for path in sorted(run.directory.glob("*.png"))]
    if pictures := pieces.links(run, places):
        sections.append(Section("Pictures", pictures))
    more = pieces.commands([
        ("Forecast other tables with it.", f'make sample-forecasts ARGS="--run {run.config.get("run")} --sources '
         f'my-table.csv --output_dir runs/my-forecasts"'), ("This page again.", f"make report RUN={run.place}")])
    return sampled_answer(found), [*sections, more]


def sampled_answer(found: Mapping[str, SampledForecasts]) -> str:
    """Beside which forecasts it errs less, source by source."""
    told = []
    for source, entry in found.items():
        ahead = [rule for rule, gain in entry["mae_saved"].items() if gain["low"] > 0]
        behind = [rule for rule, gain in entry["mae_saved"].items() if gain["high"] < 0]
        level = [rule for rule in entry["mae_saved"] if rule not in (*ahead, *behind)]
        judged = [(ahead, "errs less than"), (behind, "errs more than"), (level, "cannot be told apart from")]
        told.append(f"{shown_source(source)}: the GPT " + ", ".join(
            f"{words} {' and '.join(rules)}" for rules, words in judged if rules))
    return f"{'; '.join(told)}."


def _inside(scores: Mapping[str, float]) -> Between:
    """Of forecasts without intervals a dash."""
    share = scores.get("coverage")
    return Between(0.0, text="–") if share is None else Between(100 * share, text=f"{100 * share:.1f}")


def next_steps(run: Evidence) -> Section:
    steps = [("This page again.", f"make report RUN={run.place}")]
    if run.results:
        kept = [row.run for row in run.results.rows if row.model and row.seed == 0 and row.run]
        if kept:
            model = run.path(kept[0])
            steps = [("What comes after your table's end?", f"make predict MODEL={model} FILE=table.csv"),
                     ("Publish it.", f"make push RUN={model} REPO=you/forecaster"), *steps]
    return pieces.commands(steps)
