"""Kafka through kafka-python: a member of a consumer group, and a sink whose every delivery is one transaction."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from itertools import repeat
from typing import Any

import structlog
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError, RetriableError
from kafka.structs import MemberState

from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError, connection
from pipeline.adapters.kafka_rebalances import Assignor, GivenUpError, Rebalances, nobodys
from pipeline.adapters.kafka_transactions import Message, Transactions, named_twice, transactional_id
from pipeline.codecs.json import MAX_DEAD_BYTES, encode_alert, encode_dead_letter
from pipeline.codecs.scores import encode_scores
from pipeline.core.readings import Record
from pipeline.ports import Assigned, Moment, Outputs, Polled, Position
from pipeline.settings_schema import KafkaSettings

ANSWER_SECONDS = 5.0  # for one request, while assignments are resolved
BEAT_SECONDS = 1.0  # for a question whose answer can wait for the next turn
METADATA_SECONDS = 30.0  # until a new partition is noticed
FETCH_BYTES = 8 * 2**20  # of a partition, at most: room for max_poll_records of a kilobyte
MILLISECOND = 1_000  # µs
TICKS = re.compile(r"(\d{1,19}):(-?\d{1,19})")
JSON_HEADERS = [("content-type", b"application/json")]

log = structlog.get_logger(__name__)


class KafkaSource:
    """One member of the group. Cooperative-sticky: a rebalance moves few partitions and leaves the others alone."""

    def __init__(self, settings: KafkaSettings, *, client_id: str = "foreshock") -> None:
        """Connect; KafkaAwayError where no broker answers within a moment."""
        self._settings, self._topic = settings, settings.topics.readings
        self._answered = -math.inf  # monotonic s, when the broker last said where to go on
        self._rebalances = Rebalances()
        try:
            self.consumer = KafkaConsumer(
                **connection(settings),
                client_id=client_id,
                group_id=settings.group_id,
                group_instance_id=settings.instance_id,  # a restart within the session timeout moves no partition
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # where retention overtakes the group; a fresh start is decided below
                isolation_level="read_committed",
                partition_assignment_strategy=[Assignor],
                max_poll_records=settings.max_poll_records,
                max_partition_fetch_bytes=FETCH_BYTES,
                max_poll_interval_ms=round(settings.max_poll_interval_seconds * 1000),
                session_timeout_ms=round(settings.session_timeout_seconds * 1000),
                heartbeat_interval_ms=round(settings.heartbeat_seconds * 1000),
                metadata_max_age_ms=round(METADATA_SECONDS * 1000),
                allow_auto_create_topics=False,
            )
        except RetriableError as error:
            raise KafkaAwayError(f"no broker at {settings.bootstrap_servers} answers") from error
        self._rebalances.consumer = self.consumer
        self.consumer.subscribe([self._topic], listener=self._rebalances)
        self._coming: set[TopicPartition] = set()
        self._started: set[TopicPartition] = set()
        # Only back under its name can a process have left partitions behind: see `nobodys`.
        self._look_due = math.inf if settings.instance_id is None else 0.0  # monotonic s

    def poll(self, timeout_seconds: float) -> Polled:
        """What has arrived, and what the group has decided meanwhile."""
        try:
            polled = self.consumer.poll(timeout_ms=round(timeout_seconds * 1000))
        except FencedInstanceIdError as error:
            raise named_twice(self._settings) from error
        except KafkaError as error:
            if not isinstance(error, RetriableError) and not isinstance(error.__cause__, GivenUpError):
                raise
            log.info("poll cut short", why=str(error.__cause__ or error))
            polled = {}
        given_up, lost = self._follow()
        # What is given up is committed only after this poll; whoever takes it, even we, has to see that commit.
        assigned = [] if given_up or lost else list(self._resolve())
        positions = {tp.partition: self._reached(tp) for tp in self._started}
        ends = {tp.partition: self.consumer.highwater(tp) for tp in self._started}
        joined = self.consumer.group_metadata().state == MemberState.STABLE
        if joined and not given_up and time.monotonic() >= self._look_due:
            self._look_for_partitions_that_nobody_has()
        return Polled(
            [record for tp, found in polled.items() for record in _records(tp, found)],
            {partition: offset for partition, offset in positions.items() if offset is not None},
            {partition: offset for partition, offset in ends.items() if offset is not None},
            assigned,
            given_up,
            lost,
            reachable=self._heard_from_lately(),
            joined=joined,
        )

    def start(self, partition: int, offset: int) -> None:
        """Let the records flow from `offset` on."""
        tp = TopicPartition(self._topic, partition)
        self.consumer.seek(tp, offset)
        self.consumer.resume(tp)
        self._started.add(tp)

    def at_end(self, partitions: AbstractSet[int]) -> set[int]:
        """Ask for the ends now: the last fetch may be old, and a leader that is away would pass for a quiet one."""
        tps = [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
        try:
            ends = self.consumer.end_offsets(tps, timeout_ms=round(BEAT_SECONDS * 1000))
        except RetriableError:
            return set()
        positions = {tp: self._reached(tp) for tp in tps}
        # The embedded broker names ends that are too low, hence the highest that anything has named.
        highest = {tp: max(ends[tp], self.consumer.highwater(tp) or 0) for tp in tps}
        return {tp.partition for tp, position in positions.items() if position is not None and position >= highest[tp]}

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._rebalances.leaving = True
        self.consumer.close(autocommit=False, timeout_ms=round(ANSWER_SECONDS * 1000))

    def _look_for_partitions_that_nobody_has(self) -> None:
        """Until there are none: joining once more makes the group give them to somebody."""
        found = nobodys(self._settings, self.consumer.partitions_for_topic(self._topic) or set())
        self._look_due = math.inf if found == set() else time.monotonic() + BEAT_SECONDS
        if found:
            log.info("partitions without a member", partitions=sorted(found), effect="the group divides them anew")
            self.consumer._coordinator.request_rejoin()

    def _follow(self) -> tuple[set[int], set[int]]:
        """What was noted since, netted: a partition that came and went again was never ours."""
        gone: dict[str, set[TopicPartition]] = {"given up": set(), "lost": set()}
        while self._rebalances.noted:
            what, tps = self._rebalances.noted.popleft()
            if what == "assigned":
                self._coming |= set(tps)
            else:
                gone[what] |= set(tps) - self._coming
                self._coming -= set(tps)
                self._started -= set(tps)
        return {tp.partition for tp in gone["given up"]}, {tp.partition for tp in gone["lost"]}

    def _resolve(self) -> Iterator[Assigned]:
        """Where to go on in the partitions that came; those the broker does not answer for wait for the next poll."""
        for tp in sorted(self._coming):
            try:
                assigned = self._position(tp)
            except RetriableError:
                log.warning("no answer yet", wanted="the committed offset", partition=tp.partition)
                return
            self._coming.discard(tp)
            self._answered = time.monotonic()
            yield assigned

    def _position(self, tp: TopicPartition) -> Assigned:
        wait = round(ANSWER_SECONDS * 1000)
        partitions = len(self.consumer.partitions_for_topic(self._topic) or ())
        earliest = int(self.consumer.beginning_offsets([tp], timeout_ms=wait)[tp])
        committed = self.consumer.committed(tp, metadata=True, timeout_ms=wait)
        if committed is None or committed.offset < 0:
            return Assigned(tp.partition, Position(self._first(tp, earliest, wait)), False, earliest, partitions)
        if committed.offset < earliest:
            lost = earliest - committed.offset
            log.error(
                "readings out of retention", partition=tp.partition, committed=committed.offset, earliest=earliest,
                lost=lost, effect="going on from the earliest; raise retention.ms to outlast an outage",
            )  # fmt: skip
        position = Position(max(committed.offset, earliest), _ticks(committed.metadata or ""))
        return Assigned(tp.partition, position, True, earliest, partitions)

    def _first(self, tp: TopicPartition, earliest: int, wait_ms: int) -> int:
        """Where the settings say to start."""
        start = self._settings.start
        if start == "earliest":
            return earliest
        if isinstance(start, datetime):
            found = self.consumer.offsets_for_times({tp: round(start.timestamp() * 1000)}, timeout_ms=wait_ms)[tp]
            if found is not None:
                return int(found.offset)
        return int(self.consumer.end_offsets([tp], timeout_ms=wait_ms)[tp])

    def _reached(self, tp: TopicPartition) -> int | None:
        """The next offset to be returned; None while the broker would have to be asked and does not answer."""
        try:
            position: int | None = self.consumer.position(tp, timeout_ms=0)
        except RetriableError:
            return None
        return position

    def _heard_from_lately(self) -> bool:
        beats = self.consumer.metrics()["consumer-coordinator-metrics"]
        # a member that was just admitted has been answered, though its first heartbeat is still to come
        silence = min(beats["last-heartbeat-seconds-ago"], time.monotonic() - self._answered)
        return bool(silence < 3 * self._settings.heartbeat_seconds + 1)


class KafkaSink:
    """Publishes and commits in one transaction, for the source that it belongs to.

    Waits for an absent broker as long as it takes: what was read is not read again, and nothing more is read.
    """

    def __init__(self, settings: KafkaSettings, source: KafkaSource, waiting: Callable[[str], None]) -> None:
        """Connect and find the topics; `waiting` is called with the reason about once a second of a wait."""
        self._topics = settings.topics
        self._transactions = Transactions(settings, transactional_id(settings), source.consumer, waiting)
        topics = self._topics
        for topic in filter(None, (topics.readings, topics.alerts, topics.dead_letter, topics.scores)):
            self._must_exist(topic)

    def deliver(self, outputs: Outputs, done: Mapping[int, Position]) -> bool:
        """Publish and commit, or neither."""
        offsets = {
            TopicPartition(self._topics.readings, partition): committable(position)
            for partition, position in done.items()
        }
        return self._transactions.run(list(self._messages(outputs)), offsets)

    def close(self) -> None:
        """Whatever was delivered is committed; there is nothing to wait for."""
        self._transactions.close()

    def _must_exist(self, topic: str) -> None:
        try:
            self._transactions.producer.partitions_for(topic)
        except KafkaError as error:
            self.close()
            remedy = f"kafka-topics.sh --create --topic {topic} --partitions N --bootstrap-server ..."
            raise KafkaSetupError(
                f"topic {topic}: {error}; create it: {remedy}; `foreshock doctor` checks all"
            ) from error

    def _messages(self, outputs: Outputs) -> Iterator[Message]:
        for alert in outputs.alerts:
            yield Message(self._topics.alerts, alert.sensor.encode(), encode_alert(alert), JSON_HEADERS)
        for rejected in outputs.dead_letters:
            value, headers = encode_dead_letter(rejected)
            yield Message(self._topics.dead_letter, rejected.key and rejected.key[:MAX_DEAD_BYTES], value, headers)
        if self._topics.scores is not None:
            for scored in outputs.scored:
                for sensor, value in encode_scores(scored):
                    yield Message(self._topics.scores, sensor.encode(), value, JSON_HEADERS)


def committable(position: Position) -> OffsetAndMetadata:
    """A position as the group keeps it: the ticks travel as the offset's metadata, 2 of at most 4 kB."""
    return OffsetAndMetadata(position.offset, " ".join(f"{t.offset}:{t.time}" for t in position.ticks), -1)


def _ticks(metadata: str) -> tuple[Moment, ...]:
    """None where somebody else, or another build, has committed."""
    return tuple(Moment(int(offset), int(time)) for offset, time in TICKS.findall(metadata))


def _records(tp: TopicPartition, found: Sequence[Any]) -> Iterator[Record]:
    """What was found in a partition; a column at a time, for this is done for every message there is."""
    return map(
        Record._make,
        zip(
            repeat(tp.topic),
            repeat(tp.partition),
            [r.offset for r in found],
            [r.timestamp * MILLISECOND if r.timestamp > 0 else 0 for r in found],
            [r.key for r in found],
            [r.value for r in found],
            [tuple(r.headers) if r.headers else () for r in found],
            strict=False,
        ),
    )
