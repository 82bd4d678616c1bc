"""The service from outside: killed, drained, left without a broker, fed with nonsense."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaProducer

from pipeline.codecs import JSON
from pipeline.core.readings import Reading
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.faults import Said
from tests.integration.conftest import OWN, PARTITIONS, NewService
from tests.kafka.node import KafkaNode
from tests.models import INTERVAL, START, model, stream, waves
from tests.service import Service, alerts, messages, produce, saved, wait_for

TICKS_SECONDS = 3.0  # for who is silent at the end to be noticed


@pytest.mark.fault(
    "kill -9 at random moments of the stream",
    expected="missing 0, spurious 0, twice 0",
)
@pytest.mark.kafka_only
def test_kill_9_in_the_middle_of_the_stream_changes_no_alert(
    broker: Broker,
    topics: NewTopics,
    names: dict[str, str],
    services: NewService,
    seen: Said,
) -> None:
    chance = random.Random(7)  # noqa: S311 - when to kill is no secret
    settings = {"KAFKA__MAX_POLL_RECORDS": "40", "CHECKPOINTS__EVERY_SECONDS": "0.3", "KAFKA__INSTANCE_ID": "one"}
    killed = services(broker.bootstrap, names, group="killed", settings=settings)
    readings, ends = stream(waves(9, 400), partitions=PARTITIONS, dropped=0.02), {}
    producing = threading.Thread(
        target=lambda: ends.update(produce(broker.bootstrap, names["readings"], readings, seconds=12))
    )
    producing.start()
    for _ in range(4):
        killed.start()
        killed.wait_until_ready()
        time.sleep(chance.uniform(0.1, 1.5))
        killed.kill()
    killed.start()
    producing.join()
    killed.wait_until_committed(ends)
    time.sleep(TICKS_SECONDS)
    assert any(event["event"] == "partition assigned" and event["replay"] > 0 for event in killed.events())

    (undisturbed,) = topics("undisturbed")
    reference = services(broker.bootstrap, names | {"alerts": undisturbed}, group="undisturbed")
    reference.start()
    reference.wait_until_committed(ends)
    time.sleep(TICKS_SECONDS)
    expected = alerts(broker.bootstrap, undisturbed)
    assert len(expected) > 10
    assert {alert.kind.value for alert in expected.values()} >= {"forecast", "stuck", "gap"}
    assert alerts(broker.bootstrap, names["alerts"]) == expected
    seen(f"4 kills; {len(expected)} alerts same")


@pytest.mark.fault(
    "members come, are killed and leave while readings flow",
    expected="missing 0, spurious 0, twice 0",
)
@pytest.mark.kafka_only
def test_members_that_come_and_are_killed_change_no_alert(
    broker: Broker,
    topics: NewTopics,
    names: dict[str, str],
    services: NewService,
    seen: Said,
) -> None:
    settings = {"KAFKA__MAX_POLL_RECORDS": "40", "CHECKPOINTS__EVERY_SECONDS": "0.3"}
    members = [services(broker.bootstrap, names, group="members", settings=settings) for _ in range(3)]
    readings, ends = stream(waves(9, 400), partitions=PARTITIONS), {}
    producing = threading.Thread(
        target=lambda: ends.update(produce(broker.bootstrap, names["readings"], readings, seconds=12))
    )
    producing.start()
    for member in members:
        member.start()
        member.wait_until_ready()
    members[0].kill()
    time.sleep(2)
    assert members[1].stop() == 0
    producing.join()
    members[2].wait_until_committed(ends)
    time.sleep(TICKS_SECONDS)

    (undisturbed,) = topics("undisturbed")
    reference = services(broker.bootstrap, names | {"alerts": undisturbed}, group="undisturbed")
    reference.start()
    reference.wait_until_committed(ends)
    time.sleep(TICKS_SECONDS)
    assert alerts(broker.bootstrap, names["alerts"]) == alerts(broker.bootstrap, undisturbed)
    seen("3 members, one killed, one stopped; alerts same")


@pytest.mark.kafka_only
def test_partitions_that_a_member_was_giving_up_when_it_was_killed_are_read_on(
    broker: Broker, names: dict[str, str], services: NewService
) -> None:
    """It comes back under its name without a rebalance: to what it had kept, and what it gave up would be nobody's."""
    session = {"KAFKA__SESSION_TIMEOUT_SECONDS": "10"}
    stays, comes = (
        services(broker.bootstrap, names, group="handover", settings=session | {"KAFKA__INSTANCE_ID": name})
        for name in ("stays", "comes")
    )
    readings = stream(waves(6, 200), partitions=PARTITIONS)
    stays.start("mid-checkpoint:SIGUSR1")
    stays.wait_until_ready()
    ends = produce(broker.bootstrap, names["readings"], readings.take(slice(600)))
    stays.wait_until_committed(ends)
    assert stays.process is not None
    stays.process.send_signal(signal.SIGUSR1)
    comes.start()  # and asks for a part
    stays.wait_until_killed()
    stays.start()
    more = produce(broker.bootstrap, names["readings"], readings.take(slice(600, None)))
    stays.wait_until_committed({partition: ends[partition] + more[partition] for partition in ends})


@pytest.mark.fault(
    "nonsense in the topic",
    expected="dead letters = injected, each with its reason and place; good readings all scored",
)
def test_nonsense_in_the_stream_is_dead_lettered_and_every_good_reading_is_scored(
    broker: Broker,
    names: dict[str, str],
    services: NewService,
    seen: Said,
) -> None:
    good = [JSON.encode(Reading("pump", START + i * INTERVAL, {"c0": 20 + i % 7})) for i in range(100)]
    nonsense = {
        "unreadable": [b"{", b"", b"[" * 100_000, b"\xff\xfe"],
        "value": [good[0].replace(b"20.0", value) for value in (b"NaN", b"1e999", b"true", b'"20"', b"9" * 400)],
        "sensor": [good[0].replace(b"pump", b"")],
        "time": [JSON.encode(Reading("pump", 0, {"c0": 1.0})).replace(b":0,", b":1000000000000000,")],
        "future": [JSON.encode(Reading("pump", int((time.time() + 86_400) * 1e6), {"c0": 1.0}))],
        "no-group": [JSON.encode(Reading("other", START, {"speed": 1.0, "torque": 2.0}))],
    }
    bad = [value for values in nonsense.values() for value in values]
    service = services(broker.bootstrap, names)
    service.start()
    service.wait_until_ready()
    with KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=20) as producer:
        for i, value in enumerate(good):
            producer.send(names["readings"], value=value, key=b"pump", partition=0)
            if i < len(bad):
                producer.send(names["readings"], value=bad[i], partition=0)
        for value in good[:3]:  # two late ones, and then the last again
            producer.send(names["readings"], value=value, key=b"pump", partition=0)
        producer.send(names["readings"], value=good[-1], key=b"pump", partition=0)
    total = len(good) + len(bad) + 4
    wait_for("everything counted", 20, lambda: service.get("/sensors/pump") and _stepped(service) == total)
    service.wait_until_committed({0: total})
    letters = [json.loads(message) for message in messages(broker.bootstrap, names["dead_letter"])]
    found = {reason: sum(letter["reason"] == reason for letter in letters) for reason in nonsense}
    assert found == {reason: len(values) for reason, values in nonsense.items()}
    assert {(letter["topic"], letter["partition"]) for letter in letters} == {(names["readings"], 0)}
    assert len({letter["offset"] for letter in letters}) == len(bad)
    assert (service.get("/sensors/pump") or {})["last_time"] == (START + 99 * INTERVAL) / 1000
    assert service.metric("foreshock_ignored_total") == 4
    assert service.metric("foreshock_lag_records") == 0
    seen(f"{len(bad)} dead letters, {len(good)} readings scored")


def _stepped(service: Service) -> float:
    """Messages that came to something: readings of the group (a future one among them) and those refused before."""
    return (
        service.metric("foreshock_readings_total")
        + service.metric("foreshock_rejected_total")
        - float(1 if "future" in (service.get("/metrics") or "") else 0)
    )


@pytest.mark.fault(
    "SIGTERM, broker alive",
    expected="commit, checkpoint, leave: status 0 in under 10 s; a successor replays nothing",
)
def test_sigterm_drains_and_a_successor_goes_on_at_once(
    broker: Broker,
    names: dict[str, str],
    services: NewService,
    seen: Said,
) -> None:
    service = services(broker.bootstrap, names)
    service.start()
    service.wait_until_ready()
    ends = produce(broker.bootstrap, names["readings"], stream(waves(3, 100), partitions=PARTITIONS))
    wait_for("all scored", 20, lambda: service.metric("foreshock_readings_total") == sum(ends.values()))
    began = time.monotonic()
    assert service.stop() == 0
    took = time.monotonic() - began
    assert took < 10
    service.wait_until_committed(ends)
    service.start()
    service.wait_until_ready()
    assert (service.get("/sensors/s0") or {})["readings"] > 0, "the state is that of before"
    restored = [event for event in service.events() if event["event"] == "partition assigned"][-PARTITIONS:]
    assert [event["replay"] for event in restored] == [0] * PARTITIONS
    seen(f"status 0 after {took:.1f} s; 0 messages replayed")


@pytest.mark.fault(
    "the broker is killed and comes back",
    expected="alive, not ready, bounded memory; resumes by itself, nothing lost",
)
@pytest.mark.kafka_only
def test_without_a_broker_it_lives_is_not_ready_and_ready_within_3_s_of_the_brokers_return(
    node: KafkaNode, services: NewService, in_long_form: bool, seen: Said
) -> None:
    service = services(node.bootstrap, OWN)
    node.stop()
    service.start()
    wait_for("alive", 10, lambda: service.get("/healthz"))
    assert service.get("/readyz") is None
    node.start()
    assert service.wait_until_ready() < 3
    ends = produce(node.bootstrap, "readings", stream(waves(3, 100)))
    service.wait_until_committed(ends)
    node.kill()
    wait_for("no longer ready", 20, lambda: service.get("/readyz") is None)
    before, away = resident(service), time.monotonic()
    while time.monotonic() - away < (60.0 if in_long_form else 5.0):
        assert service.get("/healthz"), "it is not alive"
        assert service.get("/readyz") is None
        time.sleep(0.5)
    away, grown = time.monotonic() - away, resident(service) - before
    assert grown < 64 * 2**20
    node.start()
    began = time.monotonic()
    more = stream(waves(3, 120)).take(slice(300, 360))
    produce(node.bootstrap, "readings", more)
    wait_for("the rest", 20, lambda: service.metric("foreshock_readings_total") == 360)
    took = time.monotonic() - began
    assert took < 10
    assert service.stop() == 0
    seen(f"away for {away:.0f} s, memory {grown / 2**20:+.1f} MiB; all scored {took:.1f} s after its return")


@pytest.mark.fault(
    "SIGTERM, broker dead",
    expected="the watchdog ends the drain within about 10 s, status 1; a restart loses nothing",
)
@pytest.mark.kafka_only
def test_a_drain_on_a_dead_broker_ends_in_time_and_says_what_it_left(
    node: KafkaNode, services: NewService, seen: Said
) -> None:
    service = services(node.bootstrap, OWN)
    service.start()
    service.wait_until_ready()
    readings = stream(waves(3, 100))
    # In a process of its own: a client that loses its broker leaves sockets open.
    producing = multiprocessing.get_context("spawn").Process(
        target=produce, args=(node.bootstrap, "readings", readings, 3.0)
    )
    producing.start()
    wait_for("at work", 20, lambda: service.metric("foreshock_readings_total") > 20)
    node.kill()
    began = time.monotonic()
    assert service.stop() == 1
    took = time.monotonic() - began
    assert took < 12
    assert {"drain cut off", "drain incomplete"} & {event["event"] for event in service.events()}
    node.start()
    producing.join()
    service.start()
    service.wait_until_committed({0: len(readings)})
    seen(f"status 1 after {took:.1f} s; after a restart everything is committed")


@pytest.mark.fault(
    "a serving pointer to a bundle that is not there, at SIGHUP",
    expected="refused in the log; the previous model keeps serving",
)
def test_sighup_takes_up_the_serving_model(
    broker: Broker, names: dict[str, str], services: NewService, seen: Said
) -> None:
    service = services(broker.bootstrap, names)
    service.start()
    service.wait_until_ready()
    saved(service.folder / "models", replace(model(), ref=replace(model().ref, version="2")))
    assert service.process is not None
    service.process.send_signal(signal.SIGHUP)
    wait_for("swapped", 10, lambda: 'version="2"' in (service.get("/metrics") or ""))
    (service.folder / "models" / "g" / "serving").write_text("3")
    service.process.send_signal(signal.SIGHUP)
    wait_for("refused", 10, lambda: any(event["event"] == "models not taken up" for event in service.events()))
    assert service.get("/readyz")
    seen("refused; version 2 kept serving, ready all the time")


def test_serving_loads_nothing_that_only_training_needs() -> None:
    script = (
        "import sys, pipeline.app\n"
        "heavy = {'tensorflow', 'keras', 'sklearn', 'pyarrow', 'matplotlib', 'training'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)\n"
    )
    loaded = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr


def resident(service: Service) -> int:
    """Bytes of the service that are in memory."""
    assert service.process is not None
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * 4096
