"""The page itself, of gradio's blocks: what is asked at the left or above, what `answering` gives below it."""

import os
from collections.abc import Callable

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: it would tell its makers of every start

import gradio as gr
from markupsafe import Markup

from toolkit.app.answering import (
    MOST_NEW_TOKENS,
    MOST_TEXTS,
    answer_file,
    answer_masks,
    answer_prompt,
    answer_source,
    answer_text,
)
from toolkit.app.asked import FILES, MOST_BYTES, MOST_CHARACTERS, Asked
from toolkit.report.page import markup

_WHAT = {"text": "Classes of a text, and the words that mattered.", "series": "Classes of the series in a table.",
         "forecast": "What comes after a table's end.", "masked": "Words for the blanks of a text.",
         "causal": "Continuations of a text.", "written": "One text into another, and where it looked."}
MOST_BEAMS = 8
_SECONDS_KEPT = 3600
"""Uploads are deleted after so long at the latest."""


def interface(asked: Asked) -> gr.Blocks:
    """The page for one model."""
    with gr.Blocks(title=f"Ask {asked.name}", analytics_enabled=False,
                   delete_cache=(_SECONDS_KEPT, _SECONDS_KEPT)) as blocks:
        _html(markup('<h1 dir="auto">{{ name }}</h1><p>{{ what }}{% if names %} <span class="soft">{{ names }}</span>'
                     "{% endif %}</p>", name=asked.name, what=_WHAT[asked.kind], names=_knows(asked)))
        _PAGES[asked.kind](asked)
    return blocks


def _knows(asked: Asked) -> str:
    """What it can answer, or reads."""
    if asked.kind == "forecast":
        return (f"It reads the last {asked.shape.context_length:,} rows of {', '.join(asked.shape.channel_names)}, and "
                f"forecasts {asked.shape.horizon:,}.")
    if asked.kind == "written":
        return f"It reads up to {asked.writer.longest:,} tokens."
    if asked.kind in ("text", "series"):
        names = [asked.shape.id2label[index] for index in range(asked.shape.num_labels)]
        return "" if len(names) == 1 else f"It knows {', '.join(names[:12])}{', …' * (len(names) > 12)}."
    return f"It sees {asked.language.positions:,} tokens at once."


def _text_page(asked: Asked) -> None:
    inputs = [_box("Text", "A text as it was trained on")]
    if asked.reads_pairs:
        inputs.append(_box("Second text", "The other of the pair"))
    _asks(asked, answer_text, inputs, "Classify")


def _masked_page(asked: Asked) -> None:
    mask = asked.language.tokenizer.mask_token
    _asks(asked, answer_masks, [_box(f"Text with {mask} where a word is missing", f"the {mask} of the garden"),
                                gr.Slider(1, 20, 5, step=1, label="Words for each blank")], "Fill")


def _causal_page(asked: Asked) -> None:
    longest = min(MOST_NEW_TOKENS, max(2, asked.language.positions - 1))
    inputs = [_box("Prompt", "The beginning of a text")]
    with gr.Row():
        inputs += [gr.Slider(1, longest, min(60, longest), step=1, label="New tokens"),
                   gr.Slider(0, 2, 0.8, step=0.05, label="Temperature (0: the likeliest)"),
                   gr.Slider(1, MOST_TEXTS, 1, step=1, label="Continuations"),
                   gr.Number(0, precision=0, minimum=0, maximum=2**31, label="Seed")]
    _asks(asked, answer_prompt, inputs, "Continue")


def _written_page(asked: Asked) -> None:
    as_tested = min(MOST_BEAMS, asked.writer.decoding.num_beams)
    _asks(asked, answer_source, [_box("Text", "A text as it was trained on"),
                                 gr.Slider(1, MOST_BEAMS, as_tested, step=1, label="Beams (1: greedy)")], "Write")


def _file_page(asked: Asked) -> None:
    kinds = list(FILES[asked.kind])
    inputs: list = [gr.File(label=f"A table: {', '.join(kinds)}, at most {MOST_BYTES / 1e6:.0f} MB", file_types=kinds,
                            height=150)]
    if asked.asks_for_series_column:
        with gr.Row():
            inputs += [gr.Textbox(label="Column that says which series a row belongs to", max_length=200),
                       gr.Textbox(label="Column of times, where there is one", max_length=200)]
    _asks(asked, answer_file, inputs, "Forecast" if asked.kind == "forecast" else "Classify")


_PAGES: dict[str, Callable[[Asked], None]] = {"text": _text_page, "masked": _masked_page, "causal": _causal_page,
                                              "series": _file_page, "forecast": _file_page, "written": _written_page}


def _box(label: str, placeholder: str) -> gr.Textbox:
    return gr.Textbox(label=label, placeholder=placeholder, lines=4, max_lines=16, max_length=MOST_CHARACTERS)


def _asks(asked: Asked, answering: Callable[..., Markup], inputs: list, action: str) -> None:
    """The button, and where its answer comes."""
    button = gr.Button(action, variant="primary")
    answer = _html(Markup(""))
    button.click(lambda *values: _plain(answering(asked, *values)), inputs, answer, concurrency_limit=1,
                 concurrency_id="model", show_progress="minimal", api_visibility="private")


def _html(body: Markup) -> gr.HTML:
    return gr.HTML(_plain(body), js_on_load=None, apply_default_css=False, elem_classes=["answer"])


def _plain(body: Markup) -> str:
    """In a box that scrolls by keys where it is wide."""
    return str(body).replace('<div class="scroll"', '<div class="scroll" tabindex="0"')
