"""Three samples of what a model does, out of the run's files: blanks filled, texts gone on with, answers, forecasts."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from toolkit.errors import UserError
from toolkit.publishing.card_data import task_name
from toolkit.publishing.card_facts import Facts
from toolkit.publishing.card_pictures import SAMPLES
from toolkit.publishing.card_text import kind
from toolkit.report.figures.forecasts import forecasts_figure
from toolkit.report.figures.mistakes import mistakes_figure
from toolkit.report.figures.seq2seq import alignment_figure
from toolkit.report.forecast_run import read_forecasts
from toolkit.report.sections import series, text
from toolkit.report.sections.classified import Classified, names_of
from toolkit.report.sections.evidence import Evidence
from toolkit.run.schema import WrittenAnswer
from toolkit.shown import in_markdown, on_one_line

THREE = 3
LONGEST = 200
"""Characters of a text."""


class Samples:
    """Of one run, or of the first model that an experiment kept."""

    def __init__(self, facts: Facts):
        self.facts = facts
        self.of = Facts.of(facts.kept[0]) if kind(facts) == "experiment" and facts.kept else facts
        self.kind = kind(self.of)

    def texts(self) -> list[str]:
        """What was put in, as a widget takes it."""
        if self.kind == "bert":
            return [fill["text"] for fill in (self.of.samples.get("fills") or ())[:THREE]]
        if self.kind == "gpt":
            return [each["prompt"] for each in (self.of.samples.get("continuations") or ())[:THREE]]
        if self.kind == "seq2seq":
            return [answer["source"] for answer in self._written()]
        found = self._classified() if self.kind == "text" else None
        return [found.texts[row] for row in _evenly(len(found.texts))] if found and not found.pairs else []

    def section(self, has_picture: bool) -> tuple[str, str]:
        """Title and Markdown; nothing where the run left no samples."""
        if self.kind == "bert" and (fills := self.of.samples.get("fills")):
            return "What it fills in", "On held-out text:\n\n" + "\n".join(map(_filled, fills[:THREE]))
        if self.kind == "gpt" and (written := self.of.samples.get("continuations")):
            return "How it goes on", ("Beginnings of held-out texts (bold), how it goes on, drawn at random, and how "
                                      "they went on:\n\n" + "\n>\n".join(map(_continued, written[:THREE])))
        if self.kind == "text" and (found := self._classified()):
            return "Three answers", _intro(found, "texts") + "\n" + "\n".join(
                _answered(found, row) for row in _evenly(len(found.texts)))
        if self.kind == "seq2seq" and self.of.written:
            told = (f"To {THREE} of the {len(self.of.written):,} test pairs, evenly out of the file:\n\n"
                    + "\n".join(map(_wrote, self._written())))
            looked = ("\n\nWhere it looked in a source (columns) to write its answer (rows); a dot where most:\n\n"
                      f"![Where it looked]({SAMPLES})" if has_picture else "")
            return "Three answers", told + looked
        if has_picture:
            picture = f"![{'Forecasts' if self.kind == 'forecast' else 'Errors'} on held-out series]({SAMPLES})"
            return ("Three forecasts", f"Of test windows, the first seed's:\n\n{picture}") if self.kind == (
                "forecast") else ("What it gets wrong", f"The most confident errors, between the means of the class "
                                  f"and of the one it was taken for:\n\n{picture}")
        return "", ""

    def figure(self) -> Figure | None:
        """Of forecasts three windows; of classified series the most confident errors."""
        of, results = self.of, self.of.comparison
        if self.kind == "seq2seq":
            return next((alignment_figure(each["read"], each["written"], np.asarray(each["weights"]))
                         for each in of.alignments), None)
        if self.kind == "forecast" and results and results.sizes == "horizon":
            horizon = str(of.model["horizon"])
            try:
                shown = read_forecasts(of.home, horizon)
            except UserError:  # runs of earlier versions left no forecasts
                return None
            if of is self.facts and of.part.split("/")[0] not in [each.name for each in shown.forecasters]:
                return None
            return forecasts_figure(shown, f"{on_one_line(task_name(of))}: {horizon} rows ahead")
        if self.kind == "series" and of.is_fit and (shown := series.shown_of(Evidence(of.home))) and self._is_kept():
            found = series.answers_of(Evidence(of.home), of.model_name, shown, series.names_of(shown))
            mistakes = series.mistakes_of(found, shown)[:THREE]
            return mistakes_figure(mistakes) if mistakes else None
        return None

    def _written(self) -> list[WrittenAnswer]:
        return [self.of.written[row] for row in _evenly(len(self.of.written))] if self.of.written else []

    def _is_kept(self) -> bool:
        return self.of.part == f"{self.of.model_name}-pretrained/seed-0"

    def _classified(self) -> Classified | None:
        """The kept model's answers, where this is that model and the run has ended."""
        of = self.of
        path = of.home / f"{of.model_name}-predictions.parquet"
        return text.answers_of(Evidence(of.home), of.model_name) if self._is_kept() and path.is_file() and (
            of.home_result.get("label_names")) else None


def _evenly(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, THREE + 2).round().astype(int)[1:-1]).tolist()


def _short(text: str) -> str:
    line = on_one_line(text).strip()
    return in_markdown(line if len(line) <= LONGEST else f"{line[:LONGEST]}…")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _filled(fill: dict) -> str:
    guesses = ", ".join(f"“{in_markdown(token)}” {_percent(share)}" for token, share in fill["answers"][:THREE])
    truth = f"; there stood “{in_markdown(fill['truth'])}”" if fill.get("truth") else ""
    return f"* {_short(fill['text'])}  \n  → {guesses}{truth}"


def _wrote(answer: WrittenAnswer) -> str:
    right = answer["prediction"] == answer["target"]
    beside = "which is the reference" if right else f"the reference is {_short(answer['target'])}"
    return f"* {_short(answer['source'])}  \n  → **{_short(answer['prediction']) or '(nothing)'}**; {beside}"


def _continued(each: dict) -> str:
    came = f"  \n> *It went on:* {_short(each['came'])}" if each.get("came") else ""
    return f"> **{_short(each['prompt'])}** {_short(each['text'])}{came}"


def _intro(found: Classified, what: str) -> str:
    return f"Of {in_markdown(found.who)}, to {THREE} of the {len(found.texts):,} test {what}, evenly out of the file:\n"


def _answered(found: Classified, row: int) -> str:
    shown = f"* {_short(found.shown[row])}  \n  → "
    output, label = found.outputs[row], found.labels[row]
    if found.task == "regression":
        return f"{shown}**{output:.4g}**; it is {label:.4g}"
    if found.task == "multi-label":
        return f"{shown}**{_listed(names_of(found, output))}**; it is {_listed(names_of(found, label))}"
    best = int(output.argmax())
    is_really = int(label.argmax()) if found.task == "distribution" else int(label)
    right = "which is right" if best == is_really else f"it is {in_markdown(found.label_names[is_really])}"
    return f"{shown}**{in_markdown(found.label_names[best])}** {_percent(float(output[best]))}; {right}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(in_markdown, names)) or "none of them"
