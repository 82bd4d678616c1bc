"""The verdict counts as the rules say, and the control keeps the budget it is given."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.core.readings import FloatArray
from pipeline.demo import control
from pipeline.demo.control import Opening
from pipeline.demo.faults import Fault, FaultKind, Injection, schedule
from pipeline.demo.plant import Line, Plant
from pipeline.demo.verdict import Judgement, Verdict, judge

SHIFT = Fault(FaultKind.SHIFT, "a", "flow", 1000, 1149, 4.0)
LATER = Fault(FaultKind.SPIKE, "a", "flow", 1600, 1601, 8.0)


def _untouched(_line: Line, _first_row: int, _values: FloatArray) -> None:
    """A plant without faults."""


def _judged(*rows: int, sensor: str = "a") -> Judgement:
    return judge([SHIFT, LATER], [Opening(row, sensor) for row in rows], 20_000)


@pytest.mark.parametrize("row", [1000, 1149, 1150, 1249])
def test_an_alert_from_the_start_to_100_readings_after_the_end_finds_the_fault(row: int) -> None:
    judged = _judged(row)
    assert judged.delays == {SHIFT: row - 1000, LATER: None}
    assert (judged.injected, judged.found, judged.false_alarms) == (2, 1, 0)


@pytest.mark.parametrize("row", [0, 999, 1250])
def test_an_alert_outside_the_window_is_false(row: int) -> None:
    judged = _judged(row)
    assert (judged.found, judged.false_alarms) == (0, 1)
    assert judged.delay_readings is None


def test_an_alert_on_another_sensor_is_false() -> None:
    assert _judged(1050, sensor="b").false_alarms == 1


def test_an_alert_on_recovery_is_false_although_the_fault_was_found() -> None:
    judged = _judged(1005, 1160)
    assert (judged.found, judged.delay_readings, judged.false_alarms) == (1, 5.0, 1)


def test_further_alerts_while_the_fault_lasts_belong_to_it() -> None:
    assert _judged(1149, 1005, 1100).false_alarms == 0


def test_only_the_first_alert_after_the_end_finds_the_fault() -> None:
    judged = _judged(1160, 1240)
    assert (judged.delays[SHIFT], judged.false_alarms) == (160, 1)


def test_two_faults_of_a_sensor_are_judged_apart() -> None:
    judged = _judged(1010, 1600)
    assert judged.delays == {SHIFT: 10, LATER: 0}
    assert judged.delay_readings == 5.0
    assert (judged.of(FaultKind.SPIKE).found, judged.of(FaultKind.DRIFT).injected) == (1, 0)


def test_false_alarms_are_counted_in_10_000_readings() -> None:
    assert _judged(10, 200, 400).false_alarms_per_10k == 1.5
    assert judge([], [], 0).false_alarms_per_10k == 0.0


def test_the_json_has_the_promised_fields() -> None:
    verdict = Verdict("embedded", 120.04, 20.0, 180.26, _judged(1010, 1600, 5), _judged())
    assert json.loads(json.dumps(verdict.as_json())) == {
        "broker": "embedded",
        "readings": 20_000,
        "seconds": 120.0,
        "latency_ms": {"p50": 20.0, "p99": 180.3},
        "faults": {"injected": 2, "found": 2, "delay_readings": 5.0},
        "false_alarms": 1,
        "false_alarms_per_10k": 0.5,
        "control": {"found": 0, "false_alarms_per_10k": 0.0},
    }


def test_an_opening_crosses_the_limit_anew_and_waits_for_the_refractory_time() -> None:
    height = np.zeros((300, 2))
    height[[5, 6, 50, 110, 150, 260], 0] = 2.0
    height[0, 1] = 2.0
    assert control.openings(height, 1.0).tolist() == [[0, 1], [5, 0], [110, 0], [260, 0]]
    assert control.openings(height, 2.0).tolist() == []


def test_the_chart_passes_over_lost_readings() -> None:
    values = np.random.default_rng(0).standard_normal((400, 1, 2))
    lost = values.copy()
    lost[350:360] = np.nan
    height = control.chart(lost, 300)
    assert not height[350:360].any()
    assert np.array_equal(height[:350], control.chart(values, 300)[:350])
    assert height[360:].max() < 6


@pytest.mark.parametrize("seed", [1, 4, 7])
def test_the_control_keeps_its_budget_on_readings_it_has_not_seen(seed: int) -> None:
    plant = Plant(48, seed)
    alarms = control.watch(plant, _untouched, 4000, 5000)
    assert 0.5 <= 10_000 * len(alarms) / (48 * 5000) <= 2.0


def test_the_control_finds_spikes_but_no_lost_sensor_in_time() -> None:
    plant = Plant(20, seed=2)
    faults = schedule(plant, 2, 4000, 4000)
    alarms = control.watch(plant, Injection(plant, faults), 4000, 4000)
    assert alarms == control.watch(plant, Injection(plant, faults), 4000, 4000)
    assert all(4000 <= alarm.row < 8000 for alarm in alarms)
    judged = judge(faults, alarms, 20 * 4000)
    spikes, lost = judged.of(FaultKind.SPIKE), judged.of(FaultKind.LOST)
    assert spikes.found >= 0.7 * spikes.injected
    assert lost.found <= 0.5 * lost.injected
