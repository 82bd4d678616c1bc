"""Creates the topics that a demo or a first try needs; in production they are whoever runs Kafka's to create."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from pipeline.adapters.kafka_connection import connection
from pipeline.settings_schema import KafkaSettings


def ensure_topics(
    settings: KafkaSettings, partitions: Mapping[str, int], compacted: AbstractSet[str] = frozenset()
) -> None:
    """Create each topic that does not exist, unreplicated, with so many partitions."""
    admin = KafkaAdminClient(**connection(settings))
    try:
        for topic, count in partitions.items():
            try:
                kept = {"cleanup.policy": "compact"} if topic in compacted else {}
                admin.create_topics([NewTopic(topic, count, 1, topic_configs=kept)])
            except TopicAlreadyExistsError:
                continue
    finally:
        admin.close()
