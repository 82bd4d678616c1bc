"""The ladder of brokers: the tests run on the best one this machine has, and say which."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pipeline.adapters.embedded import EmbeddedBroker, free_port
from tests.kafka import node

IMAGE = f"apache/kafka:{node.version()}"  # the image that docker-compose.yml runs
INTERNAL, CONTROLLER = 9094, 9093  # ports inside the container


@dataclass(frozen=True)
class Broker:
    """A broker that answers."""

    name: str
    bootstrap: str
    is_apache_kafka: bool
    stop: Callable[[], None]
    passed_over: tuple[str, ...] = ()  # the better rungs, each with why it was not to be had


class RungMissingError(Exception):
    """This rung is not to be had here; the message says why."""


class BrokerRequiredError(Exception):
    """Only Apache Kafka will do, and there is none."""


def best_broker(environ: Mapping[str, str] = os.environ) -> Broker:
    """The first rung that holds, started: an outside cluster, a container, Apache Kafka's jars, the embedded broker."""
    if outside := environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        return outside_cluster(outside)
    passed_over: list[str] = []
    for rung in (container, kafka_from_jars):
        try:
            return replace(rung(), passed_over=tuple(passed_over))
        except RungMissingError as reason:
            passed_over.append(str(reason))
    if environ.get("FORESHOCK_REQUIRE_KAFKA") == "1":
        raise BrokerRequiredError(
            "FORESHOCK_REQUIRE_KAFKA=1 and there is no Apache Kafka here; install Java 17 and Maven "
            "(Debian: apt-get install openjdk-17-jre-headless maven), or start Docker, or set "
            f"KAFKA_BOOTSTRAP_SERVERS. Tried: {'; '.join(passed_over)}"
        )
    return replace(embedded(), passed_over=tuple(passed_over))


def outside_cluster(bootstrap: str) -> Broker:
    """A cluster that others run; taken at their word to be Apache Kafka, never started or stopped."""
    for server in bootstrap.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=3).close()
        except (OSError, ValueError):
            continue
        break
    else:
        raise BrokerRequiredError(f"KAFKA_BOOTSTRAP_SERVERS={bootstrap} does not answer; example: localhost:9092")
    return Broker(f"outside cluster at {bootstrap}", bootstrap, is_apache_kafka=True, stop=lambda: None)


def container() -> Broker:
    """Apache Kafka's own image under testcontainers."""
    # In a process of its own: where no daemon listens, the client leaves its sockets open.
    probe = [sys.executable, "-c", "import docker; docker.from_env(timeout=3).ping()"]
    asked = subprocess.run(probe, capture_output=True, text=True)
    if asked.returncode:
        raise RungMissingError(f"container: Docker does not answer ({asked.stderr.strip().splitlines()[-1]})")

    from docker.errors import DockerException
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    port = free_port()
    kafka = DockerContainer(IMAGE).with_bind_ports(9092, port)
    host = kafka.get_docker_client().host()
    settings = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "CONTROLLER_QUORUM_VOTERS": f"1@localhost:{CONTROLLER}",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        # Transaction markers go from the broker to itself, so it needs an address that is good inside the container.
        "INTER_BROKER_LISTENER_NAME": "INTERNAL",
        "LISTENERS": f"CLIENTS://:9092,INTERNAL://:{INTERNAL},CONTROLLER://:{CONTROLLER}",
        "ADVERTISED_LISTENERS": f"CLIENTS://{host}:{port},INTERNAL://localhost:{INTERNAL}",
        "LISTENER_SECURITY_PROTOCOL_MAP": "CLIENTS:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "AUTO_CREATE_TOPICS_ENABLE": "false",
        "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    }
    kafka.with_envs(CLUSTER_ID=node.new_cluster_id(), **{f"KAFKA_{name}": value for name, value in settings.items()})
    kafka.waiting_for(LogMessageWaitStrategy(node.STARTED.decode()).with_startup_timeout(60))
    try:
        kafka.start()
    except (DockerException, TimeoutError) as error:
        kafka.stop()
        raise RungMissingError(f"container: {IMAGE} did not start: {error}") from error
    return Broker(f"apache-kafka {node.version()} in a container", f"{host}:{port}", True, stop=kafka.stop)


def kafka_from_jars() -> Broker:
    """One KRaft node from the jars that Maven brings."""
    kafka = node.KafkaNode(properties={"auto.create.topics.enable": "false"})  # a misspelt topic is an error
    try:
        kafka.start()
    except node.KafkaNodeError as error:
        kafka.close()
        raise RungMissingError(f"jars: {error}") from error
    return Broker(f"apache-kafka {node.version()} from jars", kafka.bootstrap, is_apache_kafka=True, stop=kafka.close)


def embedded() -> Broker:
    """The demo's broker: good for round trips, not for delivery guarantees."""
    tansu = EmbeddedBroker()
    tansu.start()
    return Broker("embedded tansu", tansu.bootstrap, is_apache_kafka=False, stop=tansu.stop)
