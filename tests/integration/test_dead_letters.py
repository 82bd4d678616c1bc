"""What cannot be read must not be able to stop what can."""

from __future__ import annotations

from pathlib import Path

from kafka import KafkaProducer

from pipeline.codecs import JSON
from pipeline.core.readings import Reading
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.models import START
from tests.service import Service, messages, saved


def test_a_refused_message_as_large_as_the_broker_takes_is_dead_lettered_and_the_next_is_scored(
    broker: Broker, topics: NewTopics, tmp_path: Path
) -> None:
    names = dict(zip(("readings", "alerts", "dead_letter"), topics("readings", "alerts", "dead"), strict=True))
    saved(tmp_path / "models")
    service = Service(broker.bootstrap, tmp_path, names)
    service.start()
    good = JSON.encode(Reading("s0", START, {"c0": 1.0}))
    with KafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
        producer.send(names["readings"], key=b"k" * 900_000, value=b"\x01" * 70_000)  # \x01 grows sixfold in JSON
        producer.send(names["readings"], key=b"s0", value=good)
    service.wait_until_committed({0: 2})
    assert len(messages(broker.bootstrap, names["dead_letter"])) == 1
    assert service.metric("foreshock_readings_total") == 1
    assert service.stop() == 0
