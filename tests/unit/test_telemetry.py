"""Metrics come from what a turn returned; logs are events."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import generate_latest

from pipeline.core.alerts import Kind, ModelRef
from pipeline.core.events import Outcome
from pipeline.core.readings import SECOND, Reason, Rejected
from pipeline.groups import Stepped
from pipeline.ports import Position, Scored
from pipeline.progress import Progress, Turn
from pipeline.settings_schema import LoggingSettings
from pipeline.telemetry import METRIC_NAMES, Telemetry, configure_logging
from tests.contract.source_and_sink import ALERT
from tests.models import model, stream, waves


def values(telemetry: Telemetry) -> dict[str, float]:
    lines = generate_latest(telemetry.registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(clock=lambda: 1_795_347_600.0)


def turn() -> Turn:
    batch = stream(waves(2, 5))
    stepped = Stepped(
        scored=[Scored(model(), batch, Outcome.empty(len(batch), 1))],
        seconds=[0.003],
        ignored={"late": 2},
        mended={"imputed": 3},
    )
    refused = [Rejected(Reason.UNREADABLE, "not JSON")]
    return Turn(
        stepped, [ALERT], refused, latency_seconds=0.2, committed=True, futile_commits=2, checkpoint_seconds=[0.04]
    )


def test_a_turn_is_counted(telemetry: Telemetry) -> None:
    partition = Progress(position=90, replay_until=0, committed=Position(90), watermark=7 * SECOND, end=100)
    partition.checkpoint_time = 5.0
    telemetry.turned(turn(), {3: partition})
    found = values(telemetry)
    expected = {
        'foreshock_readings_total{group="g"}': 10,
        'foreshock_rejected_total{reason="unreadable"}': 1,
        'foreshock_rejected_total{reason="future"}': 0,
        'foreshock_ignored_total{reason="late"}': 2,
        'foreshock_mended_total{how="imputed"}': 3,
        'foreshock_lag_records{partition="3"}': 10,
        'foreshock_watermark_timestamp_seconds{partition="3"}': 7,
        "foreshock_end_to_end_latency_seconds_sum": 0.2,
        "foreshock_step_seconds_count": 1,
        'foreshock_alert_transitions_total{group="pumps",kind="forecast",state="firing"}': 1,
        "foreshock_checkpoint_timestamp_seconds": 5,
        "foreshock_checkpoint_seconds_sum": 0.04,
        "foreshock_commits_total": 1,
        "foreshock_futile_commits_total": 2,
        "foreshock_heartbeat_timestamp_seconds": 1_795_347_600,
    }
    assert {name: found[name] for name in expected} == expected


def test_a_partition_that_left_is_no_longer_told_of(telemetry: Telemetry) -> None:
    partition = Progress(position=90, replay_until=0, committed=None, watermark=7 * SECOND, end=100)
    telemetry.turned(Turn(), {0: partition, 1: partition})
    telemetry.turned(Turn(), {1: partition})
    assert not [name for name in values(telemetry) if 'partition="0"' in name]
    assert 'foreshock_lag_records{partition="1"}' in values(telemetry)


def test_open_alerts_of_a_kind_go_back_to_nothing(telemetry: Telemetry) -> None:
    telemetry.counted({"pumps": {"scoring": 3, "silent": 1}}, [ALERT, ALERT])
    name = f'foreshock_alerts_open{{group="pumps",kind="{Kind.FORECAST.value}"}}'
    assert values(telemetry)[name] == 2
    telemetry.counted({"pumps": {"scoring": 4, "silent": 0}}, [])
    assert values(telemetry)[name] == 0
    assert values(telemetry)['foreshock_sensors{group="pumps",state="scoring"}'] == 4


def test_only_the_model_that_serves_is_named(telemetry: Telemetry) -> None:
    telemetry.serves([ModelRef("pumps", "1", "a")], {"pumps": 1e-4})
    telemetry.serves([ModelRef("pumps", "2", "b")], {"pumps": 1e-5})
    models = [name for name in values(telemetry) if name.startswith("foreshock_model_info")]
    assert models == ['foreshock_model_info{group="pumps",sha256="b",version="2"}']
    assert values(telemetry)['foreshock_budget_alerts_per_reading{group="pumps"}'] == 1e-5


def test_two_services_in_one_process_do_not_share_metrics() -> None:
    one, other = Telemetry(), Telemetry()
    one.turned(turn(), {})
    assert values(other)["foreshock_commits_total"] == 0


def test_no_metric_has_a_label_for_a_sensor(telemetry: Telemetry) -> None:
    telemetry.turned(turn(), {})
    families = {family.name: family for family in telemetry.registry.collect()}
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}
    assert labels <= {"group", "reason", "how", "kind", "state", "partition", "le", "version", "sha256"}
    assert {name.removesuffix("_total") for name in METRIC_NAMES} == set(families)


@pytest.fixture
def plain_logging() -> Iterator[None]:
    """Leave logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("plain_logging")
def test_every_event_is_a_line_of_json_the_libraries_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging(LoggingSettings(level="info"))
    structlog.get_logger("pipeline.runner").info("partition assigned", partition=3, offset=17)
    structlog.get_logger("pipeline.runner").debug("not shown")
    logging.getLogger("kafka.conn").warning("broker %s is away", "b1")
    logging.getLogger("kafka.conn").info("their info is our debug")
    assert sys.stderr is not None
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["partition"], first["level"]) == ("partition assigned", 3, "info")
    assert (second["event"], second["logger"], second["level"]) == ("broker b1 is away", "kafka.conn", "warning")


def test_sensors_that_made_room_or_came_twice_and_an_operators_events_are_counted(telemetry: Telemetry) -> None:
    telemetry.turned(Turn(Stepped(evicted={"pumps": 3}, split=["a", "b"], events=1)), {})
    found = values(telemetry)
    assert found['foreshock_evicted_total{group="pumps"}'] == 3
    assert (found["foreshock_split_sensors_total"], found["foreshock_events_total"]) == (2, 1)
