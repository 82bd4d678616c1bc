"""One location and one scale a channel, from statistics that training takes from scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import RobustScaler, StandardScaler

from pipeline.core.readings import FloatArray
from pipeline.core.scaling import LARGEST_SCALED, location_and_scale, scaled, statistics, unscaled

NAN = float("nan")
ANY_FLOAT = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1e300, -1e300, 1.7e308, 5e-324])


def fitted(*columns: list[float] | FloatArray) -> FloatArray:
    """(channels, 2) location and scale of these columns."""
    return location_and_scale(statistics(np.array(columns, np.float64).T))


def test_location_is_the_median_and_scale_the_interquartile_range_of_a_normal() -> None:
    assert fitted(np.arange(101.0)).tolist() == [[50.0, 50.0 / 1.349]]


def test_a_channel_that_mostly_stands_still_is_scaled_by_its_deviation() -> None:
    assert fitted([0.0] * 90 + [1.0] * 10)[0] == pytest.approx([0.0, 0.3 * 0.3])


@pytest.mark.parametrize(("value", "scale"), [(5.0, 5e-3), (-200.0, 0.2), (0.0, 1e-9), (1e-12, 1e-9)])
def test_a_constant_channel_is_scaled_by_a_thousandth_of_its_size(value: float, scale: float) -> None:
    assert fitted([value] * 64)[0] == pytest.approx([value, scale])


def test_one_reading_in_a_hundred_twenty_deviations_off_moves_neither_location_nor_scale() -> None:
    clean = np.random.default_rng(0).standard_normal(2000)
    spoilt = clean.copy()
    spoilt[::100] = 20.0
    assert fitted(spoilt)[0] == pytest.approx(fitted(clean)[0], abs=0.03)


def test_missing_values_are_left_out() -> None:
    assert fitted([1.0, NAN, 2.0, 3.0, NAN])[0].tolist() == fitted([1.0, 2.0, 3.0])[0].tolist()


def test_a_channel_without_any_value_reads_as_the_constant_zero_and_leaves_the_others_alone() -> None:
    both = fitted([NAN] * 101, np.arange(101.0))
    assert both.tolist() == [[0.0, 1e-9], [50.0, 50.0 / 1.349]]


def test_the_statistics_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((500, 3)) ** 3 * [1, 1e-4, 1e5] + [0, 20, -3]
    values[rng.random(values.shape) < 0.1] = NAN
    robust, standard = RobustScaler(unit_variance=True).fit(values), StandardScaler().fit(values)
    ours = statistics(values)
    np.testing.assert_allclose(ours.median, robust.center_, rtol=1e-12)
    np.testing.assert_allclose(ours.spread, robust.scale_, rtol=1e-4)  # 1.349 has four digits
    np.testing.assert_allclose(ours.deviation, np.sqrt(standard.var_), rtol=1e-12)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.integers(1, 3)), elements=ANY_FLOAT | st.just(NAN)))
def test_any_values_have_a_finite_location_and_a_positive_finite_scale(values: FloatArray) -> None:
    found = location_and_scale(statistics(values))
    assert np.isfinite(found).all()
    assert (found[:, 1] > 0).all()


@given(raw=ANY_FLOAT, location=st.floats(-1e37, 1e37), scale=st.floats(1e-9, 1e37))
def test_no_value_is_scaled_beyond_what_a_float32_forecast_can_follow(
    raw: float, location: float, scale: float
) -> None:
    [[x]] = scaled(np.array([[raw]]), np.array([[[location, scale]]]))
    assert abs(x) <= LARGEST_SCALED


def test_a_missing_value_stays_missing() -> None:
    x = scaled(np.array([[NAN, 3.0]]), np.array([[[1.0, 2.0], [1.0, 2.0]]]))
    assert np.isnan(x[0, 0])
    assert x[0, 1] == 1.0


@given(
    x=st.floats(-1000, 1000, width=32), location=st.floats(-1e6, 1e6), scale=st.floats(1e-3, 1e3)
)  # fmt: skip
def test_unscaled_is_the_way_back(x: float, location: float, scale: float) -> None:
    scales = np.array([[[location, scale]]])
    there = unscaled(np.array([[x]], np.float32), scales)
    assert scaled(there, scales)[0, 0] == pytest.approx(x, rel=1e-5, abs=1e-5)
