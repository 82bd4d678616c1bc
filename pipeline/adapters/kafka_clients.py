"""The clients there are for the service, and the one that the settings choose."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pipeline.adapters import kafka, kafka_transactions
from pipeline.adapters.kafka_commits import Member, Purpose, Transactions
from pipeline.adapters.kafka_connection import KafkaSetupError
from pipeline.adapters.kafka_member import GroupMember
from pipeline.settings_schema import KafkaSettings


class Client(NamedTuple):
    """What one client has to offer; its source goes with its transactions alone."""

    source: Callable[[KafkaSettings], GroupMember]
    transactions: Callable[[KafkaSettings, Purpose, Member, Callable[[str], None]], Transactions]


def client(settings: KafkaSettings) -> Client:
    """The one to use; KafkaSetupError where it is not installed."""
    if settings.client == "kafka-python":
        return Client(kafka.KafkaSource, kafka_transactions.transactions)
    try:
        from pipeline.adapters import librdkafka, librdkafka_transactions
    except ModuleNotFoundError as missing:
        raise KafkaSetupError(
            f'kafka.client = "librdkafka": {missing.name} is not installed; install the extra `librdkafka`, or take '
            '"kafka-python"'
        ) from missing
    return Client(librdkafka.LibrdkafkaSource, librdkafka_transactions.transactions)
