"""Calibration is the live operator reading history: what it has learned by the end goes into the bundle."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from pipeline.core import episodes
from pipeline.core.detector import Detector
from pipeline.core.events import Rules
from pipeline.core.features import ACCEPT_RATE
from pipeline.core.model import Model
from pipeline.core.readings import FloatArray
from pipeline.core.scaling import location_and_scale, statistics
from pipeline.core.table import TRAINED, Clock, Count, Lane, Level, Tally
from pipeline.core.thresholds import Budget
from tests import models
from tests.models import INTERVAL, START
from training.calibrate import FEWEST_HELD_OUT, Sensor, calibrate
from training.dataset import History
from training.rehearsal import rehearse, usual_episode
from training.unseen import PRIOR_COUNTS

NAN = float("nan")
RULES = Rules(budget=Budget.parse("1/1000/sensor"))


def calm(rows: int, seed: int = 0, channels: int = 1) -> FloatArray:
    """Noise of deviation 1 around 20."""
    noise: FloatArray = np.random.default_rng(seed).standard_normal((rows, channels))
    return 20 + noise


def sensor(name: str, values: FloatArray, held_out: int) -> Sensor:
    """A history of one reading a minute, scaled by all of it."""
    missing = np.isnan(values)
    times = START + INTERVAL * np.arange(len(values), dtype=np.int64)
    history = History(
        name, times, np.where(missing, 0.0, values), missing, np.zeros(1, np.int64), held_out, 7 * INTERVAL
    )
    return Sensor(history, location_and_scale(statistics(values)))


@cache
def calibrated() -> tuple[Model, FloatArray]:
    """Sensor a counts its 400 held-out readings, b is too short to leave any out."""
    return calibrate(models.model(), [sensor("b", calm(250, 1) * 3, 200), sensor("a", calm(500), 100)])


def test_the_tables_are_in_the_order_of_the_names_whatever_the_order_of_the_sensors() -> None:
    model, _ = calibrated()
    assert model.sensors.names == ("a", "b")
    other, _ = calibrate(models.model(), [sensor("a", calm(500), 100), sensor("b", calm(250, 1) * 3, 200)])
    for name, table in model.sensors.arrays.items():
        np.testing.assert_array_equal(other.sensors.arrays[name], table, err_msg=name)


def test_only_held_out_readings_are_counted_unless_there_are_too_few() -> None:
    model, _ = calibrated()
    assert FEWEST_HELD_OUT == 300
    totals = model.sensors.arrays["tail"][..., 0]
    assert (totals[0] == 400).all()  # all have entered: nothing still waits for its delay
    assert (totals[1] == 250).all()


def test_every_held_out_reading_gives_a_score() -> None:
    _, scores = calibrated()
    assert scores.shape == (400 + 50,)
    assert np.isfinite(scores).all()


def test_a_sensor_s_row_says_where_its_history_ends_and_what_is_usual_for_it() -> None:
    model, _ = calibrated()
    arrays = model.sensors.arrays
    assert arrays["clock"][:, Clock.LEARN_FROM].tolist() == [START + 499 * INTERVAL + 1, START + 249 * INTERVAL + 1]
    assert arrays["clock"][:, Clock.GAP_LIMIT].tolist() == [7 * INTERVAL] * 2
    assert arrays["count"][:, Count.FITTED].tolist() == [TRAINED] * 2
    assert arrays["tally"][:, 0, Tally.STUCK_LIMIT].tolist() == [10, 10]
    assert arrays["tally"][:, 0, Tally.SEEN].tolist() == [500, 250]


def test_the_range_is_that_of_the_fit_part_and_has_given_way_to_what_was_held_out() -> None:
    arrays = calibrated()[0].sensors.arrays
    x = (calm(500)[:, 0] - arrays["scale"][0, 0, 0]) / arrays["scale"][0, 0, 1]
    low, high = x[:100].min(), x[:100].max()
    assert x.min() < low
    assert x.max() > high
    for value in x:
        low, high = low + ACCEPT_RATE * min(value - low, 0), high + ACCEPT_RATE * max(value - high, 0)
    assert arrays["lane"][0, 0, [Lane.LOW, Lane.HIGH]] == pytest.approx([low, high], rel=1e-5)


def test_what_is_usual_for_a_sensor_is_read_off_all_its_blocks_and_goes_on_being_known() -> None:
    """Here the first of two sensors has counted 8 blocks, the second 5; the detector's ring starts empty."""
    model, _ = calibrated()
    level = model.sensors.arrays["level"]
    assert not {"blocks", "pending"} & model.sensors.arrays.keys()
    np.testing.assert_array_equal(level[:, [Level.OWN_USUAL, Level.OWN_EXCESS]], level[:, [Level.USUAL, Level.EXCESS]])
    assert level[:, Level.OWN_BLOCKS].tolist() == [episodes.GROUP_BLOCKS + 8, episodes.GROUP_BLOCKS + 5]
    snapshot = Detector(model, RULES)
    snapshot.step(models.one(calm(1, 9), "a", first=500))
    assert np.isnan(snapshot.snapshot(0)["blocks"]).all()


def test_a_sensor_s_own_blocks_are_shrunk_to_its_group_s() -> None:
    sensors = [sensor(f"s{i}", calm(600, i), 100) for i in range(3)]
    model, _ = calibrate(models.model(), sensors)
    untold = {name: table.copy() for name, table in model.sensors.arrays.items()}
    untold["clock"][:, Clock.LEARN_FROM] = START + 100 * INTERVAL
    untold["level"][:] = episodes.NO_GROUP
    for name in ("tail", "known"):
        untold[name][:] = 0
    untold["prototypes"][:] = 255
    untold["lane"][..., Lane.LOG_ERROR] = 0
    untold["tally"][..., Tally.SEEN] = 0
    first = replace(model, sensors=replace(model.sensors, arrays=untold), prior={})
    blocks = rehearse(first, [s.stretch for s in sensors]).blocks
    group = np.array([[*usual_episode(blocks, episodes.WINSORED), episodes.GROUP_BLOCKS]] * 3, np.float32)
    usual, excess = episodes.calibrated(blocks, group, episodes.WINSORED)
    level = model.sensors.arrays["level"]
    assert level[:, Level.USUAL].tolist() == pytest.approx(usual.tolist(), rel=1e-6)
    assert level[:, Level.EXCESS].tolist() == pytest.approx(excess.tolist(), rel=1e-6)


def test_the_blocks_of_a_long_history_weigh_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "MOST_OWN_BLOCKS", 6.0)
    model, _ = calibrate(models.model(), [sensor("a", calm(500), 100)])
    assert model.sensors.arrays["level"][0, Level.OWN_BLOCKS] == episodes.GROUP_BLOCKS + 6


def test_of_many_channels_blocks_that_few_counts_judged_do_not_say_what_is_usual() -> None:
    histories = [sensor("a", calm(3200, 0, 2), 100), sensor("b", calm(700, 1, 2), 100)]
    model, _ = calibrate(models.model(channels=2), histories)
    own = model.sensors.arrays["level"][:, Level.OWN_BLOCKS] - episodes.GROUP_BLOCKS
    assert own.tolist() == [62 - 30, 12 - 6], "the first 1500 readings are left out, or the first half"


def test_the_service_neither_learns_nor_alerts_on_history_and_goes_on_where_it_ended() -> None:
    model, _ = calibrated()
    detector = Detector(model, RULES)
    again = detector.step(models.one(calm(500), "a"))
    assert again.alerts == []
    assert again.counts == {"scored": 500}
    assert again.scores.max() <= 1.0
    np.testing.assert_array_equal(detector.snapshot(0)["tail"][0], model.sensors.arrays["tail"][0])
    after = calm(3, 9)
    after[2] += 15
    [alert] = detector.step(models.one(after, "a", first=500)).alerts
    assert alert.start == START + 502 * INTERVAL


def test_a_known_sensor_needs_no_warm_up() -> None:
    detector = Detector(calibrated()[0], RULES)
    assert detector.step(models.one(calm(60, 9), "a", first=500)).counts == {"scored": 60}
    assert np.isfinite(detector.step(models.one(calm(1, 9) + 15, "a", first=560)).scores).all()


def test_the_prior_is_the_group_read_as_if_its_sensors_were_new() -> None:
    model, _ = calibrated()
    assert (model.prior["tail"][..., 0] == PRIOR_COUNTS).all()
    assert "scale" not in model.prior
    assert model.prior["clock"][Clock.GAP_LIMIT] == 7 * INTERVAL
    assert model.prior["count"].tolist() == [0, 0]
    log_errors = model.sensors.arrays["lane"][:, 0, Lane.LOG_ERROR]
    assert model.prior["lane"][0, Lane.LOG_ERROR] == pytest.approx(np.median(log_errors))
    assert model.prior["level"][Level.OWN_BLOCKS] == episodes.UNSEEN_BLOCKS


def test_a_group_whose_histories_are_all_short_has_a_prior_all_the_same() -> None:
    model, _ = calibrate(models.model(), [sensor("a", calm(180), 90)])
    assert (model.prior["tail"][..., 0] == PRIOR_COUNTS).all()
    assert model.prior["level"].tolist() == pytest.approx(episodes.NO_GROUP)


def test_an_unseen_sensor_is_scored_by_the_prior_after_its_warm_up() -> None:
    detector = Detector(calibrated()[0], RULES)
    outcome = detector.step(models.one(100 * calm(130, 5), "stranger"))
    assert outcome.counts == {"warming": 64, "scored": 66}
    assert outcome.scores[64:].max() < RULES.budget.threshold(INTERVAL, 1)
    assert detector.step(models.one(100 * (calm(1, 6) + 15), "stranger", first=130)).scores[0] > 3


def test_missing_values_and_a_channel_without_any_leave_finite_tables() -> None:
    values = calm(400, channels=2)
    values[:, 1] = NAN
    values[50:70, 0] = NAN
    model, scores = calibrate(models.model(2), [sensor("a", values, 100)])
    assert np.isfinite(scores).all()
    for name in ("scale", "lane", "level"):
        assert np.isfinite(model.sensors.arrays[name]).all(), name
        assert np.isfinite(model.prior.get(name, np.zeros(1))).all(), name


def test_progress_is_told_row_by_row() -> None:
    rows: list[int] = []
    calibrate(models.model(), [sensor("a", calm(70), 50), sensor("b", calm(65), 50)], rows.append)
    assert rows == list(range(1, 71))
