"""Tags, keyed by whatever, to alerts on sensors of several channels: rekeyed, joined, killed on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pipeline import bundle
from pipeline.codecs import JSON
from pipeline.core.readings import Reading, Record
from pipeline.serving import serving
from pipeline.settings import load
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.models import model, stream, waves
from tests.service import Service, alerts, messages, saved

CHANNELS, SENSORS, ROWS, PARTITIONS = 3, 6, 300, 2
SETTINGS = {
    "MODEL__TAG": "(?P<sensor>.+)/(?P<channel>c[0-9])",
    "DETECTION__BUDGET": "1/100/sensor",
    "DETECTION__GAP": "false",  # told by the clock, where the stream ends
    "KAFKA__MAX_POLL_RECORDS": "40",
    "KAFKA__COMMIT_SECONDS": "0.1",
    "KAFKA__INSTANCE_ID": "foreshock-0",
    "CHECKPOINTS__EVERY_SECONDS": "0.1",
}


def records(bootstrap: str, topic: str) -> list[Record]:
    """Everything that is committed there."""
    with KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, isolation_level="read_committed") as consumer:
        tps = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(tps)
        consumer.seek_to_beginning()
        ends, found = consumer.end_offsets(tps), list[Record]()
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            for r in (r for of in consumer.poll(200).values() for r in of):
                found.append(Record(topic, r.partition, r.offset, r.timestamp * 1000, r.key, r.value, tuple(r.headers)))
        return found


@pytest.mark.kafka_only
def test_tags_are_joined_to_the_alerts_of_their_sensors_whatever_is_killed(
    broker: Broker, topics: NewTopics, tmp_path: Path
) -> None:
    (raw,), (readings,) = topics("raw"), topics("readings", partitions=PARTITIONS)
    told, dead = topics("alerts", "dead")
    saved(tmp_path / "models", model(CHANNELS))
    sent = stream(waves(SENSORS, ROWS, CHANNELS))
    with KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=20) as producer:
        for i, c in zip(*(at.tolist() for at in np.nonzero(np.isfinite(sent.values))), strict=True):
            reading = Reading(f"{sent.sensors[i]}/c{c}", int(sent.times[i]), {"value": float(sent.values[i, c])})
            producer.send(raw, JSON.encode(reading), timestamp_ms=reading.time // 1000)
    names = {"readings": readings, "alerts": told, "dead_letter": dead}
    service = Service(broker.bootstrap, tmp_path, names, group=f"joined-{told}", settings=SETTINGS)
    program = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "rekey", raw, readings, "--until-end"]
    subprocess.run(program, env=os.environ | service.environment(), check=True, capture_output=True)

    there = records(broker.bootstrap, readings)
    assert {r.key for r in there} == {f"s{sensor}".encode() for sensor in range(SENSORS)}
    groups = serving(load(None, service.environment()), bundle.load_all(tmp_path / "models")).groups()
    expected = {
        (alert.alert_id, alert.revision): (alert.kind, alert.start, alert.score, alert.evidence.last_offset)
        for alert, _ in groups.step(there).raised
    }
    assert len(expected) > SENSORS

    try:
        for point in ("stepped:30", "committed:9"):
            service.start(point)
            service.wait_until_killed()
        service.start()
        ends = {p: 1 + max(r.offset for r in there if r.partition == p) for p in range(PARTITIONS)}
        service.wait_until_committed({p: end + 1 for p, end in ends.items()})  # behind the end of the transaction
    finally:
        service.end()
    said = alerts(broker.bootstrap, told)
    assert {
        name: (alert.kind, alert.start, alert.score, alert.evidence.last_offset) for name, alert in said.items()
    } == expected
    assert messages(broker.bootstrap, dead) == []
