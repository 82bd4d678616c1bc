"""Kafka through librdkafka (confluent-kafka): a member of a consumer group.

The library hands partitions on as soon as it has told that they are asked for, and its consumer serves one thread at a
time. So the consumer lives on a thread of its own, which does what the loop asks, one thing after the other. Where the
group asks for partitions, the poll under way is answered at once, and the thread does what it is asked (commits need
the member's generation) from inside that call, until the loop polls again: by then they are committed, and may go.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from pipeline.adapters.kafka_commits import ANSWER_SECONDS, Committed, InDoubtError
from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
from pipeline.adapters.kafka_member import CLIENT_ID, FETCH_BYTES, METADATA_SECONDS, MILLISECOND, GroupMember
from pipeline.adapters.librdkafka_connection import accepted, cause, configuration, translated
from pipeline.core.readings import UNREADABLE_HEADERS, Record
from pipeline.settings_schema import KafkaSettings

EARLIEST, LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
STATISTICS_SECONDS = 1.0
SEEK_AGAIN_SECONDS = 0.02  # a partition that was just assigned is not ready yet
FETCHING: dict[str, object] = {
    "max.partition.fetch.bytes": FETCH_BYTES,
    "queued.max.messages.kbytes": 64 * 1024,  # that wait in memory for the loop
    "fetch.queue.backoff.ms": 20,  # until more is fetched, where they do; by default 1000: the loop would run dry
}
GENERATION = b"CGMDv2:"  # how the library writes a member's metadata; 4 bytes of generation follow

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


class Broker(msgspec.Struct):
    """Of the library's statistics (its STATISTICS.md), what is looked at."""

    state: str
    rxidle: int = -1  # µs since it was last heard from


class Statistics(msgspec.Struct):
    """See `Broker`."""

    brokers: dict[str, Broker]


class Found(NamedTuple):
    """What one look into the library's queue brought."""

    messages: list[Message]
    ends: dict[int, int]  # partition -> behind its last record, where known


NOTHING = Found([], {})


class LibrdkafkaSource(GroupMember):
    """One member of the group; see the top of this file."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect; KafkaAwayError where no broker answers within a moment."""
        super().__init__(settings)
        self._next: dict[int, int] = {}  # partition that was started -> the next offset
        self._seen: dict[int, int] = {}  # partition -> its end
        self._steady = self._leaving = self._looking = False
        self._silence = math.inf  # s
        self._asked: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        reaching = configuration(settings)
        with accepted(settings):
            self._admin = AdminClient(reaching)
            self._consumer = Consumer(
                {
                    **reaching,
                    "client.id": CLIENT_ID,
                    "group.id": settings.group_id,
                    # a restart within the session timeout moves no partition
                    **({} if settings.instance_id is None else {"group.instance.id": settings.instance_id}),
                    "enable.auto.commit": False,
                    "enable.auto.offset.store": False,
                    "auto.offset.reset": "earliest",  # where retention overtakes the group
                    "isolation.level": "read_committed",
                    "partition.assignment.strategy": "cooperative-sticky",
                    "max.poll.interval.ms": round(settings.max_poll_interval_seconds * 1000),
                    "session.timeout.ms": round(settings.session_timeout_seconds * 1000),
                    "heartbeat.interval.ms": round(settings.heartbeat_seconds * 1000),
                    "topic.metadata.refresh.interval.ms": round(METADATA_SECONDS * 1000),
                    **FETCHING,
                    "enable.partition.eof": True,  # tells positions behind what no reader sees
                    "statistics.interval.ms": round(STATISTICS_SECONDS * 1000),
                    "stats_cb": self._on_statistics,
                }
            )
        self._thread = threading.Thread(target=self._work, name="librdkafka", daemon=True)
        self._thread.start()
        self._subscribed = False

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        if self._leaving:
            return
        self._leaving = True
        self._asked.put(None)
        self._thread.join(ANSWER_SECONDS)

    def generation(self) -> Any:
        """See `kafka_commits.Member`."""
        member: bytes | None = self._ask(self._consumer.consumer_group_metadata)
        if member is None:
            return None
        if not member.startswith(GENERATION):
            raise KafkaSetupError('confluent-kafka is of an unknown version; take kafka.client = "kafka-python"')
        number = int.from_bytes(member[len(GENERATION) :][:4], "little", signed=True)
        return None if number < 0 else member

    def committed(self, partition: int) -> Committed | None:
        """What the group has committed."""
        with self._answers():
            (found,) = self._ask(partial(self._consumer.committed, [self._tp(partition)], ANSWER_SECONDS))
        if found.error is not None:
            raise KafkaAwayError(found.error.str())
        return None if found.offset < 0 else Committed(found.offset, _metadata(found))

    # -- what is asked of the thread

    def _taken(self, timeout_seconds: float, most: int) -> Sequence[Record]:
        if not self._subscribed:  # not before: the library joins by itself, and the group would wait for our polls
            self._ask(self._subscribe)
            self._subscribed = True
        try:
            found = self._ask(partial(self._look, timeout_seconds, most))
        except (KafkaException, SystemError) as error:
            raise translated(self._settings, cause(error)) from error
        self._seen |= found.ends
        messages = found.messages
        if any(map(Message.error, messages)):
            for m in messages:
                self._note(m.error(), m)
            messages = [m for m in messages if m.error() is None]
        return self._records(messages)

    def _flow(self, partition: int, offset: int) -> None:
        tp = self._tp(partition, offset)
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                self._ask(partial(self._consumer.seek, tp))
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise KafkaAwayError(f"{self._topic}, partition {partition}: {cause(error).str()}") from error
                time.sleep(SEEK_AGAIN_SECONDS)
            else:
                break
        self._ask(partial(self._consumer.resume, [tp]))
        self._next[partition] = offset

    def _reached(self, partition: int) -> int | None:
        return self._next.get(partition)

    def _end_seen(self, partition: int) -> int | None:
        return self._seen.get(partition)

    def _joined(self) -> bool:
        return self._steady

    def _silence_seconds(self) -> float:
        return self._silence

    def _join_again(self) -> None:
        """With another subscription, or the group would leave all as it is; everything is given up first."""
        self._ask(self._consumer.unsubscribe)
        self._ask(self._subscribe)

    def _partitions(self) -> set[int]:
        with self._answers():
            return set(self._admin.list_topics(self._topic, ANSWER_SECONDS).topics[self._topic].partitions)

    def _earliest(self, partition: int) -> int:
        return self._offsets([partition], EARLIEST, ANSWER_SECONDS)[partition]

    def ends(self, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """Behind the last committed record of each, now."""
        return self._offsets(partitions, LATEST, seconds)

    def _at_time(self, partition: int, milliseconds: int) -> int | None:
        offset = self._offsets([partition], OffsetSpec.for_timestamp(milliseconds), ANSWER_SECONDS)[partition]
        return None if offset < 0 else offset

    def _offsets(self, partitions: Sequence[int], which: OffsetSpec, seconds: float) -> dict[int, int]:
        """Asked on a connection of their own: on the consumer's, they would wait behind what it fetches."""
        asked = {self._tp(partition): which for partition in partitions}
        with self._answers():
            told = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=seconds
            )
            return {tp.partition: answer.result(seconds + 1).offset for tp, answer in told.items()}

    def _ask(self, what: Callable[[], Answer]) -> Answer:
        """Have the thread do it; what it raises is raised here."""
        self._asked.put(what)
        answer = self._told.get()
        if isinstance(answer, BaseException):
            raise answer
        found: Answer = answer
        return found

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Of a broker; KafkaAwayError where it gives none."""
        try:
            yield
        except TimeoutError as error:
            raise KafkaAwayError("no answer in time") from error
        except KafkaException as error:
            why = translated(self._settings, cause(error))
            raise (KafkaAwayError(str(why)) if isinstance(why, InDoubtError) else why) from error

    def _tp(self, partition: int, offset: int = OFFSET_BEGINNING) -> TopicPartition:
        return TopicPartition(self._topic, partition, offset)

    # -- what came

    def _records(self, messages: list[Message]) -> list[Record]:
        """Those of partitions that are ours."""
        found = records(self._topic, messages)
        last = {record.partition: record.offset for record in found}
        if not last.keys() <= (ours := self._ours()):  # they went while these were on their way
            found = [record for record in found if record.partition in ours]
            last = {partition: offset for partition, offset in last.items() if partition in ours}
        self._next |= {partition: offset + 1 for partition, offset in last.items()}
        return found

    def _note(self, error: KafkaError | None, m: Message) -> None:
        """What the library says among the messages."""
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:
            partition, offset = m.partition(), m.offset()
            if partition in self._ours() and offset is not None and offset >= self._next[partition]:
                self._next[partition] = self._seen[partition] = offset
            return
        why = translated(self._settings, error)
        if not isinstance(why, InDoubtError):
            raise why
        log.info("poll cut short", why=str(why))

    # -- on the thread

    def _work(self) -> None:
        while (what := self._asked.get()) is not None:
            self._do(what)
        self._do(self._consumer.close)

    def _do(self, what: Callable[[], Any]) -> None:
        try:
            answer = what()
        except BaseException as error:
            answer = error  # the loop's to raise
        self._told.put(answer)

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _look(self, timeout_seconds: float, most: int) -> Found:
        """What waits, up to so many; if nothing does, wait for the first."""
        self._looking = True
        messages = self._consumer.consume(most, 0)
        if not messages and timeout_seconds > 0:
            messages = self._consumer.consume(1, timeout_seconds)
            messages += self._consumer.consume(most - 1, 0) if messages and most > 1 else []
        self._looking = False
        ends = {}
        for partition in self._ours():
            seen = self._consumer.get_watermark_offsets(self._tp(partition), cached=True)
            if seen is not None and seen[1] >= 0:
                ends[partition] = seen[1]
        return Found(messages, ends)

    def _on_assign(self, consumer: Consumer, came: list[TopicPartition]) -> None:
        """They are ours from now on; silent, for the loop has restored no state yet."""
        self._steady = True
        for tp in came:
            tp.offset = 0  # any: the loop will say, and this is not looked up
        if came:
            consumer.incremental_assign(came)
            consumer.pause(came)
        self.noted.append(("assigned", sorted(tp.partition for tp in came)))

    def _on_revoke(self, _: Consumer, asked_for: list[TopicPartition]) -> None:
        """Others ask for them; they can still be committed, until this returns."""
        self._steady = False
        self.noted.append(("given up", sorted(tp.partition for tp in asked_for)))
        if self._leaving or not self._looking:
            return
        self._told.put(NOTHING)  # to the poll under way
        while (what := self._asked.get()) is not None and not _is_poll(what):
            self._do(what)
        if what is None:  # the end is for `_work`: the library cannot be closed from inside its own call
            self._asked.put(None)
        # the answer to a poll is what this one finds when it goes on

    def _on_lost(self, _: Consumer, lost: list[TopicPartition]) -> None:
        """Others have them: the group took this member for dead."""
        self._steady = False
        self.noted.append(("lost", sorted(tp.partition for tp in lost)))

    def _on_statistics(self, text: str) -> None:
        brokers = msgspec.json.decode(text, type=Statistics).brokers.values()
        heard = [broker.rxidle / 1e6 for broker in brokers if broker.state == "UP" and broker.rxidle >= 0]
        self._silence = min(heard, default=math.inf)


def _is_poll(what: Callable[[], Any]) -> bool:
    return isinstance(what, partial) and what.func.__name__ == LibrdkafkaSource._look.__name__


def records(topic: str, messages: Sequence[Message]) -> list[Record]:
    """Messages that are no errors, each once (see `_headers`); a column at a time, as it is done for all there is."""
    stamps = map(itemgetter(1), map(Message.timestamp, messages))
    columns = zip(
        repeat(topic),
        map(Message.partition, messages),
        map(Message.offset, messages),
        [stamp * MILLISECOND if stamp > 0 else 0 for stamp in stamps],
        map(Message.key, messages),
        map(Message.value, messages),
        _headers(messages),
        strict=False,
    )
    return list(map(Record._make, columns))


def _headers(messages: Sequence[Message]) -> Iterator[tuple[tuple[str, bytes], ...]]:
    """Asked of each message once, and by `map`.

    Of a name that is not UTF-8 the library returns a tuple with a hole, which crashes who touches it, and leaves the
    error behind; `map` looks for such an error, where a call in a loop is not sure to, and goes on behind it.
    """
    told: Iterator[Any] = map(Message.headers, messages)
    for _ in messages:
        try:
            found = next(told)
        except (SystemError, UnicodeDecodeError):
            yield UNREADABLE_HEADERS
        else:
            yield tuple(found) if found else ()


def _metadata(found: TopicPartition) -> str:
    """What stands beside a committed offset; "" where somebody has committed it without a zero byte at its end.

    librdkafka copies as many bytes as there are, and the binding reads them as far as the next zero byte.
    """
    try:
        return found.metadata or ""
    except UnicodeDecodeError:
        return ""
