"""A span of a topic as history: readings as one series a sensor, or the alerts that were raised on them."""

from __future__ import annotations

import re
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from pipeline.adapters.files import DataError, Series
from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError, connection
from pipeline.codecs import decode
from pipeline.codecs.json import decode_alert
from pipeline.core.alerts import Alert
from pipeline.core.readings import Quality, Reading, Reason, Record, Rejected
from pipeline.settings_schema import KafkaSettings

NAN = float("nan")
MILLISECOND = 1_000  # µs
FETCH_BYTES = 8 * 2**20  # of a partition, at most
MOST_RECORDS = 10_000  # of one poll
ANSWER_MS = 15_000  # for one request about a topic's ends
POLL_MS = 500
QUIET_SECONDS = 3.0  # nothing comes though offsets are left: an open transaction holds them back
STALLED_SECONDS = 60.0  # nothing comes that has been there before reading began
SPAN = re.compile(r"(?P<count>\d+(\.\d+)?)\s*(?P<unit>s|min|h|d|w)")
UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
QUALITY = {quality: code for code, quality in enumerate(Quality)}

OnRecords = Callable[[int, int], None]  # records read, records there are


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """The readings in a span of a topic."""

    series: list[Series]  # by sensor, its readings in the order of arrival, unusable ones among them
    quality: Mapping[str, npt.NDArray[np.uint8]]  # sensor -> index into Quality of each of its readings; others: good
    refused: int  # messages


def parse_since(text: str, now: datetime) -> int:
    """`30d`, `12h` before `now`, or an RFC 3339 time, in µs UTC; ValueError where it is neither."""
    span = SPAN.fullmatch(text.strip())
    try:
        if span:
            start = now - timedelta(**{UNITS[span["unit"]]: float(span["count"])})
        else:
            start = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r:.80} is neither a span such as 30d or 12h nor an RFC 3339 time") from None
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    return round(start.timestamp() * 1e6)


def read_readings(
    settings: KafkaSettings, topic: str, since: int, max_future: int, on_records: OnRecords | None = None
) -> Recorded:
    """Every reading whose record is not older than `since` (µs); DataError where there is none.

    Takes 9 bytes a reading and 8 for each of its channels. Refused is what the live service would refuse: a message
    that is no reading, and a reading more than `max_future` (µs) ahead of its record.
    """
    columns: dict[tuple[str, int], _Columns] = {}
    refused = 0
    for records in _records(settings, topic, since, on_records):
        readings, rejected = decode(records)
        refused += len(rejected)
        for reading in readings:
            if reading.received and reading.time > reading.received + max_future:
                refused += 1
                continue
            place = reading.sensor, reading.partition
            if (of_sensor := columns.get(place)) is None:
                of_sensor = columns[place] = _Columns()
            of_sensor.add(reading)
    if not columns:
        start = datetime.fromtimestamp(since / 1e6, UTC).isoformat(timespec="seconds")
        raise DataError(f"topic {topic} holds no reading since {start}; go further back, or check what is produced")
    return _recorded(columns, refused)


def read_alerts(settings: KafkaSettings, topic: str) -> Iterator[Alert | Rejected]:
    """Every alert in the topic, for one that is still open may be older than any span of readings.

    A message that this build cannot read as an alert comes as the refusal of it.
    """
    for records in _records(settings, topic, 0, None):
        for record in records:
            if record.value is not None:  # a deletion
                yield _alert(record, record.value)


def _alert(record: Record, payload: bytes) -> Alert | Rejected:
    try:
        return decode_alert(payload)
    except ValueError as error:
        where = record.topic, record.partition, record.offset, record.key, record.value
        return Rejected(Reason.UNREADABLE, str(error), *where)


class _Columns:
    """One sensor's readings in one partition, in flat arrays that grow."""

    def __init__(self) -> None:
        self.times, self.quality = array("q"), array("B")
        self.values: dict[str, array[float]] = {}

    def add(self, reading: Reading) -> None:
        row = len(self.times)
        self.times.append(reading.time)
        self.quality.append(QUALITY[reading.quality])
        for channel, value in reading.values.items():
            if (column := self.values.get(channel)) is None:
                column = self.values[channel] = array("d", [NAN]) * row
            column.append(value)
        if len(reading.values) < len(self.values):
            for column in self.values.values():
                if len(column) == row:
                    column.append(NAN)

    def series(self, sensor: str) -> Series:
        values = np.stack([np.frombuffer(column) for column in self.values.values()], axis=1)
        return Series(sensor, np.frombuffer(self.times, np.int64), tuple(self.values), values)


def _recorded(columns: dict[tuple[str, int], _Columns], refused: int) -> Recorded:
    """Lets go of the columns one by one. A sensor that moved to another partition was there later."""
    partitions: dict[str, list[_Columns]] = {}
    for sensor, partition in sorted(columns):
        partitions.setdefault(sensor, []).append(columns.pop((sensor, partition)))
    series: list[Series] = []
    quality: dict[str, npt.NDArray[np.uint8]] = {}
    for sensor in sorted(partitions):
        parts = sorted(partitions.pop(sensor), key=lambda part: part.times[0])
        said = np.concatenate([np.frombuffer(part.quality, np.uint8) for part in parts])
        if said.any():
            quality[sensor] = said
        series.append(_joined([part.series(sensor) for part in parts]))
    return Recorded(series, quality, refused)


def _joined(parts: list[Series]) -> Series:
    channels = tuple(dict.fromkeys(channel for part in parts for channel in part.channels))
    times = np.concatenate([part.times for part in parts])
    return Series(parts[0].sensor, times, channels, np.concatenate([part.columns(channels) for part in parts]))


def _records(settings: KafkaSettings, topic: str, since: int, on_records: OnRecords | None) -> Iterator[list[Record]]:
    """What the topic holds now from `since` (µs) on, poll by poll; belongs to no group and commits nothing."""
    try:
        consumer = KafkaConsumer(
            **connection(settings),
            client_id="foreshock-history",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # where retention overtakes us
            isolation_level="read_committed",
            max_poll_records=MOST_RECORDS,
            max_partition_fetch_bytes=FETCH_BYTES,
            allow_auto_create_topics=False,
        )
    except KafkaTimeoutError as error:
        raise KafkaAwayError(f"no broker at {settings.bootstrap_servers} answers") from error
    try:
        yield from _Span(consumer, topic, since).records(on_records)
    except KafkaTimeoutError as error:
        raise KafkaAwayError(f"topic {topic}: the broker stopped answering") from error
    finally:
        consumer.close(autocommit=False)


class _Span:
    """The partitions of a topic, each from its first record of the span to what was its end when reading began."""

    def __init__(self, consumer: KafkaConsumer, topic: str, since: int) -> None:
        self._consumer, self._topic, self._since = consumer, topic, since
        self._left = {TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()}
        if not self._left:
            raise KafkaSetupError(f"topic {topic}: does not exist, or may not be read; `foreshock doctor` checks all")
        self._latest: dict[TopicPartition, int] = consumer.end_offsets(self._left, timeout_ms=ANSWER_MS)
        self._ends: dict[TopicPartition, int] = {}  # of those that have been fetched from
        self._first: dict[TopicPartition, int] = consumer.beginning_offsets(self._left, timeout_ms=ANSWER_MS)
        if since:
            wanted = dict.fromkeys(self._left, since // MILLISECOND)
            for tp, found in consumer.offsets_for_times(wanted, timeout_ms=ANSWER_MS).items():
                self._first[tp] = self._latest[tp] if found is None else found.offset
        consumer.assign(sorted(self._left))
        for tp, offset in self._first.items():
            consumer.seek(tp, offset)

    def records(self, on_records: OnRecords | None) -> Iterator[list[Record]]:
        """Poll by poll, until nothing of the span is left."""
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
                there = sum(max(end - self._first[tp], 0) for tp, end in (self._latest | self._ends).items())
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
            held_back = position >= self._latest[tp] and silent_seconds > QUIET_SECONDS
            if held_back or position >= self._ends.get(tp, position + 1):
                self._left.discard(tp)
                self._consumer.pause(tp)
            elif silent_seconds > STALLED_SECONDS:
                where = f"topic {self._topic}, partition {tp.partition}, offset {position} of {self._latest[tp]}"
                raise KafkaAwayError(f"{where}: the broker stopped answering")


def _record(r: Any) -> Record:
    stamp = max(r.timestamp or 0, 0) * MILLISECOND
    return Record(r.topic, r.partition, r.offset, stamp, r.key, r.value, tuple(r.headers or ()))
