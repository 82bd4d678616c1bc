"""What is wrong with the measurement rather than with the plant: stuck values, crossed physical limits, silence.

None of these enters the forecast score; each has its own rule, measured in its own unit, and its own budget: where
values repeat, or readings come, by chance alone, the limits below are passed about once in a million readings.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core.readings import FloatArray, IntArray
from pipeline.core.table import Columns, Tally, flat

FEWEST_REPEATS = 10  # of an exact value; a channel that moves at all rarely shows so many
USUAL_REPEATS = 3  # times the longest run seen in training
CONSTANT_SHARE = 0.25  # a channel that stood still for this share of its history is constant by nature
BACK_READINGS = 5  # within the limits again, before a limit alert ends
USUAL_SILENCE = 5  # intervals
LONGEST_SILENCE = 2  # times the 99.9 % quantile of the time between readings
LATE_STEP = 1.5  # times that quantile: readings are missing in between


def longest_run(values: FloatArray) -> npt.NDArray[np.int64]:
    """Length of the longest run of equal values in each column of (rows, channels); NaN is skipped."""
    out = np.zeros(values.shape[1], np.int64)
    for c in range(values.shape[1]):
        column = values[~np.isnan(values[:, c]), c]
        edges = np.flatnonzero(np.diff(column) != 0)
        bounds = np.concatenate([[-1], edges, [len(column) - 1]])
        out[c] = np.diff(bounds).max() if len(column) else 0
    return out


def stuck_limits(values: FloatArray) -> npt.NDArray[np.int32]:
    """How many equal readings in a row are unusual, (channels,); 0 for a channel that is constant by nature."""
    longest = longest_run(values)
    limit = np.maximum(FEWEST_REPEATS, USUAL_REPEATS * longest + 1)
    return np.where(longest >= max(CONSTANT_SHARE * len(values), 1), 0, limit).astype(np.int32)


def usual_step(times: IntArray, interval: int) -> int:
    """The longest time in µs between readings that is usual for a sensor with readings at these times."""
    apart = np.diff(times)
    longest = float(np.quantile(apart, 0.999, method="lower")) if len(apart) else 0.0
    return int(max(interval, longest))


def gap_limit(times: IntArray, interval: int) -> int:
    """The silence in µs that is unusual for a sensor with readings at these times."""
    return max(USUAL_SILENCE * interval, LONGEST_SILENCE * usual_step(times, interval))


class LaneEvents(NamedTuple):
    """The lanes whose stuck or limit alert opens or ends with this reading, and what to say of every lane."""

    opened: npt.NDArray[np.intp]  # positions into the (L,) lanes
    ended: npt.NDArray[np.intp]
    since: IntArray  # (L,) µs: when what opens or ends began
    measure: FloatArray  # (L,) repeats, or the value
    limit: FloatArray  # (L,)


def stuck(
    arrays: Columns,
    lanes: npt.NDArray[np.intp],
    raw: FloatArray,
    before: FloatArray,
    times: IntArray,
    scored: npt.NDArray[np.bool_],
) -> LaneEvents:
    """Count exact repetitions, (L,): a run starts at its first reading and ends with the first other value."""
    tally, since = flat(arrays.tally), flat(arrays.since)
    state, began, run = tally[lanes], since[lanes, 0], tally[lanes, Tally.RUN]
    same = (raw == before) & (run > 0)  # the readings a scale was taken from belong to no run
    ended = (state[:, Tally.STUCK] == 1) & ~same
    since[lanes[~same], 0] = times[~same]
    state[:, Tally.RUN] = np.where(same, run + 1, 1)
    limit = state[:, Tally.STUCK_LIMIT]
    opened = scored & (state[:, Tally.STUCK] == 0) & (limit > 0) & (state[:, Tally.RUN] >= limit)
    state[:, Tally.STUCK] = np.where(opened, 1, np.where(ended, 0, state[:, Tally.STUCK]))
    tally[lanes] = state
    repeats = np.where(ended, run, state[:, Tally.RUN])
    return LaneEvents(
        np.flatnonzero(opened), np.flatnonzero(ended), began, repeats.astype(np.float64), limit.astype(np.float64)
    )


def limits(arrays: Columns, lanes: npt.NDArray[np.intp], raw: FloatArray, times: IntArray) -> LaneEvents:
    """Compare with the physical bounds, (L,): opens at once, ends after BACK_READINGS readings within them."""
    tally, since, bounds = flat(arrays.tally), flat(arrays.since), flat(arrays.bounds)[lanes]
    state = tally[lanes]
    side = (raw > bounds[:, 1]).astype(np.int32) - (raw < bounds[:, 0])
    beyond, was = side != 0, state[:, Tally.BEYOND] != 0
    opened = beyond & ~was
    since[lanes[opened], 1] = times[opened]
    state[:, Tally.BACK] = np.where(beyond, 0, state[:, Tally.BACK] + 1)
    ended = was & (state[:, Tally.BACK] >= BACK_READINGS)
    crossed = np.where(opened, side, state[:, Tally.BEYOND])
    state[:, Tally.BEYOND] = np.where(ended, 0, crossed)
    tally[lanes] = state
    limit = np.where(crossed < 0, bounds[:, 0], bounds[:, 1])
    return LaneEvents(np.flatnonzero(opened), np.flatnonzero(ended), since[lanes, 1], raw, limit)
