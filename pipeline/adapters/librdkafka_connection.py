"""What every client by librdkafka needs to reach the cluster, in its words for our settings."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from pipeline.adapters.kafka_commits import InDoubtError, KafkaRefusedError, named_twice
from pipeline.adapters.kafka_connection import KafkaSetupError, connection
from pipeline.settings_schema import KafkaSettings

FENCED = frozenset({KafkaError.FENCED_INSTANCE_ID})
FOR_GOOD = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_EXCEPTION, KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT, KafkaError.UNSUPPORTED_VERSION, KafkaError.INVALID_TRANSACTION_TIMEOUT,
})  # fmt: skip

QUIET_SECONDS = 30.0  # after a line on a connection that failed, before the next: each attempt would be one

Configuration = dict[str, Any]


class _Failures(logging.Filter):
    """Lets one of many failures to connect pass."""

    due = 0.0  # monotonic s

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is news."""
        if not record.getMessage().startswith("FAIL"):
            return True
        fresh, now = time.monotonic() >= self.due, time.monotonic()
        self.due = now + QUIET_SECONDS if fresh else self.due
        return fresh


said = logging.getLogger("librdkafka")  # what the library logs; it keeps secrets back by itself
said.addFilter(_Failures())


def configuration(settings: KafkaSettings) -> Configuration:
    """What consumer and producer take alike.

    KafkaAwayError where no broker takes a connection, KafkaSetupError where one does not let us in: the library would
    go on trying.
    """
    connection(settings)
    named: Mapping[str, object] = {
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.sasl_password and settings.sasl_password.get_secret_value(),
        "ssl.ca.location": settings.ssl_cafile and str(settings.ssl_cafile),
        "ssl.certificate.location": settings.ssl_certfile and str(settings.ssl_certfile),
        "ssl.key.location": settings.ssl_keyfile and str(settings.ssl_keyfile),
        "ssl.key.password": settings.ssl_keyfile_password and settings.ssl_keyfile_password.get_secret_value(),
        "ssl.endpoint.identification.algorithm": None if settings.ssl_check_hostname else "none",
    }
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": settings.security_protocol,
        "reconnect.backoff.max.ms": 1000,  # by default 10 s
        "allow.auto.create.topics": False,
        "logger": said,
        **{name: value for name, value in named.items() if value},
    }


@contextmanager
def accepted(settings: KafkaSettings) -> Iterator[None]:
    """KafkaSetupError where the library takes no client of such settings."""
    try:
        yield
    except KafkaException as error:
        remedy = 'correct the settings under `kafka`, or take kafka.client = "kafka-python"'
        why = str(translated(settings, cause(error))).strip()
        raise KafkaSetupError(
            f"{settings.bootstrap_servers}: librdkafka cannot be set up so: {why}; {remedy}"
        ) from error


def translated(settings: KafkaSettings, error: KafkaError) -> Exception:
    """The library's error in the words of every client."""
    if error.code() in FENCED:
        return named_twice(settings)
    return (KafkaRefusedError if error.code() in FOR_GOOD else InDoubtError)(error.str())


def cause(error: KafkaException | SystemError) -> KafkaError:
    """What it is about. SystemError is what a fatal error looks like where the library calls us back in spite of it."""
    told = error.__cause__ if isinstance(error, SystemError) else error
    found = told.args[0] if isinstance(told, KafkaException) else None
    if not isinstance(found, KafkaError):
        raise error
    return found
