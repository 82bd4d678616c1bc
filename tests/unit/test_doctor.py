"""`foreshock doctor` finds what would keep the service from running, and says what to do."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import adapters
from pipeline.adapters.kafka_admin import Survey, TopicState
from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
from pipeline.app import build
from pipeline.doctor import Check, checks, machine_bytes
from pipeline.settings_schema import KafkaSettings, Settings
from tests.service import saved

KEPT = TopicState(6, 3, {"cleanup.policy": "delete", "retention.ms": "604800000"}, frozenset({"READ", "WRITE"}))
TOPICS = {"sensor.readings": KEPT, "sensor.alerts": KEPT, "sensor.readings.dead-letter": KEPT}
SOUND = Survey(3, TOPICS, newest=None)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    saved(tmp_path / "models")
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:9092"},
            "model": {"dir": tmp_path / "models"},
            "checkpoints": {"dir": tmp_path / "not" / "there" / "yet"},
            "http": {"port": 0},
        }
    )


def found(settings: Settings, seen: Survey = SOUND) -> dict[str, Check]:
    def look(_: KafkaSettings, __: Iterable[str]) -> Survey:
        return seen

    return {check.name: check for check in checks(settings, look)}


def test_where_all_is_well_every_check_says_so(settings: Settings) -> None:
    seen = found(settings)
    assert [check for check in seen.values() if not check.ok] == []
    assert list(seen) == [
        "broker", "topic sensor.readings", "topic sensor.alerts", "topic sensor.readings.dead-letter", "clock",
        "model g", "client", "kernel", "checkpoints", "http",
    ]  # fmt: skip
    assert seen["topic sensor.readings"].detail == (
        "6 partitions, 3 replicas, cleanup.policy delete, retention.ms 604800000"
    )


@pytest.mark.parametrize(
    ("state", "detail", "remedy"),
    [
        (None, "does not exist", "--create --topic sensor.readings"),
        (replace(KEPT, config={"cleanup.policy": "compact"}), "compact", "cleanup.policy=delete"),
        (replace(KEPT, config={"retention.ms": "3600000"}), "retention.ms 3600000", "raise retention.ms"),
        (replace(KEPT, operations=frozenset({"WRITE"})), "READ is not allowed", "grant READ on sensor.readings"),
    ],
)
def test_a_topic_that_will_not_do_is_named_with_the_remedy(
    settings: Settings, state: TopicState | None, detail: str, remedy: str
) -> None:
    topics = {name: kept for name, kept in (TOPICS | {"sensor.readings": state}).items() if kept is not None}
    check = found(settings, replace(SOUND, topics=topics))["topic sensor.readings"]
    assert (check.ok, detail in check.detail, remedy in check.remedy) == (False, True, True), check


def test_a_clock_that_runs_behind_the_records_is_found(settings: Settings) -> None:
    assert found(settings, replace(SOUND, newest=time.time() - 86_400))["clock"].ok, "an idle topic is no fault"
    check = found(settings, replace(SOUND, newest=time.time() + 60))["clock"]
    assert not check.ok
    assert "ahead of this machine's clock" in check.detail


def test_without_a_broker_the_rest_is_still_looked_at(settings: Settings) -> None:
    def nobody(_: KafkaSettings, __: Iterable[str]) -> Survey:
        raise KafkaAwayError("no broker at localhost:9092 takes a connection")

    broker, *others = checks(settings, nobody)
    assert (broker.name, broker.ok) == ("broker", False)
    assert [check.name for check in others] == ["model g", "client", "kernel", "checkpoints", "http"]


def test_what_is_wrong_on_this_machine_is_found(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "models" / "g" / "serving").write_text("7")
    (tmp_path / "sensors.csv").write_text("sensor,low\npump,cold\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wrong = settings.model_copy(
            update={
                "sensors_csv": tmp_path / "sensors.csv",
                "http": settings.http.model_copy(update={"port": taken.getsockname()[1]}),
            }
        )
        seen = found(wrong)
    assert {name for name, check in seen.items() if not check.ok} == {"models", "sensors.csv", "http"}


def test_a_folder_that_may_not_be_written_is_found(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    check = found(settings)["checkpoints"]
    assert (check.ok, "Permission denied" in check.detail, "set checkpoints.dir" in check.remedy) == (False, True, True)


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        (None, "--create --topic sensor.checkpoints --partitions 6"),
        (KEPT, "set cleanup.policy=compact"),
        (replace(KEPT, partitions=3, config={"cleanup.policy": "compact"}), "give it 6 partitions"),
        (replace(KEPT, config={"cleanup.policy": "compact"}), ""),
    ],
)
def test_a_topic_of_checkpoints_is_looked_at_where_there_is_one(
    settings: Settings, state: TopicState | None, remedy: str
) -> None:
    kept = settings.checkpoints.model_copy(update={"store": "topic"})
    topics = TOPICS | ({"sensor.checkpoints": state} if state else {})
    seen = found(settings.model_copy(update={"checkpoints": kept}), replace(SOUND, topics=topics))
    assert remedy in seen["topic sensor.checkpoints"].remedy
    assert seen["topic sensor.checkpoints"].ok == (not remedy)
    assert "topic sensor.checkpoints" in seen["checkpoints"].detail


def test_doctor_says_what_memory_so_many_sensors_take_and_whether_it_is_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.doctor.machine_bytes", lambda: 2**30)

    def memory(sensors: int) -> Check:
        (check,) = [c for c in checks(settings, lambda *_: SOUND, sensors) if c.name == "memory g"]
        return check

    few, many = memory(1000), memory(1_000_000)
    assert few.ok
    assert "1000 sensors of " in few.detail
    assert not many.ok
    assert "members" in many.remedy
    assert "memory g" not in found(settings)


def test_the_memory_of_the_machine_is_no_more_than_it_has() -> None:
    assert 2**20 < machine_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_is_not_installed_is_found_before_the_service_starts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.adapters.librdkafka", raising=False)
    monkeypatch.delattr(adapters, "librdkafka", raising=False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    settings = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"client": "librdkafka"})})
    check = found(settings)["client"]
    assert (check.ok, "confluent_kafka is not installed" in check.detail) == (False, True), check
    with pytest.raises(KafkaSetupError, match="confluent_kafka is not installed"):
        build(settings)
