"""`foreshock produce` and the service on one broker: what the files hold is what reaches the detector."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition

from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.service import Service, messages, saved

SENSORS, ROWS, PARTITIONS = 12, 40, 3


@pytest.mark.kafka_only  # the embedded broker names ends that are too low
def test_batches_from_files_reach_the_detector_whole(broker: Broker, topics: NewTopics, tmp_path: Path) -> None:
    (readings,) = topics("readings", partitions=PARTITIONS)
    alerts, dead = topics("alerts", "dead")
    saved(tmp_path / "models")
    history = tmp_path / "history"
    history.mkdir()
    for sensor in range(SENSORS):
        rows = [f"2026-11-22T10:{row:02d}:00Z,{20 + (row * sensor) % 7}" for row in range(ROWS)]
        (history / f"s{sensor}.csv").write_text("\n".join(["timestamp,c0", *rows]), encoding="utf-8")
    service = Service(broker.bootstrap, tmp_path, {"readings": readings, "alerts": alerts, "dead_letter": dead})
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "produce", str(history)]
    asked = [*command, "--format", "batch-msgpack", "--batch", "50", "--rate", "100000"]
    done = subprocess.run(asked, env=os.environ | service.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{SENSORS * ROWS} readings in " in done.stdout
    tps = [TopicPartition(readings, partition) for partition in range(PARTITIONS)]
    with KafkaConsumer(bootstrap_servers=broker.bootstrap) as consumer:
        ends = {tp.partition: end for tp, end in consumer.end_offsets(tps).items() if end}
    assert sum(ends.values()) < SENSORS * ROWS / 20
    service.start()
    try:
        service.wait_until_committed(ends)
        assert service.metric("foreshock_readings_total") == SENSORS * ROWS
    finally:
        service.end()
    assert messages(broker.bootstrap, dead) == []
