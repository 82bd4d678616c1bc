"""Features become one surprise: weights by kind of feature, channels by their mean and the loudest of them."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from pipeline.core import scoring
from pipeline.core.features import Lanes
from pipeline.core.scoring import Weights
from pipeline.core.table import FEATURES, TAIL_BINS, SensorTable, layout
from tests import models
from tests.lanes import blank, lanes

WEIGHTS = Weights()
NOVEL, OUT_OF_RANGE = 3, 6  # rows of the features


def surprise_of(
    channels: int, present: list[int], loud: dict[int, float], unseen: bool = False
) -> tuple[float, list[float]]:
    """Combined surprise and voices where each channel's tails hold 999 small values, and the loud ones exceed them."""
    arrays = blank(channels)
    arrays.tail[0, :, :, : TAIL_BINS // 2] = 999
    values = np.zeros((FEATURES, len(present)), np.float32)
    for channel, value in loud.items():
        values[:, present.index(channel)] = value
    surprise, voices = scoring.combine(arrays, lanes(present, unseen=unseen), values, 1, channels, WEIGHTS)
    return float(surprise[0]), voices[0].tolist()


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("targets", [1, 2, 38])
def test_the_weights_of_a_channel_are_shares(targets: int, unseen: bool) -> None:
    weights = WEIGHTS.of(targets, unseen)
    assert weights.shape == (FEATURES,)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights > 0).all()


def test_among_many_channels_novelty_and_range_of_each_count_less_and_errors_more() -> None:
    one, many = WEIGHTS.of(1, unseen=False), WEIGHTS.of(38, unseen=False)
    assert many[NOVEL] / many[0] == pytest.approx(one[NOVEL] / one[0] / 38)
    assert many[OUT_OF_RANGE] / many[0] == pytest.approx(one[OUT_OF_RANGE] / one[0] / 38)
    assert (many[[0, 1, 2, 5]] > one[[0, 1, 2, 5]]).all()


@pytest.mark.parametrize("targets", [1, 8])
def test_leaving_its_first_range_says_more_of_a_sensor_that_was_not_trained_on(targets: int) -> None:
    trained, unseen = WEIGHTS.of(targets, unseen=False), WEIGHTS.of(targets, unseen=True)
    assert unseen[OUT_OF_RANGE] / unseen[0] == pytest.approx(WEIGHTS.unseen_range / WEIGHTS.errors)
    assert unseen[OUT_OF_RANGE] > trained[OUT_OF_RANGE]
    np.testing.assert_allclose(unseen[:OUT_OF_RANGE] / unseen[0], trained[:OUT_OF_RANGE] / trained[0], rtol=1e-6)


def test_each_kind_of_feature_can_be_left_out_by_itself() -> None:
    for kind in (field for field in fields(Weights) if "loudest" not in field.name):
        without = Weights(**{kind.name: 0.0})
        touched = [without.of(n, u) == 0 for n in (1, 3) for u in (False, True)]
        assert any(each.any() for each in touched), kind.name
        assert not any(each.all() for each in touched), kind.name


def test_the_surprise_of_one_channel_is_its_weighted_ranks() -> None:
    surprise, [voice] = surprise_of(1, [0], {0: 900.0})
    assert surprise == voice == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("unseen", [False, True])
def test_a_feature_counts_by_the_weights_of_its_sensor_trained_on_or_not(unseen: bool) -> None:
    for feature in range(FEATURES):
        arrays, values = blank(), np.zeros((FEATURES, 1), np.float32)
        arrays.tail[0, :, :, : TAIL_BINS // 2] = 999
        values[feature] = 900.0
        surprise, _ = scoring.combine(arrays, lanes([0], unseen=unseen), values, 1, 1, WEIGHTS)
        assert surprise[0] == pytest.approx(3.0 * WEIGHTS.of(1, unseen)[feature], rel=1e-6)


@pytest.mark.parametrize(
    ("channels", "unseen", "share"), [(4, False, 0.5), (10, False, 0.2), (4, True, 0.5), (10, True, 0.4)]
)
def test_the_loudest_channel_has_a_share_of_its_own_and_a_larger_one_where_nothing_was_fitted(
    channels: int, unseen: bool, share: float
) -> None:
    surprise, voices = surprise_of(channels, list(range(channels)), {2: 900.0}, unseen)
    assert [c for c in range(channels) if voices[c]] == [2]
    assert surprise == pytest.approx((1 - share) * voices[2] / channels + share * voices[2], rel=1e-6)


def test_sensors_in_one_step_have_the_share_of_their_own_kind() -> None:
    """Two sensors of ten channels, one trained on, hear the same one channel."""
    arrays = SensorTable(layout(models.model(10))).blank(2)
    arrays.tail[..., : TAIL_BINS // 2] = 999
    at = np.arange(20)
    zero = np.zeros(20, np.int64)
    on = Lanes(at, at, zero, zero.astype(np.int32), np.zeros(20, np.bool_), at >= 10, at[:0])
    values = np.zeros((FEATURES, 20), np.float32)
    values[:, [3, 13]] = 900.0
    surprise, _ = scoring.combine(arrays, on, values, 2, 10, WEIGHTS)
    assert surprise.tolist() == pytest.approx(
        [surprise_of(10, list(range(10)), {3: 900.0}, unseen)[0] for unseen in (False, True)]
    )


def test_a_missing_channel_neither_speaks_nor_dilutes_the_others() -> None:
    surprise, voices = surprise_of(4, [1, 2], {2: 900.0})
    assert voices[0] == voices[3] == 0.0
    assert surprise == pytest.approx(0.5 * voices[2] / 2 + 0.5 * voices[2], rel=1e-6)


def test_a_sensor_without_any_value_is_surprised_by_nothing() -> None:
    assert surprise_of(4, [], {}) == (0.0, [0.0] * 4)


def test_only_a_lane_that_learns_is_counted() -> None:
    arrays = blank(2)
    both = Lanes(*lanes([0, 1])[:4], np.array([True, False]), np.zeros(2, np.bool_), np.empty(0, np.intp))
    scoring.combine(arrays, both, np.zeros((FEATURES, 2), np.float32), 1, 2, WEIGHTS)
    assert arrays.pending[0].sum(axis=(1, 2, 3)).tolist() == [FEATURES, 0]


def test_a_reading_is_scored_against_the_tails_before_it_and_counted_after() -> None:
    arrays = blank()
    arrays.pending[0, 0, 0, :, 5] = 150  # a full block, whose place is needed by this reading
    surprise, _ = scoring.combine(
        arrays, lanes([0], seen=300, learns=True), np.ones((FEATURES, 1), np.float32), 1, 1, WEIGHTS
    )
    assert surprise[0] == 0.0  # an empty tail is surprised by nothing
    assert (arrays.tail[0, 0, :, 0] == 150).all()
