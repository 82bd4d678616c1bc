"""A clock that is wrong: told once it is certain, believed where it was set back, and never by a repetition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.alerts import Kind, Resolution, State
from pipeline.core.detector import Detector
from pipeline.core.events import Rules, Tick
from pipeline.core.readings import FloatArray, IntArray, ReadingBatch
from pipeline.core.stamps import CERTAIN, HELD, NEW
from tests import models
from tests.models import INTERVAL, START

HOUR = 60 * INTERVAL


def noise(rows: int, seed: int = 0) -> FloatArray:
    """Readings of which no two are equal."""
    values: FloatArray = 20 + np.random.default_rng(seed).standard_normal((rows, 1))
    return values


def at(times: IntArray, values: FloatArray, *, first: int, received: IntArray | None = None) -> ReadingBatch:
    """Readings of sensor s stamped with these times, at offsets from `first` on."""
    rows = len(times)
    here = np.zeros(rows, np.int64)
    offsets = first + np.arange(rows, dtype=np.int64)
    return ReadingBatch(
        ["s"] * rows, times, values, np.ones(rows, np.bool_), here, offsets, here if received is None else received
    )


def running(rows: int = 300) -> Detector:
    """A detector that has read `rows` readings, one a minute."""
    detector = Detector(models.model(), Rules())
    detector.step(models.one(noise(rows), "s"))
    return detector


def minutes(first: int, rows: int) -> IntArray:
    """`rows` stamps a minute apart, from minute `first` of the stream on."""
    return START + (first + np.arange(rows, dtype=np.int64)) * INTERVAL


def test_ten_new_readings_behind_the_last_are_a_clock_set_back_and_the_tenth_is_believed() -> None:
    detector = running()
    outcome = detector.step(at(minutes(240, 15), noise(15, 1), first=300))
    assert outcome.counts["late"] == CERTAIN // NEW - 1
    assert outcome.counts["scored"] == 15 - outcome.counts["late"]
    fired, resolved = outcome.alerts
    assert (fired.kind, fired.state, fired.start) == (Kind.CLOCK, State.FIRING, START + 299 * INTERVAL)
    assert fired.measure == pytest.approx(-(299 - 249) * 60)
    assert (resolved.state, resolved.resolution, resolved.alert_id) == (
        State.RESOLVED,
        Resolution.RETURNED,
        fired.alert_id,
    )
    assert detector.open_alerts() == []


def test_stragglers_between_good_readings_are_dropped_however_many_there_are() -> None:
    detector = running()
    times = np.stack([minutes(300, 40), minutes(100, 40)], axis=1).ravel()
    outcome = detector.step(at(times, noise(80, 2), first=300))
    assert outcome.alerts == []
    assert outcome.counts == {"scored": 40, "late": 40}


def test_a_producer_that_sends_old_readings_again_is_not_believed() -> None:
    detector = running()
    outcome = detector.step(at(minutes(238, 60), noise(300)[238:298], first=300))
    assert outcome.alerts == []
    assert outcome.counts == {"late": 60}
    assert 60 * HELD < CERTAIN


def test_a_constant_sensor_whose_clock_was_reset_is_not_silent_for_ever() -> None:
    detector = Detector(models.model(), Rules())
    detector.step(models.one(np.full((300, 1), 5.0), "s"))
    years = 20 * 365 * 24 * HOUR
    outcome = detector.step(at(minutes(300, 110) - years, np.full((110, 1), 5.0), first=300))
    assert outcome.counts["scored"] == 110 - CERTAIN // HELD + 1
    assert [a.kind for a in outcome.alerts if a.state is State.FIRING][:1] == [Kind.CLOCK]


def test_what_is_delivered_again_counts_for_nothing() -> None:
    once, twice = running(), running()
    behind = at(minutes(240, 8), noise(8, 3), first=300)
    once.step(behind)
    twice.step(behind)
    twice.step(behind)
    twice.step(models.one(noise(300), "s"))
    for name, array in once.snapshot(0).items():
        np.testing.assert_array_equal(twice.snapshot(0)[name], array, err_msg=name)


def test_a_clock_that_was_set_back_is_not_taken_for_silence_by_its_partition() -> None:
    detector = running()
    detector.step(at(minutes(240, 20), noise(20, 4), first=300))
    assert detector.apply(Tick(0, START + 310 * INTERVAL)).alerts == []
    [gap] = detector.apply(Tick(0, START + 400 * INTERVAL)).alerts
    assert gap.kind is Kind.GAP


def test_a_clock_that_is_put_right_again_makes_no_gap() -> None:
    detector = running()
    detector.step(at(minutes(240, 30), noise(30, 5), first=300, received=minutes(300, 30)))
    outcome = detector.step(at(minutes(330, 5), noise(5, 6), first=330, received=minutes(330, 5)))
    assert outcome.alerts == []
    assert outcome.counts == {"scored": 5}


def test_ten_readings_ahead_of_their_records_are_told_and_never_taken_in() -> None:
    detector = running()
    ahead = minutes(300, 12) + 24 * HOUR
    outcome = detector.step(at(ahead, noise(12, 7), first=300, received=minutes(300, 12)))
    assert len(outcome.rejected) == outcome.counts["future"] == 12
    [fired] = outcome.alerts
    assert (fired.kind, fired.state) == (Kind.CLOCK, State.FIRING)
    assert fired.measure == pytest.approx(24 * 3600)
    assert [a.alert_id for a in detector.open_alerts()] == [fired.alert_id]
    again = detector.step(at(minutes(312, 1), noise(1, 8), first=312, received=minutes(312, 1))).alerts
    [resolved] = [alert for alert in again if alert.kind is Kind.CLOCK]
    assert (resolved.alert_id, resolved.state) == (fired.alert_id, State.RESOLVED)
    assert detector.open_alerts() == []


def test_a_backlog_that_comes_at_once_after_live_readings_is_late_and_not_believed() -> None:
    detector = running()
    at_once = np.full(60, START + 303 * INTERVAL)
    outcome = detector.step(at(minutes(235, 60), noise(60, 9), first=300, received=at_once))
    assert outcome.alerts == []
    assert outcome.counts == {"late": 60}


def test_an_outage_of_a_sensor_whose_clock_is_behind_does_not_make_gaps_of_all_that_follows() -> None:
    detector = running()
    detector.step(at(minutes(240, 30), noise(30, 5), first=300, received=minutes(300, 30)))
    told = []
    for k in range(5):  # after two hours of silence, still an hour behind
        told += detector.step(at(minutes(390 + k, 1), noise(1, k), first=330 + k, received=minutes(450 + k, 1))).alerts
        told += detector.apply(Tick(0, START + (450 + k) * INTERVAL)).alerts
    assert [a.state for a in told if a.kind is Kind.GAP] == [State.FIRING, State.RESOLVED]


def test_what_is_open_while_a_clock_is_just_believed_makes_sense() -> None:
    detector = running()
    detector.step(at(minutes(240, 10), noise(10, 5), first=300))
    [alert] = detector.open_alerts()
    assert (alert.kind, alert.last >= alert.start) == (Kind.CLOCK, True)
    assert abs(alert.measure or 0.0) < 3 * 3600


def test_a_clock_that_stands_still_under_new_values_is_told_and_its_readings_are_dropped() -> None:
    detector = running()
    stood = np.full(40, START + 299 * INTERVAL)
    outcome = detector.step(at(stood, noise(40, 1), first=300, received=minutes(300, 40)))
    assert outcome.counts == {"late": 40}
    [fired] = outcome.alerts
    assert (fired.kind, fired.state, fired.start) == (Kind.CLOCK, State.FIRING, START + 299 * INTERVAL)
    assert fired.measure == pytest.approx(-10 * 60), "how far it is behind its records"
    assert [a.alert_id for a in detector.open_alerts()] == [fired.alert_id]
    again = detector.step(at(minutes(340, 1), noise(1, 2), first=340, received=minutes(340, 1))).alerts
    [resolved] = [alert for alert in again if alert.kind is Kind.CLOCK]
    assert (resolved.alert_id, resolved.state) == (fired.alert_id, State.RESOLVED)


def test_a_clock_reset_to_a_time_at_which_it_stands_is_told_and_not_believed() -> None:
    detector = running()
    outcome = detector.step(at(np.zeros(40, np.int64), noise(40, 1), first=300, received=minutes(300, 40)))
    assert outcome.counts == {"late": 40}
    assert [(a.kind, a.state) for a in outcome.alerts] == [(Kind.CLOCK, State.FIRING)]
    moving = detector.step(at(minutes(0, 3) - START, noise(3, 2), first=340, received=minutes(340, 3)))
    assert moving.counts == {"late": 1, "scored": 2}, "from its second step on it tells time again"
    assert [(a.kind, a.state) for a in moving.alerts] == [(Kind.CLOCK, State.RESOLVED)]


def test_many_samples_under_one_stamp_are_late_and_no_wrong_clock() -> None:
    detector = running()
    for second in range(5):
        stamp = np.full(20, START + (300 + second) * INTERVAL)
        outcome = detector.step(at(stamp, noise(20, second), first=300 + 20 * second, received=stamp))
        assert outcome.counts == {"scored": 1, "late": 19}
        assert outcome.alerts == []


def test_one_old_message_sent_over_and_over_is_no_clock_that_stands_still() -> None:
    detector = running()
    same = np.full(400, START + 280 * INTERVAL)
    outcome = detector.step(
        at(same, np.repeat(noise(300)[280:281], 400, axis=0), first=300, received=minutes(300, 400))
    )
    assert outcome.counts == {"late": 400}
    assert outcome.alerts == []


def test_what_was_read_before_a_clock_was_set_back_is_not_read_again() -> None:
    once, twice = running(), running()
    for detector in (once, twice):
        detector.step(at(minutes(240, 20), noise(20, 4), first=300))
    outcome = twice.step(models.one(noise(300)[250:], "s", first=250))
    assert (outcome.counts, outcome.alerts) == ({"duplicate": 50}, [])
    for name, array in once.snapshot(0).items():
        np.testing.assert_array_equal(twice.snapshot(0)[name], array, err_msg=name)


def test_readings_of_bad_quality_neither_raise_nor_end_the_alert_of_a_clock() -> None:
    detector = running()
    bad = replace(at(minutes(240, 12), noise(12, 1), first=300), usable=np.zeros(12, np.bool_))
    assert detector.step(bad).alerts == []
    ahead = at(minutes(400, 12), noise(12, 2), first=312, received=minutes(312, 12))
    [fired] = detector.step(ahead).alerts
    bad = replace(at(minutes(324, 1), noise(1, 3), first=324, received=minutes(324, 1)), usable=np.zeros(1, np.bool_))
    assert [a.kind for a in detector.step(bad).alerts if a.kind is Kind.CLOCK] == []
    assert [a.alert_id for a in detector.open_alerts() if a.kind is Kind.CLOCK] == [fired.alert_id]
