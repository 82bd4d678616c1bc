"""Scores to episodes: one alarm an event, over when it is over."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core import alerting
from pipeline.core.readings import SECOND
from pipeline.core.table import Clock, Columns, Count, Level, SensorTable, layout
from tests import models

THRESHOLD, BUDGET = 4.0, 1e-4
HIGH, CRITICAL, BETWEEN, LOW = 4.5, 6.5, 3.5, 1.0
ROW = np.array([0], np.intp)
Told = list[tuple[int, str]]


def sensor() -> Columns:
    """One row that never had an alert."""
    arrays = SensorTable(layout(models.model())).blank(1)
    arrays.clock[0, Clock.UPDATED] = -(2**61)
    return arrays


def follow(
    scores: Sequence[float], seconds: int = 60, threshold: float = THRESHOLD, arrays: Columns | None = None
) -> Told:
    """What is told of one sensor's scores, and with which of them."""
    arrays, told = arrays or sensor(), []
    for reading, score in enumerate(scores):
        moved = alerting.advance(
            arrays,
            ROW,
            np.array([score]),
            np.array([reading * seconds * SECOND]),
            np.array([reading]),
            threshold,
            BUDGET,
        )
        told += [(reading, name) for name, positions in moved._asdict().items() if len(positions)]
    return told


def test_an_alert_opens_with_the_first_score_that_reaches_the_threshold() -> None:
    assert follow([LOW, 3.999, THRESHOLD, HIGH]) == [(2, "opened")]


def test_it_returns_after_twenty_scores_a_decade_below_the_threshold() -> None:
    assert follow([HIGH] + [LOW] * 20) == [(0, "opened"), (20, "returned")]
    assert follow([HIGH] + [LOW] * 19) == [(0, "opened")]


@pytest.mark.parametrize("interruption", [HIGH, BETWEEN, THRESHOLD - alerting.RELEASE])
def test_one_score_less_than_a_decade_below_starts_the_twenty_anew(interruption: float) -> None:
    assert follow([HIGH] + [LOW] * 19 + [interruption] + [LOW] * 20) == [(0, "opened"), (40, "returned")]


def test_a_second_alert_opens_a_hundred_readings_after_the_first_at_the_earliest() -> None:
    spike = [HIGH] + [LOW] * 20
    assert follow(spike + [HIGH] * 100) == [(0, "opened"), (20, "returned"), (100, "opened")]


def test_two_spikes_a_hundred_readings_apart_are_two_alerts() -> None:
    scores = ([HIGH] + [LOW] * 99) * 2
    assert [told for told in follow(scores) if told[1] == "opened"] == [(0, "opened"), (100, "opened")]


def test_a_level_that_lasts_two_hundred_readings_is_accepted() -> None:
    assert follow([HIGH] * 199) == [(0, "opened")]
    assert follow([HIGH] * 400) == [(0, "opened"), (199, "accepted")]


def test_an_accepted_level_is_news_again_only_above_one_and_a_half_times_its_peak() -> None:
    accepted = [5.0] * 200
    assert follow([*accepted, 7.5]) == [(0, "opened"), (199, "accepted")]
    assert follow([*accepted, 7.6]) == [(0, "opened"), (199, "accepted"), (200, "opened")]


def test_the_peak_that_must_be_outgrown_is_that_of_the_whole_episode() -> None:
    accepted = [5.0] * 100 + [8.0] + [5.0] * 99
    assert follow([*accepted, 11.9, 12.1])[-2:] == [(199, "accepted"), (201, "opened")]


def test_an_accepted_level_that_ends_is_not_told_and_the_next_rise_is_a_new_alert() -> None:
    scores = [HIGH] * 200 + [LOW] * 19 + [HIGH] + [LOW] * 20 + [HIGH]
    assert follow(scores) == [(0, "opened"), (199, "accepted"), (240, "opened")]


def test_it_gets_critical_two_decades_above_the_threshold_and_only_once() -> None:
    assert follow([HIGH, 5.9, 6.0, 9.0, HIGH, 9.0]) == [(0, "opened"), (2, "worse")]


def test_an_alert_that_opens_critical_does_not_get_worse() -> None:
    arrays = sensor()
    assert follow([CRITICAL] * 50, arrays=arrays) == [(0, "opened")]
    assert arrays.count[0, Count.SEVERITY] == alerting.CRITICAL


def test_it_is_told_to_be_worse_no_sooner_than_a_minute_after_it_was_told_to_be() -> None:
    assert follow([HIGH, CRITICAL] + [HIGH] * 100, seconds=1) == [(0, "opened"), (60, "worse")]


def test_an_episode_that_ends_within_the_minute_is_never_told_to_be_worse() -> None:
    assert follow([HIGH, CRITICAL] + [LOW] * 100, seconds=1) == [(0, "opened"), (21, "returned")]


@pytest.mark.parametrize(
    ("scores", "revision"),
    [
        ([HIGH], 1),
        ([HIGH, HIGH, BETWEEN], 1),
        ([HIGH, CRITICAL], 2),
        ([HIGH, CRITICAL] + [LOW] * 20, 3),
        ([HIGH] * 200, 2),
        ([HIGH, CRITICAL] + [LOW] * 98 + [HIGH], 1),
    ],
)
def test_the_revision_counts_what_was_told_of_an_episode(scores: list[float], revision: int) -> None:
    arrays = sensor()
    follow(scores, arrays=arrays)
    assert arrays.count[0, Count.REVISION] == revision


def test_the_onset_stays_that_of_the_first_reading() -> None:
    arrays = sensor()
    follow([LOW] * 7 + [HIGH, CRITICAL, HIGH], arrays=arrays)
    assert arrays.clock[0, [Clock.ONSET, Clock.ONSET_OFFSET]].tolist() == [7 * 60 * SECOND, 7]


def test_episodes_of_sensors_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 5, (3, 600)) + np.array([[0], [2], [-2]])
    arrays = SensorTable(layout(models.model())).blank(3)
    rows = np.array([2, 0, 1], np.intp)
    together: list[Told] = [[], [], []]
    for reading, column in enumerate(scores.T):
        times, offsets = np.full(3, reading * 60 * SECOND), np.full(3, reading)
        moved = alerting.advance(arrays, rows, column, times, offsets, THRESHOLD, BUDGET)
        for name, positions in moved._asdict().items():
            for position in positions:
                together[position].append((reading, name))
    assert together == [follow(each) for each in scores]
    assert together[0]


@given(
    st.lists(
        st.tuples(st.sampled_from([LOW, BETWEEN, HIGH, CRITICAL, 12.0]), st.integers(1, 60)), min_size=1, max_size=25
    ),
    st.sampled_from([1, 60]),
)
def test_any_scores_make_episodes_that_open_once_end_once_and_keep_their_distance(
    parts: list[tuple[float, int]], seconds: int
) -> None:
    told = follow([score for score, length in parts for _ in range(length)], seconds)
    after = {"": {"opened"}, "opened": {"worse", "returned", "accepted"}, "worse": {"returned", "accepted"}}
    after |= {"returned": {"opened"}, "accepted": {"opened"}}
    names = [name for _, name in told]
    assert all(now in after[before] for before, now in pairwise(["", *names]))
    onsets = [reading for reading, name in told if name == "opened"]
    assert all(b - a >= alerting.REFRACTORY_READINGS for a, b in pairwise(onsets))


# -- the account of a sensor's alarms


def onsets(readings: int, every: int, arrays: Columns, budget: float) -> list[float]:
    """What was asked of each alert, where a score of HIGH comes every so many readings."""
    asked = []
    for reading in range(readings):
        score = HIGH if reading % every == 0 else LOW
        times, offsets = np.array([reading * 60 * SECOND]), np.array([reading])
        moved = alerting.advance(arrays, ROW, np.array([score]), times, offsets, THRESHOLD, budget)
        arrays.count[0, Count.LEARNED] += 1
        if len(moved.opened):
            asked.append(float(arrays.level[0, Level.ASKED]))
    return asked


def test_who_alarms_as_often_as_is_allowed_is_asked_for_no_more() -> None:
    assert set(onsets(8_000, 200, sensor(), 1 / 200)) == {THRESHOLD}


def test_who_alarms_ten_times_as_often_is_asked_for_more_and_more_and_falls_silent() -> None:
    asked = onsets(8_000, 200, sensor(), 1 / 2_000)
    assert asked[:10] == sorted(set(asked[:10]))
    assert asked[0] == THRESHOLD
    assert HIGH - 0.1 < asked[-1] <= HIGH
    assert len(asked) < 30


def test_what_is_asked_never_rises_by_more_than_a_decade() -> None:
    arrays = sensor()
    arrays.count[0, Count.ONSETS] = 10_000
    assert alerting.asked(arrays.count, THRESHOLD, BUDGET) == [THRESHOLD + 1]


def test_an_old_account_counts_half() -> None:
    arrays = sensor()
    arrays.count[0, [Count.ONSETS, Count.LEARNED]] = 99, 50_000
    onsets(1, 1, arrays, 1e-3)
    assert arrays.count[0, [Count.ONSETS, Count.SPENT_FROM]].tolist() == [50, 25_000]
