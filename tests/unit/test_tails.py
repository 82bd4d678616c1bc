"""How rare a value is: its rank among those counted before, late enough that a fault does not excuse itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.core import tails
from pipeline.core.model import Array
from pipeline.core.table import FEATURES, TAIL_BINS

LANE = np.array([0], np.intp)
Tail = npt.NDArray[np.uint16]
Pending = npt.NDArray[np.uint8]


def empty(lanes: int = 1) -> tuple[Tail, Pending]:
    return np.zeros((lanes, FEATURES, TAIL_BINS), np.uint16), np.zeros((lanes, 2, FEATURES, TAIL_BINS), np.uint8)


def same_in_all(values: list[float] | Array) -> Array:
    """(n,) as (FEATURES, n): every feature has the value."""
    return np.tile(np.asarray(values, np.float32), (FEATURES, 1))


def counted(values: Array) -> Iterator[Tail]:
    """Count these values, one a reading, into one lane; yields its tail as it is before each of them."""
    tail, pending = empty()
    for reading, where in enumerate(tails.bins(same_in_all(values)).T):
        yield tail
        tails.count(tail, pending, LANE, where[:, None], np.array([reading], np.int32), 1)


def surprise(tail: Tail, value: float, channels: int = 1) -> float:
    values = same_in_all([value])
    return float(tails.surprise(tail, LANE, values, tails.bins(values), channels)[0, 0])


def settled_on(values: Array) -> Tail:
    """A lane's tail that has counted all of these values."""
    cumulative = np.bincount(tails.bins(values), minlength=TAIL_BINS)[::-1].cumsum()[::-1]
    return np.tile(cumulative.astype(np.uint16), (1, FEATURES, 1))


def test_a_bin_holds_the_values_between_its_edges_and_the_outermost_are_open() -> None:
    inside = tails.bins(tails.CENTRES)
    assert inside.tolist() == list(range(TAIL_BINS))
    assert tails.bins(np.array([0, 1e-9, 0.0099, 2e6], np.float32)).tolist() == [0, 0, 0, TAIL_BINS - 1]


def test_surprise_is_the_rank_among_what_was_counted_between_one_and_two_blocks_ago() -> None:
    values = np.random.default_rng(0).lognormal(0, 2, 900).astype(np.float32)
    where = tails.bins(values)
    for reading, tail in enumerate(counted(values)):
        entered = max((reading - 1) // 150 - 1, 0) * 150  # readings in the blocks that have entered so far
        above = int((where[:entered] >= where[reading]).sum())
        expected = np.log10(entered + 1) - np.log10(above + 1)
        assert surprise(tail, values[reading]) == pytest.approx(expected, abs=1e-6)


def test_a_value_enters_150_to_300_readings_late() -> None:
    delays = set()
    for marked in range(0, 320, 7):
        values = np.where(np.arange(700) == marked, 100.0, 1.0).astype(np.float32)
        seen = [surprise(tail, 100.0) < surprise(tail, 1e5) for tail in counted(values)]
        delays.add(seen.index(True) - marked)
    assert min(delays) == 154  # the last value of a block, and every seventh was tried
    assert max(delays) == 301
    assert all(150 < delay <= 301 for delay in delays)


def test_a_tail_settles_at_3000_counts_and_later_values_stay_a_surprise() -> None:
    values = np.where(np.arange(5000) < 3500, 1.0, 100.0).astype(np.float32)
    *_, last = counted(values)
    assert 3000 <= last[0, 0, 0] < 3000 + tails.BLOCK_ROWS
    assert surprise(last, 100.0) == pytest.approx(np.log10(last[0, 0, 0] + 1.0), abs=1e-6)


def test_a_channel_without_a_value_whenever_a_block_fills_is_counted_all_the_same() -> None:
    tail, pending = empty(lanes=2)
    where = np.full((FEATURES, 1), 3)
    for reading in range(1200):  # two channels of a sensor that report in turn
        lane = np.array([reading % 2], np.intp)
        tails.count(tail, pending, lane, where, np.array([reading], np.int32), 2)
        assert pending.max() <= tails.BLOCK_ROWS
    assert tail[:, 0, 0].tolist() == [450, 450]


@pytest.mark.parametrize("channels", [1, 2, 38])
def test_a_larger_value_is_never_less_of_a_surprise(channels: int) -> None:
    tail = settled_on(np.random.default_rng(1).exponential(1, 2000).astype(np.float32))
    found = np.array([surprise(tail, value, channels) for value in np.geomspace(1e-3, 1e6, 400)])
    assert (np.diff(found) >= -1e-6).all()


def test_one_channel_keeps_to_its_rank_and_many_see_how_far_a_value_is_out() -> None:
    tail = settled_on(np.random.default_rng(1).exponential(1, 2000).astype(np.float32))
    assert surprise(tail, 20.0) == surprise(tail, 2000.0) == pytest.approx(np.log10(2001))
    assert surprise(tail, 20.0, channels=8) > surprise(tail, 20.0)
    assert surprise(tail, 2000.0, channels=8) > surprise(tail, 20.0, channels=8)


def test_the_fitted_tail_of_exponential_values_falls_a_decade_every_ln_10() -> None:
    tail = settled_on(np.random.default_rng(1).exponential(1, 3000).astype(np.float32))
    slope = (surprise(tail, 14.0, channels=10_000) - surprise(tail, 9.0, channels=10_000)) / 5.0
    assert slope == pytest.approx(np.log10(np.e), rel=0.25)  # the bins are wide, and a twentieth of the counts fits it


def test_a_voice_is_bounded_by_what_all_channels_could_have_seen_together() -> None:
    tail = settled_on(np.full(999, 0.5, np.float32))
    assert surprise(tail, 1e6, channels=8) == pytest.approx(8 * 3.0, abs=1e-5)


def test_an_empty_tail_is_surprised_by_nothing() -> None:
    tail, _ = empty()
    assert surprise(tail, 1e6) == surprise(tail, 1e6, channels=8) == 0.0


def test_a_surprise_is_bitwise_the_same_whatever_shares_its_batch() -> None:
    rng = np.random.default_rng(2)
    tail = np.concatenate([settled_on(rng.lognormal(0, s, 700).astype(np.float32)) for s in (0.5, 1, 2)])
    lanes = rng.integers(0, 3, 400)
    values = rng.lognormal(0, 3, (FEATURES, 400)).astype(np.float32)
    together = tails.surprise(tail, lanes, values, tails.bins(values), 8)
    for some in (slice(0, 1), slice(3, 20), slice(100, 357)):
        alone = tails.surprise(tail, lanes[some], values[:, some], tails.bins(values[:, some]), 8)
        np.testing.assert_array_equal(alone, together[:, some])
