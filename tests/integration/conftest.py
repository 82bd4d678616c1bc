"""What the tests of the service from outside share: services that end with the test, topics, brokers to kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from pipeline.adapters.embedded import free_port
from tests.conftest import NewTopics
from tests.kafka.node import KafkaNode, KafkaNodeError, fetch_jars, new_cluster_id
from tests.service import Service, saved

PARTITIONS = 3
OWN = {"readings": "readings", "alerts": "alerts", "dead_letter": "dead"}  # on a broker of our own

THREE = 3  # brokers

NewService = Callable[..., Service]


class Cluster(NamedTuple):
    """Brokers that are one cluster."""

    bootstrap: str  # of all of them
    nodes: Mapping[int, KafkaNode]  # by id


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


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three brokers of our own that hold every topic in three copies, two of which a write has to reach."""
    try:
        fetch_jars()
    except KafkaNodeError as reason:
        pytest.skip(str(reason))
    one, ports = new_cluster_id(), [free_port() for _ in range(THREE)]
    properties = {
        "controller.quorum.voters": ",".join(f"{n + 1}@127.0.0.1:{port}" for n, port in enumerate(ports)),
        "auto.create.topics.enable": "false",
        "min.insync.replicas": "2",
        "offsets.topic.replication.factor": str(THREE),
        "transaction.state.log.replication.factor": str(THREE),
        "transaction.state.log.min.isr": "2",
    }
    nodes = [
        KafkaNode(node_id=n + 1, controller_port=port, cluster_id=one, properties=properties)
        for n, port in enumerate(ports)
    ]
    try:
        for node in nodes:
            node.launch()
        for node in nodes:
            node.wait()
        bootstrap = ",".join(node.bootstrap for node in nodes)
        with KafkaAdminClient(bootstrap_servers=bootstrap) as admin:
            copies = {"replication_factor": THREE}
            sizes = {"readings": PARTITIONS, "alerts": 1, "dead": 1}
            admin.create_topics({name: {"num_partitions": n, **copies} for name, n in sizes.items()})
        yield Cluster(bootstrap, {node.node_id: node for node in nodes})
    finally:
        for node in nodes:
            node.kill()  # in order, the last would wait for a quorum that has gone
            node.close()
