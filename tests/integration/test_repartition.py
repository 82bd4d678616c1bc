"""A topic is widened under a service: it stops, its state is moved by the command, and the alerts go on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from pipeline.codecs import JSON
from pipeline.core.alerts import Kind
from pipeline.core.readings import Reading, ReadingBatch
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.models import stream, waves
from tests.service import Service, alerts, saved

READINGS = stream(waves(8, 500))
HALF = len(READINGS) // 2
TICKS_SECONDS = 3.0


def produce_by_key(bootstrap: str, topic: str, batch: ReadingBatch) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20) as producer:
        for sensor, time_us, (value,) in zip(batch.sensors, batch.times.tolist(), batch.values.tolist(), strict=True):
            producer.send(topic, key=sensor.encode(), value=JSON.encode(Reading(sensor, time_us, {"c0": value})))


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    with KafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        tps = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        return {tp.partition: end for tp, end in consumer.end_offsets(tps).items()}


def said(broker: Broker, topic: str) -> set[object]:
    """Which alerts, and what they say of the signal; where the readings stood has changed."""
    return {
        (a.alert_id, a.revision, a.state, a.kind, a.start, a.last, a.score, a.threshold)
        for a in alerts(broker.bootstrap, topic).values()
        if a.kind is not Kind.GAP
    }


@pytest.mark.kafka_only
@pytest.mark.parametrize("store", ["folder", "topic"])
def test_a_topic_is_widened_and_no_alert_changes(broker: Broker, topics: NewTopics, tmp_path: Path, store: str) -> None:
    saved(tmp_path / "models")
    (readings,) = topics("readings", partitions=2)
    (kept,) = topics("checkpoints", partitions=3, **{"cleanup.policy": "compact"})
    told, dead, undisturbed = topics("alerts", "dead", "undisturbed")
    names = {"readings": readings, "alerts": told, "dead_letter": dead, "checkpoints": kept}
    service = Service(broker.bootstrap, tmp_path, names, group="moved", settings={"CHECKPOINTS__STORE": store})
    produce_by_key(broker.bootstrap, readings, READINGS.take(slice(0, HALF)))
    try:
        service.start()
        service.wait_until_committed(ends(broker.bootstrap, readings))
        assert service.stop() == 0
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
            admin.create_partitions({readings: 3})
        service.start()
        assert service.ended() == 1
        assert "has 3 partitions, its state was kept for 2" in service.log.read_text()

        moved = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "checkpoint", "repartition"],
            env=os.environ | service.environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert moved.returncode == 0, moved.stderr
        assert moved.stdout == "8 sensors in 3 partitions; start the service\n"
        produce_by_key(broker.bootstrap, readings, READINGS.take(slice(HALF, len(READINGS))))
        service.start()
        service.wait_until_committed(ends(broker.bootstrap, readings))
        time.sleep(TICKS_SECONDS)
    finally:
        service.end()

    (whole,) = topics("whole", partitions=3)
    produce_by_key(broker.bootstrap, whole, READINGS)
    reference = Service(
        broker.bootstrap, tmp_path, names | {"readings": whole, "alerts": undisturbed}, group="undisturbed",
        settings={"CHECKPOINTS__DIR": str(tmp_path / "others")},
    )  # fmt: skip
    try:
        reference.start()
        reference.wait_until_committed(ends(broker.bootstrap, whole))
        time.sleep(TICKS_SECONDS)
    finally:
        reference.end()
    expected = said(broker, undisturbed)
    assert len(expected) > 10
    assert said(broker, told) == expected
