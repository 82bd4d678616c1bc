"""Outputs as messages, and every delivery one transaction, by whatever client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from pipeline.adapters.kafka_commits import KafkaRefusedError, Message, Transactions
from pipeline.adapters.kafka_connection import KafkaSetupError
from pipeline.codecs.json import MAX_DEAD_BYTES, encode_alert, encode_dead_letter
from pipeline.codecs.scores import encode_scores
from pipeline.ports import Outputs, Position
from pipeline.settings_schema import KafkaSettings

JSON_HEADERS = [("content-type", b"application/json")]


class KafkaSink:
    """Publishes and commits in one transaction, for the member that the transactions are of.

    Waits for an absent broker as long as it takes: what was read is not read again, and nothing more is read.
    """

    def __init__(self, settings: KafkaSettings, transactions: Transactions) -> None:
        """Find the topics; the transactions are the sink's to close, also where one is missing."""
        self._topics, self._transactions = settings.topics, transactions
        topics = self._topics
        wanted = [*filter(None, (topics.readings, topics.alerts, topics.dead_letter, topics.scores))]
        try:
            # a client waits between two questions, not between two askers
            with ThreadPoolExecutor(len(wanted)) as asking:
                list(asking.map(self._must_exist, wanted))
        except BaseException:
            self.close()
            raise

    def deliver(self, outputs: Outputs, done: Mapping[int, Position]) -> bool:
        """Publish and commit, or neither."""
        return self._transactions.run(list(self._messages(outputs)), done)

    def close(self) -> None:
        """Whatever was delivered is committed; there is nothing to wait for."""
        self._transactions.close()

    def _must_exist(self, topic: str) -> None:
        try:
            self._transactions.producer.must_know(topic)
        except KafkaRefusedError as error:
            remedy = f"kafka-topics.sh --create --topic {topic} --partitions N --bootstrap-server ..."
            raise KafkaSetupError(
                f"topic {topic}: {error}; create it: {remedy}; `foreshock doctor` checks all"
            ) from error

    def _messages(self, outputs: Outputs) -> Iterator[Message]:
        for alert in outputs.alerts:
            yield Message(self._topics.alerts, alert.sensor.encode(), encode_alert(alert), JSON_HEADERS)
        for rejected in outputs.dead_letters:
            value, headers = encode_dead_letter(rejected)
            yield Message(self._topics.dead_letter, rejected.key and rejected.key[:MAX_DEAD_BYTES], value, headers)
        if self._topics.scores is not None:
            for scored in outputs.scored:
                for sensor, value in encode_scores(scored):
                    yield Message(self._topics.scores, sensor.encode(), value, JSON_HEADERS)
