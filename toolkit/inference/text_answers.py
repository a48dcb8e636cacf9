"""A text classifier's answers, by the code that computed its test scores: `toolkit.tasks.classification.predict`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import AutoModelForSequenceClassification, PreTrainedConfig

from toolkit.data.tables.sources import Reading
from toolkit.data.text.batches import TextBatches
from toolkit.data.text.examples import LabelledText
from toolkit.data.text.labelled import TextRow, text_rows
from toolkit.data.text.text_input import TextInput
from toolkit.errors import UserError
from toolkit.hub import checkpoint_directory
from toolkit.inference.answers import Note, answers_table, asking
from toolkit.models.load import checkpoint_config, load_checkpoint_tokenizer, load_weights
from toolkit.models.losses import probabilities, task_of
from toolkit.models.registry import is_classifier
from toolkit.shown import tell
from toolkit.tokenization.measure import check_unknown


def answer_texts(model: str | Path, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32,
                 note: Note = tell) -> pd.DataFrame:
    """A row a text: the columns of `answers_table`, then `text` (and `text_pair`). note: is told of texts that are
    empty or full of unknown words. UserError where `model` is no text classifier, or learned pairs and is given single
    texts, or the other way round.
    """
    rows = [TextRow(f"text {number}", text, pair, {"text": text} | ({} if pair is None else {"text_pair": pair}))
            for number, (text, pair) in enumerate(zip(texts, pairs or [None] * len(texts), strict=True), 1)]
    return answers_of_rows(str(model), checkpoint_config(model), rows, batch_size, note)


def answers_of_file(model: str, config: PreTrainedConfig, file: str, text_column: str, text_pair_column: str,
                    reading: Reading, batch_size: int) -> pd.DataFrame:
    if (saved := getattr(config, "text_input", None)) and saved.get("pairs") and not text_pair_column:
        raise UserError(f"{model}: learned pairs of texts. Name the column of the second ones with --text_pair_column.")
    return answers_of_rows(model, config, list(text_rows(file, text_column, text_pair_column, reading=reading)),
                           batch_size)


def answers_of_rows(model: str, config: PreTrainedConfig, rows: list[TextRow], batch_size: int, note: Note = tell
                    ) -> pd.DataFrame:
    """Rows all have a second text, or none has."""
    if not is_classifier(config):
        raise UserError(f"{model}: is a {', '.join(config.architectures or ['model'])}, not a classifier of texts.")
    if not rows:
        raise UserError(f"{model}: there is no text to ask it about. Give at least one.")
    tokenizer = load_checkpoint_tokenizer(model)
    reading, pairs = TextInput.of(config, tokenizer), rows[0].pair is not None
    if reading.pairs is not None and reading.pairs != pairs:
        learned, given = ("pairs of texts", "one") if reading.pairs else ("single texts", "two")
        raise UserError(f"{rows[0].place}: there {'are two texts' if pairs else 'is one text'}, but {model} learned "
                        f"{learned}. Ask it as it learned, or train it on rows of {given}.")
    some = rows[::max(1, len(rows) // 2000)]
    check_unknown(tokenizer, [text for row in some for text in (row.text, row.pair) if text],
                  f"{model}, on these texts", 1.0, "", note)
    _tell_of_empty([row for row in rows if not row.text.strip() or (pairs and not row.pair.strip())], note)
    data = LabelledText([row.text for row in rows], np.zeros(len(rows), np.int64), tuple(config.id2label.values()),
                        [row.pair for row in rows] if pairs else None)
    batches = TextBatches(data, tokenizer, reading.max_length, batch_size, 0, text_input=reading)
    loaded = load_weights(AutoModelForSequenceClassification, str(checkpoint_directory(model)), model)
    outputs = probabilities(task_of(config), asking(loaded, batch_size)(batches))
    columns = dict.fromkeys(name for row in rows for name in row.columns)
    return answers_table(outputs, config, {name: [row.columns.get(name) for row in rows] for name in columns}, note)


def _tell_of_empty(rows: list[TextRow], note: Note) -> None:
    if rows:
        places = ", ".join(row.place for row in rows[:3]) + ", …" * (len(rows) > 3)
        note(f"{len(rows):,} texts are empty ({places}); their answer is what the model says to nothing")
