"""Plain messages to a topic through kafka-python, each acknowledged by all replicas or an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from kafka import KafkaProducer
from kafka.errors import KafkaError, RetriableError

from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError, connection, create_no_topics
from pipeline.settings_schema import KafkaSettings

LINGER_MS = 20
ANSWER_MS = 10_000  # for what partitions there are
UNCHECKED = 10_000  # messages whose acknowledgement is looked at together


class TopicProducer:
    """Sends to one topic. KafkaAwayError or KafkaSetupError where that cannot be."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._servers, self._topic = settings.bootstrap_servers, topic
        try:
            self._producer = KafkaProducer(
                **connection(settings), acks="all", linger_ms=LINGER_MS, allow_auto_create_topics=False
            )
        except RetriableError as error:
            raise KafkaAwayError(f"no broker at {self._servers} answers") from error
        create_no_topics(self._producer._metadata)
        self._sent: list[Any] = []
        try:
            self.partitions = len(self._producer._wait_on_metadata(topic, ANSWER_MS))
        except KafkaError as error:
            self._producer.close(timeout=0)
            remedy = "create it (`foreshock doctor --create-topics` makes those of the settings)"
            raise KafkaSetupError(f"topic {topic}: does not exist, or may not be seen: {error}; {remedy}") from error

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
