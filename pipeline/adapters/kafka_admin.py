"""What a cluster says of itself, for `foreshock doctor`; changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from pipeline.adapters.kafka_connection import KafkaSetupError, connection, new_consumer
from pipeline.settings_schema import KafkaSettings

ANSWER_MS = 5_000


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic as it is."""

    partitions: int
    replicas: int  # of its least replicated partition
    config: Mapping[str, str]
    operations: frozenset[str] | None  # what this client may do; None where the broker does not tell


@dataclass(frozen=True, slots=True)
class Survey:
    """The cluster, and the topics that were asked for."""

    brokers: int
    topics: Mapping[str, TopicState]  # those that exist
    newest: float | None  # s since 1970, the timestamp of the newest reading


def survey(settings: KafkaSettings, topics: Iterable[str]) -> Survey:
    """Look at the cluster; KafkaAwayError or KafkaSetupError where it cannot be asked."""
    try:
        with KafkaAdminClient(**connection(settings)) as admin:
            brokers, states = len(admin.describe_cluster()["brokers"]), _states(admin, sorted(topics))
        readings = settings.topics.readings
        return Survey(brokers, states, _newest(settings, states[readings].partitions) if readings in states else None)
    except KafkaError as error:
        raise KafkaSetupError(f"{settings.bootstrap_servers}: {error}") from error


def _states(admin: KafkaAdminClient, wanted: list[str]) -> dict[str, TopicState]:
    found = {topic["name"]: topic for topic in admin.describe_topics(wanted) if topic["error_code"] == 0}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name, None) for name in found]
    configs = admin.describe_configs(asked, config_filter="all").get("topic", {}) if asked else {}
    states = {}
    for name, topic in found.items():
        operations = topic["authorized_operations"]
        states[name] = TopicState(
            len(topic["partitions"]),
            min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
            {key: str(setting["value"]) for key, setting in configs.get(name, {}).items()},
            None if operations is None else frozenset(operations),
        )
    return states


def _newest(settings: KafkaSettings, partitions: int) -> float | None:
    """The timestamp of the last record of any partition, read without joining the group."""
    tps = [TopicPartition(settings.topics.readings, partition) for partition in range(partitions)]
    consumer = new_consumer(settings)
    try:
        ends = consumer.end_offsets(tps, timeout_ms=ANSWER_MS)
        filled = [tp for tp in tps if ends[tp] > 0]
        consumer.assign(filled)
        for tp in filled:
            consumer.seek(tp, ends[tp] - 1)
        polled = consumer.poll(timeout_ms=1000) if filled else {}
        return max((record.timestamp / 1000 for found in polled.values() for record in found), default=None)
    finally:
        consumer.close(autocommit=False)
