"""Kafka through kafka-python: a member of a consumer group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import structlog
from kafka import TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError, RetriableError
from kafka.structs import MemberState

from pipeline.adapters.kafka_commits import ANSWER_SECONDS, Committed, named_twice
from pipeline.adapters.kafka_connection import KafkaAwayError, committed_as, new_consumer
from pipeline.adapters.kafka_member import CLIENT_ID, FETCH_BYTES, METADATA_SECONDS, MILLISECOND, GroupMember
from pipeline.adapters.kafka_rebalances import Assignor, GivenUpError, Rebalances, lose_all_when_put_out
from pipeline.core.readings import Record
from pipeline.settings_schema import KafkaSettings

ANSWER_MS = round(ANSWER_SECONDS * 1000)

log = structlog.get_logger(__name__)


class KafkaSource(GroupMember):
    """One member of the group, on the loop's thread; the client's own I/O thread keeps it in the group."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect; KafkaAwayError where no broker answers within a moment."""
        super().__init__(settings)
        self._rebalances = Rebalances(self.noted)
        try:
            self.consumer = new_consumer(
                settings,
                client_id=CLIENT_ID,
                group_id=settings.group_id,
                group_instance_id=settings.instance_id,  # a restart within the session timeout moves no partition
                auto_offset_reset="earliest",  # where retention overtakes the group; a fresh start is decided elsewhere
                isolation_level="read_committed",
                partition_assignment_strategy=[Assignor],
                max_partition_fetch_bytes=FETCH_BYTES,
                max_poll_interval_ms=round(settings.max_poll_interval_seconds * 1000),
                session_timeout_ms=round(settings.session_timeout_seconds * 1000),
                heartbeat_interval_ms=round(settings.heartbeat_seconds * 1000),
                metadata_max_age_ms=round(METADATA_SECONDS * 1000),
            )
        except RetriableError as error:
            raise KafkaAwayError(f"no broker at {settings.bootstrap_servers} answers") from error
        self._rebalances.consumer = self.consumer
        lose_all_when_put_out(self.consumer)
        self.consumer.subscribe([self._topic], listener=self._rebalances)

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._rebalances.leaving = True
        self.consumer.close(autocommit=False, timeout_ms=ANSWER_MS)

    def generation(self) -> Any:
        """See `kafka_commits.Member`."""
        member = self.consumer.group_metadata()
        return None if member.generation_id < 0 else member

    def committed(self, partition: int) -> Committed | None:
        """What the group has committed."""
        with _answered():
            found = self.consumer.committed(self._tp(partition), metadata=True, timeout_ms=ANSWER_MS)
        at = committed_as(found)
        return at and Committed(*at)

    def _taken(self, timeout_seconds: float, most: int) -> list[Record]:
        try:
            polled = self.consumer.poll(timeout_ms=round(timeout_seconds * 1000), max_records=most)
        except FencedInstanceIdError as error:
            raise named_twice(self._settings) from error
        except KafkaError as error:
            if not isinstance(error, RetriableError) and not isinstance(error.__cause__, GivenUpError):
                raise
            log.info("poll cut short", why=str(error.__cause__ or error))
            return []
        return [record for tp, found in polled.items() for record in records(tp, found)]

    def _flow(self, partition: int, offset: int) -> None:
        self.consumer.seek(self._tp(partition), offset)
        self.consumer.resume(self._tp(partition))

    def _reached(self, partition: int) -> int | None:
        try:
            position: int | None = self.consumer.position(self._tp(partition), timeout_ms=0)
        except RetriableError:
            return None
        return position

    def _end_seen(self, partition: int) -> int | None:
        end: int | None = self.consumer.highwater(self._tp(partition))
        return end

    def _joined(self) -> bool:
        return bool(self.consumer.group_metadata().state == MemberState.STABLE)

    def _silence_seconds(self) -> float:
        return float(self.consumer.metrics()["consumer-coordinator-metrics"]["last-heartbeat-seconds-ago"])

    def _join_again(self) -> None:
        self.consumer._coordinator.request_rejoin()

    def _partitions(self) -> set[int]:
        return set(self.consumer.partitions_for_topic(self._topic) or ())

    def _earliest(self, partition: int) -> int:
        tp = self._tp(partition)
        with _answered():
            return int(self.consumer.beginning_offsets([tp], timeout_ms=ANSWER_MS)[tp])

    def ends(self, partitions: Sequence[int], seconds: float) -> dict[int, int]:
        """Behind the last committed record of each, now."""
        with _answered():
            ends = self.consumer.end_offsets([*map(self._tp, partitions)], timeout_ms=round(seconds * 1000))
        return {tp.partition: int(end) for tp, end in ends.items()}

    def _at_time(self, partition: int, milliseconds: int) -> int | None:
        tp = self._tp(partition)
        with _answered():
            found = self.consumer.offsets_for_times({tp: milliseconds}, timeout_ms=ANSWER_MS)[tp]
        return None if found is None else int(found.offset)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RetriableError as error:
        raise KafkaAwayError(str(error)) from error


def records(tp: TopicPartition, found: Sequence[Any]) -> Iterator[Record]:
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
