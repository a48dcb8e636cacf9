"""Forecasting: series cut into train, validation and test by time, scaled by train alone, and windows of them.

The published protocol (Zhou et al. 2021, *Informer*; Nie et al. 2023, *PatchTST*): a window is a context and the
horizon that follows it. **A window belongs to the split that holds its whole horizon, and no horizon crosses a
border.** The context of a validation or test window may reach back into the rows before its split: they are inputs
only, and would be known when the forecast is made. Means and deviations are those of the train rows. Of several series
each is cut by time by itself, and no window lies in two.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from toolkit.data import counter
from toolkit.data.series.covariates import features, split_names
from toolkit.data.tables.columns import shown
from toolkit.data.tables.sources import Reading
from toolkit.data.tables.time_table import Missing, Panel, panel_of, read_table_columns
from toolkit.errors import UserError
from toolkit.views import View, Viewed, counted

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Scale = Literal["all", "series"]

_UNLIKE = 10
"""How many times the deviation of one series has to be that of another for that to be told."""
_TRANSIENT = 500
"""Rows of a generated series that are left out: how it comes from where it was started to where it stays."""


@dataclass
class ForecastDataSection:
    COMMON = ("path", "time_column", "series_column", "target_columns", "season")

    path: str = ""
    """A .csv, .tsv or .parquet table, one row a time, or of several series one row a series and time; empty:
    Mackey-Glass, chaos that can be forecast for a while."""
    generated_rows: int = 5000
    """Of Mackey-Glass, one a unit of time."""
    encoding: str = ""
    """Of .csv and .tsv files that are not UTF-8 and have no byte-order mark: latin-1, cp1252, shift_jis, …"""
    decimal: Literal["", ",", "."] = ""
    """Decimal comma or point of numbers in them; empty: found, and refused where it could be either."""
    time_column: str = "date"
    """ISO 8601 dates or numbers; "" where rows are evenly spaced."""
    series_column: str = ""
    """Of a table of several series: which one a row belongs to. Each is cut by time by itself. Empty: one series or,
    where times repeat, the column that tells series apart, which is told."""
    target_columns: list[str] = field(default_factory=list)
    """The channels; empty: all columns of numbers but an index."""
    future_columns: list[str] = field(default_factory=list)
    """What is known ahead: hour, weekday and month of time_column, and columns of numbers that the table has for the
    rows to be forecast, too."""
    missing: Missing = "refuse"
    """Empty cells, NaN and infinity: refused with their line, or masked; then rows absent from an even table are, too.
    """
    scale: Scale = "all"
    """Mean and deviation, by channel, of all series' train rows together, or of each series by itself."""
    borders: list[float] = field(default_factory=lambda: [0.7, 0.8, 1.0])
    """Where train, validation and test end: in rows, or, where none is above 1, as shares of the rows. The Electricity
    Transformer sets' 12, 4 and 4 months of 30 days are [8640, 11520, 14400] of their hourly rows."""
    season: int = 24
    """Rows after which the series is most like itself: what the seasonal naive forecast repeats, and MASE's unit."""


@dataclass(frozen=True, repr=False)
class ForecastData(Viewed):
    """One or more separate series of the same channels, standardised; `standardised` makes it."""

    values: tuple[np.ndarray, ...]
    """Of each series float32 (channels, rows), of mean 0 and deviation 1 over all train rows; 0 where unobserved."""
    borders: tuple[tuple[int, int, int], ...]
    """Of each series the rows before which train, validation and test end."""
    columns: tuple[str, ...]
    mean: np.ndarray
    """float64 (channels,), in the units of the file; (series, channels) where each series has its own."""
    deviation: np.ndarray
    """As `mean`; 1 for a channel that is constant in train."""
    season: int
    observed: tuple[np.ndarray, ...] | None = None
    """Of each series bool (channels, rows); None: everything is observed."""
    names: tuple[str, ...] = ("",)
    """Of the series; "" where there is but one."""
    covariates: tuple[np.ndarray, ...] | None = None
    """Of each series float32 (features, rows): what is known ahead."""
    table: dict = field(default_factory=dict)
    """How the table was read, in plain values; empty where there was none."""
    times: tuple[np.ndarray, ...] | None = None
    """Of each series datetime64[ns] or float64 (rows,); None where rows have no times."""

    def _shown(self) -> View:
        rows = [(name or "series", values.shape[1], *ends)
                for name, values, ends in zip(self.names, self.values, self.borders, strict=True)]
        what = f"{counted(len(self.values), 'series', 'series')} to forecast, {counted(len(self.columns), 'channel')}"
        return View(what, {"channels": self.columns, "season": self.season},
                    ("series", "rows", "train ends", "validation ends", "test ends"), rows)

    def scale_of(self, series: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of a series, float64 (channels,)."""
        own = self.mean.ndim == 2
        return (self.mean[series], self.deviation[series]) if own else (self.mean, self.deviation)

    def model_input(self) -> dict:
        """What a model needs to be asked of another table, in plain values for its config.json."""
        found = {"channel_names": list(self.columns), "scale_means": self.mean.tolist(),
                 "scale_deviations": self.deviation.tolist(), **self.table}
        return found | ({"series_names": list(self.names)} if self.mean.ndim == 2 else {})

    def naive_error(self) -> np.ndarray:
        """float64 (series, channels): mean |x_t − x_{t−season}| over train, the unit of MASE; NaN where none is known.

        As `toolkit.metrics.seasonal_naive_error`, over the pairs of which both are observed.
        """
        errors = np.full((len(self.values), len(self.columns)), np.nan)
        for number, (values, (end, _, _)) in enumerate(zip(self.values, self.borders, strict=True)):
            train = values[:, :end].astype(np.float64)
            steps = np.abs(train[:, self.season:] - train[:, :-self.season])
            known = np.ones(steps.shape, bool)
            if self.observed is not None:
                seen = self.observed[number][:, :end]
                known = seen[:, self.season:] & seen[:, :-self.season]
            count = known.sum(1)
            errors[number] = np.divide((steps * known).sum(1), count, out=errors[number].copy(), where=count > 0)
        return errors


def load_forecast_data(section: ForecastDataSection, note: Callable[[str], None] = print) -> ForecastData:
    """The table, or the generated series, that `section` names; what is odd about it is told to `note`."""
    if not section.path:
        if section.series_column or section.future_columns:
            raise UserError("data.series_column and data.future_columns are of a table; name it in data.path, or leave "
                            "them empty.")
        from toolkit.data.series.generators import mackey_glass

        series = mackey_glass(_TRANSIENT + section.generated_rows)[None, _TRANSIENT:]
        return standardised([series], ("mackey-glass",), section.borders, section.season)
    table = read_table_columns(section.path, section.time_column, section.series_column, section.target_columns,
                               section.future_columns,
                               Reading(encoding=section.encoding, decimal=section.decimal, options="data."))
    ahead, calendar = split_names(section.future_columns, table.columns)
    panel = panel_of(table, section.time_column, section.series_column, section.target_columns, section.missing, ahead)
    for line in panel.notes:
        note(f"{section.path}: {line}")
    return _of_panel(section, panel, ahead, calendar, note)


def _of_panel(section: ForecastDataSection, panel: Panel, ahead: list[str], calendar: list[str],
              note: Callable[[str], None]) -> ForecastData:
    tables = dict(panel.tables)
    if panel.series_column:
        short = [name for name, table in tables.items() if not _can_be_cut(section.borders, table.values.shape[1])]
        tables = {name: table for name, table in tables.items() if name not in short}
        if short and tables:
            note(f"{section.path}: {len(short):,} of {len(panel.tables):,} series have too few rows for data.borders "
                 f"and are left out: {shown(short)}")
        tables = tables or dict(panel.tables)  # refused below
    names, series = list(tables), list(tables.values())
    rows = [table.values.shape[1] for table in series]
    note(f"{section.path}: channels {shown(series[0].columns, 24)}"
         + (f"; {len(names):,} series {shown(names)}" if panel.series_column else ""))
    observed = None
    if any(table.observed is not None for table in series):
        observed = [np.ones(table.values.shape, bool) if table.observed is None else table.observed
                    for table in series]
    reading: dict = {"time_column": section.time_column, "series_column": panel.series_column,
                     "missing": section.missing, "frequency": panel.frequency}
    covariates = None
    if ahead or calendar:
        ends = [resolve_borders(section.borders, count)[0] for count in rows]
        means, deviations = _scale_ahead([table.future[:, :end] for table, end in zip(series, ends, strict=True)]
                                         if ahead else [])
        reading |= {"future_columns": ahead, "calendar_columns": calendar, "future_means": means,
                    "future_deviations": deviations}
        covariates = [features(table.future, means, deviations, calendar, table.times, panel.zone)[:, :count]
                      for table, count in zip(series, rows, strict=True)]
    data = standardised([table.values for table in series], series[0].columns, section.borders, section.season,
                        observed, note, section.scale, names, covariates, reading)
    if series[0].times is not None:
        data = replace(data, times=tuple(table.times[:count] for table, count in zip(series, rows, strict=True)))
    sizes = np.asarray([values[:, :end].std(1).max() for values, (end, _, _) in
                        zip(data.values, data.borders, strict=True)])
    small, large = np.where(sizes > 1e-6, sizes, np.inf).argmin(), sizes.argmax()  # one that is flat has no size
    if section.scale == "all" and 1e-6 < sizes[small] < sizes[large] / _UNLIKE:
        note(f"{section.path}: series '{names[large]}' varies {sizes[large] / sizes[small]:,.0f} times as much as "
             f"'{names[small]}', so that errors are nearly all its own; to scale each by itself set data.scale to "
             f"series")
    return data


def _can_be_cut(borders: Sequence[float], rows: int) -> bool:
    try:
        resolve_borders(borders, rows)
    except UserError:
        return False
    return True


def _scale_ahead(train: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and deviation of each column that is known ahead; 1 for one that is constant."""
    if not train:
        return [], []
    joined = np.concatenate(train, 1)
    deviation = joined.std(1)
    return joined.mean(1).tolist(), np.where(deviation > 0, deviation, 1.0).tolist()


def standardised(series: Sequence[np.ndarray], columns: Sequence[str], borders: Sequence[float], season: int = 1,
                 observed: Sequence[np.ndarray] | None = None, note: Callable[[str], None] = print,
                 scale: Scale = "all", names: Sequence[str] = (), covariates: Sequence[np.ndarray] | None = None,
                 table: dict | None = None) -> ForecastData:
    """Series (channels, rows) of any lengths, each cut at `borders` → scaled by mean and deviation of train rows: of
    all series, or of each by itself.

    UserError for borders that do not fit, and for a channel of which train knows nothing.
    """
    names = tuple(names) or (("",) if len(series) == 1 else tuple(str(number) for number in range(len(series))))
    ends = tuple(_borders_of(name, borders, values.shape[1]) for name, values in zip(names, series, strict=True))
    if season < 1:
        raise UserError(f"data.season is {season}; give the number of rows in a season, at least 1.")
    if season >= max(end for end, _, _ in ends):
        raise UserError(f"data.season is {season} rows, but train has {max(end for end, _, _ in ends):,}. Give a "
                        f"shorter season, or more rows to train.")
    seen = [np.ones(values.shape, bool) for values in series] if observed is None else observed
    train = [values[:, :end] for values, (end, _, _) in zip(series, ends, strict=True)]
    known = [part[:, :end] for part, (end, _, _) in zip(seen, ends, strict=True)]
    if scale == "series":
        scales = [_scale(part, mask, columns, note, name)
                  for part, mask, name in zip(train, known, names, strict=True)]
        mean, deviation = (np.stack(parts) for parts in zip(*scales, strict=True))
    else:
        mean, deviation = _scale(np.concatenate(train, 1), np.concatenate(known, 1), columns, note)
    data = ForecastData((), ends, tuple(columns), mean, deviation, season,
                        None if observed is None else tuple(observed), names,
                        None if covariates is None else tuple(covariates), table or {})
    scaled = []
    for number, values in enumerate(series):
        centre, size = data.scale_of(number)
        scaled.append(scaled_values(values, None if observed is None else observed[number], centre, size))
    return replace(data, values=tuple(scaled))


def scaled_values(values: np.ndarray, observed: np.ndarray | None, mean: np.ndarray, deviation: np.ndarray
                  ) -> np.ndarray:
    """(channels, rows) in units of the file → float32, standardised; 0 where unobserved."""
    scaled = ((values - mean[:, None]) / deviation[:, None]).astype(np.float32)
    return scaled if observed is None else np.where(observed, scaled, np.float32(0))


def _scale(train: np.ndarray, seen: np.ndarray, columns: Sequence[str], note: Callable[[str], None], series: str = ""
           ) -> tuple[np.ndarray, np.ndarray]:
    """float64 (channels,) mean and deviation of what was observed; 1 for the deviation of a channel that is constant.
    """
    where = f" of series '{series}'" if series else ""
    for name, known in zip(columns, seen.any(1), strict=True):
        if not known:
            raise UserError(f"column '{name}': no value in the train rows{where}. Leave it out of data.target_columns, "
                            f"or move data.borders.")
    mean, deviation = train.mean(1, where=seen, dtype=np.float64), train.std(1, where=seen, dtype=np.float64)
    constant = train.max(1, where=seen, initial=-np.inf) == train.min(1, where=seen, initial=np.inf)
    for name in np.asarray(columns)[constant]:
        note(f"column '{name}' is constant in the train rows{where}; it is centred, and not scaled")
    deviation[constant] = 1.0
    return mean, deviation


def _borders_of(name: str, borders: Sequence[float], rows: int) -> tuple[int, int, int]:
    try:
        return resolve_borders(borders, rows)
    except UserError as error:
        raise UserError(f"series '{name}': {error}" if name else str(error)) from None


def resolve_borders(borders: Sequence[float], rows: int) -> tuple[int, int, int]:
    """Ends of train, validation and test in rows; shares are rounded to the nearest row."""
    shares = max(borders, default=0) <= 1
    if len(borders) != 3 or any(end != round(end) for end in borders if not shares):
        raise UserError(f"data.borders is {list(borders)}; expected three numbers, the rows (or shares of them) at "
                        f"which train, validation and test end.")
    train, validation, test = (round(end * rows) if shares else int(end) for end in borders)
    if not 0 < train < validation < test <= rows:
        raise UserError(f"data.borders is {list(borders)}; with {rows:,} rows expected 0 < train < validation < test ≤ "
                        f"{1 if shares else rows}.")
    return train, validation, test


class WindowBatches(Viewed):
    """The windows of one split: `batch` draws training batches, `in_order` goes through all of them once.

    A batch holds "values" (b, channels, context_length) and "future" (b, channels, horizon), float32; where values are
    missing also "observed" and "future_observed", bool, of the same shapes; where something is known ahead also
    "covariates" (b, features, context_length + horizon). With several series, windows are those of
    the first one, then those of the second, …; a series too short for a window has none.

    UserError when the split has no window at all.
    """

    def __init__(self, data: ForecastData, split: Split, context_length: int, horizon: int, batch_size: int = 32,
                 seed: int = 0):
        for name, value in (("context_length", context_length), ("horizon", horizon)):
            if value < 1:
                raise UserError(f"{name} is {value}; give at least 1 row.")
        self.data, self.split, self.context_length, self.horizon = data, split, context_length, horizon
        self.batch_size, self.seed = batch_size, seed
        place, lengths = SPLITS.index(split), [values.shape[1] for values in data.values]
        spans = [(ends[place - 1] if place else 0, ends[place]) for ends in data.borders]
        # The first row of each series' first horizon, and how many windows begin there, one a row.
        firsts = np.asarray([max(low, context_length) for low, _ in spans])
        counts = np.maximum([high - horizon + 1 for _, high in spans] - firsts, 0)
        if not counts.sum():
            longest = max(high - low for low, high in spans)
            need = f"a horizon of {horizon:,}"
            if not place:
                need = f"a context of {context_length:,} and {need}"
            elif longest >= horizon:
                need += f" after a context of {context_length:,}"
            raise UserError(f"the {split} split has {longest:,} rows, too few for {need} rows. Shorten them, or give "
                            f"it more rows (data.borders).")
        self._ends = np.cumsum(counts)
        # Window i of a series' part of the count starts at row i + shift of all series laid end to end.
        offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self._shifts = offsets + firsts - context_length - (self._ends - counts)
        self._values = self._view(data.values)
        self._observed = None if data.observed is None else self._view(data.observed)
        self._covariates = None if data.covariates is None else self._view(data.covariates)
        self.without_window = [name for name, count in zip(data.names, counts, strict=True) if not count]
        """Series that are too short for a window of this split."""

    def _shown(self) -> View:
        return View(f"{counted(len(self), 'window')} of {self.split}, in batches of {self.batch_size}",
                    {"context": self.context_length, "horizon": self.horizon})

    def _view(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """(windows starting at any row, channels, context_length + horizon), without a copy of the values."""
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, 1)
        windows = np.lib.stride_tricks.sliding_window_view(joined, self.context_length + self.horizon, axis=1)
        return windows.transpose(1, 0, 2)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def span_of(self, series: int) -> range:
        """Which windows are of a series."""
        return range(int(self._ends[series - 1]) if series else 0, int(self._ends[series]))

    def series_of(self, index: np.ndarray) -> np.ndarray:
        """Which series each window is of."""
        return np.searchsorted(self._ends, index, side="right")

    def batch(self, step: int, rows: range) -> dict[str, np.ndarray]:
        """Rows of the global batch at `step`, every epoch in a fresh order: a function of (seed, step) alone."""
        index = step * self.batch_size + np.arange(rows.start, rows.stop)
        return self.rows(counter.epoch_order(self.seed, index, len(self))[1])

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The windows of these numbers, 0 … len − 1, in order of time."""
        starts, cut = index + self._shifts[self.series_of(index)], self.context_length
        # Each part by itself: cut out of one array, they would have to be copied once more to become tensors.
        batch = {"values": self._values[starts, :, :cut], "future": self._values[starts, :, cut:]}
        if self._observed is not None:
            batch |= {"observed": self._observed[starts, :, :cut], "future_observed": self._observed[starts, :, cut:]}
        if self._covariates is not None:
            batch["covariates"] = self._covariates[starts]
        return batch

    def times(self, index: np.ndarray) -> np.ndarray | None:
        """(b, context_length + horizon), the times of the windows' rows; None where they have none."""
        if self.data.times is None:
            return None
        starts = index + self._shifts[self.series_of(index)]
        return np.concatenate(self.data.times)[starts[:, None] + np.arange(self.context_length + self.horizon)]

    def in_order(self, size: int = 256, rank: int = 0, world: int = 1) -> Iterator[tuple[np.ndarray, dict]]:
        """(index, batch) over every `world`-th window from `rank` on, each once, the last batch however small."""
        mine = np.arange(rank, len(self), world)
        for start in range(0, len(mine), size):
            index = mine[start:start + size]
            yield index, self.rows(index)


def window_splits(data: ForecastData, context_length: int, horizon: int, batch_size: int, seed: int
                  ) -> dict[Split, WindowBatches]:
    """Train, validation and test windows of one length."""
    return {split: WindowBatches(data, split, context_length, horizon, batch_size, seed) for split in SPLITS}
