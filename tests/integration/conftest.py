"""What the tests of the service from outside share: services that end with the test, topics, brokers to kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from tests.conftest import NewTopics
from tests.kafka.node import KafkaNode, KafkaNodeError, fetch_jars
from tests.service import Service, saved

PARTITIONS = 3
OWN = {"readings": "readings", "alerts": "alerts", "dead_letter": "dead"}  # on a broker of our own

NewService = Callable[..., Service]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[NewService]:
    """Services that end with the test."""
    saved(tmp_path / "models")
    made: list[Service] = []

    def make(bootstrap: str, topics: dict[str, str], **others: object) -> Service:
        made.append(Service(bootstrap, tmp_path, topics, **others))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for service in made:
        service.end()


@pytest.fixture
def names(topics: NewTopics) -> dict[str, str]:
    """Topics for a service."""
    (readings,) = topics("readings", partitions=PARTITIONS)
    told, dead = topics("alerts", "dead")
    return {"readings": readings, "alerts": told, "dead_letter": dead}


@pytest.fixture
def node() -> Iterator[KafkaNode]:
    """A broker of our own to kill."""
    try:
        fetch_jars()
    except KafkaNodeError as reason:
        pytest.skip(str(reason))
    with KafkaNode(properties={"num.partitions": "1"}) as node:
        with KafkaProducer(bootstrap_servers=node.bootstrap) as producer:
            for topic in OWN.values():
                producer.partitions_for(topic)  # which creates it
        yield node
