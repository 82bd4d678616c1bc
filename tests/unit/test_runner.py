"""The loop: what it promises holds for whatever broker, on the one in memory."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.adapters.memory import MemoryBroker
from pipeline.bundle import BundleError
from pipeline.codecs import JSON
from pipeline.codecs.events import encode_maintenance, encode_retirement
from pipeline.core.alerts import Alert, Kind, Resolution, State
from pipeline.core.events import Rules
from pipeline.core.model import Model
from pipeline.core.readings import SECOND, Reading, Reason
from pipeline.core.silence import SHARE
from pipeline.ports import Checkpoint, Moment, PartitionsChangedError
from pipeline.progress import Pace
from pipeline.runner import Runner
from pipeline.serving import Serving
from pipeline.testing import Member, Played, Time
from tests.models import INTERVAL, START, model, stream, waves

DAY_LATER = START / SECOND + 86_400


def paced(**others: float) -> Pace:
    """Every turn commits, none waits, and a checkpoint comes only where one is asked for."""
    settings = {"poll_seconds": 0.0, "commit_seconds": 0.0, "checkpoint_seconds": 1e9, "catchup_after_seconds": 1e9}
    return Pace("sensor.readings", **(settings | others))  # type: ignore[arg-type]


class Service(Member):
    """One that serves a small model, a hundred messages a turn, and stays on the day after its readings."""

    def __init__(
        self, broker: MemoryBroker, folder: Path, models: dict[str, Model] | None = None, fingerprint: str = "f",
        kernel: str = "", batch: int = 100, pace: Pace | None = None,
    ) -> None:  # fmt: skip
        models = models or {"g": model()}
        served = Serving(models, {name: Rules() for name in models}, frozenset(), SHARE, {}, fingerprint)
        super().__init__(broker, folder, served, pace or paced(), batch, Time(began=DAY_LATER), kernel)

    def take_up(self, models: dict[str, Model]) -> None:
        """They serve from the next look at the folder of the bundles on."""
        self.serving = replace(self.serving, models=models)


def fill(broker: MemoryBroker, rows: int = 400, sensors: int = 3) -> None:
    """A stream with alerts in it, sensors spread over the partitions."""
    batch = stream(waves(sensors, rows), partitions=broker.partitions)
    for i, sensor in enumerate(batch.sensors):
        reading = Reading(sensor, int(batch.times[i]), {"c0": float(batch.values[i, 0])})
        partition = int(batch.partitions[i])
        broker.produce(JSON.encode(reading), key=sensor.encode(), partition=partition, timestamp=reading.time)


def killed_and_restarted(service: Service, seed: int, turns: int) -> Runner:
    """The last of several runners: every few turns one is gone, and every third commit fails."""
    runner = service.start()
    for turn in range(turns):
        service.time.now += 0.7
        if turn % (5 + seed) == 4:
            runner = service.start()  # the old one is gone, whatever it held
        service.sink.commits = turn % 3 != seed % 3
        runner.turn()
    return runner


def drained(runner: Runner, broker: MemoryBroker) -> None:
    while any(runner.partitions.get(p, None) is None or runner.partitions[p].position < broker.end(p)
              for p in range(broker.partitions)):  # fmt: skip
        runner.turn()


def offsets(service: Service) -> list[int]:
    """Of the checkpoints of partition 0, newest first."""
    names = service.store.names("sensor.readings", 0, 10**9)
    return [service.store.load(name).position.offset for name in names]


def told(broker: MemoryBroker) -> dict[tuple[str, int], Alert]:
    """What was published, by identity and revision, each of them once."""
    return Played(broker.alerts, []).said


@pytest.fixture
def expected() -> dict[tuple[str, int], Alert]:
    """The alerts of an uninterrupted run."""
    broker = MemoryBroker(partitions=2)
    fill(broker)
    drained(Service(broker, Path("/nowhere")).start(), broker)
    assert any(alert.kind is Kind.FORECAST for alert in broker.alerts), "the stream shows nothing"
    return told(broker)


@pytest.mark.parametrize("seed", range(6))
def test_kills_and_restarts_change_no_alert(tmp_path: Path, expected: dict[tuple[str, int], Alert], seed: int) -> None:
    broker = MemoryBroker(partitions=2)
    fill(broker)
    pace = paced(checkpoint_seconds=3 + seed, commit_seconds=seed)
    service = Service(broker, tmp_path, batch=17 + seed, pace=pace)
    runner = killed_and_restarted(service, seed, turns=200)
    drained(runner, broker)
    service.sink.commits = True
    runner.drain(0)
    assert told(broker) == expected


def test_without_checkpoints_a_restart_does_change_alerts(
    tmp_path: Path, expected: dict[tuple[str, int], Alert]
) -> None:
    """The test above can fail."""
    broker = MemoryBroker(partitions=2)
    fill(broker)
    service = Service(broker, tmp_path)
    runner = service.start()
    for _ in range(3):
        service.time.now += 2
        runner.turn()
    shutil.rmtree(tmp_path)
    drained(service.start(), broker)
    assert told(broker) != expected


def test_a_partition_moves_to_another_member_with_its_state(
    tmp_path: Path, expected: dict[tuple[str, int], Alert]
) -> None:
    broker = MemoryBroker(partitions=2)
    fill(broker)
    ours, theirs = Service(broker, tmp_path), Service(broker, tmp_path)
    first, second = ours.start(), theirs.start()
    theirs.source._coming.clear()
    for _ in range(3):
        first.turn()
    ours.source.give_up(1)
    first.turn()
    assert set(first.partitions) == {0}
    theirs.source.take(1)
    while first.partitions[0].position < broker.end(0) or 1 not in second.partitions:
        first.turn()
        second.turn()
    while second.partitions[1].position < broker.end(1):
        second.turn()
    assert told(broker) == expected
    assert second.partitions[1].checkpoint.startswith("sensor.readings/1/")


def test_a_lost_partition_is_dropped_without_a_commit(tmp_path: Path) -> None:
    broker = MemoryBroker()
    fill(broker)
    service = Service(broker, tmp_path)
    runner = service.start()
    runner.turn()
    runner.turn()
    service.sink.commits, committed = True, dict(broker.committed)
    service.source.lose(0)
    runner.turn()
    assert (runner.partitions, broker.committed) == ({}, committed)
    assert offsets(service) == [0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fingerprint": "another"}, "other settings"),
        ({"models": {"g": replace(model(), ref=replace(model().ref, sha256="1" * 64))}}, "another model for g"),
    ],
)
def test_state_goes_on_under_another_model_or_other_settings(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    broker = MemoryBroker()
    fill(broker)
    runner = Service(broker, tmp_path).start()
    while not runner.open_alerts():
        runner.turn()
    before = {alert.alert_id for alert in runner.open_alerts()}
    runner.drain(0)
    with capture_logs() as logs:
        other = Service(broker, tmp_path, **change).start()  # type: ignore[arg-type]
        other.turn()
    (adopted,) = [line["why"] for line in logs if line["event"] == "checkpoint adopted"]
    assert why in adopted
    drained(other, broker)
    other.drain(0)
    ended = {alert.alert_id for alert in broker.alerts if alert.state is State.RESOLVED}
    assert before <= ended | {alert.alert_id for alert in other.open_alerts()}, "an open alert was forgotten"


@pytest.mark.parametrize("running", [True, False])
def test_a_topic_that_was_widened_stops_the_service_before_it_reads_on(tmp_path: Path, running: bool) -> None:
    broker = MemoryBroker(partitions=2)
    fill(broker)
    service = Service(broker, tmp_path, batch=1000)
    runner = service.start()
    runner.turn()
    runner.turn()
    if not running:
        runner.drain(0)
        runner = service.start()
    broker.partitions = 3
    service.source.take(2)
    with pytest.raises(PartitionsChangedError, match=r"has 3 partitions, .* for 2; .*checkpoint repartition"):
        runner.turn()
    kept = broker.committed.copy()
    assert runner.drain(0), "what was done before is committed and kept"
    assert broker.committed.keys() == kept.keys() == {0, 1}


def test_a_checkpoint_of_another_kernel_is_taken_and_said(tmp_path: Path) -> None:
    broker = MemoryBroker()
    fill(broker)
    runner = Service(broker, tmp_path, kernel="numpy 1, openblas Haswell").start()
    runner.turn()
    runner.turn()
    runner.drain(0)
    with capture_logs() as logs:
        again = Service(broker, tmp_path, kernel="numpy 1, openblas SkylakeX").start()
        again.turn()
    (said,) = [line for line in logs if line["event"] == "checkpoint of another kernel"]
    assert (said["then"][-7:], said["now"][-8:]) == ("Haswell", "SkylakeX")
    assert again.partitions[0].checkpoint == said["checkpoint"]


def test_a_first_start_is_committed_before_anything_arrives(tmp_path: Path) -> None:
    broker = MemoryBroker()
    runner = Service(broker, tmp_path).start()
    runner.turn()
    assert broker.committed[0].offset == 0


def test_positions_that_could_not_be_committed_are_due_again(tmp_path: Path) -> None:
    broker = MemoryBroker()
    fill(broker, rows=20)
    service = Service(broker, tmp_path)
    runner = service.start()
    service.sink.commits = False
    turns = [runner.turn() for _ in range(3)]
    assert broker.committed == {}
    assert [turn.futile_commits for turn in turns] == [1, 1, 1]
    assert turns[-1].waiting_for == "3 commits in a row came to nothing; the log says why"
    service.sink.commits = True
    turn = runner.turn()
    assert (turn.waiting_for, turn.futile_commits) == ("", 0)
    assert broker.committed[0].offset == broker.end(0)


def test_what_is_not_urgent_waits_for_the_next_commit_and_an_opening_alert_does_not(tmp_path: Path) -> None:
    broker = MemoryBroker()
    broker.produce(b"{")
    service = Service(broker, tmp_path, pace=paced(commit_seconds=3.0), batch=1)
    runner = service.start()
    runner.turn()
    service.time.now = 2.9
    assert not runner.turn().committed
    assert broker.dead_letters == []
    service.time.now = 3.0
    turn = runner.turn()
    assert (turn.committed, turn.refused, len(broker.dead_letters)) == (True, broker.dead_letters, 1)
    service.batch, now = 100, service.time.now
    fill(broker)
    service.source.most_records = 100
    commits, turns = 0, 0
    while runner.partitions[0].position < broker.end(0):
        service.time.now += 0.05
        turns += 1
        commits += (turn := runner.turn()).committed
        assert not turn.committed or turn.alerts or service.time.now - now >= 3.0
    assert broker.alerts
    assert commits <= turns / 2, "more often than ten a second"


def test_what_a_lost_partition_had_to_say_is_left_to_whoever_has_it(
    tmp_path: Path, expected: dict[tuple[str, int], Alert]
) -> None:
    broker = MemoryBroker(partitions=2)
    fill(broker)
    scored = paced(scores=True)
    ours, theirs = Service(broker, tmp_path, batch=1000, pace=scored), Service(broker, tmp_path, pace=scored)
    first, second = ours.start(), theirs.start()
    theirs.source._coming.clear()
    first.turn()
    ours.sink.commits = False  # as it is for a member that the group has put out
    first.turn()
    first.turn()
    assert {p.position for p in first.partitions.values()} == {broker.end(0), broker.end(1)}
    assert broker.alerts == []
    ours.source.lose(1)
    first.turn()
    ours.sink.commits = True
    theirs.source.take(1)
    while any(runner.partitions.get(p, None) is None or runner.partitions[p].position < broker.end(p)
              for p, runner in ((0, first), (1, second))):  # fmt: skip
        first.turn()
        second.turn()
    assert told(broker) == expected
    said = [place for scored in broker.scored for place in zip(scored.batch.sensors, scored.batch.offsets, strict=True)]
    assert (len(said), len(set(said))) == (broker.end(0) + broker.end(1),) * 2


def test_others_do_not_wait_for_every_checkpoint(tmp_path: Path) -> None:
    broker = MemoryBroker(partitions=3)
    fill(broker)
    service = Service(broker, tmp_path, pace=paced(let_go_seconds=5.0), batch=10_000)
    runner = service.start()
    for _ in range(3):
        runner.turn()
    keep = service.store.save

    def slow(checkpoint: Checkpoint) -> str:
        service.time.now += 3.0
        return keep(checkpoint)

    service.store.save = slow  # type: ignore[method-assign]
    service.source.give_up(0, 1, 2)
    with capture_logs() as logs:
        runner.turn()
    assert [line["partition"] for line in logs if line["event"] == "checkpoint left out"] == [2]
    assert (runner.partitions, {p.offset for p in broker.committed.values()}) == ({}, {400})


def test_a_bad_message_goes_to_the_dead_letters_and_its_neighbours_are_scored(tmp_path: Path) -> None:
    broker = MemoryBroker()
    good = [JSON.encode(Reading("s0", START + i * INTERVAL, {"c0": 1.0})) for i in range(2)]
    future = JSON.encode(Reading("s0", START + 10**6 * INTERVAL, {"c0": 1.0}))
    elsewhere = JSON.encode(Reading("s0", START, {"speed": 1.0, "torque": 2.0}))
    for value in (good[0], b"{", future, elsewhere, good[1]):
        broker.produce(value, key=b"k", timestamp=START)
    runner = Service(broker, tmp_path).start()
    runner.turn()
    turn = runner.turn()
    assert sum(len(scored.batch) for scored in turn.stepped.scored) == 3
    assert turn.stepped.scored[0].outcome.counts == {"warming": 2, "future": 1}
    reasons = [(r.reason, r.offset, r.key, r.topic) for r in broker.dead_letters]
    assert reasons == [
        (Reason.UNREADABLE, 1, b"k", "sensor.readings"),
        (Reason.NO_GROUP, 3, b"k", "sensor.readings"),
        (Reason.FUTURE, 2, b"k", "sensor.readings"),
    ]
    assert broker.dead_letters[2].value == future
    assert runner.partitions[0].watermark == START + INTERVAL, "the stamp from the future moved the watermark"


def test_alerts_on_old_records_carry_mode_catchup(tmp_path: Path) -> None:
    broker = MemoryBroker()
    fill(broker)
    service = Service(broker, tmp_path, pace=paced(catchup_after_seconds=70_000.0))
    drained(service.start(), broker)
    ages = [(alert.mode, DAY_LATER - alert.last / SECOND) for alert in broker.alerts]
    assert {mode for mode, age in ages if age > 70_000} == {"catchup"}
    assert {mode for mode, age in ages if age <= 70_000} == {"live"}
    assert {alert.evidence.topic for alert in broker.alerts} == {"sensor.readings"}


def test_an_alert_carries_the_same_mode_however_many_messages_a_poll_brings(tmp_path: Path) -> None:
    found = []
    for batch in (1, 40, 5000):
        broker = MemoryBroker()
        for sensor in ("s0", "s1"):  # s1 comes to speak where s0 has ended
            for row in range(90):
                time = START + (row + 400 * (row > 80) + 1000 * (sensor == "s1")) * INTERVAL
                message = JSON.encode(Reading(sensor, time, {"c0": float(row % 7)}))
                broker.produce(message, timestamp=time)
        pace = paced(catchup_after_seconds=86_400 - 700 * INTERVAL / SECOND)
        drained(Service(broker, tmp_path / f"{batch}", batch=batch, pace=pace).start(), broker)
        found.append({(a.sensor, a.kind, a.revision): a.mode for a in broker.alerts})
    assert found[0] == found[1] == found[2]
    assert {(sensor, mode) for (sensor, kind, _), mode in found[0].items() if kind is Kind.GAP} == {
        ("s0", "catchup"), ("s1", "live"),
    }  # fmt: skip


def test_silence_is_noticed_at_the_end_of_the_partition_and_only_while_the_broker_answers(tmp_path: Path) -> None:
    broker = MemoryBroker()
    for i in range(3):
        broker.produce(JSON.encode(Reading("s0", START + i * INTERVAL, {"c0": 1.0})), timestamp=START + i * INTERVAL)
    service = Service(broker, tmp_path)
    runner = service.start()
    drained(runner, broker)
    broker.reachable, service.time.now = False, 30 * INTERVAL / SECOND
    assert runner.turn().waiting_for == "the broker does not answer"
    assert broker.alerts == []
    broker.reachable = True
    service.time.now += 2
    runner.turn()
    (gap,) = broker.alerts
    assert (gap.kind, gap.state, gap.start, gap.mode) == (Kind.GAP, State.FIRING, START + 2 * INTERVAL, "live")
    assert broker.committed[0].ticks == (Moment(3, gap.last),), "the tick travels with the commit"
    runner.drain(0)
    broker.alerts.clear()
    again = service.start()
    for _ in range(3):
        service.time.now += 2
        again.turn()
    assert broker.alerts == [], "a restart told the gap again"
    assert again.open_alerts()[0].alert_id == gap.alert_id


def test_a_gap_that_only_a_tick_had_noticed_is_not_told_again_by_the_reading_that_ends_it(tmp_path: Path) -> None:
    broker = MemoryBroker()

    def send(row: int) -> None:
        time = START + row * INTERVAL
        broker.produce(JSON.encode(Reading("s0", time, {"c0": 1.0})), timestamp=time)

    for row in range(3):
        send(row)
    service = Service(broker, tmp_path)
    runner = service.start()
    drained(runner, broker)
    for seconds in (2.0, 30 * INTERVAL / SECOND):
        service.time.now += seconds
        runner.turn()
    assert [(a.kind, a.state) for a in broker.alerts] == [(Kind.GAP, State.FIRING)]
    send(40)
    again = service.start()  # the other was killed; this one polls what it replays and what is new at once
    drained(again, broker)
    assert [(a.kind, a.state) for a in broker.alerts] == [(Kind.GAP, State.FIRING), (Kind.GAP, State.RESOLVED)]


def test_a_full_disk_costs_a_checkpoint_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = MemoryBroker()
    fill(broker)
    service = Service(broker, tmp_path, pace=paced(checkpoint_seconds=1.0))
    runner = service.start()
    for _ in range(3):
        service.time.now += 1
        runner.turn()
    kept = runner.partitions[0].checkpoint

    def full(checkpoint: Checkpoint) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(service.store, "save", full)
    with capture_logs() as logs:
        for _ in range(3):
            service.time.now += 1
            runner.turn()
    assert next(line["why"] for line in logs if line["event"] == "checkpoint failed").endswith("left on device")
    assert runner.partitions[0].checkpoint == kept
    assert broker.committed[0].offset > service.store.load(kept).position.offset


def test_a_swap_has_a_place_in_the_stream_that_a_restart_knows(tmp_path: Path) -> None:
    broker = MemoryBroker()
    fill(broker)
    service = Service(broker, tmp_path)
    runner = service.start()
    for _ in range(3):
        runner.turn()
    newer = replace(model(version="2"), ref=replace(model().ref, version="2", sha256="2" * 64))
    service.take_up({"g": newer})
    runner.take_up_models()
    runner.turn()
    assert offsets(service) == [200, 200], "one before the swap, one behind it, and no reading between them"
    again = service.start()
    again.turn()
    assert again.partitions[0].position == 200
    drained(again, broker)
    assert {alert.model.version for alert in broker.alerts if alert.last > START + 150 * INTERVAL} == {"2"}


def test_a_broken_bundle_leaves_the_present_model_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = MemoryBroker()
    service = Service(broker, tmp_path)

    def broken() -> Mapping[str, Model]:
        raise BundleError("models/g/2: its SHA-256 is not the one in the manifest")

    monkeypatch.setattr(service, "load", broken)
    runner = service.start()
    runner.turn()
    runner.take_up_models()
    with capture_logs() as logs:
        runner.turn()
    assert [line["event"] for line in logs] == ["models not taken up"]


def test_a_silent_sensor_is_told_of_while_others_keep_the_partition_from_ever_being_empty(tmp_path: Path) -> None:
    broker = MemoryBroker(partitions=1)
    service = Service(broker, tmp_path, batch=4)
    runner = service.start()

    def send(sensor: str, row: int) -> None:
        time = START + row * INTERVAL
        broker.produce(JSON.encode(Reading(sensor, time, {"c0": float(row)})), key=sensor.encode(), timestamp=time)

    for row in range(40):
        for sensor in ("talker-0", "mute") if row < 10 else ("talker-0",):
            send(sensor, row)
    drained(runner, broker)
    send("talker-0", 40)
    for row in range(41, 80):  # there is always one more record than a turn takes
        for extra in range(4):
            send(f"talker-{extra}", row)
        service.time.now += 0.6
        runner.turn()
    assert runner.partitions[0].position < broker.end(0)
    assert [a.sensor for a in broker.alerts if a.kind is Kind.GAP and a.state is State.FIRING] == ["mute"]


SILENT = {
    3: range(4),
    8: (8, 9),
    12: range(5),
    16: range(1),
    30: range(0),
    40: range(9),
    47: range(9, 10),
    49: range(0),
}


def outages(
    folder: Path, killed_at: int = -1, checkpoint_seconds: float = 1e9
) -> dict[tuple[str, int], tuple[Kind, State, int]]:
    """Ten sensors that fall silent together and alone, each minute read to its end; what was published."""
    broker = MemoryBroker()
    silent: Sequence[int] = ()
    service = Service(broker, folder, pace=paced(checkpoint_seconds=checkpoint_seconds))
    runner = service.start()
    for minute in range(60):
        silent = SILENT.get(minute, silent)
        for i in sorted(set(range(10)) - set(silent)):
            reading = Reading(f"s{i}", START + minute * INTERVAL, {"c0": 20.0})
            broker.produce(JSON.encode(reading), timestamp=reading.time)
        if minute == killed_at:
            runner = service.start()
            drained(runner, broker)
        service.time.now += 2
        for _ in range(3):
            runner.turn()
    assert runner.open_alerts() == []
    return {key: (a.kind, a.state, a.start) for key, a in told(broker).items()}


def test_what_only_ticks_had_noticed_is_the_same_after_a_kill_at_any_minute(tmp_path: Path) -> None:
    whole = outages(tmp_path / "whole")
    assert {kind for kind, _, _ in whole.values()} == {Kind.GAP, Kind.INPUT_SILENT}
    assert len(whole) >= 8
    for minute in (10, 17, 23, 35, 46, 48):
        assert outages(tmp_path / f"{minute}", minute, checkpoint_seconds=9.0 if minute % 2 else 1e9) == whole, minute


def test_a_checkpoint_is_due_when_a_commit_has_half_the_ticks_to_remember_that_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runner.MOST_TICKS", most := 8)
    broker = MemoryBroker()
    service = Service(broker, tmp_path)
    runner = service.start()
    for minute in range(5 * most):
        reading = Reading(f"s{minute}", START + minute * INTERVAL, {"c0": 20.0})  # each is heard of once
        broker.produce(JSON.encode(reading), timestamp=reading.time)
        service.time.now += 2
        for _ in range(2):
            runner.turn()
    assert len(broker.committed[0].ticks) == most
    ticks = [service.store.load(name).position.ticks for name in service.store.names("sensor.readings", 0, 10**9)]
    assert set(broker.committed[0].ticks[: most // 2]) <= set(ticks[0])


def retired(folder: Path, killed_at: int = -1, batch: int = 100) -> dict[tuple[str, int], Alert]:
    """Two of three sensors are retired with alerts open, one of them twice; it speaks again. What was published."""
    broker = MemoryBroker(partitions=2)
    service = Service(broker, folder, batch=batch)
    runner = service.start()
    sent = MemoryBroker(partitions=2)
    fill(sent, rows=420)
    for partition, records in sent.records.items():
        for record in records:
            if record.offset in (770, 771, 800) and partition == 0:
                value, headers = encode_retirement("s0")
                broker.produce(value, key=b"s0", headers=tuple(headers), partition=0, timestamp=record.timestamp)
            broker.produce(record.value, key=record.key, partition=partition, timestamp=record.timestamp)
            if record.offset == killed_at:
                drained(runner, broker)
                service.pace = paced(checkpoint_seconds=0.0 if killed_at % 2 else 1e9)
                runner = service.start()
    drained(runner, broker)
    return told(broker)


def test_a_retirement_among_the_readings_is_the_same_in_any_batch_and_after_any_kill(tmp_path: Path) -> None:
    whole = retired(tmp_path / "whole")
    assert any(alert.resolution is Resolution.RETIRED for alert in whole.values())
    assert retired(tmp_path / "in small", batch=17) == whole
    for killed_at in (769, 790):
        assert retired(tmp_path / f"{killed_at}", killed_at) == whole, killed_at


def worked_on(
    folder: Path, killed_at: int = -1, batch: int = 100, *, said: bool = True
) -> dict[tuple[str, int], Alert]:
    """A sensor is under maintenance for some hours, which are prolonged, then ended early. What was published."""
    broker = MemoryBroker(partitions=2)
    service = Service(broker, folder, batch=batch)
    runner = service.start()
    sent = MemoryBroker(partitions=2)
    fill(sent, rows=420)
    events = {600: (300, 340), 660: (300, 900), 790: (300, 400)}  # offset -> rows from and until
    for record in (record for records in sent.records.values() for record in records):
        if said and record.partition == 0 and record.offset in events:
            begin, end = (START + row * INTERVAL for row in events[record.offset])
            value, headers = encode_maintenance("s0", begin, end)
            broker.produce(value, key=b"s0", headers=tuple(headers), partition=0, timestamp=record.timestamp)
        broker.produce(record.value, key=record.key, partition=record.partition, timestamp=record.timestamp)
        if record.offset == killed_at and record.partition == 0:
            drained(runner, broker)
            service.pace = paced(checkpoint_seconds=0.0 if killed_at % 2 else 1e9)
            runner = service.start()
    drained(runner, broker)
    return told(broker)


def test_a_maintenance_among_the_readings_is_the_same_in_any_batch_and_after_any_kill(tmp_path: Path) -> None:
    whole = worked_on(tmp_path / "whole")
    within = range(START + 310 * INTERVAL, START + 390 * INTERVAL)
    assert not any(alert.sensor == "s0" and alert.start in within for alert in whole.values())
    without = worked_on(tmp_path / "without", said=False)
    assert any(alert.sensor == "s0" and alert.start in within for alert in without.values()), "nothing would have shown"
    assert worked_on(tmp_path / "in small", batch=17) == whole
    for killed_at in (665, 700):
        assert worked_on(tmp_path / f"{killed_at}", killed_at) == whole, killed_at
