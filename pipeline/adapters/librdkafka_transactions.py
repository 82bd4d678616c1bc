"""A transactional producer by librdkafka (confluent-kafka)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from pipeline.adapters.kafka_commits import (
    ANSWER_SECONDS,
    BACKOFF_MS,
    FLUSH_BYTES,
    LINGER_MS,
    Committed,
    InDoubtError,
    KafkaRefusedError,
    Member,
    Message,
    Purpose,
    Transactions,
)
from pipeline.adapters.librdkafka_connection import FOR_GOOD, accepted, cause, configuration, translated
from pipeline.settings_schema import KafkaSettings

FULL_SECONDS = 0.1  # between two looks at a queue that is full
LARGEST_BYTES = 2**20  # of a message, as brokers have it by default


class LibrdkafkaProducer:
    """See `kafka_commits.Producer`."""

    def __init__(self, settings: KafkaSettings, purpose: Purpose, name: str) -> None:
        """KafkaAwayError where no broker answers."""
        self._settings, self._seconds = settings, purpose.seconds
        self._refused: list[KafkaError] = []
        reaching = configuration(settings)
        with accepted(settings):
            self._producer = Producer(
                {
                    **reaching,
                    "transactional.id": name,
                    "transaction.timeout.ms": round(purpose.seconds * 1000),
                    "partitioner": "murmur2_random",  # as the Java clients and kafka-python; its own default is another
                    "linger.ms": LINGER_MS,
                    "retry.backoff.ms": BACKOFF_MS,
                    "compression.type": purpose.compression or "none",
                    "message.max.bytes": LARGEST_BYTES,
                }
            )

    def begin(self) -> None:
        """Take over the transactional id."""
        try:
            self._producer.init_transactions(self._seconds)
        except KafkaException as error:
            why = cause(error)
            transient = why.retriable() or why.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED)
            raise (InDoubtError if transient else KafkaRefusedError)(why.str()) from error

    def open(self) -> None:
        """A transaction."""
        with self._said():
            self._producer.begin_transaction()

    def send(self, messages: Iterable[Message]) -> None:
        """Return when the broker has all of them."""
        self._refused.clear()
        waiting = 0
        with self._said():
            for m in messages:
                self._put(m)
                waiting += len(m.value)
                if waiting > FLUSH_BYTES:
                    self._flush()
                    waiting = 0
            if waiting:
                self._flush()

    def send_offsets(self, committed: Mapping[int, Committed], member: Any) -> None:
        """Into the transaction."""
        topic = self._settings.topics.readings
        offsets = [TopicPartition(topic, p, at.offset, at.metadata) for p, at in committed.items()]
        with self._said():
            self._producer.send_offsets_to_transaction(offsets, member, self._seconds)

    def commit(self) -> None:
        """All of it."""
        with self._said():
            self._producer.commit_transaction(self._seconds)

    def must_know(self, topic: str) -> None:
        """KafkaRefusedError where the cluster does not have the topic."""
        try:
            error = self._producer.list_topics(topic, ANSWER_SECONDS).topics[topic].error
        except KafkaException as failed:
            error = cause(failed)
        if error is not None:
            raise KafkaRefusedError(error.str())

    def close(self) -> None:
        """Without waiting; the rest goes with the object."""
        self._producer.purge()

    def _put(self, m: Message) -> None:
        words: dict[str, Any] = {"key": m.key, "value": m.value, "headers": m.headers, "on_delivery": self._told}
        if m.partition is not None:
            words["partition"] = m.partition
        if m.timestamp is not None:
            words["timestamp"] = m.timestamp
        while True:
            try:
                self._producer.produce(m.topic, **words)
            except BufferError:
                self._producer.poll(FULL_SECONDS)
            else:
                return

    def _flush(self) -> None:
        left = self._producer.flush(self._seconds)
        if self._refused:
            for_good = [error for error in self._refused if error.code() in FOR_GOOD]
            raise KafkaException([*for_good, *self._refused][0])
        if left:
            raise InDoubtError(f"{left} messages are not acknowledged within {self._seconds:.0f} s")

    def _told(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._refused.append(error)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except (KafkaException, SystemError) as error:
            raise translated(self._settings, cause(error)) from error


def transactions(
    settings: KafkaSettings, purpose: Purpose, member: Member, waiting: Callable[[str], None]
) -> Transactions:
    """Transactions by librdkafka; the member is one as well."""
    return Transactions(settings, purpose, member, partial(LibrdkafkaProducer, settings, purpose), waiting)
