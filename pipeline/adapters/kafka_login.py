"""Whether a broker lets us in, asked before any client does: clients tell only that they timed out.

Two requests of the Kafka protocol (https://kafka.apache.org/protocol): SaslHandshake v1 and SaslAuthenticate v0; where
nobody signs in, ApiVersions v0, whose answer a broker that misses a client's certificate never sends.
"""

from __future__ import annotations

import socket
import ssl
import struct

from kafka.net.sasl import get_sasl_mechanism

from pipeline.settings_schema import KafkaSettings

SECONDS = 5.0  # for the whole of it
API_VERSIONS, HANDSHAKE, AUTHENTICATE = (18, 0), (17, 1), (36, 0)  # key, version
UNSUPPORTED_MECHANISM = 33
MOST_BYTES = 2**20  # of an answer; a server of another kind may name any length


class RefusedError(Exception):
    """The broker does not let us in; says why and what to do, and never the secret."""


def knock(settings: KafkaSettings, host: str, port: int, tls: ssl.SSLContext | None) -> None:
    """Handshake and sign in as a client would; RefusedError where that is refused, OSError where nobody answers."""
    where = f"{host}:{port}"
    with socket.create_connection((host, port), timeout=SECONDS) as plain:
        if tls is None:
            _sign_in(plain, settings, where)
            return
        try:
            with tls.wrap_socket(plain, server_hostname=host) as secured:
                _sign_in(secured, settings, where)
        except ssl.SSLCertVerificationError as error:
            remedy = "name the certificate of its authority as kafka.ssl_cafile, and the broker as it is named there"
            raise RefusedError(f"{where}: its certificate is not trusted: {error.verify_message}; {remedy}") from error
        except ssl.SSLEOFError:
            raise  # it hung up, and may be starting
        except ssl.SSLError as error:
            raise RefusedError(f"{where}: no TLS comes about: {error.reason}; {_tls_remedy(error)}") from error


def _tls_remedy(error: ssl.SSLError) -> str:
    if "CERTIFICATE" in (error.reason or ""):
        return "the broker asks for a certificate of ours that it trusts: kafka.ssl_certfile and kafka.ssl_keyfile"
    return "does this port speak TLS? see kafka.security_protocol and kafka.bootstrap_servers"


def _sign_in(sock: socket.socket, settings: KafkaSettings, where: str) -> None:
    mechanism, password = settings.sasl_mechanism, settings.sasl_password
    if mechanism is None or password is None:
        _asked(sock, API_VERSIONS, b"")
        return
    code, rest = _code(_asked(sock, HANDSHAKE, _text(mechanism)))
    if code == UNSUPPORTED_MECHANISM:
        raise RefusedError(
            f"{where}: does not take {mechanism}, but {', '.join(_texts(rest))}; set kafka.sasl_mechanism"
        )
    exchange = get_sasl_mechanism(mechanism)(
        host=where,
        security_protocol=settings.security_protocol,
        sasl_mechanism=mechanism,
        sasl_plain_username=settings.sasl_username,
        sasl_plain_password=password.get_secret_value(),
    )
    while not exchange.is_done():
        token = exchange.auth_bytes()
        code, rest = _code(_asked(sock, AUTHENTICATE, struct.pack(">i", len(token)) + token))
        if code:
            raise RefusedError(
                f"{where}: refuses user {settings.sasl_username!r} by {mechanism}: {_first_text(rest)}; correct "
                "kafka.sasl_username and the password (FORESHOCK_KAFKA__SASL_PASSWORD, or its file in secrets_dir)"
            )
        try:
            exchange.receive(_bytes_behind_text(rest))
        except (ValueError, KeyError, struct.error) as error:
            raise ConnectionError("the broker does not answer as one") from error


def _asked(sock: socket.socket, api: tuple[int, int], body: bytes) -> bytes:
    """The answer behind its correlation id; ConnectionError where the broker hangs up instead."""
    request = struct.pack(">hhi", *api, 1) + _text("foreshock") + body
    sock.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _read(sock, 4))
    if not 4 <= size <= MOST_BYTES:
        raise ConnectionError(f"an answer of {size} bytes, which no broker gives")
    return _read(sock, size)[4:]


def _read(sock: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        more = sock.recv(size - len(content))
        if not more:
            raise ConnectionError("the broker hung up")
        content += more
    return content


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def _code(answer: bytes) -> tuple[int, bytes]:
    return struct.unpack(">h", answer[:2])[0], answer[2:]


def _texts(content: bytes) -> list[str]:
    (count,), content, found = struct.unpack(">i", content[:4]), content[4:], []
    for _ in range(count):
        found.append(_first_text(content))
        content = content[2 + len(found[-1].encode()) :]
    return found


def _first_text(content: bytes) -> str:
    (size,) = struct.unpack(">h", content[:2])
    return content[2 : 2 + max(size, 0)].decode(errors="replace")


def _bytes_behind_text(content: bytes) -> bytes:
    (size,) = struct.unpack(">h", content[:2])
    return content[2 + max(size, 0) + 4 :]
