"""Long lines keep their extremes, and axes carry round dates wherever rows have them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.ticker import FixedFormatter

from pipeline.core.readings import DAY, SECOND, IntArray
from training.drawing import MOST_TICKS, extremes, line, round_dates, rows_as_times, wide_figure

NEW_YEAR = 1_767_225_600 * SECOND  # 2026-01-01
MINUTE = 60 * SECOND


def named(times: IntArray) -> list[tuple[int, str]]:
    _, axes = wide_figure(1)
    rows_as_times(axes, times)
    formatter = axes.xaxis.get_major_formatter()
    assert isinstance(formatter, FixedFormatter)
    return list(zip([int(row) for row in axes.get_xticks()], formatter.seq, strict=True))


def test_extremes_of_each_stretch_survive_and_nan_only_where_there_is_nothing_else() -> None:
    values = np.array([1, np.nan, 9, -3, 2, 2, np.nan, np.nan, np.nan, 5])
    low, high = extremes(values, 3)
    np.testing.assert_array_equal(low, [1, -3, np.nan, 5])
    np.testing.assert_array_equal(high, [9, 2, np.nan, 5])


def test_a_long_line_is_drawn_with_few_points_and_its_one_spike() -> None:
    values = np.zeros(100_000)
    values[54_321] = 7.0
    _, axes = wide_figure(1)
    line(axes, values, "#000000")
    [drawn] = axes.lines
    heights = np.asarray(drawn.get_ydata())
    assert len(heights) <= 1200
    assert heights.max() == 7.0
    assert abs(float(np.asarray(drawn.get_xdata())[heights.argmax()]) - 54_321) < 170


@pytest.mark.parametrize(
    ("rows", "interval", "expected"),
    [
        (3000, MINUTE, [(720, "2026-01-01 12:00"), (1440, "2026-01-02 00:00"), (2160, "2026-01-02 12:00")]),
        (4000, 5 * MINUTE, [(576, "2026-01-03"), (1728, "2026-01-07"), (2880, "2026-01-11")]),
        (100, SECOND, [(30, "2026-01-01 00:00:30"), (60, "2026-01-01 00:01:00"), (90, "2026-01-01 00:01:30")]),
        (20_000, 60 * MINUTE, [(4344, "2026-07-01"), (8760, "2027-01-01"), (13104, "2027-07-01")]),
    ],
)
def test_rows_are_named_at_round_dates(rows: int, interval: int, expected: list[tuple[int, str]]) -> None:
    shown = named(NEW_YEAR + interval * np.arange(rows, dtype=np.int64))
    assert set(expected) <= set(shown)


def test_rows_around_a_long_silence_are_named_by_their_own_times() -> None:
    before = NEW_YEAR + MINUTE * np.arange(100, dtype=np.int64)
    assert named(np.r_[before, before + 7000 * DAY]) == [
        (0, "2026-01-01 00:00"),
        (50, "2026-01-01 00:50"),
        (100, "2045-03-02 00:00"),
        (149, "2045-03-02 00:49"),
        (199, "2045-03-02 01:39"),
    ]


def test_a_single_row_and_rows_back_in_time_are_named() -> None:
    assert named(np.array([NEW_YEAR])) == [(0, "2026-01-01")]
    back = NEW_YEAR + MINUTE * np.r_[np.arange(200, 1200), np.arange(100, 1100)]
    assert all(name.startswith("2026-01-01") for _, name in named(back))


@given(st.integers(0, 200 * 365 * DAY), st.integers(0, 100 * 365 * DAY))
def test_round_dates_lie_within_and_are_few(first: int, length: int) -> None:
    dates = round_dates(first, first + length)
    assert len(dates) <= MOST_TICKS
    assert ((dates >= first) & (dates <= first + length)).all()
    assert len(dates) >= 2 or length < 2 * SECOND
