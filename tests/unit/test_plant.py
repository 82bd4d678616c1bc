"""The plant follows from its seed and the row alone, and its faults are as large as they say."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest

from pipeline.core.readings import FloatArray, Reading
from pipeline.demo.faults import QUIET_ROWS, REST_ROWS, WINDOW_ROWS, Fault, FaultKind, Injection, deviations, schedule
from pipeline.demo.plant import CHUNK, INTERVAL, MACHINES, START, Line, Plant, row_of, time_of


def _line(plant: Plant, kind: str) -> Line:
    return next(line for line in plant.lines if line.kind == kind)


def _altered(plant: Plant, fault: Fault, first_row: int, rows: int) -> tuple[FloatArray, FloatArray]:
    """The faulty channel with and without its fault, (rows,) each."""
    line = next(line for line in plant.lines if fault.sensor in line.sensors)
    at = (slice(None), line.sensors.index(fault.sensor), line.names.index(fault.channel))
    plain = line.block(first_row, rows)
    values = plain.copy()
    Injection(plant, [fault])(line, first_row, values)
    return values[at], plain[at]


def test_the_stream_continues_the_history_without_a_seam() -> None:
    plant = Plant(sensors=5, seed=3)
    history = plant.history(1000)
    longer = plant.history(1000 + CHUNK)
    ticks = list(islice(plant.stream(1000), CHUNK))
    for offset, tick in enumerate(ticks):
        for reading in tick:
            times, values = longer[reading.sensor]
            assert reading.time == times[1000 + offset]
            assert list(reading.values.values()) == values[1000 + offset].tolist()
    for sensor, (times, values) in history.items():
        assert np.array_equal(values, longer[sensor][1][:1000])
        assert set(np.diff(times)) == {INTERVAL}


def test_a_seam_moves_no_signal_further_than_it_usually_moves() -> None:
    line = _line(Plant(sensors=8, seed=1), "pump")
    steps = np.abs(np.diff(line.block(0, 20 * CHUNK), axis=0)) / deviations(line)
    assert steps[CHUNK - 1 :: CHUNK].max() <= 5.0
    assert steps[CHUNK - 1 :: CHUNK].mean() == pytest.approx(steps.mean(), rel=0.15)


def test_the_same_seed_makes_the_same_plant_and_another_seed_another() -> None:
    same, again, other = (Plant(10, seed).history(50) for seed in (1, 1, 2))
    assert all(np.array_equal(same[s][1], again[s][1]) for s in same)
    assert all(not np.array_equal(same[s][1], other[s][1]) for s in same)


def test_every_machine_type_is_there_and_sensors_are_named_after_it() -> None:
    plant = Plant(sensors=48, seed=0)
    assert len(set(plant.sensors)) == 48
    assert {line.kind for line in plant.lines} == set(MACHINES)
    assert plant.sensors[0] == "plant1/pump-01"
    reading: Reading = next(plant.stream(7))[0]
    assert reading.time == START + 7 * INTERVAL
    assert tuple(reading.values) == ("flow", "pressure", "vibration", "temperature")
    assert row_of(time_of(7)) == 7


def test_a_plant_without_sensors_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sensor"):
        Plant(sensors=0)


def test_channels_of_a_machine_follow_its_load_together() -> None:
    values = _line(Plant(10, seed=1), "pump").block(0, 4000)[:, 0]
    flow, pressure, _, temperature = values.T
    assert np.corrcoef(flow, pressure)[0, 1] < -0.8
    assert np.corrcoef(flow, temperature)[0, 1] > 0.8


def test_most_of_a_difference_is_noise_of_the_measurement() -> None:
    for line in Plant(10, seed=2).lines:
        share = line.noise / deviations(line)
        assert share.min() > 0.5
        assert share.max() < 1.0


@pytest.mark.parametrize("kind", [FaultKind.SPIKE, FaultKind.SHIFT])
def test_spike_and_shift_lift_the_signal_by_their_size_in_deviations(kind: FaultKind) -> None:
    plant = Plant(10, seed=4)
    fault = Fault(kind, "plant1/pump-02", "pressure", 700, 702, -4.0)
    values, plain = _altered(plant, fault, 690, 30)
    lift = (values - plain) / deviations(_line(plant, "pump"))[1, 1]
    assert lift[10:13] == pytest.approx([-4.0] * 3, abs=0.01)
    assert not lift[:10].any()
    assert not lift[13:].any()


def test_a_drift_reaches_its_size_at_its_last_reading() -> None:
    plant = Plant(10, seed=4)
    fault = Fault(FaultKind.DRIFT, "plant1/motor-01", "current", 600, 1099, 4.0)
    values, plain = _altered(plant, fault, 600, 501)
    lift = (values - plain) / deviations(_line(plant, "motor"))[0, 0]
    assert lift[[0, 249, 499, 500]] == pytest.approx([4 / 500, 2.0, 4.0, 0.0], abs=0.01)


def test_a_stuck_value_repeats_the_last_good_one() -> None:
    fault = Fault(FaultKind.STUCK, "plant1/tank-01", "level", 600, 659, 0.0)
    values, plain = _altered(Plant(10, seed=4), fault, 590, 80)
    assert set(values[10:70]) == {plain[9]}
    assert values[70] == plain[70]


def test_noise_is_multiplied_by_its_size() -> None:
    plant = Plant(10, seed=4)
    fault = Fault(FaultKind.NOISE, "plant1/pump-01", "flow", 2000, 5999, 3.0)
    values, plain = _altered(plant, fault, 2000, 4000)
    noise = _line(plant, "pump").noise[0, 0]
    assert (values - plain).std() == pytest.approx(np.sqrt(8) * noise, rel=0.05)
    assert np.diff(values).std() == pytest.approx(3 * np.diff(plain).std(), rel=0.1)


def test_a_changed_frequency_moves_the_peak_of_the_spectrum() -> None:
    plant = Plant(10, seed=4)
    fault = Fault(FaultKind.FREQUENCY, "plant1/motor-01", "vibration", 1000, 2023, 2.0)
    spectra = [np.abs(np.fft.rfft(np.diff(signal))) for signal in _altered(plant, fault, 1000, 1024)]
    changed, usual = (int(np.argmax(spectrum)) for spectrum in spectra)
    assert changed == pytest.approx(2 * usual, rel=0.03)
    assert 1024 / usual == pytest.approx(_line(plant, "motor").period[0, 1], rel=0.03)


def test_a_lost_sensor_sends_nothing_while_the_others_do() -> None:
    plant = Plant(4, seed=4)
    fault = Fault(FaultKind.LOST, "plant1/furnace-01", "", 502, 505, 0.0)
    ticks = list(islice(plant.stream(500, Injection(plant, [fault])), 8))
    assert [len(tick) for tick in ticks] == [4, 4, 3, 3, 3, 3, 4, 4]
    assert "plant1/furnace-01" not in {reading.sensor for reading in ticks[3]}


def test_faults_are_the_same_in_whatever_blocks_they_are_applied() -> None:
    plant = Plant(10, seed=5)
    injection = Injection(plant, schedule(plant, 5, 1000, 3000))
    for line in plant.lines:
        whole = line.block(1000, 3000)
        injection(line, 1000, whole)
        parts = [line.block(row, 250) for row in range(1000, 4000, 250)]
        for row, part in zip(range(1000, 4000, 250), parts, strict=True):
            injection(line, row, part)
        assert np.array_equal(whole, np.concatenate(parts), equal_nan=True)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_minutes_of_48_sensors_hold_over_100_faults_of_all_kinds_alike(seed: int) -> None:
    faults = schedule(Plant(48, seed), seed, 4000, 5000)
    counts = Counter(fault.kind for fault in faults)
    assert len(faults) == 144
    assert set(counts) == set(FaultKind)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_faults_of_a_sensor_rest_and_all_lie_within_the_stream() -> None:
    plant = Plant(20, seed=6)
    faults = schedule(plant, 6, 4000, 3000)
    assert faults == schedule(plant, 6, 4000, 3000)
    assert faults != schedule(plant, 7, 4000, 3000)
    assert min(fault.first_row for fault in faults) >= 4000 + QUIET_ROWS
    assert max(fault.last_row for fault in faults) + WINDOW_ROWS < 7000
    for sensor in plant.sensors:
        for before, after in pairwise([fault for fault in faults if fault.sensor == sensor]):
            assert after.first_row - before.last_row > REST_ROWS


def test_only_an_oscillating_channel_changes_its_frequency() -> None:
    faults = schedule(Plant(48, seed=8), 8, 4000, 5000)
    changed = {fault.channel for fault in faults if fault.kind is FaultKind.FREQUENCY}
    assert changed <= {channel.name for channels in MACHINES.values() for channel in channels if channel.swing}


def test_a_stream_too_short_for_a_fault_has_none() -> None:
    assert schedule(Plant(48, seed=1), 1, 4000, QUIET_ROWS + WINDOW_ROWS) == []
