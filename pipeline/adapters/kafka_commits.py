"""Messages and offsets of a member in one transaction, or neither of them (KIP-447), by whatever client.

An outcome that is not known is never asked for again in place: the producer is closed, a new one takes over its
transactional id, which ends whatever was open, and the committed offsets then say how it went.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import structlog

from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError, answers
from pipeline.ports import Moment, Position
from pipeline.settings_schema import KafkaSettings

ANSWER_SECONDS = 5.0  # for one request
BEAT_SECONDS = 1.0  # how often a wait for the broker reports that it still waits
AWAY_SECONDS = 2.0  # no address takes a connection: the client would not find back by itself for half a minute
LINGER_MS = 5
FLUSH_BYTES = 16 * 2**20  # of messages that wait in memory for the broker
BACKOFF_MS = 20  # the next transaction has to wait until the markers of the last are written; by default 100
REST_SECONDS = 0.25  # before the third attempt in a row; twice as long before each further one,
LONGEST_REST_SECONDS = 5.0  # up to this
FUTILE_SECONDS = 300.0  # that attempts in a row may take, though a broker answers: then a person has to look
END = ";"  # of the ticks
TICKS = re.compile(r"(\d{1,19}):(-?\d{1,19})")

log = structlog.get_logger(__name__)


class InDoubtError(Exception):
    """It was not committed, or that is not known."""


class KafkaRefusedError(KafkaSetupError):
    """The brokers do not take a message or a commit, and time will not mend that."""


class Message(NamedTuple):
    """What is sent, and where; without a partition, the key chooses it."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    partition: int | None = None
    timestamp: int | None = None  # ms; now, if not given


class Committed(NamedTuple):
    """What the group keeps of a partition."""

    offset: int
    metadata: str


class Purpose(NamedTuple):
    """What a member's transactions are for."""

    suffix: str  # of the transactional id
    seconds: float  # the broker ends a transaction that its producer has left open for so long
    compression: str | None


DELIVERIES = Purpose("", 10.0, "gzip")  # zlib is always there
CHECKPOINTS = Purpose("-checkpoints", 60.0, None)  # gigabytes take their time


class Member(Protocol):
    """Whoever's offsets are committed."""

    def generation(self) -> Any:
        """What the group knows this member by, for its client's producer; None while it is not in the group."""
        ...

    def committed(self, partition: int) -> Committed | None:
        """What the group has committed; KafkaAwayError where no answer comes within a moment."""
        ...


class Producer(Protocol):
    """A transactional producer that takes its time, made for one transactional id.

    What it raises: KafkaRefusedError for what is refused for good, KafkaSetupError where another process has taken this
    one's name, InDoubtError else.
    """

    def begin(self) -> None:
        """Take over the transactional id, which ends what a predecessor has left open."""
        ...

    def open(self) -> None:
        """A transaction."""
        ...

    def send(self, messages: Iterable[Message]) -> None:
        """Return when the broker has all of them."""
        ...

    def send_offsets(self, committed: Mapping[int, Committed], member: Any) -> None:
        """Into the transaction; `member` is a `Member.generation`."""
        ...

    def commit(self) -> None:
        """All of it."""
        ...

    def must_know(self, topic: str) -> None:
        """KafkaRefusedError where the cluster does not have the topic."""
        ...

    def close(self) -> None:
        """Without waiting: what is in flight is the next producer's to end, and may wait for a broker that is gone."""
        ...


class Transactions:
    """Commits for `member`. Used from one thread, which it blocks."""

    def __init__(
        self,
        settings: KafkaSettings,
        purpose: Purpose,
        member: Member,
        connected: Callable[[str], Producer],
        waiting: Callable[[str], None],
    ) -> None:
        """Connect, and end what a predecessor has left open.

        KafkaAwayError where no broker answers, or none grants a transaction within a moment. `connected` makes a
        producer of a transactional id. `waiting` is called with the reason about once a second of a wait.
        """
        self._settings, self._member, self._waiting = settings, member, waiting
        self._connected, self._seconds = connected, purpose.seconds
        self._name = transactional_id(settings) + purpose.suffix
        self._failures, self._failed_at = 0, 0.0  # in a row; monotonic s
        self._futile = 0.0  # s spent on them, without those of a broker that was away
        self.producer = self._opened()

    def run(self, messages: Iterable[Message], done: Mapping[int, Position]) -> bool:
        """One transaction; False where nothing of it came about. Waits for an absent broker as long as it takes.

        Where several in a row came to nothing, the next is put off. Raises what the broker refuses for good, or has not
        taken for FUTILE_SECONDS; KafkaSetupError where another process has taken this one's name.
        """
        began = time.monotonic()
        self._rest()
        member = self._member.generation()
        if member is None:  # the broker would accept it as that of an outsider
            log.warning("not committed", why="this member is not in the group", effect="it is due again")
            return False
        offsets = {partition: committable(position) for partition, position in done.items()}
        try:
            self._wait_for(partial(_attempt, self.producer, messages, offsets, member), "the broker does not commit")
        except InDoubtError as why:
            return self._resolved(offsets, why, time.monotonic() - began)
        self._failures, self._futile = 0, 0.0
        return True

    def close(self) -> None:
        """Let go; there is nothing to wait for."""
        self.producer.close()

    # -- where it did not go well

    def _rest(self) -> None:
        pause = min(REST_SECONDS * 2.0 ** (self._failures - 2), LONGEST_REST_SECONDS) if self._failures > 1 else 0.0
        while (left := self._failed_at + pause - time.monotonic()) > 0:
            self._waiting(f"{self._failures} commits in a row came to nothing")
            time.sleep(min(left, BEAT_SECONDS))

    def _resolved(self, offsets: Mapping[int, Committed], why: InDoubtError, took: float) -> bool:
        """Whether it was committed after all, once a new producer has put an end to it."""
        self.producer.close()
        self.producer = self._reopened()
        committed = any(self._committed(partition) == wanted for partition, wanted in offsets.items())
        log.warning(
            "transaction in doubt", why=str(why), found="committed" if committed else "aborted",
            effect="the service goes on" if committed else "it is due again",
        )  # fmt: skip
        self._failures, self._futile = (0, 0.0) if committed else (self._failures + 1, self._futile + took)
        self._failed_at = time.monotonic()
        if self._futile > FUTILE_SECONDS:
            raise KafkaRefusedError(
                f"{self._failures} transactions in a row came to nothing, in {self._futile:.0f} s; the last: {why}. "
                "`foreshock doctor` looks for missing topics and rights, the brokers' logs say what else it may be "
                "(min.insync.replicas, disks); a restart goes on from the last commit"
            ) from why
        return committed

    def _reopened(self) -> Producer:
        while True:
            try:
                return self._opened()
            except KafkaAwayError as why:
                self._waiting(str(why))
                time.sleep(BEAT_SECONDS / 4)

    def _committed(self, partition: int) -> Committed | None:
        while True:
            try:
                return self._member.committed(partition)
            except KafkaAwayError:
                self._waiting("the broker does not say what is committed")

    def _opened(self) -> Producer:
        producer = self._connected(self._name)
        try:
            self._wait_for(producer.begin, "the broker grants no transaction")
        except KafkaRefusedError as why:
            producer.close()
            raise KafkaSetupError(
                f"transactional id {self._name}: {why}; grant WRITE and DESCRIBE on transactional ids that begin with "
                f"{self._settings.group_id}"
            ) from why
        except InDoubtError as why:
            producer.close()
            raise KafkaAwayError(
                f"{self._settings.bootstrap_servers}: no transaction is granted; have the brokers room for "
                "transaction.state.log.replication.factor replicas?"
            ) from why
        except BaseException:
            producer.close()
            raise
        return producer

    def _wait_for(self, call: Callable[[], Any], reason: str) -> None:
        """Make a call that the client would wait for without end; InDoubtError where it takes too long.

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
                raise InDoubtError(f"{reason} within {now - began:.0f} s")
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


def committable(position: Position) -> Committed:
    """A position as the group keeps it: the ticks travel as the offset's metadata, 2 of at most 4 kB."""
    ticks = " ".join(f"{t.offset}:{t.time}" for t in position.ticks)
    return Committed(position.offset, ticks and ticks + END)


def ticks_of(metadata: str) -> tuple[Moment, ...]:
    """None where somebody else, or another build, has committed: what does not end as ours may go on with anything."""
    ticks, ended, _ = metadata.partition(END)
    return tuple(Moment(int(offset), int(time)) for offset, time in TICKS.findall(ticks)) if ended else ()


# The steps of a transaction have the producer passed in: one that was given up must not go on with its successor.


def _attempt(producer: Producer, messages: Iterable[Message], offsets: Mapping[int, Committed], member: Any) -> None:
    producer.open()
    _publish(producer, messages)
    _send_offsets(producer, offsets, member)
    _commit(producer)


def _publish(producer: Producer, messages: Iterable[Message]) -> None:
    producer.send(messages)


def _send_offsets(producer: Producer, offsets: Mapping[int, Committed], member: Any) -> None:
    if offsets:
        producer.send_offsets(offsets, member)


def _commit(producer: Producer) -> None:
    producer.commit()
