"""Raw values to robust deviations and back: one location and one scale per sensor and channel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.core.model import Array
from pipeline.core.readings import FloatArray

IQR_OF_NORMAL = 1.349  # interquartile range of a standard normal
SMALLEST_SCALE = 1e-9
LARGEST_RAW = 1e37  # no sensor goes there, and its differences still fit a float32, its squares a float64
LARGEST_SCALED = np.float32(1e6)  # beyond this a float32 sinh of the forecast would lose the comparison anyway


class Statistics(NamedTuple):
    """What the scale rule reads, each (..., channels); training takes the same three numbers from scikit-learn."""

    median: FloatArray
    spread: FloatArray  # interquartile range / 1.349: the standard deviation, were the values normal
    deviation: FloatArray  # standard deviation


def statistics(values: FloatArray) -> Statistics:
    """Over the rows of (rows, channels), NaN ignored; a channel without any value reads as the constant 0."""
    known = np.where(np.isnan(values).all(axis=0), 0.0, bounded(values))
    low, median, high = np.nanpercentile(known, [25, 50, 75], axis=0)
    return Statistics(median, (high - low) / IQR_OF_NORMAL, np.nanstd(known, axis=0))


def location_and_scale(s: Statistics) -> FloatArray:
    """(..., channels, 2): the median, and a scale that neither outliers nor a constant channel can ruin.

    The spread ignores outliers but is 0 for a channel that mostly stands still, so the deviation sets a floor;
    a constant channel is scaled by a thousandth of its size, which makes any change of it large.
    """
    scale = np.maximum.reduce(
        [s.spread, 0.3 * s.deviation, 1e-3 * np.abs(s.median), np.full_like(s.median, SMALLEST_SCALE)]
    )
    return np.stack([s.median, scale], axis=-1)


def bounded(raw: FloatArray) -> FloatArray:
    """Raw values within what arithmetic can carry, NaN kept."""
    return np.clip(raw, -LARGEST_RAW, LARGEST_RAW)


def scaled(raw: FloatArray, scales: FloatArray) -> Array:
    """x = (raw - location) / scale, (n, channels) with scales (n, channels, 2) -> float32, NaN kept."""
    x = (bounded(raw) - scales[..., 0]) / scales[..., 1]
    return np.clip(x, -LARGEST_SCALED, LARGEST_SCALED).astype(np.float32)


def unscaled(x: Array, scales: FloatArray) -> FloatArray:
    """The inverse of `scaled`, in the channel's own unit."""
    raw: FloatArray = x.astype(np.float64) * scales[..., 1] + scales[..., 0]
    return raw
