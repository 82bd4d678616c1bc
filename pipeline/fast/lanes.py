"""What is looked at in one channel of a reading: `core.features` for one lane.

The running state moves in the scratch; the table's is replaced once it is certain that this form takes the reading in.
"""

from __future__ import annotations

import numpy as np

from pipeline.core.engine import TRUST_RATE
from pipeline.core.features import (
    ACCEPT_RATE,
    BEYOND_RATE,
    BIAS_RATE,
    CONTEXT_RATES,
    LARGEST_SCALED_ERROR,
    LASTING_RATE,
    OFFSET_RATE,
    SCALE_SETTLED,
    SCALE_SHARE,
    SCALE_STEP,
    SMALLEST_LOG_ERROR,
)  # fmt: skip
from pipeline.core.model import Array
from pipeline.core.novelty import LEADER_RADIUS, MEMORY_DELAY, SILENT_UNTIL
from pipeline.fast import memory
from pipeline.fast.compile import compiled
from pipeline.fast.network import squash
from pipeline.fast.state import (
    BIAS,
    CORRECTION,
    HIGH,
    LASTING,
    LOG_ERROR,
    LOW,
    MEAN,
    MEAN_THEN,
    MOVED,
    NOVEL_BITS,
    OUTSIDE,
    SCALED,
    SHOWN,
    STEP,
    STEPPED,
    Scratch,
    Table,
)  # fmt: skip

ZERO, ONE = np.float32(0), np.float32(1)


@compiled
def earn(lane: Array, x: np.float32, before: np.float32) -> None:
    """As `core.engine._earn`: compare the step that was forecast with the one that came."""
    step, moved = lane[STEP], squash(x) - squash(before)
    lane[MOVED] += TRUST_RATE * (step * moved - lane[MOVED])
    lane[STEPPED] += TRUST_RATE * (step * step - lane[STEPPED])


@compiled
def look(
    table: Table, row: int, t: int, x: np.float32, then: np.float32, seen: int, unseen: bool, scratch: Scratch
) -> None:
    """Leave the features of target `t` in `scratch.features`, and its running state moved on in `scratch.lane`."""
    lane, out, errors, made = scratch.lane[t], scratch.features, scratch.errors, scratch.made
    shown = table.tally[row, t, SHOWN]
    one_step = errors[0, t] if made[0] else ZERO
    size = abs(one_step)
    out[0, t] = size
    smallest = size
    for h in range(1, len(made)):
        if made[h]:
            smallest = min(smallest, abs(errors[h, t]))
    out[1, t] = smallest if made[0] else ZERO
    lane[BIAS] += BIAS_RATE * (one_step - lane[BIAS])
    out[2, t] = abs(lane[BIAS])
    usual = np.exp(lane[LOG_ERROR])
    leeway = ZERO if unseen or scratch.lane.shape[0] == 1 else usual
    lane[CORRECTION] += OFFSET_RATE * min(max(one_step, -leeway), leeway)
    speaks = shown >= SILENT_UNTIL and seen >= MEMORY_DELAY
    fresh = memory.value_bin(np.arcsinh(then)) if scratch.came[t] else -1
    where = memory.value_bin(np.arcsinh(x))
    out[3, t] = memory.distance_to_known(table.known[row, t], where, fresh) if speaks else ZERO
    if scratch.lane.shape[0] == 1:
        means(lane, x, then, seen, scratch.came[t])
        memory.quantise(scratch.context, x, lane[MEAN : MEAN + 3])
        nearest = memory.nearest_prototype(table.prototypes[row, t], scratch.context, scratch.apart)
        scratch.nearest[0], scratch.nearest[1] = nearest, scratch.apart[nearest]
        out[4, t] = np.float32(scratch.apart[nearest]) * memory.WIDTH if speaks else ZERO
    else:
        lane[LASTING] += LASTING_RATE * (size - lane[LASTING])
        out[4, t] = lane[LASTING]
    out[5, t] = scaled_error(lane, size, usual, shown, made[0])
    out[6, t] = out_of_range(lane, x, leeway)


@compiled
def means(lane: Array, x: np.float32, then: np.float32, seen: int, came: bool) -> None:
    """The means over 3, 12 and 48 readings, now and as they were MEMORY_DELAY readings ago."""
    for j in range(3):
        rate = max(CONTEXT_RATES[j], np.float32(1 / (seen + 1)))
        lane[MEAN + j] += rate * (x - lane[MEAN + j])
        if came:
            rate = max(CONTEXT_RATES[j], np.float32(1 / (seen - MEMORY_DELAY + 1)))
            lane[MEAN_THEN + j] += rate * (then - lane[MEAN_THEN + j])


@compiled
def scaled_error(lane: Array, size: np.float32, usual: np.float32, shown: int, made: bool) -> np.float32:
    """EWMA of |error| over the lane's usual error, which follows."""
    ratio = min(size / usual, LARGEST_SCALED_ERROR)
    lane[SCALED] += LASTING_RATE * (ratio - lane[SCALED])
    pace = max(np.float32(20 / (shown + 20)), SCALE_STEP) if shown < SCALE_SETTLED else SCALE_STEP
    step = pace * ((ONE if size > usual else ZERO) - SCALE_SHARE)
    lane[LOG_ERROR] = max(lane[LOG_ERROR] + (step if made else ZERO), SMALLEST_LOG_ERROR)
    return np.float32(lane[SCALED])


@compiled
def out_of_range(lane: Array, x: np.float32, leeway: np.float32) -> np.float32:
    """EWMA of how far the values lie beyond the range, by more than `leeway`; the range gives way slowly."""
    above, below = max(x - lane[HIGH], ZERO), max(lane[LOW] - x, ZERO)
    lane[OUTSIDE] += BEYOND_RATE * (max(max(above, below) - leeway, ZERO) - lane[OUTSIDE])
    lane[HIGH] += ACCEPT_RATE * above
    lane[LOW] -= ACCEPT_RATE * below
    return np.float32(lane[OUTSIDE])


@compiled
def keep(table: Table, row: int, t: int, then: np.float32, seen: int, scratch: Scratch) -> None:
    """Let the memories of target `t`, and the table, take in what `look` saw."""
    lane, tally = scratch.lane[t], table.tally[row, t]
    for k in range(len(lane)):
        table.lane[row, t, k] = lane[k]
    if scratch.came[t]:
        fresh = memory.value_bin(np.arcsinh(then))
        table.known[row, t, fresh >> 5] |= np.uint32(1) << np.uint32(fresh & 31)
    if scratch.lane.shape[0] == 1:
        now = np.uint16(tally[SHOWN] & 0xFFFF)
        table.hits[row, t, scratch.nearest[0]] = now
        bit = np.uint32(1) << np.uint32(seen & 31)
        bits = np.uint32(tally[NOVEL_BITS])
        if scratch.came[t] and bits & bit != 0:
            memory.quantise(scratch.context, then, lane[MEAN_THEN : MEAN_THEN + 3])
            memory.remember_context(table.prototypes[row, t], table.hits[row, t], scratch.context, now, scratch.apart)
        bits = bits | bit if scratch.nearest[1] > LEADER_RADIUS else bits & ~bit
        tally[NOVEL_BITS] = np.int32(bits)
    tally[SHOWN] += 1
