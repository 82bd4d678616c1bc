"""Readings that did not come, or came without a value: filled in, marked, never learned, never a false alarm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core import imputed
from pipeline.core.alerts import Kind
from pipeline.core.detector import Detector
from pipeline.core.events import Rules, Swap
from pipeline.core.frames import Frame, batch_of
from pipeline.core.model import Model
from pipeline.core.novelty import MEMORY_DELAY
from pipeline.core.readings import Quality, Reading, ReadingBatch
from pipeline.core.table import Clock, Count, SensorTable, Tally, layout
from pipeline.core.thresholds import Budget
from tests import models
from tests.models import INTERVAL
from tests.settled import CALM, RULES, after, assert_same_state, at, calm, settled, settled_state

DELAYED = MEMORY_DELAY + 340  # readings after which everything has entered memories and tails


def without(batch: ReadingBatch, *lost: int) -> ReadingBatch:
    """The batch without the readings at these positions."""
    return batch.take(np.setdiff1d(np.arange(len(batch)), lost))


def marks(detector: Detector) -> list[int]:
    """Which readings of the window are filled in, by their age."""
    rows = detector.table.rows_of()
    arrays, window = detector.table.arrays, detector.model.network.window
    slots = (arrays.count[rows, Count.SEEN].astype(np.int64)[:, None] - 1 - np.arange(window)) % window
    found: list[int] = np.flatnonzero(imputed.over(arrays, rows, slots)[0].any(axis=1)).tolist()
    return found


@pytest.mark.parametrize("lost", [1, 2, 4])
def test_a_few_missing_readings_are_filled_in_and_marked(lost: int) -> None:
    detector = settled()
    outcome = detector.step(without(after(calm(20)), *range(5, 5 + lost)))
    assert outcome.counts == {"scored": 20 - lost, "imputed": lost}
    assert outcome.imputed.tolist() == [0] * 5 + [lost] * (15 - lost)
    assert marks(detector) == list(range(15 - lost, 15))
    assert detector.snapshot(0)["count"][0, Count.SINCE] >= CALM
    detector.step(after(calm(64), first=CALM + 20))
    assert (marks(detector), detector.snapshot(0)["count"][0, Count.FILLED]) == ([], 0), "they have left the window"


def test_more_missing_readings_restart_the_window() -> None:
    detector = settled()
    outcome = detector.step(without(after(calm(20)), *range(5, 10)))
    assert "imputed" not in outcome.counts
    assert detector.snapshot(0)["count"][0, Count.SINCE] == 10
    assert outcome.scores[5:].max() <= 1.0
    assert np.isnan(outcome.expected[5])


def test_the_setting_says_how_many_and_zero_takes_readings_as_they_come() -> None:
    lossy = without(after(calm(20)), 5, 6)
    strict, off = settled(rules=replace(RULES, bridge=1)), settled(rules=replace(RULES, bridge=0))
    assert (strict.step(lossy).counts, off.step(lossy).counts) == ({"scored": 18}, {"scored": 18})
    assert strict.snapshot(0)["count"][0, Count.SINCE] == 13
    assert off.snapshot(0)["count"][0, Count.SINCE] > CALM


def rising(model: Model) -> Model:
    """The same, foretelling a rise that never comes: what it fills in is unlike anything that was measured."""
    head = np.zeros_like(model.network.head)
    return replace(
        model, network=replace(model.network, head=head, head_bias=np.full_like(model.network.head_bias, 1.0))
    )


@pytest.mark.parametrize("how", ["lost", "bad", "no value"])
def test_what_was_filled_in_is_never_learned(how: str) -> None:
    """The forecast runs away; none of what it says enters the memory of values."""
    model = rising(models.learnt(models.model(), models.one(calm(CALM, seed=2))))
    detector, values = Detector(model, RULES), calm(DELAYED)
    batch, where = after(values), np.array([50, 51, 52])
    if how == "lost":
        batch = without(batch, *where)
    elif how == "bad":
        usable = batch.usable.copy()
        usable[where] = False
        batch = replace(batch, usable=usable)
    else:
        values = batch.values.copy()
        values[where] = np.nan
        batch = replace(batch, values=values)
    assert detector.step(batch).imputed.max() == 3
    other = Detector(model, RULES)
    rest = without(after(calm(DELAYED)), *where)
    times = rest.times[0] + np.arange(len(rest)) * INTERVAL  # as if nothing had been missing
    other.step(replace(rest, times=times, received=times))
    np.testing.assert_array_equal(detector.snapshot(0)["known"], other.snapshot(0)["known"])


@pytest.mark.parametrize("quality", [Quality.BAD, Quality.MAINTENANCE])
def test_a_reading_of_another_quality_than_good_is_marked_whatever_it_says(quality: Quality) -> None:
    detector, other, values = settled(), settled(), calm(20)[:, 0].tolist()
    said = [Reading("s", at(CALM + i), {"c0": value}, offset=CALM + i) for i, value in enumerate(values)]
    for i in (5, 6, 12):
        said[i] = said[i]._replace(values={"c0": 1e6}, quality=quality)
    outcome = detector.step(batch_of(Frame.of(said), ["c0"]))
    assert (outcome.counts, outcome.alerts) == ({"scored": 17, "unusable": 3}, [])
    assert marks(detector) == [7, 13, 14]
    said = [reading._replace(values={"c0": -3.0}) if i in (5, 6, 12) else reading for i, reading in enumerate(said)]
    other.step(batch_of(Frame.of(said), ["c0"]))
    assert_same_state(detector, other)


def test_an_open_alert_is_untouched_by_readings_of_bad_quality_whatever_their_values() -> None:
    detector = settled()
    detector.step(after(np.r_[calm(5)[:, 0], np.full(4, 35.0)]))
    before = detector.open_alerts()
    assert [a.kind for a in before] == [Kind.FORECAST]
    bad = after(np.full(40, 1e6), first=CALM + 9)
    outcome = detector.step(replace(bad, usable=np.zeros(40, np.bool_)))
    assert (outcome.alerts, outcome.counts) == ([], {"unusable": 40})
    [alert] = detector.open_alerts()
    assert (alert.alert_id, alert.revision, alert.imputed) == (before[0].alert_id, before[0].revision, 40)
    state = detector.snapshot(0)
    assert state["tally"][0, 0, Tally.MISSED] == 40
    detector.step(after(calm(1, seed=9), first=CALM + 49))
    assert detector.snapshot(0)["count"][0, Count.SINCE] == 1, "so long a stretch restarts the window"


def recoveries(lost: int, bridge: int) -> int:
    """How many of 40 steep waves, each losing so many readings at another phase, are alerted on in what comes next."""
    rules = Rules(budget=Budget.parse("1/1000/sensor"), bridge=bridge)
    row = np.arange(760)[:, None] + np.arange(40)
    noise = np.random.default_rng(4).standard_normal(row.shape) * 0.02
    values = (20 + 3 * np.sin(row / 5) + noise)[..., None]
    detector = Detector(models.model(), rules)
    detector.step(models.stream(values[:700]))
    rest = models.stream(values[700:])
    later = replace(rest, times=rest.times + 700 * INTERVAL, received=rest.received + 700 * INTERVAL)
    kept = (np.arange(len(later)) // 40 < 5) | (np.arange(len(later)) // 40 >= 5 + lost)
    outcome = detector.step(later.take(np.flatnonzero(kept)))
    return len([a for a in outcome.alerts if a.kind is Kind.FORECAST and a.revision == 1])


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 5, 30])
def test_no_false_alarm_comes_of_a_recovery(lost: int) -> None:
    assert recoveries(lost, bridge=4) == 0


def test_without_the_bridge_the_same_recoveries_are_false_alarms() -> None:
    assert recoveries(4, bridge=0) > 0


def test_a_jump_during_a_short_gap_is_still_found() -> None:
    values = calm(20)
    values[8:] += 15
    outcome = settled().step(without(after(values), 6, 7))
    [alert] = outcome.alerts
    assert (alert.kind, alert.imputed) == (Kind.FORECAST, 2)


def test_a_sensor_at_twice_the_interval_is_bridged_for_a_quarter_of_its_window_at_most() -> None:
    detector = settled()
    batch = after(calm(300))
    outcome = detector.step(batch.take(np.arange(0, 300, 2)))
    assert outcome.imputed.max() <= imputed.MOST_FILLED * detector.model.network.window
    assert outcome.alerts == []


def test_steps_that_were_usual_in_the_history_are_not_bridged() -> None:
    detector = settled()
    irregular = detector.snapshot(0)
    irregular["clock"][0, Clock.USUAL_STEP] = 2 * INTERVAL
    detector.restore(0, irregular)
    assert detector.step(without(after(calm(20)), 5)).counts == {"scored": 19}
    assert detector.step(without(after(calm(20), first=CALM + 20), 5, 6, 7)).counts == {"scored": 17, "imputed": 3}


def test_a_swap_does_not_forget_that_a_gap_is_settling_nor_what_was_filled_in() -> None:
    model = models.learnt(models.model(), models.one(calm(CALM, seed=2)))
    detector = Detector(model, RULES)
    detector.restore(0, settled_state(1))
    detector.step(without(after(calm(30)), *range(5, 15), 20, 21))
    before, age = detector.snapshot(0), marks(detector)
    assert before["count"][0, Count.SINCE] == 15
    detector.apply(Swap(replace(model, ref=replace(model.ref, version="2"))))
    now = detector.snapshot(0)
    assert now["count"][0, [Count.SINCE, Count.FILLED]].tolist() == [15, 2]
    assert marks(detector) == age == [8, 9]
    assert detector.step(after(np.full(1, 60.0), first=CALM + 30)).scores.max() <= 1.0


def test_a_channel_without_a_value_is_marked_for_itself() -> None:
    detector = settled(channels=2)
    values = calm(10, channels=2)
    values[4, 1] = np.nan
    outcome = detector.step(after(values))
    assert outcome.imputed.tolist() == [0] * 4 + [1] * 6
    assert detector.snapshot(0)["filled"].astype(bool).any(axis=-1).tolist() == [[False, True]]


def test_a_channel_that_had_no_value_in_the_first_window_does_not_move_its_scale() -> None:
    values = calm(64, channels=2)
    values[10:60, 1] = np.nan
    values[9, 1] = 23.0  # the last before the hole
    detector = Detector(models.model(2), RULES)
    detector.step(models.one(values))
    location, scale = detector.snapshot(0)["scale"][0, 1]
    seen = values[np.isfinite(values[:, 1]), 1]
    assert location == pytest.approx(np.median(seen), abs=1e-3)
    assert scale == pytest.approx(np.subtract(*np.percentile(seen, [75, 25])) / 1.349, rel=1e-3)
    assert detector.snapshot(0)["count"][0, Count.FILLED] == 50


def test_marks_stand_for_any_number_of_readings_and_channels() -> None:
    rng = np.random.default_rng(0)
    arrays = SensorTable(layout(models.model(3, window=100))).blank(5)
    truth, rows = np.zeros((5, 100, 3), np.bool_), np.array([0, 2, 3])
    for _ in range(300):
        slots, missing = rng.integers(0, 100, 3), rng.random((3, 3)) < 0.3
        imputed.mark(arrays, rows, slots, missing)
        truth[rows, slots] = missing
        np.testing.assert_array_equal(imputed.marked(arrays, rows, slots), missing)
    every = np.tile(np.arange(100), (5, 1))
    np.testing.assert_array_equal(imputed.over(arrays, np.arange(5), every), truth)
    np.testing.assert_array_equal(arrays.count[:, Count.FILLED], truth.sum(axis=(1, 2)))


@pytest.mark.parametrize(("step", "lost"), [(60, 0), (89, 0), (90, 1), (120, 1), (149, 1), (300, 4), (1, -1)])
def test_missing_readings_are_those_that_fit_into_the_step_to_the_nearest(step: int, lost: int) -> None:
    assert imputed.missed(np.array([step]), 60).tolist() == [lost]
