"""Readings that were overtaken: put back in order within the bound, counted beyond it, and never a matter of when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.alerts import Alert, Kind, State
from pipeline.core.detector import Detector
from pipeline.core.events import Tick
from pipeline.core.readings import ReadingBatch
from pipeline.core.table import NEVER, Clock, Held
from pipeline.serving import serving
from pipeline.settings import Settings
from tests import models
from tests.models import INTERVAL
from tests.settled import CALM, RULES, after, assert_same_state, at, calm, settled


def waiting_for(readings: int, channels: int = 1) -> Detector:
    return settled(channels, replace(RULES, reorder=readings))


def arriving(batch: ReadingBatch, order: list[int] | np.ndarray) -> ReadingBatch:
    """These readings in this order, at the offsets of the stream."""
    return replace(batch.take(np.asarray(order)), offsets=CALM + np.arange(len(order), dtype=np.int64))


def held(detector: Detector) -> list[int]:
    """The readings that wait, by their place in the order of time."""
    times = detector.snapshot(0)["held"][0, :, Held.TIME]
    return sorted(((times[times != NEVER] - at(CALM)) // INTERVAL).tolist())


def but_for_places(alerts: list[Alert]) -> list[Alert]:
    nowhere = replace(alerts[0].evidence, first_offset=0, last_offset=0)
    return [replace(alert, evidence=nowhere) for alert in alerts]


@pytest.mark.parametrize("bound", [1, 3, 8])
def test_readings_overtaken_by_no_more_than_the_bound_raise_the_same_alerts_as_in_order(bound: int) -> None:
    values = calm(300, channels=2)
    values[60:90] += 9
    values[150:180] = values[150]
    values[220:230, 0] = 500.0
    batch = after(values)
    batch = batch.take(np.setdiff1d(np.arange(300), [*range(100, 103), *range(120, 135)]))
    rng = np.random.default_rng(bound)
    shuffled = arriving(batch, np.argsort(np.arange(len(batch)) + rng.uniform(0, bound + 1, len(batch))))
    last = after(calm(bound, channels=2, seed=9), first=CALM + 300)  # for which the others wait
    ordered, mended = settled(2), waiting_for(bound, 2)
    expected = [ordered.step(batch), ordered.step(last)]
    outcome, end = mended.step(shuffled), mended.step(last)
    assert outcome.counts["reordered"] > 20
    assert "late" not in outcome.counts
    count = outcome.counts["scored"] + end.counts["scored"]
    assert (count, outcome.counts["imputed"]) == (len(batch), 3)
    assert {a.kind for a in expected[0].alerts} == {Kind.FORECAST, Kind.STUCK, Kind.LIMIT, Kind.GAP}
    assert but_for_places(outcome.alerts + end.alerts) == but_for_places(expected[0].alerts)
    scores = np.concatenate([outcome.scores, end.scores])[bound:]
    np.testing.assert_array_equal(scores, expected[0].scores)


def test_one_that_was_overtaken_by_more_is_late_and_counted() -> None:
    detector = waiting_for(2)
    outcome = detector.step(arriving(after(calm(10)), [0, 1, 3, 4, 2, 6, 7, 8, 5, 9]))
    assert outcome.counts == {"scored": 7, "reordered": 1, "late": 1, "imputed": 1}
    assert held(detector) == [8, 9]


def test_a_row_says_what_holds_once_it_has_come_and_nothing_was_expected_of_it() -> None:
    detector = waiting_for(2)
    before = detector.snapshot(0)["level"][0]
    outcome = detector.step(arriving(after(calm(6)), [0, 1, 2, 3, 4, 5]))
    in_order = settled().step(after(calm(6)))
    assert outcome.scores[:2].tolist() == [before[7], before[7]]
    assert outcome.scores[2:].tolist() == in_order.scores[:4].tolist()
    assert np.isnan(outcome.expected).all()
    assert np.isnan(outcome.band).all()


def test_two_of_the_same_time_are_a_duplicate_or_one_is_late() -> None:
    detector = waiting_for(3)
    values = np.array([20.0, 20.5, 20.5, 21.0])
    batch = after(values)
    outcome = detector.step(replace(batch, times=batch.times[[0, 1, 1, 1]]))
    assert outcome.counts == {"duplicate": 1, "late": 1}
    assert held(detector) == [0, 1]


def test_what_was_delivered_before_is_a_duplicate_whether_it_waits_or_not() -> None:
    detector, other = waiting_for(3), waiting_for(3)
    batch = arriving(after(calm(12)), [0, 2, 1, 4, 3, 5, 7, 6, 9, 8, 11, 10])
    detector.step(batch)
    other.step(batch)
    again = detector.step(batch)
    assert (again.counts["duplicate"], again.alerts) == (3 + 1, [])  # those that wait, and the newest that was taken in
    assert_same_state(detector, other)


def test_two_readings_that_one_message_completed_are_both_taken_in() -> None:
    detector, batch = waiting_for(2), after(calm(9))
    outcome = detector.step(replace(batch, offsets=CALM + np.arange(9, dtype=np.int64) // 2))
    assert (outcome.counts, held(detector)) == ({"scored": 7}, [7, 8])


def test_a_sensor_whose_readings_wait_is_not_silent() -> None:
    detector = waiting_for(8)
    detector.step(after(calm(8)))
    assert detector.apply(Tick(0, at(CALM + 9))).alerts == []
    assert detector.silences(0).last.tolist() == [at(CALM + 7)]
    [alert] = detector.apply(Tick(0, at(CALM + 500))).alerts
    assert (alert.kind, alert.start) == (Kind.GAP, at(CALM + 7))
    assert detector.open_alerts()[0].start == at(CALM + 7)


@pytest.mark.parametrize("ticks", [[], [20], [45], [70], [20, 45, 70]])
def test_gaps_among_readings_that_wait_are_the_same_whoever_notices_them(ticks: list[int]) -> None:
    """Silences follow readings 5, 30 and 55 of a minute each; two of them wait for the others."""
    detector = waiting_for(2)
    sent = [0, 1, 2, 3, 5, 4, 30, 55, 80, 81, 82, 83]
    batch = after(calm(84))
    told: list[Alert] = []
    for offset, reading in enumerate(sent):
        told += [
            a for t in ticks if sent[offset - 1] < t < reading for a in detector.apply(Tick(0, at(CALM + t))).alerts
        ]
        told += detector.step(replace(batch.take(np.array([reading])), offsets=np.array([CALM + offset]))).alerts
    gaps = [(a.start - at(CALM), a.state, a.end and a.end - at(CALM)) for a in told if a.kind is Kind.GAP]
    resolved = [(start // INTERVAL, end // INTERVAL) for start, state, end in gaps if state is State.RESOLVED and end]
    assert resolved == [(5, 30), (30, 55), (55, 80)]
    assert sorted(start // INTERVAL for start, state, _ in gaps if state is State.FIRING) == [5, 30, 55]


def test_what_waits_is_dropped_and_counted_when_the_clock_turns_out_to_be_set_back() -> None:
    detector = waiting_for(3)
    detector.step(after(calm(50)))
    back = replace(after(calm(30, seed=4), first=CALM + 50), times=at(CALM - 60) + np.arange(30) * INTERVAL)
    outcome = detector.step(replace(back, received=np.zeros(30, np.int64)))
    assert [a.kind for a in outcome.alerts] == [Kind.CLOCK] * 2
    assert outcome.counts == {"late": 9 + 3, "scored": 21 - 3}


def test_numbers_and_quality_wait_with_their_reading() -> None:
    detector, batch = waiting_for(2), after(calm(8))
    usable = np.ones(8, np.bool_)
    usable[2] = False
    numbered = replace(batch, seqs=100 + np.arange(8, dtype=np.int64), usable=usable)
    outcome = detector.step(arriving(numbered, [0, 1, 3, 2, 4, 5, 6, 7]))
    assert outcome.counts == {"scored": 5, "unusable": 1, "reordered": 1}
    assert detector.snapshot(0)["clock"][0, Clock.SEQ] == 105
    plain = detector.step(after(calm(1), first=CALM + 8))
    assert (plain.counts, detector.snapshot(0)["clock"][0, Clock.SEQ]) == ({"scored": 1}, 106)


@pytest.mark.parametrize(("bound", "left"), [(8, [7, 8, 9]), (3, [7, 8, 9]), (2, [8, 9]), (0, [])])
def test_a_snapshot_under_another_bound_keeps_the_latest_that_wait(bound: int, left: list[int]) -> None:
    detector, other = waiting_for(3), waiting_for(bound)
    detector.step(after(calm(10)))
    other.restore(0, detector.snapshot(0))
    assert other.snapshot(0)["held_values"].shape == (1, bound, 1)
    assert held(other) == left
    scored = [other.step(after(calm(1), first=CALM + 10 + i)).counts.get("scored", 0) for i in range(8)]
    assert sum(scored) == len(left) + 8 - bound


def test_the_settings_reach_the_operator_and_make_another_fingerprint() -> None:
    detection = {"reorder": 3, "bridge": 2}
    kafka = {"bootstrap_servers": "localhost:9092"}
    usual, other = (
        serving(Settings.model_validate({"kafka": kafka, "detection": said}), {"g": models.model()})
        for said in ({}, detection)
    )
    assert (usual.rules["g"].reorder, usual.rules["g"].bridge) == (0, 4)
    assert (other.rules["g"].reorder, other.rules["g"].bridge) == (3, 2)
    assert usual.fingerprint != other.fingerprint
