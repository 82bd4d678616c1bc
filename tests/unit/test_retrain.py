"""Retraining writes the next version, leaves out what was wrong, and lets it serve only where it is no worse."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline import bundle
from pipeline.adapters.files import DataError, Series
from pipeline.adapters.kafka_history import parse_since
from pipeline.codecs.json import encode_alert
from pipeline.core.alerts import Alert, Evidence, Kind, ModelRef, Severity, State
from pipeline.core.detector import Detector
from pipeline.core.events import Swap
from pipeline.core.model import SensorTables
from pipeline.core.readings import SECOND
from pipeline.core.table import Count
from tests import models
from training.contest import held_out_error, scales_of
from training.dataset import regroup
from training.fit import FitSettings
from training.masking import episodes
from training.past import Past, from_files
from training.retrain import LOCK, GroupOutcome, RetrainError, RetrainOutcome, RetrainSettings, retrain, routed
from training.train import TrainSettings, train

MINUTE = 60 * SECOND
QUICK = FitSettings(hidden=4, window=64, horizons=(1, 6), updates=20)
OPEN = Alert(
    alert_id="a1", revision=1, state=State.FIRING, kind=Kind.FORECAST, severity=Severity.WARNING, sensor="pump-1",
    start=300 * MINUTE, last=300 * MINUTE, evidence=Evidence(0, 0, 1), model=ModelRef("g", "1", "0" * 64),
)  # fmt: skip


def wave(sensor: str, rows: int = 400, channel: str = "flow", level: float = 50.0) -> Series:
    """A sine with noise, one reading a minute."""
    noise = np.random.default_rng(len(sensor)).normal(scale=0.2, size=rows)
    values = level + 2 * np.sin(2 * np.pi * np.arange(rows) / 25) + noise
    return Series(sensor, MINUTE * np.arange(rows, dtype=np.int64), (channel,), values[:, None])


PUMPS = [wave("pump-1"), wave("pump-2")]
HEATER = wave("heater", channel="heat")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a first version of two groups, flow-1min and heat-1min, serving."""
    root = tmp_path_factory.mktemp("first")
    settings = TrainSettings(fit=replace(QUICK, updates=60), weights="shared")
    for trained in train([*PUMPS, HEATER], root, settings):
        bundle.serve(trained.folder)
    return root


@pytest.fixture
def root(first: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test."""
    return shutil.copytree(first, tmp_path / "models")


def past(*series: Series, alerts: tuple[Alert, ...] = ()) -> Callable[[], Past]:
    return lambda: Past(series, episodes(alerts))


def quick(updates: int = 20) -> RetrainSettings:
    return RetrainSettings(weights="shared", updates=updates)


def pointer(root: Path, group: str) -> str:
    return (root / group / bundle.SERVING).read_text()


def of_group(outcome: RetrainOutcome, name: str) -> GroupOutcome:
    return next(group for group in outcome.groups if group.group == name)


def test_a_version_that_forecasts_no_worse_serves_and_the_old_one_stays(root: Path) -> None:
    good = bundle.load(root / "flow-1min" / "1")
    network = replace(good.network, head=-3 * good.network.head)  # the wrong way
    poor = replace(good, ref=replace(good.ref, version="2"), network=network)
    bundle.serve(bundle.save(poor, root, {}, np.zeros((1, 64, 2), np.float32)))
    group = of_group(retrain(past(*PUMPS), root, quick()), "flow-1min")
    assert (group.version, group.served_before, group.promoted) == ("3", "2", True)
    assert group.error_ratio is not None
    assert group.error_ratio <= 1
    assert group.reason.startswith("version 3 serves: its held-out forecast error, ")
    assert pointer(root, "flow-1min") == "3"
    assert bundle.load(root / "flow-1min" / "2").ref.version == "2"
    new = bundle.load(root / "flow-1min" / "3")
    assert (new.network.hidden, new.network.window, new.network.horizons) == (4, 64, (1, 6))
    Detector(poor).apply(Swap(new))  # a running service can take it up


def test_a_version_that_forecasts_worse_does_not_serve_and_says_why(root: Path) -> None:
    group = of_group(retrain(past(*PUMPS), root, quick(updates=1)), "flow-1min")
    assert not group.promoted
    assert group.error_ratio is not None
    assert group.error_ratio > 1
    assert group.reason.startswith("version 2 does not serve: its held-out forecast error, ")
    assert group.reason.endswith(f"is worse than the {group.served_error:.4g} of version 1")
    assert pointer(root, "flow-1min") == "1"
    decision = json.loads((root / "flow-1min" / "2" / "decision.json").read_text())
    assert (decision["promoted"], decision["reason"]) == (False, group.reason)


def test_what_was_masked_stands_in_the_manifest_and_in_the_report(tmp_path: Path) -> None:
    outcome = retrain(past(*PUMPS, alerts=(OPEN,)), tmp_path, quick())
    (group,) = outcome.groups
    assert (group.promoted, group.masked_ratio, group.masked_spans) == (True, 100 / 800, 1)
    folder = tmp_path / group.group / "1"
    about = json.loads((folder / "manifest.json").read_text())["about"]
    assert about["masked"] == {"ratio": 100 / 800, "spans": 1}
    assert about["readings"] == 700
    span = {"sensor": "pump-1", "first": 300 * MINUTE, "last": 399 * MINUTE, "rows": 100}
    assert about["masked_spans"] == [span | {"reason": "under forecast alert a1, still open"}]
    assert "under forecast alert a1, still open" in (folder / "report.html").read_text()


def test_a_sensor_under_alert_all_along_is_kept_as_the_serving_version_knows_it(root: Path) -> None:
    drifted = wave("pump-1", level=500.0)
    retrain(past(drifted, PUMPS[1], alerts=(replace(OPEN, start=0),)), root, quick())
    old, new = (bundle.load(root / "flow-1min" / version) for version in ("1", "2"))
    assert new.sensors.names == old.sensors.names == ("pump-1", "pump-2")
    for field, array in new.sensors.arrays.items():
        np.testing.assert_array_equal(array[0], old.sensors.arrays[field][0], err_msg=field)
    about = json.loads((root / "flow-1min" / "2" / "manifest.json").read_text())["about"]
    assert about["notes"] == ["fewer than 60 readings, so kept as version 1 knows them: 1 sensor (pump-1)"]


def test_a_group_without_readings_to_learn_from_goes_on_as_it_is(root: Path) -> None:
    everything = tuple(replace(OPEN, alert_id=name, sensor=name, start=0) for name in ("pump-1", "pump-2"))
    outcome = retrain(past(*PUMPS, HEATER, alerts=everything), root, quick())
    starved = of_group(outcome, "flow-1min")
    assert (starved.version, starved.promoted, starved.masked_ratio) == (None, False, 1.0)
    assert starved.reason == "version 1 goes on serving: no sensor has 60 readings that are not masked"
    assert of_group(outcome, "heat-1min").version == "2"
    with pytest.raises(DataError, match="no sensor of flow-1min, heat-1min has 60 readings that are not masked"):
        retrain(past(*PUMPS, alerts=everything), root, quick())


def test_sensors_go_where_the_live_service_sends_them() -> None:
    known = models.model(2)  # channels c0 and c1
    both = Series("both", np.arange(3), ("c1", "rssi", "c0"), np.zeros((3, 3)))
    stranger = Series("stranger", np.arange(3), ("heat",), np.zeros((3, 1)))
    members, strangers, notes = routed([both, stranger], {"g": known}, {})
    assert [s.sensor for s in members["g"]] == ["both"]
    assert (strangers, notes) == ([stranger], [])
    one, elsewhere = models.model(1), {"g": "plant2/*"}
    plain = Series("plain", np.arange(3), ("value",), np.zeros((3, 1)))
    members, _, _ = routed([plain], {"g": one}, {})
    assert [s.channels for s in members["g"]] == [("c0",)]
    members, strangers, notes = routed([replace(plain, channels=("c0",))], {"g": one}, elsewhere)
    assert (dict(members), strangers) == ({}, [])
    assert notes == ["sensor 'plain' sends c0; every group has a pattern, and none matches: plant2/*; not trained"]


def test_a_served_group_keeps_its_name_channels_and_interval_whatever_comes() -> None:
    like = models.model(2)
    slow = Series("slow", 10 * MINUTE * np.arange(100), ("c0", "rssi"), np.random.default_rng(0).normal(size=(100, 2)))
    group = regroup([slow], like)
    assert group is not None
    assert (group.name, group.channels, group.targets, group.interval) == ("g", ("c0", "c1"), ("c0", "c1"), MINUTE)
    assert "not read by this group, neither here nor live: 1 channel (rssi)" in group.notes


def test_sensors_of_a_new_kind_become_a_group_that_serves(root: Path) -> None:
    outcome = retrain(past(wave("tank", channel="level")), root, quick())
    said = {group.group: group.reason for group in outcome.groups}
    assert said == {
        "level-1min": "version 1 serves, the first of its group; a running service reads it from its next start on",
        "flow-1min": "version 1 goes on serving: the history has none of it",
        "heat-1min": "version 1 goes on serving: the history has none of it",
    }
    assert pointer(root, "level-1min") == "1"


def test_both_models_are_judged_on_the_same_readings_in_the_same_unit(tmp_path: Path) -> None:
    (trained,) = train(PUMPS, tmp_path, TrainSettings(fit=QUICK, weights="own"))
    group = regroup(PUMPS, trained.model)
    assert group is not None
    unit = scales_of(trained.model)
    own = held_out_error(trained.model, group, unit)
    np.testing.assert_allclose(own, trained.errors["LSTM"], rtol=1e-4)
    other_scales = trained.model.sensors.arrays["scale"] * [1.0, 1.001]
    tables = {**trained.model.sensors.arrays, "scale": other_scales}
    rescaled = replace(trained.model, sensors=replace(trained.model.sensors, arrays=tables))
    np.testing.assert_allclose(held_out_error(rescaled, group, unit), own, rtol=0.01)
    shared = replace(trained.model, sensors=SensorTables((), {}))
    tables = {**trained.model.sensors.arrays, "count": trained.model.sensors.arrays["count"].copy()}
    tables["count"][:, Count.NETWORK] = 0
    first = replace(trained.model, sensors=replace(trained.model.sensors, arrays=tables))
    np.testing.assert_array_equal(held_out_error(shared, group, unit), held_out_error(first, group, unit))


def test_only_one_run_works_on_a_folder_and_the_other_is_told_who(tmp_path: Path) -> None:
    def read() -> Past:
        holder = (tmp_path / LOCK).read_text()
        assert holder.startswith("process ")
        with pytest.raises(RetrainError, match=re.escape(f"retrained by {holder}; wait until it ends")):
            retrain(past(*PUMPS), tmp_path, quick())
        raise DataError("enough")

    for _ in range(2):  # the first run has let go of the lock
        with pytest.raises(DataError, match="enough"):
            retrain(read, tmp_path, quick(), clock=lambda: 1_795_347_600.0)
    assert (tmp_path / LOCK).read_text().endswith("since 2026-11-22T11:40:00+00:00")


def test_metrics_are_for_the_textfile_collector_and_only_a_success_moves_them(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "foreshock.prom"
    retrain(past(*PUMPS, alerts=(OPEN,)), root, quick(), metrics=file, clock=lambda: 1_795_347_600.0)
    metrics = dict(line.split() for line in file.read_text().splitlines() if not line.startswith("#"))
    assert metrics["foreshock_retrain_last_success_timestamp_seconds"] == "1.7953476e+09"
    assert metrics['foreshock_retrain_masked_ratio{group="flow-1min"}'] == "0.125"
    ratio = float(metrics['foreshock_retrain_heldout_error_ratio{group="flow-1min"}'])
    assert float(metrics['foreshock_retrain_promoted{group="flow-1min"}']) == (ratio <= 1)
    before = file.read_bytes()
    with pytest.raises(DataError):
        retrain(past(), root, quick(), metrics=file)
    assert file.read_bytes() == before
    with pytest.raises(RetrainError, match=r"there is no folder .*nowhere; create it"):
        retrain(past(), root, quick(), metrics=tmp_path / "nowhere" / "foreshock.prom")


def test_files_bring_readings_and_alerts(tmp_path: Path) -> None:
    (tmp_path / "pump-1.csv").write_text("timestamp,flow\n1970-01-01 00:00:00,1.5\n1970-01-01 00:01:00,2.5\n")
    alerts = tmp_path / "alerts.jsonl"
    alerts.write_bytes(encode_alert(OPEN) + b"\n")
    found = from_files(tmp_path, alerts)
    assert [(s.sensor, s.values[:, 0].tolist()) for s in found.series] == [("pump-1", [1.5, 2.5])]
    assert [episode.alert_id for episode in found.episodes] == ["a1"]
    assert from_files(tmp_path).episodes == ()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("30d", "2026-10-23T12:00:00+00:00"),
        ("1.5 h", "2026-11-22T10:30:00+00:00"),
        ("2w", "2026-11-08T12:00:00+00:00"),
        ("2026-11-01T00:00:00+02:00", "2026-10-31T22:00:00+00:00"),
        ("2026-11-01", "2026-11-01T00:00:00+00:00"),
    ],
)
def test_a_span_goes_back_from_now_or_begins_at_a_time(said: str, meant: str) -> None:
    start = parse_since(said, datetime(2026, 11, 22, 12, tzinfo=UTC))
    assert datetime.fromtimestamp(start / 1e6, UTC).isoformat() == meant


@pytest.mark.parametrize("said", ["", "30", "d", "-3d", "30 fortnights", "9999999999w", "yesterday"])
def test_what_is_neither_a_span_nor_a_time_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=r"is neither a span such as 30d, 12h or 90min nor an RFC 3339 time"):
        parse_since(said, datetime(2026, 11, 22, 12, tzinfo=UTC))
