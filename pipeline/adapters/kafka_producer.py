"""Plain messages to a topic through kafka-python, each acknowledged by all replicas or an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from kafka.errors import KafkaError, RetriableError

from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError, new_producer, partitions_to
from pipeline.settings_schema import KafkaSettings

LINGER_MS = 20
UNCHECKED = 10_000  # messages whose acknowledgement is looked at together


class TopicProducer:
    """Sends to one topic. KafkaAwayError or KafkaSetupError where that cannot be."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._servers, self._topic = settings.bootstrap_servers, topic
        try:
            self._producer = new_producer(settings, linger_ms=LINGER_MS)
        except RetriableError as error:
            raise KafkaAwayError(f"no broker at {self._servers} answers") from error
        self._sent: list[Any] = []
        self.partitions = len(partitions_to(self._producer, topic))

    def send(self, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes]], partition: int) -> None:
        """Put a message on its way."""
        try:
            self._sent.append(
                self._producer.send(self._topic, value, key=key, headers=list(headers), partition=partition)
            )
        except KafkaError as error:
            raise KafkaSetupError(f"topic {self._topic}: {error}") from error
        if len(self._sent) >= UNCHECKED:
            self.flush()

    def flush(self) -> None:
        """Wait until everything that was sent is acknowledged."""
        try:
            self._producer.flush()
            for future in self._sent:
                future.get(timeout=0)
        except RetriableError as error:
            raise KafkaAwayError(f"{self._servers}: not everything was acknowledged: {error}") from error
        except KafkaError as error:
            raise KafkaSetupError(f"topic {self._topic}: {error}") from error
        self._sent.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close()
