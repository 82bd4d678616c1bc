"""A partition that falls silent: one alert for many sensors, whoever looks and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alerts import Alert, Kind, Resolution, State
from pipeline.core.detector import Detector
from pipeline.core.readings import ReadingBatch
from pipeline.core.silence import InputWatch, Outage, Silences
from tests import models

LIMIT = 5  # readings: the silence that is unusual for sensors of these models
MINUTE = models.INTERVAL


@dataclass
class Partition:
    """Sensors s0, s1, … of one partition that send a reading a minute, those at least that speak."""

    sensors: int
    share: float = 0.2
    groups: int = 1
    minute: int = 0
    told: list[Alert] = field(default_factory=list)
    open: dict[str, Alert] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.detectors = [Detector(models.model()) for _ in range(self.groups)]
        self.watch = InputWatch(self.share)
        self.speak(range(self.sensors))

    def speak(self, sensors: Sequence[int]) -> None:
        """One reading of each of these; sensor i belongs to group i % groups."""
        self.minute += 1
        for g, detector in enumerate(self.detectors):
            names = [f"s{i}" for i in sensors if i % self.groups == g]
            n, at = len(names), models.START + self.minute * MINUTE
            every = np.full(n, at, np.int64)
            offsets = self.minute * self.sensors + np.arange(n, dtype=np.int64)
            batch = ReadingBatch(
                names, every, np.full((n, 1), 20.0), np.ones(n, bool), np.zeros(n, np.int64), offsets, every
            )
            self.book(detector.step(batch).alerts)

    def tick(self, minutes_later: float = 0) -> list[Alert]:
        """The end of the partition, so many minutes after its last reading."""
        time = models.START + round((self.minute + minutes_later) * MINUTE)
        tick, told = self.watch.judge(0, time, Silences.of(d.silences(0) for d in self.detectors))
        told += [a for d in self.detectors for a in d.apply(tick).alerts]
        self.book(told)
        return told

    def restart(self) -> None:
        """Another process goes on from the state of this one."""
        old, outage = self.detectors, self.watch.outage(0)
        self.detectors, self.watch = [Detector(models.model()) for _ in old], InputWatch(self.share)
        tick = self.watch.restore(0, outage)
        for before, after in zip(old, self.detectors, strict=True):
            after.restore(0, before.snapshot(0))
            assert after.apply(tick).alerts == []

    def book(self, alerts: list[Alert]) -> None:
        """An alert is told before it ends, and ends once; what is open is what was told and has not ended."""
        for alert in alerts:
            self.told.append(alert)
            if alert.state is State.FIRING:
                assert alert.alert_id not in self.open
                self.open[alert.alert_id] = alert
            else:
                del self.open[alert.alert_id]

    def kinds(self) -> list[tuple[str, str]]:
        return sorted((a.kind.value, a.sensor) for a in self.open.values())

    def standing(self) -> set[str]:
        watched = self.watch.open_alerts()
        return {a.alert_id for a in [*watched, *(a for d in self.detectors for a in d.open_alerts())]}


def test_more_than_a_fifth_of_a_partition_silent_together_is_one_alert() -> None:
    partition = Partition(10)
    for _ in range(LIMIT):
        partition.speak(range(3, 10))
        assert partition.tick() == []
    partition.speak(range(3, 10))
    (alert,) = partition.tick()
    assert (alert.kind, alert.sensor, alert.state) == (Kind.INPUT_SILENT, "partition-0", State.FIRING)
    assert (alert.measure, alert.limit, alert.unit) == (30.0, 20.0, "%")
    assert alert.start == models.START + MINUTE, "the last reading of those who are silent"
    assert alert.last == models.START + partition.minute * MINUTE
    assert (alert.evidence.partition, alert.evidence.first_offset) == (0, 10)
    assert partition.tick() == []


def test_a_fifth_or_less_are_gaps_of_their_own() -> None:
    partition = Partition(10)
    for _ in range(LIMIT + 1):
        partition.speak(range(2, 10))
        partition.tick()
    assert partition.kinds() == [("gap", "s0"), ("gap", "s1")]


def test_one_sensor_alone_is_a_gap_however_few_there_are() -> None:
    partition = Partition(2)
    for _ in range(LIMIT + 1):
        partition.speak([1])
        partition.tick()
    assert partition.kinds() == [("gap", "s0")]


def test_a_partition_that_nobody_writes_to_is_one_alert_of_all_its_groups() -> None:
    partition = Partition(12, groups=3)
    partition.tick(LIMIT)
    (alert,) = partition.tick(LIMIT + 1)
    assert (alert.kind, alert.measure) == (Kind.INPUT_SILENT, 100.0)
    assert partition.tick(1000) == []


def test_gaps_that_were_told_before_stay_those_of_their_sensors() -> None:
    partition = Partition(10)
    partition.speak(range(2, 10))
    partition.speak(range(2, 10))
    for _ in range(LIMIT - 1):
        partition.speak(range(5, 10))
        partition.tick()
    assert partition.kinds() == [("gap", "s0"), ("gap", "s1")]
    partition.speak(range(5, 10))
    partition.speak(range(5, 10))
    partition.tick()
    assert partition.kinds() == [("gap", "s0"), ("gap", "s1"), ("input-silent", "partition-0")]
    partition.speak(range(10))
    assert [(a.sensor, a.resolution) for a in partition.told[-2:]] == [("s0", "returned"), ("s1", "returned")]
    (ended,) = partition.tick()
    assert (ended.kind, ended.resolution, ended.revision) == (Kind.INPUT_SILENT, Resolution.RETURNED, 2)
    assert partition.open == {}


def test_sensors_that_are_long_gone_do_not_count() -> None:
    """Nine of ten have been silent for hours, each with its gap; of the two that are left both fall silent."""
    partition = Partition(20)
    for gone in range(18):
        for _ in range(12):
            partition.speak(range(gone + 1, 20))
            partition.tick()
    assert {kind for kind, _ in partition.kinds()} == {"gap"}
    (alert,) = partition.tick(LIMIT + 1)
    assert (alert.kind, alert.measure) == (Kind.INPUT_SILENT, 100.0)


def test_it_ends_when_a_tenth_is_silent_and_what_still_is_has_a_gap_of_its_own() -> None:
    partition = Partition(20)
    partition.tick(LIMIT + 1)
    assert partition.kinds() == [("input-silent", "partition-0")]
    partition.speak(range(3, 20))
    assert partition.tick(0) == [], "three of twenty are more than a tenth"
    partition.minute += LIMIT
    partition.speak(range(2, 20))
    ended, *gaps = partition.tick()
    assert (ended.kind, ended.state, ended.measure) == (Kind.INPUT_SILENT, State.RESOLVED, 10.0)
    assert [(a.kind, a.sensor, a.start) for a in gaps] == [
        (Kind.GAP, "s0", models.START + MINUTE), (Kind.GAP, "s1", models.START + MINUTE)
    ]  # fmt: skip


def test_a_sensor_that_returns_and_falls_silent_again_by_itself_has_a_gap() -> None:
    partition = Partition(20)
    partition.tick(LIMIT + 1)
    partition.minute += LIMIT + 1
    for _ in range(3):
        partition.speak(range(10, 20))
        partition.tick()
    for _ in range(LIMIT + 1):
        partition.speak(range(11, 20))
        partition.tick()
    assert partition.kinds() == [("gap", "s10"), ("input-silent", "partition-0")]


def test_a_partition_that_speaks_once_and_falls_silent_again_is_still_one_alert() -> None:
    partition = Partition(20)
    partition.tick(LIMIT + 1)
    partition.minute += 2 * LIMIT
    partition.speak(range(15))
    assert partition.tick() == []
    assert partition.tick(LIMIT + 1) == []
    partition.minute += 2 * LIMIT
    partition.speak(range(20))
    (ended,) = partition.tick()
    assert ended.resolution is Resolution.RETURNED
    assert partition.open == {}


def test_with_a_share_of_one_each_sensor_has_its_own_gap() -> None:
    partition = Partition(5, share=1.0)
    partition.tick(LIMIT + 1)
    assert [kind for kind, _ in partition.kinds()] == ["gap"] * 5


def test_when_it_was_noticed_does_not_matter_to_what_is_said() -> None:
    """Looked at every minute, or once at the end: the same alerts from the same starts."""
    often, once = Partition(30), Partition(30)
    for minute in range(3 * LIMIT):
        speaking = range(min(2 * minute, 12), 30)
        often.speak(speaking)
        often.tick()
        once.speak(speaking)
    once.tick()
    assert often.kinds() == once.kinds()
    assert often.open.keys() == once.open.keys()
    assert [kind for kind, _ in often.kinds()].count("gap") == 6


STEP = st.tuples(
    st.integers(0, 12), st.integers(0, 12), st.integers(0, 2), st.sampled_from(["", "", "tick", "restart"])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=40), st.integers(1, 2))
def test_whoever_falls_silent_the_book_of_alerts_balances(steps: list[tuple[int, int, int, str]], groups: int) -> None:
    partition = Partition(12, groups=groups)
    for first, last, later, what in steps:
        partition.speak(range(first, last))
        partition.minute += 4 * later
        if what == "restart":
            partition.restart()
        if what:
            partition.tick(later)
        assert partition.standing() == partition.open.keys()
    partition.speak(range(12))
    partition.tick()
    assert partition.open == {}


@pytest.mark.parametrize("known", [0, 3])
def test_a_partition_without_sensors_is_not_silent(known: int) -> None:
    watch, detector = InputWatch(), Detector(models.model())
    if known:
        watch.restore(0, Outage(1, 2, 2, known, known, 0, 0))  # all of them were evicted
    tick, told = watch.judge(0, models.START, detector.silences(0))
    assert [a.state for a in told] == [State.RESOLVED] * bool(known)
    assert detector.apply(tick).alerts == []
