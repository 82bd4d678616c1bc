"""A topic of readings written anew, keyed by sensor, for producers that key otherwise or hash keys otherwise.

Each record goes over as it is, with its headers and its timestamp; only the key changes, and with it the partition. A
message with the readings of several sensors becomes a message for each reading. Messages and the position in the source
go in one transaction, so a reader of what is committed finds each exactly once, whatever is killed and when.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.adapters.kafka_clients import client
from pipeline.adapters.kafka_commits import DELIVERIES, KafkaRefusedError, Message
from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError, missing
from pipeline.adapters.kafka_member import MILLISECOND
from pipeline.adapters.kafka_sink import JSON_HEADERS
from pipeline.codecs import JSON, decode_frames
from pipeline.codecs.events import decode_event, is_event
from pipeline.codecs.json import MAX_DEAD_BYTES, encode_dead_letter
from pipeline.core.frames import offset_of
from pipeline.core.readings import PLAIN, Reading, Record, Rejected
from pipeline.core.tags import Tags
from pipeline.ports import Polled, Position
from pipeline.settings_schema import KafkaSettings

ANSWER_SECONDS = 15.0


@dataclass(slots=True)
class Rekeyed:
    """What has been committed, and what waits."""

    messages: int = 0
    refused: int = 0
    left: int = 0  # of the origin, by offsets, as of the last poll


class Rekey:
    """One member of the group that rewrites the topic; several share its partitions. Used from one thread."""

    def __init__(
        self,
        settings: KafkaSettings,
        origin: str,
        target: str,
        waiting: Callable[[str], None],
        tags: Tags | None = None,
    ) -> None:
        """Connect; KafkaAwayError where no broker answers, KafkaSetupError where the cluster cannot be used so.

        `waiting` is called with the reason about once a second of a wait; of `tags`, the sensor is the key.
        """
        topics = settings.topics.model_copy(update={"readings": origin})
        own = {"topics": topics, "group_id": f"{settings.group_id}-rekey-{origin}-{target}", "start": "earliest"}
        settings = settings.model_copy(update=own)
        self._tags = tags
        self._origin, self._target, self._dead = origin, target, settings.topics.dead_letter
        self._pause, self._commit_due = settings.commit_seconds, 0.0
        self._poll_seconds = min(settings.poll_wait_seconds, settings.commit_seconds)
        self._waiting: dict[int, list[Message]] = {}  # by partition of the origin
        self._done: dict[int, int] = {}  # partition -> next offset
        self._committed: dict[int, int] = {}
        self._ends: dict[int, int] = {}  # when the partition came
        self._newest: dict[int, int] = {}  # the ends as of the last poll
        self.rekeyed = Rekeyed()
        by = client(settings)
        self._source = by.source(settings)
        try:
            self._transactions = by.transactions(settings, DELIVERIES, self._source, waiting)
        except BaseException:
            self._source.close()
            raise
        for topic in (origin, target, self._dead):
            self._must_exist(topic)

    def run(
        self,
        stopped: Callable[[], bool],
        *,
        until_end: bool = False,
        on_commit: Callable[[Rekeyed], None] = lambda _: None,
    ) -> Rekeyed:
        """Go on until `stopped`, or until what was there when a partition came has been rewritten.

        KafkaAwayError where a broker does not say how far that is, KafkaSetupError where it refuses a message for good.
        """
        while not stopped():
            polled = self._source.poll(self._poll_seconds)
            self._follow(polled)
            for message, record in self._messages(polled.records):
                self._waiting.setdefault(record.partition, []).append(message)
            self._done |= polled.positions
            self._newest |= polled.ends
            at_end = until_end and self._is_at_end(polled)
            if at_end or time.monotonic() >= self._commit_due:
                committed = self._commit()
                on_commit(self.rekeyed)
                if committed and at_end:
                    break
        else:
            self._commit()
        return self.rekeyed

    def close(self) -> None:
        """Leave the group; what was not committed is rewritten by whoever comes next."""
        self._transactions.close()
        self._source.close()

    def _follow(self, polled: Polled) -> None:
        if polled.given_up:
            self._commit()
        for partition in polled.given_up | polled.lost:
            for of in (self._waiting, self._done, self._committed, self._ends, self._newest):
                of.pop(partition, None)
        for assigned in polled.assigned:
            partition, offset = assigned.partition, assigned.position.offset
            self._ends[partition] = self._end(partition)
            self._done[partition] = self._committed[partition] = offset
            self._source.start(partition, offset)

    def _end(self, partition: int) -> int:
        try:
            return self._source.ends([partition], ANSWER_SECONDS)[partition]
        except KafkaAwayError as error:
            raise KafkaAwayError(f"no broker says where partition {partition} of {self._origin} ends") from error

    def _is_at_end(self, polled: Polled) -> bool:
        ours = self._source.held
        read = {partition for partition, end in self._ends.items() if self._done[partition] >= end}
        return bool(ours) and polled.joined and ours <= read

    def _commit(self) -> bool:
        """Whether nothing is left to commit."""
        self._commit_due = time.monotonic() + self._pause
        moved = {p: at for p, at in self._done.items() if at != self._committed.get(p)}
        if not moved:
            return True
        messages = [message for of in self._waiting.values() for message in of]
        try:
            if not self._transactions.run(messages, {p: Position(at) for p, at in moved.items()}):
                return False
        except KafkaRefusedError as why:
            raise KafkaSetupError(
                f"from {self._origin} to {self._target}: {why}; nothing of this is committed"
            ) from why
        refused = sum(message.topic == self._dead for message in messages)
        self.rekeyed.messages += len(messages) - refused
        self.rekeyed.refused += refused
        self.rekeyed.left = sum(end - self._done[p] for p, end in self._newest.items())
        self._committed.update(moved)
        self._waiting.clear()
        return True

    def _messages(self, records: Sequence[Record]) -> Iterator[tuple[Message, Record]]:
        """What the records become, each with the one that it came from."""
        decoded = decode_frames(records)
        refused: dict[tuple[int, int], list[Rejected]] = {}
        for rejected in decoded.rejected:
            refused.setdefault((rejected.partition, rejected.offset), []).append(rejected)
        readings: dict[tuple[int, int], list[tuple[int, Reading]]] = {}
        for frame in decoded.frames:
            for place, reading in frame.readings():
                readings.setdefault((reading.partition, offset_of(place)), []).append((place, reading))
        for record in records:
            at = record.partition, record.offset
            stands = sorted(readings.get(at, ()), key=lambda each: each[0])
            for message in self._rewritten(record, [reading for _, reading in stands], refused.get(at, [])):
                yield message, record

    def _rewritten(self, record: Record, readings: list[Reading], refused: list[Rejected]) -> Iterator[Message]:
        stamp = record.timestamp // MILLISECOND or None
        if is_event(record):
            event = decode_event(record)
            sensors = set() if isinstance(event, Rejected) else {event.sensor}
            refused = [event] if isinstance(event, Rejected) else []
        else:
            sensors = set(map(self._sensor, readings))
        if len(sensors) == 1 and not refused:
            key = sensors.pop().encode()
            yield Message(self._target, key, record.value or b"", list(record.headers), timestamp=stamp)
        else:
            for reading in readings:
                key = self._sensor(reading).encode()
                yield Message(self._target, key, JSON.encode(reading), JSON_HEADERS, timestamp=stamp)
        for rejected in refused:
            value, headers = encode_dead_letter(rejected)
            yield Message(self._dead, rejected.key and rejected.key[:MAX_DEAD_BYTES], value, headers)

    def _sensor(self, reading: Reading) -> str:
        place = self._tags.place(reading.sensor) if self._tags and tuple(reading.values) == (PLAIN,) else None
        return place[0] if place else reading.sensor

    def _must_exist(self, topic: str) -> None:
        try:
            self._transactions.producer.must_know(topic)
        except KafkaRefusedError as error:
            self.close()
            raise missing(topic, error) from error
