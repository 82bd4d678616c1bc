"""Readings that came in batches: the alerts of those that came one by one, whatever was cut, killed or refused."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import groups
from pipeline.adapters.memory import MemoryBroker
from pipeline.codecs import JSON, JSON_BATCHES, MSGPACK_BATCHES
from pipeline.codecs.json import encode_dead_letter
from pipeline.core.alerts import Alert, Kind
from pipeline.core.detector import Detector
from pipeline.core.readings import Reading, ReadingBatch, Reason
from pipeline.groups import Groups
from pipeline.routing import Group, Router
from tests.models import INTERVAL, START, model, stream, waves
from tests.unit.test_runner import Service, drained, expected, killed_and_restarted, paced, told

__all__ = ["expected"]  # the fixture

PARTITIONS = 2


def readings() -> ReadingBatch:
    """Those that `expected` is the alerts of."""
    return stream(waves(3, 400), partitions=PARTITIONS)


def send(broker: MemoryBroker, batch: ReadingBatch, seed: int) -> dict[int, list[list[Reading]]]:
    """Each partition's readings in batches of any size and form, some of them alone; what is where, by offset."""
    rng = np.random.default_rng(seed)
    sent: dict[int, list[list[Reading]]] = defaultdict(list)
    for partition in range(PARTITIONS):
        left = batch.take(np.flatnonzero(batch.partitions == partition))
        while len(left):
            size = int(rng.integers(1, 60)) if rng.random() < 0.7 else 1
            part, left = left.take(slice(0, size)), left.take(slice(size, None))
            codec = (MSGPACK_BATCHES, JSON_BATCHES)[int(rng.integers(2))]
            value, content_type = codec.encode(list(part.sensors), part.times, {"c0": part.values[:, 0]}), codec
            alone = [
                Reading(sensor, int(time), {"c0": float(value)})
                for sensor, time, value in zip(part.sensors, part.times, part.values[:, 0], strict=True)
            ]
            headers: tuple[tuple[str, bytes], ...] = (("content-type", content_type.content_type.encode()),)
            if len(part) == 1 and rng.random() < 0.5:
                value, headers = JSON.encode(alone[0]), ()
            broker.produce(value, partition=partition, headers=headers, timestamp=int(part.times[-1]))
            sent[partition].append(alone)
    return sent


def without_places(alerts: dict[tuple[str, int], Alert]) -> dict[tuple[str, int], Alert]:
    """But for the offsets: several readings have one."""
    return {name: replace(a, evidence=replace(a.evidence, first_offset=0, last_offset=0)) for name, a in alerts.items()}


@pytest.mark.parametrize("seed", range(3))
def test_batches_raise_the_alerts_of_single_readings_and_name_the_messages_that_hold_them(
    tmp_path: Path, expected: dict[tuple[str, int], Alert], seed: int
) -> None:
    broker = MemoryBroker(partitions=PARTITIONS)
    sent = send(broker, readings(), seed)
    service = Service(broker, tmp_path, batch=7 + seed)
    drained(service.start(), broker)
    assert without_places(told(broker)) == without_places(expected)
    for alert in broker.alerts:
        if alert.kind is Kind.FORECAST:
            message = sent[alert.evidence.partition][alert.evidence.first_offset]
            assert (alert.sensor, alert.start) in [(reading.sensor, reading.time) for reading in message]


@pytest.mark.parametrize("seed", range(3))
def test_kills_and_restarts_between_batches_change_no_alert(
    tmp_path: Path, expected: dict[tuple[str, int], Alert], seed: int
) -> None:
    broker = MemoryBroker(partitions=PARTITIONS)
    send(broker, readings(), seed)
    service = Service(broker, tmp_path, batch=2 + seed, pace=paced(checkpoint_seconds=3 + seed, commit_seconds=seed))
    runner = killed_and_restarted(service, seed, turns=100)
    service.sink.commits = True
    drained(runner, broker)
    runner.drain(0)
    assert without_places(told(broker)) == without_places(expected)


def test_a_poll_of_more_readings_than_are_stepped_at_once_changes_no_alert(
    tmp_path: Path, expected: dict[tuple[str, int], Alert], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "PIECE_READINGS", 37)
    broker = MemoryBroker(partitions=PARTITIONS)
    send(broker, readings(), 0)
    drained(Service(broker, tmp_path, batch=1000).start(), broker)
    assert without_places(told(broker)) == without_places(expected)


def followed(broker: MemoryBroker, detector: Detector) -> Groups:
    """The detector behind a router, after everything that the broker has."""
    found = Groups({"g": detector}, Router({"g": Group(detector.model.channels)}))
    found.step(broker.records[0])
    return found


def one_sensor(broker: MemoryBroker, first: int, rows: int, seed: int, at: int) -> None:
    """One message, one sensor: readings from row `first` on, flushed at row `at`."""
    values = 20 + np.random.default_rng(seed).standard_normal(rows)
    times = START + (first + np.arange(rows)) * INTERVAL
    message = MSGPACK_BATCHES.encode("s", times, {"c0": values})
    headers = (("content-type", MSGPACK_BATCHES.content_type.encode()),)
    broker.produce(message, headers=headers, timestamp=START + at * INTERVAL)


def test_a_clock_that_was_set_back_is_believed_after_as_many_readings_as_if_they_had_come_one_by_one() -> None:
    broker = MemoryBroker()
    one_sensor(broker, 0, 300, 0, at=300)
    detector = Detector(model())
    whole = followed(broker, detector)
    one_sensor(broker, 200, 6, 1, at=306)
    one_sensor(broker, 206, 12, 2, at=318)
    first, second = (whole.step(broker.records[0][i : i + 1]) for i in (1, 2))
    assert first.ignored == {"late": 6}
    assert second.ignored == {"late": 3}, "the tenth in a row is believed"
    assert {raised.alert.kind for raised in second.raised} == {Kind.CLOCK}


def test_a_score_names_the_offset_of_its_message() -> None:
    broker = MemoryBroker()
    for first in (0, 5):
        one_sensor(broker, first, 5, 0, at=first + 5)
    served = model()
    whole = Groups({"g": Detector(served)}, Router({"g": Group(served.channels)}))
    (scored,) = whole.step(broker.records[0]).scored
    assert scored.batch.offsets.tolist() == [0] * 5 + [1] * 5


def test_a_message_that_is_delivered_twice_counts_nothing_twice() -> None:
    broker = MemoryBroker()
    one_sensor(broker, 0, 300, 0, at=300)
    one_sensor(broker, 200, 6, 1, at=306)
    detector = Detector(model())
    whole = followed(broker, detector)
    for _ in range(5):
        again = whole.step(broker.records[0][1:])
        assert (again.raised, again.ignored) == ([], {"late": 6})


def test_what_is_wrong_with_rows_of_a_message_is_one_dead_letter_a_reason(tmp_path: Path) -> None:
    broker = MemoryBroker()
    day = 86_400_000_000
    sensors = ["s0", "s0", "s0", "s0", "s1"]
    times = [START, START + day, START + INTERVAL, START + 2 * day, START]
    message = MSGPACK_BATCHES.encode(sensors, times, {"c0": [1.0, 1.0, 2.0, 1.0, 1.0]})
    stray = JSON_BATCHES.encode(["s0", "s1"], [START, START], {"speed": [1.0, 2.0], "torque": [1.0, 2.0]})
    for value, codec in ((message, MSGPACK_BATCHES), (stray, JSON_BATCHES)):
        broker.produce(value, key=b"k", headers=(("content-type", codec.content_type.encode()),), timestamp=START)
    runner = Service(broker, tmp_path).start()
    turn = [runner.turn() for _ in range(2)][1]
    assert sum(scored.outcome.counts["warming"] for scored in turn.stepped.scored) == 3
    found = {(r.reason, r.offset, r.readings, r.key, r.value) for r in broker.dead_letters}
    assert found == {(Reason.FUTURE, 0, 2, b"k", message), (Reason.NO_GROUP, 1, 2, b"k", stray)}
    assert runner.partitions[0].watermark == START + INTERVAL, "the stamps from the future moved the watermark"
    letters = [encode_dead_letter(rejected)[0] for rejected in broker.dead_letters]
    assert all(b'"readings":2' in letter for letter in letters)
