"""What the page shows for what was asked: answers by the functions that `predict`, `generate` and `fill_mask` call, as
pieces of a page. A refusal is one line of it.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from toolkit.analysis.alignment import NoAttention, text_alignment
from toolkit.analysis.occlusion import words_left_out
from toolkit.app.asked import Asked, checked_file, checked_text
from toolkit.app.words import marked_words
from toolkit.data.series.dataset import SeriesDataset
from toolkit.data.series.tables import SeriesTable
from toolkit.data.tables.time_table import Panel
from toolkit.errors import UserError
from toolkit.inference.generation import fill_masks, generate
from toolkit.inference.series_answers import series_and_answers
from toolkit.inference.table_forecasts import panel_and_forecasts
from toolkit.report.figures.forecasts import Forecaster, Forecasts, Window, fan_figure
from toolkit.report.figures.seq2seq import alignment_figure
from toolkit.report.figures.series import answers_figure
from toolkit.report.forecast_run import banded
from toolkit.report.page import join, markup, paragraph, picture, table
from toolkit.shown import lines_in_html

MOST_ROWS, MOST_PICTURES = 200, 6
"""Of the table of answers, and of the series that are drawn."""
MOST_NEW_TOKENS, MOST_TEXTS = 256, 4
MOST_ALIGNED = 60
"""Words, or characters, of a text and of its answer that are drawn as a map."""
_CONTEXTS_SHOWN = 3
"""A forecast is drawn after so many times its own length, at least."""
_BARS = """<table class="bars"><thead><tr><th>class</th><th class="number">probability</th>
<th aria-hidden="true"></th></tr></thead><tbody>
{% for name, share in rows %}
<tr><td dir="auto">{{ name }}</td><td class="number">{{ "%.1f"|format(100 * share) }} %</td>
<td class="bar" aria-hidden="true"><span style="width: {{ "%.1f"|format(100 * share) }}%"></span></td></tr>{% endfor %}
</tbody></table>"""

Answering = Callable[..., Markup]


def _refusing(answering: Answering) -> Answering:
    """What it gives, or the line that says why not; files are called as they were when they were uploaded."""

    @functools.wraps(answering)
    def answer(asked: Asked, *arguments: Any) -> Markup:
        try:
            return answering(asked, *arguments)
        except UserError as error:
            line = str(error)
            for each in arguments:
                if isinstance(each, str) and each.startswith("/"):
                    line = line.replace(each, Path(each).name)
            return markup('<p class="refusal" role="alert" dir="auto">{{ line }}</p>',
                          line=line.replace(asked.directory, asked.name))

    return answer


@_refusing
def answer_text(asked: Asked, text: str, pair: str = "") -> Markup:
    """Classes with their probabilities, and the words that they hang on."""
    text, notes = checked_text(text), []
    second = checked_text(pair, "second text") if asked.reads_pairs else None
    answer, occluded = words_left_out(asked.directory, text, second, note=notes.append)
    return join([_answer(answer), marked_words(text, second, occluded), _notes(notes)])


@_refusing
def answer_masks(asked: Asked, text: str, top_k: int = 5) -> Markup:
    """The likeliest words of each blank."""
    text = checked_text(text)
    masks = fill_masks(asked.language, [text], top_k)[0]
    parts = []
    for number, guesses in enumerate(masks, 1):
        told = asked.language.tokenizer.mask_token + (f" {number} of {len(masks)}" if len(masks) > 1 else "")
        parts += [paragraph(told, soft=True), _bars([(f"“{token}”", share) for token, share in guesses], "token")]
    return join(parts)


@_refusing
def answer_prompt(asked: Asked, prompt: str, new_tokens: int = 60, temperature: float = 0.8, texts: int = 1,
                  seed: int = 0) -> Markup:
    """The prompt with what the model writes after it. What is not asked here is as `make chat` has it."""
    prompt, texts = checked_text(prompt, "prompt"), min(int(texts), MOST_TEXTS if temperature else 1)
    found = generate(asked.language, prompt, max_new_tokens=min(int(new_tokens), MOST_NEW_TOKENS),
                     temperature=float(temperature), num_return_sequences=texts, seed=int(seed))
    return join([markup('<p class="written" dir="auto"><span class="soft">{{ prompt }}</span>{{ text }}</p>'
                        '<p class="soft small">{{ count }} tokens, ended by: {{ why }}</p>',
                        prompt=Markup(lines_in_html(each.prompt)), text=Markup(lines_in_html(each.text)),
                        count=each.new_tokens, why=each.stopped) for each in found])


@_refusing
def answer_source(asked: Asked, text: str, num_beams: int = 1) -> Markup:
    """What an encoder–decoder writes, and where it looked."""
    text, notes = checked_text(text), []
    written = asked.writer.write([text], num_beams=int(num_beams), note=notes.append)[0]
    said = markup('<p class="answer-is" dir="auto">{{ written }}</p>', written=written or "(nothing)")
    return join([said, _looked(asked, text, written), _notes(notes)])


def _looked(asked: Asked, text: str, written: str) -> Markup:
    """A map of what it wrote by what it read, where that is a picture and the model has attention."""
    try:
        maps = text_alignment(asked.writer, text, written)
    except NoAttention:
        return paragraph("It has no attention: all that it knew of the text while it wrote is the state in which "
                         "reading ended.", soft=True)
    except UserError:  # read up to where it was cut, which a note tells
        return Markup("")
    if max(len(maps.labels), len(maps.readers)) > MOST_ALIGNED:
        return paragraph(f"Where it looked is drawn of texts of at most {MOST_ALIGNED} {maps.unit}s.", soft=True)
    figure = alignment_figure(maps.labels, maps.readers, maps.weights.mean((0, 1)))
    told = ("A row for what was written, a column for what was read: the mean of all heads and layers. The stronger "
            "the colour, the more it looked there; a dot marks where most.")
    return join([markup("<h2>Where it looked</h2>"), picture(figure, told, told)])


@_refusing
def answer_file(asked: Asked, file: str, series_column: str = "", time_column: str = "") -> Markup:
    """Of a table of series the classes, or what comes after its end, as a picture and a table."""
    file, notes = checked_file(file, asked.kind), []
    if asked.kind == "forecast":
        panel, answer = panel_and_forecasts(asked.directory, file, note=notes.append)
        shown = picture(fan_figure(_fans(asked, panel, answer)), "what the table holds, and the forecast after its end")
    else:
        named = SeriesTable(series_column=series_column.strip(), time_column=time_column.strip())
        data, answer = series_and_answers(asked.directory, asked.shape, file, named, note=notes.append)
        shown = picture(_drawn_series(data, answer), "the first series, each under its answer")
    told = f"The first {MOST_ROWS} of {len(answer):,} rows; make predict gives all." if len(answer) > MOST_ROWS else ""
    return join([shown, _rows(answer.head(MOST_ROWS)), paragraph(told, soft=True) if told else "",
                 _notes([note.replace(file, Path(file).name) for note in notes])])


def _answer(answer: pd.DataFrame) -> Markup:
    """The one row of a classifier's answer."""
    row, shares = answer.iloc[0], [name for name in answer if name.startswith("p(")]
    if "value" in answer:
        return markup('<p class="answer-is">{{ value }}</p>', value=f"{float(row['value']):.4g}")
    label = row["label"] if "label" in answer else ", ".join(row["labels"]) or "none of the labels"
    decided = f"By the threshold chosen on validation: {row['decision']}." if "decision" in answer else ""
    ranked = sorted(((name[2:-1], float(row[name])) for name in shares), key=lambda each: -each[1])
    return join([markup('<p class="answer-is" dir="auto">{{ label }}</p>', label=label), _bars(ranked[:MOST_ROWS]),
                 paragraph(decided) if decided else ""])


def _bars(rows: list[tuple[str, float]], what: str = "class") -> Markup:
    return markup(_BARS.replace("<th>class", f"<th>{what}"), rows=rows)


def _rows(answer: pd.DataFrame) -> Markup:
    """The table of answers, as `predict` has it."""
    cells = answer.assign(**{name: answer[name].map(" | ".join) for name in answer if name == "labels"})
    heads = [str(name) for name in cells]
    return table(heads, [[_cell(value) for value in row] for row in cells.itertuples(index=False)])


def _cell(value: Any) -> Any:
    if isinstance(value, (np.integer, int)) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, (np.floating, float)) else str(value)


def _notes(notes: list[str]) -> Markup:
    return join([paragraph(note, soft=True) for note in notes])


def _drawn_series(data: SeriesDataset, answer: pd.DataFrame):
    some = np.arange(len(data)) < MOST_PICTURES
    said = [f"series {row['series']}: " * ("series" in answer) + (
        f"{row['value']:.4g}" if "value" in answer else f"{row['label']} ({100 * row['p(' + row['label'] + ')']:.0f} %)"
        if "label" in answer else ", ".join(row["labels"]) or "none of the labels")
        for _, row in answer.head(MOST_PICTURES).iterrows()]
    return answers_figure(data.select(some), said)


def _fans(asked: Asked, panel: Panel, answer: pd.DataFrame) -> Forecasts:
    """Each series and channel, as many as are drawn: the table's end and what is to follow, with its bands."""
    horizon, windows, predictions, bands = asked.shape.horizon, [], [], []
    quantiles = [name for name in answer if name.startswith("q(")]
    levels = np.array([float(name[2:-1]) for name in quantiles])
    for name, of_series in answer.groupby("series", sort=False) if "series" in answer else [("", answer)]:
        held = panel.tables[str(name)]
        for number, channel in enumerate(asked.shape.channel_names):
            own = of_series[of_series["channel"] == channel]
            rows = min(held.values.shape[1], max(asked.shape.context_length, _CONTEXTS_SHOWN * horizon))
            known = held.values[number, -rows:].astype(float)
            if held.observed is not None:
                known = np.where(held.observed[number, -rows:], known, np.nan)
            windows.append(Window(": ".join(filter(None, [str(name), channel])), known, np.full(horizon, np.nan),
                                  _times(held.times, held.values.shape[1], rows, own)))
            predictions.append(own["value"].to_numpy(float))
            bands += banded(levels, own[quantiles].to_numpy(float)[None]) if quantiles else []
    windows, predictions, bands = windows[:MOST_PICTURES], predictions[:MOST_PICTURES], bands[:MOST_PICTURES]
    time = getattr(asked.shape, "time_column", "") if "time" in answer else "rows"
    return Forecasts(windows, [Forecaster(asked.name, "model", predictions, bands)], "", "", time, known="the table")


def _times(times: np.ndarray | None, rows: int, shown: int, own: pd.DataFrame) -> np.ndarray:
    """Of the rows that are shown and of the forecast's; where it has no times, their numbers."""
    if times is None or "time" not in own:
        return np.arange(rows - shown, rows + len(own)) + 1
    ahead = own["time"]
    if times.dtype.kind == "M":
        stamps = pd.DatetimeIndex(ahead)
        ahead = (stamps.tz_convert("UTC").tz_localize(None) if stamps.tz else stamps).to_numpy(times.dtype)
    return np.concatenate([times[rows - shown:rows], np.asarray(ahead, times.dtype)])
