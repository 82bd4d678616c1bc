"""`foreshock sensor retire`, `maintenance` and the service on one broker: what is said is heard in its place."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from kafka import KafkaProducer

from pipeline.codecs import JSON
from pipeline.core.readings import Reading
from tests.brokers import Broker
from tests.integration.conftest import NewService
from tests.models import INTERVAL, START
from tests.service import alerts, wait_for


@pytest.mark.kafka_only
def test_what_an_operator_says_of_a_sensor_is_applied_and_its_alerts_end_as_retired(
    broker: Broker, names: dict[str, str], services: NewService
) -> None:
    service = services(broker.bootstrap, names)
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for i in range(300):
            value = 20 + i * 0.618 % 1 if i < 240 else 20.5  # it moves, and then no more
            reading = Reading("s0", START + i * INTERVAL, {"c0": value})
            producer.send(names["readings"], JSON.encode(reading), key=b"s0")
    service.start()
    wait_for("the alert on a value that stands still", 60, lambda: service.get("/alerts"))
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "sensor", "retire", "s0"]
    said = subprocess.run(command, env=os.environ | service.environment(), capture_output=True, text=True, check=True)
    assert "retired" in said.stdout
    wait_for("its end", 60, lambda: service.get("/alerts") == [])
    worked_on = [*command[:-2], "maintenance", "s0", "--hours", "0.5"]
    said = subprocess.run(worked_on, env=os.environ | service.environment(), capture_output=True, text=True, check=True)
    assert "maintenance until" in said.stdout
    wait_for("it to be applied", 60, lambda: service.metric("foreshock_events_total") == 2)
    assert service.stop() == 0
    told = alerts(broker.bootstrap, names["alerts"])
    assert [alert.resolution for alert in told.values() if alert.revision == 2] == ["retired"]
