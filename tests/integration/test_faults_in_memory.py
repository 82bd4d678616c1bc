"""Faults that need no cluster: poison, clocks, repetition and floods, through the service on a broker in memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from pipeline.adapters.memory import MemoryBroker
from pipeline.codecs import JSON
from pipeline.core.alerts import Alert, Kind, State
from pipeline.core.readings import SECOND, Reading, Reason
from pipeline.core.table import row_bytes
from pipeline.runner import Runner
from pipeline.settings import Settings
from pipeline.telemetry import Telemetry
from pipeline.testing import REDELIVER, Played, play
from tests.faults import Said
from tests.models import model, stream, waves
from tests.unit.test_runner import DAY_LATER, Service, drained, fill, paced, told

Step = Reading | bytes | REDELIVER
SENSORS, ROWS = 3, 400
HOUR = 3600 * SECOND
CORPUS = Path(__file__).parents[1] / "corpus" / "readings"
SETTINGS = Settings.model_validate(
    {"kafka": {"bootstrap_servers": "localhost:9092"}, "detection": {"budget": "1/100/sensor"}}
)
NAME_BYTES = 400  # of a sensor's name and its place in the index, generously


@pytest.fixture(scope="module")
def readings() -> list[Reading]:
    batch = stream(waves(SENSORS, ROWS))
    times, values = batch.times.tolist(), batch.values[:, 0].tolist()
    return [Reading(s, t, {"c0": v}) for s, t, v in zip(batch.sensors, times, values, strict=True)]


def played(script: list[Step]) -> Played:
    return play(SETTINGS, script, models={"g": model()})


def mixed(readings: Sequence[Reading], every: int, others: Iterable[Step]) -> list[Step]:
    """One of the others behind so many readings each."""
    script: list[Step] = []
    for i, other in enumerate(others):
        script += [*readings[i * every : (i + 1) * every], other]
    return [*script, *readings[len(script) - len(script) // (every + 1) :]]


def same_sensors(said: dict[tuple[str, int], Alert]) -> dict[tuple[str, int], Alert]:
    """What was said of the sensors of the stream."""
    return {key: alert for key, alert in said.items() if alert.sensor in {f"s{i}" for i in range(SENSORS)}}


def contents(said: dict[tuple[str, int], Alert]) -> dict[tuple[str, int], tuple[object, ...]]:
    """Without offsets, which other messages move."""
    return {k: (a.sensor, a.kind, a.state, a.start, a.last, a.score, a.actual) for k, a in said.items()}


@pytest.fixture(scope="module")
def calm(readings: list[Reading]) -> Played:
    return played([*readings])


@pytest.mark.fault(
    "every message of the corpus in the stream",
    expected="the bad ones become dead letters; no alert changes",
)
def test_poison_of_every_kind_is_dead_lettered_and_its_neighbours_are_scored(
    readings: list[Reading], calm: Played, seen: Said
) -> None:
    poison = {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}
    hit = played(mixed(readings, 10, poison.values()))
    expected = Counter(name.partition("--")[0] for name in poison)
    good = expected.pop("good")
    found = Counter(letter.reason.value for letter in hit.dead_letters)
    # of the good ones, those that are none for this model, or ahead of the records of this stream
    assert found.pop(Reason.NO_GROUP) + found.pop(Reason.FUTURE) <= good
    assert found == expected
    assert contents(same_sensors(hit.said)) == contents(calm.said)
    seen(
        f"{len(poison)} messages: {sum(found.values())} refused for {len(found)} reasons, {len(calm.said)} alerts same"
    )


@pytest.mark.fault(
    "one reading from the far future", expected="a dead letter; every reading that follows is scored, no alert changes"
)
def test_one_reading_from_the_far_future_does_not_silence_its_sensor(
    readings: list[Reading], calm: Played, seen: Said
) -> None:
    at = readings[700]
    future = at._replace(time=at.time + 50 * 365 * 24 * HOUR, received=at.time)
    hit = played([*readings[:700], future, *readings[700:]])
    assert [letter.reason for letter in hit.dead_letters] == [Reason.FUTURE]
    assert contents(hit.said) == contents(calm.said)
    seen(f"1 dead letter, {len(calm.said)} alerts same")


@pytest.mark.fault(
    "the last messages are sent again", expected="counted as duplicate or late; none is scored twice, no alert changes"
)
def test_what_is_sent_again_is_counted_and_never_scored_twice(
    readings: list[Reading], calm: Played, seen: Said
) -> None:
    hit = played(mixed(readings, 300, map(REDELIVER, (1, 7, 50, 200))))
    assert contents(hit.said) == contents(calm.said)
    more = {reason: hit.ignored.get(reason, 0) - calm.ignored.get(reason, 0) for reason in ("duplicate", "late")}
    assert sum(more.values()) == 258 + calm.ignored.get("unusable", 0) - hit.ignored.get("unusable", 0)
    seen(f"258 messages again: {more['duplicate']} duplicate, {more['late']} late, {len(calm.said)} alerts same")


@pytest.mark.fault(
    "the clock of a sensor is set back by an hour", expected="its own alert kind; believed after ten readings, for good"
)
def test_a_sensors_clock_that_jumps_back_is_told_and_does_not_silence_the_sensor(
    readings: list[Reading], calm: Played, seen: Said
) -> None:
    jumped = [r._replace(time=r.time - HOUR, received=r.time) if r.sensor == "s1" else r for r in readings[600:]]
    hit = played([*readings[:600], *jumped])
    clock = [alert for alert in hit.alerts if alert.kind is Kind.CLOCK]
    assert {(alert.sensor, alert.state) for alert in clock} >= {("s1", State.FIRING)}
    late = hit.ignored.get("late", 0) - calm.ignored.get("late", 0)
    assert late == 9, "the sensor stayed silent"
    others = {k: a for k, a in contents(calm.said).items() if a[0] != "s1"}
    assert {k: a for k, a in contents(hit.said).items() if a[0] != "s1"} == others
    seen(f"{len(clock)} clock alerts, {late} readings late, then scored; other sensors' {len(others)} alerts same")


@pytest.mark.fault(
    "the clock of the host jumps, by up to a day", expected="no alert changes, across kills and checkpoints as well"
)
@pytest.mark.parametrize("seed", [1, 2])
def test_jumps_of_the_hosts_clock_change_no_alert(tmp_path: Path, seed: int, seen: Said) -> None:
    chance = random.Random(seed)  # noqa: S311 - when it jumps is no secret
    calm = MemoryBroker(partitions=2)
    fill(calm)
    drained(Service(calm, tmp_path / "calm").start(), calm)
    broker = MemoryBroker(partitions=2)
    fill(broker)
    service = Service(broker, tmp_path / "jumping", batch=40, pace=paced(checkpoint_seconds=3.0))
    runner, kills = service.start(), 0
    for _ in range(60):
        service.time.began = DAY_LATER + chance.uniform(-1, 1) * 86_400
        service.time.now += 1.0
        runner.turn()
        if chance.random() < 0.2:
            runner, kills = service.start(), kills + 1
    drained(runner, broker)
    assert told(broker) == told(calm)
    seen(f"60 jumps, {kills} kills: {len(broker.alerts)} alerts same")


@pytest.mark.fault(
    "a flood of sensor ids from one producer",
    expected="memory a sensor is bounded; metrics have no label a sensor; no alert of another sensor changes",
)
def test_a_flood_of_sensor_ids_takes_bounded_memory_and_changes_no_other_sensors_alerts(
    readings: list[Reading], tmp_path: Path, in_long_form: bool, seen: Said
) -> None:
    ids = 1_000_000 if in_long_form else 20_000
    _, calm, _ = flooded(readings, 0, tmp_path / "calm")
    runner, told, took = flooded(readings, ids, tmp_path / "flooded")
    assert len(calm) > 10
    assert contents(told) == contents(calm)
    assert took / ids < 4 * (row_bytes(model()) + NAME_BYTES)  # the table doubles, and is copied meanwhile
    telemetry, census = Telemetry(), runner._groups.census()
    telemetry.counted(census, runner.open_alerts())
    metrics = generate_latest(telemetry.registry)
    assert b"flood" not in metrics
    seen(
        f"{ids:,} ids: {took / ids / 1e3:.1f} kB an id at the most, {row_bytes(model()) / 1e3:.1f} of it a row; "
        f"{sum(census['g'].values()):,} sensors known at the end; {len(calm)} alerts same"
    )


def flooded(readings: list[Reading], ids: int, folder: Path) -> tuple[Runner, dict[tuple[str, int], Alert], int]:
    """The runner behind the readings and, spread among them, so many ids; what was said of sensors; bytes it took."""
    broker = MemoryBroker()
    service = Service(broker, folder, batch=5000)
    runner = service.start()
    runner.turn()
    each, began, most = -(-ids // len(readings)), resident(), 0
    said: list[Alert] = []
    for i, reading in enumerate(readings):
        flood = [Reading(f"flood-{k}", reading.time, {"c0": 1.0}) for k in range(i * each, min((i + 1) * each, ids))]
        for one in (reading, *flood):
            broker.produce(JSON.encode(one), timestamp=one.time)
        if i % 24 == 23:
            drained(runner, broker)
            said += [alert for alert in broker.alerts if not alert.sensor.startswith("flood")]
            broker.alerts.clear()
            most = max(most, resident())
    return runner, same_sensors(Played(said, []).said), most - began


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
