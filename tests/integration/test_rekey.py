"""A topic that was keyed otherwise, written anew: each message once, in its sensor's own partition, in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pipeline.adapters.embedded import Leash
from pipeline.adapters.kafka_group import place_of
from pipeline.codecs import JSON
from pipeline.codecs.batch_json import JsonBatches
from pipeline.codecs.events import encode_retirement
from pipeline.core.readings import Reading
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.models import START
from tests.service import Service, messages, wait_for

SENSORS, ROWS, WIDE = 7, 600, 3
TARGET_PARTITIONS = 5


def read(bootstrap: str, topic: str) -> list[tuple[int, bytes, bytes, int]]:
    """Everything committed, (partition, key, value, timestamp), each partition in its order."""
    with KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, isolation_level="read_committed"
    ) as consumer:
        tps = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(tps)
        consumer.seek_to_beginning()
        ends, found = consumer.end_offsets(tps), []
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            found += [
                (r.partition, r.key, r.value, r.timestamp) for of in consumer.poll(200).values() for r in of
            ]  # fmt: skip
        return found


def rekey(broker: Broker, names: dict[str, str], folder: Path, *words: str) -> subprocess.Popen[bytes]:
    small = {"KAFKA__COMMIT_SECONDS": "0.1", "KAFKA__MAX_POLL_RECORDS": "50", "KAFKA__INSTANCE_ID": "rekey-0"}
    topics = {name: topic for name, topic in names.items() if name != "origin"}
    environment = Service(broker.bootstrap, folder, topics, settings=small).environment()
    program = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "rekey", names["origin"], names["readings"]]
    return subprocess.Popen(
        [*program, *words], env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.kafka_only
def test_every_message_goes_over_once_though_the_rekeying_is_killed(
    broker: Broker, topics: NewTopics, tmp_path: Path
) -> None:
    (origin,), (readings,) = topics("tags", partitions=WIDE), topics("rekeyed", partitions=TARGET_PARTITIONS)
    told, dead = topics("alerts", "dead")
    names = {"readings": readings, "alerts": told, "dead_letter": dead}
    with KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=origin) as producer:
        producer.init_transactions()
        producer.begin_transaction()  # whose end stands in each partition, and is no message
        for i in range(ROWS):
            sensor = i % SENSORS
            value = JSON.encode(Reading(f"s{sensor}", START + i, {"c0": float(i)}))
            stamp = START // 1000 + i
            producer.send(origin, value, key=b"some gateway", partition=sensor % WIDE, timestamp_ms=stamp)
        several = b'{"sensor":["s0","s1"],"time":[1795347600000,1795347600000],"value":[1.5,2.5]}'
        producer.send(origin, several, partition=0, headers=[("content-type", JsonBatches.content_type.encode())])
        producer.send(origin, b"{", partition=1)
        value, headers = encode_retirement("s1")
        producer.send(origin, value, partition=1, headers=headers)
        producer.commit_transaction()

    words = {**names, "origin": origin}
    killed = rekey(broker, words, tmp_path)
    leash = Leash(killed)
    wait_for("a first commit", 60, lambda: read(broker.bootstrap, readings))
    killed.kill()
    killed.communicate()
    leash.release()
    done = rekey(broker, words, tmp_path, "--until-end")
    output, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors

    found = read(broker.bootstrap, readings)
    for partition, key, _, _ in found:
        assert partition == place_of(key, TARGET_PARTITIONS)
    for sensor in range(SENSORS):
        ours = [(json.loads(value), stamp) for _, key, value, stamp in found if key == f"s{sensor}".encode()]
        whole = [(said["values"]["c0"], stamp) for said, stamp in ours if "values" in said]
        assert whole == [(i, START // 1000 + i) for i in range(sensor, ROWS, SENSORS)]
        assert [said["event"] for said, _ in ours if "event" in said] == ["retire"] * (sensor == 1)
        assert [said["value"] for said, _ in ours if "value" in said] == {0: [1.5], 1: [2.5]}.get(sensor, [])
    assert len(found) == ROWS + 3
    assert len(messages(broker.bootstrap, dead)) == 1
    assert b"1 refused" in output or b"0 refused" in output, "by whichever of the two came to it"
    assert b"messages," in errors
