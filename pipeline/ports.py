"""What the runner asks of the world: where readings come from, where alerts go, where state is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from pipeline.core.alerts import Alert
from pipeline.core.events import Outcome
from pipeline.core.model import Model
from pipeline.core.readings import IntArray, ReadingBatch, Record, Rejected
from pipeline.core.silence import Outage
from pipeline.core.table import Arrays

TURN_BYTES = 2**20  # of messages that a poll returns: 10,000 JSON readings, 60,000 in raw batches


class Moment(NamedTuple):
    """A tick that changed something: before the record at `offset`, at event time `time` (µs)."""

    offset: int
    time: int


class Position(NamedTuple):
    """How far a partition is done: the next offset, and the newest of the ticks that changed something on the way."""

    offset: int
    ticks: tuple[Moment, ...] = ()


class Assigned(NamedTuple):
    """A partition that came to this member, and where to go on in it."""

    partition: int
    position: Position
    committed: bool  # False: nobody has read it for this group; the position follows from the settings
    earliest: int  # the first offset that retention has left
    partitions: int = 1  # of the topic


@dataclass(frozen=True, slots=True)
class Polled:
    """One poll: records in offset order per partition, and what changed. The runner follows `given_up` first."""

    records: Sequence[Record] = ()
    positions: Mapping[int, int] = field(default_factory=dict)  # started partition -> next offset, after `records`
    ends: Mapping[int, int] = field(default_factory=dict)  # partition -> offset behind its last record, where known
    assigned: Sequence[Assigned] = ()  # silent until `Source.start`
    given_up: AbstractSet[int] = frozenset()  # still ours to commit
    lost: AbstractSet[int] = frozenset()  # somebody else's already
    reachable: bool = True
    joined: bool = True  # the group has admitted this member


class Scored(NamedTuple):
    """A batch of one group with what came of it, for whoever wants to see every score."""

    model: Model
    batch: ReadingBatch
    outcome: Outcome

    def without(self, partitions: AbstractSet[int]) -> Scored:
        """The same but for the readings of these partitions, and for what the outcome says beside scores."""
        return self.take(np.flatnonzero(~np.isin(self.batch.partitions, list(partitions))))

    def take(self, rows: IntArray) -> Scored:
        """The readings at `rows`, in that order; the scores alone are kept of the outcome."""
        said = self.outcome
        kept = Outcome(said.scores[rows], said.alerting[rows], said.expected[rows], said.band[rows], said.imputed[rows])
        return Scored(self.model, self.batch.take(rows), kept)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one or several turns have to say."""

    alerts: Sequence[Alert] = ()
    dead_letters: Sequence[Rejected] = ()
    scored: Sequence[Scored] = ()

    def __bool__(self) -> bool:
        return bool(self.alerts or self.dead_letters or self.scored)

    def __add__(self, later: Outputs) -> Outputs:
        return Outputs(
            [*self.alerts, *later.alerts], [*self.dead_letters, *later.dead_letters], [*self.scored, *later.scored]
        )

    def without(self, partitions: AbstractSet[int]) -> Outputs:
        """The same but for what these partitions have to say."""
        return Outputs(
            [alert for alert in self.alerts if alert.evidence.partition not in partitions],
            [rejected for rejected in self.dead_letters if rejected.partition not in partitions],
            [scored.without(partitions) for scored in self.scored],
        )


class Source(Protocol):
    """Readings as they were stored. Used from one thread."""

    def poll(self, timeout_seconds: float) -> Polled:
        """What has arrived, about TURN_BYTES at most; waits for the first record at most so long."""
        ...

    def start(self, partition: int, offset: int) -> None:
        """Let the records of an assigned partition flow, from `offset` on."""
        ...

    def at_end(self, partitions: AbstractSet[int]) -> set[int]:
        """Those of which the broker says, now, that nothing is left to read; none while it does not answer."""
        ...

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        ...


class Sink(Protocol):
    """Where outputs and progress go. Used from one thread."""

    def deliver(self, outputs: Outputs, done: Mapping[int, Position]) -> bool:
        """Publish the outputs and commit the positions: both, for a reader of what is committed, or neither.

        Returns once it is known which. False: neither, and both are due again unless the partitions have moved on.
        """
        ...

    def close(self) -> None:
        """Let go; what was delivered stays."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The state of one partition in every group, and everything it must not be used without."""

    topic: str
    partition: int
    position: Position  # where reading goes on
    watermark: int  # µs, largest event time admitted
    models: Mapping[str, str]  # group -> SHA-256 of the bundle
    settings: str  # fingerprint of what can change an alert
    groups: Mapping[str, Arrays]
    partitions: int = 1  # of the topic, when it was taken
    kernel: str = ""  # what computed it
    outage: Outage | None = None  # the partition itself is silent


class CheckpointError(Exception):
    """A checkpoint that cannot be used, or not be written, and why."""


class PartitionsChangedError(Exception):
    """The topic has not as many partitions as the state was kept for: sensors may be in others than their state."""


class Checkpoints(Protocol):
    """The kept checkpoints, to be read."""

    def names(self, topic: str, partition: int, at_most: int) -> Iterator[str]:
        """Those whose offset is at most `at_most`, newest first."""
        ...

    def about(self, name: str) -> Checkpoint:
        """Everything but its state; CheckpointError as for `load`."""
        ...

    def load(self, name: str) -> Checkpoint:
        """Read it back; CheckpointError where it is damaged or written by another build."""
        ...

    def close(self) -> None:
        """Let go; what was saved stays."""
        ...


class CheckpointStore(Checkpoints, Protocol):
    """Keeps the last checkpoints of each partition."""

    def save(self, checkpoint: Checkpoint) -> str:
        """Keep it, whole or not at all, and return its name; OSError or CheckpointError where it cannot be written."""
        ...

    def save_all(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Keep several, each whole or not at all; the errors of `save`."""
        ...
