"""Where a group stands, and where one that has no members at the moment will go on."""

from __future__ import annotations

from collections.abc import Mapping

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2

from pipeline.adapters.kafka import committable
from pipeline.adapters.kafka_connection import KafkaSetupError, connection
from pipeline.ports import Position
from pipeline.settings_schema import KafkaSettings

ANSWER_MS = 15_000


def committed(settings: KafkaSettings, topic: str) -> dict[int, int]:
    """Partition -> the first offset that the group has not read yet, of the partitions that it has committed."""
    try:
        with KafkaAdminClient(**connection(settings)) as admin:
            found = admin.list_group_offsets(settings.group_id)[settings.group_id]
    except KafkaError as error:
        raise KafkaSetupError(f"group {settings.group_id}: {error}") from error
    return {tp.partition: at.offset for tp, at in found.items() if tp.topic == topic and at.offset >= 0}


class IdleGroup:
    """KafkaAwayError or KafkaSetupError where the cluster cannot be asked, or the group has members."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings, self._topic = settings, settings.topics.readings
        try:
            with KafkaAdminClient(**connection(settings)) as admin:
                group = admin.describe_groups([settings.group_id])[settings.group_id]
            if members := len(group["members"]):
                raise KafkaSetupError(
                    f"group {settings.group_id}: has {members} members; stop them (one with kafka.instance_id stays a "
                    "member until kafka.session_timeout_seconds are over)"
                )
            self.consumer = KafkaConsumer(
                **connection(settings),
                group_id=settings.group_id,
                enable_auto_commit=False,
                isolation_level="read_committed",
                allow_auto_create_topics=False,
            )
        except KafkaError as error:
            raise KafkaSetupError(f"group {settings.group_id}: {error}") from error
        self._partitions = sorted(self.consumer.partitions_for_topic(self._topic) or ())

    @property
    def partitions(self) -> int:
        """Of the topic it reads."""
        return len(self._partitions)

    def committed(self) -> dict[int, Position]:
        """Of the partitions that have been read."""
        found = {}
        for partition in self._partitions:
            at = self.consumer.committed(TopicPartition(self._topic, partition), metadata=True, timeout_ms=ANSWER_MS)
            if at is not None and at.offset >= 0:
                found[partition] = Position(at.offset)
        return found

    def unread(self, committed: Mapping[int, Position]) -> int:
        """Messages that wait in these partitions."""
        tps = [TopicPartition(self._topic, partition) for partition in committed]
        ends = self.consumer.end_offsets(tps, timeout_ms=ANSWER_MS)
        return sum(max(ends[tp] - committed[tp.partition].offset, 0) for tp in tps)

    def commit(self, positions: Mapping[int, Position]) -> None:
        """From here it goes on."""
        offsets = {TopicPartition(self._topic, partition): committable(at) for partition, at in positions.items()}
        self.consumer.commit(offsets, timeout_ms=ANSWER_MS)

    def close(self) -> None:
        """Let go."""
        self.consumer.close(autocommit=False)


def place_of(sensor: bytes, partitions: int) -> int:
    """Where the Java clients, and this one, put a key."""
    return int((murmur2(sensor) & 0x7FFFFFFF) % partitions)
