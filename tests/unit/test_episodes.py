"""Surprise becomes score: the largest of a block against the blocks of its sensor, late, and shrunk to its group."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core import episodes
from pipeline.core.episodes import WINSORED, WINSORED_MANY
from pipeline.core.model import Array
from pipeline.core.table import BLOCKS, Count, Level
from tests.lanes import blank

NAN = np.float32(np.nan)
PRIOR = np.array([[1.0, 0.2, 20.0]], np.float32)  # median, mean excess, weight in blocks
NO_PRIOR = np.zeros((1, 3), np.float32)
ROW = np.zeros(1, np.intp)


def row(*values: float, width: int = BLOCKS) -> Array:
    """One sensor's block maxima, NaN where it has no more."""
    out = np.full((1, width), NAN, np.float32)
    out[0, : len(values)] = values
    return out


def calibrated(*values: float, prior: Array = PRIOR) -> tuple[float, float]:
    usual, excess = episodes.calibrated(row(*values), prior, WINSORED)
    return float(usual[0]), float(excess[0])


# -- the score


def test_the_usual_largest_surprise_is_expected_once_in_two_blocks_and_each_excess_is_e_times_rarer() -> None:
    one = np.ones(1, np.float32)
    assert episodes.score(1.05 * one, 1.05 * one, 0.2 * one)[0] == pytest.approx(np.log10(100))
    assert episodes.score(1.25 * one, 1.05 * one, 0.2 * one)[0] == pytest.approx(np.log10(100 * np.e), abs=1e-6)


def test_a_score_is_kept_as_often_as_it_says() -> None:
    """Of block maxima that exceed their median as an exponential, one in 20 blocks, 1,000 readings, scores 3."""
    maxima = 1.0 + np.random.default_rng(0).exponential(0.3, 40_000).astype(np.float32)
    usual, excess = episodes.calibrated(maxima[None], NO_PRIOR, WINSORED)
    above = np.random.default_rng(1).exponential(0.3, 40_000).astype(np.float32) + 1
    high = episodes.score(above, usual, excess) >= 3.0
    assert high.mean() * 1000 / episodes.BLOCK_READINGS == pytest.approx(1.0, rel=0.1)


# -- calibration


@pytest.mark.parametrize("quantile", [WINSORED, WINSORED_MANY])
@pytest.mark.parametrize("excess", [0.1, 0.3, 2.0])
def test_the_mean_excess_of_an_exponential_is_recovered_in_spite_of_the_winsor(excess: float, quantile: float) -> None:
    maxima = 1.0 + np.random.default_rng(0).exponential(excess, 20_000).astype(np.float32)
    usual, found = episodes.calibrated(maxima[None], NO_PRIOR, quantile)
    assert usual[0] == pytest.approx(1.0 + excess * np.log(2), rel=0.02)
    assert found[0] == pytest.approx(excess, rel=0.03)


def test_a_few_incidents_however_high_do_not_move_it() -> None:
    calm = [1.0 + 0.01 * i for i in range(60)]
    assert calibrated(*calm[:52], *[50.0] * 8) == pytest.approx(calibrated(*calm[:52], *[1e6] * 8))
    assert calibrated(*calm[:52], *[1e6] * 8) == pytest.approx(calibrated(*calm), rel=0.02)


def test_the_median_is_that_of_the_blocks_and_the_excess_counts_the_upper_half() -> None:
    usual, excess = calibrated(1.0, 2.0, 3.0, 4.0, prior=NO_PRIOR)
    assert usual == 3.0
    assert excess == pytest.approx((0.0 + 1.0) / 2 / 0.7)


def test_a_sensor_without_blocks_is_like_its_prior() -> None:
    assert calibrated() == pytest.approx((1.0, 0.2))


@pytest.mark.parametrize("weight", [20.0, 60.0, 120.0])
def test_as_many_blocks_as_the_prior_weighs_move_it_half_way(weight: float) -> None:
    prior = np.array([[1.0, 0.2, weight]], np.float32)
    usual, excess = episodes.calibrated(np.full((1, int(weight)), 2.0, np.float32), prior, WINSORED)
    assert usual[0] == pytest.approx((2.0 + 1.0) / 2)
    assert excess[0] == pytest.approx((0.0 + 0.2) / 2)


def test_equal_blocks_leave_an_excess_that_can_be_divided_by() -> None:
    assert calibrated(*[1.0] * BLOCKS, prior=NO_PRIOR)[1] == pytest.approx(episodes.LEAST_EXCESS)


def test_where_absent_blocks_stand_and_how_many_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 20, 50, 301):
        values = rng.exponential(0.3, count).astype(np.float32)
        alone = episodes.calibrated(values[None], PRIOR, WINSORED)
        for width in (count + 1, max(count, BLOCKS), 1000):
            spread = np.full((1, width), NAN, np.float32)
            spread[0, np.sort(rng.permutation(width)[:count])] = values
            assert episodes.calibrated(spread, PRIOR, WINSORED) == alone


def test_sensors_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(1)
    rows = rng.exponential(0.3, (9, BLOCKS)).astype(np.float32)
    rows[np.arange(BLOCKS) > rng.integers(0, BLOCKS, (9, 1))] = NAN
    prior = np.stack([rng.uniform(0, 2, 9), rng.uniform(0.1, 1, 9), rng.uniform(1, 100, 9)], 1).astype(np.float32)
    together = np.array(episodes.calibrated(rows, prior, WINSORED))
    alone = [np.array(episodes.calibrated(rows[i : i + 1], prior[i : i + 1], WINSORED))[:, 0] for i in range(9)]
    np.testing.assert_array_equal(together.T, alone)


# -- the ring


@pytest.mark.parametrize("written", [1, 4, 5, 30, 63, 64, 65, 100, 128])
def test_a_block_counts_once_four_later_ones_are_full(written: int) -> None:
    ring = np.full((1, BLOCKS), NAN, np.float32)
    for number in range(written):
        ring[0, number % BLOCKS] = number
    entered = episodes.entered(ring, np.array([written], np.int32))
    known = sorted(entered[np.isfinite(entered)].tolist())
    assert known == list(range(max(written - BLOCKS, 0), max(written - 4, 0)))


def test_a_block_is_the_largest_of_fifty_and_moves_its_sensor_s_calibration_200_readings_later() -> None:
    arrays = blank()
    arrays.level[0, : Level.OWN_BLOCKS + 1] = episodes.NO_GROUP
    surprise = np.random.default_rng(0).uniform(0, 3, 300).astype(np.float32)
    before = arrays.level[0, [Level.USUAL, Level.EXCESS]].tolist()
    for reading, value in enumerate(surprise):
        episodes.learn(arrays, ROW, value.reshape(1))
        arrays.count[0, Count.LEARNED] += 1
        now = arrays.level[0, [Level.USUAL, Level.EXCESS]].tolist()
        assert (now == before) is (reading < 249)
    np.testing.assert_array_equal(arrays.blocks[0, :6], surprise.reshape(6, 50).max(axis=1))
    assert np.isnan(arrays.blocks[0, 6:]).all()
    prior = arrays.level[:, Level.OWN_USUAL : Level.OWN_BLOCKS + 1]
    expected = episodes.calibrated(row(*arrays.blocks[0, :2]), prior, WINSORED)
    assert now == [expected[0][0], expected[1][0]]


def test_what_is_known_of_its_training_goes_on_weighing_once_the_ring_is_full() -> None:
    arrays = blank()
    arrays.level[0, : Level.OWN_BLOCKS + 1] = 1.0, 0.2, 1.0, 0.2, 120.0
    for _ in range(80 * episodes.BLOCK_READINGS):
        episodes.learn(arrays, ROW, np.full(1, 4.0, np.float32))
        arrays.count[0, Count.LEARNED] += 1
    own = BLOCKS - episodes.BLOCK_DELAY
    assert arrays.level[0, Level.USUAL] == pytest.approx((own * 4.0 + 120 * 1.0) / (own + 120))
    assert arrays.level[0, Level.OWN_USUAL : Level.OWN_BLOCKS + 1].tolist() == pytest.approx([1.0, 0.2, 120.0])
