"""From the start of the process until `/readyz` says yes: on Apache Kafka, with next to nothing to restore."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.asked import Asked
from benchmarks.cluster import COMPILED_SECONDS, KERNEL, Cluster, RungMissingError, cluster, processor_seconds
from benchmarks.figures import Figure, Goal, Measured

READY = Goal(2)
CLIENTS = ("kafka-python", "librdkafka")


def measure(asked: Asked) -> Iterator[Figure]:
    """Seconds on the clock, and of processor time, as a service starts by default and with the compiled form."""
    try:
        with cluster(replace(asked, sensors=asked.partitions)) as world:
            for form in sorted({"numpy", KERNEL}, reverse=True):
                for client in CLIENTS:
                    took = [_started(world, client, f"{client}-{form}-{i}", form) for i in range(asked.repeats)]
                    processor = Measured.of([cpu for _, cpu in took])
                    remark = f"{processor.value:.2g} s of processor time; group.initial.rebalance.delay.ms is 0"
                    clock = Measured.of([clock for clock, _ in took])
                    yield Figure.of(f"start to ready, {client}, {form}", clock, "s", READY, remark=remark)
    except RungMissingError as why:
        yield Figure.missing("start to ready", "s", READY, str(why))


def _started(world: Cluster, client: str, name: str, form: str) -> tuple[float, float]:
    service = world.service(world.readings(), client, name, KERNEL=form)
    began = time.monotonic()
    service.start()
    try:
        service.wait_until_ready(COMPILED_SECONDS)
        clock = time.monotonic() - began
        assert service.process is not None
        taken = processor_seconds(service.process.pid)
        service.stop()
    finally:
        service.end()
    return clock, taken
