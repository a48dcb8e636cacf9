"""What is known ahead of a forecast: columns whose future the user has, and features of the calendar."""

from collections.abc import Collection, Sequence

import numpy as np

from toolkit.errors import UserError

CALENDAR = {"hour": 24, "weekday": 7, "month": 12}
"""Name → how many of them there are; a feature each, 1 when it is that hour, weekday or month, else 0."""


def split_names(names: Sequence[str], columns: Collection[str]) -> tuple[list[str], list[str]]:
    """Which of data.future_columns are columns of the table, and which of the calendar: a column of the table is it."""
    ahead = [name for name in names if name in columns or name not in CALENDAR]
    return ahead, [name for name in names if name not in ahead]


def calendar_features(names: Sequence[str], times: np.ndarray | None, zone: str | None = None) -> np.ndarray:
    """times (rows,) datetime64, UTC where there is a zone → float32 (features, rows), by the clock of the zone.

    UserError for times that are no dates.
    """
    import pandas

    if times is None or times.dtype.kind != "M":
        raise UserError(f"data.future_columns names {', '.join(names)}, but the table has no dates to know them from. "
                        f"Name its column of dates in data.time_column, or leave them out.")
    dates = pandas.DatetimeIndex(times)
    if zone:
        dates = dates.tz_localize("UTC").tz_convert(zone)
    found = [np.asarray(getattr(dates, name)) - (name == "month") == np.arange(CALENDAR[name])[:, None]
             for name in names]
    return np.concatenate(found).astype(np.float32)


def features(ahead: np.ndarray | None, means: Sequence[float], deviations: Sequence[float], calendar: Sequence[str],
             times: np.ndarray | None, zone: str | None = None) -> np.ndarray:
    """ahead (columns, rows) in units of the file, scaled by what the train rows had; then the calendar's: float32
    (features, rows).
    """
    parts = []
    if ahead is not None and len(ahead):
        parts.append(((ahead - np.asarray(means)[:, None]) / np.asarray(deviations)[:, None]).astype(np.float32))
    if calendar:
        parts.append(calendar_features(calendar, times, zone))
    return np.concatenate(parts)
