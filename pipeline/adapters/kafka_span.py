"""A span of a topic, read by itself: belongs to no group and commits nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from pipeline.adapters.kafka_connection import KafkaAwayError, new_consumer, partitions_of
from pipeline.core.readings import Record
from pipeline.settings_schema import KafkaSettings

MILLISECOND = 1_000  # µs
FETCH_BYTES = 8 * 2**20  # of a partition, at most
MOST_RECORDS = 10_000  # of one poll
ANSWER_MS = 15_000  # for one request about a topic's ends
POLL_MS = 500
QUIET_SECONDS = 3.0  # nothing comes though offsets are left: an open transaction holds them back
STALLED_SECONDS = 60.0  # nothing comes that has been there before reading began

OnRecords = Callable[[int, int], None]  # records read, records there are


class Stretch(NamedTuple):
    """Offsets of one partition, `end` not among them."""

    first: int
    end: int

    def holds(self, offset: int) -> bool:
        """Whether it is one of these."""
        return self.first <= offset < self.end


def records_since(
    settings: KafkaSettings,
    topic: str,
    since: int,
    on_records: OnRecords | None = None,
    quiet_seconds: float = QUIET_SECONDS,
) -> Iterator[list[Record]]:
    """What the topic holds now from `since` (µs) on, poll by poll.

    What an open transaction holds back is waited for so long as `quiet_seconds`.
    """
    with span(settings, topic) as found:
        yield from found.records(since=since, on_records=on_records, quiet_seconds=quiet_seconds)


@contextmanager
def span(settings: KafkaSettings, topic: str) -> Iterator[Span]:
    """KafkaSetupError where the topic does not exist, KafkaAwayError where the broker does not answer."""
    try:
        consumer = new_consumer(
            settings,
            client_id="foreshock-history",
            group_id=None,
            auto_offset_reset="earliest",  # where retention overtakes us
            isolation_level="read_committed",
            max_poll_records=MOST_RECORDS,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
    except KafkaTimeoutError as error:
        raise KafkaAwayError(f"no broker at {settings.bootstrap_servers} answers") from error
    try:
        yield Span(consumer, topic)
    except KafkaTimeoutError as error:
        raise KafkaAwayError(f"topic {topic}: the broker stopped answering") from error
    finally:
        consumer.close(autocommit=False)


class Span:
    """The partitions of a topic as they are when reading begins."""

    def __init__(self, consumer: KafkaConsumer, topic: str) -> None:
        self._consumer, self._topic = consumer, topic
        tps = {TopicPartition(topic, p) for p in partitions_of(consumer, topic)}
        self._earliest: dict[TopicPartition, int] = consumer.beginning_offsets(tps, timeout_ms=ANSWER_MS)
        self._latest: dict[TopicPartition, int] = consumer.end_offsets(tps, timeout_ms=ANSWER_MS)

    @property
    def bounds(self) -> dict[int, Stretch]:
        """Partition -> what retention has left of it, up to its end."""
        return {tp.partition: Stretch(first, self._latest[tp]) for tp, first in sorted(self._earliest.items())}

    def at(self, time_us: int) -> dict[int, int]:
        """Partition -> its first offset whose record is not older than this, its end where all are."""
        wanted = dict.fromkeys(self._latest, time_us // MILLISECOND)
        found = self._consumer.offsets_for_times(wanted, timeout_ms=ANSWER_MS)
        return {tp.partition: self._latest[tp] if at is None else at.offset for tp, at in found.items()}

    def records(
        self,
        only: Mapping[int, Stretch] | None = None,
        since: int = 0,
        on_records: OnRecords | None = None,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> Iterator[list[Record]]:
        """Poll by poll, what the stretches hold; without any, everything from `since` (µs) on to what is the end now.

        KafkaAwayError where the broker keeps back what it has.
        """
        first, latest, ends = self._earliest, self._latest, {}
        if only is not None:
            first = {TopicPartition(self._topic, p): stretch.first for p, stretch in only.items()}
            latest = ends = {TopicPartition(self._topic, p): stretch.end for p, stretch in only.items()}
        elif since:
            first = {TopicPartition(self._topic, p): offset for p, offset in self.at(since).items()}
        yield from _Reading(self._consumer, first, latest, ends, since, quiet_seconds).records(on_records)


class _Reading:
    """Each partition from its first offset to its end."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        first: Mapping[TopicPartition, int],
        latest: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        since: int,
        quiet_seconds: float,
    ) -> None:
        """`ends` are those that are certain; `latest` what the broker says, which may be too low."""
        self._consumer, self._first, self._since, self._quiet = consumer, first, since, quiet_seconds
        self._latest, self._ends = latest, dict(ends)
        self._left = set(first)
        consumer.assign(sorted(self._left))
        for tp, offset in first.items():
            consumer.seek(tp, offset)
            consumer.resume(tp)

    def records(self, on_records: OnRecords | None) -> Iterator[list[Record]]:
        """Poll by poll, until nothing is left."""
        self._finish(0.0)
        heard, read = time.monotonic(), 0
        while self._left:
            polled = self._poll()
            self._note_ends()
            records = [record for of_partition in polled.values() for record in map(_record, of_partition)]
            yield [record for record in records if self._covers(record)]
            if polled:
                heard = time.monotonic()  # after the yield: what the caller takes is no silence of the broker's
            self._finish(time.monotonic() - heard)
            read += len(records)
            if on_records is not None:
                there = sum(max(end - self._first[tp], 0) for tp, end in {**self._latest, **self._ends}.items())
                on_records(min(read, there), there)

    def _poll(self) -> dict[TopicPartition, list[Any]]:
        try:
            polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=POLL_MS)
        except KafkaError as error:
            if not error.retriable:
                raise
            return {}
        return polled

    def _note_ends(self) -> None:
        """The embedded broker names ends that are too low, hence the highest that anything names at first."""
        for tp in self._left - self._ends.keys():
            highest = self._consumer.highwater(tp)
            if highest is not None:
                self._ends[tp] = max(self._latest[tp], highest)

    def _covers(self, record: Record) -> bool:
        """The embedded broker finds no time and names the beginning, hence the look at the record's own."""
        end = self._ends.get(TopicPartition(record.topic, record.partition), record.offset + 1)
        return record.timestamp >= self._since and record.offset < end

    def _finish(self, silent_seconds: float) -> None:
        """Let go of the partitions that are done; KafkaAwayError where the broker keeps back what it has."""
        for tp in sorted(self._left):
            position = self._consumer.position(tp, timeout_ms=ANSWER_MS)
            held_back = position >= self._latest[tp] and silent_seconds > self._quiet
            if held_back or position >= self._ends.get(tp, position + 1):
                self._left.discard(tp)
                self._consumer.pause(tp)
            elif silent_seconds > STALLED_SECONDS:
                where = f"topic {tp.topic}, partition {tp.partition}, offset {position} of {self._latest[tp]}"
                raise KafkaAwayError(f"{where}: the broker stopped answering")


def _record(r: Any) -> Record:
    stamp = max(r.timestamp or 0, 0) * MILLISECOND
    return Record(r.topic, r.partition, r.offset, stamp, r.key, r.value, tuple(r.headers or ()))
