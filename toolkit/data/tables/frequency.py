"""How far apart the rows of a table over time lie, which of them are absent, and which times come next."""

import numpy as np

Frequency = str | float
"""pandas' alias of the steps between dates, such as `h`, `MS` or `B`; between numbers the step itself."""

_CLOSE = 1e-6  # of a step: 0.1 + 0.2 is not 0.3


def frequency_of(times: np.ndarray) -> Frequency | None:
    """The steps of rising times (datetime64 or float64), of which some may be absent; None where they fit none.

    Months, quarters and years are known where no row is absent, months also where some are; so are business days.
    """
    import pandas

    if len(times) < 2:
        return None
    steps = np.diff(times)
    usual = np.sort(steps)[len(steps) // 2]
    if times.dtype.kind != "M":
        return float(usual) if positions(times, float(usual)) is not None else None
    dates = pandas.DatetimeIndex(times)
    if len(dates) >= 3 and (found := pandas.infer_freq(dates)):
        return found
    day = np.timedelta64(1, "D")
    candidates = [pandas.tseries.frequencies.to_offset(pandas.Timedelta(usual)).freqstr]
    if usual == day and (dates.dayofweek < 5).all() and times[-1] - times[0] >= 14 * day:
        candidates.insert(0, "B")
    if usual > 27 * day:
        candidates += ["MS", "ME"]
    return next((name for name in candidates if positions(times, name) is not None), None)


def positions(times: np.ndarray, frequency: Frequency) -> np.ndarray | None:
    """int64 (rows,): how many steps each time lies after the first; None where one lies between two steps."""
    import pandas

    if times.dtype.kind == "M":
        if isinstance(frequency, float):
            return None
        offset = pandas.tseries.frequencies.to_offset(frequency)
        if not isinstance(offset, pandas.offsets.Tick):
            grid = pandas.date_range(times[0], times[-1], freq=offset)
            found = grid.get_indexer(pandas.DatetimeIndex(times))
            return None if (found < 0).any() else found.astype(np.int64)
        steps = (times - times[0]) / pandas.Timedelta(offset).to_timedelta64()
    else:
        if not isinstance(frequency, float):
            return None
        steps = (times - times[0]) / frequency
    whole = np.round(steps)
    even = np.abs(steps - whole) <= _CLOSE * np.maximum(1, np.abs(whole))
    return whole.astype(np.int64) if even.all() else None


def next_times(last, frequency: Frequency, count: int) -> np.ndarray:
    """The `count` times that come after `last`."""
    import pandas

    if isinstance(frequency, float):
        return last + frequency * np.arange(1, count + 1)
    grid = pandas.date_range(last, periods=count + 2, freq=frequency)
    return grid[grid > last][:count].to_numpy()


def in_words(frequency: Frequency | None) -> str:
    """For a message."""
    return "uneven" if frequency is None else f"{frequency:g}" if isinstance(frequency, float) else f"'{frequency}'"
