"""What is looked at in a reading: seven features of each channel, each against what was known before it.

A feature is 0 or more and grows with how unusual the reading is; how rare its value is for this very lane, `tails`
says. Every function takes the running state of its lanes, moves it on, and returns (L,).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core import novelty
from pipeline.core.model import Array
from pipeline.core.readings import BoolArray
from pipeline.core.table import FEATURES, Columns, Lane, Tally, flat

ONE_CHANNEL = ("error", "no horizon", "bias", "new value", "new pattern", "scaled error", "out of range")
MANY_CHANNELS = (*ONE_CHANNEL[:4], "lasting error", *ONE_CHANNEL[5:])

CONTEXT_RATES = (1 - np.exp(-1 / np.array([3.0, 12.0, 48.0]))).astype(np.float32)
BIAS_RATE = np.float32(1 - np.exp(-1 / 12))
LASTING_RATE = np.float32(0.1)
OFFSET_RATE = np.float32(0.002)  # of the usual error at most: in 200 readings a fault moves a forecast by half of it
BEYOND_RATE, ACCEPT_RATE = np.float32(0.02), np.float32(0.002)
SCALE_SHARE = np.float32(0.05)  # of readings whose error is above the usual one
SCALE_STEP = np.float32(0.003)  # of its logarithm; slow, so that a fault does not soon become usual
SCALE_SETTLED = 256  # readings; until then a lane knows no scale and its steps are large
SMALLEST_LOG_ERROR = np.float32(np.log(0.01))
LARGEST_SCALED_ERROR = np.float32(50.0)


class Lanes(NamedTuple):
    """The present channels of a round, flattened: `at` indexes (sensor, target), `lanes` the table's lanes."""

    at: npt.NDArray[np.intp]  # (L,) into the flattened (n, targets)
    lanes: npt.NDArray[np.intp]  # (L,) into the flattened (rows, targets)
    seen: npt.NDArray[np.int64]  # (L,) readings of the sensor before this one
    learned: npt.NDArray[np.int32]  # (L,) readings counted before this one
    learns: BoolArray  # (L,)
    unseen: BoolArray  # (L,) of a sensor that the model was not trained on
    old: npt.NDArray[np.intp]  # positions of the lanes that had a value of their own MEMORY_DELAY readings ago


def features(arrays: Columns, on: Lanes, x: Array, then: Array, errors: Array, valid: BoolArray, targets: int) -> Array:
    """The features of present lanes, (FEATURES, L), and the lanes' running state moved on.

    x (L,): scaled values; then (L,): those of MEMORY_DELAY readings ago; errors, valid (horizons, L): forecast errors
    in x, and whether that forecast was made across no gap.
    """
    lane, tally = flat(arrays.lane), flat(arrays.tally)
    state = np.ascontiguousarray(lane[on.lanes].T)  # (columns of Lane, L)
    memory = tally[on.lanes, Tally.SEEN]
    out = np.empty((FEATURES, len(x)), np.float32)
    one_step = np.where(valid[0], errors[0], np.float32(0))
    size = np.abs(one_step)
    out[0] = size
    out[1] = no_horizon(errors, valid)
    out[2] = bias(state, one_step)
    usual = np.exp(state[Lane.LOG_ERROR])
    # one channel is judged by ranks, which bound what a lasting miss can say; who is unseen has no usual error yet
    leeway = np.where(on.unseen | (targets == 1), np.float32(0), usual)
    follow_offset(state, one_step, leeway)
    _move_contexts(state, on, x, then)
    out[3] = new_value(arrays, on, memory, x, then)
    out[4] = new_pattern(arrays, on, state, memory, x, then) if targets == 1 else lasting_error(state, size)
    out[5] = scaled_error(state, size, usual, memory, valid[0])
    out[6] = out_of_range(state, x, leeway)
    lane[on.lanes] = state.T
    tally[on.lanes, Tally.SEEN] = memory + 1
    return out


def no_horizon(errors: Array, valid: BoolArray) -> Array:
    """The smallest |error| of all horizons: no forecast, however old, expected this value."""
    smallest: Array = np.abs(np.where(valid, errors, np.float32(np.inf))).min(axis=0)
    return np.where(valid[0], smallest, np.float32(0))


def bias(state: Array, one_step: Array) -> Array:
    """|EWMA of the signed error|: forecasts that keep missing to one side.

    Roberts, "Control chart tests based on geometric moving averages", 1959.
    """
    state[Lane.BIAS] += BIAS_RATE * (one_step - state[Lane.BIAS])
    lasting: Array = np.abs(state[Lane.BIAS])
    return lasting


def follow_offset(state: Array, one_step: Array, leeway: Array) -> None:
    """Move what the next forecasts are corrected by towards their error, which counts as `leeway` at most.

    Wear carries a sensor away from where its network was trained, and the network then misses by nearly the same
    amount at every reading. Clements & Hendry, "Intercept corrections and structural change", 1996, with the error
    bounded as by Huber, "Robust estimation of a location parameter", 1964.
    """
    state[Lane.OFFSET] += OFFSET_RATE * np.minimum(np.maximum(one_step, -leeway), leeway)


def lasting_error(state: Array, size: Array) -> Array:
    """EWMA of |error|: forecasts that keep missing to either side, as under new noise or another frequency.

    MacGregor & Harris, "The exponentially weighted moving variance", 1993, of the size instead of the square.
    """
    state[Lane.LASTING] += LASTING_RATE * (size - state[Lane.LASTING])
    now: Array = state[Lane.LASTING].copy()
    return now


def scaled_error(state: Array, size: Array, usual: Array, memory: npt.NDArray[np.int32], valid: BoolArray) -> Array:
    """EWMA of |error| over the lane's own usual error, which follows the 95 % quantile of |error| in its logarithm.

    Robbins & Monro, "A stochastic approximation method", 1951.
    """
    ratio = np.minimum(size / usual, LARGEST_SCALED_ERROR)
    state[Lane.SCALED] += LASTING_RATE * (ratio - state[Lane.SCALED])
    early = np.maximum(20 / (memory + 20), SCALE_STEP).astype(np.float32)
    pace = np.where(memory < SCALE_SETTLED, early, SCALE_STEP)
    step = pace * ((size > usual).astype(np.float32) - SCALE_SHARE)
    state[Lane.LOG_ERROR] = np.maximum(state[Lane.LOG_ERROR] + np.where(valid, step, 0), SMALLEST_LOG_ERROR)
    now: Array = state[Lane.SCALED].copy()
    return now


def out_of_range(state: Array, x: Array, leeway: Array) -> Array:
    """EWMA of how far the values lie beyond the range that training saw; the range gives way slowly, as to drift.

    Values within `leeway` of the range are within it.
    """
    outside = np.maximum(np.maximum(x - state[Lane.HIGH], state[Lane.LOW] - x) - leeway, np.float32(0))
    state[Lane.BEYOND] += BEYOND_RATE * (outside - state[Lane.BEYOND])
    state[Lane.HIGH] += ACCEPT_RATE * np.maximum(x - state[Lane.HIGH], np.float32(0))
    state[Lane.LOW] -= ACCEPT_RATE * np.maximum(state[Lane.LOW] - x, np.float32(0))
    now: Array = state[Lane.BEYOND].copy()
    return now


def new_value(arrays: Columns, on: Lanes, memory: npt.NDArray[np.int32], x: Array, then: Array) -> Array:
    """Distance of asinh(x) to the nearest value that the lane has ever had: nearest-neighbour novelty on a bitmap.

    Knorr & Ng, "Algorithms for mining distance-based outliers", 1998.
    """
    known, old = flat(arrays.known), on.old
    novelty.remember_values(known, on.lanes[old], novelty.value_bins(np.arcsinh(then[old])))
    distance = novelty.distance_to_known(known, on.lanes, novelty.value_bins(np.arcsinh(x)))
    return np.where(_speaks(on, memory), distance, np.float32(0))


def new_pattern(
    arrays: Columns, on: Lanes, state: Array, memory: npt.NDArray[np.int32], x: Array, then: Array
) -> Array:
    """Distance of (value, its means over 3, 12, 48 readings) to the nearest prototype of what the lane has known.

    Leader clustering, Hartigan, "Clustering Algorithms", 1975, ch. 3. For one channel only: among many, the memory
    that each could have is too small to say more than noise.
    """
    prototypes, hits, tally = flat(arrays.prototypes), flat(arrays.hits), flat(arrays.tally)
    old, seen = on.old, on.seen
    context = np.arcsinh(np.stack([x, *state[Lane.MEAN : Lane.MEAN + 3]]))
    steps = novelty.quantised(context)
    apart, nearest = novelty.nearest_prototype(prototypes[on.lanes], steps)
    clock = (memory & 0xFFFF).astype(np.uint16)
    hits[on.lanes, nearest] = clock
    # only what was new at its own time can be new now: one bit a reading spares the second search
    bits = tally[on.lanes, Tally.NOVEL_BITS].view(np.uint32)
    bit = np.left_shift(np.uint32(1), (seen & 31).astype(np.uint32))
    was_new = old[(bits[old] & bit[old]) != 0]
    if len(was_new):
        late = np.arcsinh(np.stack([then[was_new], *state[Lane.MEAN_THEN : Lane.MEAN_THEN + 3, was_new]]))
        novelty.remember_contexts(prototypes, hits, on.lanes[was_new], novelty.quantised(late), clock[was_new])
    is_new = apart > novelty.LEADER_RADIUS
    tally[on.lanes, Tally.NOVEL_BITS] = np.where(is_new, bits | bit, bits & ~bit).view(np.int32)
    pattern = apart.astype(np.float32) * np.float32(novelty.BIN_WIDTH)
    return np.where(_speaks(on, memory), pattern, np.float32(0))


def _move_contexts(state: Array, on: Lanes, x: Array, then: Array) -> None:
    """The means over 3, 12 and 48 readings, now and as they were MEMORY_DELAY readings ago."""
    old, seen = on.old, on.seen
    for j, rate in enumerate(CONTEXT_RATES):
        now = np.maximum(rate, (1 / (seen + 1)).astype(np.float32))
        state[Lane.MEAN + j] += now * (x - state[Lane.MEAN + j])
        late = np.maximum(rate, (1 / (seen[old] - novelty.MEMORY_DELAY + 1)).astype(np.float32))
        state[Lane.MEAN_THEN + j, old] += late * (then[old] - state[Lane.MEAN_THEN + j, old])


def _speaks(on: Lanes, memory: npt.NDArray[np.int32]) -> BoolArray:
    speaks: BoolArray = (memory >= novelty.SILENT_UNTIL) & (on.seen >= novelty.MEMORY_DELAY)
    return speaks
