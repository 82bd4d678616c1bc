"""A node that asks for a password, a certificate or both: each kind of listener beside the plain one."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from pipeline.adapters.embedded import free_port
from tests.kafka.node import KafkaNode

USER, PASSWORD = "foreshock", "correct-horse-battery"
LISTENERS = ("SASL_PLAINTEXT", "SSL", "SASL_SSL")
LOGIN = "org.apache.kafka.common.security"
MODULES = {
    "plain": f"{LOGIN}.plain.PlainLoginModule",
    "scram-sha-256": f"{LOGIN}.scram.ScramLoginModule",
    "scram-sha-512": f"{LOGIN}.scram.ScramLoginModule",
}
JAAS = f'{{}} required username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'


@dataclass(frozen=True)
class Certificates:
    """Of an authority that nobody else knows, for 127.0.0.1; PEM."""

    ca: Path
    stranger: Path  # another authority
    broker: Path  # key and certificate
    client: Path
    client_key: Path


def certificates(folder: Path) -> Certificates:
    """Made anew by openssl, good for a day."""
    for name in ("ca", "stranger"):
        _openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={name}",
                 "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("broker", "client"):
        _openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                 "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                 "-days", "1", "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip
    both = folder / "broker.both.pem"
    both.write_text((folder / "broker.key").read_text() + (folder / "broker.pem").read_text())
    return Certificates(folder / "ca.pem", folder / "stranger.pem", both, folder / "client.pem", folder / "client.key")


@contextmanager
def secured_node(certificates: Certificates) -> Iterator[tuple[KafkaNode, dict[str, str]]]:
    """The node, and host:port of each kind of listener."""
    plain, controller, ports = free_port(), free_port(), {name: free_port() for name in LISTENERS}
    addresses = {name: f"{name}://127.0.0.1:{port}" for name, port in {"PLAINTEXT": plain, **ports}.items()}
    properties = {
        "listeners": ",".join([*addresses.values(), f"CONTROLLER://127.0.0.1:{controller}"]),
        "advertised.listeners": ",".join(addresses.values()),
        "listener.security.protocol.map": ",".join([*(f"{name}:{name}" for name in addresses), "CONTROLLER:PLAINTEXT"]),
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": ",".join(MODULES).upper(),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.broker),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
        "listener.name.ssl.ssl.client.auth": "required",
        "auto.create.topics.enable": "false",
    }
    for listener, (mechanism, module) in itertools.product(("sasl_plaintext", "sasl_ssl"), MODULES.items()):
        properties[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = JAAS.format(module)
    node = KafkaNode(port=plain, controller_port=controller, properties=properties)
    with node:
        with KafkaAdminClient(bootstrap_servers=node.bootstrap) as admin:
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):  # not both in one request
                refused = admin.alter_user_scram_credentials([UserScramCredentialUpsertion(USER, mechanism, PASSWORD)])
                assert not any(refused.values()), refused
            while len(admin.describe_user_scram_credentials().get(USER, {}).get("credential_infos", ())) < 2:
                time.sleep(0.05)  # until the node has read what it wrote
        yield node, {name: f"127.0.0.1:{port}" for name, port in ports.items()}


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
