"""A series classifier's answers, by the code that computed its test scores: `toolkit.tasks.classification.predict`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import AutoModelForSequenceClassification, PreTrainedConfig

from toolkit.data.series.dataset import SeriesBatches, SeriesDataset
from toolkit.data.series.learned import Learned
from toolkit.data.series.readers import described, read_values
from toolkit.data.series.splits import tell_constant
from toolkit.data.series.tables import SeriesTable
from toolkit.errors import UserError
from toolkit.hub import checkpoint_directory
from toolkit.inference.answers import Note, answers_table, asking
from toolkit.models.load import checkpoint_config, load_weights
from toolkit.models.losses import probabilities, task_of
from toolkit.shown import tell


def answer_series(model: str | Path, values: np.ndarray, observed: np.ndarray | None = None, batch_size: int = 32
                  ) -> pd.DataFrame:
    """A row a series: the columns of `answers_table`, then `series`, its number.

    values: (n, channels, length), or (n, length) of one channel, in the units of the file that the model learned and in
        the order of its channels; observed: bool of the same shape where some are missing. UserError for other channels
        or lengths than the model's.
    """
    values = np.asarray(values, np.float32)
    values = values[:, None] if values.ndim == 2 else values
    if observed is not None:
        observed = np.asarray(observed, bool).reshape(values.shape)
        values = np.where(observed, values, np.float32(0))
    data = SeriesDataset(values, np.zeros(len(values), np.int64), ("",), observed)
    config = checkpoint_config(model)
    return answers_table(_outputs(str(model), config, data, "values", batch_size), config,
                         {"series": list(range(len(data)))}, tell)


def answers_of_series(model: str, config: PreTrainedConfig, file: str, table: SeriesTable,
                      sampling_rate: float | None = None, batch_size: int = 32) -> pd.DataFrame:
    """The answers of `series_and_answers`."""
    return series_and_answers(model, config, file, table, sampling_rate, batch_size)[1]


def series_and_answers(model: str, config: PreTrainedConfig, file: str, table: SeriesTable,
                       sampling_rate: float | None = None, batch_size: int = 32, note: Note = tell
                       ) -> tuple[SeriesDataset, pd.DataFrame]:
    """The series in their file's units; and a row a series: the columns of `answers_table`, then what the file says of
    the series beside its values; where it has no names of series, `series`, their number, counted from 0.

    sampling_rate: of the file (Hz); UserError where the model learned another, or other channels or lengths.
    note: is told what was decided on the way.
    """
    learned = Learned.of(config, model)
    if sampling_rate and learned.sampling_rate and sampling_rate != learned.sampling_rate:
        raise UserError(f"{file}: sampling_rate is {sampling_rate:g} values a second, but {model} learned series of "
                        f"{learned.sampling_rate:g}. Resample the file to {learned.sampling_rate:g} Hz.")
    data, beside = read_values(file, "mask", table, note, learned)
    note(f"{file}: {described(data.lengths, data.values.shape[1], data.learned)}")
    tell_constant(file, data.values, data.observed, note)
    if not table.series_column:
        beside = {"series": list(range(len(data))), **beside}
    return data, answers_table(_outputs(model, config, data, file, batch_size, note), config, beside, note)


def _outputs(model: str, config: PreTrainedConfig, data: SeriesDataset, name: str, batch_size: int,
             note: Note = tell) -> np.ndarray:
    """(n, classes) probabilities, or (n,) numbers, of series in the units of their file; `name` is theirs in errors.

    Each is padded to the length of those that were learned, and no further: what stands beside it changes nothing.
    """
    learned = Learned.of(config, model)
    data = replace(data, learned=learned).normalised()
    longest = data.values.shape[2]
    if learned.series_length and longest > learned.series_length:
        note(f"{name}: the longest series has {longest:,} values, those that were learned {learned.series_length:,}")
    ask = asking(load_weights(AutoModelForSequenceClassification, str(checkpoint_directory(model)), model), batch_size)
    lengths = np.maximum(data.lengths, learned.series_length or longest)
    logits = np.empty((len(data), config.num_labels), np.float32)
    for length in np.unique(lengths):
        own = lengths == length
        batches = SeriesBatches(data.select(own).of_length(int(length)), batch_size, 0)
        try:
            logits[own] = ask(batches)
        except ValueError as error:  # other channels or lengths than the model's
            raise UserError(f"{name}: {error}.") from None
    return probabilities(task_of(config), logits)
