"""An operator's event into the topic of readings, so that whoever reads them meets it in its place."""

from __future__ import annotations

from collections.abc import Sequence

from kafka.errors import KafkaError

from pipeline.adapters.kafka_connection import KafkaSetupError, new_producer, partitions_to
from pipeline.settings_schema import KafkaSettings

ANSWER_SECONDS = 10.0


def send_event(
    settings: KafkaSettings,
    sensor: str,
    value: bytes,
    headers: Sequence[tuple[str, bytes]],
    *,
    everywhere: bool = False,
) -> list[tuple[int, int]]:
    """Store it in the sensor's own partition, or in all of them; where it stands: (partition, offset).

    KafkaAwayError or KafkaSetupError where that does not work, or only in part: it may be sent again.
    """
    topic = settings.topics.readings
    try:
        producer = new_producer(settings, max_block_ms=round(ANSWER_SECONDS * 1000))
    except KafkaError as error:
        raise KafkaSetupError(f"topic {topic}: {error}") from error
    there = partitions_to(producer, topic)
    try:
        chosen = sorted(there) if everywhere else [None]  # None: as murmur2 says
        sent = [
            producer.send(topic, value, key=sensor.encode(), headers=list(headers), partition=partition)
            for partition in chosen
        ]
        stored = [future.get(timeout=ANSWER_SECONDS) for future in sent]
    except KafkaError as error:
        raise KafkaSetupError(f"topic {topic}: {error}; this needs WRITE on it") from error
    finally:
        producer.close(timeout=ANSWER_SECONDS)
    return [(record.partition, record.offset) for record in stored]
