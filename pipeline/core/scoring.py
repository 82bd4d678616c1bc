"""Forecast errors and novelty of one reading, turned into tail probabilities and one score.

Every feature is taken against what was known before the reading; only then is the reading learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.core import novelty, tails
from pipeline.core.model import Array
from pipeline.core.readings import BoolArray, FloatArray
from pipeline.core.table import BLOCKS, FEATURES, Columns, Lane, Tally

# one-step error, no horizon expected it, lasting one-step error, new value, new pattern, scaled error, out of range
WEIGHTS = np.array([1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4, 1 / 2, 1 / 10], np.float32) / np.float32(1.6)
CONTEXT_RATES = (1 - np.exp(-1 / np.array([3.0, 12.0, 48.0]))).astype(np.float32)
SIGNED_RATE = np.float32(1 - np.exp(-1 / 12))
SCALED_RATE, BEYOND_RATE = np.float32(0.1), np.float32(0.02)
LOUDEST = 2.0  # over the channels: the share of the loudest; a mean alone drowns one channel's fault in a few others
SCALE_STEP, SCALE_SHARE = 0.003, np.float32(0.05)  # a tracker of the 95 % quantile of |error|, in its logarithm
SMALLEST_LOG_ERROR = np.float32(np.log(0.01))
LARGEST_SCALED_ERROR = np.float32(50.0)

BLOCK_READINGS = 50  # an episode is scored by the largest value of so many readings
BLOCK_DELAY = 4  # blocks: 200 readings, the longest an episode stays open
PRIOR_BLOCKS = 20
USUAL, EXCESS, LEAST_EXCESS = 1.05, 0.2, 0.05  # of block maxima, where nothing is known of the group


Scalar = TypeVar("Scalar", bound=np.generic)


class Lanes(NamedTuple):
    """The present channels of a round, flattened: `at` indexes (sensor, target), `lanes` the table's lanes."""

    at: npt.NDArray[np.intp]  # (L,) into the flattened (n, targets)
    lanes: npt.NDArray[np.intp]  # (L,) into the flattened (rows, targets)
    seen: npt.NDArray[np.int64]  # (L,) readings of the sensor before this one
    learned: npt.NDArray[np.int32]  # (L,) readings counted before this one
    learns: BoolArray  # (L,)


def flat(array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """(rows, targets, ...) as (lanes, ...), a view."""
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def features(arrays: Columns, on: Lanes, x: Array, then: Array, errors: Array, valid: BoolArray) -> Array:
    """The features of present lanes, (FEATURES, L), and the lanes' running state moved on.

    x (L,): scaled values; then (L,): those of MEMORY_DELAY readings ago; errors, valid (horizons, L): forecast errors
    in x, and whether that forecast was made across no gap.
    """
    lane = flat(arrays.lane)
    tally = flat(arrays.tally)
    state = np.ascontiguousarray(lane[on.lanes].T)  # (12, L)
    memory = tally[on.lanes, Tally.SEEN]
    out = np.zeros((FEATURES, len(x)), np.float32)

    one_step = np.where(valid[0], errors[0], np.float32(0))
    size = np.abs(one_step)
    out[0] = size
    smallest = np.abs(np.where(valid, errors, np.float32(np.inf))).min(axis=0)
    out[1] = np.where(valid[0], smallest, np.float32(0))
    state[Lane.SIGNED] += SIGNED_RATE * (one_step - state[Lane.SIGNED])
    out[2] = np.abs(state[Lane.SIGNED])

    out[3], out[4] = _novelty(arrays, on, state, tally, memory, x, then)

    usual = np.exp(state[Lane.LOG_ERROR])
    ratio = np.minimum(size / usual, LARGEST_SCALED_ERROR)
    state[Lane.SCALED] += SCALED_RATE * (ratio - state[Lane.SCALED])
    out[5] = state[Lane.SCALED]
    pace = np.maximum(SCALE_STEP, 20 / (memory + 20)).astype(np.float32)  # fast at first: a new lane knows no scale
    drift = pace * ((size > usual).astype(np.float32) - SCALE_SHARE)
    state[Lane.LOG_ERROR] = np.maximum(state[Lane.LOG_ERROR] + np.where(valid[0], drift, 0), SMALLEST_LOG_ERROR)

    outside = np.maximum(np.maximum(x - state[Lane.HIGH], state[Lane.LOW] - x), np.float32(0))
    state[Lane.BEYOND] += BEYOND_RATE * (outside - state[Lane.BEYOND])
    out[6] = state[Lane.BEYOND]

    lane[on.lanes] = state.T
    tally[on.lanes, Tally.SEEN] = memory + 1
    return out


def _novelty(
    arrays: Columns,
    on: Lanes,
    state: Array,
    tally: npt.NDArray[np.int32],
    memory: npt.NDArray[np.int32],
    x: Array,
    then: Array,
) -> tuple[Array, Array]:
    """Distance of the value, and of (value, its means over 3, 12, 48), to what the lane has known."""
    known, prototypes, hits = flat(arrays.known), flat(arrays.prototypes), flat(arrays.hits)
    seen = on.seen
    for j, rate in enumerate(CONTEXT_RATES):
        now = np.maximum(rate, (1 / (seen + 1)).astype(np.float32))
        state[Lane.MEAN + j] += now * (x - state[Lane.MEAN + j])
    old = np.flatnonzero(seen >= novelty.MEMORY_DELAY)
    for j, rate in enumerate(CONTEXT_RATES):
        late = np.maximum(rate, (1 / (seen[old] - novelty.MEMORY_DELAY + 1)).astype(np.float32))
        state[Lane.MEAN_THEN + j, old] += late * (then[old] - state[Lane.MEAN_THEN + j, old])
    context = np.arcsinh(np.stack([x, *state[Lane.MEAN : Lane.MEAN + 3]]))
    novelty.remember_values(known, on.lanes[old], novelty.value_bins(np.arcsinh(then[old])))
    value = novelty.distance_to_known(known, on.lanes, novelty.value_bins(context[0]))

    steps = novelty.quantised(context)
    apart, nearest = novelty.nearest_prototype(prototypes[on.lanes], steps)
    clock = (memory & 0xFFFF).astype(np.uint16)
    hits[on.lanes, nearest] = clock
    # only what was new at its own time can be new now: one bit a reading spares the second search
    bit = np.left_shift(np.uint32(1), (seen & 31).astype(np.uint32))
    bits = tally[on.lanes, Tally.NOVEL_BITS].view(np.uint32)
    was_new = old[(bits[old] & bit[old]) != 0]
    if len(was_new):
        late_context = np.arcsinh(np.stack([then[was_new], *state[Lane.MEAN_THEN : Lane.MEAN_THEN + 3, was_new]]))
        novelty.remember_contexts(prototypes, hits, on.lanes[was_new], novelty.quantised(late_context), clock[was_new])
    is_new = apart > novelty.LEADER_RADIUS
    tally[on.lanes, Tally.NOVEL_BITS] = np.where(is_new, bits | bit, bits & ~bit).view(np.int32)

    speaks = (memory >= novelty.SILENT_UNTIL) & (seen >= novelty.MEMORY_DELAY)
    pattern = apart.astype(np.float32) * np.float32(novelty.BIN_WIDTH)
    return np.where(speaks, value, np.float32(0)), np.where(speaks, pattern, np.float32(0))


def combine(arrays: Columns, on: Lanes, values: Array, sensors: int, targets: int) -> tuple[Array, Array]:
    """The surprise of each sensor (n,), the mean of its channels and its loudest, and of each (n, targets).

    The lanes that learn are counted afterwards.
    """
    where = tails.bins(values)
    rank = tails.surprise(flat(arrays.tail), on.lanes, values, where, targets)
    voice = np.zeros(len(on.lanes), np.float32)
    for f in range(FEATURES):
        voice += WEIGHTS[f] * rank[f]
    each = np.zeros(sensors * targets, np.float32)
    each[on.at] = voice
    voices = each.reshape(sensors, targets)
    total, loudest = np.zeros(sensors, np.float32), np.zeros(sensors, np.float32)
    for c in range(targets):  # in a fixed order: a pairwise sum would depend on the batch
        total += voices[:, c]
        loudest = np.maximum(loudest, voices[:, c])
    learns = np.flatnonzero(on.learns)
    tails.count(
        flat(arrays.tail), flat(arrays.pending), on.lanes[learns], where[:, learns], on.learned[learns], targets
    )
    present = np.maximum(np.bincount(on.at // targets, minlength=sensors), 1).astype(np.float32)
    share = np.float32(min(LOUDEST / targets, 0.5))
    return (1 - share) * total / present + share * loudest, voices


def score(surprise: Array, usual: Array, excess: Array) -> FloatArray:
    """-log10 of the false episodes expected per reading at this combined surprise (n,).

    Block maxima of the surprise exceed their median as an exponential with mean `excess`; the median itself is reached
    once in 2 * BLOCK_READINGS.
    """
    past = (surprise.astype(np.float64) - usual) / excess
    expected: FloatArray = np.log10(2.0 * BLOCK_READINGS) + past * np.log10(np.e)
    return expected


def episode_calibration(blocks: Array, prior: Sequence[float] = (USUAL, EXCESS)) -> tuple[Array, Array]:
    """Median and mean excess of block maxima (n, BLOCKS, NaN where absent), shrunk to the prior by PRIOR_BLOCKS blocks.

    The excess is read off the 90 % quantile, which a few warm-up transients cannot move as they would a mean.
    """
    ordered = np.sort(blocks, axis=1)  # NaN last
    present = np.isfinite(blocks).sum(axis=1)
    rows = np.arange(len(blocks))
    last = np.maximum(present - 1, 0)
    median = np.where(present > 0, ordered[rows, np.minimum(present // 2, last)], 0)
    high = np.where(present > 0, ordered[rows, np.minimum((present * 9) // 10, last)], 0)
    weight = present + PRIOR_BLOCKS
    usual = (present * median + PRIOR_BLOCKS * prior[0]) / weight
    excess = (present * (high - median) / np.log(5) + PRIOR_BLOCKS * prior[1]) / weight
    return usual.astype(np.float32), np.maximum(excess, LEAST_EXCESS).astype(np.float32)


def entered_blocks(blocks: Array, written: npt.NDArray[np.int32]) -> Array:
    """The block maxima that are old enough to count: all but the last BLOCK_DELAY of a ring written `written` times."""
    age = (written[:, None] - 1 - np.arange(BLOCKS)) % BLOCKS
    return np.where(age >= BLOCK_DELAY, blocks, np.float32(np.nan))
