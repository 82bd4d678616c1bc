"""A demo from nothing: a broker, a model learned from the plant's history, the service itself, and what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kafka import TopicPartition
from rich.console import Console

from pipeline.adapters.embedded import EmbeddedBroker, Leash, free_port
from pipeline.adapters.files import Series
from pipeline.adapters.kafka_connection import new_consumer, new_producer
from pipeline.adapters.kafka_topics import ensure_topics
from pipeline.codecs import JSON
from pipeline.codecs.json import decode_alert
from pipeline.core.alerts import Alert, Kind, State
from pipeline.core.readings import Reading
from pipeline.demo.control import Opening, watch
from pipeline.demo.faults import Injection, schedule
from pipeline.demo.plant import Plant, row_of
from pipeline.demo.producer import HISTORY_ROWS
from pipeline.demo.verdict import Verdict, judge
from pipeline.demo.view import DemoView, picture
from pipeline.settings_schema import KafkaSettings, TopicSettings

READINGS_PER_SECOND = 1800.0
PARTITIONS = 3
READY_SECONDS = 60.0
SETTLE_SECONDS = 30.0  # for the last reading to come back scored
LAST_ALERTS_SECONDS = 2.5  # ticks come once a second
TOPICS = TopicSettings(scores="sensor.scores")

Train = Callable[[list[Series], Path], None]


class DemoError(Exception):
    """The demo cannot go on; says what broke and where its log is."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo can be told."""

    duration_seconds: float = 60.0
    sensors: int = 72
    seed: int = 0
    budget: str = "5/20000/sensor"
    bootstrap_servers: str | None = None  # None: the embedded broker
    picture: Path | None = None  # an SVG of the view at its end


def history(plant: Plant, rows: int = HISTORY_ROWS) -> list[Series]:
    """The plant before the demo, as files would hold it."""
    channels = {sensor: line.names for line in plant.lines for sensor in line.sensors}
    return [Series(name, times, channels[name], values) for name, (times, values) in plant.history(rows).items()]


def run_demo(console: Console, options: DemoOptions, train: Train) -> Verdict:
    """Set everything up, stream the plant for as long as asked, and judge the alerts; DemoError where a part fails."""
    plant = Plant(options.sensors, options.seed)
    rows = max(int(options.duration_seconds * READINGS_PER_SECOND / options.sensors), 1)
    faults = schedule(plant, options.seed, HISTORY_ROWS, rows)
    with tempfile.TemporaryDirectory(prefix="foreshock-demo-") as scratch, _broker(options) as (broker, servers):
        console.print(f"1/3  learning {options.sensors} sensors from {HISTORY_ROWS} readings each", highlight=False)
        models = Path(scratch) / "models"
        train(history(plant), models)
        kafka = KafkaSettings(bootstrap_servers=servers, topics=TOPICS)
        assert TOPICS.scores is not None
        counts = dict.fromkeys((TOPICS.readings, TOPICS.alerts, TOPICS.dead_letter, TOPICS.scores), PARTITIONS)
        ensure_topics(kafka, counts)
        console.print(f"2/3  starting the service on {broker} at {servers}", highlight=False)
        with _service(servers, models, Path(scratch), options), DemoView(console, plant.sensors, broker) as view:
            console.print(f"3/3  streaming {rows} readings of each sensor, {len(faults)} faults among them")
            run = _Stream(plant, Injection(plant, faults), kafka, view)
            run.play(rows, options)
        openings = [Opening(row_of(a.last), a.sensor) for a in run.alerts if a.state is State.FIRING]
        control = watch(plant, Injection(plant, faults), HISTORY_ROWS, rows)
        p50, p99 = np.percentile(run.latencies_ms, [50, 99]).tolist() if run.latencies_ms else (0.0, 0.0)
        service, chart = (judge(faults, found, run.sent) for found in (openings, control))
        return Verdict(broker, run.seconds, p50, p99, service, chart)


@contextmanager
def _broker(options: DemoOptions) -> Iterator[tuple[str, str]]:
    """Name and address of the broker: the one that was named, or one of our own."""
    if options.bootstrap_servers is not None:
        yield "Apache Kafka", options.bootstrap_servers
        return
    with EmbeddedBroker() as embedded:
        yield "an embedded broker (in memory, no delivery guarantees)", embedded.bootstrap


@contextmanager
def _service(servers: str, models: Path, scratch: Path, options: DemoOptions) -> Iterator[None]:
    """`foreshock run` as anyone would run it, in a process of its own."""
    port, log = free_port(), scratch / "service.log"
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": servers,
        "KAFKA__START": "earliest",
        "KAFKA__SESSION_TIMEOUT_SECONDS": "6",  # the embedded broker lets a group wait for half of it
        "KAFKA__HEARTBEAT_SECONDS": "1",
        "KAFKA__TOPICS__SCORES": str(TOPICS.scores),
        "KAFKA__COMMIT_SECONDS": "0.2",  # scores come with the commits, and someone is watching
        "MODEL__DIR": str(models),
        "CHECKPOINTS__DIR": str(scratch / "checkpoints"),
        "DETECTION__BUDGET": options.budget,
        "HTTP__PORT": str(port),
    }
    environment = os.environ | {f"FORESHOCK_{name}": value for name, value in settings.items()}
    with log.open("wb") as out:
        service = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run"], env=environment, stdout=out, stderr=subprocess.STDOUT
        )
        leash = Leash(service)
        try:
            _wait_until_ready(service, port, log)
            yield
            if service.poll() is not None:
                raise DemoError(f"the service ended with {service.returncode}:\n{_tail(log)}")
        finally:
            service.terminate()
            try:
                service.wait(timeout=15)
            except subprocess.TimeoutExpired:
                service.kill()
            leash.release()


def _wait_until_ready(service: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise DemoError(f"the service ended with {service.returncode}:\n{_tail(log)}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    raise DemoError(f"the service was not ready within {READY_SECONDS:.0f} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


class _Stream:
    """Produces the plant at its pace and takes in what the service says."""

    def __init__(self, plant: Plant, change: Injection, kafka: KafkaSettings, view: DemoView) -> None:
        self.alerts: list[Alert] = []
        self.latencies_ms: list[float] = []
        self.sent = self.scored = 0
        self.seconds = 0.0
        self._rows = plant.stream(HISTORY_ROWS, change)
        self._view, self._sensors = view, len(plant.sensors)
        self._sent_at: dict[int, float] = {}
        self._producer = new_producer(kafka, linger_ms=20)
        self._consumer = new_consumer(
            kafka, auto_offset_reset="earliest", isolation_level="read_committed", max_poll_records=5000
        )
        topics = (TOPICS.alerts, TOPICS.scores)
        self._consumer.assign([TopicPartition(topic, p) for topic in topics for p in range(PARTITIONS)])

    def play(self, rows: int, options: DemoOptions) -> None:
        """All rows at the demo's pace, then wait for the last to be scored."""
        started = time.monotonic()
        for row in range(rows):
            self._send(next(self._rows), HISTORY_ROWS + row)
            due = started + (row + 1) * self._sensors / READINGS_PER_SECOND
            self._listen()
            while (early := due - time.monotonic()) > 0:
                time.sleep(min(early, 0.02))
                self._listen()
        self._producer.flush()
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.scored < self.sent and time.monotonic() < deadline:
            self._listen()
        self.seconds = time.monotonic() - started
        quiet = time.monotonic() + LAST_ALERTS_SECONDS
        while time.monotonic() < quiet:
            self._listen()
        if options.picture is not None:
            options.picture.write_text(picture(self._view.render(), "foreshock demo"), encoding="utf-8")
        self._producer.close()
        self._consumer.close()
        if self.scored < self.sent:
            raise DemoError(f"{self.sent - self.scored} of {self.sent} readings were not scored in time")

    def _send(self, readings: list[Reading], row: int) -> None:
        for reading in readings:
            self._producer.send(TOPICS.readings, key=reading.sensor.encode(), value=JSON.encode(reading))
        self.sent += len(readings)
        self._sent_at[row] = time.time()

    def _listen(self) -> None:
        for partition, records in self._consumer.poll(timeout_ms=5).items():
            seen_at = time.time()
            for record in records:
                if partition.topic == TOPICS.alerts:
                    self._told(decode_alert(record.value), seen_at)
                else:
                    self._scored(json.loads(record.value))
        self._view.lag(self.sent - self.scored)
        self._view.refresh()

    def _told(self, alert: Alert, seen_at: float) -> None:
        self.alerts.append(alert)
        self._view.alert(alert)
        sent_at = self._sent_at.get(row_of(alert.last))
        if alert.kind is not Kind.GAP and sent_at is not None:  # a gap is told by what did not come
            self.latencies_ms.append(1000 * (seen_at - sent_at))

    def _scored(self, message: dict[str, object]) -> None:
        self.scored += 1
        actual, expected = message["actual"], message["expected"]
        assert isinstance(actual, dict)
        assert isinstance(expected, dict)
        self._view.readings(1, int(str(message["time"])) * 1000)
        for channel, value in actual.items():
            if value is not None:
                forecast = expected[channel]
                self._view.point(str(message["sensor"]), channel, value, np.nan if forecast is None else forecast)
