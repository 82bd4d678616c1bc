"""One topic of readings on Apache Kafka, and what a service says of it that nobody disturbs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kafka import KafkaProducer

from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.models import stream, waves
from tests.service import Service, keyed, saved

TICKS_SECONDS = 3.0  # for who is silent at the end to be noticed
SEND_AT_ONCE = 2_000  # messages
NONSENSE = (b"{", b"[]", b'{"sensor":"s0"}')
NONSENSE_EVERY = 2_500  # readings
DROPPED = 0.005  # of the readings, in runs, which makes gaps
SETTINGS = {
    "DETECTION__BUDGET": "1/1000/sensor",  # many alerts, so that state which is lost anywhere changes some of them
    "DETECTION__CATCHUP_AFTER_SECONDS": "86400",  # however long this takes, the stream is not old
}


class Size(NamedTuple):
    """How much of everything."""

    kills: int = 104
    readings: int = 1_000_000
    sensors: int = 200
    partitions: int = 6
    members: int = 3
    pause: float = 4.5  # s between two kills, about


class Stream:
    """Readings with jumps, stuck values, gaps and nonsense among them, on their way into their topic."""

    def __init__(self, bootstrap: str, topic: str, size: Size) -> None:
        rows = round(size.readings / size.sensors * (1 + 2 * DROPPED)) + 1
        self.batch = stream(waves(size.sensors, rows), partitions=size.partitions, dropped=DROPPED)
        self.ends: dict[int, int] = {}  # partition -> offset behind its last message
        self.sent = 0  # readings
        self._topic, self._producer = topic, KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20)

    @property
    def is_sent(self) -> bool:
        """All of it."""
        return self.sent == len(self.batch)

    def send_until(self, share: float) -> None:
        """Up to that share of the readings, but for what would take long in one go."""
        due = min(round(share * len(self.batch)), self.sent + SEND_AT_ONCE)
        for i in range(self.sent, due):
            message = keyed(self.batch, i)
            self._send(message)
            if i % NONSENSE_EVERY == 0:
                self._send({"value": NONSENSE[i // NONSENSE_EVERY % len(NONSENSE)], "partition": message["partition"]})
        self.sent = max(self.sent, due)

    def close(self) -> None:
        """Whatever was sent is stored."""
        self._producer.close()

    def _send(self, message: Mapping[str, object]) -> None:
        self._producer.send(self._topic, **message)
        partition = message["partition"]
        assert isinstance(partition, int)
        self.ends[partition] = self.ends.get(partition, 0) + 1


@dataclass
class World:
    """A broker, a topic of readings, a model, and a folder for everything that services leave."""

    broker: Broker
    topics: NewTopics
    folder: Path
    size: Size
    kernel: str = "numpy"  # of every service
    stream: Stream = field(init=False)
    readings: str = field(init=False)  # their topic

    def __post_init__(self) -> None:
        (self.readings,) = self.topics("readings", partitions=self.size.partitions)
        self.stream = Stream(self.broker.bootstrap, self.readings, self.size)
        saved(self.folder / "models")

    def outputs(self) -> dict[str, str]:
        """The topics of a group of its own."""
        told, dead = self.topics("alerts", "dead")
        (kept,) = self.topics("checkpoints", partitions=self.size.partitions, **{"cleanup.policy": "compact"})
        return {"readings": self.readings, "alerts": told, "dead_letter": dead, "checkpoints": kept}

    def service(self, group: str, member: str, outputs: Mapping[str, str], settings: Mapping[str, str]) -> Service:
        """One that is not started yet; its group shares a folder of checkpoints."""
        folder = self.folder / group / member
        folder.mkdir(parents=True)
        shared = {"MODEL__DIR": str(self.folder / "models"), "CHECKPOINTS__DIR": str(folder.parent / "checkpoints")}
        settings = {**SETTINGS, **shared, "KERNEL": self.kernel, **settings}
        return Service(self.broker.bootstrap, folder, outputs, group=group, settings=settings)

    def undisturbed(self, patience_seconds: float) -> dict[str, str]:
        """One service reads everything that was sent; the topics with what it says."""
        outputs = self.outputs()
        service = self.service(f"undisturbed-{self.readings}", "alone", outputs, {})
        service.start()
        try:
            service.wait_until_committed(self.stream.ends, patience_seconds)
            time.sleep(TICKS_SECONDS)
            assert service.stop() == 0, service.log.read_text()[-3000:]
        finally:
            service.end()
        return outputs
