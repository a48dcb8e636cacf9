"""One map of attention kept for a page: for one test example the last layer's mean over heads, as a run ends."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from toolkit.analysis.attention import AttentionMaps, series_attention, text_attention
from toolkit.data.series.dataset import SeriesDataset
from toolkit.data.text.examples import LabelledText
from toolkit.tasks.base import write_arrays

FILE = "attention.npz"
MOST_TOKENS, MOST = 20, 32
"""Of a text, and of patches too: so many names can be read beside a small map."""


def keep_text_map(fit: Path, test: LabelledText, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Of the first test text with something in it, or as much of its beginning as has MOST_TOKENS."""
    first = next((place for place, text in enumerate(test.texts) if text.strip()), None)
    if first is not None:
        most = min(MOST_TOKENS, max_length) // (2 if test.pairs else 1)
        texts = [_beginning(given[first], tokenizer, most) for given in (test.texts, test.pairs) if given]
        _keep(fit, lambda: text_attention(fit, *texts), texts[0])


def _beginning(text: str, tokenizer: PreTrainedTokenizerBase, most: int) -> str:
    while len(tokenizer(text)["input_ids"]) > most and len(text) > 1:
        text = text[:3 * len(text) // 4]
        text = text.rsplit(" ", 1)[0] if " " in text.strip() else text
    return text


def keep_series_map(fit: Path, test: SeriesDataset) -> None:
    """Of the first test series, scaled as the model reads it; of several channels of the first."""
    length = test.lengths[0]
    observed = None if test.observed is None else test.observed[0, :, :length]
    _keep(fit, lambda: series_attention(fit, test.values[0, :, :length], observed), "")


def _keep(fit: Path, ask: Callable[[], AttentionMaps], text: str) -> None:
    """`labels` (T,), `weights` (T, T) and the `text`; nothing where more than MOST stand there. A failure is said, and
    stops no run that has trained.
    """
    try:
        maps = ask()
        if len(maps.labels) <= MOST:
            write_arrays(fit / FILE, {"labels": np.asarray(maps.labels, np.str_), "text": np.asarray(text, np.str_),
                                      "weights": maps.weights[-1].mean(0)})
    except Exception as error:  # noqa: BLE001 - a picture is worth less than the run that it is of
        warnings.warn(f"{fit / FILE} could not be written: {error}", stacklevel=2)
