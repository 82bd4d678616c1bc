"""How long after it was due a reading's alert is visible, under an open loop: sending does not wait for the service.

Everything is on one machine, so the clocks agree: the service keeps to one core, and the broker, the sender and the
reader share what is left. What else runs there is in the figure.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from multiprocessing.queues import Queue
from typing import NamedTuple

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.asked import Asked
from benchmarks.cluster import COMPILED_SECONDS, KERNEL, Cluster, Progress, RungMissingError, cluster, one_core, singles
from benchmarks.figures import Figure, Goal
from benchmarks.fleets import SETTLED_SENSORS, Fleet
from pipeline.codecs.json import decode_alert
from pipeline.core.alerts import Kind, State
from tests.models import INTERVAL, START
from tests.service import Service

VISIBLE = Goal(250)
STEPPED = Goal(20)
WARM_SECONDS, LOAD_SECONDS = 15.0, 25.0  # the first seconds catch up with what came while nothing was warm
BACKLOG = 200_000  # readings, for the maximum rate
SPIKES = 2  # in 10,000 readings; an alert for most of them, and a transaction for each tenth of a second with any
HEIGHT = 60.0  # of a spike, in units of the signal, whose noise is 0.1
STEPS = "foreshock_step_seconds"
BEAT_SECONDS = 0.005  # of the sender
CLIENT = "kafka-python"
PATIENCE_SECONDS = 180.0


class Seen(NamedTuple):
    """An alert that opened, as the reader found it."""

    sensor: str
    reading: int  # µs, event time of the reading that raised it
    arrived: float  # s since 1970


@dataclass(frozen=True)
class Load:
    """What is sent: tick after tick a reading of every sensor, at a steady rate."""

    bootstrap: str
    topic: str
    names: Mapping[int, list[str]]  # partition -> sensors
    few: Fleet
    rate: float  # readings/s
    began: float  # s since 1970, when the first is due

    def due(self, sensor: str, reading: int) -> float:
        """When a reading was to be sent."""
        ticks = (reading - START) // INTERVAL - self.few.clock - 1
        return self.began + (ticks * len(self.places) + self.places[sensor]) / self.rate

    @cached_property
    def places(self) -> dict[str, int]:
        """Of a sensor, in a tick."""
        return {name: i for i, name in enumerate(chain.from_iterable(self.names.values()))}


def measure(asked: Asked) -> Iterator[Figure]:
    """Produced to visible to a read_committed reader, and the step alone."""
    name = "produced to visible, alerts, at half the maximum rate"
    try:
        with cluster(asked) as world:
            yield from _measured(world, name)
    except RungMissingError as why:
        yield Figure.missing(f"{name}, p99", "ms", VISIBLE, str(why))


def _measured(world: Cluster, name: str) -> Iterator[Figure]:
    rate = _most(world) / 2
    topic = world.readings()
    service = world.service(topic, CLIENT, "latency")
    with one_core():
        service.start()
    try:
        service.wait_until_ready(COMPILED_SECONDS)
        seen, load, steps = _under_load(world, service, rate)
        assert service.stop() == 0, service.log.read_text()[-3000:]
    finally:
        service.end()
    waits = [
        (one.arrived - due) * 1000
        for one in seen
        if (due := load.due(one.sensor, one.reading)) >= load.began + WARM_SECONDS
    ]
    assert len(waits) > 50, f"only {len(waits)} alerts were seen"
    p50, p99 = np.percentile(waits, [50, 99])
    remark = f"{len(waits)} alerts, median {p50:.0f} ms, at {rate:,.0f} readings/s, {CLIENT}, {KERNEL}"
    yield Figure(f"{name}, p99", float(p99), "ms", goal=VISIBLE, remark=remark)
    yield Figure("Detector.step of a turn then, p99", steps * 1000, "ms", goal=STEPPED)


def _most(world: Cluster) -> float:
    """Readings a second on the clock that the service takes from a backlog."""
    topic = world.readings()
    ends = world.fill(topic, BACKLOG)
    service = world.service(topic, CLIENT, "most")
    progress = Progress(service, world.asked.partitions)
    with one_core():
        service.start()
    try:
        first, began = progress.wait_beyond(0, PATIENCE_SECONDS), time.monotonic()
        whole = sum(ends.values()) - len(ends)
        progress.wait_beyond(whole - 1, PATIENCE_SECONDS)
        return (whole - first) / (time.monotonic() - began)
    finally:
        progress.close()
        service.end()


def _under_load(world: Cluster, service: Service, rate: float) -> tuple[list[Seen], Load, float]:
    """What was seen of which load, and the p99 of the steps once it was warm, s."""
    names = {partition: world.names(partition) for partition in range(world.asked.partitions)}
    load = Load(world.broker.bootstrap, service.topics["readings"], names, world.few, rate, time.time() + 3)
    spawn = multiprocessing.get_context("spawn")
    found: Queue[list[Seen]] = spawn.Queue()
    reader = spawn.Process(target=_read, args=(load, service.topics["alerts"], found))
    sender = spawn.Process(target=_send, args=(load,))
    reader.start()
    sender.start()
    time.sleep(max(load.began + WARM_SECONDS - time.time(), 0))
    warm = _buckets(service.get("/metrics"), STEPS)
    seen = found.get(timeout=WARM_SECONDS + LOAD_SECONDS + PATIENCE_SECONDS)
    reader.join()
    sender.join()
    assert sender.exitcode == 0, "the sender failed"
    since = {bound: count - warm.get(bound, 0) for bound, count in _buckets(service.get("/metrics"), STEPS).items()}
    return seen, load, _quantile(since, 0.99)


def _send(load: Load) -> None:
    """Each reading when it is due, however the service gets on."""
    producer = Producer({"bootstrap.servers": load.bootstrap, "linger.ms": 2})
    clock, sent, rng = load.few.clock, 0, np.random.default_rng(0)
    while time.time() < load.began + WARM_SECONDS + LOAD_SECONDS:
        clock += 1
        values = replace(load.few, clock=clock).values(range(SETTLED_SENSORS))[:, 0]
        for partition, names in load.names.items():
            own = values[np.arange(len(names)) % SETTLED_SENSORS].copy()
            own[rng.random(len(own)) < SPIKES / 10_000] += HEIGHT
            for key, value, _ in singles(names, own, clock):
                if sent % 64 == 0:
                    _wait_until(load.began + sent / load.rate, producer)
                producer.produce(load.topic, value, key, partition=partition)
                sent += 1
    producer.flush()


def _wait_until(due: float, producer: Producer) -> None:
    producer.poll(0)
    while (early := due - time.time()) > 0:
        time.sleep(min(early, BEAT_SECONDS))


def _read(load: Load, topic: str, found: Queue[list[Seen]]) -> None:
    """What a read_committed reader sees, and when, until the sender has long been quiet."""
    consumer = Consumer(
        {"bootstrap.servers": load.bootstrap, "group.id": "reader", "isolation.level": "read_committed",
         "enable.auto.commit": False, "fetch.wait.max.ms": 50}
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, 0, 0)])
    seen: list[Seen] = []
    while time.time() < load.began + WARM_SECONDS + LOAD_SECONDS + 2:
        message = consumer.poll(0.05)
        if message is None or message.error() is not None:
            continue
        arrived, alert = time.time(), decode_alert(message.value() or b"")
        if alert.state is State.FIRING and alert.revision == 1 and alert.kind is Kind.FORECAST:
            seen.append(Seen(alert.sensor, alert.last, arrived))
    consumer.close()
    found.put(seen)


def _buckets(metrics: str, name: str) -> dict[float, float]:
    """Of a histogram over all its labels: bound -> how many were at most that."""
    buckets: dict[float, float] = {}
    for line in metrics.splitlines():
        if line.startswith(f"{name}_bucket"):
            bound = float(line.partition('le="')[2].partition('"')[0])
            buckets[bound] = buckets.get(bound, 0.0) + float(line.rpartition(" ")[2])
    return buckets


def _quantile(buckets: dict[float, float], share: float) -> float:
    """As Prometheus interpolates it within a bucket."""
    wanted, low, below = share * buckets[float("inf")], 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= wanted:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / max(count - below, 1e-9)
        low, below = bound, count
    return low
