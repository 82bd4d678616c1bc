"""SASL and TLS on an Apache Kafka node configured so; what is refused says why, and a secret is shown nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from pipeline.adapters.kafka_connection import KafkaSetupError, connection
from pipeline.adapters.librdkafka_connection import configuration
from pipeline.settings_schema import KafkaSettings
from tests.kafka.node import KafkaNode, KafkaNodeError, fetch_jars
from tests.kafka.secured import PASSWORD, USER, Certificates, certificates, secured_node
from tests.service import Service, saved

WRONG = "not-the-password"
TOPICS = {"readings": "readings", "alerts": "alerts", "dead_letter": "dead"}


class Secured:
    """The node, its listeners and what a client may show it."""

    def __init__(self, node: KafkaNode, at: dict[str, str], certificates: Certificates) -> None:
        self.node, self.at, self.certificates = node, at, certificates

    def settings(self, listener: str, mechanism: str = "PLAIN", **others: Any) -> dict[str, Any]:
        wanted: dict[str, Any] = {"bootstrap_servers": self.at[listener], "security_protocol": listener}
        if listener.startswith("SASL"):
            wanted |= {"sasl_mechanism": mechanism, "sasl_username": USER, "sasl_password": PASSWORD}
        if listener.endswith("SSL"):
            wanted["ssl_cafile"] = self.certificates.ca
        if listener == "SSL":
            wanted |= {"ssl_certfile": self.certificates.client, "ssl_keyfile": self.certificates.client_key}
        return {name: value for name, value in (wanted | others).items() if value is not None}

    def refused(self, listener: str, **others: Any) -> str:
        with pytest.raises(KafkaSetupError) as error:
            connection(KafkaSettings.model_validate(self.settings(listener, **others)))
        return str(error.value)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    try:
        fetch_jars()
    except KafkaNodeError as reason:
        if os.environ.get("FORESHOCK_REQUIRE_KAFKA") == "1":
            raise
        pytest.skip(str(reason))
    made = certificates(tmp_path_factory.mktemp("certificates"))
    with secured_node(made) as (node, at):
        with KafkaAdminClient(bootstrap_servers=node.bootstrap) as admin:
            admin.create_topics([NewTopic(topic, 1, 1) for topic in TOPICS.values()])
        yield Secured(node, at, made)


@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [("SASL_PLAINTEXT", "PLAIN"), ("SASL_PLAINTEXT", "SCRAM-SHA-256"), ("SASL_SSL", "SCRAM-SHA-512"),
     ("SASL_SSL", "PLAIN"), ("SSL", "none")],
)  # fmt: skip
def test_every_way_to_sign_in_is_let_in(secured: Secured, listener: str, mechanism: str) -> None:
    settings = KafkaSettings.model_validate(secured.settings(listener, mechanism))
    with KafkaAdminClient(**connection(settings)) as admin:
        assert set(TOPICS.values()) <= set(admin.list_topics())
    by_librdkafka = AdminClient(configuration(settings))
    assert set(TOPICS.values()) <= by_librdkafka.list_topics(timeout=10).topics.keys()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_wrong_password_is_named_as_such_and_not_repeated(secured: Secured, mechanism: str) -> None:
    said = secured.refused("SASL_SSL", mechanism=mechanism, sasl_password=WRONG)
    assert secured.at["SASL_SSL"] in said
    assert f"refuses user '{USER}' by {mechanism}" in said
    assert "FORESHOCK_KAFKA__SASL_PASSWORD" in said
    assert WRONG not in said


def test_a_certificate_that_nobody_vouches_for_is_named_as_such(secured: Secured) -> None:
    said = secured.refused("SASL_SSL", ssl_cafile=secured.certificates.stranger)
    assert said.startswith(f"{secured.at['SASL_SSL']}: its certificate is not trusted: ")
    assert "kafka.ssl_cafile" in said


def test_a_broker_that_wants_a_certificate_of_ours_says_so(secured: Secured) -> None:
    assert "kafka.ssl_certfile" in secured.refused("SSL", ssl_certfile=None, ssl_keyfile=None)


def test_files_that_are_no_certificates_are_named(secured: Secured, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    assert f"{tmp_path}/no.pem: cannot be used" in secured.refused("SASL_SSL", ssl_cafile=tmp_path / "no.pem")
    assert f"{tmp_path}/away.pem: cannot be used" in secured.refused("SASL_SSL", ssl_cafile=tmp_path / "away.pem")


@pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
def test_a_secret_is_in_no_log_metric_page_table_or_exception(secured: Secured, tmp_path: Path, client: str) -> None:
    saved(tmp_path / "models")
    folder = tmp_path / "secrets"
    folder.mkdir()
    asked = secured.settings("SASL_SSL", "SCRAM-SHA-512")
    del asked["sasl_password"]
    settings = {f"KAFKA__{name.upper()}": str(value) for name, value in asked.items()}
    settings |= {"SECRETS_DIR": str(folder), "LOGGING__LEVEL": "debug", "KAFKA__CLIENT": client}
    service = Service(secured.at["SASL_SSL"], tmp_path, TOPICS, group="secured", settings=settings)

    def told(*words: str) -> str:
        command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", *words]
        ran = subprocess.run(
            command, env=os.environ | service.environment(), capture_output=True, text=True, timeout=60
        )
        return ran.stdout + ran.stderr

    secret = folder / "kafka__sasl_password"
    secret.write_text(PASSWORD)
    try:
        service.start()
        service.wait_until_ready()
        shown = service.get("/metrics")
        for path in ("/healthz", "/readyz", "/alerts"):
            with urllib.request.urlopen(f"http://127.0.0.1:{service.port}{path}", timeout=5) as answer:
                shown += answer.read().decode()
        assert service.stop() == 0
    finally:
        service.end()
    shown += service.log.read_text() + told("doctor") + told("run", "--help")
    assert "partition assigned" in shown
    assert secured.at["SASL_SSL"] in shown

    secret.write_text(WRONG)
    refused = told("run")
    assert "refuses user" in refused
    assert "Traceback" not in refused
    shown += refused + told("doctor")
    for hidden in (PASSWORD, WRONG):
        assert hidden not in shown
