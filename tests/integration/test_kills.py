"""kill -9 at every named point of the turn, on Apache Kafka: what a read_committed reader finds does not change."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from pipeline.core.alerts import Alert
from pipeline.testing import POINTS
from tests.brokers import Broker
from tests.conftest import NewTopics, fresh_topics
from tests.faults import Said
from tests.models import stream, waves
from tests.service import Service, alerts, messages, produce, saved

PARTITIONS = 3
PASSES = (2,)  # each service that follows is killed when it passes the point so often; more belong into a long run
TICKS_SECONDS = 3.0  # for who is silent at the end to be noticed
SETTINGS = {
    "DETECTION__BUDGET": "1/100/sensor",  # many alerts: state that is lost anywhere changes a third of them
    "DETECTION__CATCHUP_AFTER_SECONDS": "86400",  # however long these tests take, the stream is not old
}
NONSENSE = (b"{", b"[]", b'{"sensor":"s0"}')


@dataclass(frozen=True)
class Undisturbed:
    """A stream, and what a service says of it that nobody disturbs."""

    topic: str
    ends: dict[int, int]
    alerts: dict[tuple[str, int], Alert]
    dead: list[bytes]


@pytest.fixture(scope="module")
def undisturbed(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    if not broker.is_apache_kafka:
        pytest.skip("needs Apache Kafka")
    folder = tmp_path_factory.mktemp("undisturbed")
    saved(folder / "models")
    with fresh_topics(broker) as topics:
        (readings,) = topics("readings", partitions=PARTITIONS)
        told, dead = topics("alerts", "dead")
        sent = stream(waves(9, 600), partitions=PARTITIONS, dropped=0.02)
        ends = produce(broker.bootstrap, readings, sent, nonsense=NONSENSE)
        names = {"readings": readings, "alerts": told, "dead_letter": dead}
        service = Service(broker.bootstrap, folder, names, group=f"undisturbed-{readings}", settings=SETTINGS)
        service.start()
        try:
            service.wait_until_committed(ends)
            time.sleep(TICKS_SECONDS)
        finally:
            service.end()
        said = alerts(broker.bootstrap, told)
        assert {alert.kind.value for alert in said.values()} >= {"forecast", "stuck", "gap"}
        yield Undisturbed(readings, ends, said, sorted(messages(broker.bootstrap, dead)))


@pytest.fixture
def service(broker: Broker, topics: NewTopics, undisturbed: Undisturbed, tmp_path: Path) -> Iterator[Service]:
    """One that is to be killed."""
    saved(tmp_path / "models")
    told, dead = topics("alerts", "dead")
    (kept,) = topics("checkpoints", partitions=PARTITIONS, **{"cleanup.policy": "compact"})
    settings = {
        "KAFKA__MAX_POLL_RECORDS": "40",
        "KAFKA__COMMIT_SECONDS": "0.1",
        "KAFKA__INSTANCE_ID": "foreshock-0",
        "CHECKPOINTS__EVERY_SECONDS": "0.1",
        **SETTINGS,
    }
    names = {"readings": undisturbed.topic, "alerts": told, "dead_letter": dead, "checkpoints": kept}
    service = Service(broker.bootstrap, tmp_path, names, group=f"killed-{told}", settings=settings)
    yield service
    service.end()


@pytest.mark.kafka_only
@pytest.mark.fault(
    "kill -9 when `{point}` is passed, checkpoints in the {store}, {client}", expected="missing 0, spurious 0, twice 0"
)
@pytest.mark.parametrize(
    ("point", "store", "client"),
    [*((point, "folder", "kafka-python") for point in POINTS), ("committed", "topic", "kafka-python"),
     ("mid-checkpoint", "topic", "kafka-python"), ("mid-restore", "topic", "kafka-python"),
     ("mid-checkpoint", "topic", "librdkafka")],
)  # fmt: skip
def test_a_kill_at_this_point_loses_nothing_and_says_nothing_twice(
    undisturbed: Undisturbed, service: Service, point: str, store: str, client: str, seen: Said
) -> None:
    service.settings = {**service.settings, "CHECKPOINTS__STORE": store, "KAFKA__CLIENT": client}
    service.start("stepped:60")  # a fifth of the stream; it leaves checkpoints to restore from
    service.wait_until_killed()
    for passes in PASSES:
        assert 0 < _committed(service) < sum(undisturbed.ends.values()), "the kill came before or after everything"
        service.start(f"{point}:{passes}")
        service.wait_until_killed()
    said = _finished(service, undisturbed)
    assert (undisturbed.alerts.keys() - said.keys(), said.keys() - undisturbed.alerts.keys()) == (set(), set())
    assert said == undisturbed.alerts
    assert sorted(messages(service.bootstrap, service.topics["dead_letter"])) == undisturbed.dead
    assert len(undisturbed.dead) == PARTITIONS * len(NONSENSE)
    seen(f"{1 + len(PASSES)} kills; {len(said)} alerts and {len(undisturbed.dead)} dead letters same")


@pytest.mark.kafka_only
def test_without_its_checkpoints_a_service_that_is_killed_does_say_something_else(
    undisturbed: Undisturbed, service: Service
) -> None:
    """The test above can fail."""
    service.start("stepped:60")
    service.wait_until_killed()
    assert _committed(service) < sum(undisturbed.ends.values())
    shutil.rmtree(service.folder / "checkpoints")
    assert _finished(service, undisturbed) != undisturbed.alerts


def _finished(service: Service, undisturbed: Undisturbed) -> dict[tuple[str, int], Alert]:
    service.start()
    service.wait_until_committed(undisturbed.ends)
    time.sleep(TICKS_SECONDS)
    return alerts(service.bootstrap, service.topics["alerts"])


def _committed(service: Service) -> int:
    """Readings."""
    with KafkaConsumer(bootstrap_servers=service.bootstrap, group_id=service.group) as consumer:
        topic = service.topics["readings"]
        return sum(consumer.committed(TopicPartition(topic, p)) or 0 for p in range(PARTITIONS))
