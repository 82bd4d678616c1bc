"""Has this sensor ever had such a value? Checked against a search through everything it has had."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.core import novelty
from pipeline.core.model import Array
from pipeline.core.table import NOVELTY_BINS
from tests.lanes import blank, follow

BINS = st.integers(0, NOVELTY_BINS - 1)
STEPS = st.integers(0, 250)
NEW_VALUE, NEW_PATTERN = 3, 4  # rows of the features


def novelties(x: Array) -> tuple[Array, Array]:
    """How new each of these scaled values of one lane is, and how new its pattern, (n,) each."""
    found = follow(blank(), x)
    return found[:, NEW_VALUE], found[:, NEW_PATTERN]


@given(known=st.lists(BINS, max_size=30), asked=BINS)
def test_distance_is_that_to_the_nearest_bin_ever_occupied(known: list[int], asked: int) -> None:
    words = np.zeros((2, NOVELTY_BINS // 32), np.uint32)
    lane = np.array([1], np.intp)
    for value in known:
        novelty.remember_values(words, lane, np.array([value], np.int32))
    nearest = min((abs(asked - value) for value in known), default=0)
    found = novelty.distance_to_known(words, lane, np.array([asked], np.int32))
    assert found[0] == np.float32(nearest) * np.float32(novelty.BIN_WIDTH)
    assert not words[0].any()


def test_bins_are_a_twentieth_of_asinh_wide_and_hold_every_scaled_value() -> None:
    z = np.arcsinh(np.array([0, 1, -1, 1e6, -1e6], np.float32))
    assert novelty.value_bins(z).tolist() == [320, 338, 302, 610, 30]
    assert novelty.value_bins(np.array([20, -20], np.float32)).tolist() == [NOVELTY_BINS - 1, 0]


def test_a_new_value_is_as_new_as_it_is_far_from_all_values_but_the_last_32() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(400) * rng.choice([1, 1, 1, 8], 400)).astype(np.float32)
    bins = novelty.value_bins(np.arcsinh(x)).astype(int)
    found, _ = novelties(x)
    for reading in range(192, 400):
        nearest = np.abs(bins[: reading - 31] - bins[reading]).min()
        assert found[reading] == pytest.approx(nearest * 0.05, abs=1e-6)
    assert found.max() > 0


def test_a_level_that_is_new_stays_new_for_32_readings_and_then_no_longer() -> None:
    x = np.where(np.arange(300) < 200, 0.0, 10.0).astype(np.float32)
    value, _ = novelties(x)
    assert np.flatnonzero(value).tolist() == list(range(200, 232))
    assert value[200] == pytest.approx(np.round(np.arcsinh(10) / 0.05) * 0.05, abs=1e-6)


def test_nothing_is_news_before_192_values() -> None:
    x = np.zeros(400, np.float32)
    x[[100, 191, 192]] = 3.0, 30.0, 300.0
    value, pattern = novelties(x)
    assert not value[:192].any()
    assert not pattern[:192].any()
    assert value[192] > 0
    assert pattern[192] > 0


def test_a_usual_value_at_an_unusual_time_is_a_new_pattern_and_no_new_value() -> None:
    x = np.where(np.arange(600) // 50 % 2, 1.0, -1.0).astype(np.float32)  # fifty readings up, fifty down
    x[530:535] = 1.0
    value, pattern = novelties(x)
    assert not value[192:].any()
    assert pattern[530:535].min() > pattern[300:530].max()


@given(
    prototypes=hnp.arrays(np.uint8, (1, 4, 5), elements=STEPS), context=hnp.arrays(np.uint8, (1, 4), elements=STEPS),
    there=st.integers(1, 5),
)  # fmt: skip
def test_the_nearest_prototype_is_the_one_whose_furthest_coordinate_is_nearest(
    prototypes: np.ndarray, context: np.ndarray, there: int
) -> None:
    each = np.abs(prototypes[0].astype(int) - context[0].astype(int)[:, None]).max(axis=0)[:there]
    prototypes[:, :, there:] = novelty.EMPTY
    apart, nearest = novelty.nearest_prototype(prototypes, context)
    assert (apart[0], nearest[0]) == (each.min(), each.argmin())


@pytest.mark.parametrize("jump", [1.0, 1e6])
def test_a_pattern_is_as_new_as_it_is_far_from_all_others_however_far_that_is(jump: float) -> None:
    x = np.where(np.arange(201) < 200, 0.0, jump).astype(np.float32)
    _, pattern = novelties(x)
    assert pattern[200] == pytest.approx(min(np.round(np.arcsinh(jump) / 0.05), 125) * 0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("hits", "now", "replaced"),
    [
        ([5, 1, 9], 12, 1),
        ([65530, 3, 65535], 7, 0),  # the clock has gone round
    ],
)
def test_a_new_context_replaces_the_prototype_hit_least_recently(hits: list[int], now: int, replaced: int) -> None:
    prototypes = np.array([[[100, 150, 200]] * 4], np.uint8)
    when, lane = np.array([hits], np.uint16), np.array([0], np.intp)
    novelty.remember_contexts(prototypes, when, lane, np.full((1, 4), 120, np.uint8), np.array([now], np.uint16))
    assert prototypes[0, :, replaced].tolist() == [120] * 4
    assert when[0, replaced] == now
    assert (prototypes[0, 0] != 120).sum() == 2


def test_an_empty_place_is_taken_before_any_prototype_is_replaced() -> None:
    prototypes = np.array([[[100, 255, 200]] * 4], np.uint8)
    when, lane = np.array([[0, 60000, 0]], np.uint16), np.array([0], np.intp)
    novelty.remember_contexts(prototypes, when, lane, np.full((1, 4), 120, np.uint8), np.array([60001], np.uint16))
    assert prototypes[0, 0].tolist() == [100, 120, 200]


def test_a_context_within_two_steps_of_a_prototype_is_none_of_its_own() -> None:
    prototypes = np.array([[[100, 150, 200]] * 4], np.uint8)
    before, when, lane = prototypes.copy(), np.zeros((1, 3), np.uint16), np.array([0], np.intp)
    near, far = np.array([[98, 100, 102, 100]], np.uint8), np.array([[97, 100, 102, 100]], np.uint8)
    novelty.remember_contexts(prototypes, when, lane, near, np.array([9], np.uint16))
    assert (prototypes == before).all()
    novelty.remember_contexts(prototypes, when, lane, far, np.array([9], np.uint16))
    assert (prototypes != before).any()
