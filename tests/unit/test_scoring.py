"""Errors and novelty become one score, whose unit is the false episodes expected per reading."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core import scoring, tails
from pipeline.core.model import Array
from pipeline.core.scoring import Lanes
from pipeline.core.table import BLOCKS, FEATURES, TAIL_BINS, Columns, Lane, SensorTable, layout
from tests import models

NAN = float("nan")
PRIOR = (1.0, 0.2)
ONE_STEP, SMALLEST, SCALED_ERROR, OUT_OF_RANGE = 0, 1, 5, 6  # rows of the features


def blocks(*values: float) -> Array:
    """One sensor's ring of block maxima that begins with these."""
    ring = np.full((1, BLOCKS), NAN, np.float32)
    ring[0, : len(values)] = values
    return ring


def columns(channels: int = 1) -> Columns:
    """One sensor that has seen nothing."""
    return SensorTable(layout(models.model(channels))).blank(1)


def on(targets: list[int], seen: int = 0, learns: bool = False) -> Lanes:
    """These targets of one sensor have a value."""
    at, one = np.array(targets, np.intp), np.ones(len(targets), np.int64)
    return Lanes(at, at, seen * one, (seen * one).astype(np.int32), np.full(len(targets), learns))


def follow(arrays: Columns, x: Array, errors: Array) -> Array:
    """The features of one lane over these values and one-step errors, (n, FEATURES)."""
    found = []
    for seen in range(len(x)):
        valid, horizons = np.ones((3, 1), np.bool_), np.full((3, 1), errors[seen], np.float32)
        features = scoring.features(arrays, on([0], seen), x[seen : seen + 1], np.zeros(1, np.float32), horizons, valid)
        found.append(features[:, 0])
    return np.array(found)


def test_the_usual_largest_surprise_is_expected_once_in_two_blocks_and_each_excess_is_e_times_rarer() -> None:
    one = np.ones(1, np.float32)
    assert scoring.score(1.05 * one, 1.05 * one, 0.2 * one)[0] == pytest.approx(np.log10(100))
    assert scoring.score(1.25 * one, 1.05 * one, 0.2 * one)[0] == pytest.approx(np.log10(100 * np.e), abs=1e-6)


def test_a_sensor_without_blocks_is_like_its_group() -> None:
    usual, excess = scoring.episode_calibration(blocks(), PRIOR)
    assert (usual[0], excess[0]) == pytest.approx(PRIOR)


def test_twenty_blocks_weigh_as_much_as_the_group() -> None:
    usual, excess = scoring.episode_calibration(blocks(*[2.0] * 20), PRIOR)
    assert usual[0] == pytest.approx((2.0 + 1.0) / 2)
    assert excess[0] == pytest.approx((0.0 + 0.2) / 2)


def test_the_excess_is_read_off_the_ninety_percent_quantile_so_that_a_few_transients_do_not_move_it() -> None:
    calm = [1.0 + 0.01 * i for i in range(60)]
    wild = [*calm[:57], 50.0, 60.0, 70.0]
    assert scoring.episode_calibration(blocks(*wild), PRIOR) == scoring.episode_calibration(blocks(*calm), PRIOR)
    usual, excess = scoring.episode_calibration(blocks(*calm), PRIOR)
    assert usual[0] == pytest.approx((60 * 1.30 + 20 * 1.0) / 80)
    assert excess[0] == pytest.approx((60 * (1.54 - 1.30) / np.log(5) + 20 * 0.2) / 80)


def test_equal_blocks_leave_an_excess_that_can_be_divided_by() -> None:
    _, excess = scoring.episode_calibration(blocks(*[1.0] * BLOCKS), (1.0, 0.0))
    assert excess[0] == np.float32(scoring.LEAST_EXCESS)


@pytest.mark.parametrize("written", [1, 4, 5, 30, 63, 64, 65, 100, 128])
def test_a_block_counts_once_four_later_ones_are_full(written: int) -> None:
    ring = np.full((1, BLOCKS), NAN, np.float32)
    for number in range(written):
        ring[0, number % BLOCKS] = number
    entered = scoring.entered_blocks(ring, np.array([written], np.int32))
    known = sorted(entered[np.isfinite(entered)].tolist())
    assert known == list(range(max(written - BLOCKS, 0), max(written - 4, 0)))


def test_the_error_scale_settles_where_a_twentieth_of_the_errors_is_larger() -> None:
    errors = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    arrays = columns()
    follow(arrays, np.zeros(4000, np.float32), errors)
    assert np.exp(arrays.lane[0, 0, Lane.LOG_ERROR]) == pytest.approx(1.96, rel=0.1)


def test_no_error_makes_the_scaled_error_more_than_fifty() -> None:
    features = follow(columns(), np.zeros(300, np.float32), np.full(300, 1e6, np.float32))
    assert 0 < features[:, SCALED_ERROR].max() <= 50


def test_a_value_within_the_range_of_the_fit_part_is_not_out_of_range() -> None:
    arrays = columns()
    arrays.lane[0, 0, [Lane.LOW, Lane.HIGH]] = -2.0, 3.0
    found = follow(arrays, np.array([-2, 3, 0, 5, -4], np.float32), np.zeros(5, np.float32))[:, OUT_OF_RANGE]
    assert found == pytest.approx([0, 0, 0, 0.02 * 2, 0.98 * 0.04 + 0.02 * 2], abs=1e-6)


def test_the_smallest_error_is_that_of_the_forecasts_that_were_made() -> None:
    errors, nothing = np.array([[-9.0], [2.0], [-1.0]], np.float32), np.zeros(1, np.float32)
    for made, smallest in (([1, 0, 0], 9.0), ([1, 1, 0], 2.0), ([1, 1, 1], 1.0)):
        valid = np.array(made, np.bool_)[:, None]
        found = scoring.features(columns(), on([0]), nothing, nothing, errors, valid)[:, 0]
        assert (found[ONE_STEP], found[SMALLEST]) == (9.0, smallest)


def test_an_error_across_a_gap_says_nothing() -> None:
    nothing, error = np.zeros(1, np.float32), np.full((3, 1), 9, np.float32)
    found = scoring.features(columns(), on([0]), nothing, nothing, error, np.zeros((3, 1), np.bool_))
    assert not found.any()


def surprise_of(channels: int, present: list[int], loud: dict[int, float]) -> tuple[float, list[float]]:
    """Combined surprise and voices where each channel's tails hold 999 small values, and the loud ones exceed them."""
    arrays = columns(channels)
    arrays.tail[0, :, :, : TAIL_BINS // 2] = 999
    values = np.zeros((FEATURES, len(present)), np.float32)
    for channel, value in loud.items():
        values[:, present.index(channel)] = value
    surprise, voices = scoring.combine(arrays, on(present), values, 1, channels)
    return float(surprise[0]), voices[0].tolist()


def test_the_surprise_of_one_channel_is_its_weighted_ranks() -> None:
    surprise, [voice] = surprise_of(1, [0], {0: 900.0})
    assert surprise == voice == pytest.approx(3.0 * scoring.WEIGHTS.sum(), rel=1e-6)


def test_many_channels_are_half_their_mean_and_half_the_loudest_of_them() -> None:
    surprise, voices = surprise_of(4, [0, 1, 2, 3], {2: 900.0})
    assert voices[0] == voices[1] == voices[3] == 0.0
    assert surprise == pytest.approx(0.5 * voices[2] / 4 + 0.5 * voices[2], rel=1e-6)


def test_with_more_channels_the_loudest_weighs_less() -> None:
    surprise, voices = surprise_of(10, list(range(10)), {7: 900.0})
    assert surprise == pytest.approx(0.8 * voices[7] / 10 + 0.2 * voices[7], rel=1e-6)


def test_a_missing_channel_neither_speaks_nor_dilutes_the_others() -> None:
    surprise, voices = surprise_of(4, [1, 2], {2: 900.0})
    assert voices[0] == voices[3] == 0.0
    assert surprise == pytest.approx(0.5 * voices[2] / 2 + 0.5 * voices[2], rel=1e-6)


def test_only_a_lane_that_learns_is_counted() -> None:
    arrays = columns(2)
    both = Lanes(*on([0, 1])[:4], np.array([True, False]))
    scoring.combine(arrays, both, np.zeros((FEATURES, 2), np.float32), 1, 2)
    assert arrays.pending[0].sum(axis=(1, 2, 3)).tolist() == [FEATURES, 0]
    assert tails.bins(np.zeros(1, np.float32))[0] == 0
