"""Sensors whose channels come in messages of their own: the alerts of those that send all channels in one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.adapters.memory import MemoryBroker
from pipeline.codecs import JSON, decode, decode_frames
from pipeline.codecs.events import encode_retirement
from pipeline.core.alerts import Alert, Kind
from pipeline.core.detector import Detector
from pipeline.core.joining import Joiner
from pipeline.core.model import Model
from pipeline.core.readings import SECOND, Reading, ReadingBatch, Reason, Record
from pipeline.core.tags import Tags
from pipeline.groups import Groups, Stepped
from pipeline.routing import Router, groups_of
from pipeline.settings import SettingsError, load
from tests.models import INTERVAL, START, model, stream, waves
from tests.unit.test_batches import without_places
from tests.unit.test_runner import Service, drained, killed_and_restarted, paced, told

CHANNELS, PARTITIONS = 3, 2
TAG = "(?P<sensor>.+)/(?P<channel>c[0-9]+)"


def readings() -> ReadingBatch:
    return stream(waves(3, 400, CHANNELS), partitions=PARTITIONS, dropped=0.02)


def serving(broker: MemoryBroker, folder: Path, *, join: bool = True, **how: object) -> Service:
    service = Service(broker, folder, {"g": model(CHANNELS)}, **how)  # type: ignore[arg-type]
    service.serving = replace(service.serving, join=join, tag=TAG)
    return service


def wide(broker: MemoryBroker, batch: ReadingBatch) -> None:
    for i, sensor in enumerate(batch.sensors):
        values = dict(zip(("c0", "c1", "c2"), batch.values[i].tolist(), strict=True))
        reading = Reading(sensor, int(batch.times[i]), values)
        broker.produce(JSON.encode(reading), partition=int(batch.partitions[i]), timestamp=reading.time)


def narrow(broker: MemoryBroker, batch: ReadingBatch, seed: int) -> None:
    """A message for each value there is, in each of the three forms, channels and sensors of a minute in any order."""
    rng = np.random.default_rng(seed)
    row, channel = np.nonzero(np.isfinite(batch.values))
    order = np.lexsort((rng.random(len(row)), batch.times[row]))
    for i, c in zip(row[order].tolist(), channel[order].tolist(), strict=True):
        said: dict[str, object] = {"sensor": batch.sensors[i], "time": int(batch.times[i]) // 1000}
        value, name = float(batch.values[i, c]), f"c{c}"
        match int(rng.integers(3)):
            case 0:
                said |= {"channel": name, "value": value}
            case 1:
                said |= {"values": {name: value}}
            case _:
                said |= {"sensor": f"{batch.sensors[i]}/{name}", "value": value}
        message = json.dumps(said).encode()
        broker.produce(message, partition=int(batch.partitions[i]), timestamp=int(batch.times[i]))


@pytest.fixture
def expected() -> dict[tuple[str, int], Alert]:
    """The alerts of readings that come whole, to a service that joins nothing."""
    broker = MemoryBroker(partitions=PARTITIONS)
    wide(broker, readings())
    service = Service(broker, Path("/nowhere"), {"g": model(CHANNELS)})
    drained(service.start(), broker)
    assert {alert.kind for alert in broker.alerts} >= {Kind.FORECAST, Kind.STUCK}, "the stream shows too little"
    return without_places(told(broker))


@pytest.mark.parametrize("seed", range(3))
def test_messages_of_one_channel_raise_the_alerts_of_whole_readings(
    tmp_path: Path, expected: dict[tuple[str, int], Alert], seed: int
) -> None:
    broker = MemoryBroker(partitions=PARTITIONS)
    narrow(broker, readings(), seed)
    drained(serving(broker, tmp_path, batch=7 + 100 * seed).start(), broker)
    assert without_places(told(broker)) == expected
    assert broker.dead_letters == []


@pytest.mark.parametrize("seed", range(4))
def test_kills_and_restarts_between_the_channels_of_a_reading_change_no_alert(
    tmp_path: Path, expected: dict[tuple[str, int], Alert], seed: int
) -> None:
    broker = MemoryBroker(partitions=PARTITIONS)
    narrow(broker, readings(), seed)
    pace = paced(checkpoint_seconds=3 + seed, commit_seconds=seed)
    service = serving(broker, tmp_path, batch=23 + seed, pace=pace)
    runner = killed_and_restarted(service, seed, turns=200)
    service.sink.commits = True
    drained(runner, broker)
    runner.drain(0)
    assert without_places(told(broker)) == expected


def test_a_checkpoint_without_the_readings_that_wait_does_change_alerts(
    tmp_path: Path, expected: dict[tuple[str, int], Alert], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail."""
    broker = MemoryBroker(partitions=PARTITIONS)
    narrow(broker, readings(), 0)
    service = serving(broker, tmp_path, batch=101, pace=paced(checkpoint_seconds=0.0))
    runner = service.start()
    monkeypatch.setattr("pipeline.core.joining.Joiner.restore", lambda *_: None)
    for turn in range(60):
        service.time.now += 0.7
        if turn % 3 == 2:
            runner = service.start()
        runner.turn()
    drained(runner, broker)
    assert without_places(told(broker)) != expected


def test_an_alert_names_the_message_that_completed_its_reading(tmp_path: Path) -> None:
    broker = MemoryBroker(partitions=PARTITIONS)
    narrow(broker, readings(), 0)
    drained(serving(broker, tmp_path).start(), broker)
    for alert in (a for a in broker.alerts if a.kind is Kind.FORECAST and a.revision == 1):
        completed = broker.records[alert.evidence.partition][alert.evidence.last_offset]
        (reading,), _ = decode([completed])
        assert reading.sensor.partition("/")[0] == alert.sensor
        assert reading.time in (alert.last, alert.last + INTERVAL), "of the reading, or the first of the one after it"


def test_a_retired_sensor_leaves_nothing_that_waits(tmp_path: Path) -> None:
    broker = MemoryBroker()
    broker.produce(b'{"sensor":"s0","time":1795347600000,"channel":"c0","value":1.5}', timestamp=1795347600 * 10**6)
    value, headers = encode_retirement("s0")
    broker.produce(value, headers=tuple(headers), timestamp=1795347600 * 10**6)
    service = serving(broker, tmp_path)
    runner = service.start()
    drained(runner, broker)
    runner.drain(0)
    (newest, *_) = service.store.names("sensor.readings", 0, 10**9)
    assert len(service.store.load(newest).groups["g~open"]["names"]) == 0


def test_a_channel_beside_one_value_names_it_and_beside_several_says_nothing() -> None:
    broker = MemoryBroker()
    head = '{"sensor":"s","time":1795347600000,'
    for said in (
        '"channel":"a","value":1.5}', '"channel":null,"value":2.5}', '"channel":7,"values":{"b":3.5}}',
        '"channel":7,"value":1}', '"channel":"","value":1}',
    ):  # fmt: skip
        broker.produce((head + said).encode())
    found, refused = decode(broker.records[0])
    assert [dict(reading.values) for reading in found] == [{"a": 1.5}, {"value": 2.5}, {"b": 3.5}]
    assert [(r.offset, r.reason) for r in refused] == [(3, Reason.SCHEMA), (4, Reason.SCHEMA)]


def test_state_from_before_joining_was_asked_for_is_taken_up(tmp_path: Path) -> None:
    broker = MemoryBroker(partitions=PARTITIONS)
    wide(broker, readings())
    first = Service(broker, tmp_path, {"g": model(CHANNELS)})
    runner = first.start()
    for _ in range(5):
        runner.turn()
    runner.drain(0)
    second = serving(broker, tmp_path)
    runner = second.start()
    runner.turn()
    assert all(progress.checkpoint for progress in runner.partitions.values())


def test_tags_are_told_from_sensors_by_the_whole_name_and_only_where_no_channel_is_named() -> None:
    broker = MemoryBroker()
    for name, values in (
        ("p/c1", {"value": 1.0}),
        ("p/c1", {"c2": 2.0}),
        ("p/x", {"value": 3.0}),
        ("/c1", {"value": 4.0}),
    ):
        broker.produce(JSON.encode(Reading(name, START, values)))
    frames = Tags("(?P<sensor>.*)/(?P<channel>c[0-9])").renamed(decode_frames(broker.records[0]).frames)
    found = sorted(
        (place, reading.sensor, dict(reading.values)) for frame in frames for place, reading in frame.readings()
    )
    assert [rest for _, *rest in found] == [
        ["p", {"c1": 1.0}],
        ["p/c1", {"c2": 2.0}],
        ["p/x", {"value": 3.0}],
        ["/c1", {"value": 4.0}],
    ]


@pytest.mark.parametrize("pattern", ["(", "(?P<sensor>.+)", "temperature"])
def test_a_tag_that_cannot_name_sensor_and_channel_is_refused_at_the_start(pattern: str) -> None:
    with pytest.raises(SettingsError, match=r"model\.tag"):
        load(None, {"KAFKA_BOOTSTRAP_SERVERS": "b:9092", "FORESHOCK_MODEL__TAG": pattern})


def test_after_a_swap_messages_are_joined_as_after_a_restart_with_that_model() -> None:
    def groups(of: Model) -> Groups:
        joiners = {"g": Joiner(2, of.interval, max_future=60 * SECOND)}
        return Groups({"g": Detector(of)}, Router(groups_of({"g": of})), joiners=joiners)

    def record(offset: int, seconds: int, channel: str) -> Record:
        said = {"sensor": "s", "time": (START + seconds * SECOND) // 1000, "values": {channel: float(offset % 7)}}
        return Record("t", 0, offset, START + seconds * SECOND, b"k", json.dumps(said).encode())

    def came(of: Stepped) -> str:
        return repr([(s.batch.times.tolist(), s.batch.values.tolist(), s.batch.offsets.tolist()) for s in of.scored])

    slow, fast = model(2), replace(model(2, version="2"), interval=10 * SECOND)
    swapped, anew, unchanged = groups(slow), groups(fast), groups(slow)
    before = [record(0, 0, "c0")]  # is open when the model changes
    for each in (swapped, unchanged):
        each.step(before)
    swapped.swap([fast])
    anew.restore(0, unchanged.snapshot(0), adopt=True)
    after = [(10 * k + c, f"c{c}") for k in range(1, 20) for c in (0, 1) if (k, c) != (5, 1)]
    records = [record(1 + i, *said) for i, said in enumerate(after)]
    found = swapped.step(records)
    assert came(found) == came(anew.step(records))
    assert came(found) != came(unchanged.step(records)), "the two intervals make the same of these messages"


def test_a_tag_whose_sensor_would_have_no_name_is_no_tag() -> None:
    assert [Tags(TAG).place(name) for name in (" /c0", "a/c0", "a b/c1")] == [None, ("a", "c0"), ("a b", "c1")]
