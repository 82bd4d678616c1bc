"""One step of one sensor: a forecast is compared when its time has come, and blocks of surprise calibrate the score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.core import episodes, scoring
from pipeline.core import features as reading_features
from pipeline.core.engine import FIRST_TRUST, SETTLING, TRUST_RATE, Engine, Step, window_features
from pipeline.core.lstm import features
from pipeline.core.model import Array, Model
from pipeline.core.table import BLOCKS, TRAINED, UNSEEN, Columns, Count, Lane, Level, SensorTable, Tally, layout
from tests import models

RISES = (0.1, 0.5, -0.3)  # of asinh(x), foretold for 1, 12 and 48 readings ahead
HORIZONS = (1, 12, 48)


def foretelling(mode: str = "carried") -> Model:
    """A model whose forecasts are the last value, risen by RISES."""
    model = models.model(mode=mode)
    bias = np.array(RISES, np.float32).reshape(1, 1, 3)
    return replace(model, network=replace(model.network, head=np.zeros_like(model.network.head), head_bias=bias))


def sensor(model: Model, fitted: int = TRAINED) -> Columns:
    """One row that has seen nothing, calibrated as a group of which nothing is known."""
    arrays = SensorTable(layout(model)).blank(1)
    arrays.level[0, : Level.OWN_BLOCKS + 1] = episodes.NO_GROUP
    arrays.count[0, Count.FITTED] = fitted
    if fitted == UNSEEN:
        arrays.lane[:, :, Lane.MOVED :] = FIRST_TRUST  # as after its warm-up
    return arrays


def follow(model: Model, arrays: Columns, x: Array) -> Iterator[Step]:
    """Step one row through these scaled values."""
    engine, row, yes = Engine(model), np.zeros(1, np.intp), np.ones(1, np.bool_)
    for value in x:
        missing = np.isnan(value)
        yield engine.advance(arrays, row, value.reshape(1, 1), ~missing.reshape(1, 1), yes & ~missing)


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Array, Array]]:
    """The forecast errors and their validity that each step hands to scoring, (3,) each."""
    seen: list[tuple[Array, Array]] = []
    real = reading_features.features

    def watch(arrays: Columns, on: Any, x: Array, then: Array, wrong: Array, valid: Any, targets: int) -> Array:
        seen.append((wrong[:, 0].copy(), valid[:, 0].copy()))
        return real(arrays, on, x, then, wrong, valid, targets)

    monkeypatch.setattr(reading_features, "features", watch)
    return seen


def surprises(monkeypatch: pytest.MonkeyPatch, given: Array) -> None:
    """Let scoring find these surprises, one a reading."""
    left = iter(given)

    def combine(*_: object) -> tuple[Array, Array]:
        return np.array([next(left)], np.float32), np.zeros((1, 1), np.float32)

    monkeypatch.setattr(scoring, "combine", combine)


@pytest.mark.parametrize("mode", ["carried", "windowed"])
def test_a_forecast_is_compared_with_the_value_of_the_reading_it_was_made_for(
    mode: str, errors: list[tuple[Array, Array]]
) -> None:
    x = np.random.default_rng(0).standard_normal(130).astype(np.float32)
    model = foretelling(mode)
    for t, step in enumerate(follow(model, sensor(model), x)):
        wrong, valid = errors[t]
        for h, rise, error, made in zip(HORIZONS, RISES, wrong, valid, strict=True):
            assert made == (t >= h)
            if made:
                assert error == pytest.approx(x[t] - np.sinh(np.arcsinh(x[t - h]) + rise), abs=1e-5)
        expected = np.sinh(np.arcsinh(x[t - 1]) + RISES[0]) if t else np.nan
        assert step.expected[0, 0] == pytest.approx(expected, abs=1e-5, nan_ok=True)


def drifting(channels: int, fitted: int, usual: float) -> tuple[Model, Columns]:
    """A sensor of this usual error, whose network foretells a rise of RISES of every channel."""
    model = models.model(channels)
    bias = np.tile(np.repeat(np.array(RISES, np.float32), channels), (1, 1)).reshape(model.network.head_bias.shape)
    model = replace(model, network=replace(model.network, head=np.zeros_like(model.network.head), head_bias=bias))
    arrays = sensor(model, fitted)
    arrays.lane[..., Lane.LOG_ERROR] = np.log(usual)
    arrays.tally[..., Tally.SEEN] = reading_features.SCALE_SETTLED
    return model, arrays


def stand_still(model: Model, arrays: Columns, readings: int, at: float = 2.0) -> Step:
    """The last of these readings, all the same."""
    engine, row, yes = Engine(model), np.zeros(1, np.intp), np.ones(1, np.bool_)
    x = np.full((1, len(model.channels)), at, np.float32)
    for _ in range(readings):
        step = engine.advance(arrays, row, x, np.ones_like(x, np.bool_), yes)
    return step


def test_what_a_forecast_keeps_missing_by_is_made_up_for_and_shown() -> None:
    model, arrays = drifting(2, TRAINED, usual=0.5)
    last = stand_still(model, arrays, 5000)
    risen = np.sinh(np.arcsinh(2.0) + RISES[0])
    assert arrays.lane[0, :, Lane.OFFSET] == pytest.approx(2.0 - risen, abs=1e-3)
    assert last.expected[0] == pytest.approx(2.0, abs=1e-3)
    assert arrays.lane[0, :, Lane.BIAS] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(("channels", "fitted"), [(1, TRAINED), (1, UNSEEN), (2, UNSEEN)])
def test_one_channel_and_a_sensor_the_model_was_not_trained_on_are_told_the_networks_word(
    channels: int, fitted: int
) -> None:
    model, arrays = drifting(channels, fitted, usual=0.5)
    stand_still(model, arrays, 500)
    assert not arrays.lane[..., Lane.OFFSET].any()


def test_a_fault_of_any_size_moves_the_correction_by_no_more_than_the_usual_error_counts() -> None:
    model, arrays = drifting(2, TRAINED, usual=0.3)
    stand_still(model, arrays, 1, at=0.0)
    stand_still(model, arrays, 1, at=1e6)
    assert arrays.lane[0, :, Lane.OFFSET] == pytest.approx(reading_features.OFFSET_RATE * 0.3, rel=1e-3)


def test_after_a_gap_no_error_reaches_across_it(errors: list[tuple[Array, Array]]) -> None:
    model = foretelling()
    arrays = sensor(model)
    for _ in follow(model, arrays, np.zeros(60, np.float32)):
        pass
    arrays.count[0, Count.SINCE] = 0
    for t, _ in enumerate(follow(model, arrays, np.zeros(60, np.float32))):
        assert errors[60 + t][1].tolist() == [t >= 1, t >= 12, t >= 48]


def test_a_missing_value_is_filled_with_its_forecast() -> None:
    x = np.full(70, 2.0, np.float32)
    x[40] = np.nan
    model = foretelling()
    arrays = sensor(model)
    *_, last = follow(model, arrays, x[:42])
    filled = np.sinh(np.arcsinh(2.0) + RISES[0])
    assert arrays.window[0, 40, 0] == pytest.approx(filled, rel=1e-6)
    assert last.expected[0, 0] == pytest.approx(np.sinh(np.arcsinh(filled) + RISES[0]), rel=1e-6)


def test_a_value_that_is_missing_before_any_was_there_is_zero() -> None:
    model = foretelling()
    arrays = sensor(model)
    list(follow(model, arrays, np.array([np.nan, np.nan], np.float32)))
    assert arrays.window[0, :2, 0].tolist() == [0.0, pytest.approx(np.sinh(RISES[0]))]


def test_no_score_exceeds_one_until_fifty_readings_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    surprises(monkeypatch, np.full(60, 100.0, np.float32))
    model = foretelling()
    scores = [float(step.scores[0]) for step in follow(model, sensor(model), np.zeros(60, np.float32))]
    assert scores[:SETTLING] == [1.0] * 50
    assert min(scores[SETTLING:]) > 1.0


def test_a_block_is_the_largest_surprise_of_fifty_readings_and_counts_four_blocks_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = np.random.default_rng(0).uniform(0, 3, 67 * 50).astype(np.float32)
    largest = given.reshape(67, 50).max(axis=1)
    surprises(monkeypatch, given)
    model = foretelling()
    arrays = sensor(model)
    prior = arrays.level[:, Level.OWN_USUAL : Level.OWN_BLOCKS + 1]
    for t, _ in enumerate(follow(model, arrays, np.zeros(len(given), np.float32))):
        full, rest = divmod(t + 1, 50)
        if rest == 0:
            ring = np.full((1, BLOCKS), np.nan, np.float32)
            for block in range(max(full - BLOCKS, 0), full - episodes.BLOCK_DELAY):
                ring[0, block % BLOCKS] = largest[block]
            usual, excess = episodes.calibrated(ring, prior, episodes.WINSORED)
            assert arrays.level[0, [Level.USUAL, Level.EXCESS]].tolist() == [usual[0], excess[0]]
            assert arrays.blocks[0, (full - 1) % BLOCKS] == largest[full - 1]


def rising(readings: int, by: float = RISES[0]) -> Array:
    """Scaled values that rise by as much in asinh(x) at each reading, through 0."""
    values: Array = np.sinh(by * (np.arange(readings) - readings / 2)).astype(np.float32)
    return values


def trust(arrays: Columns) -> float:
    """The share of its network's word that the sensor is told."""
    return float(np.clip(arrays.lane[0, 0, Lane.MOVED] / arrays.lane[0, 0, Lane.STEPPED], 0, 1))


def test_a_network_that_is_wrong_about_an_unseen_sensor_loses_its_say() -> None:
    """The value stands still, and a rise is foretold again and again."""
    x, model = np.full(300, 2.0, np.float32), foretelling()
    steps = [step.expected[0, 0] for step in follow(model, sensor(model, UNSEEN), x)]
    told = [np.arcsinh(expected) - np.arcsinh(2.0) for expected in steps[1:]]
    assert told[0] == pytest.approx(RISES[0], rel=1e-4)  # it is believed to begin with
    assert (np.diff(told) < 1e-5).all()
    assert abs(told[-1]) < 0.01 * RISES[0]


@pytest.mark.parametrize("mode", ["carried", "windowed"])
def test_a_network_that_is_right_about_an_unseen_sensor_keeps_its_say(mode: str) -> None:
    x, model = rising(100), foretelling(mode)
    arrays = sensor(model, UNSEEN)
    *_, last = follow(model, arrays, x)
    assert trust(arrays) == pytest.approx(1.0, abs=1e-3)
    assert last.expected[0, 0] == pytest.approx(x[-1], rel=1e-3)


def test_a_network_that_foretells_half_of_what_comes_is_never_told_as_more_than_its_word() -> None:
    x, model = rising(50, by=2 * RISES[0]), foretelling()
    arrays = sensor(model, UNSEEN)
    *_, last = follow(model, arrays, x)
    assert arrays.lane[0, 0, Lane.MOVED] > arrays.lane[0, 0, Lane.STEPPED]
    assert last.expected[0, 0] == pytest.approx(np.sinh(np.arcsinh(x[-2]) + RISES[0]), rel=1e-4)


def test_a_network_that_is_wrong_in_sign_is_told_as_the_last_value_and_is_heard_again_once_it_is_right() -> None:
    falls, model = rising(100, by=-RISES[0]), foretelling()
    arrays = sensor(model, UNSEEN)
    *_, last = follow(model, arrays, falls)
    assert trust(arrays) == 0.0
    assert last.expected[0, 0] == pytest.approx(falls[-2], rel=1e-5)
    for _ in follow(model, arrays, falls[::-1]):
        pass
    assert trust(arrays) > 0.85


def test_every_horizon_is_told_with_the_trust_that_one_step_has_earned() -> None:
    model = foretelling()
    arrays = sensor(model, UNSEEN)
    for _ in follow(model, arrays, np.full(40, 2.0, np.float32)):
        pass
    foretold = arrays.forecast[0, 0, [39 % 1, 1 + 39 % 12, 13 + 39 % 48]] - np.arcsinh(2.0)
    np.testing.assert_allclose(foretold, np.array(RISES) * trust(arrays), atol=1e-5)
    assert 0 < trust(arrays) < 1


@pytest.mark.parametrize(("value", "gap", "earns"), [(2.0, False, True), (2.0, True, False), (np.nan, False, False)])
def test_nothing_is_earned_by_a_value_that_is_missing_or_across_a_gap(value: float, gap: bool, earns: bool) -> None:
    model = foretelling()
    arrays = sensor(model, UNSEEN)
    for _ in follow(model, arrays, np.full(20, 2.0, np.float32)):
        pass
    arrays.lane[0, 0, [Lane.MOVED, Lane.STEPPED]] = 0.002, 0.004
    if gap:
        arrays.count[0, Count.SINCE] = 0
    list(follow(model, arrays, np.array([value], np.float32)))
    assert arrays.lane[0, 0, Lane.MOVED] == pytest.approx((1 - TRUST_RATE * earns) * 0.002, rel=1e-5)


def test_what_a_network_says_of_a_sensor_it_was_trained_on_is_never_touched() -> None:
    x, model = np.full(300, 2.0, np.float32), foretelling()
    arrays = sensor(model, TRAINED)
    for t, step in enumerate(follow(model, arrays, x)):
        if t:
            assert step.expected[0, 0] == pytest.approx(np.sinh(np.arcsinh(2.0) + RISES[0]), rel=1e-6)
    assert arrays.lane[0, 0, Lane.STEP :].tolist() == [0.0, 0.0, 0.0]


def test_trained_and_unseen_sensors_in_one_step_are_told_apart() -> None:
    model = foretelling()
    arrays = SensorTable(layout(model)).blank(4)
    arrays.level[:, : Level.OWN_BLOCKS + 1] = episodes.NO_GROUP
    arrays.count[:, Count.FITTED] = [TRAINED, UNSEEN, UNSEEN, TRAINED]
    arrays.lane[1:3, :, Lane.MOVED :] = FIRST_TRUST
    engine, rows, yes = Engine(model), np.array([3, 0, 2, 1]), np.ones(4, np.bool_)
    for _ in range(200):
        step = engine.advance(arrays, rows, np.full((4, 1), 2.0, np.float32), yes[:, None], yes)
    risen = np.sinh(np.arcsinh(2.0) + RISES[0])
    assert step.expected[:, 0].tolist() == pytest.approx([risen, risen, 2.0, 2.0], abs=1e-2)


def test_a_window_s_features_are_those_of_its_readings_and_the_first_change_is_zero() -> None:
    windows = np.random.default_rng(0).standard_normal((3, 5, 2)).astype(np.float32)
    lengths = np.array([5, 3, 1])
    found = window_features(windows, lengths)
    for row, length in enumerate(lengths.tolist()):
        for t in range(5 - length, 5):
            before = windows[row, t - 1] if t > 5 - length else windows[row, t]
            np.testing.assert_array_equal(found[row, t], features(windows[row, t : t + 1], before[None])[0])
