"""A member of the consumer group, by whatever client: what comes and goes, where to go on, who is heard from."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, final

import structlog

from pipeline.adapters.kafka_commits import ANSWER_SECONDS, Committed, ticks_of
from pipeline.adapters.kafka_connection import KafkaAwayError
from pipeline.adapters.kafka_group import nobodys
from pipeline.core.readings import Record
from pipeline.ports import TURN_BYTES, Assigned, Polled, Position
from pipeline.settings_schema import KafkaSettings

CLIENT_ID = "foreshock"  # in the brokers' logs and quotas
BEAT_SECONDS = 1.0  # for a question whose answer can wait for the next turn
JOINING_SECONDS = 0.05  # between two looks at what the group has decided, while it decides
METADATA_SECONDS = 30.0  # until a new partition is noticed
SMALLEST_BYTES = 2**10  # what a message counts at least before it has been seen: larger ones may follow
FETCH_BYTES = 8 * 2**20  # of a partition, at most: room for max_poll_records of a kilobyte
MILLISECOND = 1_000  # µs

log = structlog.get_logger(__name__)


class GroupMember(ABC):
    """Cooperative-sticky: a rebalance moves few partitions and leaves the others alone.

    A client notes what the group decides (`noted`) on whatever thread it likes, inside `_taken`, which then returns.
    Questions raise KafkaAwayError where no answer comes within a moment.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings, self._topic = settings, settings.topics.readings
        self.noted: deque[tuple[str, list[int]]] = deque()  # assigned, given up or lost; partitions
        self._coming: set[int] = set()
        self._started: set[int] = set()
        self._expected = TURN_BYTES  # bytes that the next message may have
        self._answered = -math.inf  # monotonic s, when the broker last said where to go on
        # Only back under its name can a process have left partitions behind: see `nobodys`.
        self._look_due = math.inf if settings.instance_id is None else 0.0  # monotonic s

    @final
    def poll(self, timeout_seconds: float) -> Polled:
        """What has arrived, and what the group has decided meanwhile."""
        # A client waits for records as long as it may, though it has joined the group meanwhile and none can come.
        records = self._fetched(timeout_seconds if self._joined() else min(timeout_seconds, JOINING_SECONDS))
        given_up, lost = self._follow()
        # What is given up is committed only after this poll; whoever takes it, even we, has to see that commit.
        assigned = [] if given_up or lost else list(self._resolve())
        positions = {partition: self._reached(partition) for partition in self._started}
        ends = {partition: self._end_seen(partition) for partition in self._started}
        joined = self._joined()
        if joined and not given_up and time.monotonic() >= self._look_due:
            self._look_for_partitions_that_nobody_has()
        return Polled(
            records,
            {partition: offset for partition, offset in positions.items() if offset is not None},
            {partition: offset for partition, offset in ends.items() if offset is not None},
            assigned,
            given_up,
            lost,
            reachable=self._heard_from_lately(),
            joined=joined,
        )

    @final
    def start(self, partition: int, offset: int) -> None:
        """Let the records flow from `offset` on."""
        self._flow(partition, offset)
        self._started.add(partition)

    @final
    def at_end(self, partitions: AbstractSet[int]) -> set[int]:
        """Ask for the ends now: the last fetch may be old, and a leader that is away would pass for a quiet one."""
        try:
            ends = self.ends(sorted(partitions), BEAT_SECONDS)
        except KafkaAwayError:
            return set()
        positions = {partition: self._reached(partition) for partition in partitions}
        # The embedded broker names ends that are too low, hence the highest that anything has named.
        highest = {partition: max(end, self._end_seen(partition) or 0) for partition, end in ends.items()}
        return {p for p, position in positions.items() if position is not None and position >= highest[p]}

    @property
    def held(self) -> set[int]:
        """Partitions that the group has given to this member, started or not."""
        return self._coming | self._started

    @abstractmethod
    def close(self) -> None:
        """Leave the group, so that others take over at once."""

    # -- what a client does

    @abstractmethod
    def generation(self) -> Any:
        """See `kafka_commits.Member`."""

    @abstractmethod
    def committed(self, partition: int) -> Committed | None:
        """What the group has committed."""

    @abstractmethod
    def _taken(self, timeout_seconds: float, most: int) -> Sequence[Record]:
        """Records of partitions that were started, so many at most; cut short where partitions are given up."""

    @abstractmethod
    def _flow(self, partition: int, offset: int) -> None:
        """Seek, and let it speak."""

    @abstractmethod
    def _reached(self, partition: int) -> int | None:
        """The next offset to be returned; None while the broker would have to be asked and does not answer."""

    @abstractmethod
    def _end_seen(self, partition: int) -> int | None:
        """Behind the last record, as the last fetch saw it."""

    @abstractmethod
    def _joined(self) -> bool:
        """The group has admitted this member, and no rebalance is under way."""

    @abstractmethod
    def _silence_seconds(self) -> float:
        """Since the cluster was last heard from."""

    @abstractmethod
    def _join_again(self) -> None:
        """Have the group divide the partitions anew."""

    @abstractmethod
    def _partitions(self) -> set[int]:
        """Of the topic."""

    @abstractmethod
    def _earliest(self, partition: int) -> int:
        """The first offset that retention has left."""

    @abstractmethod
    def ends(self, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """Behind the last committed record of each, now."""

    @abstractmethod
    def _at_time(self, partition: int, milliseconds: int) -> int | None:
        """The first offset of a record at least as late; None where there is none."""

    # -- what is decided here

    def _fetched(self, timeout_seconds: float) -> Sequence[Record]:
        """As much as a turn may hold. A message may hold 65,536 readings: bytes bound what a turn costs, not messages.

        What the client has fetched is taken in parts, by the largest message of those before. Where messages suddenly
        grow, a turn can be `TURN_BYTES / SMALLEST_BYTES` of them, once.
        """
        records: list[Record] = []
        room, most = TURN_BYTES, self._settings.max_poll_records
        while len(records) < most:
            asked = min(most - len(records), max(room // self._expected, 1))
            found = self._taken(0.0 if records else timeout_seconds, asked)
            records += found
            sizes = [len(record.value or b"") for record in found]
            room -= sum(sizes)
            self._expected = max(*sizes, self._expected // 2, SMALLEST_BYTES) if sizes else self._expected
            if self.noted or len(found) < asked or room < self._expected:
                break  # where partitions are asked for, another poll would let them go uncommitted
        if self.noted:
            ours = self._ours()
            records = [record for record in records if record.partition in ours]
        return records

    def _ours(self) -> set[int]:
        """Those that were started, without what the group has taken since the loop last looked."""
        return self._started.difference(*(partitions for what, partitions in self.noted if what != "assigned"))

    def _follow(self) -> tuple[set[int], set[int]]:
        """What was noted since, netted: a partition that came and went again was never ours."""
        gone: dict[str, set[int]] = {"given up": set(), "lost": set()}
        while self.noted:
            what, partitions = self.noted.popleft()
            if what == "assigned":
                self._coming |= set(partitions)
            else:
                gone[what] |= set(partitions) - self._coming
                self._coming -= set(partitions)
                self._started -= set(partitions)
        return gone["given up"], gone["lost"]

    def _resolve(self) -> Iterator[Assigned]:
        """Where to go on in the partitions that came; those the broker does not answer for wait for the next poll."""
        for partition in sorted(self._coming):
            try:
                assigned = self._position(partition)
            except KafkaAwayError:
                log.warning("no answer yet", wanted="the committed offset", partition=partition)
                return
            self._coming.discard(partition)
            self._answered = time.monotonic()
            yield assigned

    def _position(self, partition: int) -> Assigned:
        partitions, earliest = len(self._partitions()), self._earliest(partition)
        committed = self.committed(partition)
        if committed is None:
            return Assigned(partition, Position(self._first(partition, earliest)), False, earliest, partitions)
        if committed.offset < earliest:
            lost = earliest - committed.offset
            log.error(
                "readings out of retention", partition=partition, committed=committed.offset, earliest=earliest,
                lost=lost, effect="going on from the earliest; raise retention.ms to outlast an outage",
            )  # fmt: skip
        position = Position(max(committed.offset, earliest), ticks_of(committed.metadata))
        return Assigned(partition, position, True, earliest, partitions)

    def _first(self, partition: int, earliest: int) -> int:
        """Where the settings say to start."""
        start = self._settings.start
        if start == "earliest":
            return earliest
        if isinstance(start, datetime):
            found = self._at_time(partition, round(start.timestamp() * 1000))
            if found is not None:
                return found
        return self.ends([partition], ANSWER_SECONDS)[partition]

    def _look_for_partitions_that_nobody_has(self) -> None:
        """Until there are none: joining once more makes the group give them to somebody."""
        found = nobodys(self._settings, self._partitions())
        self._look_due = math.inf if found == set() else time.monotonic() + BEAT_SECONDS
        if found:
            log.info("partitions without a member", partitions=sorted(found), effect="the group divides them anew")
            self._join_again()

    def _heard_from_lately(self) -> bool:
        # a member that was just admitted has been answered, though its first heartbeat is still to come
        silence = min(self._silence_seconds(), time.monotonic() - self._answered)
        return silence < 3 * self._settings.heartbeat_seconds + 1
