"""`foreshock run` as a process of its own, for tests that watch it from outside."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from pipeline import bundle
from pipeline.adapters.embedded import Leash, free_port
from pipeline.codecs import JSON
from pipeline.codecs.json import decode_alert
from pipeline.core.alerts import Alert
from pipeline.core.model import Model
from pipeline.core.readings import Reading, ReadingBatch
from pipeline.testing import Played
from tests.models import model

PATIENCE_SECONDS = 30.0


def saved(root: Path, of: Model | None = None) -> None:
    """A bundle that serves, with random weights."""
    of = of or model()
    golden = np.random.default_rng(0).normal(size=(2, 64, 2 * len(of.channels))).astype(np.float32)
    bundle.serve(bundle.save(of, root, {}, golden))


@dataclass
class Service:
    """One `foreshock run`: killed, started again, asked."""

    bootstrap: str
    folder: Path
    topics: Mapping[str, str]  # readings, alerts, dead_letter
    group: str = "foreshock"
    settings: Mapping[str, str] = field(default_factory=dict)  # SECTION__FIELD
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self, kill_at: str = "") -> None:
        """Run it; `kill_at` names a point of `pipeline.testing`, and how often it is passed before."""
        with self.log.open("ab") as log:
            program = ["pipeline.testing", kill_at] if kill_at else ["pipeline.cli"]
            command = [sys.executable, "-W", "ignore", "-m", *program, "run"]
            self.process = subprocess.Popen(command, env=os.environ | self.environment(), stdout=log, stderr=log)
        self._leash = Leash(self.process)

    def environment(self) -> dict[str, str]:
        """Its settings."""
        settings = {
            "KAFKA__BOOTSTRAP_SERVERS": self.bootstrap,
            "KAFKA__GROUP_ID": self.group,
            "KAFKA__START": "earliest",
            "KAFKA__SESSION_TIMEOUT_SECONDS": "2",
            "KAFKA__HEARTBEAT_SECONDS": "0.4",
            "MODEL__DIR": str(self.folder / "models"),
            "CHECKPOINTS__DIR": str(self.folder / "checkpoints"),
            "HTTP__PORT": str(self.port),
            **{f"KAFKA__TOPICS__{name.upper()}": topic for name, topic in self.topics.items()},
            **self.settings,
        }
        return {f"FORESHOCK_{name}": value for name, value in settings.items()}

    @property
    def log(self) -> Path:
        return self.folder / f"{self.group}.log"

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def get(self, path: str) -> Any:
        """The answer; None where there is none, or one that says no."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                body = answer.read()
        except (urllib.error.URLError, OSError):
            return None
        return json.loads(body) if path != "/metrics" else body.decode()

    def waiting_for(self) -> str:
        """Why it is not ready; "" where it is, or does not answer."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).close()
        except urllib.error.HTTPError as says_no:
            return str(json.loads(says_no.read())["waiting_for"])
        except OSError:
            pass
        return ""

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = [line for line in (self.get("/metrics") or "").splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def wait_until_ready(self, patience: float = PATIENCE_SECONDS) -> float:
        """Seconds until it was."""
        began = time.monotonic()
        while self.get("/readyz") is None:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() - began < patience, self.log.read_text()[-3000:]
            time.sleep(0.05)
        return time.monotonic() - began

    def wait_until_committed(self, ends: Mapping[int, int], seconds: float = 2 * PATIENCE_SECONDS) -> None:
        """Until the group has committed everything."""
        assert ends, "nothing to wait for: are the ends known yet?"
        tps = {partition: TopicPartition(self.topics["readings"], partition) for partition in ends}
        deadline = time.monotonic() + seconds
        with KafkaConsumer(bootstrap_servers=self.bootstrap, group_id=self.group) as consumer:
            while {p: consumer.committed(tp) for p, tp in tps.items()} != dict(ends):
                assert time.monotonic() < deadline, self.log.read_text()[-3000:]
                time.sleep(0.1)

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._leash.release()

    def end(self) -> None:
        """If it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def wait_until_killed(self) -> None:
        """Until it has come to the point where it is killed."""
        assert self.ended() == -signal.SIGKILL, self.log.read_text()[-3000:]

    def ended(self) -> int:
        """The exit status, once it has ended by itself."""
        assert self.process is not None
        status = self.process.wait(PATIENCE_SECONDS)
        self._leash.release()
        return status

    def stop(self) -> int:
        """By SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.ended()


def produce(
    bootstrap: str, topic: str, batch: ReadingBatch, seconds: float = 0.0, nonsense: Sequence[bytes] = ()
) -> dict[int, int]:
    """The readings as messages, keyed by sensor and spread over so many seconds; the ends of the partitions.

    The nonsense comes in the middle, in each partition.
    """
    ends: dict[int, int] = {}
    with KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20) as producer:
        for i in range(len(batch)):
            message = keyed(batch, i)
            producer.send(topic, **message)
            ends[message["partition"]] = ends.get(message["partition"], 0) + 1
            if i == len(batch) // 2:
                for partition, value in itertools.product(sorted(ends), nonsense):
                    producer.send(topic, value=value, partition=partition)
                    ends[partition] += 1
            if seconds:
                time.sleep(seconds / len(batch))
    return ends


def keyed(batch: ReadingBatch, i: int) -> dict[str, Any]:
    """The reading at `i` as a message to be sent."""
    reading = Reading(batch.sensors[i], int(batch.times[i]), {"c0": float(batch.values[i, 0])})
    return {"key": reading.sensor.encode(), "value": JSON.encode(reading), "partition": int(batch.partitions[i])}


def messages(bootstrap: str, topic: str) -> list[bytes]:
    """Everything in partition 0 of a topic that is committed, once no transaction is open there any more."""
    return [record.value for record in records(bootstrap, topic)]


def records(bootstrap: str, topic: str, isolation: str = "read_committed") -> list[Any]:
    """The same with time and offset, as a reader of this isolation finds it."""
    tp, found = TopicPartition(topic, 0), list[Any]()
    deadline = time.monotonic() + PATIENCE_SECONDS
    with (
        KafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False) as dirty,
        KafkaConsumer(
            bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, isolation_level=isolation
        ) as consumer,
    ):
        consumer.assign([tp])
        consumer.seek_to_beginning()
        while True:
            polled = consumer.poll(timeout_ms=1500)
            found += [record for of_one in polled.values() for record in of_one]
            # who was killed may have left a transaction open, and what comes behind it shows only once it timed out
            if not polled and consumer.position(tp) >= dirty.end_offsets([tp])[tp]:
                return found
            assert time.monotonic() < deadline, f"{topic}: a transaction is still open"


def alerts(bootstrap: str, topic: str) -> dict[tuple[str, int], Alert]:
    """What was published, by identity and revision, each of them once."""
    return Played([decode_alert(message) for message in messages(bootstrap, topic)], []).said


def wait_for(what: str, seconds: float, holds: Callable[[], object]) -> None:
    """Until `holds()`; an assertion that names what did not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
