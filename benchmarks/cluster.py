"""Apache Kafka with a fleet that has long been running: its bundle, its checkpoints, messages of its readings."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from benchmarks.asked import Asked
from benchmarks.fleets import SETTLED_SENSORS, Fleet, known
from benchmarks.fleets import kernel as compiled
from pipeline import bundle
from pipeline.adapters.checkpoints import FolderCheckpoints
from pipeline.app import kernel
from pipeline.codecs import CONTENT_TYPE, MSGPACK_BATCHES
from pipeline.core.detector import Detector
from pipeline.core.table import Arrays
from pipeline.ports import Checkpoint, Position
from pipeline.serving import serving
from pipeline.settings import load
from tests.brokers import Broker, BrokerRequiredError, kafka_from_jars, outside_cluster
from tests.brokers import RungMissingError as RungMissingError
from tests.conftest import NewTopics, fresh_topics
from tests.models import INTERVAL, START
from tests.service import Service, saved

CORE = 0  # the service's, while the broker has what is left
ALARMING = 600  # readings, after which a sensor of this model is judged like one that has always been there
FIRST = 1  # offset of the first reading: what is before it has been committed
KERNEL = "numpy" if compiled()[0] is None else "numba"  # the better that is installed, as a service would have it
COMPILED_SECONDS = 300.0  # at most, until a service is ready that has to compile its kernel, on a busy machine
TICKS = os.sysconf("SC_CLK_TCK")


def broker() -> Broker:
    """The cluster that KAFKA_BOOTSTRAP_SERVERS names, or a node of our own; RungMissingError where there is none."""
    if outside := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        try:
            return outside_cluster(outside)
        except BrokerRequiredError as why:
            raise RungMissingError(str(why)) from why
    return kafka_from_jars()


@dataclass
class Cluster:
    """A broker and the fleet's bundle; the fleet's sensors are spread evenly over the partitions."""

    broker: Broker
    topics: NewTopics
    folder: Path
    asked: Asked
    few: Fleet = field(init=False)
    state: Arrays = field(init=False)  # of the few

    def __post_init__(self) -> None:
        saved(self.folder / "models", known(self.asked.sensors, 1, self.asked.hidden))
        (self.model,) = bundle.load_all(self.folder / "models").values()
        self.few = replace(Fleet.of(SETTLED_SENSORS, 1, self.asked.hidden), model=self.model)
        detector = Detector(self.model)
        for _ in range(ALARMING):
            self.few.tick()
            detector.step(self.few.row(range(SETTLED_SENSORS)))
        self.state = detector.snapshot(0)

    def readings(self) -> str:
        """A topic with one message in each partition, which is committed already."""
        (topic,) = self.topics("readings", partitions=self.asked.partitions)
        producer = self.producer()
        for partition in range(self.asked.partitions):
            producer.produce(topic, b"{}", partition=partition)
        producer.flush()
        return topic

    def producer(self, **others: Any) -> Producer:
        """What fills topics: the fast client, whoever reads them."""
        wanted = {"bootstrap.servers": self.broker.bootstrap, "linger.ms": 20, "partitioner": "murmur2_random"}
        return Producer({**wanted, "queue.buffering.max.messages": 1_000_000, **others})

    def service(self, topic: str, client: str, name: str, **others: str) -> Service:
        """One whose group has committed the first message of each partition, with the fleet's state until there."""
        told, dead = self.topics("alerts", "dead")
        folder, group = self.folder / name, f"{name}-{topic}"
        folder.mkdir()
        settings = {
            "KAFKA__CLIENT": client,
            "MODEL__DIR": str(self.folder / "models"),
            "KERNEL": KERNEL,
            "DETECTION__GAP": "false",  # event time runs faster than the clock on the wall
            "KAFKA__SESSION_TIMEOUT_SECONDS": "45",
            "KAFKA__HEARTBEAT_SECONDS": "3",
            **others,
        }
        names = {"readings": topic, "alerts": told, "dead_letter": dead}
        service = Service(self.broker.bootstrap, folder, names, group=group, settings=settings)
        self._keep(service, topic)
        return service

    def _keep(self, service: Service, topic: str) -> None:
        """Checkpoints that the service takes for its own, and the positions they go with."""
        kept, width = FolderCheckpoints(service.folder / "checkpoints"), self.asked.partitions
        models = {self.model.group: self.model}
        settings = load(None, service.environment())
        rules, made_by = serving(settings, models).fingerprint, kernel(settings)
        hashes, until = {self.model.group: self.model.ref.sha256}, START + self.few.clock * INTERVAL
        for partition in range(width):
            names = self.names(partition)
            which = np.arange(len(names)) % SETTLED_SENSORS
            of_it = {column: array[which] for column, array in self.state.items()}
            state = {self.model.group: of_it | {"names": np.array(names, np.bytes_)}}
            kept.save(Checkpoint(topic, partition, Position(FIRST), until, hashes, rules, state, width, made_by))
        with KafkaConsumer(bootstrap_servers=self.broker.bootstrap, group_id=service.group) as consumer:
            consumer.commit({TopicPartition(topic, p): OffsetAndMetadata(FIRST, "", -1) for p in range(width)})

    def names(self, partition: int) -> list[str]:
        """The sensors of a partition."""
        return [f"s{i}" for i in range(partition, self.asked.sensors, self.asked.partitions)]

    def fill(self, topic: str, readings: int, batch: int = 1) -> Mapping[int, int]:
        """So many readings of the fleet, `batch` to a message; the ends of the partitions."""
        producer, width = self.producer(), self.asked.partitions
        ends, sent, clock = dict.fromkeys(range(width), FIRST), 0, self.few.clock
        names = {partition: self.names(partition) for partition in range(width)}
        while sent < readings:
            clock += 1
            values = replace(self.few, clock=clock).values(range(SETTLED_SENSORS))[:, 0]
            for partition, of_it in names.items():
                own = values[np.arange(len(of_it)) % SETTLED_SENSORS]
                made = singles(of_it, own, clock) if batch == 1 else batches(of_it, own, clock, batch)
                for key, value, headers in made:
                    producer.produce(topic, value, key, partition=partition, headers=headers)
                    ends[partition] += 1
                sent += len(of_it)
                producer.poll(0)
        producer.flush()
        return ends


def singles(names: list[str], values: np.ndarray, clock: int) -> Iterator[tuple[bytes, bytes, Any]]:
    """One JSON message for each."""
    time_ms = (START + clock * INTERVAL) // 1000
    for name, value in zip(names, values.tolist(), strict=True):
        yield (
            name.encode(),
            b'{"sensor":"%s","time":%d,"values":{"c0":%.6f}}' % (name.encode(), time_ms, value),
            None,
        )


def batches(names: list[str], values: np.ndarray, clock: int, size: int) -> Iterator[tuple[None, bytes, Any]]:
    """MessagePack around raw arrays."""
    headers = [(CONTENT_TYPE, MSGPACK_BATCHES.content_type.encode())]
    for first in range(0, len(names), size):
        own, of_own = names[first : first + size], values[first : first + size].astype(np.float32)
        times = np.full(len(own), START + clock * INTERVAL)
        yield None, MSGPACK_BATCHES.encode(own, times, {"c0": of_own}), headers


@contextmanager
def cluster(asked: Asked) -> Iterator[Cluster]:
    """RungMissingError where no Apache Kafka is to be had."""
    found = broker()
    try:
        with tempfile.TemporaryDirectory() as folder, fresh_topics(found) as topics:
            yield Cluster(found, topics, Path(folder), asked)
    finally:
        found.stop()


@contextmanager
def one_core() -> Iterator[None]:
    """Whatever is started here keeps to one core."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def processor_seconds(process: int) -> float:
    """That a process has taken, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Progress:
    """What a service's group has committed, by and by."""

    def __init__(self, service: Service, partitions: int) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=service.bootstrap, group_id=service.group)
        self._tps = [TopicPartition(service.topics["readings"], p) for p in range(partitions)]

    def committed(self) -> int:
        """Messages, beyond what was committed before the service started."""
        return sum((self._consumer.committed(tp) or FIRST) - FIRST for tp in self._tps)

    def wait_beyond(self, messages: int, seconds: float) -> int:
        """Until so many are committed; how many there were then."""
        deadline = time.monotonic() + seconds
        while (found := self.committed()) <= messages:
            assert time.monotonic() < deadline, f"{found} messages are committed, more than {messages} are wanted"
            time.sleep(0.02)
        return found

    def close(self) -> None:
        """Let go."""
        self._consumer.close(autocommit=False)
