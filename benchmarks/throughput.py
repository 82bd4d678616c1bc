"""The whole service on Apache Kafka beside what its client needs to receive the same messages.

Rates are a second of processor time, all threads of the process together: what one core would do that has nothing else
to do. The broker and whatever else runs on the machine are not in them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place
from kafka import KafkaConsumer, TopicPartition

from benchmarks.asked import Asked
from benchmarks.cluster import FIRST, KERNEL, Cluster, Progress, RungMissingError, cluster, one_core, processor_seconds
from benchmarks.figures import Beside, Figure, Goal, Measured
from benchmarks.parts import apart
from pipeline.adapters import kafka, librdkafka
from pipeline.adapters.kafka_member import FETCH_BYTES
from pipeline.app import YOUNG_OBJECTS
from pipeline.codecs import decode_frames
from pipeline.core.readings import Record

MOST = 5000  # messages of a poll, as `kafka.max_poll_records`
MOST_RUNS = 2  # of a service, which takes its time to start
PATIENCE_SECONDS = 180.0
PER_SECOND = "readings/s"
BATCH, BACKLOG = 500, 8  # readings of a message; times as many readings as one a message
BATCHES_OF_POLL = "100"  # messages: as many readings as a poll of single ones has, or ten times as many
OF_POLL = Goal(0.55, at_most=False)
LIBRDKAFKA = Goal(150_000, at_most=False)
OF_DECODE = Goal(0.35, at_most=False)
BATCHES = Goal(250_000, at_most=False)
NAMES = {
    "kafka-python": "kafka-python, JSON, one reading a message",
    "librdkafka": "librdkafka, JSON, one reading a message",
    "batches": f"kafka-python, batches of {BATCH} readings",
}


class Cost(NamedTuple):
    """Readings a second: of processor time, and on the clock."""

    rate: float
    clock: float


def measure(asked: Asked) -> Iterator[Figure]:
    """Service and bare client on the same messages."""
    try:
        with cluster(asked) as world:
            yield from _measured(world, asked)
    except RungMissingError as why:
        for name, goal in zip(NAMES.values(), (None, LIBRDKAFKA, BATCHES), strict=True):
            yield Figure.missing(f"service, {name}", PER_SECOND, goal, str(why))


def _measured(world: Cluster, asked: Asked) -> Iterator[Figure]:
    topic = world.readings()
    ends = world.fill(topic, asked.readings)
    messages = sum(ends.values()) - FIRST * len(ends)
    told = (world.broker.bootstrap, topic, asked.partitions, messages)
    for client in ("kafka-python", "librdkafka"):
        name = NAMES[client]
        polled = Measured.of([apart(_bare, client, False, *told) for _ in range(asked.repeats)])
        decoded = Measured.of([apart(_bare, client, True, *told) for _ in range(asked.repeats)])
        costs = [
            _service(world, client, topic, messages, f"{client}-{i}", 1) for i in range(min(asked.repeats, MOST_RUNS))
        ]
        rate = Measured.of([cost.rate for cost in costs])
        clock = Measured.of([cost.clock for cost in costs])
        goal, remark = (LIBRDKAFKA if client == "librdkafka" else None), _remark(clock)
        beside = Beside("poll + decode", decoded.value)
        yield Figure.of(f"service, {name}", rate, PER_SECOND, goal, beside, remark=remark)
        yield Figure.of(f"bare poll, {name}", polled, PER_SECOND)
        if client == "kafka-python":
            of_poll = Measured(rate.value / polled.value, max(rate.spread, polled.spread))
            yield Figure.of("service over bare poll, kafka-python", of_poll, "", OF_POLL)
        else:
            of_decode = Measured(rate.value / decoded.value, max(rate.spread, decoded.spread))
            yield Figure.of("service over poll + decode, librdkafka", of_decode, "", OF_DECODE)
    yield from _batches(world, asked)


def _batches(world: Cluster, asked: Asked) -> Iterator[Figure]:
    topic = world.readings()
    readings = BACKLOG * asked.readings
    ends = world.fill(topic, readings, BATCH)
    messages = sum(ends.values()) - FIRST * len(ends)
    size = readings / messages
    told = ("kafka-python", True, world.broker.bootstrap, topic, asked.partitions, messages)
    decoded = Measured.of([apart(_bare, *told) for _ in range(asked.repeats)]).times(size)
    costs = [
        _service(world, "kafka-python", topic, messages, f"batches-{i}", size)
        for i in range(min(asked.repeats, MOST_RUNS))
    ]
    rate = Measured.of([cost.rate for cost in costs])
    clock = Measured.of([cost.clock for cost in costs])
    remark = _remark(clock)
    beside = Beside("poll + decode", decoded.value)
    yield Figure.of(f"service, {NAMES['batches']}", rate, PER_SECOND, BATCHES, beside, remark=remark)


def _remark(clock: Measured) -> str:
    return f"{KERNEL}; {clock.value:,.0f} on the clock, one core"


def _service(world: Cluster, client: str, topic: str, messages: int, name: str, size: float) -> Cost:
    """From the first commit to the last: transactions, checkpoints, metrics and all."""
    most = str(MOST) if size == 1 else BATCHES_OF_POLL
    service = world.service(topic, client, name, CHECKPOINTS__EVERY_SECONDS="10", KAFKA__MAX_POLL_RECORDS=most)
    progress = Progress(service, world.asked.partitions)
    with one_core():
        service.start()
    try:
        assert service.process is not None
        process = service.process.pid
        first = progress.wait_beyond(0, PATIENCE_SECONDS)
        before, began = processor_seconds(process), time.monotonic()
        progress.wait_beyond(messages - 1, PATIENCE_SECONDS)
        taken, waited = processor_seconds(process) - before, time.monotonic() - began
        assert service.stop() == 0, service.log.read_text()[-3000:]
    finally:
        progress.close()
        service.end()
    return Cost((messages - first) * size / taken, (messages - first) * size / waited)


def _bare(client: str, decode: bool, bootstrap: str, topic: str, partitions: int, messages: int) -> float:
    """Messages a second of processor time: received, and decoded if asked."""
    poll, left = (
        {"kafka-python": _kafka_python, "librdkafka": _librdkafka}[client](bootstrap, topic, partitions),
        messages,
    )
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)  # as the service has it
    while not (found := poll(decode)):
        pass
    began, left = time.process_time(), left - len(found)
    counted = left
    while left > 0:
        found = poll(decode)
        if decode and found:
            decode_frames(found)
        left -= len(found)
    return counted / (time.process_time() - began)


def _kafka_python(bootstrap: str, topic: str, partitions: int) -> Callable[[bool], list[Any]]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_poll_records=MOST,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    places = [TopicPartition(topic, partition) for partition in range(partitions)]
    consumer.assign(places)
    for place in places:
        consumer.seek(place, FIRST)

    def poll(as_records: bool) -> list[Any]:
        polled = consumer.poll(timeout_ms=500)
        if not as_records:
            return [r for found in polled.values() for r in found]
        return [record for tp, found in polled.items() for record in kafka.records(tp, found)]

    return poll


def _librdkafka(bootstrap: str, topic: str, partitions: int) -> Callable[[bool], list[Any]]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            **librdkafka.FETCHING,
        }
    )
    consumer.assign([Place(topic, partition, FIRST) for partition in range(partitions)])

    def poll(as_records: bool) -> list[Any]:
        found = consumer.consume(MOST, 0) or consumer.consume(1, 0.5)
        return found if not as_records else _as_records(topic, found)

    return poll


def _as_records(topic: str, messages: list[Any]) -> list[Record]:
    return librdkafka.records(topic, messages)
