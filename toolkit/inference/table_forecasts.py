"""Forecasts of what comes after a table's end, in its units and by its clock, by the very code that scores a model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedConfig

from toolkit.data.series.covariates import CALENDAR, features
from toolkit.data.series.windows import scaled_values
from toolkit.data.tables.columns import shown
from toolkit.data.tables.frequency import Frequency, frequency_of, in_words, next_times, positions
from toolkit.data.tables.sources import Reading
from toolkit.data.tables.time_table import Panel, TimeTable, panel_of, read_table_columns
from toolkit.errors import UserError, did_you_mean
from toolkit.hub import checkpoint_directory
from toolkit.models.load import checkpoint_config, load_weights
from toolkit.models.registry import model_class
from toolkit.regular import regular
from toolkit.run.files import read_json
from toolkit.run.schema import Intervals
from toolkit.shown import tell
from toolkit.tasks.forecasting import INTERVALS, as_forecaster, predicted, with_offsets
from toolkit.training.impl.precision import exact

Note = Callable[[str], None]


def is_forecaster(shape: PreTrainedConfig) -> bool:
    return bool(getattr(shape, "horizon", None))


def forecast_table(model: str, file: str, time_column: str = "", series_column: str = "",
                   reading: Reading | None = None,
                   batch_size: int = 32, note: Note = tell) -> pd.DataFrame:
    """The answers of `panel_and_forecasts`."""
    return panel_and_forecasts(model, file, time_column, series_column, reading, batch_size, note)[1]


def panel_and_forecasts(model: str, file: str, time_column: str = "", series_column: str = "",
                        reading: Reading | None = None, batch_size: int = 32, note: Note = tell
                        ) -> tuple[Panel, pd.DataFrame]:
    """What `file` holds, channels those of the model; and the `horizon` steps after the last row of each series.

    time_column, series_column: where they are not called as they were in training. reading: encoding and decimals.

    A row a series, step and channel, in columns whose names do not depend on the table's: series (of a panel), time
    (where the table has times), step (1, 2, …), channel, value, and q(0.1) … for the quantiles of its interval.

    UserError, by line where there is one, for other channels, other steps between times, gaps, a table that is too
    short, and where what is known ahead is not there.
    """
    shape = checkpoint_config(model)
    if getattr(shape, "scale_means", None) is None:
        raise UserError(f"{model}: does not hold the scale of what it learned, as models trained now do. Train it "
                        f"anew: make forecast.")
    _check_scale(shape, model)
    panel = _read(shape, model, file, time_column, series_column, reading, note)
    directory = checkpoint_directory(model)
    forecaster = load_weights(model_class(shape), str(directory), model).eval()
    names = list(panel.tables)
    for line in panel.notes:
        note(f"{file}: {line}")
    note(f"{file}: channels {shown(shape.channel_names, 24)}"
         + (f"; {len(names):,} series {shown(names)}" if panel.series_column else ""))
    inputs = [_context(shape, model, file, panel, name, note) for name in names]
    quantiles, offsets = _intervals(directory / INTERVALS, shape, model, note)
    precision, parts = exact(torch.device("cpu")), []
    for start in range(0, len(inputs), batch_size):
        group = inputs[start:start + batch_size]
        batch = {key: np.stack([one[key] for one in group]) for key in group[0]}
        parts.append(predicted(as_forecaster(forecaster), batch, torch.device("cpu"), precision))
    answers = [_rows(shape, panel, name, prediction, quantiles, offsets)
               for name, prediction in zip(names, np.concatenate(parts), strict=True)]
    return panel, pd.concat(answers, ignore_index=True)


def _check_scale(shape: PreTrainedConfig, model: str) -> None:
    """UserError unless what the configuration says of channels and of what is known ahead fits together."""
    channels, series = getattr(shape, "channel_names", None) or [], getattr(shape, "series_names", None)
    ahead, calendar = getattr(shape, "future_columns", []), getattr(shape, "calendar_columns", [])
    if len(set(map(str, channels))) < len(channels):
        raise UserError(f"{model}: channel_names in its config.json names a channel twice. Fetch the model again.")
    expected = (len(channels),) if series is None else (len(series), len(channels))
    try:
        if not hasattr(shape, "frequency") and getattr(shape, "calendar_columns", None):
            raise ValueError
        if getattr(shape, "frequency", None) is not None:
            positions(np.asarray(["2024-01-01"], "datetime64[ns]"), shape.frequency)
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{model}: frequency in its config.json should be the step between rows, such as h, or a "
                        f"number. Fetch the model again.") from None
    sizes = {"scale_means": expected, "scale_deviations": expected}
    if ahead:
        sizes |= {"future_means": (len(ahead),), "future_deviations": (len(ahead),)}
    for name, size in sizes.items():
        try:
            found = np.asarray(getattr(shape, name, None), np.float64)
        except (TypeError, ValueError):
            found = np.full((), np.nan)
        if found.shape != size or not channels or not np.isfinite(found).all() or (
                name.endswith("deviations") and not (found > 0).all()):
            raise UserError(f"{model}: {name} in its config.json should be {' x '.join(map(str, size))} finite "
                            f"numbers, deviations above 0. Fetch the model again.")
    known = len(ahead) + sum(CALENDAR.get(name, 0) for name in calendar)
    if known != shape.num_covariates or not set(calendar) <= CALENDAR.keys():
        raise UserError(f"{model}: its config.json names {known:,} features that are known ahead, its weights are for "
                        f"{shape.num_covariates:,}. Fetch the model again.")


def _intervals(path: Path, shape: PreTrainedConfig, model: str, note: Note) -> tuple[list[float], np.ndarray | None]:
    """Quantiles, and what to add to a forecast for them (channels, horizon, quantiles); none where none were kept."""
    if not regular(path).is_file():
        note(f"{model}: has no {path.name} beside it, so there are no quantiles")
        return [], None
    kept = read_json(path, Intervals)
    try:
        offsets = np.asarray(kept["offsets"], np.float64)
    except ValueError:
        offsets = np.zeros(())
    expected = (len(shape.channel_names), shape.horizon, len(kept["quantiles"]))
    if offsets.shape != expected or not np.isfinite(offsets).all():
        raise UserError(f"{path}: its offsets should be {' x '.join(map(str, expected))} finite numbers: channels, "
                        f"steps and quantiles of the model. Fetch the model again, or delete the file to go without "
                        f"quantiles.")
    return kept["quantiles"], offsets


def _rows(shape: PreTrainedConfig, panel: Panel, name: str, prediction: np.ndarray, quantiles: list[float],
          offsets: np.ndarray | None) -> pd.DataFrame:
    """The answer for one series, of which prediction (channels, horizon) is standardised."""
    table = panel.tables[name]
    mean, deviation = _scale_of(shape, name, table)

    def column(standardised: np.ndarray) -> np.ndarray:
        return (standardised.astype(np.float64) * deviation[:, None] + mean[:, None]).T.ravel()

    steps, channels = np.repeat(np.arange(shape.horizon), len(mean)), np.tile(np.arange(len(mean)), shape.horizon)
    columns: dict = {"series": name} if panel.series_column else {}
    if table.times is not None and getattr(shape, "frequency", None) is not None:
        columns["time"] = _stamps(table, shape.frequency, shape.horizon, panel.zone)[steps]
    columns |= {"step": steps + 1, "channel": np.asarray(shape.channel_names)[channels], "value": column(prediction)}
    if offsets is not None:
        around = with_offsets(prediction, offsets)
        columns |= {f"q({quantile:g})": column(around[..., place]) for place, quantile in enumerate(quantiles)}
    return pd.DataFrame(columns)


def _read(shape: PreTrainedConfig, model: str, file: str, time_column: str, series_column: str, reading: Reading | None,
          note: Note) -> Panel:
    """The table, its channels those of the model and in their order."""
    time_column = time_column or getattr(shape, "time_column", "")
    learned, ahead = getattr(shape, "series_column", ""), getattr(shape, "future_columns", [])
    table = read_table_columns(file, time_column, series_column or learned, shape.channel_names, ahead, reading)
    columns = table.columns
    if absent := [name for name in shape.channel_names if name not in columns]:
        raise UserError(f"{file}: has no column '{absent[0]}', which {model} forecasts; it learned "
                        f"{', '.join(shape.channel_names)}. Name the columns so."
                        f"{did_you_mean(absent[0], columns)}")
    if learned and not series_column and learned not in columns:
        note(f"{file}: has no column '{learned}', which told series apart in training: read as one series")
        learned = ""
    return panel_of(table, time_column, series_column or learned, shape.channel_names,
                    getattr(shape, "missing", "refuse"), ahead)


def _context(shape: PreTrainedConfig, model: str, file: str, panel: Panel, name: str, note: Note
             ) -> dict[str, np.ndarray]:
    """What the model sees of one series: values (channels, context_length) and, as in training, observed and
    covariates.
    """
    table, where = panel.tables[name], f"{file}, series '{name}'" if name else file
    length, rows = shape.context_length, table.values.shape[1]
    if rows < length:
        raise UserError(f"{where}: has {rows:,} rows, but {model} forecasts from {length:,}. Give more rows.")
    if table.times is not None and getattr(shape, "frequency", None) is not None:
        _check_steps(shape, model, where, table, rows - length)
    elif table.times is not None:
        note(f"{where}: steps between times were uneven in training: the forecast has steps, and no times")
    mean, deviation = _scale_of(shape, name, table, note)
    observed = None if table.observed is None else table.observed[:, -length:]
    batch = {"values": scaled_values(table.values[:, -length:], observed, mean, deviation)}
    for channel, values, seen in zip(shape.channel_names, table.values[:, -length:],
                                     np.ones_like(batch["values"], bool) if observed is None else observed,
                                     strict=True):
        if not seen.any():
            note(f"{where}: column '{channel}' has no value in the {length:,} rows that the forecast is made from")
        elif np.ptp(values[seen]) == 0:
            note(f"{where}: column '{channel}' is constant in the {length:,} rows that the forecast is made from")
    if any(one.observed is not None for one in panel.tables.values()):
        batch["observed"] = np.ones(batch["values"].shape, bool) if observed is None else observed
    if shape.num_covariates:
        batch["covariates"] = _covariates(shape, where, panel, table)
    return batch


def _check_steps(shape: PreTrainedConfig, model: str, where: str, table: TimeTable, first: int) -> None:
    """UserError unless the rows from `first` on are as far apart as those that the model learned."""
    frequency: Frequency = shape.frequency
    times = table.times[first:]
    place = positions(times, frequency)
    steps = np.diff(place) if place is not None else None
    if steps is None or len(steps) and np.median(steps) != 1:
        raise UserError(f"{where}: its rows lie {in_words(frequency_of(times))} apart, but {model} learned rows that "
                        f"lie {in_words(frequency)} apart. Resample the table.")
    if (steps != 1).any():
        step = int((steps != 1).argmax())
        masked = "" if shape.missing == "mask" else ", or train with data.missing mask, which reads them as missing"
        raise UserError(f"{where}, {table.places[first + step + 1]}: rows are absent before it: "
                        f"{int(steps[step]) - 1:,}, among those that the forecast is made from. Put them in{masked}.")


def _covariates(shape: PreTrainedConfig, where: str, panel: Panel, table: TimeTable) -> np.ndarray:
    """float32 (features, context_length + horizon)."""
    rows = table.values.shape[1]
    span, times, ahead = slice(rows - shape.context_length, rows + shape.horizon), None, None
    if shape.future_columns:
        if table.future.shape[1] < rows + shape.horizon:
            raise UserError(f"{where}: has {table.future.shape[1] - rows:,} rows after the last value; a forecast of "
                            f"{shape.horizon:,} steps needs as many, with {', '.join(shape.future_columns)} filled in "
                            f"and {', '.join(shape.channel_names)} empty.")
        ahead = table.future[:, span]
    if shape.calendar_columns:
        if table.times is None:
            raise UserError(f"{where}: no column of times is named, of which the model knows "
                            f"{', '.join(shape.calendar_columns)}. Name it with --data.time_column.")
        if shape.frequency is None:
            raise UserError(f"{where}: steps between times were uneven in training, so that the times to come are not "
                            f"known, which {', '.join(shape.calendar_columns)} ask for.")
        times = np.concatenate([table.times[:rows], next_times(table.times[rows - 1], shape.frequency,
                                                               shape.horizon)])[span]
    return features(ahead, shape.future_means, shape.future_deviations, shape.calendar_columns, times, panel.zone)


def _scale_of(shape: PreTrainedConfig, name: str, table: TimeTable, note: Note = lambda line: None
              ) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (channels,) by which the model learned the series; of one that it did not learn, its own."""
    means, deviations = np.asarray(shape.scale_means), np.asarray(shape.scale_deviations)
    if means.ndim == 1:
        return means, deviations
    if name in shape.series_names:
        number = shape.series_names.index(name)
        return means[number], deviations[number]
    note(f"series '{name}' was not among those of training: scaled by its own mean and deviation")
    seen = np.ones(table.values.shape, bool) if table.observed is None else table.observed
    deviation = table.values.std(1, where=seen)
    return table.values.mean(1, where=seen), np.where(deviation > 0, deviation, 1.0)


def _stamps(table: TimeTable, frequency: Frequency, horizon: int, zone: str | None):
    times = next_times(table.times[table.values.shape[1] - 1], frequency, horizon)
    if times.dtype.kind == "M":
        stamps = pd.DatetimeIndex(times)
        return stamps.tz_localize("UTC").tz_convert(zone) if zone else stamps
    return times.astype(np.int64) if (times == np.round(times)).all() else times
