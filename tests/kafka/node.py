"""A real Apache Kafka node (KRaft) on loopback, from jars that Maven brings: `python -m tests.kafka.node`."""

# ruff: noqa: T201 - run as a command, it prints

from __future__ import annotations

import argparse
import base64
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pipeline.adapters.embedded import Leash, free_port

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(__file__).parents[2] / ".cache" / "kafka"
# A small heap, the first compiler only and one collector thread: a node starts in seconds beside the tests.
JVM = ("-Xmx512m", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
STARTED = b"Kafka Server started"  # logged once the broker has registered, is unfenced and listens
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 20.0


class KafkaNodeError(RuntimeError):
    """The node can't be fetched or does not come up."""


def version(pom: Path = POM) -> str:
    """The release of Apache Kafka that the pom names, such as 4.1.2."""
    found = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([^<]+)<", pom.read_text())
    if found is None:
        raise KafkaNodeError(f"{pom} names no version of Kafka")
    return found[1]


def fetch_jars(cache: Path = CACHE) -> Path:
    """The folder of Kafka's jars, brought by Maven the first time and kept after that."""
    jars = cache / version()
    if jars.is_dir():
        return jars
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise KafkaNodeError(f"{program} is not here; install Java 17 or newer and Maven")
    cache.mkdir(parents=True, exist_ok=True)
    # Fetched beside its place and moved there whole, so that an interrupted fetch is never taken for the jars.
    with tempfile.TemporaryDirectory(dir=cache) as fetched:
        command = ["mvn", "-q", "-B", "-Dstyle.color=never", "-f", str(POM), "dependency:copy-dependencies"]
        maven = subprocess.run(
            [*command, "-DincludeScope=runtime", f"-DoutputDirectory={fetched}/jars"], capture_output=True, text=True
        )
        if maven.returncode:
            said = (maven.stdout + maven.stderr).strip().splitlines() or ["nothing"]
            raise KafkaNodeError(f"Maven could not bring Kafka {version()}: {said[0]}")
        if not jars.is_dir():  # another run may have been quicker
            Path(fetched, "jars").rename(jars)
    return jars


def new_cluster_id() -> str:
    """A cluster id as Kafka writes them: a UUID in URL-safe base64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


class KafkaNode:
    """One process that is broker and controller; its ports and its log outlive stop() and kill(), so it can return.

    Nodes of one cluster share `cluster_id`, each with its own `node_id` and, through `properties`, the same
    `controller.quorum.voters`; launch() them all, then wait() for each.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        node_id: int = 1,
        cluster_id: str | None = None,
        folder: Path | None = None,
        properties: Mapping[str, str] | None = None,
        jars: Path | None = None,
    ) -> None:
        self.port = port or free_port()
        self.controller_port = controller_port or free_port()
        self.node_id = node_id
        self.cluster_id = cluster_id or new_cluster_id()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._own_folder = None if folder else tempfile.TemporaryDirectory(prefix="kafka-node-")
        self.folder = folder or Path(self._own_folder.name if self._own_folder else "")
        self.log = self.folder / "node.log"
        self._properties = {**self._defaults(), **(properties or {})}
        self._jars = jars
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: Leash | None = None
        self._log_start = 0

    def start(self, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Run the node and return once it takes requests."""
        self.launch()
        self.wait(timeout_seconds)

    def launch(self) -> None:
        """Run the node without waiting: the first of several waits for the others before it takes requests."""
        if self._process is not None:
            raise KafkaNodeError(f"the node on {self.bootstrap} runs already")
        settings = self.folder / "server.properties"
        self.folder.mkdir(parents=True, exist_ok=True)
        settings.write_text("".join(f"{name}={value}\n" for name, value in self._properties.items()))
        if not (self.folder / "log" / "meta.properties").exists():
            self._format(settings)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java(), "kafka.Kafka", str(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._leash = Leash(self._process)

    def wait(self, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Return once a launched node takes requests."""
        if self._process is None:
            raise KafkaNodeError(f"the node on {self.bootstrap} was not launched")
        deadline = time.monotonic() + timeout_seconds
        while STARTED not in self._logged():
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                what = f"ended with status {ended}" if ended is not None else f"is not up after {timeout_seconds:.0f} s"
                logged = self._logged().decode(errors="replace").splitlines()
                self.kill()
                told = [line for line in logged if "ERROR" in line or "Exception" in line] or logged[-10:]
                raise KafkaNodeError("\n".join([f"the Kafka node on {self.bootstrap} {what}; it logged:", *told[:10]]))
            time.sleep(0.05)

    def stop(self) -> None:
        """End the node in order: leaders move, logs are flushed."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node at once, as a power cut would end it."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> KafkaNode:
        try:
            self.start()
        except BaseException:  # Ctrl-C too
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop for good: a folder that was not given is removed."""
        self.stop()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    def _end(self, by: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(by)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._leash is not None:
            self._leash.release()
        self._process = self._leash = None

    def _format(self, settings: Path) -> None:
        command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", str(settings)]
        formatting = subprocess.run(command, capture_output=True, text=True)
        if formatting.returncode:
            said = (formatting.stderr.strip() or formatting.stdout.strip()).splitlines()[-15:]
            raise KafkaNodeError("\n".join(["Kafka could not format its log folder:", *said]))

    def _java(self) -> Sequence[str]:
        self._jars = self._jars or fetch_jars()
        java = shutil.which("java")
        if java is None:
            raise KafkaNodeError("java is not here; install Java 17 or newer")
        logging = "-Dorg.slf4j.simpleLogger.showDateTime=true", "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"
        return [java, *JVM, *logging, "-cp", f"{self._jars}{os.sep}*"]

    def _logged(self) -> bytes:
        """What this run of the node has logged so far."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def _defaults(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": str(self.node_id),
            "controller.quorum.voters": f"{self.node_id}@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.folder / "log"),
            "log.cleaner.dedupe.buffer.size": str(8 * 2**20),  # by default a quarter of this small heap
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "broker.session.timeout.ms": "4000",  # a killed node is only let back in once its old session is over
            "broker.heartbeat.interval.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",  # tests of failover don't have six seconds
        }


def main() -> None:
    """Run a node in the foreground until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.kafka.node", description=main.__doc__)
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--folder", type=Path, help="keep the topics here; without it they go with the node")
    chosen = parser.parse_args()
    for stopping in (signal.SIGINT, signal.SIGTERM):  # a shell starts what it puts in the background deaf to SIGINT
        signal.signal(stopping, signal.default_int_handler)
    print(f"Apache Kafka {version()}: fetching the jars (once) and starting ...", flush=True)
    began = time.monotonic()
    try:
        with KafkaNode(port=chosen.port, folder=chosen.folder) as node:
            print(f"listening on {node.bootstrap} after {time.monotonic() - began:.1f} s; its log: {node.log}")
            print(f"connect with KAFKA_BOOTSTRAP_SERVERS={node.bootstrap}; Ctrl-C stops it", flush=True)
            signal.pause()
    except KafkaNodeError as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()
