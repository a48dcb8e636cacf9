"""Several series in one long table: which rows are of which, what is never spliced, and steps between times."""

import numpy as np
import pandas as pd
import pytest

from toolkit.baselines.local_linear import LocalLinear
from toolkit.data.series.windows import SPLITS, ForecastDataSection, WindowBatches, load_forecast_data, window_splits
from toolkit.data.tables.frequency import frequency_of, next_times, positions
from toolkit.data.tables.time_table import read_panel, read_time_table
from toolkit.errors import UserError

ROWS = 40


def store(name, start, rows=ROWS, begin="2021-01-01"):
    """Values that say where they stand: start, start + 2, …"""
    return pd.DataFrame({"date": pd.date_range(begin, periods=rows, freq="h"), "store": name,
                         "load": start + 2.0 * np.arange(rows)})


def both():
    return pd.concat([store("north", 0), store("south", 1000)], ignore_index=True)


def written(tmp_path, frame, name="panel.csv"):
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)
    return str(path)


ORDERS = {"by store": lambda frame: frame, "by time": lambda frame: frame.sort_values(["date", "store"]),
          "by time, stores mixed": lambda frame: frame.sample(frac=1, random_state=0).sort_values(
              "date", kind="stable")}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("column", ["store", ""])
@pytest.mark.parametrize("name", ["panel.csv", "panel.parquet"])
def test_rows_in_any_order_are_the_same_series(tmp_path, order, column, name):
    panel = read_panel(written(tmp_path, ORDERS[order](both()), name), series_column=column)
    assert set(panel.tables) == {"north", "south"} and panel.series_column == "store" and panel.frequency == "h"
    for series, start in (("north", 0), ("south", 1000)):
        assert panel.tables[series].columns == ("load",)
        np.testing.assert_array_equal(panel.tables[series].values, [start + 2.0 * np.arange(ROWS)])
    assert [note for note in panel.notes if "data.series_column" in note] == ([] if column else [
        "times repeat: read as several series, told apart by column 'store' (data.series_column)"])


@pytest.mark.parametrize("order", ORDERS)
def test_no_window_lies_in_two_series(tmp_path, order):
    path = written(tmp_path, ORDERS[order](both()))
    data = load_forecast_data(ForecastDataSection(path, season=2, borders=[0.5, 0.75, 1]), lambda line: None)
    for split, (low, high) in zip(SPLITS, ((0, 20), (20, 30), (30, 40)), strict=True):
        windows = WindowBatches(data, split, 5, 3)
        batch = windows.rows(np.arange(len(windows)))
        rows = np.concatenate([batch["values"], batch["future"]], 2)[:, 0] * data.deviation[0] + data.mean[0]
        np.testing.assert_allclose(np.diff(rows), 2, atol=1e-2)
        place = (rows[:, 5] % 1000) / 2
        assert len(rows) == 2 * (high - max(low, 5) - 2)
        assert place.min() == pytest.approx(max(low, 5), abs=0.01) and place.max() == pytest.approx(high - 3, abs=0.01)
        np.testing.assert_array_equal(windows.series_of(np.arange(len(rows))), rows[:, 0] >= 999)


def test_series_that_whole_numbers_name(tmp_path):
    frame = both().assign(store=lambda frame: frame["store"].map({"north": 1, "south": 2}))
    panel = read_panel(written(tmp_path, frame))
    assert list(panel.tables) == ["1", "2"] and panel.tables["1"].columns == ("load",)
    assert list(read_panel(written(tmp_path, frame, "p.parquet"), series_column="store").tables) == ["1", "2"]


def test_columns_that_would_tell_other_series_apart_are_not_guessed_between(tmp_path):
    frame = both()
    other = frame.assign(city=["x", "y"] * ROWS)
    other["city"] = np.where(np.arange(2 * ROWS) // ROWS == np.arange(2 * ROWS) % 2, "x", "y")
    with pytest.raises(UserError, match="columns store, city could each tell series apart.*data.series_column"):
        read_panel(written(tmp_path, other))
    same = frame.assign(city=frame["store"].str.upper())
    assert read_panel(written(tmp_path, same)).series_column == "store"


def test_a_doubled_hour_or_row_is_no_panel(tmp_path):
    frame = store("north", 0).assign(clock=["summer"] * 20 + ["winter"] * 20)
    frame.loc[20:, "date"] -= pd.Timedelta("1h")  # as in autumn, by a clock without a zone
    with pytest.raises(UserError, match="line 22, column 'date': the table has .* twice"):
        read_panel(written(tmp_path, frame.drop(columns="store")))


def test_one_series_is_read_where_one_is_asked_for(tmp_path):
    with pytest.raises(UserError, match="holds 2 series, told apart by column 'store'"):
        read_time_table(written(tmp_path, both()))
    frame = both()
    frame.loc[3, "store"] = None
    with pytest.raises(UserError, match="line 5, column 'store': is empty"):
        read_panel(written(tmp_path, frame), series_column="store")


def test_series_that_are_too_short_are_left_out_and_told(tmp_path):
    notes = []
    path = written(tmp_path, pd.concat([both(), store("new", 5, 2), store("young", 7, 10)]))
    data = load_forecast_data(ForecastDataSection(path, season=2), notes.append)
    assert data.names == ("north", "south", "young")
    assert any("1 of 4 series have too few rows for data.borders and are left out: new" in note for note in notes)
    assert any("channels load; 3 series north, south, young" in note for note in notes)
    windows = window_splits(data, 5, 3, 8, 0)
    assert windows["train"].without_window == ["young"] and len(windows["test"].span_of(2)) == 0


def test_scale_of_all_series_or_of_each(tmp_path):
    path, notes = written(tmp_path, pd.concat([both(), store("still", 3).assign(load=3.0)])), []
    together = load_forecast_data(ForecastDataSection(path, season=2, borders=[20, 30, 40]), notes.append)
    rows = np.concatenate([2.0 * np.arange(20), 1000 + 2.0 * np.arange(20), np.full(20, 3)])
    np.testing.assert_allclose([together.mean[0], together.deviation[0]], [rows.mean(), rows.std()])
    assert not any("times as much" in note for note in notes)
    apart = load_forecast_data(ForecastDataSection(path, season=2, borders=[20, 30, 40], scale="series"), notes.append)
    assert apart.mean.tolist() == [[19], [1019], [3]] and apart.deviation[2, 0] == 1
    np.testing.assert_allclose(apart.values[0], apart.values[1], atol=1e-6)
    assert any("column 'load' is constant in the train rows of series 'still'" in note for note in notes)
    assert apart.model_input()["series_names"] == ["north", "south", "still"]


def test_series_of_unlike_sizes_are_told(tmp_path):
    frame, notes = both().assign(load=np.r_[np.sin(np.arange(ROWS)), 100 * np.sin(np.arange(ROWS))]), []
    path = written(tmp_path, frame)
    load_forecast_data(ForecastDataSection(path, season=2), notes.append)
    assert any("series 'south' varies 100 times as much as 'north'" in note for note in notes)
    load_forecast_data(ForecastDataSection(path, season=2, scale="series"), notes.clear() or notes.append)
    assert not any("times as much" in note for note in notes)


def test_a_map_for_each_series_finds_each_ones_own_rule(tmp_path):
    t, random = np.arange(300), np.random.default_rng(0)
    frames = [store(name, 0, 300).assign(load=np.sin(speed * t) + 0.01 * random.normal(size=300))
              for name, speed in (("slow", 0.2), ("fast", 1.1))]
    windows = window_splits(load_forecast_data(ForecastDataSection(written(tmp_path, pd.concat(frames)), season=2),
                                               lambda line: None), 16, 4, 8, 0)
    import torch

    batch = windows["test"].rows(np.arange(len(windows["test"])))
    own = torch.from_numpy(windows["test"].series_of(np.arange(len(windows["test"]))))
    local, values = LocalLinear(windows), torch.from_numpy(np.array(batch["values"]))
    errors = [float((local(values, None, series) - torch.from_numpy(np.array(batch["future"]))).square().mean())
              for series in (own, 1 - own)]
    assert errors[0] < 0.01 < 0.1 < errors[1]


# ---- steps between times


@pytest.mark.parametrize(("freq", "start"), [("h", "2021-01-01"), ("15min", "2021-01-01"), ("D", "2021-01-01"),
                                             ("B", "2021-01-01"), ("MS", "2021-01-01"), ("ME", "2021-01-31"),
                                             ("W-SUN", "2021-01-03"), ("QS-OCT", "2021-01-01")])
def test_steps_are_found_and_go_on(freq, start):
    times = pd.date_range(start, periods=40, freq=freq).to_numpy()
    found = frequency_of(times[:-3])
    np.testing.assert_array_equal(next_times(times[-4], found, 3), times[-3:])
    np.testing.assert_array_equal(positions(times, found), np.arange(40))


@pytest.mark.parametrize("freq", ["h", "D", "B", "MS", "ME"])
def test_steps_are_found_though_rows_are_absent(freq):
    times = pd.date_range("2021-01-01", periods=60, freq=freq).to_numpy()
    kept = np.delete(np.arange(60), [7, 8, 30])
    found = frequency_of(times[kept])
    np.testing.assert_array_equal(positions(times[kept], found), kept)


def test_uneven_times_and_numbers():
    assert frequency_of(np.array([0, 1, 2.5, 3.7, 5])) is None
    assert frequency_of(0.1 * np.arange(9)) == pytest.approx(0.1)
    np.testing.assert_allclose(next_times(0.8, 0.1, 2), [0.9, 1.0])
    assert positions(np.array([0, 1.0, 2]), "h") is None
    times = pd.to_datetime(["2021-01-01 00:00", "2021-01-01 01:07", "2021-01-01 02:00", "2021-01-01 03:00"]).to_numpy()
    assert frequency_of(times) is None


def test_absent_rows_are_missing_where_missing_is_masked(tmp_path):
    frame = store("north", 0).drop(columns="store").drop(index=[10, 11, 25])
    path = written(tmp_path, frame)
    masked, told = read_panel(path, missing="mask"), read_panel(path)
    assert masked.tables[""].values.shape == (1, ROWS)
    np.testing.assert_array_equal(np.flatnonzero(~masked.tables[""].observed[0]), [10, 11, 25])
    assert any("3 rows are absent from the steps of 'h'" in note for note in masked.notes)
    assert told.tables[""].values.shape == (1, ROWS - 3) and "2 of 36 steps of 'date'" in told.notes[0]


def test_months_are_even_and_nothing_is_told(tmp_path):
    frame = pd.DataFrame({"date": pd.date_range("2000-01-01", periods=50, freq="MS"), "load": np.sin(np.arange(50))})
    panel = read_panel(written(tmp_path, frame), missing="mask")
    assert panel.frequency == "MS" and panel.notes == () and panel.tables[""].values.shape == (1, 50)


def test_a_calendar_asks_for_dates(tmp_path):
    frame = pd.DataFrame({"date": np.arange(50), "load": np.sin(np.arange(50))})
    section = ForecastDataSection(written(tmp_path, frame), season=2, future_columns=["hour"])
    with pytest.raises(UserError, match="data.future_columns names hour, but the table has no dates"):
        load_forecast_data(section, lambda line: None)
    section.future_columns = ["promo"]
    with pytest.raises(UserError, match=r"has no column 'promo' .data.future_columns"):
        load_forecast_data(section, lambda line: None)
    with pytest.raises(UserError, match="are of a table"):
        load_forecast_data(ForecastDataSection(future_columns=["hour"]))
