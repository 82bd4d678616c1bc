"""A broker in this process: the source and sink that tests script, kept to the same contract as the real ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from pipeline.core.alerts import Alert
from pipeline.core.readings import SECOND, Record, Rejected
from pipeline.ports import TURN_BYTES, Assigned, Outputs, Polled, Position, Scored

START_EARLIEST, START_LATEST = "earliest", "latest"


@dataclass(slots=True)
class MemoryBroker:
    """One topic of readings, what was published, and what was committed; outlives the sources and sinks on it."""

    topic: str = "sensor.readings"
    partitions: int = 1
    records: dict[int, list[Record]] = field(default_factory=dict)
    committed: dict[int, Position] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    dead_letters: list[Rejected] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    reachable: bool = True

    def produce(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = 0,
        headers: tuple[tuple[str, bytes], ...] = (),
        timestamp: int | None = None,  # µs; now, if not given
    ) -> int:
        """Append a message and return its offset."""
        log = self.records.setdefault(partition, [])
        stamp = int(time.time() * SECOND) if timestamp is None else timestamp
        log.append(Record(self.topic, partition, len(log), stamp, key, value, headers))
        return len(log) - 1

    def end(self, partition: int) -> int:
        """The offset behind the last message."""
        return len(self.records.get(partition, ()))


class MemorySource:
    """Reads a MemoryBroker. It holds every partition from the first poll on; `give_up` and `take` script the rest."""

    def __init__(self, broker: MemoryBroker, start: str | int = START_EARLIEST, most_records: int = 5000) -> None:
        """`start`: earliest, latest or a time (µs) for partitions that nobody has committed."""
        self.broker, self.start_at, self.most_records = broker, start, most_records
        self.closed = False
        self._positions: dict[int, int] = {}
        self._paused: set[int] = set()
        self._coming = set(range(broker.partitions))
        self._going: set[int] = set()
        self._lost: set[int] = set()

    def give_up(self, *partitions: int) -> None:
        """Another member asks for these partitions."""
        self._going |= set(partitions)

    def lose(self, *partitions: int) -> None:
        """Another member has these partitions already: this one was taken for dead."""
        self._lost |= set(partitions)

    def take(self, *partitions: int) -> None:
        """These partitions come to this member."""
        self._coming |= set(partitions)

    def poll(self, timeout_seconds: float) -> Polled:
        """Whatever is there; never waits."""
        del timeout_seconds
        if not self.broker.reachable:
            return Polled(reachable=False)
        going, lost = frozenset(self._going), frozenset(self._lost)
        self._going, self._lost = set(), set()
        for partition in going | lost:
            self._positions.pop(partition, None)
            self._paused.discard(partition)
        # What is given up is committed only after this poll; whoever takes it has to see that commit.
        coming = set() if going | lost else self._coming
        assigned = [self._assign(partition) for partition in sorted(coming)]
        self._coming -= coming
        records = self._read()
        started = self._positions.keys() - self._paused
        positions = {partition: self._positions[partition] for partition in started}
        ends = {partition: self.broker.end(partition) for partition in started}
        return Polled(records, positions, ends, assigned, going, lost)

    def start(self, partition: int, offset: int) -> None:
        """Let the records flow from `offset` on."""
        self._positions[partition] = offset
        self._paused.discard(partition)

    def at_end(self, partitions: AbstractSet[int]) -> set[int]:
        """Those that have been read to their end."""
        if not self.broker.reachable:
            return set()
        return {p for p in partitions if p in self._positions and self._positions[p] >= self.broker.end(p)}

    def close(self) -> None:
        """Nothing to let go of."""
        self.closed = True

    def _assign(self, partition: int) -> Assigned:
        position = self.broker.committed.get(partition)
        self._paused.add(partition)
        self._positions[partition] = position.offset if position else self._first(partition)
        start = position or Position(self._positions[partition])
        return Assigned(partition, start, position is not None, earliest=0, partitions=self.broker.partitions)

    def _first(self, partition: int) -> int:
        if self.start_at == START_EARLIEST:
            return 0
        log = self.broker.records.get(partition, [])
        if self.start_at == START_LATEST:
            return len(log)
        return next((r.offset for r in log if r.timestamp >= int(self.start_at)), len(log))

    def _read(self) -> list[Record]:
        records: list[Record] = []
        room = TURN_BYTES
        for partition in sorted(self._positions.keys() - self._paused):
            position = self._positions[partition]
            found = self.broker.records.get(partition, [])[position : position + self.most_records - len(records)]
            for record in found:
                room -= len(record.value or b"")
                if records and room < 0:
                    return records
                records.append(record)
                self._positions[partition] += 1
        return records


class MemorySink:
    """Publishes to a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.commits = True  # False: as if the group were rebalancing

    def deliver(self, outputs: Outputs, done: Mapping[int, Position]) -> bool:
        """Publish and commit, or neither."""
        if self.commits:
            self.broker.alerts += outputs.alerts
            self.broker.dead_letters += outputs.dead_letters
            self.broker.scored += outputs.scored
            self.broker.committed.update(done)
        return self.commits

    def close(self) -> None:
        """Nothing to let go of."""
