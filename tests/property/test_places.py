"""A cap on the sensors of a partition, and retirement: neither batching nor redelivery nor a restart shows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alerts import Alert, Kind, Resolution, State
from pipeline.core.detector import Detector
from pipeline.core.events import Bound, Retire, Rules
from pipeline.core.model import Model
from pipeline.core.readings import ReadingBatch
from pipeline.core.table import Clock
from tests import models

MODEL = models.model(window=64)
BOUNDS = (Bound("*", "c0", 0.0, 100.0),)


def detector(most: int | None = 4) -> Detector:
    return Detector(MODEL, Rules(most_sensors=most, bounds=BOUNDS))


def known() -> Model:
    """A model that knows every sensor of these tests, so that they are scored from their first reading."""
    history = models.stream(models.waves(12, 130))
    return models.learnt(models.model(window=64), history)


KNOWN = known()


def stream(
    sensors: list[int],
    partitions: int = 2,
    beyond: frozenset[int] = frozenset(),
    ahead: frozenset[int] = frozenset(),
) -> ReadingBatch:
    """A reading a minute, of the sensor that is listed; those at the positions `beyond` cross a limit.

    Those at the positions `ahead` are stamped a hundred minutes ahead of their records.
    """
    n, offsets = len(sensors), np.arange(len(sensors), dtype=np.int64)
    times = models.START + (1000 + offsets) * models.INTERVAL
    values = np.where(np.isin(offsets, list(beyond)), 500.0, 20.0 + offsets % 5)
    place = np.array([sensor % partitions for sensor in sensors], np.int64)
    return ReadingBatch(
        [f"s{sensor}" for sensor in sensors],
        times + np.where(np.isin(offsets, list(ahead)), 100 * models.INTERVAL, 0),
        values.reshape(n, 1), np.ones(n, np.bool_), place, offsets, times,
    )  # fmt: skip


def settled(most: int | None) -> Detector:
    return Detector(KNOWN, Rules(most_sensors=most, bounds=BOUNDS))


SENSORS = st.lists(st.integers(0, 11), min_size=1, max_size=60)
POSITIONS = st.frozensets(st.integers(0, 59), max_size=12)


def run(of: Detector, batches: list[ReadingBatch]) -> tuple[list[float], list[Alert], int]:
    outcomes = [of.step(batch) for batch in batches]
    refused = [place for o in outcomes for place in sorted((r.partition, r.offset) for r in o.rejected)]
    assert len(refused) == sum(o.counts.get("future", 0) for o in outcomes)
    return (
        [score for o in outcomes for score in o.scores.tolist()],
        [alert for o in outcomes for alert in o.alerts],
        sum(o.counts.get("evicted", 0) for o in outcomes),
    )


def states(of: Detector) -> list[tuple[list[bytes], bytes]]:
    shots = [of.snapshot(partition) for partition in (0, 1)]
    return [(shot["names"].tolist(), b"".join(shot[name].tobytes() for name in of.table.fields)) for shot in shots]


@settings(max_examples=80, deadline=None)
@given(SENSORS, POSITIONS, POSITIONS, st.integers(1, 5) | st.just(12), st.lists(st.integers(0, 60), max_size=5))
def test_who_is_evicted_does_not_depend_on_how_the_stream_is_cut(
    sensors: list[int], beyond: frozenset[int], ahead: frozenset[int], most: int, at: list[int]
) -> None:
    batch, whole, cut, one = stream(sensors, 2, beyond, ahead), settled(most), settled(most), settled(most)
    edges = [0, *sorted(min(a, len(batch)) for a in at), len(batch)]
    told = run(whole, [batch])
    assert told == run(cut, [batch.take(slice(a, b)) for a, b in pairwise(edges)])
    assert told == run(one, [batch.take(slice(i, i + 1)) for i in range(len(batch))])
    assert states(whole) == states(cut) == states(one)
    assert all(len(names) <= most for names, _ in states(whole))
    books_balance(whole, told[1])


def test_a_reading_that_is_refused_for_its_time_makes_nobody_leave() -> None:
    full = settled(2)
    full.step(stream([0, 1], partitions=1))
    for one in range(2, 8):
        refused = full.step(stream(list(range(8)), 1, ahead=frozenset(range(8))).take(slice(one, one + 1)))
        assert refused.counts == {"future": 1}
        assert [r.offset for r in refused.rejected] == [one]
        assert f"s{one}" in refused.rejected[0].detail
    assert full.snapshot(0)["names"].tolist() == [b"s0", b"s1"]


def books_balance(of: Detector, alerts: list[Alert]) -> None:
    """Everything that was told has ended, or is open."""
    open_now: dict[str, int] = {}
    for alert in alerts:
        if alert.state is State.FIRING:
            assert alert.alert_id not in open_now
        open_now[alert.alert_id] = alert.revision
        if alert.state is State.RESOLVED:
            del open_now[alert.alert_id]
    assert {alert.alert_id: alert.revision for alert in of.open_alerts()} == open_now


@settings(max_examples=80, deadline=None)
@given(SENSORS, POSITIONS, st.integers(1, 5), st.integers(0, 60), st.integers(0, 60))
def test_what_is_delivered_again_evicts_nobody_and_brings_nobody_back(
    sensors: list[int], beyond: frozenset[int], most: int, a: int, b: int
) -> None:
    batch, whole, again = stream(sensors, beyond=beyond), settled(most), settled(most)
    a, b = sorted((min(a, len(batch)), min(b, len(batch))))
    _, expected, _ = run(whole, [batch])
    _, first, _ = run(again, [batch.take(slice(0, b))])
    before = states(again)
    _, repeated, evicted = run(again, [batch.take(slice(a, b))])
    assert (repeated, evicted) == ([], 0)
    assert [names for names, _ in states(again)] == [names for names, _ in before]
    _, rest, _ = run(again, [batch.take(slice(b, None))])
    assert first + rest == expected


@settings(max_examples=40, deadline=None)
@given(SENSORS, POSITIONS, st.integers(1, 5), st.integers(0, 60))
def test_a_restart_remembers_who_was_not_seen_for_longest(
    sensors: list[int], beyond: frozenset[int], most: int, at: int
) -> None:
    batch, whole, before, after = stream(sensors, beyond=beyond), settled(most), settled(most), settled(most)
    told = run(whole, [batch])
    first = run(before, [batch.take(slice(0, at))])
    for partition in (1, 0):
        after.restore(partition, before.snapshot(partition))
    rest = run(after, [batch.take(slice(at, None))])
    assert (first[0] + rest[0], first[1] + rest[1], first[2] + rest[2]) == told
    assert states(whole) == states(after)


@settings(max_examples=40, deadline=None)
@given(SENSORS, st.integers(1, 5))
def test_what_another_partition_does_evicts_nobody_here(sensors: list[int], most: int) -> None:
    batch, both, here = stream(sensors), settled(most), settled(most)
    both.step(batch)
    here.step(batch.take(np.flatnonzero(batch.partitions == 0)))
    assert states(both)[0] == states(here)[0]


@settings(max_examples=60, deadline=None)
@given(SENSORS, POSITIONS, st.integers(0, 60), st.integers(0, 11), st.integers(0, 60), st.integers(0, 60))
def test_a_retirement_that_is_delivered_again_with_what_surrounds_it_changes_nothing(
    sensors: list[int], beyond: frozenset[int], when: int, who: int, a: int, b: int
) -> None:
    """The event stands in the topic in front of the reading at `when`; offsets of readings are doubled to make room."""
    batch = stream(sensors, beyond=beyond)
    batch = replace(batch, offsets=2 * batch.offsets)
    a, b = sorted((min(a, len(batch)), min(b, len(batch))))
    when = min(when, len(batch))
    event = Retire(f"s{who}", models.START + (1000 + when) * models.INTERVAL, who % 2, 2 * when - 1)

    def deliver(to: Detector, first: int, end: int) -> list[Alert]:
        told = to.step(batch.take(slice(first, min(max(when, first), end)))).alerts
        if first <= when < end or (when == end == len(batch)):
            told += to.apply(event).alerts
        return told + to.step(batch.take(slice(max(first, min(when, end)), end))).alerts

    whole, again = settled(None), settled(None)
    expected = deliver(whole, 0, len(batch))
    first = deliver(again, 0, b)
    names = [shot for shot, _ in states(again)]
    assert deliver(again, a, b) == []
    assert [shot for shot, _ in states(again)] == names
    assert first + (deliver(again, b, len(batch)) if b < len(batch) else []) == expected
    books_balance(whole, expected)


def test_the_sensor_that_was_not_seen_for_longest_makes_room() -> None:
    few = detector(2)
    outcome = few.step(stream([0, 2, 0, 4], partitions=1))
    assert few.snapshot(0)["names"].tolist() == [b"s0", b"s4"]
    assert outcome.counts["evicted"] == 1


def test_an_evicted_sensors_alerts_end_as_evicted() -> None:
    few = settled(1)
    (opened,) = few.step(stream([0], partitions=1, beyond=frozenset({0}))).alerts
    later = stream([0, 1], partitions=1).take(slice(1, 2))
    (ended,) = few.step(later).alerts
    assert (opened.kind, opened.state, ended.state) == (Kind.LIMIT, State.FIRING, State.RESOLVED)
    assert (ended.alert_id, ended.revision, ended.resolution) == (opened.alert_id, 2, Resolution.EVICTED)
    assert ended.end == int(later.times[0])
    assert few.open_alerts() == []


def test_a_sensor_of_one_partition_is_retired_there_and_nowhere_else() -> None:
    both = detector(None)
    here, there = stream([0], partitions=1), replace(stream([0], partitions=1), partitions=np.ones(1, np.int64))
    both.step(here)
    assert both.step(there).split == ["s0"], "a sensor in two partitions is named"
    both.apply(Retire("s0", models.START, 1))
    assert (len(both.snapshot(0)["names"]), len(both.snapshot(1)["names"])) == (1, 0)


def test_a_sensor_that_speaks_after_it_was_retired_begins_anew() -> None:
    anew = detector(None)
    batch = stream([0] * 80, partitions=1)
    anew.step(batch.take(slice(0, 70)))
    anew.apply(Retire("s0", models.START, 0, 69))
    outcome = anew.step(batch.take(slice(70, None)))
    assert outcome.counts == {"warming": 10}
    assert anew.snapshot(0)["clock"][0, Clock.OFFSET] == 79
