"""Where a group stands, and where one that has no members at the moment will go on."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError, RetriableError
from kafka.partitioner.default import murmur2

from pipeline.adapters.kafka_commits import Committed, committable
from pipeline.adapters.kafka_connection import (
    KafkaAwayError,
    KafkaSetupError,
    committed_as,
    connection,
    kept_offset,
    new_consumer,
    partitions_of,
)
from pipeline.ports import Position
from pipeline.settings_schema import KafkaSettings

ANSWER_MS = 15_000
LOOK_MS = 5_000  # in the loop of a service


def committed(settings: KafkaSettings, topic: str) -> dict[int, int]:
    """Partition -> the first offset that the group has not read yet, of the partitions that it has committed."""
    try:
        with KafkaAdminClient(**connection(settings)) as admin:
            found = admin.list_group_offsets(settings.group_id)[settings.group_id]
    except KafkaError as error:
        raise KafkaSetupError(f"group {settings.group_id}: {error}") from error
    return {tp.partition: at.offset for tp, at in found.items() if tp.topic == topic and at.offset >= 0}


def nobodys(settings: KafkaSettings, partitions: AbstractSet[int]) -> set[int] | None:
    """Those of the readings' partitions that the group has given to no member; None where it cannot be asked now.

    A member that is killed after it gave partitions up, before it joins again to say so, leaves them behind: back under
    its name, it is given what it had kept, and no rebalance comes that would give the others to anybody.
    """
    try:
        with KafkaAdminClient(**connection(settings), request_timeout_ms=LOOK_MS) as admin:
            group = admin.describe_groups([settings.group_id])[settings.group_id]
    except (KafkaAwayError, RetriableError):
        return None
    if group["group_state"] != "Stable":
        return None
    given: set[int] = set()
    for member in group["members"]:
        for of_topic in member["member_assignment"]["assigned_partitions"] if member["member_assignment"] else ():
            given |= set(of_topic["partitions"]) if of_topic["topic"] == settings.topics.readings else set()
    return set(partitions) - given


class IdleGroup:
    """KafkaAwayError or KafkaSetupError where the cluster cannot be asked, or the group has members."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings, self._topic = settings, settings.topics.readings
        try:
            self._consumer = new_consumer(settings, group_id=settings.group_id, isolation_level="read_committed")
        except KafkaError as error:
            raise KafkaSetupError(f"group {settings.group_id}: {error}") from error
        try:
            self._partitions = sorted(partitions_of(self._consumer, self._topic))
            self._must_have_no_members()
        except BaseException:
            self.close()
            raise

    @property
    def partitions(self) -> int:
        """Of the topic it reads."""
        return len(self._partitions)

    def read(self) -> dict[int, Position]:
        """How far each partition has been read, of those that have."""
        found = {partition: self.committed(partition) for partition in self._partitions}
        return {partition: Position(at.offset) for partition, at in found.items() if at is not None}

    def committed(self, partition: int) -> Committed | None:
        """What the group has committed; KafkaAwayError where no answer comes."""
        try:
            at = self._consumer.committed(TopicPartition(self._topic, partition), metadata=True, timeout_ms=ANSWER_MS)
        except RetriableError as error:
            raise KafkaAwayError(str(error)) from error
        found = committed_as(at)
        return found and Committed(*found)

    def generation(self) -> Any:
        """That of an outsider, which the broker takes for as long as the group has no members."""
        return self._consumer.group_metadata()

    def unread(self, committed: Mapping[int, Position]) -> int:
        """Messages that wait in these partitions."""
        tps = [TopicPartition(self._topic, partition) for partition in committed]
        ends = self._consumer.end_offsets(tps, timeout_ms=ANSWER_MS)
        return sum(max(ends[tp] - committed[tp.partition].offset, 0) for tp in tps)

    def commit(self, positions: Mapping[int, Position]) -> None:
        """From here it goes on."""
        offsets = {
            TopicPartition(self._topic, partition): kept_offset(*committable(at)) for partition, at in positions.items()
        }
        self._consumer.commit(offsets, timeout_ms=ANSWER_MS)

    def close(self) -> None:
        """Let go."""
        self._consumer.close(autocommit=False)

    def _must_have_no_members(self) -> None:
        group_id = self._settings.group_id
        try:
            with KafkaAdminClient(**connection(self._settings)) as admin:
                members = len(admin.describe_groups([group_id])[group_id]["members"])
        except KafkaError as error:
            raise KafkaSetupError(f"group {group_id}: {error}") from error
        if members:
            raise KafkaSetupError(
                f"group {group_id}: has {members} members; stop them (one with kafka.instance_id stays a member until "
                "kafka.session_timeout_seconds are over)"
            )


def place_of(sensor: bytes, partitions: int) -> int:
    """Where the Java clients, and this one, put a key."""
    return int((murmur2(sensor) & 0x7FFFFFFF) % partitions)
