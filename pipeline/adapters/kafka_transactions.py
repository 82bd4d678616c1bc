"""A transactional producer for a member of a group: messages and offsets together, or neither of them (KIP-447).

An outcome that is not known is never asked for again in place: the producer is closed, a new one takes over its
transactional id, which ends whatever was open, and the committed offsets then say how it went.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import structlog
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
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

from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError, answers, connection
from pipeline.settings_schema import KafkaSettings

ANSWER_SECONDS = 5.0  # for one request
BEAT_SECONDS = 1.0  # how often a wait for the broker reports that it still waits
TRANSACTION_SECONDS = 10.0  # the broker ends a transaction that its producer has left open for so long
AWAY_SECONDS = 2.0  # no address takes a connection: the client would not find back by itself for half a minute
MOST_FAILURES = 10  # in a row, though a broker answers
FOREVER_MS = 2**31 - 1  # a delivery ends when the broker has it, or with its transaction
LINGER_MS = 5
FLUSH_BYTES = 16 * 2**20  # of messages that wait in memory for the broker
BACKOFF_MS = 20  # the next transaction has to wait until the markers of the last are written; by default 100
FOR_GOOD = (AuthorizationError, InvalidTopicError, MessageSizeTooLargeError, UnsupportedForMessageFormatError,
            UnsupportedVersionError)  # fmt: skip

log = structlog.get_logger(__name__)

Offsets = Mapping[TopicPartition, OffsetAndMetadata]


class Message(NamedTuple):
    """What is sent, and where; without a partition, the key chooses it."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    partition: int | None = None
    timestamp: int | None = None  # ms; now, if not given


class Transactions:
    """Commits for the group that `consumer` is a member of. Used from one thread, which it blocks."""

    def __init__(
        self,
        settings: KafkaSettings,
        name: str,
        consumer: KafkaConsumer,
        waiting: Callable[[str], None],
        *,
        seconds: float = TRANSACTION_SECONDS,
        compression: str | None = "gzip",  # zlib is always there
        outside: bool = False,
    ) -> None:
        """Connect, and end what a predecessor of this `name` (the transactional id) has left open.

        KafkaAwayError where no broker answers, or none grants a transaction within a moment. `waiting` is called with
        the reason about once a second of a wait; the broker ends a transaction that is open for `seconds`.
        `outside`: for a group that has no members.
        """
        self._settings, self._name, self._consumer, self._waiting = settings, name, consumer, waiting
        self._seconds, self._compression, self._outside = seconds, compression, outside
        self._failures = 0
        self.producer = self._opened()

    def run(self, messages: Iterable[Message], offsets: Offsets) -> bool:
        """One transaction; False where nothing of it came about. Waits for an absent broker as long as it takes.

        Raises what the broker refuses for good; KafkaSetupError where another process has taken this one's name.
        """
        member = self._consumer.group_metadata()
        if member.generation_id < 0 and not self._outside:  # the broker would accept it as that of an outsider
            log.warning("not committed", why="this member is not in the group", effect="it is due again")
            return False
        try:
            self._wait_for(partial(_attempt, self.producer, messages, offsets, member), "the broker does not commit")
        except FencedInstanceIdError as why:
            raise named_twice(self._settings) from why
        except FOR_GOOD:
            raise
        except KafkaError as why:
            return self._resolved(offsets, why)
        self._failures = 0
        return True

    def close(self) -> None:
        """Let go; there is nothing to wait for."""
        _close(self.producer)

    # -- where it did not go well

    def _resolved(self, offsets: Offsets, why: KafkaError) -> bool:
        """Whether it was committed after all, once a new producer has put an end to it."""
        _close(self.producer)
        self.producer = self._reopened()
        committed = any(self._committed(tp) == wanted for tp, wanted in offsets.items())
        log.warning(
            "transaction in doubt", why=str(why), found="committed" if committed else "aborted",
            effect="the service goes on" if committed else "it is due again",
        )  # fmt: skip
        self._failures = 0 if committed else self._failures + 1
        if self._failures > MOST_FAILURES:
            raise why
        return committed

    def _reopened(self) -> KafkaProducer:
        while True:
            try:
                return self._opened()
            except KafkaAwayError as why:
                self._waiting(str(why))
                time.sleep(BEAT_SECONDS / 4)

    def _committed(self, tp: TopicPartition) -> OffsetAndMetadata | None:
        while True:
            try:
                found = self._consumer.committed(tp, metadata=True, timeout_ms=round(BEAT_SECONDS * 1000))
            except RetriableError:
                self._waiting("the broker does not say what is committed")
            else:
                return found and OffsetAndMetadata(found.offset, found.metadata or "", -1)

    def _opened(self) -> KafkaProducer:
        producer = self._connected()
        try:
            self._wait_for(producer.init_transactions, "the broker grants no transaction")
        except AuthorizationError as why:
            _close(producer)
            raise KafkaSetupError(
                f"transactional id {self._name}: {why}; grant WRITE and DESCRIBE on transactional ids that begin with "
                f"{self._settings.group_id}"
            ) from why
        except (KafkaTimeoutError, ProducerFencedError) as why:
            _close(producer)
            raise KafkaAwayError(
                f"{self._settings.bootstrap_servers}: no transaction is granted; have the brokers room for "
                "transaction.state.log.replication.factor replicas?"
            ) from why
        except BaseException:
            _close(producer)
            raise
        return producer

    def _connected(self) -> KafkaProducer:
        try:
            return KafkaProducer(
                **connection(self._settings),
                transactional_id=self._name,
                transaction_timeout_ms=round(self._seconds * 1000),
                acks="all",
                linger_ms=LINGER_MS,
                retry_backoff_ms=BACKOFF_MS,
                compression_type=self._compression,
                delivery_timeout_ms=FOREVER_MS,
                max_block_ms=round(ANSWER_SECONDS * 1000),
                allow_auto_create_topics=False,
            )
        except RetriableError as error:
            raise KafkaAwayError(f"no broker at {self._settings.bootstrap_servers} answers") from error

    def _wait_for(self, call: Callable[[], Any], reason: str) -> None:
        """Make a call that the client would wait for without end; KafkaTimeoutError where it takes too long.

        The thread may then be left behind, waiting for a producer that is closed; it does nothing any more.
        """
        raised: list[BaseException] = []

        def work() -> None:
            try:
                call()
            except BaseException as error:
                raised.append(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        began = answered = time.monotonic()
        worker.join(BEAT_SECONDS)
        while worker.is_alive():
            self._waiting(reason)
            now = time.monotonic()
            if answers(self._settings):
                answered = now
            if now - answered > AWAY_SECONDS or now - began > self._seconds:
                raise KafkaTimeoutError(f"{reason} within {now - began:.0f} s")
            worker.join(BEAT_SECONDS)
        if raised:
            raise raised[0]


def named_twice(settings: KafkaSettings) -> KafkaSetupError:
    """What to say where the group fences this member."""
    return KafkaSetupError(
        f"kafka.instance_id {settings.instance_id}: another process has joined the group by this name; "
        "give each its own, for example the name of its pod"
    )


def transactional_id(settings: KafkaSettings) -> str:
    """The same for each process of this name, so that a restart ends what it had left open; else another each time."""
    return f"{settings.group_id}-{settings.instance_id or uuid.uuid4().hex}"


# The steps of a transaction have the producer passed in: one that was given up must not go on with its successor.


def _attempt(
    producer: KafkaProducer, messages: Iterable[Message], offsets: Offsets, member: ConsumerGroupMetadata
) -> None:
    producer.begin_transaction()
    _publish(producer, messages)
    _send_offsets(producer, offsets, member)
    _commit(producer)


def _publish(producer: KafkaProducer, messages: Iterable[Message]) -> None:
    sent, waiting = [], 0
    for m in messages:
        sent.append(
            producer.send(
                m.topic, m.value, key=m.key, headers=m.headers, partition=m.partition, timestamp_ms=m.timestamp
            )
        )
        waiting += len(m.value)
        if waiting > FLUSH_BYTES:
            producer.flush()
            waiting = 0
    if waiting:
        producer.flush()
    for future in sent:
        future.get(timeout=0)  # raises what the broker refused


def _send_offsets(producer: KafkaProducer, offsets: Offsets, member: ConsumerGroupMetadata) -> None:
    if offsets:
        producer.send_offsets_to_transaction(dict(offsets), member)


def _commit(producer: KafkaProducer) -> None:
    producer.commit_transaction()


def _close(producer: KafkaProducer) -> None:
    """Without waiting: what is in flight is the next producer's to end, and may wait for a broker that is gone."""
    producer._sender.force_close()
    producer._sender.join(BEAT_SECONDS)
    with contextlib.suppress(KafkaTimeoutError):
        producer.close(timeout=0)
