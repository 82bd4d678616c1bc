"""Stuck values, crossed limits, silence: each has its own rule, in its own unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.core import quality
from pipeline.core.readings import SECOND
from pipeline.core.table import Columns, SensorTable, Tally, layout
from tests import models

NAN = float("nan")
LANE = np.array([0], np.intp)
MINUTE = 60 * SECOND


def sensor(*, stuck_limit: int = 10, low: float = -np.inf, high: float = np.inf) -> Columns:
    """One row of one channel."""
    arrays = SensorTable(layout(models.model())).blank(1)
    arrays.tally[0, 0, Tally.STUCK_LIMIT] = stuck_limit
    arrays.bounds[0, 0] = low, high
    return arrays


def stuck(values: Sequence[float], *, limit: int = 10, scored: bool = True) -> list[tuple[int, str, int, float]]:
    """(reading, what, since which reading, repeats) for the values of one channel, none before them."""
    arrays, told, before = sensor(stuck_limit=limit), [], NAN
    for reading, value in enumerate(values):
        time = np.array([reading], np.int64)
        events = quality.stuck(arrays, LANE, np.array([value]), np.array([before]), time, np.array([scored]))
        since, measure = int(events.since[0]), float(events.measure[0])
        told += [(reading, "opened", since, measure) for _ in events.opened]
        told += [(reading, "ended", since, measure) for _ in events.ended]
        before = value
    return told


def limit(values: Sequence[float], low: float, high: float) -> list[tuple[int, str, int, float]]:
    """(reading, what, since which reading, the limit) for the values of one channel."""
    arrays, told = sensor(low=low, high=high), []
    for reading, value in enumerate(values):
        events = quality.limits(arrays, LANE, np.array([value]), np.array([reading], np.int64))
        since, bound = int(events.since[0]), float(events.limit[0])
        told += [(reading, "opened", since, bound) for _ in events.opened]
        told += [(reading, "ended", since, bound) for _ in events.ended]
    return told


def test_the_longest_run_of_equal_values_skips_missing_ones() -> None:
    values = np.array([[1, NAN], [1, NAN], [NAN, NAN], [1, NAN], [2, NAN], [2, NAN]])
    assert quality.longest_run(values).tolist() == [3, 0]
    assert quality.longest_run(np.zeros((0, 2))).tolist() == [0, 0]


def test_repeats_are_unusual_beyond_three_times_the_longest_run_seen_and_never_below_ten() -> None:
    moving = np.arange(100.0)
    pausing = np.where(moving < 8, 0.0, moving)
    assert quality.stuck_limits(np.stack([moving, pausing], axis=1)).tolist() == [10, 3 * 8 + 1]


@pytest.mark.parametrize(("still", "limit"), [(24, 73), (25, 0), (100, 0)])
def test_a_channel_that_stood_still_for_a_quarter_of_its_history_is_constant_by_nature(still: int, limit: int) -> None:
    rows = np.arange(100.0)
    assert quality.stuck_limits(np.where(rows < still, 0.0, rows)[:, None]).tolist() == [limit]


def test_a_run_opens_at_its_limit_and_ends_with_the_first_other_value_under_the_same_start() -> None:
    values = [1.0, 2.0, 3.0] + [5.0] * 14 + [6.0]
    assert stuck(values) == [(12, "opened", 3, 10.0), (17, "ended", 3, 14.0)]


def test_nine_repeats_are_nothing() -> None:
    assert stuck([1.0] + [5.0] * 9 + [6.0]) == []


def test_a_channel_that_is_constant_by_nature_is_never_stuck() -> None:
    assert stuck([5.0] * 500, limit=0) == []


def test_a_run_in_what_was_trained_on_is_not_told() -> None:
    assert stuck([5.0] * 50, scored=False) == []


def test_a_run_begins_with_the_first_scored_reading_even_where_it_repeats_the_last_of_the_warm_up() -> None:
    arrays = sensor()
    for reading in range(100, 110):
        time, five = np.array([reading], np.int64), np.array([5.0])
        events = quality.stuck(arrays, LANE, five, five, time, np.array([True]))
    assert events.opened.tolist() == [0]
    assert events.since.tolist() == [100]


def test_a_limit_opens_at_once_and_ends_after_five_readings_within() -> None:
    assert limit([5.0, 11.0] + [9.0] * 6, 0, 10) == [(1, "opened", 1, 10.0), (6, "ended", 1, 10.0)]


def test_each_reading_beyond_starts_the_five_anew() -> None:
    assert limit([11.0] + [9.0] * 4 + [11.0] + [9.0] * 5, 0, 10) == [(0, "opened", 0, 10.0), (10, "ended", 0, 10.0)]


def test_the_limit_named_is_the_one_that_was_crossed_also_when_the_value_is_back() -> None:
    assert limit([-1.0] + [5.0] * 5, 0, 10) == [(0, "opened", 0, 0.0), (5, "ended", 0, 0.0)]


def test_a_value_on_its_limit_is_within() -> None:
    assert limit([0.0, 10.0], 0, 10) == []


def test_without_bounds_no_value_is_beyond() -> None:
    assert limit([1e300, -1e300], -np.inf, np.inf) == []


def test_silence_is_unusual_after_five_intervals_or_twice_what_was_usual() -> None:
    regular = np.arange(2000) * MINUTE
    assert quality.gap_limit(regular, MINUTE) == 5 * MINUTE
    daily_pause = regular + (regular // (1000 * MINUTE)) * 30 * MINUTE  # one pause in 2000 is below the quantile
    assert quality.gap_limit(daily_pause, MINUTE) == 5 * MINUTE
    often = regular + (np.arange(2000) // 100) * 30 * MINUTE
    assert quality.gap_limit(often, MINUTE) == 2 * 31 * MINUTE


def test_a_sensor_with_a_single_reading_has_the_silence_of_its_interval() -> None:
    assert quality.gap_limit(np.array([0], np.int64), MINUTE) == 5 * MINUTE


def test_repeats_by_chance_open_at_most_one_stuck_alert_in_a_hundred_thousand_readings() -> None:
    rng = np.random.default_rng(0)
    for coarseness in (0.3, 1.0, 3.0):  # steps of the sensor in deviations of its noise: few repeats to many
        values = np.round(rng.standard_normal(200_000) / coarseness) * coarseness
        [limit] = quality.stuck_limits(values[:2000, None])
        edges = np.flatnonzero(np.diff(values) != 0)
        assert (np.diff(edges) >= limit).sum() <= 2


def test_readings_that_come_at_random_make_at_most_one_gap_in_a_hundred_thousand() -> None:
    apart = (np.random.default_rng(0).exponential(MINUTE, 302_000)).astype(np.int64)
    limit = quality.gap_limit(np.cumsum(apart[:2000]), MINUTE)
    assert (apart[2000:] > limit).sum() <= 3
