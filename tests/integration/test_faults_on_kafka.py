"""Faults of brokers, members and sinks, on Apache Kafka: the alerts are those of a service that nobody disturbed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest
from kafka import KafkaAdminClient, TopicPartition

from pipeline.codecs import JSON
from pipeline.core.readings import SECOND, Reading, ReadingBatch, Record
from pipeline.settings import load
from pipeline.testing import play
from tests.brokers import Broker
from tests.faults import Said
from tests.integration.conftest import OWN, PARTITIONS, Cluster, NewService
from tests.models import stream, waves
from tests.service import Service, alerts, produce, wait_for

pytestmark = pytest.mark.kafka_only
MANY = {"DETECTION__BUDGET": "1/100/sensor"}  # many alerts: state that is lost anywhere changes a third of them
EAGER = {"KAFKA__MAX_POLL_RECORDS": "40", "CHECKPOINTS__EVERY_SECONDS": "0.3", **MANY}


def assert_undisturbed(service: Service, batch: ReadingBatch) -> int:
    """The alerts at the broker are those that these settings give where nothing happens; how many there are."""
    script = []
    for i, sensor in enumerate(batch.sensors):
        reading = Reading(sensor, int(batch.times[i]), {"c0": float(batch.values[i, 0])})
        now, partition = round(time.time() * SECOND), int(batch.partitions[i])
        script.append(Record("", partition, 0, now, sensor.encode(), JSON.encode(reading)))
    expected = play(load(None, service.environment()), script, partitions=PARTITIONS).said
    assert len(expected) > 10
    said = alerts(service.bootstrap, service.topics["alerts"])
    assert (expected.keys() - said.keys(), said.keys() - expected.keys()) == (set(), set()), "missing, spurious"
    for key, alert in expected.items():
        assert asdict(said[key]) == asdict(alert)
    return len(said)


@contextmanager
def producing(bootstrap: str, topic: str, batch: ReadingBatch, seconds: float) -> Iterator[dict[int, int]]:
    """Meanwhile the readings come; the ends are known at the end."""
    ends: dict[int, int] = {}
    worker = threading.Thread(target=lambda: ends.update(produce(bootstrap, topic, batch, seconds=seconds)))
    worker.start()
    try:
        yield ends
    finally:
        worker.join()


@pytest.mark.fault(
    "members join, leave and are killed while others restore", expected="state moves with its partition; missing 0"
)
def test_members_that_join_leave_and_are_killed_while_others_restore_change_no_alert(
    broker: Broker, names: dict[str, str], services: NewService, seen: Said
) -> None:
    members = [services(broker.bootstrap, names, group="restoring", settings=EAGER) for _ in range(4)]
    batch = stream(waves(9, 600), partitions=PARTITIONS)
    with producing(broker.bootstrap, names["readings"], batch, 12) as ends:
        members[0].start()
        members[0].wait_until_ready()
        for member in members[1:3]:
            member.start("mid-restore:1:2")  # each partition that comes takes two seconds longer to restore
            time.sleep(2)
        members[0].kill()
        members[3].start("mid-restore:1:1")
        time.sleep(3)
        members[1].kill()
    members[3].wait_until_committed(ends)
    same = assert_undisturbed(members[3], batch)
    moves = [event for event in members[0].events() if event["event"] == "partition assigned"]
    replayed = sum(event["replay"] for event in moves)
    seen(f"{len(moves)} assignments, {replayed} messages replayed; {same} alerts same")


@pytest.mark.fault(
    "the committed offset is out of retention",
    expected="an error in the log says how many were lost; it goes on, no hang",
)
def test_an_offset_out_of_retention_is_said_and_the_service_goes_on(
    broker: Broker, names: dict[str, str], services: NewService, seen: Said
) -> None:
    service = services(broker.bootstrap, names, group="retention")
    batch = stream(waves(3, 200))
    produce(broker.bootstrap, names["readings"], batch.take(slice(0, 300)))
    service.start()
    service.wait_until_committed({0: 300})
    assert service.stop() == 0
    produce(broker.bootstrap, names["readings"], batch.take(slice(300, 600)))
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        admin.delete_records({TopicPartition(names["readings"], 0): 400})
    service.start()
    service.wait_until_committed({0: 600})
    (said,) = [event for event in service.events() if event["event"] == "readings out of retention"]
    assert (said["committed"], said["earliest"], said["lost"]) == (300, 400, 100)
    assert service.metric("foreshock_readings_total") == 200
    assert service.get("/readyz")
    seen(f"log: committed 300, earliest 400, lost {said['lost']}; the 200 that were left are scored")


@pytest.mark.fault("a slow sink", expected="commits come late, the loop lives, nothing is lost or said twice")
def test_a_slow_sink_loses_nothing(broker: Broker, names: dict[str, str], services: NewService, seen: Said) -> None:
    service = services(broker.bootstrap, names, group="slow", settings={**MANY, "KAFKA__MAX_POLL_RECORDS": "300"})
    batch = stream(waves(9, 600), partitions=PARTITIONS)
    ends = produce(broker.bootstrap, names["readings"], batch)
    service.start("published:1:0.3")
    service.wait_until_committed(ends)
    assert service.get("/healthz")
    commits = service.metric("foreshock_commits_total")
    same = assert_undisturbed(service, batch)
    seen(f"{commits:.0f} commits, each 0.3 s longer; {same} alerts same")


@pytest.mark.fault(
    "a dead sink",
    expected="not ready, alive, reads a turn for each attempt at most; goes on by itself when it is back, nothing lost",
)
def test_a_dead_sink_is_waited_out_and_loses_nothing(
    broker: Broker, names: dict[str, str], services: NewService, in_long_form: bool, seen: Said
) -> None:
    seconds = 60.0 if in_long_form else 8.0
    dead = names["alerts"]
    service = services(broker.bootstrap, names, group="dead-sink", settings=EAGER)
    batch = stream(waves(9, 600), partitions=PARTITIONS)
    service.start()
    service.wait_until_ready()
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        admin.delete_topics([dead])  # nothing takes an alert any more
        ends = produce(broker.bootstrap, names["readings"], batch)
        wait_for("waits for the sink", 30, service.waiting_for)
        began, read = time.monotonic(), service.metric("foreshock_readings_total")
        while time.monotonic() - began < seconds:
            assert service.get("/healthz"), "it is not alive"
            assert service.get("/readyz") is None, "it is ready"
            time.sleep(0.5)
        wait_for("counts its attempts", 30, lambda: service.metric("foreshock_futile_commits_total"))
        read = service.metric("foreshock_readings_total") - read
        futile = service.metric("foreshock_futile_commits_total")
        assert read <= 40 * futile, "it read on"
        admin.create_topics({dead: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    back = time.monotonic()
    service.wait_until_committed(ends)
    took = time.monotonic() - back
    same = assert_undisturbed(service, batch)
    seen(
        f"dead for {seconds:.0f} s, {futile:.0f} attempts; everything committed {took:.1f} s after its return; "
        f"{same} alerts same"
    )


@pytest.mark.fault("a scrape every 100 ms during load", expected="every scrape is answered; no alert changes")
def test_a_scrape_every_100_ms_during_load_disturbs_nothing(
    broker: Broker, names: dict[str, str], services: NewService, seen: Said
) -> None:
    service = services(broker.bootstrap, names, group="scraped", settings=MANY)
    batch = stream(waves(60, 200), partitions=PARTITIONS)
    took: list[float] = []
    service.start()
    service.wait_until_ready()
    with producing(broker.bootstrap, names["readings"], batch, 4):
        until = time.monotonic() + 4
        while time.monotonic() < until:
            began = time.monotonic()
            assert service.get("/metrics"), "a scrape was not answered"
            took.append(time.monotonic() - began)
            time.sleep(max(0.1 - took[-1], 0))
    ends = {p: int((batch.partitions == p).sum()) for p in range(PARTITIONS)}
    service.wait_until_committed(ends)
    same = assert_undisturbed(service, batch)
    median, slowest = sorted(took)[len(took) // 2], max(took)
    seen(f"{len(took)} scrapes, median {median * 1e3:.0f} ms, slowest {slowest * 1e3:.0f} ms; {same} alerts same")


@pytest.mark.fault(
    "one of three brokers is killed, every topic in three copies",
    expected="the process lives, is ready again by itself; nothing lost, nothing twice",
)
def test_one_of_three_brokers_that_is_killed_loses_nothing(cluster: Cluster, services: NewService, seen: Said) -> None:
    service = services(cluster.bootstrap, OWN, settings=EAGER)
    batch = stream(waves(9, 600), partitions=PARTITIONS)
    service.start()
    service.wait_until_ready()
    with producing(cluster.bootstrap, OWN["readings"], batch, 8) as ends:
        time.sleep(3)
        with KafkaAdminClient(bootstrap_servers=cluster.bootstrap) as admin:
            (told,) = admin.describe_topics([OWN["alerts"]])
        cluster.nodes[told["partitions"][0]["leader_id"]].kill()  # which takes the alerts
    began = time.monotonic()
    service.wait_until_committed(ends)
    took = time.monotonic() - began
    assert service.process is not None
    assert service.process.poll() is None
    same = assert_undisturbed(service, batch)
    seen(f"the leader of the alerts killed; all committed {took:.1f} s after the last reading; {same} alerts same")
