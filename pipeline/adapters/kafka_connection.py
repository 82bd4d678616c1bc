"""What every Kafka client here needs to reach the cluster: addresses, security, patience."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata
from kafka.errors import KafkaError

from pipeline.adapters.kafka_headers import tolerate_any_header
from pipeline.adapters.kafka_login import RefusedError, knock
from pipeline.settings_schema import KafkaSettings

PROBE_SECONDS = 1.0  # for one broker to take a connection
ANSWER_MS = 10_000  # for what partitions a topic has
BOOTSTRAP_SECONDS = 10.0  # for a broker that takes connections to say who is in the cluster


class KafkaAwayError(Exception):
    """No broker answers. It may do so later."""


class KafkaSetupError(Exception):
    """The cluster answers, but cannot be used as it is; says what, where and what to do."""


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """What consumer, producer and admin client take alike.

    KafkaAwayError where no broker takes a connection, KafkaSetupError where one does not let us in.
    """
    # Asked first, because a client that fails to bootstrap leaves its I/O thread behind.
    if not answers(settings):
        raise KafkaAwayError(f"no broker at {settings.bootstrap_servers} takes a connection")
    secured: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.sasl_mechanism is not None and settings.sasl_password is not None:
        secured |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    if settings.security_protocol in ("SSL", "SASL_SSL"):
        secured["ssl_context"] = _tls(settings)
    if settings.security_protocol != "PLAINTEXT":
        _must_let_us_in(settings, secured.get("ssl_context"))
    return {
        "bootstrap_servers": _servers(settings),
        "bootstrap_timeout_ms": round(BOOTSTRAP_SECONDS * 1000),
        "reconnect_backoff_max_ms": 1000,  # by default 30 s: the first output after an outage came 10 s late
        **secured,
    }


def _must_let_us_in(settings: KafkaSettings, tls: ssl.SSLContext | None) -> None:
    """Asked of the first broker that answers; one that hangs up may be starting, and the client waits for it."""
    for server in _servers(settings):
        host, _, port = server.rpartition(":")
        try:
            knock(settings, host.strip("[]"), int(port), tls)
        except RefusedError as why:
            raise KafkaSetupError(str(why)) from None  # the cause may hold what we said
        except OSError:
            continue
        return


def new_consumer(settings: KafkaSettings, **how: Any) -> KafkaConsumer:
    """One that commits only when told to, has no topic created that it asks for, and reads any header."""
    made = KafkaConsumer(**connection(settings), enable_auto_commit=False, allow_auto_create_topics=False, **how)
    made._cluster.config["allow_auto_create_topics"] = False  # kafka-python tells no broker what it was told
    tolerate_any_header(made)
    return made


def new_producer(settings: KafkaSettings, **how: Any) -> KafkaProducer:
    """One whose messages all replicas acknowledge, and that has no topic created that it asks for."""
    made = KafkaProducer(**connection(settings), acks="all", allow_auto_create_topics=False, **how)
    made._metadata.config["allow_auto_create_topics"] = False  # as above
    return made


def partitions_of(asking: KafkaConsumer, topic: str) -> set[int]:
    """KafkaSetupError where the topic does not exist."""
    found = set(asking.partitions_for_topic(topic) or ())
    if not found:
        raise missing(topic)
    return found


def partitions_to(sending: KafkaProducer, topic: str) -> set[int]:
    """KafkaSetupError where the topic does not exist, and then the producer is closed."""
    try:
        return set(sending._wait_on_metadata(topic, ANSWER_MS))
    except KafkaError as error:
        sending.close(timeout=0)
        raise missing(topic, error) from error


def kept_offset(offset: int, metadata: str) -> OffsetAndMetadata:
    """For kafka-python to commit, with the zero byte that librdkafka reads on to, in whatever stands behind."""
    return OffsetAndMetadata(offset, metadata and metadata + "\0", -1)


def committed_as(found: OffsetAndMetadata | None) -> tuple[int, str] | None:
    """Offset and metadata that kafka-python found, without that zero byte; None where nothing is committed."""
    if found is None or found.offset < 0:
        return None
    return int(found.offset), (found.metadata or "").rstrip("\0")


def missing(topic: str, why: Exception | None = None) -> KafkaSetupError:
    """Nobody created the topic, or we may not see it."""
    said = f": {why}" if why else ""
    remedy = "create it (`foreshock doctor --create-topics` makes those of the settings)"
    return KafkaSetupError(f"topic {topic}: does not exist, or may not be seen{said}; {remedy}")


def answers(settings: KafkaSettings) -> bool:
    """Whether any of the brokers that the settings name takes a connection now."""
    return any(map(_takes_connections, _servers(settings)))


def _servers(settings: KafkaSettings) -> list[str]:
    return [server.strip() for server in settings.bootstrap_servers.split(",")]


def _takes_connections(server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    named = [settings.ssl_cafile, settings.ssl_certfile, settings.ssl_keyfile]
    files = ", ".join(str(path) for path in named if path is not None)
    password = settings.ssl_keyfile_password
    try:
        context = ssl.create_default_context(cafile=str(settings.ssl_cafile) if settings.ssl_cafile else None)
        context.check_hostname = settings.ssl_check_hostname
        if settings.ssl_certfile is not None:
            # never None: the library would ask for the password on the terminal
            secret = password.get_secret_value() if password else ""
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, secret)
    except OSError as error:
        remedy = "name PEM files that belong together, and what opens the key (FORESHOCK_KAFKA__SSL_KEYFILE_PASSWORD)"
        raise KafkaSetupError(f"{files}: cannot be used: {error.strerror or error}; {remedy}") from None
    return context
