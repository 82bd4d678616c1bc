"""`foreshock replay --from-topic --verify` on Apache Kafka: nothing differs after kills; what was changed is named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaProducer

from pipeline.codecs.json import decode_alert, encode_alert
from pipeline.core.alerts import Severity
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.models import model, stream, waves
from tests.service import Service, messages, produce, saved

PARTITIONS = 3
TICKS_SECONDS = 3.0  # for who is silent at the end to be noticed


def replayed(service: Service, *words: str, **others: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "pipeline.cli",
        "replay",
        "--from-topic",
        service.topics["readings"],
    ]
    environment = os.environ | service.environment() | {f"FORESHOCK_{name}": value for name, value in others.items()}
    return subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.kafka_only
def test_a_service_that_was_killed_can_be_verified_and_what_was_tampered_with_is_named(
    broker: Broker, topics: NewTopics, tmp_path: Path
) -> None:
    saved(tmp_path / "models")
    (readings,) = topics("readings", partitions=PARTITIONS)
    told, dead, forged = topics("alerts", "dead", "forged")
    settings = {
        "DETECTION__BUDGET": "1/100/sensor",
        "KAFKA__MAX_POLL_RECORDS": "40",
        "KAFKA__INSTANCE_ID": "foreshock-0",
        "CHECKPOINTS__EVERY_SECONDS": "0.2",
    }
    names = {"readings": readings, "alerts": told, "dead_letter": dead}
    service = Service(broker.bootstrap, tmp_path, names, group=f"verified-{told}", settings=settings)
    ends = produce(broker.bootstrap, readings, stream(waves(9, 400), partitions=PARTITIONS, dropped=0.02))
    try:
        for point in ("stepped:30", "committed:5"):
            service.start(point)
            service.wait_until_killed()
        service.start()
        service.wait_until_committed(ends)
        time.sleep(TICKS_SECONDS)
        assert service.stop() == 0
    finally:
        service.end()

    whole = replayed(service, "--start", "1d", "--verify")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "nothing differs" in whole.stdout

    alerts = [decode_alert(value) for value in messages(broker.bootstrap, told)]
    lost, changed, *_ = [alert for alert in alerts if alert.kind.value == "forecast" and alert.revision == 1]
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        for alert in alerts:
            if alert == changed:
                producer.send(forged, encode_alert(replace(alert, severity=Severity.CRITICAL, score=9.5)))
            elif alert != lost:
                producer.send(forged, encode_alert(alert))
        producer.send(forged, encode_alert(replace(lost, alert_id="f" * 16)))
    tampered = replayed(service, "--start", "1d", "--verify", KAFKA__TOPICS__ALERTS=forged)
    assert tampered.returncode == 1, tampered.stdout + tampered.stderr
    assert f"missing: {lost.alert_id} revision 1" in tampered.stdout
    assert f"spurious: {'f' * 16} revision 1" in tampered.stdout
    assert f"changed: {changed.alert_id} revision 1" in tampered.stdout
    assert "score 9.5 -> " in tampered.stdout

    saved(tmp_path / "others", model(version="other", seed=5))
    others = replayed(service, "--start", "1d", "--verify", "--model", str(tmp_path / "others"))
    assert others.returncode == 1
    assert "taken under another model for g" in others.stdout

    one, left = changed.evidence, (tmp_path / "one.jsonl", tmp_path / "scores")
    words = ("--partition", str(one.partition), "--start", f"offset:{one.last_offset}",
             "--end", f"offset:{one.last_offset + 1}")  # fmt: skip
    alone = replayed(service, *words, "--alerts", str(left[0]), "--scores", str(left[1]))
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert changed.alert_id in [decode_alert(line).alert_id for line in left[0].read_bytes().splitlines()]
    (scores,) = left[1].glob("*.csv")
    assert len(scores.read_text().splitlines()) == 2, "a header, and the one reading that was asked for"

    nowhere = replayed(service, "--start", "1d", "--verify", KAFKA__GROUP_ID="nobody")
    assert (nowhere.returncode, "that the group has read" in nowhere.stderr) == (1, True)
