"""Seven features of a reading, each against its definition, each against what was known before the reading."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core import features, novelty
from pipeline.core.features import MANY_CHANNELS, ONE_CHANNEL
from pipeline.core.model import Array
from pipeline.core.table import FEATURES, Lane, Tally
from tests.lanes import blank, follow, lanes

ERROR, NO_HORIZON, BIAS, NEW_VALUE, NEW_PATTERN, SCALED, OUT_OF_RANGE = range(FEATURES)
LASTING = NEW_PATTERN  # of many channels
RNG = np.random.default_rng(0)


def zeros(n: int) -> Array:
    return np.zeros(n, np.float32)


def averaged(values: Array, rate: float) -> Array:
    """The exponentially weighted average of (n,), from 0, by its definition."""
    weights = rate * (1 - rate) ** np.arange(len(values))
    return np.array([(values[: n + 1][::-1] * weights[: n + 1]).sum() for n in range(len(values))])


def test_the_names_are_those_of_the_features_and_one_differs_where_there_are_many_channels() -> None:
    assert len(ONE_CHANNEL) == len(MANY_CHANNELS) == FEATURES
    assert [i for i in range(FEATURES) if ONE_CHANNEL[i] != MANY_CHANNELS[i]] == [LASTING]


def test_the_error_is_the_size_of_that_of_the_one_step_forecast() -> None:
    errors = RNG.standard_normal((50, 3)).astype(np.float32)
    np.testing.assert_array_equal(follow(blank(), zeros(50), errors)[:, ERROR], np.abs(errors[:, 0]))


def test_no_horizon_expected_a_value_as_far_as_the_nearest_of_the_forecasts_that_were_made() -> None:
    errors = np.tile(np.array([[-9.0, 2.0, -1.0]], np.float32), (4, 1))
    made = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    assert follow(blank(), zeros(4), errors, made)[:, NO_HORIZON].tolist() == [0.0, 9.0, 2.0, 1.0]


def test_the_bias_is_the_average_of_the_signed_error_and_cancels_where_the_sign_changes() -> None:
    errors = RNG.standard_normal(120).astype(np.float32)
    found = follow(blank(), zeros(120), errors)[:, BIAS]
    np.testing.assert_allclose(found, np.abs(averaged(errors, 1 - np.exp(-1 / 12))), atol=1e-6)
    same, alternating = np.full(60, 2.0, np.float32), np.resize([2.0, -2.0], 60).astype(np.float32)
    assert follow(blank(), zeros(60), same)[-1, BIAS] == pytest.approx(2.0, rel=0.01)
    assert follow(blank(), zeros(60), alternating)[-1, BIAS] < 0.1


def test_the_lasting_error_is_the_average_size_of_the_error_whatever_its_sign() -> None:
    errors = RNG.standard_normal(120).astype(np.float32)
    found = follow(blank(2), zeros(120), errors)[:, LASTING]
    np.testing.assert_allclose(found, averaged(np.abs(errors), 0.1), atol=1e-6)


def test_one_channel_looks_at_its_pattern_and_many_at_how_errors_last() -> None:
    x, errors = np.where(np.arange(260) < 250, 0.0, 5.0).astype(np.float32), np.ones(260, np.float32)
    one, many = follow(blank(), x, errors)[:, LASTING], follow(blank(2), x, errors)[:, LASTING]
    assert (one[249], one[250]) == (0.0, pytest.approx(np.rint(np.arcsinh(5) / 0.05) * 0.05, abs=1e-6))
    assert many[249] == pytest.approx(1.0, abs=1e-3)
    assert blank(2).prototypes.nbytes == 0  # what is not looked at takes no room


def test_the_scaled_error_is_the_average_error_over_the_usual_one() -> None:
    arrays = blank()
    arrays.lane[0, 0, Lane.LOG_ERROR] = np.log(4.0)
    arrays.tally[0, 0, Tally.SEEN] = features.SCALE_SETTLED  # the usual error moves slowly now
    found = follow(arrays, zeros(5), np.full(5, 2.0, np.float32))[:, SCALED]
    np.testing.assert_allclose(found, averaged(np.full(5, 0.5), 0.1), rtol=1e-3)


def test_no_error_makes_the_scaled_error_more_than_fifty() -> None:
    arrays = blank()
    arrays.lane[0, 0, Lane.LOG_ERROR] = features.SMALLEST_LOG_ERROR
    arrays.tally[0, 0, Tally.SEEN] = features.SCALE_SETTLED
    found = follow(arrays, zeros(300), np.full(300, 1e6, np.float32))[:, SCALED]
    assert 49 < found.max() <= 50


def test_the_usual_error_settles_where_a_twentieth_of_the_errors_is_larger() -> None:
    arrays = blank()
    follow(arrays, zeros(4000), RNG.standard_normal(4000).astype(np.float32))
    assert np.exp(arrays.lane[0, 0, Lane.LOG_ERROR]) == pytest.approx(1.96, rel=0.1)


@pytest.mark.parametrize(("readings", "pace"), [(0, 1.0), (80, 0.2), (255, 20 / 275), (256, 0.003), (9000, 0.003)])
def test_a_lane_finds_its_usual_error_in_its_first_256_readings_and_then_gives_way_slowly(
    readings: int, pace: float
) -> None:
    arrays = blank()
    arrays.tally[0, 0, Tally.SEEN] = readings
    follow(arrays, zeros(1), np.full(1, 1e6, np.float32))
    assert arrays.lane[0, 0, Lane.LOG_ERROR] == pytest.approx(pace * 0.95, rel=1e-5)


def test_the_usual_error_never_falls_below_a_hundredth_of_the_scale() -> None:
    arrays = blank()
    arrays.lane[0, 0, Lane.LOG_ERROR] = np.log(0.0101)
    follow(arrays, zeros(300))
    assert np.exp(arrays.lane[0, 0, Lane.LOG_ERROR]) == pytest.approx(0.01)


def test_out_of_range_is_the_average_distance_beyond_the_range_of_training() -> None:
    arrays = blank()
    arrays.lane[0, 0, [Lane.LOW, Lane.HIGH]] = -2.0, 3.0
    found = follow(arrays, np.array([-2, 3, 0, 5, -4], np.float32))[:, OUT_OF_RANGE]
    assert found == pytest.approx([0, 0, 0, 0.02 * 2, 0.98 * 0.04 + 0.02 * 2], abs=1e-6)


@pytest.mark.parametrize("side", [1, -1])
def test_the_range_gives_way_by_a_five_hundredth_a_reading_so_that_drift_is_accepted(side: int) -> None:
    arrays = blank()
    arrays.lane[0, 0, [Lane.LOW, Lane.HIGH]] = -2.0, 2.0
    follow(arrays, np.full(500, side * 12.0, np.float32))
    bound = Lane.HIGH if side > 0 else Lane.LOW
    assert arrays.lane[0, 0, bound] == pytest.approx(side * (12 - 10 * 0.998**500), rel=1e-4)
    assert arrays.lane[0, 0, Lane.HIGH + Lane.LOW - bound] == -side * 2.0


@pytest.mark.parametrize(
    ("channels", "unseen", "expected"), [(2, False, 0.02 * 1.5), (2, True, 0.04), (1, False, 0.04)]
)
def test_among_many_channels_a_trained_sensors_range_has_room_for_its_usual_error(
    channels: int, unseen: bool, expected: float
) -> None:
    arrays = blank(channels)
    arrays.lane[0, 0, [Lane.LOG_ERROR, Lane.LOW, Lane.HIGH]] = np.log(0.5), -2.0, 3.0
    x, made = np.full(1, 5, np.float32), np.ones((3, 1), np.bool_)
    on = lanes([0], unseen=unseen)
    found = features.features(arrays, on, x, zeros(1), np.zeros((3, 1), np.float32), made, channels)
    assert found[OUT_OF_RANGE, 0] == pytest.approx(expected)


@pytest.mark.parametrize("channels", [1, 2])
def test_an_error_across_a_gap_says_nothing_and_is_not_learned(channels: int) -> None:
    arrays = blank(channels)
    nothing, error = zeros(1), np.full((3, 1), 9, np.float32)
    across = np.zeros((3, 1), np.bool_)
    found = features.features(arrays, lanes([0]), nothing, nothing, error, across, channels)
    assert not found.any()
    assert arrays.lane[0, 0, Lane.LOG_ERROR] == 0.0


def test_a_lane_that_is_absent_keeps_its_state() -> None:
    arrays = blank(3)
    one, error = np.ones(1, np.float32), np.full((3, 1), 9, np.float32)
    features.features(arrays, lanes([1]), one, one, error, np.ones((3, 1), np.bool_), 3)
    assert arrays.lane[0, 1].any()
    assert not arrays.lane[0, [0, 2]].any()
    assert arrays.tally[0, :, Tally.SEEN].tolist() == [0, 1, 0]


@pytest.mark.parametrize("channels", [1, 2])
def test_a_feature_of_a_reading_does_not_know_the_reading_before_it_is_scored(channels: int) -> None:
    """The memories are shown a value MEMORY_DELAY readings late, and only then."""
    x = np.where(np.arange(300) < 250, 0.0, 3.0).astype(np.float32)
    new = follow(blank(channels), x)[:, NEW_VALUE]
    assert np.flatnonzero(new).tolist() == list(range(250, 250 + novelty.MEMORY_DELAY))
