"""The main job: learn from files, follow the same rows live, and say exactly what the replay of them says."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.codecs import JSON
from pipeline.codecs.json import decode_alert
from pipeline.core.alerts import Alert, Kind, State
from pipeline.core.readings import Reading
from pipeline.demo.faults import Injection, schedule
from pipeline.demo.plant import Plant
from pipeline.demo.producer import HISTORY_ROWS
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.service import Service
from tests.service import alerts as alerts_of

SENSORS, ROWS = 4, 2200  # one of each machine type: four groups, one to four channels


def foreshock(*words: str | Path) -> None:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output


def rows() -> list[list[Reading]]:
    """The plant after its history, broken often enough to be worth alerts."""
    plant = Plant(SENSORS, seed=2)
    faults = schedule(plant, 2, HISTORY_ROWS, ROWS, per_10k=30.0)
    return list(islice(plant.stream(HISTORY_ROWS, Injection(plant, faults)), ROWS))


def written(readings: list[list[Reading]], folder: Path) -> Path:
    """The same rows as files."""
    by_sensor: dict[str, list[Reading]] = {}
    for reading in (reading for row in readings for reading in row):
        by_sensor.setdefault(reading.sensor, []).append(reading)
    for sensor, its in by_sensor.items():
        path = folder / f"{sensor}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["timestamp", *its[0].values])
            writer.writerows([datetime.fromtimestamp(r.time / 1e6, UTC).isoformat(), *r.values.values()] for r in its)
    return folder


def essence(alerts: list[Alert]) -> set[tuple[object, ...]]:
    """What must be equal. A gap may be noticed by a tick, so what it looked like when noticed is not compared."""
    told = {
        (a.alert_id, a.kind, a.revision, a.state, a.start, a.end, a.score) for a in alerts if a.kind is not Kind.GAP
    }
    gaps = {(a.alert_id, a.end) for a in alerts if a.kind is Kind.GAP and a.state is State.RESOLVED}
    return told | gaps


@pytest.mark.timeout(280)
def test_live_alerts_equal_those_of_a_replay_of_the_same_rows(
    broker: Broker, topics: NewTopics, tmp_path: Path
) -> None:
    foreshock("plant", "--history", tmp_path / "history", "--sensors", str(SENSORS), "--seed", "2")
    quick = ("--updates", "40", "--hidden", "8", "--max-rows", "1500")
    foreshock("train", tmp_path / "history", "--model", tmp_path / "models", *quick)
    readings = rows()
    data, alerts = written(readings, tmp_path / "data"), tmp_path / "alerts.jsonl"
    words = ("--model", tmp_path / "models", "--scores", tmp_path / "scores", "--budget", "20/10000/sensor")
    foreshock("replay", data, *words, "--alerts", alerts)
    replayed = [decode_alert(line) for line in alerts.read_bytes().splitlines()]
    assert {a.kind for a in replayed} >= {Kind.FORECAST, Kind.STUCK, Kind.GAP}

    names = dict(zip(("readings", "alerts", "dead_letter"), topics("readings", "alerts", "dead"), strict=True))
    service = Service(broker.bootstrap, tmp_path, names, settings={"DETECTION__BUDGET": "20/10000/sensor"})
    service.start()
    sent = [reading for row in readings for reading in row]
    with KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=20) as producer:
        for reading in sent:
            producer.send(names["readings"], key=reading.sensor.encode(), value=JSON.encode(reading))
    service.wait_until_committed({0: len(sent)})
    assert service.metric("foreshock_lag_records") == 0
    assert service.metric("foreshock_readings_total") == len(sent)
    live = list(alerts_of(broker.bootstrap, names["alerts"]).values())
    assert service.stop() == 0
    assert essence(live) == essence(replayed)
