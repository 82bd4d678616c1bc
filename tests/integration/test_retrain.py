"""Retraining from the topics: the readings of a span, without what was under alert there."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaProducer

from pipeline import bundle
from pipeline.adapters.files import DataError
from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
from pipeline.adapters.kafka_history import read_alerts, read_readings
from pipeline.codecs import JSON
from pipeline.codecs.json import encode_alert
from pipeline.core.alerts import Resolution, State
from pipeline.core.readings import SECOND, Quality, Reading
from pipeline.demo.plant import INTERVAL, START, Plant
from pipeline.settings_schema import KafkaSettings
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.contract.source_and_sink import ALERT
from training.past import from_topic
from training.retrain import RetrainSettings, retrain

NOW_MS = int(time.time() * 1000)
HOUR_MS = 3_600_000
SINCE = (NOW_MS - HOUR_MS) * 1000  # µs
Message = tuple[bytes, int, int]  # payload, partition, record timestamp in ms


def kafka_settings(broker: Broker, readings: str, alerts: str = "sensor.alerts") -> KafkaSettings:
    topics = {"readings": readings, "alerts": alerts, "dead_letter": f"{readings}-dead"}
    return KafkaSettings.model_validate({"bootstrap_servers": broker.bootstrap, "topics": topics})


def produce(broker: Broker, topic: str, messages: Sequence[Message]) -> None:
    with KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=20) as producer:
        for payload, partition, stamp in messages:
            producer.send(topic, value=payload, partition=partition, timestamp_ms=stamp)


def message(sensor: str, time: int, value: float, partition: int = 0, stamp: int = NOW_MS) -> Message:
    return JSON.encode(Reading(sensor, time, {"flow": value})), partition, stamp


def test_a_span_holds_every_reading_from_its_first_record_to_the_end(broker: Broker, topics: NewTopics) -> None:
    (topic,) = topics("readings", partitions=2)
    too_old = [message("a", row, 1.0, stamp=NOW_MS - 2 * HOUR_MS) for row in range(5)]
    bad = JSON.encode(Reading("b", 3000, {"flow": 2.0, "heat": 7.0}, Quality.MAINTENANCE)), 1, NOW_MS
    ahead = message("a", (NOW_MS + HOUR_MS) * 1000, 1.0)
    good = [message("a", 1000 * row, float(row)) for row in range(300)]
    produce(broker, topic, [*too_old, *good[:100], (b"{", 0, NOW_MS), message("b", 2000, 1.0, 1), bad, ahead])
    produce(broker, topic, good[100:])
    told: list[tuple[int, int]] = []
    found = read_readings(kafka_settings(broker, topic), topic, SINCE, 60 * SECOND, lambda *so_far: told.append(so_far))
    a, b = found.series
    assert (a.sensor, a.times.tolist(), a.values[:, 0].tolist()) == (
        "a", [1000 * row for row in range(300)], list(range(300)),
    )  # fmt: skip
    assert (b.channels, b.times.tolist()) == (("flow", "heat"), [2000, 3000])
    np.testing.assert_array_equal(b.values, [[1.0, np.nan], [2.0, 7.0]])
    assert {sensor: codes.tolist() for sensor, codes in found.quality.items()} == {"b": [0, 2]}
    assert found.refused == 2
    assert told[-1][0] == told[-1][1] > 300


def test_a_sensor_that_moved_to_another_partition_is_read_in_time(broker: Broker, topics: NewTopics) -> None:
    (topic,) = topics("readings", partitions=2)
    produce(broker, topic, [message("a", 1000 * row, float(row), partition=int(row < 50)) for row in range(100)])
    (found,) = read_readings(kafka_settings(broker, topic), topic, SINCE, 60 * SECOND).series
    assert found.values[:, 0].tolist() == list(range(100))


def test_what_is_under_alert_in_the_topic_is_not_learned(broker: Broker, topics: NewTopics, tmp_path: Path) -> None:
    (readings,) = topics("readings", partitions=2)
    (alerts,) = topics("alerts")
    plant = Plant(sensors=2, seed=3)
    history = plant.history(300)
    produce(
        broker,
        readings,
        [
            (JSON.encode(Reading(sensor, at, dict(zip(line.names, row, strict=True)))), partition, NOW_MS)
            for partition, line in enumerate(plant.lines)
            for sensor in line.sensors
            for at, row in zip(history[sensor][0].tolist(), history[sensor][1].tolist(), strict=True)
        ],
    )
    pump = plant.sensors[0]
    start, end = START + 100 * INTERVAL, START + 150 * INTERVAL
    firing = replace(ALERT, sensor=pump, start=start, last=start)
    over = replace(firing, revision=2, state=State.RESOLVED, last=end, end=end, resolution=Resolution.RETURNED)
    told = [(encode_alert(firing), NOW_MS - 2 * HOUR_MS), (b"hello", NOW_MS), (encode_alert(over), NOW_MS)]
    produce(broker, alerts, [(payload, 0, stamp) for payload, stamp in told])

    kafka = kafka_settings(broker, readings, alerts)
    outcome = retrain(
        lambda: from_topic(kafka, SINCE, 60 * SECOND), tmp_path, RetrainSettings(weights="shared", updates=5)
    )
    assert sorted((g.version, g.promoted, g.masked_spans) for g in outcome.groups) == [("1", True, 0), ("1", True, 1)]
    assert len(outcome.notes) == 1
    assert outcome.notes[0].startswith(f"1 messages in {alerts} are no alerts, so they mask nothing; the first in ")
    models = bundle.load_all(tmp_path)
    assert {name for model in models.values() for name in model.sensors.names} == set(plant.sensors)
    (masked,) = (g for g in outcome.groups if g.masked_spans)
    about = json.loads((tmp_path / masked.group / "1" / "manifest.json").read_text())["about"]
    assert about["readings"] == 300 - (51 + 5)
    (span,) = about["masked_spans"]
    assert (span["sensor"], span["first"], span["last"]) == (pump, start, end + 5 * INTERVAL)


def test_a_topic_that_is_not_there_or_empty_and_an_absent_broker_are_told_apart(
    broker: Broker, topics: NewTopics
) -> None:
    (empty,) = topics("readings")
    settings = kafka_settings(broker, empty)
    with pytest.raises(DataError, match=f"topic {empty} holds no reading since 20"):
        read_readings(settings, empty, SINCE, 60 * SECOND)
    with pytest.raises(KafkaSetupError, match="topic no-such-topic: does not exist"):
        list(read_alerts(settings, "no-such-topic"))
    away = settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    with pytest.raises(KafkaAwayError, match=r"no broker at 127\.0\.0\.1:1"):
        read_readings(away, empty, SINCE, 60 * SECOND)


@pytest.mark.kafka_only
def test_neither_an_aborted_nor_an_open_transaction_is_read_or_waited_for(broker: Broker, topics: NewTopics) -> None:
    (topic,) = topics("readings")
    with KafkaProducer(bootstrap_servers=broker.bootstrap, transactional_id=f"{topic}-writer") as producer:
        producer.init_transactions()
        for at, finish in enumerate((producer.commit_transaction, producer.abort_transaction, producer.flush)):
            producer.begin_transaction()
            producer.send(topic, value=message("a", 1000 * at, float(at))[0])
            producer.flush()
            finish()
        began = time.monotonic()
        (found,) = read_readings(kafka_settings(broker, topic), topic, SINCE, 60 * SECOND).series
        assert found.values[:, 0].tolist() == [0.0]
        assert time.monotonic() - began < 15
        producer.abort_transaction()
