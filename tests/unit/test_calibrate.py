"""Calibration is the live operator reading history: what it has learned by the end goes into the bundle."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from pipeline.core import scoring
from pipeline.core.detector import Detector
from pipeline.core.events import Rules
from pipeline.core.model import Model
from pipeline.core.readings import FloatArray
from pipeline.core.scaling import location_and_scale, statistics
from pipeline.core.table import Clock, Count, Lane, Level, Tally
from pipeline.core.thresholds import Budget
from tests import models
from tests.models import INTERVAL, START
from training.calibrate import FEWEST_HELD_OUT, PRIOR_COUNTS, Sensor, calibrate
from training.dataset import History

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
    assert arrays["count"][:, Count.FITTED].tolist() == [1, 1]
    assert arrays["tally"][:, 0, Tally.STUCK_LIMIT].tolist() == [10, 10]
    assert arrays["tally"][:, 0, Tally.SEEN].tolist() == [500, 250]
    fit = (calm(500)[:100, 0] - arrays["scale"][0, 0, 0]) / arrays["scale"][0, 0, 1]
    assert arrays["lane"][0, 0, [Lane.LOW, Lane.HIGH]] == pytest.approx([fit.min(), fit.max()], rel=1e-5)


def test_every_block_that_was_filled_counts_from_the_first_live_reading() -> None:
    model, _ = calibrated()
    blocks, learned = model.sensors.arrays["blocks"], model.sensors.arrays["count"][:, Count.LEARNED]
    assert np.isfinite(blocks).sum(axis=1).tolist() == [400 // 50, 250 // 50]
    entered = scoring.entered_blocks(blocks, learned // scoring.BLOCK_READINGS)
    np.testing.assert_array_equal(np.isfinite(entered), np.isfinite(blocks))


def test_a_ring_that_went_round_keeps_its_newest_blocks() -> None:
    model, _ = calibrate(models.model(), [sensor("a", calm(60 + 62 * 50), 60)])
    [blocks], [count] = model.sensors.arrays["blocks"], model.sensors.arrays["count"]
    assert np.isfinite(blocks).sum() == 64 - scoring.BLOCK_DELAY
    assert count[Count.LEARNED] == (62 + scoring.BLOCK_DELAY) * 50


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


def test_the_prior_is_the_group_at_the_weight_of_500_readings_and_has_no_scale() -> None:
    model, _ = calibrated()
    tail = model.prior["tail"]
    assert PRIOR_COUNTS == 500
    assert (tail[..., 0] == PRIOR_COUNTS).all()
    assert (np.diff(tail.astype(int), axis=-1) <= 0).all()
    assert "scale" not in model.prior
    assert model.prior["clock"][Clock.GAP_LIMIT] == 7 * INTERVAL
    assert model.prior["count"].tolist() == [0, 0, 0]
    log_errors = model.sensors.arrays["lane"][:, 0, Lane.LOG_ERROR]
    assert model.prior["lane"][0, Lane.LOG_ERROR] == pytest.approx(np.median(log_errors))
    medians, highs = np.nanquantile(model.sensors.arrays["blocks"], [0.5, 0.9], axis=1)
    assert model.prior["level"][Level.USUAL] == pytest.approx(np.median(medians), rel=1e-6)
    assert model.prior["level"][Level.EXCESS] == pytest.approx(np.median((highs - medians) / np.log(5)), rel=1e-6)


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
