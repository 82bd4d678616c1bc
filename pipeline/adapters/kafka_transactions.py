"""A transactional producer by kafka-python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from kafka import TopicPartition
from kafka.errors import (
    AuthorizationError,
    FencedInstanceIdError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    ProducerFencedError,
    RetriableError,
    UnsupportedForMessageFormatError,
    UnsupportedVersionError,
)
from kafka.structs import ConsumerGroupMetadata

from pipeline.adapters.kafka_commits import (
    ANSWER_SECONDS,
    BACKOFF_MS,
    BEAT_SECONDS,
    FLUSH_BYTES,
    LINGER_MS,
    Committed,
    InDoubtError,
    KafkaRefusedError,
    Member,
    Message,
    Purpose,
    Transactions,
    named_twice,
)
from pipeline.adapters.kafka_connection import KafkaAwayError, kept_offset, new_producer
from pipeline.settings_schema import KafkaSettings

FOREVER_MS = 2**31 - 1  # a delivery ends when the broker has it, or with its transaction
FOR_GOOD = (AuthorizationError, InvalidTopicError, MessageSizeTooLargeError, UnsupportedForMessageFormatError,
            UnsupportedVersionError)  # fmt: skip


class KafkaTransactionalProducer:
    """See `kafka_commits.Producer`. Its calls wait without end."""

    def __init__(self, settings: KafkaSettings, purpose: Purpose, name: str) -> None:
        """KafkaAwayError where no broker answers."""
        self._settings = settings
        try:
            self._producer = new_producer(
                settings,
                transactional_id=name,
                transaction_timeout_ms=round(purpose.seconds * 1000),
                linger_ms=LINGER_MS,
                retry_backoff_ms=BACKOFF_MS,
                compression_type=purpose.compression,
                delivery_timeout_ms=FOREVER_MS,
                max_block_ms=round(ANSWER_SECONDS * 1000),
            )
        except RetriableError as error:
            raise KafkaAwayError(f"no broker at {settings.bootstrap_servers} answers") from error

    def begin(self) -> None:
        """Take over the transactional id."""
        try:
            self._producer.init_transactions()
        except (KafkaTimeoutError, ProducerFencedError, RetriableError) as error:
            raise InDoubtError(str(error)) from error
        except KafkaError as error:
            raise KafkaRefusedError(str(error)) from error

    def open(self) -> None:
        """A transaction."""
        with self._said():
            self._producer.begin_transaction()

    def send(self, messages: Iterable[Message]) -> None:
        """Return when the broker has all of them."""
        sent, waiting = [], 0
        with self._said():
            for m in messages:
                sent.append(
                    self._producer.send(
                        m.topic, m.value, key=m.key, headers=m.headers, partition=m.partition, timestamp_ms=m.timestamp
                    )
                )
                waiting += len(m.value)
                if waiting > FLUSH_BYTES:
                    self._producer.flush()
                    waiting = 0
            if waiting:
                self._producer.flush()
            for future in sent:
                future.get(timeout=0)  # raises what the broker refused

    def send_offsets(self, committed: Mapping[int, Committed], member: ConsumerGroupMetadata) -> None:
        """Into the transaction."""
        topic = self._settings.topics.readings
        with self._said():
            self._producer.send_offsets_to_transaction(
                {TopicPartition(topic, p): kept_offset(*at) for p, at in committed.items()},
                member,
            )

    def commit(self) -> None:
        """All of it."""
        with self._said():
            self._producer.commit_transaction()

    def must_know(self, topic: str) -> None:
        """KafkaRefusedError where the cluster does not have the topic."""
        try:
            self._producer.partitions_for(topic)
        except KafkaError as error:
            raise KafkaRefusedError(str(error)) from error

    def close(self) -> None:
        """Without waiting."""
        self._producer._sender.force_close()
        self._producer._sender.join(BEAT_SECONDS)
        with contextlib.suppress(KafkaTimeoutError):
            self._producer.close(timeout=0)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """The client's errors in the words of every producer."""
        try:
            yield
        except FencedInstanceIdError as error:
            raise named_twice(self._settings) from error
        except FOR_GOOD as error:
            raise KafkaRefusedError(str(error)) from error
        except KafkaError as error:
            raise InDoubtError(str(error)) from error


def transactions(
    settings: KafkaSettings, purpose: Purpose, member: Member, waiting: Callable[[str], None]
) -> Transactions:
    """Transactions by kafka-python."""
    return Transactions(settings, purpose, member, partial(KafkaTransactionalProducer, settings, purpose), waiting)
